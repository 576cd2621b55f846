"""Batching: order, numbers without a gap, whole batches, markers that tell the truth, whatever the queue does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from logweir import record
from logweir.clock import WINDOW_US
from logweir.errors import QUEUE_UNAVAILABLE, SPOOL_FAILED, STOPPING, LogweirError
from logweir.metrics import registry
from logweir.record import OTHERS, Accepted, Kind, Marker, Refused
from logweir_ingest.delivery import spool_disk
from logweir_ingest.records.batcher import Enqueued
from tests.ingest.helpers import events_of, of_kind
from tests.ingest.merging import (
    PARTITIONS,
    WINDOW,
    Bench,
    marker_of,
    numbered_without_a_gap,
    started,
    unrepeated,
)
from tests.waiting import until


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with started(tmp_path) as bench:
        yield bench


def noise(size_bytes: int) -> bytes:
    return b'"%b"' % os.urandom(size_bytes // 2).hex().encode()


COUNTERS = ("logweir_ingest_accepted_events_total", "logweir_ingest_unconfirmed_events_total")


def value_of(name: str) -> float:
    samples = [sample for metric in registry.get(name).collect() for sample in metric.samples]
    return float(sum(sample.value for sample in samples if sample.name == name))


# --- records ------------------------------------------------------------------------------------------------------
def test_concurrent_batches_share_records_and_all_are_answered(bench: Bench) -> None:
    """While one record is on its way, the batches that come wait for the next: many senders, few records."""
    with bench.slow():
        futures = [bench.submit(bench.batch(b'{"n":%d}' % n)) for n in range(500)]
    results = [future.result(10) for future in futures]
    records = bench.records()

    assert all(isinstance(result, Enqueued) for result in results)
    assert sorted(events_of(records)) == sorted(b'{"n":%d}' % n for n in range(500))
    assert len(records) <= 3
    numbered_without_a_gap(records)


def test_each_answer_names_the_numbers_under_which_the_events_are(bench: Bench) -> None:
    """A receipt made of the result finds exactly the batch's own events."""
    with bench.slow():
        batches = [bench.batch(*[b'{"b":%d,"n":%d}' % (b, n) for n in range(b % 4)]) for b in range(40)]
        futures = [bench.submit(batch) for batch in batches]
    results = [future.result(10) for future in futures]
    by_number = {
        (partition, one.first + index): event
        for partition, one in bench.records()
        for index, event in enumerate(events_of([(partition, one)]))
    }

    for batch, result in zip(batches, results, strict=True):
        assert isinstance(result, Enqueued)
        numbers = range(result.first, result.first + result.count)
        assert [by_number[result.partition, number] for number in numbers] == batch.events


def test_an_emitters_numbered_batches_stay_on_one_partition_in_order(bench: Bench) -> None:
    """Several emitters at once, each from a thread of its own: none is overtaken by itself."""

    def emit(name: str) -> None:
        for n in range(60):
            assert isinstance(bench.send(b'{"n":%d}' % n, emitter=name, sequence_first=n + 1), Enqueued)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(emit, [f"e{n}" for n in range(6)]))
    records = bench.records()

    numbered_without_a_gap(records)
    for name in [f"e{n}" for n in range(6)]:
        batches = [(p, batch) for p, one in records for batch in one.batches if batch.emitter == name]
        assert len({partition for partition, _ in batches}) == 1
        assert [batch.sequence_first for _, batch in batches] == list(range(1, 61))


def test_unnumbered_batches_spread_over_all_partitions(bench: Bench) -> None:
    """One shared key must not end in one partition: each record goes to the next."""
    for n in range(PARTITIONS * 2):
        bench.send(b'{"n":%d}' % n)

    assert {partition for partition, _ in bench.records()} == set(range(PARTITIONS))


def test_a_key_whose_events_number_themselves_stays_on_one_partition_in_order(bench: Bench) -> None:
    """Its numbers are followed by the worker of that partition; with half of them elsewhere they would be gaps."""
    for n in range(PARTITIONS * 3):
        bench.send(b'{"n":%d}' % n, key="syslog", emitter="relay" if n % 2 else None)
    records = bench.records()

    assert len({partition for partition, _ in records}) == 1
    assert events_of(records) == [b'{"n":%d}' % n for n in range(PARTITIONS * 3)]


