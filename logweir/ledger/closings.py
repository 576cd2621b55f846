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

from logweir.ledger.intervals import Intervals
from logweir.ledger.tracker import pairs
from logweir.store.port import LedgerDocument, Store


@dataclass(slots=True)
class Closing:
    """Of one ingest process on one partition. ``windows``: how many numbers had come, by ``window_key``.

    ``numbers``: those that had not come. ``who`` closed it last, and when (microseconds).
    """

    windows: dict[str, int] = field(default_factory=dict)
    numbers: Intervals = field(default_factory=Intervals)
    who: str = ""
    at_us: int = 0

    def holds_of(self, topic_id: str, window: int, count: int) -> bool:
        """Whether nothing more of that window has come since."""
        return self.windows.get(window_key(topic_id, window)) == count


def window_key(topic_id: str, window: int) -> str:
    return f"{topic_id}:{window}"


def closing_id(group: str, partition: int, ingest_epoch: str) -> str:
    return f"closing:{group}:{partition}:{ingest_epoch}"


def read_closing(store: Store, group: str, stream: tuple[str, int]) -> Closing:
    """Of one stream; an empty one where nothing was said. Raises LogweirError(STORE_DOWN)."""
    epoch, partition = stream
    id = closing_id(group, partition, epoch)
    found = store.ledger.read([id])
    return _of_body(found[id].body) if id in found else Closing()


def _of_body(body: Mapping[str, Any]) -> Closing:
    return Closing(body["windows"], Intervals(body["numbers"]), body["who"], body["at_us"])


def read_closings(store: Store, group: str) -> dict[tuple[str, int], Closing]:
    """By ingest epoch and partition. Raises LogweirError(STORE_DOWN)."""
    found = {}
    for document in store.ledger.scan(f"closing:{group}:"):
        partition, epoch = document.id.rsplit(":", 2)[1:]
        found[epoch, int(partition)] = _of_body(document.body)
    return found


def close(store: Store, group: str, stream: tuple[str, int], closing: Closing) -> None:
    """Write it down, over what was said before. Raises LogweirError: STORE_DOWN, CLAIM_LOST."""
    epoch, partition = stream
    claimed = store.ledger.claim(closing_id(group, partition, epoch), closing.who)
    body: dict[str, Any] = {
        "kind": "closing",
        "owner": closing.who,
        "partition": partition,
        "ingest_epoch": epoch,
        "who": closing.who,
        "at_us": closing.at_us,
        "windows": closing.windows,
        "numbers": pairs(closing.numbers),
    }
    store.ledger.write([LedgerDocument(claimed.id, claimed.generation, body)])
