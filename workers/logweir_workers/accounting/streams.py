"""The numbers of ingest processes on one partition: how far they have come, what is pending, and what the queue lost.

Also which processes have ended, as their successors say, and whether all is known that they sent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice

from logweir.clock import WINDOW_US, window_of
from logweir.ledger.documents import PartitionId, StreamId
from logweir.ledger.intervals import Intervals
from logweir.ledger.position import LEFT_BEHIND, STREAM_MINUTES_MAX, EndedProcess, Position, Stream
from logweir.ledger.window import Window
from logweir.record import Gone, Kind, Marker, Record, Void

STRAGGLING_US = 10_000_000
"""A busy broker may have taken a process's last records that much later than its successor's word."""
ENDED_MAX = 1000
"""Ingest processes of which it is kept that they have ended, until their books are; of more, a person ends them."""
RANGES_MAX = 1000
"""Ranges kept of what the queue lost; of the oldest beyond that, only the count is kept."""
LOST_EPOCHS_MAX = 1000
"""Ingest processes of which it is kept what the queue lost; of the first beyond that, only the count is."""


class StreamLedger:
    """The streams of one claimed partition. Changes its position; used by one thread."""

    def __init__(self, position: Position, partition: PartitionId, *, late_us: int) -> None:
        self.dirty = False
        """What was forgotten is to be written."""
        self._position = position
        self._partition = partition
        self._late_us = late_us
        if any(stream.pending for stream in position.streams.values()):
            # Other partitions may have been read beyond when these are due: then they are by the next time.
            position.due_us = max(position.due_us, position.watermark_us + 1)

    # --- what comes ------------------------------------------------------------------------------------------------
    def follow(self, record: Record, offset: int, window: Window) -> None:
        """See whether numbers of the record's process should be here and are not, and fell into a hole of the queue.

        ``window``: the record's, with what it has counted.
        """
        position, epoch = self._position, window.ingest_epoch
        stream = self._stream(epoch, record)
        # What comes twice says nothing of what was sent since.
        if record.kind == Kind.MARKER or record.last > stream.last:
            position.unseen_since.pop(epoch, None)
        stream.window = max(stream.window, record.window)
        # What a marker covers, and what is below a record's first number, was sent before it.
        sent = record.last if record.kind == Kind.MARKER else record.first - 1
        if sent > stream.last:
            stream.pending.skip(stream.last + 1, sent)
            if self._has_hole(stream.offset + 1, offset - 1):
                self._lose(epoch, [(stream.last + 1, sent)])
        here = record.body.voids if isinstance(record.body, Marker | Void) else [(record.first, record.last)]
        for pair in here:
            stream.pending.arrive(*pair)
        if record.kind == Kind.MARKER:
            # Records from a spool may have been on their way out of order: a hole may have any number of the window.
            if self._has_hole(window.begin + 1, offset - 1):
                known = Intervals([*window.numbers, *window.voids])
                self._lose(epoch, list(known.gaps(record.first, record.last)))
            since_us = max(position.watermark_us, (record.window + 1) * WINDOW_US)
            if stream.pending.marker_seen(record.last, since_us):
                position.due_us = max(position.due_us, since_us + self._late_us)
        # What comes twice, late from a spool, or as the marker of an older window says nothing of what was sent since.
        if stream.offset == LEFT_BEHIND and record.last >= stream.last + (record.kind != Kind.MARKER):
            stream.offset = -1
        if record.last > stream.last:
            stream.last = record.last
            # Of the next window, something may have been sent before the marker of this one.
            if record.kind != Kind.MARKER:
                stream.offset = offset

    def _stream(self, epoch: str, record: Record) -> Stream:
        """Of one that is heard of for the first time; or was, and is forgotten: then nobody knows what came before."""
        streams = self._position.streams
        if epoch not in streams:
            is_forgotten = record.window < self._position.latest_window - STREAM_MINUTES_MAX
            streams[epoch] = Stream(last=record.first - 1 if is_forgotten else 0)
        return streams[epoch]

    def pass_over(self, offset: int) -> None:
        """A record cannot be read: what numbers it had is not known."""
        self._position.unreadable.add(offset, offset)
        _shortened(self._position.unreadable)  # Each is a dead letter, too.

    def expire(self, first: int, last: int) -> None:
        """The queue no longer had the offsets ``first`` to ``last`` when they were to be read."""
        position = self._position
        position.expired.add(first, last)
        position.expired_before += _shortened(position.expired)
        # Who was heard of lately may have sent on, and ended, in there: that shows when it is heard of again, or never.
        recent = window_of(position.watermark_us) - 1
        for epoch, stream in position.streams.items():
            if stream.window >= recent:
                position.unseen_since.setdefault(epoch, first)

    def rewind(self, offset: int) -> None:
        """The queue will give out the offsets from ``offset`` on again."""
        position = self._position
        for epoch, ended in position.ended.items():
            position.ended[epoch] = ended._replace(offset=min(ended.offset, offset - 1))
        for stream in position.streams.values():
            stream.offset = min(stream.offset, offset - 1)

    def _has_hole(self, first: int, last: int) -> bool:
        """Whether the queue has lost records between these offsets, or some could not be read."""
        position = self._position
        return any(any(True for _ in holes.within(first, last)) for holes in (position.expired, position.unreadable))

    # --- what never comes ------------------------------------------------------------------------------------------
    def lose_overdue(self) -> None:
        """What markers have covered, and has not come for so long behind them, the queue has lost."""
        for epoch, stream in self._position.streams.items():
            self._lose(epoch, list(stream.pending.expire(self._position.watermark_us - self._late_us)))

    def _lose(self, epoch: str, ranges: Collection[tuple[int, int]]) -> None:
        if not ranges:
            return
        position = self._position
        lost = position.lost.setdefault(epoch, Intervals())
        lost.add_all(ranges)
        position.lost_before += _shortened(lost)
        for pair in ranges:
            position.streams[epoch].pending.arrive(*pair)
        while len(position.lost) > LOST_EPOCHS_MAX:
            position.lost_before += position.lost.pop(next(iter(position.lost))).count

    def forget_lost(self, starts: Mapping[StreamId, int]) -> None:
        """Forget what the queue lost of processes whose books begin behind it, at these numbers."""
        position = self._position
        for epoch in list(position.lost):
            if position.lost[epoch].max < starts.get(StreamId(epoch, self._partition.partition), 0):
                position.lost_before += position.lost.pop(epoch).count
                self.dirty = True

    def written(self) -> None:
        """The position is in the store: forget processes that have sent nothing for STREAM_MINUTES_MAX."""
        self.dirty = False
        position = self._position
        before = position.latest_window - STREAM_MINUTES_MAX
        old = [epoch for epoch, stream in position.streams.items() if stream.window < before]
        # Of events of those that were left behind, some may be lost: that is not forgotten.
        kept = {
            epoch for epoch in old if position.streams[epoch].last and position.streams[epoch].offset == LEFT_BEHIND
        }
        for epoch in set(old) - kept:
            del position.streams[epoch]
            position.unseen_since.pop(epoch, None)

    # --- processes that have ended ---------------------------------------------------------------------------------
    def note_end(self, record: Record, offset: int) -> None:
        """A record without numbers has come: note it, if it says that its process has ended."""
        if not isinstance(record.body, Gone):
            return
        position = self._position
        position.ended[record.ingest_epoch.hex()] = EndedProcess(offset, record.body.by.hex(), record.body.said_us)
        # When nothing is sent any more, the watermark goes on for what is due.
        position.due_us = max(position.due_us, record.body.said_us + STRAGGLING_US)
        while len(position.ended) > ENDED_MAX:
            del position.ended[next(iter(position.ended))]

    def note_straggler(self, epoch: str, offset: int) -> None:
        """A record of that process has come; if it is said to have ended, its last ones were on their way still."""
        ended = self._position.ended.get(epoch)
        if ended is not None:
            self._position.ended[epoch] = ended._replace(offset=offset)

    def ended(self, written_offset: int) -> dict[str, str]:
        """Processes whose books can be ended here, and who said that they have ended.

        What was received up to a while after that is accounted for and written (below ``written_offset``), and what a
        marker has covered is here or lost.
        """
        position = self._position
        return {
            epoch: ended.by
            for epoch, ended in position.ended.items()
            if ended.offset < written_offset
            and position.watermark_us >= ended.said_us + STRAGGLING_US
            and not (epoch in position.streams and position.streams[epoch].pending.has_covered)
        }

    def why_incomplete(self, epoch: str, written_offset: int) -> str | None:
        """Why not all is known that a process that has ended sent to the partition, or None."""
        stream = self._position.streams.get(epoch)
        if stream is None:
            return "it was heard of too long ago to know what it sent"
        if stream.pending:
            return "numbers that it gave out never came"
        if stream.offset == LEFT_BEHIND:
            return "the topic was made anew since it was heard of last"
        is_cut = any(stream.offset < at for at in self._position.rewinds)
        if is_cut or self._has_hole(stream.offset + 1, written_offset - 1):
            return "the queue has lost records since it was heard of last"
        return None

    def forget_ended(self, epoch: str) -> None:
        """Its books are ended, or left to a person."""
        self.dirty |= self._position.ended.pop(epoch, None) is not None


def _shortened(ranges: Intervals) -> int:
    """Leave only the latest RANGES_MAX ranges in the set; gives how many numbers went with the others."""
    surplus = list(islice(ranges, max(0, ranges.range_count - RANGES_MAX)))
    return sum(ranges.remove(first, last) for first, last in surplus)
