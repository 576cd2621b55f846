"""The queue on Kafka apart from the port: brokers that die, refuse, or were never there."""

import logging
import os
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import kafka as kafka_library
import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from logweir.config import QueueSettings
from logweir.errors import LogweirError
from logweir.queue.kafka.connection import Connection
from logweir.queue.kafka.consumer import KafkaConsumer
from logweir.queue.kafka.topic import KafkaQueue
from logweir.queue.port import Delivery
from tests.contract.test_queue import Member, member, payloads, send, wait_until
from tests.services.kafka import Kafka

# A broker of its own is killed and started; what is absent is tried for ten seconds.
pytestmark = pytest.mark.timeout(240)


def settings_for(servers: str, **changed) -> QueueSettings:
    url = f"kafka://{servers}/events-{uuid.uuid4()}"
    return QueueSettings(**{"url": url, "partitions": 2, "session_timeout_s": 6, **changed})


def prepared(servers: str, **changed) -> KafkaQueue:
    queue = KafkaQueue(settings_for(servers, **changed))
    queue.prepare()
    return queue


def unused_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


class Rebalancing:
    """The library, while the group is being shared out anew."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def commit(self, *_: object, **__: object) -> None:
        raise self._error


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_rebalance_is_not_a_queue_that_does_not_answer(wrapped: bool) -> None:
    """A commit that comes in the middle of one says so."""
    settings = settings_for("127.0.0.1:1")
    ignore = {"assigned": lambda _: {}, "revoked": lambda *_: None}
    consumer = KafkaConsumer(Connection(settings), settings, group="g", **ignore)
    error = kafka_library.errors.RebalanceInProgressError()
    consumer._kafka = Rebalancing(kafka_library.errors.CommitFailedError(error) if wrapped else error)
    consumer._ours = {0}
    with pytest.raises(LogweirError) as caught:
        consumer.commit({0: 1})

    assert caught.value.problem.code == "queue_rebalancing"
    assert "does not answer" not in str(caught.value)


def test_broker_killed_and_restarted_under_load_loses_and_repeats_nothing(service_directory: Path) -> None:
    """Records sent before, during and after an outage are all confirmed, in order, and are in the log exactly once.

    While the broker is away the consumer says so, and reads on by itself when it is back.
    """
    with Kafka(service_directory / "kafka", sasl=("alice", "right")) as broker:
        _check_outage(broker)
        _check_password(broker)
        _check_close_without_broker(broker)


def _check_outage(broker: Kafka) -> None:
    queue = prepared(broker.bootstrap)
    producer = queue.producer()
    reader = Member(queue)
    reader.poll(1.0)
    confirmed: list[int] = []
    failed: list[LogweirError] = []
    refused = 0
    slowest_s = 0.0
    stop = threading.Event()

    def load() -> None:
        nonlocal refused, slowest_s
        number = 0
        while not stop.is_set():
            began_s = time.monotonic()
            try:
                producer.send(
                    0, b"%d" % number, lambda error, n=number: failed.append(error) if error else confirmed.append(n)
                )
                number += 1
            except LogweirError:
                refused += 1
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            time.sleep(0.002)
        sent.append(number)

    sent: list[int] = []
    thread = threading.Thread(target=load)
    thread.start()
    found = []
    downs = []
    wait_until(lambda: len(confirmed) > 100)
    broker.kill()
    until_s = time.monotonic() + 4
    while time.monotonic() < until_s:
        try:
            found += payloads(reader.poll(0.2))
        except LogweirError as error:
            downs.append(error)
    broker.start()
    known = len(confirmed)
    wait_until(lambda: len(confirmed) > known + 100)
    stop.set()
    thread.join()
    wait_until(lambda: len(confirmed) + len(failed) == sent[0])
    until_s = time.monotonic() + 60
    while len(found) < sent[0] and time.monotonic() < until_s:
        try:
            found += payloads(reader.poll(0.5))
        except LogweirError as error:
            downs.append(error)
    reader.consumer.close()
    producer.close(5)
    held = queue.offsets(0)
    queue.close()

    assert failed == []
    assert refused == 0
    # The broker was away for four seconds: nobody waited for it.
    assert slowest_s < 2
    assert confirmed == list(range(sent[0]))
    assert held == (0, sent[0])
    # What was read and not committed may come again after the group was lost: all of it, in order, at the end.
    assert sorted({int(payload) for payload in found}) == confirmed
    assert {error.problem.code for error in downs} == {"queue_down"}
    assert broker.bootstrap in str(downs[0])


def _check_password(broker: Kafka) -> None:
    """SASL: the right password writes and reads, a wrong one is an error that says so, without either password."""
    signed_in = {"sasl_mechanism": "PLAIN", "username": "alice"}
    queue = prepared(broker.bootstrap_sasl, **signed_in, password="right")
    producer = queue.producer()
    send(producer, b"0")
    with member(queue) as one:
        found = payloads(one.read(1))
    producer.close(5)
    queue.close()
    refusals: list[str] = []
    took_s: list[float] = []

    def refused() -> bool:
        began_s = time.monotonic()
        with pytest.raises(LogweirError) as error:
            prepared(broker.bootstrap_sasl, **signed_in, password="wrong-one")
        took_s.append(time.monotonic() - began_s)
        assert error.value.problem.code == "queue_down"
        refusals.append(str(error.value))
        return "refuses user 'alice' or the password" in refusals[-1]

    # On a busy machine the broker may hang up, or be late, before the library has read its refusal.
    wait_until(refused)

    assert found == [b"0"]
    assert not any("wrong-one" in refusal for refusal in refusals)
    assert max(took_s) < 60


def _check_close_without_broker(broker: Kafka) -> None:
    """A producer whose broker is gone keeps what it has until ``close``, which then fails it, each record once."""
    queue = prepared(broker.bootstrap)
    producer = queue.producer()
    send(producer, b"0")
    broker.kill()
    outcomes: list[tuple[int, LogweirError | None]] = []
    for number in range(10):
        producer.send(0, b"x", lambda error, number=number: outcomes.append((number, error)))
    waiting = producer.fill()
    began_s = time.monotonic()
    producer.close(1.0)
    took_s = time.monotonic() - began_s
    queue.close()

    assert waiting > 0
    assert [number for number, _ in outcomes] == list(range(10))
    assert all(error is not None and error.problem.code == "queue_down" for _, error in outcomes)
    assert took_s < 15
    assert producer.fill() == 0


def test_absent_broker_is_an_error_within_seconds() -> None:
    """Every first use of an address where nobody listens is QUEUE_DOWN with address and cause; no thread is left."""
    address = unused_address()
    queue = KafkaQueue(settings_for(address))
    consumer = queue.consumer(group="workers", assigned=lambda partitions: {}, revoked=lambda partitions, lost: None)
    before = threading.active_count()
    began_s = time.monotonic()
    for use in (queue.prepare, lambda: consumer.poll(wait_s=0.1, records_max=1)):
        with pytest.raises(LogweirError) as down:
            use()
        assert down.value.problem.code == "queue_down"
        assert address in str(down.value)
        assert "ECONNREFUSED" in str(down.value)
    took_s = time.monotonic() - began_s
    consumer.close()
    queue.close()

    assert took_s < 100
    assert threading.active_count() <= before


def limit_records(kafka: Kafka, queue: KafkaQueue, size_bytes: int) -> None:
    with kafka_library.KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
        limit = ConfigResource(ConfigResourceType.TOPIC, queue.topic, {"max.message.bytes": str(size_bytes)})
        admin.alter_configs([limit])


def test_topic_that_takes_less_than_a_record_is_an_error_before_any_is_sent(kafka: Kafka) -> None:
    """Both numbers are named, to the door when it connects and to the operator by the check."""
    queue = prepared(kafka.bootstrap)
    before = queue.check()
    limit_records(kafka, queue, 10_000)
    raised = []
    for call in (queue.check, queue.producer):
        with pytest.raises(LogweirError) as caught:
            call()
        raised.append(caught.value)
    queue.close()

    assert "2 partitions" in before
    assert {error.problem.code for error in raised} == {"queue_record_limit_low"}
    assert "at most 10000 bytes" in str(raised[0])
    assert "to 901024, or lower" in str(raised[0])


def test_record_that_the_topic_refuses_fails_and_the_next_ones_pass(kafka: Kafka) -> None:
    """When the topic takes less than we send, that record fails with the cause, and a fresh producer goes on."""
    queue = prepared(kafka.bootstrap)
    producer = queue.producer()
    limit_records(kafka, queue, 10_000)
    send(producer, b"before")
    outcomes: list[LogweirError | None] = []
    producer.send(0, os.urandom(50_000), outcomes.append)
    wait_until(lambda: outcomes)
    passed = []
    until_s = time.monotonic() + 20
    while not passed and time.monotonic() < until_s:
        try:
            send(producer, b"after")
            passed.append(True)
        except LogweirError:
            time.sleep(0.1)
    with member(queue) as one:
        found = one.read(2)
    producer.close(5)
    queue.close()

    assert outcomes[0] is not None
    assert outcomes[0].problem.code == "queue_down"
    assert payloads(found) == [b"before", b"after"]


def test_made_topic_has_the_limits_of_the_settings(kafka: Kafka) -> None:
    """Retention and the largest record are the topic's from the start."""
    settings = settings_for(
        kafka.bootstrap, record_size_bytes_max=2_000_000, retention_hours=2, retention_size_bytes_max=5_000_000
    )
    queue = KafkaQueue(settings)
    queue.prepare()
    producer = queue.producer()
    largest = os.urandom(2_000_000)
    send(producer, largest)
    producer.close(5)
    with member(queue) as one:
        found = payloads(one.read(1))
    with kafka_library.KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
        described = str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, queue.topic)]))
    queue.close()

    assert found == [largest]
    for value in ("7200000", "5000000", "2001024"):
        assert value in described


