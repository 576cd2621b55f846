"""The books, read from the ledger: what became of every event, and what of the numbered ones never came.

Two equations are held against each other, window by window and then added up:

    accepted + unconfirmed = indexed + duplicate + filtered + dead-lettered + in flight + lost in the queue + undecided
    created = accepted + dropped + lost - recovered + missing         of each run of an emitter that numbers its events

The left side of the first is the doors' word (their markers), the right side the workers'. In a closed window nothing
is in flight; whatever the two sides differ by there is the imbalance, and nothing is ever set off against it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from logweir.clock import WINDOW_US
from logweir.corrections import Correction, read_corrections
from logweir.emitter_ledger import Emitter, EmitterState
from logweir.ledger import Window, position_prefix, window_place
from logweir.outcomes import Outcome
from logweir.sequence import Intervals
from logweir.store import Store
from logweir.tracker import Losses, Tracker, pairs, united

OUTCOMES = tuple(outcome.value for outcome in Outcome)
PROCESS_GONE = "open: process gone"
RATE_WINDOWS = 5
"""Over how many whole minutes, and the current one, an emitter's rate is taken."""
GONE_AFTER_US = 300_000_000
"""A window that is open so long after its end, while nothing comes of its process: the process is gone."""

Place = tuple[str, int]
"""(topic id, partition)."""
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
class Row:
    """One line of the first equation: of a window, of an emitter, or of everything. Counts of events.

    ``unconfirmed``: numbered by a door and not acknowledged to the sender, as far as is known. ``undecided``: those of
    them that never came, and never will be spoken of, because their process is gone (or they wait in its spool).
    """

    accepted: int = 0
    unconfirmed: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    identity_conflicts: int = 0
    in_flight: int = 0
    lost_in_queue: int = 0
    undecided: int = 0

    @property
    def settled(self) -> int:
        return sum(self.outcomes.values())

    def add(self, other: Row) -> None:
        self.accepted += other.accepted
        self.unconfirmed += other.unconfirmed
        for name, count in other.outcomes.items():
            self.outcomes[name] += count
        self.identity_conflicts += other.identity_conflicts
        self.in_flight += other.in_flight
        self.lost_in_queue += other.lost_in_queue
        self.undecided += other.undecided

    def as_json(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "unconfirmed": self.unconfirmed,
            **self.outcomes,
            "identity_conflicts": self.identity_conflicts,
            "in_flight": self.in_flight,
            "lost_in_queue": self.lost_in_queue,
            "undecided": self.undecided,
        }


@dataclass(slots=True)
class WindowBooks:
    """One window, reconciled. ``gaps``: numbers of it that were given out, and neither settled, void nor known lost."""

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
    """One epoch of an emitter, over all partitions."""

    tracker: Tracker
    losses: Losses
    lost_ranges: list[tuple[int, int]]

    def as_json(self) -> dict[str, Any]:
        tracker, losses = self.tracker, self.losses
        return {
            "epoch": tracker.epoch,
            "created": tracker.created,
            "accepted": tracker.accepted,
            "dropped": losses.dropped,
            "dropped_by_reason": tracker.dropped,
            "lost": losses.lost,
            "recovered": losses.recovered,
            "missing": losses.missing,
            "lost_ranges": [list(pair) for pair in self.lost_ranges],
            "lost_without_range": tracker.lost_below - tracker.recovered_below,
            "bye": tracker.bye,
            "previous": tracker.previous,
        }


@dataclass(slots=True)
class EmitterBooks:
    """One emitter. ``honesty``: A when it numbers its events, B when their own numbers are read, D when what never
    reached us is unknown.
    """

    emitter: Emitter
    row: Row = field(default_factory=Row)
    runs: list[Run] = field(default_factory=list)
    retired: dict[str, int] = field(default_factory=dict)
    first_us: int = 0
    last_us: int = 0
    source_address: str = ""
    rate_per_s: float = 0.0

    @property
    def honesty(self) -> str:
        if any(run.tracker.natural for run in self.runs):
            return "B"
        return "A" if self.runs or self.retired else "D"

    def total(self, name: str) -> int | None:
        """``lost``, ``recovered``, ``missing``, ``dropped`` or ``created``, over all runs; None where it is unknown."""
        if self.honesty == "D":
            return None
        found = (run.tracker.created if name == "created" else getattr(run.losses, name) for run in self.runs)
        return sum(found) + self.retired.get(name, 0)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": name_of(self.emitter),
            "key": self.emitter[0],
            "emitter": self.emitter[1],
            "class": self.honesty,
            **self.row.as_json(),
            **{name: self.total(name) for name in ("created", "lost", "recovered", "missing", "dropped")},
            "lost_ranges": [[run.tracker.epoch, *pair] for run in self.runs for pair in run.lost_ranges],
            "epochs": [run.as_json() for run in self.runs],
            "retired": self.retired,
            "first_seen_us": self.first_us,
            "last_seen_us": self.last_us,
            "source_address": self.source_address,
            "rate_per_s": round(self.rate_per_s, 3),
        }


