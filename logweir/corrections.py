"""Corrections: what a replay or a retry has changed in windows that are counted already, a line each.

A line is a ledger document of its own, absolute, under an id that its cause decides: writing it again changes nothing,
and the window that it speaks of stays as it was written. The books add lines and windows up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from logweir.emitter_ledger import Emitter
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.outcomes import Outcome
from logweir.sequence import Intervals
from logweir.store import LedgerDocument, Store
from logweir.tracker import pairs


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
    """The events' numbers, as ranges, where the line is kept by ``add_numbers``."""

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


def add_numbers(store: Store, group: str, line: Correction, numbers: Intervals, *, owner: str) -> None:
    """Add events to the line of this cause, whoever else does so at once; an event that is in it counts once.

    ``line``: its count and numbers are not looked at. Events that another line of the same cause, window and sender
    has from the same outcome already are left out: an event is corrected once. Raises LogweirError(STORE_DOWN).
    """
    own = _id(group, line)
    others = [_id(group, replace(line, to_outcome=outcome)) for outcome in Outcome if outcome is not line.to_outcome]
    while True:
        claimed = store.claim(own, owner)
        corrected = [one.body.get("numbers", []) for one in store.read_ledger(others).values()]
        elsewhere = Intervals((first, last) for ranges in corrected for first, last in ranges)
        known = Intervals((first, last) for first, last in claimed.body.get("numbers", []))
        for first, last in numbers:
            for pair in elsewhere.gaps(first, last):
                known.add(*pair)
        body = {"kind": "correction", **replace(line, count=len(known), numbers=pairs(known)).as_json()}
        try:
            store.write_ledger([LedgerDocument(own, claimed.generation, body)])
        except LogweirError as error:
            if error.problem is not CLAIM_LOST:
                raise
            continue  # Somebody else has added to it since: begin with what they wrote.
        return


def read_corrections(store: Store, group: str) -> Iterator[Correction]:
    """All lines, in no order."""
    for document in store.scan_ledger(f"correction:{group}:"):
        if "kind" not in document.body:
            continue  # It is claimed, and has not been written yet.
        body = {name: value for name, value in document.body.items() if name not in ("kind", "owner")}
        yield Correction(
            **{**body, "from_outcome": Outcome(body["from_outcome"]), "to_outcome": Outcome(body["to_outcome"])}
        )


def _id(group: str, one: Correction) -> str:
    what = (
        one.topic_id, str(one.partition), one.ingest_epoch, str(one.window), one.key,
        "" if one.emitter is None else "=" + one.emitter, one.from_outcome, one.to_outcome, one.cause,
    )  # fmt: skip
    digest = hashlib.blake2b("\0".join(what).encode(), digest_size=16).hexdigest()
    return f"correction:{group}:{one.window:08}:{digest}"
