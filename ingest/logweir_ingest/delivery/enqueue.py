"""A record's way to where it is safe: into the queue; when that does not take it in time, onto this machine's disk.

Each partition goes one of two ways. *Direct*: records go to the producer, which confirms them in order. When one is not
confirmed within ``queue_timeout_s``, or fails, all that are not confirmed yet go to the spool, and the partition with
them: whatever comes later follows through the spool, so that the order stays. A thread hands the spooled records to the
producer, and when the last one is handed over, the partition goes direct again: the producer keeps the order.

After a reload the processes of before may have records of a partition in the spool still. Until those are forwarded, by
them or by who adopts them, the new process only adds to its own: it sends nothing of that partition, neither way.

A record that was late may be in the queue twice, from the producer and from the spool. It is the same record, with the
same numbers; readers settle it once.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from logweir.clock import WINDOW_US, now_us
from logweir.config import MEBIBYTE, Settings, shown_url
from logweir.errors import QUEUE_DOWN, QUEUE_RECORD_TOO_LARGE, QUEUE_UNAVAILABLE, SPOOL_FAILED, LogweirError
from logweir.metrics import registry
from logweir.queue.port import Queue
from logweir.record import HEADER_SIZE_BYTES, header_of
from logweir_ingest.delivery.drain import Drain
from logweir_ingest.delivery.last_words import LastWords
from logweir_ingest.delivery.link import QueueLink
from logweir_ingest.delivery.outcome import QUEUE, SPOOL, Result, Settled
from logweir_ingest.spool.budget import Room
from logweir_ingest.spool.segment import FRAME_OVERHEAD_BYTES
from logweir_ingest.spool.spool import SEGMENT_SIZE_BYTES_MAX, Generation, Spool

log = logging.getLogger(__name__)

_Told = list[tuple[Settled, Result]]

_GROUP_SIZE_BYTES_MAX = 8 * MEBIBYTE
_RETRY_S = 0.2
_WAIT_S_MAX = 0.5
_LOOK_EVERY_S = 1.0
# Doors that start together make their folders one after the other; one that hangs holds up nobody.
_BEGIN_S_MAX = 0.3
# A disk that failed is tried again after so long, and counts on being bad until that works.
_FAILURE_S = 5.0
# A spool that is used for a moment, because a disk or a broker paused, is nothing that anybody can act on.
_SAY_AFTER_S = 2.0
# A full spool has room again when the first segment is through.
_SEGMENTS_MIN = 16
_STUCK_S_MIN = 30.0
_STUCK_S_MAX = 600.0


@dataclass(slots=True, eq=False)
class _Sent:
    """A record whose sender waits. ``settled`` is None when it was told."""

    partition: int
    payload: bytes
    settled: Settled | None
    sent_s: float
    is_reserved: bool
    is_in_producer: bool = False


@dataclass(slots=True)
class _Way:
    """One partition's. ``appending``: records on their way to the disk."""

    drain: Drain
    direct: deque[_Sent] = field(default_factory=deque)
    is_spooling: bool = False
    appending: int = 0


