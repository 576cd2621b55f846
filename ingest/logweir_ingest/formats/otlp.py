"""OpenTelemetry's logs over HTTP (OTLP/HTTP): an ExportLogsServiceRequest as protobuf or as JSON.

| in a log record                            | becomes                                                                 |
|--------------------------------------------|-------------------------------------------------------------------------|
| `timeUnixNano`, or `observedTimeUnixNano`  | `timestamp`; the other one is `observed_timestamp`                      |
| `severityText`                             | `severity`                                                              |
| `severityNumber`                           | `severity_number`, and `log.level`, by which it is read without a text  |
| `body`, an object                          | its members, each under its own name                                    |
| `body`, other                              | `summary`                                                               |
| `traceId`, `spanId`, `flags`               | `trace_id`, `span_id` (hexadecimal), `trace_flags`                      |
| `eventName`                                | `event_name`                                                            |
| `attributes`                               | each under its own name; where that is taken, together as `attributes`  |
| attributes of the resource                 | each under its own name; where that is taken, together as `resource`    |
| the scope's name, version, attributes      | `otel.scope.name`, `otel.scope.version`, and as those of the resource   |
| `droppedAttributesCount`, `schemaUrl`      | `dropped_attributes_count`, `schema_url`                                |

What says nothing (0, an empty text) is left out. Bytes are base64; NaN and infinities, which JSON has not, are texts.

A request is taken whole or not at all: no answer has a partialSuccess. One without records is answered like a good one.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from logweir.config import MEBIBYTE
from logweir.errors import (
    BODY_EMPTY,
    DEPTH_EXCEEDED,
    EVENTS_TOO_MANY,
    JSON_BAD,
    MEDIA_TYPE_UNKNOWN,
    PROTOBUF_BAD,
    UTF8_BAD,
    LogweirError,
)
from logweir.http.reply import RETRY_AFTER_S
from logweir_ingest.formats.port import Accepted, Format, Parsed, Route, problem_headers
from logweir_ingest.formats.written import EventWriter, Members, without_half_pairs
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Reply, Request

_T = TypeVar("_T")

_PROTOBUF, _JSON = "application/x-protobuf", "application/json"


class OtlpFormat(Format):
    name = "otlp"
    routes = (Route("/v1/logs"),)

    def split(self, request: Request, body: bytes, limits: Limits) -> Parsed:
        """Raises LogweirError: MEDIA_TYPE_UNKNOWN, PROTOBUF_BAD, JSON_BAD, UTF8_BAD, DEPTH_EXCEEDED, EVENT_TOO_LARGE,
        EVENTS_TOO_MANY, DECOMPRESSED_TOO_LARGE; BODY_EMPTY when there is no record.
        """
        media_type = _media_type(request)
        if media_type not in (_PROTOBUF, _JSON):
            understood = f"{_PROTOBUF}, {_JSON}"
            raise LogweirError(MEDIA_TYPE_UNKNOWN, media_type=media_type[:100], understood=understood)
        writer = EventWriter(body, limits)
        if media_type == _PROTOBUF:
            _Protobuf(body, limits, writer).read()
        else:
            _read_json(body, limits, writer)
        if not writer.events:
            raise LogweirError(BODY_EMPTY)
        return Parsed(writer.events)

    def accepted(self, request: Request, accepted: Accepted) -> Reply:
        """200 with an empty ExportLogsServiceResponse. Any other body would be an error that is not tried again."""
        return _success(request, ((b"log-receipt", accepted.receipt),))

    def refused(self, request: Request, error: LogweirError) -> Reply:
        """A google.rpc.Status in the request's encoding. An empty request is no fault, by the specification."""
        if error.problem is BODY_EMPTY:
            return _success(request)
        status, headers = error.problem.status, problem_headers(error)
        # Senders of OTLP give up what is answered 500: they try again after 429, 502, 503 and 504 alone.
        if status == 500:
            status, headers = 503, ((b"retry-after", b"%d" % RETRY_AFTER_S),)
        code, message = _CODES.get(status, _CODES[400 if status < 500 else 503]), str(error)
        if _media_type(request) != _JSON:
            return Reply(status, ((b"content-type", _PROTOBUF.encode()), *headers), _status_message(code, message))
        body = msgspec.json.encode({"code": code, "message": message})
        return Reply(status, ((b"content-type", _JSON.encode()), *headers), body)


