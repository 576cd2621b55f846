"""The embedded store: a folder with ``main.sqlite`` (ledger, dead letters), ``documents.sqlite`` (documents of our own)
and one file of events for each day.

The write protocol is Elasticsearch's: events first, under their ids; ledger and position after them, in another file.
A transaction over several files would not survive a crash whole, so none is asked for. A day expires by unlinking.
Any number of processes may read and write; writers wait for each other.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from logweir.config import StoreSettings
from logweir.errors import SEARCH_TOO_SLOW, LogweirError
from logweir.event import Document, Provenance, day_of
from logweir.process.damage import inconsistent, using
from logweir.query.lists import expanded
from logweir.query.times import within_years
from logweir.query.tree import PAGE_MAX, PAGE_SIZE_BYTES_MAX, And, Node, time_range
from logweir.store.port import Cancellation, Count, Hits, Item, Written, part_ms, require_keyword
from logweir.store.sqlite import documents, ledger, letters
from logweir.store.sqlite import search as sql
from logweir.store.sqlite.database import DAY_PREFIX, SUFFIX, Folder, SearchLimit
from logweir.text import counted

_NO_TIME = -(2**63)
_COUNTED_AT_ONCE = 1000
_INSERT_EVENT = "INSERT OR IGNORE INTO events (rowid, {}) VALUES ({})".format(  # noqa: S608 - the names are our own
    ", ".join(f'"{name}"' for name in sql.COLUMNS), ", ".join("?" * (len(sql.COLUMNS) + 1))
)
_INSERT_KNOWN = "INSERT INTO known ({}) VALUES ({})".format(  # noqa: S608 - the names are our own
    sql.KNOWN_COLUMNS, ", ".join("?" * (sql.KNOWN_COLUMNS.count(",") + 1))
)
_SELECT_EVENT = "SELECT ingest_stream, ingest_number, content_hash, CAST(document AS BLOB) FROM events WHERE id = ?"


class SqliteStore:
    """See the port, ``logweir.store.port.Store``. Threads share its connections one after the other."""

    def __init__(self, settings: StoreSettings) -> None:
        self._folder = Folder(settings, main_schema=ledger.SCHEMA + letters.SCHEMA)
        self.ledger = ledger.SqliteLedger(self._folder)
        self.dead_letters = letters.SqliteDeadLetters(self._folder)
        self.documents = documents.SqliteDocuments(self._folder)

    def prepare(self) -> None:
        self._folder.prepare()

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

    def _index_day(self, day: str, documents: list[Document], *, over_own: bool) -> list[Item]:
        items = [Item(Written.CREATED)] * len(documents)
        rows: list[_Row] = []
        for position, document in enumerate(documents):
            try:
                row = sql.row_of(document)
                rows.append(_Row(position, row, sql.words_row_of(document), sql.known_row_of(document)))
            except sql.Unfit as error:
                items[position] = Item(Written.REFUSED, error=str(error))
        if rows:
            with (
                self._folder.problems(),
                self._folder.writing(self._folder.day_path(day), make=sql.SCHEMA) as connection,
            ):
                if over_own:
                    _delete(connection, [(one.id, one.provenance) for one in (documents[row.position] for row in rows)])
                for position, stored in _insert(connection, rows).items():
                    items[position] = Item(Written.EXISTS, stored=stored)
        return items

    def delete(self, documents: Sequence[tuple[str, str, Provenance]]) -> None:
        for day in {day for day, _, _ in documents}:
            path = self._folder.day_path(day)
            if path.exists():
                with self._folder.problems(), self._folder.writing(path) as connection:
                    _delete(connection, [(id, own) for wanted, id, own in documents if wanted == day])

    def provenances(self, places: Sequence[tuple[str, str]]) -> list[Provenance | None]:
        found = self._rows(places, "ingest_stream, ingest_number, content_hash")
        return [Provenance(*found[place]) if place in found else None for place in places]

    def sources(self, places: Sequence[tuple[str, str]]) -> list[dict[str, Any] | None]:
        found = self._rows(places, "ingest_stream, ingest_number, content_hash, document")
        return [_source(*found[place]) if place in found else None for place in places]

    def _rows(self, places: Sequence[tuple[str, str]], columns: str) -> dict[tuple[str, str], tuple[Any, ...]]:
        found = {}
        query = f"SELECT {columns} FROM events WHERE id = ?"  # noqa: S608 - the names are our own
        with self._folder.problems():
            for day in {day for day, _ in places}:
                with self._folder.reading(self._folder.day_path(day)) as connection:
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
        oldest_first: bool = False,
        size_bytes_max: int = PAGE_SIZE_BYTES_MAX,
        cancellation: Cancellation | None = None,
    ) -> Hits:
        where, values = sql.condition(And((time_range(time_field, from_us, to_us), expanded(query))))
        page = _Page(time_field, where, values, min(size, PAGE_MAX), after, oldest_first=oldest_first)
        with self._folder.searching(cancellation) as limit:
            # By receipt time, days behind a full page are not opened.
            for path in self._searched(time_field, from_us, to_us, oldest_first=oldest_first):
                if page.is_full:
                    break
                with self._folder.reading(path, limit) as connection:
                    sql.ready(connection)
                    page.read(connection, path.stem)
            return self._hits(page, size_bytes_max, limit)

    def count(
        self,
        query: Node,
        *,
        from_us: int | None = None,
        to_us: int | None = None,
        time_field: str = "receivedtimestamp",
        timeout_s: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Count:
        where, values = sql.condition(And((time_range(time_field, from_us, to_us), expanded(query))))
        # Not count(*), which says nothing when it is stopped.
        rows = f"SELECT 1 FROM events WHERE {where}"  # noqa: S608 - the names are our own
        number = 0
        try:
            with self._folder.searching(cancellation, timeout_s) as limit:
                for path in self._searched(time_field, from_us, to_us):
                    with self._folder.reading(path, limit) as connection:
                        sql.ready(connection)
                        found = connection.execute(rows, values)
                        while several := len(found.fetchmany(_COUNTED_AT_ONCE)):
                            number += several
        except LogweirError as error:
            if error.problem is not SEARCH_TOO_SLOW or timeout_s is None:
                raise
            return Count(number, is_exact=False)
        return Count(number)

    def histogram(
        self,
        query: Node,
        *,
        from_us: int,
        to_us: int,
        buckets: int,
        time_field: str = "receivedtimestamp",
        cancellation: Cancellation | None = None,
    ) -> list[int]:
        width_ms, low_ms = part_ms(from_us, to_us, buckets), from_us // 1000
        part = f'("{time_field}" - {low_ms}) / {width_ms}'
        counts = [0] * buckets
        for at, number in self._grouped(part, query, time_field, from_us, to_us, cancellation):
            counts[at] += number
        return counts

    def top(
        self,
        query: Node,
        field: str,
        *,
        size: int,
        from_us: int | None = None,
        to_us: int | None = None,
        time_field: str = "receivedtimestamp",
        cancellation: Cancellation | None = None,
    ) -> list[tuple[str, int]]:
        require_keyword(field)
        counts: Counter[str] = Counter()
        for column, number in self._grouped(sql.values_of(field), query, time_field, from_us, to_us, cancellation):
            counts.update(dict.fromkeys(sql.texts_of(column), number))
        return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:size]

    def _grouped(
        self,
        by: str,
        query: Node,
        time_field: str,
        from_us: int | None,
        to_us: int | None,
        cancellation: Cancellation | None,
    ) -> Iterator[tuple[Any, int]]:
        """Of each day, what is found at an expression, with how many events have it; not where there is nothing."""
        where, values = sql.condition(And((time_range(time_field, from_us, to_us), expanded(query))))
        rows = f"SELECT {by} AS part, count(*) FROM events WHERE {where} GROUP BY 1"  # noqa: S608 - the names are our own
        with self._folder.searching(cancellation) as limit:
            for path in self._searched(time_field, from_us, to_us):
                with self._folder.reading(path, limit) as connection:
                    sql.ready(connection)
                    yield from (row for row in connection.execute(rows, values) if row[0] is not None)

    def _searched(
        self, time_field: str, from_us: int | None, to_us: int | None, *, oldest_first: bool = False
    ) -> list[Path]:
        """The files of the days that can have hits, in the order of the search."""
        paths = [
            path
            for path in self._folder.day_paths()
            if time_field != "receivedtimestamp" or _day_in(path.stem, from_us, to_us)
        ]
        return paths if oldest_first else paths[::-1]

    def _hits(self, page: _Page, size_bytes_max: int, limit: SearchLimit) -> Hits:
        """The events of the page, read one by one until it is full: no more than they are in memory at once."""
        events: list[dict[str, Any]] = []
        size_bytes = 0
        last = None
        for day, keys in itertools.groupby(page.keys, lambda key: key.day):
            with self._folder.reading(self._folder.path / f"{day}{SUFFIX}", limit) as connection:
                for key in keys:
                    if len(events) == page.size:
                        return Hits(events, last)
                    row = connection.execute(_SELECT_EVENT, (key.id,)).fetchone()
                    if row is None:
                        continue  # Deleted since a moment ago.
                    size_bytes += len(row[3])
                    if events and size_bytes > size_bytes_max:
                        return Hits(events, last)
                    events.append({"_id": key.id, "_index": day, **_source(*row)})
                    last = key.order
        # With one key more than events were asked for, there are others, even if some are gone since.
        return Hits(events, last if len(page.keys) > page.size else None)

    def count_numbers(self, stream: str, lowest: int, highest: int, *, days: tuple[str, str] | None = None) -> int:
        # By the index alone: no event is read.
        query = "SELECT count(*) FROM events WHERE ingest_stream = ? AND ingest_number BETWEEN ? AND ?"
        total = 0
        with self._folder.problems():
            for path in self._folder.day_paths():
                if days is None or days[0] <= path.stem.removeprefix(DAY_PREFIX) <= days[1]:
                    with self._folder.reading(path) as connection:
                        total += connection.execute(query, (stream, lowest, highest)).fetchone()[0]
        return total

    def require_prepared(self) -> None:
        self._folder.require_prepared()

    def refresh(self) -> None:
        """Nothing to do: what is committed is found."""

    def delete_expired(self, before_day: str) -> list[str]:
        with self._folder.problems():
            expired = [path for path in self._folder.day_paths() if path.stem < DAY_PREFIX + before_day]
            for path in expired:
                self._folder.remove(path)
            return [path.stem.removeprefix(DAY_PREFIX) for path in expired]

    def check(self) -> str:
        with self._folder.problems():
            paths = self._folder.day_paths()
            # Not all days: they take minutes to read. What is used is found out when it is used, and noted then.
            for path in (self._folder.main, self._folder.documents, *paths[-1:]):
                self._folder.require_whole(path)
            for path in paths:
                with using(path):
                    pass
            with self._folder.writing(self._folder.main):
                pass
            size_bytes = sum(path.stat().st_size for path in self._folder.path.iterdir())
        days = counted(len(paths), "day")
        return f"embedded store {self._folder.path}: writable, {days} of events, {size_bytes / 1e6:.1f} MB"

    def close(self) -> None:
        self._folder.close()


class _Row(NamedTuple):
    """Of an event that is to be stored."""

    position: int
    """Among those of the call."""
    event: tuple[Any, ...]
    words: tuple[str, str]
    known: tuple[Any, ...] | None


def _insert(connection: sqlite3.Connection, rows: list[_Row]) -> dict[int, Provenance]:
    """Insert what is not there yet; gives the stored provenance of what is, by position."""
    first = _rowid_max(connection) + 1
    before = connection.total_changes
    connection.executemany(_INSERT_EVENT, [(first + offset, *row.event) for offset, row in enumerate(rows)])
    existing: dict[int, Provenance] = {}
    if connection.total_changes - before < len(rows):
        query = "SELECT rowid, ingest_stream, ingest_number, content_hash FROM events WHERE id = ?"
        for offset, row in enumerate(rows):
            found = connection.execute(query, (row.event[0],)).fetchone()
            if found is None:
                raise inconsistent(f"it has and has not the event {row.event[0]}")
            rowid, *provenance = found
            if rowid != first + offset:
                existing[row.position] = Provenance(*provenance)
    inserted = [(first + offset, row) for offset, row in enumerate(rows) if row.position not in existing]
    connection.executemany(
        "INSERT INTO words (rowid, summary, rest) VALUES (?, ?, ?)", [(rowid, *row.words) for rowid, row in inserted]
    )
    if sql.has_known(connection):
        # Where somebody else has taken the newest events out of the file, their rows are still here.
        connection.execute("DELETE FROM known WHERE event >= ?", (first,))
        connection.executemany(_INSERT_KNOWN, [(rowid, *row.known) for rowid, row in inserted if row.known is not None])
    return existing


def _delete(connection: sqlite3.Connection, rows: list[tuple[str, Provenance]]) -> None:
    """Delete those by id whose provenance it is.

    Their words stay, and what is known of them, under a rowid that no event has or ever gets again: the table of words
    keeps no text, and could only forget words that it is told exactly.
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