def test_partition_paused_half_way_comes_again_beside_busy_ones(kafka: Kafka) -> None:
    """Resumed after others were read, it takes turns with those that always have more; nothing is lost or repeated."""
    queue = prepared(kafka.bootstrap, partitions=3)
    producer = queue.producer()
    slow = [b"%d" % number for number in range(20)]
    # More than is fetched at once.
    busy = [b"%d " % number + bytes(200_000) for number in range(60)]
    with member(queue) as one:
        send(producer, *slow, partition=0)
        found = polled(one, lambda found: payloads(found, 0))
        one.consumer.pause([0])
        for partition in (1, 2):
            send(producer, *busy, partition=partition)
        while_paused = polled(one, len)
        one.consumer.resume([0])
        resumed = [delivery for _ in range(8) for delivery in one.consumer.poll(wait_s=1, records_max=5)]
        found += while_paused + resumed
        rest = one.read(len(slow) + 2 * len(busy) - len(found))
    producer.close(5)
    queue.close()

    assert payloads(while_paused, 0) == []
    assert payloads(found, 0) == slow
    assert len(resumed) > len(payloads(resumed, 0))
    assert payloads(found + rest, 1) == payloads(found + rest, 2) == busy


def polled(one: Member, enough: Callable[[list[Delivery]], object]) -> list[Delivery]:
    """Poll for five records at a time, so that the library keeps some of what it fetched."""
    found: list[Delivery] = []
    until_s = time.monotonic() + 20
    while not enough(found) and time.monotonic() < until_s:
        found += one.consumer.poll(wait_s=1, records_max=5)
    assert enough(found)
    return found


