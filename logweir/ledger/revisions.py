"""Revisions: what has become of events since their outcome was counted, by a replay or a retry; and the lines of it.

A document holds, for BLOCK numbers of one window, which of them have another outcome now, and the correction lines that
led there. Both are written in one step, so they agree whenever a process is killed; and a change begins at what the
document says, so it counts once, however often and by however many it is made. Windows stay as the workers wrote them:
the books add lines and windows up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.deviations import INDEXED, OutcomeReason, from_rows, rows_of
from logweir.ledger.documents import REVISION, BlockId, WindowId
from logweir.ledger.emitter import Emitter
from logweir.ledger.intervals import Intervals
from logweir.ledger.window import Window
from logweir.outcomes import Outcome
from logweir.store.port import Store

BLOCK = 10_000
"""Numbers of one document: even when every other one of them is revised, it stays below a few hundred kilobytes."""


class Line(NamedTuple):
    """What is counted together: events of one sender that ``cause`` has moved from one outcome to another."""

    key: str
    emitter: str | None
    from_outcome: Outcome
    to_outcome: Outcome
    cause: str


@dataclass(frozen=True, slots=True)
class Change:
    """The event ``number`` of a window was counted as ``counted`` by a worker, and has ``outcome`` now.

    Where they are one: what it was counted as, which the window itself had no room to say.
    """

    number: int
    sender: Emitter
    counted: Outcome
    outcome: Outcome
    reason: str | None = None


@dataclass(slots=True)
class Revision:
    """One document."""

    now: dict[OutcomeReason, Intervals] = field(default_factory=dict)
    """Numbers by their present outcome, those that have another one than they were counted as."""
    lines: dict[Line, tuple[int, int]] = field(default_factory=dict)
    """How many of each, and when the last one was moved, in microseconds."""

    def outcome_of(self, number: int) -> OutcomeReason | None:
        """The present outcome of a number, None when it is as it was counted."""
        return next((outcome for outcome, numbers in self.now.items() if numbers.covers(number, number)), None)

    def change(self, one: Change, *, cause: str, at_us: int) -> bool:
        """Whether it is another outcome than before; where nothing was known before, that is kept without a line."""
        before = self.outcome_of(one.number)
        from_outcome = before.outcome if before else one.counted
        if before and from_outcome is one.outcome:
            return False
        if before:
            self.now[before].remove(one.number, one.number)
        self.now.setdefault(OutcomeReason(one.outcome, one.reason), Intervals()).add(one.number, one.number)
        if from_outcome is one.outcome:
            return False
        line = Line(*one.sender, from_outcome, one.outcome, cause)
        self.lines[line] = (self.lines.get(line, (0, 0))[0] + 1, at_us)
        return True

    def as_body(self) -> dict[str, Any]:
        return {
            "now": rows_of(self.now),
            "lines": [
                {**line._asdict(), "count": count, "at_us": at_us} for line, (count, at_us) in self.lines.items()
            ],
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Revision:
        return cls(from_rows(body["now"]), lines_from_body(body))


def revise(
    store: Store, group: str, place: WindowId, changes: Iterable[Change], *, cause: str, at_us: int, owner: str
) -> int:
    """Write what events of a window have become, and the correction lines; gives how many are other than before.

    To be called when it is so in the store. Whoever else does so at once, each change counts once. Raises
    LogweirError(STORE_DOWN): call again.
    """
    by_block: dict[int, list[Change]] = defaultdict(list)
    for one in changes:
        by_block[one.number // BLOCK].append(one)
    return sum(
        _revise_block(store, group, _block_of(place, block), some, cause=cause, at_us=at_us, owner=owner)
        for block, some in by_block.items()
    )


def _revise_block(
    store: Store, group: str, place: BlockId, changes: list[Change], *, cause: str, at_us: int, owner: str
) -> int:
    while True:
        claimed = REVISION.claim(store.ledger, group, place, owner)
        revision = Revision.from_body(claimed.body) if claimed.body else Revision()
        changed = sum(revision.change(one, cause=cause, at_us=at_us) for one in changes)
        document = REVISION.document(group, place, claimed.generation, revision.as_body(), owner=owner)
        try:
            store.ledger.write([document])
        except LogweirError as error:
            if error.problem is not CLAIM_LOST:
                raise
            continue  # Somebody else has claimed it since: begin with what they wrote.
        return changed


class Present:
    """What the ledger says now of the events of one window: as they were counted, with what was revised since."""

    def __init__(self, window: Window, revisions: Mapping[int, Revision]) -> None:
        self._window = window
        self._revisions = revisions
        self._unkept = _unkept_outcomes(window)

    def counted(self, first: int, last: int) -> dict[int, OutcomeReason | None]:
        """By number, what a worker counted; None where that was not kept. Numbers that were not counted are absent."""
        found: dict[int, OutcomeReason | None] = {}
        for low, high in self._window.numbers.within(first, last):
            found.update(dict.fromkeys(range(low, high + 1), INDEXED))
        for beyond in self._window.deviations.beyond.within(first, last):
            for low, high in self._window.numbers.within(*beyond):
                found.update(dict.fromkeys(range(low, high + 1)))
        for deviation, ranges in self._window.deviations.within(first, last):
            for low, high in ranges:
                found.update(dict.fromkeys(range(low, high + 1), deviation))
        return found

    def revised(self, first: int, last: int) -> dict[int, OutcomeReason]:
        """By number, what has become since of those that were revised."""
        found: dict[int, OutcomeReason] = {}
        for block in range(first // BLOCK, last // BLOCK + 1):
            for outcome, numbers in self._revisions.get(block, Revision()).now.items():
                for low, high in numbers.within(first, last):
                    found.update(dict.fromkeys(range(low, high + 1), outcome))
        return found

    @property
    def outcomes_unkept(self) -> list[Outcome]:
        """What a number may be whose outcome was not kept, beside indexed."""
        return self._unkept


def read_present(store: Store, group: str, window: Window, first: int, last: int) -> Present:
    """For the numbers ``first`` to ``last``. Raises LogweirError(STORE_DOWN)."""
    blocks = [_block_of(window.place, block) for block in range(first // BLOCK, last // BLOCK + 1)]
    found = REVISION.read(store.ledger, group, blocks)
    return Present(window, {place.block: Revision.from_body(document.body) for place, document in found.items()})


def _unkept_outcomes(window: Window) -> list[Outcome]:
    """Which outcomes other than indexed the window has more events of than it has kept numbers."""
    if not window.deviations.beyond:
        return []
    left: Counter[str] = Counter()
    for counts in window.outcomes.values():
        left.update(counts.by_outcome())
    for (outcome, _), ranges in window.deviations.within(1, window.numbers.max):
        left[outcome] -= sum(high - low + 1 for low, high in ranges)
    return [outcome for outcome in Outcome if outcome is not Outcome.INDEXED and left[outcome] > 0]


def _block_of(place: WindowId, block: int) -> BlockId:
    return BlockId(place.window, place.topic_id, place.partition, place.ingest_epoch, block)


# --- correction lines ---------------------------------------------------------------------------------------------
def lines_from_body(body: Mapping[str, Any]) -> dict[Line, tuple[int, int]]:
    """The correction lines of a revision, each with its count and time, without the rest of it."""
    lines = {}
    for row in body["lines"]:
        outcomes = Outcome(row["from_outcome"]), Outcome(row["to_outcome"])
        lines[Line(row["key"], row["emitter"], *outcomes, row["cause"])] = row["count"], row["at_us"]
    return lines


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