class Enqueuer:
    """Safe to use from several threads; calls ``settled`` without holding a lock of its own.

    ``is_open``: the number of partitions is known, and records are taken.
    """

    def __init__(
        self, link: QueueLink, spool: Spool, room: Room, *, ingest_epoch: bytes, queue: str, queue_timeout_s: float
    ) -> None:
        self._link = link
        self._spool = spool
        self._room = room
        self._queue = queue
        self._queue_timeout_s = queue_timeout_s
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._ways: list[_Way] = []
        self._appends: deque[_Sent] = deque()
        self._untold: _Told = []
        self.is_open = False
        self._is_stopped = False
        # Nothing is confirmed any more: every partition's records go to the spool at once.
        self._is_suspect = False
        self._confirmed_s = float("-inf")
        # When the disk is tried again; None while it is good.
        self._probe_s: float | None = None
        self._spooling_since_s: float | None = None
        self._is_said = False
        self._stuck_s = _STUCK_S_MIN
        self._replaced_s = time.monotonic()
        self._look_s = 0.0
        self._complained: set[int] = set()
        self._last_words = LastWords(self.send, by=ingest_epoch, clock=now_us)
        self._is_complete = False
        self._opened: Callable[[int], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._meters = _Meters()

    def start(self, opened: Callable[[int], None]) -> None:
        """Connect in the background. ``opened`` gets the number of partitions as soon as it is known: then send."""
        self._opened = opened
        known = self._spool.partition_count(self._queue)
        if known is not None:
            self._open(known)
        self._link.start(self._connected)

    def _open(self, partitions: int) -> None:
        self._ways = [_Way(self._drain_of(partition)) for partition in range(partitions)]
        self._begin_folder(wait_s_max=_BEGIN_S_MAX)
        self._adopt()
        self._stay_behind()
        self._thread.start()
        self._opened(partitions)
        self.is_open = True

    def _drain_of(self, partition: int) -> Drain:
        return Drain(
            partition,
            self._spool,
            self._link,
            self._lock,
            forwarded=self._forwarded,
            failed=lambda error: self._not_forwarded(partition, error),
        )

    def _connected(self) -> None:
        partitions = self._link.partitions
        if self._spool.partition_count(self._queue) != partitions:
            try:
                self._spool.know(self._queue, partitions)
            except OSError as error:
                self._disk_failed(error)
        if not self.is_open:
            self._open(partitions)
        if partitions != len(self._ways):
            log.warning(
                "The topic has %d partitions and had %d when it was last reached; start this door again to use them.",
                partitions,
                len(self._ways),
            )
        told: _Told = []
        with self._changed:
            self._is_suspect = False
            for way in self._ways:
                told += self._hand_over_waiting(way)
            self._changed.notify()
        _tell(told)

    def _hand_over_waiting(self, way: _Way) -> _Told:
        """To the first producer what was sent before there was one."""
        told: _Told = []
        for sent in [sent for sent in way.direct if not sent.is_in_producer]:
            try:
                if not self._hand_over(way, sent):
                    return told + self._flip(sent.partition)
            except LogweirError as error:
                told += _heard(sent, error)
        return told

    # --- in --------------------------------------------------------------------------------------------------------
    @property
    def reason(self) -> str:
        """Why it is not open."""
        return self._link.reason

    @property
    def is_connected(self) -> bool:
        """Whether there is a producer: without one, records wait, and then go to the spool."""
        return self._link.producer is not None

    @property
    def partition_count(self) -> int:
        """0 until it is known."""
        return len(self._ways)

    def is_spooling(self, partition: int) -> bool:
        """Whether a record would go to the spool now."""
        return self._is_suspect or self._ways[partition].is_spooling

    def send(self, partition: int, payload: bytes, settled: Settled, *, is_reserved: bool = False) -> None:
        """Take a record over; ``settled`` hears of it, records of one partition in no certain order.

        ``is_reserved``: it fits into what the caller reserved of the spool. Raises LogweirError, and has taken nothing
        over then: QUEUE_RECORD_TOO_LARGE; SPOOL_FULL, SPOOL_FAILED when it would have to go to the spool.
        """
        sent = _Sent(partition, payload, settled, time.monotonic(), is_reserved)
        with self._lock:
            way = self._ways[partition]
            if not self.is_spooling(partition):
                # Behind one that waits for the first producer: ``_connected`` hands both over.
                has_waiting = bool(way.direct) and not way.direct[-1].is_in_producer
                way.direct.append(sent)
                if has_waiting or self._link.producer is None or self._hand_over(way, sent):
                    return
                way.direct.pop()
                # Told later: whoever sends does not expect to be called back before it is done.
                self._untold += self._flip(partition)
            self._append(way, sent)

    def reserve(self, size_bytes: int) -> None:
        """Keep room in the spool free, for records that must all be taken or none. Raises LogweirError(SPOOL_FULL)."""
        self._room.take(size_bytes)

    def release(self, size_bytes: int) -> None:
        self._room.give(size_bytes)

    def _hand_over(self, way: _Way, sent: _Sent) -> bool:
        """To the producer; False when it does not take the record now. Raises LogweirError(QUEUE_RECORD_TOO_LARGE)."""
        producer = self._link.producer
        if producer is None or sent.partition >= self._link.partitions:
            return False
        sent.is_in_producer = True
        try:
            producer.send(sent.partition, sent.payload, lambda error: self._settled(way, sent, error))
        except LogweirError as error:
            if error.problem is QUEUE_RECORD_TOO_LARGE:
                way.direct.remove(sent)
                raise
            return False
        except Exception:  # Whether it was taken or not: in the spool it is safe, and known by its numbers.
            log.exception("The queue's producer failed")
            return False
        return True

    def _settled(self, way: _Way, sent: _Sent, error: LogweirError | None) -> None:
        """The producer has settled a record that went direct. When it is in the spool already, that is all the same."""
        now_s = time.monotonic()
        told: _Told = []
        with self._lock:
            if error is None:
                self._confirmed_s = now_s
                self._is_suspect = False
                told = _heard(sent, QUEUE)
                if sent in way.direct:
                    way.direct.remove(sent)
            elif sent in way.direct:
                told = self._flip(sent.partition)
        if error is None:
            self._meters.confirmed(now_s - sent.sent_s)
        _tell(told)

    # --- into the spool --------------------------------------------------------------------------------------------
    def _flip(self, partition: int) -> _Told:
        """The partition goes through the spool from now on, with all that is not confirmed; gives what has no room."""
        way = self._ways[partition]
        way.is_spooling = True
        direct, way.direct = way.direct, deque()
        told: _Told = []
        for sent in direct:
            try:
                self._append(way, sent)
            except LogweirError as error:
                told += _heard(sent, error)
        return told

    def _append(self, way: _Way, sent: _Sent) -> None:
        if self._probe_s is not None:
            raise _spool_failed("it failed before", retry_s=self._probe_s)
        way.is_spooling = True
        if not sent.is_reserved:
            self._room.take(len(sent.payload) + FRAME_OVERHEAD_BYTES)
        way.appending += 1
        self._appends.append(sent)
        self._changed.notify()

    def _disk_failed(self, error: OSError) -> LogweirError:
        retry_s = time.monotonic() + _FAILURE_S
        with self._lock:
            was_good, self._probe_s = self._probe_s is None, retry_s
        if was_good:
            log.error("The spool cannot be written: %s", error)
        self._meters.failures.inc()
        return _spool_failed(error.strerror or error, retry_s=retry_s)

    def _try_disk(self) -> None:
        """When it failed: whether it can be written again. No sender's record has to show that."""
        if self._probe_s is None or time.monotonic() < self._probe_s:
            return
        try:
            self._spool.probe()
        except OSError as error:
            self._disk_failed(error)
            return
        log.info("The spool can be written again.")
        with self._lock:
            self._probe_s = None

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._is_stopped and not self._has_work():
                    self._changed.wait(_WAIT_S_MAX)
                if self._is_stopped and not self._appends and not self._untold:
                    break
                group = self._next_group()
            results: list[Result] = [LogweirError(SPOOL_FAILED, reason="see this door's log")] * len(group)
            try:
                results = self._written(group)
                self._try_disk()
                self._look_around()
                self._stay_behind()
                self._drain()
            except Exception:  # The thread outlives whatever goes wrong in it: senders wait for it.
                log.exception("The spool could not be looked after")
                time.sleep(_RETRY_S)
            # Only now: the senders' next records find a partition that goes direct again.
            with self._lock:
                told = [one for sent, result in zip(group, results, strict=True) for one in _heard(sent, result)]
                told += self._untold
                self._untold.clear()
            _tell(told)
        self._spool.close(is_complete=self._is_complete)

    def _next_group(self) -> list[_Sent]:
        group: list[_Sent] = []
        size_bytes = 0
        while self._appends and size_bytes < _GROUP_SIZE_BYTES_MAX:
            group.append(self._appends.popleft())
            size_bytes += len(group[-1].payload)
        return group

    def _written(self, group: list[_Sent]) -> list[Result]:
        try:
            failures = self._spool.write([(sent.partition, sent.payload) for sent in group])
        finally:
            self._room.holds(self._spool.size_bytes)
            with self._lock:
                for sent in group:
                    self._ways[sent.partition].appending -= 1
                    if not sent.is_reserved:
                        self._room.give(len(sent.payload) + FRAME_OVERHEAD_BYTES)
        results: list[Result] = [SPOOL if failure is None else self._disk_failed(failure) for failure in failures]
        self._meters.written.inc(results.count(SPOOL))
        return results

    # --- out of the spool ------------------------------------------------------------------------------------------
    def _has_work(self) -> bool:
        """Whether there is a record to write, to hand over, to forget, or somebody to tell. With the lock."""
        return bool(self._appends or self._untold) or any(
            way.drain.confirmed or (way.is_spooling and way.drain.may_begin) for way in self._ways[: self._reachable()]
        )

    def _drain(self) -> None:
        for partition in self._spool.partitions():
            if partition < self._reachable():
                self._drain_partition(partition, self._ways[partition].drain)
            else:
                self._complain(partition, "the topic does not have that partition")
        with self._lock:
            for partition, way in enumerate(self._ways):
                # What is handed over is in front of what goes direct from now on.
                if not (way.appending or way.drain.has_failed or way.drain.is_behind or self._link.producer is None):
                    way.is_spooling = way.is_spooling and self._spool.has_unread(partition)
        self._room.holds(self._spool.size_bytes)
        self._meters.damaged(self._spool.damaged_bytes)
        with contextlib.suppress(OSError):  # What cannot be read is counted where it is to be forwarded.
            self._meters.waiting(self._spool.heads(HEADER_SIZE_BYTES))

    def _complain(self, partition: int, reason: object) -> None:
        if partition not in self._complained:
            self._complained.add(partition)
            log.error(
                "The spool's records of partition %d cannot be forwarded: %s",
                partition,
                reason,
                extra={"partition": partition},
            )

    def _drain_partition(self, partition: int, drain: Drain) -> None:
        self._meters.forwarded.inc(drain.forget())
        try:
            drain.hand_over()
        except OSError as error:
            # Of reading: what can be written is another matter.
            drain.pause(_FAILURE_S)
            self._meters.failures.inc()
            self._complain(partition, error)

    def _forwarded(self, size_bytes: int) -> None:
        """A record of the spool's is in the queue. With the lock, as the next."""
        self._confirmed_s = time.monotonic()
        self._is_suspect = False
        self._room.forwarded(size_bytes)
        self._changed.notify()

    def _not_forwarded(self, partition: int, error: LogweirError | None) -> None:
        self._untold += self._flip(partition)
        if error is not None and error.problem is not QUEUE_DOWN:
            self._complain(partition, error)
        self._changed.notify()

    # --- processes that are gone -----------------------------------------------------------------------------------
    def _look_around(self) -> None:
        """See what other processes hold, adopt what they left, say who is gone, and when room will come free."""
        now_s = time.monotonic()
        if now_s < self._look_s:
            return
        self._look_s = now_s + _LOOK_EVERY_S
        self._room.others_bytes = self._spool.others_size_bytes()
        self._room.frees = self._spool.frees()
        self._begin_folder(wait_s_max=0)
        if self._spool.has_others():
            self._adopt()
        self._speak_for_the_gone()

    def _begin_folder(self, *, wait_s_max: float) -> None:
        if self._probe_s is not None:
            return
        try:
            self._spool.begin(wait_s_max=wait_s_max)
        except BlockingIOError:
            return  # Another process is at the spool's lock. In a second again.
        except OSError as error:
            self._disk_failed(error)

    def _speak_for_the_gone(self) -> None:
        for ingest_epoch in self._spool.finished():
            # Doors that were started since may have used more partitions than this one knows: then they have to say it.
            partitions = max(len(self._ways), self._spool.partition_count(self._queue) or 0)
            if partitions == self._reachable() and self._last_words.say(ingest_epoch, partitions):
                self._spool.forget(ingest_epoch)

    def _adopt(self) -> None:
        """Not under the lock while the disk is asked: senders and health do not wait for it."""
        adopted: set[int] = set()
        try:
            adopted = self._spool.adopt()
        except OSError as error:
            log.error("What other processes left in the spool cannot be adopted: %s", error)
        self._room.holds(self._spool.size_bytes)
        with self._lock:
            told = [one for partition in adopted if partition < len(self._ways) for one in self._flip(partition)]
        _tell(told)

    def _stay_behind(self) -> None:
        """Send nothing of a partition while there is something of before the reload that is to go first."""
        awaited = self._spool.awaited()
        told: _Told = []
        with self._lock:
            for partition, way in enumerate(self._ways):
                if partition in awaited and not way.drain.is_behind:
                    told += self._flip(partition)
                way.drain.is_behind = partition in awaited
        _tell(told)

    def _reachable(self) -> int:
        """How many partitions can be forwarded to: a topic that was made anew may have fewer."""
        return min(len(self._ways), self._link.partitions or len(self._ways))

    # --- looked after ----------------------------------------------------------------------------------------------
    def tick(self) -> None:
        """Send to the spool what the queue has not confirmed in time; call some twenty times a second."""
        now_s = time.monotonic()
        producer = self._link.producer
        told: _Told = []
        with self._lock:
            late = [
                partition
                for partition, way in enumerate(self._ways)
                if way.direct and way.direct[0].sent_s + self._queue_timeout_s <= now_s
            ]
            if any(self._ways[partition].direct[0].sent_s > self._confirmed_s for partition in late):
                self._is_suspect = True
                late = [partition for partition, way in enumerate(self._ways) if way.direct]
            for partition in late:
                told += self._flip(partition)
            if self._is_suspect and producer is not None and not producer.fill():
                self._is_suspect = False  # Nothing is left that could be confirmed: the next record shows.
            self._say(now_s)
            self._replace_if_stuck(now_s)
        _tell(told)
        self._meters.ticked(producer.fill() if producer is not None else 0.0, self._room)

    def _say(self, now_s: float) -> None:
        if not self._is_suspect and not any(way.is_spooling for way in self._ways):
            if self._is_said:
                log.info("The spool is empty; records go straight to the queue again.")
            self._spooling_since_s, self._is_said = None, False
        elif self._spooling_since_s is None:
            self._spooling_since_s = now_s
        elif not self._is_said and now_s - self._spooling_since_s > _SAY_AFTER_S:
            self._is_said = True
            log.warning(
                "The queue does not confirm records in time: they are kept in the spool, and forwarded when it does."
            )

    def _replace_if_stuck(self, now_s: float) -> None:
        """A producer that neither confirms nor fails what it has may be stuck for good, though its queue is well."""
        oldest_s = min((way.drain.outstanding_since_s for way in self._ways if way.drain.outstanding), default=now_s)
        if now_s - oldest_s < _STUCK_S_MIN:
            self._stuck_s = _STUCK_S_MIN
        elif now_s - max(oldest_s, self._replaced_s) > self._stuck_s:
            self._replaced_s = now_s
            self._stuck_s = min(2 * self._stuck_s, _STUCK_S_MAX)
            self._link.replace()

    def unready(self) -> str | None:
        """Why neither queue nor spool can take records, or None."""
        if not self.is_open:
            return self._link.reason
        with self._lock:
            producer = self._link.producer
            if producer is not None and not all(map(self.is_spooling, range(len(self._ways)))) and producer.fill() < 1:
                return None
        if self._probe_s is not None:
            return "the queue does not confirm records, and the spool cannot be written"
        if self._room.is_full:
            return "the queue does not confirm records, and the spool is full"
        return None

    def stop(self, timeout_s: float, *, is_complete: bool) -> None:
        """Settle what was sent, and empty the spool if the queue confirms, for at most about ``timeout_s`` seconds.

        What is not confirmed then is in the spool, for the next process. ``is_complete``: all markers were sent, and
        are somewhere; else the next process has to say that this one is gone.
        """
        self._is_complete = is_complete
        end_s = time.monotonic() + timeout_s
        while self._is_busy() and time.monotonic() < end_s:
            self.tick()
            time.sleep(0.01)
        self._link.stop(0)
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(max(1.0, end_s - time.monotonic()))

    def _is_busy(self) -> bool:
        with self._lock:
            return any(
                way.direct or way.appending or (not self._is_suspect and (way.is_spooling or way.drain.outstanding))
                for way in self._ways[: self._reachable()]
            )


def open_enqueuer(settings: Settings, queue: Queue, *, ingest_epoch: bytes, generation: Generation) -> Enqueuer:
    """The way of one process, with its own part of the spool in the data folder."""
    ingest = settings.ingest
    room = Room(ingest.spool_size_bytes_max, processes=ingest.processes)
    # Ordered by when the processes began: what the older ones left is forwarded first.
    spool = Spool(
        settings.spool_path,
        name=f"{now_us():017}-{ingest_epoch.hex()}",
        generation=generation,
        segment_size_bytes=min(SEGMENT_SIZE_BYTES_MAX, room.share_bytes // _SEGMENTS_MIN),
    )
    return Enqueuer(
        QueueLink(queue),
        spool,
        room,
        ingest_epoch=ingest_epoch,
        queue=shown_url(settings.queue.url),
        queue_timeout_s=ingest.queue_timeout_s,
    )


def _spool_failed(reason: object, *, retry_s: float) -> LogweirError:
    retry_after_s = max(1, math.ceil(retry_s - time.monotonic()))
    return LogweirError(SPOOL_FAILED, reason=reason, retry_after_s=retry_after_s)


def _heard(sent: _Sent, result: Result) -> _Told:
    """Whom to tell, unless it was told already. With the lock."""
    settled, sent.settled = sent.settled, None
    if settled is None:
        return []
    if isinstance(result, LogweirError) and result.problem is QUEUE_DOWN:
        result = LogweirError(QUEUE_UNAVAILABLE, reason=result.numbers.get("reason", result))
    return [(settled, result)]


def _tell(told: _Told) -> None:
    """Without the lock."""
    for settled, result in told:
        try:
            settled(result)
        except Exception:  # One sender's trouble is not the others'.
            log.exception("A sender could not be told what became of its events")


class _Meters:
    """The metrics of this file."""

    def __init__(self) -> None:
        self._confirm_seconds = registry.get("logweir_ingest_record_confirm_seconds")
        self._fill_ratio = registry.get("logweir_ingest_queue_fill_ratio")
        self._spool_bytes = registry.get("logweir_ingest_spool_size_bytes")
        self._spool_fill_ratio = registry.get("logweir_ingest_spool_fill_ratio")
        self._spool_oldest_seconds = registry.get("logweir_ingest_spool_oldest_seconds")
        records = registry.get("logweir_ingest_spool_records_total")
        self.written = records.labels("written")
        self.forwarded = records.labels("forwarded")
        self.failures = registry.get("logweir_ingest_spool_failures_total")
        self._damaged = registry.get("logweir_ingest_spool_damaged_bytes_total")
        self._damaged_bytes = 0

    def confirmed(self, duration_s: float) -> None:
        self._confirm_seconds.observe(duration_s)

    def damaged(self, size_bytes: int) -> None:
        """``size_bytes``: of all time."""
        self._damaged.inc(size_bytes - self._damaged_bytes)
        self._damaged_bytes = size_bytes

    def waiting(self, heads: list[bytes]) -> None:
        """``heads``: how the records begin that have waited longest in the spool."""
        headers = filter(None, map(header_of, heads))
        # A record may be of its window's last moment.
        at_us = now_us()
        ended_us = min(((header.window + 1) * WINDOW_US for header in headers), default=at_us)
        self._spool_oldest_seconds.set(max(0.0, (at_us - ended_us) / 1e6))

    def ticked(self, fill_ratio: float, room: Room) -> None:
        self._fill_ratio.set(fill_ratio)
        self._spool_bytes.set(room.held_bytes)
        self._spool_fill_ratio.set(room.fill_ratio)