@dataclass(slots=True)
class Books:
    """Everything that was asked for. ``unknown``: offsets that the queue lost, and of whose events some are unknown."""

    row: Row
    windows: list[WindowBooks]
    emitters: dict[Emitter, EmitterBooks]
    corrections: list[Correction]
    unattributed: int
    expired: list[dict[str, Any]]
    store_differences: list[dict[str, Any]]
    imbalance: int
    positions: dict[Place, int]
    watermark_us: int

    @property
    def balanced(self) -> bool:
        return self.imbalance == 0

    def total(self, name: str) -> int | None:
        """As ``EmitterBooks.total``, over all emitters that number their events; None when there is none of them.

        What the queue lost of the others, or of nobody knows whom, is lost, too. Of the latter, that part is the
        numbered emitters' which their own numbers show as lost and no closed window explains: it counts once.
        """
        known = [count for books in self.emitters.values() if (count := books.total(name)) is not None]
        extra = 0
        if name == "lost":
            bare = sum(books.row.lost_in_queue for books in self.emitters.values() if books.honesty == "D")
            own = sum(max(0, (books.total("lost") or 0) - books.row.lost_in_queue) for books in self.emitters.values())
            extra = bare + max(0, self.unattributed - own)
        return sum(known) + extra if known or extra else None

    def states(self) -> dict[str, int]:
        """How many windows are in each state."""
        counts: dict[str, int] = defaultdict(int)
        for window in self.windows:
            counts[window.state] += 1
        return dict(counts)

    def as_json(self) -> dict[str, Any]:
        return {
            "balanced": self.balanced,
            "imbalance": self.imbalance,
            **self.row.as_json(),
            **{name: self.total(name) for name in ("created", "lost", "recovered", "missing", "dropped")},
            "loss_unknown_emitters": sum(books.honesty == "D" for books in self.emitters.values()),
            "windows": self.states(),
            "expired_offsets": self.expired,
            "store_differences": self.store_differences,
            "corrections": [correction.as_json() for correction in self.corrections],
            "watermark_us": self.watermark_us,
            "emitters": [
                books.as_json() for _, books in sorted(self.emitters.items(), key=lambda item: name_of(item[0]))
            ],
        }


# --- reading ------------------------------------------------------------------------------------------------------
def read_books(store: Store, *, group: str, late_us: int, now_us: int, span: Span = Span()) -> Books:
    """The books as the ledger has them now, while workers go on writing it."""
    # The watermarks before the emitters, so that nothing is called lost that has come since; what the queue lost behind
    # the windows, so that nothing is called unexplained that was being written down.
    watermarks = _watermarks(_positions(store, group))
    found = _windows(store, group, span)
    emitters = _emitters(store, group, watermarks, late_us, span)
    positions = _positions(store, group)
    corrections = [one for one in read_corrections(store, group) if span.has_window(one.window)]
    corrections_of: dict[_WindowOf, list[Correction]] = defaultdict(list)
    for one in corrections:
        corrections_of[one.partition, one.ingest_epoch, one.window].append(one)
    lost = _lost_numbers(positions, found)
    active_us = _last_activity(found)
    windows = [
        _reconciled(topic_id, partition, window, lost, corrections_of, now_us=now_us, active_us=active_us)
        for topic_id, partition, window in _joined(found)
    ]
    differences = list(_store_differences(store, group, span))
    between = _between_windows(windows, lost, from_one=not span.is_bounded)
    books = Books(
        row=between,
        windows=windows,
        emitters=emitters,
        corrections=corrections,
        unattributed=between.lost_in_queue,
        expired=_expired(positions, windows),
        store_differences=differences,
        imbalance=sum(window.imbalance for window in windows) + sum(abs(one["difference"]) for one in differences),
        positions={place: body.get("next_offset") or 0 for place, body in positions.items()},
        watermark_us=max(watermarks.values(), default=0),
    )
    _add_up(books, span, now_us)
    return books


