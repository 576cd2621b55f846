"""The books of an ingest process that is gone, ended on its successor's word."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from logweir import clock, config
from logweir.audit_windows import CLOSED_AFTERWARDS, PROCESS_GONE
from logweir.config import AccountingSettings, Settings
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.queue import Queue
from logweir.record import Gone, Kind, Record, encode
from logweir.store import LedgerDocument, Store
from logweir_workers.closing import closings_of, end_books, said_gone
from tests.logweir.test_audit import EPOCH, INDEXED, LATER_US, START_US, WINDOW, Partition, read
from tests.workers.helpers import Door, batch, eventually, running_worker

NAME = EPOCH.hex()
SAID_US = START_US + 90_000_000
NOW_US = SAID_US + 11_000_000
BY = b"\x08" * 16


def say(book: Partition) -> None:
    book.settle(Record(Kind.GONE, EPOCH, 1, 0, SAID_US // 60_000_000, Gone(BY, SAID_US)), [])


def end(store: Store, book: Partition, *, now_us: int = NOW_US) -> int:
    """As a worker does it; gives of how many processes it was said."""
    said = said_gone([book.ledger], now_us)
    if said:
        closings = closings_of(store, group="logweir", settings=AccountingSettings(), said=said, now_us=now_us)
        end_books(store, group="logweir", ledgers={0: book.ledger}, closings=closings)
        book.ledger.flush()
    return len(said)


def with_hole(store: Store) -> Partition:
    """Two windows without a marker, in between numbers 3 and 4 that never came."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.data(5, ("web", [INDEXED]), window=WINDOW + 1)
    return book


def test_its_windows_are_closed_and_what_never_came_is_void(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Soon, not after minutes of silence: its successor knows. Whoever takes the partition over does it, and once."""
    caplog.set_level(logging.INFO)
    book = with_hole(store)
    say(book)
    before = read(store)
    book = Partition(store)
    counts = [end(store, book), end(store, book), end(store, Partition(store))]
    after = read(store)
    (document,) = store.scan_ledger("closing:")

    assert counts == [1, 0, 0]
    assert before.states == {"open": 2}
    assert (before.row.in_flight, before.row.void) == (2, 0)
    assert after.states == {CLOSED_AFTERWARDS: 2}
    assert (after.row.in_flight, after.row.undecided, after.row.void) == (0, 0, 2)
    assert after.row.settled == before.row.settled == 3
    assert after.balanced
    assert document.body["who"] == f"process {BY.hex()}"
    assert [line.ingest_epoch for line in caplog.records if "2 windows" in line.message] == [NAME]  # type: ignore[attr-defined]


def test_it_waits_until_all_is_written_and_for_what_may_stand_behind_the_word(store: Store) -> None:
    """A busy broker may have taken the process's last records after the word; a crash may undo what is not written."""
    book = with_hole(store)
    book.ledger.settle(Record(Kind.GONE, EPOCH, 1, 0, WINDOW, Gone(BY, SAID_US)), book.offset, [])
    unwritten = said_gone([book.ledger], NOW_US)
    book.ledger.flush()
    early = said_gone([book.ledger], SAID_US + 5_000_000)
    book.offset += 1
    book.data(3, ("web", [INDEXED]))
    late = said_gone([book.ledger], NOW_US)
    end(store, book)

    assert unwritten == early == {}
    assert late == {(NAME, 0): BY.hex()}
    assert read(store).states == {CLOSED_AFTERWARDS: 2}
    assert read(store).row.void == 1


def test_what_comes_later_still_is_counted_and_a_person_has_to_look(store: Store) -> None:
    """That should not be; the window is the process's own again."""
    book = with_hole(store)
    say(book)
    end(store, book)
    book.data(3, ("web", [INDEXED]))
    book.idle(LATER_US)
    books = read(store, now_us=LATER_US)

    assert books.states == {CLOSED_AFTERWARDS: 1, PROCESS_GONE: 1}
    assert (books.row.settled, books.row.void, books.row.undecided) == (4, 1, 0)


def test_of_a_process_that_ended_its_books_there_is_nothing_to_say(store: Store) -> None:
    """Its markers have come, from its spool."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.marker(1, 2, {"web": 2})
    say(book)

    assert [end(store, book), end(store, book)] == [1, 0]
    assert list(store.scan_ledger("closing:")) == []
    assert read(store).states == {"balanced": 1}


def test_what_somebody_else_closes_at_this_moment_is_looked_at_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person does, or another worker that believes the partition its own."""
    book = with_hole(store)
    say(book)

    def lose(documents: list[LedgerDocument]) -> None:
        raise LogweirError(CLAIM_LOST, partition=0, owner=documents[0].id, generation=2, generation_own=1)

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_ledger", lose)
        closings = closings_of(
            store, group="logweir", settings=AccountingSettings(), said={(NAME, 0): "x"}, now_us=NOW_US
        )
        end_books(store, group="logweir", ledgers={0: book.ledger}, closings=closings)

    assert end(store, book) == 1
    assert read(store).states == {CLOSED_AFTERWARDS: 2}


def test_of_more_processes_than_are_kept_a_person_ends_the_books(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones are forgotten."""
    monkeypatch.setattr("logweir.ledger.GONE_MAX", 2)
    book = Partition(store)
    for number in range(3):
        book.settle(Record(Kind.GONE, bytes([number] * 16), 1, 0, WINDOW, Gone(BY, SAID_US)), [])

    assert [epoch[:2] for epoch, _ in said_gone([book.ledger], NOW_US)] == ["01", "02"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    overrides: dict[str, Any] = {
        "data_dir": tmp_path, "queue.partitions": 1, "worker.ledger_interval_s": 0.1, "queue.session_timeout_s": 1,
    }  # fmt: skip
    return config.load(environment={}, overrides=overrides)


def test_a_worker_does_so_beside_its_reading(settings: Settings, queue: Queue, store: Store) -> None:
    """Within seconds, on the real queue; what comes meanwhile is indexed."""
    door = Door(queue, epoch=EPOCH, partition=0)
    door.write(batch(b"{}", received_us=clock.now_us()))
    said_us = clock.now_us() - 11_000_000
    door.write_bytes(encode(Kind.GONE, ingest_epoch=EPOCH, first=1, count=0, window=1, body=Gone(BY, said_us)))
    with running_worker(settings, queue, store):
        eventually(lambda: read(store).states == {CLOSED_AFTERWARDS: 1})
    door.close()
    (position,) = store.scan_ledger("position:")

    assert read(store).row.settled == 1
    assert position.body["gone"] == {}
