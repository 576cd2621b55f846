"""The books, read from the ledger: what became of every event, and what of the numbered ones never came.

Two equations are held against each other, window by window and then added up:

    accepted + unconfirmed
        = indexed + duplicate + filtered + dead-lettered + in flight + lost in the queue + undecided + void
    created = accepted + dropped + lost - recovered + missing         of each run of an emitter that numbers its events

The left side of the first is the doors' word (their markers), the right side the workers'. In a closed window nothing
is in flight; whatever the two sides differ by there is the imbalance, and nothing is ever set off against it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from logweir import hours
from logweir.carried import UNKNOWN, Carried, read_carried
from logweir.clock import WINDOW_US, iso_seconds
from logweir.closings import Closing, read_closings
from logweir.corrections import Correction, read_corrections
from logweir.emitter_ledger import Emitter, EmitterState
from logweir.equation import OUTCOMES as OUTCOMES
from logweir.equation import Row as Row
from logweir.horizon import horizons, of_latest_topic, overall, read_hearings
from logweir.ledger import Place, Window, partition_place, read_positions, window_place
from logweir.sequence import Intervals
from logweir.store import Store
from logweir.tracker import Losses, Tracker, pairs, united

PROCESS_GONE = "open: process gone"
CLOSED_BY_HAND = "closed by hand"
"""A person has said of a process that is gone that nothing more of it comes, and nothing has."""
_TOTALS = ("created", "lost", "recovered", "missing", "dropped")
_UNTIMED = frozenset(
    ("created", "accepted", "dropped", "dropped_by_reason", "recovered", "unexplained", "lost_without_range", "retired")
)
"""What of the second equation has no time: of a span of time it is unknown, except where the span is all there is."""
RATE_WINDOWS = 5
"""Over how many whole minutes, and the current one, an emitter's rate is taken."""
_READ_AGAIN_S = 1.0
GONE_AFTER_US = 300_000_000
"""A window that is open so long after its end, and nothing of its process in all that workers have read since: gone."""

_WindowOf = tuple[int, str, int]
"""Partition, ingest epoch, window: what a window is, whatever the topic is."""

Stream = tuple[str, int]
"""(ingest epoch, partition): what an ingest process's numbers run in, whatever the topic is."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which windows and emitters are asked for; ``from_us`` is included, ``to_us`` is not."""

    from_us: int | None = None
    to_us: int | None = None
    emitter: str | None = None

    @property
    def is_bounded(self) -> bool:
        return self.from_us is not None or self.to_us is not None

    def has_time(self, time_us: int) -> bool:
        return (self.from_us is None or time_us >= self.from_us) and (self.to_us is None or time_us < self.to_us)

    def has_window(self, window: int) -> bool:
        late_enough = self.from_us is None or (window + 1) * WINDOW_US > self.from_us
        return late_enough and (self.to_us is None or window * WINDOW_US < self.to_us)

    def has_emitter(self, emitter: Emitter) -> bool:
        return self.emitter in (None, emitter[0], emitter[1], name_of(emitter))


def name_of(emitter: Emitter) -> str:
    """An emitter in one word: its key's name, and its own behind a slash."""
    key, name = emitter
    return key if name is None else f"{key}/{name}"


@dataclass(slots=True)
class WindowBooks:
    """One window, or an hour of them, reconciled.

    ``gaps``: numbers of it that were given out, and neither settled, void nor known lost.
    """

    topic_id: str
    partition: int
    window: Window
    row: Row
    by_emitter: dict[Emitter, Row]
    lost: Intervals
    gaps: Intervals
    corrections: list[Correction]
    imbalance: int
    state: str

    @property
    def stream(self) -> Stream:
        return self.window.ingest_epoch, self.partition


@dataclass(slots=True)
class Run:
    """One epoch of an emitter, over all partitions. ``unknown``: what the span that is asked for does not say of it."""

    tracker: Tracker
    losses: Losses
    lost_ranges: list[tuple[int, int]]
    unknown: frozenset[str] = frozenset()

    @property
    def unexplained(self) -> int:
        """By how much the second equation does not hold: below zero when it says to have dropped what came."""
        losses = self.losses
        known = self.tracker.accepted + losses.dropped + losses.net + losses.missing
        return self.tracker.created - known

    def as_json(self) -> dict[str, Any]:
        tracker, losses = self.tracker, self.losses
        document = {
            "epoch": tracker.epoch,
            "created": tracker.created,
            "accepted": tracker.accepted,
            "dropped": losses.dropped,
            "dropped_by_reason": tracker.dropped,
            "lost": losses.lost,
            "recovered": losses.recovered,
            "missing": losses.missing,
            "unexplained": self.unexplained,
            "lost_ranges": [list(pair) for pair in self.lost_ranges],
            "lost_without_range": tracker.lost_below - tracker.recovered_below,
            "bye": tracker.bye,
            "previous": tracker.previous,
        }
        return {name: None if name in self.unknown else value for name, value in document.items()}