@pytest.mark.parametrize("compressible", [True, False])
def test_a_large_batch_is_cut_into_records_that_fit(tmp_path: Path, compressible: bool) -> None:
    """Index and sequence go on from record to record, all on one partition, with numbers that follow."""
    with started(tmp_path, record_size_bytes_max=20_000) as bench:
        events = [
            b'{"n":%d,"x":"%b"}' % (n, b"x" * 700 if compressible else os.urandom(350).hex().encode())
            for n in range(400)
        ]
        result = bench.send(*events, emitter="e", sequence_first=1001)
        records = bench.records()

    assert isinstance(result, Enqueued) and (result.first, result.count) == (1, 400)
    assert len(records) > (1 if compressible else 5)
    assert {partition for partition, _ in records} == {result.partition}
    assert events_of(records) == events
    numbered_without_a_gap(records)
    position = 0
    for _, one in of_kind(records, Kind.DATA):
        for batch in one.batches:
            assert (batch.index_first, batch.sequence_first) == (position, 1001 + position)
            position += len(batch.events)


def test_many_small_batches_are_cut_into_records_that_fit(tmp_path: Path) -> None:
    """What waited for a slow queue may be more than one record: nobody's events are torn out of order."""
    with started(tmp_path, record_size_bytes_max=8_000) as bench:
        with bench.slow():
            futures = [
                bench.submit(bench.batch(os.urandom(200).hex().encode(), emitter="e", sequence_first=n))
                for n in range(1, 200)
            ]
        assert all(isinstance(future.result(10), Enqueued) for future in futures)
        records = bench.records()

    assert [batch.sequence_first for _, one in records for batch in one.batches] == list(range(1, 200))
    numbered_without_a_gap(records)


def test_what_compresses_well_is_cut_into_records_that_a_reader_can_unpack(tmp_path: Path) -> None:
    """A worker polls many records at once: each is bounded by its raw size and its events, not only as it is sent."""
    with started(tmp_path) as bench:
        event = b'{"x":"%b"}' % (b"x" * 6000)
        assert all(isinstance(bench.send(*[event] * 2000, key="large"), Enqueued) for _ in range(3))
        with bench.slow():
            futures = [bench.submit(bench.batch(*[b"{}"] * 100, key="many")) for _ in range(300)]
            reasons = {f"reason-{n:050}": n for n in range(64)}
            futures += [
                bench.submit(msgspec.structs.replace(bench.batch(key="beat"), dropped=reasons)) for _ in range(3000)
            ]
        assert all(isinstance(future.result(10), Enqueued) for future in futures)
        records = bench.records()

    assert len(events_of(records)) == 3 * 2000 + 300 * 100
    assert sum(batch.key == "beat" for _, one in records for batch in one.batches) == 3000
    for _, one in records:
        assert one.count <= record.EVENTS_MAX
        assert len(msgspec.msgpack.encode(one.body)) <= record.RAW_SIZE_BYTES_MAX
    assert max(one.count for _, one in records) == record.EVENTS_MAX
    numbered_without_a_gap(records)


# --- windows ------------------------------------------------------------------------------------------------------
def test_a_window_is_closed_by_its_marker_without_further_traffic(bench: Bench) -> None:
    """When the minute is over, each partition that was used gets the count of each emitter, behind its records."""
    with bench.slow():
        futures = [bench.submit(bench.batch(b"{}", b"{}", emitter="e", sequence_first=n * 2 + 1)) for n in range(5)]
    assert all(isinstance(future.result(10), Enqueued) for future in futures)
    bench.send(b"{}", key="other")
    assert bench.markers() == []

    bench.clock.now_us += WINDOW_US
    until(lambda: bench.merger._windows.open_count() == 0)
    records = bench.records()

    accepted = [entry for _, one in of_kind(records, Kind.MARKER) for entry in marker_of(one).accepted]
    assert sorted(accepted, key=lambda entry: entry.key) == [Accepted("k", "e", 10, 0), Accepted("other", None, 1, 0)]
    for partition, marker in of_kind(records, Kind.MARKER):
        here = [one for p, one in records if p == partition]
        data = [one for one in here if one.kind is Kind.DATA]
        assert (marker.window, marker.first) == (WINDOW, data[0].first)
        assert marker.count == sum(one.count for one in data)
        assert here[-1] is marker


