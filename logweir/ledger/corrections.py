"""Corrections: what a replay or a retry has changed in windows that are counted already, a line each.

Revisions write them; the window that a line speaks of stays as it was written. The books add lines and windows up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from logweir.ledger.emitter import Emitter
from logweir.ledger.revisions import lines_of
from logweir.outcomes import Outcome
from logweir.store.port import Store


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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_corrections(
    store: Store, group: str, *, window: int | None = None, without: Collection[str] = ()
) -> Iterator[Correction]:
    """All lines, or those of one window, in the order of their windows; ``without`` those of documents of these ids."""
    for document in store.ledger.scan(f"correction:{group}:" + ("" if window is None else f"{window:08}:")):
        if document.id not in without:
            yield from corrections_of(document.body)


def corrections_of(body: Mapping[str, Any]) -> Iterator[Correction]:
    """The lines of one document."""
    yield from map(_line, lines_of(body))


def _line(body: dict[str, Any]) -> Correction:
    outcomes = {name: Outcome(body[name]) for name in ("from_outcome", "to_outcome")}
    return Correction(**{**body, **outcomes})
