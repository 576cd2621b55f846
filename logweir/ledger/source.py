"""Sources: pairs of category and host name, as the stored events have them. Many share a ledger document."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logweir.ledger.cadence import Cadence

BUCKETS = 1024
"""Documents that the sources of one partition share."""
NAME_LENGTH_MAX = 256
Source = tuple[str | None, str | None]
"""Category and host name; None where the events have none."""


class LastBatch(NamedTuple):
    """The batch that came last: when, under which key, from where, and through which ingest process."""

    received_us: int
    key: str
    source_address: str
    door: str


@dataclass(slots=True)
class SourceState:
    """One source on one partition."""

    source: Source
    first_us: int
    last: LastBatch
    cadence: Cadence = field(default_factory=Cadence)

    def as_body(self) -> dict[str, Any]:
        return {
            "category": self.source[0],
            "hostname": self.source[1],
            "first_us": self.first_us,
            "last": list(self.last),
            "cadence": self.cadence.as_body(),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> SourceState:
        source = body["category"], body["hostname"]
        return cls(source, body["first_us"], LastBatch(*body["last"]), Cadence.from_body(body["cadence"]))


def sources_as_body(sources: Iterable[SourceState]) -> dict[str, Any]:
    """The body of a document that these sources share."""
    return {"sources": [source.as_body() for source in sources]}


def sources_from_body(body: Mapping[str, Any]) -> list[SourceState]:
    return [SourceState.from_body(row) for row in body["sources"]]


def bounded(source: Source) -> Source:
    """The source with names of bounded length: senders choose them."""
    category, hostname = source
    if len(category or "") <= NAME_LENGTH_MAX and len(hostname or "") <= NAME_LENGTH_MAX:
        return source
    return category and category[:NAME_LENGTH_MAX], hostname and hostname[:NAME_LENGTH_MAX]


def bucket_of(source: Source) -> int:
    """Which of a partition's documents a source is in."""
    return zlib.crc32(repr(source).encode("utf-8", "backslashreplace")) % BUCKETS