@dataclass(slots=True)
class EmitterBooks:
    """One emitter. ``honesty``: A when it numbers its events, B when their own numbers are read, D when what never
    reached us is unknown.

    ``imbalance``: by how much the first equation does not hold, its closed windows' differences added up. ``unknown``:
    what is not known of the span of time asked for.
    """

    emitter: Emitter
    row: Row = field(default_factory=Row)
    imbalance: int = 0
    runs: list[Run] = field(default_factory=list)
    retired: dict[str, int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    first_us: int = 0
    last_us: int = 0
    source_address: str = ""
    rate_per_s: float = 0.0

    @property
    def honesty(self) -> str:
        if any(run.tracker.natural for run in self.runs):
            return "B"
        return "A" if self.runs or self.retired else "D"

    @property
    def is_in_its_keys_row(self) -> bool:
        """Whether its events came as the key's own, which are counted there: it is only named inside of them."""
        return self.honesty == "B" and self.row == Row()

    @property
    def counts(self) -> dict[str, int | None]:
        """Its line of the first equation; None for what is in its key's."""
        if not self.is_in_its_keys_row:
            return {**self.row.as_json()}
        return {**dict.fromkeys(self.row.as_json()), "accepted": self.total("accepted")}

    def total(self, name: str) -> int | None:
        """Of the second equation, over all runs; None where it is unknown.

        ``lost``, ``recovered``, ``missing``, ``dropped``, ``created``, ``accepted`` or ``unexplained``.
        """
        if self.honesty == "D" or name in self.unknown:
            return None
        return sum(_of_run(run, name) for run in self.runs) + _of_retired(self.retired, name)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": name_of(self.emitter),
            "key": self.emitter[0],
            "emitter": self.emitter[1],
            "class": self.honesty,
            "balanced": self.imbalance == 0,
            "imbalance": self.imbalance,
            **self.counts,
            **{name: self.total(name) for name in (*_TOTALS, "unexplained")},
            "lost_ranges": [[run.tracker.epoch, *pair] for run in self.runs for pair in run.lost_ranges],
            "epochs": [run.as_json() for run in self.runs],
            "retired": None if "retired" in self.unknown else self.retired,
            "first_seen_us": self.first_us,
            "last_seen_us": self.last_us,
            "source_address": self.source_address,
            "rate_per_s": round(self.rate_per_s, 3),
        }


def _of_run(run: Run, name: str) -> int:
    if name in ("created", "accepted"):
        return int(getattr(run.tracker, name))
    return run.unexplained if name == "unexplained" else int(getattr(run.losses, name))


def _of_retired(sums: Mapping[str, int], name: str) -> int:
    if name != "unexplained":
        return sums.get(name, 0)
    known = sum(sums.get(one, 0) for one in ("accepted", "dropped", "lost")) - sums.get("recovered", 0)
    return sums.get("created", 0) - known


