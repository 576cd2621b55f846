"""The queue on Kafka: one topic, through kafka-python."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import kafka
import kafka.admin
import kafka.errors
from kafka import OffsetSpec, TopicPartition

from logweir.config import MEBIBYTE, QueueSettings
from logweir.errors import (
    QUEUE_RECORD_LIMIT_LOW,
    LogweirError,
)
from logweir.queue.kafka.connection import ENVELOPE_BYTES, REQUEST_TIMEOUT_S, Connection
from logweir.queue.kafka.consumer import KafkaConsumer, KafkaReader
from logweir.queue.kafka.producer import KafkaProducer
from logweir.queue.port import Assigned, Revoked

log = logging.getLogger(__name__)

T = TypeVar("T")


class KafkaQueue:
    """The topic that ``settings.url`` (``kafka://host:port[,host:port]/topic``) names."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._connection = Connection(settings)
        self.topic = self._connection.topic
        self._lock = threading.Lock()
        self._admin: Any = None

    def prepare(self) -> None:
        """Make the topic when it is absent, and wait until its partitions have leaders.

        Raises LogweirError(QUEUE_DOWN).
        """
        settings = self._settings
        self._ask(self._make_topic)
        partitions = self.partition_count()
        if partitions != settings.partitions:
            log.info(
                "%s has %d partitions; queue.partitions = %d has no effect on it",
                self._connection.url,
                partitions,
                settings.partitions,
            )

    def topic_id(self) -> str:
        found = self._ask(self._topic).get("topic_id")
        if not found or not uuid.UUID(str(found)).int:
            raise self._connection.down("it does not say the topic's id; Kafka 2.8 or later does")
        return str(found)

    def partition_count(self) -> int:
        return len(self._ask(self._topic)["partitions"])

    def offsets(self, partition: int) -> tuple[int, int]:
        return self._offset(partition, OffsetSpec.EARLIEST), self._offset(partition, OffsetSpec.LATEST)

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        # A negative number would mean something else there.
        offset = self._offset(partition, max(0, timestamp_ms))
        return offset if offset >= 0 else self.offsets(partition)[1]

    def retention_used(self, partition: int, offset: int, age_s: float) -> float | None:
        limits = self._topic_limits("retention.ms", "retention.bytes")
        if limits is None:
            return None
        shares = []
        if limits["retention.ms"] > 0:
            shares.append(age_s * 1000 / limits["retention.ms"])
        if limits["retention.bytes"] > 0:
            earliest, latest = self.offsets(partition)
            share_behind = (latest - max(offset, earliest)) / max(1, latest - earliest)
            shares.append(share_behind * self._size_bytes(partition) / limits["retention.bytes"])
        return min(1.0, max(shares)) if shares else None

    def _size_bytes(self, partition: int) -> int:
        """Of the partition on a broker's disk; 0 where the brokers do not say."""

        def sizes(admin: Any) -> list[int]:
            # One of several brokers may be away, or not let us ask: the age is known all the same.
            with contextlib.suppress(kafka.errors.KafkaError):
                return [
                    found["partition_size"]
                    for broker in admin.describe_log_dirs({self.topic: [partition]})
                    for folder in broker["log_dirs"]
                    for topic in folder["topics"]
                    for found in topic["partitions"]
                ]
            return []

        return max(self._ask(sizes), default=0)

    def reader(self, partition: int, offset: int) -> KafkaReader:
        return KafkaReader(self._connection, self._settings, partition, offset)

    def producer(self) -> KafkaProducer:
        """Raises LogweirError: QUEUE_DOWN when no broker answers or the topic is absent, QUEUE_RECORD_LIMIT_LOW."""
        # The library would wait for an absent topic until its time is out.
        self.partition_count()
        # And one record that the broker refuses for its size fails all that wait behind it, again and again.
        self._require_room()
        return KafkaProducer(self._connection, self._settings)

    def consumer(self, *, group: str, assigned: Assigned, revoked: Revoked) -> KafkaConsumer:
        return KafkaConsumer(self._connection, self._settings, group=group, assigned=assigned, revoked=revoked)

    def check(self) -> str:
        partitions = self._ask(self._topic)["partitions"]
        leaderless = [p["partition_index"] for p in partitions if p["leader_id"] < 0]
        if leaderless:
            raise self._connection.down(f"the partitions {leaderless} of {self.topic} have no leader")
        self._require_room()
        return f"{self._connection.url}: {len(partitions)} partitions, all with a leader"

    def close(self) -> None:
        with self._lock:
            self._close_admin()

    def _ask(self, question: Callable[[Any], T]) -> T:
        """The administration client's answer. Raises LogweirError(QUEUE_DOWN)."""
        with self._lock, self._connection.errors():
            if self._admin is not None:
                # One that was connected before an outage may not know yet that it is over.
                with contextlib.suppress(kafka.errors.NodeNotReadyError, kafka.errors.KafkaConnectionError):
                    return self._answered(question)
            timeout_ms = int(REQUEST_TIMEOUT_S * 1000)
            self._admin, _ = self._connection.opened(kafka.KafkaAdminClient, request_timeout_ms=timeout_ms)
            return self._answered(question)

    def _answered(self, question: Callable[[Any], T]) -> T:
        try:
            return question(self._admin)
        except (kafka.errors.KafkaError, OSError, LogweirError):
            self._close_admin()
            raise

    def _close_admin(self) -> None:
        if self._admin is not None:
            admin, self._admin = self._admin, None
            admin.close()

    def _make_topic(self, admin: Any) -> None:
        settings, timeout_ms = self._settings, int(REQUEST_TIMEOUT_S * 1000)
        if not self._described(admin):
            wanted = {
                "num_partitions": settings.partitions,
                "replication_factor": settings.replication,
                "configs": {
                    "retention.ms": str(int(settings.retention_hours * 3_600_000)),
                    "retention.bytes": str(settings.retention_size_bytes_max),
                    # Not the doors' clocks: one that is behind would have its records deleted unread, and what comes
                    # from one that is ahead a broker does not take.
                    "message.timestamp.type": "LogAppendTime",
                    "max.message.bytes": str(max(MEBIBYTE, settings.record_size_bytes_max + ENVELOPE_BYTES)),
                    # Whatever the brokers' own default is: with one copy in sync, its disk would be all there is.
                    "min.insync.replicas": "2" if settings.replication >= 3 else "1",
                },
            }
            with contextlib.suppress(kafka.errors.TopicAlreadyExistsError):
                admin.create_topics({self.topic: wanted}, timeout_ms=timeout_ms)
        admin.wait_for_topics([self.topic], timeout_ms=timeout_ms)

    def _offset(self, partition: int, wanted: OffsetSpec | int) -> int:
        place, timeout_ms = TopicPartition(self.topic, partition), int(REQUEST_TIMEOUT_S * 1000)
        return int(
            self._ask(lambda admin: admin.list_partition_offsets({place: wanted}, timeout_ms=timeout_ms)[place].offset)
        )

    def _described(self, admin: Any) -> dict[str, Any] | None:
        (topic,) = admin.describe_topics([self.topic])
        error = kafka.errors.for_code(topic["error_code"])
        if error is kafka.errors.UnknownTopicOrPartitionError:
            return None
        if error is not kafka.errors.NoError:
            raise error(self.topic)
        found: dict[str, Any] = topic
        return found

    def _require_room(self) -> None:
        """Raises LogweirError(QUEUE_RECORD_LIMIT_LOW). A broker that does not let us ask is believed to have room."""
        name, wanted = "max.message.bytes", self._settings.record_size_bytes_max + ENVELOPE_BYTES
        limits = self._topic_limits(name)
        if limits is not None and (size_bytes_topic := limits[name]) < wanted:
            raise LogweirError(
                QUEUE_RECORD_LIMIT_LOW,
                topic=self.topic,
                size_bytes_topic=size_bytes_topic,
                size_bytes_wanted=wanted,
                size_bytes_max=self._settings.record_size_bytes_max,
            )

    def _topic_limits(self, *names: str) -> dict[str, int] | None:
        """The topic's settings of these names; None where the broker does not let us ask."""
        asked = kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.TOPIC, self.topic, dict.fromkeys(names))

        def limits(admin: Any) -> Any:
            with contextlib.suppress(kafka.errors.TopicAuthorizationFailedError):
                return admin.describe_configs([asked], config_filter="all")

        found = self._ask(limits)
        return None if found is None else {name: int(found["topic"][self.topic][name]["value"]) for name in names}

    def _topic(self, admin: Any) -> dict[str, Any]:
        topic = self._described(admin)
        if topic is None:
            raise self._connection.down(f"it has no topic {self.topic}")
        return topic
