"""The embedded store: a folder with ``main.sqlite`` (ledger, dead letters) and one file of events for each day.

The write protocol is Elasticsearch's: events first, under their ids; ledger and position after them, in another file.
A transaction over several files would not survive a crash whole, so none is asked for. A day expires by unlinking.
Any number of processes may read and write; writers wait for each other.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from logweir.config import StoreSettings, sqlite_path
from logweir.errors import CLAIM_LOST, STORE_DOWN, LogweirError
from logweir.event import Document, Provenance, day_of
from logweir.process.files import make_folder, sync_folder
from logweir.query.times import within_years
from logweir.query.tree import PAGE_MAX, And, Node, time_range
from logweir.store.port import EVERY_LETTER, DeadLetter, Held, Hits, Item, LedgerDocument, LetterFilter, Written
from logweir.store.sqlite import search as sql

_SUFFIX = ".sqlite"
_DAYS_OPEN_MAX = 4
_CACHE_KIBIBYTES = 32 * 1024
_CHECKPOINT_PAGES = 4000
_LEFTOVER_AGE_S = 60
_LEDGER_PAGE = 100
_NO_TIME = -(2**63)

_MAIN_SCHEMA = """
CREATE TABLE ledger (id TEXT PRIMARY KEY, generation INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE dead_letters (
    id TEXT PRIMARY KEY, received_us INTEGER NOT NULL, reason TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    body TEXT NOT NULL, raw BLOB NOT NULL
);
CREATE INDEX dead_letters_received ON dead_letters (received_us, id);
CREATE INDEX dead_letters_reason ON dead_letters (reason, received_us, id, size_bytes);
"""
_INSERT_EVENT = "INSERT OR IGNORE INTO events (rowid, {}) VALUES ({})".format(  # noqa: S608 - the names are our own
    ", ".join(f'"{name}"' for name in sql.COLUMNS), ", ".join("?" * (len(sql.COLUMNS) + 1))
)
# Of the names of a day's file, as of a daily index.
_DAY_PREFIX = "events-"
# No id begins with a prefix and comes behind the prefix with this.
_LAST_CHARACTER = "\U0010ffff"
_WRITE_LEDGER = """
INSERT INTO ledger (id, generation, body) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, body = excluded.body
WHERE excluded.generation >= ledger.generation
"""
_TRIM_LETTERS = """
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM (
        SELECT id, count(*) OVER newer AS letters, sum(size_bytes) OVER newer AS size_bytes
        FROM dead_letters WHERE reason = ?
        WINDOW newer AS (ORDER BY received_us DESC, id DESC ROWS UNBOUNDED PRECEDING)
    ) WHERE letters > ? OR size_bytes > ?
)
"""


class _Open(NamedTuple):
    """A connection that is kept, and which file (by inode) was at its path when it was opened."""

    connection: sqlite3.Connection
    inode: int


class SqliteStore:
    """See the port, ``logweir.store.Store``. Threads share its connections one after the other."""

    def __init__(self, settings: StoreSettings) -> None:
        self._url = settings.url
        self._folder = sqlite_path(settings.url)
        self._main_path = self._folder / f"main{_SUFFIX}"
        self._timeout_s = settings.timeout_s
        self._lock = threading.RLock()
        self._open: dict[Path, _Open] = {}

    # --- events ---------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        with self._problems():
            make_folder(self._folder)
            for leftover in self._folder.glob(".new-*"):
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
                    leftover.unlink(missing_ok=True)
            self._make(self._main_path, _MAIN_SCHEMA)

    def index(self, documents: Sequence[Document]) -> list[Item]:
        return self._index(documents, over_own=False)

    def replace(self, documents: Sequence[Document]) -> list[Item]:
        return self._index(documents, over_own=True)

    def _index(self, documents: Sequence[Document], *, over_own: bool) -> list[Item]:
        items: list[Item | None] = [None] * len(documents)
        by_day: dict[str, list[int]] = {}
        for position, document in enumerate(documents):
            by_day.setdefault(document.day, []).append(position)
        for day, positions in by_day.items():
            taken = [documents[position] for position in positions]
            for position, item in zip(positions, self._index_day(day, taken, over_own=over_own), strict=True):
                items[position] = item
        return [item for item in items if item is not None]

    def delete(self, documents: Sequence[tuple[str, str, Provenance]]) -> None:
        for day in {day for day, _, _ in documents}:
            path = self._day_path(day)
            if path.exists():
                with self._problems(), self._writing(path) as connection:
                    _delete(connection, [(id, own) for wanted, id, own in documents if wanted == day])

    def _index_day(self, day: str, documents: list[Document], *, over_own: bool) -> list[Item]:
        items = [Item(Written.CREATED)] * len(documents)
        rows: list[tuple[int, tuple[Any, ...], tuple[str, str]]] = []
        for position, document in enumerate(documents):
            try:
                rows.append((position, sql.row_of(document), sql.words_row_of(document)))
            except sql.Unfit as error:
                items[position] = Item(Written.REFUSED, error=str(error))
        if rows:
            with self._problems(), self._writing(self._day_path(day), make=sql.SCHEMA) as connection:
                if over_own:
                    _delete(connection, [(documents[at].id, documents[at].provenance) for at, _, _ in rows])
                for position, stored in _insert(connection, rows).items():
                    items[position] = Item(Written.EXISTS, stored=stored)
        return items

    def provenances(self, places: Sequence[tuple[str, str]]) -> list[Provenance | None]:
        found = self._rows(places, "ingest_stream, ingest_number, content_hash")
        return [Provenance(*found[place]) if place in found else None for place in places]

    def sources(self, places: Sequence[tuple[str, str]]) -> list[dict[str, Any] | None]:
        found = self._rows(places, "ingest_stream, ingest_number, content_hash, document")
        return [_source(*found[place]) if place in found else None for place in places]

    def _rows(self, places: Sequence[tuple[str, str]], columns: str) -> dict[tuple[str, str], tuple[Any, ...]]:
        found = {}
        query = f"SELECT {columns} FROM events WHERE id = ?"  # noqa: S608 - the names are our own
        with self._problems():
            for day in {day for day, _ in places}:
                with self._reading(self._day_path(day)) as connection:
                    for id in {id for wanted, id in places if wanted == day}:
                        row = connection.execute(query, (id,)).fetchone()
                        if row:
                            found[day, id] = row
        return found

    def search(
        self,
        query: Node,
        *,
        size: int,
        from_us: int | None = None,
        to_us: int | None = None,
        time_field: str = "receivedtimestamp",
        after: tuple[Any, ...] | None = None,
    ) -> Hits:
        bounds = time_range(time_field, from_us, to_us)
        where, values = sql.condition(And((bounds, query)))
        page = _Page(time_field, where, values, min(size, PAGE_MAX), after)
        total = 0
        with self._problems():
            # Newest day first. By receipt time, the days that the bounds leave out are not opened.
            for path in reversed(self._day_paths()):
                if time_field != "receivedtimestamp" or _day_in(path.stem, from_us, to_us):
                    with self._reading(path) as connection:
                        total += page.read(connection, path.stem)
        return page.hits(total)

    def refresh(self) -> None:
        """Nothing to do: what is committed is found."""

    def delete_expired(self, before_day: str) -> list[str]:
        with self._problems():
            expired = [path for path in self._day_paths() if path.stem < _DAY_PREFIX + before_day]
            for path in expired:
                self._unlink(path)
            return [path.stem.removeprefix(_DAY_PREFIX) for path in expired]

    def _unlink(self, path: Path) -> None:
        # Under main's write lock no day file is made, and under the day's own nothing is being written to it;
        # who waits for that lock finds the file gone when its turn comes (see _writing).
        self._forget(path)
        with self._writing(self._main_path), closing(self._connect(path)) as day:
            day.execute("BEGIN IMMEDIATE")
            path.unlink(missing_ok=True)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            sync_folder(self._folder)
            day.execute("ROLLBACK")

    # --- ledger ---------------------------------------------------------------------------------------------------
    def claim(self, id: str, owner: str) -> LedgerDocument:
        with self._problems(), self._writing(self._main_path) as connection:
            row = connection.execute("SELECT generation, body FROM ledger WHERE id = ?", (id,)).fetchone()
            generation, body = (row[0] + 1, orjson.loads(row[1])) if row else (1, {"owner": owner})
            claimed = orjson.dumps({**body, "owner": owner}).decode()
            connection.execute(_WRITE_LEDGER, (id, generation, claimed))
            return LedgerDocument(id, generation, body)

    def read_ledger(self, ids: Collection[str]) -> dict[str, LedgerDocument]:
        found = {}
        with self._problems(), self._reading(self._main_path) as connection:
            for id in ids:
                row = connection.execute("SELECT generation, body FROM ledger WHERE id = ?", (id,)).fetchone()
                if row:
                    found[id] = LedgerDocument(id, row[0], orjson.loads(row[1]))
        return found

    def scan_ledger(self, prefix: str) -> Iterator[LedgerDocument]:
        query = "SELECT id, generation, body FROM ledger WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        first, end = prefix, prefix + _LAST_CHARACTER
        has_more = True
        while has_more:
            has_more = False
            with self._problems(), self._reading(self._main_path) as connection:
                # Row by row: a document may be megabytes.
                for id, generation, body in connection.execute(query, (first, end, _LEDGER_PAGE)):
                    yield LedgerDocument(id, generation, orjson.loads(body))
                    first, has_more = id + "\0", True

    def write_ledger(self, documents: Sequence[LedgerDocument]) -> None:
        with self._problems(), self._writing(self._main_path) as connection:
            for document in documents:
                body = orjson.dumps(document.body).decode()
                cursor = connection.execute(_WRITE_LEDGER, (document.id, document.generation, body))
                if cursor.rowcount == 0:
                    query = "SELECT generation, body FROM ledger WHERE id = ?"
                    generation, stored = connection.execute(query, (document.id,)).fetchone()
                    raise LogweirError(
                        CLAIM_LOST,
                        partition=document.body.get("partition", document.id),
                        generation=generation,
                        owner=orjson.loads(stored).get("owner", "another worker"),
                        generation_own=document.generation,
                    )

    def delete_ledger(self, documents: Sequence[LedgerDocument]) -> None:
        rows = [(document.id, document.generation) for document in documents]
        with self._problems(), self._writing(self._main_path) as connection:
            connection.executemany("DELETE FROM ledger WHERE id = ? AND generation <= ?", rows)

    # --- dead letters ---------------------------------------------------------------------------------------------
    def put_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        rows = [
            (one.id, one.received_us, one.reason, len(one.raw), orjson.dumps(one.body).decode(), one.raw)
            for one in letters
        ]
        with self._problems(), self._writing(self._main_path) as connection:
            connection.executemany("INSERT OR IGNORE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?)", rows)

    def dead_letters(
        self, *, size: int, wanted: LetterFilter = EVERY_LETTER, behind: DeadLetter | None = None
    ) -> list[DeadLetter]:
        where, values = _letters(wanted)
        if behind is not None:
            where, values = f"{where} AND (received_us, id) < (?, ?)", [*values, behind.received_us, behind.id]
        query = (
            f"SELECT id, received_us, reason, body, raw FROM dead_letters WHERE {where} "  # noqa: S608
            "ORDER BY received_us DESC, id DESC LIMIT ?"
        )
        with self._problems(), self._reading(self._main_path) as connection:
            rows = connection.execute(query, (*values, min(size, PAGE_MAX))).fetchall()
        return [DeadLetter(row[0], row[1], row[2], orjson.loads(row[3]), bytes(row[4])) for row in rows]

    def count_dead_letters(self, wanted: LetterFilter = EVERY_LETTER) -> dict[str, Held]:
        with self._problems(), self._reading(self._main_path) as connection:
            return _count_letters(connection, *_letters(wanted))

    def delete_dead_letters(self, wanted: LetterFilter, *, letters_max: int | None = None) -> dict[str, int]:
        if not self.count_dead_letters(wanted):
            return {}  # Nobody waits for the lock then.
        where, values = _letters(wanted)
        if letters_max is not None:
            oldest = f"SELECT id FROM dead_letters WHERE {where} ORDER BY received_us, id LIMIT ?"  # noqa: S608
            where, values = f"id IN ({oldest})", [*values, letters_max]
        with self._problems(), self._writing(self._main_path) as connection:
            counts = _count_letters(connection, where, values)
            connection.execute(f"DELETE FROM dead_letters WHERE {where}", values)  # noqa: S608 - the names are our own
        return {reason: held.letters for reason, held in counts.items()}

    def trim_dead_letters(self, reason: str, *, letters_max: int, size_bytes_max: int) -> int:
        with self._problems(), self._writing(self._main_path) as connection:
            return connection.execute(_TRIM_LETTERS, (reason, letters_max, size_bytes_max)).rowcount

    # --- the rest -------------------------------------------------------------------------------------------------
    def check(self) -> str:
        with self._problems():
            with self._writing(self._main_path):
                pass
            paths = self._day_paths()
            size_bytes = sum(path.stat().st_size for path in self._folder.iterdir())
        return f"embedded store {self._folder}: writable, {len(paths)} days of events, {size_bytes / 1e6:.1f} MB"

    def close(self) -> None:
        with self._lock:
            while self._open:
                self._open.popitem()[1].connection.close()

    # --- files and connections ------------------------------------------------------------------------------------
    @contextmanager
    def _problems(self) -> Iterator[None]:
        """Whatever the files or the disk object to is STORE_DOWN: the caller tries again."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise LogweirError(STORE_DOWN, url=self._url, reason=str(error) or type(error).__name__) from error

    def _day_path(self, day: str) -> Path:
        return self._folder / f"{_DAY_PREFIX}{day}{_SUFFIX}"

    def _day_paths(self) -> list[Path]:
        """The files of events, oldest day first."""
        return sorted(self._folder.glob(f"{_DAY_PREFIX}*{_SUFFIX}"))

    @contextmanager
    def _writing(self, path: Path, make: str | None = None) -> Iterator[sqlite3.Connection]:
        """A transaction in the file, committed to the disk at the end, undone on any exception."""
        with self._lock:
            connection = self._begun(path, make)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.DatabaseError):
                    self._forget(path)
                raise

    def _begun(self, path: Path, make: str | None) -> sqlite3.Connection:
        while True:
            opened = self._open.get(path) or self._remember(path, make)
            opened.connection.execute("BEGIN IMMEDIATE")
            # The lock is ours now. If the file was unlinked before, what we would write would go nowhere.
            if path.exists() and path.stat().st_ino == opened.inode:
                return opened.connection
            opened.connection.execute("ROLLBACK")
            self._forget(path)

    def _remember(self, path: Path, make: str | None) -> _Open:
        if make is not None and not path.exists():
            with self._writing(self._main_path):
                self._make(path, make)
        days = [known for known in self._open if known != self._main_path]
        if path != self._main_path and len(days) >= _DAYS_OPEN_MAX:
            self._forget(min(days))
        inode = path.stat().st_ino
        self._open[path] = _Open(self._connect(path), inode)
        return self._open[path]

    def _forget(self, path: Path) -> None:
        opened = self._open.pop(path, None)
        if opened is not None:
            opened.connection.close()

    def _connect(self, path: Path) -> sqlite3.Connection:
        """A connection to a file that is there."""
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        return connection

    @contextmanager
    def _reading(self, path: Path) -> Iterator[sqlite3.Connection]:
        """A connection for one reader; where the file is not there yet, an empty database instead."""
        if path.exists():
            connection = self._connect(path)
        else:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            connection.executescript(_MAIN_SCHEMA if path == self._main_path else sql.SCHEMA)
        with closing(connection):
            sql.register(connection)
            connection.execute("PRAGMA query_only = ON")
            yield connection

    def _make(self, path: Path, schema: str) -> None:
        """Make the file with its tables, whole or not at all; harmless when another process does so at once."""
        if path.exists():
            return
        fresh = path.with_name(f".new-{path.name}-{os.getpid()}-{threading.get_ident()}")
        fresh.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN; {schema} COMMIT;")
            _sync(fresh)
            # A link, not a rename: it fails when somebody else was first, and so never replaces their file.
            path.hardlink_to(fresh)
        except FileExistsError:
            return
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(self._folder)


