"""The ledger of one partition: its position, and what it counts: windows, emitters, streams, sources, canaries.

Written by the worker that has claimed the partition, under the generation of its claim (``ledger/documents.py`` has the
kinds of document). All values are absolute. Windows and emitters name the position that they are true for: a record
below it is counted already. So writing a document again, or late, or by a worker that took over, changes no number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from logweir.clock import WINDOW_US
from logweir.config import AccountingSettings
from logweir.errors import LEDGER_SET_BACK, LogweirError
from logweir.ledger.activity import Activity, caught_up_minutes, read_activities
from logweir.ledger.checkpoints import Checkpoints
from logweir.ledger.documents import ACTIVITY, EMITTER, POSITION, SOURCES, WINDOW, DocumentKind, PartitionId
from logweir.ledger.position import Position, read_positions
from logweir.ledger.source import Source
from logweir.record import Batch, Record, Refused
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.canaries import CanaryLedger
from logweir_workers.accounting.emitters import EmitterLedger, FirstDays
from logweir_workers.accounting.settled import SettledRecord
from logweir_workers.accounting.sources import SourceLedger
from logweir_workers.accounting.streams import StreamLedger
from logweir_workers.accounting.windows import WindowLedger

REWINDS_MAX = 1000
"""Times that the queue went back; the first beyond that are kept as one, to the lowest of their offsets."""
_Place = TypeVar("_Place", bound=tuple[Any, ...])


class PartitionLedger:
    """The claimed ledger of one partition. Made by ``claim``; used by one thread."""

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
        activity: Activity,
        before: Collection[PartitionId],
    ) -> None:
        self.place = place
        self.dropped = False
        """The partition is no longer ours: nothing is to be counted any more."""
        self.written_offset = position.next_offset or 0
        """All below is accounted for in the store."""
        self._known_offsets = {position.next_offset}
        """What the position in the store may say: as it was written last, or as it was tried to be since."""
        self._store = store
        self._group = group
        self._owner = owner
        self._generation = generation
        self._position = position
        self._dirty = False
        self._activity = activity
        self._is_activity_dirty = False
        self.windows = WindowLedger(
            store=store, group=group, partition=place, position=position, exceptions_max=settings.exceptions_max
        )
        self.emitters = EmitterLedger(
            store=store, group=group, partition=place, before=before, settings=settings, position=position
        )
        self.streams = StreamLedger(position, place, late_us=settings.late_us)
        self.sources = SourceLedger(store=store, group=group, partition=place, settings=settings, position=position)
        self.canaries = CanaryLedger(position)

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
            position.inherit(before, partition, caught_up_minutes(before, read_activities(store, group)))
        found = ACTIVITY.read(store.ledger, group, [place])
        ledger = cls(
            store=store,
            group=group,
            place=place,
            owner=owner,
            generation=claimed.generation,
            position=position,
            settings=settings,
            activity=Activity.from_body(found[place].body) if found else Activity(),
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

    def begin(self, offset: int) -> None:
        """The books begin at the earliest record that the queue has; what was before, nobody knows here."""
        self._position.begun = offset
        self._move_behind(offset - 1)

    # --- records ---------------------------------------------------------------------------------------------------
    def expect(self, record: Record, offset: int) -> FirstDays:
        """The record is going to be indexed: which of its events came first on another UTC day, or may have.

        To be called in the order of the offsets. Raises LogweirError(STORE_DOWN) before anything is noted: call again.
        """
        self.emitters.load(record.batches)
        return self.emitters.expect(record, offset)

    def load(self, records: Iterable[Record], natural: Iterable[Batch] = (), sources: Iterable[Source] = ()) -> None:
        """Have the windows, emitters and sources of these records in memory, as they were written before.

        Raises LogweirError(STORE_DOWN).
        """
        self.sources.load(sources)
        numbered = [record for record in records if record.is_numbered]
        self.emitters.load([*(batch for record in numbered for batch in record.batches), *natural])
        self.windows.load(numbered)

    def settle(self, settled: SettledRecord) -> bool:
        """Count what became of a record, and move behind it. False: its numbers had come before, in another record.

        To be called in the order of the offsets, after ``load``, once everything of the record is durable.
        """
        record, offset = settled.record, settled.offset
        for minute in _minutes_of(record):
            self._is_activity_dirty |= self._activity.mark(minute)
        if settled.sources:
            self.sources.mark(settled.sources, settled.ingest_epoch)
        is_counted = True
        if record.is_numbered:
            self.streams.note_straggler(settled.ingest_epoch, offset)
            is_counted = self.windows.count(settled)
            if is_counted:
                self.emitters.settle(settled)
            self.streams.follow(record, offset, self.windows.of(record))
        else:
            self.canaries.note(record)
            self.streams.note_end(record, offset)
        self._move_behind(offset)
        return is_counted

    def pass_over(self, offset: int) -> None:
        """Move behind a record that cannot be read: what numbers it had is not known."""
        self.streams.pass_over(offset)
        self._move_behind(offset)

    def expire(self, first: int, last: int) -> None:
        """Note that the queue no longer had the offsets ``first`` to ``last``; go on behind them.

        To be called when everything before ``first`` is settled.
        """
        self.streams.expire(first, last)
        self._move_behind(last)

    def _move_behind(self, offset: int) -> None:
        self._position.next_offset = offset + 1
        self._dirty = True

    def remember(self, offset: int, payload: bytes) -> None:
        """The record that was settled, or passed over, last: to know the queue by, should it be set back."""
        self._position.checkpoints.note(offset, payload)

    @property
    def checkpoints(self) -> Checkpoints:
        """What stood at some offsets below the position."""
        return self._position.checkpoints

    def rewind(self, offset: int) -> None:
        """Go back to where the queue has lost what was behind, and will give these offsets out again, or has."""
        position = self._position
        position.checkpoints.forget_from(offset)
        position.next_offset = offset
        self._dirty = True
        position.rewinds.append(offset)
        while len(position.rewinds) > REWINDS_MAX:
            position.rewinds[:2] = [min(position.rewinds[:2])]
            position.rewinds_before += 1
        self.windows.rewind(offset)
        self.emitters.rewind(offset)
        self.streams.rewind(offset)

    def idle(self, now_us: int) -> None:
        """Nothing is left in the queue that was there at ``now_us``: numbers that are missing may be lost by now."""
        position = self._position
        if position.watermark_us < min(position.due_us, now_us):
            position.watermark_us = now_us
            self._dirty = True
        self._is_activity_dirty |= self._activity.catch_up(now_us)

    # --- in the store ----------------------------------------------------------------------------------------------
    def flush(self) -> int | None:
        """Write what has changed; gives the offset to commit, None when nothing has changed, or nothing was read yet.

        Raises LogweirError: CLAIM_LOST, LEDGER_SET_BACK, STORE_DOWN (then all of it is written by the next flush).
        """
        activity = [self.document(ACTIVITY, self.place, self._activity.as_body())] if self._is_activity_dirty else []
        if not (self._dirty or self.streams.dirty):
            # Up to when the queue is worked off is known although nothing has come.
            if activity:
                self._store.ledger.write(activity)
                self._is_activity_dirty = False
            return None
        self._check_not_set_back()
        position = self._position
        self._known_offsets.add(position.next_offset)
        self.streams.lose_overdue()
        windows, emitters = self.windows.touched(), self.emitters.touched()
        for window in windows:
            window.rewinds = position.rewind_count
        for emitter in emitters:
            emitter.rewinds = position.rewind_count
        position.emitters, position.emitters_untracked = self.emitters.shares.count, self.emitters.untracked
        position.sources, position.sources_untracked = self.sources.shares.count, self.sources.untracked
        position.emitters_by_key, position.sources_by_key = self.emitters.shares.by_key, self.sources.shares.by_key
        # The position last: a crash in between leaves it behind the others, which know what they have counted.
        self._store.ledger.write(
            [
                *(self.document(WINDOW, window.place, window.as_body()) for window in windows),
                *(self.document(EMITTER, emitter.place, emitter.as_body()) for emitter in emitters),
                *(self.document(SOURCES, place, body) for place, body in self.sources.touched()),
                *activity,
                self.document(POSITION, self.place, position.as_body()),
            ]
        )
        self.windows.written()
        self.emitters.written()
        self.sources.written()
        self.canaries.written()
        self.streams.written()
        self._is_activity_dirty = self._dirty = False
        self.written_offset = position.next_offset or 0
        self._known_offsets = {position.next_offset}
        return position.next_offset

    def _check_not_set_back(self) -> None:
        """A position that is written over an older copy of the ledger would hide what that does not have."""
        stored = POSITION.read(self._store.ledger, self._group, [self.place]).get(self.place)
        if stored is None or stored.generation < self._generation:
            raise LogweirError(LEDGER_SET_BACK, partition=self.partition)
        # Of a later generation, it is another worker's: the write says so.
        if stored.generation == self._generation and stored.body["next_offset"] not in self._known_offsets:
            raise LogweirError(LEDGER_SET_BACK, partition=self.partition)

    def document(self, kind: DocumentKind[_Place], place: _Place, body: dict[str, Any]) -> LedgerDocument:
        """A document of this partition, under the generation of our claim."""
        return kind.document(self._group, place, self._generation, body, owner=self._owner)


def _minutes_of(record: Record) -> set[int]:
    """In which minutes it was received. Not its window: that runs ahead of the clock where there are many emitters."""
    body = record.body
    if isinstance(body, list):
        return {batch.received_us // WINDOW_US for batch in body}
    return {body.received_us // WINDOW_US} if isinstance(body, Refused) else set()
