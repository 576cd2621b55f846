"""Exceptions by command: made from an alert or by a query, listed with what they kept away, ended, extended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from logweir import cli
from logweir.alerts import alert, event, exceptions, rule
from logweir.alerts.alert import ALERTS
from logweir.alerts.exceptions import EXCEPTIONS, VALUES_MAX, Excepting, RuleException, fields_of, query_of
from logweir.config import Settings, StoreSettings
from logweir.errors import LogweirError
from logweir.query import match
from logweir.query.match import leaves_of
from logweir.query.parse import parse
from logweir.query.tree import All, Term
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers.alerts.examples import refusal_of
from tests.contract.stores import document

RULES = """
from logweir.alerts import books, event, finding, found, rule, scheduled

@rule(where="details.outcome:failure", group=["details.ip"], at_least=2, within="1m", severity="low", runbook="x.md")
def failures(found):
    return "x"

def failed(**values):
    return event(outcome="failure", **{"ip": "10.0.0.9", "user": "anna", **values})

failures.example("two", [failed(), failed()], alerts=1)
failures.example("one", [failed()], alerts=0)

@scheduled(every="5m", severity="low", runbook="x.md")
def asked(events):
    if events.count("details.outcome:failure"):
        return found("some")

asked.example("one", [failed()], alerts=1)

@books(of="lost", severity="low", runbook="x.md")
def lost(found):
    return "x"
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/own.py").write_text(RULES)
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        events = [
            {"hostname": "web1", "summary": 'a "quoted" \\ text', "details": {"user": user, "ip": "10.0.0.7"}}
            for user in ("bert", 'c"arl\\')
        ]
        body = {
            **alert.opened("aa11-1", created_us=1_769_860_800_000_000),
            "kind": "alert",
            "rule": "failures",
            "severity": "low",
            "summary": "x",
            "group": {"details.ip": "10.0.0.7"},
            "count": 2,
            "updated": "2026-01-31T12:00:00Z",
            "evidence": [{"id": str(at), "day": "20260131", "event": one} for at, one in enumerate(events)],
            "evidence_last": [],
        }
        store.documents.put(ALERTS, "aa11-1", body, version=None)
        yield store


