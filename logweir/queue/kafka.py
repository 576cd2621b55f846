"""The queue on Kafka: one topic, through kafka-python.

What was read in the library's source, and why things are as they are here:

* An idempotent producer is stuck for good after one delivery that timed out, so deliveries never do; the buffer is
  bounded here, and who waits for a confirmation has a deadline of its own.
* A send waits for metadata for up to ``max_block_ms``: that is set to nothing as soon as the topic is known.
* A consumer's callbacks about partitions run on the library's own thread, where nothing may block and nothing can be
  committed. So the library polls on a thread of ours, and the callbacks come back to the thread that polls us.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import selectors
import ssl
import sys
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import kafka
import kafka.admin
import kafka.errors
from kafka import OffsetSpec, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.future import Future as KafkaFuture
from kafka.net.compat import KafkaNetClient

from logweir.config import MEBIBYTE, shown_url
from logweir.errors import (
    OFFSETS_EXPIRED,
    QUEUE_DOWN,
    QUEUE_RECORD_LIMIT_LOW,
    QUEUE_RECORD_TOO_LARGE,
    SETTING_BAD,
    LogweirError,
)
from logweir.queue import Assigned, Delivery, Done, Revoked

if TYPE_CHECKING:
    from logweir.config import QueueSettings

log = logging.getLogger(__name__)
# At INFO the library tells every connection and every rebalance; while a broker is away, ten errors a second.
logging.getLogger("kafka").setLevel(logging.WARNING)
for _name in ("kafka.net", "kafka.cluster", "kafka.coordinator"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

T = TypeVar("T")

_PORT_DEFAULT = 9092
_CONNECT_TIMEOUT_S = 5.0
_REQUEST_TIMEOUT_S = 10.0
_REOPEN_INTERVAL_S = 1.0
_WATCH_INTERVAL_S = 2.0
# Ten days: longer than any outage that a door lives through, and within what select() takes.
_DELIVERY_TIMEOUT_MS = 10 * 24 * 3_600_000
# What Kafka puts around one record: 61 bytes a batch and some 20 a record.
_ENVELOPE_BYTES = 1024
_RECORD_OVERHEAD_BYTES = 500
_REQUEST_SIZE_BYTES = 8 * MEBIBYTE
_FETCH_SIZE_BYTES = 16 * MEBIBYTE
_PARTITION_FETCH_SIZE_BYTES = 4 * MEBIBYTE
_POLL_SLICE_S = 0.2
_UNREACHABLE_AFTER_S = 2.0
_ENDS_AGE_S_MAX = 2.0


class _Selector(selectors.DefaultSelector):
    """Says that a socket is not registered without looking up its addresses.

    The library asks so before it waits for a socket, and takes a KeyError for a no; the standard library's has the
    socket in words, which takes four system calls and was a quarter of the sending thread's work.
    """

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._fd_to_key[fileobj.fileno()]  # type: ignore[attr-defined,no-any-return]


class _Client(KafkaNetClient):  # type: ignore[misc]
    """The library's connections, so that they can be watched, woken, and closed when a constructor fails.

    ``failures``: per server the last reason why there was no connection.
    """

    def __init__(self, **configs: Any) -> None:
        # The library warns of steps above 0.1 s, which a busy machine has every minute.
        super().__init__(**{**configs, "selector": _Selector, "slow_task_threshold_secs": 1.0})
        # Otherwise asking for an absent topic makes it, with the broker's number of partitions instead of ours.
        self.cluster.config["allow_auto_create_topics"] = False
        self.failures: dict[str, BaseException] = {}
        self._connect = self._manager.get_connection
        self._manager.get_connection = self._watched_connection

    def answer(self, future: KafkaFuture) -> None:
        """Settle a future on the library's own thread: from another one, who awaits it may never be woken."""
        self._net.call_soon_threadsafe(lambda: future.success(None))

    def reachable(self) -> bool:
        """Whether a connection to any broker stands."""
        return any(connection.connected for connection in list(self._manager._conns.values()))

    def _watched_connection(self, node: object, *arguments: Any, **options: Any) -> Any:
        """The library says only that its time is out; why is known to each connection alone."""
        known = node in self._manager._conns
        connection = self._connect(node, *arguments, **options)
        if not known:
            broker = self.cluster.broker_metadata(node)
            connection.init_future.add_errback(self._failed, f"{broker.host}:{broker.port}")
        return connection

    def _failed(self, server: str, error: BaseException) -> None:
        # After a refused password the broker also hangs up on the next ones: the first reason says more.
        if not isinstance(self.failures.get(server), kafka.errors.SaslAuthenticationFailedError):
            self.failures[server] = error


