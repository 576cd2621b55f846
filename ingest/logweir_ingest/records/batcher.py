"""Concurrent batches of one partition become one record; when the queue has it, all their senders are answered.

A batch's way: ``submit`` -> ``_linger`` -> ``_send`` -> the enqueuer, which calls back -> ``_confirm``. There is no
timer: the next record of a queue is sent when its previous one is confirmed, with whatever has come meanwhile.

Numbered batches go by their emitter, in one queue a partition, so that an emitter's events keep their order. All
unnumbered batches share one queue, which moves on to the next partition with each record, so that merging stays deep.
It passes over partitions that do not confirm, as long as there are others.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import msgspec

from logweir import record
from logweir.clock import Clock
from logweir.config import MEBIBYTE
from logweir.errors import INTERNAL, QUEUE_UNAVAILABLE, STOPPING, LogweirError
from logweir.metrics import registry
from logweir.record import Batch, Refused
from logweir_ingest.delivery.enqueue import Enqueuer
from logweir_ingest.delivery.report import QUEUE, SPOOL, DeliveryReport
from logweir_ingest.records.encode import RecordEncoder, memory_size
from logweir_ingest.records.windows import DueMarker, Emitter, Windows

log = logging.getLogger(__name__)

TICK_S = 0.05
# A linger lasts as long as each look finds more, so many looks at most.
_LOOKS_MAX = 9
_IN_FLIGHT_SIZE_BYTES_MAX = 4 * MEBIBYTE
_REFUSED_UNDER_WAY_MAX = 64
# With less room than that, a request of some events is refused.
_SMALL_BYTES = 64 * 1024
# A marker's row for one emitter is at most this large.
_EMITTER_SIZE_BYTES_MAX = 900


class Enqueued(msgspec.Struct, frozen=True):
    """Where a batch is: the numbers ``first`` to ``first + count - 1`` of a partition, durable in queue or spool."""

    partition: int
    first: int
    count: int
    window: int
    durable: str


BatchResult = Enqueued | LogweirError


class Future(Protocol):
    """What both asyncio's and concurrent.futures' futures can do."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...


Post = Callable[..., object]
"""``post(function, *arguments)``: call it where futures may be answered, soon or at once."""


def call_now(function: Callable[..., None], *arguments: object) -> None:
    """The ``Post`` of futures that any thread may answer."""
    function(*arguments)


class PendingBatch(msgspec.Struct, eq=False):
    """A batch whose sender waits for its answer."""

    batch: Batch
    events_size_bytes: int
    size_bytes: int
    """In memory."""
    future: Future
    deadline_s: float
    is_late: bool = False
    """Its sender was refused at the deadline, whatever becomes of its records."""
    is_sent: bool = False
    """All of its events were taken over by the enqueuer."""
    is_failed: bool = False
    """A record with some of its events is durable nowhere."""

    @property
    def is_accepted(self) -> bool:
        """Once nothing of it is in flight any more: a batch is accepted as a whole or not at all."""
        return self.is_sent and not self.is_failed and not self.is_late


@dataclass(slots=True)
class SentRecord:
    """One record that the enqueuer took over."""

    first: int
    count: int
    parts: list[tuple[PendingBatch, int]] = field(default_factory=list)
    """Whose events it holds, and how many of each."""
    is_failed: bool = False


@dataclass(slots=True)
class InFlight:
    """One record, or the several that one large batch needs: all on one partition, with numbers that follow."""

    queue: PartitionQueue
    partition: int
    window: int
    first: int
    batches: list[PendingBatch]
    size_bytes: int
    """In memory."""
    reserved_bytes: int = 0
    """Of the spool, for a batch that needs several records."""
    records: list[SentRecord] = field(default_factory=list)
    unconfirmed: int = 0
    """Records."""
    durable: str = QUEUE
    """SPOOL as soon as one record is."""
    error: LogweirError | None = None
    """What the senders of batches that were not accepted are told."""


