"""Run a worker: read the queue, index into the store, keep the ledger.

Any number of workers may run, on any number of machines; they share the partitions of the topic.
"""

from __future__ import annotations

import argparse
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from logweir.audit.books import Books
from logweir.clock import DAY_US, Clock, now_us
from logweir.config import Settings, shown_url
from logweir.errors import CLAIM_LOST, OFFSETS_EXPIRED, QUEUE_DOWN, STORE_DOWN, STORE_REFUSES, LogweirError, Problem
from logweir.event import day_of
from logweir.metrics import endpoint as exposition
from logweir.metrics import registry
from logweir.process.lifetime import owner_new
from logweir.process.logs import configure_logging
from logweir.queue import open_queue
from logweir.queue.port import Consumer, Delivery, Queue
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers import enrich
from logweir_workers.accounting.closing import end_books
from logweir_workers.accounting.hours import HourMerger
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.retention import delete_old_books, old_books
from logweir_workers.accounting.store_audit import StoreAuditor
from logweir_workers.backoff import Stopped, until_it_answers
from logweir_workers.deadletters.keeper import LetterRoom
from logweir_workers.deadletters.letter import LetterLog
from logweir_workers.filters import Filters
from logweir_workers.pipeline import Pipeline, Work

log = logging.getLogger(__name__)

_RECORDS_PER_POLL = 64
_BULK_WAIT_S = 0.05
_BUSY_WAIT_S = 0.02
_TURN_S_MAX = 0.5
_POLL_INTERVAL_S_MAX = 0.25
_IDLE_WAIT_S = 0.2
_IDLE_INTERVAL_S = 2.0
_RETENTION_INTERVAL_S = 3600.0
_READ_INTERVAL_S = 1.0
_LETTERS_INTERVAL_S = 60.0
_MERGE_INTERVAL_S = 1.0
_CLOSE_INTERVAL_S = 2.0
_FILTERS_INTERVAL_S = 2.0
_BOOKS_DELAY_S = 60.0
_DRAIN_S_MAX = 5.0
_STALLED_S = 120.0

_T = TypeVar("_T")


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
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    store, queue = open_store(settings.store), open_queue(settings.queue)
    worker = Worker(settings=settings, queue=queue, store=store, stopping=stopping, clock=now_us)
    registry.prepare(("logweir_worker_", "logweir_event_", "logweir_store_", "logweir_canary_r"))
    port = exposition.serve(
        "The worker's /metrics", settings.worker.metrics_address, settings.worker.metrics_port, worker.stalled
    )
    places = shown_url(settings.queue.url), shown_url(settings.store.url)
    log.info("Reading %s into %s; /metrics is on port %d.", *places, port)
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


@dataclass(slots=True)
class _Bulk:
    """Records that are indexed together. ``since``: when the first one was prepared, monotonic seconds."""

    works: list[Work] = field(default_factory=list)
    events: int = 0
    size_bytes: int = 0
    since: float = 0.0
    indexed: Future[None] | None = None

    def add(self, work: Work) -> None:
        self.since = self.since or time.monotonic()
        self.works.append(work)
        self.events += len(work.documents)
        self.size_bytes += work.size_bytes


