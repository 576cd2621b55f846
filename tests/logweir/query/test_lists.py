"""Lists of values: what a file may say, what is in a list, and how queries ask for it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir import cli
from logweir.clock import iso_seconds, now_us
from logweir.errors import LogweirError
from logweir.query import lists
from logweir.query.known import network_range
from logweir.query.lists import Entry, Lists, ValueList, at_least, expanded, names_in, read_entries
from logweir.query.match import matcher
from logweir.query.parse import parse
from logweir.query.tree import All, And, InList, Not, Or, Range, Term
from tests.contract.stores import document


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "lists"
    made.mkdir()
    before = lists.in_use()
    lists.use(made)
    yield made
    lists._in_use = before


def of(*values: str) -> ValueList:
    return ValueList.of("some", [Entry(value) for value in values])


@pytest.mark.parametrize(
    ("values", "text", "is_in"),
    [
        (["203.0.113.9"], "203.0.113.9", True),
        (["203.0.113.9"], "203.0.113.90", False),
        (["10.0.0.0/8", "192.0.2.128/25"], "10.255.0.1", True),
        (["10.0.0.0/8", "192.0.2.128/25"], "192.0.2.127", False),
        (["10.1.2.3/8"], "10.9.9.9", True),
        (["0.0.0.0/0"], "8.8.8.8", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["2001:db8::/32"], "2001:DB8:0:0::1", True),
        (["2001:db8::1"], "2001:0db8:0:0:0:0:0:1", True),
        (["Anna"], "Anna", True),
        (["Anna"], "anna", False),
        (["10.0.0.0/99", "1.2.3"], "1.2.3", True),
        (["10.0.0.0/8"], "x" * 100, False),
        ([], "", False),
    ],
)
def test_a_list_has_values_as_they_are_written_and_addresses_by_what_they_mean(
    values: list[str], text: str, is_in: bool
) -> None:
    assert (text in of(*values)) is is_in


def test_keywords_are_compared_in_any_case() -> None:
    assert of("WEB1").has_lowered("web1") and not of("WEB1").has_lowered("web2")
    assert of("10.0.0.0/8").has_lowered("10.1.1.1")


def test_a_text_file_has_a_value_a_line(folder: Path) -> None:
    (folder / "a.txt").write_text("# remark\n\n one \ntwo # why\nthree#four\n")

    assert [one.value for one in read_entries(folder / "a.txt")] == ["one", "two", "three#four"]


def test_a_value_ends_when_its_row_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a change of the file."""
    end = iso_seconds(now_us() + 3_600_000_000)
    (folder / "a.csv").write_text(f"note,value,expires\nx,for good,\nx,for an hour,{end}\nx,over,2020-01-01\n")
    known = Lists(folder)
    now = known.named("a").values()
    held = known.named("a")
    real = now_us()
    monkeypatch.setattr(lists, "now_us", lambda: real + 7_200_000_000)

    assert (now, held.values(), len(held)) == (["for an hour", "for good"], ["for good"], 1)
    assert "for an hour" not in held and "for good" in held and not held.has_lowered("for an hour")


def test_of_a_value_that_is_there_twice_the_later_end_counts(folder: Path) -> None:
    """Networks end, too; then a search can ask for the others."""
    later, sooner = iso_seconds(now_us() + 3_600_000_000), iso_seconds(now_us() - 1_000_000)
    rows = f"x,{later}\nx,{sooner}\n10.0.0.0/8,{sooner}\n192.0.2.1,{sooner}\n192.0.2.1,\n"
    (folder / "a.csv").write_text(f"value,expires\n{rows}")
    found = Lists(folder).named("a")

    assert found.values() == ["192.0.2.1", "x"]
    assert "10.0.0.1" not in found and "192.0.2.1" in found and not found.has_networks


