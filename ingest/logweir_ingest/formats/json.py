"""JSON bodies: one object, an array of objects, or objects one after another (NDJSON, concatenated, pretty-printed).

The body alone says which; Content-Type is not looked at. What is split off is the raw bytes of each event, unchanged.

| in the body                           | rule                                                            |
|---------------------------------------|-----------------------------------------------------------------|
| first byte `{`                        | objects one after another, with or without white space between  |
| first byte `[`                        | one array of objects; nothing after it                          |
| anything else that is JSON            | refused: an event is an object (`event_not_object`)             |
| nothing, white space only, `[]`       | refused (`body_empty`), unless Log-High makes it a heartbeat    |
| UTF-8 byte order mark at the start    | skipped, counted in byte offsets; refused anywhere else         |
| bytes that are not UTF-8              | refused (`utf8_bad`) before anything else is looked at          |
| UTF-16, UTF-32                        | refused (`utf8_bad`) by name, with a byte order mark or without |
| NaN, Infinity, -Infinity              | refused: not JSON                                               |
| integers of any size                  | accepted: grammatical; the bytes are kept                       |
| 1e999, 1e-999, any precision          | accepted, too                                                   |
| the same name twice in an object      | accepted; the worker takes the last one                         |
| `\\u0000`                              | accepted                                                        |
| lone surrogates (`\\ud800`)            | accepted; the worker puts U+FFFD in their place                 |
| bytes below U+0020, NUL too, in text  | refused: RFC 8259 section 7 wants them escaped                  |
| commas at the end, comments, 'x', 0x1 | refused                                                         |
| white space                           | space, tab, line feed, carriage return; nothing else            |
| cut short                             | refused at the place where it ends                              |
| depth                                 | more than `ingest.depth_max` is refused; the event is level 1   |
| size of an event                      | more than `ingest.event_size_bytes_max` is refused              |
| number of events                      | more than `ingest.events_per_request_max` is refused            |

The fast way is msgspec's. Whatever it refuses or would need too much memory for goes the exact way: the end of each
event is found by its brackets, and the standard library's parser says where a broken one breaks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NoReturn

import msgspec

from logweir.config import MEBIBYTE
from logweir.errors import (
    BODY_EMPTY,
    DEPTH_EXCEEDED,
    EVENT_NOT_OBJECT,
    EVENT_TOO_LARGE,
    EVENTS_TOO_MANY,
    JSON_BAD,
    UTF8_BAD,
    LogweirError,
)
from logweir_ingest.formats.port import Accepted, Format, Parsed, Route, problem_reply
from logweir_ingest.request import senders
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Reply, Request

_JSON = ((b"content-type", b"application/json"),)


class JsonFormat(Format):
    """The door's own format: its senders write Log-* headers, and read receipts."""

    name = "json"
    routes = (Route("/events"), Route("/"))

    def split(self, request: Request, body: bytes, limits: Limits) -> Parsed:
        """At least one event, its bytes unchanged.

        Raises LogweirError: BODY_EMPTY, UTF8_BAD, JSON_BAD, EVENT_NOT_OBJECT, DEPTH_EXCEEDED, EVENT_TOO_LARGE,
        EVENTS_TOO_MANY. Byte offsets count from the first byte of ``body``.
        """
        events = _split_fast(body, limits)
        return Parsed(_split_exactly(body, limits) if events is None else events)

    def split_fast(self, request: Request, body: bytes, limits: Limits) -> Parsed | None:
        events = _split_fast(body, limits)
        return None if events is None else Parsed(events)

    def keep(self, request: Request, body: bytes, limits: Limits) -> Parsed:
        """At least one event: each line that is a good one, and whatever else stands there, but for line ends.

        Raises LogweirError(EVENTS_TOO_MANY).
        """
        return _salvaged(body, limits)

    def refused(self, request: Request, error: LogweirError) -> Reply:
        """A problem of RFC 9457; in place of 429, omhttp gets a status after which it comes again."""
        if error.problem.status == 429 and senders.is_omhttp(request.headers):
            return problem_reply(error, 503)
        return problem_reply(error)

    def accepted(self, request: Request, accepted: Accepted) -> Reply:
        """202 with how many events were accepted, where they are durable, and a receipt to ask after them."""
        durable = accepted.durable.encode()
        kept = b'"kept":%d,' % accepted.kept if accepted.kept else b""
        values = (accepted.count - accepted.kept, kept, durable, accepted.receipt)
        body = b'{"accepted":%d,%b"durable":"%b","receipt":"%b"}' % values
        return Reply(202, _JSON, body)


