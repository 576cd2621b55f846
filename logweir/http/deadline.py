"""A point in time by which something must have happened, cheap to move with every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls ``expired`` when its time is over.

    Moving it to a later time, or clearing it, leaves the loop's timer as it is, which looks again when it fires: a
    timer for each request would cost more than reading it.
    """

    __slots__ = ("_at_s", "_expired", "_fires_s", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], object]) -> None:
        self._loop = loop
        self._expired: Callable[[], object] | None = expired
        self._at_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires_s = 0.0

    @property
    def is_set(self) -> bool:
        return self._at_s is not None

    def set(self, timeout_s: float) -> None:
        """Set it so many seconds from now, in place of what it was."""
        at_s = self._at_s = self._loop.time() + timeout_s
        if self._timer is not None and self._fires_s > at_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._start(at_s)

    def clear(self) -> None:
        self._at_s = None

    def end(self) -> None:
        """Clear it for good, and let go of what it would have called."""
        self._at_s = self._expired = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at_s: float) -> None:
        self._fires_s = at_s
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._at_s is None:
            return
        if self._loop.time() < self._at_s:
            self._start(self._at_s)
            return
        self._at_s = None
        if self._expired is not None:
            self._expired()
