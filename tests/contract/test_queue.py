"""The queue's port, on both adapters: what ingest and workers rely on, the same everywhere."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import kafka as kafka_library
import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from logweir.audit.lag import Lag, lags
from logweir.clock import now_us
from logweir.config import QueueSettings
from logweir.errors import LogweirError
from logweir.queue import open_queue
from logweir.queue.kafka.topic import KafkaQueue
from logweir.queue.port import Consumer, Delivery, Producer, Queue, Reader
from tests import waiting

WAIT_S_MAX = 60.0


class OnSqlite:
    session_timeout_s = 1.0

    def __init__(self, folder: Path) -> None:
        self._path = folder / "a" / "b" / "queue.sqlite"

    def settings(self, **changed) -> QueueSettings:
        return QueueSettings(
            **{
                "url": f"sqlite:///{self._path}",
                "partitions": 2,
                "session_timeout_s": self.session_timeout_s,
                **changed,
            }
        )

    def expire(self, offset: int) -> None:
        """Let retention remove the records of partition 0 below ``offset``: all there are."""
        time.sleep(0.1)
        queue = open_queue(self.settings(retention_hours=0.05 / 3600))
        producer = queue.producer()
        wait_until(lambda: queue.offsets(0)[0] == offset)
        producer.close(5)
        queue.close()

    def remove(self) -> None:
        for file in self._path.parent.iterdir():
            file.unlink()


class OnKafka:
    # The least that a broker allows by default.
    session_timeout_s = 6.0

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._topic = f"events-{uuid.uuid4()}"

    def settings(self, **changed) -> QueueSettings:
        url = f"kafka://{self._bootstrap}/{self._topic}"
        return QueueSettings(**{"url": url, "partitions": 2, "session_timeout_s": self.session_timeout_s, **changed})

    def expire(self, offset: int) -> None:
        with kafka_library.KafkaAdminClient(bootstrap_servers=self._bootstrap) as admin:
            admin.delete_records({kafka_library.TopicPartition(self._topic, 0): offset})

    def keep_bytes(self, size_bytes: int) -> None:
        wanted = {"retention.bytes": str(size_bytes)}
        place = ConfigResource(ConfigResourceType.TOPIC, self._topic, wanted)
        with kafka_library.KafkaAdminClient(bootstrap_servers=self._bootstrap) as admin:
            admin.alter_configs([place])

    def remove(self) -> None:
        with kafka_library.KafkaAdminClient(bootstrap_servers=self._bootstrap) as admin:
            admin.delete_topics([self._topic])
            wait_until(lambda: self._topic not in admin.list_topics())


Adapter = OnSqlite | OnKafka


@pytest.fixture(params=["sqlite", "kafka"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Adapter:
    if request.param == "sqlite":
        return OnSqlite(tmp_path)
    return OnKafka(request.getfixturevalue("kafka").bootstrap)


@pytest.fixture
def queue(adapter: Adapter) -> Iterator[Queue]:
    made = open_queue(adapter.settings())
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def producer(queue: Queue) -> Iterator[Producer]:
    made = queue.producer()
    yield made
    made.close(5)


class Member:
    """A member of the topic's group that keeps what it is told; ``starts`` answers ``assigned``."""

    def __init__(self, queue: Queue, *, starts: dict[int, int | None] | None = None, group: str = "") -> None:
        self.told: list[tuple[str, list[int]]] = []
        self.owned: set[int] = set()
        self.on_revoked: Callable[[list[int]], None] = lambda partitions: None
        self._starts = starts or {}
        self.consumer: Consumer = queue.consumer(
            group=group or group_of(queue), assigned=self._assigned, revoked=self._revoked
        )

    def _assigned(self, partitions):
        self.told.append(("assigned", sorted(partitions)))
        self.owned |= set(partitions)
        return self._starts

    def _revoked(self, partitions, lost):
        self.told.append(("lost" if lost else "revoked", sorted(partitions)))
        self.on_revoked(sorted(partitions))
        self.owned -= set(partitions)

    def poll(self, wait_s: float = 0.1) -> list[Delivery]:
        return self.consumer.poll(wait_s=wait_s, records_max=1000)

    def read(self, count: int) -> list[Delivery]:
        """Poll until there are ``count`` records."""
        found: list[Delivery] = []
        until_s = time.monotonic() + WAIT_S_MAX
        while len(found) < count and time.monotonic() < until_s:
            found += self.poll(0.5)
        assert len(found) == count
        return found


