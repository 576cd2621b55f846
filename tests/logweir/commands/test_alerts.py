"""`logweir alerts`: what is listed and shown, what a change leaves behind, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from logweir import cli
from logweir.alerts import alert
from logweir.alerts.alert import ALERTS
from logweir.clock import iso_seconds, now_us
from logweir.config import StoreSettings
from logweir.store import open_store
from logweir.store.port import Store

Run = Callable[..., tuple[int, str, str]]


def stored(store: Store, id: str, **values: Any) -> None:
    now = now_us()
    body = {
        **alert.opened(id, created_us=now),
        "kind": "alert",
        "rule": "some_rule",
        "revision": "abcd",
        "severity": "high",
        "summary": "12 failures from 10.0.0.9",
        "category": "authentication",
        "tags": ["attack.t1110"],
        "runbook": "page.md",
        "group": {"details.ip": "10.0.0.9"},
        "first": "2026-01-31T12:00:00.000Z",
        "last": "2026-01-31T12:01:00.000Z",
        "count": 12,
        "evidence": [{"id": "e1", "event": {"summary": "evil \x1b[31m[bold]", "hostname": "web1"}}],
        "evidence_last": [],
        "search": {
            "query": "details.ip:'x'",
            "from": "2026-01-31T12:00:00.000Z",
            "to": "2026-01-31T12:01:00.001Z",
            "time_field": "timestamp",
        },
        "late": None,
        "previous": None,
        "is_quiet": False,
        "completeness": {
            "state": "incomplete",
            "up_to": "2026-01-31T12:02:00Z",
            "missing": 5,
            "emitters": [{"emitter": "app/web-17", "missing": 5}],
        },
        "generation": 1,
        "upto": {"topic_id": "t", "offsets": {}},
        "updated": iso_seconds(now),
        **values,
    }
    store.documents.put(ALERTS, id, body, version=None)


@pytest.fixture
def run(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Run]:
    """Runs the command over a store with four alerts; gives status, output and errors."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        stored(store, "aa11-1")
        stored(store, "bb22-1", severity="critical", summary="root [bold]got in[/bold]\x1b[2J", count=2)
        stored(store, "cc33-1", status="closed", closed={"reason": "benign", "time_us": 1})
        stored(store, "dd44-1", kind="near_miss", severity="low")

        def call(*words: str) -> tuple[int, str, str]:
            status = cli.main(["alerts", *words, "--data-dir", str(tmp_path)])
            out, err = capfdbinary.readouterr()
            return status, out.decode(), err.decode()

        yield call


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ([], ["bb22-1", "aa11-1"]),
        (["--closed"], ["cc33-1", "bb22-1", "aa11-1"]),
        (["--near-misses"], ["dd44-1"]),
        (["severity:critical"], ["bb22-1"]),
        (["failures AND count:>=10"], ["aa11-1"]),
        (["group:10.0.0.9", "--since", "1h"], ["bb22-1", "aa11-1"]),
        (["reason:benign", "--closed"], ["cc33-1"]),
        (["--size", "1"], ["bb22-1"]),
        (["nothing"], []),
    ],
)
def test_alerts_are_listed_by_a_query(run: Run, words: list[str], ids: list[str]) -> None:
    """As JSON, and as a table that moves no terminal's cursor."""
    status, out, _ = run("list", *words, "--json")
    table_status, table, _ = run("list", *words)

    assert [one["id"] for one in json.loads(out)["alerts"]] == ids
    assert (status, table_status) == (0, 0)
    assert all(id in table for id in ids)
    assert "\x1b[2J" not in table
    assert ("[bold]got in" in table) == ("bb22-1" in ids)


def test_an_alert_is_shown_with_why_and_whether_it_could_be_wrong(run: Run) -> None:
    status, out, _ = run("show", "aa")

    assert status == 0
    for text in (
        "12 failures from 10.0.0.9",
        "5 missing",
        "app/web-17: 5 missing",
        "details.ip: 10.0.0.9",
        "runbook: page.md",
        "logweir search 'details.ip:'\\''x'\\''' --time-field timestamp --from 2026-01-31T12:00:00.000Z",
        "evil \\x1b[31m[bold]",
        "logweir opened it",
    ):
        assert text in out


