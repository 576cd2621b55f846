"""The books: what balances, what does not, and what is said of it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir import cli
from logweir.audit.books import Books, explain, read_books
from logweir.audit.close import close_process
from logweir.audit.span import EVERYTHING, Span
from logweir.audit.sums import every_window
from logweir.audit.volumes import read_volumes
from logweir.audit.windows import Context, reconciled
from logweir.config import AccountingSettings, Settings, sqlite_path
from logweir.event import Provenance, day_of, stream_of
from logweir.ledger.documents import HOUR_WINDOWS, StreamId, WindowId
from logweir.ledger.documents import WINDOW as WINDOW_KIND
from logweir.ledger.hours import is_complete
from logweir.ledger.revisions import Change, Correction, revise
from logweir.ledger.shares import Shares
from logweir.ledger.window import Promises, Window
from logweir.outcomes import Outcome
from logweir.queue import open_queue
from logweir.record import NUMBER_MAX, OTHERS, Accepted, Batch, Kind, Marker, Record, Void
from logweir.store.port import Store
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.settled import SettledRecord
from tests.contract.stores import index_numbers
from tests.workers.helpers import Door

EPOCH = b"\x07" * 16
MINUTE_US = 60_000_000
WINDOW = 29_000_000
START_US = WINDOW * MINUTE_US
LATE_US = 60_000_000
LATER_US = START_US + 10 * MINUTE_US
INDEXED, DUPLICATE, DEAD = Outcome.INDEXED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED


class Partition:
    """A ledger, and a door's records that go straight into it."""

    def __init__(self, store: Store, *, partition: int = 0, topic_id: str = "t", **settings: Any) -> None:
        self.store = store
        self.ledger = PartitionLedger.claim(
            store=store,
            group="logweir",
            topic_id=topic_id,
            partition=partition,
            owner="me",
            settings=AccountingSettings(late_after_s=60, **settings),
        )
        self.offset = self.ledger.next_offset or 0

    def data(self, first: int, *events: tuple[str | None, list[Outcome]], window: int = WINDOW, **fields: Any) -> None:
        batches = [batch(emitter, len(outcomes), window=window, **fields) for emitter, outcomes in events]
        outcomes = [outcome for _, some in events for outcome in some]
        self.settle(Record(Kind.DATA, EPOCH, first, len(outcomes), window, batches), outcomes)
        numbers = (first + at for at, outcome in enumerate(outcomes) if outcome is INDEXED)
        index_numbers(self.store, EPOCH, self.ledger.partition, numbers, received_us=window * MINUTE_US)

    def marker(
        self,
        first: int,
        count: int,
        accepted: dict[str | None, int],
        *,
        unconfirmed: int = 0,
        voids: list[tuple[int, int]] | None = None,
        window: int = WINDOW,
    ) -> None:
        rows = [Accepted("app", emitter, number, unconfirmed) for emitter, number in accepted.items()]
        self.settle(Record(Kind.MARKER, EPOCH, first, count, window, Marker(rows, voids or [])), [])

    def settle(self, record: Record, outcomes: list[Outcome], natural: Sequence[Batch] = ()) -> None:
        self.ledger.expect(record, self.offset)
        self.ledger.load([record], natural)
        self.ledger.settle(SettledRecord(record, self.offset, outcomes, natural=natural))
        self.offset += 1
        self.ledger.flush()

    def idle(self, now_us: int) -> None:
        """Nothing is left in the queue that was there at that time."""
        self.ledger.idle(now_us)
        self.ledger.flush()

    def hole(self, count: int) -> None:
        self.ledger.expire(self.offset, self.offset + count - 1)
        self.offset += count
        self.ledger.flush()


def batch(emitter: str | None, count: int, *, window: int = WINDOW, at_us: int | None = None, **fields: Any) -> Batch:
    values = {
        "epoch": None,
        "sequence_first": None,
        "high": None,
        "previous": None,
        "dropped": None,
        "bye": False,
        **fields,
    }
    return Batch(
        id=b"\x01" * 16,
        received_us=at_us or window * MINUTE_US,
        key="app",
        emitter=emitter,
        source_address="10.0.0.9",
        format="json",
        stamp=None,
        index_first=0,
        events=[b"{}"] * count,
        **values,
    )


def make_queue(settings: Settings, *, read: int) -> None:
    """The one that ``Partition`` has read so many records of; there are no more."""
    with closing(open_queue(settings.queue)) as queue:
        queue.prepare()
    with closing(sqlite3.connect(sqlite_path(settings.queue.url))) as file, file:
        file.execute("UPDATE topic SET id = 't'")
        file.execute("UPDATE partition SET next_offset = ? WHERE partition = 0", (read,))


def read(store: Store, span: Span = EVERYTHING, *, now_us: int = START_US + 100_000_000) -> Books:
    return read_books(store, group="logweir", late_us=LATE_US, now_us=now_us, span=span, keeps=every_window)


def test_nothing_accounted_for_balances(store: Store) -> None:
    """An empty ledger has no window that could not balance; of what nobody numbers nothing is said."""
    books = read(store)

    assert books.balanced
    assert books.as_json()["accepted"] == 0
    assert books.total("lost") is None


def test_a_closed_window_balances_to_the_event(store: Store) -> None:
    """The door's word and the worker's agree, by emitter and together."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED, INDEXED, DUPLICATE]), (None, [DEAD, INDEXED]))
    before = read(store)
    book.marker(1, 5, {"web": 3, None: 2})
    after = read(store).as_json()

    assert before.states == {"open": 1}
    assert after["balanced"]
    assert (after["accepted"], after["indexed"], after["duplicate"], after["dead_lettered"]) == (5, 3, 1, 1)
    assert after["in_flight"] == after["unconfirmed"] == after["imbalance"] == 0
    assert after["windows"] == {"balanced": 1}
    assert {row["name"]: row["accepted"] for row in after["emitters"]} == {"app": 2, "app/web": 3}


def test_one_too_few_of_one_emitter_and_one_too_many_of_another_do_not_cancel(store: Store) -> None:
    """Sums agree, the books do not."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 3), (None, [INDEXED]))
    book.marker(1, 4, {"web": 2, None: 2})

    assert read(store).imbalance == 1


