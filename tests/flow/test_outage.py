"""The queue goes away under load and comes back, and ingest is killed meanwhile, again and again."""

from __future__ import annotations

import collections
import json
import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir import config, record
from logweir.queue import open_queue
from logweir.record import Record
from tests.proof import size
from tests.services.kafka import Kafka
from tests.tools.emitters import Emitter
from tests.tools.product import Process, environment, free_port, logweir, wait_for_http

OUTAGE_S = size(6.0, 120.0)
KILLS = size(2, 5)


class Outage:
    """One ingest process over a broker of its own."""

    def __init__(self, folder: Path, kafka: Kafka) -> None:
        self.kafka = kafka
        self._folder = folder
        self._env = environment(
            LOGWEIR_QUEUE_URL=f"kafka://{kafka.bootstrap}/outage-{uuid.uuid4().hex[:8]}",
            LOGWEIR_DATA_DIR=str(folder),
            LOGWEIR_QUEUE_PARTITIONS="4",
            LOGWEIR_INGEST_QUEUE_TIMEOUT_S="0.2",
        )
        self.port = free_port()
        self.key = logweir("keys", "add", "outage", env=self._env).strip()
        self.start()
        wait_for_http(self.port)

    def start(self) -> None:
        self.ingest = Process(["ingest", "--port", str(self.port)], self._folder / "ingest.log", self._env)

    def spooled_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self._folder / "spool").rglob("*.log"))

    def records(self) -> list[tuple[int, Record]]:
        """(partition, record) of the whole topic, in order per partition."""
        queue = open_queue(config.load(environment=self._env).queue)
        ends = {partition: queue.offsets(partition)[1] for partition in range(queue.partition_count())}
        consumer = queue.consumer(
            group="outage", assigned=lambda partitions: dict.fromkeys(partitions, 0), revoked=lambda *_: None
        )
        found: list[tuple[int, Record]] = []
        following = dict.fromkeys(ends, 0)
        deadline = time.monotonic() + 60
        try:
            while following != ends:
                assert time.monotonic() < deadline, (following, ends)
                for one in consumer.poll(wait_s=1, records_max=1000):
                    found.append((one.partition, record.decode(one.payload)))
                    following[one.partition] = one.offset + 1
        finally:
            consumer.close()
            queue.close()
        return found


@pytest.fixture
def outage(tmp_path: Path, service_directory: Path) -> Iterator[Outage]:
    with Kafka(service_directory / "kafka") as kafka:
        outage = Outage(tmp_path, kafka)
        try:
            yield outage
        finally:
            outage.ingest.kill_family()


def identities(records: list[tuple[int, Record]]) -> Iterator[tuple[tuple[object, ...], str | None, str]]:
    """(identity, emitter, text) of each event, in order."""
    for _, one in records:
        for batch in one.batches:
            for index, raw in enumerate(batch.events):
                numbered = batch.sequence_first is not None
                place = (batch.sequence_first or 0) + index if numbered else batch.index_first + index
                identity = (batch.key, batch.emitter, batch.epoch, place) if numbered else (batch.id, place)
                yield identity, batch.emitter, json.loads(raw)["summary"]


def wait_for_answers(emitters: list[Emitter]) -> None:
    """Until each emitter has had a 202 more, and its door has taken events therefore."""
    before = [emitter.statuses[202] for emitter in emitters]
    deadline = time.monotonic() + 60
    while not all(emitter.statuses[202] > n for emitter, n in zip(emitters, before, strict=True)):
        assert time.monotonic() < deadline, "the door takes nothing"
        time.sleep(0.02)


@pytest.mark.sized
@pytest.mark.timeout(300 + 3 * OUTAGE_S)  # A server of its own is stopped and started.
def test_every_acknowledged_event_reaches_the_queue_in_order(outage: Outage) -> None:
    """The broker is away, ingest killed again and again: nothing acknowledged is lost, out of order or twice."""
    emitters = [Emitter([outage.port], outage.key, f"e{n}", is_numbered=n < 4) for n in range(6)]
    for emitter in emitters:
        emitter.start()
    time.sleep(3)
    outage.kafka.stop()
    for _ in range(KILLS):
        time.sleep(OUTAGE_S / KILLS * random.uniform(0.5, 1.5))
        # Of a door that serves: it has taken something since the last kill.
        wait_for_answers(emitters)
        outage.ingest.kill_family()
        outage.start()
    wait_for_answers(emitters)
    spooled_bytes = outage.spooled_bytes()
    outage.kafka.start()
    deadline = time.monotonic() + 60
    while outage.spooled_bytes():
        assert time.monotonic() < deadline, outage.ingest.text[-3000:]
        time.sleep(0.2)
    time.sleep(1)
    for emitter in emitters:
        emitter.stop()
    outage.ingest.stop()
    records = outage.records()

    assert spooled_bytes > 0
    # Each of the doors that were killed, and the last one, has brought something to the queue.
    assert len({one.ingest_epoch for _, one in records}) == KILLS + 1
    first: dict[tuple[object, ...], str] = {}
    order: dict[str | None, list[str]] = collections.defaultdict(list)
    events = list(identities(records))
    for identity, name, text in events:
        if identity not in first:
            first[identity] = text
            order[name].append(text)
        assert first[identity] == text
    arrived = collections.Counter(first.values())
    acknowledged = sum(len(emitter.accepted) for emitter in emitters)
    print(
        f"{acknowledged} acknowledged of {sum(emitter.created for emitter in emitters)} events, {spooled_bytes} bytes"
        f" spooled, {len(events)} in the queue, {len(events) - len(first)} of them again"
    )
    assert max(arrived.values()) == 1
    for emitter in emitters:
        assert set(emitter.accepted) <= arrived.keys(), f"lost: {sorted(set(emitter.accepted) - arrived.keys())[:5]}"
        assert emitter.durable["queue"] and emitter.durable["spool"]
        assert set(emitter.statuses) == {202}
    for emitter in emitters[:4]:
        accepted = set(emitter.accepted)
        assert [text for text in order[emitter.name] if text in accepted] == emitter.accepted
