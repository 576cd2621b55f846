"""One minute of one ingest process on one partition: which numbers are settled, what became of them, whose they were.

Once the process's marker has come by, also what that process says it accepted. Old windows are merged to hours
(``hours.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from logweir.ledger.emitter import Emitter
from logweir.ledger.exceptions import Exceptions
from logweir.ledger.intervals import Intervals
from logweir.ledger.tracker import pairs
from logweir.outcomes import DeadLetterReason, Outcome
from logweir.record import Marker, Record
from logweir.store.port import Store

CONFLICTS = "identity_conflicts"
"""How many of the dead letters are identity conflicts, beside the four outcomes."""
_OUTCOMES = tuple(Outcome)
RECOVERED = "recovered_in_queue"
"""How many events without a number of their emitter's came after the queue was known to have lost them."""
_NAMES = (*(outcome.value for outcome in Outcome), CONFLICTS, RECOVERED)
AMENDMENTS_MAX = 100
"""Lines kept of what came behind a window's marker; what comes after is counted in the last of them."""


@dataclass(slots=True)
class Window:
    """What is known of one window on one partition. ``position``: the next offset behind the last record counted.

    ``begin``: the offset of what came last of the process before anything of the window did, -1 when nothing had.
    ``amendments``: what came behind the marker, a line each: offset, first, last and how many numbers were new.
    ``parts``: ids of those that it was joined with, as topics had parts of it that were made in each other's place.
    ``minutes``: of an hour of merged windows, each one's minute, first and last number; empty for a window by itself.
    """

    id: str
    ingest_epoch: str
    window: int
    position: int = 0
    begin: int = -1
    numbers: Intervals = field(default_factory=Intervals)
    outcomes: dict[Emitter, list[int]] = field(default_factory=dict)
    marker: dict[str, Any] | None = None
    voids: Intervals = field(default_factory=Intervals)
    amendments: list[dict[str, int]] = field(default_factory=list)
    exceptions: Exceptions = field(default_factory=Exceptions)
    minutes: list[tuple[int, int, int]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    dirty: bool = False

    @property
    def closed(self) -> bool:
        """The process has said that nothing of this window comes after."""
        return self.marker is not None

    @property
    def windows(self) -> list[int]:
        """Itself, or those that are merged in it."""
        return [minute for minute, _, _ in self.minutes] or [self.window]

    @property
    def given(self) -> list[tuple[int, int]]:
        """The numbers that its process has given out in it, as far as its marker has told them."""
        if self.minutes:
            return [(first, last) for _, first, last in self.minutes]
        return [(self.marker["first"], self.marker["last"])] if self.marker else []

    def count(self, emitter: Emitter, outcomes: Sequence[Outcome], conflicts: int, recovered: int) -> None:
        counts = self.outcomes.setdefault(emitter, [0] * len(_NAMES))
        indexed = outcomes.count(Outcome.INDEXED)
        counts[0] += indexed
        if indexed < len(outcomes):
            for at, outcome in enumerate(_OUTCOMES[1:], 1):
                counts[at] += outcomes.count(outcome)
            counts[-2] += conflicts
        counts[-1] += recovered

    def count_record(
        self,
        record: Record,
        ranges: Sequence[tuple[int, int]],
        outcomes: Sequence[Outcome],
        reasons: Mapping[int, str],
        lost: Intervals,
    ) -> None:
        """Count those of the record's events whose numbers are in ``ranges``.

        ``reasons``: as ``PartitionLedger.settle`` takes them. ``lost``: what the queue was to have lost.
        """
        conflicts = [place for place, reason in reasons.items() if reason == DeadLetterReason.IDENTITY_CONFLICT]
        place = 0
        for batch in record.batches:
            end = place + len(batch.events)
            for first, last in ranges:
                low, high = max(place, first - record.first), min(end, last - record.first + 1)
                if low < high:
                    conflicting = sum(low <= conflict < high for conflict in conflicts) if conflicts else 0
                    # What is lost and recovered of those that have an emitter's number, that emitter's runs say.
                    numbers = record.first + low, record.first + high - 1
                    bare = lost.within(*numbers) if batch.sequence_first is None else ()
                    recovered = sum(end - start + 1 for start, end in bare)
                    self.count((batch.key, batch.emitter), outcomes[low:high], conflicting, recovered)
            place = end

    def close(self, record: Record, marker: Marker) -> None:
        """The process's word has come: the record's ``marker``."""
        self.marker = {
            "first": record.first,
            "last": record.last,
            "accepted": [
                {"key": row.key, "emitter": row.emitter, "accepted": row.accepted, "unconfirmed": row.unconfirmed}
                for row in marker.accepted
            ],
        }

    def amend(self, offset: int, first: int, last: int, count: int) -> None:
        """Note what came behind the marker."""
        if len(self.amendments) < AMENDMENTS_MAX:
            self.amendments.append({"offset": offset, "first": first, "last": last, "count": count})
        else:
            line = self.amendments[-1]
            line.update(first=min(first, line["first"]), last=max(last, line["last"]), count=line["count"] + count)

    def as_body(self) -> dict[str, Any]:
        return {
            "kind": "window",
            "ingest_epoch": self.ingest_epoch,
            "window": self.window,
            "position": self.position,
            "begin": self.begin,
            "numbers": pairs(self.numbers),
            "outcomes": [
                {"key": key, "emitter": emitter, **_named(counts)} for (key, emitter), counts in self.outcomes.items()
            ],
            "marker": self.marker,
            "voids": pairs(self.voids),
            "amendments": self.amendments,
            "exceptions": self.exceptions.as_body(),
            "closed": self.closed,
        }

    @classmethod
    def from_body(cls, id: str, body: dict[str, Any]) -> Window:
        return cls(
            id=id,
            ingest_epoch=body["ingest_epoch"],
            window=body["window"],
            position=body["position"],
            begin=body.get("begin", -1),
            numbers=Intervals(body["numbers"]),
            outcomes={(row["key"], row["emitter"]): [row.get(name, 0) for name in _NAMES] for row in body["outcomes"]},
            marker=body["marker"],
            voids=Intervals(body["voids"]),
            amendments=body.get("amendments", []),
            exceptions=Exceptions.from_body(body.get("exceptions", {})),
        )


def _named(counts: Sequence[int]) -> dict[str, int]:
    """By name; the last of them is seldom anything, and left out where it is not."""
    return dict(zip(_NAMES, counts if counts[-1] else counts[:-1], strict=False))


def window_id(group: str, topic_id: str, partition: int, ingest_epoch: bytes, window: int) -> str:
    return f"window:{group}:{topic_id}:{partition}:{ingest_epoch.hex()}:{window}"


HOUR_WINDOWS = 60


def hour_id(group: str, topic_id: str, partition: int, ingest_epoch: bytes, window: int) -> str:
    """The id of the document that has the window when it is merged into its hour."""
    return f"hour:{group}:{topic_id}:{partition}:{ingest_epoch.hex()}:{window // HOUR_WINDOWS}"


def window_place(id: str, prefix: str) -> tuple[str, int, str, int]:
    """Topic id, partition, ingest epoch and window of an id that is built as ``window_id`` behind ``prefix``."""
    topic_id, partition, epoch, window = id.removeprefix(prefix).rsplit(":", 3)
    return topic_id, int(partition), epoch, int(window)


def window_of_hour(id: str, body: Mapping[str, Any], window: int) -> Window | None:
    """One window of an hour, None when it is not merged in it: complete, so that every record of it came before.

    Whose events they were is only kept for the hour: the outcomes are of nobody.
    """
    found = [(first, last) for minute, first, last in body["minutes"] if minute == window]
    if not found:
        return None
    ((first, last),) = found
    exceptions = Exceptions.from_body(body["exceptions"]).cut(first, last)
    counts = dict.fromkeys(_OUTCOMES, 0)
    counts[Outcome.INDEXED] = last - first + 1
    for (outcome, _), ranges in exceptions.within(first, last):
        count = sum(high - low + 1 for low, high in ranges)
        counts[outcome] += count
        counts[Outcome.INDEXED] -= count
    marker = {"first": first, "last": last, "accepted": []}
    outcomes: dict[Emitter, list[int]] = {("", None): [*counts.values(), 0, 0]}
    return Window(
        id,
        body["ingest_epoch"],
        window,
        numbers=Intervals([(first, last)]),
        outcomes=outcomes,
        marker=marker,
        exceptions=exceptions,
        minutes=[(window, first, last)],
    )


def read_window(
    store: Store, group: str, topic_id: str, partition: int, ingest_epoch: str, window: int
) -> Window | None:
    """The window as the ledger has it, by itself or in its hour. Raises LogweirError(STORE_DOWN)."""
    place = group, topic_id, partition, bytes.fromhex(ingest_epoch), window
    id, of_hour = window_id(*place), hour_id(*place)
    # The window first: when it is deleted already, its hour has it.
    found = store.ledger.read([id, of_hour])
    merged = window_of_hour(id, found[of_hour].body, window) if of_hour in found else None
    return merged or (Window.from_body(id, found[id].body) if id in found else None)
