"""The emitters in a partition's ledger: numbers seen once, whoever counts them, however often they crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logweir import config
from logweir.audit.books import read_books
from logweir.audit.emitters import EmitterBooks
from logweir.config import AccountingSettings
from logweir.event import day_of
from logweir.ledger.documents import EMITTER, PartitionId
from logweir.ledger.emitter import EmitterState, place_of
from logweir.ledger.tracker import Losses, Tracker
from logweir.outcomes import Outcome
from logweir.record import REASONS_MAX, Accepted, Batch, Body, Kind, Marker, Record
from logweir.store.port import Store
from logweir_workers.accounting.emitters import REASONS_OF_EMITTER_MAX, FirstDays
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.settled import SettledRecord
from tests.crashing import Crash, CrashingStore

EPOCH = b"\x07" * 16
MINUTE_US = 60_000_000
WINDOW = 29_000_000
START_US = WINDOW * MINUTE_US
DAY_US = 86_400_000_000
LIMITS = AccountingSettings(late_after_s=60)


def batch(
    first: int | None,
    count: int,
    *,
    at_us: int = START_US,
    emitter: str | None = "web",
    epoch: str | None = "e1",
    **fields: Any,
) -> Batch:
    values = {"high": None, "previous": None, "dropped": None, "bye": False, **fields}
    return Batch(
        id=b"\x01" * 16,
        received_us=at_us,
        key="app",
        emitter=emitter,
        epoch=epoch,
        sequence_first=first,
        source_address="10.0.0.9",
        format="json",
        stamp=None,
        index_first=0,
        events=[b"{}"] * count,
        **values,
    )


@dataclass
class Book:
    """A claimed ledger, and the door that numbers what it is given."""

    store: Store
    limits: AccountingSettings = LIMITS
    topic_id: str = "t"
    next_number: int = 1
    offset: int = 0
    ledger: PartitionLedger = field(init=False)

    def __post_init__(self) -> None:
        self.claim()

    def claim(self) -> None:
        self.ledger = PartitionLedger.claim(
            store=self.store, group="g", topic_id=self.topic_id, partition=0, owner="me", settings=self.limits
        )

    def make_topic_anew(self) -> None:
        self.ledger.flush()
        self.topic_id, self.offset = self.topic_id + "t", 0
        self.claim()

    def possible(self, *batches: Batch) -> dict[int, list[str]]:
        """On which days these may have come; they are not taken."""
        count = sum(len(one.events) for one in batches)
        record = Record(Kind.DATA, EPOCH, self.next_number, count, batches[0].received_us // MINUTE_US, list(batches))
        return self.ledger.expect(record, self.offset).possible

    def books(self) -> EmitterBooks:
        self.ledger.flush()
        found = read_books(self.store, group="g", late_us=self.limits.late_us, now_us=self.ledger.watermark_us)
        return found.emitters["app", "web"]

    def take_natural(self, first: int, count: int, *, at_us: int = START_US) -> None:
        """Events that bring their own numbers along, without a run."""
        bare, natural = batch(None, count, at_us=at_us, epoch=None), batch(first, count, at_us=at_us, epoch=None)
        record = Record(Kind.DATA, EPOCH, self.next_number, count, at_us // MINUTE_US, [bare])
        self.next_number += count
        self.ledger.load([record], [natural])
        self.ledger.settle(SettledRecord(record, self.offset, [Outcome.INDEXED] * count, natural=[natural]))
        self.offset += 1

    def take(self, *batches: Batch, outcomes: Sequence[Outcome] | None = None) -> FirstDays:
        count = sum(len(one.events) for one in batches)
        record = Record(Kind.DATA, EPOCH, self.next_number, count, batches[0].received_us // MINUTE_US, list(batches))
        self.next_number += count
        other_days = self.ledger.expect(record, self.offset)
        settle(self.ledger, record, self.offset, outcomes or [Outcome.INDEXED] * count)
        self.offset += 1
        return other_days

    def tracker(self, epoch: str = "e1", emitter: str | None = "web") -> Tracker:
        return self.state(emitter).epochs[epoch]

    def state(self, emitter: str | None = "web") -> EmitterState:
        place = place_of(("app", emitter), PartitionId(self.topic_id, 0))
        return EmitterState.from_body(place, EMITTER.read(self.store.ledger, "g", [place])[place].body)

    def losses(self, epoch: str = "e1") -> Losses:
        return self.tracker(epoch).losses(watermark_us=self.ledger.watermark_us, late_us=60_000_000)


def settle(ledger: PartitionLedger, record: Record, offset: int, outcomes: Sequence[Outcome]) -> bool:
    ledger.load([record])
    return ledger.settle(SettledRecord(record, offset, outcomes))


def test_a_gap_is_missing_then_lost_then_recovered(store: Store) -> None:
    """By the receipt times of what comes behind it in the queue, not by the clock of whoever works that off."""
    book = Book(store)
    book.take(batch(1, 2))
    book.take(batch(5, 1))
    book.ledger.flush()
    fresh = book.losses()
    book.take(batch(6, 1, at_us=START_US + 61_000_000))
    book.ledger.flush()
    late = book.losses()
    book.take(batch(3, 1, at_us=START_US + 62_000_000))
    book.ledger.flush()
    after = book.losses()

    assert (fresh.missing, fresh.lost) == (2, 0)
    assert (late.missing, late.lost, late.recovered) == (0, 2, 0)
    assert (after.missing, after.lost, after.recovered) == (0, 2, 1)
    assert book.tracker().lost_ranges(watermark_us=book.ledger.watermark_us, late_us=60_000_000) == [(4, 4)]


def test_a_queue_that_is_worked_off_late_makes_nothing_lost(store: Store) -> None:
    """An hour of lag changes nothing: the missing number was received a second after the gap showed."""
    book = Book(store)
    book.take(batch(2, 1))
    book.take(batch(1, 1, at_us=START_US + 1_000_000))
    book.ledger.flush()

    assert book.losses() == Losses()


def test_what_is_missing_is_lost_in_time_although_nobody_sends(store: Store) -> None:
    """An empty queue lets the watermark follow the clock, until nothing more can become lost by it."""
    book = Book(store)
    book.take(batch(3, 1))
    book.ledger.flush()
    book.ledger.idle(START_US + 30_000_000)
    book.ledger.flush()
    between = book.losses()
    book.ledger.idle(START_US + 61_000_000)
    written = book.ledger.flush()
    book.ledger.idle(START_US + 90_000_000)

    assert (between.missing, between.lost) == (2, 0)
    assert written == 1
    assert (book.losses().missing, book.losses().lost) == (0, 2)
    assert book.ledger.flush() is None


def test_heartbeats_goodbyes_drops_and_the_next_run_bound_the_tail(store: Store) -> None:
    """What a crash would hide shows: numbers made and never sent, and the end of the run before."""
    book = Book(store)
    book.take(batch(1, 3))
    book.take(batch(None, 0, high=5))
    book.take(batch(None, 0, high=5, dropped={"queue_overflow": 2}))
    book.take(batch(1, 1, epoch="e2", previous=("e1", 9)))
    book.take(batch(2, 1, epoch="e2", bye=True))
    book.ledger.flush()

    assert book.tracker("e1").top == 9
    assert book.losses("e1") == Losses(missing=4, dropped=2)
    assert book.tracker("e2").bye
    assert book.tracker("e2").previous == ("e1", 9)
    assert book.losses("e2") == Losses()


def test_a_run_of_which_nothing_came_is_missing_when_the_next_one_names_it(store: Store) -> None:
    """Of an emitter known before; of a new one nobody knows what it sent to whom."""
    book = Book(store)
    book.take(batch(1, 1, epoch="e3", previous=("e2", 500)))
    book.take(batch(1, 1, epoch="e5", previous=("e4", 40)))
    book.ledger.flush()

    assert sorted(book.state().epochs) == ["e3", "e4", "e5"]
    assert book.losses("e4").missing == 40


def test_a_retry_on_another_day_is_known_before_it_is_indexed(store: Store) -> None:
    """Also while the first one is not settled yet, after a restart, and never for what is new or of the same day."""
    book = Book(store)
    book.take(batch(1, 3))
    book.ledger.flush()
    record = Record(Kind.DATA, EPOCH, 4, 2, WINDOW, [batch(4, 2)])
    on_the_way = book.ledger.expect(record, 1)
    retried = Record(Kind.DATA, EPOCH, 6, 4, WINDOW + 1440, [batch(3, 4, at_us=START_US + DAY_US)])
    before = book.ledger.expect(retried, 2)
    book.claim()
    after = book.ledger.expect(retried, 2)
    same_day = book.ledger.expect(Record(Kind.DATA, EPOCH, 6, 2, WINDOW, [batch(1, 2)]), 3)

    assert on_the_way.known == {}
    assert before.known == {0: "20250219", 1: "20250219", 2: "20250219"}
    assert after.known == {0: "20250219"}
    assert same_day.known == {}


def test_where_a_number_may_have_come_that_is_only_counted_is_known(store: Store) -> None:
    """Beyond gaps_max on the days of which some such came, and no others; the store can be asked about those."""
    book = Book(store, AccountingSettings(gaps_max=1))
    for day, numbers in enumerate(((1, 3), (5,), (7, 9, 11))):
        for number in numbers:
            book.take(batch(number, 1, at_us=START_US + day * DAY_US))
    next_day_us = START_US + 3 * DAY_US

    assert book.possible(batch(1, 2, at_us=next_day_us)) == {0: ["20250219"], 1: ["20250219"]}
    assert book.possible(batch(5, 1, at_us=next_day_us)) == {0: ["20250220"]}
    assert book.possible(batch(5, 1, at_us=START_US + DAY_US)) == {}
    assert book.possible(batch(11, 2, at_us=next_day_us)) == {}


def test_of_a_number_that_came_long_ago_every_day_is_possible(store: Store) -> None:
    """Since the emitter was first heard of, at most as far back as books are kept."""
    book = Book(store, AccountingSettings(gaps_max=1, retention_days=15))
    for day in range(20):
        book.take(batch(2 * day + 1, 1, at_us=START_US + day * DAY_US))
    possible = book.possible(batch(1, 1, at_us=START_US + 20 * DAY_US))[0]

    assert possible[0] == day_of(START_US + 5 * DAY_US)
    assert possible[-1] == day_of(START_US + 19 * DAY_US)
    assert len(possible) == len(set(possible)) == 15


@pytest.mark.parametrize("limits", [AccountingSettings(epochs_max=2), AccountingSettings(emitters_max=1)])
def test_of_who_is_not_tracked_the_day_before_is_possible(store: Store, limits: AccountingSettings) -> None:
    """A run that is no longer, or an emitter that there was no room for; also while the first try is on its way."""
    book = Book(store, limits)
    book.take(batch(1, 1, emitter="other"))
    for epoch in ("e1", "e2", "e3"):
        book.take(batch(1, 3, epoch=epoch))
    found = book.possible(batch(2, 1, at_us=START_US + DAY_US))
    on_the_way = Record(Kind.DATA, EPOCH, 99, 1, WINDOW, [batch(9, 1)])
    retried = Record(Kind.DATA, EPOCH, 100, 2, WINDOW + 1440, [batch(8, 2, at_us=START_US + DAY_US)])
    book.ledger.expect(on_the_way, book.offset)

    assert found == {0: ["20250219"]}
    assert book.ledger.expect(retried, book.offset + 1).known == {1: "20250219"}


def test_an_emitter_goes_on_in_a_topic_that_is_made_anew(store: Store) -> None:
    """What was lost and comes in the new topic is recovered; a retry of what came in the old one changes nothing."""
    book = Book(store)
    book.take(batch(1, 6))
    book.take(batch(8, 3))
    book.take(batch(11, 1, at_us=START_US + 100_000_000))
    seen = [book.books()]
    book.make_topic_anew()
    seen.append(book.books())
    moves = ((12, 3, 101), (9, 1, 102), (7, 1, 103), (15, 1, 300), (1, 2, 301))
    for first, count, at_s in moves:
        book.take(batch(first, count, at_us=START_US + at_s * 1_000_000))
        seen.append(book.books())
    book.make_topic_anew()
    book.take(batch(16, 1, at_us=START_US + 400_000_000))
    seen.append(book.books())

    assert [(one.total("lost"), one.total("recovered")) for one in seen] == [(1, 0)] * 4 + [(1, 1)] * 4
    assert seen[-1].total("created") == 16
    assert [run.tracker.accepted for run in seen[-1].runs] == [16]


def test_runs_that_are_no_longer_tracked_count_once_in_a_topic_that_is_made_anew(store: Store) -> None:
    """Also when it is the new topic's ledger that lets go of one; and when days were forgotten with it."""
    book = Book(store, AccountingSettings(epochs_max=2))
    for at in range(3):
        book.take(batch(2, 1, epoch=f"e{at}"))
    before = book.books()
    book.make_topic_anew()
    for at in range(3, 5):
        book.take(batch(2, 1, epoch=f"e{at}", at_us=START_US + 100_000_000))
    after = book.books()
    next_day_us = START_US + DAY_US

    assert (before.total("created"), before.total("missing")) == (6, 2)
    assert (after.total("created"), after.total("lost"), after.total("missing")) == (10, 3, 2)
    assert book.possible(batch(2, 1, epoch="e0", at_us=next_day_us)) == {0: ["20250219"]}