def test_a_record_never_spans_two_windows_and_no_window_opens_twice(bench: Bench) -> None:
    """Even a clock that goes back writes nothing behind a marker into its window."""
    for step_us in (0, WINDOW_US, WINDOW_US, -2 * WINDOW_US, WINDOW_US, 5 * WINDOW_US):
        bench.clock.now_us += step_us
        for n in range(PARTITIONS):
            bench.send(b'{"n":%d}' % n)
        bench.merger.tick()
    bench.merger.stop(5)
    records = bench.records()

    assert bench.merger._windows.open_count() == 0
    for partition in range(PARTITIONS):
        here = [one for p, one in records if p == partition]
        data_windows = [one.window for one in here if one.kind is Kind.DATA]
        marked = [one.window for one in here if one.kind is Kind.MARKER]
        assert data_windows == sorted(data_windows)
        assert sorted(marked) == sorted(set(data_windows))
        for index, one in enumerate(here):
            if one.kind is Kind.MARKER:
                assert all(later.window > one.window for later in here[index + 1 :] if later.kind is Kind.DATA)


def test_every_event_is_in_exactly_one_marker(tmp_path: Path) -> None:
    """Under load from many threads over several minutes the markers add up to what was accepted, per emitter."""
    with started(tmp_path) as bench:
        stop = threading.Event()

        def minutes() -> None:
            while not stop.wait(0.05):
                bench.clock.now_us += WINDOW_US // 3

        def emit(name: str) -> int:
            return sum(isinstance(bench.send(*[b"{}"] * (n % 4), emitter=name), Enqueued) * (n % 4) for n in range(100))

        ticking = threading.Thread(target=minutes)
        ticking.start()
        with ThreadPoolExecutor(8) as pool:
            counts = dict(zip("abcdefgh", pool.map(emit, "abcdefgh"), strict=True))
        stop.set()
        ticking.join()
        bench.merger.stop(5)
        records = bench.records()

    said: dict[str, int] = {}
    for _, one in of_kind(records, Kind.MARKER):
        assert sum(entry.accepted + entry.unconfirmed for entry in marker_of(one).accepted) == one.count
        for entry in marker_of(one).accepted:
            said[entry.emitter or ""] = said.get(entry.emitter or "", 0) + entry.accepted
    assert said == counts
    numbered_without_a_gap(records)


def test_a_window_with_too_many_emitters_of_a_key_sums_them_up(tmp_path: Path) -> None:
    """A marker must fit into a record: those beyond have one row together, and the window is that of the minute."""
    with started(tmp_path, record_size_bytes_max=9_000) as bench:
        for n in range(60):
            assert isinstance(bench.send(b"{}", emitter=f"{n:0200}"), Enqueued)
        bench.merger.stop(5)
        records = bench.records()

    marked = [entry for _, one in of_kind(records, Kind.MARKER) for entry in marker_of(one).accepted]
    # They have no number, and are on all partitions in turn.
    assert sum(entry.accepted for entry in marked) == 60
    assert sum(entry.accepted for entry in marked if entry.emitter == OTHERS) > 0
    assert {one.window for _, one in records} == {WINDOW}
    assert max(len(marker_of(one).accepted) for _, one in of_kind(records, Kind.MARKER)) <= 20


