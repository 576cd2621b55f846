"""One minute of one ingest process on one partition: which numbers are settled, what became of them, whose they were.

Once the process's marker has come by, also what that process says it accepted. Old windows are merged to hours
(``hours.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from logweir.ledger.deviations import Deviations
from logweir.ledger.documents import DAY_WINDOWS, HOUR, HOUR_WINDOWS, WINDOW, StreamId, WindowId
from logweir.ledger.emitter import Emitter
from logweir.ledger.intervals import Intervals, pairs
from logweir.ledger.shares import Shares
from logweir.outcomes import Outcome
from logweir.record import OTHERS, Marker, Record

AMENDMENTS_MAX = 100
"""Lines kept of what came behind a window's marker; what comes after is counted in the last of them."""


ROWS_MAX = 5_000
"""Emitters that a window tells apart, and a tenth more of each key; those of a key beyond that are summed up."""


@dataclass(slots=True)
class Counts:
    """Events of one emitter, by what became of them."""

    indexed: int = 0
    duplicate: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    identity_conflicts: int = 0
    """How many of the dead-lettered are."""
    recovered_in_queue: int = 0
    """Events without a number of their emitter's that came after the queue was known to have lost them."""

    @property
    def settled(self) -> int:
        return self.indexed + self.duplicate + self.filtered + self.dead_lettered

    def by_outcome(self) -> dict[str, int]:
        return {
            "indexed": self.indexed,
            "duplicate": self.duplicate,
            "filtered": self.filtered,
            "dead_lettered": self.dead_lettered,
        }

    def add_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        indexed = outcomes.count(Outcome.INDEXED)
        self.indexed += indexed
        if indexed < len(outcomes):
            self.duplicate += outcomes.count(Outcome.DUPLICATE)
            self.filtered += outcomes.count(Outcome.FILTERED)
            self.dead_lettered += outcomes.count(Outcome.DEAD_LETTERED)

    def add(self, other: Counts) -> None:
        self.indexed += other.indexed
        self.duplicate += other.duplicate
        self.filtered += other.filtered
        self.dead_lettered += other.dead_lettered
        self.identity_conflicts += other.identity_conflicts
        self.recovered_in_queue += other.recovered_in_queue

    def as_row(self, emitter: Emitter) -> dict[str, Any]:
        row = {
            "key": emitter[0],
            "emitter": emitter[1],
            "indexed": self.indexed,
            "duplicate": self.duplicate,
            "filtered": self.filtered,
            "dead_lettered": self.dead_lettered,
            "identity_conflicts": self.identity_conflicts,
        }
        if self.recovered_in_queue:  # Seldom anything: a window may have many emitters.
            row["recovered_in_queue"] = self.recovered_in_queue
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Counts:
        return cls(
            row["indexed"],
            row["duplicate"],
            row["filtered"],
            row["dead_lettered"],
            row["identity_conflicts"],
            row.get("recovered_in_queue", 0),
        )


@dataclass(slots=True)
class Promise:
    """What a door says of an emitter's events: answered 2xx, and queued although the sender was refused."""

    accepted: int = 0
    unconfirmed: int = 0


@dataclass(slots=True)
class Promises:
    """A window's marker: all numbers from ``first`` to ``last`` were given out in it."""

    first: int
    last: int
    by_emitter: dict[Emitter, Promise] = field(default_factory=dict)

    def add(self, emitter: Emitter, *, accepted: int, unconfirmed: int) -> None:
        promise = self.by_emitter.setdefault(emitter, Promise())
        promise.accepted += accepted
        promise.unconfirmed += unconfirmed

    def as_body(self) -> dict[str, Any]:
        rows = [
            {"key": key, "emitter": emitter, "accepted": promise.accepted, "unconfirmed": promise.unconfirmed}
            for (key, emitter), promise in self.by_emitter.items()
        ]
        return {"first": self.first, "last": self.last, "accepted": rows}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Promises:
        rows = {(row["key"], row["emitter"]): Promise(row["accepted"], row["unconfirmed"]) for row in body["accepted"]}
        return cls(body["first"], body["last"], rows)


@dataclass(slots=True)
class Amendment:
    """What came behind the marker at ``offset``: of the numbers ``first`` to ``last``, ``count`` were new."""

    offset: int
    first: int
    last: int
    count: int


