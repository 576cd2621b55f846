"""A new revision begins at an exact number, whoever dies around that: no event is left out, none alerted twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from logweir import clock
from logweir.alerts import alert
from logweir.alerts.alert import ALERTS
from logweir.alerts.beginnings import Begun, read_beginnings
from logweir.alerts.catalogue import RuleState, change_state
from logweir.config import Settings
from logweir.errors import STORE_DOWN, LogweirError
from logweir.ledger.documents import ALERTER
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.alerts.engine import Engine
from tests.crashing import Crash, CrashingStore
from tests.proof import SEED, size
from tests.waiting import until
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.test_engine import alerts_of, an_engine, batch, login, read_all, running
from tests.workers.helpers import Door

RULE = """
from logweir.alerts import rule

@rule(where="details.outcome:failure", group=["details.ip"], at_least={at_least}, within="2m", quiet="{quiet}s",
      severity="high")
def failures(found):
    return f"{{found.count}} failures from {{found.group}}"
"""


def write_rule(settings: Settings, *, quiet: int = 120, at_least: int = 1) -> None:
    (settings.rules_path / "own.py").write_text(RULE.format(quiet=quiet, at_least=at_least))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = settings_with(tmp_path, "", partitions=3, **{"alerts.storm_alerts_max": 100_000})
    write_rule(settings)
    return settings


@pytest.fixture
def store(settings: Settings) -> Iterator[CrashingStore]:
    with closing(CrashingStore(settings.store)) as store:
        store.prepare()
        yield store


def begun(store: Store, settings: Settings) -> Begun:
    return read_beginnings(store, settings.worker.group)["failures"]


def keep(engine: Engine) -> None:
    """Write the checkpoint."""
    engine._note_progress()
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)


@pytest.mark.sized
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(SEED, SEED + size(2, 60)))
def test_each_event_has_one_alert_whoever_dies_between_any_two_steps_around_a_change(
    settings: Settings,
    queue: Queue,
    store: CrashingStore,
    doors: list[Door],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Each event is of a group of its own. No alert names a revision whose beginning was not written down before."""
    rng = random.Random(seed)
    put = store.documents.put
    undeclared: list[str] = []

    def checked(among: Any, id: str, body: dict[str, Any], **named: Any) -> str:
        if among is ALERTS and body["revision"] != begun(store, settings).revision:
            undeclared.append(id)
        return put(among, id, body, **named)

    monkeypatch.setattr(store.documents, "put", checked)
    engine, events, changes = an_engine(settings, queue, store), 0, 0
    for _ in range(80):
        try:
            with store.dying(rng.randrange(1, 4) if rng.random() < 0.2 else None):
                match rng.choice(("write", "write", "read", "read", "flush", "keep", "change", "reload", "die")):
                    case "write":
                        doors[rng.randrange(3)].write(batch(login("failure", at=events, ip=f"10.0.0.{events}")))
                        events += 1
                    case "read":
                        read_all(engine, queue, rng.randrange(3))
                    case "flush":
                        engine._flush()
                    case "keep":
                        keep(engine)
                    case "change":
                        changes += 1
                        write_rule(settings, quiet=120 + changes)
                    case "reload":
                        engine.reload()
                    case "die":
                        raise Crash
        except Crash:
            engine = an_engine(settings, queue, store)
    read_all(engine, queue)
    engine.reload()
    read_all(engine, queue)
    engine._flush()
    alerts = alerts_of(store)

    assert undeclared == []
    assert changes > 2
    assert sorted(one["group"]["details.ip"] for one in alerts) == sorted(f"10.0.0.{at}" for at in range(events))
    assert {(one["count"], one["status"]) for one in alerts} == {(1, "open")}
    assert begun(store, settings).revision == engine.evaluator.rules["failures"].revision