# --- the fast way -------------------------------------------------------------------------------------------------
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\n\r"
_OPEN_OBJECT, _OPEN_ARRAY = b"{["

_one = msgspec.json.Decoder(msgspec.Raw)
_array = msgspec.json.Decoder(list[msgspec.Raw])

# Up to this size a body cannot hold so many values that a list of them would hurt.
_ANY_SHAPE_SIZE_BYTES_MAX = MEBIBYTE
_COMMAS_PER_EVENT_MAX = 64


def _split_fast(body: bytes, limits: Limits) -> list[bytes] | None:
    """The events, or None when it takes the exact way, to split or to refuse in words: a hundred times as long."""
    if not body.isascii() and not _is_utf8(body):
        return None
    if body.startswith(_BYTE_ORDER_MARK):
        body = body[len(_BYTE_ORDER_MARK) :]
    start = body.lstrip(_SPACE)[:1] if body[:1] in b" \t\n\r" else body[:1]
    try:
        if start == b"{":
            values = _stream_values(body, limits)
        elif start == b"[" and _is_small_array(body, limits):
            values = _array.decode(body)
        else:
            return None
    except (msgspec.DecodeError, RecursionError):
        return None
    if not 0 < len(values) <= limits.events_per_request_max:
        return None
    size_bytes_max, depth_max = limits.event_size_bytes_max, limits.depth_max
    events = [bytes(value) for value in values]
    for event in events:
        if event[0] != _OPEN_OBJECT or len(event) > size_bytes_max:
            return None
        # No more opening brackets than levels: it cannot be too deep, whatever they enclose.
        if event.count(b"{") + event.count(b"[") > depth_max and not _is_within(event, depth_max):
            return None
    return events


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_TO_BRACES = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _is_within(event: bytes, depth_max: int) -> bool:
    """Whether valid JSON is nested at most ``depth_max`` deep: each pass takes away what is innermost."""
    braces = _STRING.sub(b"", event).translate(_TO_BRACES, _NO_BRACKETS)
    for _ in range(depth_max):
        braces = braces.replace(b"{}", b"")
    return not braces


def _stream_values(body: bytes, limits: Limits) -> list[msgspec.Raw]:
    """Values one after another. A large body is taken only in the form of one a line: its lines can be counted."""
    if len(body) <= _ANY_SHAPE_SIZE_BYTES_MAX:
        return _one.decode_lines(body)
    lines = body.split(b"\n", limits.events_per_request_max + 1)
    return [_one.decode(line) for line in lines if line.strip(_SPACE)]


def _is_small_array(body: bytes, limits: Limits) -> bool:
    return (
        len(body) <= _ANY_SHAPE_SIZE_BYTES_MAX
        or body.count(b",") <= _COMMAS_PER_EVENT_MAX * limits.events_per_request_max
    )


# --- the exact way ------------------------------------------------------------------------------------------------
_SKIP = re.compile(rb"[ \t\n\r]*")
# Strings are passed over whole, so that the brackets in them do not count.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]"]', re.DOTALL)
_OPENING, _CLOSING = (b"{", b"["), (b"}", b"]")