@pytest.mark.parametrize("url", ["kafka://", "kafka://host:9092", "kafka://host:9092/a/b", "kafka:///events"])
def test_address_without_host_or_topic_is_refused(url: str) -> None:
    """The error shows the form that is expected."""
    with pytest.raises(LogweirError, match=r"kafka://host:port\[,host:port\]/topic") as bad:
        KafkaQueue(QueueSettings(url=url))

    assert bad.value.problem.code == "setting_bad"


def test_password_in_the_address_is_refused_and_not_shown() -> None:
    """Credentials have settings of their own; an address is logged."""
    for url in ("kafka://alice:secret@host:9092/events", "kafka://alice:sec/ret@host:9092/events"):
        with pytest.raises(LogweirError, match=r"queue\.password") as bad:
            KafkaQueue(QueueSettings(url=url))

        assert "sec" not in str(bad.value)


@pytest.mark.parametrize(
    ("servers", "shown"),
    [
        ("host", "host:9092"),
        ("a:1,b", "a:1,b:9092"),
        ("[::1]", "[::1]:9092"),
        ("[::1]:1", "[::1]:1"),
    ],
)
def test_port_is_9092_unless_given(servers: str, shown: str) -> None:
    """Of each address."""
    assert Connection(QueueSettings(url=f"kafka://{servers}/events")).url == f"kafka://{shown}/events"


def test_ca_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """TLS: a missing or senseless CA file is QUEUE_DOWN with the reason, before anything is sent."""
    (tmp_path / "senseless.pem").write_text("no certificate")
    for name in ("absent.pem", "senseless.pem"):
        queue = KafkaQueue(settings_for("127.0.0.1:1", tls=True, ca_file=tmp_path / name))
        with pytest.raises(LogweirError) as down:
            queue.check()
        assert down.value.problem.code == "queue_down"
        assert isinstance(down.value.__cause__, OSError | ssl.SSLError)


def test_library_is_quiet(kafka: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    """Connecting, writing, joining, reading and leaving log nothing, not even at INFO."""
    with caplog.at_level(logging.INFO):
        queue = prepared(kafka.bootstrap)
        producer = queue.producer()
        send(producer, b"0")
        with member(queue) as one:
            one.read(1)
            one.consumer.commit({0: 1})
            one.consumer.unread()
        producer.close(5)
        queue.close()

    assert [record.getMessage() for record in caplog.records if record.name.startswith(("kafka", "logweir"))] == []
