"""The ledger of one partition: its position, its windows with what became of every number, and its emitters.

Documents of several kinds, written by the worker that has claimed the partition, under the generation of its claim:

* ``window``: one minute of one ingest process: which numbers are settled, the outcomes by emitter, and, once the
  process's marker has come by, what that process says it accepted (``ledger/window.py``). Old ones are merged to
  hours.
* ``emitter``: who sends, and what of the numbers that an emitter gave its events has come (``emitters.py``).
* ``sources`` and ``hearing``: what silence is judged by (``sources.py``).
* ``position``: how far the partition is fully accounted for, and what the queue lost before it was read
  (``ledger/position.py``). It is written last, so it is never ahead of the others.

All values are absolute. Windows and emitters name the ``position`` that they are true for: a record below it is counted
already. So writing a document again, or late, or by a worker that took over, changes no number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

from logweir.clock import WINDOW_US, window_of
from logweir.config import AccountingSettings
from logweir.ledger.documents import (
    EMITTER,
    HEARING,
    POSITION,
    SOURCES,
    WINDOW,
    DocumentKind,
    PartitionId,
    StreamId,
    WindowId,
)
from logweir.ledger.hours import read_windows
from logweir.ledger.intervals import Intervals
from logweir.ledger.position import STREAM_MINUTES_MAX, Departure, LastCanary, Position, Stream, read_positions
from logweir.ledger.source import Hearing, Source
from logweir.ledger.window import Window
from logweir.metrics import registry
from logweir.outcomes import Outcome
from logweir.record import Batch, Gone, Kind, Marker, Record, Void
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.emitters import Earlier, EmitterLedger
from logweir_workers.accounting.sources import SourceLedger

_Place = TypeVar("_Place", bound=tuple[Any, ...])
_NO_SOURCES: Mapping[Source, Batch] = {}
WINDOWS_IN_MEMORY_MAX = 256
"""Windows of one partition kept in memory; the least recently used are read again from the store when needed."""
CLOSED_LATELY_MAX = 1000
"""Windows that wait to be compared with the store's own count; of more, only the latest are, and the others counted."""
CANARIES_MAX = 1000
CANARY_AGE_US_MAX = 3_600_000_000
"""The last canary of an ingest process is known for so long, and of so many processes."""
STRAGGLING_US = 10_000_000
"""A busy broker may have taken a process's last records that much later than its successor's word."""
GONE_MAX = 1000
"""Ingest processes of which it is kept that they are gone, until their books are ended; of more, a person ends them."""
RANGES_MAX = 1000
"""Ranges kept of what the queue lost; of the oldest beyond that, only the count is kept."""
LOST_EPOCHS_MAX = 1000
"""Ingest processes of which it is kept what the queue lost; of the first beyond that, only the count is."""
REWINDS_MAX = 1000
"""Times that the queue went back; the first beyond that are kept as one, to the lowest of their offsets."""


@dataclass(slots=True)
class FirstDays:
    """Of a record's events, by place, the other UTC day on which each came first, as YYYYMMDD.

    ``known``: empty when it was long ago. ``possible``: if it came before, then on one of these: only the store knows.
    """

    known: dict[int, str] = field(default_factory=dict)
    possible: dict[int, list[str]] = field(default_factory=dict)

    def note(self, places: Iterable[int], earlier: Earlier) -> None:
        if earlier.is_sure:
            self.known.update(dict.fromkeys(places, earlier.day))
        else:
            for place in places:
                self.possible.setdefault(place, []).append(earlier.day)