def _insert(
    connection: sqlite3.Connection, rows: list[tuple[int, tuple[Any, ...], tuple[str, str]]]
) -> dict[int, Provenance]:
    """Insert what is not there yet; gives the stored provenance of what is, by position."""
    first = _rowid_max(connection) + 1
    before = connection.total_changes
    connection.executemany(_INSERT_EVENT, [(first + offset, *row) for offset, (_, row, _) in enumerate(rows)])
    existing: dict[int, Provenance] = {}
    if connection.total_changes - before < len(rows):
        query = "SELECT rowid, ingest_stream, ingest_number, content_hash FROM events WHERE id = ?"
        for offset, (position, row, _) in enumerate(rows):
            rowid, *provenance = connection.execute(query, (row[0],)).fetchone()
            if rowid != first + offset:
                existing[position] = Provenance(*provenance)
    connection.executemany(
        "INSERT INTO words (rowid, summary, rest) VALUES (?, ?, ?)",
        [(first + offset, *words) for offset, (position, _, words) in enumerate(rows) if position not in existing],
    )
    return existing


def _delete(connection: sqlite3.Connection, rows: list[tuple[str, Provenance]]) -> None:
    """Delete those by id whose provenance it is. Their words stay, under a rowid that no event has or ever gets again:

    the table of words keeps no text, and could only forget words that it is told exactly.
    """
    rowid_max = _rowid_max(connection)
    query = "DELETE FROM events WHERE id = ? AND ingest_stream = ? AND ingest_number = ?"
    connection.executemany(query, [(id, own.stream, own.number) for id, own in rows])
    connection.execute(f"PRAGMA user_version = {rowid_max}")


