"""The worker's share of the books: retries over midnight, conflicts, losses, on the embedded queue and store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from logweir import clock, config
from logweir.config import Settings
from logweir.ledger.documents import EMITTER, PartitionId
from logweir.ledger.emitter import EmitterState, place_of
from logweir.query.parse import parse
from logweir.queue.port import Queue
from logweir.store.port import Store
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

DAY_US = 86_400_000_000
NUMBERED: dict[str, Any] = {"emitter": "web-1", "epoch": "e1"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    overrides = {
        "data_dir": tmp_path,
        "queue.partitions": 1,
        "worker.ledger_interval_s": 0.1,
        "accounting.late_after_s": 1,
        "queue.session_timeout_s": 1,
    }
    return config.load(environment={}, overrides=overrides)


def work_off(settings: Settings, queue: Queue, store: Store) -> None:
    with running_worker(settings, queue, store):
        until(lambda: position(store, queue).get("next_offset", 0) == queue.offsets(0)[1])


def position(store: Store, queue: Queue) -> dict[str, Any]:
    id = f"position:logweir:{queue.topic_id()}:0"
    found = store.ledger.read([id])
    return found[id].body if found else {}


def outcomes(store: Store) -> dict[str, int]:
    rows = [row for document in store.ledger.scan("window:") for row in document.body["outcomes"]]
    return {
        name: sum(row[name] for row in rows)
        for name in ("indexed", "duplicate", "filtered", "dead_lettered", "identity_conflicts")
    }


def event(summary: str) -> bytes:
    return json.dumps({"summary": summary}).encode()


@pytest.mark.parametrize("runs", [1, 2])
def test_a_retry_after_midnight_is_a_duplicate_and_other_content_a_conflict(
    settings: Settings, queue: Queue, store: Store, door: Door, runs: int
) -> None:
    """Its document is in yesterday's index: it is not put into today's as well, whether or not that one is settled."""
    now = clock.now_us()
    door.write(batch(event("one"), event("two"), sequence_first=1, received_us=now - DAY_US, **NUMBERED))
    if runs == 2:
        work_off(settings, queue, store)
    door.write(batch(event("one"), event("new two"), event("three"), sequence_first=1, received_us=now, **NUMBERED))
    work_off(settings, queue, store)
    found = store.search(parse("*"), size=10).events
    # While the first try is under way its content is not known: then both are taken for retries.
    conflicts = outcomes(store)["identity_conflicts"]

    assert sorted(one["summary"] for one in found) == ["one", "three", "two"]
    assert outcomes(store)["indexed"] == 3
    assert outcomes(store)["duplicate"] + outcomes(store)["dead_lettered"] == 2
    assert conflicts == outcomes(store)["dead_lettered"] == len(store.dead_letters.page(size=9))
    assert runs == 1 or conflicts == 1


@pytest.mark.parametrize(
    "limit", [{"accounting.gaps_max": 1}, {"accounting.epochs_max": 2}, {"accounting.emitters_max": 1}]
)
@pytest.mark.parametrize("runs", [1, 2])
def test_beyond_the_limits_a_retry_after_midnight_is_stored_once(
    settings: Settings, queue: Queue, store: Store, door: Door, tmp_path: Path, limit: dict[str, int], runs: int
) -> None:
    """What the ledger has no room for is asked of the store, or is on its way; what is new is stored."""
    overrides = {"data_dir": tmp_path, "queue.partitions": 1, "worker.ledger_interval_s": 0.1, **limit}
    settings = config.load(environment={}, overrides=overrides)
    now = clock.now_us()
    door.write(batch(b"{}", sequence_first=1, received_us=now - DAY_US, emitter="other", epoch="e1"))
    for number in (1, 3, 5, 7):
        door.write(batch(event(f"{number}"), sequence_first=number, received_us=now - DAY_US, **NUMBERED))
    for epoch in ("e2", "e3"):
        door.write(batch(b"{}", sequence_first=1, received_us=now - DAY_US, emitter="web-1", epoch=epoch))
    if runs == 2:
        work_off(settings, queue, store)
    door.write(batch(*map(event, "123456"), event("new 7"), sequence_first=1, received_us=now, **NUMBERED))
    work_off(settings, queue, store)
    found = [one["summary"] for one in store.search(parse("summary:*"), size=20).events if one["summary"]]

    assert sorted(found) == ["1", "2", "3", "4", "5", "6", "7"]
    assert outcomes(store)["indexed"] == 10
    assert outcomes(store)["duplicate"] + outcomes(store)["identity_conflicts"] == 4
    assert runs == 1 or outcomes(store)["identity_conflicts"] == 1


def test_a_number_that_never_came_is_lost_although_the_queue_is_silent(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """The last number withheld and one in between: after late_after_s both are lost, nothing else is."""
    door.write(batch(event("1"), event("2"), sequence_first=1, **NUMBERED))
    door.write(batch(event("4"), sequence_first=4, high=5, **NUMBERED))
    place = place_of(("app", "web-1"), PartitionId(queue.topic_id(), 0))
    with running_worker(settings, queue, store):

        def lost() -> list[tuple[int, int]]:
            found = EMITTER.read(store.ledger, "logweir", [place])
            if not found:
                return []
            tracker = EmitterState.from_body(place, found[place].body).epochs["e1"]
            return tracker.lost_ranges(watermark_us=position(store, queue)["watermark_us"], late_us=1_000_000)

        until(lambda: lost() == [(3, 3), (5, 5)])


def test_a_store_that_is_away_when_a_new_emitter_comes_stops_nothing(
    settings: Settings, queue: Queue, store: Store, door: Door, tmp_path: Path
) -> None:
    """What is known of an emitter is read before its events are indexed: the worker waits for it, and goes on."""
    with running_worker(settings, queue, store):
        door.write(batch(event("1"), sequence_first=1, **NUMBERED))
        until(lambda: position(store, queue).get("next_offset") == 1)
        main = tmp_path / "store" / "main.sqlite"
        main.rename(main.with_suffix(".away"))
        main.mkdir()
        door.write(batch(event("2"), sequence_first=1, emitter="web-2", epoch="e1"))
        time.sleep(1.5)
        main.rmdir()
        main.with_suffix(".away").rename(main)
        until(lambda: position(store, queue).get("next_offset") == 2)

    assert outcomes(store)["indexed"] == 2