@pytest.mark.parametrize(("accepted", "imbalance"), [(3, 0), (2, 1), (4, 1), (7, 4)])
def test_the_imbalance_is_by_how_many_events_the_two_sides_differ(store: Store, accepted: int, imbalance: int) -> None:
    """Whichever side has more."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 3))
    book.marker(1, 3, {"web": accepted})

    assert read(store).imbalance == imbalance


def test_what_a_closed_window_still_waits_for_is_in_flight_and_the_window_is_open(store: Store) -> None:
    """A record that is missing below the marker; when it comes after all, an amendment closes the books."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.marker(1, 5, {"web": 5})
    before = read(store)
    book.data(3, ("web", [INDEXED] * 3))
    after = read(store)
    (explained,) = explain(after)

    assert (before.imbalance, before.row.in_flight, before.states) == (0, 3, {"open": 1})
    assert next(explain(before))["not_arrived"] == [[3, 5]]
    assert (after.balanced, after.states, after.row.recovered_in_queue) == (True, {"balanced": 1}, 0)
    assert explained["amendments"] == [{"offset": 2, "first": 3, "last": 5, "count": 3}]


def test_what_has_not_come_with_its_windows_marker_nor_after_it_is_lost_in_the_queue(store: Store) -> None:
    """The broker lost what it had confirmed, and no offset shows it: it is no imbalance, but lost, with its numbers."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.data(6, ("web", [INDEXED]))
    book.marker(1, 6, {"web": 6})
    book.idle(START_US + MINUTE_US + LATE_US - 1)
    awaited = read(store)
    book = Partition(store)  # The next worker waits for it, too.
    book.idle(LATER_US)
    lost = read(store)

    assert (awaited.row.in_flight, awaited.row.lost_in_queue) == (3, 0)
    assert (lost.balanced, lost.states) == (True, {"balanced": 1})
    assert (lost.row.in_flight, lost.row.lost_in_queue, lost.row.unexplained, lost.total("lost")) == (0, 3, 0, 3)
    assert lost.as_json()["lost_in_queue_ranges"] == [{"partition": 0, "ingest_epoch": EPOCH.hex(), "ranges": [[3, 5]]}]
    assert next(explain(lost))["lost_in_queue_ranges"] == [[3, 5]]


def test_what_is_gone_together_with_its_windows_marker_is_lost_when_a_later_marker_has_come(store: Store) -> None:
    """A process that lives on shows it: nothing stays in flight for good."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.data(4, ("web", [INDEXED] * 1))
    book.data(8, ("web", [INDEXED] * 2), window=WINDOW + 1)
    book.idle(LATER_US)
    untold = read(store)
    (before, _) = explain(untold)
    book.marker(8, 2, {"web": 2}, window=WINDOW + 1)
    book.idle(LATER_US + 2 * LATE_US)
    told = read(store)
    (after,) = explain(read(store, Span(START_US, START_US + MINUTE_US)))

    assert (untold.row.in_flight, untold.row.lost_in_queue) == (4, 0)
    assert (before["not_arrived"], before["in_flight"], before["lost_in_queue_ranges"]) == ([[3, 3]], 1, [])
    assert (told.row.in_flight, told.row.lost_in_queue, told.total("lost")) == (0, 4, 4)
    assert told.as_json()["lost_in_queue_ranges"][0]["ranges"] == [[3, 3], [5, 7]]
    assert (after["not_arrived"], after["lost_in_queue"], after["lost_in_queue_ranges"]) == ([], 1, [[3, 3]])


@pytest.mark.parametrize("emitter", [None, "web"])
def test_what_comes_after_it_was_lost_in_the_queue_is_recovered(store: Store, emitter: str | None) -> None:
    """A record that nobody could read, put into the queue again: what was counted as lost stays so."""
    book = Partition(store)
    book.data(1, (emitter, [INDEXED] * 3))
    book.ledger.pass_over(book.offset)
    book.offset += 1
    book.data(7, (emitter, [INDEXED] * 3))
    book.marker(1, 9, {emitter: 9})
    before = read(store)
    book.data(4, (emitter, [INDEXED] * 3))
    after = read(store)

    assert [(one.total("lost"), one.total("recovered")) for one in (before, after)] == [(3, 0), (3, 3)]
    assert [(one.row.lost_in_queue, one.row.recovered_in_queue) for one in (before, after)] == [(3, 0), (0, 3)]
    assert after.balanced


def test_a_process_that_was_forgotten_has_lost_nothing_when_it_is_heard_of_again(store: Store) -> None:
    """A spool that is adopted after more than a week: what came before of it, the position does not know any more."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 3))
    other = WINDOW + 8 * 24 * 60
    book.settle(Record(Kind.DATA, b"\x09" * 16, 1, 1, other, [batch(None, 1, window=other)]), [INDEXED])
    book.data(4, ("web", [INDEXED] * 3))
    book.data(7, ("web", [INDEXED] * 3))
    book.marker(1, 9, {"web": 9})
    book.idle(LATER_US + 9 * 24 * 60 * MINUTE_US)
    books = read(store)

    assert (books.row.lost_in_queue, books.row.recovered_in_queue, books.total("lost")) == (0, 0, None)


def test_void_numbers_are_not_expected_and_unconfirmed_when_they_come(store: Store) -> None:
    """Refused to the sender, yet in the queue: they are counted, apart from what was accepted."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.marker(1, 6, {"web": 2}, voids=[(3, 4)])
    book.settle(Record(Kind.VOID, EPOCH, 0, 0, WINDOW, Void([(5, 6)])), [])
    before = read(store).as_json()
    book.data(3, ("web", [INDEXED] * 2))
    after = read(store).as_json()

    assert (before["balanced"], before["unconfirmed"], before["in_flight"]) == (True, 0, 0)
    assert (after["balanced"], after["accepted"], after["unconfirmed"], after["indexed"]) == (True, 2, 2, 4)
    assert after["emitters"][0]["unconfirmed"] == 2


