"""Numbers of an ingest process that higher ones have overtaken on their partition: on their way, or lost by the queue.

What one process sends to one partition comes in order. A record that the producer failed to bring is repeated, or comes
from a spool, and all that is sent later comes behind it. A marker is sent when everything below it is in the queue or
in that spool: so what has not come with the marker, nor for ``accounting.late_after_s`` behind it, the queue has lost.
A number that no marker has told of stays awaited: its sender may have been refused, and a process that is gone may have
left it in a spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from logweir.ledger.intervals import Intervals

RANGES_MAX = 1000
"""Ranges awaited of one process on one partition; the oldest beyond that are given up at once."""
_UNTOLD_US = 2**62


@dataclass(slots=True)
class Awaited:
    """Of one ingest process on one partition. ``since``: the numbers by when a marker told of them, microseconds."""

    since: dict[int, Intervals] = field(default_factory=dict)

    def overtake(self, first: int, last: int) -> None:
        """Higher numbers have come."""
        self.since.setdefault(_UNTOLD_US, Intervals()).add(first, last)

    def come(self, first: int, last: int) -> None:
        """They are here, or never will be: they are not awaited any more."""
        for since_us, numbers in list(self.since.items()):
            numbers.remove(first, last)
            if not numbers:
                del self.since[since_us]

    def tell(self, last: int, since_us: int) -> bool:
        """A marker has come that was sent behind all numbers up to ``last``; False when none of them is awaited."""
        told = list(self.since.get(_UNTOLD_US, Intervals()).within(1, last))
        for pair in told:
            self.come(*pair)
        if told:
            self.since.setdefault(since_us, Intervals()).add_all(told)
        return bool(told)

    @property
    def is_told(self) -> bool:
        """Whether some are awaited that a marker has told of: in time they are here or lost."""
        return any(since_us != _UNTOLD_US for since_us in self.since)

    def give_up(self, before_us: int) -> Iterator[tuple[int, int]]:
        """Take out what markers had told of by then, and what is too much to keep: that is lost."""
        for since_us in [one for one in self.since if one <= before_us]:
            yield from self.since.pop(since_us)
        while sum(numbers.range_count for numbers in self.since.values()) > RANGES_MAX:
            oldest = next(iter(self.since[min(self.since)]))
            self.come(*oldest)
            yield oldest

    def as_body(self) -> list[list[int]]:
        return [[first, last, since_us] for since_us, numbers in self.since.items() for first, last in numbers]

    @classmethod
    def from_body(cls, rows: Iterable[Sequence[int]]) -> Awaited:
        found = cls()
        for first, last, since_us in rows:
            found.since.setdefault(since_us, Intervals()).add(first, last)
        return found
