"""A run's events in files: read back, taken up by others, bounded, and whole after whatever befell the process."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.emit import files as files_module
from logweir.emit.buffer import FileBuffer
from logweir.emit.files import Folder, RunFiles
from logweir.emit.page import HIGH, SIZE_BYTES, Page
from logweir.emit.queue import Batch, EventQueue
from tests.waiting import until

MEBIBYTE = 1024 * 1024


def batches(counts: list[int], first: int = 1, size: int = 5) -> list[Batch]:
    made = []
    for count in counts:
        made.append(Batch(first, [b"%0*d" % (size, first + at) for at in range(count)]))
        first += count
    return made


def read_all(files: RunFiles, *, events_max: int = 1000, size_bytes_max: int = MEBIBYTE) -> list[Batch]:
    found = []
    while (batch := files.read(events_max=events_max, size_bytes_max=size_bytes_max)) is not None:
        found.append(batch)
    return found


def numbers(read: list[Batch]) -> list[int]:
    for batch in read:
        assert [int(event) for event in batch.events] == list(range(batch.first, batch.last + 1))
    return [number for batch in read for number in range(batch.first, batch.last + 1)]


def left(folder: Folder) -> RunFiles:
    (found,) = [*folder.left_runs("other")]
    return found


@given(
    counts=st.lists(st.integers(1, 30), max_size=12),
    events_max=st.integers(1, 50),
    size_bytes_max=st.integers(1, 400),
    settled=st.integers(0, 400),
)
def test_what_is_left_unsettled_is_read_by_the_next(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], events_max: int, size_bytes_max: int, settled: int
) -> None:
    """However frames and batches are cut, and wherever the first process stopped: each event is read once more."""
    folder = Folder(tmp_path_factory.mktemp("buffer"), MEBIBYTE)
    files = folder.new_run("shop@web-1", is_synced=False)
    for batch in batches(counts):
        files.append(batch)
    files.page.counters[HIGH] = sum(counts)
    for batch in read_all(files, events_max=events_max, size_bytes_max=size_bytes_max):
        if batch.last <= settled:
            files.settle(batch)
        elif batch.first <= settled:
            files.settle(batch.split(settled - batch.first + 1)[0])
    files.close()
    taken = left(folder)

    assert numbers(read_all(taken, events_max=events_max)) == list(
        range(min(settled, sum(counts)) + 1, sum(counts) + 1)
    )
    assert taken.page.emitter == "shop@web-1"
    assert taken.high == sum(counts)
    taken.close()


def test_segments_follow_each_other_and_go_when_they_are_settled(tmp_path: Path) -> None:
    """A run of many segments is read in order; what is settled frees the disk."""
    folder = Folder(tmp_path / "buffer", 16 * 64 * 1024)
    files = folder.new_run("e", is_synced=True)
    for batch in batches([100] * 9, size=1000):
        files.append(batch)
    before = len(list(tmp_path.rglob("*.log")))
    read = read_all(files, events_max=100)
    for batch in read:
        files.settle(batch)

    assert before > 5
    assert numbers(read) == list(range(1, 901))
    assert len(list(tmp_path.rglob("*.log"))) == 1
    files.close()


def test_full_folder_takes_no_more_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The bound is for all runs of the folder together; nothing that is there is touched for it."""
    folder = Folder(tmp_path / "buffer", 4 * 64 * 1024)
    first, second = folder.new_run("e", is_synced=False), folder.new_run("e", is_synced=False)
    appended = 0
    with pytest.raises(OSError, match="of at most") as raised:
        for batch in batches([50] * 40, size=1000):
            (first if appended % 2 else second).append(batch)
            appended += 1
    for batch in read_all(first):
        first.settle(batch)
    held = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

    assert raised.value.errno == errno.EDQUOT
    assert held <= 4 * 64 * 1024 + 2 * 60_000
    assert appended >= 3
    first.close()
    second.close()


def test_frame_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    """kill -9 in the middle of a write: what was whole is read, of the rest only the number is known."""
    folder = Folder(tmp_path, MEBIBYTE)
    files = folder.new_run("e", is_synced=False)
    for batch in batches([3, 3, 3]):
        files.append(batch)
    files.page.counters[HIGH] = 9
    files.close()
    (path,) = tmp_path.rglob("*.log")
    os.truncate(path, path.stat().st_size - 1)
    taken = left(folder)

    assert numbers(read_all(taken)) == [1, 2, 3, 4, 5, 6]
    assert taken.high == 9
    taken.close()


