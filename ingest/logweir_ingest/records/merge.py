"""Concurrent batches of one partition become one record; when the queue has it, all their senders are answered.

There is no timer: a lane's next record leaves when its previous one is settled, with whatever has come meanwhile.
Numbered batches go by their emitter, in one lane a partition, so that an emitter's events keep their order. All
bare batches share one lane, which moves on to the next partition with each record, so that merging stays deep. It
passes over partitions that do not confirm, as long as there are others.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from logweir import record
from logweir.clock import Clock
from logweir.config import MEBIBYTE
from logweir.errors import INTERNAL, QUEUE_RECORD_TOO_LARGE, QUEUE_UNAVAILABLE, STOPPING, LogweirError
from logweir.metrics import registry
from logweir.record import Batch, Refused
from logweir_ingest.delivery.enqueue import Enqueuer
from logweir_ingest.delivery.report import QUEUE, SPOOL, Confirmed
from logweir_ingest.delivery.report import DeliveryReport as Where
from logweir_ingest.records.windows import DueMarker, Emitter, Windows

log = logging.getLogger(__name__)

TICK_S = 0.05
# A departure waits for more as long as each look finds more, so many times at most.
_ROUNDS_MAX = 8
_FLIGHT_SIZE_BYTES_MAX = 4 * MEBIBYTE
_REFUSED_UNDER_WAY_MAX = 64
# Of a batch in a record, beside its events and what its emitter can make long.
_BATCH_OVERHEAD_BYTES = 200
_REASON_OVERHEAD_BYTES = 10
_STAMP_OVERHEAD_BYTES = 6
_EVENT_OVERHEAD_BYTES = 5
# What an event in memory needs beside its own bytes.
_EVENT_OBJECT_BYTES = 60
# A marker's line for one emitter is at most this large: a window takes so many emitters as fit into a record.
_EMITTER_SIZE_BYTES_MAX = 900


class Enqueued(msgspec.Struct, frozen=True):
    """Where a batch is: the numbers ``first`` to ``first + count - 1`` of a partition, durable in queue or spool."""

    partition: int
    first: int
    count: int
    window: int
    durable: str


Result = Enqueued | LogweirError


class Future(Protocol):
    """What both asyncio's and concurrent.futures' futures can do."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...


Post = Callable[..., object]
"""``post(function, *arguments)``: call it where futures may be settled, soon or at once."""


def call_now(function: Callable[..., None], *arguments: object) -> None:
    """The ``Post`` of futures that any thread may settle."""
    function(*arguments)


class _Waiter(msgspec.Struct, eq=False):
    """A sender that waits.

    ``late``: it was refused at its deadline, whatever becomes of its records. ``sent``: all of its events were taken
    over. ``failed``: a record with some of them is durable nowhere.
    """

    batch: Batch
    events_size_bytes: int
    size_bytes: int
    future: Future
    deadline_s: float
    late: bool = False
    sent: bool = False
    failed: bool = False

    @property
    def is_accepted(self) -> bool:
        """Once its flight has landed: a batch is accepted as a whole or not at all."""
        return self.sent and not self.failed and not self.late


@dataclass(slots=True)
class _Sent:
    """One record that was taken over: its first number, and whose events it holds, how many of each."""

    first: int
    count: int
    parts: list[tuple[_Waiter, int]]
    failed: bool = False


@dataclass(slots=True)
class _Flight:
    """One record, or the several that one large batch needs: all on one partition, with numbers that follow."""

    lane: _Lane
    partition: int
    window: int
    first: int
    waiters: list[_Waiter]
    reserved_bytes: int = 0
    records: list[_Sent] = field(default_factory=list)
    under_way: int = 0
    durable: str = QUEUE
    error: LogweirError | None = None


@dataclass(slots=True)
class _Lane:
    """``partition`` is None for the lane of the bare batches."""

    partition: int | None
    waiting: deque[_Waiter] = field(default_factory=deque)
    flight: _Flight | None = None
    is_departing: bool = False
    seen: int = 0
    rounds: int = 0

    @property
    def is_overdue(self) -> bool:
        """Whether a sender was refused for its flight's sake already."""
        return self.flight is not None and self.flight.waiters[0].late


