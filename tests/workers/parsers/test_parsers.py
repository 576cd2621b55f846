"""Parsers: their own examples, that they claim nothing of other lines, and that no line takes them long."""

from __future__ import annotations

import copy
import gc
import re
import textwrap
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import logweir_workers.parsers
from logweir.event import DETAILS, Kind
from logweir_workers.normalise.fields import Context, normalise
from logweir_workers.parsers import (
    ANY,
    FIELDS_MAX,
    VALUE_LENGTH_MAX,
    Example,
    Parser,
    Parsers,
    as_event,
    built_in,
    line_parser,
)
from tests.proof import size
from tests.workers.parsers.chosen_lines import CHOSEN
from tests.workers.parsers.chosen_lines import LINES as LINES_CHOSEN
from tests.workers.parsers.hostile_lines import PIECES, hostile
from tests.workers.parsers.other_lines import other_lines

CONTEXT = Context(1_767_614_400_000_000, "web")
PARSERS = built_in()
ALL = Parsers(PARSERS)
FOLDER = Path(__file__).parents[2] / "golden" / "parsers"
EXAMPLES = [(each, example) for each in PARSERS for example in each.examples]
LINES = [(each, example[0]) for each, example in EXAMPLES if isinstance(example[0], str)]
PROCESSES = sorted({process for each in PARSERS for process in each.processes})


def parsed(sent: dict[str, Any], parsers: Parsers = ALL) -> tuple[dict[str, Any], list[str]]:
    """The details that the parsers add to an event as it was sent, and the names of those that understood it."""
    event = normalise(sent, CONTEXT)
    before = copy.deepcopy(event)
    understood = parsers.parse(event)
    replaced = {name for each in understood for name in each.replaces}
    details, after = before.pop("details", {}), event.pop("details", {})
    assert event == before
    assert {name: after.get(name) for name in details if name not in replaced} == {
        name: value for name, value in details.items() if name not in replaced
    }, "a parser changed what was there"
    added = {name: value for name, value in after.items() if name not in details or details[name] != value}
    return added, [each.name for each in understood]


@pytest.mark.parametrize(("parser", "example"), EXAMPLES, ids=lambda value: getattr(value, "name", ""))
def test_example_of_a_parser_holds(parser: Parser, example: Example) -> None:
    """Each file's examples are its tests: the details of the line, of the right types, and nothing else."""
    sent, details = example

    added, understood = parsed(as_event(parser, sent))

    assert added == details
    assert {name: type(value) for name, value in added.items()} == {name: type(details[name]) for name in details}
    assert not details or understood[-1] == parser.name
    assert ANY in parser.adds or set(details) <= set(parser.adds)


def test_every_file_of_the_folder_is_a_parser() -> None:
    """Each has lines that it understands, lines that it leaves untouched, and a place where it is looked up."""
    folder = Path(logweir_workers.parsers.__file__).parent

    assert {path.stem for path in folder.glob("[!_]*.py")} == {each.name for each in PARSERS}
    for each in PARSERS:
        assert any(details for _, details in each.examples), each.name
        assert any(not details for _, details in each.examples), each.name
        assert each.processes or each.categories or each.begins or each.marks, each.name
        assert all(len(begin) == 1 or len(begin) >= 4 for begin in each.begins), each.name


def test_every_declared_detail_is_shown_in_an_example() -> None:
    """What a parser says that it adds, it adds."""
    for each in PARSERS:
        shown = {name for _, details in each.examples for name in details}
        assert ANY in each.adds or set(each.adds) == shown, each.name


@pytest.mark.parametrize("parser", [each for each in PARSERS if not each.of_events], ids=lambda each: each.name)
def test_no_parser_claims_a_line_of_another_kind(parser: Parser) -> None:
    """A thousand lines, each shown to the parser itself: a wrong process name makes no false field."""
    claimed = [line for line in other_lines() if parser.parse(line)]

    assert claimed == []


@pytest.mark.parametrize("process", [None, *PROCESSES])
def test_no_false_field_whatever_the_process(process: str | None) -> None:
    """The same through the look-up, with each process name that a parser is for."""
    for line in other_lines(count=200, seed=7):
        sent = {"summary": line, **({"processname": process} if process else {})}
        assert parsed(sent) == ({}, []), line


def test_no_parser_claims_the_lines_of_another_parser() -> None:
    """What one understands, the others leave untouched, but for those that read any pairs or objects."""
    claimed = {
        (other.name, line)
        for parser, line in LINES
        for other in PARSERS
        if other is not parser and not other.of_events and not other.is_free and other.parse(line)
    }

    assert claimed == set()


GOLDEN = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in sorted(FOLDER.glob("*.jsonl"))}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_lines_are_read_as_their_file_says(name: str) -> None:
    """More lines of each kind, from the formats' documentation and as public samples have them."""
    (parser,) = [each for each in PARSERS if each.name == name]
    for line in GOLDEN[name]:
        golden = orjson.loads(line)

        added, understood = parsed(as_event(parser, golden["sent"]))

        assert added == golden["details"], golden["sent"]
        assert understood[-1:] == [name]


