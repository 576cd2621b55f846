"""A source's document (a pair of category and host name), and in which minutes a partition received anything."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logweir.clock import WINDOW_US
from logweir.ledger.rhythm import MINUTES_HEARD, Bits, Rhythm

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


class Hearing:
    """In which minutes a partition received anything, and up to when its queue is known to be worked off."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.heard = Bits.from_body(MINUTES_HEARD, body["heard"]) if "heard" in body else Bits(MINUTES_HEARD)
        self.clear_minute: int = body.get("clear_minute", 0)
        self.dirty = False

    def mark(self, minute: int) -> None:
        """A record was received in that minute."""
        heard = self.heard
        if minute != heard.top or not heard.bits:
            self.dirty |= heard.mark(minute)

    def clear(self, now_us: int) -> None:
        """All that had come a little before ``now_us`` is accounted for."""
        minute = (now_us - _CLEAR_SLACK_US) // WINDOW_US
        if minute > self.clear_minute:
            self.clear_minute, self.dirty = minute, True

    def as_body(self) -> dict[str, Any]:
        return {"kind": "hearing", "heard": self.heard.as_body(), "clear_minute": self.clear_minute}


def sources_prefix(group: str) -> str:
    """What the ids of a group's sources begin with; behind it stand topic id, partition and bucket."""
    return f"sources:{group}:"


def hearing_prefix(group: str) -> str:
    """What the ids of a group's hearings begin with; behind it stand topic id, a colon and the partition."""
    return f"hearing:{group}:"


def bounded(source: Source) -> Source:
    """The source with names of bounded length: senders choose them."""
    category, hostname = source
    if len(category or "") <= NAME_LENGTH_MAX and len(hostname or "") <= NAME_LENGTH_MAX:
        return source
    return category and category[:NAME_LENGTH_MAX], hostname and hostname[:NAME_LENGTH_MAX]


def bucket_of(source: Source) -> int:
    """Which of a partition's documents a source is in."""
    return zlib.crc32(repr(source).encode("utf-8", "backslashreplace")) % BUCKETS


def hearing_id(group: str, topic_id: str, partition: int) -> str:
    return f"{hearing_prefix(group)}{topic_id}:{partition}"