@dataclass(slots=True)
class Between:
    """What of each ingest process's numbers is in no window's books. Numbers, by stream.

    ``known``: those that came, or that a marker speaks of. ``starts``: where the books begin, when what was before is
    carried. ``void``: what was said never to come. ``is_whole``: it is not of a span of time only.
    """

    known: dict[Stream, Intervals]
    lost: dict[Stream, Intervals]
    gone: set[Stream]
    starts: dict[Stream, int]
    void: dict[Stream, Intervals]
    is_whole: bool

    def total(self) -> Row:
        """Numbers that did not come: of nobody knows whom, lost, undecided, void or in flight."""
        row = Row()
        for stream in self.known:
            row.add(self.row(stream, self.ends(stream)))
        return row

    def row(self, stream: Stream, until: int, *, first: int = 1) -> Row:
        """Of one stream, from one number up to another, which are included."""
        row = Row()
        left, lost = self.not_here(stream, until, first=first)
        row.lost_in_queue = len(lost)
        if stream in self.gone:
            void = self.void.get(stream, Intervals())
            row.void = sum(last - first + 1 for pair in left for first, last in void.within(*pair))
            row.undecided = len(left) - row.void
        else:
            row.in_flight = len(left)
        row.accepted, row.unconfirmed = row.in_flight + row.lost_in_queue, row.undecided + row.void
        return row

    def not_here(self, stream: Stream, until: int, *, first: int = 1) -> tuple[Intervals, Intervals]:
        """The numbers of a stream that did not come: those of which nothing is known, and those that the queue lost."""
        left = Intervals(self.known[stream].gaps(max(first, self._begins(stream)), until))
        known_lost = self.lost.get(stream, Intervals())
        lost = Intervals(pair for one in left for pair in known_lost.within(*one))
        left.remove_all(lost)
        return left, lost

    def ends(self, stream: Stream) -> int:
        """The last number of it that anything is known of."""
        return max(self.known[stream].max, self.lost_until(stream) if self.is_whole else 0)

    def lost_until(self, stream: Stream) -> int:
        """The last number that the queue is known to have lost, 0 when it has lost none."""
        lost = self.lost.get(stream)
        return lost.max if lost else 0

    def undecided(self, stream: Stream) -> Intervals:
        """Which numbers of a process that is gone never came, whatever anybody has said of them."""
        return self.not_here(stream, self.known[stream].max)[0]

    def _begins(self, stream: Stream) -> int:
        return self.starts.get(stream, 1)


@dataclass(slots=True)
class Books:
    """Everything that was asked for.

    ``carried``: the sums of what is older than the ledger's retention, unless a span of time or an emitter is asked
    for. They are in ``row``, ``total`` and ``corrected``, so that those do not fall when retention passes; not in
    ``windows``, ``emitters``, ``corrections`` and ``imbalance``: those are of what is still held. ``natural_keys``:
    those whose events have numbers of their own.
    """

    row: Row
    windows: list[WindowBooks]
    emitters: dict[Emitter, EmitterBooks]
    corrections: list[Correction]
    expired: list[dict[str, Any]]
    store_differences: list[dict[str, Any]]
    imbalance: int
    positions: dict[Place, int]
    watermark_us: int
    carried: Carried
    between: Between
    natural_keys: frozenset[str]

    @property
    def balanced(self) -> bool:
        return self.imbalance == 0

    def total(self, name: str) -> int | None:
        """As ``EmitterBooks.total``, over all emitters that number their events; None when there is none of them.

        What the queue lost of the others, or of nobody knows whom, is lost, too, and recovered when it comes.
        """
        found = [books.total(name) for books in self.emitters.values() if books.honesty != "D"]
        known = [count for count in found if count is not None]
        if len(known) < len(found):
            return None
        known += [counts[name] for counts in self.carried.numbered.values()]
        lost, recovered = self._of_queue_alone()
        extra = {"lost": lost, "recovered": recovered}.get(name, 0)
        return sum(known) + extra if known or lost else None

    def class_of(self, emitter: Emitter) -> str:
        """By whose numbers its losses show: those of a key whose events have their own, by theirs."""
        known = self.emitters.get(emitter)
        honesty = known.honesty if known else "D"
        return "B" if honesty == "D" and emitter[0] in self.natural_keys else honesty

    def _of_queue_alone(self) -> tuple[int, int]:
        """What the queue lost that no emitter's numbers show as lost, and how much of that came after all.

        Of what it lost of nobody knows whom, that part is the numbered emitters' which their own numbers show as lost
        and no closed window explains: it counts once.
        """
        own: Counter[Emitter | str] = Counter()
        of_queue: Counter[Emitter | str] = Counter()
        recovered = self.carried.recovered
        for emitter, books in self.emitters.items():
            is_natural = self.class_of(emitter) == "B"
            who = emitter[0] if is_natural else emitter
            own[who] += books.total("lost") or 0
            of_queue[who] += books.row.lost_in_queue
            recovered += 0 if is_natural else books.row.recovered_in_queue
        shown = sum((own - of_queue).values()) + self.carried.lost_before
        alone = sum((of_queue - own).values()) + self.carried.lost_in_queue["D"] + max(0, -shown)
        of_nobody = self.row.lost_in_queue - self.carried.row.lost_in_queue - sum(of_queue.values())
        of_nobody += self.carried.lost_in_queue[UNKNOWN]
        return alone + recovered + max(0, of_nobody - max(0, shown)), recovered

    def lost_in_queue_ranges(self) -> dict[Stream, Intervals]:
        """The numbers that the queue has lost, in windows and between them."""
        found: dict[Stream, Intervals] = defaultdict(Intervals)
        for window in self.windows:
            if window.lost:
                found[window.stream].add_all(window.lost)
        for stream in self.between.known:
            _, lost = self.between.not_here(stream, self.between.ends(stream))
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

    def states(self) -> dict[str, int]:
        """How many windows are in each state."""
        counts: dict[str, int] = defaultdict(int)
        for window in self.windows:
            counts[window.state] += len(window.window.windows)
        return dict(counts)

    def as_json(self) -> dict[str, Any]:
        return {
            "balanced": self.balanced,
            "imbalance": self.imbalance,
            **self.row.as_json(),
            **{name: self.total(name) for name in _TOTALS},
            "lost_in_queue_ranges": [
                {"partition": partition, "ingest_epoch": epoch, "ranges": pairs(ranges)}
                for (epoch, partition), ranges in self.lost_in_queue_ranges().items()
            ],
            "loss_unknown_emitters": sum(books.honesty == "D" for books in self.emitters.values()),
            "windows": self.states(),
            "expired_offsets": self.expired,
            "store_differences": self.store_differences,
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
            "before": iso_seconds(carried.before * WINDOW_US), **carried.row.as_json(), **totals,
            "unexplained": carried.row.unexplained,
        }  # fmt: skip


