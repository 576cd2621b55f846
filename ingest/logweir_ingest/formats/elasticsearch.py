"""Elasticsearch's ``_bulk`` and ``_doc``: what Beats, Logstash, Vector, Fluent Bit, rsyslog and its own clients send.

A body is lines: an action, then its document. All that stands between two actions is one document.

| action                       | what happens, and what its item in the answer says                                   |
|------------------------------|--------------------------------------------------------------------------------------|
| create or index, an object   | an event, its bytes unchanged; 201                                                   |
| ... with an ``_id``          | it is known by that: what comes again under it is a duplicate                        |
| ..., no object               | an event all the same, of which a worker makes a dead letter; 201, and               |
|                              | ``"failure_store":"used"``, which Elasticsearch says of what it could not index      |
| ..., too large or too deep   | left out; 400                                                                        |
| ..., nothing                 | left out; 400                                                                        |
| update, delete               | left out; 400: events are not changed                                                |
| another line, where an       | refused, all of it (`bulk_action_bad`). Behind a document that is no object it is    |
| action should be             | the next line of that: a line feed that was not escaped                              |

A 400 is what senders drop. "Later" is said of the whole request (429, 503): not all of them hear it of an item.
Several look at the answer as at a text, for ``"errors":true`` or ``"errors":false,"items":[``: there is no white space
in it, and nothing between these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from logweir import event
from logweir.errors import (
    BODY_EMPTY,
    BULK_ACTION_BAD,
    BULK_ACTION_UNKNOWN,
    DEPTH_EXCEEDED,
    DOCUMENT_MISSING,
    EVENT_TOO_LARGE,
    EVENTS_TOO_MANY,
    JSON_BAD,
    LogweirError,
)
from logweir_ingest.access.auth import secret_in
from logweir_ingest.formats.json import JsonFormat
from logweir_ingest.formats.port import Accepted, Format, Parsed, Route, problem_headers
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Reply, Request

VERSION = "8.19.0"
"""What we say to be: below 7.14 Logstash does not start, and below its own version Filebeat may not."""

_HEADERS = (
    (b"content-type", b"application/json"),
    # The official clients and Logstash send nothing to a server that does not say this.
    (b"x-elastic-product", b"Elasticsearch"),
)
_CHALLENGE = ((b"www-authenticate", b'Basic realm="logweir", ApiKey, Bearer'),)
_INDEX = "logweir"
"""What items say of an action that names no index, nor its path."""
_API_KEY = b"apikey "
_HELD = (401, 403, 429, 500, 503)
"""Of a refusal that may end: by time, or by an operator."""


def _reply(status: int, body: Any, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    return Reply(status, (*_HEADERS, *headers), json.dumps(body, separators=(",", ":")).encode())


# --- what senders ask first -----------------------------------------------------------------------------------------
def _says(answer: Any, status: int = 200) -> Callable[[Request], Reply]:
    reply = _reply(status, answer)
    return lambda _: reply


def _set_up(path: str) -> tuple[Route, Route]:
    """What senders want to set up: there is none, and theirs is acknowledged; fields are a matter of the workers."""
    cause = {"type": "resource_not_found_exception", "reason": "there is none"}
    none = {"error": {"root_cause": [cause], **cause}, "status": 404}
    return Route(path, "GET", _says(none, 404)), Route(path, "PUT", _says({"acknowledged": True}))


_GREETING = {
    "name": "logweir",
    "cluster_name": "logweir",
    "cluster_uuid": "logweir",
    "version": {
        "number": VERSION,
        "distribution": "elasticsearch",
        "build_flavor": "default",
        "build_type": "tar",
        "build_snapshot": False,
        "minimum_wire_compatibility_version": "7.17.0",
        "minimum_index_compatibility_version": "7.0.0",
    },
    "tagline": "You Know, for Search",
}
_LICENSE = {
    "license": {
        "uid": "logweir",
        "type": "basic",
        "mode": "basic",
        "status": "active",
        "expiry_date_in_millis": 4_000_000_000_000,
    }
}
_HEALTH = {"cluster_name": "logweir", "status": "green", "timed_out": False, "number_of_nodes": 1}


# --- the format -----------------------------------------------------------------------------------------------------
class ElasticsearchFormat(Format):
    """Answers as Elasticsearch does, as far as senders of logs ask."""

    name = "elasticsearch"
    routes = (
        *(Route(path, method) for path in ("/_bulk", "/<index>/_bulk") for method in ("POST", "PUT")),
        Route("/<index>/_doc"),
        *(Route(f"/<index>/{kind}/<id>", method) for kind in ("_doc", "_create") for method in ("POST", "PUT")),
        Route("/", "GET", _says(_GREETING)),
        Route("/_license", "GET", _says(_LICENSE)),
        Route("/_cat/health", "GET", _says([_HEALTH])),
        Route("/_cluster/health", "GET", _says(_HEALTH)),
        Route("/_nodes/http", "GET", _says({"cluster_name": "logweir", "nodes": {}})),
        *_set_up("/_ilm/policy/<name>"),
        *_set_up("/_index_template/<name>"),
        *_set_up("/_component_template/<name>"),
        *_set_up("/_template/<name>"),
        *_set_up("/_data_stream/<name>"),
        *_set_up("/_ingest/pipeline/<name>"),
    )

    def key_of(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        """The secret of an ApiKey, which is base64 of id:secret; or what stands there, where it is a key as it is."""
        authorization = headers.get(b"authorization", b"")
        if authorization[: len(_API_KEY)].lower() != _API_KEY:
            return None
        return secret_in(authorization, _API_KEY) or authorization[len(_API_KEY) :].strip()

    def split(self, request: Request, body: bytes, limits: Limits) -> Parsed:
        """The events of a bulk, or the one of ``_doc``.

        Raises LogweirError: BODY_EMPTY, BULK_ACTION_BAD, EVENTS_TOO_MANY; for a single document as JsonFormat does.
        """
        if not _is_bulk(request):
            return _single(request, body, limits)
        return _Bulk(body, request.path.removesuffix("_bulk").strip("/") or _INDEX, limits).read()

    def split_fast(self, request: Request, body: bytes, limits: Limits) -> Parsed | None:
        try:
            return self.split(request, body, limits)
        except LogweirError:
            return None

    def accepted(self, request: Request, accepted: Accepted) -> Reply:
        """200 with an item for each action; 201 for a single document."""
        ids = event.identity_prefix_bare(accepted.id)
        items: list[_Item] = accepted.about
        if not _is_bulk(request):
            item = items[0]
            return _reply(201, {"_index": item.index, "_id": item.id or f"{ids}0", **_CREATED, **_WRITTEN})
        return Reply(200, _HEADERS, _bulk_answer(items, ids, _Filter.of(request.query)))

    def hears_no_refusal(self, headers: Mapping[bytes, bytes]) -> bool:
        # omelasticsearch of rsyslog 8.2302 looks at no status: what is answered without items it drops, and sends again
        # what has no answer. It is the one sender that does not say its name.
        return b"user-agent" not in headers

    def refused(self, request: Request, error: LogweirError) -> Reply:
        """The door's status, which these senders understand, with the words where they look for them."""
        status = error.problem.status
        cause = {"type": error.problem.code, "reason": str(error)}
        headers = _CHALLENGE if status == 401 else problem_headers(error)
        reply = _reply(status, {"error": {"root_cause": [cause], **cause}, "status": status}, headers)
        is_cut = status in _HELD and self.hears_no_refusal(request.headers)
        return msgspec.structs.replace(reply, is_cut=True) if is_cut else reply


