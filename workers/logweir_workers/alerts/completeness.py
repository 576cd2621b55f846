"""What the ledger says of an alert's window: that nothing is missing, what is, or that it is not known yet."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from logweir.alerts.rules import Rule
from logweir.audit.emitters import books_of_emitter
from logweir.clock import WINDOW_US, iso_seconds
from logweir.ledger.cadence import TimeBits, united_cadence
from logweir.ledger.documents import EMITTER, PartitionId
from logweir.ledger.emitter import Emitter, EmitterState, name_of
from logweir.ledger.position import read_offsets
from logweir.store.port import Store

EMITTERS_NAMED_MAX = 20
COMPLETE, INCOMPLETE, OPEN = "complete", "incomplete", "open"


@dataclass(frozen=True, slots=True)
class Missing:
    """Numbers of an emitter that never came, by the receipt of those around them."""

    emitter: Emitter
    first: int
    last: int
    since_us: int
    """When a higher one had come."""
    after_us: int
    """No earlier than this did the one below them come: they were to come between the two."""

    def __len__(self) -> int:
        return self.last - self.first + 1


class Completeness:
    """The ledger as it was read last. For one thread."""

    def __init__(self, store: Store, *, group: str, late_us: int) -> None:
        self._store = store
        self._group = group
        self._late_us = late_us
        self._asked: tuple[int, Mapping[PartitionId, int]] | None = None
        self.up_to_us = 0
        """All that had come to the queue by then is accounted for."""
        self.missing: dict[Emitter, list[Missing]] = {}
        """Of all emitters, what is missing now."""
        self._gaps: dict[Emitter, Gaps] = {}
        self._jumps: dict[Emitter, Gaps] = {}
        """Of those that jumped, what they passed over: a matter of their own keys' events only."""

    def look(self, topic_id: str, ends: Mapping[int, int], at_us: int) -> bool:
        """See how far the workers are. ``ends``: where the partitions ended at ``at_us``. Whether they are further.

        Raises LogweirError(STORE_DOWN).
        """
        if self._asked is None:
            self._asked = at_us, {PartitionId(topic_id, partition): end for partition, end in ends.items()}
        asked_us, wanted = self._asked
        offsets = read_offsets(self._store, self._group, list(wanted))
        if any(offsets.get(place, 0) < end for place, end in wanted.items()):
            if any(place.topic_id != topic_id for place in wanted):
                self._asked = None
            return False
        self._asked = None
        self.up_to_us = max(self.up_to_us, asked_us)
        return True

    def read_missing(self) -> None:
        """Read what is missing of every emitter. Raises LogweirError(STORE_DOWN)."""
        states: dict[Emitter, list[EmitterState]] = defaultdict(list)
        for place, document in EMITTER.scan(self._store.ledger, self._group):
            state = EmitterState.from_body(place, document.body)
            if any(tracker.gaps for tracker in state.epochs.values()):
                states[state.emitter].append(state)
        missing: dict[Emitter, list[Missing]] = defaultdict(list)
        jumped: dict[Emitter, list[Missing]] = defaultdict(list)
        for emitter, parts in states.items():
            minutes = united_cadence(part.cadence for part in parts).minutes
            for run in books_of_emitter(emitter, [(0, part) for part in parts]).runs:
                for gap in run.tracker.gaps:
                    after_us = max(run.tracker.begun_us, _before(gap.since_us, minutes))
                    of = jumped if gap.is_jump else missing
                    of[emitter].append(Missing(emitter, gap.first, gap.last, gap.since_us, after_us))
        self.missing = dict(missing)
        self._gaps = {emitter: Gaps(found) for emitter, found in missing.items()}
        self._jumps = {emitter: Gaps(found) for emitter, found in jumped.items()}

    def counts_within(
        self, rule: Rule, first_us: int, received_us: int, *, of: Collection[Emitter] | None = None
    ) -> dict[Emitter, int]:
        """How many numbers are missing of each emitter that were to come in a window of the rule around these times.

        The most first. ``of``: of these emitters only.
        """
        begin_us, end_us = first_us - rule.window.within_us, received_us + rule.window.within_us
        asked = self._gaps if of is None else [emitter for emitter in of if emitter in self._gaps]
        counts = {emitter: self._gaps[emitter].count(begin_us, end_us) for emitter in asked}
        return dict(sorted(((one, count) for one, count in counts.items() if count), key=lambda pair: -pair[1]))

    def lost_within(self, rule: Rule, first_us: int, received_us: int, *, of: Collection[Emitter]) -> int:
        """How many numbers of these emitters are lost there: not merely on their way."""
        begin_us, end_us = first_us - rule.window.within_us, received_us + rule.window.within_us
        lost_us = self.up_to_us - self._late_us
        return sum(
            self._gaps[emitter].count(begin_us, end_us, since_us_max=lost_us) for emitter in of if emitter in self._gaps
        )

    def jumped_within(self, rule: Rule, first_us: int, received_us: int, *, of: Collection[Emitter]) -> list[Emitter]:
        """Which emitters of the keys of these ones jumped there."""
        begin_us, end_us = first_us - rule.window.within_us, received_us + rule.window.within_us
        keys = {key for key, _ in of}
        return [one for one, gaps in self._jumps.items() if one[0] in keys and gaps.count(begin_us, end_us)]

    def judge(self, rule: Rule, first_us: int, received_us: int, *, of: Collection[Emitter]) -> dict[str, Any]:
        """What an alert says of itself: ``state``, ``up_to``, and how many numbers are missing of which emitters.

        ``of``: the emitters of its events. Where others of their keys jumped, ``jumped`` names them: what they sent
        then is unknown.
        """
        if self.up_to_us < received_us:
            return {"state": OPEN, "up_to": None, "missing": 0, "emitters": []}
        by_emitter = self.counts_within(rule, first_us, received_us)
        jumped = self.jumped_within(rule, first_us, received_us, of=of)
        named = list(by_emitter.items())[:EMITTERS_NAMED_MAX]
        verdict = {
            "state": INCOMPLETE if by_emitter or jumped else COMPLETE,
            "up_to": iso_seconds(self.up_to_us),
            "missing": sum(by_emitter.values()),
            "emitters": [{"emitter": name_of(emitter), "missing": count} for emitter, count in named],
        }
        # Seldom any.
        return (
            {**verdict, "jumped": [name_of(emitter) for emitter in jumped[:EMITTERS_NAMED_MAX]]} if jumped else verdict
        )


