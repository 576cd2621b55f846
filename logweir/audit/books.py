"""The books, read from the ledger: what became of every event, and what of the numbered ones never came.

Two equations are held against each other, window by window and then added up:

    accepted + unconfirmed
        = indexed + duplicate + filtered + dead-lettered + in flight + lost in the queue + undecided + void
    created = accepted + dropped + lost - recovered + missing         of each run of an emitter that numbers its events

The left side of the first is the doors' word (their markers), the right side the workers'. Of a window that is closed,
with nothing in flight, whatever the two sides differ by is the imbalance, and nothing is ever set off against it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from logweir.audit.emitters import TOTALS, EmitterBooks, read_emitters
from logweir.audit.outside import OutsideWindows
from logweir.audit.span import EVERYTHING, Span
from logweir.audit.stored import IndexedByDay, Shortage, StreamDay, shortages
from logweir.audit.sums import Keeps, Sums, Wanted, no_window, read_windows
from logweir.audit.topics import left_behind
from logweir.audit.windows import CLOSED_AFTERWARDS, PROCESS_GONE, Context, WindowBooks
from logweir.clock import WINDOW_US, iso_seconds
from logweir.ledger.activity import caught_up_minutes, of_latest_topic, overall, read_activities
from logweir.ledger.carried_forward import CarriedForward, read_carried_forward
from logweir.ledger.closings import read_closings
from logweir.ledger.differences import StoreDifference, read_differences
from logweir.ledger.documents import PartitionId, StreamId, StreamWindow
from logweir.ledger.emitter import Emitter, name_of
from logweir.ledger.equation import Row
from logweir.ledger.expiry import read_expired_before
from logweir.ledger.intervals import Intervals, pairs
from logweir.ledger.loss import UNATTRIBUTED, LossClass
from logweir.ledger.position import Position, read_positions
from logweir.ledger.revisions import Correction, read_corrections
from logweir.store.port import Store
from logweir.text import counted

_READ_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class ExpiredOffsets:
    """Offsets that were gone from the queue before they were read."""

    topic_id: str
    partition: int
    first: int
    last: int
    exact: bool
    """All that was in them is counted as lost."""


@dataclass(frozen=True, slots=True)
class Jumps:
    """Of one key: numbers of its emitters that are too far above those before them to have been counted up to."""

    key: str
    emitters: int
    """How many of its emitters jumped."""
    numbers: int
    """How many numbers they passed over: nobody knows which of them were made, and so what was lost."""


@dataclass(slots=True)
class Books:
    """Everything that was asked for.

    ``windows``: those that are open or do not balance, and which the reader asked for. Of all of them, ``closed`` is
    the sum of those whose marker has come, ``held`` how many there are of each stream, ``lost`` the numbers that the
    queue lost in them, and ``corrected_in`` those that corrections speak of.
    ``carried``: the sums of what is older than the ledger's retention, unless a span of time or an emitter is asked
    for. They are in ``row``, ``total`` and ``corrected``, so that those do not fall when retention passes; not in
    the others: those are of what is still held. ``natural_keys``: those whose events have numbers of their own.
    """

    row: Row
    windows: list[WindowBooks]
    states: dict[str, int]
    closed: Row
    held: Counter[StreamId]
    lost: dict[StreamId, Intervals]
    corrected_in: set[StreamWindow]
    emitters: dict[Emitter, EmitterBooks]
    corrections: list[Correction]
    expired: list[ExpiredOffsets]
    store_differences: list[StoreDifference]
    imbalance: int
    positions: dict[PartitionId, int]
    watermark_us: int
    carried: CarriedForward
    outside: OutsideWindows
    natural_keys: frozenset[str]
    indexed: IndexedByDay
    """What the store should have of the windows."""
    without_window: dict[StreamId, Intervals]
    """Numbers that came by, and of which the ledger has no window any more; of a span of time, nothing."""
    left_behind: set[StreamId]
    """Of these nobody knows what they sent last to a partition of a topic that is gone."""
    shortages: list[Shortage] = field(default_factory=list)
    """What it has too few of beside ``store_differences``, where it was asked (``read_books_and_store``)."""

    @property
    def balanced(self) -> bool:
        """Every event that was accepted is accounted for: as stored, or as lost."""
        return self.imbalance == 0

    @property
    def lost_now(self) -> int:
        """How many events are known to be lost and have not come since. What one emitter recovers is no other's."""
        own = sum(max(0, (one.total("lost") or 0) - (one.total("recovered") or 0)) for one in self.emitters.values())
        carried = sum(counts["lost"] - counts["recovered"] for counts in self.carried.numbered.values())
        lost, recovered = self._of_queue_alone()
        return own + max(0, carried) + lost - recovered

    @property
    def doubts(self) -> list[str]:
        """Why more may be lost than is known."""
        found = []
        if not all(hole.exact for hole in self.expired):
            found.append("how many events expired before they were read is unknown")
        if gone := {one.window.ingest_epoch for one in self.windows if one.state == PROCESS_GONE}:
            processes = counted(len(gone), "ingest process", plural="ingest processes")
            found.append(f"whether all has come of {processes} that died is unknown (docs/how-to/dead-processes.md)")
        elif self.row.undecided:
            found.append(f"whether {counted(self.row.undecided, 'number')} of processes that died will come is unknown")
        if left := {stream.ingest_epoch for stream in self.left_behind} - gone:
            processes = counted(len(left), "ingest process", plural="ingest processes")
            found.append(
                f"what {processes} sent last to a topic that is gone is unknown (docs/how-to/dead-processes.md)"
            )
        numbered = [one for one in self.emitters.values() if one.loss_class is not LossClass.UNKNOWN]
        if unsaid := sum(one.total("lost") is None for one in numbered):
            found.append(f"how much {counted(unsaid, 'emitter')} lost in that time is unknown")
        return found

    @property
    def jumps(self) -> list[Jumps]:
        """By key, what its emitters jumped over. Whoever has a key can say so: it is no doubt in what others sent."""
        jumped: dict[str, list[int]] = defaultdict(list)
        for (key, _), one in self.emitters.items():
            if count := one.total("jumped"):
                jumped[key].append(count)
        return [Jumps(key, len(counts), sum(counts)) for key, counts in sorted(jumped.items())]

    @property
    def complete(self) -> bool | None:
        """Whether the books balance and nothing is lost; None when that is unknown."""
        if not self.balanced or self.lost_now:
            return False
        return None if self.doubts else True

    def total(self, name: str) -> int | None:
        """As ``EmitterBooks.total``, over all emitters that number their events; None when there is none of them.

        What the queue lost of the others, or of nobody knows whom, is lost, too, and recovered when it comes.
        """
        found = [books.total(name) for books in self.emitters.values() if books.loss_class is not LossClass.UNKNOWN]
        known = [count for count in found if count is not None]
        if len(known) < len(found):
            return None
        known += [counts[name] for counts in self.carried.numbered.values()]
        lost, recovered = self._of_queue_alone()
        extra = {"lost": lost, "recovered": recovered}.get(name, 0)
        return sum(known) + extra if known or lost else None

    def class_of(self, emitter: Emitter) -> LossClass:
        """By whose numbers its losses show: those of a key whose events have their own, by theirs."""
        known = self.emitters.get(emitter)
        own = known.loss_class if known else LossClass.UNKNOWN
        return LossClass.FROM_FIELDS if own is LossClass.UNKNOWN and emitter[0] in self.natural_keys else own

    def numbered_by(self, emitter: Emitter) -> Emitter | str:
        """Whose numbers show what it loses: its own, or those of its key's events."""
        return emitter[0] if self.class_of(emitter) is LossClass.FROM_FIELDS else emitter

    def losses(self) -> tuple[Counter[Emitter | str], Counter[Emitter | str]]:
        """By whose numbers show it: what they show as lost, and what the queue lost."""
        shown: Counter[Emitter | str] = Counter()
        of_queue: Counter[Emitter | str] = Counter()
        for emitter, books in self.emitters.items():
            who = self.numbered_by(emitter)
            shown[who] += books.total("lost") or 0
            of_queue[who] += books.row.lost_in_queue
        for emitter, count in self.carried.of_queue.items():
            of_queue[self.numbered_by(emitter)] += count
        return shown, of_queue

    def _of_queue_alone(self) -> tuple[int, int]:
        """What the queue lost that no emitter's numbers show as lost, and how much of that came after all.

        Of what it lost of nobody knows whom, that part is the numbered emitters' which their own numbers show as lost
        and no closed window explains: it counts once.
        """
        carried = self.carried
        own, of_queue = self.losses()
        of_others = (
            one for emitter, one in self.emitters.items() if self.class_of(emitter) is not LossClass.FROM_FIELDS
        )
        recovered = carried.recovered + sum(one.row.recovered_in_queue for one in of_others)
        shown = sum((own - of_queue).values()) + carried.all_lost_before
        alone = (
            sum((of_queue - own).values())
            + carried.lost_in_queue[LossClass.UNKNOWN]
            + carried.unshown.total()
            + max(0, -shown)
        )
        of_windows = sum(one.row.lost_in_queue for one in self.emitters.values())
        of_nobody = (
            self.row.lost_in_queue - carried.row.lost_in_queue - of_windows + carried.lost_in_queue[UNATTRIBUTED]
        )
        return alone + recovered + max(0, of_nobody - max(0, shown)), recovered

    def lost_in_queue_ranges(self) -> dict[StreamId, Intervals]:
        """The numbers that the queue has lost, in windows and outside of them."""
        found = defaultdict(Intervals, {stream: Intervals(lost) for stream, lost in self.lost.items()})
        for stream in self.outside.known:
            _, lost = self.outside.not_here(stream, self.outside.ends(stream))
            if lost:
                found[stream].add_all(lost)
        return dict(sorted(found.items(), key=lambda item: item[0][::-1]))

    @property
    def corrected(self) -> Counter[tuple[str, str]]:
        """How many events replays and retries have moved, by outcome before and after; with those carried."""
        counts = Counter(self.carried.corrections)
        for one in self.corrections:
            counts[one.from_outcome.value, one.to_outcome.value] += one.count
        return counts

    def as_json(self) -> dict[str, Any]:
        return {
            "balanced": self.balanced,
            "complete": self.complete,
            "imbalance": self.imbalance,
            "lost_now": self.lost_now,
            **self.row.as_json(),
            **{name: self.total(name) for name in TOTALS},
            "lost_in_queue_ranges": [
                {"partition": partition, "ingest_epoch": epoch, "ranges": pairs(ranges)}
                for (epoch, partition), ranges in self.lost_in_queue_ranges().items()
            ],
            "without_window": [
                {"partition": partition, "ingest_epoch": epoch, "ranges": pairs(ranges)}
                for (epoch, partition), ranges in self.without_window.items()
            ],
            "loss_unknown_emitters": sum(books.loss_class is LossClass.UNKNOWN for books in self.emitters.values()),
            "windows": self.states,
            "jumps": [asdict(one) for one in self.jumps],
            "expired_offsets": [asdict(one) for one in self.expired],
            "store_differences": [one.as_json() for one in self.store_differences],
            "store_shortages": [one.as_json() for one in self.shortages],
            "corrections": [correction.as_json() for correction in self.corrections],
            "carried": self._carried_json(),
            "watermark_us": self.watermark_us,
            "emitters": [
                books.as_json() for _, books in sorted(self.emitters.items(), key=lambda item: name_of(item[0]))
            ],
        }

    def _carried_json(self) -> dict[str, Any] | None:
        carried = self.carried
        if not carried.before:
            return None
        totals = {name: carried.total(name) for name in ("created", "lost", "recovered", "dropped")}
        return {
            "before": iso_seconds(carried.before * WINDOW_US),
            **carried.row.as_json(),
            **totals,
            "unexplained": carried.row.unexplained,
        }