class Merger:
    """Batches in, records out, answers back. Safe to use from several threads.

    ``post`` brings the settling of futures to the thread that may do it. ``answer_timeout_s``: a sender whose batch is
    in neither queue nor spool by then gets QUEUE_UNAVAILABLE; what is after all is counted as unconfirmed. ``soon``
    puts a departure off until what the caller's event loop has read already is in the lane, too. ``ticked`` is called a
    few times a second, on a thread of the merger's. ``keys_with_numbers``: keys whose events number themselves; all of
    such a key's go to one partition, as its worker follows their order.
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
        # A window ends early when it has seen so many emitters. Two flights may be on the way to its partition then,
        # each with as many others, and its marker must still fit into a record.
        self._flight_batches_max = max(1, record_size_bytes_max // _EMITTER_SIZE_BYTES_MAX // 3)
        self._bare = _Lane(None)
        self._lanes: list[_Lane] = []
        self._windows = Windows(partitions=0, emitters_max=1)
        self._bare_partition = 0
        self._pending_size_bytes = 0
        self._refused_under_way = 0
        self._shrink = 2.0
        self._stopping = False
        self._ended = threading.Event()
        self._meters = _Meters()
        self._ticker = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        self._enqueuer.start(self._opened)
        self._ticker.start()

    def _opened(self, partitions: int) -> None:
        with self._lock:
            self._windows = Windows(partitions=partitions, emitters_max=self._flight_batches_max)
            self._lanes = [_Lane(partition) for partition in range(partitions)]
            # Doors that start together should not all begin with partition 0.
            self._bare_partition = self.ingest_epoch[0] % partitions

    # --- a batch's way ---------------------------------------------------------------------------------------------
    def submit(self, batch: Batch, future: Future) -> None:
        """Take a batch over; ``future`` gets an Enqueued, or the LogweirError to answer with.

        Raises LogweirError when nothing was taken over: STOPPING; QUEUE_UNAVAILABLE before the queue was ever reached,
        with a full buffer, or while senders before it wait in vain.
        """
        events_size_bytes = sum(map(len, batch.events))
        size_bytes = events_size_bytes + _overhead_bytes(batch) + _EVENT_OBJECT_BYTES * len(batch.events)
        with self._lock:
            if self._stopping:
                raise LogweirError(STOPPING)
            if not self._enqueuer.is_open:
                raise LogweirError(QUEUE_UNAVAILABLE, reason=self._enqueuer.reason)
            # One batch is always let in: it may be larger than the whole bound.
            if self._pending_size_bytes and self._pending_size_bytes + size_bytes > self._pending_size_bytes_max:
                reason = f"{self._pending_size_bytes} bytes wait for it already"
                raise LogweirError(QUEUE_UNAVAILABLE, reason=reason)
            lane = self._lane_of(batch)
            if lane.is_overdue:
                raise LogweirError(QUEUE_UNAVAILABLE, reason="its confirmation is overdue")
            self._pending_size_bytes += size_bytes
            deadline_s = time.monotonic() + self._answer_timeout_s
            lane.waiting.append(_Waiter(batch, events_size_bytes, size_bytes, future, deadline_s))
            if lane.flight is None:
                self._depart_soon(lane)

    def _lane_of(self, batch: Batch) -> _Lane:
        if batch.epoch is None and batch.key not in self._keys_with_numbers:
            return self._bare
        # Whose numbers are inside of events is read by the worker only: all of such a key's go one way.
        is_whole_key = batch.epoch is None or batch.emitter is None
        named = batch.key if is_whole_key else f"{batch.key}\0{batch.emitter}"
        return self._lanes[zlib.crc32(named.encode()) % len(self._lanes)]

    def _depart_soon(self, lane: _Lane) -> None:
        if lane.waiting and not lane.is_departing:
            lane.is_departing = True
            lane.seen, lane.rounds = len(lane.waiting), 0
            self._soon(self._departing, lane)

    def _departing(self, lane: _Lane) -> None:
        """Depart when the last look brought nobody new: who was just answered may be about to send on."""
        with self._lock:
            if len(lane.waiting) > lane.seen and lane.rounds < _ROUNDS_MAX:
                lane.seen, lane.rounds = len(lane.waiting), lane.rounds + 1
                self._soon(self._departing, lane)
                return
            lane.is_departing = False
            self._depart(lane)

    def _depart(self, lane: _Lane) -> None:
        """Send what waits in the lane, as much as one flight takes."""
        while lane.waiting and lane.flight is None:
            partition = self._next_bare_partition() if lane.partition is None else lane.partition
            waiters = [lane.waiting.popleft()]
            size_bytes = waiters[0].size_bytes
            # A batch that may need several records flies alone: it needs room in the spool for all of them.
            size_bytes_max = _FLIGHT_SIZE_BYTES_MAX if size_bytes <= self._record_size_bytes_max else 0
            while (
                lane.waiting
                and len(waiters) < self._flight_batches_max
                and size_bytes + lane.waiting[0].size_bytes <= size_bytes_max
                and lane.waiting[0].size_bytes <= self._record_size_bytes_max
            ):
                waiters.append(lane.waiting.popleft())
                size_bytes += waiters[-1].size_bytes
            flight = self._take_off(lane, partition, waiters, size_bytes)
            if flight.under_way:
                lane.flight = flight
            else:
                self._enqueuer.release(flight.reserved_bytes)
                self._pending_size_bytes -= size_bytes
                assert flight.error is not None
                self._post(_settle, [(waiter.future, flight.error) for waiter in waiters])

    def _take_off(self, lane: _Lane, partition: int, waiters: list[_Waiter], size_bytes: int) -> _Flight:
        """Encode and send. Numbers are given only to what was taken over, so that none is missing."""
        window = self._windows.window(partition, self._clock())
        first = self._windows.next_number(partition)
        flight = _Flight(lane, partition, window, first, waiters)
        try:
            if len(waiters) == 1 and size_bytes > self._record_size_bytes_max:
                # It may take several records: there must be room for the last before the first leaves.
                self._enqueuer.reserve(size_bytes)
                flight.reserved_bytes = size_bytes
            unsent = deque(waiters)
            batches = [waiter.batch for waiter in waiters]
            for payload, count, piece in self._payloads(batches, size_bytes, first, window):
                sent = _Sent(self._windows.next_number(partition), count, [])
                self._enqueuer.send(
                    partition, payload, self._landing(flight, sent), is_reserved=bool(flight.reserved_bytes)
                )
                self._windows.give(partition, window, count)
                flight.records.append(sent)
                flight.under_way += 1
                if piece is batches:
                    sent.parts = [(waiter, len(waiter.batch.events)) for waiter in waiters]
                    for waiter in waiters:
                        waiter.sent = True
                    continue
                for part in piece:
                    sent.parts.append((unsent[0], len(part.events)))
                    if part.index_first + len(part.events) == len(unsent[0].batch.events):
                        unsent.popleft().sent = True
        except LogweirError as error:
            flight.error = error
        except Exception:  # A bug of ours: senders are answered all the same.
            reference = secrets.token_hex(6)
            flight.error = LogweirError(INTERNAL, reference=reference)
            about = {"reference": reference, "partition": partition, "window": window, "first": first}
            log.exception("A record could not be sent, reference %s", reference, extra=about)
        return flight

    def _landing(self, flight: _Flight, sent: _Sent) -> Confirmed:
        def settled(result: Where) -> None:
            self._post(self._landed, flight, sent, result)

        return settled

    def _landed(self, flight: _Flight, sent: _Sent, result: Where) -> None:
        """One record is settled."""
        with self._lock:
            if isinstance(result, LogweirError):
                sent.failed = True
                flight.error = flight.error or result
            elif result == SPOOL:
                flight.durable = SPOOL
            flight.under_way -= 1
            if flight.under_way:
                return
            settled = self._account(flight)
            self._enqueuer.release(flight.reserved_bytes)
            self._pending_size_bytes -= sum(waiter.size_bytes for waiter in flight.waiters)
            flight.lane.flight = None
            self._depart_soon(flight.lane)
        _settle(settled)

    def _account(self, flight: _Flight) -> list[tuple[Future, Result]]:
        """Book a flight's numbers in its window; gives who is to be told what.

        A sender of whose batch one record failed, or was never sent, is refused: what its other records brought into
        the queue is unconfirmed. The senders beside it have what they were promised.
        """
        for sent in flight.records:
            if sent.failed:
                for waiter, _ in sent.parts:
                    waiter.failed = True
        counts = [_counts(sent) for sent in flight.records]
        for sent, by_emitter in zip(flight.records, counts, strict=True):
            if sent.failed:
                self._windows.void(flight.partition, flight.window, sent.first, sent.count)
            else:
                self._windows.settle(flight.partition, flight.window, by_emitter)
        self._meters.landed(flight, counts)
        settled: list[tuple[Future, Result]] = []
        first = flight.first
        for waiter in flight.waiters:
            count = len(waiter.batch.events)
            if waiter.is_accepted:
                place = Enqueued(flight.partition, first, count, flight.window, flight.durable)
                settled.append((waiter.future, place))
            elif not waiter.late:
                assert flight.error is not None
                settled.append((waiter.future, flight.error))
            first += count
        return settled

    def _next_bare_partition(self) -> int:
        """The next partition in turn; of those that confirm, while there are any."""
        count = len(self._lanes)
        following = [(self._bare_partition + step) % count for step in range(1, count + 1)]
        self._bare_partition = next((one for one in following if not self._enqueuer.is_spooling(one)), following[0])
        return self._bare_partition

    # --- records ---------------------------------------------------------------------------------------------------
    def _payloads(
        self, batches: list[Batch], size_bytes: int, first: int, window: int
    ) -> Iterator[tuple[bytes, int, list[Batch]]]:
        """The encoded records of the batches, how many events each holds, and which.

        None is larger than the queue takes, nor than a reader wants to unpack (record.RAW_SIZE_BYTES_MAX, EVENTS_MAX).
        How far the last ones shrank says how much to put into one; a guess too high is cut in two and tried again.
        Raises LogweirError(QUEUE_RECORD_TOO_LARGE) when a single event does not fit.
        """
        size_bytes_max = self._record_size_bytes_max
        raw_size_bytes = min(int(size_bytes_max * max(1.0, self._shrink * 0.8)), record.RAW_SIZE_BYTES_MAX)
        is_one = size_bytes <= raw_size_bytes and len(batches) + sum(map(_count, batches)) <= record.EVENTS_MAX
        rest = deque([batches]) if is_one else deque(_pieces(batches, raw_size_bytes))
        while rest:
            piece = rest.popleft()
            count = sum(map(_count, piece))
            payload = record.encode(
                record.Kind.DATA, ingest_epoch=self.ingest_epoch, first=first, count=count, window=window, body=piece
            )
            if len(payload) <= size_bytes_max:
                # What is small says little.
                if len(payload) > size_bytes_max // 16:
                    self._shrink += (_raw_size_bytes(piece) / len(payload) - self._shrink) / 8
                yield payload, count, piece
                first += count
            elif count <= 1 and len(piece) == 1:
                raise LogweirError(QUEUE_RECORD_TOO_LARGE, size_bytes=len(payload), size_bytes_max=size_bytes_max)
            else:
                self._shrink = max(1.0, self._shrink / 2)
                rest.extendleft(reversed(list(_pieces(piece, _raw_size_bytes(piece) // 2))))

    def keep(self, refused: Refused) -> None:
        """Write an unreadable body for the operator, if that is possible without waiting; count whether it is kept."""
        with self._lock:
            try:
                if not self._enqueuer.is_open or self._stopping or self._refused_under_way >= _REFUSED_UNDER_WAY_MAX:
                    raise LogweirError(QUEUE_UNAVAILABLE, reason="there is no room for what is no event")
                partition = self._next_bare_partition()
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
                self._enqueuer.send(partition, payload, self._kept)
                self._refused_under_way += 1
            except LogweirError:
                self._meters.refused(kept=False)

    def _kept(self, result: Where) -> None:
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
        late: list[tuple[Future, Result]] = []
        with self._lock:
            error = LogweirError(
                QUEUE_UNAVAILABLE,
                reason=f"neither it nor the spool had them within {self._answer_timeout_s:g} seconds",
            )
            now_s = time.monotonic()
            for lane in (self._bare, *self._lanes):
                late += [(waiter.future, error) for waiter in self._late(lane, now_s)]
            self._write_markers()
        if late:
            self._post(_settle, late)
        self._ticked()

    def _late(self, lane: _Lane, now_s: float) -> Iterator[_Waiter]:
        while lane.waiting and lane.waiting[0].deadline_s <= now_s:
            waiter = lane.waiting.popleft()
            self._pending_size_bytes -= waiter.size_bytes
            yield waiter
        if lane.flight is not None:
            yield from _late_of(lane.flight, now_s)

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
                self._enqueuer.send(due.partition, payload, self._marking(due))
            except LogweirError:
                self._windows.unmarked(due)

    def _marking(self, due: DueMarker) -> Confirmed:
        def settled(result: Where) -> None:
            with self._lock:
                if isinstance(result, LogweirError):
                    self._windows.unmarked(due)
                else:
                    self._windows.marked(due)
                    self._meters.record("marker")

        return settled

    @property
    def is_connected(self) -> bool:
        """Whether there is a producer: without one, records wait, and then go to the spool."""
        return self._enqueuer.is_connected

    def unready(self) -> str | None:
        """Why no event can be accepted now, or None."""
        if self._stopping:
            return "this door is stopping"
        with self._lock:
            if self._lanes and all(lane.is_overdue for lane in (self._bare, *self._lanes)):
                return "neither the queue nor the disk of the spool answers"
        return self._enqueuer.unready()

    def stop(self, timeout_s: float) -> None:
        """Take nothing more; settle what is under way, close all windows with their markers, let go of the queue.

        Waits at most about ``timeout_s`` seconds. A window with a record that is still unsettled stays open.
        """
        end_s = time.monotonic() + timeout_s
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
        while self._is_busy() and time.monotonic() < end_s:
            time.sleep(0.01)
        is_complete = False
        while time.monotonic() < end_s and not is_complete:
            with self._lock:
                self._write_markers(stopping=True)
                is_complete = not self._windows.open_count()
            time.sleep(0.01)
        if not is_complete:
            log.warning("Stopped before everything was settled; the next process ends this one's books.")
        self._ended.set()
        self._enqueuer.stop(max(0.1, end_s - time.monotonic()), is_complete=is_complete)

    def _is_busy(self) -> bool:
        with self._lock:
            lanes = (self._bare, *self._lanes)
            # What is overdue may never settle.
            return any(lane.waiting or (lane.flight and not lane.is_overdue) for lane in lanes)


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

    def landed(self, flight: _Flight, by_record: Sequence[dict[Emitter, list[int]]]) -> None:
        self._data_records.inc(sum(not sent.failed for sent in flight.records))
        unconfirmed = sum(
            counts[1]
            for sent, by_emitter in zip(flight.records, by_record, strict=True)
            if not sent.failed
            for counts in by_emitter.values()
        )
        if unconfirmed:
            self._unconfirmed_events.inc(unconfirmed)
        accepted = [waiter for waiter in flight.waiters if waiter.is_accepted]
        if accepted:
            self._accepted_events[flight.durable].inc(sum([len(waiter.batch.events) for waiter in accepted]))
            self._accepted_bytes.inc(sum([waiter.events_size_bytes for waiter in accepted]))

    def record(self, kind: str) -> None:
        self._records.labels(kind).inc()

    def refused(self, *, kept: bool) -> None:
        self._refused_bodies.labels("yes" if kept else "no").inc()
        if kept:
            self.record("refused")


def _settle(settled: list[tuple[Future, Result]]) -> None:
    for future, result in settled:
        if not future.done():
            future.set_result(result)


def _late_of(flight: _Flight, now_s: float) -> Iterator[_Waiter]:
    """The flight's senders whose deadline has passed since the last time."""
    for waiter in flight.waiters:
        if waiter.deadline_s > now_s:
            break
        if not waiter.late:
            waiter.late = True
            yield waiter