# --- reading ------------------------------------------------------------------------------------------------------
def read_books(store: Store, *, group: str, late_us: int, now_us: int, span: Span = Span()) -> Books:
    """The books as the ledger has them now, while workers go on writing it.

    Unless a span of time or an emitter is asked for, totals include what ``accounting.retention_days`` has passed, so
    that they do not fall: see ``Books``. Raises LogweirError(STORE_DOWN).
    """
    while True:
        books = read_books_once(store, group=group, late_us=late_us, now_us=now_us, span=span)
        if read_carried(store, group).step == books.carried.step:
            return books
        # Something was let go of meanwhile: it may have been read in both places, or in none.
        time.sleep(_READ_AGAIN_S)


def read_books_once(store: Store, *, group: str, late_us: int, now_us: int, span: Span = Span()) -> Books:
    """As ``read_books``, for who compares a partition's ``carried.step`` before it acts: true where it is as read."""
    return _read(store, group, late_us, now_us, span, read_carried(store, group))


def _read(store: Store, group: str, late_us: int, now_us: int, span: Span, carried: Carried) -> Books:
    # The watermarks before the emitters, so that nothing is called lost that has come since; what the queue lost behind
    # the windows, so that nothing is called unexplained that was being written down.
    positions = read_positions(store, group)
    minutes = horizons(positions, read_hearings(store, group))
    current = of_latest_topic(minutes)
    accounted_us = overall(current) * WINDOW_US
    watermarks = _watermarks(positions, current, accounted_us)
    found, active_us = _windows(store, group, span, carried.taken)
    emitters = _emitters(store, group, watermarks, late_us, span, carried.taken)
    positions = read_positions(store, group)
    lines = read_corrections(store, group, without=carried.taken)
    corrections = [one for one in lines if span.has_window(one.window)]
    corrections_of: dict[_WindowOf, list[Correction]] = defaultdict(list)
    for one in corrections:
        corrections_of[one.partition, one.ingest_epoch, one.window].append(one)
    closings = read_closings(store, group)
    lost = _lost_numbers(positions)
    context = _Context(min(now_us, accounted_us), lost, corrections_of, active_us, closings)
    windows = [_reconciled(topic_id, partition, window, context) for topic_id, partition, window in _joined(found)]
    differences = [one for one in _store_differences(store, group, span) if one.pop("id") not in carried.taken]
    void = {stream: closing.numbers for stream, closing in closings.items()}
    between = _between_windows(windows, lost, void, carried, from_one=not span.is_bounded)
    row = between.total()
    books = Books(
        row=row,
        windows=windows,
        emitters=emitters,
        corrections=corrections,
        expired=_expired(positions, windows),
        store_differences=differences,
        imbalance=sum(window.imbalance for window in windows) + sum(abs(one["difference"]) for one in differences),
        positions={place: body.get("next_offset") or 0 for place, body in positions.items()},
        watermark_us=max(watermarks.values(), default=0),
        carried=Carried(step=carried.step) if span.is_bounded or span.emitter is not None else carried,
        between=between,
        natural_keys=frozenset(key for (key, _), known in emitters.items() if known.honesty == "B"),
    )
    # What is corrected in a window that is gone has been carried as it was before.
    for one in (one for own in corrections_of.values() for one in own if one.window < books.carried.before):
        books.carried.correct(one.from_outcome.value, one.to_outcome.value, one.count)
    _add_up(books, span, now_us)
    return books