def test_what_the_door_says_is_unconfirmed_balances_apart_from_what_it_accepted(store: Store) -> None:
    """The sender was refused for lateness, the queue took the events after all."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 5))
    book.marker(1, 5, {"web": 3}, unconfirmed=2)
    document = read(store).as_json()

    assert (document["balanced"], document["accepted"], document["unconfirmed"]) == (True, 3, 2)


def test_what_the_queue_lost_is_lost_exactly_where_a_later_record_survives(store: Store) -> None:
    """Retention passed the worker: within a closed window by emitter, between windows of nobody knows whom."""
    book = Partition(store)
    book.data(1, (None, [INDEXED] * 2))
    book.hole(3)
    book.marker(1, 6, {None: 6})
    book.hole(1)
    book.data(10, (None, [INDEXED]), window=WINDOW + 1)
    document = read(store).as_json()

    assert document["balanced"]
    assert (document["accepted"], document["indexed"], document["in_flight"]) == (6 + 1 + 3, 3, 0)
    assert (document["lost_in_queue"], document["lost"]) == (4 + 3, 4 + 3)
    assert [row["lost_in_queue"] for row in document["emitters"]] == [4]
    assert document["emitters"][0]["lost"] is None
    assert [hole["exact"] for hole in document["expired_offsets"]] == [True, True]


def test_what_the_queue_lost_between_windows_counts_once_where_its_sender_numbered_it(store: Store) -> None:
    """Of five events whose marker is gone, too, a numbered emitter misses two: the other three are bare ones."""
    numbered = {"epoch": "1", "emitter": "web"}
    book = Partition(store)
    book.settle(Record(Kind.DATA, EPOCH, 1, 2, WINDOW, [sequence(1, 2, **numbered)]), [INDEXED] * 2)
    book.marker(1, 2, {"web": 2})
    book.hole(3)
    later = sequence(5, 1, window=WINDOW + 5, **numbered)
    book.settle(Record(Kind.DATA, EPOCH, 8, 1, WINDOW + 5, [later]), [INDEXED])
    book.ledger.idle((WINDOW + 10) * MINUTE_US)
    book.ledger.flush()
    document = read(store, now_us=(WINDOW + 10) * MINUTE_US).as_json()

    assert (document["lost_in_queue"], document["emitters"][0]["lost"], document["lost"]) == (5, 2, 5)


def sequence(first: int, count: int, *, emitter: str, window: int = WINDOW, **fields: Any) -> Batch:
    return batch(emitter, count, window=window, sequence_first=first, high=first + count - 1, **fields)


def test_a_hole_behind_which_nothing_of_a_process_came_is_not_exact(store: Store) -> None:
    """How many events it held is unknown, and it is said so."""
    book = Partition(store)
    book.data(1, (None, [INDEXED] * 2))
    book.hole(3)

    assert [hole.exact for hole in read(store).expired] == [False]


def test_a_process_that_ended_in_a_hole_makes_it_inexact_until_it_is_heard_of_again(store: Store) -> None:
    """Its windows are closed, another process goes on: what it sent last, if anything, fell into the hole."""
    other = b"\x09" * 16
    book = Partition(store)
    book.data(1, (None, [INDEXED] * 2))
    book.settle(Record(Kind.DATA, other, 1, 1, WINDOW, [batch(None, 1)]), [INDEXED])
    book.marker(1, 2, {None: 2})
    book.settle(Record(Kind.MARKER, other, 1, 1, WINDOW, Marker([Accepted("app", None, 1, 0)], [])), [])
    book.hole(3)
    book.settle(Record(Kind.DATA, other, 2, 1, WINDOW + 1, [batch(None, 1, window=WINDOW + 1)]), [INDEXED])
    book = Partition(store)  # The next worker knows it, too.
    before = read(store)
    book.data(5, (None, [INDEXED]), window=WINDOW + 1)
    after = read(store)

    assert (before.row.lost_in_queue, [hole.exact for hole in before.expired]) == (0, [False])
    assert (after.row.lost_in_queue, [hole.exact for hole in after.expired]) == (2, [True])


def test_a_process_that_ended_long_before_a_hole_does_not_make_it_inexact(store: Store) -> None:
    """It was not heard of for minutes while others were."""
    other = b"\x09" * 16
    book = Partition(store)
    book.settle(Record(Kind.DATA, other, 1, 1, WINDOW - 5, [batch(None, 1, window=WINDOW - 5)]), [INDEXED])
    marker = Marker([Accepted("app", None, 1, 0)], [])
    book.settle(Record(Kind.MARKER, other, 1, 1, WINDOW - 5, marker), [])
    book.data(1, (None, [INDEXED] * 2))
    book.hole(3)
    book.data(5, (None, [INDEXED]))

    assert [hole.exact for hole in read(store).expired] == [True]


def test_a_window_that_two_topics_have_parts_of_is_one(store: Store) -> None:
    """The topic is made anew in the middle of a minute: what came before, what came after and what is gone add up."""
    old = Partition(store)
    old.data(1, (None, [INDEXED] * 2), ("web", [INDEXED]))
    new = Partition(store, topic_id="t2")
    new.data(7, (None, [INDEXED]), ("web", [INDEXED]))
    new.marker(1, 8, {None: 5, "web": 3})
    new.idle(LATER_US)
    document = read(store).as_json()

    assert (document["balanced"], document["windows"]) == (True, {"balanced": 1})
    assert (document["accepted"], document["indexed"]) == (8, 5)
    assert (document["lost_in_queue"], document["in_flight"]) == (3, 0)
    assert {row["name"]: row["lost_in_queue"] for row in document["emitters"]} == {"app": 2, "app/web": 1}


def test_what_is_missing_since_a_topic_was_made_anew_is_lost_in_time(store: Store) -> None:
    """The old topic's partition, where nothing comes any more, does not keep it open."""
    numbered = {"epoch": "1", "emitter": "web"}
    old = Partition(store)
    old.settle(Record(Kind.DATA, EPOCH, 1, 2, WINDOW, [sequence(1, 2, **numbered)]), [INDEXED] * 2)
    new = Partition(store, topic_id="t2")
    later = sequence(5, 1, window=WINDOW + 1, **numbered)
    new.settle(Record(Kind.DATA, EPOCH, 5, 1, WINDOW + 1, [later]), [INDEXED])
    new.marker(5, 1, {"web": 1}, window=WINDOW + 1)
    before = read(store)
    new.ledger.idle((WINDOW + 5) * MINUTE_US)
    new.ledger.flush()
    after = read(store)

    states = [[one.emitters["app", "web"].total(name) for name in ("missing", "lost")] for one in (before, after)]
    assert states == [[2, 0], [0, 2]]
    assert (before.total("lost"), after.total("lost")) == (0, 2)


