"""How far a replay has come, and what it has done: a document for each replay, by what it was asked for with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from logweir.clock import iso_seconds
from logweir.ledger.intervals import Intervals, pairs


@dataclass(frozen=True, slots=True)
class OffsetsGone:
    """Offsets that were asked for and are gone from the queue; what it holds was queued at ``since_us`` or later."""

    partition: int
    first: int
    last: int
    since_us: int | None

    def __str__(self) -> str:
        text = (
            f"Partition {self.partition}: offsets {self.first} to {self.last} are gone, the queue's retention took them"
        )
        left = (
            "nothing is left"
            if self.since_us is None
            else f"what is left was queued from {iso_seconds(self.since_us)} on"
        )
        return f"{text}; {left}."


@dataclass(slots=True)
class ReplayCounts:
    """What a replay has found and done, in events."""

    events: int = 0
    """That were asked for."""
    missing: int = 0
    """That should be in the store and were not."""
    changed: int = 0
    """Whose document or outcome is another than before."""
    written: int = 0
    """Documents."""
    undecided: int = 0
    """Whose outcome the ledger has not kept, so that nothing was done."""
    uncounted: int = 0
    """Of which the ledger knows nothing (any more)."""
    expired: int = 0
    """Older than the store keeps events."""
    moved: Counter[str] = field(default_factory=Counter)
    """By outcome before and now."""

    def as_json(self) -> dict[str, Any]:
        return {
            "events": self.events,
            "missing": self.missing,
            "changed": self.changed,
            "written": self.written,
            "undecided": self.undecided,
            "uncounted": self.uncounted,
            "expired": self.expired,
            "moved": dict(self.moved),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ReplayCounts:
        return cls(**{**body, "moved": Counter(body["moved"])})


@dataclass(slots=True)
class ReplayProgress:
    """How far a replay is."""

    topic_id: str
    begun_us: int
    bounds: dict[int, tuple[int, int]]
    """By partition, the first offset and the end."""
    following: dict[int, int]
    """By partition, the next offset to be read."""
    gone: list[OffsetsGone] = field(default_factory=list)
    seen: dict[str, Intervals] = field(default_factory=dict)
    """By stream, which numbers of the partition under way have come by, within limits: what comes again behind them is
    counted twice, and is the same in the store."""
    tally: ReplayCounts = field(default_factory=ReplayCounts)
    selected: dict[str, Any] = field(default_factory=dict)
    rules: str = ""
    """A fingerprint of what documents were made with."""
    is_done: bool = False

    @property
    def records(self) -> int:
        """How many offsets there are."""
        return sum(end - first for first, end in self.bounds.values())

    @property
    def records_read(self) -> int:
        return sum(self.following[partition] - first for partition, (first, _) in self.bounds.items())

    def as_body(self) -> dict[str, Any]:
        return {
            "topic_id": self.topic_id,
            "begun_us": self.begun_us,
            "bounds": [[partition, *pair] for partition, pair in self.bounds.items()],
            "following": [[partition, offset] for partition, offset in self.following.items()],
            "gone": [asdict(one) for one in self.gone],
            "seen": {stream: pairs(numbers) for stream, numbers in self.seen.items()},
            "tally": self.tally.as_json(),
            "selected": self.selected,
            "rules": self.rules,
            "is_done": self.is_done,
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> ReplayProgress:
        return cls(
            topic_id=body["topic_id"],
            begun_us=body["begun_us"],
            bounds={partition: (first, end) for partition, first, end in body["bounds"]},
            following=dict(body["following"]),
            gone=[OffsetsGone(**one) for one in body["gone"]],
            seen={stream: Intervals(ranges) for stream, ranges in body["seen"].items()},
            tally=ReplayCounts.from_json(body["tally"]),
            selected=body["selected"],
            rules=body["rules"],
            is_done=body["is_done"],
        )