class Worker:
    """One member of the consumer group. ``run`` returns when ``stopping`` is set."""

    def __init__(
        self, *, settings: Settings, queue: Queue, store: Store, stopping: threading.Event, clock: Clock
    ) -> None:
        self._settings = settings.worker
        self._accounting = settings.accounting
        self._retention_days = settings.store.retention_days
        self._queue = queue
        self._store = store
        self._stopping = stopping
        self._clock = clock
        self._owner = owner_new()
        self._enrich = enrich.load(settings.worker)
        self._filters = Filters.of_file(settings.worker.filters_file)
        self._letter_room = LetterRoom(store, settings.store)
        self._letter_log = LetterLog(settings.keys_path.parent)
        self._ledgers: dict[int, PartitionLedger] = {}
        self._fetched: deque[Delivery | _Hole] = deque()
        self._bulk = _Bulk()
        self._under_way: deque[_Bulk] = deque()
        self._uncommitted: dict[int, int] = {}
        self._paused: set[int] = set()
        self._old_books: _Reading[Books | None] = _Reading("books")
        self._mergeable: _Reading[None] = _Reading("merging")
        self._turned = time.monotonic()
        self._polled = 0.0
        self._auditor = StoreAuditor(store=store, group=settings.worker.group, clock=clock)
        self._merger = HourMerger(
            store=store, group=settings.worker.group, owner=self._owner, settings=settings.accounting, clock=clock
        )
        self._chores = [
            _Chore(self._settings.ledger_interval_s, self._flush),
            _Chore(_IDLE_INTERVAL_S, self._note_idle),
            _Chore(_RETENTION_INTERVAL_S, self._delete_expired),
            _Chore(_RETENTION_INTERVAL_S, self._read_old_books, due=time.monotonic() + _BOOKS_DELAY_S),
            _Chore(_READ_INTERVAL_S, self._delete_old_books),
            _Chore(_MERGE_INTERVAL_S, self._merge_windows, due=time.monotonic() + _BOOKS_DELAY_S),
            _Chore(_CLOSE_INTERVAL_S, self._close_gone),
            _Chore(self._accounting.store_audit_interval_s, self._audit_store),
            _Chore(_LETTERS_INTERVAL_S, self._expire_letters),
            _Chore(_FILTERS_INTERVAL_S, self._filters.reload),
        ]

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
        with ThreadPoolExecutor(self._settings.bulks_in_flight, thread_name_prefix="bulk") as self._executor:
            self._consumer: Consumer = until_it_answers(self._join, self._stopping)
            try:
                while not self._stopping.is_set():
                    self._turn()
            except (Stopped, _TopicMadeAnew):
                pass
            except LogweirError as error:
                if error.problem is not CLAIM_LOST:
                    raise
                self._lose_claim(error)
            finally:
                self._consumer.close()
                self._drop(list(self._ledgers))

    def _join(self) -> Consumer:
        return self._queue.consumer(group=self._settings.group, assigned=self._assigned, revoked=self._revoked)

    def _turn(self) -> None:
        """Poll, prepare, index, settle, flush: a little of each. A member that does not poll is taken for dead."""
        self._turned = time.monotonic()
        self._poll()
        while self._fetched and not self._bulk_is_full() and time.monotonic() - self._turned < _TURN_S_MAX:
            try:
                self._prepare(self._fetched[0])
            except LogweirError as error:
                self._bear(error, STORE_DOWN)
                self._stopping.wait(1.0)
                break
            self._fetched.popleft()
            self._settle_indexed()
            self._send_bulk_when_due()
        self._settle_indexed()
        self._send_bulk_when_due()
        for chore in self._chores:
            chore.when_due()

    def _prepare(self, fetched: Delivery | _Hole) -> None:
        ledger = self._ledgers[fetched.partition]
        if isinstance(fetched, Delivery):
            self._bulk.add(self._pipeline.prepare(fetched, ledger))
        else:
            delivery = Delivery(fetched.partition, fetched.last, 0, b"")
            self._bulk.add(Work(delivery, ledger, None, expired=(fetched.first, fetched.last)))

    def _poll(self) -> None:
        """Fetch the next records. While some are not prepared yet, only show the group that we live."""
        if self._fetched and time.monotonic() - self._polled < _POLL_INTERVAL_S_MAX:
            if self._bulk_is_full():
                self._stopping.wait(_BUSY_WAIT_S)
            return
        self._polled = time.monotonic()
        self._pause_all_or_none(bool(self._fetched))
        wait_s = _BUSY_WAIT_S if self._fetched or self._under_way or self._bulk.works else _IDLE_WAIT_S
        try:
            deliveries = self._consumer.poll(wait_s=wait_s, records_max=_RECORDS_PER_POLL)
        except LogweirError as error:
            if error.problem is OFFSETS_EXPIRED:
                self._expire(error)
            else:
                self._bear(error, QUEUE_DOWN)
                self._stopping.wait(1.0)
            return
        self._fetched += [delivery for delivery in deliveries if delivery.partition in self._ledgers]

    def _bear(self, error: LogweirError, *bearable: Problem) -> None:
        """Go on although the queue or the store is away for now; raises everything else."""
        if error.problem not in bearable:
            raise error
        log.warning("%s Trying again.", error)

    def _pause_all_or_none(self, full: bool) -> None:
        """By partition, not by a flag: some may have come or gone since the last time."""
        wanted = set(self._ledgers) if full else set()
        if begin := wanted - self._paused:
            self._consumer.pause(begin)
        if end := self._paused - wanted:
            self._consumer.resume(end)
        self._paused = wanted

    def _bulk_is_full(self) -> bool:
        bulk = self._bulk
        return bulk.events >= self._settings.bulk_events_max or bulk.size_bytes >= self._settings.bulk_size_bytes_max

    def _send_bulk_when_due(self) -> None:
        """Have the bulk indexed when it is full or has waited, if fewer than the allowed number are under way."""
        bulk = self._bulk
        due = self._bulk_is_full() or (bulk.works and time.monotonic() - bulk.since >= _BULK_WAIT_S)
        if not due or len(self._under_way) >= self._settings.bulks_in_flight:
            return
        self._bulk = _Bulk()
        bulk.indexed = self._executor.submit(self._pipeline.index, bulk.works, self._stopping)
        self._under_way.append(bulk)

    def _settle_indexed(self) -> None:
        """Count the bulks that are indexed, oldest first. Raises Stopped, and what went wrong in the bulk's thread."""
        while self._under_way and (indexed := self._under_way[0].indexed) and indexed.done():
            indexed.result()
            try:
                self._pipeline.settle(self._under_way[0].works)
            except LogweirError as error:
                self._bear(error, STORE_DOWN)
                return
            self._under_way.popleft()

    def _flush(self) -> None:
        """Write the ledgers, then commit. Raises LogweirError(CLAIM_LOST)."""
        for partition, ledger in self._ledgers.items():
            try:
                offset = ledger.flush()
            except LogweirError as error:
                # The next flush writes all of it; until then nothing is committed.
                self._bear(error, STORE_DOWN)
                break
            if offset is not None:
                self._uncommitted[partition] = offset
            self._observe_canaries(ledger)
        if self._uncommitted:
            self._commit()

    def _observe_canaries(self, ledger: PartitionLedger) -> None:
        for sent_us in ledger.take_canaries():
            registry.get("logweir_canary_returned_total").inc()
            registry.get("logweir_canary_roundtrip_seconds").observe(max(0.0, (self._clock() - sent_us) / 1e6))

    def _commit(self) -> None:
        try:
            self._consumer.commit(self._uncommitted)
        except LogweirError as error:
            # Such as while the group is being shared out anew. The position is in the store; the next flush commits.
            if error.problem is not QUEUE_DOWN:
                raise
            log.info("Offsets are committed a little later: %s", error)
            return
        self._uncommitted = {}

    def _assigned(self, partitions: Collection[int]) -> Mapping[int, int | None]:
        for partition in partitions:
            self._ledgers[partition] = until_it_answers(lambda: self._claim(partition), self._stopping)  # noqa: B023
        self._paused -= set(partitions)
        registry.get("logweir_worker_partitions").set(len(self._ledgers))
        return {partition: self._ledgers[partition].next_offset for partition in partitions}

    def _claim(self, partition: int) -> PartitionLedger:
        return PartitionLedger.claim(
            store=self._store,
            group=self._settings.group,
            topic_id=self._topic_id,
            partition=partition,
            owner=self._owner,
            settings=self._accounting,
        )

    def _revoked(self, partitions: Collection[int], lost: bool) -> None:
        """Finish what is under way and write it down, unless it is no longer ours to write."""
        if not lost:
            try:
                self._drain()
                self._flush()
            except LogweirError as error:
                # Whoever gets the partitions repeats what was not written down.
                log.warning("Partitions %s are handed over without a last flush: %s", sorted(partitions), error)
        self._drop(partitions)

    def _drain(self) -> None:
        """Wait a little for what is under way, and count it."""
        deadline = time.monotonic() + _DRAIN_S_MAX
        try:
            for bulk in list(self._under_way):
                assert bulk.indexed is not None
                bulk.indexed.result(timeout=max(0.0, deadline - time.monotonic()))
            self._settle_indexed()
        except (TimeoutError, Stopped):
            log.info("Some bulks are not finished; whoever reads on indexes them again.")

    def _drop(self, partitions: Collection[int]) -> None:
        """Forget partitions: what is under way for them is not counted, what waits for them is not sent."""
        for partition in partitions:
            self._uncommitted.pop(partition, None)
            self._paused.discard(partition)
            ledger = self._ledgers.pop(partition, None)
            if ledger is not None:
                ledger.dropped = True
        self._fetched = deque(fetched for fetched in self._fetched if fetched.partition in self._ledgers)
        waiting, self._bulk = self._bulk.works, _Bulk()
        for work in waiting:
            if not work.ledger.dropped:
                self._bulk.add(work)
        registry.get("logweir_worker_partitions").set(len(self._ledgers))

    def _lose_claim(self, error: LogweirError) -> None:
        """Another worker has claimed a partition of ours: write nothing more about it, and join the group anew."""
        log.warning("%s", error)
        registry.get("logweir_worker_claims_lost_total").inc()
        self._drop([int(error.numbers["partition"])])

    def _expire(self, error: LogweirError) -> None:
        """Offsets are gone that were never read: note them as lost, behind what was read before, and read on."""
        log.error("%s", error)
        numbers = error.numbers
        partition, wanted, earliest, end = (
            numbers[name] for name in ("partition", "offset", "offset_earliest", "offset_latest")
        )
        if wanted < earliest:
            self._fetched.append(_Hole(partition, wanted, earliest - 1))
            self._consumer.seek(partition, earliest)
        elif until_it_answers(self._queue.topic_id, self._stopping) != self._topic_id:
            raise _TopicMadeAnew
        elif wanted > end:
            self._ledgers[partition].rewind(end)
            self._consumer.seek(partition, end)
        else:
            # A hole between records that are there: no retention does that. A person has to see it.
            raise error

    def _note_idle(self) -> None:
        before_us = self._clock()
        try:
            unread = self._consumer.unread()
        except LogweirError as error:
            self._bear(error, QUEUE_DOWN)
            return
        for partition, records in unread.items():
            if not records and partition in self._ledgers:
                self._ledgers[partition].idle(before_us)

    def _delete_expired(self) -> None:
        before = day_of(self._clock() - self._retention_days * DAY_US)
        try:
            deleted = self._store.delete_expired(before)
        except LogweirError as error:
            self._bear(error, STORE_DOWN, STORE_REFUSES)
            return
        for index in deleted:
            log.info("Deleted %s: store.retention_days is %d.", index, self._retention_days)

    def _read_old_books(self) -> None:
        group, now_us = self._settings.group, self._clock()
        self._old_books.begin(lambda: old_books(self._store, group=group, settings=self._accounting, now_us=now_us))

    def _delete_old_books(self) -> None:
        if not self._old_books.is_done:
            return
        try:
            deleted = delete_old_books(
                self._store,
                group=self._settings.group,
                owner=self._owner,
                settings=self._accounting,
                ledgers=self._ledgers.values(),
                now_us=self._clock(),
                books=self._old_books.take(),
            )
        except LogweirError as error:
            self._bear(error, STORE_DOWN, STORE_REFUSES)
            return
        if deleted:
            days = self._accounting.retention_days
            log.info("Deleted %d documents of the ledger: accounting.retention_days is %d.", deleted, days)

    def _merge_windows(self) -> None:
        try:
            if self._mergeable.is_done:
                self._mergeable.take()
            self._merger.merge_some()
        except LogweirError as error:
            self._bear(error, STORE_DOWN, STORE_REFUSES)
        if self._ledgers and self._merger.is_look_due:
            ledgers = list(self._ledgers.values())
            self._mergeable.begin(lambda: self._merger.look(ledgers))

    def _close_gone(self) -> None:
        try:
            end_books(self._store, group=self._settings.group, ledgers=self._ledgers.values(), now_us=self._clock())
        except LogweirError as error:
            self._bear(error, STORE_DOWN, STORE_REFUSES)

    def _audit_store(self) -> None:
        try:
            self._auditor.audit_some(self._ledgers.values())
        except LogweirError as error:
            self._bear(error, STORE_DOWN, STORE_REFUSES)

    def _expire_letters(self) -> None:
        try:
            self._letter_room.expire(self._clock())
        except LogweirError as error:
            self._bear(error, STORE_DOWN, STORE_REFUSES)


class _Reading(Generic[_T]):
    """One thing at a time read on a thread of its own: it may take minutes, and who does not poll is taken for dead."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._result: Future[_T] | None = None

    def begin(self, read: Callable[[], _T]) -> None:
        """Begin, unless it is under way. A stop does not wait for it: it must only read."""
        if self._result is not None:
            return
        result = self._result = Future()

        def run() -> None:
            try:
                result.set_result(read())
            except Exception as error:  # noqa: BLE001 - whoever takes the result gets it
                result.set_exception(error)

        threading.Thread(target=run, name=self._name, daemon=True).start()

    @property
    def is_done(self) -> bool:
        """There is something to take."""
        return self._result is not None and self._result.done()

    def take(self) -> _T:
        """What was read; raises what went wrong. The next one may begin."""
        assert self._result is not None
        result, self._result = self._result, None
        return result.result()


@dataclass(slots=True)
class _Chore:
    """Something to do every ``interval_s`` seconds, beside reading."""

    interval_s: float
    call: Callable[[], None]
    due: float = 0.0

    def when_due(self) -> None:
        now = time.monotonic()
        if now >= self.due:
            self.due = now + self.interval_s
            self.call()