@dataclass(slots=True)
class PartitionQueue:
    """The batches that wait for one partition, and what is in flight to it."""

    partition: int | None
    """None for the queue of the unnumbered batches."""
    waiting: deque[PendingBatch] = field(default_factory=deque)
    in_flight: InFlight | None = None
    is_lingering: bool = False
    seen: int = 0
    """How many were waiting at the last look."""
    looks: int = 0

    @property
    def is_overdue(self) -> bool:
        """Whether the sender of a batch in flight was refused at its deadline already."""
        return self.in_flight is not None and self.in_flight.batches[0].is_late

    def take(self, *, batches_max: int, record_size_bytes_max: int) -> list[PendingBatch]:
        """Take out what may be in flight together; something waits."""
        taken = [self.waiting.popleft()]
        size_bytes = taken[0].size_bytes
        # A batch that may need several records goes alone: it needs room in the spool for all of them.
        size_bytes_max = _IN_FLIGHT_SIZE_BYTES_MAX if size_bytes <= record_size_bytes_max else 0
        while self.waiting and len(taken) < batches_max:
            following = self.waiting[0].size_bytes
            size_bytes += following
            if size_bytes > size_bytes_max or following > record_size_bytes_max:
                break
            taken.append(self.waiting.popleft())
        return taken

    def expire(self, now_s: float) -> Iterator[PendingBatch]:
        """Yield the batches whose deadline is over: of those that wait each leaves, of those in flight each is late."""
        while self.waiting and self.waiting[0].deadline_s <= now_s:
            yield self.waiting.popleft()
        for pending in self.in_flight.batches if self.in_flight is not None else ():
            if pending.deadline_s > now_s:
                break
            if not pending.is_late:
                pending.is_late = True
                yield pending