def _watermarks(
    positions: dict[Place, dict[str, Any]], places: Collection[Place], accounted_us: int
) -> dict[Place, int]:
    """Of each partition, up to when everything that was received is known.

    Of a topic that another one has taken the place of, nothing comes any more: what is known of the other one's
    ``places`` holds for it. It must not keep what is missing from being lost.
    """
    own_us = {place: int(body.get("watermark_us", 0)) for place, body in positions.items()}
    return {place: us if place in places else max(us, accounted_us) for place, us in own_us.items()}


def _store_differences(store: Store, group: str, span: Span) -> Iterator[dict[str, Any]]:
    """Windows of which the store itself counted another number of documents than the ledger says were indexed."""
    prefix = f"store_difference:{group}:"
    for document in store.scan_ledger(prefix):
        topic_id, partition, epoch, window = window_place(document.id, prefix)
        if span.has_window(window):
            body = document.body
            yield {
                "id": document.id,
                "window": window, "topic_id": topic_id, "partition": partition, "ingest_epoch": epoch,
                "stored": body["stored"], "indexed": body["indexed"], "difference": body["stored"] - body["indexed"],
            }  # fmt: skip


def _windows(
    store: Store, group: str, span: Span, taken: Collection[str]
) -> tuple[list[tuple[str, int, Window]], dict[str, int]]:
    """Windows and hours of them; none that is in its hour, or being deleted.

    And by ingest epoch the end of the last window in which something of it came, whatever the span.
    """
    found: dict[tuple[str, int, str, int], Window] = {}
    active_us: dict[str, int] = defaultdict(int)
    prefix = f"window:{group}:"
    for document in store.scan_ledger(prefix):
        place = window_place(document.id, prefix)
        active_us[place[2]] = max(active_us[place[2]], (place[3] + 1) * WINDOW_US)
        if span.has_window(place[3]) and document.id not in taken:
            found[place] = Window.from_body(document.id, document.body)
    # The hours behind the windows: whatever is merged meanwhile is in both, and counted as part of the hour.
    prefix = f"hour:{group}:"
    merged = []
    for document in store.scan_ledger(prefix):
        if "minutes" not in document.body or document.id in taken:
            continue  # It is only claimed so far, or being deleted.
        topic_id, partition, epoch, _ = window_place(document.id, prefix)
        hour = hours.of_document(document, ingest_epoch=epoch, window=0)
        active_us[epoch] = max(active_us[epoch], (max(hour.windows) + 1) * WINDOW_US)
        for window in hour.windows:
            one = found.get((topic_id, partition, epoch, window))
            if one is not None and hours.has(hour, one):
                del found[topic_id, partition, epoch, window]
        if any(map(span.has_window, hour.windows)):
            merged.append((topic_id, partition, hour))
    return [*((topic_id, partition, one) for (topic_id, partition, _, _), one in found.items()), *merged], active_us


def _add_up(books: Books, span: Span, now_us: int) -> None:
    recent = now_us // WINDOW_US - RATE_WINDOWS
    recent_s = now_us / 1e6 - recent * WINDOW_US / 1e6
    for window in books.windows:
        for emitter, row in window.by_emitter.items():
            if not span.has_emitter(emitter):
                continue
            known = books.emitters.setdefault(emitter, EmitterBooks(emitter))
            known.row.add(row)
            if window.window.closed:
                known.imbalance += abs(row.unexplained)
            if window.window.window >= recent:
                known.rate_per_s += row.settled / recent_s
        if span.emitter is None:
            books.row.add(window.row)
    books.row.add(books.carried.row)
    if span.emitter is not None:
        books.row = Row()
        for known in books.emitters.values():
            books.row.add(known.row)


