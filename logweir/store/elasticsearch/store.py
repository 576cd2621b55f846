"""Elasticsearch 8 and 9 as the store: events in an index for each day; ledger and dead letters beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from logweir.clock import DAY_US
from logweir.config import StoreSettings
from logweir.errors import SEARCH_TOO_SLOW, LogweirError
from logweir.event import Document, Kind, Provenance, start_of
from logweir.query import known
from logweir.query.lists import expanded
from logweir.query.match import known_keywords, paths_of
from logweir.query.tree import (
    PAGE_MAX,
    PAGE_SIZE_BYTES_MAX,
    And,
    Node,
    Range,
    Term,
    time_range,
)
from logweir.store.elasticsearch.connection import Connection
from logweir.store.elasticsearch.documents import ElasticsearchDocuments
from logweir.store.elasticsearch.ledger import ElasticsearchLedger
from logweir.store.elasticsearch.letters import ElasticsearchDeadLetters
from logweir.store.elasticsearch.search import dsl, indices, known_field
from logweir.store.port import Cancellation, Count, Hits, Item, Written, part_ms, require_keyword
from logweir.text import counted

# Not "_last", which means the same: with it, Elasticsearch leaves out indices in which no event has the time, and their
# events are missing from a page whose last event has none either.
_NO_TIME = -(2**63)
_HITS_AT_ONCE = 200
_DROPPED = "an ingest pipeline of the index drops it"


class ElasticsearchStore:
    """See the port, ``logweir.store.port.Store``."""

    def __init__(self, settings: StoreSettings) -> None:
        self._connection = Connection(settings)
        self._names = self._connection.names
        self.ledger = ElasticsearchLedger(self._connection)
        self.dead_letters = ElasticsearchDeadLetters(self._connection)
        self.documents = ElasticsearchDocuments(self._connection)

    def prepare(self) -> None:
        self._connection.prepare()

    def index(self, documents: Sequence[Document]) -> list[Item]:
        self._connection.ensure_prepared()
        items: list[Item | None] = [None] * len(documents)
        positions: list[int] = []
        operations: list[bytes] = []
        for position, document in enumerate(documents):
            try:
                place = self._place(document.day, document.id)
                operations.append(create_operation(document, {"create": place}))
                positions.append(position)
            except TypeError as error:
                items[position] = Item(Written.REFUSED, error=f"it cannot be written as JSON: {error}")
        answers = self._connection.bulk(operations, "events")
        conflicts: list[int] = []
        for position, answer in zip(positions, answers, strict=True):
            if answer["status"] == 409:
                conflicts.append(position)
            # What was created is answered 201; 200, that an ingest pipeline of the index has dropped it.
            is_dropped = answer["status"] == 200
            items[position] = Item(Written.REFUSED, error=_DROPPED) if is_dropped else self._connection.item(answer)
        if any("index_not_found" in item.error for item in items if item is not None):
            self._connection.make_indices({self._names.of_day(document.day) for document in documents})
        if conflicts:
            for position, item in zip(conflicts, self._stored([documents[at] for at in conflicts]), strict=True):
                items[position] = item
        return [item for item in items if item is not None]

    def replace(self, documents: Sequence[Document]) -> list[Item]:
        own = self._own([(document.day, document.id, document.provenance) for document in documents])
        fresh = [document for document, found in zip(documents, own, strict=True) if found is None]
        created = iter(self.index(fresh))
        items: list[Item | None] = [None if found else next(created) for found in own]
        operations: list[bytes] = []
        positions: list[int] = []
        for position, (document, found) in enumerate(zip(documents, own, strict=True)):
            if found is None:
                continue
            try:
                operations.append(create_operation(document, {"index": found}))
                positions.append(position)
            except TypeError as error:
                items[position] = Item(Written.REFUSED, error=f"it cannot be written as JSON: {error}")
        for position, answer in zip(positions, self._connection.bulk(operations, "events"), strict=True):
            # Somebody has written it since we looked: look again.
            items[position] = Item(Written.AGAIN) if answer["status"] == 409 else self._connection.item(answer)
        return [item for item in items if item is not None]

    def provenances(self, places: Sequence[tuple[str, str]]) -> list[Provenance | None]:
        found = self._documents(places, ["ingest_stream", "ingest_number", "content_hash"])
        return [None if one is None else _provenance(one["_source"]) for one in found]

    def sources(self, places: Sequence[tuple[str, str]]) -> list[dict[str, Any] | None]:
        return [None if one is None else _event(one["_source"]) for one in self._documents(places)]

    def _documents(
        self, places: Sequence[tuple[str, str]], fields: list[str] | None = None
    ) -> list[dict[str, Any] | None]:
        """What is under each (day, id) now, with its place in the server's order of writes."""
        if not places:
            return []
        docs = [self._place(day, id) for day, id in places]
        got = self._connection.got("stored events", docs=docs, source_includes=fields)
        return [document if document.get("found") else None for document in got]

    def _place(self, day: str, id: str) -> dict[str, Any]:
        return {"_index": self._names.of_day(day), "_id": id}

    def _stored(self, documents: Sequence[Document]) -> list[Item]:
        """The provenance under ids that are taken: a bulk's answer has none."""
        found = self.provenances([(document.day, document.id) for document in documents])
        return [
            Item(Written.AGAIN, error="it was there and has been deleted since")
            if stored is None
            else Item(Written.EXISTS, stored=stored)
            for stored in found
        ]

    def delete(self, documents: Sequence[tuple[str, str, Provenance]]) -> None:
        waiting = list(documents)
        while waiting:
            own = self._own(waiting)
            waiting = [document for document, found in zip(waiting, own, strict=True) if found]
            operations = [b"%b\n" % orjson.dumps({"delete": found}) for found in own if found]
            answers = self._connection.done(operations, "events", passing=(404, 409))
            waiting = [one for one, answer in zip(waiting, answers, strict=True) if answer["status"] == 409]

    def _own(self, documents: Sequence[tuple[str, str, Provenance]]) -> list[dict[str, Any] | None]:
        """Of each document that is there and of that provenance, where a bulk finds just this version of it."""
        found = self._documents(
            [(day, id) for day, id, _ in documents], ["ingest_stream", "ingest_number", "content_hash"]
        )
        return [
            {**self._place(day, id), "if_seq_no": one["_seq_no"], "if_primary_term": one["_primary_term"]}
            if one is not None and _provenance(one["_source"]).is_of(own)
            else None
            for (day, id, own), one in zip(documents, found, strict=True)
        ]

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
        left = min(size, PAGE_MAX)
        way = "asc" if oldest_first else "desc"
        asked: dict[str, Any] = {
            **self._asked(query, time_field, from_us, to_us),
            "sort": [
                {time_field: {"order": way, "missing": _NO_TIME, "unmapped_type": "date"}},
                {"ingest_stream": {"order": way, "unmapped_type": "keyword"}},
                {"ingest_number": {"order": way, "unmapped_type": "long"}},
            ],
            "track_total_hits": False,
        }
        events: list[dict[str, Any]] = []
        last, size_bytes = after, 0
        with self._connection.problems("the search"), self._connection.searching(cancellation) as searched:
            # The server cannot bound an answer's bytes. So it is asked for few at a time, behind those that are known.
            while size:
                wanted = min(left + 1, _HITS_AT_ONCE)
                answer = searched(**asked, size=wanted, search_after=None if last is None else list(last))
                hits = answer["hits"]["hits"]
                for hit in hits:
                    _event(hit["_source"])
                    size_bytes += len(orjson.dumps(hit["_source"]))
                    if not left or (events and size_bytes > size_bytes_max):
                        return Hits(events, last)
                    events.append({"_id": hit["_id"], "_index": hit["_index"], **hit["_source"]})
                    last = tuple(hit["sort"])
                    left -= 1
                if len(hits) < wanted:
                    return Hits(events, None)
        return Hits(events, None)

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
        asked = self._asked(query, time_field, from_us, to_us)
        try:
            with (
                self._connection.problems("the count"),
                self._connection.searching(cancellation, timeout_s) as searched,
            ):
                answer = searched(**asked, size=0, track_total_hits=True)
        except LogweirError as error:
            if error.problem is not SEARCH_TOO_SLOW or timeout_s is None:
                raise
            return Count(0, is_exact=False)
        is_whole = not answer["timed_out"] and not answer["_shards"]["failed"]
        return Count(answer["hits"]["total"]["value"], is_whole)

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
        parts = {"field": time_field, "fixed_interval": f"{width_ms}ms", "min_doc_count": 1}
        # The server counts its parts from 1970.
        parts["offset"] = f"{low_ms % width_ms}ms"
        asked = self._asked(query, time_field, from_us, to_us)
        found = self._aggregated(asked, {"date_histogram": parts}, cancellation)
        counts = [0] * buckets
        for part in found:
            counts[(int(part["key"]) - low_ms) // width_ms] += part["doc_count"]
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
        asked = self._asked(query, time_field, from_us, to_us)
        name = known_field(field) if field in known.KEYWORDS else field
        terms = {"field": name, "size": size, "shard_size": 10 * size + 1000}
        found = self._aggregated(asked, {"terms": terms}, cancellation)
        return [(part["key"], part["doc_count"]) for part in found]

    def _aggregated(
        self, asked: dict[str, Any], aggregation: dict[str, Any], cancellation: Cancellation | None
    ) -> list[dict[str, Any]]:
        with self._connection.problems("the search"), self._connection.searching(cancellation) as searched:
            answer = searched(**asked, size=0, track_total_hits=False, aggs={"parts": aggregation})
        return answer["aggregations"]["parts"]["buckets"] if "aggregations" in answer else []

    def _asked(self, query: Node, time_field: str, from_us: int | None, to_us: int | None) -> dict[str, Any]:
        return {
            "index": indices(self._names, time_field, from_us, to_us),
            "query": dsl(And((time_range(time_field, from_us, to_us), expanded(query)))),
        }

    def count_numbers(self, stream: str, lowest: int, highest: int, *, days: tuple[str, str] | None = None) -> int:
        query = And((Term("ingest_stream", stream), Range("ingest_number", lowest, highest + 1)))
        from_us, to_us = (None, None) if days is None else (start_of(days[0]), start_of(days[1]) + DAY_US)
        return self.count(query, from_us=from_us, to_us=to_us).number

    def require_prepared(self) -> None:
        self._connection.require_prepared()

    def refresh(self) -> None:
        with self._connection.problems("a refresh"):
            self._connection.client.indices.refresh(
                index=[self._names.days, self._names.dead_letters], ignore_unavailable=True, allow_no_indices=True
            )

    def delete_expired(self, before_day: str) -> list[str]:
        with self._connection.problems("the deletion of expired indices"):
            expired = [day for day in self._days() if day < before_day]
            for day in expired:
                self._connection.client.options(ignore_status=404).indices.delete(index=self._names.of_day(day))
        return expired

    def _days(self) -> list[str]:
        """The days that have an index, open or closed, oldest first."""
        found = self._connection.client.indices.get_alias(
            index=self._names.days, expand_wildcards="all", allow_no_indices=True
        )
        return sorted(day for index in found.body if (day := self._names.day_of(index)))

    def check(self) -> str:
        with self._connection.problems("its health"):
            health = self._connection.client.cluster.health()
            days = len(self._days())
        return (
            f"Elasticsearch {self._connection.url}: cluster {health['cluster_name']} is {health['status']}, "
            f"{counted(health['number_of_nodes'], 'node')}, {counted(days, 'day')} of events"
        )

    def close(self) -> None:
        self._connection.close()


def create_operation(document: Document, action: dict[str, Any]) -> bytes:
    """The two lines of a bulk for one event."""
    provenance, details = document.provenance, document.source.get("details")
    source = {
        **document.source,
        "ingest_stream": provenance.stream,
        "ingest_number": provenance.number,
        "content_hash": provenance.content_hash,
        "summary_words": document.summary_words,
        "all_words": document.all_words,
        "details_paths": list(paths_of(details)),
        "known": {**known_keywords(details), **_ordered_of(document)},
    }
    return b"%b\n%b\n" % (orjson.dumps(action), orjson.dumps(source))


def _ordered_of(document: Document) -> dict[str, int | float | str]:
    values = known.ordered_values(document.source)
    return {name: known.address_text(int(value)) if name in _ADDRESSES else value for name, value in values.items()}


_ADDRESSES = frozenset(known.short(name) for name, kind in known.ORDERED.items() if kind is Kind.IP)


def _event(source: dict[str, Any]) -> dict[str, Any]:
    """A stored event as it was given to us."""
    # An index that was made before there was ``known`` keeps it with the event: what it leaves out cannot be changed.
    source.pop("known", None)
    return source


def _provenance(source: dict[str, Any]) -> Provenance:
    return Provenance(source["ingest_stream"], source["ingest_number"], source["content_hash"])
