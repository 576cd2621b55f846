"""A person closes the books of a process that is gone; and is contradicted when it was not."""

from __future__ import annotations

import orjson
import pytest

from logweir import cli
from logweir.audit.close import Closed, close_process
from logweir.audit.windows import CLOSED_AFTERWARDS, PROCESS_GONE
from logweir.config import Settings
from logweir.errors import PROCESS_ALIVE, PROCESS_UNKNOWN, LogweirError, Problem
from logweir.ledger.documents import POSITION
from logweir.ledger.position import LastCanary, Position
from logweir.outcomes import Outcome
from logweir.queue.port import Queue
from logweir.store.port import Store
from tests.logweir.audit.test_books import EPOCH, MINUTE_US, START_US, WINDOW, Partition, make_queue, read

INDEXED = Outcome.INDEXED
LATER_US = START_US + 10 * MINUTE_US
NAME = EPOCH.hex()


def with_hole(store: Store) -> Partition:
    """Two open windows of a process, in between numbers 3 and 4 that never came; it is long over."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))
    book.data(5, ("web", [INDEXED]), window=WINDOW + 1)
    book.idle(LATER_US)
    return book


def close(store: Store, process: str = NAME, *, now_us: int = LATER_US, dry_run: bool = False) -> list[Closed]:
    books = read(store, now_us=now_us)
    return close_process(store, "logweir", books, process, who="me@here", now_us=now_us, dry_run=dry_run)


def refused(store: Store, process: str = NAME, *, now_us: int = LATER_US) -> Problem:
    with pytest.raises(LogweirError) as caught:
        close(store, process, now_us=now_us)
    return caught.value.problem


def test_what_never_came_of_a_process_that_is_gone_is_void(store: Store) -> None:
    """Its windows are closed by hand, with who and when; all sums stay as they were."""
    with_hole(store)
    before = read(store, now_us=LATER_US)
    would = close(store, dry_run=True)
    untouched = read(store, now_us=LATER_US)
    closed = close(store, NAME[:6])
    after = read(store, now_us=LATER_US)
    (document,) = store.ledger.scan("closing:")

    assert closed == would == [Closed(NAME, 0, [WINDOW, WINDOW + 1], 2)]
    assert untouched.states == before.states == {PROCESS_GONE: 2}
    assert after.states == {CLOSED_AFTERWARDS: 2}
    assert (before.row.undecided, before.row.void) == (2, 0)
    assert (after.row.undecided, after.row.void) == (0, 2)
    assert (after.row.accepted, after.row.unconfirmed) == (before.row.accepted, before.row.unconfirmed) == (3, 2)
    assert after.row.unexplained == 0
    assert after.balanced
    assert (document.body["who"], document.body["at_us"]) == ("me@here", LATER_US)


def test_a_spool_that_is_adopted_after_all_undoes_it(store: Store) -> None:
    """What comes is counted; the window that it came in is the process's own again, and its marker closes it."""
    book = with_hole(store)
    close(store)
    book.data(3, ("web", [INDEXED]))
    between = read(store, now_us=LATER_US)
    book.data(4, ("web", [INDEXED]))
    book.marker(1, 4, {"web": 4})
    after = read(store, now_us=LATER_US)

    assert between.states == {PROCESS_GONE: 1, CLOSED_AFTERWARDS: 1}
    assert (between.row.void, between.row.undecided) == (1, 0)
    assert after.states == {"balanced": 1, CLOSED_AFTERWARDS: 1}
    assert (after.row.accepted, after.row.void, after.row.unconfirmed) == (5, 0, 0)
    assert after.balanced


def test_a_living_process_and_an_unknown_one_are_refused(store: Store) -> None:
    """One that sent lately, or whose canary came lately though it takes no events; and a name of none."""
    book = Partition(store)
    book.data(1, ("web", [INDEXED] * 2))

    assert refused(store) is PROCESS_ALIVE  # The workers are behind.

    book.idle(LATER_US)

    assert refused(store, now_us=START_US + 3 * MINUTE_US) is PROCESS_ALIVE
    assert refused(store, "ffff") is PROCESS_UNKNOWN
    assert refused(store, "") is PROCESS_UNKNOWN
    with pytest.raises(LogweirError, match=f"Those with open windows are: {NAME} \\(1\\)"):
        close_process(store, "logweir", read(store), "ffff", who="me", now_us=LATER_US)

    position = Position(canaries={NAME: LastCanary(1, LATER_US)})
    store.ledger.write([book.ledger.document(POSITION, book.ledger.place, position.as_body())])

    assert refused(store) is PROCESS_ALIVE
    assert list(store.ledger.scan("closing:")) == []


def test_the_command_says_what_it_closes(
    settings: Settings, queue: Queue, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """As text and as JSON; afterwards the audit names what is void."""
    with_hole(store)
    make_queue(settings, read=2)

    def run(*words: str) -> str:
        assert cli.main([*words, "--data-dir", str(settings.data_dir)]) == 0
        return capsys.readouterr().out

    would = run("audit", "close", "--process", NAME[:8], "--dry-run")
    document = orjson.loads(run("audit", "close", "--process", NAME, "--json"))

    assert would == f"process {NAME}, partition 0: 2 windows would be closed, 2 numbers that never came would be void\n"
    assert document["closed"] == [{"ingest_epoch": NAME, "partition": 0, "windows": [WINDOW, WINDOW + 1], "void": 2}]
    assert queue.partition_count()
    assert "void 2" in run("audit")