class KafkaQueue:
    """The topic that ``settings.url`` (``kafka://host:port[,host:port]/topic``) names."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._servers, self.topic = _parsed(settings.url)
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
                self.url, partitions, settings.partitions,
            )  # fmt: skip

    def topic_id(self) -> str:
        found = self._ask(self._topic).get("topic_id")
        if not found or not uuid.UUID(str(found)).int:
            raise self.down("it does not say the topic's id; Kafka 2.8 or later does")
        return str(found)

    def partition_count(self) -> int:
        return len(self._ask(self._topic)["partitions"])

    def offsets(self, partition: int) -> tuple[int, int]:
        return self._offset(partition, OffsetSpec.EARLIEST), self._offset(partition, OffsetSpec.LATEST)

    def offset_at(self, partition: int, timestamp_ms: int) -> int:
        # A negative number would mean something else there.
        offset = self._offset(partition, max(0, timestamp_ms))
        return offset if offset >= 0 else self.offsets(partition)[1]

    def reader(self, partition: int, offset: int) -> KafkaReader:
        return KafkaReader(self, self._settings, partition, offset)

    def producer(self) -> KafkaProducer:
        """Raises LogweirError: QUEUE_DOWN when no broker answers or the topic is absent, QUEUE_RECORD_LIMIT_LOW."""
        # The library would wait for an absent topic until its time is out.
        self.partition_count()
        # And one record that the broker refuses for its size fails all that wait behind it, again and again.
        self._require_room()
        return KafkaProducer(self, self._settings)

    def consumer(self, *, group: str, assigned: Assigned, revoked: Revoked) -> KafkaConsumer:
        return KafkaConsumer(self, self._settings, group=group, assigned=assigned, revoked=revoked)

    def check(self) -> str:
        partitions = self._ask(self._topic)["partitions"]
        leaderless = [p["partition_index"] for p in partitions if p["leader_id"] < 0]
        if leaderless:
            raise self.down(f"the partitions {leaderless} of {self.topic} have no leader")
        self._require_room()
        return f"{self.url}: {len(partitions)} partitions, all with a leader"

    def close(self) -> None:
        with self._lock:
            self._close_admin()

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return f"kafka://{','.join(self._servers)}/{self.topic}"

    def down(self, reason: object) -> LogweirError:
        return LogweirError(QUEUE_DOWN, url=self.url, reason=reason)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Kafka's errors become LogweirError(QUEUE_DOWN)."""
        try:
            yield
        except (kafka.errors.KafkaError, OSError) as error:
            raise self.down(self._reason(error)) from error

    def opened(self, make: Callable[..., T], **options: Any) -> tuple[T, _Client]:
        """A part of the library, connected, and its connections.

        Raises LogweirError(QUEUE_DOWN) after _CONNECT_TIMEOUT_S at most.
        """
        clients: list[_Client] = []

        def client(**configs: Any) -> _Client:
            clients.append(_Client(**configs))
            return clients[-1]

        try:
            return make(**self._connection(), **options, kafka_client=client), clients[0]
        except (kafka.errors.KafkaError, OSError) as error:
            reasons = clients[0].failures if clients else {}
            raise self.down(self._reason(error, reasons)) from error
        finally:
            # A constructor that fails leaves its thread and sockets behind.
            if sys.exc_info()[0] is not None:
                for left in clients:
                    left.close()

    def _connection(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "bootstrap_servers": self._servers,
            "bootstrap_timeout_ms": int(_CONNECT_TIMEOUT_S * 1000),
            "reconnect_backoff_max_ms": 2000,
            "security_protocol": ("SASL_" if settings.sasl_mechanism else "")
            + ("SSL" if settings.tls else "PLAINTEXT"),
        }
        if settings.tls:
            context = ssl.create_default_context(cafile=settings.ca_file)
            if settings.certificate_file:
                context.load_cert_chain(settings.certificate_file, settings.certificate_key_file)
            options["ssl_context"] = context
        if settings.sasl_mechanism:
            if settings.sasl_mechanism == "PLAIN" and not settings.tls:
                log.warning("%s: the password goes over the network in the clear; set queue.tls", self.url)
            options["sasl_mechanism"] = settings.sasl_mechanism
            options["sasl_plain_username"] = settings.username
            options["sasl_plain_password"] = settings.password.get_secret_value()
        return options

    def _ask(self, question: Callable[[Any], T]) -> T:
        """The administration client's answer. Raises LogweirError(QUEUE_DOWN)."""
        with self._lock, self.errors():
            if self._admin is not None:
                # One that was connected before an outage may not know yet that it is over.
                with contextlib.suppress(kafka.errors.NodeNotReadyError, kafka.errors.KafkaConnectionError):
                    return self._answered(question)
            timeout_ms = int(_REQUEST_TIMEOUT_S * 1000)
            self._admin, _ = self.opened(kafka.KafkaAdminClient, request_timeout_ms=timeout_ms)
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
        settings, timeout_ms = self._settings, int(_REQUEST_TIMEOUT_S * 1000)
        if not self._described(admin):
            wanted = {
                "num_partitions": settings.partitions,
                "replication_factor": settings.replication,
                "configs": {
                    "retention.ms": str(int(settings.retention_hours * 3_600_000)),
                    "retention.bytes": str(settings.retention_size_bytes_max),
                    "max.message.bytes": str(max(MEBIBYTE, settings.record_size_bytes_max + _ENVELOPE_BYTES)),
                    # Whatever the brokers' own default is: with one copy in sync, its disk would be all there is.
                    "min.insync.replicas": "2" if settings.replication >= 3 else "1",
                },
            }
            with contextlib.suppress(kafka.errors.TopicAlreadyExistsError):
                admin.create_topics({self.topic: wanted}, timeout_ms=timeout_ms)
        admin.wait_for_topics([self.topic], timeout_ms=timeout_ms)

    def _offset(self, partition: int, wanted: OffsetSpec | int) -> int:
        place, timeout_ms = TopicPartition(self.topic, partition), int(_REQUEST_TIMEOUT_S * 1000)
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
        name, wanted = "max.message.bytes", self._settings.record_size_bytes_max + _ENVELOPE_BYTES
        asked = kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.TOPIC, self.topic, {name: None})

        def limits(admin: Any) -> Any:
            with contextlib.suppress(kafka.errors.TopicAuthorizationFailedError):
                return admin.describe_configs([asked], config_filter="all")

        found = self._ask(limits)
        if found is None:
            return
        size_bytes_topic = int(found["topic"][self.topic][name]["value"])
        if size_bytes_topic < wanted:
            raise LogweirError(
                QUEUE_RECORD_LIMIT_LOW, topic=self.topic, size_bytes_topic=size_bytes_topic, size_bytes_wanted=wanted,
                size_bytes_max=self._settings.record_size_bytes_max,
            )  # fmt: skip

    def _topic(self, admin: Any) -> dict[str, Any]:
        topic = self._described(admin)
        if topic is None:
            raise self.down(f"it has no topic {self.topic}")
        return topic

    def _reason(self, error: BaseException, failures: Mapping[str, BaseException] = MappingProxyType({})) -> str:
        for cause in (error, *failures.values()):
            if isinstance(cause, kafka.errors.SaslAuthenticationFailedError):
                return f"it refuses user {self._settings.username!r} or the password"
        if failures:
            return "; ".join(f"{server}: {failure}" for server, failure in failures.items())
        return f"{type(error).__name__}: {error}" if isinstance(error, kafka.errors.KafkaError) else str(error)


