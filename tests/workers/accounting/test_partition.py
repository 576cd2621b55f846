"""The ledger of a partition: absolute values, whoever writes them and however often."""

from __future__ import annotations

import pytest

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.documents import WindowId
from logweir.outcomes import Outcome
from logweir.record import Accepted, Batch, Body, Kind, Marker, Record
from logweir.store.port import Store
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.settled import SettledRecord

EPOCH = b"\x07" * 16
WINDOW = 29_000_000
WINDOW_ID = f"window:logweir:t:3:{EPOCH.hex()}:{WINDOW}"
POSITION_ID = "position:logweir:t:3"


def claimed(store: Store, owner: str = "one") -> PartitionLedger:
    return PartitionLedger.claim(store=store, group="logweir", topic_id="t", partition=3, owner=owner)


def batch(count: int, emitter: str | None = None) -> Batch:
    return Batch(
        id=b"\x01" * 16,
        received_us=WINDOW * 60_000_000,
        key="app",
        emitter=emitter,
        epoch=None,
        sequence_first=None,
        high=None,
        previous=None,
        dropped=None,
        bye=False,
        source_address="127.0.0.1",
        format="json",
        stamp=None,
        index_first=0,
        events=[b"{}"] * count,
    )


def data(first: int, *counts: int) -> Record:
    body: Body = [batch(count, f"emitter-{at}" if at else None) for at, count in enumerate(counts)]
    return Record(Kind.DATA, EPOCH, first, sum(counts), WINDOW, body)


def settle(ledger: PartitionLedger, offset: int, record: Record, outcomes: list[Outcome] | None = None) -> bool:
    ledger.load([record])
    return ledger.settle(SettledRecord(record, offset, outcomes or [Outcome.INDEXED] * record.count))


def outcomes_of(store: Store) -> dict[str | None, tuple[int, int, int, int]]:
    body = store.ledger.read([WINDOW_ID])[WINDOW_ID].body
    return {
        row["emitter"]: (row["indexed"], row["duplicate"], row["filtered"], row["dead_lettered"])
        for row in body["outcomes"]
    }


def test_outcomes_are_counted_by_emitter(store: Store) -> None:
    """Each event's outcome lands with the emitter whose batch it was in."""
    ledger = claimed(store)
    settle(ledger, 0, data(1, 2, 2), [Outcome.INDEXED, Outcome.DEAD_LETTERED, Outcome.DUPLICATE, Outcome.INDEXED])
    offset = ledger.flush()

    assert offset == 1
    assert outcomes_of(store) == {None: (1, 0, 0, 1), "emitter-1": (1, 1, 0, 0)}
    assert store.ledger.read([WINDOW_ID])[WINDOW_ID].body["numbers"] == [[1, 4]]


def test_the_next_owner_goes_on_where_the_position_is(store: Store) -> None:
    """What was flushed is not counted again; what was not flushed is."""
    first = claimed(store)
    settle(first, 0, data(1, 3))
    first.flush()
    settle(first, 1, data(4, 3))
    second = claimed(store, "two")
    resumed_at = second.next_offset
    settle(second, 1, data(4, 3))
    second.flush()

    assert resumed_at == 1
    assert outcomes_of(store) == {None: (6, 0, 0, 0)}


def test_a_window_written_ahead_of_the_position_is_not_counted_twice(store: Store) -> None:
    """A crash between the window's write and the position's leaves the position behind; the window knows better."""
    first = claimed(store)
    settle(first, 0, data(1, 3))
    first.flush()
    position = store.ledger.read([POSITION_ID])[POSITION_ID]
    settle(first, 1, data(4, 3))
    first.flush()
    store.ledger.write([position])
    second = claimed(store, "two")
    resumed_at = second.next_offset
    settle(second, 1, data(4, 3))
    settle(second, 2, data(7, 1))
    second.flush()

    assert resumed_at == 1
    assert outcomes_of(store) == {None: (7, 0, 0, 0)}


def test_a_repeated_record_has_no_outcome(store: Store) -> None:
    """The same numbers under another offset are a record sent twice: nothing is counted, the position moves."""
    ledger = claimed(store)
    settled = settle(ledger, 0, data(1, 3))
    repeated = settle(ledger, 1, data(1, 3))
    ledger.flush()

    assert settled
    assert not repeated
    assert outcomes_of(store) == {None: (3, 0, 0, 0)}
    assert store.ledger.read([POSITION_ID])[POSITION_ID].body["next_offset"] == 2


def test_a_marker_closes_its_window_and_a_repeat_after_it_is_still_known(store: Store) -> None:
    """A closed window leaves the memory, yet a record that comes again is recognised from the store."""
    ledger = claimed(store)
    marker = Record(Kind.MARKER, EPOCH, 1, 3, WINDOW, Marker([Accepted("app", None, 3, 0)], [(9, 9)]))
    settle(ledger, 0, data(1, 3))
    settle(ledger, 1, marker, [])
    settle(ledger, 2, marker, [])
    ledger.flush()
    repeated = settle(ledger, 3, data(1, 3))
    ledger.flush()
    body = store.ledger.read([WINDOW_ID])[WINDOW_ID].body

    assert body["closed"]
    assert body["voids"] == [[9, 9]]
    assert body["marker"] == {
        "first": 1,
        "last": 3,
        "accepted": [{"key": "app", "emitter": None, "accepted": 3, "unconfirmed": 0}],
    }
    assert not repeated
    assert outcomes_of(store) == {None: (3, 0, 0, 0)}


