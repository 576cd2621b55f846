"""MozDef's doors: the paths where its senders post, beside ``/events``, which is the door's own, and ``_bulk``.

PUT /events                    as POST
POST, PUT /nxlog, /cef         the same JSON; where it came in is the event's ``endpoint``, as MozDef's plugins know it
POST, PUT /custom/<name>       likewise: ``endpoint`` is the name
GET /status                    what MozDef's monitors ask

MozDef asked nobody for a key; this door does.
"""

from __future__ import annotations

from logweir_ingest.formats.json import JsonFormat
from logweir_ingest.formats.port import Accepted, Format, Parsed, Route
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Reply, Request

_JSON = ((b"content-type", b"application/json"),)
_json = JsonFormat()


def _status(_: Request) -> Reply:
    return Reply(200, _JSON, b'{"status":"ok","service":"logweir"}')


class MozdefFormat(Format):
    """JSON as at ``/events``, answered 200, as some of its senders want to the digit."""

    name = "mozdef"
    routes = (
        Route("/nxlog"),
        Route("/nxlog", "PUT"),
        Route("/cef"),
        Route("/cef", "PUT"),
        Route("/custom/<name>"),
        Route("/custom/<name>", "PUT"),
        Route("/events", "PUT"),
        Route("/status", "GET", _status, needs_key=False),
    )

    def split(self, request: Request, body: bytes, limits: Limits) -> Parsed:
        """As JsonFormat, and raises what it raises."""
        return _stamped(request, _json.split(request, body, limits))

    def split_fast(self, request: Request, body: bytes, limits: Limits) -> Parsed | None:
        parsed = _json.split_fast(request, body, limits)
        return None if parsed is None else _stamped(request, parsed)

    def accepted(self, request: Request, accepted: Accepted) -> Reply:
        """200, with what the door says of a batch of its own."""
        reply = _json.accepted(request, accepted)
        return Reply(200, reply.headers, reply.body)


def _stamped(request: Request, parsed: Parsed) -> Parsed:
    endpoint = request.path.rpartition("/")[2]
    if endpoint != "events":
        parsed.stamp = {"endpoint": endpoint}
    return parsed
