"""Intervals against a plain set: the same numbers, the same gaps, whatever the order and however often."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from logweir.ledger.intervals import Intervals

ranges = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1])))


def numbers_of(pairs: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in pairs for number in range(first, last + 1)}


def test_more_numbers_than_a_size_may_be_are_counted() -> None:
    """What senders choose may be larger than ``sys.maxsize``, at which ``len`` fails."""
    intervals = Intervals([(1, 2**64), (2**65, 2**66)])

    assert intervals.count == 2**64 + 2**65 + 1
    assert intervals and not Intervals()


@given(ranges)
def test_any_order_and_repetition_gives_the_same_set(pairs: list[tuple[int, int]]) -> None:
    """What add says is new is what a set would have gained; the ranges are merged and sorted."""
    intervals, seen = Intervals(), set()
    for first, last in pairs:
        new = set(range(first, last + 1)) - seen
        seen |= new

        assert intervals.add(first, last) == len(new)

    assert numbers_of(list(intervals)) == seen
    assert intervals.count == len(seen)
    flat = list(intervals)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(flat))


@given(ranges, st.integers(1, 70), st.integers(0, 30))
def test_gaps_are_what_a_set_would_miss(pairs: list[tuple[int, int]], first: int, length: int) -> None:
    """Gaps and cover agree with a brute-force set between any two numbers."""
    intervals = Intervals(pairs)
    missing = set(range(first, first + length + 1)) - numbers_of(pairs)

    assert numbers_of(list(intervals.gaps(first, first + length))) == missing
    assert intervals.covers(first, first + length) == (not missing)


def test_an_empty_range_adds_nothing() -> None:
    """A record without events covers no number."""
    intervals = Intervals([(5, 9)])

    assert intervals.add(10, 9) == 0
    assert list(intervals) == [(5, 9)]


@given(ranges, st.integers(1, 70), st.integers(-1, 30))
def test_what_is_taken_out_or_looked_for_is_what_a_set_would_say(
    pairs: list[tuple[int, int]], first: int, length: int
) -> None:
    """Removing and cutting out agree with a set of numbers, and the ranges stay sorted and apart."""
    last = first + length
    intervals, numbers = Intervals(pairs), numbers_of(pairs)
    inside = numbers & set(range(first, last + 1))
    found = list(intervals.within(first, last))
    removed = intervals.remove(first, last)
    left = list(intervals)

    assert numbers_of(found) == inside
    assert removed == len(inside)
    assert numbers_of(left) == numbers - inside
    assert intervals.max == max(numbers - inside, default=0)
    assert intervals.range_count == len(left)
    assert all(low <= high for low, high in [*found, *left])
    assert all(one[1] < other[0] for one, other in pairwise(left))