def _counts(sent: _Sent) -> dict[Emitter, list[int]]:
    """Of one record: per emitter, how many of its events are accepted, and how many unconfirmed."""
    counts: dict[Emitter, list[int]] = {}
    for waiter, count in sent.parts:
        batch = waiter.batch
        emitter = (batch.key, batch.emitter)
        totals = counts.get(emitter)
        if totals is None:
            totals = counts[emitter] = [0, 0]
        totals[0 if waiter.is_accepted else 1] += count
    return counts


def _count(batch: Batch) -> int:
    return len(batch.events)


def _overhead_bytes(batch: Batch) -> int:
    """About what a batch adds to a record's body beside its events."""
    size_bytes = _BATCH_OVERHEAD_BYTES + len(batch.emitter or "") + len(batch.epoch or "")
    if batch.dropped:
        size_bytes += sum(_REASON_OVERHEAD_BYTES + len(reason) for reason in batch.dropped)
    if batch.stamp:
        size_bytes += sum(_STAMP_OVERHEAD_BYTES + len(name) + len(text.encode()) for name, text in batch.stamp.items())
    return size_bytes


def _raw_size_bytes(batches: Sequence[Batch]) -> int:
    return sum(
        _overhead_bytes(batch) + sum(map(len, batch.events)) + _EVENT_OVERHEAD_BYTES * len(batch.events)
        for batch in batches
    )


