"""Which numbers of a window became something other than indexed, and why: what receipts tell a sender of one batch.

A window counts outcomes by emitter; this says which numbers they are. It is kept in the window's own ledger document,
so it is true for the same position. Nothing is kept of what became indexed, which is nearly everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from logweir.ledger.intervals import Intervals, pairs
from logweir.outcomes import Outcome

Why = tuple[Outcome, str | None]
"""An outcome other than indexed, and its reason where the outcome alone does not say it."""

INDEXED: Why = (Outcome.INDEXED, None)
"""What is nowhere kept, because it is the rule."""


def rows_of(numbers_by_why: Mapping[Why, Intervals]) -> list[dict[str, Any]]:
    """As the ledger has them, without those that have no number."""
    return [
        {"outcome": outcome.value, "reason": reason, "numbers": pairs(numbers)}
        for (outcome, reason), numbers in numbers_by_why.items()
        if len(numbers)
    ]


def of_rows(rows: Iterable[Mapping[str, Any]]) -> dict[Why, Intervals]:
    """What ``rows_of`` has made rows of."""
    return {(Outcome(row["outcome"]), row["reason"]): Intervals(row["numbers"]) for row in rows}


class Exceptions:
    """Numbers by outcome and reason, as ranges.

    ``beyond``: between the first and the last number of the exceptions for which there was no room; what became of a
    settled number in there is unknown, unless it is kept.
    """

    __slots__ = ("_kept", "beyond")

    def __init__(self) -> None:
        self._kept: dict[Why, Intervals] = {}
        self.beyond: tuple[int, int] | None = None

    def add(
        self, first: int, outcomes: Sequence[Outcome], reasons: Mapping[int, str], *, place: int, ranges_max: int
    ) -> int:
        """Keep those of the events numbered from ``first`` on that are not indexed; gives how many had no room.

        ``reasons`` are by place in the record, where the first of these events is at ``place``. To be called once for
        a number.
        """
        if outcomes.count(Outcome.INDEXED) == len(outcomes):
            return 0
        unkept = 0
        whys = [(outcome, reasons.get(place + at)) for at, outcome in enumerate(outcomes)]
        for why, run in groupby(range(len(whys)), key=whys.__getitem__):
            places = list(run)
            low, high = first + places[0], first + places[-1]
            if why[0] is Outcome.INDEXED:
                continue
            if self._has_room(why, low, ranges_max):
                self._kept.setdefault(why, Intervals()).add(low, high)
            else:
                unkept += high - low + 1
                beyond = self.beyond or (low, high)
                self.beyond = min(low, beyond[0]), max(high, beyond[1])
        return unkept

    def _has_room(self, why: Why, first: int, ranges_max: int) -> bool:
        kept = self._kept.get(why)
        if kept is not None and kept.max + 1 == first:
            return True  # It only makes a range longer.
        return sum(numbers.range_count for numbers in self._kept.values()) < ranges_max

    def within(self, first: int, last: int) -> Iterator[tuple[Why, list[tuple[int, int]]]]:
        """The kept exceptions from ``first`` to ``last``, as ranges."""
        for why, numbers in self._kept.items():
            if ranges := list(numbers.within(first, last)):
                yield why, ranges

    def cut(self, first: int, last: int) -> Exceptions:
        """Those of the kept from ``first`` to ``last``."""
        some = Exceptions()
        some._kept = {why: Intervals(ranges) for why, ranges in self.within(first, last)}
        return some

    def merge(self, other: Exceptions) -> None:
        """Keep the other's, too: of other numbers, and without any for which there was no room."""
        for why, numbers in other._kept.items():
            self._kept.setdefault(why, Intervals()).add_all(numbers)

    def as_body(self) -> dict[str, Any]:
        return {"kept": rows_of(self._kept), "beyond": self.beyond}

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Exceptions:
        exceptions = cls()
        exceptions._kept = of_rows(body["kept"])
        if beyond := body["beyond"]:
            exceptions.beyond = beyond[0], beyond[1]
        return exceptions
