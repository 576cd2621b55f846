"""A wire format in one file, for tests: text, each line an event. Its senders speak no JSON, nor know of our headers.

POST /lines              the lines of nobody in particular
PUT  /<source>/lines     the lines of an emitter of that name
GET  /lines              what a sender asks first, with its key
GET  /lines/health       what a balancer asks, which has none
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from logweir.errors import BODY_EMPTY, EVENT_TOO_LARGE, EVENTS_TOO_MANY, LogweirError, Problem
from logweir_ingest.formats.port import Accepted, Format, Parsed, Route, problem_headers
from logweir_ingest.request.emitter_headers import EmitterHeaders
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Reply, Request

LINE_BAD = Problem("line_bad", 400, "Line {event_index} is not UTF-8.", "Send text. Nothing of it was accepted.")

_TEXT = (b"content-type", b"text/plain")
_JSON = (b"content-type", b"application/json")


def _greeting(request: Request) -> Reply:
    return Reply(200, (_TEXT,), b"lines 1.0 " + request.query)


def _health(_: Request) -> Reply:
    return Reply(200, (_TEXT,), b"healthy")


class LinesFormat(Format):
    name = "lines"
    routes = (
        Route("/lines"),
        Route("/<source>/lines", "PUT"),
        Route("/lines", "GET", _greeting),
        Route("/lines/health", "GET", _health, needs_key=False),
    )

    def key_of(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        return headers.get(b"x-lines-token")

    def split(self, request: Request, body: bytes, limits: Limits) -> Parsed:
        lines = body.splitlines()
        if not lines:
            raise LogweirError(BODY_EMPTY)
        if len(lines) > limits.events_per_request_max:
            raise LogweirError(EVENTS_TOO_MANY, events_max=limits.events_per_request_max)
        events = [_event(line, index, limits) for index, line in enumerate(lines)]
        source = request.path.removesuffix("lines").strip("/")
        emitter = EmitterHeaders(emitter=source) if source else None
        return Parsed(events, emitter=emitter, about=[len(line) for line in lines])

    def accepted(self, request: Request, accepted: Accepted) -> Reply:
        items = [{"size": size, "status": 201} for size in accepted.about]
        return Reply(200, (_JSON,), json.dumps({"refused": False, "items": items}, separators=(",", ":")).encode())

    def refused(self, request: Request, error: LogweirError) -> Reply:
        """Its senders drop what is answered 400, and stop at any 401."""
        status = {400: 422, 401: 403}.get(error.problem.status, error.problem.status)
        body = json.dumps({"refused": True, "text": error.detail, "code": error.problem.code})
        return Reply(status, (_JSON, *problem_headers(error)), body.encode())


def _event(line: bytes, index: int, limits: Limits) -> bytes:
    try:
        event = json.dumps({"summary": line.decode()}).encode()
    except UnicodeDecodeError as error:
        raise LogweirError(LINE_BAD, event_index=index) from error
    if len(event) > limits.event_size_bytes_max:
        raise LogweirError(
            EVENT_TOO_LARGE, event_index=index, byte_offset=0, size_bytes_max=limits.event_size_bytes_max
        )
    return event
