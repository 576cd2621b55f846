"""Old books: merged to hours, then let go of; what they said stays true, whatever is asked."""

from __future__ import annotations

from typing import Any

import pytest

from logweir.audit.books import Books, explain, read_books
from logweir.audit.span import Span
from logweir.audit.sums import every_window
from logweir.config import AccountingSettings
from logweir.ledger.differences import StoreDifference
from logweir.ledger.documents import HOUR as HOUR_KIND
from logweir.ledger.documents import WindowId
from logweir.ledger.hours import read_window
from logweir.ledger.revisions import Change, revise
from logweir.outcomes import DeadLetterReason, Outcome
from logweir.record import Accepted, Batch, Kind, Marker, Record
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.hours import HourMerger
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.retention import delete_old_books, old_books
from logweir_workers.accounting.settled import SettledRecord
from logweir_workers.accounting.store_audit import recheck_differences
from logweir_workers.exporter import figures as ledger_metrics
from tests.workers.helpers import batch

EPOCH = b"\x07" * 16
MINUTE_US = 60_000_000
DAY_US = 86_400_000_000
HOUR = 29_000_040
NOW_US = (HOUR + 60) * MINUTE_US + DAY_US
LIMITS = AccountingSettings(retention_days=2)
INDEXED, DEAD, FILTERED = Outcome.INDEXED, Outcome.DEAD_LETTERED, Outcome.FILTERED


class Partition:
    """A ledger, and a door's records that go straight into it."""

    def __init__(self, store: Store, *, partition: int = 0, topic_id: str = "t") -> None:
        self.store = store
        self.ledger = PartitionLedger.claim(
            store=store, group="g", topic_id=topic_id, partition=partition, owner="me", settings=LIMITS
        )
        self.offset = self.ledger.next_offset or 0
        self.number = 1

    def window(self, window: int, *outcomes: Outcome, marker: bool = True, sequence_first: int | None = None) -> Record:
        """A record of an emitter that numbers its events as its door does, and its marker; gives the record."""
        one = self.batch(window, len(outcomes), sequence_first or self.number)
        record = Record(Kind.DATA, EPOCH, self.number, len(outcomes), window, [one])
        reasons = {at: DeadLetterReason.EVENT_UNFIT.value for at, one in enumerate(outcomes) if one is DEAD}
        self.settle(record, list(outcomes), reasons)
        if marker:
            self.marker(window, len(outcomes))
        self.number += len(outcomes)
        return record

    def marker(self, window: int, count: int) -> None:
        rows = [Accepted("app", "web", count, 0)]
        self.settle(Record(Kind.MARKER, EPOCH, self.number, count, window, Marker(rows, [])), [])

    def batch(self, window: int, count: int, first: int) -> Batch:
        return batch(*[b"{}"] * count, emitter="web", received_us=window * MINUTE_US, epoch="e1", sequence_first=first)

    def settle(self, record: Record, outcomes: list[Outcome], reasons: dict[int, str] | None = None) -> bool:
        self.ledger.expect(record, self.offset)
        self.ledger.load([record])
        counted = self.ledger.settle(SettledRecord(record, self.offset, outcomes, reasons or {}))
        self.offset += 1
        self.ledger.flush()
        return counted

    def merge(self, *, now_us: int = NOW_US) -> int:
        merger = HourMerger(store=self.store, group="g", owner="me", settings=LIMITS, clock=lambda: now_us)
        merger.look([self.ledger])
        return merger.merge_some()

    def let_go(self, *, days: float = 100) -> int:
        self.ledger._position.watermark_us = int(NOW_US + days * DAY_US)
        now_us = int(NOW_US + days * DAY_US)
        books = old_books(self.store, group="g", settings=LIMITS, now_us=now_us)
        return delete_old_books(
            self.store, group="g", owner="me", settings=LIMITS, ledgers=[self.ledger], now_us=now_us, books=books
        )


def read(store: Store, span: Span | None = None) -> Books:
    return read_books(store, group="g", late_us=1, now_us=NOW_US, span=span or Span(), keeps=every_window)


def kinds(store: Store) -> list[str]:
    return sorted(document.id.partition(":")[0] for document in store.ledger.scan(""))


def sums(books: Books) -> tuple[Any, ...]:
    names = ("created", "lost", "recovered", "dropped")
    return books.row, books.corrected, *(books.total(name) for name in names), books.balanced


