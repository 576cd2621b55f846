"""The third witness, and old books let go of."""

from __future__ import annotations

import json

import prometheus_client
import pytest

from logweir.audit.books import read_books, read_books_and_store
from logweir.config import AccountingSettings
from logweir.event import Provenance, day_of, stream_of
from logweir.ledger.documents import REPLAY, Digest, WindowId
from logweir.ledger.expiry import read_expired_before, write_expired_before
from logweir.ledger.replays import ReplayProgress
from logweir.ledger.revisions import Change, revise
from logweir.metrics import registry
from logweir.outcomes import Outcome
from logweir.record import Accepted, Kind, Marker, Record
from logweir.store.port import Store
from logweir_workers.accounting.hours import HourMerger
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.retention import delete_old_books, old_books
from logweir_workers.accounting.settled import SettledRecord
from logweir_workers.accounting.store_audit import StoreAuditor, suspicious
from tests.contract.stores import index_numbers
from tests.workers.helpers import batch

EPOCH = b"\x07" * 16
MINUTE_US = 60_000_000
DAY_US = 86_400_000_000
WINDOW = 29_000_000
START_US = WINDOW * MINUTE_US
NOW_US = START_US + 10 * MINUTE_US


def corrected(store: Store, change: Change) -> None:
    place = WindowId("t", 0, EPOCH.hex(), WINDOW)
    assert revise(store, "g", place, [change], cause="retry 1", at_us=NOW_US, owner="me") == 1


def claimed(store: Store, partition: int = 0) -> PartitionLedger:
    return PartitionLedger.claim(store=store, group="g", topic_id="t", partition=partition, owner="me")


def close_window(
    ledger: PartitionLedger,
    outcomes: list[Outcome],
    *,
    window: int = WINDOW,
    offset: int = 0,
    emitter: str = "web",
    first: int = 1,
    marker: bool = True,
    received_us: int | None = None,
) -> None:
    """A window of that many events from number ``first`` on, with its marker."""
    events = [json.dumps({"summary": f"{at}"}).encode() for at in range(len(outcomes))]
    received_us = received_us or window * MINUTE_US
    one = batch(*events, emitter=emitter, received_us=received_us, epoch="e1", sequence_first=first)
    records = [Record(Kind.DATA, EPOCH, first, len(outcomes), window, [one])]
    if marker:
        promised = Marker([Accepted("app", emitter, len(outcomes), 0)], [])
        records.append(Record(Kind.MARKER, EPOCH, first, len(outcomes), window, promised))
    for at, record in enumerate(records):
        ledger.expect(record, offset + at)
        ledger.load([record])
        ledger.settle(SettledRecord(record, offset + at, outcomes if at == 0 else []))
    ledger.flush()


def keep(store: Store, *numbers: int, received_us: int = START_US) -> None:
    index_numbers(store, EPOCH, 0, numbers, received_us=received_us)


def lose(store: Store, *numbers: int) -> None:
    stream = stream_of(EPOCH, 0)
    store.delete([(day_of(START_US), f"{stream}-{n}", Provenance(stream, n, "")) for n in numbers])
    store.refresh()


def imbalance(store: Store) -> int:
    return read_books(store, group="g", late_us=1, now_us=NOW_US).imbalance


class Asking:
    """The auditor of these ledgers, with a clock that tests move on."""

    def __init__(self, store: Store, *ledgers: PartitionLedger, now_us: int = NOW_US) -> None:
        self.now_us = now_us
        self.ledgers = ledgers
        self.auditor = StoreAuditor(store=store, group="g", clock=lambda: self.now_us)
        self.auditor.audit_some(ledgers)

    def go_on(self, minutes: int = 2) -> None:
        self.now_us += minutes * MINUTE_US
        self.auditor.audit_some(self.ledgers)


@pytest.fixture(autouse=True)
def _with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logweir_workers.accounting.store_audit._TURN_S_MAX", 60.0)


