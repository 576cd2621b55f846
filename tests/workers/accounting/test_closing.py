"""The books of an ingest process that is gone, ended on its successor's word: where all is known that it sent."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from logweir import clock, config
from logweir.audit.close import close_process
from logweir.audit.windows import CLOSED_AFTERWARDS, PROCESS_GONE
from logweir.config import Settings
from logweir.errors import CLAIM_LOST, PROCESS_UNKNOWN, LogweirError
from logweir.ledger.position import STREAM_MINUTES_MAX
from logweir.queue.port import Queue
from logweir.record import Gone, Kind, Record, encode
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.closing import end_books
from logweir_workers.accounting.settled import SettledRecord
from tests.logweir.audit.test_books import EPOCH, INDEXED, LATER_US, MINUTE_US, START_US, WINDOW, Partition, batch, read
from tests.waiting import until
from tests.workers import helpers
from tests.workers.helpers import Door, running_worker

NAME = EPOCH.hex()
SAID_US = START_US + 90_000_000
AFTER_US = SAID_US + 10_000_000
BY = b"\x08" * 16
OTHER = b"\x09" * 16


def say(book: Partition) -> None:
    book.settle(Record(Kind.GONE, EPOCH, 1, 0, SAID_US // MINUTE_US, Gone(BY, SAID_US)), [])


def end(store: Store, *books: Partition, idle_us: int = AFTER_US) -> int:
    """As a worker does it that has read everything up to then; gives of how many processes there is no more to do."""
    for book in books:
        book.idle(idle_us)
    before = sum(len(ended(book)) for book in books)
    end_books(store, group="logweir", ledgers=[book.ledger for book in books], now_us=idle_us)
    for book in books:
        book.ledger.flush()
    return before - sum(len(ended(book)) for book in books)


def ended(book: Partition) -> dict[str, str]:
    return book.ledger.streams.ended(book.ledger.written_offset)


def with_two_windows(store: Store) -> Partition:
    """Neither has a marker; nothing is missing in them."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.data(3, ("web", [INDEXED]), window=WINDOW + 1)
    return book


def test_its_windows_are_closed_when_nothing_is_missing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Soon, not after minutes of silence: its successor knows. Whoever takes the partition over does it, and once."""
    caplog.set_level(logging.INFO)
    book = with_two_windows(store)
    say(book)
    before = read(store)
    book = Partition(store)
    counts = [end(store, book), end(store, book), end(store, Partition(store))]
    after = read(store)
    (document,) = store.ledger.scan("closing:")

    assert counts == [1, 0, 0]
    assert before.states == {"open": 2}
    assert after.states == {CLOSED_AFTERWARDS: 2}
    assert after.row == before.row
    assert after.row.settled == 3
    assert after.balanced
    assert (document.body["who"], document.body["at_us"]) == (f"process {BY.hex()}", AFTER_US)
    said = [record for record in caplog.records if "2 windows of partition 0 closed" in record.message]
    assert [record.ingest_epoch for record in said] == [NAME]  # type: ignore[attr-defined]


def test_it_waits_for_what_may_stand_behind_the_word_however_late_that_is_read(store: Store) -> None:
    """A busy broker took the last record later than the word; the worker reads both long after."""
    book = with_two_windows(store)
    say(book)
    early = end(store, book, idle_us=AFTER_US - 1)
    unclosed = read(store).states
    book.data(4, ("web", [INDEXED]), window=WINDOW + 1)
    ended = end(store, book, idle_us=LATER_US)

    assert (early, ended) == (0, 1)
    assert unclosed == {"open": 2}
    assert read(store).states == {CLOSED_AFTERWARDS: 2}


def test_it_waits_until_the_word_and_all_before_it_is_written(store: Store) -> None:
    """A crash would undo what is not."""
    book = with_two_windows(store)
    book.ledger.settle(SettledRecord(Record(Kind.GONE, EPOCH, 1, 0, WINDOW, Gone(BY, SAID_US)), book.offset, []))
    book.ledger.idle(AFTER_US)
    unwritten = ended(book)
    book.ledger.flush()
    written = ended(book)
    record = Record(Kind.DATA, EPOCH, 4, 1, WINDOW + 1, [batch("web", 1, window=WINDOW + 1)])
    book.ledger.load([record])
    book.ledger.settle(SettledRecord(record, book.offset + 1, [INDEXED]))

    assert unwritten == ended(book) == {}
    assert written == {NAME: BY.hex()}


def other(book: Partition, number: int, window: int) -> None:
    """A record of another process."""
    record = Record(Kind.DATA, OTHER, number, 1, window, [batch("x", 1, window=window)])
    book.settle(record, [INDEXED])


def left_to_a_person(store: Store, book: Partition, caplog: pytest.LogCaptureFixture) -> str:
    """The word changes nothing, and is not looked at again; gives what the log says of it."""
    say(book)
    caplog.clear()
    assert end(store, book) == 1
    assert end(store, book) == 0
    assert list(store.ledger.scan("closing:")) == []
    book.idle(LATER_US)
    assert PROCESS_GONE in read(store, now_us=LATER_US).states
    (line,) = caplog.messages
    return line


def test_numbers_that_never_came_are_a_persons_to_judge(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """They were refused, or the queue has lost what it had confirmed: nobody can tell any more."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.data(5, ("web", [INDEXED]))

    assert "for numbers that it gave out never came" in left_to_a_person(store, book, caplog)
    assert read(store, now_us=LATER_US).row.undecided == 2


