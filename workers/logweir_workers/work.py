"""One record on its way through the pipeline (``pipeline.py``)."""

from __future__ import annotations

from dataclasses import dataclass, field

from logweir.event import Document
from logweir.ledger.source import Source
from logweir.outcomes import Outcome
from logweir.queue.port import Delivery
from logweir.record import Batch, Record
from logweir.store.port import DeadLetter
from logweir_workers.accounting.partition import PartitionLedger


@dataclass(frozen=True, slots=True)
class Retry:
    """An event that came first on another ``day`` (empty: long ago), or is on its way from there."""

    id: str
    day: str
    content_hash: str


@dataclass(slots=True)
class Work:
    """One record on its way, or a hole, which goes the way of records, to be counted behind those before it.

    What is kept by event is kept by its place in the record: most records need little of it.
    """

    delivery: Delivery
    ledger: PartitionLedger
    record: Record | None
    """None for one that cannot be read, and for a hole."""
    size_bytes: int = 0
    expired: tuple[int, int] | None = None
    """Of a hole, the offsets, first and last, that were gone from the queue before anybody read them."""
    outcomes: list[Outcome | None] = field(default_factory=list)
    """One per event; None until it is known."""
    documents: dict[int, Document] = field(default_factory=dict)
    """What is to be indexed, by place."""
    retries: dict[int, Retry] = field(default_factory=dict)
    """Events that came before, on another day, by place."""
    doubtful: dict[int, list[str]] = field(default_factory=dict)
    """By place, the days on one of which an event came if it did."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why an outcome is not another one, by place."""
    natural: list[Batch] = field(default_factory=list)
    """Its events as they number themselves, where they do."""
    sources: dict[Source, Batch] = field(default_factory=dict)
    """Category and host name of its documents, each with a batch in which it came."""
    letters: list[DeadLetter] = field(default_factory=list)
    waiting: list[DeadLetter] = field(default_factory=list)
    """Those of its ``letters`` for which there was no room yet: until there is, it cannot be settled."""