@pytest.mark.parametrize(("stored", "difference"), [((1, 2, 3), 0), ((1, 3), 1), ((1, 2, 3, 4), 1)])
def test_the_store_is_asked_itself_and_a_difference_is_an_imbalance(
    store: Store, stored: tuple[int, ...], difference: int
) -> None:
    """Door and worker agree on three; what the store has too few or too many of is not hidden."""
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED] * 3 + [Outcome.DUPLICATE])
    keep(store, *stored)
    asking = Asking(store, ledger)
    found = [imbalance(store)]
    for _ in range(3):
        asking.go_on()
        found.append(imbalance(store))

    assert found == [0, 0, difference, difference]
    assert not ledger.windows.closed_lately


def test_what_was_not_visible_yet_at_the_first_look_is_no_difference(store: Store) -> None:
    """A worker that catches up closes a window of long ago before its last bulk is found."""
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED] * 3)
    keep(store, 1)
    asking = Asking(store, ledger, now_us=START_US + 3 * 60 * MINUTE_US)
    asking.go_on()
    keep(store, 2, 3)
    asking.go_on()

    assert imbalance(store) == 0
    assert not list(store.ledger.scan("store_difference:"))


def test_a_window_is_asked_for_two_minutes_after_it_closed_however_old_it_is(store: Store) -> None:
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED])
    asking = Asking(store, ledger, now_us=START_US + 3 * 60 * MINUTE_US)
    asking.go_on(1)
    waiting = len(ledger.windows.closed_lately)
    asking.go_on(1)

    assert waiting == 1
    assert not ledger.windows.closed_lately


def test_a_difference_that_a_later_look_does_not_find_is_withdrawn_with_its_history(store: Store) -> None:
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED] * 3)
    keep(store, 1)
    asking = Asking(store, ledger)
    asking.go_on()
    asking.go_on()
    before = imbalance(store)
    found_us = asking.now_us
    keep(store, 2, 3)
    asking.go_on(11)
    books = read_books(store, group="g", late_us=1, now_us=NOW_US)

    assert before == 2
    assert books.balanced
    (one,) = books.as_json()["store_differences"]
    assert (one["difference"], one["found_difference"], one["found_us"]) == (0, -2, found_us)
    assert one["looked_us"] == asking.now_us


def test_corrections_are_part_of_what_the_store_should_have_and_heal_a_difference(store: Store) -> None:
    """A retry indexed a dead letter of the window: with its line, the store is right again."""
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED, Outcome.DEAD_LETTERED])
    keep(store, 1, 2)
    asking = Asking(store, ledger)
    asking.go_on()
    asking.go_on()
    before = imbalance(store)
    corrected(store, Change(2, ("app", "web"), Outcome.DEAD_LETTERED, Outcome.INDEXED))
    asking.go_on(11)

    assert before == 1
    assert imbalance(store) == 0