def _rowid_max(connection: sqlite3.Connection) -> int:
    """The highest rowid that an event ever had; ``user_version`` knows it of those that were deleted."""
    highest: int = connection.execute("SELECT coalesce(max(rowid), 0) FROM events").fetchone()[0]
    deleted: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return max(highest, deleted)


class _Page:
    """The ``size`` newest events behind ``after``, gathered day by day."""

    def __init__(
        self, time_field: str, where: str, values: list[Any], size: int, after: tuple[Any, ...] | None
    ) -> None:
        self._where, self._values, self._size, self._after = where, values, size, after
        self._order = f'"{time_field}" DESC, ingest_stream DESC, ingest_number DESC'
        self._columns = f'"{time_field}", ingest_stream, ingest_number, content_hash, id, document'
        # Row values compare from the left; an event without the time comes last, as in ORDER BY.
        self._behind = f'(coalesce("{time_field}", {_NO_TIME}), ingest_stream, ingest_number) < (?, ?, ?)'
        self._days_are_ordered = time_field == "receivedtimestamp"
        self._rows: list[tuple[tuple[Any, ...], str]] = []

    def read(self, connection: sqlite3.Connection, index: str) -> int:
        """Take in one day; gives how many of its events the query finds."""
        wanted = self._size + 1 - (len(self._rows) if self._days_are_ordered else 0)
        where, values = self._where, self._values
        if self._after is not None:
            where, values = f"{where} AND {self._behind}", [*values, *self._after]
        rows: list[Any] = []
        if self._size and wanted > 0:
            query = f"SELECT {self._columns} FROM events WHERE {where} ORDER BY {self._order} LIMIT ?"  # noqa: S608
            rows = connection.execute(query, (*values, wanted)).fetchall()
            self._rows.extend((row, index) for row in rows)
            self._rows.sort(key=lambda found: _key(found[0]), reverse=True)
            del self._rows[self._size + 1 :]
        if self._after is None and 0 < len(rows) < wanted:
            return len(rows)
        count = f"SELECT count(*) FROM events WHERE {self._where}"  # noqa: S608
        return int(connection.execute(count, self._values).fetchone()[0])

    def hits(self, total: int) -> Hits:
        shown = self._rows[: self._size]
        after = _key(shown[-1][0]) if shown and len(self._rows) > self._size else None
        return Hits(total, [_event(row, index) for row, index in shown], after)