def _split_exactly(body: bytes, limits: Limits) -> list[bytes]:
    _check_utf8(body, limits)
    start = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
    start = _skip(body, start)
    if start == len(body):
        raise LogweirError(BODY_EMPTY)
    # Without a byte order mark they are UTF-8 with many NULs, which would be refused in words that help nobody.
    if _WIDE.match(body):
        raise LogweirError(UTF8_BAD, byte_offset=body.index(0), event_index=0, looks_like=_looks_like(body))
    walk = _array_spans if body[start] == _OPEN_ARRAY else _stream_spans
    events: list[bytes] = []
    for begin, end in walk(body, start, limits):
        if len(events) == limits.events_per_request_max:
            raise LogweirError(EVENTS_TOO_MANY, events_max=limits.events_per_request_max)
        events.append(body[begin:end])
    if not events:
        raise LogweirError(BODY_EMPTY)
    return events


def _stream_spans(body: bytes, start: int, limits: Limits) -> Iterator[tuple[int, int]]:
    index = 0
    while start < len(body):
        end = _event_end(body, start, index, limits)
        yield start, end
        start = _skip(body, end)
        index += 1


def _array_spans(body: bytes, start: int, limits: Limits) -> Iterator[tuple[int, int]]:
    start = _skip(body, start + 1)
    index = 0
    if body[start : start + 1] != b"]":
        while True:
            end = _event_end(body, start, index, limits)
            yield start, end
            start = _skip(body, end)
            index += 1
            separator = body[start : start + 1]
            if separator == b"]":
                break
            if separator != b",":
                _refuse(index, start, "the array's next ',' or its end ']' is missing")
            start = _skip(body, start + 1)
    rest = _skip(body, start + 1)
    if rest != len(body):
        _refuse(index, rest, "something follows the end of the array")


def _event_end(body: bytes, start: int, index: int, limits: Limits) -> int:
    """The offset behind the event that begins at ``start``, checked in every way."""
    if body[start : start + 1] != b"{":
        _refuse_other(body, start, index, limits)
    end = _closing_bracket(body, start, index, limits)
    event = body[start:end]
    try:
        _one.decode(event)
    except (msgspec.DecodeError, RecursionError):
        _refuse_if_broken(event, start, index)
    return end


def _closing_bracket(body: bytes, start: int, index: int, limits: Limits) -> int:
    """The offset behind the bracket that closes the object at ``start``."""
    depth = 0
    limit = start + limits.event_size_bytes_max
    for token in _TOKEN.finditer(body, start):
        if token.end() > limit:
            break
        text = token.group()
        if text in _OPENING:
            depth += 1
            if depth > limits.depth_max:
                offset = token.start()
                _refuse_if_broken_before(body, start, offset, index)
                raise LogweirError(DEPTH_EXCEEDED, event_index=index, depth_max=limits.depth_max, byte_offset=offset)
        elif text in _CLOSING:
            depth -= 1
            if depth == 0:
                return token.end()
        elif text == b'"':
            break  # A string without an end: nothing behind it can be told apart.
    return _refuse_unclosed(body, start, index, limits)


def _refuse_unclosed(body: bytes, start: int, index: int, limits: Limits) -> NoReturn:
    """No end was found: the event is broken before its largest size, or too large."""
    cut = body[start : start + limits.event_size_bytes_max]
    fault = _fault(cut.decode(errors="ignore"))
    assert fault is not None
    offset, reason, truncated = fault
    if not truncated or start + len(cut) == len(body):
        _refuse(index, start + offset, reason)
    size_bytes_max = limits.event_size_bytes_max
    raise LogweirError(EVENT_TOO_LARGE, event_index=index, byte_offset=start, size_bytes_max=size_bytes_max)


def _refuse_if_broken(event: bytes, start: int, index: int) -> None:
    # msgspec refuses lone surrogates, which are grammatical: only what the standard library refuses too is broken.
    fault = _fault(event.decode())
    if fault is not None:
        _refuse(index, start + fault[0], fault[1])


def _refuse_if_broken_before(body: bytes, start: int, offset: int, index: int) -> None:
    """What looks too deep may be broken before: then that is the fault."""
    fault = _fault(body[start:offset].decode())
    if fault is not None and not fault[2]:
        _refuse(index, start + fault[0], fault[1])


