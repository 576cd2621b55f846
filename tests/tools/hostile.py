"""What a door may be sent by good, careless, slow, greedy and hostile clients: made by hypothesis, in endless variety.

Each strategy gives Cases. ``split`` says, independently of the door's own parser, which events are in a body.
"""

from __future__ import annotations

import contextlib
import enum
import gzip
import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard
from hypothesis import strategies as st

# The door's limits while it is tested: small, so that going past them is cheap.
BODY_SIZE_BYTES_MAX = 1024 * 1024
DECOMPRESSED_SIZE_BYTES_MAX = 4 * 1024 * 1024
EVENT_SIZE_BYTES_MAX = 64 * 1024
EVENTS_MAX = 2000
HEADER_SIZE_BYTES_MAX = 16 * 1024
DEPTH_MAX = 32
HEADER_TIMEOUT_S = 2.0
BODY_TIMEOUT_S = 2.5
ENVIRONMENT = {
    "LOGWEIR_INGEST_BODY_SIZE_BYTES_MAX": str(BODY_SIZE_BYTES_MAX),
    "LOGWEIR_INGEST_DECOMPRESSED_SIZE_BYTES_MAX": str(DECOMPRESSED_SIZE_BYTES_MAX),
    "LOGWEIR_INGEST_EVENT_SIZE_BYTES_MAX": str(EVENT_SIZE_BYTES_MAX),
    "LOGWEIR_INGEST_EVENTS_PER_REQUEST_MAX": str(EVENTS_MAX),
    "LOGWEIR_INGEST_HEADER_SIZE_BYTES_MAX": str(HEADER_SIZE_BYTES_MAX),
    "LOGWEIR_INGEST_DEPTH_MAX": str(DEPTH_MAX),
    "LOGWEIR_INGEST_HEADER_TIMEOUT_S": str(HEADER_TIMEOUT_S),
    "LOGWEIR_INGEST_BODY_TIMEOUT_S": str(BODY_TIMEOUT_S),
    "LOGWEIR_INGEST_TRUSTED_PROXIES": "127.0.0.0/8",
}
KEY = b"@KEY@"
"""Stands in a case for the door's key."""
NOBODY = "203.0.113.66"
"""No event comes from this address: only trailers say so."""


class Verdict(enum.Enum):
    """What is right. OPEN: it depends on what a mutation hit, or on who is quicker; the answers say what happened."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Case:
    """What goes over one connection.

    ``wire``: bytes, and between them seconds to wait, or None: an answer is heard first. ``answers``: how many are due;
    0 when nobody waits for them. ``events``: what is in the queue if the door accepts. ``may_be_cut``: the door may end
    the connection instead of answering, or so that the answer is lost with what it did not read.
    """

    wire: tuple[bytes | float | None, ...]
    verdict: Verdict
    events: tuple[bytes, ...] = ()
    answers: int = 1
    may_be_cut: bool = False
    resets: bool = False


# --- events and bodies --------------------------------------------------------------------------------------------
# Ids are drawn, so that a seed gives the same again; that two events are equal now and then does no harm.
_ids = st.integers(0, 10**12 - 1)
_EVENTS_BY_HAND = (
    b'{"id":"%d","n":1e999,"m":-0.0}',
    b'{"id":"%d","n":123456789012345678901234567890123456789012345678901234567890}',
    b'{"id":"%d","same":1,"same":2}',
    b'{"id":"%d","lone":"\\ud800","pair":"\\ud83d\\ude00","nul":"\\u0000"}',
    b'{ "id" : "%d" ,\r\n\t"":[ ] , "{}":"]}[{" }',
    b'{"id":"%d","deep":' + b'{"d":' * (DEPTH_MAX - 1) + b"0" + b"}" * (DEPTH_MAX - 1) + b"}",
    b'{"id":"%d","deep":' + b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1) + b"}",
    b'{"id":"%d","digits":' + b"7" * 6000 + b"}",
    '{"id":"%d","text":"žluťoučký 日本 \U0001f600\x7f"}'.encode(),
)

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def _event(draw: st.DrawFn) -> bytes:
    id_ = draw(_ids)
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(_EVENTS_BY_HAND)).replace(b"%d", b"%012d" % id_)
    fields = draw(st.dictionaries(st.text(max_size=8), _values, max_size=4))
    fields["id"] = f"{id_:012d}"
    layout = draw(st.sampled_from(({"separators": (",", ":")}, {}, {"indent": 1})))
    return json.dumps(fields, ensure_ascii=draw(st.booleans()), **layout).encode()


_space = st.sampled_from((b"", b"", b" ", b"\n", b"\r\n", b"\t \n\n"))


@st.composite
def _body(draw: st.DrawFn) -> bytes:
    """Events in any of the forms that the door takes."""
    events = draw(st.lists(_event(), min_size=1, max_size=5))
    space = draw(_space)
    is_array = draw(st.booleans())
    body = b"[" + (space + b"," + space).join(events) + b"]" if is_array else space.join(events)
    mark = b"\xef\xbb\xbf" if draw(st.integers(0, 9)) == 0 else b""
    return mark + draw(_space) + body + draw(_space)


class _NotJsonError(ValueError):
    pass


def _refuse_constant(word: str) -> None:
    raise _NotJsonError(word)


_parser = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=str, parse_float=str)
_SPACE = " \t\n\r"


def split(body: bytes) -> tuple[bytes, ...] | None:
    """The events in a body, by the rules of the door's documentation; None when it must be refused."""
    try:
        text = body.decode().removeprefix("\ufeff")
        found = list(_array(text) if text.lstrip(_SPACE).startswith("[") else _stream(text))
    except (ValueError, RecursionError):
        return None
    events = tuple(text[start:end].encode() for start, end, _ in found)
    if not events or len(events) > EVENTS_MAX or any(len(event) > EVENT_SIZE_BYTES_MAX for event in events):
        return None
    is_right = all(isinstance(value, dict) and _depth(value) <= DEPTH_MAX for _, _, value in found)
    return events if is_right else None