@contextlib.contextmanager
def member(queue: Queue, **options) -> Iterator[Member]:
    made = Member(queue, **options)
    try:
        yield made
    finally:
        made.consumer.close()


def group_of(queue: Queue) -> str:
    """Groups belong to the whole broker: one for each test's topic."""
    return f"workers-{queue.topic}"


def send(producer: Producer, *payloads: bytes, partition: int = 0) -> None:
    """Send, and wait until all of it is durable."""
    outcomes: list[LogweirError | None] = []
    for payload in payloads:
        producer.send(partition, payload, outcomes.append)
    wait_until(lambda: len(outcomes) == len(payloads))
    assert not any(outcomes)


wait_until = functools.partial(waiting.until, wait_s=WAIT_S_MAX)


def poll_until(condition: Callable[[], object], *members: Member) -> None:
    until_s = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < until_s, [each.told for each in members]
        for each in members:
            each.poll()


def payloads(deliveries: list[Delivery], partition: int = 0) -> list[bytes]:
    return [delivery.payload for delivery in deliveries if delivery.partition == partition]


class Child:
    """A process of queue_process.py; ``lines`` are what it has printed, without blocking anybody."""

    def __init__(self, command: str, settings: QueueSettings) -> None:
        values = json.dumps(settings.model_dump(include={"url", "session_timeout_s"}))
        command_line = [sys.executable, "-m", "tests.contract.queue_process", command, values]
        self._popen = subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            # A line that the kill cut off is none.
            if line.endswith("\n"):
                self.lines.append(line.rstrip("\n"))

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone and all that it printed is in ``lines``."""
        self._popen.kill()
        self._popen.wait()
        self._reader.join()


@contextlib.contextmanager
def process(command: str, settings: QueueSettings) -> Iterator[Child]:
    child = Child(command, settings)
    try:
        yield child
    finally:
        child.kill()


def test_records_come_in_order_with_their_offsets(queue: Queue, producer: Producer) -> None:
    """What was confirmed is polled once, in order per partition, with offsets from 0 and the time when it was taken."""
    before_ms = time.time() * 1000
    send(producer, *(b"%d" % n for n in range(100)))
    send(producer, b"other", partition=1)
    with member(queue) as one:
        found = one.read(101)
        more = one.poll(0.3)

    in_first = [delivery for delivery in found if delivery.partition == 0]
    assert payloads(found, 0) == [b"%d" % n for n in range(100)]
    assert [delivery.offset for delivery in in_first] == list(range(100))
    assert payloads(found, 1) == [b"other"]
    assert all(before_ms - 1000 <= delivery.timestamp_ms <= time.time() * 1000 + 1000 for delivery in found)
    assert more == []
    assert queue.offsets(0) == (0, 100)


def test_callbacks_come_once_each_and_in_order(producer: Producer) -> None:
    """``done`` is called once per record, in the order of the sends, and not by ``send`` itself."""
    order: list[int] = []
    threads: set[int] = set()

    def done(number: int, error: LogweirError | None) -> None:
        assert error is None
        order.append(number)
        threads.add(threading.get_ident())

    for number in range(500):
        producer.send(0, b"x" * 100, lambda error, number=number: done(number, error))
    wait_until(lambda: len(order) == 500)

    assert order == list(range(500))
    assert threading.get_ident() not in threads
    assert producer.fill() == 0.0


def test_callback_may_send_the_next_record(queue: Queue, producer: Producer) -> None:
    """A record may be sent from the confirmation of the one before it."""
    finished = threading.Event()

    def next_after(number: int) -> None:
        if number == 20:
            finished.set()
        else:
            producer.send(0, b"%d" % number, lambda error: next_after(number + 1))

    next_after(0)
    assert finished.wait(WAIT_S_MAX)

    assert queue.offsets(0) == (0, 20)


def test_two_producers_share_the_offsets(queue: Queue, producer: Producer) -> None:
    """Two producers write to one partition; offsets have no gap, and each one's records keep their order."""
    other = queue.producer()
    outcomes: list[LogweirError | None] = []
    for n in range(50):
        producer.send(0, b"a%02d" % n, outcomes.append)
        other.send(0, b"b%02d" % n, outcomes.append)
    wait_until(lambda: len(outcomes) == 100)
    other.close(5)
    with member(queue) as one:
        found = one.read(100)

    assert not any(outcomes)
    assert [delivery.offset for delivery in found] == list(range(100))
    for letter in (b"a", b"b"):
        assert [p for p in payloads(found) if p.startswith(letter)] == [letter + b"%02d" % n for n in range(50)]


