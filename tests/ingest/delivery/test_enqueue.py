"""A record's way: straight into the queue while it confirms, else through the spool, always in order, never lost."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import prometheus_client
import pytest

from logweir.clock import WINDOW_US
from logweir.config import MEBIBYTE
from logweir.errors import QUEUE_UNAVAILABLE, SPOOL_FAILED, SPOOL_FULL, LogweirError
from logweir.process.files import locked
from logweir.queue.sqlite import database as sqlite_file
from logweir.record import Kind
from logweir_ingest.delivery import queue_health, spool_disk
from logweir_ingest.records.batcher import Enqueued
from logweir_ingest.spool.spool import Spool
from tests.ingest.helpers import events_of, of_kind
from tests.ingest.merging import (
    PARTITIONS,
    Bench,
    FaultyProducer,
    marker_of,
    numbered_without_a_gap,
    started,
    unrepeated,
)
from tests.waiting import until


def event(n: int) -> bytes:
    return b'{"n":%d}' % n


def durable_of(result: object) -> str:
    assert isinstance(result, Enqueued), result
    return result.durable


def goes_straight(bench: Bench) -> bool:
    return not any(map(bench.enqueuer.is_spooling, range(PARTITIONS)))


def test_after_an_outage_under_load_records_go_straight_to_the_queue_again(tmp_path: Path) -> None:
    """Emitters never pause, so the spool is never left alone: it must be overtaken, in order."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:

        def emit(name: str) -> list[str]:
            answers = []
            for n in range(1, 10**6):
                answers.append(durable_of(bench.send(event(n), emitter=name, sequence_first=n)))
                if "spool" in answers and answers[-20:] == ["queue"] * 20:
                    return answers
            raise AssertionError("it never went straight again")

        with ThreadPoolExecutor(5) as pool:
            emitting = [pool.submit(emit, f"e{n}") for n in range(5)]
            with bench.slow():
                time.sleep(1)
            answers = {f"e{n}": future.result(30) for n, future in enumerate(emitting)}
        bench.merger.stop(5)
        records = unrepeated(bench.records())

    numbered_without_a_gap(records)
    for name, said in answers.items():
        arrived = [b for _, one in records for batch in one.batches if batch.emitter == name for b in batch.events]
        assert arrived == [event(n) for n in range(1, len(said) + 1)]
    accepted = {
        entry.emitter: entry.accepted for _, one in of_kind(records, Kind.MARKER) for entry in marker_of(one).accepted
    }
    assert accepted == {name: len(said) for name, said in answers.items()}


def test_a_queue_that_confirms_nothing_slows_only_the_first(tmp_path: Path) -> None:
    """One deadline shows that it is away; nobody after that waits for it, on whichever partition."""
    with started(tmp_path, queue_timeout_s=2) as bench:
        bench.send(event(0))
        with bench.slow():
            assert durable_of(bench.send(event(1))) == "spool"
            sent_s = time.monotonic()
            for n in range(3 * PARTITIONS):
                assert durable_of(bench.send(event(n + 2))) == "spool"
            took_s = time.monotonic() - sent_s
        until(lambda: goes_straight(bench) and not bench.budget.held_bytes)
        bench.merger.stop(5)
        records = unrepeated(bench.records())

    assert took_s < 2
    assert sorted(events_of(records)) == sorted(event(n) for n in range(3 * PARTITIONS + 2))


def test_a_door_that_knows_its_queue_starts_without_it(tmp_path: Path) -> None:
    """The number of partitions is remembered; what comes before the queue does is in the spool, then in the queue."""
    with started(tmp_path, name="1") as bench:
        bench.send(event(1), emitter="e", sequence_first=1)
    with bench.failing():
        following = Bench(tmp_path, name="2", queue_timeout_s=0.2)
        following.queue.prepare = bench.queue.partition_count  # type: ignore[assignment,method-assign]
        following.merger.start()
        assert following.merger.unready() is None
        away = [durable_of(following.send(event(n), emitter="e", sequence_first=n)) for n in (2, 3)]
    try:
        until(lambda: following.link.producer is not None and goes_straight(following))
        back = durable_of(following.send(event(4), emitter="e", sequence_first=4))
    finally:
        following.merger.stop(5)

    assert (away, back) == (["spool", "spool"], "queue")
    assert events_of(unrepeated(following.records())) == [event(n) for n in (1, 2, 3, 4)]


