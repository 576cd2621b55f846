"""The events that a program has logged and nobody has taken yet, in memory: what a logging call touches."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from dataclasses import dataclass

from logweir.emit.page import HIGH, Page


@dataclass(frozen=True, slots=True)
class Batch:
    """Events with consecutive numbers."""

    first: int
    """The number of the first one."""
    events: list[bytes]
    """The JSON of each."""
    end: tuple[int, int] | None = None
    """Up to where the run's files are read with it (segment, offset), when they came from there."""

    @property
    def last(self) -> int:
        return self.first + len(self.events) - 1

    def split(self, at: int) -> tuple[Batch, Batch]:
        """The events before the one at that place, and it with those behind it."""
        return Batch(self.first, self.events[:at]), Batch(self.first + at, self.events[at:], self.end)


class EventQueue:
    """Numbers events and holds them, bounded by count and bytes. Many threads put, one at a time; one takes."""

    def __init__(self, page: Page, *, events_max: int, size_bytes_max: int) -> None:
        self.page = page
        self.put_count = 0
        """How many events were let in so far."""
        self.overflow_reason = "queue_overflow"
        """As what an event counts for which there is no room."""
        self._counters = page.counters
        self._numbers = itertools.count(1)
        self._events: deque[tuple[int, bytes]] = deque()
        self._events_max = events_max
        self._size_bytes_max = size_bytes_max
        # Each of the two has one thread that writes it, so that neither needs a lock.
        self._put_bytes = 0
        self._taken_bytes = 0
        self._has_events = threading.Event()
        self._is_waited_for = False

    @property
    def count(self) -> int:
        return len(self._events)

    @property
    def size_bytes(self) -> int:
        return self._put_bytes - self._taken_bytes

    def put(self, event: bytes) -> None:
        """Number the event and take it in, or count it as dropped. Waits for nothing.

        Safe in a signal handler that interrupts another ``put``.
        """
        number = next(self._numbers)
        self._counters[HIGH] = number
        size_bytes = len(event)
        waiting_bytes = self._put_bytes - self._taken_bytes
        if len(self._events) >= self._events_max or waiting_bytes + size_bytes > self._size_bytes_max:
            self.page.drop(self.overflow_reason)
            return
        self._put_bytes += size_bytes
        self.put_count += 1
        self._events.append((number, event))
        if self._is_waited_for:
            self._is_waited_for = False
            self._has_events.set()

    def drop(self, reason: str) -> None:
        """Give a number to an event that cannot be sent, and count it as dropped."""
        self._counters[HIGH] = next(self._numbers)
        self.page.drop(reason)

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is an event, or ``wake``; gives whether there is one."""
        if not self._events:
            self._has_events.clear()
            # Behind this, ``put`` says so. What was put before is seen here.
            self._is_waited_for = True
            if not self._events:
                self._has_events.wait(timeout_s)
            self._is_waited_for = False
        return bool(self._events)

    def wake(self) -> None:
        """End a ``wait`` that is under way."""
        self._has_events.set()

    def take(self, *, events_max: int, size_bytes_max: int) -> Batch | None:
        """The next events, as many as have consecutive numbers and fit; one at least, if there is any."""
        if not self._events:
            return None
        first, event = self._events.popleft()
        events, size_bytes = [event], len(event)
        while self._events and len(events) < events_max:
            number, event = self._events[0]
            # With the line ends between them.
            if number != first + len(events) or size_bytes + len(events) + len(event) > size_bytes_max:
                break
            self._events.popleft()
            events.append(event)
            size_bytes += len(event)
        self._taken_bytes += size_bytes
        return Batch(first, events)