def figures(books: Books) -> dict[str, float]:
    """What Prometheus is told of them."""
    families = [*ledger_metrics._events(books), *ledger_metrics._numbered(books), ledger_metrics._places(books)]
    return {f"{one.name} {one.labels}": one.value for family in families for one in family.samples}


def test_windows_of_an_hour_become_one_document_that_says_the_same(store: Store) -> None:
    """Sums, states, emitters and exceptions; the number of windows, too."""
    one = Partition(store)
    one.window(HOUR, INDEXED, DEAD, INDEXED)
    one.window(HOUR + 1)
    one.window(HOUR + 59, FILTERED, INDEXED)
    before = read(store)
    merged = one.merge()
    after = read(store)

    assert merged == 3
    assert (kinds(store).count("window"), kinds(store).count("hour")) == (0, 1)
    assert sums(after) == sums(before)
    assert after.states == before.states == {"balanced": 3}
    assert {emitter: books.row for emitter, books in after.emitters.items()} == {
        emitter: books.row for emitter, books in before.emitters.items()
    }
    assert next(explain(after))["merged_windows"] == [HOUR, HOUR + 1, HOUR + 59]
    assert one.merge() == 0


def test_only_windows_of_the_own_partitions_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a topic that is gone; what others have, they merge."""
    one, gone, others = Partition(store), Partition(store, topic_id="gone"), Partition(store, partition=1)
    for at, partition in enumerate((one, gone, others)):
        partition.window(HOUR + at, INDEXED)
    scan, prefixes = store.ledger.scan, []

    def noted(prefix: str) -> Any:
        prefixes.append(prefix)
        return scan(prefix)

    monkeypatch.setattr(store.ledger, "scan", noted)

    assert one.merge() == 2
    # Once for the windows that both have a part of, and once to find what to merge.
    assert [prefix for prefix in prefixes if prefix.startswith("window")] == ["window:g:gone:0:", "window:g:t:0:"] * 2
    assert kinds(store).count("window") == 1


def test_what_is_not_complete_or_not_old_stays_a_window(store: Store) -> None:
    """Without its marker, with a hole, with an amendment, of today, or not yet behind the position."""
    one = Partition(store)
    one.window(HOUR, INDEXED, marker=False)
    one.number += 1  # which is missing below the next marker
    one.number -= 1
    one.marker(HOUR + 1, 2)
    one.number += 2
    late = one.window(HOUR + 2, INDEXED, marker=False)
    one.number -= 1
    one.marker(HOUR + 2, 2)
    one.settle(Record(Kind.DATA, EPOCH, late.last + 1, 1, HOUR + 2, [one.batch(HOUR + 2, 1, 9)]), [INDEXED])
    one.number += 2
    one.window(HOUR + 24 * 60, INDEXED)

    assert one.merge() == 0
    assert kinds(store).count("window") == 4


def test_a_window_that_two_topics_have_parts_of_stays_a_window(store: Store) -> None:
    """Its marker came in the new topic: merged without the other part, that would stay open for good."""
    old, new = Partition(store, topic_id="gone"), Partition(store)
    old.window(HOUR, marker=False)
    new.marker(HOUR, 0)

    assert new.merge() == 0
    assert read(store).states == {"balanced": 1}


def test_a_record_that_comes_again_is_known_though_its_window_is_merged(store: Store) -> None:
    """Its numbers are; nothing is counted, and no window is made of it anew."""
    one = Partition(store)
    record = one.window(HOUR, INDEXED, DEAD)
    one.merge()
    before = read(store)
    counted = one.settle(record, [INDEXED, DEAD])
    one.number = 1
    one.marker(HOUR, 2)

    assert not counted
    assert sums(read(store)) == sums(before)
    assert "window" not in kinds(store)


def test_a_queue_that_goes_back_makes_no_window_anew_of_one_that_is_merged(store: Store) -> None:
    """Though it is in memory, because a record of it has come again."""
    one = Partition(store)
    record = one.window(HOUR, INDEXED)
    one.merge()
    one.settle(record, [INDEXED])
    before = sums(read(store))
    one.ledger.rewind(0)
    one.ledger.flush()

    assert "window" not in kinds(store)
    assert sums(read(store)) == before


def test_corrections_receipts_and_the_auditor_find_a_merged_window(store: Store) -> None:
    """By number, as before: what replay, receipts and the store's auditor ask for."""
    one = Partition(store)
    one.window(HOUR, INDEXED, DEAD)
    one.window(HOUR + 1, DEAD, INDEXED, INDEXED)
    place = WindowId("t", 0, EPOCH.hex(), HOUR + 1)
    difference = f"store_difference:g:t:0:{EPOCH.hex()}:{HOUR + 1}"
    found = StoreDifference.found(place, 1, 2, 0)
    store.ledger.write([LedgerDocument(difference, 1, {"kind": "store_difference", **found.as_body()})])
    one.merge()
    change = Change(3, ("app", "web"), DEAD, INDEXED)
    revise(store, "g", place, [change], cause="retry 1", at_us=1, owner="me")
    window = read_window(store, "g", WindowId("t", 0, EPOCH.hex(), HOUR + 1))
    books = read(store)

    assert window is not None
    assert list(window.numbers) == [(3, 5)]
    assert [(why, ranges) for why, ranges in window.deviations.within(1, 9)] == [((DEAD, "event_unfit"), [(3, 3)])]
    assert sum(counts.indexed for counts in window.outcomes.values()) == 2
    assert (books.row.outcomes["indexed"], books.row.outcomes["dead_lettered"]) == (4, 1)
    assert books.imbalance == 1  # by what the store was said to have
    assert recheck_differences(store, "g", at_us=1) == 0  # It has none of them: it differs still.
    assert read_window(store, "g", WindowId("t", 0, EPOCH.hex(), HOUR + 2)) is None


