"""The time, as whole numbers. Code takes a ``Clock`` so that tests can set it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Gives microseconds since 1970-01-01 UTC."""

WINDOW_US = 60_000_000
"""The length of a window: one minute."""

DAY_US = 86_400_000_000
"""24 hours: a day of UTC, which knows no other here."""

_DURATION = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_UNIT_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY_US, "w": 604_800_000_000}


def now_us() -> int:
    """Microseconds since 1970-01-01 UTC, by the machine's clock."""
    return time.time_ns() // 1000


def window_of(time_us: int) -> int:
    """The window (whole minutes since 1970-01-01 UTC) in which ``time_us`` lies."""
    return time_us // WINDOW_US


def duration_us(text: str) -> int | None:
    """Microseconds in 90s, 15m, 1h, 7d or 2w; None for any other text."""
    found = _DURATION.fullmatch(text)
    return int(found[1]) * _UNIT_US[found[2]] if found else None


def duration_in_words(seconds: int) -> str:
    """``42 s``, ``3 min 20 s``, ``5 h 41 min``, ``2 d 3 h``: the two largest units, what is less cut off."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    at = next((at for at, (_, length) in enumerate(units) if seconds >= length), len(units) - 1)
    parts: list[str] = []
    for unit, length in units[at : at + 2]:
        count, seconds = divmod(seconds, length)
        parts += [f"{count} {unit}"] if count or not parts else []
    return " ".join(parts)


def iso_seconds(time_us: int) -> str:
    """``2026-01-31T12:00:00Z``, the fraction cut off. Raises ValueError beyond the year 9999."""
    try:
        return datetime.fromtimestamp(time_us // 1_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError) as error:
        raise ValueError(f"{time_us} microseconds are beyond the year 9999") from error
