"""Ledger documents in the embedded store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import orjson

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.store.port import LedgerDocument, is_written
from logweir.store.sqlite.database import Folder

SCHEMA = """
CREATE TABLE ledger (id TEXT PRIMARY KEY, generation INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
"""
_LEDGER_PAGE = 100
# No id begins with a prefix and comes behind the prefix with this.
_LAST_CHARACTER = "\U0010ffff"
_WRITE = """
INSERT INTO ledger (id, generation, body) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, body = excluded.body
WHERE excluded.generation >= ledger.generation
"""


class SqliteLedger:
    """See the port, ``logweir.store.port.Ledger``."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def claim(self, id: str, owner: str) -> LedgerDocument:
        with self._folder.problems(), self._folder.writing(self._folder.main) as connection:
            row = connection.execute("SELECT generation, body FROM ledger WHERE id = ?", (id,)).fetchone()
            generation, body = (row[0] + 1, orjson.loads(row[1])) if row else (1, {})
            claimed = orjson.dumps({**body, "owner": owner}).decode()
            connection.execute(_WRITE, (id, generation, claimed))
            return LedgerDocument(id, generation, body if is_written(body) else {})

    def read(self, ids: Collection[str]) -> dict[str, LedgerDocument]:
        found = {}
        with self._folder.problems(), self._folder.reading(self._folder.main) as connection:
            for id in ids:
                row = connection.execute("SELECT generation, body FROM ledger WHERE id = ?", (id,)).fetchone()
                if row and is_written(body := orjson.loads(row[1])):
                    found[id] = LedgerDocument(id, row[0], body)
        return found

    def scan(self, prefix: str) -> Iterator[LedgerDocument]:
        query = "SELECT id, generation, body FROM ledger WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        first, end = prefix, prefix + _LAST_CHARACTER
        has_more = True
        while has_more:
            has_more = False
            with self._folder.problems(), self._folder.reading(self._folder.main) as connection:
                # Row by row: a document may be megabytes.
                for id, generation, text in connection.execute(query, (first, end, _LEDGER_PAGE)):
                    if is_written(body := orjson.loads(text)):
                        yield LedgerDocument(id, generation, body)
                    first, has_more = id + "\0", True

    def write(self, documents: Sequence[LedgerDocument]) -> None:
        with self._folder.problems(), self._folder.writing(self._folder.main) as connection:
            for document in documents:
                body = orjson.dumps(document.body).decode()
                cursor = connection.execute(_WRITE, (document.id, document.generation, body))
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

    def delete(self, documents: Sequence[LedgerDocument]) -> None:
        rows = [(document.id, document.generation) for document in documents]
        with self._folder.problems(), self._folder.writing(self._folder.main) as connection:
            connection.executemany("DELETE FROM ledger WHERE id = ? AND generation <= ?", rows)
