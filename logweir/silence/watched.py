"""One emitter or source, and the state that it is judged to be in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from logweir.ledger.expectations import EMITTER, Expectation, Subject
from logweir.ledger.loss import LossClass
from logweir.ledger.source import LastBatch


class State(StrEnum):
    LEARNING = "learning"
    OK = "ok"
    LATE = "late"
    SILENT = "silent"
    RETIRED = "retired"
    MUTED = "muted"


@dataclass(slots=True)
class Watched:
    """One emitter or source. ``expected_s``: the longest usual time between two events; None: not learned yet.

    ``silent_s``: so long nothing came of it while anything came, to the minute; ``unobserved_s``: while nothing did.
    ``last``: the batch that came last.
    """

    subject: Subject
    name: str
    state: State
    first_us: int
    last: LastBatch
    silent_s: int
    unobserved_s: int
    expected_s: float | None
    late_after_s: float
    expectation: Expectation
    loss_class: LossClass | None = None
    """None: of a source."""

    def as_json(self) -> dict[str, Any]:
        kind, one, other = self.subject
        names = {"key": one, "emitter": other} if kind == EMITTER else {"category": one, "hostname": other}
        return {
            "name": self.name,
            **names,
            "state": self.state.value,
            **({"class": self.loss_class.value} if self.loss_class else {}),
            "first_seen_us": self.first_us,
            "last_seen_us": self.last.received_us,
            "silent_s": self.silent_s,
            "unheard_s": self.unobserved_s,
            "expected_s": self.expected_s,
            "fixed": self.expectation.every_s is not None,
            "muted_until_us": self.expectation.muted_until_us,
            "retired_us": self.expectation.retired_us,
            "last_key": self.last.key,
            "source_address": self.last.source_address,
            "door": self.last.door,
        }
