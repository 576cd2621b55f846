"""The life of the door's processes: reloads, deaths, stops, and what hangs behind them, on real signals."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.ingest.helpers import Answer, Door, events_of, running

RELOADS = 5
RELOADED = "new processes serve by the settings as they are now"


def until(condition: Callable[[], object], wait_s: float = 15) -> None:
    end_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.02)


def reload(door: Door) -> None:
    """SIGHUP, until the new processes serve and the old ones are gone."""
    before = door.log.count(RELOADED)
    old = door.workers()
    assert door.process is not None
    door.process.send_signal(signal.SIGHUP)
    until(lambda: door.log.count(RELOADED) > before and not set(old) & set(door.workers()))


@dataclass
class Load:
    """Threads that post events with unique ids, some over kept connections, some over a new one each time."""

    door: Door
    keeping: int = 4
    fresh: int = 4
    accepted: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        for number in range(self.keeping + self.fresh):
            thread = threading.Thread(target=self._run, args=(number, number < self.keeping))
            thread.start()
            self._threads.append(thread)
        until(lambda: len(self.accepted) > 100)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, number: int, is_keeping: bool) -> None:
        connection = self.door.connection()
        for n in range(1_000_000):
            if self._ended.is_set():
                break
            event = json.dumps({"id": f"{number}-{n}"})
            try:
                if not is_keeping:
                    connection = self.door.connection()
                answer = self.door.post(event.encode(), connection=connection)
                if not is_keeping:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection = self.door.connection()
                continue
            if answer.status == 202:
                self.accepted.append(event)
            else:
                self.failures.append(f"{answer.status} {answer.body!r}")
            time.sleep(0.002)
        connection.close()


# --- reload -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("face", ["fast", "flask"])
def test_reloads_under_load_refuse_nobody_and_every_202_is_in_the_queue_once(tmp_path: Path, face: str) -> None:
    """Old and new processes overlap, with a producer each on the embedded queue: no error, nothing lost, nothing twice."""
    with running(Door(tmp_path, face=face)) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        with Load(door) as load:
            for _ in range(RELOADS):
                reload(door)
        assert door.stop() == 0
        events = [event.decode() for event in events_of(door.records())]

    assert load.failures == []
    assert len(load.accepted) > 500
    assert sorted(events) == sorted(load.accepted)