def test_a_revision_begins_behind_what_the_one_before_has_evaluated(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """By partition; with when that was, and what was before; what was found but not written is written first."""
    engine = an_engine(settings, queue, store)
    for partition, count in enumerate((1, 2, 3)):
        for at in range(count):
            doors[partition].write(batch(login("failure", at=at, ip=f"10.0.{partition}.{at}")))
    read_all(engine, queue)
    first = begun(store, settings)
    write_rule(settings, quiet=121)
    engine.reload()
    second = begun(store, settings)
    doors[0].write(batch(login("failure", at=1, ip="10.0.0.0")))
    again = an_engine(settings, queue, store)
    read_all(again, queue)
    again._flush()
    alerts = {(one["group"]["details.ip"], one["revision"]): one for one in alerts_of(store)}

    assert (first.before, second.before) == (None, first.revision)
    assert second.at.offsets == {0: 1, 1: 2, 2: 3}
    assert second.at.topic_id == queue.topic_id()
    assert second.at.since_us > first.at.since_us
    assert again.progress.beginnings.rules["failures"] == second or second.as_json() == begun(store, settings).as_json()
    assert sum(revision == first.revision for _, revision in alerts) == 6
    assert alerts["10.0.0.0", second.revision]["counts_since"] == clock.iso_seconds(second.at.since_us)
    assert again.progress.rules["failures"]["since"] == clock.iso_seconds(second.at.since_us)


def test_an_alert_of_the_revision_before_is_taken_over_where_its_events_are_read_again(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """It died behind a checkpoint, and the file changed while it was down: the alert names both."""
    engine = an_engine(settings, queue, store)
    read_all(engine, queue)
    keep(engine)
    for at in range(3):
        doors[at].write(batch(login("failure", at=at)))
    read_all(engine, queue)
    engine._flush()
    write_rule(settings, quiet=121, at_least=2)
    again = an_engine(settings, queue, store)
    read_all(again, queue, 0)
    again._flush()
    (half_way,) = alerts_of(store)
    doors[0].write(batch(login("failure", at=5)))
    read_all(again, queue)
    again._flush()
    (one,) = alerts_of(store)
    revisions = [engine.evaluator.rules["failures"].revision, again.evaluator.rules["failures"].revision]

    assert (half_way["revision"], half_way["count"]) == (revisions[0], 3)
    assert (one["revision"], one["count"]) == (revisions[1], 4)
    assert [(row["revision"], row["count"]) for row in one["earlier"]] == [(revisions[0], 3)]
    assert alert.sentence(one["history"][-1]) == (
        f"its rule counts something else ({revisions[1]}) than what had counted 3 events ({revisions[0]})"
    )


def test_what_the_revision_before_knew_does_not_come_back_after_another_restart(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """Two of three failures before the change, while it was down, and one after it: no alert."""
    write_rule(settings, at_least=3)
    engine = an_engine(settings, queue, store)
    for at in range(2):
        doors[0].write(batch(login("failure", at=at)))
    read_all(engine, queue)
    keep(engine)
    write_rule(settings, at_least=3, quiet=121)
    for _ in range(2):
        engine = an_engine(settings, queue, store)
    doors[0].write(batch(login("failure", at=2)))
    read_all(engine, queue)
    engine._flush()

    assert alerts_of(store) == []
    assert begun(store, settings).at.offsets[0] == 2


def test_a_rule_that_is_enabled_again_begins_anew(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    engine = an_engine(settings, queue, store)
    for state in (RuleState.DISABLED, RuleState.ENABLED):
        change_state(store.documents, "failures", state, by="anna", why="", now_us=clock.now_us())
        doors[1].write(batch(login("failure", at=0)))
        read_all(engine, queue)
        engine.read_states()
        assert ("failures" in read_beginnings(store, settings.worker.group)) == (state is RuleState.ENABLED)

    assert begun(store, settings).at.offsets == {0: 0, 1: 2, 2: 0}
    assert begun(store, settings).before is None


def test_other_rules_wait_until_what_those_before_have_found_is_written(
    settings: Settings, queue: Queue, store: Store, doors: list[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is away, those before go on; then it goes over, at the number that is reached by then."""
    engine = an_engine(settings, queue, store)
    before = engine.evaluator.rules["failures"].revision
    doors[0].write(batch(login("failure", at=0, ip="10.0.0.1")))
    read_all(engine, queue)

    def away(*_: Any, **__: Any) -> Any:
        raise LogweirError(STORE_DOWN, url="x", reason="x")

    monkeypatch.setattr(store.documents, "put", away)
    write_rule(settings, quiet=121)
    engine.reload()
    waiting = engine.evaluator.rules["failures"].revision
    doors[0].write(batch(login("failure", at=0, ip="10.0.0.2")))
    read_all(engine, queue)
    monkeypatch.undo()
    engine.reload()
    doors[0].write(batch(login("failure", at=0, ip="10.0.0.3")))
    read_all(engine, queue)
    engine._flush()
    alerts = {one["group"]["details.ip"]: one["revision"] for one in alerts_of(store)}

    assert waiting == before
    assert begun(store, settings).at.offsets[0] == 2
    assert [alerts[f"10.0.0.{at}"] == before for at in (1, 2, 3)] == [True, True, False]


def test_late_matches_of_the_revision_before_are_unevaluated(settings: Settings, queue: Queue, store: Store) -> None:
    """They wait to be counted by asking the store, for a rule whose groups may be others now."""
    engine = an_engine(settings, queue, store)
    engine.progress.late = [["failures", ["10.0.0.1"], 1, 1]] * 3
    text = RULE.format(quiet=121, at_least=1).replace('["details.ip"]', '["details.ip", "hostname"]')
    (settings.rules_path / "own.py").write_text(text)
    engine.reload()

    assert engine.progress.late == []
    assert engine.evaluator.counts["failures"]["unevaluated"] == 3


def test_the_first_alerter_begins_with_what_came_within_the_lateness(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """On each partition where that is; who was there before there were beginnings keeps what is counted."""
    started_us = clock.now_us()
    for at in range(3):
        doors[0].write(batch(login("failure", at=at)))
    with running(settings, queue, store):
        until(lambda: alerts_of(store))
        first = begun(store, settings)
    (one,) = alerts_of(store)
    (place, document), *_ = ALERTER.scan(store.ledger, settings.worker.group)
    body = {name: value for name, value in document.body.items() if name != "rules_slot"}
    store.ledger.write([type(document)(document.id, document.generation, body)])
    engine = an_engine(settings, queue, store)

    assert first.at.offsets == {0: 0, 1: 0, 2: 0}
    assert 0 <= first.at.since_us - (started_us - 3_600_000_000) < 600_000_000
    assert place.shard == "1of1"
    assert one["count"] == 3
    assert len(engine.evaluator.groups) == 1
    assert begun(store, settings).revision == first.revision
