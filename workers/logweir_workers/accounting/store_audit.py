"""The third witness: the store itself is asked what it has, whatever ingest and workers say.

Each window is asked for when it has closed, and all of the ledger again in turn (``suspicious``), since events may go
later, too. What is once found not to agree is looked at a second time: what a worker wrote may not have been visible
yet, and a replay may have been at it. Only what does not agree then is a difference. It is asked for again from time to
time, and withdrawn when it agrees.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from logweir.audit.stored import IndexedByDay, StreamDay, count_stored, stream_day_of
from logweir.audit.windows import places_of
from logweir.clock import WINDOW_US, Clock
from logweir.ledger import hours
from logweir.ledger.differences import StoreDifference, read_differences
from logweir.ledger.documents import HOUR, STORE_DIFFERENCE, WINDOW, StreamWindow, WindowId
from logweir.ledger.expiry import read_expired_before
from logweir.ledger.hours import read_window
from logweir.ledger.revisions import Correction, read_corrections
from logweir.ledger.window import Window
from logweir.metrics import registry
from logweir.outcomes import Outcome
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.partition import PartitionLedger

log = logging.getLogger(__name__)

_LOOK_AFTER_US = 120_000_000
"""So long after it closed a window is asked for, and so long after the first look comes the second."""
_LOOK_AGAIN_US = 600_000_000
"""So often it is asked for what differs."""
_UNTOUCHED_US = 600_000_000
"""Windows that ended so long ago are asked for in turn: of others, records may be under way."""
_TURN_S_MAX = 0.1


class StoreAuditor:
    """Looks at one window after the other, a tenth of a second at a time. Used by the worker's thread."""

    def __init__(self, *, store: Store, group: str, clock: Clock) -> None:
        self._store = store
        self._group = group
        self._clock = clock
        self._partition = -1
        self._closed_us: dict[WindowId, int] = {}
        """When windows that wait were first seen to have closed."""
        self._suspects: dict[WindowId, int] = {}
        """Windows that did not agree, and when to look at them again."""
        self._differences_due_us = 0

    def suspect(self, places: Collection[WindowId]) -> None:
        """Look at these windows, whether or not they are closed: the store has too few or too many of them."""
        for place in places:
            self._suspects.setdefault(place, self._clock())

    def audit_some(self, ledgers: Collection[PartitionLedger]) -> None:
        """Look at windows that are due, of each partition in turn, for a tenth of a second.

        At one at least, if there is one. Raises LogweirError(STORE_DOWN), (SEARCH_TOO_SLOW), (CLAIM_LOST).
        """
        now_us = self._clock()
        deadline_s = time.monotonic() + _TURN_S_MAX
        waiting = {place for ledger in ledgers for place in ledger.windows.closed_lately}
        self._closed_us = {place: self._closed_us.get(place, now_us) for place in waiting}
        for look in self._looks(ledgers, now_us):
            look()
            if time.monotonic() >= deadline_s:
                return

    def _looks(self, ledgers: Collection[PartitionLedger], now_us: int) -> Iterator[Callable[[], None]]:
        yield from self._second_looks(ledgers, now_us)
        # Where the turn before ended, the next one goes on.
        in_turn = deque(sorted(ledgers, key=lambda one: (one.partition <= self._partition, one.partition)))
        while in_turn:
            ledger = in_turn.popleft()
            closed = ledger.windows.closed_lately
            if closed and self._closed_us.get(closed[0], now_us) + _LOOK_AFTER_US <= now_us:
                yield lambda: self._look_at_closed(ledger)  # noqa: B023 - called before the next one is made
                in_turn.append(ledger)

    def _look_at_closed(self, ledger: PartitionLedger) -> None:
        place = ledger.windows.closed_lately[0]
        window = read_window(self._store, self._group, place)
        # It was thought that there might be one; when it closes, it waits again.
        if window is not None and window.closed:
            stored, expected = count_documents(self._store, self._group, window)
            if stored == expected:
                self._agrees(ledger, place, stored)
            else:
                self._suspects[place] = self._clock() + _LOOK_AFTER_US
        ledger.windows.audited()
        self._partition = ledger.partition

    def _second_looks(self, ledgers: Collection[PartitionLedger], now_us: int) -> Iterator[Callable[[], None]]:
        of_partition = {ledger.partition: ledger for ledger in ledgers}
        if now_us >= self._differences_due_us:
            self._differences_due_us = now_us + _LOOK_AGAIN_US
            for difference, _ in read_differences(self._store, self._group):
                if difference.difference:
                    self._suspects.setdefault(difference.place, now_us)
        self._suspects = {place: us for place, us in self._suspects.items() if place.partition in of_partition}
        for place in [place for place, due_us in self._suspects.items() if due_us <= now_us]:
            yield lambda: self._look_again(of_partition[place.partition], place)  # noqa: B023

    def _look_again(self, ledger: PartitionLedger, place: WindowId) -> None:
        self._store.refresh()
        window = read_window(self._store, self._group, place)
        stored, expected = (0, 0) if window is None else count_documents(self._store, self._group, window)
        now = read_window(self._store, self._group, place)
        if _counted(window) != _counted(now):
            # Something was counted in it meanwhile.
            self._suspects[place] = self._clock() + _LOOK_AFTER_US
        elif stored == expected:
            self._agrees(ledger, place, stored)
        else:
            self._differs(ledger, place, stored, expected)

    def _agrees(self, ledger: PartitionLedger, place: WindowId, stored: int) -> None:
        self._suspects.pop(place, None)
        registry.get("logweir_worker_windows_audited_total").inc()
        document = STORE_DIFFERENCE.read(self._store.ledger, self._group, [place]).get(place)
        if document is not None and withdraw(self._store, place, document, stored, self._clock()):
            text = "The store has all %d documents of window %d on partition %d: that it differed is withdrawn."
            log.warning(text, stored, place.window, ledger.partition, extra=_named(place))

    def _differs(self, ledger: PartitionLedger, place: WindowId, stored: int, expected: int) -> None:
        self._suspects.pop(place, None)
        registry.get("logweir_worker_windows_audited_total").inc()
        now_us = self._clock()
        difference = StoreDifference.found(place, stored, expected, now_us)
        document = STORE_DIFFERENCE.read(self._store.ledger, self._group, [place]).get(place)
        known = None if document is None else StoreDifference.from_body(place, document.body)
        if known is not None and known.difference:
            difference = known.looked_at(stored, expected, now_us)
        new = ledger.document(STORE_DIFFERENCE, place, difference.as_body())
        if document is not None:
            # Of a topic of before, it may be of a later claim than ours.
            new = replace(new, generation=max(new.generation, document.generation))
        self._store.ledger.write([new])
        if known is None or known.difference != difference.difference:
            log.error(
                "The store has %d documents of window %d of process %s on partition %d, the ledger says %d were"
                " indexed. See them: logweir audit --window %d",
                stored,
                place.window,
                place.ingest_epoch,
                ledger.partition,
                expected,
                place.window,
                extra=_named(place),
            )


