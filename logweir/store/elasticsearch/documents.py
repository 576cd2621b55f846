"""Documents of our own on Elasticsearch: an index for each set of them.

A version is the server's own place of the write in its order (sequence number and primary term): it refuses whatever
was made for another one, in the same step in which it writes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from logweir.errors import DOCUMENT_CHANGED, LogweirError
from logweir.event import Kind
from logweir.query.tree import PAGE_MAX, And, Node
from logweir.store.documents import DocumentSet, OwnDocument, Page, encoded, searched, time_ms
from logweir.store.elasticsearch.connection import Connection
from logweir.store.elasticsearch.search import dsl


class ElasticsearchDocuments:
    """See the port, ``logweir.store.port.Documents``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, among: DocumentSet, ids: Collection[str]) -> dict[str, OwnDocument]:
        if not ids:
            return {}
        index = self._connection.names.of_documents(among)
        got = self._connection.got("documents", index=index, ids=list(ids))
        return {one["_id"]: _document(one) for one in got if one.get("found")}

    def put(self, among: DocumentSet, id: str, body: dict[str, Any], *, version: str | None) -> str:
        encoded(id, body)
        view = among.view(body)
        words = searched(among, view)
        source = {
            **view,
            "id": id,
            "time_ms": time_ms(among, view),
            "summary_words": words.summary_words,
            "all_words": words.all_words,
            "body": body,
        }
        self._connection.ensure_set_prepared(among)
        with self._connection.problems("documents"):
            written = self._connection.client.options(ignore_status=409).index(
                index=self._connection.names.of_documents(among), id=id, document=source, **_unchanged(version)
            )
        if "_seq_no" not in written:
            raise LogweirError(DOCUMENT_CHANGED, id=id)
        return _version(written)

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
        left = min(size, PAGE_MAX)
        index = self._connection.names.of_documents(among)
        numbers = frozenset(field.name for field in among.fields if field.kind is Kind.NUMBER)
        low = None if from_us is None else from_us // 1000
        high = None if to_us is None else -(-to_us // 1000)
        bounds = {name: value for name, value in (("gte", low), ("lt", high)) if value is not None}
        asked = dsl(And((query,)), numbers)
        with self._connection.problems("the search"), self._connection.searching(None) as search:
            self._connection.client.indices.refresh(index=index, ignore_unavailable=True, allow_no_indices=True)
            answer = search(
                index=index,
                query={"bool": {"filter": [asked, *([{"range": {"time_ms": bounds}}] if bounds else [])]}},
                sort=[
                    {"time_ms": {"order": "desc", "unmapped_type": "long"}},
                    {"id": {"order": "desc", "unmapped_type": "keyword"}},
                ],
                size=left + 1 if left else 0,
                search_after=list(after) if after is not None and left else None,
                track_total_hits=True,
                seq_no_primary_term=True,
                source_includes=["body"],
            )
        hits = answer["hits"]["hits"]
        is_more = len(hits) > left > 0
        documents = [_document(hit) for hit in hits[:left]]
        return Page(answer["hits"]["total"]["value"], documents, tuple(hits[left - 1]["sort"]) if is_more else None)

    def delete(self, among: DocumentSet, id: str, *, version: str) -> None:
        with self._connection.problems("documents"):
            answer = self._connection.client.options(ignore_status=(404, 409)).delete(
                index=self._connection.names.of_documents(among), id=id, **_unchanged(version)
            )
        if answer.get("result") != "deleted":
            raise LogweirError(DOCUMENT_CHANGED, id=id)


def _unchanged(version: str | None) -> dict[str, Any]:
    if version is None:
        return {"op_type": "create"}
    number, _, term = version.partition(".")
    return {"if_seq_no": int(number), "if_primary_term": int(term)}


def _version(answer: Any) -> str:
    return f"{answer['_seq_no']}.{answer['_primary_term']}"


def _document(hit: dict[str, Any]) -> OwnDocument:
    return OwnDocument(hit["_id"], _version(hit), hit["_source"]["body"])
