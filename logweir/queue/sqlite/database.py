"""The file of the embedded queue: its tables, its transactions, and where a record lies in it."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from logweir.config import MEBIBYTE
from logweir.errors import OFFSETS_EXPIRED, QUEUE_DOWN, LogweirError
from logweir.process.damage import ADVICE, damage_of, is_damage, note_damage
from logweir.queue.port import Delivery

SCHEMA_VERSION = 1
OFFSET_BITS = 48
POLL_SIZE_BYTES_MAX = 16 * MEBIBYTE
"""About how much is read at a time."""
_PAGE_SIZE_BYTES = 8192
_BUSY_TIMEOUT_S = 10.0

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


class Database:
    """A connection that is opened when needed, and anew after an error; never to another file than at first.

    A file that SQLite finds damaged, in whichever process, is used by none any more: a door would go on to accept
    events into a file that nobody can read them from.
    """

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

    def check(self) -> None:
        """Read the whole file. Raises LogweirError(QUEUE_DOWN) when it is damaged."""
        with self.reading() as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                error = sqlite3.DatabaseError(found)
                note_damage(self._path, error)
                raise error

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
            if is_damage(error):
                note_damage(self._path, error)
            if damage_of(self._path):
                reason = f"its file is damaged ({error})"
                raise LogweirError(QUEUE_DOWN, url=self._url, reason=reason, advice=ADVICE) from error
            raise LogweirError(QUEUE_DOWN, url=self._url, reason=error) from error

    def _open(self) -> sqlite3.Connection:
        if found := damage_of(self._path):
            raise OSError(found)
        # A file removed under us could still be written, and all of it would be lost.
        inode = self._path.stat().st_ino
        if self._inode not in (-1, inode):
            raise OSError(f"{self._path} was replaced by another file; start this process again")
        if self._connection is None:
            self._connection = connect(self._path, mode="rw")
            self._inode = inode
            self.reopened = True
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version != SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"its format is {version}, this program knows {SCHEMA_VERSION}")
        return self._connection


def connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """A connection of SQLite's ``mode`` rw or rwc, used by one thread at a time."""
    # Used by one thread at a time, not always by the one that opened it.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {64 * MEBIBYTE}")
    return connection


def make_tables(path: Path, *, partitions: int) -> bool:
    """Whether they were absent."""
    with contextlib.closing(connect(path, mode="rwc")) as connection:
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


def row_id(partition: int, offset: int) -> int:
    return (partition << OFFSET_BITS) + offset


def bounds(connection: sqlite3.Connection, partition: int) -> tuple[int, int]:
    """The earliest offset held and the next to be written; equal when nothing is held."""
    # One statement is one snapshot.
    query = (
        "SELECT (SELECT min(id) FROM record WHERE id BETWEEN ? AND ?), next_offset FROM partition WHERE partition = ?"
    )
    first, last = row_id(partition, 0), row_id(partition + 1, 0) - 1
    earliest, following = connection.execute(query, (first, last, partition)).fetchone()
    return (following if earliest is None else earliest - first), following


def records_from(
    connection: sqlite3.Connection, *, topic: str, partition: int, offset: int, records_max: int
) -> list[Delivery]:
    """The records from ``offset`` on, of which there must be one. Raises LogweirError(OFFSETS_EXPIRED).

    Behind a hole that a damaged file has left, ``offset_earliest`` is the first offset behind it.
    """
    rows = connection.execute(
        "SELECT id, timestamp_ms, payload FROM record WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (row_id(partition, offset), row_id(partition + 1, 0) - 1, records_max),
    )
    deliveries: list[Delivery] = []
    size_bytes = 0
    for record_id, timestamp_ms, payload in rows:
        if deliveries and record_id != row_id(partition, deliveries[-1].offset + 1):
            break  # The next one to ask is told of the hole.
        deliveries.append(Delivery(partition, record_id - row_id(partition, 0), timestamp_ms, payload))
        size_bytes += len(payload)
        if size_bytes >= POLL_SIZE_BYTES_MAX:
            break
    if not deliveries or deliveries[0].offset != offset:
        earliest, latest = bounds(connection, partition)
        if deliveries:
            earliest = deliveries[0].offset
        numbers = {"partition": partition, "offset": offset, "offset_earliest": earliest, "offset_latest": latest}
        raise LogweirError(OFFSETS_EXPIRED, topic=topic, **numbers)
    return deliveries


def used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size_bytes)
