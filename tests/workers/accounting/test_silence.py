"""What workers note for silence: on the embedded queue and store, over several partitions and runs of a worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logweir import clock, config
from logweir.config import Settings, SilenceSettings
from logweir.ledger.activity import read_activities
from logweir.queue.port import Queue
from logweir.record import Batch, Kind, encode
from logweir.silence.states import Silence, read_silence
from logweir.store.port import Store
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

EPOCH = b"\x07" * 16
MINUTE_US = 60_000_000
LEARNED_AT_ONCE = SilenceSettings(learn_s=60)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    overrides = {
        "data_dir": tmp_path,
        "queue.partitions": 2,
        "worker.ledger_interval_s": 0.1,
        "queue.session_timeout_s": 1,
        "accounting.sources_max": 2,
    }
    return config.load(environment={}, overrides=overrides)


class Doors:
    """One ingest process on two partitions, whose records are received in whatever minute a test says."""

    windows_ahead = 0
    """By how many windows it is ahead of the clock, as where a minute has very many emitters."""

    def __init__(self, queue: Queue) -> None:
        self._doors = [Door(queue, epoch=EPOCH, partition=partition) for partition in (0, 1)]
        self.now = clock.now_us()

    def send(self, partition: int, *, minutes_ago: int, hostname: str = "web-1", category: str | None = "sshd") -> None:
        received_us = self.now - minutes_ago * MINUTE_US
        event = {"summary": "x", "hostname": hostname, **({"category": category} if category else {})}
        one = batch(json.dumps(event).encode(), received_us=received_us, id=received_us.to_bytes(16))
        door = self._doors[partition]
        self._write(partition, Kind.DATA, one, first=door.next_number, count=1)
        door.next_number += 1

    def canary(self, partition: int, *, minutes_ago: int) -> None:
        one = batch(key="", high=1, received_us=self.now - minutes_ago * MINUTE_US)
        self._write(partition, Kind.CANARY, one, first=1, count=0)

    def _write(self, partition: int, kind: Kind, one: Batch, *, first: int, count: int) -> None:
        window = clock.window_of(one.received_us) + self.windows_ahead
        payload = encode(kind, ingest_epoch=EPOCH, first=first, count=count, window=window, body=[one])
        self._doors[partition].write_bytes(payload)

    def close(self) -> None:
        for door in self._doors:
            door.close()


def test_windows_ahead_of_the_clock_say_nothing_of_when_anything_came(
    settings: Settings, queue: Queue, store: Store
) -> None:
    """A key that names thousands of emitters drives them ahead: five weeks of it would hide all that came before."""
    doors = Doors(queue)
    doors.canary(0, minutes_ago=9)
    doors.canary(1, minutes_ago=9)
    doors.windows_ahead = 40 * 24 * 60
    doors.send(0, minutes_ago=5)
    doors.send(1, minutes_ago=4)
    doors.close()
    work_off(settings, queue, store)

    activities = read_activities(store, "logweir").values()
    minutes = sorted(clock.window_of(doors.now - ago * MINUTE_US) for ago in (9, 5, 4))
    assert sorted({one.minutes.first for one in activities} | {one.minutes.top for one in activities}) == minutes


def read(store: Store) -> Silence:
    return read_silence(store, group="logweir", settings=LEARNED_AT_ONCE, now_us=clock.now_us())


def work_off(settings: Settings, queue: Queue, store: Store) -> None:
    """Until all that is in the queue is accounted for, and the worker has said that it is empty."""
    begun = clock.now_us()
    with running_worker(settings, queue, store):
        until(lambda: positions(store) == [queue.offsets(0)[1], queue.offsets(1)[1]])
        until(lambda: read(store).judged_us >= begun - 2 * MINUTE_US)


def positions(store: Store) -> list[int]:
    return [document.body.get("next_offset") or 0 for document in store.ledger.scan("position:")]


def test_silence_is_what_workers_could_hear_over_partitions_and_restarts(
    settings: Settings, queue: Queue, store: Store
) -> None:
    """It sends to both partitions in turn, we are down for half an hour, a worker starts anew; then it falls silent."""
    doors = Doors(queue)
    for ago in range(90, 60, -1):
        doors.send(ago % 2, minutes_ago=ago)
    work_off(settings, queue, store)
    first = read(store)
    for ago in range(30, 20, -1):
        doors.send(ago % 2, minutes_ago=ago)
    for ago in range(20, 0, -1):
        doors.canary(ago % 2, minutes_ago=ago)
    work_off(settings, queue, store)
    doors.close()
    second = read(store)

    assert [(one.name, one.state, one.silent_s) for one in first.emitters] == [("app", "ok", 0)]
    assert [(one.name, one.state) for one in first.sources] == [("sshd@web-1", "ok")]
    for one in (*second.emitters, *second.sources):
        assert (one.name, one.state) in (("app", "silent"), ("sshd@web-1", "silent"))
        # The half hour in which nothing of anybody was received is neither silence nor a cadence.
        assert one.expected_s == 300.0
        assert one.silent_s in (19 * 60, 20 * 60)
    assert [(one.of, one.name) for one in second.findings] == [("emitter", "app"), ("source", "sshd@web-1")]


def test_sources_are_those_of_the_stored_events_and_the_surplus_is_counted(
    settings: Settings, queue: Queue, store: Store
) -> None:
    """As normalised, also without a category; two of a partition are watched, the third is said to be missing."""
    doors = Doors(queue)
    doors.send(0, minutes_ago=3, hostname="a", category="CRON")
    doors.send(0, minutes_ago=2, hostname="b", category=None)
    doors.send(0, minutes_ago=1, hostname="c")
    doors.send(1, minutes_ago=1, hostname="a", category="CRON")
    work_off(settings, queue, store)
    doors.close()
    silence = read(store)

    assert {one.subject[2] for one in silence.sources} == {"a", "b"}
    assert silence.sources_untracked == 1
    assert {one.last.key for one in silence.sources} == {"app"}
    assert {one.last.door for one in silence.sources} == {EPOCH.hex()}
