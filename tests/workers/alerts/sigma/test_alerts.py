"""Sigma rules in the engine: alerts that name who wrote the rule, correlations over late events, and a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from logweir import cli, clock
from logweir.alerts.catalogue import read_catalogue
from logweir.config import Settings
from logweir.query.tree import All
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.alerts.backtest import backtest
from logweir_workers.alerts.loading import RuleFiles
from tests.waiting import until
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.sigma.helpers import sigma_rule
from tests.workers.alerts.test_engine import NOW_S, alerts_of, an_engine, batch, read_all
from tests.workers.helpers import Door, running_worker

WHOAMI = sigma_rule(
    "s: {'Image|endswith': '\\whoami.exe'}\ncondition: s",
    logsource="product: windows\ncategory: process_creation",
    title="Somebody asks who he is",
    level="critical",
    more="falsepositives: [Administrators]\nreferences: [https://example.org/whoami]\nlicense: DRL-1.1",
)
FAILED = sigma_rule(
    "s: {EventID: 4625}\ncondition: s", logsource="product: windows\nservice: security", title="Failed", name="failed"
)
MANY = """
title: Many failures
level: high
correlation:
    type: event_count
    rules: [failed]
    group-by: [TargetUserName]
    timespan: 10m
    condition: {gte: 3}
"""


def process(image: str) -> bytes:
    return orjson.dumps(
        {
            "timestamp": NOW_S,
            "Hostname": "pc1",
            "EventID": 1,
            "Channel": "Microsoft-Windows-Sysmon/Operational",
            "SourceName": "Microsoft-Windows-Sysmon",
            "Image": image,
        }
    )


def failure(user: str, *, at: float) -> bytes:
    data: dict[str, Any] = {"TargetUserName": user, "LogonType": "3"}
    return orjson.dumps(
        {
            "timestamp": NOW_S + at,
            "hostname": "dc1",
            "winlog": {"event_id": 4625, "channel": "Security", "provider_name": "x", "event_data": data},
        }
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = settings_with(tmp_path, "")
    (made.rules_path / "whoami.yml").write_text(WHOAMI)
    (made.rules_path / "failed.yml").write_text(FAILED)
    (made.rules_path / "many.yml").write_text(MANY)
    return made


def test_an_alert_of_a_sigma_rule_says_who_wrote_it_and_what_he_says_of_it(
    settings: Settings, queue: Queue, store: Store, door: Door, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the store, and where people look at it."""
    engine = an_engine(settings, queue, store)
    door.write(batch(process(r"C:\Windows\System32\WHOAMI.exe"), process(r"C:\Windows\notepad.exe")))
    read_all(engine, queue)
    engine._flush()
    engine.read_states()
    (alert,) = alerts_of(store)
    cli.main(["alerts", "show", alert["id"], "--data-dir", str(settings.data_dir)])
    shown = capfd.readouterr().out

    assert (alert["rule"], alert["severity"], alert["count"]) == ("whoami", "critical", 1)
    assert (alert["summary"], alert["group"]) == ("Somebody asks who he is, on pc1", {"hostname": "pc1"})
    assert alert["origin"]["author"] == "Ada"
    assert "Sigma author: Ada" in shown
    assert "Sigma falsepositives: Administrators" in shown
    assert "Sigma references: https://example.org/whoami" in shown
    assert read_catalogue(store.documents)["whoami"].body["origin"]["license"] == "DRL-1.1"


def test_a_correlation_counts_by_the_field_that_sigma_names_and_goes_on_after_a_restart(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """The rule that it asks for makes no alerts of its own."""
    engine = an_engine(settings, queue, store)
    for at, user in ((20, "bob"), (0, "bob"), (1, "eve")):
        door.write(batch(failure(user, at=at)))
    read_all(engine, queue)
    engine._flush()
    none = alerts_of(store)
    engine._note_rules()
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    engine = an_engine(settings, queue, store)
    door.write(batch(failure("bob", at=10)))
    read_all(engine, queue)
    engine._flush()

    assert none == []
    assert [(one["rule"], one["summary"], one["group"]) for one in alerts_of(store)] == [
        ("many", "Many failures: 3 events of bob", {"TargetUserName": "bob"})
    ]


def test_matches_of_a_correlation_that_come_too_late_are_counted_by_asking_the_store(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """Its groups are by names of fields that no search knows."""
    for at in (0, 20):
        door.write(batch(failure("bob", at=at - 7200)))
    door.write(batch(failure("eve", at=10 - 7200)))
    with running_worker(settings, queue, store):
        until(lambda: store.count(All()).number == 3)
    engine = an_engine(settings, queue, store)
    rule = engine.evaluator.rules["many"]
    group = engine.evaluator.groups.make(rule, ("bob",))
    assert group is not None
    door.write(batch(failure("bob", at=10 - 7200)))
    with running_worker(settings, queue, store):
        until(lambda: store.count(All()).number == 4)
    late_us = (NOW_S + 10 - 7200) * 1_000_000
    group.known_from_us = clock.now_us()
    engine._recall(group, late_us, late_us)
    engine._flush()

    assert [(one["rule"], one["summary"]) for one in alerts_of(store)] == [("many", "Many failures: 3 events of bob")]


def test_a_backtest_finds_in_stored_events_what_the_stream_found(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """By the same conditions and the same counting."""
    for at in range(3):
        door.write(batch(failure("bob", at=at), process(r"C:\x\whoami.exe")))
    with running_worker(settings, queue, store):
        until(lambda: store.count(All()).number == 6)
    rules = RuleFiles(settings.alerts, settings.rules_path).rules
    from_us = (NOW_S - 60) * 1_000_000
    made = {
        name: backtest(store, rule, settings, from_us=from_us, to_us=clock.now_us()) for name, rule in rules.items()
    }

    assert {name: [(one.count, one.summary) for one in found.alerts] for name, found in made.items()} == {
        "many": [(3, "Many failures: 3 events of bob")],
        "whoami": [(3, "Somebody asks who he is, on pc1")],
    }


def test_imported_rules_that_found_nothing_take_no_room_in_the_checkpoint(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """Of thousands of them it would be written every few seconds. None of them is called blind."""
    engine = an_engine(settings, queue, store)
    engine._note_rules()
    before = dict(engine.progress.rules)
    door.write(batch(process(r"C:\x\whoami.exe")))
    read_all(engine, queue)
    engine._note_rules()

    assert before == {}
    assert {name: row["counts"]["matches"] for name, row in engine.progress.rules.items()} == {"whoami": 1}
    assert engine.evaluator.sight.missing("whoami") == []
