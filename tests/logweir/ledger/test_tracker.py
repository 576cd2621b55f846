"""One epoch's tracker against brute force: every number by itself, whatever the order, repeats and restarts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.ledger.intervals import Intervals
from logweir.ledger.tracker import DAYS_MAX, JUMP_MIN, JUMP_PER_S, Losses, Tracker, united
from logweir.outcomes import Outcome
from logweir.record import NUMBER_MAX, REASONS_MAX

LATE_US = 60
MANY = 10_000
DAY = "20260131"

arrivals = st.tuples(st.just("arrive"), st.integers(1, 40), st.integers(1, 6))
reaches = st.tuples(st.just("reach"), st.integers(0, 45), st.just(0))
drops = st.tuples(st.just("drop"), st.integers(0, 9), st.integers(0, 1))
waits = st.tuples(st.just("wait"), st.integers(1, 70), st.just(0))
restarts = st.tuples(st.just("restart"), st.just(0), st.just(0))
histories = st.lists(arrivals | reaches | waits | restarts, max_size=30)
histories_with_drops = st.lists(arrivals | reaches | drops | waits | restarts, max_size=30)


@dataclass
class Brute:
    """Every number by itself: when it was first missed, whether it was ever lost, whether it came."""

    now: int = 1000
    top: int = 0
    since: dict[int, int] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)

    def look(self) -> None:
        self.lost |= {number for number, since in self.since.items() if since + LATE_US <= self.now}

    def reach(self, high: int) -> None:
        self.since.update(dict.fromkeys(range(self.top + 1, high + 1), self.now))
        self.top = max(self.top, high)

    def arrive(self, first: int, count: int) -> list[Outcome]:
        self.look()
        self.reach(first - 1)
        numbers = range(first, first + count)
        outcomes = [Outcome.DUPLICATE if number in self.seen else Outcome.INDEXED for number in numbers]
        for number in numbers:
            self.since.pop(number, None)
        self.seen.update(numbers)
        self.top = max(self.top, first + count - 1)
        return outcomes


def test_reasons_for_what_was_dropped_are_bounded_and_their_sum_is_exact() -> None:
    """Reasons beyond those that one request may name are summed up, those named longest ago first, over any rebirth."""
    tracker = Tracker("e")
    for number in range(500):
        reasons = {f"reason-{number}-{at}": 2**53 - 1 for at in range(1, REASONS_MAX)}
        tracker.drop({"usual": number, **reasons}, watermark_us=0, late_us=LATE_US)
        tracker = reborn(tracker)

    assert tracker.dropped_count == 500 * (REASONS_MAX - 1) * (2**53 - 1) + 499
    assert len(orjson.dumps(tracker.as_body())) < 10_000
    assert (len(tracker.dropped), tracker.dropped["usual"]) == (REASONS_MAX, 499)
    assert sum(tracker.dropped_by_reason.values()) == tracker.dropped_count
    assert tracker.dropped_by_reason["other"] == tracker.dropped_other > 0
    assert united([tracker, tracker]).dropped_count == tracker.dropped_count


def test_an_emitter_that_names_all_its_reasons_each_time_is_never_summed_up() -> None:
    """As many as fit into one request are told apart, one that is called as the sum of others included."""
    tracker = Tracker("e")
    for number in range(1, 4):
        reasons = {**{f"r{at}": number for at in range(REASONS_MAX - 1)}, "other": number}
        tracker.drop(reasons, watermark_us=0, late_us=LATE_US)

    assert tracker.dropped_by_reason == {**{f"r{at}": 3 for at in range(REASONS_MAX - 1)}, "other": 3}
    tracker.drop({"one more": 5}, watermark_us=0, late_us=LATE_US)
    assert tracker.dropped_by_reason["other"] == 3 + 3


def reborn(tracker: Tracker) -> Tracker:
    return Tracker.from_body(json.loads(json.dumps(tracker.as_body())))


def play(history: list[tuple[str, int, int]], *, ranges_max: int = MANY) -> tuple[Tracker, Brute, list[Losses]]:
    tracker, brute, seen = Tracker("e"), Brute(), []
    for what, one, two in history:
        if what == "arrive":
            outcomes = brute.arrive(one, two)
            tracker.arrive(one, outcomes, day=DAY, watermark_us=brute.now, late_us=LATE_US, ranges_max=ranges_max)
        elif what == "reach":
            brute.reach(one)
            tracker.reach(one, watermark_us=brute.now, ranges_max=ranges_max)
        elif what == "drop":
            tracker.drop({f"reason_{two}": one}, watermark_us=brute.now, late_us=LATE_US)
        elif what == "wait":
            brute.now += one
            brute.look()
        else:
            tracker = reborn(tracker)
        seen.append(tracker.losses(watermark_us=brute.now, late_us=LATE_US))
    brute.look()
    return tracker, brute, seen


def numbers_of(ranges: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(histories)
def test_gaps_are_those_of_brute_force(history: list[tuple[str, int, int]]) -> None:
    """Missing, lost with its numbers, and recovered are what looking at each number by itself gives."""
    tracker, brute, _ = play(history)
    losses = tracker.losses(watermark_us=brute.now, late_us=LATE_US)
    late = {number for number, since in brute.since.items() if since + LATE_US <= brute.now}

    assert numbers_of(list(tracker.seen)) == brute.seen
    assert tracker.accepted == len(brute.seen)
    assert losses.lost == len(brute.lost)
    assert losses.recovered == len(brute.lost & brute.seen)
    assert losses.missing == len(brute.since) - len(late)
    assert numbers_of(tracker.lost_ranges(watermark_us=brute.now, late_us=LATE_US)) == late


@given(histories_with_drops)
def test_what_an_emitter_made_is_accounted_for_and_counts_never_fall(history: list[tuple[str, int, int]]) -> None:
    """created = accepted + dropped + lost + missing, unless more is said to be dropped than is missing."""
    tracker, _, seen = play(history)
    losses = seen[-1] if seen else Losses()
    absent = tracker.top - tracker.accepted

    assert losses.net + losses.missing == max(0, absent - losses.dropped)
    assert all(one.lost <= other.lost and one.recovered <= other.recovered for one, other in pairwise(seen))


@given(histories, st.integers(1, 4))
def test_a_tracker_with_too_many_gaps_keeps_counts_exact(history: list[tuple[str, int, int]], ranges_max: int) -> None:
    """The oldest gaps are only counted then, as lost; what of them comes after all is recovered."""
    tracker, brute, seen = play(history, ranges_max=ranges_max)
    losses = seen[-1] if seen else Losses()

    assert len(tracker.gaps) <= ranges_max
    assert tracker.accepted == len(brute.seen)
    assert tracker.top == brute.top
    assert tracker.accepted + losses.net + losses.missing == brute.top
    assert all(one.lost <= other.lost for one, other in pairwise(seen))


def test_gaps_that_are_only_counted_take_no_room() -> None:
    """Numbers of which every second one is missing stay a few ranges."""
    tracker = Tracker("e")
    for number in range(1, 20_001, 2):
        tracker.arrive(number, [Outcome.INDEXED], day=DAY, watermark_us=0, late_us=LATE_US, ranges_max=50)

    assert len(tracker.gaps) <= 50
    assert tracker.seen.range_count <= 51
    assert tracker.accepted == 10_000
    assert tracker.losses(watermark_us=10**9, late_us=LATE_US).lost == 9_999


def test_a_report_of_drops_that_comes_late_heals_what_was_called_lost() -> None:
    """Lost stays in the count, what explains it joins the recovered; the number of each reason only grows."""
    tracker = Tracker("e")
    tracker.reach(10, watermark_us=0, ranges_max=MANY)
    before = tracker.losses(watermark_us=100, late_us=LATE_US)
    tracker.drop({"queue_overflow": 4}, watermark_us=100, late_us=LATE_US)
    tracker.drop({"queue_overflow": 3}, watermark_us=100, late_us=LATE_US)
    after = tracker.losses(watermark_us=100, late_us=LATE_US)

    assert (before.lost, before.net, before.recovered) == (10, 10, 0)
    assert (after.lost, after.net, after.recovered, after.dropped) == (10, 6, 4, 4)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(0, 4), st.booleans()), max_size=25))
def test_each_number_belongs_to_the_day_on_which_it_came_first(moves: list[tuple[int, int, int, bool]]) -> None:
    """Whatever comes again later, earlier, or after a restart."""
    tracker, days = Tracker("e"), dict[int, str]()
    for first, count, day_number, restarts in moves:
        day = f"2026010{day_number}"
        last = first + count - 1
        found = {
            number: known
            for low, high, known in tracker.on_other_days(first, last, day)
            for number in range(low, high + 1)
        }

        assert found == {n: days[n] for n in range(first, last + 1) if n in days and days[n] != day}

        outcomes = [Outcome.INDEXED] * count
        tracker.arrive(first, outcomes, day=day, watermark_us=0, late_us=LATE_US, ranges_max=MANY)
        for number in range(first, last + 1):
            days.setdefault(number, day)
        tracker = reborn(tracker) if restarts else tracker


day_moves = st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(0, 11), st.booleans())


@given(st.lists(day_moves, max_size=40), st.integers(1, 3))
def test_of_numbers_that_are_only_counted_the_days_on_which_they_may_have_come_are_known(
    moves: list[tuple[int, int, int, bool]], ranges_max: int
) -> None:
    """Never the wrong ones only: the day is among them, or it was long ago; above the floor it is known."""
    tracker, days = Tracker("e"), dict[int, str]()
    for first, count, day_number, restarts in moves:
        day = f"202601{day_number:02}"
        last = first + count - 1
        sure = {n: known for low, high, known in tracker.on_other_days(first, last, day) for n in range(low, high + 1)}
        perhaps = [
            (n, known)
            for low, high, known in tracker.perhaps_on_other_days(first, last, day)
            for n in range(low, high + 1)
        ]

        for number in range(first, last + 1):
            if days.get(number, day) != day:
                assert sure.get(number) in (days[number], "") or {(number, days[number]), (number, "")} & set(perhaps)
            else:
                assert number not in sure
        assert len(tracker.below) <= DAYS_MAX + 1

        outcomes = [Outcome.DUPLICATE if n in days else Outcome.INDEXED for n in range(first, last + 1)]
        tracker.arrive(first, outcomes, day=day, watermark_us=0, late_us=LATE_US, ranges_max=ranges_max)
        for number in range(first, last + 1):
            days.setdefault(number, day)
        tracker = reborn(tracker) if restarts else tracker


def test_of_numbers_that_are_only_counted_none_is_called_recovered_that_may_have_come_before() -> None:
    """What is filtered or a dead letter was not looked up in the store: it may be a retry."""
    tracker = Tracker("e")
    for number in (1, 3, 5, 7):
        tracker.arrive(number, [Outcome.INDEXED], day=DAY, watermark_us=0, late_us=LATE_US, ranges_max=1)
    for outcome in (Outcome.FILTERED, Outcome.DEAD_LETTERED, Outcome.DUPLICATE):
        tracker.arrive(1, [outcome], day=DAY, watermark_us=100, late_us=LATE_US, ranges_max=1)
    before = tracker.losses(watermark_us=100, late_us=LATE_US)
    tracker.arrive(2, [Outcome.INDEXED], day=DAY, watermark_us=100, late_us=LATE_US, ranges_max=1)

    assert (before.lost, before.recovered) == (3, 0)
    assert tracker.losses(watermark_us=100, late_us=LATE_US) == Losses(lost=3, recovered=1)


def test_days_of_long_ago_are_known_as_such() -> None:
    """A tracker that lives for months does not keep each of its days apart."""
    tracker = Tracker("e")
    for day in range(1, 30):
        tracker.arrive(day, [Outcome.INDEXED], day=f"202601{day:02}", watermark_us=0, late_us=LATE_US, ranges_max=MANY)

    assert len(tracker.earlier) <= DAYS_MAX + 1
    assert list(tracker.on_other_days(1, 1, "20260130")) == [(1, 1, "")]
    assert list(tracker.on_other_days(28, 29, "20260130")) == [(28, 28, "20260128"), (29, 29, "20260129")]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2)), min_size=1, max_size=30))
def test_partitions_that_share_an_epoch_are_missing_only_what_all_miss(moves: list[tuple[int, int, int]]) -> None:
    """The union of their trackers has the gaps that one tracker of everything would have."""
    parts = [Tracker("e") for _ in range(3)]
    numbers = Intervals()
    for first, count, at in moves:
        parts[at].arrive(first, [Outcome.INDEXED] * count, day=DAY, watermark_us=5, late_us=LATE_US, ranges_max=MANY)
        numbers.add(first, first + count - 1)
    whole = united(parts)

    assert list(whole.seen) == list(numbers)
    assert whole.lost_ranges(watermark_us=5 + LATE_US, late_us=LATE_US) == list(numbers.gaps(1, numbers.max))
    assert whole.losses(watermark_us=5, late_us=LATE_US).lost == 0


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2)), min_size=1, max_size=30))
def test_natural_numbers_are_exact_in_the_range_that_they_cover(moves: list[tuple[int, int, int]]) -> None:
    """From the lowest that came to the highest, on whichever partitions; before and behind it nothing is claimed."""
    parts = [Tracker("e", natural=True) for _ in range(3)]
    numbers = Intervals()
    for first, count, at in moves:
        if not parts[at].created:
            parts[at] = Tracker("e", natural=True, start=first, top=first - 1)
        parts[at].arrive(first, [Outcome.INDEXED] * count, day=DAY, watermark_us=5, late_us=LATE_US, ranges_max=MANY)
        numbers.add(first, first + count - 1)
    whole = united([part for part in parts if part.created])
    lowest = min(first for first, _, _ in moves)

    assert whole.start == lowest
    assert whole.created == numbers.max - lowest + 1
    assert whole.lost_ranges(watermark_us=5 + LATE_US, late_us=LATE_US) == list(numbers.gaps(lowest, numbers.max))
    assert whole.accepted == numbers.count


def test_natural_numbers_beyond_the_room_for_gaps_stay_counted_as_lost() -> None:
    """Every second number never comes, and few gaps are kept: what is lost only grows, and is right to the event."""
    tracker = Tracker("e", natural=True)
    lost = []
    for number in range(1, 3001, 2):
        tracker.arrive(number, [Outcome.INDEXED], day=DAY, watermark_us=number, late_us=LATE_US, ranges_max=10)
        lost.append(tracker.losses(watermark_us=10**9, late_us=LATE_US).lost)
    tracker.arrive(2, [Outcome.INDEXED], day=DAY, watermark_us=3001, late_us=LATE_US, ranges_max=10)

    assert lost == list(range(1500))
    assert tracker.losses(watermark_us=10**9, late_us=LATE_US) == Losses(lost=1499)
    assert tracker.created == 2999


# --- jumps --------------------------------------------------------------------------------------------------------
SECOND_US = 1_000_000
DAY_S = 86_400


def heard(number: int, *, at_s: int = 0, ranges_max: int = MANY) -> Tracker:
    """One that has sent 1 to ``number``, and was heard of at ``at_s`` last."""
    tracker = Tracker("e")
    come(tracker, 1, number, at_s=at_s, ranges_max=ranges_max)
    return tracker


def come(tracker: Tracker, first: int, count: int = 1, *, at_s: int = 0, ranges_max: int = MANY) -> None:
    outcomes = [Outcome.INDEXED] * count
    times = {"watermark_us": at_s * SECOND_US, "late_us": LATE_US * SECOND_US}
    tracker.arrive(first, outcomes, day=DAY, ranges_max=ranges_max, **times)
    tracker.last_us = max(1, at_s * SECOND_US)


def losses(tracker: Tracker) -> Losses:
    return tracker.losses(watermark_us=DAY_S * SECOND_US * 1_000, late_us=LATE_US * SECOND_US)


def holds(tracker: Tracker) -> bool:
    found = losses(tracker)
    return tracker.created == tracker.accepted + found.dropped + found.net + found.missing


def test_numbers_that_cannot_have_been_counted_up_to_are_jumped_over_and_not_lost() -> None:
    """Neither missing nor lost, however late; and what comes of them after all was made, and has come."""
    tracker = heard(10)
    come(tracker, NUMBER_MAX)
    of_high = heard(10)
    of_high.reach(NUMBER_MAX, watermark_us=0, ranges_max=MANY)

    for one in (tracker, reborn(tracker), of_high):
        assert (losses(one).lost, losses(one).missing, losses(one).recovered) == (0, 0, 0)
        assert one.jumped == NUMBER_MAX - 10 - (one is not of_high)
        assert one.lost_ranges(watermark_us=DAY_S * SECOND_US, late_us=1) == []
        assert holds(one)
    come(tracker, 5_000, 7)
    assert (tracker.created, tracker.accepted, losses(tracker).recovered) == (18, 18, 0)
    assert tracker.jumps() == [(11, 4_999), (5_007, NUMBER_MAX - 1)]
    assert holds(reborn(tracker))


@pytest.mark.parametrize(
    ("quiet_s", "gap", "jumped"), [(0, 0, False), (0, 1, True), (DAY_S, 0, False), (DAY_S, 1, True)]
)
def test_what_an_emitter_can_have_counted_since_it_was_heard_of_is_lost(quiet_s: int, gap: int, jumped: bool) -> None:
    """A billion at once, and a million for each second of its silence."""
    tracker = heard(10, at_s=100)
    most = max(JUMP_MIN, quiet_s * JUMP_PER_S)
    come(tracker, 10 + most + gap + 1, at_s=100 + quiet_s)

    assert (losses(tracker).lost, tracker.jumped) == ((0, most + 1) if jumped else (most, 0))
    assert holds(tracker)


def test_what_is_only_counted_of_jumps_is_no_loss() -> None:
    """Their pieces are gaps among the others, which are only counted when there are too many."""
    tracker = heard(1)
    come(tracker, NUMBER_MAX - 1)
    for number in range(10, 60, 2):
        come(tracker, number, ranges_max=5)

    assert (tracker.floor > 10, len(tracker.gaps)) == (True, 5)
    assert (losses(tracker).lost, tracker.accepted, tracker.jumped) == (0, 27, NUMBER_MAX - 1 - 27)
    assert holds(reborn(tracker))


def test_a_jump_on_one_partition_hides_no_loss_on_another() -> None:
    """What one of them believes to be missing is missing; what only the other's jump passed over is not."""
    whole, other = heard(10), heard(1)
    come(whole, 21)
    come(other, NUMBER_MAX)
    both = united([whole, other])

    assert (losses(both).lost, both.jumps()) == (10, [(22, NUMBER_MAX - 1)])
    assert holds(both)


@given(numbers=st.lists(st.tuples(st.integers(1, 60), st.sampled_from((0, JUMP_MIN * 2, JUMP_MIN * 5))), max_size=40))
def test_whatever_jumps_the_equation_holds(numbers: list[tuple[int, int]]) -> None:
    """In any order, and with few gaps kept."""
    tracker = Tracker("e", last_us=1)
    sent = set()
    for small, base in numbers:
        come(tracker, base + small, ranges_max=4)
        sent.add(base + small)
        tracker = reborn(tracker)
        assert holds(tracker)
    if not tracker.floor:
        assert tracker.accepted == len(sent)
