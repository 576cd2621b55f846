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
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from logweir.clock import WINDOW_US, window_of
from logweir.config import AccountingSettings
from logweir.ledger.emitter import document_id
from logweir.ledger.intervals import Intervals
from logweir.ledger.position import STREAM_MINUTES_MAX, Place, inherited, position_id, read_positions
from logweir.ledger.source import Hearing, Source, hearing_id, sources_prefix
from logweir.ledger.tracker import pairs
from logweir.ledger.window import Window, hour_id, window_id, window_of_hour
from logweir.metrics import registry
from logweir.outcomes import Outcome
from logweir.record import Batch, Gone, Kind, Marker, Record, Void
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.awaited import Awaited
from logweir_workers.accounting.emitters import Earlier, EmitterLedger
from logweir_workers.accounting.sources import SourceLedger

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
class Stream:
    """How far one ingest process's numbers have come by: ``last`` of them, in the record at ``offset``."""

    last: int = 0
    offset: int = -1
    window: int = 0
    awaited: Awaited = field(default_factory=Awaited)


class Departure(NamedTuple):
    """What was said at ``offset`` of a process that is gone: by whom, and when."""

    offset: int
    by: str
    said_us: int


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

    ``closed_lately``: id and minute of windows that were closed and written, for whoever asks the store about them.
    Those from before the claim may be open still, or not be there.
    """

    def __init__(
        self,
        *,
        store: Store,
        group: str,
        topic_id: str,
        owner: str,
        partition: int,
        claimed: LedgerDocument,
        settings: AccountingSettings,
        hearing: Hearing,
        before: Mapping[Place, dict[str, Any]],
    ) -> None:
        self.partition = partition
        self.dropped = False
        self._store = store
        self._group = group
        self.topic_id = topic_id
        self._exceptions_max = settings.exceptions_max
        self._owner = owner
        self.generation = claimed.generation
        body = claimed.body
        self._expired = Intervals(body.get("expired", []))
        self._unreadable = Intervals(body.get("unreadable", []))
        self._expired_before: int = body.get("expired_before", 0)
        self._lost_before: int = body.get("lost_before", 0)
        self._rewinds: list[int] = body.get("rewinds", [])
        self._rewinds_before: int = body.get("rewinds_before", 0)
        awaited = body.get("awaited", {})
        self._streams = {
            epoch: Stream(last, offset, window, Awaited.from_body(awaited.get(epoch, ())))
            for epoch, (last, offset, window) in body.get("streams", {}).items()
        }
        self._unheard: dict[str, int] = body.get("unheard", {})
        self._lost = {epoch: Intervals(ranges) for epoch, ranges in body.get("lost", {}).items()}
        self._canaries: dict[str, tuple[int, int]] = {
            epoch: (number, sent_us) for epoch, (number, sent_us) in body.get("canaries", {}).items()
        }
        self._gone: dict[str, Departure] = {epoch: Departure(*rest) for epoch, rest in body.get("gone", {}).items()}
        self._canaries_read: list[int] = []
        self._canaries_back: list[int] = []
        self._windows: dict[str, Window] = {}
        latest = max((stream.window for stream in self._streams.values()), default=0)
        self._audited_until: int = body.get("audited_until", latest)
        self.closed_lately = deque(self._unaudited(), maxlen=CLOSED_LATELY_MAX)
        self._dirty = False
        self.written_offset: int = body.get("next_offset") or 0
        self._due_us: int = body.get("due_us", 0)
        # What was lost by the watermark of a topic before this one stays lost.
        before_us = max((one.get("watermark_us", 0) for one in before.values()), default=0)
        self.watermark_us: int = body.get("watermark_us", before_us)
        if awaited:
            # Other partitions may have been read beyond when these are due: then they are by the next time.
            self._due_us = max(self._due_us, self.watermark_us + 1)
        self.next_offset: int | None = body.get("next_offset")
        self.emitters = EmitterLedger(
            store=store,
            name_of=lambda emitter: document_id(group, emitter, topic_id, partition),
            names_before=lambda emitter: [document_id(group, emitter, *place) for place in before],
            position_of=self._position_of,
            settings=settings,
            count=body.get("emitters", 0),
            untracked=body.get("emitters_untracked", 0),
        )
        prefix = f"{sources_prefix(group)}{topic_id}:{partition}:"
        self.sources = SourceLedger(store=store, prefix=prefix, settings=settings, body=body)
        self._hearing = hearing

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
        claimed = store.ledger.claim(position_id(group, topic_id, partition), owner)
        is_new = not claimed.body
        before = {place: body for place, body in read_positions(store, group).items() if place[0] != topic_id}
        if claimed.body.get("next_offset") is None:
            claimed = replace(claimed, body={**claimed.body, **inherited(before, partition)})
        id = hearing_id(group, topic_id, partition)
        found = store.ledger.read([id]).get(id)
        ledger = cls(
            store=store,
            group=group,
            topic_id=topic_id,
            owner=owner,
            partition=partition,
            claimed=claimed,
            settings=settings,
            hearing=Hearing(found.body if found else {}),
            before=before,
        )
        if is_new:
            # Before anything is read: nobody may take the other partitions for all that there are.
            store.ledger.write([ledger.document(position_id(group, topic_id, partition), ledger._position())])
        return ledger

    def _unaudited(self) -> list[tuple[str, int]]:
        """Windows that may have closed and that nobody has asked the store about, the latest CLOSED_LATELY_MAX."""
        found = [
            (window_id(self._group, self.topic_id, self.partition, bytes.fromhex(epoch), window), window)
            for epoch, stream in self._streams.items()
            for window in range(max(self._audited_until, stream.window - CLOSED_LATELY_MAX) + 1, stream.window + 1)
        ]
        return sorted(found, key=itemgetter(1))[-CLOSED_LATELY_MAX:]

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
        wanted = {self._window_id(record): record for record in records}
        absent = [id for id in wanted if id not in self._windows]
        if not absent:
            return
        hours = {id: self._hour_id(wanted[id]) for id in absent}
        stored = self._store.ledger.read([*absent, *set(hours.values())])
        for id in absent:
            record = wanted[id]
            hour = stored.get(hours[id])
            merged = window_of_hour(id, hour.body, record.window) if hour else None
            if merged is not None:
                self._windows[id] = merged
            elif id in stored:
                self._windows[id] = Window.from_body(id, stored[id].body)
                self._windows[id].position = self._position_of(stored[id].body)
            else:
                self._windows[id] = Window(id, record.ingest_epoch.hex(), record.window)

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
        self._hearing.mark(record.window)
        if sources:
            self.sources.mark(sources, record.ingest_epoch.hex())
        if not record.is_numbered:
            self._note_canary(record)
            self._note_gone(record, offset)
            self._move_behind(offset)
            return True
        gone = self._gone.get(record.ingest_epoch.hex())
        if gone is not None:  # Its last records were on their way still.
            self._gone[record.ingest_epoch.hex()] = gone._replace(offset=offset)
        counted = self._count(record, offset, outcomes, reasons or {}, natural)
        self._follow(record, offset)
        self._move_behind(offset)
        return counted

    def pass_over(self, offset: int) -> None:
        """Move behind a record that cannot be read: what numbers it had is not known."""
        self._unreadable.add(offset, offset)
        _shortened(self._unreadable)  # Each is a dead letter, too.
        self._move_behind(offset)

    def expire(self, first: int, last: int) -> None:
        """Note that the queue no longer had the offsets ``first`` to ``last``; go on behind them.

        To be called when everything before ``first`` is settled.
        """
        self._expired.add(first, last)
        self._expired_before += _shortened(self._expired)
        # Who was heard of lately may have sent on, and ended, in there: that shows when it is heard of again, or never.
        recent = window_of(self.watermark_us) - 1
        for epoch, stream in self._streams.items():
            if stream.window >= recent:
                self._unheard.setdefault(epoch, first)
        self._move_behind(last)

    def rewind(self, offset: int) -> None:
        """Go back to where the queue ends: it has lost what was behind, and will give these offsets out again."""
        self.next_offset = offset
        self._dirty = True
        self._rewinds.append(offset)
        while len(self._rewinds) > REWINDS_MAX:
            self._rewinds[:2] = [min(self._rewinds[:2])]
            self._rewinds_before += 1
        for window in self._windows.values():
            window.position = min(window.position, offset)
            window.dirty = True
        self.emitters.rewind(offset)
        self._gone = {epoch: gone._replace(offset=min(gone.offset, offset - 1)) for epoch, gone in self._gone.items()}
        for stream in self._streams.values():
            stream.offset = min(stream.offset, offset - 1)

    def idle(self, now_us: int) -> None:
        """Nothing is left in the queue that was there at ``now_us``: numbers that are missing may be lost by now."""
        if self.watermark_us < min(self._due_us, now_us):
            self.watermark_us = now_us
            self._dirty = True
        self._hearing.clear(now_us)

    def flush(self) -> int | None:
        """Write what has changed; gives the offset to commit, None when nothing has changed, or nothing was read yet.

        Raises LogweirError: CLAIM_LOST, STORE_DOWN (then all of it is written by the next flush).
        """
        if not self._dirty:
            self._write_hearing()
            return None
        for epoch, stream in self._streams.items():
            self._lose(epoch, list(stream.awaited.give_up(self.watermark_us - self.emitters.late_us)))
        windows = [window for window in self._windows.values() if window.dirty]
        emitters = self.emitters.touched()
        # The position last: a crash in between leaves it behind the others, which know what they have counted.
        self._store.ledger.write(
            [
                *(self.document(window.id, window.as_body()) for window in windows),
                *(self.document(state.id, state.as_body()) for state in emitters),
                *(self.document(id, body) for id, body in self.sources.touched()),
                *self._hearing_documents(),
                self.document(position_id(self._group, self.topic_id, self.partition), self._position()),
            ]
        )
        for window in windows:
            window.dirty = False
        for state in emitters:
            state.dirty = False
        self.sources.written()
        self._hearing.dirty = False
        self._dirty = False
        self.written_offset = self.next_offset or 0
        self._forget()
        self._canaries_back += self._canaries_read
        self._canaries_read = []
        return self.next_offset

    def _write_hearing(self) -> None:
        """Say up to when the queue is worked off, although nothing has come."""
        if self._hearing.dirty:
            self._store.ledger.write(self._hearing_documents())
            self._hearing.dirty = False

    def _hearing_documents(self) -> list[LedgerDocument]:
        id = hearing_id(self._group, self.topic_id, self.partition)
        return [self.document(id, self._hearing.as_body())] if self._hearing.dirty else []

    def take_canaries(self) -> list[int]:
        """When the canaries were sent, in microseconds, that have come into the store since the last call."""
        back, self._canaries_back = self._canaries_back, []
        return back

    def _note_canary(self, record: Record) -> None:
        canary = record.canary
        if canary is None or canary.high is None:
            return
        sent_us = canary.received_us
        self.watermark_us = max(self.watermark_us, sent_us)
        self._canaries.pop(record.ingest_epoch.hex(), None)
        self._canaries[record.ingest_epoch.hex()] = (canary.high, sent_us)
        for epoch in list(self._canaries):
            is_old = self._canaries[epoch][1] < sent_us - CANARY_AGE_US_MAX
            if is_old or len(self._canaries) > CANARIES_MAX:
                del self._canaries[epoch]
        self._canaries_read.append(sent_us)

    def _note_gone(self, record: Record, offset: int) -> None:
        if isinstance(record.body, Gone):
            self._gone[record.ingest_epoch.hex()] = Departure(offset, record.body.by.hex(), record.body.said_us)
            # When nothing is sent any more, the watermark goes on for what is due.
            self._due_us = max(self._due_us, record.body.said_us + STRAGGLING_US)
            while len(self._gone) > GONE_MAX:
                del self._gone[next(iter(self._gone))]

    def gone(self) -> dict[str, str]:
        """Processes whose books can be ended here, and who said that they are gone.

        What was received up to a while after that is accounted for and written, and what a marker has told of is here
        or lost.
        """
        return {
            epoch: gone.by
            for epoch, gone in self._gone.items()
            if gone.offset < self.written_offset
            and self.watermark_us >= gone.said_us + STRAGGLING_US
            and not (epoch in self._streams and self._streams[epoch].awaited.is_told)
        }

    def doubt_of(self, epoch: str) -> str | None:
        """Why not all is known that a process that is gone sent to the partition, or None."""
        stream = self._streams.get(epoch)
        if stream is None:
            return "it was heard of too long ago to know what it sent"
        if stream.awaited.since:
            return "numbers that it gave out never came"
        is_cut = any(stream.offset < at for at in self._rewinds)
        if is_cut or self._has_hole(stream.offset + 1, self.written_offset - 1):
            return "the queue has lost records since it was heard of last"
        return None

    def forget_gone(self, epoch: str) -> None:
        """Its books are ended, or left to a person."""
        self._dirty = self._gone.pop(epoch, None) is not None or self._dirty

    # --- counting --------------------------------------------------------------------------------------------------
    def _move_behind(self, offset: int) -> None:
        self.next_offset = offset + 1
        self._dirty = True

    def _count(
        self,
        record: Record,
        offset: int,
        outcomes: Sequence[Outcome],
        reasons: Mapping[int, str],
        natural: Sequence[Batch],
    ) -> bool:
        window = self._windows[self._window_id(record)]
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
        stream = self._streams.get(window.ingest_epoch)
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
            window.count_record(record, ranges, outcomes, reasons, self._lost.get(window.ingest_epoch, Intervals()))
            self._keep_exceptions(window, record, ranges, outcomes, reasons)
            window.numbers.add(record.first, record.last)
        window.position = offset + 1
        window.dirty = True
        # Most recently used last, for _forget.
        self._windows[window.id] = self._windows.pop(window.id)
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
        if batch.received_us > self.watermark_us:
            self.watermark_us = batch.received_us
        due_us = self.emitters.settle(batch, offset, outcomes, self.watermark_us, natural=natural, door=door)
        if due_us > self._due_us:
            self._due_us = due_us

    def _follow(self, record: Record, offset: int) -> None:
        """See whether numbers of the record's process should be here and are not, and fell into a hole of the queue."""
        epoch = record.ingest_epoch.hex()
        stream = self._stream(epoch, record)
        # What comes twice says nothing of what was sent since.
        if record.kind == Kind.MARKER or record.last > stream.last:
            self._unheard.pop(epoch, None)
        stream.window = max(stream.window, record.window)
        self._audited_until = self._audited_until or record.window - 1
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
            window = self._windows[self._window_id(record)]
            if self._has_hole(window.begin + 1, offset - 1):
                known = Intervals([*window.numbers, *window.voids])
                self._lose(epoch, list(known.gaps(record.first, record.last)))
            since_us = max(self.watermark_us, (record.window + 1) * WINDOW_US)
            if stream.awaited.tell(record.last, since_us):
                self._due_us = max(self._due_us, since_us + self.emitters.late_us)
        # What comes twice, late from a spool, or as the marker of an older window says nothing of what was sent since.
        if record.last > stream.last:
            stream.last = record.last
            # Of the next window, something may have been sent before the marker of this one.
            if record.kind != Kind.MARKER:
                stream.offset = offset

    def _stream(self, epoch: str, record: Record) -> Stream:
        """Of one that is heard of for the first time; or was, and is forgotten: then nobody knows what came before."""
        if epoch not in self._streams:
            latest = max((stream.window for stream in self._streams.values()), default=0)
            is_forgotten = record.window < latest - STREAM_MINUTES_MAX
            self._streams[epoch] = Stream(last=record.first - 1 if is_forgotten else 0)
        return self._streams[epoch]

    def _lose(self, epoch: str, ranges: Collection[tuple[int, int]]) -> None:
        if not ranges:
            return
        lost = self._lost.setdefault(epoch, Intervals())
        lost.add_all(ranges)
        self._lost_before += _shortened(lost)
        for pair in ranges:
            self._streams[epoch].awaited.come(*pair)
        while len(self._lost) > LOST_EPOCHS_MAX:
            self._lost_before += len(self._lost.pop(next(iter(self._lost))))

    def forget_lost(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Forget what the queue lost of processes whose books begin behind it: numbers by epoch and partition."""
        for epoch in [epoch for epoch, lost in self._lost.items() if lost.max < starts.get((epoch, self.partition), 0)]:
            self._lost_before += len(self._lost.pop(epoch))
            self._dirty = True

    def _has_hole(self, first: int, last: int) -> bool:
        return any(any(True for _ in holes.within(first, last)) for holes in (self._expired, self._unreadable))

    # --- documents -------------------------------------------------------------------------------------------------
    def _position_of(self, body: dict[str, Any]) -> int:
        """The position that a stored document is true for, now that the queue may have gone back since."""
        known = max(0, body.get("rewinds", 0) - self._rewinds_before)
        return min([int(body["position"]), *self._rewinds[known:]])

    def _forget(self) -> None:
        closed = [id for id, window in self._windows.items() if window.closed]
        surplus = list(self._windows)[: max(0, len(self._windows) - WINDOWS_IN_MEMORY_MAX)]
        surplus_closed = len(self.closed_lately) + len(closed) - CLOSED_LATELY_MAX
        registry.get("logweir_worker_windows_unaudited_total").inc(max(0, surplus_closed))
        self.closed_lately.extend((id, self._windows[id].window) for id in closed)
        for id in {*closed, *surplus}:
            del self._windows[id]
        self.emitters.forget()
        latest = max((stream.window for stream in self._streams.values()), default=0)
        for epoch in [epoch for epoch, stream in self._streams.items() if stream.window < latest - STREAM_MINUTES_MAX]:
            del self._streams[epoch]
            self._unheard.pop(epoch, None)

    def audited(self) -> None:
        """The store has been asked about the first of ``closed_lately``."""
        _, window = self.closed_lately.popleft()
        self._audited_until = max(self._audited_until, window)

    def let_go(self, ids: Collection[str]) -> bool:
        """Forget windows that are about to leave the ledger; False, and nothing is done, when one is to be written."""
        if any(id in self._windows and self._windows[id].dirty for id in ids):
            return False
        for id in ids:
            self._windows.pop(id, None)
        return True

    def _hour_id(self, record: Record) -> str:
        return hour_id(self._group, self.topic_id, self.partition, record.ingest_epoch, record.window)

    def _window_id(self, record: Record) -> str:
        return window_id(self._group, self.topic_id, self.partition, record.ingest_epoch, record.window)

    def document(self, id: str, body: dict[str, Any]) -> LedgerDocument:
        """A document of this partition, under the generation of our claim."""
        common = {
            "owner": self._owner,
            "partition": self.partition,
            "rewinds": self._rewinds_before + len(self._rewinds),
        }
        return LedgerDocument(id, self.generation, {**common, **body})

    def _position(self) -> dict[str, Any]:
        return {
            "kind": "position",
            "next_offset": self.next_offset,
            "watermark_us": self.watermark_us,
            "due_us": self._due_us,
            "expired": pairs(self._expired),
            "expired_before": self._expired_before,
            "unreadable": pairs(self._unreadable),
            "rewinds": self._rewinds,
            "rewinds_before": self._rewinds_before,
            "audited_until": min((window - 1 for _, window in self.closed_lately), default=self._audited_until),
            "streams": {epoch: [stream.last, stream.offset, stream.window] for epoch, stream in self._streams.items()},
            "awaited": {epoch: rows for epoch, stream in self._streams.items() if (rows := stream.awaited.as_body())},
            "canaries": self._canaries,
            "gone": {epoch: list(gone) for epoch, gone in self._gone.items()},
            "unheard": self._unheard,
            "lost_before": self._lost_before,
            "lost": {epoch: pairs(ranges) for epoch, ranges in self._lost.items()},
            "emitters": self.emitters.count,
            "emitters_untracked": self.emitters.untracked,
            "sources": self.sources.count,
            "sources_untracked": self.sources.untracked,
        }


def _shortened(ranges: Intervals) -> int:
    """Leave only the latest RANGES_MAX ranges in the set; gives how many numbers went with the others."""
    surplus = list(islice(ranges, max(0, ranges.range_count - RANGES_MAX)))
    return sum(ranges.remove(first, last) for first, last in surplus)