def test_what_a_worker_writes_of_the_old_topic_after_all_is_not_missing(store: Store) -> None:
    """One that had counted more than was written when the new topic's ledger began."""
    book = Book(store)
    book.take(batch(1, 1))
    book.ledger.flush()
    book.take(batch(2, 1))
    late = book.ledger
    book.topic_id, book.offset = "tt", 0
    book.claim()
    book.take(batch(3, 1))
    book.ledger.flush()
    late.flush()
    books = book.books()

    assert (books.total("created"), books.total("missing"), books.total("lost")) == (3, 0, 0)


natural_runs = [
    ([(500, 3), (1, 3), (4, 3)], [("run 1", 500, 502), ("run 2", 1, 6)]),  # It was restarted.
    ([(500, 3), (2, 2), (4, 3)], [("run 1", 500, 502), ("run 2", 2, 6)]),  # Its number 1 was lost.
    ([(50, 2), "late", (1, 3), (4, 60)], [("run 1", 50, 51), ("run 2", 1, 63)]),  # A short one was restarted.
    ([(3, 2), (1, 1), (2, 1), (5, 1)], [("run 1", 1, 5)]),  # It sends on two ways.
    ([(201, 100), (101, 100), (1, 100), (301, 1)], [("run 1", 1, 301)]),
    ([(101, 100), "late", (90, 11), (201, 1)], [("run 1", 90, 201)]),  # A little out of order, and late.
    ([(1, 3), (2, 1), (1, 3), (1, 1)], [("run 1", 1, 3), ("run 2", 1, 3), ("run 3", 1, 1)]),
]


