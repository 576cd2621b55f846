"""TimeBits of minutes and hours: the same, in whatever order and however often they are marked, alone and united."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logweir.ledger.cadence import HOURS, MINUTES, Cadence, TimeBits, united_bits, united_cadence

_TIMES = st.lists(st.integers(1000, 1200), max_size=40)


def kept(times: list[int], size: int) -> set[int]:
    """By brute force: the times that are not ``size`` or more behind the latest one."""
    return {at for at in times if at > max(times) - size}


def as_set(bits: TimeBits) -> set[int]:
    return {bits.top - k for k in range(bits.size) if bits.bits >> k & 1}


@given(_TIMES, st.integers(1, 150))
def test_bits_know_the_latest_times_in_whatever_order_they_are_marked(times: list[int], size: int) -> None:
    """As a set of the times does; a time that is marked again changes nothing, and says so."""
    bits = TimeBits(size)
    for at in times:
        bits.mark(at)

    assert as_set(bits) == kept(times, size)
    assert not any(bits.mark(at) for at in times)
    assert TimeBits.from_body(size, bits.as_body()) == bits
    assert not times or bits.first == min(kept(times, size))


@given(st.lists(_TIMES, max_size=5), st.integers(1, 150))
def test_what_partitions_have_heard_is_the_union(parts: list[list[int]], size: int) -> None:
    """Whoever of them has heard it, and whether or not one of them has heard nothing."""
    rows = []
    for times in parts:
        bits = TimeBits(size)
        for at in times:
            bits.mark(at)
        rows.append(bits)
    together = [at for times in parts for at in times]

    assert as_set(united_bits(size, rows)) == kept(together, size)


def test_a_rhythm_has_a_day_of_minutes_and_five_weeks_of_hours() -> None:
    """What is older is forgotten, in the ledger and in memory alike."""
    cadence = Cadence()
    for day in range(50):
        assert cadence.mark(day * 86_400_000_000)
        assert not cadence.mark(day * 86_400_000_000 + 59_999_999)
    again = Cadence.from_body(cadence.as_body())

    assert again == Cadence(cadence.minutes, cadence.hours, again._body)
    assert (again.minutes.bits.bit_count(), again.hours.bits.bit_count()) == (1, 35)
    assert again.minutes.bits < 1 << MINUTES
    assert again.hours.bits < 1 << HOURS
    assert united_cadence([cadence, Cadence()]).hours == cadence.hours