# --- reading ------------------------------------------------------------------------------------------------------
def read_books(
    store: Store, *, group: str, late_us: int, now_us: int, span: Span = EVERYTHING, keeps: Keeps = no_window
) -> Books:
    """The books as the ledger has them now, while workers go on writing it.

    Unless a span of time or an emitter is asked for, totals include what ``accounting.retention_days`` has passed, so
    that they do not fall: see ``Books``. ``keeps`` says which windows are in them although they are closed and balance:
    each takes memory for all its emitters. Raises LogweirError(STORE_DOWN).
    """
    while True:
        books = read_books_once(store, group=group, late_us=late_us, now_us=now_us, span=span, keeps=keeps)
        if read_carried_forward(store, group).edition == books.carried.edition:
            return books
        # Something was let go of meanwhile: it may have been read in both places, or in none.
        time.sleep(_READ_AGAIN_S)


def read_books_and_store(
    store: Store, *, group: str, late_us: int, now_us: int, span: Span = EVERYTHING, keeps: Keeps = no_window
) -> Books:
    """As ``read_books``, with what the store itself has fewer of than was indexed, as ``shortages``.

    A shortage that a second look does not find again is none: a replay may have been at it. Raises LogweirError:
    STORE_DOWN, SEARCH_TOO_SLOW.
    """
    before: set[StreamDay] | None = None
    while True:
        books = read_books(store, group=group, late_us=late_us, now_us=now_us, span=span, keeps=keeps)
        store.refresh()
        expired_before = read_expired_before(store, group)
        found = list(shortages(store, books.indexed, books.store_differences, expired_before=expired_before))
        if before is not None or not found:
            books.shortages = [one for one in found if one.place in (before or ())]
            books.imbalance += sum(one.missing for one in books.shortages)
            return books
        before = {one.place for one in found}
        time.sleep(_READ_AGAIN_S)


