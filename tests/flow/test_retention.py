"""Retention passes a worker that was stopped, or the topic is made anew: what is gone is in the books, to the event."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kafka as kafka_library
import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from tests.tools.cluster import PARTITIONS, ClusterSystem
from tests.tools.emitters import Emitter
from tests.tools.torture import audited, lost_numbers, settled
from tests.waiting import until

BATCHES = 40


class Passing(ClusterSystem):
    """A cluster whose topic loses what it holds, and emitters that remember what they sent when."""

    def __init__(self, folder: Path, *, bootstrap: str, store_url: str) -> None:
        super().__init__(folder, bootstrap=bootstrap, store_url=store_url)
        self.admin = kafka_library.KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
        self.emitters = [
            Emitter([port], self.key, f"e{number}-{port}", is_numbered=number < 2, category=self.category)
            for number in range(3)
            for port in self.ports
        ]
        self.kept: list[str] = []
        self.gone: list[str] = []

    @property
    def accepted(self) -> list[str]:
        return [text for emitter in self.emitters for text in emitter.accepted]

    def send(self) -> list[str]:
        """Every emitter sends; gives what was acknowledged. A bare one's events get to every partition."""
        before = set(self.accepted)
        for _ in range(BATCHES):
            for emitter in self.emitters:
                emitter.send()
        return [text for text in self.accepted if text not in before]

    def send_kept(self) -> None:
        self.kept += self.send()

    def send_gone(self) -> None:
        self.gone += self.send()

    def expire(self) -> None:
        """Have the broker remove all that it holds, as its retention does."""
        self._keep_ms(1)
        until(lambda: not any(self._held(partition) for partition in range(PARTITIONS)), wait_s=30)
        self._keep_ms(7 * 24 * 3_600_000)

    def make_anew(self) -> None:
        """Delete the topic; whoever needs it makes another one."""
        self.admin.delete_topics([self.name])

    def lost_of(self, emitter: Emitter) -> list[int]:
        return sorted(int(text.rpartition("-")[2]) for text in self.gone if text.startswith(f"{emitter.name}-"))

    def say_goodbye(self) -> None:
        for emitter in self.numbered:
            emitter.say_goodbye()

    @property
    def numbered(self) -> list[Emitter]:
        return [emitter for emitter in self.emitters if emitter.name.startswith(("e0", "e1"))]

    def stop(self) -> None:
        super().stop()
        self.admin.close()

    def _keep_ms(self, retention_ms: int) -> None:
        wanted = {"retention.ms": str(retention_ms)}
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.name, wanted)])

    def _held(self, partition: int) -> int:
        place = kafka_library.TopicPartition(self.name, partition)
        ends = [
            self.admin.list_partition_offsets({place: spec})[place].offset
            for spec in (kafka_library.OffsetSpec.EARLIEST, kafka_library.OffsetSpec.LATEST)
        ]
        return int(ends[1] - ends[0])


@pytest.fixture
def passing(tmp_path: Path, kafka: Any, elasticsearch: Any) -> Iterator[Passing]:
    system = Passing(tmp_path, bootstrap=kafka.bootstrap, store_url=elasticsearch.url)
    yield system
    system.stop()


@pytest.fixture
def interrupted(passing: Passing) -> Passing:
    """What was sent is stored; then the workers were stopped, and more was sent."""
    passing.send_kept()
    settled(passing, passing.kept)
    passing.stop_all("worker")
    passing.send_gone()
    return passing


def assert_exactly_gone(passing: Passing, said: dict[str, Any]) -> None:
    log = passing.log()
    assert len(passing.gone) > 400
    assert (said["balanced"], said["in_flight"], said["missing"]) == (True, 0, 0), log
    assert said["lost"] == len(passing.gone), log
    assert said["indexed"] == len(passing.kept)
    for emitter in passing.numbered:
        assert lost_numbers(said, emitter.name) == passing.lost_of(emitter)


@pytest.mark.timeout(300)  # A cluster of its own, twice brought to rest.
@pytest.mark.parametrize("markers_too", [False, pytest.param(True, marks=pytest.mark.proof)])
def test_what_expired_before_it_was_read_is_lost_to_the_event(interrupted: Passing, markers_too: bool) -> None:
    """Later records of the same doors came by: exactly the events of the expired records are reported lost.

    ``markers_too``: the minute of what is gone is over, so that what ends it in the queue is gone as well.
    """
    passing = interrupted
    if markers_too:
        time.sleep(75)
    passing.expire()
    passing.send_kept()
    passing.start("worker")
    passing.say_goodbye()
    passing.stop_doors()
    said = audited(passing, lost=len(passing.gone))
    found = settled(passing, passing.kept)

    assert set(found) == set(passing.kept)
    assert max(found.values()) == 1
    assert_exactly_gone(passing, said)
    assert said["expired_offsets"] and all(hole["exact"] for hole in said["expired_offsets"])
    assert said["lost_in_queue"] == len(passing.gone)


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_where_nothing_later_survived_the_lost_offsets_are_named(interrupted: Passing) -> None:
    """The doors ended with what expired: the audit names the offsets, and says that their events are not known."""
    passing = interrupted
    passing.stop_all("ingest")
    passing.expire()
    passing.start()
    passing.send_kept()
    passing.say_goodbye()
    passing.stop_doors()
    numbered_gone = sum(len(passing.lost_of(emitter)) for emitter in passing.numbered)
    said = audited(passing, lost=numbered_gone)
    found = settled(passing, passing.kept)

    assert set(found) == set(passing.kept)
    assert {hole["partition"] for hole in said["expired_offsets"]} == set(range(PARTITIONS))
    assert not any(hole["exact"] for hole in said["expired_offsets"])
    assert said["indexed"] == len(passing.kept)
    for emitter in passing.numbered:
        assert lost_numbers(said, emitter.name) == passing.lost_of(emitter)


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_what_was_in_a_topic_that_was_made_anew_is_lost_to_the_event(interrupted: Passing) -> None:
    """The topic is deleted with events that no worker has read; doors and workers go on with the new one."""
    passing = interrupted
    passing.make_anew()
    passing.start("worker")
    passing.send_kept()
    passing.say_goodbye()
    passing.stop_doors()
    said = audited(passing, lost=len(passing.gone))
    found = settled(passing, passing.kept)

    assert set(found) == set(passing.kept)
    assert max(found.values()) == 1
    assert_exactly_gone(passing, said)