# --- the first equation -------------------------------------------------------------------------------------------
def _lost_numbers(positions: Mapping[Place, Mapping[str, Any]]) -> dict[Stream, Intervals]:
    """Which numbers the queue was known to have lost; some may have come after all, or were void."""
    lost: dict[Stream, Intervals] = defaultdict(Intervals)
    for (_, partition), body in positions.items():
        for epoch, ranges in body.get("lost", {}).items():
            lost[epoch, partition].add_all(ranges)
    return lost


def _joined(found: Iterable[tuple[str, int, Window]]) -> Iterator[tuple[str, int, Window]]:
    """The windows, as one those with a part in a topic and another part in the one that was made in its place."""
    joined: dict[_WindowOf, tuple[str, int, Window]] = {}
    for topic_id, partition, window in found:
        if window.minutes:
            yield topic_id, partition, window  # What is merged to an hour is complete by itself.
            continue
        place = partition, window.ingest_epoch, window.window
        if place not in joined:
            joined[place] = topic_id, partition, window
            continue
        other_topic_id, _, other = joined[place]
        # The marker is where the process went on.
        is_later = window.marker is not None
        joined[place] = topic_id if is_later else other_topic_id, partition, _with_part(other, window)
    yield from joined.values()


def _with_part(window: Window, part: Window) -> Window:
    outcomes = {emitter: list(counts) for emitter, counts in window.outcomes.items()}
    for emitter, counts in part.outcomes.items():
        before = outcomes.get(emitter, [0] * len(counts))
        outcomes[emitter] = [one + other for one, other in zip(before, counts, strict=True)]
    return replace(
        window,
        numbers=Intervals([*window.numbers, *part.numbers]),
        voids=Intervals([*window.voids, *part.voids]),
        outcomes=outcomes,
        marker=part.marker or window.marker,
        amendments=[*window.amendments, *part.amendments],
        parts=[*window.parts, part.id],
    )


@dataclass(frozen=True, slots=True)
class _Context:
    """What a window is reconciled with. ``accounted_us``: up to when everything that was received is accounted for.

    ``corrections_of``: what is not taken out of it is of windows that are gone.
    """

    accounted_us: int
    lost: dict[Stream, Intervals]
    corrections_of: dict[_WindowOf, list[Correction]]
    active_us: dict[str, int]
    closings: dict[Stream, Closing]


def _reconciled(topic_id: str, partition: int, window: Window, context: _Context) -> WindowBooks:
    voided = _voided(window)
    by_emitter = {
        emitter: Row(
            outcomes=dict(zip(OUTCOMES, counts, strict=False)),
            identity_conflicts=conflicts,
            recovered_in_queue=recovered,
        )
        for emitter, (*counts, conflicts, recovered) in window.outcomes.items()
    }
    stream = window.ingest_epoch, partition
    stream_lost = context.lost.get(stream, Intervals())
    lost_here, gaps = Intervals(), Intervals()
    imbalance = 0
    here = Intervals([*window.numbers, *window.voids])
    if window.marker is None:
        for row in by_emitter.values():
            row.accepted = row.settled
    else:
        for line in window.marker["accepted"]:
            row = by_emitter.setdefault((line["key"], line["emitter"]), Row())
            row.accepted += line["accepted"]
            row.unconfirmed += line["unconfirmed"]
        for first, last in (gap for pair in window.given for gap in here.gaps(*pair)):
            gaps.add(first, last)
            lost_here.add_all(stream_lost.within(first, last))
        gaps.remove_all(lost_here)
        imbalance = _imbalance(window, by_emitter, lost=len(lost_here), gaps=len(gaps), voided=voided)
    places = [(partition, window.ingest_epoch, minute) for minute in window.windows]
    own = [one for place in places for one in context.corrections_of.pop(place, ())]
    for correction in own:
        row = by_emitter.setdefault(correction.sender, Row())
        row.outcomes[correction.from_outcome] -= correction.count
        row.outcomes[correction.to_outcome] += correction.count
    total = Row()
    for row in by_emitter.values():
        total.add(row)
    # Exact for the window, also where numbers that did not come and void ones that did are of one emitter.
    total.in_flight, total.lost_in_queue = len(gaps), len(lost_here)
    total.recovered_in_queue = sum(last - first + 1 for pair in here for first, last in stream_lost.within(*pair))
    if window.marker is None:
        total.accepted, total.unconfirmed = total.settled - voided, voided
    else:
        total.unconfirmed = voided + sum(line["unconfirmed"] for line in window.marker["accepted"])
    state = _state(window, imbalance, len(gaps), context.accounted_us, context.active_us[window.ingest_epoch])
    closing = context.closings.get(stream)
    if state == PROCESS_GONE and closing and closing.holds_of(topic_id, window.window, len(window.numbers)):
        state = CLOSED_BY_HAND
    return WindowBooks(topic_id, partition, window, total, by_emitter, lost_here, gaps, own, imbalance, state)


