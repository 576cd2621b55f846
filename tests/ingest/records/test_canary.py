"""Canaries: records without events that go the way of events, and show that it is open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest

from logweir.record import Kind
from logweir_ingest.records.canary import Canary
from tests.ingest.helpers import of_kind
from tests.ingest.merging import PARTITIONS, Bench, started
from tests.waiting import until


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    # A partition that does not confirm goes through the spool at once.
    with started(tmp_path, queue_timeout_s=0.2) as bench:
        yield bench


def canary_of(bench: Bench, interval_s: float) -> Canary:
    epoch = bench.merger.ingest_epoch
    return Canary(bench.enqueuer, ingest_epoch=epoch, clock=bench.clock, interval_s=interval_s)


def test_each_partition_gets_one_in_turn_and_no_number_is_used(bench: Bench) -> None:
    """As many canaries as partitions, numbered from 1, reach them all; the next event still has the number 1."""
    canary = canary_of(bench, 1e-6)
    for _ in range(PARTITIONS):
        canary.tick()
    until(lambda: len(of_kind(bench.records(), Kind.CANARY)) == PARTITIONS)
    found = of_kind(bench.records(), Kind.CANARY)
    first = bench.send(b"{}")

    assert {partition for partition, _ in found} == set(range(PARTITIONS))
    assert sorted(one.canary.high for _, one in found if one.canary) == list(range(1, PARTITIONS + 1))
    assert all(one.count == 0 and one.batches == [] for _, one in found)
    assert first.first == 1  # type: ignore[union-attr]


def test_when_the_last_one_was_due_is_known_of_each_process(bench: Bench) -> None:
    """By the name that the ledger has for it, also when it could not be sent; nothing of one that sends none."""
    canary = canary_of(bench, 1e-6)
    before = _sent_at(bench)
    canary_of(bench, 0).tick()
    unsent = _sent_at(bench)
    bench.queue.faulty.stuck = set(range(PARTITIONS))
    canary.tick()
    bench.queue.faulty.free()

    assert before is unsent is None
    assert _sent_at(bench) == bench.clock() / 1e6


def _sent_at(bench: Bench) -> float | None:
    process = bench.merger.ingest_epoch.hex()[:12]
    return prometheus_client.REGISTRY.get_sample_value("logweir_canary_sent_timestamp_seconds", {"process": process})


def test_none_is_sent_before_its_time_nor_when_there_are_to_be_none(bench: Bench) -> None:
    """The first comes after an interval; an interval of 0 means none at all."""
    for canary in (canary_of(bench, 3600), canary_of(bench, 0)):
        for _ in range(3):
            canary.tick()
    bench.send(b"{}")

    assert of_kind(bench.records(), Kind.CANARY) == []


def test_none_goes_to_the_disk_that_is_for_events(bench: Bench) -> None:
    """While a partition goes through the spool it gets no canary: what does not arrive is what a canary is to show."""
    canary = canary_of(bench, 1e-6)
    with bench.hanging_disk():
        bench.queue.faulty.stuck = set(range(PARTITIONS))
        sent = bench.submit(bench.batch(b"{}"))
        until(lambda: any(map(bench.enqueuer.is_spooling, range(PARTITIONS))))
        (spooling,) = filter(bench.enqueuer.is_spooling, range(PARTITIONS))
        bench.queue.faulty.free()
        for _ in range(PARTITIONS):
            canary.tick()
        until(lambda: len(of_kind(bench.records(), Kind.CANARY)) == PARTITIONS - 1)
    sent.result(15)
    until(lambda: not bench.enqueuer.is_spooling(spooling))

    assert spooling not in {partition for partition, _ in of_kind(bench.records(), Kind.CANARY)}
