"""The exporter: the ledger's figures as metrics that never fall, whoever restarts."""

from __future__ import annotations

import sqlite3
import statistics
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from logweir import clock, config
from logweir.config import Settings
from logweir.ledger.documents import EMITTER as EMITTER_KIND
from logweir.ledger.documents import PartitionId
from logweir.ledger.emitter import EmitterState, place_of
from logweir.ledger.position import read_positions
from logweir.ledger.tracker import Tracker
from logweir.metrics.table import METRICS
from logweir.metrics.table import Kind as MetricKind
from logweir.outcomes import Outcome
from logweir.queue.port import Queue
from logweir.record import Accepted, Kind, Marker, Record
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.retention import delete_old_books, old_books
from logweir_workers.accounting.settled import SettledRecord
from logweir_workers.exporter.exporter import Exporter
from logweir_workers.exporter.figures import _highest
from tests.logweir import silence_world
from tests.logweir.silence_world import World
from tests.tools.product import Process, environment, free_port
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

EMITTERS = 1000
SILENT_MINUTES = 60


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    # What is missing is lost at once.
    values = {
        "data_dir": tmp_path,
        "accounting.late_after_s": 1,
        "exporter.interval_s": 0.1,
        "exporter.emitters_max": 3,
    }
    return config.load(environment={}, overrides=values)


Figures = dict[tuple[str, ...], float]


def figures(exporter: Exporter) -> Figures:
    """Every sample that is served: (name, label values in the order of their names) -> value."""
    registry = CollectorRegistry()
    registry.register(exporter)
    text = generate_latest(registry).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def refreshed(settings: Settings, queue: Queue, store: Store) -> Figures:
    exporter = Exporter(settings, store=store, queue=queue, clock=clock.now_us)
    exporter.refresh()
    return figures(exporter)


def write_traffic(door: Door) -> bytes:
    """Numbered events of which 3 and 4 never come, a bare pair, one that no worker can read; then the marker.

    Gives the bytes of the first record.
    """
    mark = clock.now_us()
    app = {"key": "app", "emitter": "web-1", "epoch": "run"}
    one = batch(b'{"n":1}', b'{"n":2}', sequence_first=1, high=2, id=b"\x01" * 16, received_us=mark, **app)
    payload = door.write(one)
    door.write(
        batch(b'{"n":5}', sequence_first=5, high=5, dropped={"disk_full": 1}, id=b"\x02" * 16, received_us=mark, **app)
    )
    door.write(batch(b'{"a":1}', b'{"a":2}', b"{", key="bare", id=b"\x03" * 16, received_us=mark))
    accepted = [Accepted("app", "web-1", 3, 0), Accepted("bare", None, 3, 0)]
    door.write_as(Kind.MARKER, Marker(accepted=accepted, voids=[]), first=1, count=6)
    return payload


def test_figures_are_what_was_sent(settings: Settings, queue: Queue, store: Store) -> None:
    """Accepted, each outcome, lost and dropped are right to the event; of the bare emitter no loss is claimed."""
    door = Door(queue)
    write_traffic(door)
    lag = ("logweir_queue_lag_records", settings.worker.group, "0", queue.topic)
    with running_worker(settings, queue, store):
        # What comes a while later shows that the missing one is late.
        until(lambda: refreshed(settings, queue, store).get(("logweir_events_accepted_total",)) == 6)
        time.sleep(1.2)
        door.write_as(Kind.CANARY, [batch(high=1, key="")])
        until(lambda: refreshed(settings, queue, store)["logweir_events_lost_total", "exact"] == 1)
        # An idle worker finds out by itself, and might end before it has read the last record.
        until(lambda: refreshed(settings, queue, store)[lag] == 0)
    found = refreshed(settings, queue, store)
    door.close()

    assert found["logweir_events_total", "indexed"] == 5
    assert found["logweir_events_total", "dead_lettered"] == 1
    assert found["logweir_events_expected_total", "exact"] == 5
    assert found["logweir_events_dropped_total", "exact"] == 1
    assert found["logweir_lost_events", "exact", "before_ingest"] == 1
    assert ("logweir_lost_events", "unknown", "before_ingest") not in found
    assert found["logweir_lost_events", "unknown", "queue"] == 0
    assert found["logweir_lost_events", "unattributed", "store"] == 0
    assert found["logweir_events_missing", "exact"] == 0
    assert ("logweir_events_lost_total", "unknown") not in found
    assert ("logweir_events_expected_total", "unknown") not in found
    assert found["logweir_emitter_lost_events", "app/web-1"] == 1
    assert found["logweir_emitters", "exact", "learning"] == found["logweir_emitters", "unknown", "learning"] == 1
    assert found["logweir_silence_findings", "emitter"] == 0
    assert found["logweir_dead_letters_held", "event_unreadable"] == 1
    assert found["logweir_ledger_windows", "balanced"] == 1
    assert found["logweir_ledger_imbalance_events",] == 0
    assert found[lag] == 0
    assert ("logweir_canary_last_success_timestamp_seconds", "070707070707") in found


