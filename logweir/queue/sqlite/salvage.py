"""What can be read of a damaged file of the embedded queue, copied into a new one under the same offsets."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logweir.queue.sqlite.database import connect, make_tables, row_id

_ROWS_AT_ONCE = 200


@dataclass(slots=True)
class Salvaged:
    records: int = 0
    """How many were copied."""
    lost: list[tuple[int, int, int]] = field(default_factory=list)
    """Partition, first and last offset of what could not be read."""


def salvage(damaged: Path, new: Path) -> Salvaged:
    """Copy topic, positions and every record that can be read; readers pass over the holes and count them as lost.

    ``new`` must not be there. Raises OSError; sqlite3.Error when not even the topic can be read.
    """
    with contextlib.closing(connect(damaged, mode="rw")) as source:
        topic_id, partitions = source.execute("SELECT id, partitions FROM topic").fetchone()
        make_tables(new, partitions=partitions)
        with contextlib.closing(connect(new, mode="rw")) as target:
            target.execute("UPDATE topic SET id = ?", (topic_id,))
            # Only where nobody has to read again: a position is in the store, too.
            with contextlib.suppress(sqlite3.Error):
                target.executemany("INSERT INTO committed VALUES (?, ?, ?)", source.execute("SELECT * FROM committed"))
            known: dict[int, int] = {}
            with contextlib.suppress(sqlite3.Error):
                known = dict(source.execute("SELECT partition, next_offset FROM partition"))
            salvaged = Salvaged()
            for partition in range(partitions):
                _copy(source, target, partition, known.get(partition), salvaged)
    return salvaged


def _copy(
    source: sqlite3.Connection, target: sqlite3.Connection, partition: int, end: int | None, salvaged: Salvaged
) -> None:
    begin = row_id(partition, 0)
    last = -1
    target.execute("BEGIN")
    for record_id, timestamp_ms, payload in _readable(source, begin, row_id(partition + 1, 0) - 1):
        offset = record_id - begin
        # Before the first one that is there, retention has removed them.
        if last >= 0 and offset > last + 1:
            salvaged.lost.append((partition, last + 1, offset - 1))
        target.execute("INSERT INTO record VALUES (?, ?, ?)", (record_id, timestamp_ms, payload))
        salvaged.records += 1
        last = offset
    following = max(last + 1, end or 0)
    if following > last + 1:
        salvaged.lost.append((partition, last + 1, following - 1))
    target.execute("UPDATE partition SET next_offset = ? WHERE partition = ?", (following, partition))
    target.execute("COMMIT")


def _readable(source: sqlite3.Connection, first: int, last: int) -> Iterator[tuple[Any, ...]]:
    """The rows from ``first`` to ``last`` that can be read, in order."""
    query = "SELECT id, timestamp_ms, payload FROM record WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
    while first <= last:
        rows: list[tuple[Any, ...]] = []
        cursor = source.cursor()
        try:
            # Row by row: those before a damaged page are read.
            for row in cursor.execute(query, (first, last, _ROWS_AT_ONCE)):
                rows.append(row)
                yield row
        except sqlite3.DatabaseError:
            behind = _next_readable(source, rows[-1][0] + 1 if rows else first, last)
            if behind is None:
                return
            first = behind
            continue
        if len(rows) < _ROWS_AT_ONCE:
            return
        first = rows[-1][0] + 1


def _next_readable(source: sqlite3.Connection, first: int, last: int) -> int | None:
    """From where on rows can be read again behind the damage at ``first``; None: from nowhere."""

    def reads(at: int) -> bool:
        query = "SELECT id, payload FROM record WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"
        try:
            return source.execute(query, (at, last)).fetchone() is not None
        except sqlite3.DatabaseError:
            return False

    step = 1
    while first + step <= last and not reads(first + step):
        step *= 2
    if first + step > last:
        return None
    # Damaged before ``low``, readable from ``high`` on: pages hold neighbours.
    low, high = first + step // 2, first + step
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reads(middle) else (middle, high)
    return high