def test_there_are_twenty_lines_of_each_kind() -> None:
    """That a parser understands: its own examples and the golden ones."""
    counts = {
        each.name: sum(bool(details) for _, details in each.examples) + len(GOLDEN.get(each.name, ()))
        for each in PARSERS
    }

    assert {name: count for name, count in counts.items() if count < 20} == {}
    assert set(GOLDEN) <= set(counts)


@pytest.mark.parametrize(("process", "line"), LINES_CHOSEN, ids=lambda value: value[:40])
def test_what_a_client_writes_is_never_taken_for_what_the_program_says(process: str, line: str) -> None:
    """Who can choose a name or a path cannot choose the address, the user or the command of the event."""
    added, _ = parsed({"processname": process, "summary": line})

    assert CHOSEN not in [value for name, value in added.items() if name != "reason"]


def test_lines_with_a_clients_words_are_understood_all_the_same() -> None:
    """Most of them: what is not in doubt is still said."""
    understood = [parsed({"processname": process, "summary": line})[1] for process, line in LINES_CHOSEN]

    assert sum(map(bool, understood)) > len(LINES_CHOSEN) / 2


# --- every line -----------------------------------------------------------------------------------------------------


def check(event: dict[str, Any]) -> None:
    """What every event that went through the parsers has to keep to, whatever it was."""
    details = event.get("details", {})
    assert len(details) <= FIELDS_MAX + 1
    assert orjson.loads(orjson.dumps(event)) == event
    for name, value in details.items():
        assert len(name) <= 200
        assert type(value) is not str or len(value) <= VALUE_LENGTH_MAX


_pieces = st.sampled_from(
    [line for _, line in LINES]
    + [" ", "=", '"', "'", "\\", " from ", " port ", "[", "]", "{", "}", ": ", "\x00", "1", "é"]
)
_line = st.lists(_pieces | st.text(max_size=8), max_size=5).map("".join)


@given(_line, st.sampled_from([None, "CRON", "postfix/smtpd", "/usr/sbin/sshd", "Sudo[77]", *PROCESSES]))
def test_no_line_breaks_a_parser(line: str, process: str | None) -> None:
    """Nothing raises, the bounds hold, what was there stays, and the same line gives the same again."""
    sent = {"summary": line, "details": {"username": "mine"}, **({"processname": process} if process else {})}

    added, understood = parsed(sent)

    assert (added, understood) == parsed(sent)
    assert "username" not in added
    check({"details": added})


@given(st.text(max_size=200))
def test_no_text_breaks_any_parser(text: str) -> None:
    """Each parser is shown each text, whether the look-up would choose it or not."""
    for each in PARSERS:
        if not each.of_events:
            each.parse(text)


_name = st.sampled_from(
    sorted({mark for each in PARSERS for mark in each.marks} | {"detail", "eventName", "userIdentity"})
)
_value = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_name | st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_name | st.text(max_size=5), _value, max_size=6), st.sampled_from([None, "audisp-json"]))
def test_no_object_breaks_a_parser(details: dict[str, Any], process: str | None) -> None:
    """Objects of any form under the names that parsers look for."""
    added, _ = parsed({"details": details, **({"processname": process} if process else {})})

    check({"details": added})


@given(st.sampled_from([sent for _, (sent, _) in EXAMPLES if not isinstance(sent, str)]), st.data())
def test_no_bent_example_breaks_a_parser(sent: dict[str, Any], data: st.DataObject) -> None:
    """A sender's object in which one member is something else."""
    bent = copy.deepcopy(dict(sent))
    holder, name = bent, data.draw(st.sampled_from(sorted(bent)))
    while type(holder[name]) is dict and holder[name] and data.draw(st.booleans()):
        holder, name = holder[name], data.draw(st.sampled_from(sorted(holder[name])))
    holder[name] = data.draw(_value)

    added, _ = parsed(bent)

    check({"details": added})


