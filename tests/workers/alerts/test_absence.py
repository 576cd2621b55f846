"""Rules for what is absent: by the ledger's watermark and the minutes in which anything came, never by a clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from logweir import clock
from logweir.alerts import alert, event, rule
from logweir.alerts.alert import Reason
from logweir.config import Settings
from logweir.errors import RULE_BAD, LogweirError
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.alerts.backtest import backtest
from logweir_workers.alerts.engine import Engine
from logweir_workers.alerts.examples import Examples
from tests.logweir.silence_world import HOUR, START, World
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.test_engine import alerts_of, an_engine, batch, read_all
from tests.workers.helpers import Door

MINUTE_US = 60_000_000
RULES = """
from logweir.alerts import rule

@rule(where="details.job:backup", group=["hostname"], absent="10m", severity="high", quiet="5m")
def no_backup(found):
    return f"no backup of {found.group} since {found.first}, the last of {found.last}"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, RULES, **{"worker.group": "g"})


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def us(minute: int) -> int:
    return (START + minute) * MINUTE_US


def backup(door: Door, minute: int, host: str = "db-1") -> None:
    raw = orjson.dumps({"hostname": host, "timestamp": clock.iso_seconds(us(minute)), "details": {"job": "backup"}})
    door.write(batch(raw, received_us=us(minute)))


def judge(engine: Engine, queue: Queue, minute: int) -> None:
    """All is read, and the workers have accounted for everything up to that minute."""
    read_all(engine, queue)
    engine.completeness.up_to_us = us(minute)
    engine._judge_absent()
    engine._judge_open()
    engine._flush()


def active(world: World, first: int, last: int) -> None:
    """In each of these minutes a canary came."""
    world.canaries(first, last)
    world.flush(last + 1)


def said(store: Store) -> list[tuple[str, str, bool]]:
    return sorted((one["group"]["hostname"], one["first"], one["is_quiet"]) for one in alerts_of(store))


def at(minute: int) -> str:
    return clock.iso_seconds(us(minute)).replace("Z", ".000Z")


def test_what_came_and_comes_no_more_is_an_alert_and_quiet_when_it_comes(
    settings: Settings, queue: Queue, store: Store, world: World, door: Door
) -> None:
    """The minute of the last one does not count; a short pause within quiet is the same alert, a later one another."""
    engine = an_engine(settings, queue, store)
    active(world, 0, 100)
    backup(door, 0)
    judge(engine, queue, 10)
    none = said(store)
    judge(engine, queue, 11)
    absent = alerts_of(store)
    backup(door, 20)
    judge(engine, queue, 21)
    over = said(store)
    judge(engine, queue, 40)
    again = said(store)
    backup(door, 41)
    judge(engine, queue, 42)
    backup(door, 50)
    judge(engine, queue, 70)

    assert none == []
    (one,) = absent
    assert (one["rule"], one["severity"], one["count"], one["is_quiet"]) == ("no_backup", "high", 1, False)
    assert one["summary"] == f"no backup of db-1 since {at(0)}, the last of {at(0)}"
    (whole,) = [body for body in alerts_of(store) if body["is_quiet"] and body["first"] == at(0)]
    assert whole["summary"] == f"no backup of db-1 since {at(0)}, the last of {at(20)}"
    assert one["last"] == at(11)
    assert over == [("db-1", at(0), True)]
    assert again == [("db-1", at(0), False)]
    assert said(store) == [("db-1", at(0), True), ("db-1", at(50), False)]


def test_our_own_downtime_and_workers_that_lag_make_nothing_absent(
    settings: Settings, queue: Queue, store: Store, world: World, door: Door
) -> None:
    """Of ten hours in which nothing of any kind came, none counts; nor what is not accounted for."""
    engine = an_engine(settings, queue, store)
    active(world, 0, 5)
    backup(door, 0)
    active(world, 10 * HOUR, 10 * HOUR + 20)
    judge(engine, queue, 10 * HOUR + 4)
    lagging = said(store)
    judge(engine, queue, 10 * HOUR + 6)

    assert lagging == []
    assert said(store) == [("db-1", at(0), False)]


def test_whoever_dies_and_reads_again_says_the_same(
    settings: Settings, queue: Queue, store: Store, world: World, door: Door
) -> None:
    """Before and behind the checkpoint, with some that have come again meanwhile."""
    active(world, 0, 100)
    engine = an_engine(settings, queue, store)
    for host in ("db-1", "db-2"):
        backup(door, 0, host)
    judge(engine, queue, 5)
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    judge(engine, queue, 12)
    engine = an_engine(settings, queue, store)
    backup(door, 15, "db-2")
    judge(engine, queue, 16)
    engine = an_engine(settings, queue, store)
    judge(engine, queue, 18)
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    engine = an_engine(settings, queue, store)
    judge(engine, queue, 19)

    assert said(store) == [("db-1", at(0), False), ("db-2", at(0), True)]


