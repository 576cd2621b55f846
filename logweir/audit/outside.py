"""What of each ingest process's numbers is in no window's books."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from logweir.ledger.documents import PartitionId, StreamId
from logweir.ledger.equation import Row
from logweir.ledger.intervals import Intervals
from logweir.ledger.position import Position


@dataclass(slots=True)
class OutsideWindows:
    """What of each ingest process's numbers is in no window's books."""

    known: Mapping[StreamId, Intervals]
    """Those that came, or that a marker speaks of."""
    lost: Mapping[StreamId, Intervals]
    """Those that the queue was known to have lost."""
    gone: set[StreamId]
    """Of processes that are gone."""
    starts: dict[StreamId, int]
    """The number that the books begin at, where what was before is carried forward."""
    void: Mapping[StreamId, Intervals]
    """What was said never to come."""
    is_whole: bool
    """It is not of a span of time only."""

    def total(self) -> Row:
        """Numbers that did not come: of nobody knows whom, lost, undecided, void or in flight."""
        row = Row()
        for stream in self.known:
            row.add(self.row(stream, self.ends(stream)))
        return row

    def row(self, stream: StreamId, until: int, *, first: int = 1) -> Row:
        """Of one stream, from one number up to another, which are included."""
        row = Row()
        left, lost = self.not_here(stream, until, first=first)
        row.lost_in_queue = lost.count
        if stream in self.gone:
            void = self.void.get(stream, Intervals())
            row.void = sum(last - first + 1 for pair in left for first, last in void.within(*pair))
            row.undecided = left.count - row.void
        else:
            row.in_flight = left.count
        row.accepted, row.unconfirmed = row.in_flight + row.lost_in_queue, row.undecided + row.void
        return row

    def not_here(self, stream: StreamId, until: int, *, first: int = 1) -> tuple[Intervals, Intervals]:
        """The numbers of a stream that did not come: those of which nothing is known, and those that the queue lost."""
        left = Intervals(self.known[stream].gaps(max(first, self._begins(stream)), until))
        known_lost = self.lost.get(stream, Intervals())
        lost = Intervals(pair for one in left for pair in known_lost.within(*one))
        left.remove_all(lost)
        return left, lost

    def ends(self, stream: StreamId) -> int:
        """The last number of it that anything is known of."""
        return max(self.known[stream].max, self.lost_until(stream) if self.is_whole else 0)

    def lost_until(self, stream: StreamId) -> int:
        """The last number that the queue is known to have lost, 0 when it has lost none."""
        lost = self.lost.get(stream)
        return lost.max if lost else 0

    def without_window(self, positions: Mapping[PartitionId, Position], *, before: int) -> dict[StreamId, Intervals]:
        """Numbers that came by, says the position, and that no window has: the ledger has lost what became of them.

        Of processes that sent something since the minute ``before``: the windows of others are carried forward.
        """
        found: dict[StreamId, Intervals] = {}
        pending: dict[StreamId, Intervals] = {}
        for (_, partition), position in positions.items():
            for epoch, own in position.streams.items():
                stream = StreamId(epoch, partition)
                for numbers in own.pending.since.values():
                    pending.setdefault(stream, Intervals()).add_all(numbers)
                # Beyond the limits, what the queue has lost is only counted.
                if own.window >= before and not position.lost_before:
                    gaps = self.known.get(stream, Intervals()).gaps(self._begins(stream), own.last)
                    found.setdefault(stream, Intervals()).add_all(gaps)
        for stream, left in found.items():
            for explained in (pending, self.lost, self.void):
                left.remove_all(explained.get(stream, Intervals()))
        return {stream: left for stream, left in found.items() if left}

    def undecided(self, stream: StreamId) -> Intervals:
        """Which numbers of a process that is gone never came, whatever anybody has said of them."""
        return self.not_here(stream, self.known[stream].max)[0]

    def _begins(self, stream: StreamId) -> int:
        return self.starts.get(stream, 1)
