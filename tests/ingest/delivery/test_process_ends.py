"""The end of a process that was killed: its successor announces it, when nothing of it waits any more."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from logweir.errors import QUEUE_UNAVAILABLE, LogweirError
from logweir.process.files import locked
from logweir.record import Gone, Kind, Record, decode
from logweir_ingest.delivery.process_ends import ProcessEnds
from logweir_ingest.delivery.report import DeliveryReport
from logweir_ingest.spool.spool import Spool
from tests.ingest.helpers import of_kind
from tests.ingest.merging import PARTITIONS, Bench, started, unrepeated
from tests.waiting import until


def killed(folder: Path, name: str, *, spooled: int = 1, partitions: int = PARTITIONS) -> Bench:
    """A process that took some events and left no marker; of so many emitters one event is in its spool."""
    bench = Bench(folder, name=name, queue_timeout_s=0.2, partitions=partitions)
    bench.merger.start()
    until(lambda: bench.link.producer is not None and bench.enqueuer.is_open)
    for n in range(PARTITIONS):
        bench.send(b"{}", emitter=f"e{n}", sequence_first=1)
    with bench.slow():
        for n in range(spooled):
            bench.send(b"{}", emitter=f"e{n}", sequence_first=2)
        bench.merger.stop(0)
    return bench


def said(bench: Bench, of: Bench) -> list[tuple[int, Record]]:
    return [(at, one) for at, one in of_kind(bench.records(), Kind.GONE) if one.ingest_epoch == of.merger.ingest_epoch]


def kinds_of(bench: Bench, records: list[tuple[int, Record]]) -> list[list[Kind]]:
    """What it has brought into each partition, in order; what came twice, once."""
    own = [(at, one) for at, one in unrepeated(records) if one.ingest_epoch == bench.merger.ingest_epoch]
    return [[one.kind for at, one in own if at == partition] for partition in range(PARTITIONS)]


def folders(bench: Bench) -> list[str]:
    return folders_in(bench.spool)


def folders_in(spool: Path) -> list[str]:
    return sorted(path.name for path in spool.iterdir() if path.is_dir())


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


def test_what_was_torn_off_when_it_was_killed_is_no_damage(tmp_path: Path) -> None:
    """The record at the end that was never written whole was never acknowledged."""
    before = killed(tmp_path, "1")
    (segment,) = before.spool.rglob("*.log")
    segment.write_bytes(segment.read_bytes() + segment.read_bytes()[:-1])
    with started(tmp_path, name="2") as after:
        until(lambda: len(folders(after)) == 1)

    assert len(said(after, before)) == PARTITIONS


def test_of_a_process_whose_spool_is_damaged_nobody_says_that_it_was_all(tmp_path: Path) -> None:
    """Nor when who found it is restarted before it is through with the rest, and the next one finds that sound."""
    before = killed(tmp_path, "1", spooled=12)
    damaged, *sound = sorted(before.spool.rglob("*.log"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    between = Bench(tmp_path, name="2", queue_timeout_s=0.2)
    between.queue.stuck = {
        partition for partition in range(PARTITIONS) if not damaged.name.startswith(f"{partition:05}")
    }
    between.merger.start()
    until(lambda: not damaged.exists())
    between.merger.stop(0)
    assert sound and all(path.exists() for path in sound)
    with started(tmp_path, name="3") as after:
        until(lambda: len(folders(after)) == 1)

    assert said(after, before) == []
    assert len(said(after, between)) == PARTITIONS


def test_what_is_damaged_holds_up_nothing_where_that_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that has turned read-only: what stands behind goes out, and the next process finds the damage itself."""
    before = spool_of(tmp_path, 1)
    before.write([(0, b"first"), (0, b"second")])
    before.close(is_complete=False)
    (segment,) = tmp_path.rglob("*.log")
    data = bytearray(segment.read_bytes())
    data[14] ^= 1
    segment.write_bytes(data)
    between, after = spool_of(tmp_path, 2), spool_of(tmp_path, 3)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "touch", failing(Path.touch, "damaged"))
        between.adopt()
        got = between.partition(0).read()
        between.partition(0).forwarded()
        finished = between.ended()
        between.adopt()
        again = between.partition(0).read()
        between.close(is_complete=True)
    after.adopt()

    assert (got, again, finished) == (b"second", None, [])
    assert after.partition(0).read() == b"second"
    after.partition(0).forwarded()
    assert (after.ended(), folders_in(tmp_path)) == ([], [])