@pytest.mark.sized
@pytest.mark.parametrize("name", PIECES)
def test_hostile_line_takes_time_in_proportion_to_its_length(name: str) -> None:
    """Eight times the length takes about eight times as long, not sixty-four."""
    length = size(200_000, 1_000_000)

    def spent_s(length: int) -> float:
        line = hostile(name, length)
        best = float("inf")
        gc.collect()
        for _ in range(3):
            began_s = time.process_time()
            for each in PARSERS:
                if not each.of_events:
                    each.parse(line)
            best = min(best, time.process_time() - began_s)
        return best

    small_s, large_s = spent_s(length // 8), spent_s(length)

    assert large_s < 8 * 3 * small_s + 0.05, (small_s, large_s)


@pytest.mark.parametrize("name", PIECES)
def test_hostile_line_adds_a_bounded_number_of_bounded_details(name: str) -> None:
    """Ten thousand pairs are a hundred details; a long value is none."""
    for process in [None, *PROCESSES]:
        sent = {"summary": hostile(name, 40_000), **({"processname": process} if process else {})}
        added, _ = parsed(sent)
        check({"details": added})


# --- the look-up ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", ["sshd", "SSHD", "sshd[77]", "/usr/sbin/sshd", "sshd-session", "sshd:"])
def test_process_is_known_in_every_spelling(process: str) -> None:
    """Senders that do not take the number or the folder off are understood, too."""
    added, understood = parsed({"processname": process, "summary": "Invalid user a from 192.0.2.7 port 1"})

    assert understood == ["sshd"]
    assert added["username"] == "a"


def test_line_of_a_parser_from_another_process_is_left_alone() -> None:
    """Who writes like sshd is not sshd."""
    line = "Failed password for root from 192.0.2.7 port 4242 ssh2"

    assert parsed({"processname": "app", "summary": line}) == ({}, [])
    assert parsed({"summary": line}) == ({}, [])


def test_access_line_is_known_by_its_shape_and_by_its_category() -> None:
    """A log file that is sent line by line has no process."""
    line = '{} - - [31/Jan/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5'

    assert parsed({"summary": line.format("192.0.2.7")})[1] == ["access"]
    assert parsed({"summary": line.format("client")}) == ({}, [])
    assert parsed({"summary": line.format("client"), "category": "Nginx"})[1] == ["access"]


def test_object_in_a_message_is_shown_to_the_parsers_of_objects() -> None:
    """CloudTrail's record as the text of a syslog message is still CloudTrail's record."""
    (record,) = [example[0] for parser, example in EXAMPLES if parser.name == "cloudtrail"][:1]
    line = orjson.dumps(record).decode()

    added, understood = parsed({"processname": "fluentd", "summary": line})

    assert understood == ["json_message", "cloudtrail"]
    assert (added["action"], added["username"], added["sourceipaddress"]) == ("CreateUser", "alice", "192.0.2.7")


def test_repeated_message_is_read_once_with_its_count() -> None:
    """rsyslog puts equal messages together."""
    line = "message repeated 3 times: [ Failed password for root from 192.0.2.7 port 4242 ssh2]"

    added, understood = parsed({"processname": "sshd", "summary": line})

    assert understood == ["sshd"]
    assert (added["repeated"], added["username"], added["outcome"]) == (3, "root", "failure")


def test_what_the_sender_says_stays() -> None:
    """A parser adds; what is there is the sender's word."""
    sent = {"processname": "sshd", "summary": "Invalid user a from 192.0.2.7", "details": {"user": "b", "src": "x"}}

    added, _ = parsed(sent)

    assert added == {"action": "invalid_user", "outcome": "failure", "sourceipaddress": "192.0.2.7"}


def test_first_parser_of_a_kind_that_understands_is_taken() -> None:
    """So an operator's own parser comes before ours, and ours still reads what his does not."""

    @line_parser(processes=("sshd",), adds=("action",), examples=())
    def mine(line: str) -> dict[str, Any] | None:
        return {"action": "greeted"} if line == "hello" else None

    parsers = Parsers((mine, *PARSERS))

    assert parsed({"processname": "sshd", "summary": "hello"}, parsers) == ({"action": "greeted"}, ["mine"])
    assert parsed({"processname": "sshd", "summary": "Invalid user a from 192.0.2.7"}, parsers)[1] == ["sshd"]


def test_known_details_take_their_types_and_what_does_not_fit_is_left_out() -> None:
    """A parser gives text as it stands in the line."""

    @line_parser(begins=("x",), adds=("sourceipaddress", "status", "username", "note"), examples=())
    def sloppy(_line: str) -> dict[str, Any]:
        return {
            "sourceipaddress": "2001:DB8::7",
            "status": "ok",
            "bytes": "12",
            "username": "-",
            "path": "",
            "note": "n" * (VALUE_LENGTH_MAX + 1),
            "duration": None,
        }

    assert parsed({"summary": "x"}, Parsers((sloppy,)))[0] == {"sourceipaddress": "2001:db8::7", "bytes": 12}


def test_kinds_of_the_examples_are_those_of_the_table() -> None:
    """No example shows a known detail with a value of another type."""
    types = {Kind.IP: str, Kind.KEYWORD: str, Kind.NUMBER: int, Kind.FLOAT: (int, float)}
    kinds = {field.name.removeprefix("details."): types[field.kind] for field in DETAILS}

    for parser, (_, details) in EXAMPLES:
        if not parser.is_free:
            assert all(isinstance(value, kinds.get(name, object)) for name, value in details.items()), parser.name


def test_parser_in_the_readme_works() -> None:
    """What people copy from the README holds its own examples."""
    text = Path(logweir_workers.parsers.__file__).with_name("README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?) *```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(textwrap.dedent(code), names)
    parser: Parser = names["badged"]

    for sent, details in parser.examples:
        assert parsed(as_event(parser, sent), Parsers((parser,)))[0] == details


def test_detail_that_means_something_else_in_a_format_is_moved() -> None:
    """GitHub's user is whom something was done to, and nothing of it is lost."""
    event = normalise(
        {"_document_id": "x", "action": "org.add_member", "actor": "alice", "user": {"name": "bob"}}, CONTEXT
    )

    ALL.parse(event)

    assert (event["details"]["username"], event["details"]["targetusername"]) == ("alice", "bob")
