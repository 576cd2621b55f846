"""Ledger documents on Elasticsearch.

A document's version there is its generation, given by us ("external"): the server itself refuses whatever comes with
an older one, in the same step in which it writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import orjson

from logweir.errors import CLAIM_LOST, STORE_DOWN, LogweirError
from logweir.store.elasticsearch.connection import Connection
from logweir.store.port import LedgerDocument, is_written

# A document of many emitters is megabytes large.
_LEDGER_PAGE = 100
_CLAIM_TRIES_MAX = 100


class ElasticsearchLedger:
    """See the port, ``logweir.store.port.Ledger``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._index = connection.names.ledger

    def claim(self, id: str, owner: str) -> LedgerDocument:
        self._connection.ensure_prepared()
        for _ in range(_CLAIM_TRIES_MAX):
            with self._connection.problems("the ledger"):
                found = self._connection.client.options(ignore_status=404).get(index=self._index, id=id)
            known = found["_source"]["body"] if found.get("found") else {}
            # Only over what was read: between the two, the owner before us may have written. The server counts the
            # version up, also over one that was given by us.
            unchanged = (
                {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
                if found.get("found")
                else {"op_type": "create"}
            )
            with self._connection.problems("the ledger"):
                written = self._connection.client.options(ignore_status=409).index(
                    index=self._index, id=id, document={"id": id, "body": {**known, "owner": owner}}, **unchanged
                )
            if "_version" in written:
                return LedgerDocument(id, written["_version"], known if is_written(known) else {})
        raise LogweirError(
            STORE_DOWN, url=self._connection.url, reason=f"{_CLAIM_TRIES_MAX} other writes of {id} came in between"
        )

    def read(self, ids: Collection[str]) -> dict[str, LedgerDocument]:
        return {id: document for id, document in self._stored(ids).items() if is_written(document.body)}

    def _stored(self, ids: Collection[str]) -> dict[str, LedgerDocument]:
        """Also those that are only claimed."""
        if not ids:
            return {}
        return {
            document["_id"]: LedgerDocument(document["_id"], document["_version"], document["_source"]["body"])
            for document in self._connection.got("the ledger", index=self._index, ids=list(ids))
            if document.get("found")
        }

    def scan(self, prefix: str) -> Iterator[LedgerDocument]:
        with self._connection.problems("the ledger"):
            # An index that is closed is no empty ledger: it is an error here, and searches would pass over it.
            self._connection.client.options(ignore_status=404).indices.refresh(index=self._index)
        after: list[Any] | None = None
        while True:
            with self._connection.problems("the ledger"):
                answer = self._connection.searched(
                    index=self._index,
                    query={"prefix": {"id": prefix}},
                    sort=["id"],
                    search_after=after,
                    version=True,
                    size=_LEDGER_PAGE,
                    track_total_hits=False,
                )
            hits = answer["hits"]["hits"]
            for hit in hits:
                if is_written(hit["_source"]["body"]):
                    yield LedgerDocument(hit["_id"], hit["_version"], hit["_source"]["body"])
            if len(hits) < _LEDGER_PAGE:
                return
            after = hits[-1]["sort"]

    def write(self, documents: Sequence[LedgerDocument]) -> None:
        self._connection.ensure_prepared()
        # Two bulks: the server judges each document of a bulk alone, and would write the last one without the others.
        for together in (documents[:-1], documents[-1:]):
            self._write(together)

    def _write(self, documents: Sequence[LedgerDocument]) -> None:
        operations = [self._operation(document) for document in documents]
        for document, answer in zip(documents, self._connection.bulk(operations, "the ledger"), strict=True):
            if answer["status"] == 409:
                stored = self._stored([document.id])[document.id]
                raise LogweirError(
                    CLAIM_LOST,
                    partition=document.body.get("partition", document.id),
                    generation=stored.generation,
                    owner=stored.body.get("owner", "another worker"),
                    generation_own=document.generation,
                )
            if answer["status"] >= 300:
                raise self._connection.unwritten(answer, "the ledger")

    def delete(self, documents: Sequence[LedgerDocument]) -> None:
        self._connection.ensure_prepared()
        self._connection.done([self._deletion(document) for document in documents], "the ledger", passing=(404, 409))

    def _operation(self, document: LedgerDocument) -> bytes:
        action = {"index": self._place(document)}
        return b"%b\n%b\n" % (orjson.dumps(action), orjson.dumps({"id": document.id, "body": document.body}))

    def _deletion(self, document: LedgerDocument) -> bytes:
        return b"%b\n" % orjson.dumps({"delete": self._place(document)})

    def _place(self, document: LedgerDocument) -> dict[str, Any]:
        """Where it stands, unless somebody has written it under a later generation."""
        place = {"_index": self._index, "_id": document.id}
        return {**place, "version": document.generation, "version_type": "external_gte"}
