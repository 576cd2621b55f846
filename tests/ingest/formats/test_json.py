"""JSON bodies: what is an event and what is refused, by golden cases and against a second reader of JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logweir.errors import BODY_EMPTY, EVENT_TOO_LARGE, EVENTS_TOO_MANY, JSON_BAD, LogweirError
from logweir_ingest.formats import json as json_format
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Request

GOLDEN = Path(__file__).parents[2] / "golden" / "formats" / "json"
LIMITS = Limits(
    body_size_bytes_max=10_000,
    decompressed_size_bytes_max=100_000,
    decompression_ratio_max=10,
    event_size_bytes_max=1000,
    events_per_request_max=20,
    depth_max=8,
    refused_size_bytes_max=100,
)


REQUEST = Request("POST", "/events", {}, "")


def split(body: bytes, limits: Limits) -> list[bytes]:
    return json_format.JsonFormat().split(REQUEST, body, limits).events


RULES = {
    "first byte `{`": "object, ndjson, ndjson-crlf, blank-lines, concatenated, pretty-concatenated",
    "first byte `[`": "array, array-pretty, behind-array, array-of-arrays, array-of-numbers",
    "anything else that is JSON": "number, text, null, true, array-behind-object",
    "nothing, white space only, `[]`": "empty, white-space, empty-array, byte-order-mark-alone",
    "UTF-8 byte order mark at the start": "byte-order-mark, byte-order-mark-array, "
    "byte-order-mark-twice, byte-order-mark-between",
    "bytes that are not UTF-8": "not-utf8, latin1, utf8-surrogate, gzip-unnamed",
    "UTF-16, UTF-32": "utf16, utf16-no-mark, utf16-big-endian, utf32, utf32-no-mark",
    "NaN, Infinity, -Infinity": "nan, infinity, infinity-positive, nan-in-text",
    "integers of any size": "large-integer, huge-numbers",
    "1e999, 1e-999, any precision": "too-large-exponent, huge-numbers",
    "the same name twice in an object": "duplicate-names, duplicate-names-nested",
    r"`\u0000`": "nul-escape",
    r"lone surrogates (`\ud800`)": "lone-surrogate, surrogates-swapped, surrogate-pair",
    "bytes below U+0020, NUL too, in text": "control-character, nul-byte, nul-byte-outside",
    "commas at the end, comments, 'x', 0x1": "trailing-comma, trailing-comma-array, comment, single-quotes, "
    "unquoted-name, hexadecimal, plus-sign, leading-zero",
    "white space": "vertical-tab, no-break-space",
    "cut short": "truncated, truncated-text, truncated-array",
    "depth": "deepest, deepest-in-array, too-deep, too-deep-arrays, brackets-in-text",
    "size of an event": "largest, too-large",
    "number of events": "most, too-many",
}
"""The rows of the table in formats/json.py, and the golden bodies that show each."""


def test_every_stated_rule_has_golden_bodies() -> None:
    """The table of the format's own words names no rule without a body that shows it, and no body is without a rule."""
    assert json_format.__doc__ is not None
    rows = [line.split("|")[1].strip() for line in json_format.__doc__.splitlines() if line.startswith("| ")]
    shown = [name for names in RULES.values() for name in names.split(", ")]
    others = {
        "utf8",
        "bad-escape",
        "byte-not-character",
        "comma-between-objects",
        "form-encoded",
        "rsyslog-quotes",
        "object-pretty",
    }

    assert rows[1:] == list(RULES)
    assert {*shown, *others} == {path.stem for path in GOLDEN.glob("*.body")}
    assert not others & set(shown)


# --- against Python's json ----------------------------------------------------------------------------------------
def _refuse(word: str) -> None:
    raise ValueError(word)


_reader = json.JSONDecoder(parse_constant=_refuse, parse_int=str, parse_float=str)
_WHITE_SPACE = " \t\n\r"


def _reference(body: bytes) -> list[bytes] | None:
    """The events of a body by the plainest means, limits left out; None when it is to be refused."""
    try:
        text = body.decode().removeprefix("\ufeff").strip(_WHITE_SPACE)
        if text.startswith("["):
            values, spans = _reader.decode(text), []
            if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
                return None
            rest = text[1:].lstrip(_WHITE_SPACE)
            for _ in values:
                _, end = _reader.raw_decode(rest)
                spans.append(rest[:end].encode())
                rest = rest[end:].lstrip(_WHITE_SPACE).removeprefix(",").lstrip(_WHITE_SPACE)
            return spans or None
        events = []
        while text:
            value, end = _reader.raw_decode(text)
            if not isinstance(value, dict):
                return None
            events.append(text[:end].encode())
            text = text[end:].lstrip(_WHITE_SPACE)
        return events or None
    except ValueError:
        return None


_UNLIMITED = Limits(10**6, 10**6, 10**6, 10**6, 10**6, 10**6, 0)