def test_after_a_reload_what_the_processes_before_it_spooled_goes_first(tmp_path: Path) -> None:
    """The emitter's next events come to the new process while the old one still has the earlier ones in its spool."""
    with started(tmp_path, name="1", queue_timeout_s=0.2) as before:
        durable = [durable_of(before.send(event(1), emitter="e", sequence_first=1))]
        with before.slow():
            durable += [durable_of(before.send(event(n), emitter="e", sequence_first=n)) for n in (2, 3)]
            after = Bench(tmp_path, name="2", queue_timeout_s=0.2, generation=1)
            after.merger.start()
            durable += [durable_of(after.send(event(n), emitter="e", sequence_first=n)) for n in (4, 5)]
            before.merger.stop(0.2)
            durable += [durable_of(after.send(event(n), emitter="e", sequence_first=n)) for n in (6, 7)]
        until(lambda: goes_straight(after) and not after.budget.held_bytes)
        durable.append(durable_of(after.send(event(8), emitter="e", sequence_first=8)))
        after.merger.stop(5)
        records = unrepeated(after.records())

    assert durable == ["queue", *["spool"] * 6, "queue"]
    assert events_of(records) == [event(n) for n in range(1, 9)]


def test_only_the_partitions_of_the_processes_before_are_waited_for(tmp_path: Path) -> None:
    """And only until these are forwarded, by the old process itself where it lives so long."""
    with started(tmp_path, name="1", queue_timeout_s=0.2) as before:
        before.queue.faulty.stuck = set(range(PARTITIONS))
        before.send(event(1), emitter="e", sequence_first=1)
        with started(tmp_path, name="2", queue_timeout_s=0.2, generation=1) as after:
            spooling = [after.enqueuer.is_spooling(partition) for partition in range(PARTITIONS)]
            assert durable_of(after.send(event(2), emitter="e", sequence_first=2)) == "spool"
            before.queue.faulty.free()
            until(lambda: goes_straight(after) and not after.budget.held_bytes)
        records = unrepeated(after.records())

    assert spooling.count(True) == 1
    assert events_of(records) == [event(1), event(2)]


def test_a_full_spool_refuses_with_the_time_to_wait_and_keeps_what_it_has(tmp_path: Path) -> None:
    """Nothing of a refused batch is accepted, however many records it needs; when there is room, all goes on."""

    def large(count: int) -> list[bytes]:
        return [os.urandom(30_000) for _ in range(count)]

    with started(tmp_path, queue_timeout_s=0.2, spool_size_bytes_max=200_000, record_size_bytes_max=50_000) as bench:
        taken, refused, later = large(6), large(6), large(6)
        with bench.slow():
            answers = [durable_of(bench.send(one)) for one in taken[:3]]
            refusals = [bench.send(*refused)]
            ready = bench.merger.unready()
            answers += [durable_of(bench.send(one)) for one in taken[3:]]
            refusals.append(bench.send(refused[0]))
            unready = bench.merger.unready()
            answers.append(durable_of(bench.send(event(1))))
        until(lambda: goes_straight(bench) and not bench.budget.held_bytes)
        assert durable_of(bench.send(*later)) == "queue"
        bench.merger.stop(5)
        records = unrepeated(bench.records())

    assert answers == ["spool"] * 7
    for one in refusals:
        assert isinstance(one, LogweirError) and one.problem is SPOOL_FULL
        assert one.numbers["retry_after_s"] == 30  # Nothing is forwarded.
    assert (ready, unready) == (None, "the queue does not confirm records, and the spool is full")
    assert sorted(events_of(records)) == sorted([*taken, event(1), *later])


def test_a_queue_that_looks_well_and_takes_nothing_is_not_ready(tmp_path: Path) -> None:
    """As one on a full disk, beside the spool: each record fails, and nothing waits for its partition to come back."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        before = bench.merger.unready()
        bench.queue.faulty.fails = lambda _: True
        with bench.failing_disk():
            refused = [bench.send(event(n)) for n in range(2 * PARTITIONS)]
            until(lambda: not any(bench.enqueuer.is_spooling(partition) for partition in range(PARTITIONS)))
            reason = bench.merger.unready()
        bench.queue.faulty.fails = lambda _: False
        until(lambda: not isinstance(bench.send(event(99)), LogweirError))
        after = bench.merger.unready()

    assert all(isinstance(one, LogweirError) and one.problem is SPOOL_FAILED for one in refused)
    assert (before, after) == (None, None)
    assert reason is not None and "spool failed: " in reason


def test_a_spool_that_cannot_be_written_is_found_out_before_the_first_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the queue is away, it is all that there is; when it is mended, that is found out, too."""
    monkeypatch.setattr(spool_disk, "_PROBE_EVERY_S", 0.1)
    with started(tmp_path):
        pass
    (tmp_path / "queue.sqlite").rename(tmp_path / "away")
    (tmp_path / "queue.sqlite").mkdir()
    bench = Bench(tmp_path, name="2")
    bench.merger.start()
    until(lambda: bench.enqueuer.is_open)
    with bench.failing_disk():
        until(lambda: bench.merger.unready() is not None)
        reason = bench.merger.unready()
    until(lambda: bench.merger.unready() is None)
    bench.merger.stop(1)

    assert reason == "the queue does not confirm records, and the spool cannot be written"