def _refuse_other(body: bytes, start: int, index: int, limits: Limits) -> NoReturn:
    """Something that is no object stands where an event should begin."""
    text = body[start : start + limits.event_size_bytes_max].decode(errors="ignore")
    if _LOG_LINE.match(text):
        _refuse(index, start, "it looks like a line of a log", advice=_LOG_LINE_ADVICE)
    try:
        value, _ = _exact.raw_decode(text)
    except _NotJsonError as error:
        _refuse(index, start, str(error))
    except json.JSONDecodeError as error:
        _refuse(index, start + len(text[: error.pos].encode()), _words(error))
    except RecursionError:
        value = []
    raise LogweirError(EVENT_NOT_OBJECT, event_index=index, byte_offset=start, found=_kind_of(value))


# As syslog sends lines, and as /var/log has them.
_LOG_LINE = re.compile("<[0-9]{1,3}>|[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:")
_LOG_LINE_ADVICE = (
    'Send each line as the text of an event, {"message": "…"}: docs/how-to/send.md says how.'
    " Nothing of this request was accepted."
)


def _refuse(index: int, offset: int, reason: str, **more: str) -> NoReturn:
    raise LogweirError(JSON_BAD, event_index=index, byte_offset=offset, reason=reason, **more)


def _skip(body: bytes, start: int) -> int:
    match = _SKIP.match(body, start)
    assert match is not None
    return match.end()


# --- what cannot be read, kept ------------------------------------------------------------------------------------
_BEFORE_OBJECT = re.compile(rb"\n(?=\{)")


def _salvaged(body: bytes, limits: Limits) -> Parsed:
    """The lines of a body that are good events, and what stands between them; a long one of these in several pieces."""
    events: list[bytes] = []
    kept = 0
    for chunk in _chunks(body):
        good, rest = _good_in(chunk, limits)
        size_bytes_max = limits.event_size_bytes_max
        pieces = [rest[at : at + size_bytes_max] for at in range(0, len(rest), size_bytes_max)]
        events += good + pieces
        kept += len(pieces)
        if len(events) > limits.events_per_request_max:
            raise LogweirError(EVENTS_TOO_MANY, events_max=limits.events_per_request_max)
    return Parsed(events, kept=kept) if events else Parsed([body[: limits.event_size_bytes_max]], kept=1)


def _chunks(body: bytes) -> Iterator[bytes]:
    """Yield what may be an event: a line that begins with `{` and what follows it; any array as a whole."""
    whole = body.strip(_SPACE)
    start = 0
    if not (whole.startswith(b"[") and whole.endswith(b"]")) and not _looks_like(whole):
        for end in _BEFORE_OBJECT.finditer(whole):
            if chunk := whole[start : end.start()].strip(_SPACE):
                yield chunk
            start = end.end()
    if start < len(whole):
        yield whole[start:]


def _good_in(chunk: bytes, limits: Limits) -> tuple[list[bytes], bytes]:
    """The events that the chunk is, or that its first line is, and what is left of it."""
    events = _events_or_none(chunk, limits)
    if events is not None:
        return events, b""
    first, _, rest = chunk.partition(b"\n")
    events = _events_or_none(first, limits) if rest else None
    return ([], chunk) if events is None else (events, rest)


def _events_or_none(text: bytes, limits: Limits) -> list[bytes] | None:
    try:
        events = _split_fast(text, limits)
        return _split_exactly(text, limits) if events is None else events
    except LogweirError:
        return None


# --- where a broken event breaks ----------------------------------------------------------------------------------
class _NotJsonError(ValueError):
    """The parser met a word that only JavaScript knows."""


class _Number(str):
    """A number, as its digits: a huge one would cost more to convert than it is worth."""

    __slots__ = ()


def _refuse_constant(word: str) -> NoReturn:
    raise _NotJsonError(f"{word} is not JSON")