def _split(body: bytes) -> list[bytes] | None:
    try:
        return split(body, _UNLIMITED)
    except LogweirError as error:
        assert 0 <= error.numbers.get("byte_offset", 0) <= len(body)
        return None


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.text(max_size=5), _values, max_size=3)
_written = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent),
    _objects,
    st.booleans(),
    st.sampled_from([None, 1]),
)
_bodies = st.one_of(
    st.builds(
        lambda parts, between: between.join(parts), st.lists(_written, max_size=4), st.sampled_from(["", "\n", " "])
    ),
    st.builds(lambda parts: "[" + ",".join(parts) + "]", st.lists(_written, max_size=4)),
    st.lists(
        st.sampled_from([*'{}[],:"\\ \n\t', "1", "-", ".", "e", "tru", "null", "NaN", "\\u12", "\\ud800", "ä", "x"]),
        max_size=14,
    ).map("".join),
).map(lambda text: text.encode(errors="surrogatepass"))


@given(body=_bodies)
@example(b'{"a":"\\ud800"}')
@example(b'{"a":"\\ud83d\\ude00"}{"a":"\\udc00"}')
@example(b'[{"a":[{"b":[]}]},{}]')
@example(b"{}\x00")
def test_bodies_are_split_as_a_second_reader_splits_them(body: bytes) -> None:
    """Accepted or refused, and where each event begins and ends: two readers of RFC 8259 agree."""
    assert _split(body) == _reference(body)