class _Key(NamedTuple):
    """Of an event that is found."""

    order: tuple[Any, ...]
    """Time, stream and number."""
    id: str
    day: str
    """The name of its day's file, without the suffix."""


class _Page:
    """The keys of the first ``size`` events behind ``after``, and of the one behind them, gathered day by day."""

    def __init__(
        self,
        time_field: str,
        where: str,
        values: list[Any],
        size: int,
        after: tuple[Any, ...] | None,
        *,
        oldest_first: bool,
    ) -> None:
        self.size = size
        self.keys: list[_Key] = []
        self._oldest_first = oldest_first
        # An event without the time counts as the oldest, as in ORDER BY.
        columns = f'coalesce("{time_field}", {_NO_TIME}), ingest_stream, ingest_number'
        if after is not None:
            # Row values compare from the left.
            where, values = f"{where} AND ({columns}) {'>' if oldest_first else '<'} (?, ?, ?)", [*values, *after]
            if time_field == "receivedtimestamp":
                # Every event has this time: an index finds where to go on.
                where, values = f"{where} AND receivedtimestamp {'>' if oldest_first else '<'}= ?", [*values, after[0]]
        way = "ASC" if oldest_first else "DESC"
        order = f'"{time_field}" {way}, ingest_stream {way}, ingest_number {way}'
        self._query = f"SELECT {columns}, id FROM events WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608 - our names
        self._values = values
        self._days_are_ordered = time_field == "receivedtimestamp"

    @property
    def is_full(self) -> bool:
        """Whether no further day can change it."""
        return not self.size or (self._days_are_ordered and len(self.keys) > self.size)

    def read(self, connection: sqlite3.Connection, day: str) -> None:
        """Take in one day."""
        wanted = self.size + 1 - (len(self.keys) if self._days_are_ordered else 0)
        rows = connection.execute(self._query, (*self._values, wanted)).fetchall()
        self.keys.extend(_Key(tuple(order), id, day) for *order, id in rows)
        self.keys.sort(key=lambda key: key.order, reverse=not self._oldest_first)
        del self.keys[self.size + 1 :]


def _source(stream: str, number: int, content_hash: str, document: str | bytes) -> dict[str, Any]:
    provenance = {"ingest_stream": stream, "ingest_number": number, "content_hash": content_hash}
    return {**orjson.loads(document), **provenance}


def _day_in(index: str, from_us: int | None, to_us: int | None) -> bool:
    day = index.removeprefix(DAY_PREFIX)
    late_enough = from_us is None or day_of(within_years(from_us)) <= day
    return late_enough and (to_us is None or day <= day_of(within_years(to_us)))
