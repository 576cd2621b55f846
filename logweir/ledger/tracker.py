"""What one run of an emitter (an epoch) has sent of what it has numbered: seen, missing, lost, recovered, dropped.

A number is *missing* from the moment in which a higher one is known, *lost* when the partition's watermark has passed
that moment by ``accounting.late_after_s``, and *recovered* when it comes after all. The watermark is the receipt time
up to which the partition is accounted for: a queue that is worked off late makes nothing lost. All that is counted
follows from sets of numbers and from highest values, so that a record counted again changes nothing.

A number that is further above the highest one than its emitter can have counted since it was last heard of is a *jump*:
what it passed over was not made, and is neither missing nor lost.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from logweir.ledger.intervals import Intervals, pairs
from logweir.outcomes import Outcome
from logweir.record import REASONS_MAX

DAYS_MAX = 8
"""Earlier days of which a tracker knows the numbers apart; of days before those it knows only that they are past."""

OTHER = "other"
"""The reason under which those are shown that are no longer told apart."""

JUMP_MIN = 1_000_000_000
"""So many numbers at once are believed to be missing, however soon they are passed over: the run may be an old one."""
JUMP_PER_S = 1_000_000
"""So many more are believed for each second since anything came of the run."""

_LONG_AGO = ""


@dataclass(slots=True)
class Gap:
    """The numbers ``first`` to ``last``, known to have been made, and missing since ``since_us``."""

    first: int
    last: int
    since_us: int
    is_jump: bool = False
    """They were passed over by a jump: as if they were never made, until they come."""

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Losses:
    """What is not there. ``lost`` counts every number that ever became lost, ``recovered`` those no longer lost."""

    lost: int = 0
    recovered: int = 0
    missing: int = 0
    dropped: int = 0
    jumped: int = 0
    """Numbers that were passed over by jumps, and have not come."""

    @property
    def net(self) -> int:
        """The numbers that are lost now."""
        return self.lost - self.recovered


@dataclass(slots=True)
class Tracker:
    """One epoch of one emitter on one partition.

    ``natural``: the numbers are the events' own, read from their fields; the range that is covered begins at ``start``.
    ``top``: the highest number that is known to have been made. ``gaps``: what is missing below it, in order.
    ``begun_us``: when its first was received. ``day``: the UTC day of the latest numbers; ``earlier``: the numbers of
    the days before it. ``floor``: numbers up to there are only counted, because there were too many gaps to keep;
    ``lost_below`` of them were lost, ``recovered_below`` came after all, and jumps passed over ``jumped_below``.
    ``below``: between which numbers they came on each day. ``dropped``: what the emitter says to have dropped, by
    reason, the one that it named last at the end; ``dropped_other``: the sum over reasons that it no longer named, when
    there were more than REASONS_MAX.
    """

    epoch: str
    natural: bool = False
    start: int = 1
    seen: Intervals = field(default_factory=Intervals)
    top: int = 0
    gaps: list[Gap] = field(default_factory=list)
    day: str = ""
    earlier: dict[str, Intervals] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_other: int = 0
    previous: tuple[str, int] | None = None
    bye: bool = False
    recovered: int = 0
    floor: int = 0
    lost_below: int = 0
    recovered_below: int = 0
    jumped_below: int = 0
    below: dict[str, tuple[int, int]] = field(default_factory=dict)
    begun_us: int = 0
    last_us: int = 0

    @property
    def accepted(self) -> int:
        """How many different numbers have come."""
        return self.seen.count - self.lost_below + self.recovered_below - self.jumped_below

    @property
    def jumped(self) -> int:
        """How many numbers were passed over by jumps, and have not come."""
        return sum(gap.count for gap in self.gaps if gap.is_jump) + self.jumped_below

    @property
    def created(self) -> int:
        """How many numbers are known to have been made."""
        return self.top - self.start + 1 - self.jumped

    @property
    def dropped_count(self) -> int:
        return sum(self.dropped.values()) + self.dropped_other

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        """All of it, with the sum over reasons that are no longer told apart under OTHER."""
        if not self.dropped_other:
            return self.dropped
        return {**self.dropped, OTHER: self.dropped.get(OTHER, 0) + self.dropped_other}

    # --- what comes ------------------------------------------------------------------------------------------------
    def arrive(
        self, first: int, outcomes: Sequence[Outcome], *, day: str, watermark_us: int, late_us: int, ranges_max: int
    ) -> None:
        """The events ``first`` and following have come, one for each outcome, received on the UTC day ``day``."""
        if self.natural and first <= self.floor:
            # Which of these had come before is not known to anybody: they stay what they were counted as.
            outcomes = outcomes[self.floor + 1 - first :]
            first = self.floor + 1
            if not outcomes:
                return
        last = first + len(outcomes) - 1
        if first < self.start:
            self._begin_at(first, last, watermark_us)
        if first <= self.top:
            late = self._late_below(first, outcomes, day) if first <= self.floor else 0
            late += self._fill(first, last, watermark_us - late_us)
            if late:
                # As it was before they came: looked at here only, since it takes a look at every gap.
                unexplained = self._unexplained(watermark_us, late_us) + late
                self.recovered += max(0, min(late, unexplained))
            self.top = max(self.top, last)
        else:
            self.reach(first - 1, watermark_us=watermark_us, ranges_max=ranges_max)
            self.top = last
        self._note_day(max(first, self.floor + 1), last, day)
        self.seen.add(first, last)
        self.bound_gaps(ranges_max)

    def reach(self, high: int, *, watermark_us: int, ranges_max: int) -> None:
        """The emitter has made numbers up to ``high``."""
        if high <= self.top:
            return
        self.gaps.append(self._gap(self.top + 1, high, watermark_us))
        self.top = high
        self.bound_gaps(ranges_max)

    def _gap(self, first: int, last: int, watermark_us: int) -> Gap:
        heard_s = (watermark_us - self.last_us) // 1_000_000 if self.last_us else 0
        return Gap(first, last, watermark_us, is_jump=last - first >= max(JUMP_MIN, JUMP_PER_S * heard_s))

    def drop(self, dropped: dict[str, int], *, watermark_us: int, late_us: int) -> None:
        """The emitter says how many events it has dropped so far, by reason; a report that comes late heals itself.

        Reasons that it named longest ago are only summed up when there are more than REASONS_MAX; one of those that it
        names again counts anew.
        """
        before, unexplained = self.dropped_count, self._unexplained(watermark_us, late_us)
        for reason, count in dropped.items():
            self.dropped[reason] = max(count, self.dropped.pop(reason, 0))
        self.bound_reasons(REASONS_MAX)
        self.recovered += max(0, min(self.dropped_count - before, unexplained))

    def bound_reasons(self, reasons_max: int) -> None:
        """Only sum up the reasons that it named longest ago when there are more than ``reasons_max``."""
        while len(self.dropped) > reasons_max:
            self.dropped_other += self.dropped.pop(next(iter(self.dropped)))

    def _begin_at(self, first: int, last: int, watermark_us: int) -> None:
        """A natural number has come that is lower than all before it: the range that is covered begins there."""
        if last + 1 < self.start:
            self.gaps.insert(0, self._gap(last + 1, self.start - 1, watermark_us))
        self.start = first

    def _unexplained(self, watermark_us: int, late_us: int) -> int:
        """How many numbers are lost now; below zero, how many more were dropped than that."""
        if not self.gaps and not self.lost_below:
            return -self.dropped_count
        return self._late(watermark_us - late_us) + self.lost_below - self.recovered_below - self.dropped_count

    def _late(self, before_us: int) -> int:
        return sum(gap.count for gap in self.gaps if gap.since_us <= before_us and not gap.is_jump)

    def _late_below(self, first: int, outcomes: Sequence[Outcome], day: str) -> int:
        # Which numbers below the floor had come is forgotten here, but the store knows: it calls them duplicates. What
        # it was not asked about, filtered or a dead letter, may have come before: it stays what it was counted as.
        below = outcomes[: self.floor - first + 1]
        if below.count(Outcome.DUPLICATE) < len(below):
            self._note_below(first, first + len(below) - 1, day)
        count = min(below.count(Outcome.INDEXED), self.lost_below - self.recovered_below)
        self.recovered_below += count
        return count

    def _fill(self, first: int, last: int, late_before_us: int) -> int:
        """Take ``first`` to ``last`` out of what is missing; gives how many of them were lost."""
        late, rest = 0, []
        low = bisect_left(self.gaps, first, key=attrgetter("last"))
        high = bisect_right(self.gaps, last, key=attrgetter("first"))
        for gap in self.gaps[low:high]:
            if gap.since_us <= late_before_us and not gap.is_jump:
                late += min(last, gap.last) - max(first, gap.first) + 1
            if gap.first < first:
                rest.append(replace(gap, last=first - 1))
            if gap.last > last:
                rest.append(replace(gap, first=last + 1))
        self.gaps[low:high] = rest
        return late

    def bound_gaps(self, ranges_max: int) -> None:
        """Only count the oldest gaps when there are more than ``ranges_max``: as lost, until they come after all.

        Those that a jump passed over are not known any more when they come.
        """
        while len(self.gaps) > ranges_max:
            gap = self.gaps.pop(0)
            for first, last, day in self._days(self.floor + 1, gap.last):
                self._note_below(first, last, day)
            self.floor = max(self.floor, gap.last)
            if gap.is_jump:
                self.jumped_below += gap.count
            else:
                self.lost_below += gap.count
            self.seen.add(gap.first, gap.last)

    # --- on which day a number came first --------------------------------------------------------------------------
    def _note_day(self, first: int, last: int, day: str) -> None:
        if day == self.day:
            return
        if day > self.day:
            if self.day:
                self.earlier[self.day] = self._of_latest_day(self.floor + 1, self.seen.max)
                self._forget_days()
            self.day = day
            return
        known = day if day in self.earlier or len(self.earlier) < DAYS_MAX else _LONG_AGO
        numbers = self.earlier.setdefault(known, Intervals())
        numbers.add_all(self.seen.gaps(first, last))

    def _of_latest_day(self, first: int, last: int) -> Intervals:
        latest = Intervals(self.seen.within(first, last))
        for numbers in self.earlier.values():
            latest.remove_all(numbers.within(first, last))
        return latest

    def _days(self, first: int, last: int) -> Iterator[tuple[int, int, str]]:
        """The ranges of ``first`` to ``last`` that came, all above the floor, each with its day."""
        for day, numbers in self.earlier.items():
            yield from ((low, high, day) for low, high in numbers.within(first, last))
        yield from ((low, high, self.day) for low, high in self._of_latest_day(first, last))

    def _note_below(self, first: int, last: int, day: str) -> None:
        low, high = self.below.pop(day, (first, last))
        self.below[day] = min(low, first), max(high, last)
        if len(self.below) > DAYS_MAX + (_LONG_AGO in self.below):
            oldest = min(known for known in self.below if known != _LONG_AGO)
            self._note_below(*self.below.pop(oldest), _LONG_AGO)

    def _forget_days(self) -> None:
        while len(self.earlier) > DAYS_MAX + (_LONG_AGO in self.earlier):
            oldest = min(day for day in self.earlier if day != _LONG_AGO)
            self.earlier.setdefault(_LONG_AGO, Intervals()).add_all(self.earlier.pop(oldest))

    def on_other_days(self, first: int, last: int, day: str) -> Iterator[tuple[int, int, str]]:
        """Of ``first`` to ``last``, the ranges that came before on another day than ``day``, each with that day.

        The day is empty when it was long ago. Of numbers up to ``floor`` ``perhaps_on_other_days`` tells.
        """
        first = max(first, self.floor + 1)
        if first > self.seen.max or (self.day == day and not self.earlier):
            return
        yield from (one for one in self._days(first, last) if one[2] != day)

    def perhaps_on_other_days(self, first: int, last: int, day: str) -> Iterator[tuple[int, int, str]]:
        """Of the numbers up to ``floor``, those that have come on another day than ``day`` if they have come at all.

        As ranges with the day, also several of a number. The day is empty when it was long ago.
        """
        last = min(last, self.floor)
        for known_day, (low, high) in self.below.items():
            if known_day != day and first <= high and low <= last:
                yield max(first, low), min(last, high), known_day

    # --- what is read ----------------------------------------------------------------------------------------------
    def losses(self, *, watermark_us: int, late_us: int) -> Losses:
        """What is missing and lost when the partition is accounted for up to ``watermark_us``."""
        unexplained = self._unexplained(watermark_us, late_us)
        fresh = sum(gap.count for gap in self.gaps if not gap.is_jump) - self._late(watermark_us - late_us)
        return Losses(
            lost=max(0, unexplained) + self.recovered,
            recovered=self.recovered,
            missing=max(0, fresh + min(0, unexplained)),
            dropped=self.dropped_count,
            jumped=self.jumped,
        )

    def lost_ranges(self, *, watermark_us: int, late_us: int) -> list[tuple[int, int]]:
        """The numbers that are lost, as far as they are kept: those below ``floor`` are only counted."""
        before_us = watermark_us - late_us
        return [(gap.first, gap.last) for gap in self.gaps if gap.since_us <= before_us and not gap.is_jump]

    def jumps(self) -> list[tuple[int, int]]:
        """The numbers that jumps passed over, as far as they are kept: those below ``floor`` are only counted."""
        return [(gap.first, gap.last) for gap in self.gaps if gap.is_jump]

    # --- in the ledger ---------------------------------------------------------------------------------------------
    def as_body(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "natural": self.natural,
            "start": self.start,
            "seen": pairs(self.seen),
            "top": self.top,
            "gaps": [[gap.first, gap.last, gap.since_us] for gap in self.gaps if not gap.is_jump],
            **self._jumps_as_body(),
            "day": self.day,
            "earlier": {day: pairs(numbers) for day, numbers in self.earlier.items()},
            "dropped": self.dropped,
            # Seldom there. As text: a sum of numbers that senders choose may outgrow what JSON's readers take.
            **({"dropped_other": str(self.dropped_other)} if self.dropped_other else {}),
            "previous": self.previous,
            "bye": self.bye,
            "recovered": self.recovered,
            "floor": self.floor,
            "lost_below": self.lost_below,
            "recovered_below": self.recovered_below,
            "below": self.below,
            "begun_us": self.begun_us,
            "last_us": self.last_us,
        }

    def _jumps_as_body(self) -> dict[str, Any]:
        """Seldom anything."""
        jumps = [[gap.first, gap.last, gap.since_us] for gap in self.gaps if gap.is_jump]
        return {"jumps": jumps, "jumped_below": self.jumped_below} if jumps or self.jumped_below else {}

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Tracker:
        body = dict(body)
        previous = body["previous"]
        jumps = [Gap(first, last, since_us, is_jump=True) for first, last, since_us in body.pop("jumps", ())]
        return cls(
            **{
                **body,
                "seen": Intervals(body["seen"]),
                "gaps": sorted([*(Gap(*gap) for gap in body["gaps"]), *jumps], key=attrgetter("first")),
                "earlier": {day: Intervals(numbers) for day, numbers in body["earlier"].items()},
                "dropped_other": int(body.get("dropped_other", 0)),
                "previous": None if previous is None else (previous[0], previous[1]),
                "below": {day: (first, last) for day, (first, last) in body["below"].items()},
            }
        )


def united(trackers: Iterable[Tracker]) -> Tracker:
    """One tracker of what several partitions have seen of one epoch: what any of them has is not missing."""
    parts = list(trackers)
    if len(parts) == 1:
        return parts[0]
    natural = parts[0].natural
    whole = Tracker(parts[0].epoch, natural=natural, start=min(part.start for part in parts))
    for part in parts:
        whole.seen.add_all(part.seen)
        for reason, count in part.dropped.items():
            whole.dropped[reason] = max(count, whole.dropped.get(reason, 0))
        whole.dropped_other = max(whole.dropped_other, part.dropped_other)
        whole.top = max(whole.top, part.top)
        whole.bye = whole.bye or part.bye
        whole.previous = whole.previous or part.previous
        whole.recovered += part.recovered
        whole.floor = max(whole.floor, part.floor)
        whole.lost_below += part.lost_below
        whole.recovered_below += part.recovered_below
        whole.jumped_below += part.jumped_below
        whole.last_us = max(whole.last_us, part.last_us)
    whole.bound_reasons(REASONS_MAX)
    if natural:
        whole.seen.remove(1, whole.start - 1)
    gaps = [gap for part in parts for gap in part.gaps]
    # What one of them jumped over, and no other one believes to be missing.
    jumped = Intervals()
    for gap in gaps:
        if gap.is_jump:
            jumped.add(gap.first, gap.last)
    for gap in gaps:
        if not gap.is_jump:
            jumped.remove(gap.first, gap.last)
    for hole in whole.seen.gaps(whole.start, whole.top):
        pieces = [(piece, True) for piece in jumped.within(*hole)] + [(piece, False) for piece in jumped.gaps(*hole)]
        for (first, last), is_jump in sorted(pieces):
            around = (gap.since_us for gap in gaps if gap.first <= last and gap.last >= first)
            whole.gaps.append(Gap(first, last, min(around, default=whole.last_us), is_jump))
    return whole