@pytest.mark.parametrize(("moves", "runs"), natural_runs)
def test_a_source_that_counts_from_the_beginning_begins_a_run(
    store: Store, moves: list[tuple[int, int] | str], runs: list[tuple[str, int, int]]
) -> None:
    """Also one that was in the middle when it was first heard of; a little out of order is no beginning."""
    book = Book(store)
    at_us = START_US
    for move in moves:
        if isinstance(move, str):
            at_us += 61_000_000
        else:
            book.take_natural(*move, at_us=at_us)
    book.ledger.flush()
    book.ledger.idle(at_us + 600_000_000)
    books = book.books()

    assert [(run.tracker.epoch, run.tracker.start, run.tracker.top) for run in books.runs] == runs
    assert books.total("lost") == books.total("missing") == 0


def test_a_repeated_record_and_a_partly_known_one_count_only_what_is_new(store: Store) -> None:
    """Numbers of the door decide, not offsets: each is counted once, also behind the marker, with a line of its own."""
    book = Book(store)
    first = Record(Kind.DATA, EPOCH, 1, 4, WINDOW, [batch(1, 4)])
    marker: Body = Marker([Accepted("app", "web", 6, 0)], [])
    settled = [
        settle(book.ledger, first, 0, [Outcome.INDEXED] * 4),
        settle(book.ledger, Record(Kind.MARKER, EPOCH, 1, 6, WINDOW, marker), 1, []),
        settle(book.ledger, first, 2, [Outcome.INDEXED] * 4),
        settle(book.ledger, Record(Kind.DATA, EPOCH, 3, 4, WINDOW, [batch(3, 4)]), 3, [Outcome.INDEXED] * 4),
    ]
    book.ledger.flush()
    (window,) = store.ledger.scan("window:")

    assert settled == [True, True, False, True]
    assert window.body["numbers"] == [[1, 6]]
    assert window.body["outcomes"][0]["indexed"] == 6
    assert window.body["amendments"] == [{"offset": 3, "first": 3, "last": 6, "count": 2}]