def test_partitions_take_turns_however_little_time_there_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One window a turn, of one partition after the other; with time, all that are due in one turn."""
    ledgers = [claimed(store, partition) for partition in range(3)]
    for at, ledger in enumerate(ledgers):
        for minute in range(4):
            close_window(ledger, [Outcome.INDEXED], window=WINDOW + minute, offset=2 * minute, emitter=f"web {at}")
    asking = Asking(store, *ledgers)
    left = []
    monkeypatch.setattr("logweir_workers.accounting.store_audit._TURN_S_MAX", 0.0)
    asking.now_us += 2 * MINUTE_US
    for _ in range(4):
        asking.go_on(0)
        left.append([len(ledger.windows.closed_lately) for ledger in ledgers])
    monkeypatch.setattr("logweir_workers.accounting.store_audit._TURN_S_MAX", 60.0)
    asking.go_on()
    asking.go_on()

    assert left == [[3, 4, 4], [3, 3, 4], [3, 3, 3], [2, 3, 3]]
    assert not any(ledger.windows.closed_lately for ledger in ledgers)
    assert imbalance(store) == 12


def test_windows_that_closed_before_a_restart_are_asked_for_behind_it(store: Store) -> None:
    """Those that waited, and no others; an open one among them waits until it has closed."""
    first = claimed(store)
    close_window(first, [Outcome.INDEXED])
    before = Asking(store, first)
    before.go_on()
    for minute in (1, 2):
        close_window(first, [Outcome.INDEXED], window=WINDOW + minute, offset=2 * minute)
    opened = Record(Kind.DATA, EPOCH, 2, 1, WINDOW + 3, [batch(b"{}", received_us=START_US)])
    first.load([opened])
    first.settle(SettledRecord(opened, 6, [Outcome.INDEXED]))
    first.flush()
    second = claimed(store)
    waiting = [place.window for place in second.windows.closed_lately]
    behind = Asking(store, second)
    behind.go_on()
    behind.go_on()
    differences = [one.id.rsplit(":", 1)[1] for one in store.ledger.scan("store_difference:")]

    assert waiting == [WINDOW + 1, WINDOW + 2, WINDOW + 3]
    assert differences == [str(WINDOW + minute) for minute in (1, 2)]
    assert not second.windows.closed_lately


@pytest.mark.parametrize("is_closed", [True, False])
def test_what_goes_later_is_found_in_turn(store: Store, is_closed: bool) -> None:
    """All windows are asked for again, closed by their process or not; merged ones to the minute."""
    ledger = claimed(store)
    for minute in range(3):
        numbers = 3 * minute + 1, 3 * minute + 3
        close_window(
            ledger, [Outcome.INDEXED] * 3, window=WINDOW + minute, offset=2 * minute, first=numbers[0], marker=is_closed
        )
    keep(store, *range(1, 10))
    late_us = START_US + 60 * MINUTE_US
    before = suspicious(store, "g", {0}, now_us=late_us, share=1)
    lose(store, 5)
    not_ours = suspicious(store, "g", {1}, now_us=late_us, share=1)
    too_early = suspicious(store, "g", {0}, now_us=START_US + 5 * MINUTE_US, share=1)
    found = suspicious(store, "g", {0}, now_us=late_us, share=1)
    asking = Asking(store, ledger, now_us=late_us)
    asking.auditor.suspect(found)
    asking.go_on(0)

    assert before == not_ours == too_early == []
    assert [place.window for place in found] == [WINDOW + 1]
    assert imbalance(store) == 1


def test_what_goes_from_a_merged_window_is_found_to_the_minute(store: Store) -> None:
    ledger = claimed(store)
    hour = WINDOW // 60 * 60
    for minute in range(3):
        close_window(ledger, [Outcome.INDEXED] * 3, window=hour + minute, offset=2 * minute, first=3 * minute + 1)
    keep(store, 1, 2, 3, 4, 6, 7, 8, 9)
    now_us = START_US + DAY_US + 60 * MINUTE_US
    merger = HourMerger(store=store, group="g", owner="me", settings=AccountingSettings(), clock=lambda: now_us)
    merger.look([ledger])
    while merger.merge_some():
        pass
    found = suspicious(store, "g", {0}, now_us=now_us, share=1)

    assert [one.id for one in store.ledger.scan("hour:")]
    assert [place.window for place in found] == [hour + 1]


def test_days_that_are_expired_are_not_missed(store: Store) -> None:
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED] * 3)
    day = day_of(START_US)
    expected = read_books_and_store(store, group="g", late_us=1, now_us=NOW_US)
    write_expired_before(store, "g", day, aged_us=2, owner="me")
    write_expired_before(store, "g", "19700101", aged_us=1, owner="other")
    on_the_day = read_books_and_store(store, group="g", late_us=1, now_us=NOW_US)
    write_expired_before(store, "g", day_of(START_US + DAY_US), aged_us=3, owner="me")
    behind = read_books_and_store(store, group="g", late_us=1, now_us=NOW_US)

    assert (expected.imbalance, on_the_day.imbalance, behind.imbalance) == (3, 3, 0)
    assert read_expired_before(store, "g") == day_of(START_US + DAY_US)
    assert suspicious(store, "g", {0}, now_us=START_US + DAY_US, share=1) == []


@pytest.mark.parametrize("is_merged", [False, True])
def test_events_that_a_clock_that_was_set_back_kept_under_days_before_are_not_missed(
    store: Store, is_merged: bool
) -> None:
    """Their window never goes back; retention passes the day that they are kept under before it passes the window's."""
    ledger, now_us = claimed(store), START_US + 2 * 3_600_000_000
    close_window(ledger, [Outcome.INDEXED] * 3, received_us=START_US - DAY_US)
    keep(store, 1, 2, 3, received_us=START_US - DAY_US)
    if is_merged:
        settings = AccountingSettings(merge_after_s=600)
        merger = HourMerger(store=store, group="g", owner="me", settings=settings, clock=lambda: now_us)
        merger.look([ledger])
        merger.merge_some()
    before = read_books_and_store(store, group="g", late_us=1, now_us=now_us)
    expired = day_of(START_US)
    write_expired_before(store, "g", expired, aged_us=1, owner="me")
    deleted = store.delete_expired(expired)
    behind = read_books_and_store(store, group="g", late_us=1, now_us=now_us)

    assert bool([*store.ledger.scan("hour:")]) == is_merged
    assert deleted == [day_of(START_US - DAY_US)]
    assert before.balanced and behind.balanced
    assert suspicious(store, "g", {0}, now_us=now_us, share=1) == []