def test_changes_are_said_and_kept(run: Run) -> None:
    """By the name given, or the user's own."""
    said = [
        run("ack", "aa11", "--by", "anna"),
        run("assign", "aa11", "bert"),
        run("note", "aa11", "looked at it", "--by", "bert"),
        run("snooze", "aa11", "2h"),
        run("close", "aa11", "--reason", "false_positive", "--comment", "a scan", "--by", "bert"),
    ]
    body = json.loads(run("show", "aa11", "--json")[1])
    reopened = json.loads(run("reopen", "aa11", "--json")[1])

    assert [status for status, _, _ in said] == [0] * 5
    assert said[0][1] == "aa11-1: anna acknowledged it. It is acknowledged, assignee anna.\n"
    assert ": bert wrote a note. It is acknowledged, assignee bert." in said[2][1]
    assert re.search(r"snoozed it until (\S+Z)\. It is snoozed until \1, assignee bert\.", said[3][1])
    assert (body["status"], body["assignee"], body["closed"]["reason"]) == ("closed", "bert", "false_positive")
    assert body["notes"][0]["text"] == "looked at it"
    assert [line["change"] for line in body["history"]] == ["opened", "status", "assignee", "note", "status", "status"]
    assert reopened["status"] == "open"


def test_what_people_did_is_shown_as_sentences(run: Run) -> None:
    """Notes in their order, the comment of a close also behind a reopening, until when it was snoozed."""
    run("note", "aa11", "one", "--by", "anna")
    run("note", "aa11", "two", "--by", "bert")
    again = [run("assign", "aa11", "bert", "--by", "anna")[1] for _ in range(2)]
    acknowledged = [run("ack", "aa11", "--by", "anna")[1] for _ in range(2)]
    run("close", "aa11", "--reason", "true_positive", "--comment", "stolen card", "--by", "anna")
    closed = run("show", "aa11")[1]
    run("reopen", "aa11", "--by", "bert")
    run("snooze", "aa11", "2999-01-01", "--by", "bert")
    out = run("show", "aa11")[1]
    listed = run("list")[1]

    assert "closed as true_positive by anna: stolen card" in closed
    assert re.search(r"Notes:\n  \S+Z anna: one\n  \S+Z bert: two\nHistory:\n  \S+Z logweir opened it\n", out)
    assert "anna closed it as true_positive: stolen card" in out
    assert "high, snoozed until 2999-01-01T00:00:00Z, assignee bert" in out
    assert "anna assigned it to bert, as before." in again[1]
    assert "anna acknowledged it again." in acknowledged[1]
    assert "snoozed until" in listed and "2999-01-01T00:00:00Z" in listed and "…" not in listed


def test_a_late_alert_and_its_rule_are_marked_in_the_list(run: Run, tmp_path: Path) -> None:
    """And the whole line of the search, with the data folder, is there to be copied."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        stored(store, "ee55-1", late={"late_s": 20467}, summary="x")
    out, listed = run("show", "ee55")[1], run("list")[1]

    assert "5 h 41 min late" in out
    assert f"--to 2026-01-31T12:01:00.001Z --data-dir {tmp_path}" in out
    assert listed.count("(late)") == 1 and "some_rule" in listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "zz"], "There is no alert whose id begins with 'zz'"),
        (["close", "cc33", "--reason", "test"], "is closed: it cannot be closed. Reopen it"),
        (["snooze", "aa11", "yesterday"], "is not a time"),
        (["snooze", "aa11", "2020-01-01"], "a time in the future"),
        (["note", "aa11", " "], "1 to 4000 characters"),
        (["list", "hostname:x"], "'hostname' is not a field. There are id, kind, rule"),
        (["list", "--size", "0"], "from 1 to 10000"),
        (["list", "severity:hgh"], "one of critical, high, medium, low, info"),
        (["list", "status:foo"], "one of open, acknowledged, closed, snoozed"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, words: list[str], said: str) -> None:
    status, _, err = run(*words)

    assert status == 2
    assert said in err
