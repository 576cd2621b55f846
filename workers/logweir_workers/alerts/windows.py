"""What a rule asks of the matches within a window of time, over matches in the order of their own time.

Each aggregate is kept up to date by adding and removing one match: nothing is counted anew for every event.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from logweir.alerts.rules import Window, WindowKind


class Match(NamedTuple):
    """One event that a rule's condition holds for. They are ordered by their time, then by their id."""

    time_us: int
    """When it happened; when it was received, where that was earlier."""
    id: str
    value: str | float | int | None
    """What the window looks at: a field's text or number; of steps, one bit for each that it is."""
    day: str
    """The UTC day of its receipt, where the store has it."""


class Aggregate(Protocol):
    """Of the matches in a window."""

    def add(self, match: Match) -> None: ...

    def remove(self, match: Match) -> None: ...

    def reached(self, window: Window, matches: Sequence[Match], low: int, high: int) -> bool:
        """Whether the rule's threshold is reached; the window's matches are those from ``low`` to before ``high``."""

    def have(self) -> int:
        """How far it has come towards a threshold that is a number of things; 0 where it is none."""


class _Count:
    def __init__(self) -> None:
        self._count = 0

    def add(self, match: Match) -> None:  # noqa: ARG002
        self._count += 1

    def remove(self, match: Match) -> None:  # noqa: ARG002
        self._count -= 1

    def reached(self, window: Window, matches: Sequence[Match], low: int, high: int) -> bool:  # noqa: ARG002
        return self._count >= window.threshold

    def have(self) -> int:
        return self._count


class _Distinct:
    def __init__(self) -> None:
        self._values: Counter[object] = Counter()

    def add(self, match: Match) -> None:
        self._values[match.value] += 1

    def remove(self, match: Match) -> None:
        self._values[match.value] -= 1
        if not self._values[match.value]:
            del self._values[match.value]

    def reached(self, window: Window, matches: Sequence[Match], low: int, high: int) -> bool:  # noqa: ARG002
        return len(self._values) >= window.threshold

    def have(self) -> int:
        return len(self._values)


class _Numbers:
    def __init__(self) -> None:
        self._sorted: list[float] = []

    def add(self, match: Match) -> None:
        insort(self._sorted, float(match.value or 0))

    def remove(self, match: Match) -> None:
        del self._sorted[bisect_left(self._sorted, float(match.value or 0))]

    def reached(self, window: Window, matches: Sequence[Match], low: int, high: int) -> bool:  # noqa: ARG002
        if len(self._sorted) < window.samples_min:
            return False
        if window.kind in (WindowKind.VALUE_SUM, WindowKind.VALUE_AVG):
            # Added up in one order, so that the order in which they came changes no last digit.
            value = math.fsum(self._sorted)
            if window.kind is WindowKind.VALUE_AVG:
                value /= len(self._sorted)
        else:
            value = self._sorted[max(0, math.ceil(window.percentile / 100 * len(self._sorted)) - 1)]
        return value <= window.threshold if window.is_at_most else value >= window.threshold

    def have(self) -> int:
        return 0


class _Steps:
    def __init__(self, window: Window) -> None:
        self._needed = window.steps
        self._counts = [0] * len(window.steps)

    def add(self, match: Match) -> None:
        self._count(match, 1)

    def remove(self, match: Match) -> None:
        self._count(match, -1)

    def _count(self, match: Match, by: int) -> None:
        for number in range(len(self._counts)):
            if int(match.value or 0) >> number & 1:
                self._counts[number] += by

    def reached(self, window: Window, matches: Sequence[Match], low: int, high: int) -> bool:
        if any(count < needed for count, needed in zip(self._counts, self._needed, strict=True)):
            return False
        return window.kind is WindowKind.TEMPORAL or self._in_order(matches, low, high)

    def _in_order(self, matches: Sequence[Match], low: int, high: int) -> bool:
        """Whether the steps can be found one after the other. Taking each as early as it can be had misses none."""
        number = count = 0
        for position in range(low, high):
            if int(matches[position].value or 0) >> number & 1:
                count += 1
                if count == self._needed[number]:
                    number, count = number + 1, 0
                    if number == len(self._needed):
                        return True
        return False

    def have(self) -> int:
        return sum(min(count, needed) for count, needed in zip(self._counts, self._needed, strict=True))


def aggregate(window: Window) -> Aggregate:
    """An empty one, of the window's kind."""
    if window.steps:
        return _Steps(window)
    match window.kind:
        case WindowKind.EVENT_COUNT:
            return _Count()
        case WindowKind.VALUE_COUNT:
            return _Distinct()
        case WindowKind.VALUE_SUM | WindowKind.VALUE_AVG | WindowKind.VALUE_PERCENTILE | WindowKind.VALUE_MEDIAN:
            return _Numbers()
    raise ValueError(f"{window.kind} has no window of time")


def needed(window: Window) -> int:
    """How much ``have`` is when the threshold is reached; 0 where that is no number of things."""
    if window.steps:
        return sum(window.steps)
    return int(window.threshold) if window.kind in (WindowKind.EVENT_COUNT, WindowKind.VALUE_COUNT) else 0


class Tail:
    """The window that ends at the last match: kept from one match to the next, as most come in order."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._aggregate = aggregate(window)
        self._low = self._high = 0

    def reached(self, matches: Sequence[Match]) -> bool:
        """Whether the window that ends at the last of the matches reaches the threshold."""
        for position in range(self._high, len(matches)):
            self._aggregate.add(matches[position])
        self._high = len(matches)
        begin_us = matches[-1].time_us - self._window.within_us
        while matches[self._low].time_us < begin_us:
            self._aggregate.remove(matches[self._low])
            self._low += 1
        return self._aggregate.reached(self._window, matches, self._low, self._high)

    def forget_first(self, matches: Sequence[Match], count: int) -> None:
        """The first matches are about to be taken out."""
        for position in range(self._low, min(count, self._high)):
            self._aggregate.remove(matches[position])
        self._low, self._high = max(0, self._low - count), max(0, self._high - count)


def reached_around(window: Window, matches: Sequence[Match], position: int, begin: int = 0) -> bool:
    """Whether one of the windows that contain the match at ``position`` reaches the threshold.

    A window ends at a match, and is as long as the rule says. ``begin``: matches before that position do not count.
    """
    time_us = matches[position].time_us
    low = max(begin, bisect_left(matches, (time_us - window.within_us,)))
    kept = aggregate(window)
    for at in range(low, position):
        kept.add(matches[at])
    for high in range(position, len(matches)):
        if matches[high].time_us - time_us > window.within_us:
            return False
        kept.add(matches[high])
        while matches[low].time_us < matches[high].time_us - window.within_us:
            kept.remove(matches[low])
            low += 1
        if kept.reached(window, matches, low, high + 1):
            return True
    return False


def best(window: Window, matches: Sequence[Match]) -> int:
    """How far any window over the matches has come towards the threshold (see ``Aggregate.have``)."""
    kept, low, most = aggregate(window), 0, 0
    for match in matches:
        kept.add(match)
        while matches[low].time_us < match.time_us - window.within_us:
            kept.remove(matches[low])
            low += 1
        most = max(most, kept.have())
    return most