def test_largest_record_passes_and_one_byte_more_is_refused(queue: Queue, producer: Producer) -> None:
    """The limit itself fits; past it ``send`` raises with both sizes and nothing is written."""
    limit = QueueSettings().record_size_bytes_max
    largest = os.urandom(limit)
    send(producer, largest, largest)
    with pytest.raises(LogweirError) as refused:
        producer.send(0, largest + b"x", lambda error: pytest.fail("it was taken"))
    with member(queue) as one:
        found = one.read(2)

    assert payloads(found) == [largest, largest]
    assert refused.value.problem.code == "queue_record_too_large"
    assert refused.value.numbers == {"size_bytes": limit + 1, "size_bytes_max": limit}
    assert queue.offsets(0) == (0, 2)


def test_full_buffer_refuses_without_calling_back(adapter: Adapter, queue: Queue) -> None:
    """When the buffer is full ``send`` raises QUEUE_DOWN at once; what it took is confirmed, and room comes back."""
    producer = open_queue(adapter.settings(buffer_size_bytes_max=1024 * 1024)).producer()
    outcomes: list[LogweirError | None] = []
    refused: list[LogweirError] = []
    taken = 0
    body = os.urandom(400_000)
    slowest_s = 0.0
    while not refused:
        began_s = time.monotonic()
        try:
            producer.send(0, body, outcomes.append)
            taken += 1
        except LogweirError as error:
            refused.append(error)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    fill = producer.fill()
    wait_until(lambda: len(outcomes) == taken)
    send(producer, body)
    producer.close(5)

    assert refused[0].problem.code == "queue_down"
    assert "buffer_size_bytes_max" in str(refused[0])
    assert 0 <= fill <= 1
    assert not any(outcomes)
    assert slowest_s < 10
    assert queue.offsets(0) == (0, taken + 1)


def test_closed_producer_confirms_what_it_took_and_takes_no_more(queue: Queue) -> None:
    """``close`` waits for the confirmations; later sends raise QUEUE_DOWN."""
    producer = queue.producer()
    outcomes: list[LogweirError | None] = []
    for _ in range(20):
        producer.send(0, b"x" * 10_000, outcomes.append)
    producer.close(WAIT_S_MAX)

    assert outcomes == [None] * 20
    with pytest.raises(LogweirError, match="closed"):
        producer.send(0, b"late", outcomes.append)


def test_uncommitted_records_come_again(queue: Queue, producer: Producer) -> None:
    """A crash between delivery and commit delivers again, from the committed offset on."""
    send(producer, b"0", b"1", b"2", b"3")
    with member(queue) as first:
        first.read(4)
        first.consumer.commit({0: 1})
    with member(queue) as second:
        again = second.read(3)
        second.consumer.commit({0: 4})
    with member(queue) as third:
        rest = third.poll(1.0)
    with member(queue, group=group_of(queue) + "-others") as other:
        all_of_it = other.read(4)

    assert payloads(again) == [b"1", b"2", b"3"]
    assert again[0].offset == 1
    assert rest == []
    assert payloads(all_of_it) == [b"0", b"1", b"2", b"3"]


def test_assigned_may_say_where_to_begin(queue: Queue, producer: Producer) -> None:
    """An offset that ``assigned`` gives wins over the committed one; None means the committed one."""
    for partition in (0, 1):
        send(producer, b"0", b"1", b"2", b"3", partition=partition)
    with member(queue) as first:
        first.read(8)
        first.consumer.commit({0: 3, 1: 3})
    with member(queue, starts={0: 1, 1: None}) as second:
        found = second.read(4)

    assert payloads(found, 0) == [b"1", b"2", b"3"]
    assert payloads(found, 1) == [b"3"]


