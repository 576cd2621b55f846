"""The third witness: the store itself is asked what it has of a window."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection

from logweir.clock import DAY_US, WINDOW_US, Clock
from logweir.event import stream_of
from logweir.ledger.differences import StoreDifference
from logweir.ledger.documents import STORE_DIFFERENCE, WindowId
from logweir.ledger.hours import read_window
from logweir.ledger.revisions import read_corrections
from logweir.ledger.window import Window
from logweir.metrics import registry
from logweir.outcomes import Outcome
from logweir.query.tree import And, Range, Term
from logweir.store.port import Store
from logweir_workers.accounting.partition import PartitionLedger

log = logging.getLogger(__name__)

_SETTLED_AFTER_US = 120_000_000
"""So long after its end a window is asked for: what the store was given is found by then."""
_TURN_S_MAX = 0.1


class StoreAuditor:
    """The third witness: how many documents the store has of a closed window, whatever door and worker say."""

    def __init__(self, *, store: Store, group: str, clock: Clock) -> None:
        self._store = store
        self._group = group
        self._clock = clock
        self._partition = -1

    def audit_some(self, ledgers: Collection[PartitionLedger]) -> None:
        """Compare windows that have closed lately, of each partition in turn, for a tenth of a second.

        One at least, if there is one. Raises LogweirError(STORE_DOWN), (CLAIM_LOST).
        """
        before = (self._clock() - _SETTLED_AFTER_US) // WINDOW_US
        deadline_s = time.monotonic() + _TURN_S_MAX
        # Where the turn before ended, the next one goes on.
        in_turn = sorted(ledgers, key=lambda one: (one.partition <= self._partition, one.partition))
        waiting = deque(ledger for ledger in in_turn if _has_closed(ledger, before))
        while waiting:
            ledger = waiting.popleft()
            self._audit(ledger, ledger.windows.closed_lately[0])
            ledger.windows.audited()
            self._partition = ledger.partition
            if time.monotonic() >= deadline_s:
                return
            if _has_closed(ledger, before):
                waiting.append(ledger)

    def _audit(self, ledger: PartitionLedger, place: WindowId) -> None:
        window = read_window(self._store, self._group, place)
        if window is None or not window.closed:
            return  # It was thought that there might be one; when it closes, it waits again.
        stored, expected = count_documents(self._store, self._group, window)
        difference = StoreDifference(place, stored, expected, self._clock())
        document = ledger.document(STORE_DIFFERENCE, place, difference.as_body())
        registry.get("logweir_worker_windows_audited_total").inc()
        if stored == expected:
            self._store.ledger.delete([document])
            return
        log.error(
            "The store has %d documents of window %d of process %s on partition %d, the ledger says %d were indexed."
            " See them: logweir audit --window %d",
            stored,
            window.window,
            window.ingest_epoch,
            ledger.partition,
            expected,
            window.window,
            extra={"window": window.window, "ingest_epoch": window.ingest_epoch, "partition": ledger.partition},
        )
        self._store.ledger.write([document])


def _has_closed(ledger: PartitionLedger, before: int) -> bool:
    return bool(ledger.windows.closed_lately) and ledger.windows.closed_lately[0].window < before


def recheck_differences(store: Store, group: str) -> int:
    """Ask the store again of windows for which it differed, and forget those that agree now; gives how many do.

    For who has mended something: a window is asked for once, and may have been while a replay was at it. Raises
    LogweirError(STORE_DOWN).
    """
    store.refresh()
    mended = []
    for place, document in STORE_DIFFERENCE.scan(store.ledger, group):
        window = read_window(store, group, place)
        if window is None:
            continue
        stored, expected = count_documents(store, group, window)
        if stored == expected:
            mended.append(document)
    store.ledger.delete(mended)
    return len(mended)


def count_documents(store: Store, group: str, window: Window) -> tuple[int, int]:
    """Of a window, how many documents the store has, and how many the ledger says that it should have.

    Raises LogweirError(STORE_DOWN).
    """
    indexed = sum(counts.indexed for counts in window.outcomes.values())
    return _stored(store, window), indexed + _corrected(store, group, window)


def _stored(store: Store, window: Window) -> int:
    if not window.numbers.max:
        return 0
    stream = stream_of(bytes.fromhex(window.ingest_epoch), window.place.partition)
    lowest = next(iter(window.numbers))[0]
    query = And((Term("ingest_stream", stream), Range("ingest_number", lowest, window.numbers.max + 1)))
    middle_us = window.window * WINDOW_US
    return store.search(query, size=0, from_us=max(0, middle_us - DAY_US), to_us=middle_us + DAY_US).total


def _corrected(store: Store, group: str, window: Window) -> int:
    """By how many events replays and retries have changed what is indexed."""
    count = 0
    for one in read_corrections(store, group, window=window.window):
        if one.place.stream == window.stream:
            count += one.count * ((one.to_outcome is Outcome.INDEXED) - (one.from_outcome is Outcome.INDEXED))
    return count