def _positions(store: Store, group: str) -> dict[Place, dict[str, Any]]:
    found = {}
    prefix = position_prefix(group)
    for document in store.scan_ledger(prefix):
        topic_id, partition = document.id.removeprefix(prefix).rsplit(":", 1)
        found[topic_id, int(partition)] = document.body
    return found


def _watermarks(positions: dict[Place, dict[str, Any]]) -> dict[Place, int]:
    """Of each partition, up to when everything that was received is known; where nothing comes any more, the latest.

    That is so in a topic that another one has taken the place of: it must not keep what is missing from being lost.
    """
    watermarks = {place: int(body.get("watermark_us", 0)) for place, body in positions.items()}
    latest = max(watermarks, key=lambda place: watermarks[place], default=None)
    if latest is None:
        return {}
    return {place: own_us if place[0] == latest[0] else watermarks[latest] for place, own_us in watermarks.items()}


def _store_differences(store: Store, group: str, span: Span) -> Iterator[dict[str, Any]]:
    """Windows of which the store itself counted another number of documents than the ledger says were indexed."""
    prefix = f"store_difference:{group}:"
    for document in store.scan_ledger(prefix):
        topic_id, partition, epoch, window = window_place(document.id, prefix)
        if span.has_window(window):
            body = document.body
            yield {
                "window": window, "topic_id": topic_id, "partition": partition, "ingest_epoch": epoch,
                "stored": body["stored"], "indexed": body["indexed"], "difference": body["stored"] - body["indexed"],
            }  # fmt: skip


def _windows(store: Store, group: str, span: Span) -> list[tuple[str, int, Window]]:
    found = []
    prefix = f"window:{group}:"
    for document in store.scan_ledger(prefix):
        topic_id, partition, _, window = window_place(document.id, prefix)
        if span.has_window(window):
            found.append((topic_id, partition, Window.from_body(document.id, document.body)))
    return found


def _add_up(books: Books, span: Span, now_us: int) -> None:
    recent = now_us // WINDOW_US - RATE_WINDOWS
    recent_s = now_us / 1e6 - recent * WINDOW_US / 1e6
    for window in books.windows:
        for emitter, row in window.by_emitter.items():
            if not span.has_emitter(emitter):
                continue
            known = books.emitters.setdefault(emitter, EmitterBooks(emitter))
            known.row.add(row)
            if window.window.window >= recent:
                known.rate_per_s += row.settled / recent_s
        if span.emitter is None:
            books.row.add(window.row)
    if span.emitter is not None:
        books.row, books.unattributed = Row(), 0
        for known in books.emitters.values():
            books.row.add(known.row)


# --- the first equation -------------------------------------------------------------------------------------------
def _lost_numbers(
    positions: dict[Place, dict[str, Any]], found: Iterable[tuple[str, int, Window]]
) -> dict[Stream, Intervals]:
    """Which numbers are not to be expected any more: they fell into a hole, or were left in a topic that is gone."""
    lost: dict[Stream, Intervals] = defaultdict(Intervals)
    for (_, partition), body in positions.items():
        for epoch, ranges in body.get("lost", {}).items():
            lost[epoch, partition].add_all(ranges)
    topics: dict[Stream, dict[str, tuple[int, int]]] = defaultdict(dict)
    for topic_id, partition, window in found:
        # Where the marker came and nothing else, all that it covers was left in the topic before.
        first = next(iter(window.numbers), (0, 0))[0] or (window.marker or {}).get("last", 0) + 1
        known = topics[window.ingest_epoch, partition].get(topic_id, (window.window, first))
        topics[window.ingest_epoch, partition][topic_id] = min(known, (window.window, first))
    for stream, starts in topics.items():
        if len(starts) > 1:
            lost[stream].add(1, max(starts.values())[1] - 1)
    for _, partition, window in found:
        stream = window.ingest_epoch, partition
        if stream in lost:
            lost[stream].remove_all((*window.numbers, *window.voids))
    return lost


