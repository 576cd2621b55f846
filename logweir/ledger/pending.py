"""Numbers of an ingest process that higher ones have overtaken on their partition: on their way, or lost by the queue.

What one process sends to one partition comes in order. A record that the producer failed to bring is repeated, or comes
from a spool, and all that is sent later comes behind it. A marker is sent when everything below it is in the queue or
in that spool: so what has not come with the marker, nor for ``accounting.late_after_s`` behind it, the queue has lost.
A number that no marker has covered stays pending: its sender may have been refused, and a process that has ended may
have left it in a spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from logweir.ledger.intervals import Intervals

RANGES_MAX = 1000
"""Ranges pending of one process on one partition; the oldest beyond that are lost at once."""
_UNCOVERED_US = 2**62


@dataclass(slots=True)
class PendingNumbers:
    """Of one ingest process on one partition."""

    since: dict[int, Intervals] = field(default_factory=dict)
    """The numbers by when a marker covered them, in microseconds."""

    def __bool__(self) -> bool:
        return bool(self.since)

    def skip(self, first: int, last: int) -> None:
        """Higher numbers have come."""
        self.since.setdefault(_UNCOVERED_US, Intervals()).add(first, last)

    def arrive(self, first: int, last: int) -> None:
        """They are here, or never will be."""
        for since_us, numbers in list(self.since.items()):
            numbers.remove(first, last)
            if not numbers:
                del self.since[since_us]

    def marker_seen(self, last: int, since_us: int) -> bool:
        """A marker has come that was sent behind all numbers up to ``last``; False when none of them is pending."""
        covered = list(self.since.get(_UNCOVERED_US, Intervals()).within(1, last))
        for pair in covered:
            self.arrive(*pair)
        if covered:
            self.since.setdefault(since_us, Intervals()).add_all(covered)
        return bool(covered)

    @property
    def has_covered(self) -> bool:
        """Whether some are pending that a marker has covered: in time they are here or lost."""
        return any(since_us != _UNCOVERED_US for since_us in self.since)

    def expire(self, before_us: int) -> Iterator[tuple[int, int]]:
        """Take out what markers had covered by then, and what is too much to keep: that is lost."""
        for since_us in [covered_us for covered_us in self.since if covered_us <= before_us]:
            yield from self.since.pop(since_us)
        while sum(numbers.range_count for numbers in self.since.values()) > RANGES_MAX:
            oldest = next(iter(self.since[min(self.since)]))
            self.arrive(*oldest)
            yield oldest

    def as_body(self) -> list[list[int]]:
        return [[first, last, since_us] for since_us, numbers in self.since.items() for first, last in numbers]

    @classmethod
    def from_body(cls, rows: Iterable[Sequence[int]]) -> PendingNumbers:
        pending = cls()
        for first, last, since_us in rows:
            pending.since.setdefault(since_us, Intervals()).add(first, last)
        return pending
