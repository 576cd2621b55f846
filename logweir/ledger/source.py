"""A source's document (a pair of category and host name), and in which minutes a partition received anything."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logweir.clock import WINDOW_US
from logweir.ledger.documents import HEARING, PartitionId
from logweir.ledger.rhythm import MINUTES_HEARD, Bits, Rhythm
from logweir.store.port import Store

BUCKETS = 1024
"""Documents that the sources of one partition share."""
NAME_LENGTH_MAX = 256
_CLEAR_SLACK_US = 30_000_000
"""The end of a queue is asked for now and then: what was empty is known to have been empty so long ago."""
Source = tuple[str | None, str | None]
"""Category and host name; None where the events have none."""


class LastBatch(NamedTuple):
    """Of the batch that was heard last: when, under which key, from where, and through which ingest process."""

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
    rhythm: Rhythm = field(default_factory=Rhythm)

    def as_body(self) -> dict[str, Any]:
        return {
            "category": self.source[0],
            "hostname": self.source[1],
            "first_us": self.first_us,
            "last": list(self.last),
            "rhythm": self.rhythm.as_body(),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> SourceState:
        source = body["category"], body["hostname"]
        return cls(source, body["first_us"], LastBatch(*body["last"]), Rhythm.from_body(body["rhythm"]))


@dataclass(slots=True)
class Hearing:
    """When a partition received anything."""

    heard: Bits = field(default_factory=lambda: Bits(MINUTES_HEARD))
    """The minutes in which it did."""
    clear_minute: int = 0
    """Up to when its queue is known to be worked off."""

    def mark(self, minute: int) -> bool:
        """A record was received in that minute; whether that changed anything."""
        heard = self.heard
        return (minute != heard.top or not heard.bits) and heard.mark(minute)

    def clear(self, now_us: int) -> bool:
        """All that had come a little before ``now_us`` is accounted for; whether that changed anything."""
        minute = (now_us - _CLEAR_SLACK_US) // WINDOW_US
        if minute <= self.clear_minute:
            return False
        self.clear_minute = minute
        return True

    @property
    def last_us(self) -> int:
        """The beginning of the latest minute in which it received anything, 0 when there is none."""
        return self.heard.top * WINDOW_US

    def as_body(self) -> dict[str, Any]:
        return {"heard": self.heard.as_body(), "clear_minute": self.clear_minute}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Hearing:
        return cls(Bits.from_body(MINUTES_HEARD, body["heard"]), body["clear_minute"])


def read_hearings(store: Store, group: str) -> dict[PartitionId, Hearing]:
    """What each partition heard, also of topics that are gone. Raises LogweirError(STORE_DOWN)."""
    return {place: Hearing.from_body(document.body) for place, document in HEARING.scan(store.ledger, group)}


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