def test_failed_assigned_is_asked_again(queue: Queue, producer: Producer) -> None:
    """When ``assigned`` raises, ``poll`` raises it and nothing is delivered; the next poll asks again."""
    send(producer, b"0")
    failures = [OSError("the store is away")]

    def assigned(partitions):
        if failures:
            raise failures.pop()
        return {}

    consumer = queue.consumer(group=group_of(queue), assigned=assigned, revoked=lambda partitions, lost: None)
    with contextlib.closing(consumer):
        with pytest.raises(OSError, match="the store is away"):
            until_s = time.monotonic() + WAIT_S_MAX
            while time.monotonic() < until_s:
                assert consumer.poll(wait_s=0.5, records_max=10) == []
        found = consumer.poll(wait_s=WAIT_S_MAX, records_max=10)

    assert payloads(found) == [b"0"]


def test_records_max_is_kept(queue: Queue, producer: Producer) -> None:
    """A poll hands out at most ``records_max`` records and loses none."""
    send(producer, *(b"%d" % n for n in range(10)))
    with member(queue) as one:
        parts = []
        while sum(map(len, parts)) < 10:
            parts.append(one.consumer.poll(wait_s=5, records_max=3))

    assert max(map(len, parts)) == 3
    assert [p for part in parts for p in payloads(part)] == [b"%d" % n for n in range(10)]


def test_paused_partition_is_silent_until_resumed(queue: Queue, producer: Producer) -> None:
    """A paused partition hands out nothing, the others go on, and resuming continues where it stopped."""
    with member(queue) as one:
        poll_until(lambda: len(one.owned) == 2, one)
        one.consumer.pause([0])
        send(producer, b"0", b"1")
        send(producer, b"other", partition=1)
        while_paused = one.read(1) + one.poll(0.5)
        one.consumer.resume([0])
        afterwards = one.read(2)

    assert payloads(while_paused, 0) == []
    assert payloads(while_paused, 1) == [b"other"]
    assert payloads(afterwards) == [b"0", b"1"]


def test_seek_reads_again(queue: Queue, producer: Producer) -> None:
    """``seek`` goes back, and forward."""
    send(producer, *(b"%d" % n for n in range(6)))
    with member(queue) as one:
        one.read(6)
        one.consumer.seek(0, 4)
        back = one.read(2)
        one.consumer.seek(0, 0)
        one.consumer.seek(0, 5)
        forward = one.read(1)

    assert payloads(back) == [b"4", b"5"]
    assert payloads(forward) == [b"5"]


def test_two_members_share_and_the_rest_goes_to_who_stays(queue: Queue, producer: Producer) -> None:
    """Two members own one partition each; what the leaving one commits in ``revoked`` is where the other goes on."""
    send(producer, b"0", b"1", b"2")
    send(producer, b"0", b"1", b"2", partition=1)
    with member(queue) as stays:
        stays.read(6)
        stays.on_revoked = lambda partitions: stays.consumer.commit(dict.fromkeys(partitions, 2))
        with member(queue) as leaves:
            found: list[Delivery] = []
            until_s = time.monotonic() + WAIT_S_MAX
            while (len(stays.owned), len(leaves.owned), len(found)) != (1, 1, 1):
                assert time.monotonic() < until_s, (stays.told, leaves.told)
                found += leaves.poll(0.5)
                assert stays.poll(0.5) == []
            (moved,) = leaves.owned
            leaves.on_revoked = lambda partitions: leaves.consumer.commit(dict.fromkeys(partitions, 3))
        poll_until(lambda: len(stays.owned) == 2, stays)
        after = stays.poll(0.5)

    assert ("revoked", [moved]) in stays.told
    assert payloads(found, moved) == [b"2"]
    assert leaves.told == [("assigned", [moved]), ("revoked", [moved])]
    assert stays.told[-2:] == [("assigned", [moved]), ("revoked", [0, 1])]
    assert payloads(after) == []


@pytest.mark.timeout(120)  # A session of Kafka lasts six seconds.
def test_killed_member_is_replaced(adapter: Adapter, queue: Queue, producer: Producer) -> None:
    """The partitions of a member that died without a word go to the others when its session is over."""
    send(producer, b"0")
    send(producer, b"0", partition=1)
    with member(queue) as survivor, process("consume", adapter.settings()) as child:
        poll_until(lambda: len(survivor.owned) == 2, survivor)
        poll_until(lambda: child.lines, survivor)
        child.kill()
        survivor.told.clear()
        began_s = time.monotonic()
        poll_until(lambda: len(survivor.owned) == 2, survivor)
        took_s = time.monotonic() - began_s
        (taken_over,) = (partitions for told, partitions in survivor.told if told == "assigned")

    assert child.lines == [f"assigned {taken_over}"]
    assert took_s < 10 * adapter.session_timeout_s