def _parsed(url: str) -> tuple[list[str], str]:
    """Addresses as host:port, and the topic."""
    servers, _, topic = url.removeprefix("kafka://").partition("/")
    reason = ""
    if "@" in url:
        reason = "user and password go into queue.username and queue.password"
    elif not servers or not topic or "/" in topic:
        reason = "it is not kafka://host:port[,host:port]/topic"
    if reason:
        raise LogweirError(
            SETTING_BAD, where="The configuration", name="queue.url", value=shown_url(url), reason=reason
        )
    # A colon that is not inside [an IPv6 address].
    with_port = [s if ":" in s.rpartition("]")[2] else f"{s}:{_PORT_DEFAULT}" for s in servers.split(",")]
    return with_port, topic


@dataclass(slots=True, eq=False)
class _Waiting:
    """A record between ``send`` and ``done``."""

    partition: int
    size_bytes: int
    done: Done
    settled: bool = False
    error: LogweirError | None = None


class KafkaProducer:
    """Writes records, each confirmed by all replicas in sync; Kafka itself drops repeats of the library's retries."""

    def __init__(self, queue: KafkaQueue, settings: QueueSettings) -> None:
        self._queue = queue
        self._settings = settings
        # Held while a record goes to the library, so that its order is ours. Never taken by the library's thread
        # except through a callback that sends.
        self._sending = threading.Lock()
        self._sending_thread = 0
        self._changed = threading.Condition()
        self._pending: dict[int, deque[_Waiting]] = defaultdict(deque)
        self._calling_back: set[int] = set()
        self._size_bytes = 0
        self._closed = threading.Event()
        self._down: LogweirError | None = None
        self._kafka: Any = self._open()
        self._late: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._keeper = threading.Thread(target=self._keep, name="queue-keeper", daemon=True)
        self._keeper.start()

    def send(self, partition: int, payload: bytes, done: Done) -> None:
        if len(payload) > self._settings.record_size_bytes_max:
            size_bytes_max = self._settings.record_size_bytes_max
            raise LogweirError(QUEUE_RECORD_TOO_LARGE, size_bytes=len(payload), size_bytes_max=size_bytes_max)
        waiting = _Waiting(partition, len(payload) + _RECORD_OVERHEAD_BYTES, done)
        with self._sending:
            self._sending_thread = threading.get_ident()
            try:
                library = self._enter(waiting)
                try:
                    future = library.send(self._queue.topic, value=payload, partition=partition)
                except (kafka.errors.KafkaError, ValueError) as error:
                    if self._withdraw(waiting):
                        raise self._queue.down(f"{type(error).__name__}: {error}") from error
                    return
                future.add_callback(self._confirmed, waiting)
                future.add_errback(self._refused, library)
            finally:
                self._sending_thread = 0

    def fill(self) -> float:
        return min(1.0, self._size_bytes / self._settings.buffer_size_bytes_max)

    def close(self, timeout_s: float) -> None:
        self._closed.set()
        with self._changed:
            self._changed.wait_for(lambda: self._size_bytes == 0, timeout_s)
        library, self._kafka = self._kafka, None
        _close_by_force(library)
        self._fail_all(self._queue.down(f"the producer was closed after {timeout_s} s"))
        self._late.put(None)
        self._keeper.join(_CONNECT_TIMEOUT_S + _REOPEN_INTERVAL_S)

    def _open(self) -> Any:
        batch_size_bytes = self._settings.record_size_bytes_max + _ENVELOPE_BYTES
        library, self._client = self._queue.opened(
            kafka.KafkaProducer,
            acks="all",
            enable_idempotence=True,
            delivery_timeout_ms=_DELIVERY_TIMEOUT_MS,
            linger_ms=0,
            batch_size=batch_size_bytes,
            max_request_size=max(_REQUEST_SIZE_BYTES, batch_size_bytes),
            max_block_ms=int(_CONNECT_TIMEOUT_S * 1000),
            metrics_enabled=False,
        )
        try:
            with self._queue.errors():
                library.partitions_for(self._queue.topic)
        except LogweirError as error:
            _close_by_force(library)
            raise self._queue.down(f"it does not know the topic {self._queue.topic}") from error
        library.config["max_block_ms"] = 0
        return library

    def _enter(self, waiting: _Waiting) -> Any:
        """Put the record among the pending ones and give the library's producer that is to take it."""
        with self._changed:
            if self._closed.is_set():
                raise self._queue.down("this producer is closed")
            if self._kafka is None:
                raise self._down or self._queue.down("this producer is closed")
            if self._size_bytes + waiting.size_bytes > self._settings.buffer_size_bytes_max:
                raise self._queue.down(f"{self._size_bytes} bytes wait for it already (queue.buffer_size_bytes_max)")
            self._size_bytes += waiting.size_bytes
            self._pending[waiting.partition].append(waiting)
            return self._kafka

    def _withdraw(self, waiting: _Waiting) -> bool:
        """False when it was failed, and called back, in the meantime."""
        with self._changed:
            pending = self._pending[waiting.partition]
            if not pending or pending[-1] is not waiting or waiting.settled:
                return False
            pending.pop()
            self._size_bytes -= waiting.size_bytes
            self._changed.notify_all()
            return True

    def _confirmed(self, waiting: _Waiting, _: object) -> None:
        if self._sending_thread == threading.get_ident():
            # The broker was quicker than ``send``, which must not call back itself.
            self._late.put(lambda: self._settle(waiting, None))
        else:
            self._settle(waiting, None)

    def _refused(self, library: Any, error: BaseException) -> None:
        # On the library's thread, which may hold locks of its own.
        self._late.put(lambda: self._replace(library, error))

    def _settle(self, waiting: _Waiting, error: LogweirError | None) -> None:
        with self._changed:
            if waiting.settled:
                return
            waiting.settled, waiting.error = True, error
        self._call_back(waiting.partition)

    def _call_back(self, partition: int) -> None:
        """Call back the settled records at the front; one thread at a time per partition keeps their order."""
        with self._changed:
            if partition in self._calling_back:
                return
            self._calling_back.add(partition)
        while True:
            with self._changed:
                pending = self._pending[partition]
                if not pending or not pending[0].settled:
                    self._calling_back.discard(partition)
                    self._changed.notify_all()
                    return
                waiting = pending.popleft()
                self._size_bytes -= waiting.size_bytes
            try:
                waiting.done(waiting.error)
            except Exception:
                log.exception("A callback of the queue's producer failed")

    def _fail_all(self, error: LogweirError) -> None:
        with self._changed:
            for waiting in itertools.chain.from_iterable(self._pending.values()):
                if not waiting.settled:
                    waiting.settled, waiting.error = True, error
            partitions = list(self._pending)
        for partition in partitions:
            self._call_back(partition)

    def _keep(self) -> None:
        down = False
        while True:
            try:
                action = self._late.get(timeout=_WATCH_INTERVAL_S)
            except Empty:
                if down == self._client.reachable():
                    down = not down
                    say = log.error if down else log.warning
                    say("%s %s", self._queue.url, "cannot be reached" if down else "is reached again")
                continue
            if action is None:
                return
            action()

    def _replace(self, library: Any, error: BaseException) -> None:
        """A delivery failed for good: what the library sends after it may never arrive. Begin anew with another."""
        with self._sending, self._changed:
            if self._kafka is not library:
                return
            self._kafka = None
            self._down = self._queue.down(f"{type(error).__name__}: {error}")
            down = self._down
        log.error("The queue's producer is replaced: %s", down)
        _close_by_force(library)
        self._fail_all(down)
        while not self._closed.is_set():
            try:
                opened = self._open()
            except LogweirError as again:
                self._down = again
                self._closed.wait(_REOPEN_INTERVAL_S)
                continue
            with self._changed:
                if not self._closed.is_set():
                    self._kafka = opened
                    return
            _close_by_force(opened)


