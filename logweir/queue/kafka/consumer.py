"""Records out of the topic: as a member of a group, or beside all groups.

A consumer's callbacks about partitions run on the library's own thread, where nothing may block and nothing can be
committed. So the library polls on a thread of ours, and the callbacks come back to the thread that polls us.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

import kafka
import kafka.admin
import kafka.errors
from kafka import TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.future import Future as KafkaFuture

from logweir.config import MEBIBYTE, QueueSettings
from logweir.errors import (
    OFFSETS_EXPIRED,
    QUEUE_REBALANCING,
    LogweirError,
)
from logweir.queue.kafka.connection import CONNECT_TIMEOUT_S, ENVELOPE_BYTES, REQUEST_TIMEOUT_S, Connection
from logweir.queue.port import Assigned, Delivery, Revoked

log = logging.getLogger(__name__)

_FETCH_SIZE_BYTES = 16 * MEBIBYTE
_PARTITION_FETCH_SIZE_BYTES = 4 * MEBIBYTE
_POLL_SLICE_S = 0.2
_UNREACHABLE_AFTER_S = 2.0
_ENDS_AGE_S_MAX = 2.0

T = TypeVar("T")


class _Listener(kafka.AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Called on the library's thread."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        self._consumer.hold(assigned)

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._consumer.hand_over(revoked, lost=False)

    async def on_partitions_lost(self, lost: Collection[Any]) -> None:
        await self._consumer.hand_over(lost, lost=True)


@dataclass(frozen=True, slots=True)
class _HandOver:
    """Partitions that the library is about to give away, and how to tell it that it may."""

    partitions: list[int]
    lost: bool
    answered: Any


class KafkaConsumer:
    """A member of a group; connects and joins at the first ``poll``."""

    def __init__(
        self, connection: Connection, settings: QueueSettings, *, group: str, assigned: Assigned, revoked: Revoked
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._group = group
        self._assigned = assigned
        self._revoked = revoked
        self._kafka: Any = None
        self._client: Any = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="queue-poll")
        self._messages: SimpleQueue[_HandOver | Future[Any]] = SimpleQueue()
        self._failure: BaseException | None = None
        # Partitions that are ours and have been given a position.
        self._ours: set[int] = set()
        self._paused: set[int] = set()
        self._reached_s = time.monotonic()
        self._backlog = _Backlog()

    def poll(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        until_s = time.monotonic() + wait_s
        if self._kafka is None:
            self._connect()
        while True:
            self._take_over()
            left_s = max(0.01, until_s - time.monotonic())
            deliveries = self._fetched(wait_s=min(left_s, _POLL_SLICE_S), records_max=records_max)
            if deliveries:
                return deliveries
            self._check_reachable()
            if time.monotonic() >= until_s:
                return []

    def seek(self, partition: int, offset: int) -> None:
        if partition in self._ours:
            self._kafka.seek(self._place(partition), offset)

    def pause(self, partitions: Collection[int]) -> None:
        ours = self._ours.intersection(partitions)
        self._paused |= ours
        self._kafka_if_any("pause", ours)

    def resume(self, partitions: Collection[int]) -> None:
        ours = self._ours.intersection(partitions)
        self._paused -= ours
        self._kafka_if_any("resume", ours)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Raises LogweirError: QUEUE_REBALANCING (poll, and commit again), QUEUE_DOWN."""
        ours = {partition: offset for partition, offset in offsets.items() if partition in self._ours}
        if not ours:
            return
        request = {self._place(p): kafka.OffsetAndMetadata(offset, "", -1) for p, offset in ours.items()}
        with self._connection.errors():
            try:
                self._kafka.commit(request, timeout_ms=int(REQUEST_TIMEOUT_S * 1000))
            except (kafka.errors.CommitFailedError, kafka.errors.RebalanceInProgressError) as error:
                if any(isinstance(one, kafka.errors.RebalanceInProgressError) for one in (error, *error.args)):
                    topic = self._connection.topic
                    raise LogweirError(QUEUE_REBALANCING, topic=topic, group=self._group) from error
                # No member any more: nothing is ours, and the next poll says so.
                log.warning("Group %s: the commit of %s came too late: %s", self._group, ours, error)
                return
        self._backlog.committed(ours)

    def unread(self) -> dict[int, int]:
        if not self._ours:
            return {}
        with self._connection.errors():
            places = [TopicPartition(self._connection.topic, partition) for partition in sorted(self._ours)]
            return self._backlog.unread(self._kafka, places)

    def close(self) -> None:
        try:
            if self._kafka is not None:
                self._on_thread(lambda: self._kafka.close(timeout_ms=int(CONNECT_TIMEOUT_S * 1000)))
        except kafka.errors.KafkaError as error:
            # Others take over when the session ends by itself.
            log.warning("The consumer could not leave its group: %s", error)
        finally:
            self._give_up(sorted(self._ours), lost=True)
            self._thread.shutdown(wait=False)

    def hold(self, assigned: Collection[Any]) -> None:
        """New partitions, on the library's thread: nothing is fetched of them until ``_take_over``."""
        self._kafka.pause(*assigned)
        for place in assigned:
            # Any position, or the library looks for one itself and fails when nothing was committed.
            self._kafka.seek(place, 0)

    async def hand_over(self, places: Collection[Any], *, lost: bool) -> None:
        """Partitions that go, on the library's thread: wait until the thread that polls us has called ``revoked``."""
        answered = KafkaFuture()
        self._messages.put(_HandOver(sorted(place.partition for place in places), lost, answered))
        await answered

    def _connect(self) -> None:
        session_timeout_ms = int(self._settings.session_timeout_s * 1000)
        library, client = self._connection.opened(
            kafka.KafkaConsumer,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=[CooperativeStickyAssignor],
            session_timeout_ms=session_timeout_ms,
            # A member learns from the answers to its heartbeats that partitions are to move.
            heartbeat_interval_ms=min(1000, session_timeout_ms // 4),
            max_poll_interval_ms=300_000,
            **_fetching(self._settings),
        )
        library.subscribe([self._connection.topic], listener=_Listener(self))
        # Who joins before it knows the topic is given none of it at first.
        until_s = time.monotonic() + CONNECT_TIMEOUT_S
        while not client.cluster.partitions_for_topic(self._connection.topic):
            if time.monotonic() > until_s:
                library.close()
                raise self._connection.down(f"it does not know the topic {self._connection.topic}")
            time.sleep(0.01)
        self._kafka, self._client = library, client

    def _fetched(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        with _fetch_errors(self._connection, self._kafka):
            batches = self._on_thread(lambda: _polled(self._kafka, wait_s=wait_s, records_max=records_max))
        # Not of a partition that went while its records were on the way.
        return [delivery for delivery in _deliveries(batches) if delivery.partition in self._ours]

    def _on_thread(self, call: Callable[[], T]) -> T:
        """The call's result, from the thread that is the library's; meanwhile hand over partitions on this one."""
        running = self._thread.submit(call)
        running.add_done_callback(self._messages.put)
        while isinstance(message := self._messages.get(), _HandOver):
            try:
                self._give_up([partition for partition in message.partitions if partition in self._ours], message.lost)
            except BaseException as error:  # noqa: BLE001 - raised below, when the library has gone on
                self._failure = error
            self._client.answer(message.answered)
        result: T = message.result()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return result

    def _give_up(self, partitions: list[int], lost: bool) -> None:
        if not partitions:
            return
        try:
            self._revoked(partitions, lost)
        finally:
            self._ours.difference_update(partitions)
            self._paused.difference_update(partitions)
            self._backlog.forget(partitions)

    def _untaken(self) -> list[int]:
        return sorted({place.partition for place in self._kafka.assignment()} - self._ours)

    def _take_over(self) -> None:
        """Give new partitions their positions. What fails is tried again at the next ``poll``."""
        new = self._untaken()
        if not new:
            return
        places = [self._place(partition) for partition in new]
        with self._connection.errors():
            timeout_ms = int(REQUEST_TIMEOUT_S * 1000)
            committed = {place.partition: self._kafka.committed(place, timeout_ms=timeout_ms) for place in places}
            ends = _ends(self._kafka, places)
        starts = self._assigned(new)
        for place in places:
            wanted = starts.get(place.partition)
            found = committed[place.partition] if wanted is None else wanted
            self._kafka.seek(place, ends[place][0] if found is None else found)
        self._ours.update(new)
        self._backlog.committed({p: offset for p, offset in committed.items() if offset is not None})
        self._kafka.resume(*places)

    def _check_reachable(self) -> None:
        if self._client.reachable():
            self._reached_s = time.monotonic()
        elif time.monotonic() - self._reached_s > _UNREACHABLE_AFTER_S:
            raise self._connection.down("no broker can be reached")

    def _kafka_if_any(self, method: str, partitions: Collection[int]) -> None:
        if partitions:
            getattr(self._kafka, method)(*(self._place(partition) for partition in partitions))

    def _place(self, partition: int) -> Any:
        return TopicPartition(self._connection.topic, partition)


class KafkaReader:
    """Reads one partition, in no group; connects at the first ``read``."""

    def __init__(self, connection: Connection, settings: QueueSettings, partition: int, offset: int) -> None:
        self._connection = connection
        self._settings = settings
        self._place = TopicPartition(connection.topic, partition)
        self._offset = offset
        self._kafka: Any = None

    def read(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        if self._kafka is None:
            options = _fetching(self._settings)
            self._kafka, _ = self._connection.opened(
                kafka.KafkaConsumer, group_id=None, enable_auto_commit=False, auto_offset_reset="none", **options
            )
            self._kafka.assign([self._place])
            self._kafka.seek(self._place, self._offset)
        with _fetch_errors(self._connection, self._kafka):
            return _deliveries(self._kafka.poll(timeout_ms=int(wait_s * 1000), max_records=records_max))

    def close(self) -> None:
        if self._kafka is not None:
            self._kafka.close(timeout_ms=int(CONNECT_TIMEOUT_S * 1000))


def _fetching(settings: QueueSettings) -> dict[str, Any]:
    """How records are fetched: the largest that is allowed, whole, and whatever is there without a long wait."""
    partition_size_bytes = max(_PARTITION_FETCH_SIZE_BYTES, settings.record_size_bytes_max + ENVELOPE_BYTES)
    return {
        "fetch_min_bytes": 1,
        "fetch_max_wait_ms": 100,
        "fetch_max_bytes": _FETCH_SIZE_BYTES,
        "max_partition_fetch_bytes": partition_size_bytes,
        "metrics_enabled": False,
    }


@contextlib.contextmanager
def _fetch_errors(connection: Connection, library: Any) -> Iterator[None]:
    """What the library says of a fetch becomes LogweirError: OFFSETS_EXPIRED, QUEUE_DOWN."""
    try:
        yield
    except kafka.errors.OffsetOutOfRangeError as error:
        raise _expired(connection, library, *next(iter(error.args[0].items()))) from error
    except kafka.errors.LogTruncationError as error:
        place = next(iter(error.divergent_offsets))
        raise _expired(connection, library, place, library.position(place, timeout_ms=1000) or 0) from error
    except kafka.errors.KafkaError as error:
        raise connection.down(f"{type(error).__name__}: {error}") from error


def _expired(connection: Connection, library: Any, place: Any, offset: int) -> LogweirError:
    with connection.errors():
        earliest, latest = _ends(library, [place])[place]
    numbers = {"partition": place.partition, "offset": offset, "offset_earliest": earliest, "offset_latest": latest}
    return LogweirError(OFFSETS_EXPIRED, topic=connection.topic, **numbers)


def _polled(library: Any, *, wait_s: float, records_max: int) -> Any:
    _take_turns(library)
    return library.poll(timeout_ms=int(wait_s * 1000), max_records=records_max)


def _take_turns(library: Any) -> None:
    """Have what was fetched of a partition before it was paused handed out after it is resumed.

    The library sets it aside, and fetches no more of that partition until it has handed it out. But it takes it back
    only while nothing is in line, and takes what was read to its end for something: once any other partition was read
    during the pause, the resumed one is silent for good. Others that always have more would keep it waiting, too; so
    one that is set aside changes places with the one in line.
    """
    fetcher = library._fetcher
    aside, paused = fetcher._paused_partition_records, library.paused()
    resumed = next((place for place in aside if place not in paused), None)
    if resumed is None:
        return
    in_line, fetcher._next_partition_records = fetcher._next_partition_records, aside.pop(resumed)
    if in_line:
        aside[in_line.topic_partition] = in_line


def _deliveries(batches: Mapping[Any, Any]) -> list[Delivery]:
    return [
        # A tombstone, which is none of ours, has no value.
        Delivery(place.partition, record.offset, record.timestamp, record.value or b"")
        for place, records in batches.items()
        for record in records
    ]


class _Backlog:
    """How far each partition's commits are behind; asks the broker at most every _ENDS_AGE_S_MAX seconds."""

    def __init__(self) -> None:
        self._committed: dict[int, int] = {}
        self._ends: dict[int, tuple[int, int]] = {}
        self._ends_s = float("-inf")

    def committed(self, offsets: Mapping[int, int]) -> None:
        self._committed.update(offsets)

    def forget(self, partitions: Collection[int]) -> None:
        for partition in partitions:
            self._committed.pop(partition, None)
            self._ends.pop(partition, None)

    def unread(self, library: Any, places: list[Any]) -> dict[int, int]:
        if time.monotonic() - self._ends_s > _ENDS_AGE_S_MAX or not self._ends.keys() >= {p.partition for p in places}:
            self._ends = {place.partition: ends for place, ends in _ends(library, places).items()}
            self._ends_s = time.monotonic()
        return {place.partition: self._unread_of(place.partition) for place in places}

    def _unread_of(self, partition: int) -> int:
        earliest, latest = self._ends[partition]
        return max(0, latest - max(self._committed.get(partition, earliest), earliest))


def _ends(library: Any, places: list[Any]) -> dict[Any, tuple[int, int]]:
    """Of each partition the earliest offset held and the next to be written."""
    timeout_ms = int(REQUEST_TIMEOUT_S * 1000)
    earliest = library.beginning_offsets(places, timeout_ms=timeout_ms)
    latest = library.end_offsets(places, timeout_ms=timeout_ms)
    return {place: (earliest[place], latest[place]) for place in places}
