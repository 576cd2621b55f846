"""Corrections: what a replay or a retry has changed in windows that are counted already, a line each.

A line is a ledger document of its own, absolute, under an id that its cause decides: writing it again changes nothing,
and the window that it speaks of stays as it was written. The books add lines and windows up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from logweir.emitter_ledger import Emitter
from logweir.outcomes import Outcome
from logweir.revisions import lines_of
from logweir.store import LedgerDocument, Store


@dataclass(frozen=True, slots=True)
class Correction:
    """``count`` events of a window had the outcome ``from_outcome`` and have ``to_outcome`` now.

    ``cause``: what did it, one name for each run of it, such as ``retry 01932…``: of one cause, one window, one emitter
    and one pair of outcomes there is one line, with the count that holds for all of the run so far.
    """

    topic_id: str
    partition: int
    ingest_epoch: str
    window: int
    key: str
    emitter: str | None
    from_outcome: Outcome
    to_outcome: Outcome
    count: int
    cause: str
    at_us: int

    @property
    def sender(self) -> Emitter:
        return self.key, self.emitter

    def is_of(self, topic_id: str, partition: int, ingest_epoch: str, window: int) -> bool:
        return (topic_id, partition, ingest_epoch, window) == (
            self.topic_id, self.partition, self.ingest_epoch, self.window,
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def write_corrections(store: Store, group: str, corrections: Iterable[Correction]) -> None:
    """Write the lines, durably; each replaces what its cause said before. Raises LogweirError(STORE_DOWN)."""
    documents = [LedgerDocument(_id(group, one), 1, {"kind": "correction", **one.as_json()}) for one in corrections]
    if documents:
        store.write_ledger(documents)


def read_corrections(store: Store, group: str, *, window: int | None = None) -> Iterator[Correction]:
    """All lines, or those of one window, in the order of their windows."""
    for document in store.scan_ledger(f"correction:{group}:" + ("" if window is None else f"{window:08}:")):
        if document.body.get("kind") == "correction":
            yield _line({name: value for name, value in document.body.items() if name != "kind"})
        else:
            yield from map(_line, lines_of(document.body))


def _line(body: dict[str, Any]) -> Correction:
    outcomes = {name: Outcome(body[name]) for name in ("from_outcome", "to_outcome")}
    return Correction(**{**body, **outcomes})


def _id(group: str, one: Correction) -> str:
    what = (
        one.topic_id, str(one.partition), one.ingest_epoch, str(one.window), one.key,
        "" if one.emitter is None else "=" + one.emitter, one.from_outcome, one.to_outcome, one.cause,
    )  # fmt: skip
    digest = hashlib.blake2b("\0".join(what).encode(), digest_size=16).hexdigest()
    return f"correction:{group}:{one.window:08}:{digest}"
