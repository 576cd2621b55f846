"""An emitter's document on one partition: who sends, and a tracker for each run of one that numbers its events.

What an emitter's run is to have sent lies in its tracker (``tracker.py``). In a topic that was made anew, a document
begins with what those of the topics before it said.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from logweir.ledger.cadence import Cadence
from logweir.ledger.documents import EmitterId, PartitionId
from logweir.ledger.source import LastBatch
from logweir.ledger.tracker import Tracker, united

Emitter = tuple[str, str | None]
"""Key name, and the emitter's own name where it sent one."""
RETIRED_NAMES_MAX = 256
"""Runs of an emitter that are no longer tracked, and of which it is known which they were."""


def place_of(emitter: Emitter, partition: PartitionId) -> EmitterId:
    """Where the emitter's document for a partition is."""
    key, name = emitter
    digest = hashlib.blake2b((key + ("\0" if name is None else "\0=" + name)).encode(), digest_size=12).hexdigest()
    return EmitterId(digest, *partition)


@dataclass(slots=True)
class EmitterState:
    """One emitter on one partition."""

    place: EmitterId
    emitter: Emitter
    position: int = 0
    """The offset below which all of it is counted."""
    rewinds: int = 0
    """How often the queue had gone back when that was so."""
    first_us: int = 0
    last_us: int = 0
    source_address: str = ""
    """Of its latest batch."""
    door: str = ""
    """The ingest process that received that."""
    cadence: Cadence = field(default_factory=Cadence)
    """When anything came of it."""
    epochs: OrderedDict[str, Tracker] = field(default_factory=OrderedDict)
    """Its runs, the one that sent last at the end."""
    retired: dict[str, int] = field(default_factory=dict)
    """Sums over the runs that are no longer tracked."""
    retired_names: list[str] = field(default_factory=list)
    """Which those were, the latest RETIRED_NAMES_MAX."""
    taken_over: dict[PartitionId, int] = field(default_factory=dict)
    """Where it took over what its documents of topics gone counted, with the positions those were true for."""

    @property
    def is_numbered(self) -> bool:
        """Whether it numbers its events."""
        return bool(self.epochs or self.retired)

    def has_retired(self, epoch: str) -> bool:
        """Whether the run may be one that is no longer tracked."""
        return epoch in self.retired_names or len(self.retired_names) >= RETIRED_NAMES_MAX

    def begin_with(self, states: Sequence[EmitterState]) -> None:
        """Go on where the emitter's documents of topics that are gone ended."""
        counted = sorted(not_taken_over(states), key=lambda state: state.last_us)
        trackers: dict[str, list[Tracker]] = {}
        for state in counted:
            self.first_us = min(self.first_us or state.first_us, state.first_us)
            self.last_us, self.source_address, self.door = state.last_us, state.source_address, state.door
            self.retired_names = [*self.retired_names, *state.retired_names][-RETIRED_NAMES_MAX:]
            for name, count in state.retired.items():
                self.retired[name] = self.retired.get(name, 0) + count
            for epoch, tracker in state.epochs.items():
                trackers.setdefault(epoch, []).append(tracker)
        self.epochs = OrderedDict((epoch, united(parts)) for epoch, parts in trackers.items())
        self.taken_over = {state.place.partition_id: state.position for state in states}

    def as_body(self) -> dict[str, Any]:
        return {
            "key": self.emitter[0],
            "emitter": self.emitter[1],
            "position": self.position,
            "rewinds": self.rewinds,
            "first_us": self.first_us,
            "last_us": self.last_us,
            "source_address": self.source_address,
            "door": self.door,
            "cadence": self.cadence.as_body(),
            "epochs": [tracker.as_body() for tracker in self.epochs.values()],
            # As text: sums of numbers that senders choose may outgrow what JSON's readers take.
            "retired": {name: str(count) for name, count in self.retired.items()},
            "retired_names": self.retired_names,
            "taken_over": [[*partition, position] for partition, position in self.taken_over.items()],
        }

    @classmethod
    def from_body(cls, place: EmitterId, body: dict[str, Any]) -> EmitterState:
        trackers = [Tracker.from_body(row) for row in body["epochs"]]
        return cls(
            place=place,
            emitter=(body["key"], body["emitter"]),
            position=body["position"],
            rewinds=body["rewinds"],
            first_us=body["first_us"],
            last_us=body["last_us"],
            source_address=body["source_address"],
            door=body["door"],
            cadence=Cadence.from_body(body["cadence"]),
            epochs=OrderedDict((tracker.epoch, tracker) for tracker in trackers),
            retired={name: int(count) for name, count in body["retired"].items()},
            retired_names=body["retired_names"],
            taken_over={
                PartitionId(topic_id, partition): position for topic_id, partition, position in body["taken_over"]
            },
        )


@dataclass(frozen=True, slots=True)
class EmitterActivity:
    """Of an emitter's document, what silence is judged by: all but what of its numbers has come, which is the most."""

    emitter: Emitter
    first_us: int
    last: LastBatch
    cadence: Cadence
    is_numbered: bool
    is_natural: bool
    """Its numbers are the events' own."""
    run_us: int
    """When anything came of its latest run, 0 when there is none."""
    has_ended: bool
    """That run has said goodbye."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> EmitterActivity:
        runs = body["epochs"]
        latest = max(reversed(runs), key=itemgetter("last_us"), default={"last_us": 0, "bye": False})
        return cls(
            emitter=(body["key"], body["emitter"]),
            first_us=body["first_us"],
            last=LastBatch(body["last_us"], body["key"], body["source_address"], body["door"]),
            cadence=Cadence.from_body(body["cadence"]),
            is_numbered=bool(runs or body["retired"]),
            is_natural=any(run["natural"] for run in runs),
            run_us=latest["last_us"],
            has_ended=bool(latest["bye"]),
        )


def not_taken_over(states: Sequence[EmitterState]) -> list[EmitterState]:
    """Of an emitter's documents, those of which another one did not take over what they count."""
    taken_over: dict[PartitionId, int] = {}
    for state in states:
        for partition, position in state.taken_over.items():
            taken_over[partition] = max(position, taken_over.get(partition, 0))
    # One that was written to since counts by itself, too: what came is not missing, whoever saw it.
    return [
        state
        for state in states
        if state.place.partition_id not in taken_over or state.position > taken_over[state.place.partition_id]
    ]


def name_of(emitter: Emitter) -> str:
    """An emitter in one word: its key's name, and its own behind a slash."""
    key, name = emitter
    return key if name is None else f"{key}/{name}"
