"""The embedded queue: one SQLite file in WAL mode, for any number of processes of one machine.

Each producer has one thread that writes: whatever waits goes into one transaction, so many records share one fsync.
The consumers are in ``group.py``, the file itself is in ``database.py``.
"""

from __future__ import annotations

import heapq
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logweir.clock import now_us
from logweir.config import MEBIBYTE, QueueSettings, sqlite_path
from logweir.errors import QUEUE_DOWN, QUEUE_RECORD_TOO_LARGE, LogweirError
from logweir.process.files import make_folder, sync_folder
from logweir.queue.port import Assigned, Delivery, Done, Revoked
from logweir.queue.sqlite.database import (
    OFFSET_BITS,
    Database,
    bounds,
    make_tables,
    records_from,
    row_id,
    used_bytes,
)
from logweir.queue.sqlite.group import SqliteConsumer

log = logging.getLogger(__name__)

_GROUP_SIZE_BYTES_MAX = 8 * MEBIBYTE
_EXPIRE_SIZE_BYTES_MAX = 8 * MEBIBYTE
_EXPIRE_RECORDS_MAX = 512
_AGING_DELAY_S_MAX = 600.0
# What a waiting record costs beside its payload.
_RECORD_OVERHEAD_BYTES = 200


class SqliteQueue:
    """The topic in the file that ``settings.url`` (``sqlite:///path``) names."""

    def __init__(self, settings: QueueSettings, group: str | None = None) -> None:
        self._settings = settings
        self._group = group
        self._path = sqlite_path(settings.url)
        self.topic = self._path.stem
        self._database = Database(settings.url, self._path)
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make folder, file and tables when they are absent. Raises LogweirError(QUEUE_DOWN)."""
        try:
            make_folder(self._path.parent)
            made = make_tables(self._path, partitions=self._settings.partitions)
            if made:
                sync_folder(self._path.parent)
        except (OSError, sqlite3.Error) as error:
            raise LogweirError(QUEUE_DOWN, url=self._settings.url, reason=error) from error
        partitions = self.partition_count()
        if partitions != self._settings.partitions:
            log.warning(
                "%s was made with %d partitions and keeps them; queue.partitions = %d has no effect on it",
                self._settings.url,
                partitions,
                self._settings.partitions,
            )

    def topic_id(self) -> str:
        return str(self._row("SELECT id FROM topic")[0])

    def partition_count(self) -> int:
        return int(self._row("SELECT partitions FROM topic")[0])

    def offsets(self, partition: int) -> tuple[int, int]:
        with self._lock, self._database.reading() as connection:
            return bounds(connection, partition)

    def retention_used(self, partition: int, offset: int, age_s: float) -> float | None:  # noqa: ARG002
        """What no worker has read is not deleted."""
        return None

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        query = "SELECT id FROM record WHERE id BETWEEN ? AND ? AND timestamp_ms >= ? ORDER BY id LIMIT 1"
        first, last = row_id(partition, 0), row_id(partition + 1, 0) - 1
        with self._lock, self._database.reading() as connection:
            found = connection.execute(query, (first, last, timestamp_ms)).fetchone()
            return int(found[0]) - first if found else bounds(connection, partition)[1]

    def reader(self, partition: int, offset: int) -> SqliteReader:
        return SqliteReader(Database(self._settings.url, self._path), self.topic, partition, offset)

    def producer(self) -> SqliteProducer:
        """Raises LogweirError(QUEUE_DOWN) when ``prepare`` never made the file."""
        return SqliteProducer(self._settings, self._path, partitions=self.partition_count(), group=self._group)

    def consumer(self, *, group: str, assigned: Assigned, revoked: Revoked) -> SqliteConsumer:
        return SqliteConsumer(
            self._settings, self._path, topic=self.topic, group=group, assigned=assigned, revoked=revoked
        )

    def check(self) -> str:
        with self._lock:
            self._database.check()
        with self._lock, self._database.writing() as connection:
            partitions, written = connection.execute("SELECT count(*), sum(next_offset) FROM partition").fetchone()
            size_bytes = used_bytes(connection)
        return (
            f"{self._settings.url}: can be written; {partitions} partitions, {written} records since it was made,"
            f" {size_bytes / MEBIBYTE:.1f} MiB held"
        )

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _row(self, query: str) -> Any:
        with self._lock, self._database.reading() as connection:
            return connection.execute(query).fetchone()


class SqliteReader:
    """Reads one partition; see the port."""

    def __init__(self, database: Database, topic: str, partition: int, offset: int) -> None:
        self._database = database
        self._topic = topic
        self._partition = partition
        self._offset = offset

    def read(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        with self._database.reading() as connection:
            if bounds(connection, self._partition)[1] == self._offset:
                deliveries = []
            else:
                deliveries = records_from(
                    connection,
                    topic=self._topic,
                    partition=self._partition,
                    offset=self._offset,
                    records_max=records_max,
                )
        if deliveries:
            self._offset = deliveries[-1].offset + 1
        else:
            time.sleep(wait_s)
        return deliveries

    def close(self) -> None:
        self._database.close()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record between ``send`` and ``done``."""

    partition: int
    payload: bytes
    done: Done


