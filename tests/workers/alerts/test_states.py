"""Rules that are shadowed, disabled and enabled again: hot, with who and why, and what becomes of what they find."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from logweir import cli, clock
from logweir.alerts.catalogue import RULES, RuleState, change_state, read_catalogue
from logweir.config import Settings
from logweir.errors import PARAMETER_BAD, LogweirError
from logweir.queue.port import Queue
from logweir.store.port import Store
from tests.logweir.silence_world import World
from tests.waiting import until
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.test_books import RULES as BOOKS_RULES
from tests.workers.alerts.test_books import asked, lose
from tests.workers.alerts.test_engine import RULES as ENGINE_RULES
from tests.workers.alerts.test_engine import alerts_of, an_engine, batch, login, read_all, running
from tests.workers.helpers import Door

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, ENGINE_RULES, **{"worker.group": "g"})


@pytest.fixture
def run(settings: Settings, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def call(command: str, *words: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        status = cli.main([command, *words, "--data-dir", str(settings.data_dir)])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return call


def say(store: Store, state: RuleState, name: str = "failures") -> None:
    change_state(store.documents, name, state, by="anna", why="a test", now_us=clock.now_us())


def fail(door: Door, first: int, ip: str) -> None:
    for at in range(first, first + 5):
        door.write(batch(login("failure", at=at, ip=ip)))


def test_a_shadowed_rule_makes_no_alerts_and_keeps_what_it_would_have_said(
    settings: Settings, queue: Queue, store: Store, door: Door, run: Run
) -> None:
    """Listed by themselves, in the command and in the store; enabled again, the next is an alert."""
    say(store, RuleState.SHADOW)
    engine = an_engine(settings, queue, store)
    fail(door, 0, "10.0.0.1")
    read_all(engine, queue)
    engine._flush()
    (shadow,) = alerts_of(store, "rule:failures")
    listed = json.loads(run("alerts", "list", "--shadow", "--json")[1])
    none = json.loads(run("alerts", "list", "--json")[1])
    say(store, RuleState.ENABLED)
    engine.read_states()
    fail(door, 0, "10.0.0.2")
    read_all(engine, queue)
    engine._flush()

    assert (shadow["kind"], shadow["severity"], shadow["count"]) == ("shadow", "high", 5)
    assert [one["id"] for one in listed["alerts"]] == [shadow["id"]]
    assert none["total"] == 0
    assert engine.evaluator.counts["failures"] == {"matches": 10, "shadow": 5, "counted": 5}
    kinds = {one["group"]["details.ip"]: one["kind"] for one in alerts_of(store, "rule:failures")}
    assert kinds == {"10.0.0.1": "shadow", "10.0.0.2": "alert"}


def test_an_alert_stays_one_when_its_rule_is_shadowed_and_becomes_one_when_it_is_enabled(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    engine = an_engine(settings, queue, store)
    fail(door, 0, "10.0.0.1")
    read_all(engine, queue)
    engine._flush()
    say(store, RuleState.SHADOW)
    engine.read_states()
    fail(door, 5, "10.0.0.1")
    fail(door, 5, "10.0.0.2")
    read_all(engine, queue)
    engine._flush()
    shadowed = {one["group"]["details.ip"]: (one["kind"], one["count"]) for one in alerts_of(store)}
    say(store, RuleState.ENABLED)
    engine.read_states()
    fail(door, 10, "10.0.0.2")
    read_all(engine, queue)
    engine._flush()
    enabled = {one["group"]["details.ip"]: one for one in alerts_of(store)}

    assert shadowed == {"10.0.0.1": ("alert", 10), "10.0.0.2": ("shadow", 5)}
    assert (enabled["10.0.0.2"]["kind"], enabled["10.0.0.2"]["count"]) == ("alert", 10)
    assert [row["change"] for row in enabled["10.0.0.2"]["history"]] == ["opened", "kind"]


def test_a_disabled_rule_is_not_asked_also_by_whoever_starts_anew(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    say(store, RuleState.DISABLED)
    engine = an_engine(settings, queue, store)
    fail(door, 0, "10.0.0.1")
    read_all(engine, queue)
    engine._flush()
    none = alerts_of(store)
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    say(store, RuleState.ENABLED)
    engine = an_engine(settings, queue, store)
    fail(door, 5, "10.0.0.1")
    read_all(engine, queue)
    engine._flush()

    assert none == []
    assert [one["count"] for one in alerts_of(store)] == [5]


def test_a_running_alerter_goes_by_it_and_describes_its_rules(
    settings: Settings, queue: Queue, store: Store, door: Door, run: Run
) -> None:
    """Without a restart; the list says who, when and why; a rule whose file is gone is said not to be there."""
    with running(settings, queue, store) as alerter:
        until(lambda: read_catalogue(store.documents).get("failures"))
        status, out, _ = run("rules", "disable", "failures", "--why", "too loud", "--by", "anna")
        until(lambda: alerter.engine is not None and "failures" not in alerter.engine.evaluator.rules)
        listed = run("rules", "list")[1]
        as_json = json.loads(run("rules", "list", "--json")[1])["rules"]
        (settings.rules_path / "own.py").unlink()
        until(lambda: not store.documents.get(RULES, ["failures"])["failures"].body["is_there"])
    body = store.documents.get(RULES, ["failures"])["failures"].body

    assert (status, out) == (0, "failures is disabled.\n")
    assert "disabled, by anna: too loud" in listed
    (row,) = [one for one in as_json if one["name"] == "failures"]
    assert (row["state"], row["said"]["by"], row["said"]["why"]) == ("disabled", "anna", "too loud")
    assert (body["severity"], body["window"], body["state"]) == ("high", "event_count", "disabled")
    assert [one["change"] for one in body["history"]] == ["first seen", "state"]


def test_a_rule_about_the_accounting_can_be_shadowed(settings: Settings, store: Store) -> None:
    world = World(store)
    lose(world, 1, 2, 5)
    asked(store, settings).look(BOOKS_RULES, {"events_lost"})

    assert [one["kind"] for one in alerts_of(store)] == ["shadow"]


def test_what_cannot_be_said_is_refused(settings: Settings, store: Store, run: Run) -> None:
    status, _, err = run("rules", "shadow", "failure")
    with pytest.raises(LogweirError) as raised:
        change_state(store.documents, "x", RuleState.SHADOW, by="me", why="x" * 1001, now_us=1)

    assert status != 0
    assert "Did you mean 'failures'?" in err
    assert raised.value.problem is PARAMETER_BAD
