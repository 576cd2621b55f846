"""What reading the books costs: memory for emitters, not for emitters times minutes."""

from __future__ import annotations

import tracemalloc

from logweir.audit.books import Books, read_books
from logweir.audit.sums import every_window
from logweir.ledger.documents import WINDOW as WINDOW_KIND
from logweir.ledger.documents import WindowId
from logweir.ledger.window import Counts, Promise, Promises, Window
from logweir.store.port import Store
from logweir_workers.accounting.partition import PartitionLedger

EPOCH = b"\x07" * 16
WINDOW = 29_000_000
EMITTERS = 200
EVENTS = 5
NOW_US = (WINDOW + 1000) * 60_000_000


def fill(store: Store, first: int, count: int) -> None:
    """Closed windows that balance, each with events of all emitters."""
    ledger = PartitionLedger.claim(store=store, group="g", topic_id="t", partition=0, owner="me")
    for at in range(first, first + count):
        window = Window(WindowId("t", 0, EPOCH.hex(), WINDOW + at))
        low, high = at * EMITTERS * EVENTS + 1, (at + 1) * EMITTERS * EVENTS
        window.numbers.add(low, high)
        names = [f"host-{number:05}" for number in range(EMITTERS)]
        window.outcomes = {("app", name): Counts(indexed=EVENTS) for name in names}
        window.marker = Promises(low, high, {("app", name): Promise(EVENTS) for name in names})
        store.ledger.write([ledger.document(WINDOW_KIND, window.place, window.as_body())])


def peak_of(store: Store) -> tuple[int, Books]:
    tracemalloc.start()
    try:
        books = read_books(store, group="g", late_us=1, now_us=NOW_US)
        return tracemalloc.get_traced_memory()[1], books
    finally:
        tracemalloc.stop()


def test_reading_ten_times_as_many_windows_takes_no_more_memory(store: Store) -> None:
    """Closed windows that balance are only added up; who asks for them gets them all the same."""
    fill(store, 0, 5)
    peak_of(store)  # What is imported and kept from the first time on does not count.
    few, _ = peak_of(store)
    fill(store, 5, 45)
    many, books = peak_of(store)
    every = read_books(store, group="g", late_us=1, now_us=NOW_US, keeps=every_window)

    assert books.row.accepted == books.row.outcomes["indexed"] == 50 * EMITTERS * EVENTS
    assert (books.balanced, books.states, books.windows) == (True, {"balanced": 50}, [])
    assert all(one.row.accepted == 50 * EVENTS for one in books.emitters.values())
    assert (len(every.windows), every.row, every.states) == (50, books.row, books.states)
    assert many < 1.2 * few