def gone_topic(store: Store, *, caught_up_us: int = START_US) -> Partition:
    """A partition all of which was read up to then, and its only window is closed."""
    old = Partition(store)
    old.data(1, (None, [INDEXED] * 2))
    old.marker(1, 2, {None: 2})
    old.idle(caught_up_us)
    return old


def test_what_was_sent_last_to_a_topic_that_is_gone_is_unknown(store: Store) -> None:
    """All windows are closed, and yet the process may have sent more, that nobody had read. A person closes it."""
    old = gone_topic(store)
    before = read(store)
    new = Partition(store, topic_id="t2")
    new.idle(LATER_US)
    after = read(store)
    (closed,) = close_process(store, "logweir", after, EPOCH.hex()[:6], who="me", now_us=LATER_US)

    assert (before.complete, after.balanced, after.complete) == (True, True, None)
    assert after.doubts == [
        "what 1 ingest process sent last to a topic that is gone is unknown (docs/how-to/dead-processes.md)"
    ]
    assert (closed.partition, closed.windows, closed.void) == (old.ledger.partition, [], 0)
    assert read(store).complete


@pytest.mark.parametrize("way", ["data", "marker", "ended"])
def test_of_a_process_that_went_on_or_had_ended_nothing_is_unknown(store: Store, way: str) -> None:
    """Its next numbers, or its marker, tell what is missing; and who was silent for long had nothing more to say."""
    gone_topic(store, caught_up_us=START_US + (10 * MINUTE_US if way == "ended" else 0))
    new = Partition(store, topic_id="t2")
    if way == "data":
        new.data(3, (None, [INDEXED]), window=WINDOW + 1)
        new.marker(3, 1, {None: 1}, window=WINDOW + 1)
    elif way == "marker":
        new.marker(1, 2, {None: 2})
    new.idle(LATER_US)

    assert read(store).complete


def test_partitions_that_the_new_topic_does_not_have_are_not_forgotten(store: Store) -> None:
    """What was unread in them nobody will ever say."""
    gone_topic(store)
    other = Partition(store, partition=1)
    other.data(1, (None, [INDEXED]))
    other.marker(1, 1, {None: 1})
    new = Partition(store, topic_id="t2")
    new.data(3, (None, [INDEXED]), window=WINDOW + 1)
    new.marker(3, 1, {None: 1}, window=WINDOW + 1)
    new.idle(LATER_US)
    books = read(store)

    assert books.left_behind == {StreamId(EPOCH.hex(), 1)}
    assert books.complete is None


def test_a_marker_alone_in_the_new_topic_tells_what_the_old_one_lost(store: Store) -> None:
    """Nothing else came on this partition since the topic was made anew."""
    Partition(store).data(1, (None, [INDEXED] * 2))
    new = Partition(store, topic_id="t2")
    new.marker(1, 5, {None: 5})
    new.idle(START_US + 10 * MINUTE_US)
    document = read(store).as_json()

    assert document["balanced"]
    assert (document["accepted"], document["indexed"], document["lost_in_queue"]) == (5, 2, 3)


def test_a_topic_of_which_nothing_had_been_read_is_told_by_the_marker_in_the_new_one(store: Store) -> None:
    """Until it comes, what is below the first number may have been refused; then it is lost, or void."""
    Partition(store)
    new = Partition(store, topic_id="t2")
    new.data(5, (None, [INDEXED]))
    before = read(store)
    new.marker(3, 3, {None: 2}, voids=[(3, 3)])
    new.idle(LATER_US)
    after = read(store)

    assert (before.row.in_flight, before.row.lost_in_queue) == (4, 0)
    assert (after.row.in_flight, after.row.lost_in_queue, after.row.unexplained) == (0, 3, 0)
    assert after.balanced


def test_of_three_topics_the_one_that_was_read_last_says_what_was_lost(store: Store) -> None:
    """The marker of an old window comes in it: which topic has the earliest window does not matter."""
    Partition(store).data(1, (None, [INDEXED]))
    Partition(store, topic_id="t2").data(3, (None, [INDEXED]), window=WINDOW + 1)
    last = Partition(store, topic_id="t3")
    last.marker(1, 2, {None: 2})
    last.marker(3, 2, {None: 2}, window=WINDOW + 1)
    last.idle(START_US + 10 * MINUTE_US)
    books = read(store)

    assert books.balanced
    assert (books.row.outcomes["indexed"], books.row.lost_in_queue) == (2, 2)


def test_what_was_awaited_is_lost_in_time_though_nothing_comes_in_the_new_topic(store: Store) -> None:
    """The old one was gone before that was due; whoever has the new one's partition next takes nothing back."""
    old = Partition(store)
    old.data(1, (None, [INDEXED]))
    old.marker(1, 3, {None: 3})
    before = read(store)
    Partition(store, topic_id="t2").idle(LATER_US)
    after = read(store)
    Partition(store, topic_id="t2").idle(LATER_US + MINUTE_US)

    assert (before.row.in_flight, before.row.lost_in_queue) == (2, 0)
    assert (after.row.in_flight, after.row.lost_in_queue) == (0, 2)
    assert read(store).row == after.row


def test_what_was_awaited_is_lost_in_time_though_other_partitions_have_been_read_further(store: Store) -> None:
    """Up to when it was due, and beyond that."""
    old = Partition(store)
    old.data(1, (None, [INDEXED]))
    old.marker(1, 3, {None: 3})
    Partition(store, partition=1).data(1, (None, [INDEXED]), window=WINDOW + 10)
    Partition(store, topic_id="t2").idle(LATER_US + 10 * MINUTE_US)
    row = read(store).row

    assert (row.in_flight, row.lost_in_queue) == (0, 2)