def _media_type(request: Request) -> str:
    return request.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()


def _success(request: Request, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    if _media_type(request) == _JSON:
        return Reply(200, ((b"content-type", _JSON.encode()), *headers), b"{}")
    return Reply(200, ((b"content-type", _PROTOBUF.encode()), *headers), b"")


# google.rpc.Code by HTTP status, as googleapis' google/rpc/code.proto maps them.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 413: 8, 415: 3, 429: 8, 503: 14}


def _status_message(code: int, message: str) -> bytes:
    """google.rpc.Status: 1, a varint, is the code; 2 is the message."""
    text = message.encode(errors="replace")
    return b"\x08%c\x12%b%b" % (code, _varint(len(text)), text)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))


# --- records ------------------------------------------------------------------------------------------------------
_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


class _Record(msgspec.Struct):
    """A log record, however it was encoded."""

    time: int | str
    observed: int | str
    severity_number: int | str
    severity_text: str
    body: Any
    attributes: Mapping[str, Any]
    trace_id: str
    span_id: str
    flags: int | str
    event_name: str
    dropped: int | str


class _Shared(msgspec.Struct):
    """What the records of a resource, or of a scope, have in common: ``members`` by their names."""

    members: dict[str, Any]
    schema_url: str = ""


def _event(record: _Record, scope: _Shared, resource: _Shared) -> Members:
    level = record.severity_number
    said = {
        "timestamp": record.time or record.observed,
        "observed_timestamp": record.observed if record.time and record.observed != record.time else 0,
        "severity": record.severity_text,
        "log.level": _LEVELS[(level - 1) // 4] if isinstance(level, int) and 0 < level <= 24 else "",
        "severity_number": level,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "trace_flags": record.flags,
        "event_name": record.event_name,
        "dropped_attributes_count": record.dropped,
        "schema_url": scope.schema_url or resource.schema_url,
    }
    members = Members({name: value for name, value in said.items() if value})
    if isinstance(record.body, dict):
        members.merge(record.body, "body")
    elif record.body is not None:
        members.add(record.body, "summary")
    members.merge(record.attributes, "attributes")
    members.merge(scope.members, "scope")
    members.merge(resource.members, "resource")
    return members


def _scope_members(name: str, version: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    said = {"otel.scope.name": name, "otel.scope.version": version}
    return {**attributes, **{name: value for name, value in said.items() if value}}


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    # As the JSON mapping of protobuf spells them.
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


# How many values a large body may have to an event: more would cost time and memory, and no sender has them.
_VALUES_PER_EVENT_MAX = 256


# --- protobuf -----------------------------------------------------------------------------------------------------
_FIELDS_PER_EVENT_MAX = 16


class _Protobuf:
    """Reads a request record by record, so that none costs more than a record may, however many are said to come.

    Where records lie is found here; what is in one is read by the generated code, which is imported with the first.
    """

    def __init__(self, body: bytes, limits: Limits, writer: EventWriter) -> None:
        # 30 ms and 7 MB, which a door without such senders saves.
        from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
        from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
        from opentelemetry.proto.resource.v1.resource_pb2 import Resource

        self._log_record, self._scope, self._resource = LogRecord, InstrumentationScope, Resource
        self._body = body
        self._limits = limits
        self._writer = writer
        self._fields_left = _FIELDS_PER_EVENT_MAX * (limits.events_per_request_max + 1)
        self._values_left = _VALUES_PER_EVENT_MAX * (limits.events_per_request_max + 1)

    def read(self) -> None:
        # logs_service.proto: ExportLogsServiceRequest has resource_logs = 1.
        for field, start, end in self._fields(0, len(self._body)):
            if field == 1:
                self._read_resource(start, end)

    def _read_resource(self, start: int, end: int) -> None:
        # logs.proto: ResourceLogs has resource = 1, scope_logs = 2, schema_url = 3, in any order.
        parts = list(self._fields(start, end))
        resource = self._message(self._resource, parts, 1)
        shared = _Shared(self._attributes(resource.attributes, start), self._text(parts, 3))
        for field, inner_start, inner_end in parts:
            if field == 2:
                self._read_scope(inner_start, inner_end, shared)

    def _read_scope(self, start: int, end: int, resource: _Shared) -> None:
        # ScopeLogs has scope = 1, log_records = 2, schema_url = 3.
        parts = list(self._fields(start, end))
        scope = self._message(self._scope, parts, 1)
        members = _scope_members(scope.name, scope.version, self._attributes(scope.attributes, start))
        shared = _Shared(members, self._text(parts, 3))
        for field, inner_start, inner_end in parts:
            if field == 2:
                record = self._record(self._message(self._log_record, ((1, inner_start, inner_end),), 1), inner_start)
                self._writer.write(_event(record, shared, resource), inner_start)

    def _record(self, sent: Any, start: int) -> _Record:
        return _Record(
            sent.time_unix_nano,
            sent.observed_time_unix_nano,
            sent.severity_number,
            sent.severity_text,
            self._value(sent.body, start, 1),
            self._attributes(sent.attributes, start),
            sent.trace_id.hex(),
            sent.span_id.hex(),
            sent.flags,
            sent.event_name,
            sent.dropped_attributes_count,
        )

    def _attributes(self, attributes: Any, start: int, depth: int = 1) -> dict[str, Any]:
        self._count(len(attributes))
        return {attribute.key: self._value(attribute.value, start, depth) for attribute in attributes}

    def _value(self, value: Any, start: int, depth: int) -> Any:
        kind = value.WhichOneof("value")
        if kind == "string_value" or kind is None:
            return value.string_value if kind else None
        if kind == "double_value":
            return _double(value.double_value)
        if kind == "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        if kind == "array_value":
            self._check_depth(depth, start)
            self._count(len(value.array_value.values))
            return [self._value(item, start, depth + 1) for item in value.array_value.values]
        if kind == "kvlist_value":
            self._check_depth(depth, start)
            return self._attributes(value.kvlist_value.values, start, depth + 1)
        return getattr(value, kind)

    def _count(self, values: int) -> None:
        """Two bytes may be a value, and all those with one name one member: their number says what they cost."""
        self._values_left -= values
        if self._values_left < 0:
            raise LogweirError(EVENTS_TOO_MANY, events_max=self._limits.events_per_request_max)

    def _check_depth(self, depth: int, start: int) -> None:
        if depth >= self._limits.depth_max:
            index = len(self._writer.events)
            raise LogweirError(DEPTH_EXCEEDED, event_index=index, depth_max=self._limits.depth_max, byte_offset=start)

    def _message(self, kind: Any, parts: Iterable[tuple[int, int, int]], field: int) -> Any:
        """The message in ``field``; one that comes in several parts is all of them, one behind the other."""
        spans = [(start, end) for number, start, end in parts if number == field]
        start = spans[0][0] if spans else 0
        self._writer.check_size(sum(end - start for start, end in spans), start)
        try:
            return kind.FromString(b"".join(self._body[start:end] for start, end in spans))
        except Exception as error:  # DecodeError, of which the package says not where it is from.
            raise self._bad(start, f"it holds no {kind.DESCRIPTOR.name}") from error

    def _text(self, parts: Iterable[tuple[int, int, int]], field: int) -> str:
        spans = [(start, end) for number, start, end in parts if number == field]
        return self._body[slice(*spans[-1])].decode(errors="replace") if spans else ""

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield number, start and end of each field that has a length; pass over the others.

        protobuf's encoding: a varint of number << 3 | type; then a varint (0), 8 bytes (1), a length and so many
        bytes (2), or 4 bytes (5).
        """
        while start < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise LogweirError(EVENTS_TOO_MANY, events_max=self._limits.events_per_request_max)
            at = start
            tag, start = self._varint(start, end)
            kind = tag & 7
            if kind == 2:
                length, start = self._varint(start, end)
                if length > end - start:
                    raise self._bad(at, "it is cut short")
                if tag >> 3:
                    yield tag >> 3, start, start + length
                start += length
            elif kind == 0:
                _, start = self._varint(start, end)
            elif kind in (1, 5):
                start += 8 if kind == 1 else 4
            if kind not in (0, 1, 2, 5) or not tag >> 3:
                raise self._bad(at, "there is no such field")
            if start > end:
                raise self._bad(at, "it is cut short")

    def _varint(self, start: int, end: int) -> tuple[int, int]:
        number = 0
        for shift, byte in enumerate(self._body[start : min(start + 10, end)]):
            number |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:
                return number, start + shift + 1
        raise self._bad(start, "a number has no end")

    def _bad(self, start: int, reason: str) -> LogweirError:
        return LogweirError(PROTOBUF_BAD, event_index=len(self._writer.events), byte_offset=start, reason=reason)


# --- JSON ---------------------------------------------------------------------------------------------------------
# opentelemetry-proto docs/specification.md: names in lowerCamelCase, traceId and spanId in hexadecimal, enums as
# numbers, 64 bits as numbers or texts, and what is not known is ignored.
_Integer = int | str


class _Value(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: _Integer | None = None
    double_value: float | str | None = None
    bytes_value: str | None = None
    array_value: _Array | None = None
    kvlist_value: _Pairs | None = None


class _Pair(msgspec.Struct, rename="camel"):
    key: str = ""
    value: _Value | None = None


class _Array(msgspec.Struct, rename="camel"):
    values: list[_Value] | None = None


class _Pairs(msgspec.Struct, rename="camel"):
    values: list[_Pair] | None = None


class _Attributes(msgspec.Struct, rename="camel"):
    name: str | None = None
    version: str | None = None
    attributes: list[_Pair] | None = None


class _LogRecord(msgspec.Struct, rename="camel"):
    time_unix_nano: _Integer | None = None
    observed_time_unix_nano: _Integer | None = None
    severity_number: _Integer | None = None
    severity_text: str | None = None
    body: _Value | None = None
    attributes: list[_Pair] | None = None
    trace_id: str | None = None
    span_id: str | None = None
    flags: _Integer | None = None
    event_name: str | None = None
    dropped_attributes_count: _Integer | None = None


_NULL = msgspec.Raw(b"null")


class _ScopeLogs(msgspec.Struct, rename="camel"):
    scope: msgspec.Raw = _NULL
    log_records: list[msgspec.Raw] | None = None
    schema_url: str | None = None


class _ResourceLogs(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw = _NULL
    scope_logs: list[_ScopeLogs] | None = None
    schema_url: str | None = None


class _Export(msgspec.Struct, rename="camel"):
    resource_logs: list[_ResourceLogs] | None = None


_export = msgspec.json.Decoder(_Export)
_log_record = msgspec.json.Decoder(_LogRecord)
_attributes: msgspec.json.Decoder[_Attributes | None] = msgspec.json.Decoder(_Attributes | None)
_COMMAS_COUNTED_FROM_BYTES = MEBIBYTE


def _read_json(body: bytes, limits: Limits, writer: EventWriter) -> None:
    if len(body) > _COMMAS_COUNTED_FROM_BYTES and body.count(b",") > _VALUES_PER_EVENT_MAX * (
        limits.events_per_request_max + 1
    ):
        raise LogweirError(EVENTS_TOO_MANY, events_max=limits.events_per_request_max)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise LogweirError(UTF8_BAD, byte_offset=error.start, event_index=0, looks_like="") from error
    reader = _Json(body, limits, writer)
    resources = reader.decode(_export, body).resource_logs or []
    shared = len(resources) + sum(len(of_resource.scope_logs or ()) for of_resource in resources)
    if shared > _FIELDS_PER_EVENT_MAX * (limits.events_per_request_max + 1):
        raise LogweirError(EVENTS_TOO_MANY, events_max=limits.events_per_request_max)
    for of_resource in resources:
        resource = reader.shared(bytes(of_resource.resource), of_resource.schema_url)
        for of_scope in of_resource.scope_logs or ():
            scope = reader.shared(bytes(of_scope.scope), of_scope.schema_url)
            for sent in of_scope.log_records or ():
                reader.write(bytes(sent), scope, resource)


class _Json:
    """Reads what is in a request's records, one by one: how large each is, is known before it is looked into."""

    def __init__(self, body: bytes, limits: Limits, writer: EventWriter) -> None:
        self._body = body
        self._limits = limits
        self._writer = writer

    def decode(self, decoder: msgspec.json.Decoder[_T], sent: bytes) -> _T:
        try:
            try:
                return decoder.decode(sent)
            except msgspec.ValidationError:
                raise
            except msgspec.DecodeError:
                return decoder.decode(without_half_pairs(sent))
        except RecursionError as error:
            raise self._too_deep(sent) from error
        except msgspec.DecodeError as error:
            index, offset = len(self._writer.events), self._writer.offset_of(sent)
            if (where := _WHERE.search(str(error))) is not None:
                offset += int(where[1])
            raise LogweirError(JSON_BAD, event_index=index, byte_offset=offset, reason=str(error)) from error

    def shared(self, sent: bytes, schema_url: str | None) -> _Shared:
        self._writer.check_size(len(sent), sent)
        said = self.decode(_attributes, sent) or _Attributes()
        attributes = self._pairs(said.attributes, sent, 1)
        return _Shared(_scope_members(said.name or "", said.version or "", attributes), schema_url or "")

    def write(self, sent: bytes, scope: _Shared, resource: _Shared) -> None:
        self._writer.check_size(len(sent), sent)
        said = self.decode(_log_record, sent)
        record = _Record(
            _integer(said.time_unix_nano),
            _integer(said.observed_time_unix_nano),
            _integer(said.severity_number),
            said.severity_text or "",
            self._value(said.body, sent, 1),
            self._pairs(said.attributes, sent, 1),
            said.trace_id or "",
            said.span_id or "",
            _integer(said.flags),
            said.event_name or "",
            _integer(said.dropped_attributes_count),
        )
        self._writer.write(_event(record, scope, resource), sent)

    def _pairs(self, pairs: list[_Pair] | None, sent: bytes, depth: int) -> dict[str, Any]:
        return {pair.key: self._value(pair.value, sent, depth) for pair in pairs or ()}

    def _value(self, value: _Value | None, sent: bytes, depth: int) -> Any:
        if value is None or value.string_value is not None:
            return value and value.string_value
        if value.int_value is not None:
            return _integer(value.int_value)
        if value.double_value is not None:
            return value.double_value
        if value.array_value is not None:
            self._check_depth(depth, sent)
            return [self._value(item, sent, depth + 1) for item in value.array_value.values or ()]
        if value.kvlist_value is not None:
            self._check_depth(depth, sent)
            return self._pairs(value.kvlist_value.values, sent, depth + 1)
        return value.bytes_value if value.bool_value is None else value.bool_value

    def _check_depth(self, depth: int, sent: bytes) -> None:
        if depth >= self._limits.depth_max:
            raise self._too_deep(sent)

    def _too_deep(self, sent: bytes) -> LogweirError:
        index, offset = len(self._writer.events), self._writer.offset_of(sent)
        return LogweirError(DEPTH_EXCEEDED, event_index=index, depth_max=self._limits.depth_max, byte_offset=offset)


# msgspec says it of broken JSON, and not of a value that is of another type than it should be.
_WHERE = re.compile(r"\(byte ([0-9]+)\)")
_INTEGER = re.compile("-?[0-9]{1,20}")


def _integer(value: int | str | None) -> int | str:
    """64 bits as a text are a number; what is none stays as it was sent, for a worker to make the best of it."""
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return value or 0