@pytest.mark.timeout(120)  # A session of Kafka lasts six seconds.
def test_stopped_member_learns_that_it_lost_its_partitions(adapter: Adapter, queue: Queue) -> None:
    """A member that was stopped past its session finds its partitions lost when it goes on, and then joins again."""
    with member(queue) as survivor, process("consume", adapter.settings()) as child:
        poll_until(lambda: len(survivor.owned) == 2, survivor)
        poll_until(lambda: child.lines, survivor)
        child.signal(signal.SIGSTOP)
        poll_until(lambda: len(survivor.owned) == 2, survivor)
        child.signal(signal.SIGCONT)
        poll_until(lambda: len(child.lines) == 3, survivor)

    assert child.lines[0].startswith("assigned")
    assert child.lines[1] == child.lines[0].replace("assigned", "revoked lost")
    assert child.lines[2].startswith("assigned")


def test_commit_of_another_members_partition_is_passed_over(queue: Queue, producer: Producer) -> None:
    """A commit counts only for partitions that are the member's own."""
    send(producer, b"0", b"1")
    with member(queue) as one:
        one.consumer.commit({0: 2})
        poll_until(lambda: len(one.owned) == 2, one)
    one.consumer.commit({0: 2})
    with member(queue) as two:
        found = two.read(2)

    assert payloads(found) == [b"0", b"1"]


def test_unread_counts_what_is_not_committed(queue: Queue, producer: Producer) -> None:
    """By the committed offset, delivered or not."""
    send(producer, b"0", b"1", b"2")
    with member(queue) as one:
        poll_until(lambda: len(one.owned) == 2, one)
        one.consumer.pause([0, 1])
        undelivered = one.consumer.unread()
        one.consumer.resume([0, 1])
        one.consumer.seek(0, 0)
        one.read(3)
        one.consumer.commit({0: 1})
        delivered = one.consumer.unread()
        one.consumer.commit({0: 3})
        settled = one.consumer.unread()

    assert undelivered == {0: 3, 1: 0}
    assert delivered == {0: 2, 1: 0}
    assert settled == {0: 0, 1: 0}


def test_unread_after_a_restart_is_from_the_committed_offset(queue: Queue, producer: Producer) -> None:
    """A new member sees what the old one left, also of records that it never had itself."""
    send(producer, b"0", b"1", b"2")
    with member(queue) as old:
        old.read(3)
        old.consumer.commit({0: 2})
    with member(queue, starts={0: 3}) as new:
        poll_until(lambda: len(new.owned) == 2, new)
        unread = new.consumer.unread()

    assert unread[0] == 1


def test_lag_is_by_the_position_whoever_reads(adapter: Adapter, queue: Queue, producer: Producer) -> None:
    """Records and age behind a position; its age goes on also when nothing is written, and what is gone is no lag."""
    send(producer, b"0", b"1", b"2")
    time.sleep(0.5)
    behind = lags(queue, {0: 1}, now_us=now_us())
    time.sleep(0.5)
    later = lags(queue, {0: 1}, now_us=now_us())
    read = lags(queue, {0: 3, 1: 0}, now_us=now_us())
    adapter.expire(3)
    send(producer, b"3")
    expired = lags(queue, {}, now_us=now_us())

    assert behind[0].records == later[0].records == 2
    assert 0.5 <= behind[0].seconds <= later[0].seconds - 0.5 < 15
    assert [(lag.records, lag.seconds) for lag in read.values()] == [(0, 0.0)] * 2
    assert expired[0].records == 1
    assert 0 <= expired[0].seconds < 15


def test_what_nobody_has_read_is_on_its_way_to_being_deleted(
    adapter: Adapter, queue: Queue, producer: Producer
) -> None:
    """On Kafka by its age, or by what is behind it; the embedded queue deletes nothing unread."""
    send(producer, *[b"x" * 1000] * 20)
    used = [queue.retention_used(0, 0, age_s) for age_s in (0.0, 84 * 3600.0, 1e9)]

    if isinstance(adapter, OnSqlite):
        assert used == [None] * 3
        assert lags(queue, {}, now_us=now_us())[0].retention_used is None
    else:
        assert used[0] is not None and 0 <= used[0] < 0.01
        assert used[1:] == [pytest.approx(0.5), 1.0]
        adapter.keep_bytes(40_000)
        assert queue.retention_used(0, 0, 0.0) == pytest.approx(0.5, abs=0.2)
        assert queue.retention_used(0, 20, 0.0) == 0
        before, now = lags(queue, {}, now_us=now_us())[0], lags(queue, {}, now_us=now_us() + 84 * 3_600_000_000)[0]
        assert now.retention_used == pytest.approx(0.5, abs=0.2)
        assert Lag(9, 1.0, 0.6).left_s(Lag(9, 1.0, 0.5), 60.0) == pytest.approx(240)
        assert before.left_s(now, 60.0) is None


