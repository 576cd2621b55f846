"""Corrections: what a replay or a retry has changed in windows that are counted already, a line each.

A line is a ledger document of its own, absolute, under an id that its cause decides: writing it again changes nothing,
and the window that it speaks of stays as it was written. The books add lines and windows up.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from logweir.emitter_ledger import Emitter
from logweir.outcomes import Outcome
from logweir.revisions import lines_of
from logweir.sequence import Intervals
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
    numbers: Sequence[Sequence[int]] = ()
    """The events' numbers as ranges, where the cause knows them: then others may correct the same ones at once."""

    @property
    def sender(self) -> Emitter:
        return self.key, self.emitter

    def is_of(self, topic_id: str, partition: int, ingest_epoch: str, window: int) -> bool:
        return (topic_id, partition, ingest_epoch, window) == (
            self.topic_id, self.partition, self.ingest_epoch, self.window,
        )  # fmt: skip

    def without(self, numbers: Intervals) -> Correction:
        """The line without these events."""
        left = [pair for first, last in self.numbers for pair in numbers.gaps(first, last)]
        return replace(self, numbers=left, count=sum(last - first + 1 for first, last in left))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def write_corrections(store: Store, group: str, corrections: Iterable[Correction]) -> None:
    """Write the lines, durably; each replaces what its cause said before. Raises LogweirError(STORE_DOWN)."""
    documents = [LedgerDocument(_id(group, one), 1, {"kind": "correction", **one.as_json()}) for one in corrections]
    if documents:
        store.write_ledger(documents)


def read_corrections(store: Store, group: str, *, window: int | None = None) -> Iterator[Correction]:
    """The lines by window, or of one minute. Of an event that several lines name, only the first one speaks."""
    corrected: dict[tuple[object, ...], Intervals] = defaultdict(Intervals)
    for document in store.scan_ledger(f"correction:{group}:" + ("" if window is None else f"{window:08}:")):
        if document.body.get("kind") != "correction":
            yield from map(_line, lines_of(document.body))
            continue
        line = _line({name: value for name, value in document.body.items() if name != "kind"})
        if line.numbers:
            known = corrected[line.topic_id, line.partition, line.ingest_epoch, line.window, line.from_outcome]
            line = line.without(known)
            for first, last in line.numbers:
                known.add(first, last)
            if not line.count:
                continue
        yield line


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
