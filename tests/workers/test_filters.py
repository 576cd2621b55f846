"""Filters: which events they leave out, what they keep, and what is said of a file that cannot be understood."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from logweir import cli, config
from logweir.audit.books import read_books
from logweir.clock import DAY_US, now_us
from logweir.config import Settings
from logweir.errors import LogweirError
from logweir.event import Document
from logweir.metrics import registry
from logweir.query.parse import parse
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.filters import RULES_MAX, Filters
from tests.contract.stores import document
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

RULES = """
[[rule]]
name = "keep-security"
query = "category:authentication"
keep = 1

[[rule]]
name = "debug"
query = 'severity:DEBUG AND NOT details.trace:*'

[[rule]]
name = "chatter"
query = 'summary:"health check" OR hostname:lab-*'
keep = 0.25
"""


def filters_of(tmp_path: Path, text: str) -> Filters:
    path = tmp_path / "filters.toml"
    path.write_text(text)
    return Filters.of_file(path)


def event(number: int = 1, **fields: object) -> Document:
    return document(f"b{number:032x}.0", fields, number=number)


def test_the_first_rule_that_matches_decides(tmp_path: Path) -> None:
    """Each rule asks the search language of the event as stored; one that keeps all shields it from those behind."""
    filters = filters_of(tmp_path, RULES)

    assert filters.rule_for(event(severity="DEBUG")) == "debug"
    assert filters.rule_for(event(severity="DEBUG", category="Authentication")) is None
    assert filters.rule_for(event(severity="DEBUG", details={"trace": "t1"})) is None
    assert filters.rule_for(event(summary="all is well")) is None
    assert Filters.of_file(None).rule_for(event(severity="DEBUG")) is None


def test_a_share_is_kept_by_identity_and_always_the_same(tmp_path: Path) -> None:
    """A quarter of 8,000 events, give or take; asked again, by another worker, or under another name: the same ones."""
    one = filters_of(tmp_path, RULES)
    other = filters_of(tmp_path, RULES.replace("chatter", "renamed"))
    events = [event(number, hostname="lab-7") for number in range(8_000)]
    kept = [each.id for each in events if one.rule_for(each) is None]

    assert 1_800 < len(kept) < 2_200
    assert kept == [each.id for each in events if other.rule_for(each) is None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule = 5", "rule: a file of filters holds [[rule]] tables only"),
        ("[rules]", "rules: a file of filters holds [[rule]] tables only"),
        ("[[rule]\n", "the file: it is not TOML"),
        ('[[rule]]\nname = "a b"\nquery = "x"', "rule 1: it needs a name of 1 to 64 letters"),
        ('[[rule]]\nquery = "x"', "rule 1: it needs a name"),
        ('[[rule]]\nname = "a"', "rule 1 (a): it needs a query"),
        ('[[rule]]\nname = "a"\nquery = " "', "rule 1 (a): it needs a query"),
        ('[[rule]]\nname = "a"\nquery = "(x"', "rule 1 (a): The query cannot be read at character 3"),
        ('[[rule]]\nname = "a"\nquery = "hostnam:x"', "'hostnam' is not a field. Did you mean 'hostname'?"),
        ('[[rule]]\nname = "a"\nquery = "details.x:a*b"', "rule 1 (a): The field details.x cannot do wildcards"),
        ('[[rule]]\nname = "a"\nquery = "x"\nkeep = 1.5', "rule 1 (a): keep is 1.5, which is not a share from 0 to 1"),
        ('[[rule]]\nname = "a"\nquery = "x"\nkeep = true', "keep is True"),
        ('[[rule]]\nname = "a"\nquery = "x"\nsample = 1', "'sample' means nothing here; a rule knows name, query"),
        ('[[rule]]\nname = "a"\nquery = "x"\n' * 2, "rule 2: there is another rule named 'a'"),
        ('[[rule]]\nname = "a"\nquery = "*"\n[[rule]]\nname = "b"\nquery = "x"', "rule 2: it can never apply"),
        ("".join(f'[[rule]]\nname = "r{at}"\nquery = "x"\n' for at in range(RULES_MAX + 1)), "at most 100"),
    ],
)
def test_a_file_that_cannot_be_understood_says_where_and_why(tmp_path: Path, text: str, said: str) -> None:
    """The file, the rule by number and name, and what is wrong."""
    with pytest.raises(LogweirError) as caught:
        filters_of(tmp_path, text)

    assert said in str(caught.value)
    assert str(tmp_path / "filters.toml") in str(caught.value)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    """A filter that somebody relies on must not be missing silently."""
    with pytest.raises(LogweirError, match="No such file"):
        Filters.of_file(tmp_path / "absent.toml")


def test_a_change_counts_and_a_bad_one_leaves_the_rules_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Read again when it changes; while it is broken or gone, it is logged once and shown, and nothing changes."""
    filters = filters_of(tmp_path, RULES)
    path = tmp_path / "filters.toml"
    stale = registry.get("logweir_worker_filters_stale")

    def rule_after(text: str | None) -> tuple[str | None, float]:
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        filters.reload()
        filters.reload()
        return filters.rule_for(event(severity="DEBUG")), stale._value.get()

    assert rule_after(RULES.replace('"debug"', '"noise"')) == ("noise", 0)
    assert rule_after("[[rule") == ("noise", 1)
    assert rule_after(None) == ("noise", 1)
    assert rule_after("") == (None, 0)
    assert caplog.text.count("Until then, the filters stay as they were") == 2