def _counted(window: Window | None) -> tuple[int, int]:
    return (0, 0) if window is None else (window.position, sum(counts.settled for counts in window.outcomes.values()))


def _named(place: WindowId) -> dict[str, Any]:
    return {"window": place.window, "ingest_epoch": place.ingest_epoch, "partition": place.partition}


def withdraw(store: Store, place: WindowId, document: LedgerDocument, stored: int, at_us: int) -> bool:
    """Write down that a window's difference is none any more; False when it was not one before.

    Raises LogweirError(STORE_DOWN).
    """
    known = StoreDifference.from_body(place, document.body)
    if known.difference:
        body = {**document.body, **known.looked_at(stored, stored, at_us).as_body()}
        store.ledger.write([replace(document, body=body)])
    return known.difference != 0


def recheck_differences(store: Store, group: str, *, at_us: int) -> int:
    """Look again at windows for which the store differed, and withdraw what agrees now; gives how many do.

    For who has mended something. Raises LogweirError(STORE_DOWN).
    """
    store.refresh()
    mended = 0
    for difference, document in read_differences(store, group):
        window = read_window(store, group, difference.place) if difference.difference else None
        if window is not None:
            stored, expected = count_documents(store, group, window)
            mended += stored == expected and withdraw(store, difference.place, document, stored, at_us)
    return mended


