"""Windows of which the store itself has another number of documents than the ledger says were indexed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from logweir.ledger.documents import STORE_DIFFERENCE, WindowId
from logweir.store.port import LedgerDocument, Store


@dataclass(frozen=True, slots=True)
class StoreDifference:
    """One window. Counts of events, when it was asked for (``at_us``)."""

    place: WindowId
    stored: int
    indexed: int
    at_us: int

    @property
    def difference(self) -> int:
        """Below zero: how many are gone from the store."""
        return self.stored - self.indexed

    def as_json(self) -> dict[str, Any]:
        return {
            "window": self.place.window,
            "topic_id": self.place.topic_id,
            "partition": self.place.partition,
            "ingest_epoch": self.place.ingest_epoch,
            "stored": self.stored,
            "indexed": self.indexed,
            "difference": self.difference,
        }

    def as_body(self) -> dict[str, Any]:
        return {"stored": self.stored, "indexed": self.indexed, "at_us": self.at_us}

    @classmethod
    def from_body(cls, place: WindowId, body: Mapping[str, Any]) -> StoreDifference:
        return cls(place, body["stored"], body["indexed"], body["at_us"])


def read_differences(store: Store, group: str) -> Iterator[tuple[StoreDifference, LedgerDocument]]:
    """All of them, each with its document. Raises LogweirError(STORE_DOWN)."""
    for place, document in STORE_DIFFERENCE.scan(store.ledger, group):
        yield StoreDifference.from_body(place, document.body), document
