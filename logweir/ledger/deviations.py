"""Which numbers of a window became something other than indexed, and why: what receipts tell a sender of one batch.

A window counts outcomes by emitter; this says which numbers they are. It is kept in the window's own ledger document,
so it is true for the same position. Nothing is kept of what became indexed, which is nearly everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from logweir.ledger.intervals import Intervals, pairs
from logweir.ledger.shares import OWN_SHARE
from logweir.outcomes import Outcome


class OutcomeReason(NamedTuple):
    """An outcome, and its reason where the outcome alone does not say it."""

    outcome: Outcome
    reason: str | None = None


BEYOND_RANGES_MAX = 1000
"""Ranges in which numbers lie for which there was no room; beyond that, those that are near each other are joined."""

INDEXED = OutcomeReason(Outcome.INDEXED)
"""What is nowhere kept, because it is the rule."""


def rows_of(numbers: Mapping[OutcomeReason, Intervals]) -> list[dict[str, Any]]:
    """As the ledger has them, without those that have no number."""
    return [
        {"outcome": outcome.value, "reason": reason, "numbers": pairs(ranges)}
        for (outcome, reason), ranges in numbers.items()
        if ranges
    ]


def from_rows(rows: Iterable[Mapping[str, Any]]) -> dict[OutcomeReason, Intervals]:
    """What ``rows_of`` has made rows of."""
    return {OutcomeReason(Outcome(row["outcome"]), row["reason"]): Intervals(row["numbers"]) for row in rows}


class Deviations:
    """Numbers by outcome and reason, as ranges."""

    __slots__ = ("_by_key", "_kept", "beyond")

    def __init__(self) -> None:
        self._kept: dict[OutcomeReason, Intervals] = {}
        self._by_key: Counter[str] = Counter()
        """How many ranges began with a number of each key's."""
        self.beyond = Intervals()
        """Around the numbers for which there was no room: what became of a settled number in it is unknown, unless it
        is kept. Not one range from the first to the last: other senders' numbers are between them."""

    def add(
        self,
        first: int,
        outcomes: Sequence[Outcome],
        reasons: Mapping[int, str],
        *,
        place: int,
        key: str,
        ranges_max: int,
    ) -> int:
        """Keep those of the events numbered from ``first`` on that are not indexed; gives how many had no room.

        ``reasons`` are by place in the record, where the first of these events is at ``place``. ``key``: whose they
        are; a part of the room is each key's own. To be called once for a number.
        """
        if outcomes.count(Outcome.INDEXED) == len(outcomes):
            return 0
        unkept = 0
        became = [(outcome, reasons.get(place + at)) for at, outcome in enumerate(outcomes)]
        for outcome_reason, run in groupby(range(len(became)), key=became.__getitem__):
            places = list(run)
            low, high = first + places[0], first + places[-1]
            deviation = OutcomeReason(*outcome_reason)
            if deviation.outcome is Outcome.INDEXED:
                continue
            kept = self._kept.setdefault(deviation, Intervals())
            if kept and kept.max + 1 == low:
                kept.add(low, high)  # It only makes a range longer.
            elif self._has_room(key, ranges_max):
                kept.add(low, high)
                self._by_key[key] += 1
            else:
                unkept += high - low + 1
                self.beyond.add(low, high)
        if self.beyond.range_count > BEYOND_RANGES_MAX:
            self.beyond = _joined(self.beyond, BEYOND_RANGES_MAX // 2)
        return unkept

    def _has_room(self, key: str, ranges_max: int) -> bool:
        count = sum(numbers.range_count for numbers in self._kept.values())
        return count < ranges_max or self._by_key[key] < ranges_max // OWN_SHARE

    def within(self, first: int, last: int) -> Iterator[tuple[OutcomeReason, list[tuple[int, int]]]]:
        """Those that are kept from ``first`` to ``last``, as ranges."""
        for deviation, numbers in self._kept.items():
            if ranges := list(numbers.within(first, last)):
                yield deviation, ranges

    def cut(self, first: int, last: int) -> Deviations:
        """Those that are kept from ``first`` to ``last``, by themselves."""
        part = Deviations()
        part._kept = {deviation: Intervals(ranges) for deviation, ranges in self.within(first, last)}
        return part

    def merge(self, other: Deviations) -> None:
        """Keep the other's, too: of other numbers, and without any for which there was no room."""
        for deviation, numbers in other._kept.items():
            self._kept.setdefault(deviation, Intervals()).add_all(numbers)

    def as_body(self) -> dict[str, Any]:
        # The first and the last alone is what earlier versions read.
        beyond = [self.beyond.min, self.beyond.max] if self.beyond else None
        body = {"kept": rows_of(self._kept), "beyond": beyond, **({"by_key": self._by_key} if self._by_key else {})}
        return {**body, "beyond_ranges": pairs(self.beyond)} if self.beyond.range_count > 1 else body

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Deviations:
        deviations = cls()
        deviations._kept = from_rows(body["kept"])
        deviations._by_key = Counter(body.get("by_key", {}))
        if body["beyond"]:
            deviations.beyond = Intervals(body.get("beyond_ranges", [body["beyond"]]))
        return deviations


def _joined(numbers: Intervals, ranges_max: int) -> Intervals:
    """The numbers and the smallest gaps between them, as few ranges as wanted."""
    gap = 1
    while numbers.range_count > ranges_max:
        joined = Intervals()
        for first, last in numbers:
            is_near = joined and first - joined.max - 1 <= gap
            joined.add(joined.max + 1 if is_near else first, last)
        numbers, gap = joined, 2 * gap
    return numbers