class RecordBatcher:
    """Batches in, records out, answers back. Safe to use from several threads.

    ``post`` brings the answering of futures to the thread that may do it. ``answer_timeout_s``: a sender whose batch is
    in neither queue nor spool by then gets QUEUE_UNAVAILABLE; what is after all is counted as unconfirmed. ``soon``
    puts a record off until what the caller's event loop has read already waits, too. ``ticked`` is called a few times a
    second, on a thread of the batcher's. ``keys_with_numbers``: keys whose events number themselves; all of such a
    key's go to one partition, as its worker follows their order.
    """

    def __init__(
        self,
        enqueuer: Enqueuer,
        *,
        ingest_epoch: bytes,
        clock: Clock,
        answer_timeout_s: float,
        record_size_bytes_max: int,
        pending_size_bytes_max: int,
        post: Post = call_now,
        soon: Post = call_now,
        ticked: Callable[[], None] = lambda: None,
        keys_with_numbers: Collection[str] = (),
    ) -> None:
        self.ingest_epoch = ingest_epoch
        self._enqueuer = enqueuer
        self._clock = clock
        self._answer_timeout_s = answer_timeout_s
        self._record_size_bytes_max = record_size_bytes_max
        self._pending_size_bytes_max = pending_size_bytes_max
        self._post = post
        self._soon = soon
        self._ticked = ticked
        self._keys_with_numbers = frozenset(keys_with_numbers)
        self._lock = threading.RLock()
        # A window ends early when the rows of its marker take two thirds of a record. Its partition's own queue and the
        # unnumbered one may each have so many other keys in flight then, and the marker must still fit.
        self._batches_max = max(1, record_size_bytes_max // _EMITTER_SIZE_BYTES_MAX // 3)
        self._encoder = RecordEncoder(ingest_epoch=ingest_epoch, record_size_bytes_max=record_size_bytes_max)
        self._unnumbered = PartitionQueue(None)
        self._numbered: list[PartitionQueue] = []
        self._windows = Windows(partitions=0, marker_size_bytes_max=0)
        self._partition = 0
        self._pending_size_bytes = 0
        self._refused_under_way = 0
        self._is_stopping = False
        self._ended = threading.Event()
        self._meters = _Meters()
        self._ticker = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        self._enqueuer.start(self._opened)
        self._ticker.start()

    def _opened(self, partitions: int) -> None:
        with self._lock:
            self._windows = Windows(partitions=partitions, marker_size_bytes_max=self._record_size_bytes_max // 3)
            self._numbered = [PartitionQueue(partition) for partition in range(partitions)]
            # Doors that start together should not all begin with partition 0.
            self._partition = self.ingest_epoch[0] % partitions

    # --- a batch's way ---------------------------------------------------------------------------------------------
    def submit(self, batch: Batch, future: Future) -> None:
        """Take a batch over; ``future`` gets an Enqueued, or the LogweirError to answer with.

        Raises LogweirError when nothing was taken over: STOPPING; QUEUE_UNAVAILABLE before the queue was ever reached,
        with a full buffer, or while senders before it wait in vain.
        """
        events_size_bytes = sum(map(len, batch.events))
        size_bytes = memory_size(batch, events_size_bytes)
        with self._lock:
            if self._is_stopping:
                raise LogweirError(STOPPING)
            if not self._enqueuer.is_open:
                raise LogweirError(QUEUE_UNAVAILABLE, reason=self._enqueuer.reason)
            # One batch is always let in: it may be larger than the whole bound.
            if self._pending_size_bytes and self._pending_size_bytes + size_bytes > self._pending_size_bytes_max:
                reason = f"{self._pending_size_bytes} bytes wait for it already"
                raise LogweirError(QUEUE_UNAVAILABLE, reason=reason)
            queue = self._queue_of(batch)
            if queue.is_overdue:
                raise LogweirError(QUEUE_UNAVAILABLE, reason="its confirmation is overdue")
            self._pending_size_bytes += size_bytes
            deadline_s = time.monotonic() + self._answer_timeout_s
            queue.waiting.append(PendingBatch(batch, events_size_bytes, size_bytes, future, deadline_s))
            if queue.in_flight is None and not queue.is_lingering:
                self._linger(queue)

    def _queue_of(self, batch: Batch) -> PartitionQueue:
        if batch.epoch is None and batch.key not in self._keys_with_numbers:
            return self._unnumbered
        # Whose numbers are inside of events is read by the worker only: all of such a key's go one way.
        is_whole_key = batch.epoch is None or batch.emitter is None
        named = batch.key if is_whole_key else f"{batch.key}\0{batch.emitter}"
        return self._numbered[zlib.crc32(named.encode()) % len(self._numbered)]

    def _linger(self, queue: PartitionQueue) -> None:
        """Send when a look finds nobody new: who was just answered may be about to send on."""
        with self._lock:
            if len(queue.waiting) > queue.seen and queue.looks < _LOOKS_MAX:
                queue.is_lingering = True
                queue.seen, queue.looks = len(queue.waiting), queue.looks + 1
                self._soon(self._linger, queue)
                return
            queue.is_lingering = False
            queue.seen = queue.looks = 0
            while queue.waiting and queue.in_flight is None:
                self._send(queue)

    def _send(self, queue: PartitionQueue) -> None:
        """Encode what waits, and hand it to the enqueuer, which tells ``_on_confirmed`` what became of each record.

        Numbers are given only to what was taken over, so that none is missing.
        """
        batches = queue.take(batches_max=self._batches_max, record_size_bytes_max=self._record_size_bytes_max)
        size_bytes = sum([pending.size_bytes for pending in batches])
        partition = self._next_partition() if queue.partition is None else queue.partition
        window = self._windows.window(partition, self._clock())
        first = self._windows.next_number(partition)
        in_flight = InFlight(queue, partition, window, first, batches, size_bytes)
        try:
            if len(batches) == 1 and size_bytes > self._record_size_bytes_max:
                # It may take several records: there must be room for the last before the first leaves.
                self._enqueuer.reserve(size_bytes)
                in_flight.reserved_bytes = size_bytes
            whole = [pending.batch for pending in batches]
            unsent = iter(batches)
            pending = next(unsent)
            for payload, count, parts in self._encoder.records(whole, size_bytes, first=first, window=window):
                sent = SentRecord(self._windows.next_number(partition), count)
                confirmed = partial(self._on_confirmed, in_flight, sent)
                self._enqueuer.send(partition, payload, confirmed, is_reserved=in_flight.reserved_bytes > 0)
                self._windows.give(partition, window, count)
                in_flight.records.append(sent)
                in_flight.unconfirmed += 1
                for part in parts:
                    events = len(part.events)
                    sent.parts.append((pending, events))
                    if part.index_first + events == len(pending.batch.events):
                        pending.is_sent = True
                        pending = next(unsent, pending)
        except LogweirError as error:
            # Without its trace, which refers to this call: the batches would stay in memory with it.
            in_flight.error = error.with_traceback(None)
        except Exception:  # A bug of ours: senders are answered all the same.
            reference = secrets.token_hex(6)
            in_flight.error = LogweirError(INTERNAL, reference=reference)
            about = {"reference": reference, "partition": partition, "window": window, "first": first}
            log.exception("A record could not be sent, reference %s", reference, extra=about)
        if in_flight.unconfirmed:
            queue.in_flight = in_flight
        else:
            self._post(_answer, self._account(in_flight))

    def _on_confirmed(self, in_flight: InFlight, sent: SentRecord, result: DeliveryReport) -> None:
        """Called on a thread of the enqueuer's: what follows belongs to the thread that may answer."""
        self._post(self._confirm, in_flight, sent, result)

    def _confirm(self, in_flight: InFlight, sent: SentRecord, result: DeliveryReport) -> None:
        """One record is durable, or is nowhere. With the last one: answer all senders, and send what waits."""
        with self._lock:
            if isinstance(result, LogweirError):
                sent.is_failed = True
                in_flight.error = in_flight.error or result
            elif result == SPOOL:
                in_flight.durable = SPOOL
            in_flight.unconfirmed -= 1
            if in_flight.unconfirmed:
                return
            answers = self._account(in_flight)
            queue = in_flight.queue
            queue.in_flight = None
            if queue.waiting and not queue.is_lingering:
                self._linger(queue)
        _answer(answers)

    def _account(self, in_flight: InFlight) -> list[tuple[Future, BatchResult]]:
        """Count in its window what is no longer in flight; returns who is to be told what.

        A sender of whose batch one record failed, or was never sent, is refused: what its other records brought into
        the queue is unconfirmed. The senders beside it have what they were promised.
        """
        for sent in in_flight.records:
            if sent.is_failed:
                for pending, _ in sent.parts:
                    pending.is_failed = True
        confirmed: list[dict[Emitter, list[int]]] = []
        for sent in in_flight.records:
            if sent.is_failed:
                self._windows.void(in_flight.partition, in_flight.window, sent.first, sent.count)
            else:
                confirmed.append(_counts(sent))
                self._windows.confirm(in_flight.partition, in_flight.window, confirmed[-1])
        self._meters.confirmed(in_flight, confirmed)
        self._enqueuer.release(in_flight.reserved_bytes)
        self._pending_size_bytes -= in_flight.size_bytes
        answers: list[tuple[Future, BatchResult]] = []
        first = in_flight.first
        for pending in in_flight.batches:
            count = len(pending.batch.events)
            if pending.is_accepted:
                place = Enqueued(in_flight.partition, first, count, in_flight.window, in_flight.durable)
                answers.append((pending.future, place))
            elif not pending.is_late:
                assert in_flight.error is not None
                answers.append((pending.future, in_flight.error))
            first += count
        return answers

    def _next_partition(self) -> int:
        """The next partition in turn; of those that confirm, while there are any."""
        count = len(self._numbered)
        following = [(self._partition + step) % count for step in range(1, count + 1)]
        self._partition = next(
            (partition for partition in following if not self._enqueuer.is_spooling(partition)), following[0]
        )
        return self._partition

    # --- unreadable bodies -----------------------------------------------------------------------------------------
    def keep(self, refused: Refused) -> None:
        """Write an unreadable body for the operator, if that is possible without waiting; count whether it is kept."""
        with self._lock:
            try:
                if not self._enqueuer.is_open or self._is_stopping or self._refused_under_way >= _REFUSED_UNDER_WAY_MAX:
                    raise LogweirError(QUEUE_UNAVAILABLE, reason="there is no room for what is no event")
                partition = self._next_partition()
                if self._enqueuer.is_spooling(partition):
                    raise LogweirError(QUEUE_UNAVAILABLE, reason="the spool is for events")
                payload = record.encode(
                    record.Kind.REFUSED,
                    ingest_epoch=self.ingest_epoch,
                    count=0,
                    body=refused,
                    first=self._windows.next_number(partition),
                    window=self._windows.window(partition, self._clock()),
                )
                self._enqueuer.send(partition, payload, self._on_kept)
                self._refused_under_way += 1
            except LogweirError:
                self._meters.refused(kept=False)

    def _on_kept(self, result: DeliveryReport) -> None:
        with self._lock:
            self._refused_under_way -= 1
        self._meters.refused(kept=not isinstance(result, LogweirError))

    # --- deadlines and markers -------------------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._ended.wait(TICK_S):
            try:
                self.tick()
            except Exception:  # The ticker outlives whatever goes wrong in it: without it nobody would be answered.
                log.exception("Deadlines and markers could not be looked after")

    def tick(self) -> None:
        """Refuse the senders whose deadline is over; write the markers that are due."""
        self._enqueuer.tick()
        self._expire(time.monotonic())
        with self._lock:
            self._write_markers()
        self._ticked()

    def _expire(self, now_s: float) -> None:
        late: list[tuple[Future, BatchResult]] = []
        with self._lock:
            error = LogweirError(
                QUEUE_UNAVAILABLE,
                reason=f"neither it nor the spool had them within {self._answer_timeout_s:g} seconds",
            )
            for queue in (self._unnumbered, *self._numbered):
                for pending in queue.expire(now_s):
                    late.append((pending.future, error))
                    # What is late and in flight holds its memory still.
                    if not pending.is_late:
                        self._pending_size_bytes -= pending.size_bytes
        if late:
            self._enqueuer.acceptance.note(error)
            self._post(_answer, late)

    def _write_markers(self, *, stopping: bool = False) -> None:
        for due in self._windows.due(self._clock(), stopping=stopping):
            payload = record.encode(
                record.Kind.MARKER,
                ingest_epoch=self.ingest_epoch,
                first=due.first,
                count=due.count,
                window=due.window,
                body=due.marker,
            )
            try:
                self._enqueuer.send(due.partition, payload, partial(self._on_marker_confirmed, due))
            except LogweirError:
                self._windows.unmarked(due)

    def _on_marker_confirmed(self, due: DueMarker, result: DeliveryReport) -> None:
        with self._lock:
            if isinstance(result, LogweirError):
                self._windows.unmarked(due)
            else:
                self._windows.marked(due)
                self._meters.record("marker")

    @property
    def is_connected(self) -> bool:
        """Whether there is a producer: without one, records wait, and then go to the spool."""
        return self._enqueuer.is_connected

    def unready(self) -> str | None:
        """Why no event can be accepted now, or None."""
        if self._is_stopping:
            return "this door is stopping"
        with self._lock:
            if self._numbered and all(queue.is_overdue for queue in (self._unnumbered, *self._numbered)):
                return "neither the queue nor the disk of the spool answers"
            if self._pending_size_bytes > self._pending_size_bytes_max - min(
                _SMALL_BYTES, self._pending_size_bytes_max // 16
            ):
                return f"{self._pending_size_bytes} bytes wait for the queue already"
        return self._enqueuer.unready()

    def stop(self, timeout_s: float) -> None:
        """Take nothing more; answer what is under way, close all windows with their markers, let go of the queue.

        Waits at most about ``timeout_s`` seconds. A window with a record that is still in flight stays open.
        """
        end_s = time.monotonic() + timeout_s
        with self._lock:
            if self._is_stopping:
                return
            self._is_stopping = True
        while self._is_busy() and time.monotonic() < end_s:
            time.sleep(0.01)
        is_complete = False
        while time.monotonic() < end_s and not is_complete:
            with self._lock:
                self._write_markers(stopping=True)
                is_complete = not self._windows.open_count()
            time.sleep(0.01)
        if not is_complete:
            log.warning("Stopped before everything was confirmed; the next process ends this one's books.")
        self._ended.set()
        self._enqueuer.stop(max(0.1, end_s - time.monotonic()), is_complete=is_complete)
        # Nobody is left waiting for what did not get through in that time.
        self._expire(math.inf)

    def _is_busy(self) -> bool:
        with self._lock:
            # What is overdue may never be confirmed.
            return any(
                queue.waiting or (queue.in_flight is not None and not queue.is_overdue)
                for queue in (self._unnumbered, *self._numbered)
            )


class _Meters:
    """The metrics of this file."""

    def __init__(self) -> None:
        accepted_events = registry.get("logweir_ingest_accepted_events_total")
        self._accepted_events = {durable: accepted_events.labels(durable) for durable in (QUEUE, SPOOL)}
        self._accepted_bytes = registry.get("logweir_ingest_accepted_bytes_total")
        self._unconfirmed_events = registry.get("logweir_ingest_unconfirmed_events_total")
        self._records = registry.get("logweir_ingest_records_total")
        self._refused_bodies = registry.get("logweir_ingest_refused_bodies_total")
        self._data_records = self._records.labels("data")

    def confirmed(self, in_flight: InFlight, by_record: Sequence[dict[Emitter, list[int]]]) -> None:
        """``by_record``: the counts of each record that is durable."""
        self._data_records.inc(len(by_record))
        unconfirmed = sum([counts[1] for by_emitter in by_record for counts in by_emitter.values()])
        if unconfirmed:
            self._unconfirmed_events.inc(unconfirmed)
        accepted = [pending for pending in in_flight.batches if pending.is_accepted]
        if accepted:
            self._accepted_events[in_flight.durable].inc(sum([len(pending.batch.events) for pending in accepted]))
            self._accepted_bytes.inc(sum([pending.events_size_bytes for pending in accepted]))

    def record(self, kind: str) -> None:
        self._records.labels(kind).inc()

    def refused(self, *, kept: bool) -> None:
        self._refused_bodies.labels("yes" if kept else "no").inc()
        if kept:
            self.record("refused")


def _counts(sent: SentRecord) -> dict[Emitter, list[int]]:
    """Of one record: per emitter, how many of its events are accepted, and how many unconfirmed."""
    counts: dict[Emitter, list[int]] = {}
    for pending, count in sent.parts:
        batch = pending.batch
        emitter = (batch.key, batch.emitter)
        totals = counts.get(emitter)
        if totals is None:
            totals = counts[emitter] = [0, 0]
        totals[0 if pending.is_accepted else 1] += count
    return counts


def _answer(answers: list[tuple[Future, BatchResult]]) -> None:
    for future, result in answers:
        if not future.done():
            future.set_result(result)
