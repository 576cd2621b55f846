"""Waiting for what other threads and processes bring about."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], *, wait_s: float = 40.0) -> None:
    """Return as soon as the condition holds; fail the test when it does not within ``wait_s`` seconds.

    By default ten times what anything takes that a test waits for without saying so.
    """
    end_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.02)