def test_a_folder_that_cannot_be_removed_is_spoken_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held, so that it is not adopted again; the next process speaks for it once more."""
    before, between, after = (spool_of(tmp_path, n) for n in (1, 2, 3))
    before.ensure_folder(wait_s_max=0)
    before.close(is_complete=False)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", failing(Path.unlink, "lock"))
        between.adopt()
        epochs = between.ended()
        between.forget(epochs[0])
        between.adopt()
        again = between.ended()
        after.adopt()
        meanwhile = after.ended()
        between.close(is_complete=True)
    after.adopt()

    assert (again, meanwhile, after.ended()) == ([], [], epochs)


def test_a_folder_that_cannot_be_looked_into_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as lost+found, where the spool is a disk of its own: said once."""
    (tmp_path / "lost+found").mkdir()
    before, after = spool_of(tmp_path, 1), spool_of(tmp_path, 2)
    before.write([(0, b"acknowledged")])
    before.close(is_complete=False)
    is_file = Path.is_file

    def guarded(path: Path) -> bool:
        if path.parent.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", guarded)
    after.adopt()
    after.adopt()

    assert after.partition(0).read() == b"acknowledged"
    assert sum("lost+found cannot be looked into" in line for line in caplog.messages) == 1


def spool_of(folder: Path, number: int) -> Spool:
    """Of one process."""
    return Spool(folder, name=f"{number:017}-{number:032x}")


def failing(call: Callable[..., object], name: str, *, error: OSError | None = None) -> Callable[..., object]:
    """That call, which fails for paths of that name, or for all."""

    def run(path: Path, *given: object, **named: object) -> object:
        if path.name == (name or path.name):
            raise error or OSError(30, "Read-only file system")
        return call(path, *given, **named)

    return run


def test_what_a_process_found_damaged_in_its_own_spool_is_known_to_its_successor(tmp_path: Path) -> None:
    """The file is removed when it is passed over; that it was there is not forgotten."""
    own = spool_of(tmp_path, 1)
    own.write([(0, b"acknowledged")])
    (segment,) = tmp_path.rglob("*.log")
    segment.write_bytes(bytes(segment.stat().st_size))
    assert own.partition(0).read() is None
    own.close(is_complete=False)
    after = spool_of(tmp_path, 2)
    after.adopt()

    assert (segment.exists(), after.partitions(), after.ended()) == (False, [], [])
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_it_is_said_again_when_who_says_it_is_killed(tmp_path: Path) -> None:
    """While the queue is away the word is in the spool of who says it; the next one speaks for both."""
    first = killed(tmp_path, "1", spooled=0)
    second = Bench(tmp_path, name="2", queue_timeout_s=0.2)
    second.queue.prepare = first.queue.partition_count  # type: ignore[assignment,method-assign]
    with first.failing():
        second.merger.start()
        until(lambda: len(list(second.spool.rglob("*.log"))) == PARTITIONS)
        second.merger.stop(0)
    with started(tmp_path, name="3") as third:
        until(lambda: len(folders(third)) == 1)
    by = [one.body.by for _, one in said(third, first) if isinstance(one.body, Gone)]

    assert by.count(second.merger.ingest_epoch) == PARTITIONS
    assert len(said(third, second)) == PARTITIONS