def _joined(found: Iterable[tuple[str, int, Window]]) -> Iterable[tuple[str, int, Window]]:
    """The windows, as one those with a part in a topic and another part in the one that was made in its place."""
    joined: dict[_WindowOf, tuple[str, int, Window]] = {}
    for topic_id, partition, window in found:
        place = partition, window.ingest_epoch, window.window
        if place not in joined:
            joined[place] = topic_id, partition, window
            continue
        other_topic_id, _, other = joined[place]
        # The marker is where the process went on.
        is_later = window.marker is not None
        joined[place] = topic_id if is_later else other_topic_id, partition, _with_part(other, window)
    return joined.values()


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
    )


def _last_activity(found: Iterable[tuple[str, int, Window]]) -> dict[str, int]:
    """By ingest epoch, the end of the last window in which something of it came."""
    active: dict[str, int] = defaultdict(int)
    for _, _, window in found:
        active[window.ingest_epoch] = max(active[window.ingest_epoch], (window.window + 1) * WINDOW_US)
    return active


def _reconciled(
    topic_id: str, partition: int, window: Window, lost: dict[Stream, Intervals],
    corrections_of: dict[_WindowOf, list[Correction]], *, now_us: int, active_us: dict[str, int],
) -> WindowBooks:  # fmt: skip
    voided = _voided(window)
    by_emitter = {
        emitter: Row(outcomes=dict(zip(OUTCOMES, counts, strict=False)), identity_conflicts=counts[len(OUTCOMES)])
        for emitter, counts in window.outcomes.items()
    }
    stream_lost = lost.get((window.ingest_epoch, partition), Intervals())
    lost_here, gaps = Intervals(), Intervals()
    imbalance = 0
    if window.marker is None:
        for row in by_emitter.values():
            row.accepted = row.settled
    else:
        for line in window.marker["accepted"]:
            row = by_emitter.setdefault((line["key"], line["emitter"]), Row())
            row.accepted += line["accepted"]
            row.unconfirmed += line["unconfirmed"]
        known = Intervals([*window.numbers, *window.voids])
        for first, last in known.gaps(window.marker["first"], window.marker["last"]):
            gaps.add(first, last)
            lost_here.add_all(stream_lost.within(first, last))
        gaps.remove_all(lost_here)
        imbalance = _imbalance(window, by_emitter, lost=len(lost_here), gaps=len(gaps), voided=voided)
    own = corrections_of.get((partition, window.ingest_epoch, window.window), [])
    for correction in own:
        row = by_emitter.setdefault(correction.sender, Row())
        row.outcomes[correction.from_outcome] -= correction.count
        row.outcomes[correction.to_outcome] += correction.count
    total = Row()
    for row in by_emitter.values():
        total.add(row)
    # Exact for the window, also where numbers that did not come and void ones that did are of one emitter.
    total.in_flight, total.lost_in_queue = len(gaps), len(lost_here)
    if window.marker is None:
        total.accepted, total.unconfirmed = total.settled - voided, voided
    else:
        total.unconfirmed = voided + sum(line["unconfirmed"] for line in window.marker["accepted"])
    state = _state(window, imbalance, now_us, active_us[window.ingest_epoch])
    return WindowBooks(topic_id, partition, window, total, by_emitter, lost_here, gaps, own, imbalance, state)


def _imbalance(window: Window, by_emitter: dict[Emitter, Row], *, lost: int, gaps: int, voided: int) -> int:
    """By how many events the door's word and the worker's differ; and what a closed window still waits for.

    Per emitter, so that one event too few of one and one too many of another do not cancel. What explains a difference:
    numbers that did not come (too few), and void numbers that came after all (too many).
    """
    differences = []
    for row in by_emitter.values():
        difference = row.accepted + row.unconfirmed - row.settled
        differences.append(difference)
        if difference > 0 and lost and not gaps:
            row.lost_in_queue = difference
        elif difference > 0 and gaps:
            row.in_flight = difference
        elif difference < 0 and voided:
            row.unconfirmed -= difference
    unexplained = abs(sum(differences) - (lost + gaps - voided))
    if not lost + gaps:
        unexplained = max(unexplained, sum(one for one in differences if one > 0))
    if not voided:
        unexplained = max(unexplained, -sum(one for one in differences if one < 0))
    settled = sum(sum(counts[: len(OUTCOMES)]) for counts in window.outcomes.values())
    return gaps + max(unexplained, abs(len(window.numbers) - settled))


