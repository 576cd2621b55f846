"""Documents of our own in the embedded store: in a file of their own, so that who changes one waits for no bulk.

They are few beside events: a search looks at the searchable part of each one within its bounds of time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import orjson

from logweir.errors import DOCUMENT_CHANGED, LogweirError
from logweir.query.match import matcher
from logweir.query.tree import PAGE_MAX, Node
from logweir.store.documents import DocumentSet, OwnDocument, Page, encoded, searched, time_ms
from logweir.store.sqlite.database import Folder

SCHEMA = """
CREATE TABLE document (
    name TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    view TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, id)
) WITHOUT ROWID;
CREATE INDEX document_time ON document (name, time_ms, id);
CREATE TABLE written (version INTEGER NOT NULL);
INSERT INTO written VALUES (0);
"""
_SELECT = """
SELECT time_ms, id, view FROM document WHERE name = ? AND time_ms >= ? AND time_ms < ? ORDER BY time_ms DESC, id DESC
"""
_LONG_AGO_MS, _FAR_AHEAD_MS = -(2**62), 2**62
_LOOK_EVERY = 100


class SqliteDocuments:
    """See the port, ``logweir.store.port.Documents``."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def get(self, among: DocumentSet, ids: Collection[str]) -> dict[str, OwnDocument]:
        query = "SELECT version, body FROM document WHERE name = ? AND id = ?"
        found = {}
        with self._folder.problems(), self._folder.reading(self._folder.documents, schema=SCHEMA) as connection:
            for id in ids:
                row = connection.execute(query, (among.name, id)).fetchone()
                if row:
                    found[id] = OwnDocument(id, str(row[0]), orjson.loads(row[1]))
        return found

    def put(self, among: DocumentSet, id: str, body: dict[str, Any], *, version: str | None) -> str:
        text, view = encoded(id, body).decode(), among.view(body)
        with self._folder.problems(), self._writing() as connection:
            _require(connection, among, id, version)
            # Of the whole file, not of the document: one that was deleted and made anew has no version of its past.
            connection.execute("UPDATE written SET version = version + 1")
            (number,) = connection.execute("SELECT version FROM written").fetchone()
            row = (among.name, id, number, time_ms(among, view), orjson.dumps(view).decode(), text)
            connection.execute("INSERT OR REPLACE INTO document VALUES (?, ?, ?, ?, ?, ?)", row)
        return str(number)

    def search(
        self,
        among: DocumentSet,
        query: Node,
        *,
        size: int,
        from_us: int | None = None,
        to_us: int | None = None,
        after: tuple[Any, ...] | None = None,
    ) -> Page:
        matches, left = matcher(query, among.by_name), min(size, PAGE_MAX)
        total = 0
        found: list[tuple[int, str]] = []
        low_ms = _LONG_AGO_MS if from_us is None else from_us // 1000
        high_ms = _FAR_AHEAD_MS if to_us is None else -(-to_us // 1000)
        with (
            self._folder.searching(None) as limit,
            self._folder.reading(self._folder.documents, limit, schema=SCHEMA) as connection,
        ):
            connection.execute("BEGIN")  # One state of the file, for the keys and for the bodies.
            rows = connection.execute(_SELECT, (among.name, low_ms, high_ms))
            for number, (time, id, view) in enumerate(rows):
                if number % _LOOK_EVERY == 0:
                    limit.check()
                if matches(searched(among, orjson.loads(view))):
                    total += 1
                    if len(found) <= left and (after is None or (time, id) < tuple(after)):
                        found.append((time, id))
            documents = [_read(connection, among, id) for _, id in found[:left]]
        return Page(total, documents, found[left - 1] if left and len(found) > left else None)

    def delete(self, among: DocumentSet, id: str, *, version: str) -> None:
        with self._folder.problems(), self._writing() as connection:
            _require(connection, among, id, version)
            connection.execute("DELETE FROM document WHERE name = ? AND id = ?", (among.name, id))

    def _writing(self) -> Any:
        return self._folder.writing(self._folder.documents, make=SCHEMA)


def _require(connection: sqlite3.Connection, among: DocumentSet, id: str, version: str | None) -> None:
    """Raises LogweirError(DOCUMENT_CHANGED) when another version than that is there."""
    row = connection.execute("SELECT version FROM document WHERE name = ? AND id = ?", (among.name, id)).fetchone()
    if (str(row[0]) if row else None) != version:
        raise LogweirError(DOCUMENT_CHANGED, id=id)


def _read(connection: sqlite3.Connection, among: DocumentSet, id: str) -> OwnDocument:
    query = "SELECT version, body FROM document WHERE name = ? AND id = ?"
    version, body = connection.execute(query, (among.name, id)).fetchone()
    return OwnDocument(id, str(version), orjson.loads(body))