class SqliteProducer:
    """Writes records, many in one transaction; one thread does all of it, retention included.

    While the queue is full of records that ``group`` has not read, none is taken: QUEUE_DOWN says so.
    """

    def __init__(self, settings: QueueSettings, path: Path, *, partitions: int, group: str | None) -> None:
        self._settings = settings
        self._partitions = partitions
        self._database = Database(settings.url, path)
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._in_transaction: list[_Waiting] = []
        self._failing = ""
        self._is_failing = False
        self._size_bytes = 0
        self._closing = False
        self._retention = _Retention(settings, group)
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)
        self._thread.start()

    def send(self, partition: int, payload: bytes, done: Done) -> None:
        if not 0 <= partition < self._partitions:
            raise ValueError(f"partition {partition} of {self._partitions}")
        if len(payload) > self._settings.record_size_bytes_max:
            size_bytes_max = self._settings.record_size_bytes_max
            raise LogweirError(QUEUE_RECORD_TOO_LARGE, size_bytes=len(payload), size_bytes_max=size_bytes_max)
        size_bytes = len(payload) + _RECORD_OVERHEAD_BYTES
        with self._changed:
            if self._closing:
                raise self._down("this producer is closed")
            if self._is_failing:
                raise self._down(self._failing)
            if self._size_bytes + size_bytes > self._settings.buffer_size_bytes_max:
                raise self._down(f"{self._size_bytes} bytes wait for it already (queue.buffer_size_bytes_max)")
            self._size_bytes += size_bytes
            self._waiting.append(_Waiting(partition, payload, done))
            self._changed.notify()

    def fill(self) -> float:
        return min(1.0, self._size_bytes / self._settings.buffer_size_bytes_max)

    def close(self, timeout_s: float) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            rest = [*self._in_transaction, *self._waiting]
            self._in_transaction = []
            self._waiting.clear()
        self._settle(rest, self._down(f"the producer was closed after {timeout_s} s") if rest else None)

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            if group:
                error = self._write(group)
                with self._changed:
                    # Empty when ``close`` lost its patience meanwhile and has called them back itself.
                    group, self._in_transaction = self._in_transaction, []
                    if error is not None:
                        # Nothing may overtake what failed: neither what waits behind it nor what comes meanwhile.
                        self._is_failing = True
                        group += self._waiting
                        self._waiting.clear()
                self._settle(group, error)
                self._is_failing = False
            if self._retention.due():
                self._expire()
        self._database.close()

    def _next_group(self) -> list[_Waiting] | None:
        """What waits, up to _GROUP_SIZE_BYTES_MAX; [] when retention is due before anything comes; None: closed."""
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return None
                if not self._changed.wait(self._retention.wait_s()):
                    return []
            size_bytes = 0
            while self._waiting and size_bytes < _GROUP_SIZE_BYTES_MAX:
                self._in_transaction.append(self._waiting.popleft())
                size_bytes += len(self._in_transaction[-1].payload)
            return self._in_transaction

    def _write(self, group: list[_Waiting]) -> LogweirError | None:
        timestamp_ms = now_us() // 1000
        try:
            self._make_room()
            with self._database.writing() as connection:
                following = dict(connection.execute("SELECT partition, next_offset FROM partition"))
                rows = []
                for record in group:
                    rows.append((row_id(record.partition, following[record.partition]), timestamp_ms, record.payload))
                    following[record.partition] += 1
                connection.executemany("INSERT INTO record VALUES (?, ?, ?)", rows)
                touched = {record.partition for record in group}
                connection.executemany(
                    "UPDATE partition SET next_offset = ? WHERE partition = ?",
                    [(following[partition], partition) for partition in touched],
                )
        except LogweirError as error:
            # Once, not for every group: senders try again many times a second.
            if self._failing != error.detail:
                log.error("Records cannot be written: %s", error)
            self._failing = error.detail
            return error
        if self._failing:
            log.warning("Records can be written again.")
            self._failing = ""
        self._retention.written(sum(len(record.payload) for record in group))
        return None

    def _make_room(self) -> None:
        """Raises LogweirError(QUEUE_DOWN) when there is none. In a transaction of its own: what it removes is gone."""
        with self._database.reading() as connection:
            is_over = self._retention.is_over(connection)
        if is_over:
            with self._database.writing() as connection:
                reason = self._retention.full(connection)
            if reason:
                raise self._down(reason)

    def _settle(self, group: Iterable[_Waiting], error: LogweirError | None) -> None:
        for record in group:
            with self._changed:
                self._size_bytes -= len(record.payload) + _RECORD_OVERHEAD_BYTES
            try:
                record.done(error)
            except Exception:
                log.exception("A callback of the queue's producer failed")

    def _expire(self) -> None:
        try:
            with self._database.writing() as connection:
                self._retention.expire(connection)
        except LogweirError as error:
            log.error("Old records could not be removed: %s", error)
            self._retention.postpone()

    def _down(self, reason: str) -> LogweirError:
        return LogweirError(QUEUE_DOWN, url=self._settings.url, reason=reason)


