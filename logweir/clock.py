"""The time, as whole numbers. Code takes a ``Clock`` so that tests can set it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Gives microseconds since 1970-01-01 UTC."""

WINDOW_US = 60_000_000
"""The length of a window: one minute."""


def now_us() -> int:
    """Microseconds since 1970-01-01 UTC, by the machine's clock."""
    return time.time_ns() // 1000


def window_of(time_us: int) -> int:
    """The window (whole minutes since 1970-01-01 UTC) in which ``time_us`` lies."""
    return time_us // WINDOW_US
