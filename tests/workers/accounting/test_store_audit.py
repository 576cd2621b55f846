"""The third witness, and old books let go of."""

from __future__ import annotations

import json

import prometheus_client
import pytest

from logweir.audit.books import read_books
from logweir.config import AccountingSettings
from logweir.event import Document, Provenance, day_of, stream_of
from logweir.ledger.documents import REPLAY, Digest, WindowId
from logweir.ledger.replays import ReplayProgress
from logweir.ledger.revisions import Change, revise
from logweir.metrics import registry
from logweir.outcomes import Outcome
from logweir.record import Accepted, Kind, Marker, Record
from logweir.store.port import Store
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.retention import delete_old_books, old_books
from logweir_workers.accounting.settled import SettledRecord
from logweir_workers.accounting.store_audit import StoreAuditor
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
    ledger: PartitionLedger, outcomes: list[Outcome], *, window: int = WINDOW, offset: int = 0, emitter: str = "web"
) -> None:
    """A window of that many events from number 1 on, with its marker."""
    events = [json.dumps({"summary": f"{at}"}).encode() for at in range(len(outcomes))]
    one = batch(*events, emitter=emitter, received_us=window * MINUTE_US, epoch="e1", sequence_first=1)
    for at, record in enumerate(
        (
            Record(Kind.DATA, EPOCH, 1, len(outcomes), window, [one]),
            Record(
                Kind.MARKER, EPOCH, 1, len(outcomes), window, Marker([Accepted("app", emitter, len(outcomes), 0)], [])
            ),
        )
    ):
        ledger.expect(record, offset + at)
        ledger.load([record])
        ledger.settle(SettledRecord(record, offset + at, outcomes if at == 0 else []))
    ledger.flush()


def keep(store: Store, *numbers: int) -> None:
    """Documents of those numbers, as the worker would have indexed them."""
    stream = stream_of(EPOCH, 0)
    store.index(
        [
            Document(
                f"e{number}",
                day_of(START_US),
                {"receivedtimestamp": "2025-02-19T13:20:00.000000Z", "summary": "x"},
                Provenance(stream, number, "0" * 16),
                "x",
                "x",
            )
            for number in numbers
        ]
    )
    store.refresh()


def imbalance(store: Store) -> int:
    return read_books(store, group="g", late_us=1, now_us=NOW_US).imbalance


@pytest.mark.parametrize(("stored", "difference"), [((1, 2, 3), 0), ((1, 3), 1), ((1, 2, 3, 4), 1)])
def test_the_store_is_asked_itself_and_a_difference_is_an_imbalance(
    store: Store, stored: tuple[int, ...], difference: int
) -> None:
    """Door and worker agree on three; what the store has too few or too many of is not hidden."""
    ledger = claimed(store)
    outcomes = [Outcome.INDEXED] * 3 + [Outcome.DUPLICATE]
    close_window(ledger, outcomes)
    keep(store, *stored)
    auditor = StoreAuditor(store=store, group="g", clock=lambda: NOW_US)
    before = imbalance(store)
    auditor.audit_some([ledger])

    assert before == 0
    assert imbalance(store) == difference
    assert not ledger.windows.closed_lately


def test_corrections_are_part_of_what_the_store_should_have_and_heal_a_difference(store: Store) -> None:
    """A retry indexed a dead letter of the window: with its line, the store is right again."""
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED, Outcome.DEAD_LETTERED])
    keep(store, 1, 2)
    auditor = StoreAuditor(store=store, group="g", clock=lambda: NOW_US)
    waiting = ledger.windows.closed_lately[0]
    auditor.audit_some([ledger])
    before = imbalance(store)
    corrected(store, Change(2, ("app", "web"), Outcome.DEAD_LETTERED, Outcome.INDEXED))
    ledger.windows.closed_lately.append(waiting)
    auditor.audit_some([ledger])

    assert before == 1
    assert imbalance(store) == 0


def test_a_window_that_has_just_closed_is_not_asked_for_yet(store: Store) -> None:
    """What the store was given may not be found for a second."""
    ledger = claimed(store)
    close_window(ledger, [Outcome.INDEXED])
    StoreAuditor(store=store, group="g", clock=lambda: START_US + 90_000_000).audit_some([ledger])

    assert len(ledger.windows.closed_lately) == 1
    assert imbalance(store) == 0


def test_partitions_take_turns_however_little_time_there_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One window a turn, of one partition after the other; with time, all that are due in one turn."""
    ledgers = [claimed(store, partition) for partition in range(3)]
    for at, ledger in enumerate(ledgers):
        for minute in range(4):
            close_window(ledger, [Outcome.INDEXED], window=WINDOW + minute, offset=2 * minute, emitter=f"web {at}")
    auditor = StoreAuditor(store=store, group="g", clock=lambda: NOW_US)
    left = []
    monkeypatch.setattr("logweir_workers.accounting.store_audit._TURN_S_MAX", 0.0)
    for _ in range(4):
        auditor.audit_some(ledgers)
        left.append([len(ledger.windows.closed_lately) for ledger in ledgers])
    monkeypatch.setattr("logweir_workers.accounting.store_audit._TURN_S_MAX", 60.0)
    auditor.audit_some(ledgers)

    assert left == [[3, 4, 4], [3, 3, 4], [3, 3, 3], [2, 3, 3]]
    assert not any(ledger.windows.closed_lately for ledger in ledgers)
    assert imbalance(store) == 12


def test_windows_that_closed_before_a_restart_are_asked_for_behind_it(store: Store) -> None:
    """Those that waited, and no others; an open one among them waits until it has closed."""
    first = claimed(store)
    for minute in range(3):
        close_window(first, [Outcome.INDEXED], window=WINDOW + minute, offset=2 * minute)
    StoreAuditor(store=store, group="g", clock=lambda: START_US + 3 * MINUTE_US).audit_some([first])
    asked = imbalance(store)
    one = batch(b"{}", received_us=START_US)
    opened = Record(Kind.DATA, EPOCH, 2, 1, WINDOW + 3, [one])
    first.load([opened])
    first.settle(SettledRecord(opened, 6, [Outcome.INDEXED]))
    first.flush()
    second = claimed(store)
    waiting = [place.window for place in second.windows.closed_lately]
    StoreAuditor(store=store, group="g", clock=lambda: NOW_US).audit_some([second])
    differences = [one.id.rsplit(":", 1)[1] for one in store.ledger.scan("store_difference:")]

    assert asked == 1
    assert waiting == [WINDOW + 1, WINDOW + 2, WINDOW + 3]
    assert differences == [str(WINDOW + minute) for minute in range(3)]
    assert not second.windows.closed_lately


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