def _close_by_force(library: Any) -> None:
    if library is None:
        return
    # The library's own close() gives up with an exception, and goes on sending, when something is not delivered yet.
    library._sender.force_close()
    with contextlib.suppress(kafka.errors.KafkaError):
        library.close(timeout=1.0)


class _Listener(kafka.AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Called on the library's thread."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        self._consumer.hold(assigned)

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._consumer.hand_over(revoked, lost=False)

    async def on_partitions_lost(self, lost: Collection[Any]) -> None:
        await self._consumer.hand_over(lost, lost=True)


@dataclass(frozen=True, slots=True)
class _HandOver:
    """Partitions that the library is about to give away, and how to tell it that it may."""

    partitions: list[int]
    lost: bool
    answered: Any


class KafkaConsumer:
    """A member of a group; connects and joins at the first ``poll``."""

    def __init__(
        self, queue: KafkaQueue, settings: QueueSettings, *, group: str, assigned: Assigned, revoked: Revoked
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._group = group
        self._assigned = assigned
        self._revoked = revoked
        self._kafka: Any = None
        self._client: Any = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="queue-poll")
        self._messages: SimpleQueue[_HandOver | Future[Any]] = SimpleQueue()
        self._failure: BaseException | None = None
        # Partitions that are ours and have been given a position.
        self._ours: set[int] = set()
        self._paused: set[int] = set()
        self._reached_s = time.monotonic()
        self._backlog = _Backlog()

    def poll(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        until_s = time.monotonic() + wait_s
        if self._kafka is None:
            self._connect()
        while True:
            self._take_over()
            left_s = max(0.01, until_s - time.monotonic())
            deliveries = self._fetched(wait_s=min(left_s, _POLL_SLICE_S), records_max=records_max)
            if deliveries:
                return deliveries
            self._check_reachable()
            if time.monotonic() >= until_s:
                return []

    def seek(self, partition: int, offset: int) -> None:
        if partition in self._ours:
            self._kafka.seek(self._place(partition), offset)

    def pause(self, partitions: Collection[int]) -> None:
        ours = self._ours.intersection(partitions)
        self._paused |= ours
        self._kafka_if_any("pause", ours)

    def resume(self, partitions: Collection[int]) -> None:
        ours = self._ours.intersection(partitions)
        self._paused -= ours
        self._kafka_if_any("resume", ours)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Raises LogweirError(QUEUE_DOWN) also while the group is being rebalanced: poll, and commit again."""
        ours = {partition: offset for partition, offset in offsets.items() if partition in self._ours}
        if not ours:
            return
        request = {self._place(p): kafka.OffsetAndMetadata(offset, "", -1) for p, offset in ours.items()}
        with self._queue.errors():
            try:
                self._kafka.commit(request, timeout_ms=int(_REQUEST_TIMEOUT_S * 1000))
            except kafka.errors.CommitFailedError as error:
                if error.args and isinstance(error.args[0], kafka.errors.RebalanceInProgressError):
                    raise error.args[0] from error
                # No member any more: nothing is ours, and the next poll says so.
                log.warning("Group %s: the commit of %s came too late: %s", self._group, ours, error)
                return
        self._backlog.committed(ours)

    def unread(self) -> dict[int, int]:
        if not self._ours:
            return {}
        with self._queue.errors():
            places = [TopicPartition(self._queue.topic, partition) for partition in sorted(self._ours)]
            return self._backlog.unread(self._kafka, places)

    def close(self) -> None:
        try:
            if self._kafka is not None:
                self._on_thread(lambda: self._kafka.close(timeout_ms=int(_CONNECT_TIMEOUT_S * 1000)))
        except kafka.errors.KafkaError as error:
            # Others take over when the session ends by itself.
            log.warning("The consumer could not leave its group: %s", error)
        finally:
            self._give_up(sorted(self._ours), lost=True)
            self._thread.shutdown(wait=False)

    def hold(self, assigned: Collection[Any]) -> None:
        """New partitions, on the library's thread: nothing is fetched of them until ``_take_over``."""
        self._kafka.pause(*assigned)
        for place in assigned:
            # Any position, or the library looks for one itself and fails when nothing was committed.
            self._kafka.seek(place, 0)

    async def hand_over(self, places: Collection[Any], *, lost: bool) -> None:
        """Partitions that go, on the library's thread: wait until the thread that polls us has called ``revoked``."""
        answered = KafkaFuture()
        self._messages.put(_HandOver(sorted(place.partition for place in places), lost, answered))
        await answered

    def _connect(self) -> None:
        session_timeout_ms = int(self._settings.session_timeout_s * 1000)
        library, client = self._queue.opened(
            kafka.KafkaConsumer,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=[CooperativeStickyAssignor],
            session_timeout_ms=session_timeout_ms,
            # A member learns from the answers to its heartbeats that partitions are to move.
            heartbeat_interval_ms=min(1000, session_timeout_ms // 4),
            max_poll_interval_ms=300_000,
            **_fetching(self._settings),
        )
        library.subscribe([self._queue.topic], listener=_Listener(self))
        # Who joins before it knows the topic is given none of it at first.
        until_s = time.monotonic() + _CONNECT_TIMEOUT_S
        while not client.cluster.partitions_for_topic(self._queue.topic):
            if time.monotonic() > until_s:
                library.close()
                raise self._queue.down(f"it does not know the topic {self._queue.topic}")
            time.sleep(0.01)
        self._kafka, self._client = library, client

    def _fetched(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        with _fetch_errors(self._queue, self._kafka):
            batches = self._on_thread(lambda: self._kafka.poll(timeout_ms=int(wait_s * 1000), max_records=records_max))
        # Not of a partition that went while its records were on the way.
        return [delivery for delivery in _deliveries(batches) if delivery.partition in self._ours]

    def _on_thread(self, call: Callable[[], T]) -> T:
        """The call's result, from the thread that is the library's; meanwhile hand over partitions on this one."""
        running = self._thread.submit(call)
        running.add_done_callback(self._messages.put)
        while isinstance(message := self._messages.get(), _HandOver):
            try:
                self._give_up([partition for partition in message.partitions if partition in self._ours], message.lost)
            except BaseException as error:  # noqa: BLE001 - raised below, when the library has gone on
                self._failure = error
            self._client.answer(message.answered)
        result: T = message.result()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return result

    def _give_up(self, partitions: list[int], lost: bool) -> None:
        if not partitions:
            return
        try:
            self._revoked(partitions, lost)
        finally:
            self._ours.difference_update(partitions)
            self._paused.difference_update(partitions)
            self._backlog.forget(partitions)

    def _untaken(self) -> list[int]:
        return sorted({place.partition for place in self._kafka.assignment()} - self._ours)

    def _take_over(self) -> None:
        """Give new partitions their positions. What fails is tried again at the next ``poll``."""
        new = self._untaken()
        if not new:
            return
        places = [self._place(partition) for partition in new]
        with self._queue.errors():
            timeout_ms = int(_REQUEST_TIMEOUT_S * 1000)
            committed = {place.partition: self._kafka.committed(place, timeout_ms=timeout_ms) for place in places}
            ends = _ends(self._kafka, places)
        starts = self._assigned(new)
        for place in places:
            wanted = starts.get(place.partition)
            found = committed[place.partition] if wanted is None else wanted
            self._kafka.seek(place, ends[place][0] if found is None else found)
        self._ours.update(new)
        self._backlog.committed({p: offset for p, offset in committed.items() if offset is not None})
        self._kafka.resume(*places)

    def _check_reachable(self) -> None:
        if self._client.reachable():
            self._reached_s = time.monotonic()
        elif time.monotonic() - self._reached_s > _UNREACHABLE_AFTER_S:
            raise self._queue.down("no broker can be reached")

    def _kafka_if_any(self, method: str, partitions: Collection[int]) -> None:
        if partitions:
            getattr(self._kafka, method)(*(self._place(partition) for partition in partitions))

    def _place(self, partition: int) -> Any:
        return TopicPartition(self._queue.topic, partition)


class KafkaReader:
    """Reads one partition, in no group; connects at the first ``read``."""

    def __init__(self, queue: KafkaQueue, settings: QueueSettings, partition: int, offset: int) -> None:
        self._queue = queue
        self._settings = settings
        self._place = TopicPartition(queue.topic, partition)
        self._offset = offset
        self._kafka: Any = None

    def read(self, *, wait_s: float, records_max: int) -> list[Delivery]:
        if self._kafka is None:
            options = _fetching(self._settings)
            self._kafka, _ = self._queue.opened(
                kafka.KafkaConsumer, group_id=None, enable_auto_commit=False, auto_offset_reset="none", **options
            )
            self._kafka.assign([self._place])
            self._kafka.seek(self._place, self._offset)
        with _fetch_errors(self._queue, self._kafka):
            return _deliveries(self._kafka.poll(timeout_ms=int(wait_s * 1000), max_records=records_max))

    def close(self) -> None:
        if self._kafka is not None:
            self._kafka.close(timeout_ms=int(_CONNECT_TIMEOUT_S * 1000))


def _fetching(settings: QueueSettings) -> dict[str, Any]:
    """How records are fetched: the largest that is allowed, whole, and whatever is there without a long wait."""
    partition_size_bytes = max(_PARTITION_FETCH_SIZE_BYTES, settings.record_size_bytes_max + _ENVELOPE_BYTES)
    return {
        "fetch_min_bytes": 1,
        "fetch_max_wait_ms": 100,
        "fetch_max_bytes": _FETCH_SIZE_BYTES,
        "max_partition_fetch_bytes": partition_size_bytes,
        "metrics_enabled": False,
    }


@contextlib.contextmanager
def _fetch_errors(queue: KafkaQueue, library: Any) -> Iterator[None]:
    """What the library says of a fetch becomes LogweirError: OFFSETS_EXPIRED, QUEUE_DOWN."""
    try:
        yield
    except kafka.errors.OffsetOutOfRangeError as error:
        raise _expired(queue, library, *next(iter(error.args[0].items()))) from error
    except kafka.errors.LogTruncationError as error:
        place = next(iter(error.divergent_offsets))
        raise _expired(queue, library, place, library.position(place, timeout_ms=1000) or 0) from error
    except kafka.errors.KafkaError as error:
        raise queue.down(f"{type(error).__name__}: {error}") from error


def _expired(queue: KafkaQueue, library: Any, place: Any, offset: int) -> LogweirError:
    with queue.errors():
        earliest, latest = _ends(library, [place])[place]
    numbers = {"partition": place.partition, "offset": offset, "offset_earliest": earliest, "offset_latest": latest}
    return LogweirError(OFFSETS_EXPIRED, topic=queue.topic, **numbers)


def _deliveries(batches: Mapping[Any, Any]) -> list[Delivery]:
    return [
        # A tombstone, which is none of ours, has no value.
        Delivery(place.partition, record.offset, record.timestamp, record.value or b"")
        for place, records in batches.items()
        for record in records
    ]


class _Backlog:
    """How far each partition's commits are behind; asks the broker at most every _ENDS_AGE_S_MAX seconds."""

    def __init__(self) -> None:
        self._committed: dict[int, int] = {}
        self._ends: dict[int, tuple[int, int]] = {}
        self._ends_s = float("-inf")

    def committed(self, offsets: Mapping[int, int]) -> None:
        self._committed.update(offsets)

    def forget(self, partitions: Collection[int]) -> None:
        for partition in partitions:
            self._committed.pop(partition, None)
            self._ends.pop(partition, None)

    def unread(self, library: Any, places: list[Any]) -> dict[int, int]:
        if time.monotonic() - self._ends_s > _ENDS_AGE_S_MAX or not self._ends.keys() >= {p.partition for p in places}:
            self._ends = {place.partition: ends for place, ends in _ends(library, places).items()}
            self._ends_s = time.monotonic()
        return {place.partition: self._unread_of(place.partition) for place in places}

    def _unread_of(self, partition: int) -> int:
        earliest, latest = self._ends[partition]
        return max(0, latest - max(self._committed.get(partition, earliest), earliest))


def _ends(library: Any, places: list[Any]) -> dict[Any, tuple[int, int]]:
    """Of each partition the earliest offset held and the next to be written."""
    timeout_ms = int(_REQUEST_TIMEOUT_S * 1000)
    earliest = library.beginning_offsets(places, timeout_ms=timeout_ms)
    latest = library.end_offsets(places, timeout_ms=timeout_ms)
    return {place: (earliest[place], latest[place]) for place in places}
