"""Old windows merged to hours, a few at a time beside a worker's reading. What an hour is: ``ledger/hours.py``."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Iterator
from itertools import groupby

from logweir.audit.sums import windows_in_parts
from logweir.audit.windows import WindowOf
from logweir.clock import WINDOW_US, Clock
from logweir.config import AccountingSettings
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger import hours
from logweir.ledger.position import read_positions
from logweir.ledger.window import HOUR_WINDOWS, Window, hour_id, window_place
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.partition import PartitionLedger

log = logging.getLogger(__name__)

_LOOK_INTERVAL_S = 1800.0
_HOURS_AT_ONCE = 500
_TURN_S_MAX = 0.1

_Place = tuple[str, int, str, int]
"""Topic id, partition, ingest epoch, hour."""


class HourMerger:
    """Merges what is older than ``accounting.merge_after_s``. Several workers may do so at once."""

    def __init__(self, *, store: Store, group: str, owner: str, settings: AccountingSettings, clock: Clock) -> None:
        self._store = store
        self._group = group
        self._owner = owner
        self._after_us = int(settings.merge_after_s * 1_000_000)
        self._clock = clock
        self._found: deque[tuple[_Place, list[str]]] = deque()
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
        for place, ids in groupby(self._mergeable(ledgers, before), key=lambda one: one[0]):
            self._found.append((place, [id for _, id in ids]))
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

    def _mergeable(self, ledgers: Collection[PartitionLedger], before: int) -> Iterator[tuple[_Place, str]]:
        by_partition = {ledger.partition: ledger for ledger in ledgers}
        # Of topics that are gone, too: whoever has a partition looks after all that bore its number.
        places = sorted(place for place in read_positions(self._store, self._group) if place[1] in by_partition)
        has_parts = len(places) > len(by_partition)
        in_parts = windows_in_parts(self._store, self._group, places) if has_parts else frozenset()
        for topic_id, partition in places:
            yield from self._mergeable_of(topic_id, by_partition[partition], before, in_parts)

    def _mergeable_of(
        self, topic_id: str, ledger: PartitionLedger, before: int, in_parts: Collection[WindowOf]
    ) -> Iterator[tuple[_Place, str]]:
        prefix = f"window:{self._group}:"
        for document in self._store.ledger.scan(f"{prefix}{topic_id}:{ledger.partition}:"):
            _, partition, epoch, minute = window_place(document.id, prefix)
            if minute // HOUR_WINDOWS >= before or not document.body["closed"]:
                continue
            if (partition, epoch, minute) in in_parts:
                continue  # Only together are they closed: the other part would stay open.
            # Of a record that its worker will read once more, the window still has to say that it was counted.
            is_behind = topic_id != ledger.topic_id or document.body["position"] <= ledger.written_offset
            if is_behind and hours.is_complete(Window.from_body(document.id, document.body)):
                yield (topic_id, partition, epoch, minute // HOUR_WINDOWS), document.id

    def _merge(self, place: _Place, ids: list[str]) -> int:
        topic_id, partition, epoch, at = place
        first = at * HOUR_WINDOWS
        found = self._store.ledger.read(ids)
        if not found:
            return 0  # Whoever had the partition before has merged them since.
        claimed = self._store.ledger.claim(
            hour_id(self._group, topic_id, partition, bytes.fromhex(epoch), first), self._owner
        )
        hour = hours.from_body(claimed.id, claimed.body) if claimed.body else Window(claimed.id, epoch, first)
        merged: list[LedgerDocument] = []
        for document in found.values():
            window = Window.from_body(document.id, document.body)
            if not hours.is_complete(window):
                continue
            if not hours.has(hour, window):
                hours.merge(hour, window)
            merged.append(document)
        body = {"owner": self._owner, "partition": partition, **hours.as_body(hour)}
        try:
            self._store.ledger.write([LedgerDocument(claimed.id, claimed.generation, body)])
        except LogweirError as error:
            if error.problem is not CLAIM_LOST:
                raise
            log.info("Another worker merges the windows of partition %d.", partition)
            return 0
        self._store.ledger.delete(merged)
        return len(merged)
