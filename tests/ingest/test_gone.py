"""The last word of a process that did not live to say it: its successor says it, when nothing of it waits any more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from logweir.errors import QUEUE_UNAVAILABLE, LogweirError
from logweir.record import Gone, Kind, Record, decode
from logweir_ingest.gone import LastWords, Result
from logweir_ingest.spool import Spool
from tests.ingest.helpers import of_kind
from tests.ingest.merging import PARTITIONS, Bench, started, unrepeated, until


def killed(folder: Path, name: str) -> Bench:
    """A process that took an event on each partition and left no marker; some of it is in its spool."""
    bench = Bench(folder, name=name, queue_timeout_s=0.2)
    bench.merger.start()
    until(lambda: bench.link.producer is not None and bench.enqueuer.is_open)
    for n in range(PARTITIONS):
        bench.send(b"{}", emitter=f"e{n}", sequence_first=1)
    with bench.slow():
        bench.send(b"{}", emitter="e0", sequence_first=2)
        bench.merger.stop(0)
    return bench


def said(bench: Bench, of: Bench) -> list[tuple[int, Record]]:
    return [(at, one) for at, one in of_kind(bench.records(), Kind.GONE) if one.ingest_epoch == of.merger.ingest_epoch]


def kinds_of(bench: Bench, records: list[tuple[int, Record]]) -> list[list[Kind]]:
    """What it has brought into each partition, in order; what came twice, once."""
    own = [(at, one) for at, one in unrepeated(records) if one.ingest_epoch == bench.merger.ingest_epoch]
    return [[one.kind for at, one in own if at == partition] for partition in range(PARTITIONS)]


def folders(bench: Bench) -> list[str]:
    return sorted(path.name for path in bench.spool.iterdir() if path.is_dir())


def test_a_successor_says_it_behind_all_that_the_process_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In every partition, behind the spooled record; then the folder is gone. Who ends well is not spoken of."""
    caplog.set_level(logging.INFO)
    before = killed(tmp_path, "1")
    left = folders(before)
    with started(tmp_path, name="2") as after:
        until(lambda: len(folders(after)) == 1)
        records = after.records()
        found = said(after, before)
    with started(tmp_path, name="3") as later:
        until(lambda: len(folders(later)) == 1)
        ended = said(later, after)

    assert before.merger.ingest_epoch.hex() in left[0]
    assert sorted(partition for partition, _ in found) == list(range(PARTITIONS))
    assert {one.body.by for _, one in found if isinstance(one.body, Gone)} == {after.merger.ingest_epoch}
    assert all(kinds[-1:] == [Kind.GONE] for kinds in kinds_of(before, records))
    assert sum(kinds.count(Kind.DATA) for kinds in kinds_of(before, records)) == PARTITIONS + 1
    assert ended == []
    assert sum("is gone; all that it had accepted" in line for line in caplog.messages) == 1


def test_a_process_that_could_not_end_its_books_is_spoken_for(tmp_path: Path) -> None:
    """Stopped in an outage: its markers follow from its spool, and its successor's word behind them."""
    with started(tmp_path, name="1", queue_timeout_s=0.2) as before:
        before.send(b"{}")
        with before.slow():
            before.merger.stop(1)
    with started(tmp_path, name="2") as after:
        until(lambda: len(folders(after)) == 1)
        kinds = kinds_of(before, after.records())

    assert all(own[-1:] == [Kind.GONE] for own in kinds)
    assert any(Kind.MARKER in own for own in kinds)


def test_of_a_process_whose_spool_is_damaged_nobody_can_say_that_it_was_all(tmp_path: Path) -> None:
    """What could not be read may have been acknowledged: a person has to look."""
    before = killed(tmp_path, "1")
    (segment,) = before.spool.rglob("*.log")
    segment.write_bytes(segment.read_bytes()[:-1])
    with started(tmp_path, name="2") as after:
        until(lambda: len(folders(after)) == 1)

    assert said(after, before) == []


def test_it_is_said_again_when_who_says_it_is_killed(tmp_path: Path) -> None:
    """While the queue is away the word is in the spool of who says it; the next one speaks for both."""
    first = killed(tmp_path, "1")
    second = Bench(tmp_path, name="2", queue_timeout_s=0.2)
    second.merger.start()
    with first.slow():
        until(lambda: len(folders(second)) == 2)
        second.merger.stop(0)
    with started(tmp_path, name="3") as third:
        until(lambda: len(folders(third)) == 1)

    assert len(said(third, first)) >= PARTITIONS
    assert len(said(third, second)) == PARTITIONS


def test_a_folder_of_which_nothing_is_known_is_removed(tmp_path: Path) -> None:
    """Its name does not say whose it was."""
    Spool(tmp_path, name="nobody").begin()
    mine = Spool(tmp_path, name="9")
    mine.adopt()

    assert mine.finished() == []


class Sending:
    """Takes what it is given, and refuses some; tells what became of it when asked to."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, Record]] = []
        self.refuses: set[int] = set()
        self.told: list[Callable[[Result], None]] = []

    def __call__(self, partition: int, payload: bytes, settled: Callable[[Result], None]) -> None:
        if partition in self.refuses:
            raise LogweirError(QUEUE_UNAVAILABLE, reason="a test")
        self.taken.append((partition, decode(payload)))
        self.told.append(settled)

    def settle(self, result: Result) -> None:
        told, self.told = self.told, []
        for settled in told:
            thread = threading.Thread(target=settled, args=(result,))
            thread.start()
            thread.join()


def test_what_is_refused_or_fails_is_said_again_and_nothing_else(tmp_path: Path) -> None:
    """True only when it is in every partition."""
    sending = Sending()
    words = LastWords(sending, by=b"\2" * 16, clock=lambda: 60_000_000)
    sending.refuses = {1}

    assert not words.say(b"\1" * 16, 3)
    assert not words.say(b"\1" * 16, 3)
    assert [partition for partition, _ in sending.taken] == [0]

    sending.settle("queue")
    sending.refuses = set()

    assert not words.say(b"\1" * 16, 3)
    assert [partition for partition, _ in sending.taken] == [0, 1, 2]

    sending.settle(LogweirError(QUEUE_UNAVAILABLE, reason="a test"))

    assert not words.say(b"\1" * 16, 3)
    assert [partition for partition, _ in sending.taken] == [0, 1, 2, 1, 2]

    sending.settle("spool")

    assert words.say(b"\1" * 16, 3)
    assert {one.body for _, one in sending.taken} == {Gone(b"\2" * 16, 60_000_000)}
    assert len(sending.taken) == 5