def _pieces(batches: Sequence[Batch], size_bytes_max: int) -> Iterator[list[Batch]]:
    """The batches in order, in runs of at most ``size_bytes_max`` raw bytes and record.EVENTS_MAX events.

    Each run has one event at least, whatever its size. A batch that is larger is cut: each part says with which index,
    and which sequence, it begins.
    """
    piece: list[Batch] = []
    bytes_left, events_left = size_bytes_max, record.EVENTS_MAX
    for batch in batches:
        for part in _parts(batch, size_bytes_max):
            size_bytes, count = _raw_size_bytes([part]), max(1, len(part.events))
            if piece and (size_bytes > bytes_left or count > events_left):
                yield piece
                piece, bytes_left, events_left = [], size_bytes_max, record.EVENTS_MAX
            piece.append(part)
            bytes_left -= size_bytes
            events_left -= count
    if piece:
        yield piece


def _parts(batch: Batch, size_bytes_max: int) -> Iterator[Batch]:
    """The batch as it is, or in parts that each fit into a run of their own."""
    count = len(batch.events)
    if count <= 1 or (count <= record.EVENTS_MAX and _raw_size_bytes([batch]) <= size_bytes_max):
        yield batch
        return
    room_bytes = size_bytes_max - _overhead_bytes(batch)
    start, bytes_left = 0, room_bytes
    for index, event in enumerate(batch.events):
        size_bytes = len(event) + _EVENT_OVERHEAD_BYTES
        if index > start and (size_bytes > bytes_left or index - start >= record.EVENTS_MAX):
            yield _part(batch, start, index)
            start, bytes_left = index, room_bytes
        bytes_left -= size_bytes
    yield _part(batch, start, count)


def _part(batch: Batch, start: int, end: int) -> Batch:
    sequence_first = None if batch.sequence_first is None else batch.sequence_first + start
    return msgspec.structs.replace(
        batch, events=batch.events[start:end], index_first=batch.index_first + start, sequence_first=sequence_first
    )
