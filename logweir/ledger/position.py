"""Positions: how far each partition is accounted for, and each ingest process's numbers on it; also of topics gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logweir.clock import WINDOW_US, window_of
from logweir.ledger.checkpoints import Checkpoints
from logweir.ledger.documents import POSITION, PartitionId
from logweir.ledger.intervals import Intervals, pairs
from logweir.ledger.pending import PendingNumbers
from logweir.store.port import Store

STREAM_MINUTES_MAX = 7 * 24 * 60
"""A process that sent nothing for so long, while others did, is forgotten."""
LEFT_BEHIND = -2
"""``Stream.offset`` of a process that was sending when its topic went, and has not gone on in the one made anew."""
QUIET_US = 120_000_000
"""Who was not heard of for so long, while all was read, had ended: a canary comes sooner."""


@dataclass(slots=True)
class Stream:
    """How far one ingest process's numbers have come by: ``last`` of them, in the record at ``offset``."""

    last: int = 0
    offset: int = -1
    window: int = 0
    """The latest that anything came of."""
    pending: PendingNumbers = field(default_factory=PendingNumbers)


class EndedProcess(NamedTuple):
    """What was said at ``offset`` of a process that has ended: by whom, and when."""

    offset: int
    by: str
    said_us: int


class LastCanary(NamedTuple):
    """The latest canary of an ingest process: its number, and when it was sent."""

    number: int
    sent_us: int