def test_a_window_left_behind_by_a_crash_does_not_count_beside_its_hour(store: Store) -> None:
    """Written to its hour, and not deleted; the next merge clears it away."""
    one = Partition(store)
    one.window(HOUR, INDEXED, DEAD)
    (document,) = store.ledger.scan("window:")
    before = sums(read(store))
    one.merge()
    store.ledger.write([document])

    assert sums(read(store)) == before
    assert one.merge() == 1
    assert "window" not in kinds(store)


def test_a_window_left_behind_by_a_crash_goes_with_its_hour(store: Store) -> None:
    """Nobody has merged since; what is let go of does not count once more by what was left."""
    one = Partition(store)
    one.window(HOUR, INDEXED, DEAD)
    (document,) = store.ledger.scan("window:")
    before = sums(read(store))
    one.merge()
    store.ledger.write([document])
    one.let_go()

    assert sums(read(store)) == before
    assert [kind for kind in kinds(store) if kind in ("window", "hour")] == []


@pytest.mark.parametrize("merges", [False, True])
def test_totals_do_not_fall_when_retention_passes(store: Store, merges: bool) -> None:
    """Windows, corrections and emitters go; what they said is in the totals, and stands by itself."""
    one = Partition(store)
    one.window(HOUR, INDEXED, DEAD, INDEXED, sequence_first=3)
    place = WindowId("t", 0, EPOCH.hex(), HOUR)
    revise(store, "g", place, [Change(2, ("app", "web"), DEAD, INDEXED)], cause="retry", at_us=1, owner="me")
    if merges:
        one.merge()
    one.ledger.idle(NOW_US)  # What is missing is lost.
    one.ledger.flush()
    before = read(store)
    deleted = one.let_go()
    after = read(store)
    document = after.as_json()

    assert deleted == 3
    assert [kind for kind in kinds(store) if kind in ("window", "hour", "emitter", "revision")] == []
    assert sums(after) == sums(before)
    assert (after.total("lost"), after.total("created")) == (2, 5)
    assert document["carried"]["indexed"] == document["indexed"] == 3
    assert document["carried"]["unexplained"] == 0
    assert one.ledger.emitters.count == 0
    assert read(store, Span(from_us=0)).as_json()["carried"] is None
    assert one.let_go() == 0


def test_what_the_queue_lost_stays_in_the_totals_and_so_does_what_came_after_all(store: Store) -> None:
    """Of one that numbers nothing: a number that its marker told of, and an unreadable record that was tried again."""
    one = Partition(store)
    bare = batch(b"{}", key="bare", received_us=HOUR * MINUTE_US)
    one.settle(Record(Kind.DATA, EPOCH, 1, 1, HOUR, [bare]), [INDEXED])
    one.ledger.pass_over(one.offset)
    one.offset += 1
    one.settle(Record(Kind.DATA, EPOCH, 4, 1, HOUR, [bare]), [INDEXED])
    one.settle(Record(Kind.MARKER, EPOCH, 1, 5, HOUR, Marker([Accepted("bare", None, 5, 0)], [])), [])
    one.settle(Record(Kind.DATA, EPOCH, 2, 1, HOUR, [bare]), [INDEXED])
    one.ledger.idle(NOW_US)
    one.ledger.flush()
    before = read(store)
    one.let_go()
    after = read(store)

    assert (before.row.lost_in_queue, before.row.recovered_in_queue) == (2, 1)
    assert (before.total("lost"), before.total("recovered")) == (3, 1)
    assert sums(after) == sums(before)
    assert after.carried.total("lost") == 3
    assert not after.windows