def test_what_the_queue_lost_is_not_called_lost_before_the_door(settings: Settings, queue: Queue, store: Store) -> None:
    """Of an emitter that numbers its events and of one that does not: each is told by its class."""
    door = Door(queue)
    app = {"key": "app", "emitter": "web-1", "epoch": "run"}
    with running_worker(settings, queue, store):
        door.write(batch(b'{"n":1}', sequence_first=1, high=1, id=b"\x01" * 16, **app))
        until(lambda: refreshed(settings, queue, store)["logweir_events_total", "indexed"] == 1)
    door.write(batch(b'{"n":2}', b'{"n":3}', sequence_first=2, high=3, id=b"\x02" * 16, **app))
    door.write(batch(b'{"n":1}', b'{"n":2}', b'{"n":3}', key="bare", id=b"\x03" * 16))
    with sqlite3.connect(settings.data_dir / "queue.sqlite") as connection:
        connection.execute("DELETE FROM record")
    # Of five numbers 4 never left the emitter.
    door.write(batch(b'{"n":5}', sequence_first=5, high=5, id=b"\x04" * 16, **app))
    door.write_as(
        Kind.MARKER, Marker([Accepted("app", "web-1", 4, 0), Accepted("bare", None, 3, 0)], []), first=1, count=7
    )
    with running_worker(settings, queue, store):
        until(lambda: refreshed(settings, queue, store).get(("logweir_events_accepted_total",)) == 7)
        time.sleep(1.2)
        door.write_as(Kind.CANARY, [batch(high=1, key="")])
        until(lambda: refreshed(settings, queue, store)["logweir_events_lost_total", "exact"] == 3)
    found = refreshed(settings, queue, store)
    door.close()

    assert found["logweir_lost_events", "exact", "before_ingest"] == 1
    assert found["logweir_lost_events", "exact", "queue"] == 2
    assert found["logweir_lost_events", "unknown", "queue"] == 3
    assert found["logweir_lost_events", "unattributed", "queue"] == 0
    assert found["logweir_events_lost_in_queue_total",] == 5


def test_no_total_falls_when_old_books_are_let_go_of(settings: Settings, queue: Queue, store: Store) -> None:
    """Retention takes windows and emitters; what they said stays in every counter."""
    door = Door(queue)
    write_traffic(door)
    with running_worker(settings, queue, store):
        until(lambda: refreshed(settings, queue, store).get(("logweir_events_accepted_total",)) == 6)
    door.close()
    group, limits = settings.worker.group, settings.accounting
    ledgers = [
        PartitionLedger.claim(store=store, group=group, topic_id=queue.topic_id(), partition=at, owner="me")
        for at in range(queue.partition_count())
    ]
    ledgers[0].idle(clock.now_us() + 2_000_000)
    ledgers[0].flush()

    def totals() -> Figures:
        found = refreshed(settings, queue, store)
        return {key: value for key, value in found.items() if key[0].endswith("_total")}

    before = totals()
    later_us = clock.now_us() + 2 * limits.retention_days * clock.DAY_US
    ledgers[0]._position.watermark_us = later_us
    books = old_books(store, group=group, settings=limits, now_us=later_us)
    deleted = delete_old_books(
        store, group=group, owner="me", settings=limits, ledgers=ledgers, now_us=later_us, books=books
    )

    assert deleted >= 3
    assert before["logweir_events_lost_total", "exact"] == 1
    assert before["logweir_events_total", "dead_lettered"] == 1
    assert totals() == before
    assert refreshed(settings, queue, store)["logweir_ledger_windows", "balanced"] == 0