def test_a_folder_of_which_nothing_is_known_is_removed(tmp_path: Path) -> None:
    """Its name does not say whose it was."""
    nobody = Spool(tmp_path, name="nobody")
    nobody.ensure_folder(wait_s_max=0)
    nobody.close(is_complete=False)
    found = folders_in(tmp_path)
    mine = Spool(tmp_path, name="9")
    mine.adopt()

    assert len(found) == 1
    assert mine.ended() == folders_in(tmp_path) == []


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors: who is gone has left nothing that can be seen, and who ends leaves its own to the next."""
    before, ending, after = (spool_of(tmp_path, n) for n in (1, 2, 3))
    before.write([(0, b"first")])
    before.close(is_complete=False)
    ending.write([(1, b"second")])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", failing(Path.iterdir, "", error=OSError(24, "Too many open files")))
        with pytest.raises(OSError, match="Too many"):
            after.adopt()
        ending.close(is_complete=True)
    assert after.ended() == []
    after.adopt()

    assert [after.partition(0).read(), after.partition(1).read()] == [b"first", b"second"]


def test_a_process_that_lives_is_not_gone_when_its_folder_was_away(tmp_path: Path) -> None:
    """A mount that comes back: its lock was held all the time."""
    root = tmp_path / "spool"
    lives = spool_of(root, 1)
    lives.ensure_folder(wait_s_max=0)
    root.rename(tmp_path / "away")
    root.write_text("")
    with pytest.raises(OSError):
        lives.probe()
    root.unlink()
    (tmp_path / "away").rename(root)
    other = spool_of(root, 2)
    other.adopt()
    lives.probe()

    assert other.ended() == []


@pytest.mark.parametrize("how", ["its mount point stays", "a copy takes its place"])
def test_a_process_stays_locked_in_whatever_comes_back(tmp_path: Path, how: str) -> None:
    """In what was there meanwhile it has made its folder, too; and it looks whether the one that is there is locked."""
    root = tmp_path / "spool"
    lives = spool_of(root, 1)
    lives.ensure_folder(wait_s_max=0)
    root.rename(tmp_path / "away")
    if how == "its mount point stays":
        root.mkdir()
        lives.ensure_folder(wait_s_max=0)
        root.rename(tmp_path / "hidden")
        (tmp_path / "away").rename(root)
    else:
        shutil.copytree(tmp_path / "away", root)
    lives.ensure_folder(wait_s_max=0)
    other = spool_of(root, 2)
    other.adopt()

    assert other.ended() == []


def test_a_folder_that_somebody_removed_is_made_again_and_locked(tmp_path: Path) -> None:
    """Else its process would count as gone while it lives."""
    lives = spool_of(tmp_path, 1)
    lives.ensure_folder(wait_s_max=0)
    shutil.rmtree(next(path for path in tmp_path.iterdir() if path.is_dir()))
    lives.ensure_folder(wait_s_max=0)
    other = spool_of(tmp_path, 2)
    other.adopt()

    assert (len(folders_in(tmp_path)), other.ended()) == (1, [])


def left_behind(root: Path, number: int) -> Path:
    """The folder of a process that was killed, with three segments of a partition."""
    killed = Spool(root, name=f"{number:017}-{number:032x}", segment_size_bytes=1)
    for at in range(3):
        assert killed.write([(0, b"record %d" % at)]) == [None]
    killed.close(is_complete=False)
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    return folder


def rest_of(spool: Spool, partition: int) -> list[bytes]:
    found = []
    while (payload := spool.partition(partition).read()) is not None:
        found.append(payload)
        spool.partition(partition).forwarded()
    return found


@pytest.mark.parametrize("is_cut", [False, True], ids=["missing", "cut off"])
@pytest.mark.parametrize("places", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_a_segment_that_is_missing_is_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, places: tuple[int, ...], is_cut: bool
) -> None:
    """The others are forwarded, and nobody says that this was all; most often, there is but one."""
    folder = left_behind(tmp_path, 1)
    segments = sorted(folder.glob("*.log"))
    for place in places:
        if is_cut:
            os.truncate(segments[place], segments[place].stat().st_size - 1)
        else:
            segments[place].unlink()
    other = spool_of(tmp_path, 2)
    other.adopt()

    assert rest_of(other, 0) == [b"record %d" % place for place in range(3) if place not in places]
    assert other.ended() == []
    assert not folder.exists()
    if not is_cut:
        assert segments[places[0]].name in caplog.text


def test_what_is_forwarded_already_is_not_missed(tmp_path: Path) -> None:
    """Nor when who forwarded it had adopted it, and was killed in the middle."""
    folder = left_behind(tmp_path, 1)
    other = spool_of(tmp_path, 2)
    other.adopt()
    assert other.partition(0).read() == b"record 0"
    other.partition(0).forwarded()
    other.close(is_complete=False)
    later = spool_of(tmp_path, 3)
    later.adopt()

    assert rest_of(later, 0) == [b"record 1", b"record 2"]
    assert bytes.fromhex(f"{1:032x}") in later.ended()
    assert not list(folder.glob("*.log"))


def test_a_missing_lock_hides_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is forwarded, once a process that lives would have made it again; and nobody says it was all."""
    folder = left_behind(tmp_path, 1)
    (folder / "lock").unlink()
    other = spool_of(tmp_path, 2)
    at_once = other.adopt(), other.others_size_bytes()
    monkeypatch.setattr("logweir_ingest.spool.folders._WITHOUT_LOCK_S_MAX", 0.0)
    other.adopt()

    assert at_once == (set(), 0)
    assert rest_of(other, 0) == [b"record 0", b"record 1", b"record 2"]
    assert other.ended() == []
    assert not folder.exists()
    assert "has no lock" in caplog.text


def test_a_process_that_lives_makes_its_lock_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lives = spool_of(tmp_path, 1)
    lives.ensure_folder(wait_s_max=0)
    (lock,) = tmp_path.glob("*/lock")
    lock.unlink()
    other = spool_of(tmp_path, 2)
    other.adopt()
    lives.ensure_folder(wait_s_max=0)
    monkeypatch.setattr("logweir_ingest.spool.folders._WITHOUT_LOCK_S_MAX", 0.0)
    other.adopt()

    assert lock.exists()
    assert other.ended() == []