def test_the_audit_finds_what_is_gone_since_the_windows_were_asked_for(store: Store) -> None:
    """By day, process and partition; what is known of a window already is not counted twice."""
    ledger = claimed(store)
    for minute in range(2):
        close_window(ledger, [Outcome.INDEXED] * 3, window=WINDOW + minute, offset=2 * minute, first=3 * minute + 1)
    keep(store, 1, 2, 3, 4, 5)
    asking = Asking(store, ledger)
    asking.go_on()
    asking.go_on()
    known = read_books_and_store(store, group="g", late_us=1, now_us=NOW_US)
    lose(store, 1, 2)
    found = read_books_and_store(store, group="g", late_us=1, now_us=NOW_US)

    assert (known.imbalance, known.shortages) == (1, [])
    assert found.imbalance == 3
    assert found.as_json()["store_shortages"] == [
        {
            "day": day_of(START_US),
            "partition": 0,
            "ingest_epoch": EPOCH.hex(),
            "stored": 3,
            "indexed": 5,
            "difference": -2,
        }
    ]


def test_events_are_found_whatever_day_they_were_received_on(store: Store) -> None:
    """A clock that was set back by days gives events another day than their window has."""
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED] * 3)
    keep(store, 1, 2, 3, received_us=START_US - 3 * DAY_US)
    asking = Asking(store, ledger)
    asking.go_on()
    asking.go_on()

    assert read_books_and_store(store, group="g", late_us=1, now_us=NOW_US).balanced


