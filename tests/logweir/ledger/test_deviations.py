"""What is kept of numbers that were not simply indexed: exactly these, once, and no more than there is room for."""

from __future__ import annotations

import json
from typing import Any

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st

from logweir.config import AccountingSettings
from logweir.ledger.deviations import BEYOND_RANGES_MAX, Deviations
from logweir.ledger.documents import WINDOW as WINDOW_KIND
from logweir.ledger.documents import WindowId
from logweir.outcomes import Outcome
from logweir.record import Body, Kind, Record
from logweir.store.port import Store
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.settled import SettledRecord
from tests.workers.helpers import batch

EPOCH = b"\x07" * 16
WINDOW = 29_000_000
INDEXED, DUPLICATE, DEAD = Outcome.INDEXED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED


@given(st.lists(st.tuples(st.sampled_from(list(Outcome)), st.sampled_from([None, "a", "b"])), max_size=60), st.data())
def test_each_number_is_kept_under_its_own_outcome_and_reason(
    events: list[tuple[Outcome, str | None]], data: st.DataObject
) -> None:
    """However the numbers are cut into records, what comes back is what went in; indexed ones are not in it."""
    deviations, at = Deviations(), 0
    while at < len(events):
        size = data.draw(st.integers(1, len(events)))
        piece = events[at : at + size]
        reasons = {place + 3: reason for place, (_, reason) in enumerate(piece) if reason}
        deviations.add(at + 1, [outcome for outcome, _ in piece], reasons, place=3, key="app", ranges_max=10**6)
        at += size
    again = Deviations.from_body(json.loads(json.dumps(deviations.as_body())))
    low, high = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))

    found = {number: why for why, ranges in again.within(low, high) for a, b in ranges for number in range(a, b + 1)}
    wanted = {number: why for number, why in enumerate(events, start=1) if low <= number <= high}
    assert found == {number: why for number, why in wanted.items() if why[0] is not INDEXED}
    assert not again.beyond


def test_without_room_the_first_ranges_stay_and_of_the_rest_it_is_known_where_it_is() -> None:
    """A range that is there may grow; a new one may not come."""
    deviations = Deviations()
    unkept = [
        deviations.add(1, [DUPLICATE, INDEXED, DUPLICATE], {}, place=0, key="app", ranges_max=2),
        deviations.add(4, [DUPLICATE, INDEXED, DUPLICATE, DUPLICATE], {}, place=0, key="app", ranges_max=2),
        deviations.add(8, [INDEXED, DEAD, INDEXED], {1: "store_refused"}, place=0, key="app", ranges_max=2),
    ]

    assert unkept == [0, 2, 1]
    assert list(deviations.within(1, 99)) == [((DUPLICATE, None), [(1, 1), (3, 4)])]
    assert list(deviations.beyond) == [(6, 7), (9, 9)]


def test_what_one_sender_leaves_unkept_makes_no_other_senders_numbers_unknown() -> None:
    """Batches of one that is a duplicate in every second number, and between them others' that are all indexed."""
    deviations, at, others = Deviations(), 1, []
    for _ in range(20):
        deviations.add(at, [DUPLICATE, INDEXED] * 5_000, {}, place=0, key="app", ranges_max=10)
        others.append((at + 10_000, at + 10_199))
        deviations.add(at + 10_000, [INDEXED] * 200, {}, place=0, key="app", ranges_max=10)
        at += 10_200
    again = Deviations.from_body(json.loads(json.dumps(deviations.as_body())))

    assert again.beyond.range_count <= BEYOND_RANGES_MAX
    assert not [one for first, last in others for one in again.beyond.within(first, last)]
    assert again.beyond.covers(10_201, 20_199)


def test_who_has_filled_the_room_leaves_others_a_tenth_of_it_each() -> None:
    """However a worker dies in between; what each key has is its own."""
    deviations = Deviations()
    for number in range(1, 100, 2):
        deviations.add(number, [DUPLICATE], {}, place=0, key="evil", ranges_max=20)
        deviations = Deviations.from_body(json.loads(json.dumps(deviations.as_body())))
    unkept = [
        deviations.add(100 + 2 * at, [DUPLICATE], {}, place=0, key=key, ranges_max=20)
        for at, key in enumerate(("web", "db", "web", "evil", "web", "db"))
    ]

    assert unkept == [0, 0, 0, 1, 1, 0]
    assert list(deviations.beyond.within(100, 110)) == [(106, 106), (108, 108)]


def test_a_ledger_of_an_earlier_version_has_one_range_of_unkept_numbers() -> None:
    """And an earlier version finds it in ours."""
    deviations = Deviations.from_body({"kept": [], "beyond": [6, 9]})
    deviations.add(20, [DUPLICATE], {}, place=0, key="app", ranges_max=0)

    assert list(deviations.beyond) == [(6, 9), (20, 20)]
    assert deviations.as_body()["beyond"] == [6, 20]


def claimed(store: Store, exceptions_max: int = 10) -> PartitionLedger:
    settings = AccountingSettings(exceptions_max=exceptions_max)
    return PartitionLedger.claim(store=store, group="g", topic_id="t", partition=3, owner="one", settings=settings)


def settle(ledger: PartitionLedger, offset: int, first: int, outcomes: list[Outcome], reasons: dict[int, str]) -> None:
    body: Body = [batch(*[b"{}"] * len(outcomes), received_us=WINDOW * 60_000_000)]
    record = Record(Kind.DATA, EPOCH, first, len(outcomes), WINDOW, body)
    ledger.load([record])
    ledger.settle(SettledRecord(record, offset, outcomes, reasons))


def written(store: Store) -> dict[str, Any]:
    place = WindowId("t", 3, EPOCH.hex(), WINDOW)
    return WINDOW_KIND.read(store.ledger, "g", [place])[place].body


def kept(store: Store) -> list[tuple[str, str | None, list[list[int]]]]:
    body = written(store)["deviations"]
    return [(row["outcome"], row["reason"], row["numbers"]) for row in body["kept"]]


def test_a_successor_that_repeats_the_work_changes_nothing(store: Store) -> None:
    """A worker dies after the window was written: who takes over may see other outcomes, and the first ones stay."""
    first = claimed(store)
    settle(first, 0, 1, [INDEXED, DEAD, DUPLICATE], {1: "event_unreadable"})
    first.flush()
    second = claimed(store)
    settle(second, 0, 1, [DUPLICATE] * 3, {})
    settle(second, 1, 2, [DUPLICATE] * 3, {})
    second.flush()

    assert kept(store) == [("dead_lettered", "event_unreadable", [[2, 2]]), ("duplicate", None, [[3, 4]])]


def test_what_there_is_no_room_for_is_counted_in_a_metric(store: Store) -> None:
    """Beyond accounting.exceptions_max outcomes are still counted by emitter; a metric says that receipts lose them."""
    name = "logweir_worker_receipt_outcomes_unkept_total"
    before = prometheus_client.REGISTRY.get_sample_value(name) or 0.0
    ledger = claimed(store, exceptions_max=1)
    settle(ledger, 0, 1, [DEAD, INDEXED, DEAD], {0: "store_refused", 2: "store_refused"})
    ledger.flush()
    body = written(store)

    assert kept(store) == [("dead_lettered", "store_refused", [[1, 1]])]
    assert body["deviations"]["beyond"] == [3, 3]
    assert body["outcomes"][0]["dead_lettered"] == 2
    assert prometheus_client.REGISTRY.get_sample_value(name) == before + 1
