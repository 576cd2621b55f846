"""The spool: what was written is read back in order, whatever a kill, a power cut or a failing disk leaves of it."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logweir.config import MEBIBYTE
from logweir.errors import SPOOL_FULL, LogweirError
from logweir_ingest.spool import budget as budget_module
from logweir_ingest.spool.budget import SpoolBudget
from logweir_ingest.spool.generation import Generation
from logweir_ingest.spool.segment import FRAME_OVERHEAD_BYTES
from logweir_ingest.spool.spool import SEGMENT_SIZE_BYTES_MAX, Spool


def rest_of(spool: Spool, partition: int = 0) -> list[bytes]:
    """Everything that can be read, forwarded at once."""
    found = []
    while (payload := spool.partition(partition).read()) is not None:
        found.append(payload)
        spool.partition(partition).forwarded()
    return found


def segments(root: Path) -> list[Path]:
    return sorted(root.rglob("*.log"))


@contextmanager
def opened(root: Path, name: str = "1") -> Iterator[Spool]:
    spool = Spool(root, name=name)
    try:
        yield spool
    finally:
        spool.close(is_complete=True)


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond it, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- the good way -------------------------------------------------------------------------------------------------
def test_records_come_back_in_order_per_partition_and_nothing_is_left(tmp_path: Path) -> None:
    """Several partitions, many writes, more than a segment each; the disk is empty when all is forwarded."""
    with opened(tmp_path) as spool:
        sent: dict[int, list[bytes]] = {0: [], 3: []}
        for turn in range(40):
            group = [(partition, b"%d-%d-" % (partition, turn) + os.urandom(300_000)) for partition in (0, 3)]
            assert spool.write(group) == [None, None]
            for partition, payload in group:
                sent[partition].append(payload)
        assert len(segments(tmp_path)) >= 2 * (40 * 300_000 // SEGMENT_SIZE_BYTES_MAX)
        assert spool.size_bytes == sum(path.stat().st_size for path in segments(tmp_path))

        assert (rest_of(spool, 3), rest_of(spool, 0)) == (sent[3], sent[0])
        assert segments(tmp_path) == []
        assert spool.size_bytes == 0 and not spool.partition(0).has_unread()
    assert list(tmp_path.iterdir()) == [tmp_path / "lock"]


def test_heads_are_how_the_oldest_records_begin(tmp_path: Path) -> None:
    """One of each partition; of what is forwarded none, and of a short or damaged one what there is."""
    with opened(tmp_path) as spool:
        spool.write([(0, b"first"), (0, b"second"), (3, b"x")])
        before = spool.heads(3)
        spool.partition(0).read()
        spool.partition(0).forwarded()
        after = spool.heads(3)
        with segments(tmp_path)[0].open("r+b") as file:
            file.truncate(20)
        cut = spool.heads(3)
        rest_of(spool, 3)

        assert before == [b"fir", b"x"]
        assert after == [b"sec", b"x"]
        assert cut == [b"", b"x"]
        assert len(spool.heads(3)) == 1


def test_reading_and_writing_may_alternate(tmp_path: Path) -> None:
    """A drained partition begins a new segment; nothing is read twice or missed."""
    with opened(tmp_path) as spool:
        for turn in range(50):
            spool.write([(1, b"a%d" % turn), (1, b"b%d" % turn)])
            assert spool.partition(1).read() == b"a%d" % turn
            if turn % 3:
                spool.partition(1).forwarded()
                assert rest_of(spool, 1) == [b"b%d" % turn]
            else:
                spool.partition(1).rewind()
                assert rest_of(spool, 1) == [b"a%d" % turn, b"b%d" % turn]
            assert spool.partition(1).read() is None


def test_what_was_read_and_not_forwarded_is_read_again_after_a_rewind(tmp_path: Path) -> None:
    """Over the border of segments, too."""
    records = [b"%d" % n + bytes(SEGMENT_SIZE_BYTES_MAX // 3) for n in range(9)]
    with opened(tmp_path) as spool:
        for one in records:
            spool.write([(0, one)])
        for _ in range(7):
            spool.partition(0).read()
        spool.partition(0).forwarded()
        spool.partition(0).rewind()

        assert rest_of(spool) == records[1:]
        assert segments(tmp_path) == []


# --- processes that are gone --------------------------------------------------------------------------------------
def test_what_a_killed_process_left_is_adopted_oldest_first(tmp_path: Path) -> None:
    """In front of what is written from then on; its folder goes when it is empty."""
    for name in ("2", "1", "3"):
        left = Spool(tmp_path, name=name)
        left.write([(0, name.encode() + b"-a"), (5, b"other"), (0, name.encode() + b"-b")])
        left.close(is_complete=False)
    with opened(tmp_path, "4") as spool:
        spool.adopt()
        spool.write([(0, b"4-a")])

        assert rest_of(spool) == [b"1-a", b"1-b", b"2-a", b"2-b", b"3-a", b"3-b", b"4-a"]
        assert spool.partitions() == [5]
        assert len(rest_of(spool, 5)) == 3
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["4-.0"]


def test_what_a_living_process_holds_is_left_alone(tmp_path: Path) -> None:
    """Until it ends: then it can be adopted. What it holds counts against the bound all the while."""
    script = (
        "import sys; from pathlib import Path; from logweir_ingest.spool.spool import Spool;"
        "s = Spool(Path(sys.argv[1]), name='1'); s.write([(0, b'theirs')]); print('ready', flush=True);"
        "sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with opened(tmp_path, "2") as spool:
        assert other.stdout is not None and other.stdout.readline() == b"ready\n"
        spool.adopt()
        before = (spool.partitions(), spool.others_size_bytes())
        other.kill()
        other.wait(10)
        spool.adopt()

        assert before == ([], len(b"theirs") + FRAME_OVERHEAD_BYTES)
        assert rest_of(spool) == [b"theirs"]
        assert spool.others_size_bytes() == 0
    other.stdin.close()  # type: ignore[union-attr]
    other.stdout.close()


def test_what_is_adopted_later_comes_in_front_of_what_was_written_since(tmp_path: Path) -> None:
    """Half forwarded or not; but not while a record is on its way, which what is adopted would come behind."""
    with opened(tmp_path, "2") as spool:
        spool.write([(0, b"2-a"), (0, b"2-b"), (0, b"2-c"), (1, b"2-d")])
        spool.partition(0).read()
        with opened(tmp_path, "1") as left:
            left.write([(0, b"1-a"), (0, b"1-b")])
        on_its_way = spool.adopt()
        spool.partition(0).forwarded()
        adopted = spool.adopt()
        spool.write([(0, b"2-e")])
        with opened(tmp_path, "3") as left:
            left.write([(0, b"3-a")])
        spool.adopt()

        assert (on_its_way, adopted) == (set(), {0})
        assert rest_of(spool) == [b"1-a", b"1-b", b"3-a", b"2-b", b"2-c", b"2-e"]
        assert rest_of(spool, 1) == [b"2-d"]
    assert segments(tmp_path) == []


def test_what_processes_before_a_reload_left_is_awaited_until_it_is_forwarded(tmp_path: Path) -> None:
    """By whoever forwards it. Siblings, other doors, and processes after the next reload are not waited for."""
    now = Generation("door", 1)
    held = [
        Spool(tmp_path, name=f"{n}", generation=one)
        for n, one in enumerate((Generation("door", 0), now, now.next(), Generation("another"), Generation()))
    ]
    for partition, one in enumerate(held):
        one.write([(partition, b"x")])
    mine, sibling = (Spool(tmp_path, name=name, generation=now) for name in ("8", "9"))
    while_it_lives = mine.held_by_predecessors()
    held[0].close(is_complete=True)
    sibling.adopt()
    adopted_by_another = mine.held_by_predecessors()
    assert rest_of(sibling) == [b"x"]
    forwarded = mine.held_by_predecessors()
    for one in (*held, mine, sibling):
        one.close(is_complete=True)

    assert (while_it_lives, adopted_by_another, forwarded) == ({0}, {0}, set())


# --- damage -------------------------------------------------------------------------------------------------------
def left_behind(root: Path, records: list[bytes]) -> Path:
    with opened(root, "1") as spool:
        spool.write([(0, one) for one in records])
    (path,) = segments(root)
    return path


@settings(deadline=None)
@given(st.data())
def test_a_torn_tail_is_cut_off_and_everything_before_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Wherever the power went: whole records are read back, the torn rest is counted, nothing is left."""
    root = tmp_path_factory.mktemp("spool")
    records = data.draw(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6))
    path = left_behind(root, records)
    ends = [sum(FRAME_OVERHEAD_BYTES + len(one) for one in records[: n + 1]) for n in range(len(records))]
    cut = data.draw(st.integers(0, ends[-1]))
    garbage = data.draw(st.binary(max_size=40))
    stored = path.read_bytes()
    torn = stored[:cut] + garbage
    path.write_bytes(torn)
    # The garbage may happen to be what was cut off.
    whole = [one for one, end in zip(records, ends, strict=True) if torn[:end] == stored[:end]]
    torn_bytes = len(torn) - sum(FRAME_OVERHEAD_BYTES + len(one) for one in whole)
    with opened(root, "2") as spool:
        spool.adopt()

        assert rest_of(spool) == whole
        assert spool.damaged_bytes == torn_bytes
        assert spool.size_bytes == 0
    assert segments(root) == []