def test_windows_that_nobody_will_ask_for_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more wait than there is room for, the latest do."""
    monkeypatch.setattr("logweir_workers.accounting.windows.CLOSED_LATELY_MAX", 2)
    name = "logweir_worker_windows_unaudited_total"
    registry.get(name)
    before = prometheus_client.REGISTRY.get_sample_value(name) or 0.0
    ledger = claimed(store)
    for minute in range(5):
        close_window(ledger, [Outcome.INDEXED], window=WINDOW + minute, offset=2 * minute)

    assert prometheus_client.REGISTRY.get_sample_value(name) == before + 3
    assert [place.window for place in ledger.windows.closed_lately] == [WINDOW + 3, WINDOW + 4]
    assert [place.window for place in claimed(store).windows.closed_lately] == [WINDOW + 3, WINDOW + 4]


def test_books_older_than_their_retention_are_deleted_and_nothing_else(store: Store) -> None:
    """Windows, emitters and corrections of long ago go; of partitions that are not ours, none."""
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED])
    corrected(store, Change(1, ("app", "web"), Outcome.INDEXED, Outcome.FILTERED))
    other = PartitionLedger.claim(store=store, group="g", topic_id="t", partition=1, owner="other")
    close_window(other, [Outcome.INDEXED], emitter="db")
    limits = AccountingSettings(retention_days=2)

    def delete(days: int) -> int:
        ledger._position.watermark_us = START_US + (days + 2) * DAY_US
        now_us = START_US + days * DAY_US + MINUTE_US * 2
        books = old_books(store, group="g", settings=limits, now_us=now_us)
        return delete_old_books(
            store, group="g", owner="me", settings=limits, ledgers=[ledger], now_us=now_us, books=books
        )

    assert delete(1) == 0
    assert delete(2) == 3
    assert delete(2) == 0
    assert sorted(document.id.partition(":")[0] for document in store.ledger.scan("")) == [
        "activity",
        "activity",
        "carried_forward",
        "emitter",
        "position",
        "position",
        "window",
    ]
    assert ledger.emitters.count == 0
    close_window(ledger, [Outcome.INDEXED], window=WINDOW + 3 * 1440, offset=2)
    assert read_books(store, group="g", late_us=1, now_us=NOW_US).balanced


def test_sources_of_long_ago_make_room_and_those_of_topics_gone_are_deleted(store: Store) -> None:
    """What the partition has heard lately stays, also of a topic that is gone; what others' partitions have, too."""

    def heard(topic_id: str, partition: int, *hostnames: str, day: int = 0) -> PartitionLedger:
        ledger = PartitionLedger.claim(store=store, group="g", topic_id=topic_id, partition=partition, owner="me")
        one = batch(b"{}", received_us=START_US + day * DAY_US)
        record = Record(Kind.DATA, EPOCH, 1, 1, WINDOW + day * 1440, [one])
        sources = {("x", hostname): one for hostname in hostnames}
        ledger.load([record], (), sources)
        ledger.settle(SettledRecord(record, 0, [Outcome.INDEXED], sources=sources))
        ledger.flush()
        return ledger

    def kept(prefix: str) -> list[tuple[str, list[str]]]:
        rows = [(document.id.split(":")[2], document.body["sources"]) for document in store.ledger.scan(prefix)]
        return sorted((topic, [row["hostname"] for row in found]) for topic, found in rows if found)

    heard("gone", 0, "old")
    heard("late", 0, "new", day=9)
    heard("gone", 1, "others")
    heard("t", 0, "old", "older")
    heard("t", 0, "old", day=8)
    ledger = heard("t", 0, "old", day=9)
    limits = AccountingSettings(retention_days=2)
    now_us = START_US + 9 * DAY_US
    books = old_books(store, group="g", settings=limits, now_us=now_us)
    delete_old_books(store, group="g", owner="me", settings=limits, ledgers=[ledger], now_us=now_us, books=books)
    ledger.rewind(0)
    ledger.flush()

    assert kept("sources:g:") == [("gone", ["others"]), ("late", ["new"]), ("t", ["old"])]
    assert ledger.sources.count == 1
    assert sorted(document.id for document in store.ledger.scan("activity:")) == [
        "activity:g:gone:1",
        "activity:g:late:0",
        "activity:g:t:0",
    ]


def test_replays_begun_long_ago_are_forgotten(store: Store) -> None:
    """Done, or stopped and never gone on with."""
    limits = AccountingSettings(retention_days=2)
    for group, name, begun_us in (
        ("g", "old", NOW_US - 3 * DAY_US),
        ("g", "new", NOW_US - DAY_US),
        ("other", "old", 0),
    ):
        body = ReplayProgress("t", begun_us, {}, {}).as_body()
        store.ledger.write([REPLAY.document(group, Digest(name), 1, body, owner="me")])
    deleted = delete_old_books(store, group="g", owner="me", settings=limits, ledgers=[], now_us=NOW_US, books=None)

    assert deleted == 1
    assert [one.id for one in store.ledger.scan("replay:")] == ["replay:g:new", "replay:other:old"]
