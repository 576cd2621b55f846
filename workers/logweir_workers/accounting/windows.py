"""The windows of one partition: which numbers of each ingest process's minutes are settled, and what became of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter

from logweir.clock import DAY_US
from logweir.ledger.documents import PartitionId, WindowId
from logweir.ledger.hours import read_windows
from logweir.ledger.position import Position
from logweir.ledger.window import Window
from logweir.metrics import registry
from logweir.outcomes import DeadLetterReason
from logweir.record import Marker, Record, Void
from logweir.store.port import Store
from logweir_workers.accounting.settled import SettledRecord

WINDOWS_IN_MEMORY_MAX = 256
"""Windows of one partition kept in memory; the least recently used are read again from the store when needed."""
CLOSED_LATELY_MAX = 1000
"""Windows that wait to be compared with the store's own count; of more, only the latest are, and the others counted."""


class WindowLedger:
    """The windows of one claimed partition. Used by one thread."""

    def __init__(
        self, *, store: Store, group: str, partition: PartitionId, position: Position, exceptions_max: int
    ) -> None:
        self._store = store
        self._group = group
        self._partition = partition
        self._position = position
        self._exceptions_max = exceptions_max
        # Most recently used last.
        self._windows: dict[WindowId, Window] = {}
        self._dirty: set[WindowId] = set()
        self._audited_until = position.audited_until
        self.closed_lately = deque(self._unaudited(), maxlen=CLOSED_LATELY_MAX)
        """Windows that were closed and written, for whoever asks the store about them. Those from before the claim may
        be open still, or not be there."""

    def _unaudited(self) -> list[WindowId]:
        """Windows that may have closed and that nobody has asked the store about, the latest CLOSED_LATELY_MAX."""
        found = [
            WindowId(*self._partition, epoch, window)
            for epoch, stream in self._position.streams.items()
            for window in range(max(self._audited_until, stream.window - CLOSED_LATELY_MAX) + 1, stream.window + 1)
        ]
        return sorted(found, key=attrgetter("window"))[-CLOSED_LATELY_MAX:]

    def load(self, records: Iterable[Record]) -> None:
        """Have the windows of these records in memory, as they were written. Raises LogweirError(STORE_DOWN)."""
        places = dict.fromkeys(map(self._place, records))
        absent = [place for place in places if place not in self._windows]
        found = read_windows(self._store, self._group, absent) if absent else {}
        for place in absent:
            window = self._windows[place] = found.get(place) or Window(place)
            window.position = self._position.true_for(window.position, window.rewinds)

    def of(self, record: Record) -> Window:
        """The record's window; to be called after ``load``."""
        return self._windows[self._place(record)]

    def _place(self, record: Record) -> WindowId:
        return WindowId(*self._partition, record.ingest_epoch.hex(), record.window)

    # --- counting --------------------------------------------------------------------------------------------------
    def count(self, settled: SettledRecord) -> bool:
        """Count a record in its window, once; False when all of its numbers had come before, in another record."""
        record, offset = settled.record, settled.offset
        window = self.of(record)
        self._audited_until = self._audited_until or record.window - 1
        if offset < window.position:
            return True
        is_data = isinstance(record.body, list) and record.count > 0
        if window.minutes and (not record.count or window.numbers.covers(record.first, record.last)):
            return not is_data  # It is merged into its hour, complete: this record came before.
        stream = self._position.streams.get(window.ingest_epoch)
        # Out of order, from a spool, some of it may have been in any hole there was.
        if not window.position and stream is not None and record.first > stream.last:
            window.begin = stream.offset
        new = 0
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
            self._count_outcomes(window, settled, ranges)
            window.numbers.add(record.first, record.last)
        window.position = offset + 1
        self._dirty.add(window.place)
        self._windows[window.place] = self._windows.pop(window.place)
        return bool(new) or not is_data

    def _count_outcomes(self, window: Window, settled: SettledRecord, ranges: Sequence[tuple[int, int]]) -> None:
        """Count those of the record's events whose numbers are in ``ranges``, by emitter; keep what is not indexed."""
        record, conflict = settled.record, DeadLetterReason.IDENTITY_CONFLICT
        conflicts = [place for place, reason in settled.reasons.items() if reason == conflict]
        lost = self._position.lost.get(window.ingest_epoch)
        place = 0
        for batch in record.batches:
            end = place + len(batch.events)
            for first, last in ranges:
                low, high = max(place, first - record.first), min(end, last - record.first + 1)
                if low >= high:
                    continue
                emitter = batch.key, batch.emitter
                counts = window.counts_of(emitter)
                outcomes = settled.outcomes[low:high]
                counts.add_outcomes(outcomes)
                unkept = window.deviations.add(
                    record.first + low,
                    outcomes,
                    settled.reasons,
                    place=low,
                    key=batch.key,
                    ranges_max=self._exceptions_max,
                )
                if unkept:
                    registry.get("logweir_worker_receipt_outcomes_unkept_total").inc(unkept)
                window.note_received(batch.received_us // DAY_US)
                if conflicts:
                    counts.identity_conflicts += sum(low <= place < high for place in conflicts)
                # What is lost and recovered of those that have an emitter's number, that emitter's runs say.
                if lost is not None and batch.sequence_first is None:
                    bare = lost.within(record.first + low, record.first + high - 1)
                    counts.recovered_in_queue += sum(end - start + 1 for start, end in bare)
            place = end

    def rewind(self, offset: int) -> None:
        """The queue will give out the offsets from ``offset`` on again."""
        for window in self._windows.values():
            if not window.minutes:  # What is merged is complete, and in the store as part of its hour.
                window.position = min(window.position, offset)
                self._dirty.add(window.place)

    # --- in the store ----------------------------------------------------------------------------------------------
    def touched(self) -> list[Window]:
        """Those to be written; the position says from now on which of them the store has been asked about."""
        self._position.audited_until = min(
            (place.window - 1 for place in self.closed_lately), default=self._audited_until
        )
        return [window for place, window in self._windows.items() if place in self._dirty]

    def written(self) -> None:
        """What was touched is in the store: leave out of memory what is closed, and what is too much."""
        self._dirty.clear()
        closed = [place for place, window in self._windows.items() if window.closed]
        surplus = list(self._windows)[: max(0, len(self._windows) - WINDOWS_IN_MEMORY_MAX)]
        surplus_closed = len(self.closed_lately) + len(closed) - CLOSED_LATELY_MAX
        registry.get("logweir_worker_windows_unaudited_total").inc(max(0, surplus_closed))
        self.closed_lately.extend(closed)
        for place in {*closed, *surplus}:
            del self._windows[place]

    def audited(self) -> None:
        """The store has been asked about the first of ``closed_lately``."""
        self._audited_until = max(self._audited_until, self.closed_lately.popleft().window)

    def evict(self, places: Collection[WindowId]) -> bool:
        """Forget windows that are about to leave the ledger; False, and nothing is done, when one is to be written."""
        if not self._dirty.isdisjoint(places):
            return False
        for place in places:
            self._windows.pop(place, None)
        return True
