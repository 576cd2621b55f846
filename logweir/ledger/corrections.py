"""Corrections: what a replay or a retry has changed in windows that are counted already, a line each.

Revisions write them; the window that a line speaks of stays as it was written. The books add lines and windows up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from logweir.ledger.documents import REVISION, BlockId, WindowId
from logweir.ledger.emitter import Emitter
from logweir.ledger.revisions import lines_from_body
from logweir.outcomes import Outcome
from logweir.store.port import Store


@dataclass(frozen=True, slots=True)
class Correction:
    """``count`` events of a window had the outcome ``from_outcome`` and have ``to_outcome`` now.

    ``cause``: what did it, one name for each run of it, such as ``retry 01932…``: of one cause, one window, one emitter
    and one pair of outcomes there is one line, with the count that holds for all of the run so far.
    """

    place: WindowId
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
        body = asdict(self)
        del body["place"]
        return {**self.place._asdict(), **body}


def read_corrections(
    store: Store, group: str, *, window: int | None = None, without: Collection[str] = ()
) -> Iterator[Correction]:
    """All lines, or those of one window, in the order of their windows; ``without`` those of documents of these ids."""
    for place, document in REVISION.scan(store.ledger, group, *([] if window is None else [window])):
        if document.id not in without:
            yield from corrections_of(place, document.body)


def corrections_of(place: BlockId, body: Mapping[str, Any]) -> Iterator[Correction]:
    """The lines of one document."""
    for line, (count, at_us) in lines_from_body(body).items():
        yield Correction(
            place.window_id, line.key, line.emitter, line.from_outcome, line.to_outcome, count, line.cause, at_us
        )
