"""Dead letters and refused bodies in the embedded store."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from logweir.query.tree import PAGE_MAX
from logweir.store.port import EVERY_LETTER, DeadLetter, Held, LetterFilter
from logweir.store.sqlite.database import Folder

SCHEMA = """
CREATE TABLE dead_letters (
    id TEXT PRIMARY KEY, received_us INTEGER NOT NULL, reason TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    body TEXT NOT NULL, raw BLOB NOT NULL
);
CREATE INDEX dead_letters_received ON dead_letters (received_us, id);
CREATE INDEX dead_letters_reason ON dead_letters (reason, received_us, id, size_bytes);
"""
_TRIM = """
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM (
        SELECT id, count(*) OVER newer AS letters, sum(size_bytes) OVER newer AS size_bytes
        FROM dead_letters WHERE reason = ?1 AND (?2 IS NULL OR body ->> '$.key' = ?2)
        WINDOW newer AS (ORDER BY received_us DESC, id DESC ROWS UNBOUNDED PRECEDING)
    ) WHERE letters > ?3 OR size_bytes > ?4
)
"""


class SqliteDeadLetters:
    """See the port, ``logweir.store.port.DeadLetters``."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def put(self, letters: Sequence[DeadLetter]) -> None:
        rows = [
            (one.id, one.received_us, one.reason, len(one.raw), orjson.dumps(one.body).decode(), one.raw)
            for one in letters
        ]
        with self._folder.problems(), self._folder.writing(self._folder.main) as connection:
            connection.executemany("INSERT OR IGNORE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?)", rows)

    def page(
        self, *, size: int, wanted: LetterFilter = EVERY_LETTER, behind: DeadLetter | None = None
    ) -> list[DeadLetter]:
        where, values = _condition(wanted)
        if behind is not None:
            where, values = f"{where} AND (received_us, id) < (?, ?)", [*values, behind.received_us, behind.id]
        query = (
            f"SELECT id, received_us, reason, body, raw FROM dead_letters WHERE {where} "  # noqa: S608
            "ORDER BY received_us DESC, id DESC LIMIT ?"
        )
        with self._folder.problems(), self._folder.reading(self._folder.main) as connection:
            rows = connection.execute(query, (*values, min(size, PAGE_MAX))).fetchall()
        return [DeadLetter(row[0], row[1], row[2], orjson.loads(row[3]), bytes(row[4])) for row in rows]

    def count(self, wanted: LetterFilter = EVERY_LETTER) -> dict[str, Held]:
        with self._folder.problems(), self._folder.reading(self._folder.main) as connection:
            return _count(connection, *_condition(wanted))

    def delete(self, wanted: LetterFilter, *, letters_max: int | None = None) -> dict[str, int]:
        if not self.count(wanted):
            return {}  # Nobody waits for the lock then.
        where, values = _condition(wanted)
        if letters_max is not None:
            oldest = f"SELECT id FROM dead_letters WHERE {where} ORDER BY received_us, id LIMIT ?"  # noqa: S608
            where, values = f"id IN ({oldest})", [*values, letters_max]
        with self._folder.problems(), self._folder.writing(self._folder.main) as connection:
            counts = _count(connection, where, values)
            connection.execute(f"DELETE FROM dead_letters WHERE {where}", values)  # noqa: S608 - the names are our own
        return {reason: held.letters for reason, held in counts.items()}

    def trim(self, reason: str, *, letters_max: int, size_bytes_max: int, key: str | None = None) -> int:
        with self._folder.problems(), self._folder.writing(self._folder.main) as connection:
            return connection.execute(_TRIM, (reason, key, letters_max, size_bytes_max)).rowcount


def _condition(wanted: LetterFilter) -> tuple[str, list[Any]]:
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


def _count(connection: sqlite3.Connection, where: str, values: list[Any]) -> dict[str, Held]:
    query = f"SELECT reason, count(*), sum(size_bytes) FROM dead_letters WHERE {where} GROUP BY reason"  # noqa: S608
    return {reason: Held(*counts) for reason, *counts in connection.execute(query, values)}