class PartitionLedger:
    """The claimed ledger of one partition. Made by ``claim``; used by one thread.

    ``closed_lately``: windows that were closed and written, for whoever asks the store about them. Those from before
    the claim may be open still, or not be there.
    """

    def __init__(
        self,
        *,
        store: Store,
        group: str,
        place: PartitionId,
        owner: str,
        generation: int,
        position: Position,
        settings: AccountingSettings,
        hearing: Hearing,
        before: Collection[PartitionId],
    ) -> None:
        self.place = place
        self.dropped = False
        self.generation = generation
        self._store = store
        self._group = group
        self._exceptions_max = settings.exceptions_max
        self._owner = owner
        self._position = position
        self.written_offset = position.next_offset or 0
        if any(stream.awaited.since for stream in position.streams.values()):
            # Other partitions may have been read beyond when these are due: then they are by the next time.
            position.due_us = max(position.due_us, position.watermark_us + 1)
        self._canaries_read: list[int] = []
        self._canaries_back: list[int] = []
        self._windows: dict[WindowId, Window] = {}
        self.closed_lately = deque(self._unaudited(), maxlen=CLOSED_LATELY_MAX)
        self._dirty = False
        self.emitters = EmitterLedger(
            store=store, group=group, partition=place, before=before, settings=settings, position=position
        )
        self.sources = SourceLedger(store=store, group=group, partition=place, settings=settings, position=position)
        self._hearing = hearing
        self._is_hearing_dirty = False

    @classmethod
    def claim(
        cls,
        *,
        store: Store,
        group: str,
        topic_id: str,
        partition: int,
        owner: str,
        settings: AccountingSettings = AccountingSettings(),  # noqa: B008 - it is frozen
    ) -> PartitionLedger:
        """Take the partition over from whoever had it. Their later writes fail with CLAIM_LOST."""
        place = PartitionId(topic_id, partition)
        claimed = POSITION.claim(store.ledger, group, place, owner)
        position = Position.from_body(claimed.body) if claimed.body else Position()
        before = {other: known for other, known in read_positions(store, group).items() if other.topic_id != topic_id}
        if position.next_offset is None:
            position.inherit(before, partition)
        found = HEARING.read(store.ledger, group, [place])
        ledger = cls(
            store=store,
            group=group,
            place=place,
            owner=owner,
            generation=claimed.generation,
            position=position,
            settings=settings,
            hearing=Hearing.from_body(found[place].body) if found else Hearing(),
            before=before.keys(),
        )
        if not claimed.body:
            # Before anything is read: nobody may take the other partitions for all that there are.
            store.ledger.write([ledger.document(POSITION, place, position.as_body())])
        return ledger

    @property
    def topic_id(self) -> str:
        return self.place.topic_id

    @property
    def partition(self) -> int:
        return self.place.partition

    @property
    def next_offset(self) -> int | None:
        """Where to read on; None: at the beginning."""
        return self._position.next_offset

    @property
    def watermark_us(self) -> int:
        """Up to when everything that was received is accounted for."""
        return self._position.watermark_us

    def _unaudited(self) -> list[WindowId]:
        """Windows that may have closed and that nobody has asked the store about, the latest CLOSED_LATELY_MAX."""
        since = self._position.audited_until
        found = [
            WindowId(*self.place, epoch, window)
            for epoch, stream in self._position.streams.items()
            for window in range(max(since, stream.window - CLOSED_LATELY_MAX) + 1, stream.window + 1)
        ]
        return sorted(found, key=attrgetter("window"))[-CLOSED_LATELY_MAX:]

    # --- before a record is indexed --------------------------------------------------------------------------------
    def expect(self, record: Record, offset: int) -> FirstDays:
        """The record is going to be indexed: which of its events came first on another UTC day, or may have.

        To be called in the order of the offsets. Raises LogweirError(STORE_DOWN) before anything is noted: call again.
        """
        self.emitters.load(record.batches)
        found = FirstDays()
        place = 0
        for batch in record.batches:
            if batch.sequence_first is not None:
                at = place - batch.sequence_first
                for earlier in self.emitters.expect(batch, offset):
                    found.note(range(at + earlier.first, at + earlier.last + 1), earlier)
            place += len(batch.events)
        return found

    # --- when it is indexed ----------------------------------------------------------------------------------------
    def load(self, records: Iterable[Record], natural: Iterable[Batch] = (), sources: Iterable[Source] = ()) -> None:
        """Have the windows, emitters and sources of these records in memory, as they were written before."""
        self.sources.load(sources)
        records = [record for record in records if record.is_numbered]
        self.emitters.load([*(batch for record in records for batch in record.batches), *natural])
        absent = [place for place in map(self._window_place, records) if place not in self._windows]
        if not absent:
            return
        found = read_windows(self._store, self._group, absent)
        for place in absent:
            window = self._windows[place] = found.get(place) or Window(place)
            window.position = self._position.true_for(window.position, window.rewinds)

    def settle(
        self,
        record: Record,
        offset: int,
        outcomes: Sequence[Outcome],
        reasons: Mapping[int, str] | None = None,
        natural: Sequence[Batch] = (),
        sources: Mapping[Source, Batch] = _NO_SOURCES,
    ) -> bool:
        """Count a record's outcomes, one for each of its events, and move behind it. False: it was counted before.

        ``reasons``: why the outcome is not another one, by the event's place in the record; of dead letters, all.
        ``natural``: runs of its events as the emitters and the numbers that the events themselves name. ``sources``:
        whom its events are of, each with a batch that it is in. To be called in the order of the offsets, after
        ``load``, once everything of the record is durable.
        """
        self._is_hearing_dirty |= self._hearing.mark(record.window)
        if sources:
            self.sources.mark(sources, record.ingest_epoch.hex())
        if not record.is_numbered:
            self._note_canary(record)
            self._note_gone(record, offset)
            self._move_behind(offset)
            return True
        gone = self._position.gone.get(record.ingest_epoch.hex())
        if gone is not None:  # Its last records were on their way still.
            self._position.gone[record.ingest_epoch.hex()] = gone._replace(offset=offset)
        counted = self._count(record, offset, outcomes, reasons or {}, natural)
        self._follow(record, offset)
        self._move_behind(offset)
        return counted

    def pass_over(self, offset: int) -> None:
        """Move behind a record that cannot be read: what numbers it had is not known."""
        self._position.unreadable.add(offset, offset)
        _shortened(self._position.unreadable)  # Each is a dead letter, too.
        self._move_behind(offset)

    def expire(self, first: int, last: int) -> None:
        """Note that the queue no longer had the offsets ``first`` to ``last``; go on behind them.

        To be called when everything before ``first`` is settled.
        """
        position = self._position
        position.expired.add(first, last)
        position.expired_before += _shortened(position.expired)
        # Who was heard of lately may have sent on, and ended, in there: that shows when it is heard of again, or never.
        recent = window_of(position.watermark_us) - 1
        for epoch, stream in position.streams.items():
            if stream.window >= recent:
                position.unheard.setdefault(epoch, first)
        self._move_behind(last)

    def rewind(self, offset: int) -> None:
        """Go back to where the queue ends: it has lost what was behind, and will give these offsets out again."""
        position = self._position
        position.next_offset = offset
        self._dirty = True
        position.rewinds.append(offset)
        while len(position.rewinds) > REWINDS_MAX:
            position.rewinds[:2] = [min(position.rewinds[:2])]
            position.rewinds_before += 1
        for window in self._windows.values():
            window.position = min(window.position, offset)
            window.dirty = True
        self.emitters.rewind(offset)
        for epoch, gone in position.gone.items():
            position.gone[epoch] = gone._replace(offset=min(gone.offset, offset - 1))
        for stream in position.streams.values():
            stream.offset = min(stream.offset, offset - 1)

    def idle(self, now_us: int) -> None:
        """Nothing is left in the queue that was there at ``now_us``: numbers that are missing may be lost by now."""
        position = self._position
        if position.watermark_us < min(position.due_us, now_us):
            position.watermark_us = now_us
            self._dirty = True
        self._is_hearing_dirty |= self._hearing.clear(now_us)

    def flush(self) -> int | None:
        """Write what has changed; gives the offset to commit, None when nothing has changed, or nothing was read yet.

        Raises LogweirError: CLAIM_LOST, STORE_DOWN (then all of it is written by the next flush).
        """
        if not self._dirty:
            self._write_hearing()
            return None
        position = self._position
        for epoch, stream in position.streams.items():
            self._lose(epoch, list(stream.awaited.give_up(position.watermark_us - self.emitters.late_us)))
        position.audited_until = min((place.window - 1 for place in self.closed_lately), default=position.audited_until)
        position.emitters, position.emitters_untracked = self.emitters.count, self.emitters.untracked
        position.sources, position.sources_untracked = self.sources.count, self.sources.untracked
        windows = [window for window in self._windows.values() if window.dirty]
        emitters = self.emitters.touched()
        for window in windows:
            window.rewinds = position.rewind_count
        for state in emitters:
            state.rewinds = position.rewind_count
        # The position last: a crash in between leaves it behind the others, which know what they have counted.
        self._store.ledger.write(
            [
                *(self.document(WINDOW, window.place, window.as_body()) for window in windows),
                *(self.document(EMITTER, state.place, state.as_body()) for state in emitters),
                *(self.document(SOURCES, place, body) for place, body in self.sources.touched()),
                *self._hearing_documents(),
                self.document(POSITION, self.place, position.as_body()),
            ]
        )
        for window in windows:
            window.dirty = False
        for state in emitters:
            state.dirty = False
        self.sources.written()
        self._is_hearing_dirty = False
        self._dirty = False
        self.written_offset = position.next_offset or 0
        self._forget()
        self._canaries_back += self._canaries_read
        self._canaries_read = []
        return position.next_offset

    def _write_hearing(self) -> None:
        """Say up to when the queue is worked off, although nothing has come."""
        if self._is_hearing_dirty:
            self._store.ledger.write(self._hearing_documents())
            self._is_hearing_dirty = False

    def _hearing_documents(self) -> list[LedgerDocument]:
        return [self.document(HEARING, self.place, self._hearing.as_body())] if self._is_hearing_dirty else []

    def take_canaries(self) -> list[int]:
        """When the canaries were sent, in microseconds, that have come into the store since the last call."""
        back, self._canaries_back = self._canaries_back, []
        return back

    def _note_canary(self, record: Record) -> None:
        canary = record.canary
        if canary is None or canary.high is None:
            return
        sent_us = canary.received_us
        self._position.watermark_us = max(self._position.watermark_us, sent_us)
        canaries = self._position.canaries
        canaries.pop(record.ingest_epoch.hex(), None)
        canaries[record.ingest_epoch.hex()] = LastCanary(canary.high, sent_us)
        for epoch in list(canaries):
            is_old = canaries[epoch].sent_us < sent_us - CANARY_AGE_US_MAX
            if is_old or len(canaries) > CANARIES_MAX:
                del canaries[epoch]
        self._canaries_read.append(sent_us)

    def _note_gone(self, record: Record, offset: int) -> None:
        if isinstance(record.body, Gone):
            position = self._position
            position.gone[record.ingest_epoch.hex()] = Departure(offset, record.body.by.hex(), record.body.said_us)
            # When nothing is sent any more, the watermark goes on for what is due.
            position.due_us = max(position.due_us, record.body.said_us + STRAGGLING_US)
            while len(position.gone) > GONE_MAX:
                del position.gone[next(iter(position.gone))]

    def gone(self) -> dict[str, str]:
        """Processes whose books can be ended here, and who said that they are gone.

        What was received up to a while after that is accounted for and written, and what a marker has told of is here
        or lost.
        """
        position = self._position
        return {
            epoch: gone.by
            for epoch, gone in position.gone.items()
            if gone.offset < self.written_offset
            and position.watermark_us >= gone.said_us + STRAGGLING_US
            and not (epoch in position.streams and position.streams[epoch].awaited.is_told)
        }

    def doubt_of(self, epoch: str) -> str | None:
        """Why not all is known that a process that is gone sent to the partition, or None."""
        stream = self._position.streams.get(epoch)
        if stream is None:
            return "it was heard of too long ago to know what it sent"
        if stream.awaited.since:
            return "numbers that it gave out never came"
        is_cut = any(stream.offset < at for at in self._position.rewinds)
        if is_cut or self._has_hole(stream.offset + 1, self.written_offset - 1):
            return "the queue has lost records since it was heard of last"
        return None

    def forget_gone(self, epoch: str) -> None:
        """Its books are ended, or left to a person."""
        self._dirty = self._position.gone.pop(epoch, None) is not None or self._dirty

    # --- counting --------------------------------------------------------------------------------------------------
    def _move_behind(self, offset: int) -> None:
        self._position.next_offset = offset + 1
        self._dirty = True

    def _count(
        self,
        record: Record,
        offset: int,
        outcomes: Sequence[Outcome],
        reasons: Mapping[int, str],
        natural: Sequence[Batch],
    ) -> bool:
        window = self._windows[self._window_place(record)]
        is_counted = offset < window.position
        if not is_counted:
            new = self._count_in_window(window, record, offset, outcomes, reasons)
            if record.count and isinstance(record.body, list) and not new:
                return False
        place = 0
        for batch in record.batches:
            end = place + len(batch.events)
            self._count_emitter(batch, offset, outcomes[place:end], window.ingest_epoch)
            place = end
        for run in natural:
            self._count_emitter(run, offset, [Outcome.INDEXED] * len(run.events), window.ingest_epoch, natural=True)
        self.emitters.counted([*record.batches, *natural] if natural else record.batches, offset)
        return True

    def _count_in_window(
        self, window: Window, record: Record, offset: int, outcomes: Sequence[Outcome], reasons: Mapping[int, str]
    ) -> int:
        """Count what is new; gives how many numbers were."""
        new = 0
        if window.minutes and (not record.count or window.numbers.covers(record.first, record.last)):
            return 0  # It is merged into its hour, complete: this record came before.
        stream = self._position.streams.get(window.ingest_epoch)
        # Out of order, from a spool, some of it may have been in any hole there was.
        if not window.position and stream is not None and record.first > stream.last:
            window.begin = stream.offset
        if isinstance(record.body, Marker | Void):
            # A marker may come twice, when the door was told that the first had failed.
            window.voids.add_all(record.body.voids)
            if isinstance(record.body, Marker):
                window.close(record, record.body)
        else:
            ranges = list(window.numbers.gaps(record.first, record.last))
            new = sum(last - first + 1 for first, last in ranges)
            if new and window.closed:
                window.amend(offset, record.first, record.last, new)
            window.count_record(
                record, ranges, outcomes, reasons, self._position.lost.get(window.ingest_epoch, Intervals())
            )
            self._keep_exceptions(window, record, ranges, outcomes, reasons)
            window.numbers.add(record.first, record.last)
        window.position = offset + 1
        window.dirty = True
        # Most recently used last, for _forget.
        self._windows[window.place] = self._windows.pop(window.place)
        return new

    def _keep_exceptions(
        self,
        window: Window,
        record: Record,
        ranges: Sequence[tuple[int, int]],
        outcomes: Sequence[Outcome],
        reasons: Mapping[int, str],
    ) -> None:
        for first, last in ranges:
            place = first - record.first
            unkept = window.exceptions.add(
                first, outcomes[place : last - record.first + 1], reasons, place=place, ranges_max=self._exceptions_max
            )
            if unkept:
                registry.get("logweir_worker_receipt_outcomes_unkept_total").inc(unkept)

    def _count_emitter(
        self, batch: Batch, offset: int, outcomes: Sequence[Outcome], door: str, *, natural: bool = False
    ) -> None:
        position = self._position
        if batch.received_us > position.watermark_us:
            position.watermark_us = batch.received_us
        due_us = self.emitters.settle(batch, offset, outcomes, position.watermark_us, natural=natural, door=door)
        if due_us > position.due_us:
            position.due_us = due_us

    def _follow(self, record: Record, offset: int) -> None:
        """See whether numbers of the record's process should be here and are not, and fell into a hole of the queue."""
        epoch = record.ingest_epoch.hex()
        stream = self._stream(epoch, record)
        # What comes twice says nothing of what was sent since.
        if record.kind == Kind.MARKER or record.last > stream.last:
            self._position.unheard.pop(epoch, None)
        stream.window = max(stream.window, record.window)
        self._position.audited_until = self._position.audited_until or record.window - 1
        # What a marker covers, and what is below a record's first number, was sent before it.
        sent = record.last if record.kind == Kind.MARKER else record.first - 1
        if sent > stream.last:
            stream.awaited.overtake(stream.last + 1, sent)
            if self._has_hole(stream.offset + 1, offset - 1):
                self._lose(epoch, [(stream.last + 1, sent)])
        here = record.body.voids if isinstance(record.body, Marker | Void) else [(record.first, record.last)]
        for pair in here:
            stream.awaited.come(*pair)
        if record.kind == Kind.MARKER:
            # Records from a spool may have been on their way out of order: a hole may have any number of the window.
            window = self._windows[self._window_place(record)]
            if self._has_hole(window.begin + 1, offset - 1):
                known = Intervals([*window.numbers, *window.voids])
                self._lose(epoch, list(known.gaps(record.first, record.last)))
            since_us = max(self._position.watermark_us, (record.window + 1) * WINDOW_US)
            if stream.awaited.tell(record.last, since_us):
                self._position.due_us = max(self._position.due_us, since_us + self.emitters.late_us)
        # What comes twice, late from a spool, or as the marker of an older window says nothing of what was sent since.
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

    def _lose(self, epoch: str, ranges: Collection[tuple[int, int]]) -> None:
        if not ranges:
            return
        position = self._position
        lost = position.lost.setdefault(epoch, Intervals())
        lost.add_all(ranges)
        position.lost_before += _shortened(lost)
        for pair in ranges:
            position.streams[epoch].awaited.come(*pair)
        while len(position.lost) > LOST_EPOCHS_MAX:
            position.lost_before += len(position.lost.pop(next(iter(position.lost))))

    def forget_lost(self, starts: Mapping[StreamId, int]) -> None:
        """Forget what the queue lost of processes whose books begin behind it, at these numbers."""
        position = self._position
        for epoch in list(position.lost):
            if position.lost[epoch].max < starts.get(StreamId(epoch, self.partition), 0):
                position.lost_before += len(position.lost.pop(epoch))
                self._dirty = True

    def _has_hole(self, first: int, last: int) -> bool:
        position = self._position
        return any(any(True for _ in holes.within(first, last)) for holes in (position.expired, position.unreadable))

    # --- documents -------------------------------------------------------------------------------------------------
    def _forget(self) -> None:
        closed = [place for place, window in self._windows.items() if window.closed]
        surplus = list(self._windows)[: max(0, len(self._windows) - WINDOWS_IN_MEMORY_MAX)]
        surplus_closed = len(self.closed_lately) + len(closed) - CLOSED_LATELY_MAX
        registry.get("logweir_worker_windows_unaudited_total").inc(max(0, surplus_closed))
        self.closed_lately.extend(closed)
        for place in {*closed, *surplus}:
            del self._windows[place]
        self.emitters.forget()
        position = self._position
        before = position.latest_window - STREAM_MINUTES_MAX
        for epoch in [epoch for epoch, stream in position.streams.items() if stream.window < before]:
            del position.streams[epoch]
            position.unheard.pop(epoch, None)

    def audited(self) -> None:
        """The store has been asked about the first of ``closed_lately``."""
        place = self.closed_lately.popleft()
        self._position.audited_until = max(self._position.audited_until, place.window)

    def let_go(self, places: Collection[WindowId]) -> bool:
        """Forget windows that are about to leave the ledger; False, and nothing is done, when one is to be written."""
        if any(place in self._windows and self._windows[place].dirty for place in places):
            return False
        for place in places:
            self._windows.pop(place, None)
        return True

    def _window_place(self, record: Record) -> WindowId:
        return WindowId(*self.place, record.ingest_epoch.hex(), record.window)

    def document(self, kind: DocumentKind[_Place], place: _Place, body: dict[str, Any]) -> LedgerDocument:
        """A document of this partition, under the generation of our claim."""
        return kind.document(self._group, place, self.generation, body, owner=self._owner)


def _shortened(ranges: Intervals) -> int:
    """Leave only the latest RANGES_MAX ranges in the set; gives how many numbers went with the others."""
    surplus = list(islice(ranges, max(0, ranges.range_count - RANGES_MAX)))
    return sum(ranges.remove(first, last) for first, last in surplus)