def test_expired_offset_is_an_error_and_seeking_goes_on(adapter: Adapter, queue: Queue, producer: Producer) -> None:
    """When retention has passed the next offset, poll says so with the numbers, again and again, until a seek."""
    send(producer, *(b"%d" % n for n in range(5)))
    with member(queue) as first:
        first.read(5)
        first.consumer.commit({0: 2})
    adapter.expire(5)
    send(producer, b"5", b"6")
    with member(queue) as second:
        for _ in range(2):
            with pytest.raises(LogweirError) as expired:
                poll_until(lambda: False, second)
            assert expired.value.problem.code == "offsets_expired"
            numbers = {name: expired.value.numbers[name] for name in ("partition", "offset", "offset_earliest")}
            assert numbers == {"partition": 0, "offset": 2, "offset_earliest": 5}
            assert expired.value.numbers["offset_latest"] == 7
        second.consumer.seek(0, 5)
        found = second.read(2)

    assert payloads(found) == [b"5", b"6"]
    assert [delivery.offset for delivery in found] == [5, 6]
    assert queue.offsets(0) == (5, 7)


def test_offset_past_the_end_is_an_error(queue: Queue, producer: Producer) -> None:
    """A next offset that was never written (the topic was made anew) is OFFSETS_EXPIRED too."""
    send(producer, b"0")
    with member(queue, starts={0: 10}) as one:
        with pytest.raises(LogweirError) as expired:
            poll_until(lambda: False, one)
        one.consumer.seek(0, 0)
        found = one.read(1)

    assert expired.value.problem.code == "offsets_expired"
    assert expired.value.numbers["offset"] == 10
    assert payloads(found) == [b"0"]


def test_reader_gives_records_beside_a_group_and_moves_no_position(queue: Queue, producer: Producer) -> None:
    """From any offset to the end, and what comes later; the group's member misses nothing and keeps its partitions."""
    send(producer, *(b"%d" % n for n in range(5)))
    send(producer, b"other", partition=1)
    with member(queue) as one:
        one.read(6)
        one.consumer.commit({0: 2})
        with contextlib.closing(queue.reader(0, 1)) as reader:
            first = read_through(reader, 4)
            nothing = reader.read(wait_s=0.1, records_max=10)
            send(producer, b"5")
            later = read_through(reader, 1)
        theirs = one.read(1)
        unread = one.consumer.unread()[0]

    assert payloads(first) == [b"1", b"2", b"3", b"4"]
    assert [delivery.offset for delivery in first] == [1, 2, 3, 4]
    assert nothing == []
    assert payloads(later) == payloads(theirs) == [b"5"]
    assert unread == 4
    assert one.told == [("assigned", [0, 1]), ("revoked", [0, 1])]


def test_reader_reads_while_an_error_is_being_handled(queue: Queue, producer: Producer) -> None:
    """A worker looks at the queue when it is told that an offset is gone, before it is done with that."""
    send(producer, b"0")
    try:
        raise LookupError
    except LookupError:
        with contextlib.closing(queue.reader(0, 0)) as reader:
            found = read_through(reader, 1)

    assert payloads(found) == [b"0"]


def test_reader_says_which_records_are_gone(adapter: Adapter, queue: Queue, producer: Producer) -> None:
    """An offset that retention has passed, or that was never written, is an error with the numbers."""
    send(producer, b"0", b"1", b"2")
    adapter.expire(2 if isinstance(adapter, OnKafka) else 3)
    send(producer, b"3")
    earliest = queue.offsets(0)[0]
    for offset in (0, 9):
        with contextlib.closing(queue.reader(0, offset)) as reader, pytest.raises(LogweirError) as expired:
            read_through(reader, 1)

        assert expired.value.problem.code == "offsets_expired"
        names = ("partition", "offset", "offset_earliest", "offset_latest")
        assert [expired.value.numbers[name] for name in names] == [0, offset, earliest, 4]


