"""Windows of which the store itself has another number of documents than the ledger says were indexed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from logweir.ledger.documents import STORE_DIFFERENCE, WindowId
from logweir.store.port import LedgerDocument, Store


@dataclass(frozen=True, slots=True)
class StoreDifference:
    """One window, as it was when the store was asked for it last. Counts of events."""

    place: WindowId
    stored: int
    indexed: int
    at_us: int
    """When it was asked for last."""
    first_us: int
    """When it was found."""
    first_difference: int
    """What it was then."""

    @classmethod
    def found(cls, place: WindowId, stored: int, indexed: int, at_us: int) -> StoreDifference:
        return cls(place, stored, indexed, at_us, at_us, stored - indexed)

    def looked_at(self, stored: int, indexed: int, at_us: int) -> StoreDifference:
        """The same after another look, by which it may be none any more: then it is withdrawn, and kept as that."""
        return replace(self, stored=stored, indexed=indexed, at_us=at_us)

    @property
    def difference(self) -> int:
        """Below zero: how many are gone from the store; 0 when it is withdrawn."""
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
            "looked_us": self.at_us,
            "found_us": self.first_us,
            "found_difference": self.first_difference,
        }

    def as_body(self) -> dict[str, Any]:
        return {
            "stored": self.stored,
            "indexed": self.indexed,
            "at_us": self.at_us,
            "first_us": self.first_us,
            "first_difference": self.first_difference,
        }

    @classmethod
    def from_body(cls, place: WindowId, body: Mapping[str, Any]) -> StoreDifference:
        return cls(place, body["stored"], body["indexed"], body["at_us"], body["first_us"], body["first_difference"])


def read_differences(store: Store, group: str) -> Iterator[tuple[StoreDifference, LedgerDocument]]:
    """All of them, each with its document. Raises LogweirError(STORE_DOWN)."""
    for place, document in STORE_DIFFERENCE.scan(store.ledger, group):
        yield StoreDifference.from_body(place, document.body), document
