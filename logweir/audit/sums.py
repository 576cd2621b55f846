"""The windows read one after the other, and added up: memory goes with emitters and open windows, not with minutes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from logweir.audit.emitters import EmitterBooks
from logweir.audit.span import Span
from logweir.audit.stored import IndexedByDay
from logweir.audit.windows import Context, WindowBooks, joined, places_of, reconciled, state_of_open
from logweir.clock import WINDOW_US
from logweir.ledger import hours
from logweir.ledger.documents import HOUR, WINDOW, PartitionId, StreamId, StreamWindow, WindowId
from logweir.ledger.emitter import Emitter
from logweir.ledger.equation import Row
from logweir.ledger.intervals import Intervals
from logweir.ledger.window import Window
from logweir.outcomes import Outcome
from logweir.store.port import Store

RATE_WINDOWS = 5
"""Over how many whole minutes, and the current one, an emitter's rate is taken."""

Keeps = Callable[[Window], bool]
"""Whether a window's books are wanted by themselves, although it is closed and balances."""


def no_window(_: Window) -> bool:
    return False


def every_window(_: Window) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. ``being_deleted``: ids of documents that are being deleted, and carried forward as sums."""

    span: Span
    keeps: Keeps
    now_us: int
    being_deleted: Collection[str]


@dataclass(slots=True)
class Sums:
    """Of all windows that were added. What the fields hold: see ``Books``; ``known`` as in ``OutsideWindows``."""

    wanted: Wanted
    context: Context
    row: Row = field(default_factory=Row)
    closed: Row = field(default_factory=Row)
    kept: list[WindowBooks] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    held: Counter[StreamId] = field(default_factory=Counter)
    lost: dict[StreamId, Intervals] = field(default_factory=lambda: defaultdict(Intervals))
    known: dict[StreamId, Intervals] = field(default_factory=lambda: defaultdict(Intervals))
    corrected_in: set[StreamWindow] = field(default_factory=set)
    imbalance: int = 0
    indexed: IndexedByDay = field(default_factory=IndexedByDay)
    active_us: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _emitters: dict[Emitter, EmitterBooks] = field(default_factory=dict)

    def add(self, window: Window) -> None:
        books = reconciled(window, self.context)
        self.held[books.stream] += 1
        self.known[books.stream].add_all((*window.numbers, *window.voids, *window.given))
        if books.lost:
            self.lost[books.stream].add_all(books.lost)
        if books.corrections:
            self.corrected_in.update(places_of(window))
        self.imbalance += books.imbalance
        self._add_rows(books)
        self.indexed.add(window, books.row.outcomes[Outcome.INDEXED])
        if books.state == "balanced":
            self.states[books.state] += len(window.windows)
        if books.state != "balanced" or self.wanted.keeps(window):
            self.kept.append(books)

    def _add_rows(self, books: WindowBooks) -> None:
        if self.wanted.span.emitter is None:
            self.row.add(books.row)
        if books.window.closed:
            self.closed.add(books.row)
        recent = self.wanted.now_us // WINDOW_US - RATE_WINDOWS
        recent_s = self.wanted.now_us / 1e6 - recent * WINDOW_US / 1e6
        for emitter, row in books.by_emitter.items():
            if not self.wanted.span.has_emitter(emitter):
                continue
            known = self._emitters.get(emitter)
            if known is None:
                known = self._emitters[emitter] = EmitterBooks(emitter)
            known.row.add(row)
            if books.imbalance:
                known.imbalance += abs(row.unexplained)
            if books.window.window >= recent:
                known.rate_per_s += row.settled / recent_s

    def end(self) -> Sums:
        """All of them are added: now it is known which of their processes are gone."""
        for books in self.kept:
            if not books.window.closed:
                books.state = state_of_open(books, self.context, self.active_us[books.window.ingest_epoch])
            if books.state != "balanced":
                self.states[books.state] += len(books.window.windows)
        return self

    def add_to(self, emitters: dict[Emitter, EmitterBooks]) -> None:
        """To what is known of the emitters' own numbers."""
        for emitter, sums in self._emitters.items():
            known = emitters.setdefault(emitter, sums)
            known.row, known.imbalance, known.rate_per_s = sums.row, sums.imbalance, sums.rate_per_s


def read_windows(store: Store, group: str, wanted: Wanted, context: Context, *, has_parts: bool) -> Sums:
    """All windows, and hours of them; none that is in its hour, or being deleted.

    ``has_parts``: several topics have been read, and a window may have a part in each. Raises LogweirError(STORE_DOWN).
    """
    in_parts = windows_in_parts(store, group) if has_parts else frozenset()
    merged: set[WindowId] = set()
    while True:
        sums = Sums(wanted, context)
        seen = _add_windows(sums, store, group, in_parts, merged)
        # The hours behind the windows: what is merged meanwhile is in both. Then all is read again, without the window.
        twice = _add_hours(sums, store, group, seen)
        if not twice:
            return sums.end()
        merged |= twice


def windows_in_parts(
    store: Store, group: str, partitions: Iterable[PartitionId] | None = None
) -> frozenset[StreamWindow]:
    """The windows that more than one topic has a part of; of all topics, or of those ``partitions``.

    Raises LogweirError(STORE_DOWN).
    """
    begins: Iterable[tuple[str | int, ...]] = [()] if partitions is None else partitions
    found = (place for begin in begins for place, _ in WINDOW.scan(store.ledger, group, *begin))
    counts = Counter(place.in_stream for place in found)
    return frozenset(place for place, count in counts.items() if count > 1)


def _add_windows(
    sums: Sums, store: Store, group: str, in_parts: Collection[StreamWindow], merged: Collection[WindowId]
) -> dict[WindowId, tuple[tuple[int, int], ...]]:
    """Add those that are not merged; gives the numbers of those that may be by now."""
    seen: dict[WindowId, tuple[tuple[int, int], ...]] = {}
    parts = []
    for place, document in WINDOW.scan(store.ledger, group):
        epoch = place.ingest_epoch
        sums.active_us[epoch] = max(sums.active_us[epoch], (place.window + 1) * WINDOW_US)
        if not sums.wanted.span.has_window(place.window) or document.id in sums.wanted.being_deleted or place in merged:
            continue
        window = Window.from_body(place, document.body)
        if window.closed:
            seen[place] = tuple(window.numbers)
        if place.in_stream in in_parts:
            parts.append(window)
        else:
            sums.add(window)
    for window in joined(parts):
        sums.add(window)
    return seen


def _add_hours(
    sums: Sums, store: Store, group: str, seen: dict[WindowId, tuple[tuple[int, int], ...]]
) -> set[WindowId]:
    """Add what is merged; gives which of it was seen as a window, too."""
    twice: set[WindowId] = set()
    for place, document in HOUR.scan(store.ledger, group):
        if document.id in sums.wanted.being_deleted:
            continue
        hour = hours.from_body(place, document.body)
        epoch = place.ingest_epoch
        sums.active_us[epoch] = max(sums.active_us[epoch], (max(hour.windows) + 1) * WINDOW_US)
        if any(map(sums.wanted.span.has_window, hour.windows)):
            sums.add(hour)
        places = {hour.place._replace(window=minute) for minute in hour.windows}
        twice |= {one for one in places & seen.keys() if all(hour.numbers.covers(*pair) for pair in seen[one])}
    return twice