@given(body=_bodies, position=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_bodies_are_judged_as_a_second_reader_judges_them(
    body: bytes, position: float, byte: int, cut: bool
) -> None:
    """One byte changed, or the end cut off: still the same verdict, and never anything but an answer."""
    at = int(position * max(0, len(body) - 1))
    damaged = body[:at] if cut else body[:at] + bytes([byte]) + body[at + 1 :]

    assert _split(damaged) == _reference(damaged)


@given(body=_bodies)
def test_the_exact_way_agrees_with_the_fast_one(body: bytes) -> None:
    """Which of the two ways a body goes is a matter of cost, never of the result."""
    try:
        body.decode()
        exactly: list[bytes] | None = json_format._split_exactly(body, _UNLIMITED)
    except (LogweirError, UnicodeDecodeError):
        exactly = None

    assert exactly == _split(body)


# --- limits -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wrap", [b"%b", b"[%b]", b'{"first":1}\n%b'])
def test_the_largest_event_passes_and_one_byte_more_does_not(wrap: bytes) -> None:
    """The limit is on the raw bytes of one event, in every shape."""
    fits = b'{"a":"%b"}' % (b"x" * (LIMITS.event_size_bytes_max - 8))

    assert split(wrap % fits, LIMITS)[-1] == fits
    with pytest.raises(LogweirError) as caught:
        split(wrap % fits.replace(b"xx", b"xxx", 1), LIMITS)
    assert caught.value.problem is EVENT_TOO_LARGE


@pytest.mark.parametrize(("begin", "between", "end"), [(b"", b"\n", b""), (b"", b"", b""), (b"[", b",", b"]")])
def test_the_most_events_pass_and_one_more_does_not(begin: bytes, between: bytes, end: bytes) -> None:
    """The limit is on the events of one request, in every shape."""
    most = LIMITS.events_per_request_max

    assert len(split(begin + between.join([b"{}"] * most) + end, LIMITS)) == most
    with pytest.raises(LogweirError) as caught:
        split(begin + between.join([b"{}"] * (most + 1)) + end, LIMITS)
    assert caught.value.problem is EVENTS_TOO_MANY


def test_many_brackets_side_by_side_are_not_deep() -> None:
    """Depth is how far brackets enclose each other, not how many there are."""
    event = b'{"a":[' + b",".join([b"{}", b"[]", b'"[[[{{{"'] * 20) + b"]}"

    assert split(event, LIMITS) == [event]


LARGE = Limits(64 << 20, 64 << 20, 200, 256 << 10, 10_000, 32, 0)


@pytest.mark.parametrize(
    "body",
    [b"{}" * (4 << 20), b"[" + b"{}," * (3 << 20) + b"{}]", b"{}\n" * (3 << 20), b"[" + b"1," * (4 << 20) + b"1]"],
    ids=["concatenated", "array", "lines", "numbers"],
)
def test_millions_of_tiny_values_are_refused_early(body: bytes) -> None:
    """A body of 8 MiB that holds millions of values is refused after the 10,000 that are allowed, not after all."""
    started_s = time.process_time()
    with pytest.raises(LogweirError):
        split(body, LARGE)

    assert time.process_time() - started_s < 2


def test_large_bodies_are_split_in_every_shape() -> None:
    """Bodies beyond what the fast way takes in any shape give the same events."""
    events = [b'{"n":%d,"text":"%b"}' % (n, b"x" * 300) for n in range(9000)]

    assert split(b"\n".join(events), LARGE) == events
    assert split(b"".join(events), LARGE) == events
    assert split(b"[" + b",".join(events) + b"]", LARGE) == events
    assert split(b"\xef\xbb\xbf" + b"\r\n".join(events) + b"\r\n", LARGE) == events


@pytest.mark.parametrize("space", [b"\x0b", b"\x0c", b" \x0c ", b"\xc2\xa0", b" \t\r"])
def test_white_space_is_the_same_in_small_and_large_bodies(space: bytes) -> None:
    """What JSON calls so, between events as elsewhere: in a large body, whose lines are looked at one by one, too."""
    small = b'{"a":1}\n%b\n{"a":2}\n' % space
    large = small + (b'{"a":"%b"}\n' % (b"x" * 4000)) * 300
    taken = []
    for body in (small, large):
        try:
            taken.append(split(body, LARGE)[:2])
        except LogweirError as error:
            taken.append([error.problem.code.encode()])

    assert taken == [[b'{"a":1}', b'{"a":2}'] if space.isascii() and not space.strip(b" \t\r") else [b"json_bad"]] * 2


def test_white_space_alone_is_an_empty_body() -> None:
    """Nothing but line ends holds no event, however many there are."""
    with pytest.raises(LogweirError) as caught:
        split(b"\n" * (2 << 20), LARGE)
    assert caught.value.problem is BODY_EMPTY


@pytest.mark.parametrize(
    "line",
    [
        b"<38>Nov 30 12:00:00 web1 sshd[77]: Failed password",
        b"Nov  3 12:00:00 web1 sshd[77]: Failed password",
        b"2026-01-31T12:00:00Z web1 sshd[77]: Failed password",
        b'{"a": 1}\n<38>Nov 30 12:00:00 web1 sshd[77]: Failed password',
    ],
)
def test_a_line_of_a_log_is_told_from_broken_json(line: bytes) -> None:
    """Whose sender has no JSON to correct."""
    with pytest.raises(LogweirError) as error:
        split(line, LIMITS)

    assert error.value.problem is JSON_BAD
    assert "it looks like a line of a log" in error.value.detail
    assert "docs/how-to/send.md" in error.value.advice and '{"message": "…"}' in error.value.advice


# --- what cannot be read, kept ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "events", "kept"),
    [
        (b'{"a":1}\n{"a":"x"y"}\n{"a":2}\n', [b'{"a":1}', b'{"a":"x"y"}', b'{"a":2}'], 1),
        (b'{"a":"one\nline"}\n{"a":2}', [b'{"a":"one\nline"}', b'{"a":2}'], 1),
        (b'{"a":1}\nplain text\nand more\n{"a":2}', [b'{"a":1}', b"plain text\nand more", b'{"a":2}'], 1),
        (b'{"a":"x"y"}\r\n{"b":"x"y"}\r\n', [b'{"a":"x"y"}', b'{"b":"x"y"}'], 2),
        (b'{"a":"\xff"}\n{"a":2}', [b'{"a":"\xff"}', b'{"a":2}'], 1),
        (b'{\n"a": 1\n}\n{"a":\n', [b'{\n"a": 1\n}', b'{"a":'], 1),
        (b'{"a":1}{"a":2}\nrest', [b'{"a":1}', b'{"a":2}', b"rest"], 1),
        (b'{"a":"\\ud800"}\nrest', [b'{"a":"\\ud800"}', b"rest"], 1),
        (b'[{"a":1},\n{"a":"x"y"},\n{"a":2}]', [b'[{"a":1},\n{"a":"x"y"},\n{"a":2}]'], 1),
        (b"nonsense", [b"nonsense"], 1),
        (b"17\n", [b"17"], 1),
        (b"", [b""], 1),
        (b"\n\n", [b"\n\n"], 1),
        (b"[]", [b"[]"], 1),
        ('{"a":1}\n{"a":2}'.encode("utf-16"), ['{"a":1}\n{"a":2}'.encode("utf-16")], 1),
    ],
)
def test_what_cannot_be_read_is_kept_between_good_lines(body: bytes, events: list[bytes], kept: int) -> None:
    """Good lines are events; a line that begins as an object begins another event, be that good or not."""
    parsed = json_format.JsonFormat().keep(REQUEST, body, LIMITS)

    assert parsed.events == events
    assert parsed.kept == kept


def test_what_is_kept_is_cut_at_the_largest_event_and_nothing_is_left_out() -> None:
    """In pieces one after the other, for an event that is too large as for one without an end."""
    size = LIMITS.event_size_bytes_max
    for text in (b'{"a":"%b"}' % (b"x" * size), b'{"a":"%b' % (b"x" * 3 * size), b"y" * (size + 1)):
        parsed = json_format.JsonFormat().keep(REQUEST, b'{"good":1}\n' + text + b'\n{"good":2}', LIMITS)
        first, *pieces, last = parsed.events

        if text.startswith(b"{"):
            assert (first, b"".join(pieces), last) == (b'{"good":1}', text, b'{"good":2}')
        assert b"".join(parsed.events) == b'{"good":1}' + text + b'{"good":2}'
        assert max(map(len, parsed.events)) <= size


def test_more_lines_than_events_of_a_request_are_refused() -> None:
    """As they are when all are good."""
    body = b"{\n" * (LIMITS.events_per_request_max + 1)

    with pytest.raises(LogweirError) as caught:
        json_format.JsonFormat().keep(REQUEST, body, LIMITS)
    assert caught.value.problem is EVENTS_TOO_MANY
