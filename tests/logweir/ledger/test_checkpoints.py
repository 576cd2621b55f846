"""What stood at some offsets: few rows, and never a record taken for another."""

from hypothesis import example, given
from hypothesis import strategies as st

from logweir.ledger.checkpoints import Checkpoints


def record(number: int) -> bytes:
    return b"LWR1" + number.to_bytes(8, "big") * 20


@given(count=st.integers(1, 3000), kept=st.integers(0, 3000))
@example(count=578, kept=386)
@example(count=2999, kept=10)
def test_the_last_record_in_place_is_found_as_near_as_its_distance(count: int, kept: int) -> None:
    """Of a log that was set back to ``kept`` records and written on: never one that is not there, seldom far before."""
    known = Checkpoints()
    for offset in range(count):
        known.note(offset, record(offset))
        if offset % 700 == 699:
            known = Checkpoints(known.as_rows())
    known = Checkpoints(known.as_rows())
    kept = min(kept, count)
    last = known.last_in_place(lambda offset: record(offset) if offset < kept else record(2**60 + offset))

    assert len(known.as_rows()) <= 64
    assert known.newest == count - 1
    assert last is None or last < kept
    lost = count - kept
    assert kept - 1 - (-1 if last is None else last) <= 2 * lost + 1


def test_what_the_queue_has_lost_is_forgotten() -> None:
    """Behind a rewind other records get these offsets."""
    known = Checkpoints()
    for offset in range(10):
        known.note(offset, record(offset))
    known.forget_from(4)

    assert known.newest == 3
    assert Checkpoints().newest is None
    assert Checkpoints().last_in_place(lambda _: b"") is None