def test_in_whatever_order_they_come_and_however_late_they_are_read(
    settings: Settings, queue: Queue, store: Store, world: World, door: Door
) -> None:
    """An absence that was over before anybody looked is an alert all the same; one that had come is none."""
    engine = an_engine(settings, queue, store)
    active(world, 0, 100)
    for host, minutes in (("db-1", (0, 30, 35)), ("db-2", (30, 0, 35)), ("db-3", (0, 30, 15, 8, 22, 35))):
        for minute in minutes:
            backup(door, minute, host)
    judge(engine, queue, 37)

    found = sorted((one["group"]["hostname"], one["last"], one["is_quiet"]) for one in alerts_of(store))
    assert found == [("db-1", at(30), True), ("db-2", at(30), True)]


def test_after_its_alert_was_closed_another_absence_is_a_new_one(
    settings: Settings, queue: Queue, store: Store, world: World, door: Door
) -> None:
    engine = an_engine(settings, queue, store)
    active(world, 0, 100)
    backup(door, 0)
    judge(engine, queue, 15)
    (first,) = alerts_of(store)
    alert.change(store.documents, first["id"], alert.close("me", us(16), reason=Reason.BENIGN))
    backup(door, 17)
    judge(engine, queue, 18)
    judge(engine, queue, 40)
    new = [one for one in alerts_of(store) if one["id"] != first["id"]]

    assert [(one["first"], one["previous"], one["status"]) for one in new] == [(at(17), first["id"], "open")]


def test_what_has_been_absent_for_a_month_is_expected_no_more(
    settings: Settings, queue: Queue, store: Store, world: World, door: Door
) -> None:
    engine = an_engine(settings, queue, store)
    active(world, 0, 100)
    backup(door, 0)
    judge(engine, queue, 15)
    groups = engine.evaluator.groups
    groups.forget_before(us(29 * 24 * HOUR), groups_max=10)
    kept = len(groups)
    groups.forget_before(us(31 * 24 * HOUR), groups_max=10)
    groups.forget_before(us(31 * 24 * HOUR), groups_max=10)

    assert (kept, len(groups)) == (1, 0)


def test_a_backtest_finds_the_same(settings: Settings, store: Store, world: World) -> None:
    active(world, 0, 100)

    @rule(where="details.job:backup", group=["hostname"], absent="10m", severity="high", quiet="5m")
    def no_backup(found: Any) -> str:
        return found.first

    examples = Examples(settings)
    events = [
        {"hostname": "db-1", "timestamp": clock.iso_seconds(us(minute)), "details": {"job": "backup"}}
        for minute in (0, 5, 8, 40, 46)
    ]
    store.index([examples.document(one, number) for number, one in enumerate(events, start=1)])
    made = backtest(store, no_backup, settings, from_us=us(0), to_us=us(90))

    assert [(one.first, one.last) for one in made.alerts] == [(at(8), at(40)), (at(46), at(57))]


def test_examples_say_until_when_nothing_comes(settings: Settings) -> None:
    @rule(where="details.job:backup", group=["hostname"], absent="1h", severity="high")
    def no_backup(found: Any) -> str:
        return found.group

    some = [event(hostname="db-1", job="backup", at=at) for at in (0, 1800)]
    no_backup.example("absent", some, alerts=1, until=6000)
    no_backup.example("not yet", some, alerts=0, until=5000)
    no_backup.example("a gap between", [*some, event(hostname="db-1", job="backup", at=9000)], alerts=1)
    examples = Examples(settings)

    assert [examples.run(no_backup, one).problem for one in no_backup.examples] == [""] * 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"absent": "30s"}, "absent is not from 1m to 7d"),
        ({"absent": "8d"}, "absent is not from 1m to 7d"),
        ({"absent": "soon"}, "no time such as 90s"),
        ({"absent": "10m", "at_least": 2, "within": "1m"}, "absent goes without within"),
        ({"absent": "10m", "new": "hostname"}, "two kinds of rules"),
    ],
)
def test_what_absent_cannot_mean_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(LogweirError) as raised:
        rule(where="x", severity="low", **arguments)(unheard)

    assert raised.value.problem is RULE_BAD
    assert reason in raised.value.detail


def unheard(found: Any) -> str:
    return "x"