class _Retention:
    """Removes what is too old or too much, oldest first, a bounded piece at a time so that no send waits long.

    What ``group`` has not committed yet stays, however old and however much: whoever sent it was told that it is safe.

    The pages of removed records are used again: the file stays as large as the most that it ever held.
    """

    def __init__(self, settings: QueueSettings, group: str | None) -> None:
        self._group = group
        self._age_ms_max = int(settings.retention_hours * 3_600_000)
        self._size_bytes_max = settings.retention_size_bytes_max
        self._interval_s = min(30.0, max(0.2, self._age_ms_max / 10_000))
        self._written_bytes_max = min(64 * MEBIBYTE, max(MEBIBYTE, self._size_bytes_max // 16))
        self._written_bytes = 0
        self._next_s = self._started_s = time.monotonic()
        self._aging_s = self._started_s + min(_AGING_DELAY_S_MAX, self._age_ms_max / 10_000)
        self._newest_ms: int | None = None
        """When the newest record was taken that was there at the start; 0: none was; None: not looked at yet."""

    def written(self, size_bytes: int) -> None:
        self._written_bytes += size_bytes

    def due(self) -> bool:
        return self._written_bytes >= self._written_bytes_max or time.monotonic() >= self._next_s

    def wait_s(self) -> float:
        """How long nothing needs to be done when nothing is written."""
        return max(0.0, self._next_s - time.monotonic())

    def postpone(self) -> None:
        self._written_bytes = 0
        self._next_s = time.monotonic() + self._interval_s

    def expire(self, connection: sqlite3.Connection) -> None:
        """Remove one piece; it is due again at once when that piece was full."""
        oldest_ms = self._oldest_ms(connection)
        excess_bytes = used_bytes(connection) - self._size_bytes_max
        removed_bytes = 0
        last: dict[int, int] = {}
        fronts = self._fronts(connection)
        for removed, (timestamp_ms, record_id, size_bytes) in enumerate(heapq.merge(*fronts)):
            if timestamp_ms >= oldest_ms and removed_bytes >= excess_bytes:
                self.postpone()
                break
            if removed_bytes >= _EXPIRE_SIZE_BYTES_MAX or removed >= _EXPIRE_RECORDS_MAX:
                break
            last[record_id >> OFFSET_BITS] = record_id
            removed_bytes += size_bytes
        else:
            self.postpone()
        for partition, record_id in last.items():
            connection.execute("DELETE FROM record WHERE id BETWEEN ? AND ?", (row_id(partition, 0), record_id))

    def _oldest_ms(self, connection: sqlite3.Connection) -> int:
        """What was taken before then is too old.

        A machine whose clock is ahead for a while must not remove everything: time goes on from the newest record that
        was there at the start, as fast as it really passes, and nothing grows too old in the first minutes.
        """
        if self._newest_ms is None:
            ends = (row_id(partition + 1, 0) for (partition,) in connection.execute("SELECT partition FROM partition"))
            query = "SELECT timestamp_ms FROM record WHERE id < ? ORDER BY id DESC LIMIT 1"
            found = [row for end in list(ends) if (row := connection.execute(query, (end,)).fetchone())]
            self._newest_ms = max((timestamp_ms for (timestamp_ms,) in found), default=0)
        now_ms, now_s = now_us() // 1000, time.monotonic()
        if now_s < self._aging_s:
            return 0
        if self._newest_ms:
            now_ms = min(now_ms, self._newest_ms + int((now_s - self._started_s) * 1000))
        return now_ms - self._age_ms_max

    def is_over(self, connection: sqlite3.Connection) -> bool:
        """Whether records may be added only if others go first."""
        return self._group is not None and used_bytes(connection) > self._size_bytes_max

    def full(self, connection: sqlite3.Connection) -> str:
        """Remove what may go; why no record may be added all the same, or ""."""
        self.expire(connection)
        held_bytes = used_bytes(connection)
        if held_bytes <= self._size_bytes_max:
            return ""
        return (
            f"it is full: of {held_bytes / MEBIBYTE:.0f} MiB, the group {self._group} has to read what is oldest before"
            f" more is taken (queue.retention_size_bytes_max is {self._size_bytes_max / MEBIBYTE:.0f} MiB); see that a"
            " worker runs and keeps up"
        )

    def _fronts(self, connection: sqlite3.Connection) -> list[Iterator[tuple[int, int, int]]]:
        """Of each partition the records that may be removed, from the earliest on: (timestamp, rowid, bytes)."""
        ends = connection.execute(
            "SELECT partition, coalesce((SELECT next_offset FROM committed WHERE group_name = ?"
            " AND committed.partition = partition.partition), CASE WHEN ? IS NULL THEN next_offset ELSE 0 END)"
            " FROM partition",
            (self._group, self._group),
        ).fetchall()
        return [
            connection.execute(
                "SELECT timestamp_ms, id, length(payload) FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                (row_id(partition, 0), row_id(partition, end), _EXPIRE_RECORDS_MAX),
            )
            for partition, end in ends
        ]