def read_books_once(
    store: Store, *, group: str, late_us: int, now_us: int, span: Span = EVERYTHING, keeps: Keeps = no_window
) -> Books:
    """As ``read_books``, for a caller that acts on a partition only while its ``carried.edition`` is as it was read."""
    carried = read_carried_forward(store, group)
    # The watermarks before the emitters, so that nothing is called lost that has come since.
    positions = read_positions(store, group)
    minutes = caught_up_minutes(positions, read_activities(store, group))
    current = of_latest_topic(minutes)
    accounted_us = overall(current) * WINDOW_US
    watermarks = _watermarks(positions, current, accounted_us)
    corrections = [
        one
        for one in read_corrections(store, group, without=carried.being_deleted)
        if span.has_window(one.place.window)
    ]
    context = Context(
        min(now_us, accounted_us), _lost_numbers(positions), _by_window(corrections), read_closings(store, group)
    )
    wanted = Wanted(span=span, keeps=keeps, now_us=now_us, being_deleted=carried.being_deleted)
    sums = read_windows(store, group, wanted, context, has_parts=len({topic_id for topic_id, _ in positions}) > 1)
    emitters = read_emitters(store, group, watermarks, late_us, span, carried.being_deleted)
    sums.add_to(emitters)
    differences = [
        one
        for one, document in read_differences(store, group)
        if span.has_window(one.place.window) and document.id not in carried.being_deleted
    ]
    outside = _outside_windows(sums, context, carried, from_one=not span.is_bounded)
    without_window = {} if span.is_bounded else outside.without_window(positions, before=carried.before)
    books = Books(
        row=outside.total(),
        windows=sums.kept,
        states=dict(sums.states),
        closed=sums.closed,
        held=sums.held,
        lost=sums.lost,
        corrected_in=sums.corrected_in,
        emitters=emitters,
        corrections=corrections,
        expired=_expired(positions, sums.kept),
        store_differences=differences,
        imbalance=sums.imbalance
        + sum(abs(one.difference) for one in differences)
        + sum(numbers.count for numbers in without_window.values()),
        positions={place: position.next_offset or 0 for place, position in positions.items()},
        watermark_us=max(watermarks.values(), default=0),
        carried=CarriedForward(edition=carried.edition) if span.is_bounded or span.emitter is not None else carried,
        outside=outside,
        natural_keys=frozenset(
            key for (key, _), known in emitters.items() if known.loss_class is LossClass.FROM_FIELDS
        ),
        indexed=sums.indexed,
        without_window=without_window,
        left_behind=left_behind(
            positions, minutes, context.closings, topic_id=_topic_of(current), before=carried.before
        ),
    )
    # What is corrected in a window that is gone has been carried as it was before.
    for one in corrections:
        if one.place.in_stream not in sums.corrected_in and one.place.window < books.carried.before:
            books.carried.correct(one.from_outcome.value, one.to_outcome.value, one.count)
    _add_up(books, sums.row, span)
    return books