def test_numbers_that_fell_into_a_hole_of_the_queue_are_known_exactly(store: Store) -> None:
    """Where a later record of the process survives, the numbers before it that nobody read are named."""
    book = Book(store)
    book.take(batch(1, 3))
    book.ledger.expire(1, 4)
    record = Record(Kind.DATA, EPOCH, 9, 1, WINDOW, [batch(9, 1)])
    settle(book.ledger, record, 5, [Outcome.INDEXED])
    late = Record(Kind.DATA, EPOCH, 2, 1, WINDOW, [batch(2, 1)])
    settle(book.ledger, late, 6, [Outcome.INDEXED])
    book.ledger.pass_over(7)
    settle(book.ledger, Record(Kind.MARKER, EPOCH, 1, 12, WINDOW, Marker([], [])), 8, [])
    settle(book.ledger, Record(Kind.DATA, EPOCH, 15, 1, WINDOW + 1, [batch(15, 1)]), 9, [Outcome.INDEXED])
    book.ledger.flush()
    body = store.ledger.read(["position:g:t:0"])["position:g:t:0"].body

    assert body["lost"] == {EPOCH.hex(): [[4, 8], [10, 14]]}
    assert body["expired"] == [[1, 4]]
    assert body["unreadable"] == [[7, 7]]