@given(seed=st.integers(0, 10**6))
def test_damage_never_makes_up_an_event(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Whatever byte changes: what is read is what was written, or less; and it ends."""
    rng = random.Random(seed)
    folder = Folder(tmp_path_factory.mktemp("buffer"), MEBIBYTE)
    files = folder.new_run("e", is_synced=False)
    for batch in batches([5] * 6):
        files.append(batch)
    files.close()
    (path,) = folder.path.rglob("*.log")
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    taken = left(folder)

    found = numbers(read_all(taken))
    assert found == list(range(1, 31))[: len(found)]
    assert len(found) in (25, 20, 15, 10, 5, 0)
    taken.close()


@pytest.mark.parametrize("harm", ["truncated", "removed", "scribbled"])
def test_run_whose_files_are_harmed_while_it_goes_on_loses_no_more_than_that(tmp_path: Path, harm: str) -> None:
    """Somebody tidies up in the folder of a running process: what is written later is read, and nobody spins."""
    folder = Folder(tmp_path, MEBIBYTE)
    files = folder.new_run("e", is_synced=False)
    made = batches([5] * 6)
    for batch in made[:3]:
        files.append(batch)
    first = files.read(events_max=5, size_bytes_max=MEBIBYTE)
    (path,) = tmp_path.rglob("*.log")
    if harm == "truncated":
        os.truncate(path, 60)
    elif harm == "removed":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.seek(60)
            file.write(b"x" * 10)
    unharmed = numbers(read_all(files))
    files.append(made[3])
    read_all(files)
    for batch in made[4:]:
        files.append(batch)

    assert first == Batch(1, made[0].events, first.end if first else None)
    assert unharmed == ([] if harm != "removed" else list(range(6, 16)))
    assert numbers(read_all(files))[-10:] == list(range(21, 31))
    assert files.read_count == files.appended_count == 30
    files.close()


def test_lost_page_is_replaced_by_what_the_files_know(tmp_path: Path) -> None:
    """A power cut may leave the page empty: the events are sent in the name of who finds them."""
    folder = Folder(tmp_path, MEBIBYTE)
    files = folder.new_run("e", is_synced=False)
    for batch in batches([7]):
        files.append(batch)
    files.close()
    (page,) = tmp_path.rglob("page")
    page.write_bytes(b"")
    taken = left(folder)

    assert numbers(read_all(taken)) == list(range(1, 8))
    assert taken.page.emitter == "other"
    assert taken.high == 7
    assert page.stat().st_size == SIZE_BYTES
    taken.close()


def test_run_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    """Only a run whose lock is free is taken up, and by one only."""
    folder, again = Folder(tmp_path, MEBIBYTE), Folder(tmp_path, MEBIBYTE)
    files = folder.new_run("e", is_synced=False)

    assert [*again.left_runs("e")] == []
    assert not again.has_left_runs()
    files.close()
    assert again.has_left_runs()
    (taken,) = again.left_runs("e")
    assert [*folder.left_runs("e")] == []
    taken.remove()
    taken.close()
    assert list(tmp_path.iterdir()) == []


def test_many_that_look_for_left_runs_get_each_once(tmp_path: Path) -> None:
    """Processes that start together share out what is there; nobody takes what another is removing."""
    folder = Folder(tmp_path, 64 * MEBIBYTE)
    for _ in range(40):
        files = folder.new_run("e", is_synced=False)
        files.append(Batch(1, [b"1"]))
        files.close()
    taken: list[str] = []

    def take() -> None:
        for files in Folder(tmp_path, MEBIBYTE).left_runs("e"):
            assert numbers(read_all(files)) == [1]
            taken.append(files.page.epoch)
            files.remove()
            files.close()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == len(set(taken)) == 40
    assert list(tmp_path.iterdir()) == []


def test_folder_that_a_dying_process_did_not_remove_goes(tmp_path: Path) -> None:
    """An empty folder, from between the last two steps of a removal, is no run."""
    (tmp_path / "18ec-0").mkdir()

    assert [*Folder(tmp_path, MEBIBYTE).left_runs("e")] == []
    assert list(tmp_path.iterdir()) == []


def new_buffer(path: Path, *, events_max: int = 100, fsync_interval_s: float | None = None) -> FileBuffer:
    return FileBuffer(
        Folder(path, MEBIBYTE),
        "e",
        events_max=events_max,
        size_bytes_max=MEBIBYTE,
        batch_events_max=1000,
        batch_size_bytes_max=MEBIBYTE,
        fsync_interval_s=fsync_interval_s,
    )


# --- the thread that writes ----------------------------------------------------------------------------------------
def test_disk_that_fails_is_bypassed_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written, the sender gets what waits in memory, behind what is in the files; in order."""
    buffer = new_buffer(tmp_path, events_max=100, fsync_interval_s=None)
    monkeypatch.setattr("logweir.emit.buffer._FAILED_PAUSE_S", 0.05)
    is_full = False
    write = os.write

    def failing(descriptor: int, data: bytes) -> int:
        if not is_full:
            return write(descriptor, data)
        # Half of it fits.
        if len(data) > 50:
            return write(descriptor, data[:40])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files_module.os, "write", failing)
    buffer.start()
    put = 0

    def put_some(count: int) -> None:
        nonlocal put
        for _ in range(count):
            put += 1
            buffer.queue.put(b"%d" % put)

    put_some(10)
    until(lambda: buffer.has(events=10, size_bytes=10**9))
    is_full = True
    put_some(10)
    until(lambda: buffer.has(events=20, size_bytes=10**9))
    first = read_some(buffer, 15)
    put_some(3)
    rest = read_some(buffer, 8)
    is_full = False
    put_some(4)
    until(lambda: buffer.has(events=4, size_bytes=10**9))
    rest += read_some(buffer, 4)
    buffer.finish(5)

    assert first + rest == list(range(1, 28))
    assert buffer.page.dropped == {}
    buffer.close(is_told=True)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_and_full_queue_drop_as_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason says what there was no room on."""

    def failing(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    buffer = new_buffer(tmp_path, events_max=5, fsync_interval_s=None)
    monkeypatch.setattr(files_module.os, "write", failing)
    buffer.start()
    buffer.queue.put(b"1")
    until(lambda: buffer.queue.overflow_reason == "disk_full")
    for _ in range(10):
        buffer.queue.put(b"x")

    assert buffer.page.dropped == {"disk_full": 5}
    assert buffer.page.high == 11
    assert buffer.ending_with_process() == 6
    buffer.finish(5)
    buffer.close(is_told=False)


@pytest.mark.parametrize("interval_s", [None, 0.0, 0.3])
def test_files_are_synced_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval_s: float | None) -> None:
    """Never, after each write, or so often while something comes; and in the end, whatever was not yet."""
    synced: list[float] = []
    monkeypatch.setattr(RunFiles, "sync", lambda _: synced.append(time.monotonic()))
    buffer = new_buffer(tmp_path, events_max=100, fsync_interval_s=interval_s)
    buffer.start()
    for number in range(10):
        buffer.queue.put(b"%d" % number)
        if interval_s == 0.0:
            until(lambda: len(synced) > number)  # noqa: B023
        else:
            time.sleep(0.05)
    before_end = len(synced)
    buffer.queue.put(b"last")
    buffer.finish(50)

    if interval_s is None:
        assert not synced
    else:
        assert len(synced) > before_end
        assert all(later - one > 0.9 * interval_s for one, later in pairwise(synced[:before_end]))
    buffer.close(is_told=True)


def read_some(buffer: FileBuffer, count: int) -> list[int]:
    found: list[int] = []

    def has_come() -> bool:
        while len(found) < count:
            batch = buffer.take(events_max=count - len(found), size_bytes_max=MEBIBYTE)
            if batch is None:
                return False
            found.extend(numbers([batch]))
            buffer.settle(batch)
        return True

    until(has_come, wait_s=10)
    return found


# --- the queue and the page ----------------------------------------------------------------------------------------
def test_queue_takes_runs_of_consecutive_numbers() -> None:
    """A drop in between ends a batch; so do the limits."""
    queue = EventQueue(Page("e", "e"), events_max=3, size_bytes_max=10)
    for event in (b"1", b"2", b"33333333333", b"4", b"5"):
        queue.put(event)
    first = queue.take(events_max=10, size_bytes_max=100)
    queue.put(b"6")
    queue.drop("unformattable")

    assert first == Batch(1, [b"1", b"2"])
    assert queue.take(events_max=10, size_bytes_max=100) == Batch(4, [b"4"])
    assert queue.take(events_max=10, size_bytes_max=100) == Batch(6, [b"6"])
    assert queue.take(events_max=10, size_bytes_max=100) is None
    assert queue.page.dropped == {"queue_overflow": 2, "unformattable": 1}
    assert queue.page.high == 7
    assert queue.size_bytes == 0


def test_who_waits_is_woken_by_the_first_event() -> None:
    """An idle consumer learns of an event at once, not at its next look."""
    queue = EventQueue(Page("e", "e"), events_max=3, size_bytes_max=10)
    woken = []
    thread = threading.Thread(target=lambda: woken.append(queue.wait(30)))
    thread.start()
    queue.put(b"1")
    thread.join(5)

    assert woken == [True]
