"""Keys taken out of what is printed, logged and answered: whoever puts one in a wrong place does not spread it."""

from __future__ import annotations

import re

KEY_PREFIX = "lw_"
"""How every key that `logweir keys add` makes begins."""

# Also a beginning that was cut off somewhere; a shorter one gives nothing away.
_KEY = re.compile(r"lw_[A-Za-z0-9_-]{12,}")


def holds_key(text: str) -> bool:
    """Whether a key, or the beginning of one, stands in the text."""
    return KEY_PREFIX in text and _KEY.search(text) is not None


def without_keys(text: str) -> str:
    """The text with ``lw_***`` for each key in it."""
    return _KEY.sub(f"{KEY_PREFIX}***", text) if KEY_PREFIX in text else text
