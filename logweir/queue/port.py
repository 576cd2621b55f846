"""The queue's port: what ingest and workers may ask of Kafka or of the embedded queue, and nothing more.

A queue is one topic of numbered partitions; each partition is an ordered log of records with offsets from 0, +1 each
(Kafka may leave gaps). Adapters: ``kafka/`` and ``sqlite/``. One contract suite, tests/contract/test_queue.py, runs
over both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from logweir.errors import LogweirError


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record as the queue hands it out. ``timestamp_ms``: when the queue took it, milliseconds since 1970 UTC."""

    partition: int
    offset: int
    timestamp_ms: int
    payload: bytes


Done = Callable[[LogweirError | None], None]
"""Called once per send, on a thread of the queue's: None when the record is durable, else why it is not."""


class Producer(Protocol):
    """Writes records. Safe to use from several threads."""

    def send(self, partition: int, payload: bytes, done: Done) -> None:
        """Hand over a record; return at once, without waiting for the network or the disk.

        ``done`` is called exactly once, records of one partition in the order of their ``send``. A record whose
        ``done`` got an error may still be in the queue; whatever was sent behind it before that call fails, too. Never
        called back: the process died first.
        Raises LogweirError(QUEUE_DOWN) when the buffer is full (the record is not taken, ``done`` is not called),
        LogweirError(QUEUE_RECORD_TOO_LARGE).
        """

    def fill(self) -> float:
        """The share of the buffer that waits to be confirmed, 0.0 to 1.0."""

    def close(self, timeout_s: float) -> None:
        """Confirm what was sent, for at most ``timeout_s`` seconds; then fail the rest with QUEUE_DOWN."""


Assigned = Callable[[Collection[int]], Mapping[int, int | None]]
"""Called with partitions now ours; gives where to read on from (None: from the group's committed offset, or the
beginning). Called inside ``poll``."""


Revoked = Callable[[Collection[int], bool], None]
"""Called with partitions no longer ours, before another member gets them; the flag says that they are lost already
(our session expired: committing is in vain). Called inside ``poll`` or ``close``."""


class Consumer(Protocol):
    """A member of a consumer group. For one thread alone."""

    def poll(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        """Up to ``records_max`` records of the assigned partitions that are not paused, in order per partition.

        Waits at most ``wait_s`` seconds for the first. Must be called at least every few seconds, paused or not:
        it keeps the membership alive. Raises LogweirError(OFFSETS_EXPIRED), with the numbers ``partition``,
        ``offset``, ``offset_earliest`` and ``offset_latest``, when the next offset is not in the queue (seek, and
        poll again); LogweirError(QUEUE_DOWN) when the queue does not answer (poll again).
        """

    def seek(self, partition: int, offset: int) -> None:
        """Read on from ``offset``."""

    def pause(self, partitions: Collection[int]) -> None:
        """Hand out nothing of these partitions until ``resume``; the membership stays."""

    def resume(self, partitions: Collection[int]) -> None: ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Make the next offsets to read durable for the group. Partitions no longer ours are passed over.

        Raises LogweirError: QUEUE_REBALANCING while the group is sharing them out (poll, and commit again), QUEUE_DOWN.
        """

    def unread(self) -> dict[int, int]:
        """Of each assigned partition, how many records are behind the committed offset; may be a few seconds old."""

    def close(self) -> None:
        """Leave the group, so that others take over at once."""


class Reader(Protocol):
    """Reads one partition beside all groups, and moves no position. For one thread alone."""

    def read(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        """Up to ``records_max`` of the next records, in order; none when none has come within ``wait_s`` seconds.

        Raises LogweirError(OFFSETS_EXPIRED), with the numbers that ``Consumer.poll`` gives it; (QUEUE_DOWN).
        """

    def close(self) -> None: ...


class Queue(Protocol):
    """One topic."""

    topic: str

    def prepare(self) -> None:
        """Make the topic if it is absent, with the configured partitions (and, on Kafka, replication).

        Raises LogweirError(QUEUE_DOWN).
        """

    def topic_id(self) -> str:
        """An id that changes when the topic is made anew under its old name."""

    def partition_count(self) -> int: ...

    def offsets(self, partition: int) -> tuple[int, int]:
        """The earliest offset held and the next to be written."""

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        """The first offset held whose record the queue took at that time or later; else the next to be written."""

    def retention_used(self, partition: int, offset: int, age_s: float) -> float | None:
        """How far the record at that offset, of that age, is on its way to being deleted: from 0.0 to 1.0.

        By its age or by what is behind it, whichever is further. None where what nobody has read is not deleted, or
        where the queue does not say.
        """

    def reader(self, partition: int, offset: int) -> Reader:
        """Reads on from ``offset``."""

    def producer(self) -> Producer: ...

    def consumer(self, *, group: str, assigned: Assigned, revoked: Revoked) -> Consumer: ...

    def check(self) -> str:
        """One line about the queue's state, for `logweir doctor`. Raises LogweirError(QUEUE_DOWN)."""

    def close(self) -> None: ...