def count_documents(store: Store, group: str, window: Window) -> tuple[int, int]:
    """Of a window, how many documents the store has, and how many the ledger says that it should have.

    Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
    """
    corrections = _by_window(read_corrections(store, group, window=window.window))
    expected = _indexed(window, corrections)
    return _stored(store, window, expected), expected


def _stored(store: Store, window: Window, expected: int) -> int:
    if not window.numbers.max:
        return 0
    lowest, at_us = window.numbers.min, window.window * WINDOW_US
    return count_stored(store, window.stream, lowest, window.numbers.max, at_us=at_us, expected=expected)


def _by_window(corrections: Iterable[Correction]) -> dict[StreamWindow, int]:
    """By how many events replays and retries have changed what is indexed."""
    found: dict[StreamWindow, int] = {}
    for one in corrections:
        change = one.count * ((one.to_outcome is Outcome.INDEXED) - (one.from_outcome is Outcome.INDEXED))
        found[one.place.in_stream] = found.get(one.place.in_stream, 0) + change
    return found


def _indexed(window: Window, corrections: Mapping[StreamWindow, int]) -> int:
    """How many of a window, or an hour of them, the ledger says are indexed."""
    counted = sum(counts.indexed for counts in window.outcomes.values())
    return counted + sum(corrections.get(place, 0) for place in places_of(window))


# --- all in turn ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Part:
    """A window, or an hour of them, as far as it is asked for."""

    place: WindowId
    is_hour: bool
    lowest: int
    highest: int
    indexed: int


def suspicious(
    store: Store, group: str, partitions: Collection[int], *, now_us: int, share: float = 0.05
) -> list[WindowId]:
    """Windows of these partitions of which the store seems to have too few documents, or too many.

    Takes long: all of the ledger is read, and all of the store counted, a day of a process at a time. ``share``: of the
    time, how much the store may work for it. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
    """
    corrections = _by_window(read_corrections(store, group))
    expired_before = read_expired_before(store, group)
    days = IndexedByDay()
    parts: dict[StreamDay, list[_Part]] = {}
    for window, is_hour in _windows(store, group):
        day = stream_day_of(window)
        is_asked_for = window.place.partition in partitions and window.numbers.max
        if is_asked_for and (max(window.windows) + 1) * WINDOW_US + _UNTOUCHED_US <= now_us:
            count = _indexed(window, corrections)
            days.add(window, count)
            part = _Part(window.place, is_hour, window.numbers.min, window.numbers.max, count)
            parts.setdefault(day, []).append(part)
    # Of a window in two topics, the numbers of one part may lie between those of the other.
    of_one = Counter(part.place.in_stream for own in parts.values() for part in own)
    found: list[WindowId] = []
    for day, expected in days.days.items():
        if expected.may_be_expired(expired_before):
            continue
        began_s = time.monotonic()
        at_us = parts[day][0].place.window * WINDOW_US
        stored = count_stored(
            store, day.stream, expected.lowest, expected.highest, at_us=at_us, expected=expected.count
        )
        if stored != expected.count:
            found += _differing(store, group, [part for part in parts[day] if of_one[part.place.in_stream] == 1])
        time.sleep((time.monotonic() - began_s) * (1 / share - 1))
    return found


def _windows(store: Store, group: str) -> Iterator[tuple[Window, bool]]:
    """Each window, or the hour that it is merged in; both, when it is merged meanwhile."""
    for place, document in WINDOW.scan(store.ledger, group):
        yield Window.from_body(place, document.body), False
    for hour, document in HOUR.scan(store.ledger, group):
        yield hours.from_body(hour, document.body), True


def _differing(store: Store, group: str, parts: Collection[_Part]) -> Iterator[WindowId]:
    for part in parts:
        at_us = part.place.window * WINDOW_US
        stored = count_stored(store, part.place.stream, part.lowest, part.highest, at_us=at_us, expected=part.indexed)
        if stored == part.indexed:
            continue
        if not part.is_hour:
            yield part.place
            continue
        document = HOUR.read(store.ledger, group, [part.place.hour]).get(part.place.hour)
        hour = None if document is None else hours.from_body(part.place.hour, document.body)
        for minute in () if hour is None else hour.windows:
            window = read_window(store, group, part.place._replace(window=minute))
            if window is not None and len(set(count_documents(store, group, window))) > 1:
                yield window.place