def test_a_fault_while_the_spool_is_written_refuses_its_senders_and_nobody_after_them(tmp_path: Path) -> None:
    """Its bookkeeping is done all the same: room comes back, and the partition goes straight to the queue again."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        with bench.slow():
            assert durable_of(bench.send(event(1))) == "spool"
            bench.disk_fails = lambda _: bool(1 / 0)
            refused = [bench.send(event(n)) for n in (2, 3)]
            bench.disk_fails = lambda _: False
            assert durable_of(bench.send(event(4))) == "spool"
        until(lambda: goes_straight(bench) and not bench.budget.held_bytes)
        bench.merger.stop(5)
        records = unrepeated(bench.records())

    assert all(isinstance(one, LogweirError) and one.problem is SPOOL_FAILED for one in refused)
    assert sorted(events_of(records)) == [event(1), event(4)]
    assert bench.budget._reserved_bytes == 0


def test_a_disk_that_failed_is_doubted_until_it_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The door is not ready all that time, refuses with the time to the next try, and finds out without a request."""
    monkeypatch.setattr(spool_disk, "_PROBE_EVERY_S", 0.3)
    reasons: list[str | None] = []
    with started(tmp_path, queue_timeout_s=0.2) as bench, bench.slow():
        assert durable_of(bench.send(event(1))) == "spool"
        with bench.failing_disk():
            refused = [bench.send(event(n)) for n in range(2, 5)]
            for _ in range(150):
                reasons.append(bench.merger.unready())
                time.sleep(0.01)
        until(lambda: bench.merger.unready() is None)
        after = bench.send(event(5))

    assert all(isinstance(one, LogweirError) and one.problem is SPOOL_FAILED for one in refused)
    assert [one.numbers["retry_after_s"] for one in refused if isinstance(one, LogweirError)] == [1, 1, 1]
    assert set(reasons) == {"the queue does not confirm records, and the spool cannot be written"}
    assert durable_of(after) == "spool"


def test_how_long_the_oldest_record_has_waited_in_the_spool_is_known(tmp_path: Path) -> None:
    """From the end of its minute on; 0 when nothing waits any more."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        # The clock of the bench stands, long ago.
        ended_s = (bench.clock() // WINDOW_US + 1) * WINDOW_US / 1e6
        with bench.slow():
            assert durable_of(bench.send(event(1))) == "spool"
            until(lambda: oldest_s() > 0)
            waited_s, now_s = oldest_s(), time.time()
        until(lambda: oldest_s() == 0)

    assert now_s - waited_s == pytest.approx(ended_s, abs=10)


def oldest_s() -> float:
    return prometheus_client.REGISTRY.get_sample_value("logweir_ingest_spool_oldest_seconds") or 0.0


def test_a_large_batch_reserves_room_for_all_of_it_before_its_first_record(tmp_path: Path) -> None:
    """Otherwise half of it would be accepted when the queue goes away in between."""
    with started(tmp_path, queue_timeout_s=0.2, spool_size_bytes_max=2 * MEBIBYTE) as bench:
        batch = [bytes([n % 256]) * 30_000 for n in range(80)]
        refused = bench.send(*batch)
        assert durable_of(bench.send(*batch[:40])) == "queue"
        bench.merger.stop(5)
        records = bench.records()

    assert isinstance(refused, LogweirError) and refused.problem is SPOOL_FULL
    assert events_of(records) == batch[:40]
    assert bench.budget._reserved_bytes == 0


def test_a_producer_that_is_stuck_for_good_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither confirms nor fails, while its queue is well: another one takes what is in the spool."""
    monkeypatch.setattr(queue_health, "_STUCK_S_MIN", 0.5)
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        wedged = bench.queue.faulty
        wedged.stuck = set(range(PARTITIONS))
        answers = [durable_of(bench.send(event(n), emitter="e", sequence_first=n)) for n in range(1, 4)]
        until(lambda: bench.queue.faulty is not wedged)
        until(lambda: goes_straight(bench))
        answers.append(durable_of(bench.send(event(4), emitter="e", sequence_first=4)))
        bench.merger.stop(5)
        records = unrepeated(bench.records())

    assert answers == ["spool"] * 3 + ["queue"]
    assert events_of(records) == [event(n) for n in (1, 2, 3, 4)]


