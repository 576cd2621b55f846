"""Old windows merged to hours, a few at a time beside a worker's reading. What an hour is: ``ledger/hours.py``."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Iterator
from itertools import groupby

from logweir.audit.sums import windows_in_parts
from logweir.clock import WINDOW_US, Clock
from logweir.config import AccountingSettings
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger import hours
from logweir.ledger.documents import HOUR, HOUR_WINDOWS, WINDOW, HourId, PartitionId, StreamWindow, WindowId
from logweir.ledger.position import read_positions
from logweir.ledger.window import Window
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.partition import PartitionLedger

log = logging.getLogger(__name__)

_LOOK_INTERVAL_S = 1800.0
_HOURS_AT_ONCE = 500
_TURN_S_MAX = 0.1


class HourMerger:
    """Merges what is older than ``accounting.merge_after_s``. Several workers may do so at once."""

    def __init__(self, *, store: Store, group: str, owner: str, settings: AccountingSettings, clock: Clock) -> None:
        self._store = store
        self._group = group
        self._owner = owner
        self._after_us = int(settings.merge_after_s * 1_000_000)
        self._clock = clock
        self._found: deque[tuple[HourId, list[WindowId]]] = deque()
        self._look_s = 0.0

    @property
    def is_look_due(self) -> bool:
        """What was found is merged, and there may be more by now."""
        return not self._found and time.monotonic() >= self._look_s

    def look(self, ledgers: Collection[PartitionLedger]) -> None:
        """Find what there is to merge of these partitions. May take minutes; may be called on another thread.

        Raises LogweirError(STORE_DOWN).
        """
        before = (self._clock() - self._after_us) // WINDOW_US // HOUR_WINDOWS
        for hour, windows in groupby(self._mergeable(ledgers, before), key=lambda place: place.hour):
            self._found.append((hour, list(windows)))
            if len(self._found) >= _HOURS_AT_ONCE:
                return  # The others are found when these are done.
        self._look_s = time.monotonic() + _LOOK_INTERVAL_S

    def merge_some(self) -> int:
        """Merge for a tenth of a second what was found; gives how many windows.

        Raises LogweirError(STORE_DOWN): what was under way is found again.
        """
        began_s = time.monotonic()
        merged = 0
        while self._found and time.monotonic() - began_s < _TURN_S_MAX:
            merged += self._merge(*self._found.popleft())
        return merged

    def _mergeable(self, ledgers: Collection[PartitionLedger], before: int) -> Iterator[WindowId]:
        by_partition = {ledger.partition: ledger for ledger in ledgers}
        # Of topics that are gone, too: whoever has a partition looks after all that bore its number.
        places = sorted(place for place in read_positions(self._store, self._group) if place.partition in by_partition)
        has_parts = len(places) > len(by_partition)
        in_parts = windows_in_parts(self._store, self._group, places) if has_parts else frozenset()
        for place in places:
            yield from self._mergeable_of(place, by_partition[place.partition], before, in_parts)

    def _mergeable_of(
        self, partition: PartitionId, ledger: PartitionLedger, before: int, in_parts: Collection[StreamWindow]
    ) -> Iterator[WindowId]:
        for place, document in WINDOW.scan(self._store.ledger, self._group, *partition):
            if place.hour.hour >= before or place.in_stream in in_parts:
                continue  # In parts, only together are they closed: the other part would stay open.
            window = Window.from_body(place, document.body)
            # Of a record that its worker will read once more, the window still has to say that it was counted.
            is_behind = partition != ledger.place or window.position <= ledger.written_offset
            if is_behind and hours.is_complete(window):
                yield place

    def _merge(self, place: HourId, windows: list[WindowId]) -> int:
        found = WINDOW.read(self._store.ledger, self._group, windows)
        if not found:
            return 0  # Whoever had the partition before has merged them since.
        claimed = HOUR.claim(self._store.ledger, self._group, place, self._owner)
        hour = hours.from_body(place, claimed.body) if claimed.body else Window(windows[0])
        merged: list[LedgerDocument] = []
        for window_place, document in found.items():
            window = Window.from_body(window_place, document.body)
            if not hours.is_complete(window):
                continue
            if not hours.has(hour, window):
                hours.merge(hour, window)
            merged.append(document)
        if not merged:
            return 0
        body = hour.as_body()
        try:
            self._store.ledger.write([HOUR.document(self._group, place, claimed.generation, body, owner=self._owner)])
        except LogweirError as error:
            if error.problem is not CLAIM_LOST:
                raise
            log.info("Another worker merges the windows of partition %d.", place.partition)
            return 0
        self._store.ledger.delete(merged)
        return len(merged)