def test_who_ends_well_while_its_lock_is_being_tried_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that was opened is of a file that is removed by the time it is held."""
    ending = spool_of(tmp_path, 1)
    ending.ensure_folder(wait_s_max=0)
    other = spool_of(tmp_path, 2)
    flock = fcntl.flock

    def slow_flock(descriptor: int, how: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent != tmp_path:
            monkeypatch.undo()
            ending.close(is_complete=True)
        flock(descriptor, how)

    monkeypatch.setattr("logweir.process.files.fcntl.flock", slow_flock)
    other.adopt()

    assert other.ended() == []


def test_a_process_has_its_folder_before_it_takes_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But does not wait for another one that is at the spool's lock: then soon after."""
    with started(tmp_path, name="1") as bench:
        assert len(folders(bench)) == 1
        with locked(bench.spool / "lock"), started(tmp_path, name="2"):
            without = len(folders(bench))
        with monkeypatch.context() as patched:
            # The other one is at the lock for a moment, once a second: as long as that takes here.
            patched.setattr("logweir_ingest.delivery.other_processes._START_S_MAX", 10.0)
            with started(tmp_path, name="3"):
                assert len(folders(bench)) == 2
        with locked(bench.spool / "lock"):
            other = Bench(tmp_path, name="4")
            other.merger.start()
            until(lambda: other.enqueuer.is_open)
        until(lambda: len(folders(bench)) == 2)
        other.merger.stop(5)

    assert without == 1


def test_where_it_knows_too_few_partitions_it_leaves_the_word_to_a_later_process(tmp_path: Path) -> None:
    """Partitions were added since this door began; one that used them was killed."""
    with started(tmp_path, name="1") as old:
        add_partitions(old.path, PARTITIONS + 2)
        (old.spool / "queue.json").unlink()
        before = killed(tmp_path, "2", spooled=0, partitions=PARTITIONS + 2)
        time.sleep(2.5)  # It looks around once a second.
        said_by_old = said(old, before)
    with started(tmp_path, name="3", partitions=PARTITIONS + 2) as after:
        until(lambda: len(folders(after)) == 1)

    assert said_by_old == []
    assert {partition for partition, _ in said(after, before)} == set(range(PARTITIONS + 2))


def add_partitions(path: Path, count: int) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (before,) = connection.execute("SELECT partitions FROM topic").fetchone()
        connection.execute("UPDATE topic SET partitions = ?", (count,))
        connection.executemany("INSERT INTO partition VALUES (?, 0)", [(n,) for n in range(before, count)])


class Sending:
    """Takes what it is given, and refuses some; tells what became of it when asked to."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, Record]] = []
        self.refuses: set[int] = set()
        self.told: list[Callable[[DeliveryReport], None]] = []

    def __call__(self, partition: int, payload: bytes, confirmed: Callable[[DeliveryReport], None]) -> None:
        if partition in self.refuses:
            raise LogweirError(QUEUE_UNAVAILABLE, reason="a test")
        self.taken.append((partition, decode(payload)))
        self.told.append(confirmed)

    def confirm(self, report: DeliveryReport) -> None:
        told, self.told = self.told, []
        for confirmed in told:
            thread = threading.Thread(target=confirmed, args=(report,))
            thread.start()
            thread.join()


def test_what_is_refused_or_fails_is_said_again_and_nothing_else(tmp_path: Path) -> None:
    """True only when it is in every partition."""
    sending = Sending()
    ends = ProcessEnds(sending, by=b"\2" * 16, clock=lambda: 60_000_000)
    sending.refuses = {1}

    assert not ends.announce(b"\1" * 16, 3)
    assert not ends.announce(b"\1" * 16, 3)
    assert [partition for partition, _ in sending.taken] == [0]

    sending.confirm("queue")
    sending.refuses = set()

    assert not ends.announce(b"\1" * 16, 3)
    assert [partition for partition, _ in sending.taken] == [0, 1, 2]

    sending.confirm(LogweirError(QUEUE_UNAVAILABLE, reason="a test"))

    assert not ends.announce(b"\1" * 16, 3)
    assert [partition for partition, _ in sending.taken] == [0, 1, 2, 1, 2]

    sending.confirm("spool")

    assert ends.announce(b"\1" * 16, 3)
    assert {one.body for _, one in sending.taken} == {Gone(b"\2" * 16, 60_000_000)}
    assert len(sending.taken) == 5
