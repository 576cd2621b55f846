"""Dead letters and refused bodies on Elasticsearch."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson
from elastic_transport import ObjectApiResponse

from logweir.query.tree import (
    PAGE_MAX,
)
from logweir.store.elasticsearch.connection import Connection
from logweir.store.port import EVERY_LETTER, DeadLetter, Held, LetterFilter

_LETTERS_PAGE = 1000
_LETTERS_NEWEST = [{"received_us": {"order": "desc"}}, {"id": {"order": "desc"}}]
_LETTERS_OLDEST = [{"received_us": {"order": "asc"}}, {"id": {"order": "asc"}}]


class ElasticsearchDeadLetters:
    """See the port, ``logweir.store.port.DeadLetters``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._index = connection.names.dead_letters

    def put(self, letters: Sequence[DeadLetter]) -> None:
        self._connection.ensure_prepared()
        self._connection.done(
            [_operation(letter, self._index) for letter in letters],
            "dead letters",
            passing=(409,),
        )

    def page(
        self, *, size: int, wanted: LetterFilter = EVERY_LETTER, behind: DeadLetter | None = None
    ) -> list[DeadLetter]:
        hits = self._found(
            wanted,
            size=min(size, PAGE_MAX),
            sort=_LETTERS_NEWEST,
            search_after=None if behind is None else [behind.received_us, behind.id],
        )["hits"]["hits"]
        return [_letter(hit["_source"]) for hit in hits]

    def count(self, wanted: LetterFilter = EVERY_LETTER) -> dict[str, Held]:
        answer = self._found(
            wanted,
            size=0,
            aggs={
                "reasons": {
                    "terms": {"field": "reason", "size": 1000},
                    "aggs": {"size_bytes": {"sum": {"field": "size_bytes"}}},
                }
            },
        )
        buckets = answer.body.get("aggregations", {}).get("reasons", {}).get("buckets", [])
        return {bucket["key"]: Held(bucket["doc_count"], int(bucket["size_bytes"]["value"])) for bucket in buckets}

    def delete(self, wanted: LetterFilter, *, letters_max: int | None = None) -> dict[str, int]:
        counts: dict[str, int] = {}
        while True:
            left = _LETTERS_PAGE if letters_max is None else min(_LETTERS_PAGE, letters_max - sum(counts.values()))
            hits = self._found(wanted, size=left, sort=_LETTERS_OLDEST, source=["reason"])["hits"]["hits"]
            if not hits:
                return counts
            for hit in self._deleted(hits):
                reason = hit["_source"]["reason"]
                counts[reason] = counts.get(reason, 0) + 1

    def trim(self, reason: str, *, letters_max: int, size_bytes_max: int, key: str | None = None) -> int:
        wanted = LetterFilter(reasons=(reason,), key=key)
        deleted = 0
        while held := self.count(wanted).get(reason):
            letters, size_bytes = held
            hits = self._found(wanted, size=_LETTERS_PAGE, sort=_LETTERS_OLDEST, source=["size_bytes"])["hits"]["hits"]
            surplus = []
            while hits and (letters > letters_max or size_bytes > size_bytes_max):
                surplus.append(hits.pop(0))
                letters, size_bytes = letters - 1, size_bytes - surplus[-1]["_source"]["size_bytes"]
            if not surplus:
                break
            deleted += len(self._deleted(surplus))
        return deleted

    def _found(self, wanted: LetterFilter, **parameters: Any) -> ObjectApiResponse[Any]:
        """A search over the dead letters as they are now."""
        with self._connection.problems("dead letters"):
            self._connection.client.indices.refresh(index=self._index, ignore_unavailable=True)
            return self._connection.searched(index=self._index, query=_query(wanted), **parameters)

    def _deleted(self, hits: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Delete what a search has found; gives those that were still there."""
        operations = [b"%b\n" % orjson.dumps({"delete": {"_index": hit["_index"], "_id": hit["_id"]}}) for hit in hits]
        answers = self._connection.done(operations, "dead letters", passing=(404,))
        return [hit for hit, answer in zip(hits, answers, strict=True) if answer["status"] != 404]


def _operation(letter: DeadLetter, index: str) -> bytes:
    source = {
        "id": letter.id,
        "received_us": letter.received_us,
        "reason": letter.reason,
        "stage": letter.body.get("stage"),
        "key": letter.body.get("key"),
        "emitter": letter.body.get("emitter"),
        "size_bytes": len(letter.raw),
        "body": letter.body,
        "raw": base64.b64encode(letter.raw).decode(),
    }
    action = {"create": {"_index": index, "_id": letter.id}}
    return b"%b\n%b\n" % (orjson.dumps(action), orjson.dumps(source))


def _letter(source: dict[str, Any]) -> DeadLetter:
    raw = base64.b64decode(source["raw"])
    return DeadLetter(source["id"], source["received_us"], source["reason"], source["body"], raw)


def _query(wanted: LetterFilter) -> dict[str, Any]:
    received = {name: bound for name, bound in (("gte", wanted.from_us), ("lt", wanted.to_us)) if bound is not None}
    conditions: list[dict[str, Any]] = [
        {"terms": {name: list(values)}} for name, values in (("id", wanted.ids), ("reason", wanted.reasons)) if values
    ]
    conditions += [
        {"term": {name: value}}
        for name, value in (("stage", wanted.stage), ("key", wanted.key), ("emitter", wanted.emitter))
        if value is not None
    ]
    if received:
        conditions.append({"range": {"received_us": received}})
    return {"bool": {"filter": conditions}}
