"""A record, and what became of it: what the ledgers of a partition count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from logweir.ledger.source import Source
from logweir.outcomes import Outcome
from logweir.record import Batch, Record


@dataclass(frozen=True, slots=True)
class SettledRecord:
    """A record of which everything is durable."""

    record: Record
    offset: int
    outcomes: Sequence[Outcome] = ()
    """One for each of its events."""
    reasons: Mapping[int, str] = field(default_factory=dict)
    """Why the outcome is not another one, by the event's place in the record; of dead letters, all."""
    natural: Sequence[Batch] = ()
    """Runs of its events as the emitters and the numbers that the events themselves name."""
    sources: Mapping[Source, Batch] = field(default_factory=dict)
    """Whom its events are of, each with a batch that it is in."""

    @property
    def ingest_epoch(self) -> str:
        """In hexadecimal digits, as the ledger has it."""
        return self.record.ingest_epoch.hex()