def test_a_record_that_came_out_of_order_and_expired_is_lost_by_the_marker(store: Store) -> None:
    """From a spool, behind higher numbers, and gone before it was read: the window's marker tells which it was."""
    book = Book(store)
    book.take(batch(1, 3))
    settle(book.ledger, Record(Kind.DATA, EPOCH, 6, 1, WINDOW, [batch(6, 1)]), 1, [Outcome.INDEXED])
    book.ledger.expire(2, 2)
    settle(book.ledger, Record(Kind.MARKER, EPOCH, 1, 6, WINDOW, Marker([], [(5, 5)])), 3, [])
    settle(book.ledger, Record(Kind.DATA, EPOCH, 7, 1, WINDOW + 1, [batch(7, 1)]), 4, [Outcome.INDEXED])
    settle(book.ledger, Record(Kind.DATA, EPOCH, 8, 1, WINDOW + 2, [batch(8, 1)]), 5, [Outcome.INDEXED])
    settle(book.ledger, Record(Kind.MARKER, EPOCH, 8, 3, WINDOW + 2, Marker([], [])), 6, [])
    book.ledger.flush()

    assert store.ledger.read(["position:g:t:0"])["position:g:t:0"].body["lost"] == {EPOCH.hex(): [[4, 4]]}


def test_a_hole_may_have_numbers_of_the_window_after_the_marker_that_came_first(store: Store) -> None:
    """A window's marker is written when the next one has begun: what that one had sent by then may be gone, too."""
    book = Book(store)
    book.ledger.expire(0, 3)
    settle(book.ledger, Record(Kind.MARKER, EPOCH, 1, 2, WINDOW, Marker([], [])), 4, [])
    settle(book.ledger, Record(Kind.MARKER, EPOCH, 3, 1, WINDOW + 1, Marker([], [])), 5, [])
    settle(book.ledger, Record(Kind.MARKER, EPOCH, 4, 2, WINDOW + 2, Marker([], [(4, 5)])), 6, [])
    book.ledger.flush()

    assert store.ledger.read(["position:g:t:0"])["position:g:t:0"].body["lost"] == {EPOCH.hex(): [[1, 5]]}


def test_memory_and_store_stay_within_their_settings(store: Store) -> None:
    """Beyond the limits an emitter's batches are still counted in their window; of old runs the sums stay."""
    limits = AccountingSettings(emitters_max=5, emitters_in_memory_max=2, epochs_max=2, gaps_max=3)
    book = Book(store, limits)
    for at in range(8):
        book.take(batch(2, 1, emitter=f"web-{at}"))
        book.ledger.flush()
    for at in range(4):
        book.take(batch(1, 1, emitter="web-0", epoch=f"run-{at}"))
        book.ledger.flush()
    for number in range(2, 40, 2):
        book.take(batch(number, 1, emitter="web-1", epoch="gaps"))
    book.ledger.flush()
    (window,) = store.ledger.scan("window:")

    assert len(list(store.ledger.scan("emitter:g:"))) == 5
    assert len(book.ledger.emitters._entries) <= 2
    assert sum(row["indexed"] for row in window.body["outcomes"]) == 8 + 4 + 19
    assert list(book.state("web-0").epochs) == ["run-2", "run-3"]
    assert book.state("web-0").retired == {
        "epochs": 3,
        "created": 4,
        "accepted": 3,
        "lost": 1,
        "recovered": 0,
        "dropped": 0,
        "jumped": 0,
    }
    assert len(book.tracker("gaps", "web-1").gaps) == 3
    assert book.tracker("gaps", "web-1").accepted == 19


