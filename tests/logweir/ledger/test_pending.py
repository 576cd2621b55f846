"""What is pending of an ingest process, against a plain set of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logweir.ledger.pending import RANGES_MAX, PendingNumbers

NUMBER = st.integers(1, 30)
STEP = st.tuples(st.sampled_from(("skip", "arrive", "marker", "expire")), NUMBER, st.integers(0, 5))


@given(st.lists(STEP, max_size=40))
def test_what_expires_is_what_was_covered_and_never_came(steps: list[tuple[str, int, int]]) -> None:
    """Whatever comes in between, also when it is written down and read again at every step."""
    pending, uncovered, covered = PendingNumbers(), set[int](), dict[int, int]()
    for now_us, (what, first, more) in enumerate(steps):
        numbers = range(first, first + more + 1)
        pending = PendingNumbers.from_body(pending.as_body())
        if what == "skip":
            new = [number for number in numbers if number not in covered]
            for number in new:
                pending.skip(number, number)
            uncovered.update(new)
        elif what == "arrive":
            pending.arrive(numbers[0], numbers[-1])
            uncovered.difference_update(numbers)
            covered = {number: since for number, since in covered.items() if number not in numbers}
        elif what == "marker":
            moved = {number for number in uncovered if number <= first}

            assert pending.marker_seen(first, now_us) == bool(moved)
            uncovered -= moved
            covered |= dict.fromkeys(moved, now_us)
        else:
            lost = {number for low, high in pending.expire(now_us - more) for number in range(low, high + 1)}

            assert lost == {number for number, since in covered.items() if since <= now_us - more}
            covered = {number: since for number, since in covered.items() if number not in lost}
        left = {number for low, high, _ in pending.as_body() for number in range(low, high + 1)}

        assert left == uncovered | covered.keys()


def test_what_is_too_much_to_keep_expires() -> None:
    """The oldest ranges, at once: what nobody can follow is not called on its way."""
    pending = PendingNumbers()
    for number in range(RANGES_MAX + 2):
        pending.skip(2 * number + 1, 2 * number + 1)

    assert list(pending.expire(0)) == [(1, 1), (3, 3)]
    assert len(pending.as_body()) == RANGES_MAX
