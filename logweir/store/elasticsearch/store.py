"""Elasticsearch 8 and 9 as the store: the only file that knows its client.

It asks for nothing beyond the server's core: no data streams, ILM, ingest pipelines or scripts. Daily indices are made
by the first document of a day, from the index template that ``prepare`` puts there.
"""

from __future__ import annotations

import base64
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

import orjson
from elastic_transport import ObjectApiResponse, TransportError
from elasticsearch import ApiError, Elasticsearch

from logweir.config import StoreSettings, shown_url
from logweir.errors import CLAIM_LOST, SETTING_BAD, STORE_DOWN, STORE_REFUSES, LogweirError
from logweir.event import FIELDS, Document, Kind, Provenance, day_of
from logweir.query.times import within_years
from logweir.query.tree import (
    IGNORE_ABOVE,
    PAGE_MAX,
    All,
    And,
    Exists,
    Node,
    Not,
    Or,
    Prefix,
    Range,
    Term,
    Wildcard,
    WordPrefix,
    Words,
    time_range,
)
from logweir.store.port import EVERY_LETTER, DeadLetter, Held, Hits, Item, LedgerDocument, LetterFilter, Written

_DETAILS_DEPTH_LIMIT = 40
_TEMPLATE_PRIORITY = 500
_CONNECTIONS = 20
_DAYS_NAMED_MAX = 62
# Not "_last", which means the same: with it, Elasticsearch leaves out indices in which no event has the time, and their
# events are missing from a page whose last event has none either.
_NO_TIME = -(2**63)
_YEAR_1_MS = -62_135_596_800_000
_YEAR_10000_MS = 253_402_300_800_000
_CLAIM_TRIES_MAX = 100
_BULK_FILTER = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
_SHARDS_WAIT_S_MAX = 5.0
# A document of many emitters is megabytes large.
_LEDGER_PAGE = 100
_LETTERS_PAGE = 1000
_LETTERS_NEWEST = [{"received_us": {"order": "desc"}}, {"id": {"order": "desc"}}]
_LETTERS_OLDEST = [{"received_us": {"order": "asc"}}, {"id": {"order": "asc"}}]
_AGAIN = (429, 500, 502, 503, 504)
# What the bulk says of a document although the index or the cluster is at fault: somebody will mend it.
_NOT_THE_DOCUMENT = (
    "cluster_block_exception",
    "index_closed_exception",
    "index_not_found_exception",
    "invalid_alias_name_exception",
    "invalid_index_template_exception",
    "validation_exception",
)


@dataclass(frozen=True, slots=True)
class IndexNames:
    """What one installation's indices, alias and templates are called: all begin with ``store.index_prefix``."""

    prefix: str = ""

    @property
    def events(self) -> str:
        """The alias of all daily indices, for people and Kibana."""
        return f"{self.prefix}events"

    @property
    def days(self) -> str:
        """The pattern of all daily indices."""
        return f"{self.prefix}events-*"

    def of_day(self, day: str) -> str:
        """The daily index of the UTC day YYYYMMDD."""
        return f"{self.prefix}events-{day}"

    def day_of(self, index: str) -> str | None:
        """The day of a daily index; None for another name that fits the pattern."""
        found = re.fullmatch(r"events-(\d{8})", index.removeprefix(self.prefix))
        return found[1] if found else None

    @property
    def ledger(self) -> str:
        return f"{self.prefix}logweir-ledger"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}logweir-dead-letters"