def _key(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (_NO_TIME if row[0] is None else row[0], row[1], row[2])


def _event(row: tuple[Any, ...], index: str) -> dict[str, Any]:
    _, stream, number, content_hash, id, document = row
    return {"_id": id, "_index": index, **_source(stream, number, content_hash, document)}


def _source(stream: str, number: int, content_hash: str, document: str) -> dict[str, Any]:
    provenance = {"ingest_stream": stream, "ingest_number": number, "content_hash": content_hash}
    return {**orjson.loads(document), **provenance}


def _day_in(index: str, from_us: int | None, to_us: int | None) -> bool:
    day = index.removeprefix(_DAY_PREFIX)
    late_enough = from_us is None or day_of(within_years(from_us)) <= day
    return late_enough and (to_us is None or day <= day_of(within_years(to_us)))


def _letters(wanted: LetterFilter) -> tuple[str, list[Any]]:
    """The condition over ``dead_letters``, and its values."""
    conditions: list[tuple[str, Any]] = [
        ("id IN (SELECT value FROM json_each(?))", orjson.dumps(wanted.ids).decode() if wanted.ids else None),
        (
            "reason IN (SELECT value FROM json_each(?))",
            orjson.dumps(wanted.reasons).decode() if wanted.reasons else None,
        ),
        ("received_us >= ?", wanted.from_us),
        ("received_us < ?", wanted.to_us),
        ("body ->> '$.stage' = ?", wanted.stage),
        ("body ->> '$.key' = ?", wanted.key),
        ("body ->> '$.emitter' = ?", wanted.emitter),
    ]
    given = [(part, value) for part, value in conditions if value is not None]
    return " AND ".join(part for part, _ in given) or "TRUE", [value for _, value in given]


def _count_letters(connection: sqlite3.Connection, where: str, values: list[Any]) -> dict[str, Held]:
    query = f"SELECT reason, count(*), sum(size_bytes) FROM dead_letters WHERE {where} GROUP BY reason"  # noqa: S608
    return {reason: Held(*counts) for reason, *counts in connection.execute(query, values)}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
