"""The steps of the pipeline by themselves: what a fault of ours does, and what a full worker leaves alone."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from logweir import clock, config, receipt
from logweir.event import content_hash_of
from logweir.outcomes import Outcome
from logweir.query.parse import parse
from logweir.queue import open_queue
from logweir.queue.port import Delivery
from logweir.record import Kind, encode
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.backoff import Stopped
from logweir_workers.deadletters.letter import LetterLog
from logweir_workers.pipeline import Pipeline
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker


def test_a_fault_of_ours_costs_one_event_its_index_and_nothing_else(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """An enrichment that fails leaves a dead letter with the event's bytes, and a trace in the log."""

    def enrich(event: dict[str, object], _: object) -> None:
        if event["summary"] == "bad":
            raise ZeroDivisionError("a bug")

    pipeline = Pipeline(store=store, enrich=enrich, topic_id="t", events_max=10, clock=clock.now_us)
    ledger = PartitionLedger.claim(store=store, group="g", topic_id="t", partition=0, owner="me")
    events = [json.dumps({"summary": summary}).encode() for summary in ("good", "bad", "fine")]
    payload = encode(Kind.DATA, ingest_epoch=b"e" * 16, first=1, count=3, window=9, body=[batch(*events)])
    work = pipeline.prepare(Delivery(0, 0, 0, payload), ledger)
    pipeline.index([work], threading.Event())
    (letter,) = store.dead_letters.page(size=10)

    assert work.outcomes == [Outcome.INDEXED, Outcome.DEAD_LETTERED, Outcome.INDEXED]
    assert (letter.raw, letter.reason, letter.body["stage"]) == (events[1], "event_unfit", "enrich")
    assert "ZeroDivisionError" in letter.body["error"]
    assert "Traceback" in caplog.text
    assert {event["summary"] for event in store.search(parse("*"), size=10).events} == {"good", "fine"}


def test_every_event_is_a_sample_of_how_long_it_took(store: Store) -> None:
    """Of a bulk with an event from just now and two from twenty seconds ago, one took less than ten seconds."""
    pipeline = Pipeline(store=store, enrich=lambda *_: None, topic_id="t", events_max=10, clock=clock.now_us)
    ledger = PartitionLedger.claim(store=store, group="g", topic_id="t", partition=0, owner="me")
    old = batch(b'{"n":1}', b'{"n":2}', id=b"\x02" * 16, received_us=clock.now_us() - 20_000_000)
    ahead = batch(b'{"n":3}', received_us=clock.now_us() + 20_000_000)
    payload = encode(Kind.DATA, ingest_epoch=b"e" * 16, first=1, count=3, window=9, body=[old, ahead])

    def samples() -> list[float]:
        name, path = "logweir_event_latency_seconds", {"path": "ingest_to_stored"}
        found = [REGISTRY.get_sample_value(f"{name}_bucket", {**path, "le": le}) for le in ("0.001", "10.0", "30.0")]
        return [value or 0.0 for value in (*found, REGISTRY.get_sample_value(f"{name}_sum", path))]

    before = samples()
    pipeline.index([pipeline.prepare(Delivery(0, 0, 0, payload), ledger)], threading.Event())
    grown = [after - was for after, was in zip(samples(), before, strict=True)]

    assert grown[:3] == [1, 1, 3]
    assert 40 <= grown[3] < 44