def test_what_the_queue_lost_of_one_emitter_is_not_taken_for_what_another_lost(store: Store) -> None:
    """One whose lost event had come before under the same number, so that its numbers show nothing; and one's gap."""
    one = Partition(store)
    one.settle(Record(Kind.DATA, EPOCH, 1, 1, HOUR, [one.batch(HOUR, 1, 1)]), [INDEXED])
    one.marker(HOUR, 2)
    other = batch(b"{}", emitter="other", received_us=HOUR * MINUTE_US, epoch="e1", sequence_first=3)
    one.settle(Record(Kind.DATA, EPOCH, 3, 1, HOUR + 24 * 60, [other]), [INDEXED])
    rows = [Accepted("app", "other", 1, 0)]
    one.settle(Record(Kind.MARKER, EPOCH, 3, 1, HOUR + 24 * 60, Marker(rows, [])), [])
    one.ledger.idle(NOW_US)
    one.ledger.flush()
    before = read(store)
    one.let_go(days=1)
    after = read(store)
    one.let_go()
    last = read(store)

    assert (before.row.lost_in_queue, before.total("lost")) == (1, 3)
    assert [books.row.lost_in_queue for books in (after, after.carried)] == [1, 1]
    assert not last.emitters
    assert sums(last) == sums(after) == sums(before)
    assert figures(last) == figures(after) == figures(before)


def test_what_the_queue_lost_at_the_end_of_a_run_counts_once_when_its_number_shows_it_later(store: Store) -> None:
    """Its window has been let go of by then."""
    one = Partition(store)
    one.settle(Record(Kind.DATA, EPOCH, 1, 1, HOUR, [one.batch(HOUR, 1, 1)]), [INDEXED])
    one.marker(HOUR, 2)
    another = batch(b"{}", emitter="web", received_us=(HOUR + 24 * 60) * MINUTE_US, epoch="e2", sequence_first=1)
    one.settle(Record(Kind.DATA, EPOCH, 3, 1, HOUR + 24 * 60, [another]), [INDEXED])
    one.ledger.idle(NOW_US)
    one.ledger.flush()
    one.let_go(days=1)
    before = read(store)
    one.settle(Record(Kind.DATA, EPOCH, 4, 1, HOUR + 48 * 60, [one.batch(HOUR + 48 * 60, 1, 3)]), [INDEXED])
    one.ledger.idle(NOW_US + 10 * DAY_US)
    one.ledger.flush()
    after = read(store)

    assert (before.carried.row.lost_in_queue, before.total("lost")) == (1, 1)
    assert after.total("lost") == 1
    assert figures(after)["logweir_lost_events {'place': 'queue', 'class': 'exact'}"] == 1
    assert figures(after)["logweir_lost_events {'place': 'before_ingest', 'class': 'exact'}"] == 0


def test_an_emitter_is_known_as_long_as_its_windows(store: Store) -> None:
    """Retention ends within the minute: what the queue lost of it would be nobody's, beside its own number's."""
    one = Partition(store)
    one.settle(Record(Kind.DATA, EPOCH, 1, 1, HOUR, [one.batch(HOUR, 1, 1)]), [INDEXED])
    one.settle(Record(Kind.DATA, EPOCH, 3, 1, HOUR, [one.batch(HOUR, 1, 3)]), [INDEXED])
    one.settle(Record(Kind.MARKER, EPOCH, 1, 3, HOUR, Marker([Accepted("app", "web", 3, 0)], [])), [])
    one.ledger.idle(NOW_US)
    one.ledger.flush()
    before = read(store)
    at_days = (HOUR * MINUTE_US + LIMITS.retention_days * DAY_US - NOW_US) / DAY_US
    one.let_go(days=at_days + 0.5 / 24 / 60)
    half_a_minute_in = read(store)
    one.let_go(days=at_days + 5 / 24 / 60)
    after = read(store)

    assert list(half_a_minute_in.emitters) == [("app", "web")]
    assert not after.emitters
    assert sums(after) == sums(half_a_minute_in) == sums(before)
    assert figures(after) == figures(half_a_minute_in) == figures(before)
    assert after.total("lost") == 1


