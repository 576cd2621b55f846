"""What is older than ``accounting.retention_days``, carried forward as sums, so that no total falls when it is deleted.

One document for each partition's number, whatever topic it was of. It is written before what it is the sum of is
deleted, and names that (``being_deleted``) until it is: of these documents nobody reads anything any more. So each of
them counts once, whenever whoever deletes them is killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logweir.ledger.documents import CARRIED_FORWARD, StreamId
from logweir.ledger.emitter import Emitter
from logweir.ledger.equation import Row
from logweir.ledger.loss import UNATTRIBUTED, LossClass
from logweir.store.port import Store

STREAMS_MAX = 10_000
"""Ingest processes whose boundary is known, on one partition; of the others, those that sent last are kept."""
OF_QUEUE_MAX = 1000
"""Emitters of which it is known what the queue lost; of others, it is among the sums of their class at once."""


@dataclass(slots=True)
class CarriedForward:
    """Sums of what was deleted. Counts of events."""

    before: int = 0
    """Minutes before that one are in it, 0 when there are none."""
    row: Row = field(default_factory=Row)
    """Of the first equation, as the events had come to be then."""
    corrections: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many of those replays and retries had moved, by outcome before and after."""
    numbered: dict[str, Counter[str]] = field(default_factory=dict)
    """By class: created, lost, recovered and dropped of runs."""
    of_queue: Counter[Emitter] = field(default_factory=Counter)
    """What the row has as lost in the queue, of emitters that are known still."""
    lost_in_queue: Counter[str] = field(default_factory=Counter)
    """What it has as lost in the queue of all others, by class."""
    outside_windows: int = 0
    """What of those, and of ``row.accepted``, is of no window."""
    unshown: Counter[str] = field(default_factory=Counter)
    """By class, how many more were lost than ``numbered`` shows: the queue lost them, and no number of theirs says so;
    less what ``of_queue`` says of another emitter of the key."""
    recovered: int = 0
    """Of emitters that do not number them, events that came after the queue had lost them."""
    streams: dict[StreamId, int] = field(default_factory=dict)
    """The first number that is not in it."""
    being_deleted: dict[str, int] = field(default_factory=dict)
    """Documents that are in it and may still be there: their generations, by id."""
    edition: dict[int, int] = field(default_factory=dict)
    """How often it was written, by partition."""

    def add(self, other: CarriedForward) -> None:
        """Add another one's sums; boundaries move on to the other's. What is being deleted is not part of the sums."""
        self.before = max(self.before, other.before)
        self.row.add(other.row)
        self.corrections.update(other.corrections)
        for loss_class, counts in other.numbered.items():
            self.numbered.setdefault(loss_class, Counter()).update(counts)
        self.of_queue.update(other.of_queue)
        self.lost_in_queue.update(other.lost_in_queue)
        self.outside_windows += other.outside_windows
        self.unshown.update(other.unshown)
        self.recovered += other.recovered
        for stream, number in other.streams.items():
            self.streams.pop(stream, None)
            self.streams[stream] = number

    def correct(self, from_outcome: str, to_outcome: str, count: int) -> None:
        """Of the events in here, so many had the one outcome and have the other now."""
        self.row.outcomes[from_outcome] -= count
        self.row.outcomes[to_outcome] += count

    def lost_before(self, loss_class: str) -> int:
        """What emitters of that class that were deleted had lost before the queue."""
        of_runs = self.numbered[loss_class]["lost"] if loss_class in self.numbered else 0
        return of_runs + self.unshown[loss_class] - self.lost_in_queue[loss_class]

    @property
    def all_lost_before(self) -> int:
        """Of all classes that number their events."""
        classes = self.numbered.keys() | self.unshown.keys() | self.lost_in_queue.keys()
        return sum(map(self.lost_before, classes - {LossClass.UNKNOWN, UNATTRIBUTED}))

    def total(self, name: str) -> int:
        """Of the second equation, over all classes; with what the queue lost of nobody that numbers."""
        shown = self.all_lost_before
        of_nobody = max(0, self.lost_in_queue[UNATTRIBUTED] - max(0, shown))
        lost = self.lost_in_queue[LossClass.UNKNOWN] + self.unshown.total() + max(0, -shown) + of_nobody
        extra = {"lost": lost + self.recovered, "recovered": self.recovered}.get(name, 0)
        return extra + sum(counts[name] for counts in self.numbered.values())

    def as_body(self, partition: int) -> dict[str, Any]:
        streams = list(self.streams.items())[-STREAMS_MAX:]
        return {
            "before": self.before,
            "row": self.row.as_json(),
            "corrections": [[*pair, count] for pair, count in self.corrections.items()],
            # As text: sums of numbers that senders choose may outgrow what JSON's readers take.
            "numbered": {
                str(loss_class): {name: str(count) for name, count in counts.items()}
                for loss_class, counts in self.numbered.items()
            },
            "of_queue": [[*emitter, count] for emitter, count in self.of_queue.items() if count],
            "lost_in_queue": {str(loss_class): count for loss_class, count in self.lost_in_queue.items()},
            "outside_windows": self.outside_windows,
            "unshown": {str(loss_class): count for loss_class, count in self.unshown.items()},
            "recovered": self.recovered,
            "streams": [[epoch, number] for (epoch, _), number in streams],
            "being_deleted": self.being_deleted,
            "edition": self.edition[partition],
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any], partition: int) -> CarriedForward:
        return cls(
            before=body["before"],
            row=Row.from_json(body["row"]),
            corrections=Counter({(one, other): count for one, other, count in body["corrections"]}),
            numbered={
                loss_class: Counter({name: int(count) for name, count in counts.items()})
                for loss_class, counts in body["numbered"].items()
            },
            of_queue=Counter({(key, emitter): count for key, emitter, count in body["of_queue"]}),
            lost_in_queue=Counter(body["lost_in_queue"]),
            outside_windows=body["outside_windows"],
            unshown=Counter(body["unshown"]),
            recovered=body["recovered"],
            streams={StreamId(epoch, partition): number for epoch, number in body["streams"]},
            being_deleted=dict(body["being_deleted"]),
            edition={partition: body["edition"]},
        )


def read_carried_forward(store: Store, group: str) -> CarriedForward:
    """Of all partitions together. Raises LogweirError(STORE_DOWN)."""
    whole = CarriedForward()
    for place, document in CARRIED_FORWARD.scan(store.ledger, group):
        one = CarriedForward.from_body(document.body, place.partition)
        whole.add(one)
        whole.being_deleted |= one.being_deleted
        whole.edition |= one.edition
    return whole