def test_offsets_are_found_by_time(queue: Queue, producer: Producer) -> None:
    """The first record that the queue took then or later; behind all records it is the next offset."""
    send(producer, b"0", b"1")
    time.sleep(0.05)
    between_ms = time.time_ns() // 1_000_000
    send(producer, b"2")
    after_ms = time.time_ns() // 1_000_000 + 10_000

    assert [queue.offset_at(0, moment) for moment in (-5, 1, between_ms, after_ms)] == [0, 0, 2, 3]
    assert queue.offset_at(1, 1) == 0


@pytest.mark.parametrize("wrong_s", [-30 * 86_400, 2 * 3_600])
def test_a_wrong_clock_keeps_no_record_out_and_lets_none_expire(
    queue: Queue, producer: Producer, monkeypatch: pytest.MonkeyPatch, wrong_s: int
) -> None:
    """When a record is old is said by the queue's own clock, where there is one."""
    right = time.time
    send(producer, b"0")
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: right() + wrong_s)
        send(producer, b"1")
    with contextlib.closing(queue.reader(0, 0)) as reader:
        found = read_through(reader, 2)

    assert payloads(found) == [b"0", b"1"]
    if isinstance(queue, KafkaQueue):
        assert abs(found[1].timestamp_ms - right() * 1000) < 600_000


def read_through(reader: Reader, count: int) -> list[Delivery]:
    """Read until there are ``count`` records."""
    found: list[Delivery] = []
    wait_until(lambda: found.extend(reader.read(wait_s=0.2, records_max=2)) or len(found) >= count)
    assert len(found) == count
    return found


def test_emptied_topic_keeps_its_offsets(adapter: Adapter, queue: Queue, producer: Producer) -> None:
    """Retention of everything does not begin the offsets anew."""
    send(producer, b"0", b"1", b"2")
    adapter.expire(3)
    emptied = queue.offsets(0)
    send(producer, b"3")
    with member(queue) as one:
        found = one.read(1)

    assert emptied == (3, 3)
    assert [(delivery.offset, delivery.payload) for delivery in found] == [(3, b"3")]


def test_topic_made_anew_has_another_id(adapter: Adapter, queue: Queue) -> None:
    """The id stays over connections and changes with a new topic of the same name."""
    before = queue.topic_id()
    again = open_queue(adapter.settings())
    same = again.topic_id()
    again.close()
    queue.close()
    adapter.remove()
    new = open_queue(adapter.settings())
    new.prepare()
    after = new.topic_id()
    new.close()

    assert same == before
    assert after != before


def test_preparing_twice_changes_nothing(adapter: Adapter, queue: Queue, producer: Producer) -> None:
    """Topic, records and number of partitions stay, whatever the settings say the second time."""
    send(producer, b"0")
    before = queue.topic_id()
    second = open_queue(adapter.settings(partitions=5))
    second.prepare()
    state = (second.topic_id(), second.partition_count(), second.offsets(0))
    second.close()

    assert state == (before, 2, (0, 1))


def test_many_processes_may_prepare_at_once(adapter: Adapter) -> None:
    """Whoever comes first makes the topic; nobody fails and all see the same one."""
    queues = [open_queue(adapter.settings()) for _ in range(4)]
    failures: list[BaseException] = []

    def prepare(queue: Queue) -> None:
        try:
            queue.prepare()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=prepare, args=(each,)) for each in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = {each.topic_id() for each in queues}
    for each in queues:
        each.close()

    assert failures == []
    assert len(ids) == 1


def test_absent_topic_is_an_error(adapter: Adapter) -> None:
    """Before ``prepare`` everything says QUEUE_DOWN, with the address, and nothing makes the topic in passing."""
    queue = open_queue(adapter.settings())
    for use in (queue.check, queue.topic_id, queue.partition_count, queue.producer):
        with pytest.raises(LogweirError) as down:
            use()
        assert down.value.problem.code == "queue_down"
        assert queue.topic in str(down.value)
    queue.close()


def test_check_says_one_line(queue: Queue) -> None:
    """``check`` tells the state in one line with the address."""
    line = queue.check()

    assert "2 partitions" in line
    assert "\n" not in line