def test_a_topic_that_lost_partitions_keeps_their_records_in_the_spool(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They cannot be forwarded without mixing up numbers; they stay on disk, and the log says so once."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        bench.queue.faulty.stuck = set(range(PARTITIONS))
        for n in range(PARTITIONS):
            bench.send(event(n))
        bench.merger.stop(2)
    (tmp_path / "queue.sqlite").unlink()
    for file in tmp_path.glob("queue.sqlite-*"):
        file.unlink()
    with started(tmp_path, name="2", partitions=2) as smaller:
        until(lambda: {path.name[:5] for path in smaller.spool.rglob("*.log")} == {"00002", "00003"})
        time.sleep(0.5)
        smaller.merger.stop(2)
        events = events_of(smaller.records())

    assert len(events) == 2
    assert sum("does not have that partition" in line for line in caplog.messages) == 2


def test_before_the_queue_was_ever_reached_nothing_is_accepted(tmp_path: Path) -> None:
    """Nobody knows how many partitions there are: a number given now could be given twice."""
    (tmp_path / "folder").write_text("a file where the folder should be")
    bench = Bench(tmp_path / "folder", queue_timeout_s=0.2)
    bench.merger.start()
    with pytest.raises(LogweirError) as caught:
        bench.submit(bench.batch(b"{}"))
    reason = bench.merger.unready()
    bench.merger.stop(0.2)

    assert caught.value.problem is QUEUE_UNAVAILABLE
    assert reason


def test_a_record_sent_while_the_stuck_producer_ends_overtakes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next producer gets nothing before the former has failed what it held."""
    monkeypatch.setattr(queue_health, "_STUCK_S_MIN", 0.5)
    close, closing = FaultyProducer.close, threading.Event()

    def slow_close(self: FaultyProducer, timeout_s: float) -> None:
        if self.stuck:
            closing.set()
            time.sleep(0.7)
        close(self, timeout_s)

    monkeypatch.setattr(FaultyProducer, "close", slow_close)
    with started(tmp_path, queue_timeout_s=0.2, partitions=1) as bench:
        bench.queue.faulty.stuck = {0}
        answers = [bench.send(event(n), emitter="e", sequence_first=n) for n in range(1, 4)]
        assert closing.wait(10)
        answers.append(bench.send(event(4), emitter="e", sequence_first=4))
        until(lambda: bench.link.producer is not None and not bench.budget.held_bytes)
        answers.append(bench.send(event(5), emitter="e", sequence_first=5))
        bench.merger.stop(5)
        records = unrepeated(bench.records())

    assert all(isinstance(answer, Enqueued) for answer in answers)
    assert events_of(records) == [event(n) for n in range(1, 6)]


def test_a_transaction_that_fails_is_overtaken_by_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded queue gives up on a locked file after a while: what waited behind must not get in first."""
    monkeypatch.setattr(sqlite_file, "_BUSY_TIMEOUT_S", 0.6)
    with started(tmp_path, queue_timeout_s=0.2, partitions=1) as bench:
        with bench.slow():
            sent = 0
            end_s = time.monotonic() + 2
            while time.monotonic() < end_s:
                sent += 1
                assert durable_of(bench.send(event(sent), emitter="e", sequence_first=sent)) == "spool"
        until(lambda: not bench.budget.held_bytes)
        bench.merger.stop(5)
        records = unrepeated(bench.records())

    assert events_of(records) == [event(n) for n in range(1, sent + 1)]


def test_another_process_at_the_spools_lock_holds_nobody_up(tmp_path: Path) -> None:
    """It may be stopped, or its disk may hang: senders, health, and the queue, which is well, do not wait for it."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        bench.send(event(0))  # The first one makes files, which is not what is measured.
        other = Spool(bench.spool, name="other")
        other.write([(0, b"theirs")])
        with locked(bench.spool / "lock"):
            time.sleep(1.3)
            answered_s = time.monotonic()
            assert durable_of(bench.send(event(1))) == "queue"
            assert bench.merger.unready() is None
            answered_s = time.monotonic() - answered_s
        other.close(is_complete=True)

    assert answered_s < 5


def test_a_segment_that_cannot_be_read_stops_only_its_partition(tmp_path: Path) -> None:
    """What can be written is another matter: the others' records go through the spool, and their own way."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        with bench.slow():
            assert durable_of(bench.send(event(1), emitter="e", sequence_first=1)) == "spool"
            (segment,) = bench.spool.rglob("*.log")
            (partition,) = bench.disk.partitions()
            bench.disk.partition(partition).segments[0].close()
            segment.rename(segment.with_suffix(".away"))
            segment.mkdir()
        time.sleep(1.5)
        answers = [bench.send(event(n)) for n in range(2, 20)]
        bench.merger.stop(2)

    assert all(isinstance(answer, Enqueued) for answer in answers)


def test_folders_that_are_nobodys_spool_are_left_alone(tmp_path: Path) -> None:
    """A disk of its own has lost+found in its root."""
    for name in ("lost+found", "notes"):
        (tmp_path / "spool" / name).mkdir(parents=True)
    with started(tmp_path) as bench:
        assert durable_of(bench.send(event(1))) == "queue"

    assert {path.name for path in (tmp_path / "spool").iterdir()} >= {"lost+found", "notes"}