def _voided(window: Window) -> int:
    """How many numbers came although they were declared void."""
    return sum(last - first + 1 for pair in window.voids for first, last in window.numbers.within(*pair))


def _state(window: Window, imbalance: int, now_us: int, active_us: int) -> str:
    if window.closed:
        return "unbalanced" if imbalance else "balanced"
    ended_us = (window.window + 1) * WINDOW_US
    return PROCESS_GONE if now_us - max(ended_us, active_us) > GONE_AFTER_US else "open"


def _between_windows(windows: Iterable[WindowBooks], lost: dict[Stream, Intervals], *, from_one: bool) -> Row:
    """Numbers outside of closed windows that did not come: of nobody knows whom, lost, undecided or in flight."""
    known: dict[Stream, Intervals] = defaultdict(Intervals)
    gone: set[Stream] = set()
    for books in windows:
        known[books.stream].add_all((*books.window.numbers, *books.window.voids))
        if books.window.marker is not None:
            known[books.stream].add(books.window.marker["first"], books.window.marker["last"])
        elif books.state == PROCESS_GONE:
            gone.add(books.stream)
    row = Row()
    for stream, numbers in known.items():
        stream_lost = lost.get(stream, Intervals())
        lowest = next(iter(numbers), (1, 0))[0]
        for first, last in numbers.gaps(1 if from_one else lowest, numbers.max):
            inside = sum(high - low + 1 for low, high in stream_lost.within(first, last))
            row.lost_in_queue += inside
            if first < lowest:
                continue  # Below the first number that is known, the ledger's own retention may have passed.
            if stream in gone:
                row.undecided += last - first + 1 - inside
            else:
                row.in_flight += last - first + 1 - inside
    row.accepted, row.unconfirmed = row.in_flight + row.lost_in_queue, row.undecided
    return row


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
    store: Store, group: str, watermarks: dict[Place, int], late_us: int, span: Span
) -> dict[Emitter, EmitterBooks]:
    parts: dict[Emitter, list[tuple[int, EmitterState]]] = defaultdict(list)
    for document in store.scan_ledger(f"emitter:{group}:"):
        _, _, place = document.id.removeprefix(f"emitter:{group}:").partition(":")
        topic_id, partition = place.rsplit(":", 1)
        state = EmitterState.from_body(document.id, document.body)
        if span.has_emitter(state.emitter) and (span.from_us is None or state.last_us >= span.from_us):
            parts[state.emitter].append((watermarks.get((topic_id, int(partition)), 0), state))
    return {emitter: _emitter_books(emitter, states, late_us, span) for emitter, states in parts.items()}


def _emitter_books(emitter: Emitter, states: list[tuple[int, EmitterState]], late_us: int, span: Span) -> EmitterBooks:
    books = EmitterBooks(emitter)
    trackers: dict[str, list[tuple[int, Tracker]]] = defaultdict(list)
    for watermark_us, state in states:
        books.first_us = min(books.first_us or state.first_us, state.first_us)
        if state.last_us >= books.last_us:
            books.last_us, books.source_address = state.last_us, state.source_address
        for name, count in state.retired.items() if not span.is_bounded else ():
            books.retired[name] = books.retired.get(name, 0) + count
        for tracker in state.epochs.values():
            trackers[tracker.epoch].append((watermark_us, tracker))
    for tracked in trackers.values():
        tracker = _within(united(one for _, one in tracked), span)
        times = {"watermark_us": min(watermark_us for watermark_us, _ in tracked), "late_us": late_us}
        books.runs.append(Run(tracker, tracker.losses(**times), tracker.lost_ranges(**times)))
    return books


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
        yield {
            "window": window.window,
            "partition": one.partition,
            "ingest_epoch": window.ingest_epoch,
            "topic_id": one.topic_id,
            "state": one.state,
            "imbalance": one.imbalance,
            **one.row.as_json(),
            "numbers": pairs(window.numbers),
            "voids": pairs(window.voids),
            "marker": [window.marker["first"], window.marker["last"]] if window.marker else None,
            "not_arrived": pairs(one.gaps),
            "lost_in_queue_ranges": pairs(one.lost),
            "amendments": window.amendments,
            "corrections": [correction.as_json() for correction in one.corrections],
            "emitters": [{"name": name_of(emitter), **row.as_json()} for emitter, row in one.by_emitter.items()],
        }
