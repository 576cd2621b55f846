"""Splunk's HTTP Event Collector (HEC): envelopes one after another or in an array, or lines of text.

| in an envelope   | becomes                                                                                     |
|------------------|---------------------------------------------------------------------------------------------|
| `time`           | `timestamp`                                                                                 |
| `host`           | `hostname`                                                                                  |
| `source`         | `source`                                                                                    |
| `event`, object  | its members, each under its own name                                                        |
| `event`, other   | `summary`                                                                                   |
| `fields`         | its members, each under its own name; those whose names are taken stay together as `fields` |
| any other member | the same, `sourcetype` and `index` among them                                               |

An event that has a member of such a name itself keeps it: then what the envelope says has the next name that means the
same (`timestamp`, `utctimestamp`, `@timestamp`). What an envelope does not say, the URL's query may.

A request is taken whole or not at all. Splunk takes the envelopes in front of a bad one, and a client that then sends
all of them again has them stored twice.

With a channel the answer carries an ackId. Any process of any door answers for it at /services/collector/ack, as often
as it is asked, and says `true`: 200 is answered only when the batch is durable, so there is nothing to wait for. No
process remembers it: the number itself says that it was given out by a door, and for which channel.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from logweir.config import MEBIBYTE
from logweir.errors import (
    ACKS_BAD,
    BODY_EMPTY,
    BODY_TOO_LARGE,
    CATEGORY_MISSING,
    CATEGORY_REFUSED,
    CHANNEL_BAD,
    CHANNEL_MISSING,
    DECOMPRESSED_TOO_LARGE,
    EVENT_BLANK,
    EVENT_MISSING,
    EVENT_TOO_LARGE,
    EVENTS_TOO_MANY,
    INTERNAL,
    KEY_IN_QUERY,
    KEY_MISSING,
    KEY_REFUSED,
    KEY_UNKNOWN,
    NOT_READY,
    STOPPING,
    UTF8_BAD,
    LogweirError,
    Problem,
)
from logweir_ingest.formats.json import JsonFormat
from logweir_ingest.formats.port import Accepted, Format, Parsed, Route, problem_headers
from logweir_ingest.formats.written import EventWriter, Members, without_half_pairs
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Reply, Request

_JSON = (b"content-type", b"application/json")
_ACKS_SIZE_BYTES_MAX = MEBIBYTE

_COLLECTOR = "/services/collector"
_EVENT_PATHS = (_COLLECTOR, f"{_COLLECTOR}/event", f"{_COLLECTOR}/event/1.0")
_RAW_PATHS = (f"{_COLLECTOR}/raw", f"{_COLLECTOR}/raw/1.0")
_HEALTH_PATHS = (f"{_COLLECTOR}/health", f"{_COLLECTOR}/health/1.0")
_ACK_PATHS = (f"{_COLLECTOR}/ack", f"{_COLLECTOR}/ack/1.0")


def _options(allow: bytes) -> Callable[[Request], Reply]:
    return lambda _: Reply(200, (_JSON, (b"allow", allow)), b"")


def _health(_: Request) -> Reply:
    return _reply(200, 17, "HEC is healthy")


def _acks(request: Request) -> Reply:
    """Which of the numbers that are asked after were given out for the channel. Raises LogweirError."""
    channel = _channel(request, _query(request))
    if channel is None:
        raise LogweirError(CHANNEL_MISSING)
    try:
        asked = _asked.decode(request.body).acks
    except msgspec.DecodeError as error:
        raise LogweirError(ACKS_BAD, reason=str(error)) from error
    acks = {str(number): _is_ack_id(number, channel) for number in dict.fromkeys(asked)}
    return Reply(200, (_JSON,), msgspec.json.encode({"acks": acks}))


class _Asked(msgspec.Struct):
    acks: list[int]


_asked = msgspec.json.Decoder(_Asked)


class SplunkFormat(Format):
    name = "splunk"
    routes = (
        *(Route(path) for path in (*_EVENT_PATHS, *_RAW_PATHS)),
        *(Route(path, "POST", _acks, body_size_bytes_max=_ACKS_SIZE_BYTES_MAX) for path in _ACK_PATHS),
        *(Route(path, "GET", _health, needs_key=False, needs_door=True) for path in _HEALTH_PATHS),
        *(
            Route(path, "OPTIONS", _options(b"POST"), needs_key=False)
            for path in (*_EVENT_PATHS, *_RAW_PATHS, *_ACK_PATHS)
        ),
        *(Route(path, "OPTIONS", _options(b"GET"), needs_key=False) for path in _HEALTH_PATHS),
    )

    def __init__(self) -> None:
        self._envelopes = JsonFormat()
        self._ack_ids = itertools.count()

    def key_of(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        """``Authorization: Splunk KEY``, or the password of Basic."""
        scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"splunk":
            return value.strip()
        if scheme.lower() == b"basic":
            try:
                return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except binascii.Error:
                return b""
        return None

    def split(self, request: Request, body: bytes, limits: Limits) -> Parsed:
        """Raises LogweirError: CHANNEL_BAD; of envelopes as JsonFormat.split, EVENT_MISSING and EVENT_BLANK; of text
        BODY_EMPTY, UTF8_BAD, EVENT_TOO_LARGE, EVENTS_TOO_MANY; DECOMPRESSED_TOO_LARGE for what is written of it.
        """
        query = _query(request)
        channel = _channel(request, query)
        defaults = {name: query[name] for name in ("time", "host", "source", "sourcetype", "index") if query.get(name)}
        writer = EventWriter(body, limits)
        if request.path in _RAW_PATHS:
            _write_lines(writer, body, defaults)
        else:
            for index, envelope in enumerate(self._envelopes.split(request, body, limits).events):
                writer.write(_event_of(envelope, index, defaults), envelope)
        return Parsed(writer.events, about=channel)

    def accepted(self, request: Request, accepted: Accepted) -> Reply:
        """200, and nothing else: most clients take any other status, and some any other body, for a failure."""
        channel = accepted.about
        body = b'{"text":"Success","code":0}'
        if channel is not None:
            ack_id = _ack_id(accepted.receipt, next(self._ack_ids), channel)
            body = b'{"text":"Success","code":0,"ackId":%d}' % ack_id
        return Reply(200, (_JSON, (b"log-receipt", accepted.receipt)), body)

    def refused(self, request: Request, error: LogweirError) -> Reply:
        """Splunk's number, status and words for it, and ours."""
        problem = error.problem
        if problem is KEY_MISSING and b"authorization" in request.headers:
            status, code, text = 401, 3, "Invalid authorization"
        elif problem is KEY_MISSING and "token" in _query(request):
            # Splunk does not take it there either, unless somebody allows it.
            error = LogweirError(KEY_IN_QUERY)
            status, code, text = 400, 16, "Query string authorization is not enabled"
        else:
            status, code, text = _ANSWERS.get(problem) or _answer_by_status(problem.status)
        if request.path in _HEALTH_PATHS and status in (401, 403):
            # As Vector, which asks so with its key, expects it of a bad one.
            status = 400
        elif 400 <= status < 500 and status not in (401, 403) and _waits_for_ever(request):
            status = 422
        more: dict[str, Any] = {"detail": error.detail, "advice": error.advice, "problem": error.problem.code}
        if (index := error.numbers.get("event_index")) is not None:
            more = {"invalid-event-number": index, **more}
        return _reply(status, code, text, more, problem_headers(error))