def _imbalance(window: Window, by_emitter: dict[Emitter, Row], *, lost: int, gaps: int, voided: int) -> int:
    """By how many events the door's word and the worker's differ in a closed window.

    Per emitter, so that one event too few of one and one too many of another do not cancel. What explains a difference:
    numbers that did not come (too few), and void numbers that came after all (too many).
    """
    differences = [row.unexplained for row in by_emitter.values()]
    left = {"lost_in_queue": lost, "in_flight": gaps}
    for row in by_emitter.values():
        for name, count in left.items():
            explained = min(count, max(0, row.unexplained))
            setattr(row, name, explained)
            left[name] = count - explained
        row.unconfirmed += min(voided, max(0, -row.unexplained))
    unexplained = abs(sum(differences) - (lost + gaps - voided))
    if not lost + gaps:
        unexplained = max(unexplained, sum(one for one in differences if one > 0))
    if not voided:
        unexplained = max(unexplained, -sum(one for one in differences if one < 0))
    settled = sum(sum(counts[: len(OUTCOMES)]) for counts in window.outcomes.values())
    return max(unexplained, abs(len(window.numbers) - settled))


def _voided(window: Window) -> int:
    """How many numbers came although they were declared void."""
    return sum(last - first + 1 for pair in window.voids for first, last in window.numbers.within(*pair))


def _state(window: Window, imbalance: int, in_flight: int, accounted_us: int, active_us: int) -> str:
    if window.closed:
        return "unbalanced" if imbalance else "open" if in_flight else "balanced"
    ended_us = (window.window + 1) * WINDOW_US
    return PROCESS_GONE if accounted_us - max(ended_us, active_us) > GONE_AFTER_US else "open"


def _between_windows(
    windows: Iterable[WindowBooks], lost: dict[Stream, Intervals], void: dict[Stream, Intervals], carried: Carried, *,
    from_one: bool,
) -> Between:  # fmt: skip
    known: dict[Stream, Intervals] = defaultdict(Intervals)
    gone: set[Stream] = set()
    for books in windows:
        known[books.stream].add_all((*books.window.numbers, *books.window.voids, *books.window.given))
        if books.state in (PROCESS_GONE, CLOSED_BY_HAND):
            gone.add(books.stream)
    starts = dict(carried.streams)
    if not from_one:
        starts = {stream: next(iter(numbers), (1, 0))[0] for stream, numbers in known.items()}
    return Between(dict(known), lost, gone, starts, void, is_whole=from_one)


def _expired(positions: dict[Place, dict[str, Any]], windows: Iterable[WindowBooks]) -> list[dict[str, Any]]:
    """Each range of offsets that was gone before it was read; ``exact``: all that was in it is counted as lost.

    That is not known while a process was sending then whose later records or marker did not come by: one with an open
    window, or one that was heard of shortly before the range and never again.
    """
    open_epochs = {books.stream for books in windows if not books.window.closed}
    found = []
    for (topic_id, partition), body in positions.items():
        for first, last in body.get("expired", []):
            unsure = any(since <= first for since in body.get("unheard", {}).values()) or any(
                offset < first and (epoch, partition) in open_epochs
                for epoch, (_, offset, _) in body.get("streams", {}).items()
            )
            found.append(
                {"topic_id": topic_id, "partition": partition, "first": first, "last": last, "exact": not unsure}
            )
    return found


# --- the second equation ------------------------------------------------------------------------------------------
def _emitters(
    store: Store, group: str, watermarks: dict[Place, int], late_us: int, span: Span, taken: Collection[str]
) -> dict[Emitter, EmitterBooks]:
    parts: dict[Emitter, list[tuple[int, EmitterState]]] = defaultdict(list)
    for document in store.scan_ledger(f"emitter:{group}:"):
        state = EmitterState.from_body(document.id, document.body)
        if document.id in taken:
            continue
        if span.has_emitter(state.emitter) and (span.from_us is None or state.last_us >= span.from_us):
            parts[state.emitter].append((watermarks.get(partition_place(document.id), 0), state))
    return {emitter: books_of_emitter(emitter, states, late_us, span) for emitter, states in parts.items()}


