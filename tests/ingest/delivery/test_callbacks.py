"""Each sender is told once what became of its record, by a thread that holds no lock of ours."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from logweir.errors import QUEUE_DOWN, SPOOL_FULL, LogweirError
from logweir.record import Kind, Refused, encode
from logweir_ingest.delivery.callbacks import Callbacks
from logweir_ingest.delivery.pending import PendingRecord
from logweir_ingest.delivery.report import QUEUE, SPOOL, Confirmed, DeliveryReport
from tests.ingest.merging import FaultyProducer, started
from tests.waiting import until


@pytest.fixture
def callbacks() -> Iterator[Callbacks]:
    callbacks = Callbacks()
    callbacks.start()
    yield callbacks
    callbacks.stop(5)


def record(confirmed: Confirmed) -> PendingRecord:
    return PendingRecord(0, b"", confirmed, 0.0, False)


def test_of_several_threads_the_first_tells_the_sender(callbacks: Callbacks) -> None:
    """The queue may confirm a record just as the spool has written it, or as it is refused."""
    told: list[list[DeliveryReport]] = [[] for _ in range(2000)]
    records = [record(reports.append) for reports in told]

    def confirm(report: str) -> None:
        for one in records:
            (callbacks.call_soon if report == "soon" else callbacks.call)(one, report)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(confirm, (QUEUE, SPOOL, "soon")))
    callbacks.stop(5)

    assert [len(reports) for reports in told] == [1] * len(told)


def test_who_is_told_soon_is_told_in_order_by_another_thread(callbacks: Callbacks) -> None:
    """The caller may hold whatever lock; a sender that fails is its own trouble."""
    lock = threading.Lock()
    told: list[tuple[int, str]] = []

    def confirmed(number: int) -> Confirmed:
        def tell(report: DeliveryReport) -> None:
            with lock:
                told.append((number, threading.current_thread().name))
            assert number % 2, "the trouble of a sender"

        return tell

    with lock:
        for number in range(10):
            callbacks.call_soon(record(confirmed(number)), SPOOL)
    until(lambda: len(told) == 10)

    assert told == [(number, "refusals") for number in range(10)]


def test_a_sender_is_told_of_a_refusal_outside_of_every_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record diverts its partition to a spool without room for those before it, whose senders are told then."""
    with started(tmp_path, spool_size_bytes_max=1000, partitions=1) as bench:
        enqueuer, lock = bench.enqueuer, threading.Lock()
        told: list[tuple[int, DeliveryReport]] = []

        def confirmed(number: int) -> Confirmed:
            def tell(report: DeliveryReport) -> None:
                # Another thread gets our lock meanwhile, and this one the sender's.
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(enqueuer.unready).result(5)
                assert lock.acquire(timeout=5)
                told.append((number, report))
                lock.release()

            return tell

        bench.queue.faulty.stuck = {0}
        for number in (1, 2):
            enqueuer.send(0, payload(900), confirmed(number))
        monkeypatch.setattr(FaultyProducer, "send", refuse)
        with lock, pytest.raises(LogweirError) as refused:
            enqueuer.send(0, payload(900), confirmed(3))
        until(lambda: len(told) == 2)
        monkeypatch.undo()

    assert refused.value.problem is SPOOL_FULL
    assert {number for number, _ in told} == {1, 2}
    (refusal,) = [report for number, report in told if number == 2]
    assert isinstance(refusal, LogweirError) and refusal.problem is SPOOL_FULL


def payload(size_bytes: int) -> bytes:
    """A record that is a little larger."""
    body = Refused(b"", 0, "k", None, "", "json", "", "", size_bytes, os.urandom(size_bytes))
    return encode(Kind.REFUSED, ingest_epoch=bytes(16), first=1, count=0, window=1, body=body)


def refuse(*_: object) -> None:
    raise LogweirError(QUEUE_DOWN, url="the queue", reason="its buffer is full")