# HTTP status, number and words, as Splunk documents them.
_INVALID = (400, 6, "Invalid data format")
_TOO_LARGE = (413, 27, "Request entity too large")
_BUSY = (503, 9, "Server is busy")
_ANSWERS: dict[Problem, tuple[int, int, str]] = {
    KEY_REFUSED: (403, 1, "Token disabled"),
    KEY_MISSING: (401, 2, "Token is required"),
    KEY_UNKNOWN: (403, 4, "Invalid token"),
    BODY_EMPTY: (400, 5, "No data"),
    CATEGORY_REFUSED: (400, 7, "Incorrect index"),
    CATEGORY_MISSING: (400, 7, "Incorrect index"),
    INTERNAL: (500, 8, "Internal server error"),
    CHANNEL_MISSING: (400, 10, "Data channel is missing"),
    CHANNEL_BAD: (400, 11, "Invalid data channel"),
    EVENT_MISSING: (400, 12, "Event field is required"),
    EVENT_BLANK: (400, 13, "Event field cannot be blank"),
    NOT_READY: (503, 18, "HEC is unhealthy, queues are full"),
    STOPPING: (503, 23, "Server is shutting down"),
    BODY_TOO_LARGE: _TOO_LARGE,
    DECOMPRESSED_TOO_LARGE: _TOO_LARGE,
    EVENT_TOO_LARGE: _TOO_LARGE,
    EVENTS_TOO_MANY: _TOO_LARGE,
}


def _answer_by_status(status: int) -> tuple[int, int, str]:
    # 429 is none of Splunk's, and several of its clients drop what is answered so: all of them know 503.
    if status in (429, 503):
        return _BUSY
    return _INVALID if status < 500 else (status, 8, "Internal server error")


def _waits_for_ever(request: Request) -> bool:
    """Whether the client sends again what was answered 400 or 413, before all else: syslog-ng, until it is restarted.

    It drops what is answered 422.
    """
    return request.headers.get(b"user-agent", b"").lower().startswith(b"syslog-ng")


