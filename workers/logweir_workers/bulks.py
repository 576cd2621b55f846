"""Records that are prepared, gathered to bulks: indexed on threads beside the reading one, settled in their order."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from logweir.config import MEBIBYTE, WorkerSettings
from logweir.errors import STORE_DOWN, LogweirError
from logweir.metrics import registry
from logweir_workers.backoff import Stopped, tolerate
from logweir_workers.deadletters.refusals import KeyRefusals
from logweir_workers.pipeline import Pipeline
from logweir_workers.work import Work

log = logging.getLogger(__name__)

_WAIT_S_MAX = 0.05
_DRAIN_S_MAX = 5.0
_ROOM_S = 1.0
"""How often it is looked whether there is room for dead letters that wait."""
AHEAD_SIZE_BYTES_MAX = 64 * MEBIBYTE
"""Most bytes of records that are indexed while dead letters before them wait for room; with more, all wait."""


@dataclass(slots=True)
class _Bulk:
    works: list[Work] = field(default_factory=list)
    """Its records, in the order in which they were prepared."""
    events: int = 0
    """How many documents it has."""
    size_bytes: int = 0
    since_s: float = 0.0
    """When the first one was prepared, monotonic."""
    indexed: Future[None] | None = None
    """Set while it is in flight."""
    looked_s: float = 0.0
    """When it was last looked whether there is room for its dead letters, monotonic; 0 when none of them waits."""

    @property
    def is_under_way(self) -> bool:
        return self.indexed is not None and not self.indexed.done()

    @property
    def has_waiting(self) -> bool:
        return any(work.waiting for work in self.works if not work.ledger.dropped)

    def add(self, work: Work) -> None:
        self.since_s = self.since_s or time.monotonic()
        self.works.append(work)
        self.events += len(work.documents)
        self.size_bytes += work.size_bytes


class Bulks:
    """The bulk that is being filled, and those in flight. For the reading thread alone."""

    def __init__(
        self,
        pipeline: Pipeline,
        executor: Executor,
        settings: WorkerSettings,
        refusals: KeyRefusals,
        stopping: threading.Event,
    ) -> None:
        self._pipeline = pipeline
        self._executor = executor
        self._settings = settings
        self._refusals = refusals
        self._stopping = stopping
        self._filling = _Bulk()
        self._in_flight: deque[_Bulk] = deque()
        self._has_found_room = False
        self._paused = registry.get("logweir_worker_paused").labels("dead_letters_full")

    @property
    def is_full(self) -> bool:
        """Nothing more should be prepared until some of it is sent."""
        bulk = self._filling
        return bulk.events >= self._settings.bulk_events_max or bulk.size_bytes >= self._settings.bulk_size_bytes_max

    @property
    def is_empty(self) -> bool:
        return not self._filling.works and not self._in_flight

    def add(self, work: Work) -> None:
        self._filling.add(work)

    def send_when_due(self) -> None:
        """Have the bulk indexed when it is full or has waited, if fewer than the allowed number are in flight."""
        bulk = self._filling
        is_due = self.is_full or (bulk.works and time.monotonic() - bulk.since_s >= _WAIT_S_MAX)
        if not is_due or not self._may_send():
            return
        self._filling = _Bulk()
        bulk.indexed = self._executor.submit(self._pipeline.index, bulk.works, self._stopping)
        self._in_flight.append(bulk)

    def _may_send(self) -> bool:
        if not self._in_flight or not self._in_flight[0].looked_s:
            return len(self._in_flight) < self._settings.bulks_in_flight
        # What is of other keys does not wait for the oldest one's letters, as far as there is memory for it.
        is_too_much = sum(bulk.size_bytes for bulk in self._in_flight) >= AHEAD_SIZE_BYTES_MAX
        return not is_too_much and sum(bulk.is_under_way for bulk in self._in_flight) < self._settings.bulks_in_flight

    def settle_indexed(self) -> None:
        """Count the bulks that are indexed, oldest first. Raises Stopped, and what went wrong in the bulk's thread.

        One whose dead letters find no room yet stays, and those behind it with it.
        """
        while self._in_flight and (indexed := self._in_flight[0].indexed) and indexed.done():
            indexed.result()
            if self._in_flight[0].has_waiting:
                self._look_for_room(self._in_flight[0])
                return
            if self._in_flight[0].looked_s:
                self._has_found_room = True
                if not any(bulk.has_waiting for bulk in self._in_flight):
                    self._paused.set(0)
                    log.warning("There is room for dead letters again: the worker goes on.")
            try:
                self._pipeline.settle(self._in_flight[0].works)
            except LogweirError as error:
                tolerate(error, STORE_DOWN)
                return
            self._in_flight.popleft()

    def _look_for_room(self, bulk: _Bulk) -> None:
        now_s = time.monotonic()
        self._paused.set(1)
        if now_s - bulk.looked_s >= _ROOM_S:
            self._ask_for_refusals()
            # Soon after the first look there is none, unless the bulk before it has found some.
            if bulk.looked_s or self._has_found_room:
                bulk.indexed = self._executor.submit(self._pipeline.keep_letters, bulk.works, self._stopping)
            bulk.looked_s, self._has_found_room = now_s, False

    def _ask_for_refusals(self) -> None:
        """Have doors refuse the keys whose letters wait, where others wait because of them."""
        works = [work for bulk in self._in_flight if not bulk.is_under_way for work in bulk.works]
        waiting = {letter.body.get("key") for work in works for letter in work.waiting}
        others = {batch.key for work in works if work.record for batch in work.record.batches} - waiting
        if others:
            self._refusals.ask({key for key in waiting if isinstance(key, str)})

    def drain(self) -> None:
        """Wait a little for what is in flight, and count it."""
        deadline_s = time.monotonic() + _DRAIN_S_MAX
        try:
            for bulk in list(self._in_flight):
                assert bulk.indexed is not None
                bulk.indexed.result(timeout=max(0.0, deadline_s - time.monotonic()))
            self.settle_indexed()
        except (TimeoutError, Stopped):
            log.info("Some bulks are not finished; whoever reads on indexes them again.")

    def drop(self) -> None:
        """Send nothing of partitions that are dropped; what is in flight for them is not counted."""
        waiting, self._filling = self._filling.works, _Bulk()
        for work in waiting:
            if not work.ledger.dropped:
                self._filling.add(work)
