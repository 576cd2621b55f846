"""A batcher over an embedded queue and a spool that can be slow, stuck, failing or gone; and what its records say."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from logweir import record
from logweir.clock import WINDOW_US
from logweir.config import MEBIBYTE, QueueSettings
from logweir.errors import QUEUE_DOWN, LogweirError
from logweir.queue.port import Done
from logweir.queue.sqlite.topic import SqliteProducer, SqliteQueue
from logweir.record import Batch, Kind, Marker, Record
from logweir_ingest.delivery.enqueue import Enqueuer
from logweir_ingest.delivery.link import QueueLink
from logweir_ingest.records.batcher import BatchResult, RecordBatcher
from logweir_ingest.spool.budget import SpoolBudget
from logweir_ingest.spool.generation import Generation
from logweir_ingest.spool.known_partitions import KnownPartitions
from logweir_ingest.spool.spool import Spool
from tests.ingest.helpers import of_kind, records_of
from tests.waiting import until

WINDOW = 29_833_333
PARTITIONS = 4


class Clock:
    def __init__(self) -> None:
        self.now_us = WINDOW * WINDOW_US

    def __call__(self) -> int:
        return self.now_us


class FaultyProducer(SqliteProducer):
    """The embedded queue's, whose partitions can get stuck, and whose records can fail, one by one."""

    def __init__(self, settings: QueueSettings, path: Path, *, partitions: int) -> None:
        super().__init__(settings, path, partitions=partitions, group=None)
        self.stuck: set[int] = set()
        self.fails: Callable[[Record], bool] = lambda _: False
        self._held: list[tuple[int, bytes, Done]] = []

    def send(self, partition: int, payload: bytes, done: Done) -> None:
        if self.fails(record.decode(payload)):
            error = LogweirError(QUEUE_DOWN, url="the queue", reason="it failed this record")
            threading.Timer(0.01, done, [error]).start()
        elif partition in self.stuck:
            self._held.append((partition, payload, done))
        else:
            super().send(partition, payload, done)

    def close(self, timeout_s: float) -> None:
        held, self._held = self._held, []
        for _, _, done in held:
            done(LogweirError(QUEUE_DOWN, url="the queue", reason="the producer was closed"))
        super().close(timeout_s)

    def free(self) -> None:
        """What was stuck is written now."""
        self.stuck = set()
        held, self._held = self._held, []
        for one in held:
            super().send(*one)


class FaultyQueue(SqliteQueue):
    """``stuck``: the partitions of which its producer confirms nothing, from the start."""

    stuck: Collection[int] = ()

    def producer(self) -> FaultyProducer:
        self.faulty = FaultyProducer(self._settings, self._path, partitions=self.partition_count())
        self.faulty.stuck = set(self.stuck)
        return self.faulty