def test_of_topics_read_up_to_the_same_time_the_one_that_was_made_last_is_gone_on_from(store: Store) -> None:
    """Nothing that came in it is lost."""
    Partition(store, topic_id="a").data(1, (None, [INDEXED]))
    Partition(store, topic_id="b").data(2, (None, [INDEXED]))
    last = Partition(store, topic_id="c")
    last.marker(1, 3, {None: 3})
    last.idle(LATER_US)
    row = read(store).row

    assert (row.lost_in_queue, row.recovered_in_queue) == (1, 0)


def test_what_was_lost_stays_lost_while_a_new_topic_is_read_up_to_then(store: Store) -> None:
    """Its watermark begins anew; what the one before it said is not taken back, until the number comes."""
    numbered = {"epoch": "1", "emitter": "web"}
    old = Partition(store)
    old.settle(Record(Kind.DATA, EPOCH, 1, 1, WINDOW, [sequence(2, 1, **numbered)]), [INDEXED])
    old.idle((WINDOW + 5) * MINUTE_US)
    new = Partition(store, topic_id="t2")
    new.settle(Record(Kind.DATA, EPOCH, 2, 1, WINDOW, [sequence(3, 1, **numbered)]), [INDEXED])

    assert read(store).emitters["app", "web"].total("lost") == 1


def test_a_topic_made_anew_loses_what_was_unread_by_its_numbers(store: Store) -> None:
    """The process goes on numbering: what is below its first number in the new topic is lost, when its marker comes."""
    old = Partition(store)
    old.data(1, (None, [INDEXED] * 2))
    new = Partition(store, topic_id="t2")
    new.data(6, (None, [INDEXED] * 2), window=WINDOW + 1)
    before = read(store)
    new.marker(5, 3, {None: 2}, voids=[(5, 5)], window=WINDOW + 1)
    new.idle(LATER_US)
    after = read(store)

    assert (before.balanced, after.balanced) == (True, True)
    assert (before.row.lost_in_queue, before.row.in_flight) == (0, 3)
    assert (after.row.lost_in_queue, after.row.in_flight) == (2, 0)


def test_numbers_that_are_given_out_and_not_here_yet_are_in_flight(store: Store) -> None:
    """A record from a spool comes later than those behind it."""
    book = Partition(store)
    book.data(1, (None, [INDEXED] * 2))
    book.data(6, (None, [INDEXED]), window=WINDOW + 1)
    before = read(store)
    book.data(3, (None, [INDEXED] * 3))
    after = read(store)

    assert (before.row.in_flight, before.row.accepted, before.balanced) == (3, 6, True)
    assert (after.row.in_flight, after.row.accepted) == (0, 6)


def test_a_window_without_a_marker_is_open_and_after_minutes_its_process_is_gone(store: Store) -> None:
    """No timer closes it; while workers are behind, what a process has sent since is only not read yet."""
    book, other = Partition(store), Partition(store, partition=1)
    later_us = START_US + 600_000_000
    book.data(1, (None, [INDEXED]))
    behind = read(store, now_us=later_us).states
    book.idle(later_us)
    one_is_behind = read(store, now_us=later_us).states
    other.idle(later_us)

    assert read(store).states == behind == one_is_behind == {"open": 1}
    gone = read(store, now_us=later_us)
    assert gone.states == {"open: process gone": 1}
    assert (gone.balanced, gone.lost_now, gone.complete) == (True, 0, None)


def test_losses_of_numbered_emitters_are_exact_and_those_of_bare_ones_unknown(store: Store) -> None:
    """Class exact has numbers and ranges, class unknown none: null, never 0."""
    book = Partition(store)
    numbered = {"epoch": "e1", "high": 9, "dropped": {"disk_full": 1}}
    book.data(1, ("web", [INDEXED] * 2), sequence_first=3, **numbered)
    book.data(3, (None, [INDEXED]))
    book.data(4, (None, [INDEXED]), at_us=START_US + LATE_US)
    book.data(5, ("web", [INDEXED]), sequence_first=1, at_us=START_US + LATE_US, **numbered)
    books = read(store)
    document = books.as_json()
    bare, web = document["emitters"]

    assert (bare["class"], bare["lost"], bare["missing"], bare["recovered"]) == ("unknown", None, None, None)
    assert (web["class"], web["created"], web["lost"], web["recovered"], web["missing"]) == ("exact", 9, 6, 1, 0)
    assert web["lost_ranges"] == [["e1", 2, 2], ["e1", 5, 9]]
    assert web["created"] == 3 + web["dropped"] + web["lost"] - web["recovered"] + web["missing"]
    assert (document["lost"], document["recovered"], document["loss_unknown_emitters"]) == (6, 1, 1)


def test_an_epoch_seen_on_two_partitions_misses_only_what_both_miss(store: Store) -> None:
    """Doors that know different numbers of partitions, a topic made anew: one emitter, one account."""
    one, other = Partition(store), Partition(store, partition=1)
    one.data(1, ("web", [INDEXED] * 2), sequence_first=1, epoch="e1")
    other.data(1, ("web", [INDEXED] * 2), sequence_first=4, epoch="e1")
    for book in (one, other):
        book.data(3, (None, [INDEXED]), at_us=START_US + LATE_US)
    (web,) = [row for row in read(store).as_json()["emitters"] if row["emitter"]]

    assert (web["lost"], web["lost_ranges"]) == (1, [["e1", 3, 3]])