# --- in a worker ---------------------------------------------------------------------------------------------------
@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "filters.toml").write_text(RULES)
    overrides = {
        "data_dir": tmp_path,
        "queue.partitions": 1,
        "worker.ledger_interval_s": 0.1,
        "queue.session_timeout_s": 1,
        "worker.filters_file": tmp_path / "filters.toml",
    }
    return config.load(environment={}, overrides=overrides)


def outcomes(store: Store) -> dict[str, int]:
    return read_books(store, group="logweir", late_us=60_000_000, now_us=now_us()).row.outcomes


def test_what_a_worker_leaves_out_is_an_outcome_with_its_rules_name(
    settings: Settings, queue: Queue, store: Store
) -> None:
    """Counted in the books as filtered, by rule in the metrics; a change of the file counts within seconds."""
    counted = registry.get("logweir_worker_filtered_events_total").labels("debug")
    before = counted._value.get()
    door = Door(queue)
    with running_worker(settings, queue, store):
        door.write(batch(*(json.dumps({"severity": level, "summary": level}).encode() for level in ("debug", "info"))))
        until(lambda: outcomes(store)["indexed"] == 1)
        assert settings.worker.filters_file is not None
        changed = settings.worker.filters_file.with_suffix(".new")
        changed.write_text(RULES.replace("severity:DEBUG", "severity:INFO"))
        os.replace(changed, settings.worker.filters_file)

        def info_is_left_out() -> bool:
            door.write(batch(b'{"severity":"info","summary":"later"}', id=os.urandom(16)))
            return outcomes(store)["filtered"] >= 3

        until(info_is_left_out)
    door.close()

    assert [one["severity"] for one in store.search(parse("summary:info"), size=9).events] == ["INFO"]
    assert store.count(parse("summary:debug")).number == 0
    assert counted._value.get() - before == outcomes(store)["filtered"]


# --- logweir filters -----------------------------------------------------------------------------------------------
def test_what_is_left_out_and_sent_again_counts_as_filtered_again(
    settings: Settings, queue: Queue, store: Store
) -> None:
    """Nothing in the store says that it came before; only on a later day its number does."""
    door = Door(queue)
    numbered = {"emitter": "web", "epoch": "e1", "sequence_first": 7}
    now = now_us()
    with running_worker(settings, queue, store):
        for count, received_us in enumerate((now - DAY_US, now - DAY_US, now), 1):
            door.write(batch(b'{"severity":"debug"}', id=bytes([count]) * 16, received_us=received_us, **numbered))
            until(lambda: sum(outcomes(store).values()) == count)  # noqa: B023
    door.close()

    assert outcomes(store) == {"indexed": 0, "duplicate": 1, "filtered": 2, "dead_lettered": 0}


def test_check_prints_the_rules_or_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Status 0 with the rules in their order, 2 with the fault."""
    path = tmp_path / "filters.toml"
    path.write_text(RULES)
    good = cli.main(["filters", "check", str(path)])
    listed = capfd.readouterr().out
    cli.main(["filters", "check", str(path), "--json"])
    rows = json.loads(capfd.readouterr().out)["rules"]
    path.write_text(RULES.replace("severity", "severety"))
    bad = cli.main(["filters", "check", str(path)])

    assert (good, bad) == (0, 2)
    assert "3 rules" in listed
    assert "debug                    keeps   0.00% of  severity:DEBUG AND NOT details.trace:*" in listed
    assert [(row["name"], row["keep"]) for row in rows] == [("keep-security", 1), ("debug", 0), ("chatter", 0.25)]
    assert "rule 2 (debug): 'severety' is not a field. Did you mean 'severity'?" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ('{"level":"debug","msg":"tick"}', "The rule debug leaves it out."),
        ('{"program":"sshd","level":"debug"}', "The rule keep-security matches and keeps all: it is stored."),
        ('{"host":"lab-3.example.org"}', "The rule chatter matches: 25.00% of such events are stored"),
        ('{"level":"info"}', "No rule matches: it is stored."),
    ],
)
def test_check_says_what_becomes_of_an_event(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], event: str, said: str
) -> None:
    """The event as it is sent: it is normalised and enriched first, as a worker does."""
    path = tmp_path / "filters.toml"
    path.write_text(RULES)

    assert cli.main(["filters", "check", str(path), "--event", event, "--data-dir", str(tmp_path)]) == 0
    assert said in capfd.readouterr().out


def test_check_refuses_what_is_no_event(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The fault is the event's, not the file's."""
    path = tmp_path / "filters.toml"
    path.write_text(RULES)

    assert cli.main(["filters", "check", str(path), "--event", "[1]"]) == 2
    assert "it is an array, not an object" in capfd.readouterr().err