def _stream(text: str) -> Iterator[tuple[int, int, Any]]:
    at = _skip(text, 0)
    while at < len(text):
        value, end = _parser.raw_decode(text, at)
        yield at, end, value
        at = _skip(text, end)


def _array(text: str) -> Iterator[tuple[int, int, Any]]:
    at = _skip(text, _skip(text, 0) + 1)
    while True:
        value, end = _parser.raw_decode(text, at)
        yield at, end, value
        at = _skip(text, end)
        if text[at : at + 1] == "]" and _skip(text, at + 1) == len(text):
            return
        if text[at : at + 1] != ",":
            raise _NotJsonError(text[at:])
        at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0) if isinstance(value, dict | list) else 0


@st.composite
def _mutated(draw: st.DrawFn, base: bytes) -> bytes:
    """The bytes with a few of them changed, missing, doubled or added."""
    data = bytearray(base)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 1, 1, 2, 7, 10_000))))
        data[start:end] = draw(st.binary(max_size=3) | st.sampled_from(_TOKENS) | st.just(bytes(data[start:end] * 2)))
    return bytes(data)


_TOKENS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b'"',
    b"\\",
    b"NaN",
    b"Infinity",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\r\n",
    b"{}",
)


# --- requests -----------------------------------------------------------------------------------------------------
def _head(method: bytes, path: bytes, headers: Sequence[tuple[bytes, bytes]], version: bytes = b"HTTP/1.1") -> bytes:
    lines = [b"%b %b %b\r\n" % (method, path, version)]
    return b"".join([*lines, *(b"%b: %b\r\n" % header for header in headers), b"\r\n"])


_HOST_AND_KEY = ((b"Host", b"door.example.com"), (b"X-Log-Key", KEY))
_COMPRESSORS = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"zstd": zstandard.ZstdCompressor().compress,
}
_visible = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["Cc"]), max_size=30).map(
    lambda text: text.encode("latin-1")
)
_harmless = st.sampled_from(
    (
        (b"Content-Type", b"application/json; charset=iso-8859-1"),
        (b"Content-Type", b"text/plain"),
        (b"Content-Type", b"multipart/form-data"),
        (b"Accept-Encoding", b"br"),
        (b"Connection", b"keep-alive"),
        (b"Log-Emitter", "kühlhaus 7".encode()),
        (b"Cookie", b"a=b"),
        (b"X-Forwarded-For", b"not, an, address"),
        (b"Authorization", b"Basic Zm9v"),
        (b"Transfer-Coding", b"x"),
        (b"Range", b"bytes=0-0"),
    )
) | st.tuples(st.just(b"X-Any"), _visible)


