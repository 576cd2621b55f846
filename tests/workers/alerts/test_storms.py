"""Storm control: too many groups of a rule fold into one alert with their exact number, whatever dies in between."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from logweir import clock
from logweir.config import Settings
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.alerts.engine import Engine
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.test_engine import alerts_of, an_engine, batch, login
from tests.workers.alerts.test_engine import read_all as read_some
from tests.workers.helpers import Door

HOUR_US = 3_600_000_000
THIS_HOUR_US = clock.now_us() // HOUR_US * HOUR_US - HOUR_US
RULES = """
from logweir.alerts import rule

@rule(where="details.outcome:failure", group=["details.ip"], severity="high", quiet="2m")
def failures(found):
    return f"{found.count} failures from {found.group}"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, RULES, partitions=3, **{"alerts.storm_alerts_max": 20, "alerts.lateness_s": 86_400})


def read_all(engine: Engine, queue: Queue) -> None:
    """All that is in the queue, in however many steps."""
    ends = {partition: queue.offsets(partition)[1] for partition in range(queue.partition_count())}
    while {partition: engine.progress.offsets.get(partition, 0) for partition in ends} != ends:
        read_some(engine, queue)


def flush(engine: Engine) -> None:
    engine._flush()
    while engine._dirty:
        engine._flush()


def storm_of(store: Store) -> list[dict[str, Any]]:
    return sorted((one for one in alerts_of(store) if "storm" in one), key=lambda one: one["first"])


def apart_of(store: Store) -> list[dict[str, Any]]:
    return [one for one in alerts_of(store) if "storm" not in one]


def fail(door: Door, groups: range, *, hour: int = 0, again: int = 1) -> None:
    """Failures of so many addresses, in an hour of receipt."""
    events = [
        login("failure", at=0, ip=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") for number in groups
    ] * again
    for first in range(0, len(events), 500):
        door.write(batch(*events[first : first + 500], received_us=THIS_HOUR_US + hour * HOUR_US + 1))


def test_ten_thousand_groups_are_twenty_alerts_and_one_with_their_exact_number(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """Groups that fire again within the hour count once."""
    engine = an_engine(settings, queue, store)
    fail(doors[0], range(10_000))
    fail(doors[1], range(0, 10_000, 10))
    read_all(engine, queue)
    flush(engine)
    (storm,) = storm_of(store)

    assert len(apart_of(store)) == 20
    assert storm["count"] == 10_000
    assert storm["summary"] == "failures: 10,000 groups within the hour, 9,980 of them only here"
    assert (storm["storm"]["apart"], len(storm["storm"]["named"])) == (20, 50)
    assert (storm["severity"], storm["status"], storm["rule"]) == ("high", "open", "failures")


def test_the_number_is_exact_whoever_dies_between_any_two_steps(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """Engines that end without a word, before and behind a checkpoint; nothing is alerted apart that need not be."""
    rng = random.Random(7)
    engine = an_engine(settings, queue, store)
    for step in range(30):
        fail(doors[step % 3], range(step * 10, step * 10 + 15))  # A third of them again.
        if rng.random() < 0.6:
            read_all(engine, queue)
        if rng.random() < 0.5:
            engine._flush()
        if rng.random() < 0.3:
            engine.progress.storms = engine.storms.as_body()
            engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
        if rng.random() < 0.3:
            engine = an_engine(settings, queue, store)
    read_all(engine, queue)
    flush(engine)
    (storm,) = storm_of(store)

    assert storm["count"] == 305
    assert storm["storm"]["apart"] == len(apart_of(store))
    assert 20 <= len(apart_of(store)) <= 40


def test_it_goes_on_in_the_next_hour_and_unfolds_after_one_that_has_few(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    engine = an_engine(settings, queue, store)
    for hour, groups in enumerate((range(50), range(100, 105), range(200, 203))):
        fail(doors[0], groups, hour=hour)
        read_all(engine, queue)
        engine._flush()
    first, second = storm_of(store)
    apart = {one["group"]["details.ip"] for one in apart_of(store)}

    assert (first["count"], second["count"]) == (50, 5)
    assert len(apart) == 23
    assert {"10.0.0.200", "10.0.0.201", "10.0.0.202"} <= apart


def test_a_group_that_had_its_alert_goes_on_in_it_during_a_storm(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    engine = an_engine(settings, queue, store)
    fail(doors[0], range(1))
    read_all(engine, queue)
    engine._flush()
    fail(doors[0], range(60), again=3)
    read_all(engine, queue)
    engine._flush()
    (one,) = [body for body in apart_of(store) if body["group"] == {"details.ip": "10.0.0.0"}]

    assert one["count"] == 4
    assert storm_of(store)[0]["count"] == 60