def test_a_zombie_writes_nothing_over_its_successor(store: Store) -> None:
    """A worker that was stopped and comes back finds its claim lost, and the books as its successor left them."""
    zombie = claimed(store)
    settle(zombie, 0, data(1, 3))
    successor = claimed(store, "two")
    settle(successor, 0, data(1, 3))
    settle(successor, 1, data(4, 3))
    successor.flush()
    with pytest.raises(LogweirError) as caught:
        zombie.flush()

    assert caught.value.problem is CLAIM_LOST
    assert caught.value.numbers["partition"] == 3
    assert caught.value.numbers["owner"] == "two"
    assert outcomes_of(store) == {None: (6, 0, 0, 0)}
    assert store.ledger.read([POSITION_ID])[POSITION_ID].body["next_offset"] == 2


def test_expired_offsets_are_noted_and_passed_over(store: Store) -> None:
    """What retention took before it was read stays in the books as a range."""
    ledger = claimed(store)
    ledger.expire(0, 41)
    offset = ledger.flush()
    body = store.ledger.read([POSITION_ID])[POSITION_ID].body

    assert offset == 42
    assert body["expired"] == [[0, 41]]
    assert claimed(store, "two").next_offset == 42


def test_a_queue_that_lost_its_end_gives_offsets_out_again(store: Store) -> None:
    """After an unclean election the same offsets hold other records: they are counted, not taken for the old ones."""
    ledger = claimed(store)
    settle(ledger, 0, data(1, 2))
    settle(ledger, 1, data(3, 2))
    ledger.rewind(1)
    settle(ledger, 1, data(5, 2))
    offset = ledger.flush()

    assert offset == 2
    assert outcomes_of(store) == {None: (6, 0, 0, 0)}


def test_a_queue_that_goes_back_again_and_again_is_remembered_to_a_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first times only the lowest offset; a window from before all of them is not taken for counted."""
    monkeypatch.setattr("logweir_workers.accounting.partition.REWINDS_MAX", 2)
    ledger = claimed(store)
    for offset in range(4):
        settle(ledger, offset, data(offset + 1, 1))
    ledger.flush()
    old = store.ledger.read([WINDOW_ID])
    for offset in (3, 1, 2, 2):
        ledger.rewind(offset)
    ledger.flush()
    store.ledger.write(list(old.values()))
    body = store.ledger.read([POSITION_ID])[POSITION_ID].body
    after = claimed(store, "two")
    after.load([data(9, 1)])
    true_for = after.windows._windows[WindowId("t", 3, EPOCH.hex(), WINDOW)].position
    after.expire(0, 0)
    settle(after, 1, data(9, 1))
    after.flush()
    written = store.ledger.read([WINDOW_ID])[WINDOW_ID]

    assert (body["rewinds"], body["rewinds_before"]) == ([1, 2], 2)
    assert true_for == 1
    assert written.body["rewinds"] == 4


def test_what_the_queue_lost_is_kept_of_so_many_processes_and_until_it_is_carried(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit, and of processes whose books begin behind it, only how many numbers there were is kept."""
    monkeypatch.setattr("logweir_workers.accounting.streams.LOST_EPOCHS_MAX", 2)
    ledger = claimed(store)
    for at, epoch in enumerate((b"\x01" * 16, b"\x02" * 16, b"\x03" * 16)):
        for offset, first in ((3 * at, 1), (3 * at + 2, 5)):
            settle(ledger, offset, Record(Kind.DATA, epoch, first, 1, WINDOW, [batch(1)]))
            ledger.expire(offset + 1, offset + 1)
    ledger.flush()
    kept = store.ledger.read([POSITION_ID])[POSITION_ID].body
    ledger.streams.forget_lost({("02" * 16, 3): 5, ("03" * 16, 3): 4, ("02" * 16, 4): 9})
    ledger.flush()
    left = store.ledger.read([POSITION_ID])[POSITION_ID].body

    assert (kept["lost"], kept["lost_before"]) == ({"02" * 16: [[2, 4]], "03" * 16: [[2, 4]]}, 3)
    assert (left["lost"], left["lost_before"]) == ({"03" * 16: [[2, 4]]}, 6)


def test_a_record_of_window_zero_stops_nobody(store: Store) -> None:
    """No clock of a door gives it, but whoever may write to the topic can: it is counted like any other."""
    ledger = claimed(store)
    record = Record(Kind.DATA, EPOCH, 1, 2, 0, [batch(2)])
    settled = settle(ledger, 0, record)

    assert settled
    assert ledger.flush() == 1


def test_nothing_changed_writes_nothing(store: Store) -> None:
    """An idle partition costs no write a second."""
    ledger = claimed(store)
    before = ledger.flush()
    settle(ledger, 0, data(1, 1))
    ledger.flush()

    assert before is None
    assert ledger.flush() is None
