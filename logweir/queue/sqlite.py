"""The embedded queue: one SQLite file in WAL mode, for any number of processes of one machine.

Each producer has one thread that writes: whatever waits goes into one transaction, so many records share one fsync.
A consumer group is three tables (members with a heartbeat, who owns which partition, committed offsets); its members
agree through write transactions, and there is no other process.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logweir import process
from logweir.clock import now_us
from logweir.config import MEBIBYTE, sqlite_path
from logweir.errors import OFFSETS_EXPIRED, QUEUE_DOWN, QUEUE_RECORD_TOO_LARGE, LogweirError
from logweir.queue import Assigned, Delivery, Done, Lag, Revoked

if TYPE_CHECKING:
    from logweir.config import QueueSettings

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
# A record's rowid: partition in the upper bits, offset below. Partitions are then ranges of one B-tree, in order.
_OFFSET_BITS = 48
_PAGE_SIZE_BYTES = 8192
_BUSY_TIMEOUT_S = 10.0
_GROUP_SIZE_BYTES_MAX = 8 * MEBIBYTE
_POLL_SIZE_BYTES_MAX = 16 * MEBIBYTE
_EXPIRE_SIZE_BYTES_MAX = 8 * MEBIBYTE
_EXPIRE_RECORDS_MAX = 512
# What a waiting record costs beside its payload.
_RECORD_OVERHEAD_BYTES = 200
_SLEEP_S_MIN = 0.002
_SLEEP_S_MAX = 0.05

_SCHEMA = """
CREATE TABLE topic (id TEXT NOT NULL, partitions INTEGER NOT NULL);
CREATE TABLE partition (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE record (id INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE consumer_group (name TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE member (
  id INTEGER PRIMARY KEY AUTOINCREMENT, group_name TEXT NOT NULL,
  heartbeat_ms INTEGER NOT NULL, session_timeout_ms INTEGER NOT NULL, process TEXT NOT NULL
);
CREATE TABLE owner (
  group_name TEXT NOT NULL, partition INTEGER NOT NULL, member INTEGER NOT NULL, PRIMARY KEY (group_name, partition)
) WITHOUT ROWID;
CREATE TABLE committed (
  group_name TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
  PRIMARY KEY (group_name, partition)
) WITHOUT ROWID;
"""


class SqliteQueue:
    """The topic in the file that ``settings.url`` (``sqlite:///path``) names."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._path = sqlite_path(settings.url)
        self.topic = self._path.stem
        self._database = _Database(settings.url, self._path)
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make folder, file and tables when they are absent. Raises LogweirError(QUEUE_DOWN)."""
        try:
            _make_folder(self._path.parent)
            made = _make_tables(self._path, partitions=self._settings.partitions)
            if made:
                _sync_folder(self._path.parent)
        except (OSError, sqlite3.Error) as error:
            raise LogweirError(QUEUE_DOWN, url=self._settings.url, reason=error) from error
        partitions = self.partition_count()
        if partitions != self._settings.partitions:
            log.warning(
                "%s was made with %d partitions and keeps them; queue.partitions = %d has no effect on it",
                self._settings.url, partitions, self._settings.partitions,
            )  # fmt: skip

    def topic_id(self) -> str:
        return str(self._row("SELECT id FROM topic")[0])

    def partition_count(self) -> int:
        return int(self._row("SELECT partitions FROM topic")[0])

    def offsets(self, partition: int) -> tuple[int, int]:
        with self._lock, self._database.reading() as connection:
            return _bounds(connection, partition)

    def producer(self) -> SqliteProducer:
        """Raises LogweirError(QUEUE_DOWN) when ``prepare`` never made the file."""
        return SqliteProducer(self._settings, self._path, partitions=self.partition_count())

    def consumer(self, *, group: str, assigned: Assigned, revoked: Revoked) -> SqliteConsumer:
        return SqliteConsumer(
            self._settings, self._path, topic=self.topic, group=group, assigned=assigned, revoked=revoked
        )

    def check(self) -> str:
        with self._lock, self._database.writing() as connection:
            partitions, written = connection.execute("SELECT count(*), sum(next_offset) FROM partition").fetchone()
            used_bytes = _used_bytes(connection)
        return (
            f"{self._settings.url}: can be written; {partitions} partitions, {written} records since it was made,"
            f" {used_bytes / MEBIBYTE:.1f} MiB held"
        )

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _row(self, query: str) -> Any:
        with self._lock, self._database.reading() as connection:
            return connection.execute(query).fetchone()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record between ``send`` and ``done``."""

    partition: int
    payload: bytes
    done: Done


class SqliteProducer:
    """Writes records, many in one transaction; one thread does all of it, retention included."""

    def __init__(self, settings: QueueSettings, path: Path, *, partitions: int) -> None:
        self._settings = settings
        self._partitions = partitions
        self._database = _Database(settings.url, path)
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._in_transaction: list[_Waiting] = []
        self._failing = ""
        self._size_bytes = 0
        self._closing = False
        self._retention = _Retention(settings)
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
                self._settle(group, error)
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
            with self._database.writing() as connection:
                following = dict(connection.execute("SELECT partition, next_offset FROM partition"))
                rows = []
                for record in group:
                    rows.append((_row_id(record.partition, following[record.partition]), timestamp_ms, record.payload))
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

    The pages of removed records are used again: the file stays as large as the most that it ever held.
    """

    def __init__(self, settings: QueueSettings) -> None:
        self._age_ms_max = int(settings.retention_hours * 3_600_000)
        self._size_bytes_max = settings.retention_size_bytes_max
        self._interval_s = min(30.0, max(0.2, self._age_ms_max / 10_000))
        self._written_bytes_max = min(64 * MEBIBYTE, max(MEBIBYTE, self._size_bytes_max // 16))
        self._written_bytes = 0
        self._next_s = time.monotonic()

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
        oldest_ms = now_us() // 1000 - self._age_ms_max
        excess_bytes = _used_bytes(connection) - self._size_bytes_max
        removed_bytes = 0
        last: dict[int, int] = {}
        for removed, (timestamp_ms, row_id, size_bytes) in enumerate(heapq.merge(*_fronts(connection))):
            if timestamp_ms >= oldest_ms and removed_bytes >= excess_bytes:
                self.postpone()
                break
            if removed_bytes >= _EXPIRE_SIZE_BYTES_MAX or removed >= _EXPIRE_RECORDS_MAX:
                break
            last[row_id >> _OFFSET_BITS] = row_id
            removed_bytes += size_bytes
        else:
            self.postpone()
        for partition, row_id in last.items():
            connection.execute("DELETE FROM record WHERE id BETWEEN ? AND ?", (_row_id(partition, 0), row_id))


def _fronts(connection: sqlite3.Connection) -> list[Iterator[tuple[int, int, int]]]:
    """Of each partition the records from the earliest on: (timestamp, rowid, bytes)."""
    return [
        connection.execute(
            "SELECT timestamp_ms, id, length(payload) FROM record WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
            (_row_id(partition, 0), _row_id(partition + 1, 0) - 1, _EXPIRE_RECORDS_MAX),
        )
        for (partition,) in connection.execute("SELECT partition FROM partition").fetchall()
    ]


class SqliteConsumer:
    """A member of a group; joins at the first ``poll``."""

    def __init__(
        self, settings: QueueSettings, path: Path, *, topic: str, group: str, assigned: Assigned, revoked: Revoked
    ) -> None:
        self._url = settings.url
        self._topic = topic
        self._session_timeout_s = settings.session_timeout_s
        self._database = _Database(settings.url, path)
        self._membership = _Membership(group, session_timeout_ms=int(settings.session_timeout_s * 1000))
        self._group = group
        self._assigned = assigned
        self._revoked = revoked
        self._positions: dict[int, int] = {}
        self._paused: set[int] = set()
        self._heartbeat_s = float("-inf")
        self._data_version = -1
        self._turn = 0

    def poll(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        until_s = time.monotonic() + wait_s
        sleep_s = _SLEEP_S_MIN
        look = True
        while True:
            changed = self._changed()
            if self._heartbeat_due() or (changed and self._group_changed()):
                self._settle_membership()
                look = True
            deliveries = self._read(records_max) if look or changed else []
            # Stopped and continued in between: see first whether the partitions are still ours.
            if self._session_over():
                continue
            left_s = until_s - time.monotonic()
            if deliveries or left_s <= 0:
                self._positions.update({delivery.partition: delivery.offset + 1 for delivery in deliveries})
                return deliveries
            time.sleep(min(sleep_s, left_s))
            sleep_s = min(sleep_s * 1.5, _SLEEP_S_MAX)
            look = False

    def seek(self, partition: int, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset

    def pause(self, partitions: Collection[int]) -> None:
        self._paused.update(partition for partition in partitions if partition in self._positions)

    def resume(self, partitions: Collection[int]) -> None:
        self._paused.difference_update(partitions)

    def commit(self, offsets: Mapping[int, int]) -> None:
        if not offsets:
            return
        with self._database.writing() as connection:
            owned = self._membership.owned(connection)
            connection.executemany(
                "INSERT INTO committed VALUES (?, ?, ?)"
                " ON CONFLICT (group_name, partition) DO UPDATE SET next_offset = excluded.next_offset",
                [(self._group, partition, offset) for partition, offset in offsets.items() if partition in owned],
            )

    def lag(self) -> dict[int, Lag]:
        with self._database.reading() as connection:
            return {partition: self._lag_of(connection, partition) for partition in sorted(self._positions)}

    def close(self) -> None:
        held = sorted(self._positions)
        try:
            with self._database.writing() as connection:
                owned = self._membership.owned(connection)
            self._give_up([partition for partition in held if partition not in owned], lost=True)
            self._give_up(sorted(self._positions), lost=False)
            with self._database.writing() as connection:
                self._membership.leave(connection)
        except LogweirError as error:
            # Others take over when the session ends by itself.
            log.warning("The consumer could not leave its group: %s", error)
            self._give_up(sorted(self._positions), lost=True)
        finally:
            self._database.close()

    def _changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        with self._database.reading() as connection:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
        if self._database.reopened:
            self._database.reopened = False
            self._data_version = -1
        changed: bool = version != self._data_version
        self._data_version = version
        return changed

    def _group_changed(self) -> bool:
        with self._database.reading() as connection:
            return self._membership.changed(connection)

    def _heartbeat_due(self) -> bool:
        return time.monotonic() - self._heartbeat_s > self._session_timeout_s / 4

    def _session_over(self) -> bool:
        return time.monotonic() - self._heartbeat_s > self._session_timeout_s

    def _settle_membership(self) -> None:
        """Say that we live, give up what others are to have, take what is ours."""
        if not self._heartbeat():
            self._give_up(sorted(self._positions), lost=True)
            self._heartbeat()
        excess = self._membership.excess
        if excess:
            self._give_up([partition for partition in excess if partition in self._positions], lost=False)
            with self._database.writing() as connection:
                self._membership.release(connection, excess)
        # Those of an earlier time whose ``assigned`` failed are asked for again.
        new = [partition for partition in self._membership.kept if partition not in self._positions]
        if new:
            starts = self._assigned(new)
            with self._database.reading() as connection:
                found = {partition: self._start(connection, partition, starts.get(partition)) for partition in new}
            self._positions.update(found)

    def _heartbeat(self) -> bool:
        """False when we had lost our membership; the next call joins anew."""
        began_s = time.monotonic()
        with self._database.writing() as connection:
            alive = self._membership.heartbeat(connection)
        self._heartbeat_s = began_s
        return alive

    def _give_up(self, partitions: Collection[int], *, lost: bool) -> None:
        if not partitions:
            return
        try:
            self._revoked(partitions, lost)
        finally:
            for partition in partitions:
                self._positions.pop(partition, None)
                self._paused.discard(partition)

    def _start(self, connection: sqlite3.Connection, partition: int, offset: int | None) -> int:
        if offset is None:
            offset = self._committed(connection, partition)
        return _bounds(connection, partition)[0] if offset is None else offset

    def _committed(self, connection: sqlite3.Connection, partition: int) -> int | None:
        row = connection.execute(
            "SELECT next_offset FROM committed WHERE group_name = ? AND partition = ?", (self._group, partition)
        ).fetchone()
        return None if row is None else int(row[0])

    def _read(self, records_max: int) -> list[Delivery]:
        """What is next, beginning with another partition each time so that none starves."""
        wanted = sorted(self._positions.keys() - self._paused)
        if not wanted:
            return []
        self._turn += 1
        first = self._turn % len(wanted)
        deliveries: list[Delivery] = []
        with self._database.reading() as connection:
            following = dict(connection.execute("SELECT partition, next_offset FROM partition"))
            for partition in wanted[first:] + wanted[:first]:
                if self._positions[partition] == following[partition]:
                    continue
                deliveries += self._read_partition(connection, partition, records_max - len(deliveries))
                if len(deliveries) >= records_max or sum(len(d.payload) for d in deliveries) >= _POLL_SIZE_BYTES_MAX:
                    break
        return deliveries

    def _read_partition(self, connection: sqlite3.Connection, partition: int, records_max: int) -> list[Delivery]:
        position = self._positions[partition]
        rows = connection.execute(
            "SELECT id, timestamp_ms, payload FROM record WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
            (_row_id(partition, position), _row_id(partition + 1, 0) - 1, records_max),
        )
        deliveries: list[Delivery] = []
        size_bytes = 0
        for row_id, timestamp_ms, payload in rows:
            deliveries.append(Delivery(partition, row_id - _row_id(partition, 0), timestamp_ms, payload))
            size_bytes += len(payload)
            if size_bytes >= _POLL_SIZE_BYTES_MAX:
                break
        if not deliveries or deliveries[0].offset != position:
            earliest, latest = _bounds(connection, partition)
            numbers = {"partition": partition, "offset": position, "offset_earliest": earliest, "offset_latest": latest}
            raise LogweirError(OFFSETS_EXPIRED, topic=self._topic, **numbers)
        return deliveries

    def _lag_of(self, connection: sqlite3.Connection, partition: int) -> Lag:
        earliest, following = _bounds(connection, partition)
        committed = max(self._committed(connection, partition) or 0, earliest)
        row = connection.execute(
            "SELECT timestamp_ms FROM record WHERE id = ?", (_row_id(partition, committed),)
        ).fetchone()
        if row is None:
            return Lag(0, 0.0)
        return Lag(following - committed, max(0.0, now_us() / 1e6 - row[0] / 1e3))


class _Membership:
    """One member's side of the agreement on who owns which partition. Every method runs inside a transaction.

    Partitions stay where they are as far as an even share allows. ``kept`` are those of ours that are within our share,
    ``excess`` those beyond it: others wait until we release them.
    """

    def __init__(self, group: str, *, session_timeout_ms: int) -> None:
        self._group = group
        self._session_timeout_ms = session_timeout_ms
        self._member: int | None = None
        self._generation = -1
        self.kept: list[int] = []
        self.excess: list[int] = []

    def changed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT generation FROM consumer_group WHERE name = ?", (self._group,)).fetchone()
        return row is None or int(row[0]) != self._generation

    def owned(self, connection: sqlite3.Connection) -> set[int]:
        query = "SELECT partition FROM owner WHERE group_name = ? AND member = ?"
        return {partition for (partition,) in connection.execute(query, (self._group, self._member))}

    def heartbeat(self, connection: sqlite3.Connection) -> bool:
        """Renew the membership or join, and take free partitions up to our share. False: it was lost meanwhile."""
        now_ms = now_us() // 1000
        self._expel_dead(connection, now_ms)
        if self._member is None:
            self._member = connection.execute(
                "INSERT INTO member (group_name, heartbeat_ms, session_timeout_ms, process) VALUES (?, ?, ?, ?)",
                (self._group, now_ms, self._session_timeout_ms, process.identity()),
            ).lastrowid
            self._new_generation(connection)
        else:
            beat = "UPDATE member SET heartbeat_ms = ? WHERE id = ?"
            if connection.execute(beat, (now_ms, self._member)).rowcount == 0:
                self._member, self.kept, self.excess = None, [], []
                return False
        self._take_share(connection)
        query = "SELECT generation FROM consumer_group WHERE name = ?"
        (self._generation,) = connection.execute(query, (self._group,)).fetchone()
        return True

    def release(self, connection: sqlite3.Connection, partitions: Collection[int]) -> None:
        connection.executemany(
            "DELETE FROM owner WHERE group_name = ? AND partition = ? AND member = ?",
            [(self._group, partition, self._member) for partition in partitions],
        )
        self._new_generation(connection)
        self.excess = []

    def leave(self, connection: sqlite3.Connection) -> None:
        if self._member is not None:
            self._remove(connection, self._member)
            self._member, self.kept, self.excess = None, [], []

    def _expel_dead(self, connection: sqlite3.Connection, now_ms: int) -> None:
        query = "SELECT id, heartbeat_ms, session_timeout_ms, process FROM member WHERE group_name = ?"
        for member, heartbeat_ms, session_timeout_ms, owner in connection.execute(query, (self._group,)).fetchall():
            # A heartbeat from the future is as old as one from the past: the machine's clock was set back.
            is_over = abs(now_ms - heartbeat_ms) > session_timeout_ms
            if is_over or process.is_gone(owner):
                self._remove(connection, member)

    def _remove(self, connection: sqlite3.Connection, member: int) -> None:
        connection.execute("DELETE FROM owner WHERE group_name = ? AND member = ?", (self._group, member))
        connection.execute("DELETE FROM member WHERE id = ?", (member,))
        self._new_generation(connection)

    def _new_generation(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO consumer_group VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET generation = generation + 1",
            (self._group,),
        )

    def _take_share(self, connection: sqlite3.Connection) -> None:
        members = [
            member
            for (member,) in connection.execute(
                "SELECT id FROM member WHERE group_name = ? ORDER BY id", (self._group,)
            )
        ]
        query = "SELECT partition, member FROM owner WHERE group_name = ? ORDER BY partition"
        owners = dict(connection.execute(query, (self._group,)).fetchall())
        partitions = [partition for (partition,) in connection.execute("SELECT partition FROM partition")]
        owned = [partition for partition, member in owners.items() if member == self._member]
        counts = dict.fromkeys(members, 0)
        for member in owners.values():
            counts[member] += 1
        assert self._member is not None
        share = _share(self._member, counts, partitions=len(partitions))
        free = [partition for partition in partitions if partition not in owners]
        taken = free[: max(0, share - len(owned))]
        connection.executemany(
            "INSERT INTO owner VALUES (?, ?, ?)", [(self._group, partition, self._member) for partition in taken]
        )
        self.kept = sorted([*owned[:share], *taken])
        self.excess = owned[share:]


def _share(member: int, counts: Mapping[int, int], *, partitions: int) -> int:
    """How many partitions ``member`` is to have; ``counts``: what each has now, in the order of joining.

    Shares differ by one at most, and who has more keeps the odd one, so that nothing moves without need.
    """
    each, odd = divmod(partitions, len(counts))
    ranked = sorted(counts, key=lambda other: -counts[other])
    return each + (1 if ranked.index(member) < odd else 0)


class _Database:
    """A connection that is opened when needed, and anew after an error; never to another file than at first."""

    def __init__(self, url: str, path: Path) -> None:
        self._url = url
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = -1
        self.reopened = False

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, each statement on its own. Raises LogweirError(QUEUE_DOWN)."""
        with self._errors():
            yield self._open()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else can write beside; durable at the end. Raises LogweirError(QUEUE_DOWN)."""
        with self._errors():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # After some errors SQLite has rolled back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            with contextlib.suppress(sqlite3.Error):
                self.close()
            self._connection = None
            raise LogweirError(QUEUE_DOWN, url=self._url, reason=error) from error

    def _open(self) -> sqlite3.Connection:
        # A file removed under us could still be written, and all of it would be lost.
        inode = self._path.stat().st_ino
        if self._inode not in (-1, inode):
            raise OSError(f"{self._path} was replaced by another file; start this process again")
        if self._connection is None:
            self._connection = _connect(self._path, mode="rw")
            self._inode = inode
            self.reopened = True
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version != SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"its format is {version}, this program knows {SCHEMA_VERSION}")
        return self._connection


def _connect(path: Path, *, mode: str) -> sqlite3.Connection:
    # Used by one thread at a time, not always by the one that opened it.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False,
    )  # fmt: skip
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {64 * MEBIBYTE}")
    return connection


def _make_tables(path: Path, *, partitions: int) -> bool:
    """Whether they were absent."""
    with contextlib.closing(_connect(path, mode="rwc")) as connection:
        connection.execute(f"PRAGMA page_size = {_PAGE_SIZE_BYTES}")
        _switch_to_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute("INSERT INTO topic VALUES (?, ?)", (str(uuid.uuid4()), partitions))
            connection.executemany("INSERT INTO partition VALUES (?, 0)", [(number,) for number in range(partitions)])
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
        return bool(version == 0)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait for its lock here as it does elsewhere: two processes may make the file at once."""
    for attempt in itertools.count():
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if attempt >= 100:
                raise
            time.sleep(0.05)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """A new file is durable only when its name is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _row_id(partition: int, offset: int) -> int:
    return (partition << _OFFSET_BITS) + offset


def _bounds(connection: sqlite3.Connection, partition: int) -> tuple[int, int]:
    """The earliest offset held and the next to be written; equal when nothing is held."""
    # One statement is one snapshot.
    query = (
        "SELECT (SELECT min(id) FROM record WHERE id BETWEEN ? AND ?), next_offset FROM partition WHERE partition = ?"
    )
    first, last = _row_id(partition, 0), _row_id(partition + 1, 0) - 1
    earliest, following = connection.execute(query, (first, last, partition)).fetchone()
    return (following if earliest is None else earliest - first), following


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size_bytes)
