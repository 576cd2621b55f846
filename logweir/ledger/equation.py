"""One line of the first equation: what was accepted, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logweir.outcomes import Outcome

OUTCOMES = tuple(outcome.value for outcome in Outcome)


@dataclass(slots=True)
class Row:
    """One line of the first equation: of a window, of an emitter, or of everything. Counts of events.

    ``unconfirmed``: numbered by a door and not acknowledged to the sender, as far as is known. ``undecided``: those of
    them that never came, and never will be spoken of, because their process is gone (or they wait in its spool).
    ``void``: what of them a person has declared never to come (``logweir audit close``).
    ``recovered_in_queue``: events that came after the queue was known to have lost them, or were void after all; of an
    emitter, those of them without a number of its own. They are no part of the equation.
    """

    accepted: int = 0
    unconfirmed: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    identity_conflicts: int = 0
    in_flight: int = 0
    lost_in_queue: int = 0
    undecided: int = 0
    void: int = 0
    recovered_in_queue: int = 0

    @property
    def settled(self) -> int:
        return sum(self.outcomes.values())

    @property
    def unexplained(self) -> int:
        """By how much the two sides differ."""
        awaited = self.in_flight + self.lost_in_queue + self.undecided + self.void
        return self.accepted + self.unconfirmed - self.settled - awaited

    def add(self, other: Row) -> None:
        self.accepted += other.accepted
        self.unconfirmed += other.unconfirmed
        for name, count in other.outcomes.items():
            self.outcomes[name] += count
        self.identity_conflicts += other.identity_conflicts
        self.in_flight += other.in_flight
        self.lost_in_queue += other.lost_in_queue
        self.undecided += other.undecided
        self.void += other.void
        self.recovered_in_queue += other.recovered_in_queue

    def as_json(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "unconfirmed": self.unconfirmed,
            **self.outcomes,
            "identity_conflicts": self.identity_conflicts,
            "in_flight": self.in_flight,
            "lost_in_queue": self.lost_in_queue,
            "undecided": self.undecided,
            "void": self.void,
            "recovered_in_queue": self.recovered_in_queue,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, int]) -> Row:
        values = {name: body[name] for name in _COUNTS}
        return cls(outcomes={name: body[name] for name in OUTCOMES}, **values)


_COUNTS = (
    "accepted",
    "unconfirmed",
    "identity_conflicts",
    "in_flight",
    "lost_in_queue",
    "undecided",
    "void",
    "recovered_in_queue",
)
