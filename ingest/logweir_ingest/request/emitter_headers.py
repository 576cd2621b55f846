"""What an emitter says of itself in the Log-* headers: its name, its epoch, its numbers, what it had to drop."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from logweir.errors import EMITTER_HEADER_BAD, LogweirError
from logweir.record import NUMBER_MAX, REASONS_MAX
from logweir.text import KEY_PREFIX, holds_key

NAME_SIZE_BYTES_MAX = 256
EPOCH_SIZE_BYTES_MAX = 64

_NUMBER = re.compile(rb"[0-9]{1,19}")
_EPOCH = re.compile(rb"[!-~]{1,%d}" % EPOCH_SIZE_BYTES_MAX)
_REASON = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
_SHOWN_MAX = 100
_NAMES_KEPT = 10_000
_KEY_PREFIX = KEY_PREFIX.encode()


class EmitterHeaders(msgspec.Struct, frozen=True):
    """The Log-* headers of one request, as the fields of ``record.Batch`` want them."""

    emitter: str | None = None
    epoch: str | None = None
    sequence_first: int | None = None
    high: int | None = None
    previous: tuple[str, int] | None = None
    dropped: dict[str, int] | None = None
    bye: bool = False


NONE = EmitterHeaders()


def read(headers: Mapping[bytes, bytes]) -> EmitterHeaders:
    """The emitter's headers of a request; NONE when there is not one. Raises LogweirError(EMITTER_HEADER_BAD)."""
    if headers.keys().isdisjoint(_READERS):
        return NONE
    sent = {name: value.strip() for name, value in headers.items() if name in _READERS}
    if b"log-epoch" not in sent and sent.keys() - {b"log-emitter"}:
        raise bad("Log-Epoch", b"", "there, though Log-Seq, Log-High, Log-Prev, Log-Dropped and Log-Bye need it")
    fields = {}
    for name, value in sent.items():
        field, label, reader, expected = _READERS[name]
        if _KEY_PREFIX in value and holds_key(value.decode("latin-1")):
            raise bad(label, value, "what it should be: a key belongs into the header for keys")
        try:
            fields[field] = reader(value)
        except ValueError as error:
            raise bad(label, value, expected) from error
    return EmitterHeaders(**fields)


def last_too_high(sequence_first: int, events: int) -> LogweirError:
    """The problem of so many events, from that number on, when they go beyond NUMBER_MAX."""
    expected = f"low enough: the last of the request's {events} events may have the number {NUMBER_MAX} at most"
    return bad("Log-Seq", b"%d" % sequence_first, expected)


def bad(header: str, value: bytes, expected: str) -> LogweirError:
    shown = value[:_SHOWN_MAX].decode("latin-1")
    return LogweirError(EMITTER_HEADER_BAD, header=header, value=shown, expected=expected)


# The same emitters send again and again: who they are is looked at once. What is refused is not kept.
@lru_cache(_NAMES_KEPT)
def _name(value: bytes) -> str:
    name = value.decode()
    if not 0 < len(value) <= NAME_SIZE_BYTES_MAX or not name.isprintable():
        raise ValueError
    return name


@lru_cache(_NAMES_KEPT)
def _epoch(value: bytes) -> str:
    if not _EPOCH.fullmatch(value):
        raise ValueError
    return value.decode()


def _number(value: bytes) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > NUMBER_MAX:
        raise ValueError
    return int(value)


def _sequence(value: bytes) -> int:
    number = _number(value)
    if number < 1:
        raise ValueError
    return number


def _previous(value: bytes) -> tuple[str, int]:
    epoch, _, last = value.rpartition(b":")
    return _epoch(epoch), _number(last)


def _dropped(value: bytes) -> dict[str, int]:
    counts = {}
    parts = value.split(b";")
    if len(parts) > REASONS_MAX:
        raise ValueError
    for part in parts:
        reason, _, count = part.strip().partition(b"=")
        if not _REASON.fullmatch(reason) or reason.decode() in counts:
            raise ValueError
        counts[reason.decode()] = _number(count)
    return counts


def _bye(value: bytes) -> bool:
    if value not in (b"0", b"1"):
        raise ValueError
    return value == b"1"


_READERS: dict[bytes, tuple[str, str, Callable[[bytes], Any], str]] = {
    b"log-emitter": ("emitter", "Log-Emitter", _name, f"1 to {NAME_SIZE_BYTES_MAX} bytes of visible UTF-8"),
    b"log-epoch": ("epoch", "Log-Epoch", _epoch, f"1 to {EPOCH_SIZE_BYTES_MAX} visible ASCII characters"),
    b"log-seq": ("sequence_first", "Log-Seq", _sequence, f"a whole number from 1 to {NUMBER_MAX}"),
    b"log-high": ("high", "Log-High", _number, f"a whole number from 0 to {NUMBER_MAX}"),
    b"log-prev": ("previous", "Log-Prev", _previous, f"an epoch, a colon and a whole number up to {NUMBER_MAX}"),
    b"log-dropped": (
        "dropped",
        "Log-Dropped",
        _dropped,
        f"1 to {REASONS_MAX} reasons with counts up to {NUMBER_MAX}, as queue_overflow=12;disk_full=40",
    ),
    b"log-bye": ("bye", "Log-Bye", _bye, "0 or 1"),
}
