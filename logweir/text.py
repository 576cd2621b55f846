"""Text as it is shown: keys taken out, nothing unprintable, the first of many. Needs the standard library alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from os import PathLike

KEY_PREFIX = "lw_"
"""How every key that `logweir keys` makes begins."""

_KEY = re.compile(r"lw_[A-Za-z0-9_-]{43}")
# Also a beginning that was cut off somewhere; a shorter one gives nothing away.
_BEGINNING = re.compile(r"lw_[A-Za-z0-9_-]{12,}")


def holds_key(text: str) -> bool:
    """Whether a whole key stands in the text."""
    return KEY_PREFIX in text and _KEY.search(text) is not None


def without_keys(text: str) -> str:
    """The text with ``lw_***`` for each key in it, and for what looks like the beginning of one."""
    return _BEGINNING.sub(f"{KEY_PREFIX}***", text) if KEY_PREFIX in text else text


def printable(value: object) -> str:
    """A value on one line, safe for a terminal: what a log carries must not move the cursor or set colours."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


# What orjson leaves as it is: DEL and C1, with which terminals begin commands, and what turns the direction of text.
_MOVING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def safe_json(text: str) -> str:
    """The same JSON, safe for a terminal: characters that could move its cursor are written as \\uXXXX."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _MOVING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def counted(count: int, noun: str, *, plural: str = "", separator: str = "") -> str:
    """``1 event``, ``2000 events``; with a comma as the separator, ``2,000 events``."""
    return f"{count:{separator}} {noun if count == 1 else plural or f'{noun}s'}"


def in_words(value: object) -> object:
    """A value as an error shows it: as its user would write it, not as Python does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | PathLike):
        return _Quoted(value)
    if isinstance(value, tuple | list):
        return _Quoted(", ".join(str(in_words(item)) for item in value))
    if isinstance(value, UnicodeDecodeError):
        return f"byte {value.start} is not UTF-8"
    if isinstance(value, OSError) and value.strerror:
        return f"{value.strerror[:1].lower()}{value.strerror[1:]}"
    if type(value).__module__ == "sqlite3" and "readonly" in str(value):
        return "its folder or files cannot be written, as SQLite must to read them, too"
    return value


class _Quoted(str):
    """A text that a template may quote (``!r``), without escapes that its user never typed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{printable(str(self))}'"


def some_of(texts: Sequence[str], most: int) -> str:
    """The first ``most`` of them, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