class ElasticsearchStore:
    """See the port, ``logweir.store.Store``."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._names = IndexNames(settings.index_prefix)
        urls = _split(settings.url)
        self._url = ",".join(_address(url) for url in urls)
        self._client = _client(settings, urls)
        self._prepared = False
        self._prepare_lock = threading.Lock()

    def prepare(self) -> None:
        with self._problems("its index templates"):
            for name, body in _templates(self._settings, self._names).items():
                self._client.indices.put_index_template(name=name, **body)
        self._make_indices({self._names.ledger, self._names.dead_letters})
        self._prepared = True

    def _ensure_prepared(self) -> None:
        # An index that Elasticsearch makes before our template is there would get guessed mappings.
        with self._prepare_lock:
            if not self._prepared:
                self.prepare()

    # --- events ---------------------------------------------------------------------------------------------------
    def index(self, documents: Sequence[Document]) -> list[Item]:
        self._ensure_prepared()
        items: list[Item | None] = [None] * len(documents)
        positions: list[int] = []
        operations: list[bytes] = []
        for position, document in enumerate(documents):
            try:
                place = self._place(document.day, document.id)
                operations.append(_create_operation(document, {"create": place}))
                positions.append(position)
            except TypeError as error:
                items[position] = Item(Written.REFUSED, error=f"it cannot be written as JSON: {error}")
        answers = self._bulk(operations, "events")
        conflicts: list[int] = []
        for position, answer in zip(positions, answers, strict=True):
            if answer["status"] == 409:
                conflicts.append(position)
            items[position] = self._item(answer)
        if any("index_not_found" in item.error for item in items if item is not None):
            self._make_indices({self._names.of_day(document.day) for document in documents})
        if conflicts:
            for position, item in zip(conflicts, self._stored([documents[at] for at in conflicts]), strict=True):
                items[position] = item
        return [item for item in items if item is not None]

    def _item(self, answer: dict[str, Any]) -> Item:
        status, error = answer["status"], answer.get("error", {})
        if status < 300:
            return Item(Written.CREATED)
        reason = ": ".join(filter(None, [error.get("type"), error.get("reason")]))
        cause = error.get("caused_by", {}).get("reason")
        text = f"{reason} ({cause})" if cause else reason
        if error.get("type") == "security_exception":
            raise LogweirError(STORE_REFUSES, url=self._url, what="events", reason=text)
        if status in _AGAIN or error.get("type") in _NOT_THE_DOCUMENT:
            return Item(Written.AGAIN, error=text)
        return Item(Written.REFUSED, error=text)

    def _stored(self, documents: Sequence[Document]) -> list[Item]:
        """The provenance under ids that are taken: a bulk's answer has none."""
        found = self.provenances([(document.day, document.id) for document in documents])
        return [
            Item(Written.AGAIN, error="it was there and has been deleted since")
            if stored is None
            else Item(Written.EXISTS, stored=stored)
            for stored in found
        ]

    def provenances(self, places: Sequence[tuple[str, str]]) -> list[Provenance | None]:
        found = self._documents(places, ["ingest_stream", "ingest_number", "content_hash"])
        return [None if one is None else _provenance(one["_source"]) for one in found]

    def sources(self, places: Sequence[tuple[str, str]]) -> list[dict[str, Any] | None]:
        return [None if one is None else one["_source"] for one in self._documents(places)]

    def _documents(
        self, places: Sequence[tuple[str, str]], fields: list[str] | None = None
    ) -> list[dict[str, Any] | None]:
        """What is under each (day, id) now, with its place in the server's order of writes."""
        if not places:
            return []
        docs = [self._place(day, id) for day, id in places]
        got = self._got("stored events", docs=docs, source_includes=fields)
        return [document if document.get("found") else None for document in got]

    def _place(self, day: str, id: str) -> dict[str, Any]:
        return {"_index": self._names.of_day(day), "_id": id}

    def _got(self, what: str, **wanted: Any) -> list[dict[str, Any]]:
        """What an mget answers, for each document. Raises LogweirError(STORE_DOWN) for one that cannot be read."""
        with self._problems(what):
            documents: list[dict[str, Any]] = self._client.mget(**wanted)["docs"]
        for document in documents:
            error = document.get("error")
            if error and error["type"] != "index_not_found_exception":
                raise LogweirError(STORE_DOWN, url=self._url, reason=error["reason"])
        return documents

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
                operations.append(_create_operation(document, {"index": found}))
                positions.append(position)
            except TypeError as error:
                items[position] = Item(Written.REFUSED, error=f"it cannot be written as JSON: {error}")
        for position, answer in zip(positions, self._bulk(operations, "events"), strict=True):
            # Somebody has written it since we looked: look again.
            items[position] = Item(Written.AGAIN) if answer["status"] == 409 else self._item(answer)
        return [item for item in items if item is not None]

    def delete(self, documents: Sequence[tuple[str, str, Provenance]]) -> None:
        waiting = list(documents)
        while waiting:
            own = self._own(waiting)
            waiting = [document for document, found in zip(waiting, own, strict=True) if found]
            operations = [b"%b\n" % orjson.dumps({"delete": found}) for found in own if found]
            answers = self._done(operations, "events", passing=(404, 409))
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

    def _make_indices(self, indices: set[str]) -> None:
        """Make those that are not there: some clusters make none by themselves (action.auto_create_index)."""
        with self._problems("new indices"):
            for index in sorted(indices):
                self._client.options(ignore_status=400).indices.create(index=index)

    def _bulk(self, operations: list[bytes], what: str) -> list[dict[str, Any]]:
        """Send operations in one request; gives what became of each: status and, if any, error."""
        if not operations:
            return []
        params = {"filter_path": _BULK_FILTER, "timeout": f"{max(1, int(self._settings.timeout_s * 800))}ms"}
        headers = {"content-type": "application/x-ndjson", "accept": "application/json"}
        try:
            with self._problems(what, passing=_is_too_large):
                body = self._client.perform_request(
                    "POST", "/_bulk", params=params, headers=headers, body=b"".join(operations)
                ).body
        except ApiError as error:
            if len(operations) == 1:
                return [{"status": 413, "error": {"type": "too_large", "reason": str(error)}}]
            half = len(operations) // 2
            return self._bulk(operations[:half], what) + self._bulk(operations[half:], what)
        return [next(iter(item.values())) for item in body["items"]]

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
        size = min(size, PAGE_MAX)
        with self._problems("the search"):
            answer = self._searched(
                index=_indices(self._names, time_field, from_us, to_us),
                query=_dsl(And((bounds, query))),
                size=size + 1 if size else 0,
                sort=[
                    {time_field: {"order": "desc", "missing": _NO_TIME, "unmapped_type": "date"}},
                    {"ingest_stream": {"order": "desc", "unmapped_type": "keyword"}},
                    {"ingest_number": {"order": "desc", "unmapped_type": "long"}},
                ],
                search_after=list(after) if after is not None and size else None,
                track_total_hits=True,
            )
        hits = answer["hits"]["hits"]
        events = [{"_id": hit["_id"], "_index": hit["_index"], **hit["_source"]} for hit in hits[:size]]
        more = tuple(hits[size - 1]["sort"]) if size and len(hits) > size else None
        return Hits(answer["hits"]["total"]["value"], events, more)

    def _searched(self, **parameters: Any) -> ObjectApiResponse[Any]:
        """The whole answer; waits a little for shards that are not there yet, as those of an index just made."""
        deadline_s = time.monotonic() + _SHARDS_WAIT_S_MAX
        while True:
            try:
                return self._client.search(
                    **parameters, allow_partial_search_results=False, ignore_unavailable=True, allow_no_indices=True
                )
            except ApiError as error:
                if error.status_code != 503 or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    def refresh(self) -> None:
        with self._problems("a refresh"):
            self._client.indices.refresh(
                index=[self._names.days, self._names.dead_letters], ignore_unavailable=True, allow_no_indices=True
            )

    def delete_expired(self, before_day: str) -> list[str]:
        with self._problems("the deletion of expired indices"):
            expired = [day for day in self._days() if day < before_day]
            for day in expired:
                self._client.options(ignore_status=404).indices.delete(index=self._names.of_day(day))
        return expired

    def _days(self) -> list[str]:
        """The days that have an index, open or closed, oldest first."""
        found = self._client.indices.get_alias(index=self._names.days, expand_wildcards="all", allow_no_indices=True)
        return sorted(day for index in found.body if (day := self._names.day_of(index)))

    # --- ledger ---------------------------------------------------------------------------------------------------
    # A ledger document's version in Elasticsearch is its generation, given by us ("external"): the server itself
    # refuses whatever comes with an older one, in the same step in which it writes.
    def claim(self, id: str, owner: str) -> LedgerDocument:
        self._ensure_prepared()
        for _ in range(_CLAIM_TRIES_MAX):
            with self._problems("the ledger"):
                found = self._client.options(ignore_status=404).get(index=self._names.ledger, id=id)
            known = found["_source"]["body"] if found.get("found") else {"owner": owner}
            # Only over what was read: between the two, the owner before us may have written. The server counts the
            # version up, also over one that was given by us.
            unchanged = (
                {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
                if found.get("found")
                else {"op_type": "create"}
            )
            with self._problems("the ledger"):
                written = self._client.options(ignore_status=409).index(
                    index=self._names.ledger, id=id, document={"id": id, "body": {**known, "owner": owner}}, **unchanged
                )
            if "_version" in written:
                return LedgerDocument(id, written["_version"], known)
        raise LogweirError(STORE_DOWN, url=self._url, reason=f"{_CLAIM_TRIES_MAX} other writes of {id} came in between")

    def read_ledger(self, ids: Collection[str]) -> dict[str, LedgerDocument]:
        if not ids:
            return {}
        return {
            document["_id"]: LedgerDocument(document["_id"], document["_version"], document["_source"]["body"])
            for document in self._got("the ledger", index=self._names.ledger, ids=list(ids))
            if document.get("found")
        }

    def scan_ledger(self, prefix: str) -> Iterator[LedgerDocument]:
        with self._problems("the ledger"):
            self._client.indices.refresh(index=self._names.ledger, ignore_unavailable=True, allow_no_indices=True)
        after: list[Any] | None = None
        while True:
            with self._problems("the ledger"):
                answer = self._searched(
                    index=self._names.ledger,
                    query={"prefix": {"id": prefix}},
                    sort=["id"],
                    search_after=after,
                    version=True,
                    size=_LEDGER_PAGE,
                    track_total_hits=False,
                )
            hits = answer["hits"]["hits"]
            for hit in hits:
                yield LedgerDocument(hit["_id"], hit["_version"], hit["_source"]["body"])
            if len(hits) < _LEDGER_PAGE:
                return
            after = hits[-1]["sort"]

    def write_ledger(self, documents: Sequence[LedgerDocument]) -> None:
        self._ensure_prepared()
        # Two bulks: the server judges each document of a bulk alone, and would write the last one without the others.
        for together in (documents[:-1], documents[-1:]):
            self._write_ledger(together)

    def _write_ledger(self, documents: Sequence[LedgerDocument]) -> None:
        operations = [self._ledger_operation(document) for document in documents]
        for document, answer in zip(documents, self._bulk(operations, "the ledger"), strict=True):
            if answer["status"] == 409:
                stored = self.read_ledger([document.id])[document.id]
                raise LogweirError(
                    CLAIM_LOST,
                    partition=document.body.get("partition", document.id),
                    generation=stored.generation,
                    owner=stored.body.get("owner", "another worker"),
                    generation_own=document.generation,
                )
            if answer["status"] >= 300:
                raise self._unwritten(answer, "the ledger")

    def delete_ledger(self, documents: Sequence[LedgerDocument]) -> None:
        self._ensure_prepared()
        self._done([self._ledger_deletion(document) for document in documents], "the ledger", passing=(404, 409))

    def _ledger_operation(self, document: LedgerDocument) -> bytes:
        action = {"index": self._ledger_place(document)}
        return b"%b\n%b\n" % (orjson.dumps(action), orjson.dumps({"id": document.id, "body": document.body}))

    def _ledger_deletion(self, document: LedgerDocument) -> bytes:
        return b"%b\n" % orjson.dumps({"delete": self._ledger_place(document)})

    def _ledger_place(self, document: LedgerDocument) -> dict[str, Any]:
        """Where it stands, unless somebody has written it under a later generation."""
        place = {"_index": self._names.ledger, "_id": document.id}
        return {**place, "version": document.generation, "version_type": "external_gte"}

    # --- dead letters ---------------------------------------------------------------------------------------------
    def put_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        self._ensure_prepared()
        self._done(
            [_dead_letter_operation(letter, self._names.dead_letters) for letter in letters],
            "dead letters",
            passing=(409,),
        )

    def dead_letters(
        self, *, size: int, wanted: LetterFilter = EVERY_LETTER, behind: DeadLetter | None = None
    ) -> list[DeadLetter]:
        hits = self._letters(
            wanted,
            size=min(size, PAGE_MAX),
            sort=_LETTERS_NEWEST,
            search_after=None if behind is None else [behind.received_us, behind.id],
        )["hits"]["hits"]
        return [_dead_letter(hit["_source"]) for hit in hits]

    def count_dead_letters(self, wanted: LetterFilter = EVERY_LETTER) -> dict[str, Held]:
        answer = self._letters(
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

    def delete_dead_letters(self, wanted: LetterFilter, *, letters_max: int | None = None) -> dict[str, int]:
        counts: dict[str, int] = {}
        while True:
            left = _LETTERS_PAGE if letters_max is None else min(_LETTERS_PAGE, letters_max - sum(counts.values()))
            hits = self._letters(wanted, size=left, sort=_LETTERS_OLDEST, source=["reason"])["hits"]["hits"]
            if not hits:
                return counts
            for hit in self._deleted_letters(hits):
                reason = hit["_source"]["reason"]
                counts[reason] = counts.get(reason, 0) + 1

    def trim_dead_letters(self, reason: str, *, letters_max: int, size_bytes_max: int) -> int:
        wanted = LetterFilter(reasons=(reason,))
        deleted = 0
        while held := self.count_dead_letters(wanted).get(reason):
            letters, size_bytes = held
            hits = self._letters(wanted, size=_LETTERS_PAGE, sort=_LETTERS_OLDEST, source=["size_bytes"])["hits"][
                "hits"
            ]
            surplus = []
            while hits and (letters > letters_max or size_bytes > size_bytes_max):
                surplus.append(hits.pop(0))
                letters, size_bytes = letters - 1, size_bytes - surplus[-1]["_source"]["size_bytes"]
            if not surplus:
                break
            deleted += len(self._deleted_letters(surplus))
        return deleted

    def _letters(self, wanted: LetterFilter, **parameters: Any) -> ObjectApiResponse[Any]:
        """A search over the dead letters as they are now."""
        with self._problems("dead letters"):
            self._client.indices.refresh(index=self._names.dead_letters, ignore_unavailable=True)
            return self._searched(index=self._names.dead_letters, query=_letters_query(wanted), **parameters)

    def _deleted_letters(self, hits: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Delete what a search has found; gives those that were still there."""
        operations = [b"%b\n" % orjson.dumps({"delete": {"_index": hit["_index"], "_id": hit["_id"]}}) for hit in hits]
        answers = self._done(operations, "dead letters", passing=(404,))
        return [hit for hit, answer in zip(hits, answers, strict=True) if answer["status"] != 404]

    # --- the rest -------------------------------------------------------------------------------------------------
    def check(self) -> str:
        with self._problems("its health"):
            health = self._client.cluster.health()
            days = len(self._days())
        return (
            f"Elasticsearch {self._url}: cluster {health['cluster_name']} is {health['status']}, "
            f"{health['number_of_nodes']} nodes, {days} days of events"
        )

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _problems(self, what: str, passing: Callable[[ApiError], bool] | None = None) -> Iterator[None]:
        """STORE_DOWN when nobody answers or the server is overloaded, STORE_REFUSES when it will not do ``what``.

        An error for which ``passing`` is true is left to the caller.
        """
        try:
            yield
        except TransportError as error:
            raise LogweirError(STORE_DOWN, url=self._url, reason=_reason(error)) from error
        except ApiError as error:
            if passing is not None and passing(error):
                raise
            if error.status_code in _AGAIN:
                raise LogweirError(STORE_DOWN, url=self._url, reason=_api_reason(error)) from error
            raise LogweirError(STORE_REFUSES, url=self._url, what=what, reason=_api_reason(error)) from error

    def _done(self, operations: list[bytes], what: str, *, passing: tuple[int, ...]) -> list[dict[str, Any]]:
        """A bulk's answers, all of them successes or of a status that passes. Raises LogweirError as ``_unwritten``."""
        answers = self._bulk(operations, what)
        for answer in answers:
            if answer["status"] >= 300 and answer["status"] not in passing:
                raise self._unwritten(answer, what)
        return answers

    def _unwritten(self, answer: dict[str, Any], what: str) -> LogweirError:
        item = self._item(answer)
        if item.written is Written.AGAIN:
            return LogweirError(STORE_DOWN, url=self._url, reason=item.error)
        return LogweirError(STORE_REFUSES, url=self._url, what=what, reason=item.error)


# --- connection ---------------------------------------------------------------------------------------------------
def _client(settings: StoreSettings, urls: list[SplitResult]) -> Elasticsearch:
    # What it logs (retries, dead nodes), our own errors say.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    secure = any(url.scheme == "https" for url in urls)
    options: dict[str, Any] = {"ssl_context": _ssl_context(settings)} if secure else {}
    username = settings.username or unquote(urls[0].username or "")
    if settings.api_key.get_secret_value():
        options["api_key"] = settings.api_key.get_secret_value()
    elif username:
        password = settings.password.get_secret_value() or unquote(urls[0].password or "")
        options["basic_auth"] = (username, password)
    return Elasticsearch(
        [_address(url) for url in urls],
        request_timeout=settings.timeout_s,
        connections_per_node=_CONNECTIONS,
        max_retries=len(urls),
        retry_on_status=(),
        retry_on_timeout=False,
        **options,
    )


def _ssl_context(settings: StoreSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    except OSError as error:  # ssl.SSLError is one too
        raise LogweirError(
            SETTING_BAD,
            where="The configuration",
            name="store.ca_file",
            value=settings.ca_file,
            reason=f"the certificates cannot be read ({error})",
        ) from error


def _split(text: str) -> list[SplitResult]:
    """The URLs of ``store.url``. Raises LogweirError(SETTING_BAD)."""
    try:
        urls = [urlsplit(url.strip()) for url in text.split(",")]
        good = all(url.hostname and url.port != 0 and url.scheme in ("http", "https") for url in urls)
    except ValueError:  # such as a port that is no number
        good = False
    if not good:
        raise LogweirError(
            SETTING_BAD,
            where="The configuration",
            name="store.url",
            value=shown_url(text),
            reason="each part must read http[s]://host:port, with user and password percent-encoded if they are in it",
        )
    return urls


def _address(url: SplitResult) -> str:
    """The URL without credentials, with its port."""
    host = url.hostname or ""
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{url.port or 9200}{url.path.rstrip('/')}"


def _reason(error: TransportError) -> str:
    """The innermost cause in few words: "connection refused" rather than the layers around it."""
    text = str(error.errors[-1] if error.errors else error.message)
    found = re.search(r"(\[Errno [^]]*\] [^')]+|certificate verify failed[^)(]*|timed out)", text)
    return found[1].strip() if found else text


def _is_too_large(error: ApiError) -> bool:
    """Whether the request is beyond what the server will ever take: by HTTP, or by its memory for requests."""
    if error.status_code == 413:
        return True
    sizes = re.search(r"coordinating_operation_bytes=(\d+), max_coordinating_bytes=(\d+)", str(error.body))
    return error.status_code == 429 and sizes is not None and int(sizes[1]) > int(sizes[2])


def _api_reason(error: ApiError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    detail = body.get("error")
    causes = [*detail.get("root_cause", []), detail] if isinstance(detail, dict) else [{}]
    reason = causes[0].get("reason")
    return f"{error.status_code} {reason or error.message}"


# --- what is stored -----------------------------------------------------------------------------------------------
_FIELD_MAPPINGS: dict[Kind, dict[str, Any]] = {
    # The longest value that ignore_above lets through is 24,000 bytes of UTF-8; Lucene refuses terms above 32,766.
    Kind.KEYWORD: {"type": "keyword", "normalizer": "lowercase", "ignore_above": IGNORE_ABOVE},
    # For Kibana; our own searches look at summary_words.
    Kind.TEXT: {"type": "text", "norms": False},
    # A time that Elasticsearch cannot read (year 10000) stays in the event and is not searchable.
    Kind.DATE: {"type": "date", "format": "strict_date_optional_time", "ignore_malformed": True},
    Kind.NUMBER: {"type": "long"},
    Kind.FLATTENED: {"type": "flattened", "depth_limit": _DETAILS_DEPTH_LIMIT, "ignore_above": IGNORE_ABOVE},
}
_WORDS_MAPPING = {"type": "text", "analyzer": "whitespace", "norms": False}
_OWN_MAPPINGS = {
    "ingest_stream": {"type": "keyword"},
    "content_hash": {"type": "keyword", "index": False, "doc_values": True},
    "summary_words": _WORDS_MAPPING,
    "all_words": _WORDS_MAPPING,
}


def _templates(settings: StoreSettings, names: IndexNames) -> dict[str, dict[str, Any]]:
    """The index templates by name."""
    common = {
        "number_of_replicas": settings.replicas,
        "refresh_interval": f"{int(settings.refresh_interval_s * 1000)}ms",
    }
    events = {
        **common,
        "number_of_shards": settings.shards,
        "max_result_window": PAGE_MAX + 1,
        "query.default_field": ["all_words"],
    }
    fields = {field.name: _FIELD_MAPPINGS[field.kind] for field in FIELDS}
    aliases = {field.ecs: {"type": "alias", "path": field.name} for field in FIELDS if field.ecs}
    mappings = {
        "dynamic": False,
        "date_detection": False,
        "_source": {"excludes": ["summary_words", "all_words"]},
        "properties": {**fields, **_OWN_MAPPINGS, **aliases},
    }
    letters = {
        "id": {"type": "keyword"},
        "received_us": {"type": "long"},
        "reason": {"type": "keyword"},
        "stage": {"type": "keyword"},
        "key": {"type": "keyword"},
        "emitter": {"type": "keyword"},
        "size_bytes": {"type": "long"},
        "body": {"type": "object", "enabled": False},
        "raw": {"type": "binary"},
    }
    ledger = {"id": {"type": "keyword"}, "body": {"type": "object", "enabled": False}}
    return {
        f"{names.prefix}logweir-events": _template(names.days, events, mappings, aliases={names.events: {}}),
        names.ledger: _template(names.ledger, common, {"dynamic": False, "properties": ledger}),
        names.dead_letters: _template(names.dead_letters, common, {"dynamic": False, "properties": letters}),
    }


def _template(
    pattern: str, settings: dict[str, Any], mappings: dict[str, Any], aliases: dict[str, Any] | None = None
) -> dict[str, Any]:
    template = {"settings": {"index": settings}, "mappings": mappings, "aliases": aliases or {}}
    return {"index_patterns": [pattern], "priority": _TEMPLATE_PRIORITY, "template": template}


def _create_operation(document: Document, action: dict[str, Any]) -> bytes:
    provenance = document.provenance
    source = {
        **document.source,
        "ingest_stream": provenance.stream,
        "ingest_number": provenance.number,
        "content_hash": provenance.content_hash,
        "summary_words": document.summary_words,
        "all_words": document.all_words,
    }
    return b"%b\n%b\n" % (orjson.dumps(action), orjson.dumps(source))


def _provenance(source: dict[str, Any]) -> Provenance:
    return Provenance(source["ingest_stream"], source["ingest_number"], source["content_hash"])


def _dead_letter_operation(letter: DeadLetter, index: str) -> bytes:
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


def _dead_letter(source: dict[str, Any]) -> DeadLetter:
    raw = base64.b64decode(source["raw"])
    return DeadLetter(source["id"], source["received_us"], source["reason"], source["body"], raw)


def _letters_query(wanted: LetterFilter) -> dict[str, Any]:
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


# --- queries ------------------------------------------------------------------------------------------------------
def _indices(names: IndexNames, time_field: str, from_us: int | None, to_us: int | None) -> str:
    """The daily indices that can have hits, by name when they are few."""
    if time_field != "receivedtimestamp" or from_us is None or to_us is None:
        return names.days
    first, last = day_of(within_years(from_us)), day_of(within_years(to_us))
    days = [first]
    while days[-1] < last and len(days) <= _DAYS_NAMED_MAX:
        days.append(_next_day(days[-1]))
    return names.days if days[-1] < last else ",".join(map(names.of_day, days))


def _next_day(day: str) -> str:
    return (datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)).strftime("%Y%m%d")


def _dsl(query: Node) -> dict[str, Any]:
    return cast("Callable[[Node], dict[str, Any]]", _DSL[type(query)])(query)


def _words_field(query: Words | WordPrefix) -> str:
    return "summary_words" if query.summary_only else "all_words"


def _range(query: Range) -> dict[str, Any]:
    bounds: dict[str, Any] = {"gte": query.low, "lt": query.high}
    if query.field != "ingest_number":
        # strict_date_optional_time knows the years 1 to 9999, and no event has another one.
        if query.low is not None and query.low >= _YEAR_10000_MS:
            return {"match_none": {}}
        bounds["lt"] = None if query.high is None or query.high >= _YEAR_10000_MS else _iso(query.high)
        bounds["gte"] = None if query.low is None else _iso(query.low)
    given = {name: value for name, value in bounds.items() if value is not None}
    return {"range": {query.field: given}} if given else {"exists": {"field": query.field}}


def _iso(milliseconds: int) -> str:
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=max(milliseconds, _YEAR_1_MS))
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_DSL: dict[type, Callable[[Any], dict[str, Any]]] = {
    All: lambda _: {"match_all": {}},
    And: lambda query: {"bool": {"filter": [_dsl(node) for node in query.nodes]}},
    Or: lambda query: {"bool": {"should": [_dsl(node) for node in query.nodes], "minimum_should_match": 1}},
    Not: lambda query: {"bool": {"must_not": [_dsl(query.node)]}},
    Words: lambda query: {"match_phrase": {_words_field(query): " ".join(query.words)}},
    WordPrefix: lambda query: {"prefix": {_words_field(query): query.prefix}},
    Term: lambda query: {"term": {query.field: query.value}},
    Prefix: lambda query: {"prefix": {query.field: query.value}},
    Wildcard: lambda query: {"wildcard": {query.field: query.pattern}},
    Exists: lambda query: {"exists": {"field": query.field}},
    Range: _range,
}