@pytest.fixture
def run(tmp_path: Path, store: Store, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        status = cli.main(["exceptions", *words, "--data-dir", str(tmp_path)])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return call


def one_of(out: str) -> dict[str, Any]:
    (found,) = json.loads(out)["exceptions"]
    assert isinstance(found, dict)
    return found


def test_one_is_made_of_an_alert_by_its_group_or_by_named_fields(run: Run) -> None:
    """Values are quoted as the search language has it; who, why, until when, and which alert."""
    _, out, _ = run("from", "aa11", "--reason", "the scanner", "--by", "anna", "--json")
    by_group = one_of(out)
    _, out, _ = run("from", "aa11", "--field", "details.user", "--field", "hostname", "--reason", "x", "--json")
    by_fields = one_of(out)
    listed = run("list")[1]

    assert by_group["query"] == 'details.ip:"10.0.0.7"'
    assert (by_group["rule"], by_group["alert"], by_group["by"], by_group["hits"]) == ("failures", "aa11-1", "anna", 0)
    assert by_fields["query"] == '(details.user:"bert" OR details.user:"c\\"arl\\\\") AND hostname:"web1"'
    assert listed.count("failures") == 2 and "the scanner" in listed and listed.endswith("2 exceptions.\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "failures", "details.user:anna", "--reason", "x"], "would not fire for its own example 'two'"),
        (["add", "asked", "details.ip:10.0.0.9", "--reason", "x"], "would not fire for its own example 'one'"),
        (["add", "failures", "*", "--reason", "x"], "rules disable"),
        (["add", "failures", "a:b:c", "--reason", "x"], "is not a field"),
        (["add", "failures", "details.user:bert", "--reason", " "], "reason"),
        (["add", "failures", "details.user:bert", "--reason", "x", "--until", "900d"], "within a year"),
        (["add", "failuers", "details.user:bert", "--reason", "x"], "Did you mean 'failures'?"),
        (["add", "lost", "details.user:bert", "--reason", "x"], "mute its alerts"),
        (["from", "bb22", "--reason", "x"], "bb22"),
        (["from", "aa11", "--field", "details.none", "--reason", "x"], f"1 to {VALUES_MAX} values"),
        (["end", "none"], "There is no exception"),
        (["extend", "none"], "There is no exception"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(run: Run, store: Store, words: list[str], said: str) -> None:
    status, _, err = run(*words)

    assert status != 0
    assert said in err
    assert store.documents.search(EXCEPTIONS, All(), size=10).documents == []


def test_one_that_is_too_wide_can_be_forced_extended_and_ended(run: Run) -> None:
    """Near its end it asks whether it is wanted."""
    made = one_of(run("add", "failures", "details.user:anna", "--reason", "x", "--until", "3d", "--force", "--json")[1])
    soon = run("list")[1]
    longer = one_of(run("extend", made["id"], "--until", "60d", "--json")[1])
    ended = one_of(run("end", made["id"], "--by", "bert", "--json")[1])
    now, past = run("list")[1], run("list", "--past")[1]

    assert made["ends_soon"] and "SOON" in soon
    assert longer["ends"] > made["ends"] and not longer["ends_soon"]
    assert (ended["ended_by"], now) == ("bert", "0 exceptions.\n")
    assert "ended by bert" in past


def test_fields_are_offered_by_which_an_alert_can_be_excepted(store: Store) -> None:
    body = alert.find(store.documents, "aa11").body

    assert fields_of(body) == ["details.ip", "hostname", "details.user"]


@pytest.mark.parametrize(
    "name",
    [
        "x:y OR category:web OR summary",
        "a b",
        'a"b',
        "a\\b",
        "(a",
        "-a",
        "a/b",
        "a*",
        "@a",
        "é",
        "a.b",
        "a&&b",
    ],
)
def test_a_field_that_an_event_has_named_is_no_more_than_a_field(name: str) -> None:
    """Whoever sends events could say otherwise what an exception keeps from counting."""
    event = {"details": {name: "v"}}
    body = {"group": {}, "evidence": [{"event": event}], "evidence_last": []}

    assert parse(query_of(body, [f"details.{name}"])) == Term(f"details.{name}", "v")


def test_what_all_exceptions_ask_for_together_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each match of a rule is asked all of them."""
    monkeypatch.setattr(exceptions, "CLAUSES_MAX", 5)

    def add(query: str) -> None:
        about = {"reason": "x", "by": "anna", "until_us": 2_000_000, "now_us": 1_000_000}
        exceptions.add(store.documents, rule="failures", query=query, **about)  # type: ignore[arg-type]

    add("hostname:(web1 OR web2 OR web3)")
    with pytest.raises(LogweirError, match="6 words and values, 5 at most"):
        add("a AND NOT (b OR c)")
    add("a b")


def test_an_events_details_are_walked_through_once_for_all_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand exceptions took seconds for an event with thousands of details."""
    walked: list[object] = []
    monkeypatch.setattr(match, "leaves_of", lambda details: walked.append(details) or leaves_of(details))
    made = [
        RuleException(str(n), "failures", f"details.user:u{n} OR details:v{n}", "x", "anna", "", "") for n in range(99)
    ]
    excepting = Excepting(made)
    of_u98, of_v7 = (
        document(f"e{n}", {"details": details}, number=n)
        for n, details in enumerate(({"user": ["a", "u98"]}, {"a": {"b": "v7"}}))
    )

    assert [excepting.by("failures", one) for one in (of_u98, of_v7, of_u98)] == ["98", "7", "98"]
    assert len(walked) == 3


def test_a_rule_that_would_end_the_alerter_when_an_exception_is_tried_is_refused_one(tmp_path: Path) -> None:
    """The alerter tries what is wanted: it would end, and again whenever it was started."""

    @rule(where="details.outcome:failure", severity="low")
    def ending(found: Any) -> str:
        return sys.exit(0)

    ending.example("one", [event(outcome="failure")], alerts=1)
    wanted = RuleException("1", "ending", "hostname:web1", "x", "anna", "", "", state="wanted")

    assert "SystemExit" in (refusal_of(ending, wanted, Settings(data_dir=tmp_path)) or "")