@pytest.mark.parametrize("how", ["expired", "unreadable", "cut off", "cut off long after", "expired behind the word"])
def test_what_the_queue_lost_behind_it_is_a_persons_to_judge(
    store: Store, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """It may have been of the process that is gone."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    if how == "expired":
        book.hole(10)
    elif how == "unreadable":
        book.ledger.pass_over(book.offset)
        book.offset += 1
    elif how == "cut off":
        book.ledger.rewind(1)
    elif how == "cut off long after":
        # What was in its spool came, and was lost before it was read.
        other(book, 1, WINDOW + 5)
        other(book, 2, WINDOW + 5)
        book.offset -= 1
        book.ledger.rewind(book.offset)
    else:
        say(book)
        book.hole(1000)

    assert "for the queue has lost records" in left_to_a_person(store, book, caplog)


@pytest.mark.parametrize("is_back", [False, True])
def test_who_was_heard_of_too_long_ago_is_a_persons_to_judge(
    store: Store, caplog: pytest.LogCaptureFixture, is_back: bool
) -> None:
    """A machine that was off for more than a week: what was awaited of it is forgotten; with its spool, or without."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    other(book, 1, WINDOW + STREAM_MINUTES_MAX + 5)
    if is_back:
        book.data(5, ("web", [INDEXED]))

    assert "for it was heard of too long ago" in left_to_a_person(store, book, caplog)


def test_a_word_that_the_queue_has_lost_again_is_not_waited_for(store: Store) -> None:
    """It is true all the same, and the partition may be quiet from now on."""
    book = with_two_windows(store)
    other(book, 1, WINDOW + 1)
    say(book)
    book.offset -= 1
    book.ledger.rewind(book.offset)

    assert end(store, book) == 1


def test_what_the_queue_lost_before_it_was_heard_of_last_is_no_doubt(store: Store) -> None:
    """Nothing is missing behind it."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED]))
    book.ledger.rewind(1)
    book.ledger.pass_over(book.offset)
    book.offset += 1
    book.data(2, ("web", [INDEXED]))
    say(book)

    assert end(store, book) == 1
    assert read(store).states == {CLOSED_AFTERWARDS: 1}


def test_what_a_marker_has_told_of_is_waited_for(store: Store) -> None:
    """Until it is here, or lost: then it is counted, and in no doubt."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.data(5, ("web", [INDEXED]))
    book.marker(1, 5, {"web": 5})
    book.data(6, ("web", [INDEXED]), window=WINDOW + 1)
    say(book)
    early = end(store, book)
    ended = [end(store, book, idle_us=LATER_US), end(store, book, idle_us=LATER_US)]
    books = read(store, now_us=LATER_US)

    assert (early, sum(ended)) == (0, 1)
    assert books.states == {"balanced": 1, CLOSED_AFTERWARDS: 1}
    assert (books.row.lost_in_queue, books.row.undecided) == (2, 0)


def test_of_a_process_that_ended_its_books_there_is_nothing_to_say(store: Store) -> None:
    """Its markers have come, from its spool. Nor of one that never sent anything."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.marker(1, 2, {"web": 2})
    say(book)
    book.settle(Record(Kind.GONE, OTHER, 1, 0, WINDOW, Gone(BY, SAID_US)), [])

    assert [end(store, book), end(store, book)] == [2, 0]
    assert list(store.ledger.scan("closing:")) == []
    assert read(store).states == {"balanced": 1}


def test_of_a_process_that_ended_its_books_before_the_queue_lost_something_nobody_complains(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no window that could stay open."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.marker(1, 2, {"web": 2})
    book.hole(3)
    say(book)

    assert end(store, book) == 1
    assert caplog.messages == []


def test_what_comes_later_still_is_counted_and_a_person_has_to_look(store: Store) -> None:
    """That should not be; the window is the process's own again, and its marker closes it."""
    book = with_two_windows(store)
    say(book)
    end(store, book)
    book.data(4, ("web", [INDEXED]), window=WINDOW + 1)
    book.idle(LATER_US)
    states = read(store, now_us=LATER_US).states
    book.marker(3, 2, {"web": 2}, window=WINDOW + 1)

    assert states == {CLOSED_AFTERWARDS: 1, PROCESS_GONE: 1}
    assert read(store, now_us=LATER_US).states == {CLOSED_AFTERWARDS: 1, "balanced": 1}


def test_what_a_person_closed_before_stays_theirs(store: Store) -> None:
    """Nothing came since; and the person finds only those that are open still."""
    book = with_two_windows(store)
    book.idle(LATER_US)
    close_process(store, "logweir", read(store, now_us=LATER_US), NAME, who="anna@host", now_us=LATER_US)
    say(book)
    ended = end(store, book, idle_us=LATER_US)
    (document,) = store.ledger.scan("closing:")
    with pytest.raises(LogweirError, match="are: none") as caught:
        close_process(store, "logweir", read(store, now_us=LATER_US), "zz", who="anna", now_us=LATER_US)

    assert ended == 1
    assert document.body["who"] == "anna@host"
    assert caught.value.problem is PROCESS_UNKNOWN


def test_what_somebody_else_closes_at_this_moment_is_looked_at_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person does, or another worker that believes the partition its own."""
    book = with_two_windows(store)
    say(book)
    book.idle(AFTER_US)

    def lose(documents: list[LedgerDocument]) -> None:
        raise LogweirError(CLAIM_LOST, partition=0, owner=documents[0].id, generation=2, generation_own=1)

    with monkeypatch.context() as patched:
        patched.setattr(store.ledger, "write", lose)
        end_books(store, group="logweir", ledgers=[book.ledger], now_us=AFTER_US)

    assert end(store, book) == 1
    assert read(store).states == {CLOSED_AFTERWARDS: 2}


def test_of_more_processes_than_are_kept_a_person_ends_the_books(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones are forgotten; a few are ended at a time."""
    monkeypatch.setattr("logweir_workers.accounting.streams.ENDED_MAX", 3)
    monkeypatch.setattr("logweir_workers.accounting.closing._AT_ONCE", 2)
    book = Partition(store)
    for number in range(4):
        book.settle(Record(Kind.GONE, bytes([number] * 16), 1, 0, WINDOW, Gone(BY, SAID_US)), [])
    book.idle(AFTER_US)

    assert [epoch[:2] for epoch in ended(book)] == ["01", "02", "03"]
    assert [end(store, book), end(store, book)] == [2, 1]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    overrides: dict[str, Any] = {
        "data_dir": tmp_path,
        "queue.partitions": 1,
        "worker.ledger_interval_s": 0.1,
        "queue.session_timeout_s": 1,
    }
    return config.load(environment={}, overrides=overrides)


def test_a_worker_does_so_beside_its_reading(settings: Settings, queue: Queue, store: Store) -> None:
    """Within seconds, on the real queue, when nothing else comes."""
    door = Door(queue, epoch=EPOCH, partition=0)
    door.write(helpers.batch(b"{}", received_us=clock.now_us() - 60_000_000))
    said_us = clock.now_us() - 11_000_000
    door.write_bytes(encode(Kind.GONE, ingest_epoch=EPOCH, first=1, count=0, window=1, body=Gone(BY, said_us)))
    with running_worker(settings, queue, store):
        until(lambda: read(store).states == {CLOSED_AFTERWARDS: 1})
        until(lambda: [one.body["ended"] for one in store.ledger.scan("position:")] == [{}])
    door.close()

    assert read(store).row.settled == 1