class Gaps:
    """What is missing of one emitter, by time: asked of every group that is not an alert yet."""

    def __init__(self, missing: list[Missing]) -> None:
        missing = sorted(missing, key=lambda one: one.since_us)
        self._since_us = [one.since_us for one in missing]
        # Of runs of an emitter at the same time, the earlier one: none is missed, and they are in order.
        self._after_us = list(accumulate((one.after_us for one in reversed(missing)), min))[::-1]
        self._counts = [0, *accumulate(len(one) for one in missing)]

    def count(self, begin_us: int, end_us: int, *, since_us_max: int | None = None) -> int:
        """How many numbers were to come between these times. ``since_us_max``: known to be missing by then."""
        first, last = bisect_left(self._since_us, begin_us), bisect_right(self._after_us, end_us)
        if since_us_max is not None:
            last = min(last, bisect_right(self._since_us, since_us_max))
        return self._counts[last] - self._counts[first] if last > first else 0


def _before(since_us: int, minutes: TimeBits) -> int:
    """No earlier than this did an emitter send what came before ``since_us``, by the minutes in which anything came.

    That may have been in the minute of ``since_us`` or in the one with anything before it. Of a time of which minutes
    are not known any more, an hour before is taken.
    """
    minute = since_us // WINDOW_US
    behind = minutes.top - minute + 1  # The bit of the minute before.
    if behind >= minutes.size:
        return since_us - 60 * WINDOW_US
    earlier = minutes.bits >> max(0, behind)
    if not earlier:
        return (minutes.top - minutes.size + 1) * WINDOW_US
    distance = (earlier & -earlier).bit_length() - 1
    return (minutes.top - max(0, behind) - distance) * WINDOW_US
