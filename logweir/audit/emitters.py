"""The second equation: what of each emitter's numbers came, and what never did.

created = accepted + dropped + lost - recovered + missing         of each run of an emitter that numbers its events
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from logweir.audit.span import EVERYTHING, Span
from logweir.ledger.documents import EMITTER, PartitionId
from logweir.ledger.emitter import Emitter, EmitterState, name_of, not_taken_over
from logweir.ledger.equation import Row
from logweir.ledger.loss import LossClass
from logweir.ledger.tracker import Losses, Tracker, united
from logweir.store.port import Store

TOTALS = ("created", "lost", "recovered", "missing", "dropped")
_UNTIMED = frozenset(
    ("created", "accepted", "dropped", "dropped_by_reason", "recovered", "unexplained", "lost_without_range", "retired")
)
"""What of the second equation has no time: of a span of time it is unknown, except where the span is all there is."""


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
            "dropped_by_reason": tracker.dropped_by_reason,
            "lost": losses.lost,
            "recovered": losses.recovered,
            "missing": losses.missing,
            "unexplained": self.unexplained,
            "jumped": losses.jumped,
            "jumps": [list(pair) for pair in tracker.jumps()],
            "lost_ranges": [list(pair) for pair in self.lost_ranges],
            "lost_without_range": tracker.lost_below - tracker.recovered_below,
            "bye": tracker.bye,
            "previous": tracker.previous,
        }
        return {name: None if name in self.unknown else value for name, value in document.items()}


@dataclass(slots=True)
class EmitterBooks:
    """One emitter.

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
    def loss_class(self) -> LossClass:
        if any(run.tracker.natural for run in self.runs):
            return LossClass.FROM_FIELDS
        return LossClass.EXACT if self.runs or self.retired else LossClass.UNKNOWN

    @property
    def is_in_its_keys_row(self) -> bool:
        """Whether its events came as the key's own, which are counted there: it is only named inside of them."""
        return self.loss_class is LossClass.FROM_FIELDS and self.row == Row()

    @property
    def counts(self) -> dict[str, int | None]:
        """Its line of the first equation; None for what is in its key's."""
        if not self.is_in_its_keys_row:
            return {**self.row.as_json()}
        return {**dict.fromkeys(self.row.as_json()), "accepted": self.total("accepted")}

    def total(self, name: str) -> int | None:
        """Of the second equation, over all runs; None where it is unknown.

        ``lost``, ``recovered``, ``missing``, ``dropped``, ``created``, ``accepted``, ``jumped`` or ``unexplained``.
        """
        if self.loss_class is LossClass.UNKNOWN or name in self.unknown:
            return None
        return sum(_of_run(run, name) for run in self.runs) + _of_retired(self.retired, name)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": name_of(self.emitter),
            "key": self.emitter[0],
            "emitter": self.emitter[1],
            "class": self.loss_class.value,
            "balanced": self.imbalance == 0,
            "imbalance": self.imbalance,
            **self.counts,
            **{name: self.total(name) for name in (*TOTALS, "unexplained", "jumped")},
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


# --- reading ------------------------------------------------------------------------------------------------------
def read_emitters(
    store: Store,
    group: str,
    watermarks: dict[PartitionId, int],
    late_us: int,
    span: Span,
    being_deleted: Collection[str],
) -> dict[Emitter, EmitterBooks]:
    parts: dict[Emitter, list[tuple[int, EmitterState]]] = defaultdict(list)
    for place, document in EMITTER.scan(store.ledger, group):
        if document.id in being_deleted:
            continue
        state = EmitterState.from_body(place, document.body)
        if span.has_emitter(state.emitter) and (span.from_us is None or state.last_us >= span.from_us):
            parts[state.emitter].append((watermarks.get(place.partition_id, 0), state))
    return {emitter: books_of_emitter(emitter, states, late_us, span) for emitter, states in parts.items()}


def books_of_emitter(
    emitter: Emitter, states: Iterable[tuple[int, EmitterState]], late_us: int = 0, span: Span = EVERYTHING
) -> EmitterBooks:
    """Of all its documents, each with the watermark of its partition."""
    books = EmitterBooks(emitter)
    states = list(states)
    counted = {state.place for state in not_taken_over([state for _, state in states])}
    parts: dict[str, list[Tracker]] = defaultdict(list)
    marks: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for watermark_us, state in states:
        books.first_us = min(books.first_us or state.first_us, state.first_us)
        if state.last_us >= books.last_us:
            books.last_us, books.source_address = state.last_us, state.source_address
        for epoch in state.epochs:
            marks[epoch].append((state.place.topic_id, watermark_us))
        if state.place not in counted:
            continue
        for name, count in state.retired.items():
            books.retired[name] = books.retired.get(name, 0) + count
        for epoch, tracker in state.epochs.items():
            parts[epoch].append(tracker)
    for epoch, trackers in parts.items():
        tracker = united(trackers)
        unknown = _UNTIMED if span.is_bounded else frozenset()
        if span.is_bounded and tracker.lost_below > tracker.recovered_below:
            unknown |= {"lost"}
        tracker = _within(tracker, span)
        times = {"watermark_us": _accounted_us(marks[epoch]), "late_us": late_us}
        books.runs.append(Run(tracker, tracker.losses(**times), tracker.lost_ranges(**times), unknown))
        books.unknown |= unknown
    if span.is_bounded and books.retired.get("lost", 0) > books.retired.get("recovered", 0):
        books.unknown |= {"lost"}
    if span.is_bounded and books.retired.get("jumped"):
        books.unknown |= {"jumped"}
    return books


def _accounted_us(marks: Iterable[tuple[str, int]]) -> int:
    """Up to when all partitions of a topic are accounted for: of one topic is enough, they came one after the other."""
    by_topic: dict[str, int] = {}
    for topic_id, watermark_us in marks:
        by_topic[topic_id] = min(watermark_us, by_topic.get(topic_id, watermark_us))
    return max(by_topic.values())


def _within(tracker: Tracker, span: Span) -> Tracker:
    """The tracker with only those of its gaps that showed in the span of time; a copy, unless that is all of them."""
    if not span.is_bounded:
        return tracker
    outside = [gap for gap in tracker.gaps if not span.has_time(gap.since_us)]
    # What was dropped, and what came late, has no time of its own: it explains what is outside first.
    explained = tracker.dropped_count - sum(gap.count for gap in outside) - tracker.lost_below + tracker.recovered_below
    return replace(
        tracker,
        gaps=[gap for gap in tracker.gaps if span.has_time(gap.since_us)],
        dropped={"dropped": explained} if explained > 0 else {},
        dropped_other=0,
        recovered=0,
        lost_below=0,
        recovered_below=0,
        jumped_below=0,
    )