# --- what a body holds ----------------------------------------------------------------------------------------------
class _Meta(msgspec.Struct):
    index: str | None = msgspec.field(default=None, name="_index")
    id: str | int | None = msgspec.field(default=None, name="_id")


class _Action(msgspec.Struct):
    """One line: exactly one of them is there."""

    create: _Meta | None = None
    index: _Meta | None = None
    update: _Meta | None = None
    delete: _Meta | None = None


class _Item(msgspec.Struct):
    """What the answer says of one action."""

    action: str
    index: str
    id: str | None
    is_kept: bool = False
    error: LogweirError | None = None


_ACTIONS = ("create", "index", "update", "delete")
_LIMITS = (EVENT_TOO_LARGE, DEPTH_EXCEEDED)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_NOT_SPACE = re.compile(rb"[^ \t\r\n]")
_actions = msgspec.json.Decoder(_Action)
_value = msgspec.json.Decoder(msgspec.Raw)
_json = JsonFormat()
_NO_REQUEST = Request("POST", "/", {}, "")


def _is_bulk(request: Request) -> bool:
    return request.path.endswith("/_bulk")


def _single(request: Request, body: bytes, limits: Limits) -> Parsed:
    """The one event of ``/<index>/_doc`` and ``/<index>/_create/<id>``, which is refused when it cannot be read."""
    _, index, kind, *ids = request.path.split("/")
    events = _json.split(request, body, limits).events
    if len(events) > 1:
        raise LogweirError(EVENTS_TOO_MANY, events_max=1)
    item = _Item("create" if kind == "_create" else "index", index, ids[0] if ids else None)
    return Parsed(events, about=[item], names=_names([item]))