def test_no_total_falls_when_what_the_queue_lost_comes_or_its_emitter_begins_to_number(
    settings: Settings, queue: Queue, store: Store
) -> None:
    """It has no class: of nobody knows whom first, then of an emitter, then recovered."""
    ledger = PartitionLedger.claim(
        store=store, group=settings.worker.group, topic_id=queue.topic_id(), partition=0, owner="me"
    )
    window = clock.now_us() // clock.WINDOW_US - 5
    bare = batch(b"{}", b"{}", key="app", emitter="web-1", received_us=window * clock.WINDOW_US)
    numbered = msgspec.structs.replace(bare, epoch="run", sequence_first=1, high=2)
    marker = Marker([Accepted("app", "web-1", 6, 0)], [])
    records = [
        Record(Kind.DATA, b"\x07" * 16, 1, 2, window, [bare]),
        Record(Kind.DATA, b"\x07" * 16, 5, 2, window, [bare]),
        Record(Kind.MARKER, b"\x07" * 16, 1, 6, window, marker),
        Record(Kind.DATA, b"\x07" * 16, 7, 2, window + 1, [numbered]),
        Record(Kind.DATA, b"\x07" * 16, 3, 2, window, [bare]),
    ]
    totals: list[Figures] = []
    for at, record in enumerate(records):
        ledger.load([record])
        ledger.settle(SettledRecord(record, 2 * at, [Outcome.INDEXED] * len(record.batches) * 2))
        ledger.pass_over(2 * at + 1)  # One that cannot be read: what it held, numbers that never came show.
        ledger.flush()
        found = refreshed(settings, queue, store)
        totals.append({key: value for key, value in found.items() if key[0].endswith("_total")})

    in_queue = [found["logweir_events_lost_in_queue_total",] for found in totals]
    assert in_queue == [0, 2, 2, 2, 2]
    assert totals[-1]["logweir_events_recovered_in_queue_total",] == 2
    for before, after in pairwise(totals):
        assert not [key for key, value in before.items() if after[key] < value]


def test_what_no_worker_has_read_is_lag_and_ages(settings: Settings, queue: Queue, store: Store) -> None:
    """Without any worker, lag in records and in seconds is known all the same."""
    door = Door(queue)
    door.write(batch(b"{}"))
    time.sleep(0.3)
    door.write(batch(b"{}"))
    found = refreshed(settings, queue, store)
    door.close()

    assert found["logweir_queue_lag_records", settings.worker.group, "0", queue.topic] == 2
    assert 0.3 <= found["logweir_queue_head_age_seconds", settings.worker.group, "0", queue.topic] < 15


def settled_s_ago(found: Figures) -> float:
    return (
        found["logweir_ledger_read_timestamp_seconds",] - found["logweir_stage_watermark_timestamp_seconds", "settled"]
    )


def test_what_is_settled_is_known_of_a_partition_that_nobody_has_read(
    settings: Settings, queue: Queue, store: Store
) -> None:
    """Up to its first record, whether or not a worker has the others; up to now when that is read, too."""
    empty = refreshed(settings, queue, store)
    with running_worker(settings, queue, store):
        # On start it writes a position for each partition: nothing is in any of them.
        until(lambda: len(read_positions(store, settings.worker.group)) == queue.partition_count())
    door = Door(queue)
    door.write(batch(b"{}"))
    time.sleep(0.3)
    behind = refreshed(settings, queue, store)
    with running_worker(settings, queue, store):
        until(
            lambda: refreshed(settings, queue, store)["logweir_queue_lag_records", "logweir", "0", "queue"] == 0,
        )
        again = refreshed(settings, queue, store)
    door.close()

    assert settled_s_ago(empty) == 0
    assert 0.3 <= settled_s_ago(behind) < 15
    assert behind["logweir_stage_watermark_timestamp_seconds", "closed"] > 0
    assert settled_s_ago(again) == 0


def test_no_counter_falls_when_everything_restarts(settings: Settings, queue: Queue, store: Store) -> None:
    """A new worker, a new exporter, the same records once more: every counter stays, or grows."""
    door = Door(queue)
    payload = write_traffic(door)
    with running_worker(settings, queue, store):
        until(lambda: refreshed(settings, queue, store).get(("logweir_events_accepted_total",)) == 6)
    before = refreshed(settings, queue, store)
    door.write_bytes(payload)
    with running_worker(settings, queue, store) as worker:
        until(lambda: worker.stalled() is None)
        until(
            lambda: refreshed(settings, queue, store)["logweir_queue_lag_records", "logweir", "0", "queue"] == 0,
        )
    after = refreshed(settings, queue, store)
    door.close()

    counters = {row.name for row in METRICS if row.kind is MetricKind.COUNTER}
    assert {key for key in before if key[0] in counters and after[key] < before[key]} == set()
    assert after["logweir_events_total", "indexed"] == before["logweir_events_total", "indexed"]


def test_nothing_is_published_before_the_ledger_was_read(settings: Settings, queue: Queue, store: Store) -> None:
    """What is not known is not shown as 0."""
    assert figures(Exporter(settings, store=store, queue=queue, clock=clock.now_us)) == {}