def _by_window(corrections: Iterable[Correction]) -> dict[StreamWindow, list[Correction]]:
    found: dict[StreamWindow, list[Correction]] = defaultdict(list)
    for one in corrections:
        found[one.place.in_stream].append(one)
    return dict(found)


def _watermarks(
    positions: Mapping[PartitionId, Position], places: Collection[PartitionId], accounted_us: int
) -> dict[PartitionId, int]:
    """Of each partition, up to when everything that was received is known.

    Of a topic that another one has taken the place of, nothing comes any more: what is known of the other one's
    ``places`` holds for it. It must not keep what is missing from being lost.
    """
    own_us = {place: position.watermark_us for place, position in positions.items()}
    return {place: us if place in places else max(us, accounted_us) for place, us in own_us.items()}


def _topic_of(places: Iterable[PartitionId]) -> str:
    return next((place.topic_id for place in places), "")


def _add_up(books: Books, windows: Row, span: Span) -> None:
    books.row.add(windows)
    books.row.add(books.carried.row)
    if span.emitter is not None:
        books.row = Row()
        for known in books.emitters.values():
            books.row.add(known.row)


def _lost_numbers(positions: Mapping[PartitionId, Position]) -> dict[StreamId, Intervals]:
    """Which numbers the queue was known to have lost; some may have come after all, or were void."""
    lost: dict[StreamId, Intervals] = defaultdict(Intervals)
    for (_, partition), position in positions.items():
        for epoch, ranges in position.lost.items():
            lost[StreamId(epoch, partition)].add_all(ranges)
    return lost