def _reply(
    status: int,
    code: int,
    text: str,
    more: Mapping[str, Any] | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Reply:
    return Reply(status, (_JSON, *headers), msgspec.json.encode({"text": text, "code": code, **(more or {})}))


def _query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=True))


# --- envelopes ----------------------------------------------------------------------------------------------------
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

# What an envelope says of its event: the names that mean the same to a worker, the strongest first.
_NAMES = {
    "time": ("timestamp", "utctimestamp", "@timestamp", "envelope_time"),
    "host": ("hostname", "host", "host.name", "envelope_host"),
    "source": ("source", "logger", "log.logger", "envelope_source"),
    "sourcetype": ("sourcetype", "envelope_sourcetype"),
    "index": ("index", "envelope_index"),
}


_BLANK = re.compile(rb'"(?: |\\[bfnrt])*"')


def _event_of(envelope: bytes, index: int, defaults: Mapping[str, str]) -> Members:
    said = _members_of(envelope)
    event, fields = bytes(said.pop("event", b"null")), bytes(said.pop("fields", b"null"))
    if event == b"null":
        raise LogweirError(EVENT_MISSING, event_index=index)
    if _BLANK.fullmatch(event):
        raise LogweirError(EVENT_BLANK, event_index=index)
    members = Members(_members.decode(event) if event.startswith(b"{") else {"summary": msgspec.Raw(event)})
    for name, names in _NAMES.items():
        value = said.pop(name, None)
        if value is not None and bytes(value) != b"null":
            members.add(value, *names)
        elif name in defaults:
            members.add(defaults[name], *names)
    if fields.startswith(b"{"):
        members.merge(_members.decode(fields), "fields")
    elif fields != b"null":
        members.add(msgspec.Raw(fields), "fields")
    if said:
        members.merge(said, "envelope")
    return members


def _members_of(envelope: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _members.decode(envelope)
    except msgspec.DecodeError:
        # JSON it is, by those who split the body.
        return _members.decode(without_half_pairs(envelope))


# --- text ---------------------------------------------------------------------------------------------------------
_LINE = re.compile(rb"[^\r\n][^\n]*")


def _write_lines(writer: EventWriter, body: bytes, defaults: Mapping[str, str]) -> None:
    """Each line that is not blank is the summary of an event."""
    said = {_NAMES[name][0]: value for name, value in defaults.items()}
    for line in _LINE.finditer(body):
        text = line[0].rstrip(b"\r")
        if text.isspace():
            continue
        # Written, a control character has six bytes.
        writer.check_size(len(text), line.start())
        try:
            writer.write({"summary": text.decode(), **said}, line.start())
        except UnicodeDecodeError as error:
            raise LogweirError(
                UTF8_BAD,
                byte_offset=line.start() + error.start,
                event_index=len(writer.events),
                looks_like="",
                advice="Send text as UTF-8. Nothing of this request was accepted.",
            ) from error
    if not writer.events:
        raise LogweirError(BODY_EMPTY)


# --- acknowledgements ---------------------------------------------------------------------------------------------
_CHANNEL = re.compile("[!-~]{1,128}")
_CHANNEL_LENGTH_MAX = 128
# Together 53 bits: clients that read JSON's numbers as JavaScript does keep no more.
_TURN_BITS, _TAG_BITS = 37, 16


def _channel(request: Request, query: Mapping[str, str]) -> str | None:
    header = request.headers.get(b"x-splunk-request-channel")
    channel = query.get("channel") if header is None else header.decode("latin-1").strip()
    if channel is not None and not _CHANNEL.fullmatch(channel):
        raise LogweirError(CHANNEL_BAD, length_max=_CHANNEL_LENGTH_MAX)
    return channel


def _ack_id(receipt: bytes, turn: int, channel: str) -> int:
    """A number that no other batch of the channel has: counted by this process, from where no other one begins.

    A receipt's first bytes are its version and its process's epoch, which is random.
    """
    start = int.from_bytes(base64.urlsafe_b64decode(receipt[:12])[1:9], "big")
    turn = (start + turn) % 2**_TURN_BITS
    return turn << _TAG_BITS | _tag(turn, channel)


def _is_ack_id(number: int, channel: str) -> bool:
    """Whether the number was given out for the channel; of others that anybody makes up, one in 65,536 looks so."""
    turn = number >> _TAG_BITS
    return 0 <= turn < 2**_TURN_BITS and number == turn << _TAG_BITS | _tag(turn, channel)


def _tag(turn: int, channel: str) -> int:
    digest = hashlib.blake2b(b"%d %s" % (turn, channel.lower().encode()), digest_size=_TAG_BITS // 8).digest()
    return int.from_bytes(digest, "big")