def books_of_emitter(
    emitter: Emitter, states: Iterable[tuple[int, EmitterState]], late_us: int = 0, span: Span = Span()
) -> EmitterBooks:
    """Of all its documents, each with the watermark of its partition."""
    books = EmitterBooks(emitter)
    trackers: dict[str, list[tuple[str, int, Tracker]]] = defaultdict(list)
    for watermark_us, state in states:
        books.first_us = min(books.first_us or state.first_us, state.first_us)
        if state.last_us >= books.last_us:
            books.last_us, books.source_address = state.last_us, state.source_address
        for name, count in state.retired.items():
            books.retired[name] = books.retired.get(name, 0) + count
        topic_id, _ = partition_place(state.id)
        for tracker in state.epochs.values():
            trackers[tracker.epoch].append((topic_id, watermark_us, tracker))
    for tracked in trackers.values():
        tracker = united(one for _, _, one in tracked)
        unknown = _UNTIMED if span.is_bounded else frozenset()
        if span.is_bounded and tracker.lost_below > tracker.recovered_below:
            unknown |= {"lost"}
        tracker = _within(tracker, span)
        times = {"watermark_us": _accounted_us(tracked), "late_us": late_us}
        books.runs.append(Run(tracker, tracker.losses(**times), tracker.lost_ranges(**times), unknown))
        books.unknown |= unknown
    if span.is_bounded and books.retired.get("lost", 0) > books.retired.get("recovered", 0):
        books.unknown |= {"lost"}
    return books


def _accounted_us(tracked: Iterable[tuple[str, int, Tracker]]) -> int:
    """Up to when all partitions of a topic are accounted for: of one topic is enough, they came one after the other."""
    by_topic: dict[str, int] = {}
    for topic_id, watermark_us, _ in tracked:
        by_topic[topic_id] = min(watermark_us, by_topic.get(topic_id, watermark_us))
    return max(by_topic.values())


def _within(tracker: Tracker, span: Span) -> Tracker:
    """The tracker with only those of its gaps that showed in the span of time."""
    if not span.is_bounded:
        return tracker
    outside = [gap for gap in tracker.gaps if not span.has_time(gap.since_us)]
    tracker.gaps = [gap for gap in tracker.gaps if span.has_time(gap.since_us)]
    # What was dropped, and what came late, has no time of its own: it explains what is outside first.
    explained = tracker.dropped_count - sum(map(len, outside)) - tracker.lost_below + tracker.recovered_below
    tracker.dropped = {"dropped": explained} if explained > 0 else {}
    tracker.recovered = tracker.lost_below = tracker.recovered_below = 0
    return tracker


# --- one window ---------------------------------------------------------------------------------------------------
def explain(books: Books) -> Iterator[dict[str, Any]]:
    """Each window in the books down to partition, process, ranges and emitters."""
    for one in sorted(books.windows, key=lambda one: (one.window.window, one.partition, one.window.ingest_epoch)):
        window = one.window
        row, not_arrived, lost = _of_window(books, one)
        yield {
            "window": window.window,
            "merged_windows": [minute for minute, _, _ in window.minutes],
            "partition": one.partition,
            "ingest_epoch": window.ingest_epoch,
            "topic_id": one.topic_id,
            "state": one.state,
            "imbalance": one.imbalance,
            **row.as_json(),
            "numbers": pairs(window.numbers),
            "voids": pairs(window.voids),
            "marker": [window.given[0][0], window.given[-1][1]] if window.marker else None,
            "not_arrived": pairs(not_arrived),
            "lost_in_queue_ranges": pairs(lost),
            "amendments": window.amendments,
            "corrections": [correction.as_json() for correction in one.corrections],
            "emitters": [{"name": name_of(emitter), **row.as_json()} for emitter, row in one.by_emitter.items()],
        }


def _of_window(books: Books, one: WindowBooks) -> tuple[Row, Intervals, Intervals]:
    """Its row, what of it has not arrived, and what the queue has lost; of an open one, between its own numbers."""
    if one.window.closed or not one.window.numbers:
        return one.row, one.gaps, one.lost
    first, last = next(iter(one.window.numbers))[0], one.window.numbers.max
    row = books.between.row(one.stream, last, first=first)
    row.add(one.row)
    return row, *books.between.not_here(one.stream, last, first=first)