_exact = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_Number, parse_float=_Number)
_CONSTANT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?Infinity|NaN', re.DOTALL)


def _fault(text: str) -> tuple[int, str, bool] | None:
    """Where (byte offset) and why the text of one event is not JSON, and whether it only ends too early."""
    try:
        _exact.raw_decode(text)
    except _NotJsonError as error:
        constant = next(match for match in _CONSTANT.finditer(text) if not match.group().startswith('"'))
        return len(text[: constant.start()].encode()), str(error), False
    except json.JSONDecodeError as error:
        position, reason = _position_and_reason(text, error)
        truncated = position >= len(text.rstrip(" \t\n\r")) or error.msg.startswith("Unterminated string")
        return len(text[:position].encode()), reason, truncated or _ends_in_a_word(text, position)
    except RecursionError:
        return 0, "it is nested too deep to be read", False
    return None


def _ends_in_a_word(text: str, position: int) -> bool:
    """A cut through ``true`` or a number leaves a beginning that the parser refuses at its first letter."""
    rest = text[position:]
    return any(word.startswith(rest) for word in ("true", "false", "null", "-", "\\u0000"))


_WORDS = {
    "Expecting value": "a value is missing or is none that JSON knows",
    "Expecting ',' delimiter": "',' or the end is missing",
    "Expecting ':' delimiter": "':' is missing",
    "Expecting property name enclosed in double quotes": "a name in double quotes is missing",
    "Unterminated string starting at": "the text that begins here has no end",
    "Invalid control character at": "a control character must be escaped",
}


_COMMA_BEFORE_END = re.compile(r"[ \t\n\r]*[}\]]")


def _position_and_reason(text: str, error: json.JSONDecodeError) -> tuple[int, str]:
    # From Python 3.13 on a trailing comma is named at the comma, before at what follows it.
    position = error.pos + error.msg.startswith("Illegal trailing comma")
    end = _COMMA_BEFORE_END.match(text, position)
    if end is not None and text[:position].rstrip(" \t\n\r").endswith(","):
        return end.end() - 1, "something must follow the comma"
    return position, _words(error)


def _words(error: json.JSONDecodeError) -> str:
    return _WORDS.get(error.msg, error.msg[:1].lower() + error.msg[1:])


def _kind_of(value: object) -> str:
    if isinstance(value, _Number):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "an array"
    return "null" if value is None else str(value).lower()


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_utf8(body: bytes, limits: Limits) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        index = _index_at(body, error.start, limits)
        raise LogweirError(
            UTF8_BAD, byte_offset=error.start, event_index=index, looks_like=_looks_like(body)
        ) from error


_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\x1f\x8b", "gzip, which Content-Encoding must say"),
    (b"\x28\xb5\x2f\xfd", "zstd, which Content-Encoding must say"),
)
_WIDE = re.compile(rb"(?P<utf32>[\[{ \t\n\r]\x00{3}|\x00{3}[\[{ \t\n\r])|[\[{ \t\n\r]\x00(?!\x00)|\x00[\[{ \t\n\r]")


def _looks_like(body: bytes) -> str:
    """What else a body may be that is not UTF-8, for the answer."""
    found = next((name for mark, name in _MARKS if body.startswith(mark)), "")
    if not found and (wide := _WIDE.match(body)):
        found = "UTF-32" if wide["utf32"] else "UTF-16"
    return f", but looks like {found}" if found else ""


def _index_at(body: bytes, offset: int, limits: Limits) -> int:
    """In which event the byte at ``offset`` lies, as far as what stands before it can be read."""
    before = body[:offset]
    start = _skip(before, len(_BYTE_ORDER_MARK) if before.startswith(_BYTE_ORDER_MARK) else 0)
    walk = _array_spans if before[start : start + 1] == b"[" else _stream_spans
    index = 0
    try:
        for index, _ in enumerate(walk(before, start, limits), start=1):
            if index > limits.events_per_request_max:
                break
    except LogweirError:
        pass
    return index
