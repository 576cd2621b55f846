"""Run a worker: read the queue, index into the store, keep the ledger.

Any number of workers may run, on any number of machines; they share the partitions of the topic.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from logweir.clock import Clock, now_us
from logweir.config import Settings, shown_url
from logweir.errors import (
    CLAIM_LOST,
    LEDGER_SET_BACK,
    OFFSETS_EXPIRED,
    QUEUE_DOWN,
    QUEUE_REBALANCING,
    STORE_DOWN,
    LogweirError,
)
from logweir.metrics import endpoint as exposition
from logweir.metrics import registry
from logweir.process.collector import collect_seldom
from logweir.process.lifetime import owner_new, set_on_stop_signals
from logweir.process.logs import configure_logging
from logweir.queue import open_queue
from logweir.queue.port import Consumer, Delivery, Queue
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers import enrich
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.backoff import Stopped, tolerate, until_it_answers
from logweir_workers.bulks import Bulks
from logweir_workers.chores import Chores, PeriodicTask
from logweir_workers.deadletters.keeper import LetterRoom
from logweir_workers.deadletters.letter import LetterLog
from logweir_workers.deadletters.refusals import KeyRefusals
from logweir_workers.filters import Filters
from logweir_workers.pipeline import Pipeline
from logweir_workers.resume import resume_offset
from logweir_workers.work import Work

log = logging.getLogger(__name__)

_RECORDS_PER_POLL = 64
_BUSY_WAIT_S = 0.02
_TURN_S_MAX = 0.5
_POLL_INTERVAL_S_MAX = 0.25
_IDLE_WAIT_S = 0.2
_IDLE_INTERVAL_S = 2.0
_TABLES_INTERVAL_S = 2.0
_STALLED_S = 120.0
_LEDGER_SHARE_MAX = 0.25
"""Most of a worker's time that writing the ledger may take, however large senders make its documents."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--group", dest="set:worker.group", metavar="NAME", help="consumer group (logweir)")
    parser.add_argument(
        "--metrics-address",
        dest="set:worker.metrics_address",
        metavar="ADDRESS",
        help="address of /metrics and /healthz (127.0.0.1)",
    )
    parser.add_argument(
        "--metrics-port",
        dest="set:worker.metrics_port",
        metavar="PORT",
        help="port of /metrics and /healthz (8082, or the next free one)",
    )


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    configure_logging("worker", settings.log)
    stopping = set_on_stop_signals()
    store, queue = open_store(settings.store), open_queue(settings.queue, group=settings.worker.group)
    worker = Worker(settings=settings, queue=queue, store=store, stopping=stopping, clock=now_us)
    registry.prepare(("logweir_worker_", "logweir_event_", "logweir_store_", "logweir_canary_r"))
    port = exposition.serve(
        "The worker's /metrics", settings.worker.metrics_address, settings.worker.metrics_port, worker.stalled
    )
    places = shown_url(settings.queue.url), shown_url(settings.store.url)
    log.info("Reading %s into %s; /metrics is on port %d.", *places, port)
    collect_seldom()
    try:
        worker.run()
    finally:
        queue.close()
        store.close()
    return 0


class _TopicMadeAnew(Exception):
    """The topic that we read is gone, and another one has its name."""


@dataclass(frozen=True, slots=True)
class _Hole:
    """Offsets, from ``first`` to ``last``, that were gone from the queue before they were read."""

    partition: int
    first: int
    last: int