def test_a_correction_moves_events_between_outcomes_and_is_counted_once(store: Store) -> None:
    """A retry writes a line beside the window; the window's own document stays as it was."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED, DEAD, DEAD]))
    book.marker(1, 3, {"web": 3})
    for count in (1, 2, 2):
        changes = [Change(2 + n, ("app", "web"), DEAD, INDEXED) for n in range(count)]
        place = WindowId("t", 0, EPOCH.hex(), WINDOW)
        revise(store, "logweir", place, changes, cause="retry 1", at_us=START_US, owner="me")
    document = read(store).as_json()

    assert document["balanced"]
    assert (document["indexed"], document["dead_lettered"]) == (3, 0)
    assert document["emitters"][0]["indexed"] == 3
    assert [line["count"] for line in document["corrections"]] == [2]
    (window,) = store.ledger.scan("window:")
    assert window.body["outcomes"][0]["dead_lettered"] == 2


def test_a_span_of_time_and_an_emitter_narrow_the_books(store: Store) -> None:
    """Windows by their minute, gaps by when they showed."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED]), sequence_first=2, epoch="e1")
    book.data(2, ("web", [INDEXED] * 2), sequence_first=5, epoch="e1", window=WINDOW + 5)
    book.data(4, (None, [INDEXED]), window=WINDOW + 9)
    late = read(store, Span(from_us=START_US + 4 * MINUTE_US))
    early = read(store, Span(to_us=START_US + 4 * MINUTE_US))
    one = read(store, Span(emitter="app/web"))

    assert (late.row.accepted, late.total("lost")) == (3, 2)
    assert (early.row.accepted, early.total("lost")) == (1, 1)
    assert (one.row.accepted, one.total("lost"), len(one.emitters)) == (3, 3, 1)


def test_what_has_no_time_is_unknown_of_a_span_of_time(store: Store) -> None:
    """Lost, then recovered, all in the last hour: of that hour nobody knows what was recovered, and it is not 0."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 3), epoch="r", sequence_first=1)
    book.data(4, ("web", [INDEXED] * 3), epoch="r", sequence_first=7)
    book.idle(LATER_US)
    book.data(7, ("web", [INDEXED] * 2), epoch="r", sequence_first=4, at_us=LATER_US, window=WINDOW + 9)
    whole = read(store)
    hour = read(store, Span(START_US - 60 * MINUTE_US)).as_json()

    assert [whole.total(name) for name in ("created", "lost", "recovered")] == [9, 3, 2]
    for document in (hour, hour["emitters"][0], hour["emitters"][0]["epochs"][0]):
        assert [document[name] for name in ("created", "recovered", "dropped")] == [None] * 3
        assert (document["lost"], document["missing"]) == (1, 0)


def test_what_one_emitter_lost_is_not_made_good_by_another_nor_by_what_is_unknown(store: Store) -> None:
    """Of a span of time, one with too many gaps to keep knows nothing of what it lost; the other still does."""
    book = Partition(store, gaps_max=1)
    for number in (1, 3, 5, 7):
        book.data(number, ("many", [INDEXED]), epoch="r", sequence_first=number)
    book.data(2, ("few", [INDEXED]), epoch="r", sequence_first=2)
    book.idle(LATER_US)
    hour = read(store, Span(START_US - 60 * MINUTE_US))
    many = read(store, Span(START_US - 60 * MINUTE_US, emitter="app/many"))
    whole = read(store)
    whole.emitters["app", "few"].retired = {"recovered": 9}

    assert hour.emitters["app", "many"].total("lost") is None
    assert (hour.lost_now, hour.complete) == (1, False)
    assert (many.lost_now, many.complete) == (0, None)
    assert whole.lost_now == 3


def test_the_state_of_a_window_does_not_depend_on_what_is_asked_for(store: Store) -> None:
    """Its marker waits in a spool while its process lives on."""
    book = Partition(store)
    for at in range(10):
        book.data(3 * at + 1, ("web", [INDEXED] * 3), window=WINDOW + at)
    book.idle(LATER_US)
    spans = (Span(), Span(START_US, START_US + MINUTE_US), Span(to_us=START_US + 2 * MINUTE_US))

    assert [read(store, span, now_us=LATER_US).states for span in spans] == [{"open": 10}, {"open": 1}, {"open": 2}]


def test_what_the_queue_lost_of_events_with_own_numbers_counts_once(store: Store) -> None:
    """They are the key's in the first equation, and their own emitter's in the second."""
    book = Partition(store)
    for number, holes in ((1, 1), (7, 0)):
        record = Record(Kind.DATA, EPOCH, number, 3, WINDOW, [batch(None, 3)])
        book.settle(record, [INDEXED] * 3, natural=[batch("web", 3, sequence_first=number)])
        for _ in range(holes):
            book.hole(1)
    book.marker(1, 9, {None: 9})
    book.idle(LATER_US)
    document = read(store).as_json()
    key, web = document["emitters"]

    assert (document["lost"], document["lost_in_queue"]) == (3, 3)
    assert (key["class"], key["accepted"], key["lost_in_queue"], key["lost"]) == ("unknown", 9, 3, None)
    assert (web["class"], web["accepted"], web["indexed"], web["lost"]) == ("from_fields", 6, None, 3)


def test_who_says_to_have_dropped_what_came_is_shown(
    settings: Settings, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second equation does not hold by so many; where it does, the table has no column for it."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 10), epoch="r", sequence_first=1, high=10)
    good = audit(settings, capsys, "audit")[1]
    book.data(11, ("web", [INDEXED]), epoch="r", sequence_first=11, high=12, dropped={"full": 5})
    bad = audit(settings, capsys, "audit")[1]
    (web,) = read(store).as_json()["emitters"]

    assert (web["created"], web["accepted"], web["dropped"], web["lost"], web["missing"]) == (12, 11, 5, 0, 0)
    assert web["unexplained"] == web["epochs"][0]["unexplained"] == -4
    assert "UNEXPLAINED" not in good
    assert "-4" in bad.splitlines()[-1]


def test_each_emitter_says_whether_it_balances(store: Store) -> None:
    """One event too few of one and one too many of another: both do not."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 3), (None, [INDEXED]), ("db", [INDEXED]))
    book.marker(1, 5, {"web": 2, None: 2, "db": 1})

    found = {row["name"]: (row["balanced"], row["imbalance"]) for row in read(store).as_json()["emitters"]}
    assert found == {"app": (False, 1), "app/db": (True, 0), "app/web": (False, 1)}


# --- emitters that are summed up ----------------------------------------------------------------------------------
NAMES = st.sampled_from([None, *"abcdef"])