class Bench:
    """A batcher over an embedded queue, with a clock that stands."""

    def __init__(
        self,
        folder: Path,
        *,
        queue_timeout_s: float = 5,
        record_size_bytes_max: int = 900_000,
        pending_size_bytes_max: int = 64 * MEBIBYTE,
        spool_size_bytes_max: int = 64 * MEBIBYTE,
        spool_timeout_s: float = 5,
        name: str = "1",
        partitions: int = PARTITIONS,
        generation: int = 0,
    ) -> None:
        self.path = folder / "queue.sqlite"
        self.clock = Clock()
        settings = QueueSettings(
            url=f"sqlite:///{self.path}", partitions=partitions, record_size_bytes_max=record_size_bytes_max
        )
        self.queue = FaultyQueue(settings)
        self.link = QueueLink(self.queue)
        self.budget = SpoolBudget(spool_size_bytes_max)
        self.spool = folder / "spool"
        ingest_epoch = os.urandom(16)
        self.disk = Spool(
            self.spool, name=f"{int(name):017}-{ingest_epoch.hex()}", generation=Generation("door", generation)
        )
        self.enqueuer = Enqueuer(
            self.link,
            self.disk,
            self.budget,
            ingest_epoch=ingest_epoch,
            known_partitions=KnownPartitions(self.spool, settings.url),
            queue_timeout_s=queue_timeout_s,
        )
        self.merger = RecordBatcher(
            self.enqueuer,
            ingest_epoch=ingest_epoch,
            clock=self.clock,
            answer_timeout_s=queue_timeout_s + spool_timeout_s,
            record_size_bytes_max=record_size_bytes_max,
            pending_size_bytes_max=pending_size_bytes_max,
            keys_with_numbers=("syslog",),
        )
        self._ids = itertools.count(1)
        self.disk_fails: Callable[[Record], bool] = lambda _: False
        self._write, self.disk.write = self.disk.write, self._write_or_fail  # type: ignore[method-assign]

    def _write_or_fail(self, records: Sequence[tuple[int, bytes]]) -> list[OSError | None]:
        good = [one for one in records if not self.disk_fails(record.decode(one[1]))]
        results = iter(self._write(good))
        return [
            OSError(28, "No space left on device") if self.disk_fails(record.decode(one[1])) else next(results)
            for one in records
        ]

    def batch(
        self, *events: bytes, emitter: str | None = None, sequence_first: int | None = None, key: str = "k"
    ) -> Batch:
        epoch = None if sequence_first is None else "run"
        return Batch(
            next(self._ids).to_bytes(16, "big"),
            self.clock(),
            key,
            emitter,
            epoch,
            sequence_first,
            None,
            None,
            None,
            False,
            "127.0.0.1",
            "json",
            None,
            0,
            list(events),
        )

    def submit(self, batch: Batch) -> Future[BatchResult]:
        future: Future[BatchResult] = Future()
        self.merger.submit(batch, future)
        return future

    def send(self, *events: bytes, **named: str | int) -> BatchResult:
        return self.submit(self.batch(*events, **named)).result(15)  # type: ignore[arg-type]

    def records(self) -> list[tuple[int, Record]]:
        return records_of(self.path)

    def markers(self) -> list[tuple[int, Record]]:
        return of_kind(self.records(), Kind.MARKER)

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Nothing is written meanwhile: another process holds the file's lock."""
        holder = sqlite3.connect(self.path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            holder.execute("ROLLBACK")
            holder.close()

    @contextmanager
    def hanging_disk(self) -> Iterator[None]:
        """No write of the spool comes back meanwhile."""
        go_on = threading.Event()
        write = self.disk.write
        self.disk.write = lambda records: (go_on.wait(30), write(records))[1]  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.disk.write = write  # type: ignore[method-assign]
            go_on.set()

    @contextmanager
    def failing_disk(self) -> Iterator[None]:
        """Each write of the spool fails meanwhile: a file is where its folder should be."""
        self.spool.rename(self.spool.with_name("spool-away"))
        self.spool.write_text("")
        try:
            yield
        finally:
            self.spool.unlink()
            self.spool.with_name("spool-away").rename(self.spool)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Each write fails meanwhile: the queue's file is not where it was."""
        away = self.path.with_name("away")
        os.rename(self.path, away)
        try:
            yield
        finally:
            os.rename(away, self.path)


@contextmanager
def started(folder: Path, **named: float | str) -> Iterator[Bench]:
    bench = Bench(folder, **named)  # type: ignore[arg-type]
    bench.merger.start()
    until(lambda: bench.link.producer is not None and bench.enqueuer.is_open)
    try:
        yield bench
    finally:
        bench.merger.stop(5)


def numbered_without_a_gap(records: list[tuple[int, Record]]) -> None:
    """In each partition the numbers begin at 1 and go on in the order of the offsets."""
    following = dict.fromkeys(range(PARTITIONS), 1)
    for partition, one in of_kind(records, Kind.DATA):
        assert one.first == following[partition]
        following[partition] += one.count


def unrepeated(records: list[tuple[int, Record]]) -> list[tuple[int, Record]]:
    """Each record the first time that it comes: one that was late comes from the producer and from the spool."""
    seen: set[tuple[object, ...]] = set()
    first = []
    for partition, one in records:
        identity = (partition, one.ingest_epoch, one.kind, one.first, one.count, one.window)
        if identity not in seen:
            first.append((partition, one))
        seen.add(identity)
    return first


def marker_of(one: Record) -> Marker:
    assert isinstance(one.body, Marker)
    return one.body