def test_a_dead_letter_is_a_log_line_with_the_receipt_of_its_batch(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that the door gave to its sender; of each reason one a minute, of what has no receipt a line without."""
    pipeline = Pipeline(
        store=store,
        enrich=lambda *_: None,
        topic_id="t",
        events_max=10,
        clock=clock.now_us,
        letter_log=LetterLog(tmp_path),
    )
    ledger = PartitionLedger.claim(store=store, group="g", topic_id="t", partition=3, owner="me")
    secret = receipt.secret_of(tmp_path)
    given = receipt.encode(secret, ingest_epoch=b"e" * 16, partition=3, first=6, count=3, window=9).decode()
    batches = [batch(b"{}"), batch(b"{}", b"{", b"[", id=b"\x02" * 16, key="web")]
    payload = encode(Kind.DATA, ingest_epoch=b"e" * 16, first=5, count=4, window=9, body=batches)
    works = [pipeline.prepare(Delivery(3, offset, 0, one), ledger) for offset, one in enumerate([payload, b"?"])]
    pipeline.index(works, threading.Event())
    with caplog.at_level(logging.WARNING, "logweir_workers.deadletters.letter"):
        pipeline.settle(works)
    unreadable, corrupt = (vars(one) for one in caplog.records)

    assert [unreadable[name] for name in ("reason", "stage", "key", "partition", "offset", "receipt")] == [
        "event_unreadable",
        "decode",
        "web",
        3,
        0,
        given,
    ]
    assert given in caplog.messages[0] and f"deadletters show {unreadable['dead_letter']}" in caplog.messages[0]
    assert {unreadable["dead_letter"], corrupt["dead_letter"]} <= {
        letter.id for letter in store.dead_letters.page(size=10)
    }
    assert (corrupt["reason"], corrupt["offset"], "receipt" in corrupt) == ("record_corrupt", 1, False)


def test_a_store_that_is_away_holds_events_back_until_told_to_stop(store: Store, tmp_path: Path) -> None:
    """No outcome is invented for what the store has not answered: the bulk waits, and ends without one."""
    pipeline = Pipeline(store=store, enrich=lambda *_: None, topic_id="t", events_max=10, clock=clock.now_us)
    ledger = PartitionLedger.claim(store=store, group="g", topic_id="t", partition=0, owner="me")
    payload = encode(Kind.DATA, ingest_epoch=b"e" * 16, first=1, count=1, window=9, body=[batch(b'{"summary":"x"}')])
    work = pipeline.prepare(Delivery(0, 0, 0, payload), ledger)
    (tmp_path / "store" / "main.sqlite").unlink()
    (tmp_path / "store" / "main.sqlite").mkdir()
    stopping = threading.Event()
    threading.Timer(1.0, stopping.set).start()
    with pytest.raises(Stopped):
        pipeline.index([work], stopping)

    assert work.outcomes == [None]


def test_partitions_that_come_while_a_worker_is_full_leave_none_paused(tmp_path: Path) -> None:
    """A worker that takes partitions over while the store is away reads on all of them when it is back."""
    overrides = {
        "data_dir": tmp_path,
        "queue.partitions": 2,
        "queue.session_timeout_s": 1,
        "worker.bulk_events_max": 1,
        "worker.bulks_in_flight": 1,
        "worker.ledger_interval_s": 0.1,
    }
    settings = config.load(environment={}, overrides=overrides)
    queue, store = open_queue(settings.queue), open_store(settings.store)
    queue.prepare()
    store.prepare()
    with running_worker(settings, queue, store) as first:
        with running_worker(settings, queue, store) as second:
            until(lambda: len(first._ledgers) == len(second._ledgers) == 1)
            locked = sqlite3.connect(tmp_path / "store" / "main.sqlite", isolation_level=None, check_same_thread=False)
            locked.execute("BEGIN IMMEDIATE")
            door = Door(queue, partition=next(iter(first._ledgers)))
            for number in range(20):
                door.write(batch(b'{"summary":"%d"}' % number, id=bytes([number]) * 16))
            until(lambda: bool(first._paused))
            threading.Timer(3.0, lambda: locked.execute("ROLLBACK")).start()
        until(lambda: store.count(parse("*")).number == 20, wait_s=30)
        both = len(first._ledgers)
    door.close()
    queue.close()
    store.close()

    assert both == 2


def test_an_event_with_bare_quotes_in_its_structured_data_is_mended_and_marked(store: Store) -> None:
    """It is stored with the tag and its text as it was sent; what cannot be mended is a dead letter, with its bytes."""
    pipeline = Pipeline(store=store, enrich=lambda *_: None, topic_id="t", events_max=10, clock=clock.now_us)
    ledger = PartitionLedger.claim(store=store, group="g", topic_id="t", partition=0, owner="me")
    bare = b'{"summary":"bare","tags":["own"],"original":"x","structured data":"[a b="c"]"}'
    events = [b'{"summary":"good"}', bare, b'{"summary":"say "x""}', b"", b"\xff"]
    payload = encode(Kind.DATA, ingest_epoch=b"e" * 16, first=1, count=5, window=9, body=[batch(*events)])
    work = pipeline.prepare(Delivery(0, 0, 0, payload), ledger)
    pipeline.index([work], threading.Event())
    (mended,) = store.search(parse("tags:mended"), size=10).events
    letters = store.dead_letters.page(size=10)

    assert work.outcomes == [Outcome.INDEXED] * 2 + [Outcome.DEAD_LETTERED] * 3
    assert (mended["summary"], mended["tags"]) == ("bare", ["own", "mended"])
    assert mended["details"] == {"structured data": '[a b="c"]', "original": "x", "original_2": bare.decode()}
    assert mended["content_hash"] == content_hash_of(bare)
    assert {letter.raw for letter in letters} == set(events[2:])
    assert {letter.reason for letter in letters} == {"event_unreadable"}