@given(
    sent=st.lists(st.tuples(st.sampled_from(["app", "web"]), NAMES, st.integers(1, 3)), max_size=20),
    rows_max=st.integers(1, 8),
    door_rows_max=st.integers(0, 4),
    missing=st.booleans(),
)
def test_however_emitters_are_summed_up_the_books_are_exact_by_key(
    sent: list[tuple[str, str | None, int]], rows_max: int, door_rows_max: int, missing: bool
) -> None:
    """Door and worker need not sum up the same ones; an event too few of a key still shows, and in which."""
    window, promised = Window(WindowId("t", 0, EPOCH.hex(), WINDOW)), Counter[tuple[str, str | None]]()
    window.rows = Shares(rows_max, count=0, by_key={})
    true: Counter[str] = Counter()
    for key, name, count in sent:
        window.counts_of((key, name)).indexed += count
        apart = name is None or (key, name) in promised or len(promised) < door_rows_max
        promised[key, name if apart else OTHERS] += count
        true[key] += count
    window.numbers.add(1, true.total())
    if missing and promised:
        promised[next(iter(promised))] += 1
    window.marker = Promises(1, true.total())
    for emitter, count in promised.items():
        window.marker.add(emitter, accepted=count, unconfirmed=0)
    window = Window.from_body(window.place, window.as_body())
    books = reconciled(window, Context(0, {}, {}, {}))
    accepted, indexed = Counter[str](), Counter[str]()
    for (key, _), row in books.by_emitter.items():
        accepted[key] += row.accepted
        indexed[key] += row.outcomes["indexed"]

    assert indexed == true
    assert books.imbalance == (1 if missing and sent else 0)
    assert (accepted - true).total() == (1 if missing and sent else 0)
    unbalanced = [row.unexplained for row in books.by_emitter.values() if row.unexplained]
    assert unbalanced == ([1] if missing and sent else [])
    assert is_complete(window) == (not (missing and sent))


def test_of_emitters_that_are_summed_up_no_volume_is_known(store: Store) -> None:
    """Nor is what a retry changed of one of them its own: it is in the sum. Of other keys all is known."""
    window = Window(WindowId("t", 0, EPOCH.hex(), WINDOW), rows=Shares(1, count=0, by_key={}))
    for emitter in (("app", "a"), ("app", None), ("web", None), ("app", "b")):
        window.counts_of(emitter).dead_lettered += 2
    store.ledger.claim(WINDOW_KIND.id("logweir", window.place), "me")
    store.ledger.write([WINDOW_KIND.document("logweir", window.place, 1, window.as_body(), owner="me")])
    hour = WINDOW // HOUR_WINDOWS
    line = Correction(window.place, "app", "b", DEAD, INDEXED, 2, "retry 1", START_US)
    books = reconciled(window, Context(0, {}, {window.place.in_stream: [line]}, {}))

    assert read_volumes(store, "logweir", from_hour=hour) == {("app", None): {hour: 2}, ("web", None): {hour: 2}}
    assert books.by_emitter["app", OTHERS].outcomes["indexed"] == 2
    assert ("app", "b") not in books.by_emitter