def _names(items: list[_Item]) -> list[str | None] | None:
    """What the events of these items are known by, if one of them is: two indices may have the same ``_id``."""
    if all(item.id is None for item in items):
        return None
    return [None if item.id is None else f"{len(item.index)} {item.index} {item.id}" for item in items]


class _Bulk:
    """Reads the body of one bulk."""

    def __init__(self, body: bytes, index: str, limits: Limits) -> None:
        self._body = body
        self._index = index
        self._limits = limits
        self._lines = 0
        self._items: list[_Item] = []
        self._taken: list[_Item] = []
        self._events: list[bytes] = []
        self._left_out: list[tuple[LogweirError, bytes]] = []

    def read(self) -> Parsed:
        body = self._body
        start = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
        start = self._next(start)
        if start == len(body):
            raise LogweirError(BODY_EMPTY)
        while start < len(body):
            end = self._end(start)
            item = self._action(start, end)
            if item is None:
                raise LogweirError(BULK_ACTION_BAD, event_index=len(self._items), byte_offset=start)
            self._items.append(item)
            start = self._next(end) if item.action == "delete" else self._document(item, end)
            if item.action in ("delete", "update"):
                self._leave_out(item, LogweirError(BULK_ACTION_UNKNOWN, action=item.action), b"")
        kept = sum(item.is_kept for item in self._taken)
        return Parsed(
            self._events, about=self._items, names=_names(self._taken), left_out=tuple(self._left_out), kept=kept
        )

    def _document(self, item: _Item, start: int) -> int:
        """Take what follows an action whose line ends at ``start``; returns where the next action begins."""
        body, index = self._body, len(self._items) - 1
        start = min(start + 1, len(body))
        end = self._end(start)
        text = body[start:end].strip(_SPACE)
        following = self._next(end)
        if item.action == "update":
            return following
        if not text:
            self._leave_out(item, LogweirError(DOCUMENT_MISSING, event_index=index), b"")
            return following
        error = self._fault(text, start, index)
        if error is not None:
            end = self._last_line(end)
            following = self._next(end)
            if len(text) != len(whole := body[start:end].strip(_SPACE)):
                text, error = whole, self._fault(whole, start, index)
        if error is not None and error.problem in _LIMITS:
            self._leave_out(item, error, text)
        else:
            item.is_kept = error is not None
            self._events.append(text)
            self._taken.append(item)
        return following

    def _last_line(self, end: int) -> int:
        """Where a document ends whose first line, up to ``end``, is none: before the next action."""
        body = self._body
        while (start := self._next(end)) < len(body):
            following = self._end(start)
            if self._action(start, following) is not None:
                break
            end = following
        return end

    def _fault(self, text: bytes, start: int, index: int) -> LogweirError | None:
        """Why it is no event, or one that is left out; None when it is one."""
        limits = self._limits
        if len(text) > limits.event_size_bytes_max:
            size_bytes_max = limits.event_size_bytes_max
            return LogweirError(EVENT_TOO_LARGE, event_index=index, byte_offset=start, size_bytes_max=size_bytes_max)
        if text[:1] != b"{":
            return LogweirError(JSON_BAD, event_index=index, byte_offset=start, reason="no object begins here")
        if text.isascii() and text.count(b"{") + text.count(b"[") <= limits.depth_max:
            try:
                _value.decode(text)
            except (msgspec.DecodeError, RecursionError):
                pass
            else:
                return None
        try:
            events = _json.split(_NO_REQUEST, text, limits).events
        except LogweirError as error:
            offset = start + error.numbers.get("byte_offset", 0)
            return LogweirError(error.problem, **{**error.numbers, "event_index": index, "byte_offset": offset})
        if len(events) == 1:
            return None
        reason = "something follows the end of the event"
        return LogweirError(JSON_BAD, event_index=index, byte_offset=start + len(events[0]), reason=reason)

    def _leave_out(self, item: _Item, error: LogweirError, text: bytes) -> None:
        item.error = error
        if text:
            self._left_out.append((error, text))

    def _action(self, start: int, end: int) -> _Item | None:
        """The action of the line, None when it is none."""
        body = self._body
        if body[start : start + 1] != b"{":
            return None
        try:
            action = _actions.decode(body[start:end])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        named = [name for name in _ACTIONS if getattr(action, name) is not None]
        if len(named) != 1:
            return None
        if len(self._items) == self._limits.events_per_request_max:
            raise LogweirError(EVENTS_TOO_MANY, events_max=self._limits.events_per_request_max)
        meta: _Meta = getattr(action, named[0])
        return _Item(named[0], meta.index or self._index, str(meta.id) if meta.id not in (None, "") else None)

    def _next(self, start: int) -> int:
        """Where something stands again, white space and empty lines left out; the body's end when nothing does."""
        found = _NOT_SPACE.search(self._body, start)
        return len(self._body) if found is None else found.start()

    def _end(self, start: int) -> int:
        """Where the line ends; raises LogweirError(EVENTS_TOO_MANY) behind more lines than any bulk has."""
        self._lines += 1
        # Two lines for each; and as many again, in documents that line feeds cut.
        if self._lines > 4 * self._limits.events_per_request_max + 4:
            raise LogweirError(EVENTS_TOO_MANY, events_max=self._limits.events_per_request_max)
        end = self._body.find(b"\n", start)
        return len(self._body) if end < 0 else end