@st.composite
def _with_body(draw: st.DrawFn, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> tuple[bytes, bytes]:
    """Head and body of a POST, the body announced or in chunks."""
    path = draw(st.sampled_from((b"/events", b"/")))
    if draw(st.integers(0, 3)):
        return _head(b"POST", path, [*headers, (b"Content-Length", b"%d" % len(body))]), body
    size = draw(st.integers(1, max(1, len(body))))
    size = max(size, len(body) // 50)
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return _head(b"POST", path, [*headers, (b"Transfer-Encoding", b"chunked")]), wire


@st.composite
def _in_pieces(draw: st.DrawFn, data: bytes) -> tuple[bytes | float, ...]:
    """The bytes as the network may bring them."""
    cuts = sorted(_beside_key(data, cut) for cut in draw(st.lists(st.integers(0, len(data)), max_size=3)))
    pieces: list[bytes | float] = []
    for start, end in itertools.pairwise((0, *cuts, len(data))):
        pieces += [data[start:end], draw(st.sampled_from((0.0, 0.0, 0.001)))]
    return tuple(pieces[:-1])


def _beside_key(data: bytes, cut: int) -> int:
    """The cut, or where the KEY begins that it would tear: nobody could put the real one there."""
    start = data.find(KEY, max(0, cut - len(KEY) + 1), cut + len(KEY) - 1)
    return cut if start < 0 else start


@st.composite
def good(draw: st.DrawFn) -> Case:
    """What a right client sends, in every way in which it may."""
    body = draw(_body())
    headers = [*_HOST_AND_KEY, *draw(st.lists(_harmless, max_size=3, unique_by=lambda header: header[0]))]
    encoding = draw(st.sampled_from((b"", b"", *_COMPRESSORS)))
    sent = body
    if encoding:
        sent = _COMPRESSORS[encoding](body)
        headers.append((b"Content-Encoding", encoding))
    events = split(body)
    assert events
    return Case(draw(_in_pieces(b"".join(draw(_with_body(headers, sent))))), Verdict.ACCEPTED, events)


@st.composite
def careless(draw: st.DrawFn) -> Case:
    """Whole requests whose body is damaged, or nothing like events."""
    base = draw(_body())
    body = draw(_mutated(base) | _mutated(base) | st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
    events = split(body)
    verdict = Verdict.REFUSED if events is None else Verdict.ACCEPTED
    return Case((b"".join(draw(_with_body(_HOST_AND_KEY, body))),), verdict, events or ())


_addresses = st.sampled_from((b"198.51.100.7", b"[2001:db8::1]:80", b"127.0.0.9", b"x", b"1.2.3.4, 5.6.7.8", b","))


@st.composite
def attributed(draw: st.DrawFn) -> Case:
    """Good bodies under all that emitters, their retries and proxies may say, in any combination."""
    body = draw(_body())
    number = st.sampled_from((0, 1, 7, 2**52)).map(lambda number: b"%d" % number)
    more = {
        b"Log-Emitter": st.sampled_from((b"web-1", "kühlhaus 7".encode())),
        b"X-Forwarded-For": _addresses,
        b"Idempotency-Key": st.sampled_from((b"job 7", b"x" * 200)),
    }
    headers = [*_HOST_AND_KEY]
    if draw(st.booleans()):
        headers += [(b"Log-Epoch", b"e1"), (b"Log-Seq", draw(st.sampled_from((b"1", b"4096", b"%d" % 2**52))))]
        more |= {
            b"Log-High": number,
            b"Log-Prev": number.map(lambda last: b"e0:" + last),
            b"Log-Dropped": number.map(lambda count: b"full=" + count),
            b"Log-Bye": st.sampled_from((b"0", b"1")),
        }
    headers += [(name, draw(value)) for name, value in more.items() if draw(st.booleans())]
    return Case(draw(_in_pieces(b"".join(draw(_with_body(headers, body))))), Verdict.ACCEPTED, split(body) or ())


_TRAILERS = (
    (b"X-Forwarded-For", NOBODY.encode()),
    (b"Log-Emitter", b"\xff"),
    (b"Log-Epoch", b"e"),
    (b"Log-Seq", b"-1"),
    (b"Content-Encoding", b"gzip"),
    (b"Idempotency-Key", b""),
    (b"Expect", b"100-continue"),
    (b"X-Log-Key", b"wrong"),
    (b"X-Any", b"x"),
)


@st.composite
def trailing(draw: st.DrawFn) -> Case:
    """Headers behind the body, which count for nothing: they let nobody in, and keep nobody out."""
    body = draw(_body())
    is_let_in = draw(st.booleans())
    trailers = draw(st.lists(st.sampled_from(_TRAILERS), max_size=4))
    trailers += [] if is_let_in else [(b"X-Log-Key", KEY)]
    before = [*_HOST_AND_KEY[: 1 + is_let_in], (b"Transfer-Encoding", b"chunked")]
    behind = b"".join(b"%b: %b\r\n" % trailer for trailer in trailers)
    head, rest = _head(b"POST", b"/events", before), b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, behind)
    wire = draw(st.sampled_from(((head + rest,), (head, 0.01, rest))))
    return Case(wire, Verdict.ACCEPTED, split(body) or ()) if is_let_in else Case(wire, Verdict.REFUSED)


@st.composite
def unwelcome(draw: st.DrawFn) -> Case:
    """Right bodies that must not be let in: no key, a wrong one, an encoding that is none or does not fit."""
    body = draw(_body())
    headers = draw(
        st.sampled_from(
            (
                _HOST_AND_KEY[:1],
                (*_HOST_AND_KEY[:1], (b"X-Log-Key", b"lw_" + b"A" * 43)),
                (*_HOST_AND_KEY[:1], (b"X-Log-Key", b"\xff\xfe")),
                (*_HOST_AND_KEY[:1], (b"Authorization", b"Bearer ")),
                (*_HOST_AND_KEY, (b"Content-Encoding", b"br")),
                (*_HOST_AND_KEY, (b"Content-Encoding", b"gzip, gzip")),
                (*_HOST_AND_KEY, (b"Content-Encoding", b"gzip")),
                (*_HOST_AND_KEY, (b"Content-Encoding", b"zstd")),
                (*_HOST_AND_KEY, (b"Log-Seq", b"1")),
                (*_HOST_AND_KEY, (b"Log-Epoch", b"e"), (b"Log-Seq", b"-1")),
                (*_HOST_AND_KEY, (b"Log-Emitter", b"\xff")),
                (*_HOST_AND_KEY, (b"Idempotency-Key", b"")),
            )
        )
    )
    return Case(draw(_in_pieces(b"".join(draw(_with_body(headers, body))))), Verdict.REFUSED)


@st.composite
def damaged_compression(draw: st.DrawFn) -> Case:
    """Compressed bodies that were changed on their way; what is left may be read all the same."""
    body = draw(_body())
    encoding, compress = draw(st.sampled_from(tuple(_COMPRESSORS.items())))
    damaged = draw(_mutated(compress(body)))
    head, sent = draw(_with_body([*_HOST_AND_KEY, (b"Content-Encoding", encoding)], damaged))
    return Case((head + sent,), Verdict.OPEN, split(_decompressed(damaged, encoding)) or ())


def _decompressed(data: bytes, encoding: bytes) -> bytes:
    """What the library of the encoding reads; nothing when it refuses."""
    for decompress in _DECOMPRESSORS[encoding]:
        with contextlib.suppress(zlib.error, zstandard.ZstdError, OSError, EOFError):
            return decompress(data)
    return b""


_DECOMPRESSORS: dict[bytes, tuple[Callable[[bytes], bytes], ...]] = {
    b"gzip": (gzip.decompress,),
    b"deflate": (zlib.decompress, lambda data: zlib.decompress(data, -zlib.MAX_WBITS)),
    b"zstd": (lambda data: zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read(),),
}


@st.composite
def damaged_head(draw: st.DrawFn) -> Case:
    """Requests whose headers were changed: lengths that are too short or too long, methods and names that are none."""
    body = draw(_body())
    head, sent = draw(_with_body(_HOST_AND_KEY, body))
    return Case((draw(_mutated(head)) + sent,), Verdict.OPEN, split(body) or (), may_be_cut=True)


_TWO_LENGTHS = b"Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
_SMUGGLING = (
    b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n\r\n",
    b"Content-Length: +%d\r\n\r\n",
    b"Content-Length: -%d\r\n\r\n",
    b"Content-Length: 0x%x\r\n\r\n",
    b"Content-Length: %d, 7\r\n\r\n",
    b"Content-Length: 99999999999999999999\r\n\r\n",
    b"Content-Length : %d\r\n\r\n",
    b"Content-Length:\r\n %d\r\n\r\n",
    b"X: y\rContent-Length: %d\r\n\r\n",
    b"X\x00: y\r\nContent-Length: %d\r\n\r\n",
    b"Content-Length: %d\n\n",
)
_CHUNKS = (
    b"%x;a=b\r\n%b\r\n0\r\n\r\n",
    b"%x\r\n%b\r\n0\r\nTrailer: x\r\n\r\n",
    b"%x\n%b\n0\n\n",
    b"-%x\r\n%b\r\n0\r\n\r\n",
    b"%xg\r\n%b\r\n0\r\n\r\n",
    b"ffffffffffffffff%x\r\n%b\r\n",
    b"%x\r\n%bX\r\n0\r\n\r\n",
    b"0%x \r\n%b\r\n0\r\n\r\n",
)


@st.composite
def smuggling(draw: st.DrawFn) -> Case:
    """Bodies whose length can be read in two ways, and requests hidden behind them."""
    event = draw(_event())
    head = b"POST /events HTTP/1.1\r\nHost: a\r\nX-Log-Key: " + KEY + b"\r\n"
    how = draw(st.integers(0, 2))
    if how == 0:
        ending = draw(st.sampled_from(_SMUGGLING))
        head += ending % len(event) if b"%" in ending else ending
        sent = event
    elif how == 1:
        head += _TWO_LENGTHS % (len(event), draw(st.integers(0, 2 * len(event))))
        sent = event
    else:
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        sent = draw(st.sampled_from(_CHUNKS)) % (len(event), event)
    behind = draw(st.sampled_from((b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00\x00", b"0\r\n\r\n")))
    return Case((head + sent + behind,), Verdict.OPEN, (event,), may_be_cut=True)


_NO_HTTP = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"<34>1 2026-01-01T00:00:00Z a b - - -\n",
    b"GET /\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\n\r\n",
    b"EHLO door\r\n",
    b"SSH-2.0-x\r\n\r\n",
    b"\x00" * 64,
    b"\r\n" * 40 + b"x\r\n\r\n",
    b"{}\n" * 9 + b"\r\n\r\n",
)


@st.composite
def not_http(draw: st.DrawFn) -> Case:
    """What other protocols, scanners and broken programs send."""
    data = draw(
        st.sampled_from(_NO_HTTP) | st.binary(min_size=1, max_size=200) | st.sampled_from(_NO_HTTP).flatmap(_mutated)
    )
    return Case((data,), Verdict.OPEN, may_be_cut=True)


_PATHS = (
    b"/",
    b"/events",
    b"/events/",
    b"//events",
    b"/healthz",
    b"/readyz",
    b"/metrics",
    b"/receipts/x",
    b"/nowhere",
    b"*",
    b"/%00",
    b"/%ff%fe",
    b"/../../etc/passwd",
)


@st.composite
def elsewhere(draw: st.DrawFn) -> Case:
    """Other endpoints, methods and paths, with and without a body. None of it is an event."""
    method = draw(st.sampled_from((b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PURGE", b"TRACE")))
    path = draw(st.sampled_from(_PATHS) | _visible.map(lambda text: b"/" + text.replace(b"?", b"%")))
    if method == b"POST" and path in (b"/", b"/events"):
        path = b"/receipts/" + path
    path += draw(st.sampled_from((b"", b"", b"?a=b", b"?" + b"x" * 3000, b"#f")))
    body = draw(st.sampled_from((b"", b"{}", b"x" * 3000)))
    headers = [*_HOST_AND_KEY, (b"Content-Length", b"%d" % len(body))]
    return Case((_head(method, path, headers) + body,), Verdict.OPEN, may_be_cut=True)


@st.composite
def pipelined(draw: st.DrawFn) -> Case:
    """Several good requests in one go, answered in their order."""
    bodies = draw(st.lists(_body(), min_size=2, max_size=6))
    wire = b"".join(
        _head(b"POST", b"/events", [*_HOST_AND_KEY, (b"Content-Length", b"%d" % len(body))]) + body for body in bodies
    )
    events = [event for body in bodies for event in split(body) or ()]
    return Case(draw(_in_pieces(wire)), Verdict.ACCEPTED, tuple(events), answers=len(bodies))


@st.composite
def kept(draw: st.DrawFn) -> Case:
    """Several good requests over one connection, one after another, with bodies of all sizes in pieces."""
    wire: list[bytes | float | None] = []
    events: list[bytes] = []
    count = draw(st.integers(2, 4))
    for _ in range(count):
        size = draw(st.sampled_from((10, 1000, 20_000, 50_000)))
        batch = [b'{"id":"%012d","a":"%b"}' % (draw(_ids), b"x" * size) for _ in range(draw(st.integers(1, 4)))]
        wire += [*draw(_in_pieces(b"".join(draw(_with_body(_HOST_AND_KEY, b"\n".join(batch)))))), None]
        events += batch
    return Case(tuple(wire[:-1]), Verdict.ACCEPTED, tuple(events), answers=count)


# --- huge ---------------------------------------------------------------------------------------------------------
@st.composite
def huge(draw: st.DrawFn) -> Case:
    """Around each limit, and far beyond it."""
    return draw(st.sampled_from(_HUGE))(draw)


def _huge_body(draw: st.DrawFn) -> Case:
    size = BODY_SIZE_BYTES_MAX + draw(st.sampled_from((1, 1000, 5_000_000)))
    head, sent = draw(_with_body(_HOST_AND_KEY, b'{"a":"' + b"x" * (size - 8) + b'"}'))
    return Case((head, sent), Verdict.REFUSED, may_be_cut=True)


def _huge_event(draw: st.DrawFn) -> Case:
    over = draw(st.sampled_from((-1, 0, 0, 1, 2, 50_000)))
    event = b'{"id":"%012d","a":"' % draw(_ids)
    event += b"x" * (EVENT_SIZE_BYTES_MAX + over - len(event) - 2) + b'"}'
    verdict = Verdict.REFUSED if over > 0 else Verdict.ACCEPTED
    return Case((b"".join(draw(_with_body(_HOST_AND_KEY, event))),), verdict, () if over > 0 else (event,))


def _many_events(draw: st.DrawFn) -> Case:
    count = EVENTS_MAX + draw(st.sampled_from((0, 1, 30_000)))
    first = draw(_ids)
    events = tuple(b'{"id":"%d.%d"}' % (first, at) for at in range(count))
    joint = draw(st.sampled_from((b"\n", b"", b",")))
    body = joint.join(events)
    body = b"[" + body + b"]" if joint == b"," else body
    verdict = Verdict.ACCEPTED if count <= EVENTS_MAX else Verdict.REFUSED
    return Case(tuple(draw(_with_body(_HOST_AND_KEY, body))), verdict, events if count <= EVENTS_MAX else ())


def _bomb(draw: st.DrawFn) -> Case:
    inner = draw(st.sampled_from((b" ", b"[", b'{"a":', b"{}\n", b"\x00")))
    plain = inner * (DECOMPRESSED_SIZE_BYTES_MAX * draw(st.sampled_from((2, 10))) // len(inner))
    encoding, compress = draw(st.sampled_from(tuple(_COMPRESSORS.items())))
    head, sent = draw(_with_body([*_HOST_AND_KEY, (b"Content-Encoding", encoding)], compress(plain)))
    return Case((head, sent), Verdict.REFUSED)


def _costly(draw: st.DrawFn) -> Case:
    """Little on the wire, much when it is unpacked, all of it in tiny pieces, and broken at its very end."""
    piece = draw(st.sampled_from((b'"":""', b'"":[]', b'"":{"":1}')))
    event = b"{" + b",".join([piece] * (EVENT_SIZE_BYTES_MAX // (len(piece) + 1) - 1)) + b"}\n"
    # The ratio is limited: what does not compress makes room for what does.
    padding = random.Random(draw(_ids)).randbytes(DECOMPRESSED_SIZE_BYTES_MAX // 200).hex().encode()
    count = DECOMPRESSED_SIZE_BYTES_MAX // len(event) - 1
    plain = b'{"p":"%b"}\n' % padding[: EVENT_SIZE_BYTES_MAX - 20] + event * count + b'{"a":1,}'
    encoding, compress = draw(st.sampled_from(tuple(_COMPRESSORS.items())))
    return Case(
        tuple(draw(_with_body([*_HOST_AND_KEY, (b"Content-Encoding", encoding)], compress(plain)))), Verdict.REFUSED
    )


def _deep(draw: st.DrawFn) -> Case:
    depth = draw(st.sampled_from((DEPTH_MAX, 1000, 100_000)))
    opening, closing = draw(st.sampled_from(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"":', b"}]"))))
    body = b'{"a":' + opening * depth + b"0" + draw(st.sampled_from((closing * depth + b"}", b"")))
    return Case(tuple(draw(_with_body(_HOST_AND_KEY, body))), Verdict.REFUSED)


def _huge_head(draw: st.DrawFn) -> Case:
    size = draw(st.sampled_from((HEADER_SIZE_BYTES_MAX + 100, 100_000, 2_000_000)))
    head = draw(
        st.sampled_from(
            (
                b"GET /" + b"x" * size + b" HTTP/1.1\r\nHost: a\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * size + b"\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (size // 6 + 1) + b"\r\n",
                b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x" * size + b": y\r\n\r\n",
            )
        )
    )
    return Case((head,), Verdict.REFUSED, may_be_cut=True)


_HUGE = (_huge_body, _huge_event, _many_events, _bomb, _costly, _deep, _huge_head)


# --- slow ---------------------------------------------------------------------------------------------------------
@st.composite
def slow(draw: st.DrawFn) -> Case:
    """Clients that take their time: within the limits, beyond them, or for ever."""
    event = draw(_event())
    head = _head(b"POST", b"/events", [*_HOST_AND_KEY, (b"Content-Length", b"%d" % len(event))])
    middle = len(event) // 2
    how = draw(st.integers(0, 6))
    if how == 0:  # A pause that is allowed.
        return Case((head, 0.2, event[:middle], 0.2, event[middle:]), Verdict.ACCEPTED, (event,))
    if how == 1:
        return Case((head[: draw(st.integers(0, len(head) - 1))],), Verdict.REFUSED, may_be_cut=True)
    if how == 2:
        return Case((head, event[: draw(st.integers(0, len(event) - 1))]), Verdict.REFUSED, may_be_cut=True)
    if how == 3:  # Headers that drip in.
        return Case(_dripping(head, HEADER_TIMEOUT_S), Verdict.REFUSED, may_be_cut=True)
    if how == 4:  # A body that does.
        return Case((head, *_dripping(event, BODY_TIMEOUT_S)), Verdict.REFUSED, may_be_cut=True)
    if how == 5:  # A client that waits for leave to send.
        head = head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        return Case((head, 0.2, event), Verdict.ACCEPTED, (event,))
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    head = _head(b"POST", b"/events", [*_HOST_AND_KEY, (b"Transfer-Encoding", b"chunked")])
    return Case((head + chunk,), Verdict.REFUSED, may_be_cut=True)  # The last chunk never comes.


def _dripping(data: bytes, timeout_s: float) -> tuple[bytes | float, ...]:
    """A byte now and then, until long after the time is over."""
    pieces: list[bytes | float] = []
    for at in range(min(len(data) - 1, int(timeout_s / 0.2) + 5)):
        pieces += [data[at : at + 1], 0.2]
    return tuple(pieces)


@st.composite
def gone(draw: st.DrawFn) -> Case:
    """Clients that leave without waiting for the answer, in the middle or behind a whole request."""
    event = draw(_event())
    head, sent = draw(_with_body(_HOST_AND_KEY, event))
    wire = head + sent
    if draw(st.booleans()):
        wire = wire[: draw(st.integers(0, len(wire)))]
    elif draw(st.booleans()):
        wire = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 60
    return Case((wire,), Verdict.OPEN, (event,), answers=0, resets=draw(st.booleans()))


# How many of twenty-three cases are of which kind. Those that may hold a connection until its time is over are fewer.
KINDS = {
    good: 4,
    attributed: 1,
    trailing: 1,
    careless: 5,
    unwelcome: 1,
    damaged_compression: 2,
    damaged_head: 1,
    smuggling: 1,
    not_http: 1,
    elsewhere: 1,
    pipelined: 1,
    kept: 1,
    huge: 1,
    slow: 1,
    gone: 1,
}