# --- the commands -------------------------------------------------------------------------------------------------
def audit(settings: Settings, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = cli.main([*words, "--data-dir", str(settings.data_dir)])
    return status, capsys.readouterr().out


def test_the_exit_status_says_whether_the_books_balance(
    settings: Settings, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 and a green word, or 1 and by how many events; 3 while nobody knows what the queue still has."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 3))
    book.marker(1, 3, {"web": 3})
    without_queue = audit(settings, capsys, "audit")
    unknown = orjson.loads(audit(settings, capsys, "audit", "--json")[1])
    make_queue(settings, read=2)
    good = audit(settings, capsys, "audit")
    book.data(4, ("web", [INDEXED]), window=WINDOW + 1)
    book.marker(4, 1, {"web": 2}, window=WINDOW + 1)
    make_queue(settings, read=4)
    bad = audit(settings, capsys, "audit")
    document = orjson.loads(audit(settings, capsys, "audit", "--json")[1])

    assert good[0] == 0
    assert "The books balance" in good[1]
    assert "app/web" in good[1]
    assert bad[0] == 1
    assert "1 event is unexplained" in bad[1]
    assert (document["balanced"], document["imbalance"]) == (False, 1)
    assert document["unread_records"] == 0
    assert without_queue[0] == 3
    assert "what is not read yet is unknown: the queue does not answer" in without_queue[1]
    assert (unknown["unread_records"], unknown["balanced"], unknown["complete"]) == (None, True, None)


def test_a_topic_made_anew_that_no_worker_reads_yet_is_not_called_complete(
    settings: Settings, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was unread of the one before is gone."""
    book = Partition(store, topic_id="before")
    book.data(1, ("web", [INDEXED] * 3))
    book.marker(1, 3, {"web": 3})
    make_queue(settings, read=0)
    status, text = audit(settings, capsys, "audit")

    assert status == 3
    assert "the topic was made anew, and no worker reads it yet" in text.splitlines()[0]


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 1, 2)])
def test_windows_that_are_gone_from_the_ledger_are_missed(
    settings: Settings, store: Store, capsys: pytest.CaptureFixture[str], lost: tuple[int, ...]
) -> None:
    """The position knows that their numbers came: that nothing is known of them balances no books."""
    book = Partition(store)
    for at in range(3):
        book.data(1 + 2 * at, (None, [INDEXED] * 2), window=WINDOW + at)
        book.marker(1 + 2 * at, 2, {None: 2}, window=WINDOW + at)
    whole = read(store)
    places = [WINDOW_KIND.id("logweir", WindowId("t", 0, EPOCH.hex(), WINDOW + at)) for at in lost]
    store.ledger.delete(list(store.ledger.read(places).values()))
    status, text = audit(settings, capsys, "audit")

    assert (whole.balanced, whole.without_window) == (True, {})
    assert read(store).imbalance == 2 * len(lost)
    assert status == 1
    assert f"{2 * len(lost)} events are unexplained" in text
    assert "the ledger has lost its windows: partition 0" in text


def test_what_is_lost_is_in_the_first_line_and_the_exit_status(
    settings: Settings, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Balanced and complete are two things."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 3), epoch="r", sequence_first=1, high=5)
    book.marker(1, 3, {"web": 3})
    book.idle(LATER_US)
    status, text = audit(settings, capsys, "audit")
    document = orjson.loads(audit(settings, capsys, "audit", "--json")[1])
    book.data(4, ("web", [INDEXED]), epoch="r", sequence_first=4, high=5, window=WINDOW + 3)
    later = orjson.loads(audit(settings, capsys, "audit", "--json")[1])

    assert status == 3
    assert text.splitlines()[0].startswith("The books balance; 2 events are lost; what is not read yet is unknown")
    assert (document["balanced"], document["complete"], document["lost_now"]) == (True, False, 2)
    assert (later["lost"], later["recovered"], later["lost_now"]) == (2, 1, 1)


@pytest.mark.parametrize("claim", ["number", "high", "previous"])
def test_who_claims_impossible_numbers_makes_the_books_of_others_no_less_complete(
    settings: Settings, store: Store, capsys: pytest.CaptureFixture[str], claim: str
) -> None:
    """A jump has a line of its own, by key; of that emitter alone nobody knows what it lost."""
    make_queue(settings, read=4)
    claims: dict[str, dict[str, Any]] = {
        "number": {"epoch": "r", "sequence_first": NUMBER_MAX},
        "high": {"epoch": "r", "sequence_first": 1, "high": NUMBER_MAX},
        "previous": {"epoch": "s", "sequence_first": 1, "previous": ("r", NUMBER_MAX)},
    }
    book = Partition(store)
    book.data(1, ("evil", [INDEXED]), epoch="q", sequence_first=1)
    book.data(2, ("evil", [INDEXED]), **claims[claim])
    book.data(3, ("web", [INDEXED] * 3), epoch="r", sequence_first=1)
    book.marker(1, 5, {"evil": 2, "web": 3})
    book.idle(LATER_US)
    status, text = audit(settings, capsys, "audit")
    document = orjson.loads(audit(settings, capsys, "audit", "--json")[1])
    web = audit(settings, capsys, "audit", "--emitter", "web")
    evil = audit(settings, capsys, "audit", "--emitter", "evil")
    since = audit(settings, capsys, "audit", "--emitter", "evil", "--since", "2000d")

    numbers = NUMBER_MAX - (claim != "previous")
    assert (status, text.splitlines()[0]) == (0, "The books balance")
    assert f"key app: 1 emitter jumped over {numbers:,} numbers" in " ".join(text.split())
    assert (document["complete"], document["lost_now"], document["missing"]) == (True, 0, 0)
    assert document["jumps"] == [{"key": "app", "emitters": 1, "numbers": numbers}]
    assert (web[0], "jumped" in web[1]) == (0, False)
    assert (evil[0], since[0]) == (3, 3)
    assert "what was lost among numbers that were jumped over is unknown" in evil[1].splitlines()[0]


@pytest.mark.parametrize("what", ["set back", "gone unread"])
def test_what_the_queue_has_no_more_is_not_called_complete(
    settings: Settings, capsys: pytest.CaptureFixture[str], store: Store, what: str
) -> None:
    """No worker has looked at it since: what it had above the position, or below it, nobody has read."""
    with closing(open_queue(settings.queue)) as queue:
        queue.prepare()
        door = Door(queue)
        for _ in range(4):
            door.write(batch(None, 1))
        book = Partition(store, topic_id=queue.topic_id())
        door.close()
    book.data(1, (None, [INDEXED]))
    good = audit(settings, capsys, "audit")
    with closing(sqlite3.connect(sqlite_path(settings.queue.url), isolation_level=None)) as file:
        if what == "set back":
            file.execute("DELETE FROM record")
            file.execute("UPDATE partition SET next_offset = 0")
        else:
            file.execute("DELETE FROM record WHERE id < 3")
    status, text = audit(settings, capsys, "audit")
    document = orjson.loads(audit(settings, capsys, "audit", "--json")[1])

    assert (good[0], good[1].splitlines()[0]) == (0, "The books balance; 3 records are not read yet")
    assert status == 3
    assert ("the queue was set back" if what == "set back" else "2 records are gone from the queue unread") in text
    assert (document["balanced"], document["complete"]) == (True, None)
    assert document["unread_records"] == (None if what == "set back" else 1)


def test_what_the_store_lacks_does_not_balance(
    settings: Settings, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events that somebody deleted, long after their window was asked for."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 3))
    book.marker(1, 3, {"web": 3})
    stream = stream_of(EPOCH, 0)
    store.delete([(day_of(START_US), f"{stream}-2", Provenance(stream, 2, ""))])
    for words in ((), ("--since", "2000d"), ("--emitter", "web"), ("--window", str(WINDOW))):
        status, text = audit(settings, capsys, "audit", *words)

        assert status == 1
        assert f"partition 0, process {EPOCH.hex()}: the store has 2 events, 1 fewer than were indexed" in text
        if "--window" not in words:
            assert text.splitlines()[0].startswith("THE BOOKS DO NOT BALANCE: 1 event is unexplained")


def test_one_window_is_explained_down_to_ranges(
    settings: Settings, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a time in it or by its number, for people and as JSON."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 3))
    book.marker(1, 5, {"web": 5})
    status, text = audit(settings, capsys, "audit", "--window", str(WINDOW))
    by_time = orjson.loads(audit(settings, capsys, "audit", "--window", str(START_US // 10**6 + 7), "--json")[1])

    assert status == 0
    assert "not arrived           [[4, 5]]" in text
    assert "identity conflicts    0" in text
    assert by_time["window"] == WINDOW
    assert by_time["rows"][0]["numbers"] == [[1, 3]]
    assert "Nothing is known" in audit(settings, capsys, "audit", "--window", "7")[1]


def test_emitters_are_listed_with_what_is_unknown_said(
    settings: Settings, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who sends, class, state, losses."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED]), sequence_first=2, epoch="e1", bye=True)
    book.data(2, (None, [INDEXED]))
    status, text = audit(settings, capsys, "emitters")
    rows = orjson.loads(audit(settings, capsys, "emitters", "--json")[1])

    assert status == 0
    assert "unknown" in next(line for line in text.splitlines() if line.startswith("app "))
    assert [(row["name"], row["class"], row["state"], row["lost"], row["missing"]) for row in rows] == [
        ("app", "unknown", "learning", None, None),
        ("app/web", "exact", "retired", 0, 1),
    ]
