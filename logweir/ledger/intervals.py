"""Numbers seen, kept as merged intervals: what is there, what is missing, what came twice."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Intervals:
    """A set of whole numbers as sorted, disjoint, inclusive ranges that do not touch.

    Numbers that arrive in order cost one comparison; memory grows with the gaps, not with the numbers.
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.add_all(ranges)

    def add_all(self, ranges: Iterable[tuple[int, int]]) -> None:
        for first, last in ranges:
            self.add(first, last)

    def remove_all(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Take all of them out; they may not be the set itself."""
        for first, last in ranges:
            self.remove(first, last)

    def add(self, first: int, last: int) -> int:
        """Add ``first`` to ``last``; gives how many of them were not in the set before."""
        if last < first:
            return 0
        if self._lasts and self._firsts[-1] <= first == self._lasts[-1] + 1:
            self._lasts[-1] = last
            return last - first + 1
        # The ranges that overlap or touch [first, last] are low to high - 1.
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        before = sum(self._lasts[i] - self._firsts[i] + 1 for i in range(low, high))
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]
        return last - first + 1 - before

    def remove(self, first: int, last: int) -> int:
        """Take ``first`` to ``last`` out; gives how many of them were in the set."""
        if last < first:
            return 0
        # The ranges that overlap [first, last] are low to high - 1.
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        if low >= high:
            return 0
        rests = [(self._firsts[low], first - 1), (last + 1, self._lasts[high - 1])]
        before = sum(self._lasts[i] - self._firsts[i] + 1 for i in range(low, high))
        rests = [(start, end) for start, end in rests if start <= end]
        self._firsts[low:high] = [start for start, _ in rests]
        self._lasts[low:high] = [end for _, end in rests]
        return before - sum(end - start + 1 for start, end in rests)

    def within(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The ranges between ``first`` and ``last`` that are in the set, in order."""
        if first <= last:
            for at in range(bisect_left(self._lasts, first), bisect_right(self._firsts, last)):
                yield max(first, self._firsts[at]), min(last, self._lasts[at])

    def covers(self, first: int, last: int) -> bool:
        """Whether every number from ``first`` to ``last`` is in the set."""
        at = bisect_right(self._firsts, first) - 1
        return at >= 0 and self._lasts[at] >= last

    def gaps(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The ranges between ``first`` and ``last`` that are not in the set, in order."""
        for at in range(bisect_left(self._lasts, first), bisect_right(self._firsts, last)):
            if self._firsts[at] > first:
                yield first, self._firsts[at] - 1
            first = self._lasts[at] + 1
        if first <= last:
            yield first, last

    @property
    def min(self) -> int:
        """The lowest number in the set, 0 when it is empty."""
        return self._firsts[0] if self._firsts else 0

    @property
    def max(self) -> int:
        """The highest number in the set, 0 when it is empty."""
        return self._lasts[-1] if self._lasts else 0

    @property
    def range_count(self) -> int:
        """Of how many ranges the set consists."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    @property
    def count(self) -> int:
        """How many numbers are in the set. Not as ``len``, which fails above ``sys.maxsize``."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def __bool__(self) -> bool:
        return bool(self._firsts)


def pairs(numbers: Intervals) -> list[list[int]]:
    """The ranges as JSON has them."""
    return [list(pair) for pair in numbers]
