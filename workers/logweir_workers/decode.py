"""The bytes of one accepted event as a dict: quickly where the bytes are plain, with care where they are odd.

What comes out fits into both stores: whole numbers within 64 bits, finite floats, no lone surrogates in values, at most
DEPTH_MAX levels. A number that would be written otherwise than it was sent is kept as its text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Container
from typing import Any, NoReturn

import msgspec
import orjson

from logweir import mend

DEPTH_MAX = 250
"""Deepest nesting that is read: orjson can write no more than 254 levels. The door's own limit is far below."""

_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**64 - 1
_INTEGER_LENGTH_MAX = len(str(_INTEGER_MAX))

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


class EventUnreadable(ValueError):
    """The bytes are not a JSON object that a worker can read; ``str(error)`` says why: "it is …", "byte …"."""


def event_of(raw: bytes) -> dict[str, Any]:
    """The event in ``raw``, the bytes of one JSON object. Raises EventUnreadable.

    The same bytes always give the same dict. Of a key that comes twice the last one counts. A number whose digits would
    not come back as they were sent (19.90, 1e2, 123456789012345678901) becomes its text: all digits are kept, and
    it is found as it was sent. A lone surrogate escape becomes U+FFFD in values, and stays in names. NUL stays: both
    stores take it in values.
    """
    try:
        event = orjson.loads(raw)
    except orjson.JSONDecodeError:
        event = _parsed_with_care(raw)
    else:
        if _has_fraction(event):
            event = _with_digits(raw)
    if type(event) is not dict:
        raise EventUnreadable(f"it is {_kind_of(event)}, not an object")
    # Brackets inside strings count here too, so this many of them only calls for a closer look.
    if len(raw) > 2 * DEPTH_MAX and raw.count(b"{") + raw.count(b"[") > DEPTH_MAX:
        _check_depth(event)
    return event


def event_or_mended(raw: bytes) -> tuple[dict[str, Any], bool]:
    """As ``event_of``, also of bytes that ``logweir.mend`` makes readable; and whether they had to be mended."""
    try:
        return event_of(raw), False
    except EventUnreadable:
        mended = mend.mended(raw)
        if mended is not None:
            with contextlib.suppress(EventUnreadable):
                return event_of(mended), True
        raise


def _has_fraction(event: Any) -> bool:
    """Whether ``event`` has a float: orjson makes one of a fraction, an exponent, or a whole number beyond 64 bits."""
    if type(event) is not dict:
        return type(event) is float
    kinds = set(map(type, event.values()))
    if float in kinds or (dict not in kinds and list not in kinds):
        return float in kinds
    waiting = [value for value in event.values() if type(value) is dict or type(value) is list]
    while waiting:
        container = waiting.pop()
        for value in container.values() if type(container) is dict else container:
            kind = type(value)
            if kind is float:
                return True
            if kind is dict or kind is list:
                waiting.append(value)
    return False


def free_name(name: str, taken: Container[str], *, sent: str) -> str:
    """``name`` if it is not ``taken``, else the first free of ``name_2`` … ``name_9``, else ``name~<16 hex digits>``.

    ``sent`` is the name before anything was changed. The digits are a hash of it, so that thousands of names that
    become one (which only malice makes) still take a few steps each.
    """
    if name not in taken:
        return name
    for number in range(2, 10):
        if (free := f"{name}_{number}") not in taken:
            return free
    free = f"{name}~{name_hash(sent)}"
    while free in taken:
        free = f"{name}~{name_hash(free)}"
    return free


def name_hash(name: str) -> str:
    """Sixteen hexadecimal digits that differ for different names, lone surrogates included."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _with_digits(raw: bytes) -> Any:
    """As orjson.loads, for what it takes, with the fractions that it would not keep as their texts."""
    # A whole number of so many digits may be none of 64 bits.
    if _LONG_NUMBER in raw.translate(_DIGITS_AS_ZEROS):
        return _parsed_with_care(raw)
    try:
        return _quick.decode(raw)
    except msgspec.DecodeError:
        return _parsed_with_care(raw)


def _parsed_with_care(raw: bytes) -> Any:
    """As orjson.loads, for what it refuses or whose digits it would not keep; several times slower."""
    try:
        text = raw.decode()
        value = _careful.decode(text)
    except UnicodeDecodeError as error:
        raise EventUnreadable(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise EventUnreadable(f"it is nested deeper than {DEPTH_MAX} levels") from error
    except ValueError as error:
        raise EventUnreadable(f"it is not valid JSON: {error}") from error
    # Only an escape can bring a surrogate: UTF-8 has none.
    return _without_surrogates(value) if "\\u" in text else value


def _integer(text: str) -> int | str:
    # The length bounds the conversion: its time grows with the square of the number of digits.
    if len(text.lstrip("-")) > _INTEGER_LENGTH_MAX:
        return text
    value = int(text)
    return value if _INTEGER_MIN <= value <= _INTEGER_MAX else text


def _fraction(text: str) -> float | str:
    # orjson writes a float with the fewest digits that make it, as the stores get it; and null for what is infinite.
    value = float(text)
    return value if orjson.dumps(value).decode() == text else text


def _constant(text: str) -> NoReturn:
    # Python's parser would take NaN and Infinity, which are not JSON and which no store takes.
    raise ValueError(f"{text} is not a JSON value")


_DIGITS_AS_ZEROS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
_LONG_NUMBER = b"0" * 19
_quick = msgspec.json.Decoder(float_hook=_fraction)
_careful = json.JSONDecoder(parse_int=_integer, parse_float=_fraction, parse_constant=_constant)


def _without_surrogates(value: Any) -> Any:
    """``value`` without lone surrogates in texts; in names they stay, for whoever has to list the changed ones."""
    if type(value) is str:
        return _SURROGATE.sub(_REPLACEMENT, value)
    if type(value) is list:
        return [_without_surrogates(item) for item in value]
    if type(value) is dict:
        return {name: _without_surrogates(item) for name, item in value.items()}
    return value


def _check_depth(event: dict[str, Any]) -> None:
    """Raise EventUnreadable when ``event`` nests deeper than DEPTH_MAX; walks a level at a time, without recursion."""
    level: list[Any] = [event]
    for _ in range(DEPTH_MAX):
        inner: list[Any] = []
        for value in level:
            inner.extend(value.values() if type(value) is dict else value)
        level = [value for value in inner if type(value) is dict or type(value) is list]
        if not level:
            return
    raise EventUnreadable(f"it is nested deeper than {DEPTH_MAX} levels")


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {str: "a string", list: "an array", bool: "a boolean", int: "a number", float: "a number"}
    return kinds[type(value)]
