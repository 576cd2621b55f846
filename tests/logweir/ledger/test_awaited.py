"""What is awaited of an ingest process, against a plain set of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logweir.ledger.awaited import RANGES_MAX, Awaited

NUMBER = st.integers(1, 30)
STEP = st.tuples(st.sampled_from(("overtake", "come", "tell", "give_up")), NUMBER, st.integers(0, 5))


@given(st.lists(STEP, max_size=40))
def test_given_up_is_what_was_told_of_and_never_came(steps: list[tuple[str, int, int]]) -> None:
    """Whatever comes in between, also when it is written down and read again at every step."""
    awaited, untold, told = Awaited(), set[int](), dict[int, int]()
    for now_us, (what, first, more) in enumerate(steps):
        numbers = range(first, first + more + 1)
        awaited = Awaited.from_body(awaited.as_body())
        if what == "overtake":
            new = [number for number in numbers if number not in told]
            for number in new:
                awaited.overtake(number, number)
            untold.update(new)
        elif what == "come":
            awaited.come(numbers[0], numbers[-1])
            untold.difference_update(numbers)
            told = {number: since for number, since in told.items() if number not in numbers}
        elif what == "tell":
            moved = {number for number in untold if number <= first}

            assert awaited.tell(first, now_us) == bool(moved)
            untold -= moved
            told |= dict.fromkeys(moved, now_us)
        else:
            lost = {number for low, high in awaited.give_up(now_us - more) for number in range(low, high + 1)}

            assert lost == {number for number, since in told.items() if since <= now_us - more}
            told = {number: since for number, since in told.items() if number not in lost}
        left = {number for low, high, _ in awaited.as_body() for number in range(low, high + 1)}

        assert left == untold | told.keys()


def test_what_is_too_much_to_keep_is_given_up() -> None:
    """The oldest ranges, at once: what nobody can follow is not called on its way."""
    awaited = Awaited()
    for number in range(RANGES_MAX + 2):
        awaited.overtake(2 * number + 1, 2 * number + 1)

    assert list(awaited.give_up(0)) == [(1, 1), (3, 3)]
    assert len(awaited.as_body()) == RANGES_MAX