@dataclass(slots=True)
class Position:
    """One partition. It is written last, so it is never ahead of its windows and emitters."""

    next_offset: int | None = None
    """Everything below is accounted for; None when nothing was read yet."""
    begun: int = 0
    """The offset at which these books begin: what was in the queue before was gone when they did."""
    watermark_us: int = 0
    """Up to when everything that was received is accounted for."""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    """What stood at some offsets below."""
    due_us: int = 0
    """When all that is missing now will be lost: as far as that the watermark follows the clock."""
    audited_until: int = 0
    """The store has been asked about the windows up to that one; 0 before the first one came."""
    rewinds: list[int] = field(default_factory=list)
    """The offsets to which the queue went back, as often as it did."""
    rewinds_before: int = 0
    """How many more there were."""
    expired: Intervals = field(default_factory=Intervals)
    """Offsets that were gone from the queue before they were read."""
    expired_before: int = 0
    """How many more there were."""
    unreadable: Intervals = field(default_factory=Intervals)
    """Offsets of records that could not be read."""
    streams: dict[str, Stream] = field(default_factory=dict)
    """By ingest epoch."""
    lost: dict[str, Intervals] = field(default_factory=dict)
    """By ingest epoch, the numbers that the queue lost."""
    lost_before: int = 0
    """How many more there were."""
    unseen_since: dict[str, int] = field(default_factory=dict)
    """By ingest epoch, since which expired offset nothing came of it: what it sent in there is not known."""
    ended: dict[str, EndedProcess] = field(default_factory=dict)
    """By ingest epoch, which have ended and whose books have not."""
    canaries: dict[str, LastCanary] = field(default_factory=dict)
    """By ingest epoch."""
    emitters: int = 0
    """How many emitters have a document."""
    emitters_by_key: dict[str, int] = field(default_factory=dict)
    """How many of them each key has, as far as that was counted."""
    emitters_untracked: int = 0
    """How many batches came of emitters for which there was no room."""
    sources: int = 0
    sources_by_key: dict[str, int] = field(default_factory=dict)
    sources_untracked: int = 0

    @property
    def latest_window(self) -> int:
        """The latest window that anything came of, 0 when nothing has."""
        return max((stream.window for stream in self.streams.values()), default=0)

    @property
    def rewind_count(self) -> int:
        """How often the queue has gone back."""
        return self.rewinds_before + len(self.rewinds)

    def true_for(self, position: int, rewinds: int) -> int:
        """The offset below which a document is true now that was written for ``position``, after so many rewinds."""
        return min([position, *self.rewinds[max(0, rewinds - self.rewinds_before) :]])

    def inherit(
        self, before: Mapping[PartitionId, Position], partition: int, caught_up: Mapping[PartitionId, int]
    ) -> None:
        """Go on where the partition was in the topic that a new one takes the place of.

        ``caught_up``: the minute up to which each was accounted for. What was sent behind that, nobody knows here.
        """
        former = {place: position for place, position in before.items() if place.partition == partition}
        place = max(former, key=lambda place: how_far(former[place]), default=None)
        last = Position() if place is None else former[place]
        self.streams = {
            epoch: Stream(stream.last, min(stream.offset, -1), stream.window, stream.pending)
            for epoch, stream in last.streams.items()
        }
        # Where nothing comes in the new topic, what is pending is lost all the same when it is due.
        self.due_us = last.due_us
        self.audited_until = self.audited_until or self.latest_window
        for epoch, heard_us in (still_sending(before, place, caught_up) if place is not None else {}).items():
            self.streams.setdefault(epoch, Stream(window=window_of(heard_us))).offset = LEFT_BEHIND
        # What was lost by the watermark of a topic before this one stays lost.
        self.watermark_us = max([self.watermark_us, *(position.watermark_us for position in before.values())])

    def as_body(self) -> dict[str, Any]:
        return {
            "next_offset": self.next_offset,
            "begun": self.begun,
            "watermark_us": self.watermark_us,
            "checkpoints": self.checkpoints.as_rows(),
            "due_us": self.due_us,
            "audited_until": self.audited_until,
            "rewinds_before": self.rewinds_before,
            "rewinds": self.rewinds,
            "expired": pairs(self.expired),
            "expired_before": self.expired_before,
            "unreadable": pairs(self.unreadable),
            "streams": {epoch: [stream.last, stream.offset, stream.window] for epoch, stream in self.streams.items()},
            "pending": {epoch: rows for epoch, stream in self.streams.items() if (rows := stream.pending.as_body())},
            "lost": {epoch: pairs(ranges) for epoch, ranges in self.lost.items()},
            "lost_before": self.lost_before,
            "unseen_since": self.unseen_since,
            "ended": {epoch: list(ended) for epoch, ended in self.ended.items()},
            "canaries": {epoch: list(canary) for epoch, canary in self.canaries.items()},
            "emitters": self.emitters,
            "emitters_by_key": self.emitters_by_key,
            "emitters_untracked": self.emitters_untracked,
            "sources": self.sources,
            "sources_by_key": self.sources_by_key,
            "sources_untracked": self.sources_untracked,
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Position:
        pending = body["pending"]
        return cls(
            next_offset=body["next_offset"],
            begun=body.get("begun", 0),
            watermark_us=body["watermark_us"],
            checkpoints=Checkpoints(body.get("checkpoints", [])),
            due_us=body["due_us"],
            audited_until=body["audited_until"],
            rewinds=list(body["rewinds"]),
            rewinds_before=body["rewinds_before"],
            expired=Intervals(body["expired"]),
            expired_before=body["expired_before"],
            unreadable=Intervals(body["unreadable"]),
            streams={
                epoch: Stream(last, offset, window, PendingNumbers.from_body(pending.get(epoch, ())))
                for epoch, (last, offset, window) in body["streams"].items()
            },
            lost={epoch: Intervals(ranges) for epoch, ranges in body["lost"].items()},
            lost_before=body["lost_before"],
            unseen_since=dict(body["unseen_since"]),
            ended={epoch: EndedProcess(*row) for epoch, row in body["ended"].items()},
            canaries={epoch: LastCanary(*row) for epoch, row in body["canaries"].items()},
            emitters=body["emitters"],
            emitters_by_key=dict(body.get("emitters_by_key", {})),
            emitters_untracked=body["emitters_untracked"],
            sources=body["sources"],
            sources_by_key=dict(body.get("sources_by_key", {})),
            sources_untracked=body["sources_untracked"],
        )


def how_far(position: Position) -> tuple[int, int, int]:
    """Grows from a topic to the one made in its place: an empty one, or one with old records, has the same time."""
    left = sum(stream.offset == LEFT_BEHIND for stream in position.streams.values())
    return position.watermark_us, sum(stream.last for stream in position.streams.values()), left


def still_sending(
    positions: Mapping[PartitionId, Position], place: PartitionId, caught_up: Mapping[PartitionId, int]
) -> dict[str, int]:
    """Ingest processes that may have sent more to a partition than was read there, and when each was heard of last.

    Those that were heard of, on any partition of the topic, shortly before all was read for the last time.
    """
    heard: dict[str, int] = {}
    for other, position in positions.items():
        if other.topic_id == place.topic_id:
            for epoch, stream in position.streams.items():
                heard[epoch] = max(heard.get(epoch, 0), stream.window * WINDOW_US)
            for epoch, canary in position.canaries.items():
                heard[epoch] = max(heard.get(epoch, 0), canary.sent_us)
    since_us = caught_up.get(place, 0) * WINDOW_US - QUIET_US
    return {epoch: heard_us for epoch, heard_us in heard.items() if heard_us >= since_us}


def read_positions(store: Store, group: str) -> dict[PartitionId, Position]:
    """All positions, also of topics that are gone. Raises LogweirError(STORE_DOWN)."""
    return {place: Position.from_body(document.body) for place, document in POSITION.scan(store.ledger, group)}


def read_offsets(store: Store, group: str, places: Iterable[PartitionId]) -> dict[PartitionId, int]:
    """The offset below which all is accounted for, of those partitions that were ever claimed.

    Raises LogweirError(STORE_DOWN).
    """
    found = POSITION.read(store.ledger, group, places)
    return {place: Position.from_body(document.body).next_offset or 0 for place, document in found.items()}
