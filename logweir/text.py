"""Text as it is shown: keys taken out, nothing unprintable, the first of many. Needs the standard library alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

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


def some_of(texts: Sequence[str], most: int) -> str:
    """The first ``most`` of them, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