def test_what_was_read_last_stays_while_the_queue_is_away(settings: Settings, queue: Queue, store: Store) -> None:
    """The figures and the time of their reading stay; health says after five minutes what is wrong; then it goes on."""
    now = [clock.now_us()]
    exporter = Exporter(settings, store=store, queue=queue, clock=lambda: now[0])
    stopping = threading.Event()
    path = settings.data_dir / "queue.sqlite"
    exporter.refresh()
    before = figures(exporter)
    healthy = exporter.unhealthy()
    away = path.rename(path.with_name("away"))
    now[0] += 400_000_000
    thread = threading.Thread(target=exporter.run, args=(stopping,))
    thread.start()
    try:
        until(lambda: "does not answer" in (exporter.unhealthy() or ""))
        during = figures(exporter)
        away.rename(path)
        until(lambda: exporter.unhealthy() is None)
    finally:
        stopping.set()
        thread.join(15)

    assert healthy is None
    assert during == before
    assert (
        figures(exporter)["logweir_ledger_read_timestamp_seconds",] > before["logweir_ledger_read_timestamp_seconds",]
    )


def test_only_the_worst_emitters_have_a_series(settings: Settings, queue: Queue, store: Store) -> None:
    """Of 1,000 emitters with losses three are named, the others are one sum."""
    group, place = settings.worker.group, PartitionId(queue.topic_id(), 0)
    PartitionLedger.claim(store=store, group=group, topic_id=place.topic_id, partition=0, owner="test")
    store.ledger.write([_losing(group, place, number) for number in range(1, EMITTERS + 1)])
    exporter = Exporter(settings, store=store, queue=queue, clock=clock.now_us)
    exporter.refresh()
    found = figures(exporter)

    named = {key[1]: value for key, value in found.items() if key[0] == "logweir_emitter_lost_events"}
    assert named == {"app/e1000": 1000, "app/e999": 999, "app/e998": 998, "(others)": sum(range(1, 998))}
    assert found["logweir_events_lost_total", "exact"] == sum(named.values())
    assert found["logweir_series_capped", "logweir_emitter_lost_events"] == EMITTERS - 3


def _losing(group: str, partition: PartitionId, lost: int) -> LedgerDocument:
    """An emitter that numbered so many events more than came."""
    emitter = ("app", f"e{lost}")
    tracker = Tracker("run", top=lost, floor=lost, lost_below=lost)
    state = EmitterState(place_of(emitter, partition), emitter, epochs=OrderedDict({"run": tracker}))
    return EMITTER_KIND.document(group, state.place, 1, state.as_body(), owner="test")


def test_a_scrape_is_quick_with_a_thousand_emitters_that_lose_and_are_silent(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running exporter as it comes, over HTTP: a scrape waits for nothing that it reads (8 ms where measured)."""
    monkeypatch.setattr(silence_world, "START", clock.window_of(clock.now_us()) - SILENT_MINUTES)
    world = World(store, group=settings.worker.group)
    for minute, number in enumerate((1, 5, 9, 13)):
        for name in range(EMITTERS):
            world.send(silence_world.batch(minute, f"e{name}", sequence=number, epoch="run"))
    world.canaries(4, SILENT_MINUTES)
    world.flush(SILENT_MINUTES)
    port = free_port()
    words = ["exporter", "--data-dir", str(settings.data_dir), "--port", str(port)]
    exporter = Process(words, settings.data_dir / "log", environment(LOGWEIR_SILENCE_LEARN_S="60"))
    try:
        until(lambda: b'"logweir_emitter_silence_seconds"} 800.0' in scraped(port), wait_s=60)
        text, times_s = scraped(port), [timed(port) for _ in range(21)]
    finally:
        exporter.stop()

    for name in ("logweir_emitter_lost_events", "logweir_emitter_silence_seconds"):
        # The 200 worst, and the others.
        assert text.count(f"{name}{{".encode()) == 201
    assert statistics.median(times_s) < 1


def scraped(port: int) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.URLError:
        return b""


def timed(port: int) -> float:
    began_s = time.perf_counter()
    assert scraped(port)
    return time.perf_counter() - began_s


def test_of_the_worst_one_key_has_half_at_most_while_there_are_others() -> None:
    """So that one with many emitters does not hide another's from every graph; the rest is one number, as ever."""
    loud = {("loud", f"e{at}"): 1000 + at for at in range(10)}
    quiet = {("quiet", None): 3, ("other", "x"): 2}
    named, others = _highest({**loud, **quiet}, 6)

    assert named == {"loud/e9": 1009, "loud/e8": 1008, "loud/e7": 1007, "quiet": 3, "other/x": 2, "loud/e6": 1006}
    assert sum(others) + sum(named.values()) == sum(loud.values()) + 5
    assert list(_highest(loud, 3)[0]) == ["loud/e9", "loud/e8", "loud/e7"]