@dataclass(slots=True)
class Window:
    """What is known of one window on one partition, or of an hour of them."""

    place: WindowId
    position: int = 0
    """The next offset behind the last record counted."""
    rewinds: int = 0
    """How often the queue had gone back when that was so."""
    begin: int = -1
    """The offset of what came last of the process before anything of the window did, -1 when nothing had."""
    numbers: Intervals = field(default_factory=Intervals)
    outcomes: dict[Emitter, Counts] = field(default_factory=dict)
    marker: Promises | None = None
    voids: Intervals = field(default_factory=Intervals)
    amendments: list[Amendment] = field(default_factory=list)
    deviations: Deviations = field(default_factory=Deviations)
    received_day: int | None = None
    """The earliest day (since 1970) that an event of it is kept under, where that is before the window's own."""
    minutes: list[tuple[int, int, int]] = field(default_factory=list)
    """Of an hour of merged windows, each one's minute, first and last number; empty for a window by itself."""
    rows: Shares | None = None
    """How many emitters it tells apart; None until one is added."""
    parts: list[WindowId] = field(default_factory=list)
    """Where topics made in each other's place each have a part of it: all of these, in the order of their joining."""

    @property
    def ingest_epoch(self) -> str:
        return self.place.ingest_epoch

    @property
    def window(self) -> int:
        return self.place.window

    @property
    def stream(self) -> StreamId:
        return self.place.stream

    @property
    def closed(self) -> bool:
        """The process has said that nothing of this window comes after."""
        return self.marker is not None

    @property
    def windows(self) -> list[int]:
        """Itself, or those that are merged in it."""
        return [minute for minute, _, _ in self.minutes] or [self.place.window]

    @property
    def given(self) -> list[tuple[int, int]]:
        """The numbers that its process has given out in it, as far as its marker has told them."""
        if self.minutes:
            return [(first, last) for _, first, last in self.minutes]
        return [(self.marker.first, self.marker.last)] if self.marker else []

    @property
    def places(self) -> list[WindowId]:
        """Its own, with all topics that have a part of it; or those of the windows that are merged in it."""
        if self.minutes:
            return [self.place._replace(window=minute) for minute, _, _ in self.minutes]
        return self.parts or [self.place]

    @property
    def stage(self) -> tuple[int, int]:
        """Differs as soon as anything is added to it: see ``stage_of``."""
        return self.position, len(self.minutes)

    def ids(self, group: str) -> list[str]:
        """Of its documents."""
        if self.minutes:
            return [HOUR.id(group, self.place.hour)]
        return [WINDOW.id(group, place) for place in self.places]

    def note_received(self, day: int) -> None:
        """An event of it is kept under that day: a clock that was set back left the window as it was."""
        # As days of ingest processes are counted: from 01:00 on (``logweir.audit.stored``).
        if day < (self.window - HOUR_WINDOWS) // DAY_WINDOWS:
            self.received_day = min(day, self.received_day if self.received_day is not None else day)

    def counts_of(self, emitter: Emitter) -> Counts:
        """Where the emitter's events are to be counted: in its own row, or in that of its key's others."""
        counts = self.outcomes.get(emitter)
        if counts is not None:
            return counts
        if self.rows is None:
            by_key = Counter(key for key, _ in self.outcomes)
            self.rows = Shares(ROWS_MAX, count=len(self.outcomes), by_key=by_key)
        key, name = emitter
        if name is not None and not self.rows.has_room(key):
            return self.outcomes.setdefault((key, OTHERS), Counts())
        self.rows.take(key)
        counts = self.outcomes[emitter] = Counts()
        return counts

    def matched(self) -> tuple[Mapping[Emitter, Counts], Mapping[Emitter, Promise]]:
        """What became of events, and what its process says of them, by emitter as both sides can tell them apart.

        Of a key of which either side has summed up emitters, those are told apart on which the two agree: who had a
        row of its own on one side only is in the other's sum.
        """
        promises = self.marker.by_emitter if self.marker else {}
        summed = {key for key, name in (*self.outcomes, *promises) if name == OTHERS}
        if not summed or self.marker is None:
            return self.outcomes, promises

        def row_of(emitter: Emitter) -> Emitter:
            key, name = emitter
            if key not in summed or name is None:
                return emitter
            counts, promise = self.outcomes.get(emitter), promises.get(emitter)
            agree = counts and promise and counts.settled == promise.accepted + promise.unconfirmed
            return emitter if agree else (key, OTHERS)

        outcomes: dict[Emitter, Counts] = {}
        for emitter, counts in self.outcomes.items():
            outcomes.setdefault(row_of(emitter), Counts()).add(counts)
        said = Promises(self.marker.first, self.marker.last)
        for emitter, promise in promises.items():
            said.add(row_of(emitter), accepted=promise.accepted, unconfirmed=promise.unconfirmed)
        return outcomes, said.by_emitter

    def close(self, record: Record, marker: Marker) -> None:
        """The process's word has come: the record's ``marker``."""
        self.marker = Promises(record.first, record.last)
        for row in marker.accepted:
            self.marker.add((row.key, row.emitter), accepted=row.accepted, unconfirmed=row.unconfirmed)

    def amend(self, offset: int, first: int, last: int, count: int) -> None:
        """Note what came behind the marker."""
        if len(self.amendments) < AMENDMENTS_MAX:
            self.amendments.append(Amendment(offset, first, last, count))
        else:
            line = self.amendments[-1]
            line.first, line.last, line.count = min(first, line.first), max(last, line.last), line.count + count

    def as_body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "ingest_epoch": self.place.ingest_epoch,
            "window": self.place.window,
            "position": self.position,
            "rewinds": self.rewinds,
            "begin": self.begin,
            "numbers": pairs(self.numbers),
            "outcomes": [counts.as_row(emitter) for emitter, counts in self.outcomes.items()],
            "marker": self.marker and self.marker.as_body(),
            "voids": pairs(self.voids),
            "amendments": [asdict(line) for line in self.amendments],
            "deviations": self.deviations.as_body(),
            "closed": self.closed,
        }
        if self.received_day is not None:
            body["received_day"] = self.received_day
        return {**body, "minutes": self.minutes} if self.minutes else body

    @classmethod
    def from_body(cls, place: WindowId, body: Mapping[str, Any]) -> Window:
        marker = body["marker"]
        return cls(
            place,
            position=body["position"],
            rewinds=body["rewinds"],
            begin=body["begin"],
            numbers=Intervals(body["numbers"]),
            outcomes={(row["key"], row["emitter"]): Counts.from_row(row) for row in body["outcomes"]},
            marker=None if marker is None else Promises.from_body(marker),
            voids=Intervals(body["voids"]),
            amendments=[Amendment(**line) for line in body["amendments"]],
            deviations=Deviations.from_body(body["deviations"]),
            received_day=body.get("received_day"),
            minutes=[(minute, first, last) for minute, first, last in body.get("minutes", ())],
        )


def stage_of(body: Mapping[str, Any]) -> tuple[int, int]:
    """``Window.stage`` of a body, without reading the rest of it."""
    return body["position"], len(body.get("minutes", ()))