def _outside_windows(sums: Sums, context: Context, carried: CarriedForward, *, from_one: bool) -> OutsideWindows:
    gone = {one.stream for one in sums.kept if one.state in (PROCESS_GONE, CLOSED_AFTERWARDS)}
    void = {stream: closing.numbers for stream, closing in context.closings.items()}
    starts = dict(carried.streams)
    if not from_one:
        starts = {stream: next(iter(numbers), (1, 0))[0] for stream, numbers in sums.known.items()}
    return OutsideWindows(sums.known, context.lost, gone, starts, void, is_whole=from_one)


def _expired(positions: Mapping[PartitionId, Position], windows: Iterable[WindowBooks]) -> list[ExpiredOffsets]:
    """Each range of offsets that was gone before it was read.

    Whether all that was in it is counted as lost is not known while a process was sending then whose later records or
    marker did not come by: one with an open window, or one that was heard of shortly before the range and never again.
    Nor is it of what was gone when the books began.
    """
    open_streams = {books.stream for books in windows if not books.window.closed}
    found = []
    for (topic_id, partition), position in positions.items():
        if position.begun:
            found.append(ExpiredOffsets(topic_id, partition, 0, position.begun - 1, exact=False))
        for first, last in position.expired:
            unsure = any(since <= first for since in position.unseen_since.values()) or any(
                stream.offset < first and (epoch, partition) in open_streams
                for epoch, stream in position.streams.items()
            )
            found.append(ExpiredOffsets(topic_id, partition, first, last, exact=not unsure))
    return found


# --- one window ---------------------------------------------------------------------------------------------------
def explain(books: Books) -> Iterator[dict[str, Any]]:
    """Each window in the books down to partition, process, ranges and emitters."""
    for one in sorted(books.windows, key=lambda one: (one.place.window, one.place.partition, one.place.ingest_epoch)):
        window = one.window
        row, not_arrived, lost = _of_window(books, one)
        yield {
            "window": window.window,
            "merged_windows": [minute for minute, _, _ in window.minutes],
            "partition": one.place.partition,
            "ingest_epoch": one.place.ingest_epoch,
            "topic_id": one.place.topic_id,
            "state": one.state,
            "imbalance": one.imbalance,
            **row.as_json(),
            "numbers": pairs(window.numbers),
            "voids": pairs(window.voids),
            "marker": [window.given[0][0], window.given[-1][1]] if window.marker else None,
            "not_arrived": pairs(not_arrived),
            "lost_in_queue_ranges": pairs(lost),
            "amendments": [asdict(line) for line in window.amendments],
            "corrections": [correction.as_json() for correction in one.corrections],
            "emitters": [{"name": name_of(emitter), **row.as_json()} for emitter, row in one.by_emitter.items()],
        }


def _of_window(books: Books, one: WindowBooks) -> tuple[Row, Intervals, Intervals]:
    """Its row, what of it has not arrived, and what the queue has lost; of an open one, between its own numbers."""
    if one.window.closed or not one.window.numbers:
        return one.row, one.gaps, one.lost
    first, last = one.window.numbers.min, one.window.numbers.max
    row = books.outside.row(one.stream, last, first=first)
    row.add(one.row)
    return row, *books.outside.not_here(one.stream, last, first=first)