def test_what_was_lost_of_nobody_knows_whom_stays_what_it_was(store: Store) -> None:
    """Between windows; and in one whose emitter has as many void numbers that came after all."""
    one = Partition(store)
    bare = batch(b"{}", key="bare", received_us=HOUR * MINUTE_US)
    one.settle(Record(Kind.DATA, EPOCH, 1, 1, HOUR, [bare]), [INDEXED])
    one.settle(Record(Kind.DATA, EPOCH, 3, 1, HOUR, [bare]), [INDEXED])
    one.settle(Record(Kind.MARKER, EPOCH, 1, 3, HOUR, Marker([Accepted("bare", None, 2, 0)], [(3, 3)])), [])
    one.settle(Record(Kind.MARKER, EPOCH, 6, 0, HOUR + 1, Marker([], [])), [])
    one.ledger.idle(NOW_US)
    one.ledger.flush()
    before = read(store)
    one.let_go()
    after = read(store)

    assert (before.row.lost_in_queue, before.row.unconfirmed, before.total("lost")) == (3, 1, 3)
    assert (after.carried.outside_windows, after.carried.lost_in_queue["unknown"]) == (2, 0)
    assert sums(after) == sums(before)
    assert figures(after) == figures(before)


def test_what_retention_has_not_reached_goes_on_from_there(store: Store) -> None:
    """Nothing below is called lost or in flight again; what comes later is added."""
    one = Partition(store)
    one.window(HOUR, INDEXED, INDEXED)
    one.ledger.expire(one.offset, one.offset)
    one.offset, one.number = one.offset + 1, one.number + 3  # three numbers fell into that hole
    one.window(HOUR + 5 * 24 * 60, INDEXED)
    before = read(store)
    one.let_go(days=3)
    after = read(store)
    one.window(HOUR + 5 * 24 * 60 + 1, INDEXED)

    assert before.row.lost_in_queue == 3
    assert sums(after) == sums(before)
    assert len(after.windows) == 1
    assert read(store).row.accepted == before.row.accepted + 1
    assert read(store).row.lost_in_queue == 3


def test_what_a_worker_that_is_behind_counts_by_now_is_not_old(store: Store) -> None:
    """Received long ago, and the rest of it may be in the next record."""
    one = Partition(store)
    one.window(HOUR, INDEXED)
    late_us = NOW_US + 100 * DAY_US
    deleted = delete_old_books(
        store,
        group="g",
        owner="me",
        settings=LIMITS,
        ledgers=[one.ledger],
        now_us=late_us,
        books=old_books(store, group="g", settings=LIMITS, now_us=late_us),
    )

    assert deleted == 0
    assert "window" in kinds(store)


def test_a_correction_of_what_is_carried_still_counts(store: Store) -> None:
    """A dead letter that is kept longer than its window's books is tried again; then its line is let go of, too."""
    one = Partition(store)
    one.window(HOUR, DEAD)
    one.let_go()
    place = WindowId("t", 0, EPOCH.hex(), HOUR)
    revise(store, "g", place, [Change(1, ("app", "web"), DEAD, INDEXED)], cause="retry", at_us=1, owner="me")
    before = sums(read(store))
    one.let_go()

    assert before[0].outcomes == {"indexed": 1, "duplicate": 0, "filtered": 0, "dead_lettered": 0}
    assert sums(read(store)) == before
    assert "revision" not in kinds(store)


def test_an_emitter_on_partitions_of_two_workers_is_kept(store: Store) -> None:
    """What of it is lost shows in all its parts together: neither of the two may judge."""
    one, other = Partition(store), Partition(store, partition=1)
    one.window(HOUR, INDEXED, INDEXED)
    other.window(HOUR, INDEXED, sequence_first=3)
    before = sums(read(store))
    one.let_go()
    other.let_go()

    assert sums(read(store)) == before
    assert len(list(store.ledger.scan("emitter:g:"))) == 2


def test_a_merge_that_was_killed_right_behind_its_claim_stands_in_nobodys_way(store: Store) -> None:
    """The hour's document says nothing yet; its windows are read, and added to, as ever."""
    one = Partition(store)
    record = one.window(HOUR, INDEXED)
    HOUR_KIND.claim(store.ledger, "g", WindowId("t", 0, EPOCH.hex(), HOUR).hour, "somebody")
    counted = one.settle(record, [INDEXED])
    window = read_window(store, "g", WindowId("t", 0, EPOCH.hex(), HOUR))

    assert not counted
    assert window is not None and not window.minutes
    assert read(store).row.accepted == 1
    assert one.merge() == 1
