"""Closings: what was said of an ingest process that is gone: what never came of it never will.

By workers, on the word of its successor on the same machine, where nothing is missing; else by a person. A line beside
the windows, which stay as the workers wrote them. It says which numbers were undecided then: as long as they do not
come they are void. When the process's spool is adopted after all, what comes is counted as ever; of a window that
something came of since, the closing says nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logweir.ledger.documents import CLOSING, StreamId, WindowId
from logweir.ledger.intervals import Intervals, pairs
from logweir.store.port import Store


@dataclass(slots=True)
class Closing:
    """Of one ingest process on one partition."""

    windows: dict[WindowId, int] = field(default_factory=dict)
    """How many numbers had come in each."""
    numbers: Intervals = field(default_factory=Intervals)
    """Those that had not come."""
    who: str = ""
    """Who closed it last."""
    at_us: int = 0

    def holds_of(self, window: WindowId, count: int) -> bool:
        """Whether nothing more of that window has come since."""
        return self.windows.get(window) == count

    def as_body(self) -> dict[str, Any]:
        return {
            "who": self.who,
            "at_us": self.at_us,
            "windows": [[place.topic_id, place.window, count] for place, count in self.windows.items()],
            "numbers": pairs(self.numbers),
        }

    @classmethod
    def from_body(cls, stream: StreamId, body: Mapping[str, Any]) -> Closing:
        epoch, partition = stream
        windows = {WindowId(topic_id, partition, epoch, window): count for topic_id, window, count in body["windows"]}
        return cls(windows, Intervals(body["numbers"]), body["who"], body["at_us"])


def read_closing(store: Store, group: str, stream: StreamId) -> Closing:
    """Of one stream; an empty one where nothing was said. Raises LogweirError(STORE_DOWN)."""
    found = CLOSING.read(store.ledger, group, [stream])
    return Closing.from_body(stream, found[stream].body) if stream in found else Closing()


def read_closings(store: Store, group: str) -> dict[StreamId, Closing]:
    """All of them. Raises LogweirError(STORE_DOWN)."""
    found = CLOSING.scan(store.ledger, group)
    return {stream: Closing.from_body(stream, document.body) for stream, document in found}


def close(store: Store, group: str, stream: StreamId, closing: Closing) -> None:
    """Write it down, over what was said before. Raises LogweirError: STORE_DOWN, CLAIM_LOST."""
    claimed = CLOSING.claim(store.ledger, group, stream, closing.who)
    document = CLOSING.document(group, stream, claimed.generation, closing.as_body(), owner=closing.who)
    store.ledger.write([document])