def test_a_file_with_too_many_entries_is_read_no_further(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB of lines would be gigabytes."""
    monkeypatch.setattr(lists, "ENTRIES_MAX", 3)
    (folder / "a.txt").write_bytes(b"x\n" * 50_000 + b"\xff")
    (folder / "b.txt").write_bytes(b"x\n" * 3)

    with pytest.raises(LogweirError, match="line 4 cannot be read: there are more than 3 entries"):
        list(read_entries(folder / "a.txt"))
    assert len(list(read_entries(folder / "b.txt"))) == 3


def test_what_is_no_file_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "a.txt")
    (folder / "b.csv").mkdir()
    known = Lists(folder)
    known.reload()

    assert ["it is no file" in one for one in known.problems] == [True, True]


def test_whoever_asks_first_waits_for_the_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an event that comes while others read them would not be in any; later, nobody waits."""
    (folder / "a.txt").write_text("x\n")
    known = Lists(folder)
    go, begun = threading.Event(), threading.Event()

    def slowly(path: Path) -> Iterator[Entry]:
        begun.set()
        assert go.wait(60)
        yield from read_entries(path)

    monkeypatch.setattr(lists, "read_entries", slowly)
    found: list[ValueList | None] = []
    threads = [threading.Thread(target=lambda: found.append(known.get("a"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go.set()
    for thread in threads:
        thread.join(60)
    go.clear()
    begun.clear()
    (folder / "a.txt").write_text("another\n")
    known._looked_s = -lists._LOOK_EVERY_S
    reading = threading.Thread(target=lambda: known.get("a"))
    reading.start()
    assert begun.wait(60)
    before = known.named("a").values()
    go.set()
    reading.join(60)

    assert [one is not None and one.values() for one in found] == [["x"], ["x"]]
    assert (before, known.named("a").values()) == (["x"], ["another"])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "name\nx\n", "no column value"),
        ("a.csv", "value,expires\nx,tomorrow\n", "line 2.*no time as ISO 8601"),
        ("a.csv", 'value\n"x\n', "line"),
        ("A-b.txt", "x\n", "a to z"),
        ("a.txt", "\xff", "utf-8"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_its_list_and_is_named(
    folder: Path, name: str, text: str, reason: str
) -> None:
    (folder / "a.txt").write_text("before\n")
    known = Lists(folder)
    before = known.named("a").values()
    (folder / "a.txt").unlink()
    (folder / name).write_bytes(text.encode("latin-1"))
    known.reload()

    (problem,) = known.problems
    with pytest.raises(LogweirError, match=reason):
        list(read_entries(folder / name))
    assert before == ["before"] and str(folder / name) in problem
    assert name.startswith("A") or known.named("a").values() == ["before"]


def test_two_files_of_one_list_are_a_problem(folder: Path) -> None:
    (folder / "a.txt").write_text("x\n")
    (folder / "a.csv").write_text("value\ny\n")
    known = Lists(folder)

    assert known.named("a").values() == ["y"]
    assert "another file" in known.problems[0]


def test_a_query_asks_for_a_list_by_its_field(folder: Path) -> None:
    """What is quoted is a value; a list that is not there has nothing."""
    (folder / "ours.txt").write_text("10.0.0.0/8\nAnna\n")
    known = [
        ("details.ip:@ours", {"details": {"ip": "10.2.3.4"}}, True),
        ("details.ip:@ours", {"details": {"ip": "11.2.3.4"}}, False),
        ("details.user:@ours", {"details": {"user": "Anna"}}, True),
        ("details.user:@ours", {"details": {"user": "anna"}}, False),
        ("hostname:@ours", {"hostname": "ANNA"}, True),
        ("-details.ip:@ours", {"details": {"ip": "10.2.3.4"}}, False),
        ('details.user:"@ours"', {"details": {"user": "@ours"}}, True),
        ("details.ip:@none", {"details": {"ip": "10.2.3.4"}}, False),
    ]
    found = [matcher(parse(query))(document("x", source, number=1)) for query, source, _ in known]

    assert parse("details.ip:@ours") == InList("details.ip", "ours")
    assert found == [is_found for _, _, is_found in known]
    assert names_in(parse("a OR (details.ip:@ours AND -hostname:@none)")) == {"ours", "none"}


@pytest.mark.parametrize("query", ["details.ip:@Ours", "details.ip:@a-b", "hostname:@"])
def test_what_is_no_lists_name_is_refused_with_a_hint(query: str) -> None:
    with pytest.raises(LogweirError, match="needs quotes"):
        parse(query)


def test_a_search_takes_the_values_of_a_short_list(folder: Path) -> None:
    """One that is not there, is long, or has networks for what is no address, is refused; for a rule, more is asked."""
    (folder / "two.txt").write_text("b\nA\n")
    (folder / "nets.txt").write_text("10.0.0.0/8\n")
    (folder / "many.txt").write_text("".join(f"{number}\n" for number in range(501)))
    (folder / "empty.txt").write_text("")

    assert expanded(parse("details.x:@two")) == Or((Term("details.x", "A"), Term("details.x", "b")))
    assert expanded(parse("hostname:@two")) == Or((Term("hostname", "a"), Term("hostname", "b")))
    assert expanded(parse("hostname:@empty")) == Not(All())
    for name, reason in (("nets", "has networks"), ("many", "501 values"), ("none", "no list 'none'")):
        with pytest.raises(LogweirError, match=reason):
            expanded(parse(f"hostname:@{name}"))
    address = "details.sourceipaddress"
    network = Range(address, *(network_range("10.0.0.0/8") or ()))
    assert expanded(parse(f"{address}:@nets")) == Or((Term(address, "10.0.0.0/8"), network))
    assert at_least(parse("a AND hostname:@nets")) == And((parse("a"), All()))
    assert at_least(parse("a AND NOT hostname:@nets")) == And((parse("a"), Not(Not(All()))))


def test_a_change_counts_within_seconds(folder: Path) -> None:
    path = folder / "a.txt"
    path.write_text("x\n")
    known = Lists(folder)
    before = known.named("a").values()
    path.write_text("x\ny\n")
    os.utime(path)
    deadline = time.monotonic() + 60
    while known.named("a").values() == before and time.monotonic() < deadline:
        time.sleep(0.1)

    assert known.named("a").values() == ["x", "y"]


def test_lists_are_changed_by_command(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns of one's own stay; a value that is put in again takes the place of the one before."""
    (folder / "a.csv").write_text("value,ticket\nx,4711\n")

    def run(*words: str) -> tuple[int, str]:
        status = cli.main(["lists", *words, "--data-dir", str(tmp_path)])
        said = capsys.readouterr()
        return status, said.out + said.err

    added = run("add", "a", "10.0.0.0/8", "--until", "7d", "--note", "why")
    again = run("add", "a", "10.0.0.0/8")
    checked = run("check", "a", "10.1.2.3"), run("check", "a", "11.1.2.3")
    removed = run("remove", "a", "x"), run("remove", "a", "x")
    made = run("add", "b", "y")
    listed = run("list")
    bad = run("add", "B", "y"), run("show", "c")

    assert added[0] == again[0] == made[0] == 0 and "until 20" in added[1] and "until" not in again[1]
    assert [status for status, _ in checked] == [0, 1]
    assert [status for status, _ in removed] == [0, 1]
    assert (folder / "a.csv").read_text().splitlines()[0] == "value,expires,note,by,ticket"
    assert "1 value\n" in listed[1] and "2 lists in" in listed[1]
    assert "a to z" in bad[0][1] and "There is no list 'c'" in bad[1][1]