class Worker:
    """One member of the consumer group. ``run`` returns when ``stopping`` is set."""

    def __init__(
        self, *, settings: Settings, queue: Queue, store: Store, stopping: threading.Event, clock: Clock
    ) -> None:
        self._settings = settings.worker
        self._accounting = settings.accounting
        self._queue = queue
        self._store = store
        self._stopping = stopping
        self._clock = clock
        self._owner = owner_new()
        self._enrich = enrich.load(settings.worker)
        self._filters = Filters.of_file(settings.worker.filters_file)
        self._refusals = KeyRefusals(store, group=self._settings.group, owner=self._owner, clock=clock)
        self._letter_room = LetterRoom(store, settings.store, self._refusals)
        self._letter_log = LetterLog(settings.keys_path.parent)
        self._ledgers: dict[int, PartitionLedger] = {}
        self._fetched: deque[Delivery | _Hole] = deque()
        self._uncommitted: dict[int, int] = {}
        self._paused: set[int] = set()
        self._turned = time.monotonic()
        self._polled = 0.0
        self._tasks = (
            PeriodicTask(self._settings.ledger_interval_s, self._flush, share_max=_LEDGER_SHARE_MAX),
            PeriodicTask(_IDLE_INTERVAL_S, self._note_idle, (QUEUE_DOWN,)),
            PeriodicTask(_TABLES_INTERVAL_S, self._enrich.reload),
        )
        self._chores = Chores(
            settings,
            store=store,
            ledgers=self._ledgers,
            owner=self._owner,
            clock=clock,
            filters=self._filters,
            letter_room=self._letter_room,
        )

    def stalled(self) -> str | None:
        """What /healthz complains of: the reading loop has not turned for two minutes."""
        seconds = time.monotonic() - self._turned
        return f"the worker has not read the queue for {seconds:.0f} s" if seconds > _STALLED_S else None

    def run(self) -> None:
        """Read until told to stop. Raises LogweirError for what a person has to mend first."""
        try:
            until_it_answers(self._store.prepare, self._stopping)
            until_it_answers(self._queue.prepare, self._stopping)
            while not self._stopping.is_set():
                self._topic_id = until_it_answers(self._queue.topic_id, self._stopping)
                self._pipeline = Pipeline(
                    store=self._store,
                    enrich=self._enrich,
                    topic_id=self._topic_id,
                    events_max=self._settings.bulk_events_max,
                    event_fields=self._accounting.event_fields_by_key,
                    clock=self._clock,
                    filters=self._filters,
                    letter_room=self._letter_room,
                    letter_log=self._letter_log,
                )
                self._read()
        except Stopped:
            return

    def _read(self) -> None:
        """Be a member of the group until told to stop, a claim is lost or the topic is made anew; then leave it."""
        with ThreadPoolExecutor(self._settings.bulks_in_flight, thread_name_prefix="bulk") as executor:
            self._bulks = Bulks(self._pipeline, executor, self._settings, self._refusals, self._stopping)
            self._consumer: Consumer = until_it_answers(self._join, self._stopping)
            try:
                while not self._stopping.is_set():
                    self._turn()
            except (Stopped, _TopicMadeAnew):
                pass
            except LogweirError as error:
                if error.problem not in (CLAIM_LOST, LEDGER_SET_BACK):
                    raise
                self._lose_claim(error)
            except Exception:
                # Where it came from, something may be counted by half. Leaving the group must not write that down:
                # whoever reads on counts it again.
                self._drop(list(self._ledgers))
                raise
            finally:
                self._consumer.close()
                self._drop(list(self._ledgers))

    def _join(self) -> Consumer:
        return self._queue.consumer(group=self._settings.group, assigned=self._assigned, revoked=self._revoked)

    def _turn(self) -> None:
        """Poll, prepare, index, settle, flush: a little of each. A member that does not poll is taken for dead."""
        self._turned = time.monotonic()
        self._poll()
        while self._fetched and not self._bulks.is_full and time.monotonic() - self._turned < _TURN_S_MAX:
            try:
                self._prepare(self._fetched[0])
            except LogweirError as error:
                tolerate(error, STORE_DOWN)
                self._stopping.wait(1.0)
                break
            self._fetched.popleft()
            self._bulks.settle_indexed()
            self._bulks.send_when_due()
        self._bulks.settle_indexed()
        self._bulks.send_when_due()
        for task in self._tasks:
            task.run_when_due()
        self._chores.run_due()

    def _prepare(self, fetched: Delivery | _Hole) -> None:
        ledger = self._ledgers[fetched.partition]
        if isinstance(fetched, Delivery):
            self._bulks.add(self._pipeline.prepare(fetched, ledger))
        else:
            delivery = Delivery(fetched.partition, fetched.last, 0, b"")
            self._bulks.add(Work(delivery, ledger, None, expired=(fetched.first, fetched.last)))

    def _poll(self) -> None:
        """Fetch the next records. While some are not prepared yet, only show the group that we live."""
        if self._fetched and time.monotonic() - self._polled < _POLL_INTERVAL_S_MAX:
            if self._bulks.is_full:
                self._stopping.wait(_BUSY_WAIT_S)
            return
        self._polled = time.monotonic()
        self._pause_all_or_none(bool(self._fetched))
        wait_s = _BUSY_WAIT_S if self._fetched or not self._bulks.is_empty else _IDLE_WAIT_S
        try:
            deliveries = self._consumer.poll(wait_s=wait_s, records_max=_RECORDS_PER_POLL)
        except LogweirError as error:
            if error.problem is OFFSETS_EXPIRED:
                self._expire(error)
            else:
                tolerate(error, QUEUE_DOWN)
                self._stopping.wait(1.0)
            return
        self._fetched += [delivery for delivery in deliveries if delivery.partition in self._ledgers]

    def _pause_all_or_none(self, full: bool) -> None:
        """By partition, not by a flag: some may have come or gone since the last time."""
        wanted = set(self._ledgers) if full else set()
        if begin := wanted - self._paused:
            self._consumer.pause(begin)
        if end := self._paused - wanted:
            self._consumer.resume(end)
        self._paused = wanted

    def _flush(self) -> None:
        """Write the ledgers, then commit. Raises LogweirError: CLAIM_LOST, LEDGER_SET_BACK."""
        for partition, ledger in self._ledgers.items():
            try:
                offset = ledger.flush()
            except LogweirError as error:
                # The next flush writes all of it; until then nothing is committed.
                tolerate(error, STORE_DOWN)
                break
            if offset is not None:
                self._uncommitted[partition] = offset
            self._observe_canaries(ledger)
        if self._uncommitted:
            self._commit()

    def _observe_canaries(self, ledger: PartitionLedger) -> None:
        for sent_us in ledger.canaries.take_returned():
            registry.get("logweir_canary_returned_total").inc()
            registry.get("logweir_canary_roundtrip_seconds").observe(max(0.0, (self._clock() - sent_us) / 1e6))

    def _commit(self) -> None:
        try:
            self._consumer.commit(self._uncommitted)
        except LogweirError as error:
            # The position is in the store; the next flush commits.
            if error.problem not in (QUEUE_DOWN, QUEUE_REBALANCING):
                raise
            log.info("Offsets are committed a little later: %s", error)
            return
        self._uncommitted = {}

    def _assigned(self, partitions: Collection[int]) -> Mapping[int, int]:
        for partition in partitions:
            self._ledgers[partition] = until_it_answers(lambda: self._claim(partition), self._stopping)  # noqa: B023
        self._paused -= set(partitions)
        registry.get("logweir_worker_partitions").set(len(self._ledgers))
        offsets = {
            partition: until_it_answers(partial(resume_offset, self._queue, self._ledgers[partition]), self._stopping)
            for partition in partitions
        }
        # Where the group's own is beyond it, the queue would say that nothing is left to read.
        self._uncommitted.update(offsets)
        return offsets

    def _claim(self, partition: int) -> PartitionLedger:
        ledger = PartitionLedger.claim(
            store=self._store,
            group=self._settings.group,
            topic_id=self._topic_id,
            partition=partition,
            owner=self._owner,
            settings=self._accounting,
        )
        self._chores.claimed(ledger)
        return ledger

    def _revoked(self, partitions: Collection[int], lost: bool) -> None:
        """Finish what is under way and write it down, unless it is no longer ours to write."""
        if not lost and not self._ledgers.keys().isdisjoint(partitions):
            try:
                self._bulks.drain()
                self._flush()
            except LogweirError as error:
                # Whoever gets the partitions repeats what was not written down.
                log.warning("Partitions %s are handed over without a last flush: %s", sorted(partitions), error)
        self._drop(partitions)

    def _drop(self, partitions: Collection[int]) -> None:
        """Forget partitions: what is under way for them is not counted, what waits for them is not sent."""
        for partition in partitions:
            self._uncommitted.pop(partition, None)
            self._paused.discard(partition)
            ledger = self._ledgers.pop(partition, None)
            if ledger is not None:
                ledger.dropped = True
        self._fetched = deque(fetched for fetched in self._fetched if fetched.partition in self._ledgers)
        self._bulks.drop()
        registry.get("logweir_worker_partitions").set(len(self._ledgers))

    def _lose_claim(self, error: LogweirError) -> None:
        """Another worker has claimed a partition of ours, or its ledger was set back: join the group anew."""
        log.warning("%s", error)
        registry.get("logweir_worker_claims_lost_total").inc()
        self._drop([int(error.numbers["partition"])])

    def _expire(self, error: LogweirError) -> None:
        """Offsets are gone that were never read: note them as lost, behind what was read before, and read on."""
        log.error("%s", error)
        numbers = error.numbers
        partition, wanted, earliest = (numbers[name] for name in ("partition", "offset", "offset_earliest"))
        if wanted < earliest:
            self._fetched.append(_Hole(partition, wanted, earliest - 1))
            self._consumer.seek(partition, earliest)
        elif until_it_answers(self._queue.topic_id, self._stopping) != self._topic_id:
            raise _TopicMadeAnew
        elif self._begin_anew()[partition] == wanted:
            # A hole between records that are there: no retention does that. A person has to see it.
            raise error

    def _begin_anew(self) -> Mapping[int, int]:
        """The queue was set back: read all partitions on from where they are as they were read; gives from where.

        What was fetched before is not counted: other records may stand in these places by now.
        """
        partitions = list(self._ledgers)
        self._drop(partitions)
        offsets = self._assigned(partitions)
        for partition, offset in offsets.items():
            self._consumer.seek(partition, offset)
        self._consumer.resume(partitions)
        return offsets

    def _note_idle(self) -> None:
        before_us = self._clock()
        for partition, records in self._consumer.unread().items():
            if not records and partition in self._ledgers:
                self._ledgers[partition].idle(before_us)