# --- what is answered -----------------------------------------------------------------------------------------------
def _bulk_answer(items: list[_Item], ids: str, shows: _Filter) -> bytes:
    """``took``, ``errors``, ``items``, as far as a ``filter_path`` has them."""
    answer: dict[str, Any] = {}
    if shows("took"):
        answer["took"] = 0
    if shows("errors"):
        answer["errors"] = any(item.error is not None for item in items)
    shown = {action: [field for field in _FIELDS if shows("items", action, field)] for action in _ACTIONS}
    said: list[dict[str, Any]] = []
    events = 0
    for item in items:
        fields = _fields(item, f"{ids}{events}")
        events += item.error is None
        if filtered := {field: fields[field] for field in shown[item.action] if field in fields}:
            said.append({item.action: filtered})
    if said:
        answer["items"] = said
    return msgspec.json.encode(answer)


_CREATED = {"_version": 1, "result": "created"}
_WRITTEN = {"_shards": {"total": 1, "successful": 1, "failed": 0}, "_seq_no": 0, "_primary_term": 1}
_FIELDS = ("_index", "_id", "_version", "result", "failure_store", "status", "error")
_STATUS = 400


def _fields(item: _Item, id: str) -> dict[str, Any]:
    if item.error is not None:
        error = {"type": item.error.problem.code, "reason": str(item.error)}
        return {"_index": item.index, "_id": item.id, "status": _STATUS, "error": error}
    fields = {"_index": item.index, "_id": item.id or id, **_CREATED, "status": 201}
    return {**fields, "failure_store": "used"} if item.is_kept else fields


class _Filter:
    """``?filter_path=errors,items.*.status``: which fields an answer has. ``*`` is any name, ``**`` any names."""

    _PATTERNS_MAX = 100

    def __init__(self, patterns: list[str]) -> None:
        named = [pattern for pattern in patterns[: self._PATTERNS_MAX] if pattern]
        self._wanted = [pattern.split(".") for pattern in named if not pattern.startswith("-")]
        self._unwanted = [pattern[1:].split(".") for pattern in named if pattern.startswith("-")]

    @classmethod
    def of(cls, query: bytes) -> _Filter:
        sent = parse_qs(query.decode("latin-1")).get("filter_path", ())
        return cls([pattern.strip() for value in sent for pattern in value.split(",")])

    def __call__(self, *path: str) -> bool:
        """Whether the answer has what lies there, or something of it."""
        is_wanted = not self._wanted or any(_agree(pattern, path) for pattern in self._wanted)
        return is_wanted and not any(len(pattern) <= len(path) and _agree(pattern, path) for pattern in self._unwanted)


def _agree(pattern: list[str], path: tuple[str, ...]) -> bool:
    """Whether one may lead to the other, as far as both go."""
    for wanted, name in zip(pattern, path, strict=False):
        if wanted == "**":
            return True
        if not _fits(name, wanted):
            return False
    return True


def _fits(name: str, pattern: str) -> bool:
    """Whether it is the name; ``*`` is any text. Nothing is kept of a pattern, as fnmatch keeps thousands of them."""
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    *inner, last = others
    at = len(first)
    for piece in inner:
        found = name.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return name.startswith(first) and name.endswith(last) and at + len(last) <= len(name)