# --- a queue that is slow, fails, or is not there -----------------------------------------------------------------
def test_what_a_slow_queue_does_not_take_in_time_is_accepted_by_the_spool(tmp_path: Path) -> None:
    """The answer says so; in the end it is in the queue, in order, and the marker counts it as accepted."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        with bench.slow():
            sent_s = time.monotonic()
            late = [bench.send(b'{"a":%d}' % n, emitter="late", sequence_first=n) for n in (1, 2, 3)]
            took_s = time.monotonic() - sent_s
            assert bench.merger.unready() is None
        until(lambda: not bench.budget.held_bytes)
        good = bench.send(b'{"a":4}', emitter="late", sequence_first=4)
        bench.merger.stop(5)
        records = bench.records()

    assert [result.durable for result in (*late, good) if isinstance(result, Enqueued)] == ["spool"] * 3 + ["queue"]
    assert took_s < 10
    assert list(dict.fromkeys(events_of(records))) == [b'{"a":%d}' % n for n in (1, 2, 3, 4)]
    (marker,) = [marker_of(one) for _, one in of_kind(records, Kind.MARKER)]
    assert marker == Marker([Accepted("k", "late", 4, 0)], [])
    assert not any(path.suffix == ".log" for path in bench.spool.rglob("*"))


def test_a_sender_is_refused_when_neither_queue_nor_spool_answers(tmp_path: Path) -> None:
    """A disk that hangs is a 503 at the deadline; what is in the queue after all is unconfirmed."""
    with started(tmp_path, queue_timeout_s=0.2, spool_timeout_s=1.0) as bench:
        with bench.slow(), bench.hanging_disk():
            sent = bench.submit(bench.batch(b'{"a":1}', b'{"a":2}', emitter="late", sequence_first=1))
            waiting = bench.submit(bench.batch(b'{"a":3}', emitter="late", sequence_first=3))
            results = [sent.result(20), waiting.result(20)]
            with pytest.raises(LogweirError) as caught:
                bench.submit(bench.batch(b'{"a":4}', emitter="late", sequence_first=4))
        until(lambda: not bench.budget.held_bytes and not bench.enqueuer.is_spooling(0))
        until(lambda: isinstance(bench.send(b'{"a":5}', emitter="good"), Enqueued))
        bench.merger.stop(5)
        records = bench.records()

    assert all(isinstance(result, LogweirError) and result.problem is QUEUE_UNAVAILABLE for result in results)
    assert caught.value.problem is QUEUE_UNAVAILABLE
    assert sorted(set(events_of(records))) == [b'{"a":1}', b'{"a":2}', b'{"a":5}']
    accepted = [entry for _, one in of_kind(records, Kind.MARKER) for entry in marker_of(one).accepted]
    assert sorted(accepted, key=lambda entry: entry.emitter or "") == [
        Accepted("k", "good", 1, 0),
        Accepted("k", "late", 0, 2),
    ]


def test_a_stuck_partition_does_not_slow_the_unnumbered_batches(tmp_path: Path) -> None:
    """Its one record goes to the spool, the others go on; when it confirms again, it is used again."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        bench.queue.faulty.stuck = {2}
        # A numbered emitter elsewhere: the queue as a whole is well.
        first = [bench.send(b'{"a":1}') for _ in range(PARTITIONS)]
        while_stuck = [bench.send(b'{"a":2}') for _ in range(3 * PARTITIONS)]
        bench.clock.now_us += WINDOW_US
        while_stuck.append(bench.send(b'{"a":3}'))
        bench.queue.faulty.free()
        until(lambda: not any(map(bench.enqueuer.is_spooling, range(PARTITIONS))))
        afterwards = [bench.send(b'{"a":4}') for _ in range(PARTITIONS)]
        bench.merger.stop(5)
        records = bench.records()

    assert all(isinstance(result, Enqueued) for result in first + while_stuck + afterwards)
    assert sum(result.durable == "spool" for result in first if isinstance(result, Enqueued)) >= 1
    assert {result.partition for result in while_stuck if isinstance(result, Enqueued)} >= {0, 1, 3}
    assert {result.partition for result in afterwards if isinstance(result, Enqueued)} == {0, 1, 2, 3}
    numbered_without_a_gap(unrepeated(records))
    assert len(events_of(unrepeated(records))) == len(first + while_stuck + afterwards)
    assert sum(
        entry.accepted for _, one in of_kind(unrepeated(records), Kind.MARKER) for entry in marker_of(one).accepted
    ) == len(first + while_stuck + afterwards)


def test_stopping_with_a_stuck_queue_leaves_everything_in_the_spool_for_the_next_process(tmp_path: Path) -> None:
    """Even the markers: the windows are closed, and the next process brings them to the queue in order."""
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        bench.queue.faulty.stuck = set(range(PARTITIONS))
        results = [bench.send(b'{"a":%d}' % n, emitter="e", sequence_first=n) for n in range(1, 6)]
        bench.merger.stop(3)
        assert bench.merger._windows.open_count() == 0
    assert bench.records() == []
    with started(tmp_path, name="2") as following:
        more = following.send(b'{"a":6}', emitter="e", sequence_first=6)
        until(lambda: not following.budget.held_bytes)
        following.merger.stop(5)
        records = following.records()

    assert [result.durable for result in results if isinstance(result, Enqueued)] == ["spool"] * 5
    assert isinstance(more, Enqueued)
    assert events_of(records) == [b'{"a":%d}' % n for n in range(1, 7)]
    epochs = [one.ingest_epoch for _, one in records]
    assert epochs == [bench.merger.ingest_epoch] * 6 + [following.merger.ingest_epoch] * 2
    assert marker_of(records[5][1]).accepted == [Accepted("k", "e", 5, 0)]