def test_what_all_runs_of_an_emitter_leave_behind_stays_within_its_limits(store: Store) -> None:
    """Its document is written each time that anything comes of it: the oldest runs are only counted."""
    book = Book(store, AccountingSettings(gaps_max=10, epochs_max=20))
    reasons = {f"reason-{at}": 1 for at in range(REASONS_MAX)}
    for run in range(20):
        for number in range(2, 14, 2):
            book.take(batch(number, 1, epoch=f"run-{run}"))
        book.take(batch(None, 0, epoch=f"run-{run}", dropped=reasons))
    books = book.books()
    runs = list(book.state("web").epochs.values())

    assert [len(run.gaps) for run in runs] == [0] * 18 + [4, 6]
    assert sum(len(run.dropped) for run in runs) == REASONS_OF_EMITTER_MAX
    assert len(runs[-1].dropped) == REASONS_MAX
    assert books.total("dropped") == 20 * REASONS_MAX
    assert books.total("created") == 20 * 12
    assert books.total("accepted") == 20 * 6


# --- crashes ------------------------------------------------------------------------------------------------------
moves = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 4), st.integers(0, 2), st.integers(0, 80), st.booleans()),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)  # Each example writes to a disk that others use, too.
@given(moves=moves, crashes=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6)), max_size=4))
def test_a_crash_between_any_two_writes_changes_no_number(
    moves: list[tuple[int, int, int, int, bool]],
    crashes: list[tuple[int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever was written when it died, the next one ends with the documents of one who never crashed."""
    records: list[Record] = []
    number, at_us = 1, START_US
    for first, count, emitter, seconds, repeated in moves:
        at_us += seconds * 1_000_000
        one = batch(first, count, at_us=at_us, emitter=f"web-{emitter}", high=first + count)
        records.append(Record(Kind.DATA, EPOCH, number, count, at_us // MINUTE_US, [one]))
        number += count
        if repeated:
            records.append(records[-1])
    plain, crashing = (
        CrashingStore(config.load(environment={}, overrides={"data_dir": tmp_path_factory.mktemp("b")}).store)
        for _ in range(2)
    )
    for store in (plain, crashing):
        store.prepare()
    run(plain, records, [])
    run(crashing, records, list(crashes))

    assert documents_of(crashing) == documents_of(plain)
    plain.close()
    crashing.close()


def run(store: CrashingStore, records: Sequence[Record], crashes: list[tuple[int, int]]) -> None:
    ledger = PartitionLedger.claim(store=store, group="g", topic_id="t", partition=0, owner="one", settings=LIMITS)
    since_flush = 0
    while (offset := ledger.next_offset or 0) < len(records) or since_flush:
        try:
            if offset < len(records):
                record = records[offset]
                ledger.expect(record, offset)
                settle(ledger, record, offset, [Outcome.INDEXED] * record.count)
                since_flush += 1
            if crashes and since_flush >= crashes[0][0]:
                with store.dying(crashes.pop(0)[1]):
                    ledger.flush()
                since_flush = 0
            elif offset + 1 >= len(records):
                ledger.flush()
                since_flush = 0
        except Crash:
            since_flush = 0
            ledger = PartitionLedger.claim(
                store=store, group="g", topic_id="t", partition=0, owner="2", settings=LIMITS
            )


def documents_of(store: Store) -> dict[str, dict[str, Any]]:
    # Who wrote it and up to where; what only says until when to look again; what only a limit is held against.
    personal = ("owner", "position", "due_us", "emitters", "emitters_by_key")
    return {
        document.id: {name: value for name, value in document.body.items() if name not in personal}
        for document in store.ledger.scan("")
    }