@settings(deadline=None)
@given(st.data())
def test_damage_in_the_middle_costs_only_what_it_hits(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A flipped byte on a failing disk: the records around it are read."""
    root = tmp_path_factory.mktemp("spool")
    records = [b"%d:" % n + b"x" * 50 for n in range(8)]
    path = left_behind(root, records)
    stored = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(stored)
    hit = at // (FRAME_OVERHEAD_BYTES + len(records[0]))
    with opened(root, "2") as spool:
        spool.adopt()

        assert rest_of(spool) == [one for n, one in enumerate(records) if n != hit]
        assert spool.damaged_bytes == FRAME_OVERHEAD_BYTES + len(records[0])
    assert segments(root) == []


def test_damage_that_is_read_again_is_counted_once(tmp_path: Path) -> None:
    """While the queue comes and goes, what was read and not forwarded is read over and over."""
    records = [b"%d:" % n + b"x" * 50 for n in range(8)]
    path = left_behind(tmp_path, records)
    stored = bytearray(path.read_bytes())
    size_bytes = len(stored) // len(records)
    for hit in (2, 5, 6):
        stored[hit * size_bytes + 20] ^= 1
    path.write_bytes(stored)
    with opened(tmp_path, "2") as spool:
        spool.adopt()
        for _ in range(3):
            assert [spool.partition(0).read() for _ in range(5)] == [records[n] for n in (0, 1, 3, 4, 7)]
            spool.partition(0).rewind()

        assert spool.damaged_bytes == 3 * size_bytes
        assert rest_of(spool) == [records[n] for n in (0, 1, 3, 4, 7)]


def test_damage_at_the_end_of_a_segment_in_use_costs_nothing_that_is_written_after_it(tmp_path: Path) -> None:
    """The next record goes to a file of its own."""
    with opened(tmp_path) as spool:
        spool.write([(0, b"first"), (0, b"second")])
        (path,) = segments(tmp_path)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert (spool.partition(0).read(), spool.partition(0).read()) == (b"first", None)
        spool.write([(0, b"third"), (0, b"fourth")])

        assert (spool.partition(0).read(), spool.partition(0).read()) == (b"third", b"fourth")
        assert spool.damaged_bytes == len(b"second") + FRAME_OVERHEAD_BYTES


def test_a_write_that_breaks_off_for_whatever_reason_leaves_nothing_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as no memory: what was on its way to the file is cut off, what was there before and comes after is read."""
    with opened(tmp_path) as spool:
        spool.write([(0, b"before"), (1, b"before")])
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                spool.write([(0, b"lost"), (1, b"lost")])
        spool.write([(0, b"after"), (1, b"after")])

        assert rest_of(spool) == rest_of(spool, 1) == [b"before", b"after"]
        assert spool.damaged_bytes == 0


def test_a_full_disk_fails_only_what_does_not_fit_and_the_rest_stays_readable(tmp_path: Path) -> None:
    """What a failed write left in the file is cut off; the next record goes to a file of its own."""
    with opened(tmp_path) as spool:
        assert spool.write([(0, b"first")]) == [None]
        with file_size_limit(1000):
            results = spool.write([(0, b"x" * 600), (0, b"y" * 600), (1, b"other")])
        assert spool.write([(0, b"last")]) == [None]

        assert [type(result) for result in results] == [OSError, OSError, type(None)]
        assert rest_of(spool) == [b"first", b"last"]
        assert rest_of(spool, 1) == [b"other"]
    assert segments(tmp_path) == []


def test_a_folder_that_cannot_be_made_fails_each_record_and_works_again_when_it_can(tmp_path: Path) -> None:
    """A failure is the result of each record, not an end of the spool."""
    root = tmp_path / "spool"
    root.write_text("a file where the folder should be")
    with opened(root) as spool:
        failed = spool.write([(0, b"a"), (2, b"b")])
        root.unlink()

        assert all(isinstance(one, OSError) for one in failed)
        assert spool.write([(0, b"c")]) == [None]
        assert rest_of(spool) == [b"c"]


# --- budget -------------------------------------------------------------------------------------------------------
def test_each_process_fills_its_share_and_none_what_the_others_hold() -> None:
    """The bound holds for the machine, whoever fills it."""
    budget = SpoolBudget(4 * MEBIBYTE, processes=2)
    budget.reserve(2 * MEBIBYTE)
    with pytest.raises(LogweirError) as share:
        budget.reserve(1)
    budget.release(2 * MEBIBYTE)
    budget.others_bytes = 3 * MEBIBYTE
    budget.reserve(MEBIBYTE)
    with pytest.raises(LogweirError) as others:
        budget.reserve(1)

    assert share.value.problem is others.value.problem is SPOOL_FULL
    assert others.value.numbers["held_bytes"] == 3 * MEBIBYTE


def test_the_budget_is_used_up_when_it_takes_no_more_whoever_has_filled_it() -> None:
    """The ratio is of the process's share: 1 when that is taken, or when the others have left nothing of it."""
    budget = SpoolBudget(1000, processes=4)
    empty = budget.fill_ratio
    budget.held_bytes = 200
    own = budget.fill_ratio
    budget.others_bytes = 760
    shared = budget.fill_ratio
    budget.reserve(40)

    assert (empty, own, shared, budget.fill_ratio) == (0, 0.8, pytest.approx(0.84), 1)
    with pytest.raises(LogweirError):
        budget.reserve(1)


def test_retry_after_follows_from_the_rate_at_which_the_spool_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing, divided by what was forwarded a second; 30 seconds when nothing is."""
    now_s = [100.0]
    monkeypatch.setattr(budget_module.time, "monotonic", lambda: now_s[0])
    budget = SpoolBudget(10_000_000)
    budget.held_bytes = 10_000_000

    def retry_after_s(size_bytes: int) -> object:
        with pytest.raises(LogweirError) as caught:
            budget.reserve(size_bytes)
        return caught.value.numbers["retry_after_s"]

    unknown = retry_after_s(1000)
    for _ in range(100):
        now_s[0] += 0.9
        budget.forwarded(1000)

    assert unknown == 30
    assert [retry_after_s(size) for size in (500, 1000, 5000, 10**6)] == [1, 1, 5, 60]
    assert len(budget._forwarded) < 15


@pytest.mark.parametrize("partitions", [1, 3])
def test_the_time_to_wait_for_room_is_the_time_after_which_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    """A full spool, emptied at ten records a second: whenever it refuses, it says when it will not."""
    now_s = [100.0]
    monkeypatch.setattr(budget_module.time, "monotonic", lambda: now_s[0])
    budget = SpoolBudget(6_000_000)
    size_bytes = 10_000
    spool = Spool(tmp_path, name="1", segment_size_bytes=budget.share_bytes // 16)

    def refused() -> int | None:
        try:
            budget.reserve(size_bytes)
        except LogweirError as error:
            return int(error.numbers["retry_after_s"])  # type: ignore[call-overload]
        budget.release(size_bytes)
        return None

    written = itertools.cycle(range(partitions))
    while refused() is None:
        spool.write([(next(written), bytes(size_bytes - FRAME_OVERHEAD_BYTES))])
        budget.held_bytes = spool.size_bytes
    forwarded = itertools.cycle(range(partitions))
    said: list[tuple[float, int]] = []
    while True:
        budget.frees = spool.frees()
        retry_after_s = refused()
        if retry_after_s is None:
            break
        said.append((now_s[0], retry_after_s))
        now_s[0] += 0.1
        partition = next(forwarded)
        spool.partition(partition).read()
        spool.partition(partition).forwarded()
        budget.held_bytes = spool.size_bytes
        budget.forwarded(size_bytes)
    spool.close(is_complete=True)

    assert said[0] == (100.0, 30)
    # A second after the first was forwarded the rate is known.
    off_s = [at_s + retry_after_s - now_s[0] for at_s, retry_after_s in said if at_s > 101]
    assert len(off_s) > 5
    assert min(off_s) > -1 and max(off_s) < 1.5