def test_a_failing_queue_and_a_failing_disk_are_a_refusal_and_the_numbers_are_void(bench: Bench) -> None:
    """What is nowhere is refused at once; the marker declares its numbers void."""
    first = bench.send(b'{"a":1}', emitter="e", sequence_first=1)
    with bench.failing(), bench.failing_disk():
        failed = bench.send(b'{"a":2}', b'{"a":3}', emitter="e", sequence_first=2)
        again = bench.send(b'{"a":2}', b'{"a":3}', emitter="e", sequence_first=2)
        assert bench.merger.unready() is None or "spool" in bench.merger.unready()
    until(lambda: isinstance(bench.send(b'{"a":4}', emitter="e", sequence_first=6), Enqueued))
    bench.merger.stop(5)
    (marker,) = [one for _, one in bench.markers()]

    assert all(isinstance(one, LogweirError) and one.problem is SPOOL_FAILED for one in (failed, again))
    assert isinstance(first, Enqueued)
    assert marker_of(marker).accepted == [Accepted("k", "e", 2, 0)]
    assert sum(last - start + 1 for start, last in marker_of(marker).voids) == marker.count - 2 >= 2


def test_a_record_that_fails_refuses_only_whose_events_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several senders in flight together, or of one in several records; what a torn batch left is unconfirmed."""
    monkeypatch.setattr(spool_disk, "_PROBE_EVERY_S", 0.0)
    names = ("whole", "torn", "lost", "fine")
    before = {name: value_of(name) for name in COUNTERS}
    with started(tmp_path, record_size_bytes_max=8_000) as bench:
        with bench.slow():
            futures = [bench.submit(bench.batch(noise(9000), key="before"))]
            bench.queue.faulty.fails = bench.disk_fails = lambda one: any(
                batch.key == "lost" or (batch.key == "torn" and batch.index_first > 0) for batch in one.batches
            )
            events = {
                name: [noise(3000) for _ in range(count)] for name, count in zip(names, (2, 5, 1, 2), strict=True)
            }
            events["lost"] = [noise(7000)]  # In flight with the next batch, in a record of its own.
            merged = {name: bench.submit(bench.batch(*events[name], key=name)) for name in names}
            beat = bench.submit(bench.batch(key="beat"))
        assert isinstance(futures[0].result(10), Enqueued)
        results = {name: future.result(10) for name, future in merged.items()}
        assert isinstance(beat.result(10), Enqueued)
        bench.merger.stop(5)
        records = unrepeated(bench.records())

    refused = {name for name, result in results.items() if isinstance(result, LogweirError)}
    assert refused == {"torn", "lost"}
    inside = [(batch.key, event) for _, one in records for batch in one.batches for event in batch.events]
    torn = sum(key == "torn" for key, _ in inside)
    assert 0 < torn < 5
    assert [event for key, event in inside if key == "fine"] == events["fine"]
    markers = [one for _, one in of_kind(records, Kind.MARKER)]
    said = {entry.key: (entry.accepted, entry.unconfirmed) for one in markers for entry in marker_of(one).accepted}
    assert said == {"before": (1, 0), "whole": (2, 0), "torn": (0, torn), "fine": (2, 0), "beat": (0, 0)}
    voids = [last - first + 1 for one in markers for first, last in marker_of(one).voids]
    assert sum(voids) == 5 - torn + 1
    assert sum(one.count for one in markers) == 11
    by_number = {
        (partition, one.first + index): event
        for partition, one in of_kind(records, Kind.DATA)
        for index, event in enumerate(events_of([(0, one)]))
    }
    for name in ("whole", "fine"):
        result = results[name]
        assert isinstance(result, Enqueued)
        numbers = range(result.first, result.first + result.count)
        assert [by_number[result.partition, number] for number in numbers] == events[name]
    assert [value_of(name) - before[name] for name in COUNTERS] == [5, torn]


def test_a_marker_that_fails_is_written_again(bench: Bench) -> None:
    """A window is closed only when queue or spool has its marker."""
    bench.send(b"{}")
    with bench.failing(), bench.failing_disk():
        bench.clock.now_us += WINDOW_US
        time.sleep(0.4)
        assert bench.merger._windows.open_count() == 1
    until(lambda: bench.merger._windows.open_count() == 0)
    bench.merger.stop(5)

    assert len(unrepeated(bench.markers())) == 1


def test_what_waits_for_the_queue_is_bounded(tmp_path: Path) -> None:
    """Beyond the bound a batch is refused at once and holds no memory; when there is room again, it is taken."""
    with started(tmp_path, pending_size_bytes_max=20_000) as bench:
        with bench.slow():
            taken = [bench.submit(bench.batch(b"x" * 5000))]
            with pytest.raises(LogweirError) as caught:
                for _ in range(10):
                    taken.append(bench.submit(bench.batch(b"x" * 5000)))
            with pytest.raises(LogweirError, match="bytes wait"):
                for _ in range(100):
                    bench.submit(bench.batch(b"{}"))
            unready = bench.merger.unready()
        assert all(isinstance(future.result(10), Enqueued) for future in taken)
        assert len(taken) == 3
        assert isinstance(bench.send(b"x" * 5000), Enqueued)

    assert caught.value.problem is QUEUE_UNAVAILABLE
    assert "bytes wait" in str(caught.value)
    assert unready is not None and "bytes wait" in unready


def test_a_door_starts_without_its_queue_and_connects_when_it_is_there(tmp_path: Path) -> None:
    """Until then everything is refused with the reason; nothing is taken over that could be lost."""
    blocker = tmp_path / "folder"
    blocker.write_text("a file where the folder should be")
    bench = Bench(blocker)
    bench.merger.start()
    with pytest.raises(LogweirError) as caught:
        bench.submit(bench.batch(b"{}"))
    assert caught.value.problem is QUEUE_UNAVAILABLE
    assert bench.merger.unready() is not None

    blocker.unlink()
    until(lambda: bench.merger.unready() is None)
    try:
        assert isinstance(bench.send(b"{}"), Enqueued)
    finally:
        bench.merger.stop(5)


def test_stopping_answers_what_is_under_way_and_closes_all_windows(bench: Bench) -> None:
    """A graceful end leaves nothing open: senders are answered, markers are written, later batches refused."""
    with bench.slow():
        futures = [bench.submit(bench.batch(b'{"n":%d}' % n)) for n in range(50)]
        stopping = threading.Thread(target=bench.merger.stop, args=(8,))
        stopping.start()
        until(lambda: bench.merger.unready() == "this door is stopping")
        with pytest.raises(LogweirError) as caught:
            bench.submit(bench.batch(b"{}"))
    stopping.join(10)
    records = bench.records()

    assert caught.value.problem is STOPPING
    assert all(isinstance(future.result(0), Enqueued) for future in futures)
    assert sum(one.count for _, one in of_kind(records, Kind.MARKER)) == 50
    assert bench.merger._windows.open_count() == 0


def test_stopping_without_a_queue_ends_in_time(tmp_path: Path) -> None:
    """A dead queue cannot hold the process, and a disk that hangs leaves no sender without an answer."""
    with started(tmp_path, queue_timeout_s=0.2, spool_timeout_s=60) as bench, bench.slow(), bench.hanging_disk():
        sent = bench.submit(bench.batch(b"{}", emitter="e", sequence_first=1))
        waiting = bench.submit(bench.batch(b"{}", emitter="e", sequence_first=2))
        started_s = time.monotonic()
        bench.merger.stop(1)

        assert time.monotonic() - started_s < 12
        for result in (sent.result(0), waiting.result(0)):
            assert isinstance(result, LogweirError) and result.problem is QUEUE_UNAVAILABLE


def test_unreadable_bodies_are_kept_without_numbers(bench: Bench) -> None:
    """A refused record takes no number and is in no marker."""
    bench.send(b"{}")
    refused = Refused(bytes(16), 1, "k", None, "127.0.0.1", "json", "json_bad", "why", 3, b"{x}")
    bench.merger.keep(refused)
    bench.send(b"{}")
    bench.merger.stop(5)
    records = bench.records()

    assert [(one.count, one.body) for _, one in of_kind(records, Kind.REFUSED)] == [(0, refused)]
    assert sum(one.count for _, one in of_kind(records, Kind.MARKER)) == 2
    numbered_without_a_gap(records)
