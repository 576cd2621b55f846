"""`logweir mutes`: who muted what, why and until when; what is refused; which alerts fall under one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from logweir import cli
from logweir.alerts import alert, mutes
from logweir.alerts.mutes import Mute, Muting
from logweir.config import StoreSettings
from logweir.errors import MUTES_FULL, PARAMETER_BAD, LogweirError
from logweir.store import open_store
from logweir.store.port import Store

Run = Callable[..., tuple[int, str, str]]
NOW_US = 1_769_860_800_000_000
HOUR_US = 3_600_000_000


@pytest.fixture
def run(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Run]:
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()

        def call(*words: str) -> tuple[int, str, str]:
            status = cli.main(["mutes", *words, "--data-dir", str(tmp_path)])
            out, err = capfdbinary.readouterr()
            return status, out.decode(), err.decode()

        yield call


def test_a_mute_has_a_reason_an_end_and_somebody_who_made_it(run: Run) -> None:
    """It is listed until it has ended, by itself or by somebody, and among those of the past after that."""
    added = json.loads(run("add", "rule:ssh_*", "--until", "2h", "--reason", " the scan ", "--by", "anna", "--json")[1])
    (mute,) = added["mutes"]
    during = run("list")[1]
    ended = json.loads(run("end", mute["id"], "--by", "bert", "--json")[1])["mutes"][0]
    again = json.loads(run("end", mute["id"], "--by", "carla", "--json")[1])["mutes"][0]
    after, past = run("list")[1], run("list", "--past")[1]

    assert (mute["query"], mute["reason"], mute["by"], mute["ended_by"]) == ("rule:ssh_*", "the scan", "anna", None)
    assert f"{mute['id']}  until {mute['ends']}  rule:ssh_*  anna: the scan" in during
    assert "1 mute." in during
    assert ended["ends"] < mute["ends"]
    assert again == ended
    assert "0 mutes." in after
    assert f"{mute['id']}  ended {ended['ends']}  rule:ssh_*  anna: the scan (ended by bert)" in past


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("add", "rule:(", "--until", "2h", "--reason", "x"), "query"),
        (("add", "nofield:x", "--until", "2h", "--reason", "x"), "nofield"),
        (("add", " ", "--until", "2h", "--reason", "x"), "* is all"),
        (("add", "*", "--until", "2h", "--reason", " "), "reason"),
        (("add", "*", "--until", "2020-01-01", "--reason", "x"), "within a year"),
        (("add", "*", "--until", "600d", "--reason", "x"), "within a year"),
        (("add", "*", "--until", "soon", "--reason", "x"), "soon"),
        (("end", "nosuch"), "no mute 'nosuch'"),
    ],
)
def test_what_a_mute_cannot_be_is_refused(run: Run, words: tuple[str, ...], reason: str) -> None:
    status, _, err = run(*words)

    assert status == 2
    assert reason in err


def test_mutes_have_a_number_that_they_do_not_exceed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those in force; past ones do not count, and end to the second."""
    monkeypatch.setattr(mutes, "MUTES_MAX", 2)

    def add(until_us: int, now_us: int = NOW_US) -> Mute:
        return mutes.add(store.documents, query="*", reason="x", by="anna", until_us=until_us, now_us=now_us)

    add(NOW_US + HOUR_US)
    add(NOW_US + 2 * HOUR_US)
    with pytest.raises(LogweirError) as full:
        add(NOW_US + HOUR_US)
    before = mutes.active(store.documents, NOW_US + HOUR_US - 1)
    at = mutes.active(store.documents, NOW_US + HOUR_US)
    with pytest.raises(LogweirError) as past:
        add(NOW_US, NOW_US)

    assert (full.value.problem, past.value.problem) == (MUTES_FULL, PARAMETER_BAD)
    assert (len(before), len(at)) == (2, 1)
    assert add(NOW_US + 3 * HOUR_US, NOW_US + HOUR_US).by == "anna"


@pytest.mark.parametrize(
    ("query", "is_muted"),
    [
        ("*", True),
        ("rule:ssh_*", True),
        ("severity:(critical OR high) AND group:10.0.0.9", True),
        ("failures", True),
        ("NOT rule:ssh_brute_force", False),
        ("count:<10", False),
        ("tags:attack.t1110", True),
        ("status:closed", False),
    ],
)
def test_a_mute_is_for_what_a_search_for_its_query_finds(store: Store, query: str, is_muted: bool) -> None:
    body = {
        **alert.opened("a-1", created_us=NOW_US),
        "kind": "alert",
        "rule": "ssh_brute_force",
        "severity": "high",
        "summary": "12 failures",
        "tags": ["attack.t1110"],
        "group": {"details.ip": "10.0.0.9"},
        "count": 12,
        "updated": "2026-01-31T12:00:00Z",
        "completeness": {"state": "complete"},
    }
    store.documents.put(alert.ALERTS, "a-1", body, version=None)
    found = store.documents.search(alert.ALERTS, alert.query_of(query, with_closed=True), size=1).total
    muting = Muting([Mute("m1", query, "x", "anna", "", "")])

    assert (muting.by(body) == "m1") is is_muted
    assert bool(found) is is_muted
