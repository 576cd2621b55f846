"""Records into the topic: acknowledged by all replicas, in order, through outages of any length.

What was read in the library's source, and why things are as they are here:

* An idempotent producer is stuck for good after one delivery that timed out, so deliveries never do; the buffer is
  bounded here, and who waits for a confirmation has a deadline of its own.
* A send waits for metadata for up to ``max_block_ms``: that is set to nothing as soon as the topic is known.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import kafka
import kafka.admin
import kafka.errors

from logweir.config import MEBIBYTE, QueueSettings
from logweir.errors import (
    QUEUE_RECORD_TOO_LARGE,
    LogweirError,
)
from logweir.queue.kafka.connection import CONNECT_TIMEOUT_S, ENVELOPE_BYTES, Connection
from logweir.queue.port import Done

log = logging.getLogger(__name__)

_REOPEN_INTERVAL_S = 1.0
_WATCH_INTERVAL_S = 2.0
# Ten days: longer than any outage that a door lives through, and within what select() takes.
_DELIVERY_TIMEOUT_MS = 10 * 24 * 3_600_000
_RECORD_OVERHEAD_BYTES = 500
_REQUEST_SIZE_BYTES = 8 * MEBIBYTE


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

    def __init__(self, connection: Connection, settings: QueueSettings) -> None:
        self._connection = connection
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
                    future = library.send(self._connection.topic, value=payload, partition=partition)
                except (kafka.errors.KafkaError, ValueError) as error:
                    if self._withdraw(waiting):
                        raise self._connection.down(f"{type(error).__name__}: {error}") from error
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
        self._fail_all(self._connection.down(f"the producer was closed after {timeout_s} s"))
        self._late.put(None)
        self._keeper.join(CONNECT_TIMEOUT_S + _REOPEN_INTERVAL_S)

    def _open(self) -> Any:
        batch_size_bytes = self._settings.record_size_bytes_max + ENVELOPE_BYTES
        library, self._client = self._connection.opened(
            kafka.KafkaProducer,
            acks="all",
            enable_idempotence=True,
            delivery_timeout_ms=_DELIVERY_TIMEOUT_MS,
            linger_ms=0,
            batch_size=batch_size_bytes,
            max_request_size=max(_REQUEST_SIZE_BYTES, batch_size_bytes),
            max_block_ms=int(CONNECT_TIMEOUT_S * 1000),
            metrics_enabled=False,
        )
        try:
            with self._connection.errors():
                library.partitions_for(self._connection.topic)
        except LogweirError as error:
            _close_by_force(library)
            raise self._connection.down(f"it does not know the topic {self._connection.topic}") from error
        library.config["max_block_ms"] = 0
        return library

    def _enter(self, waiting: _Waiting) -> Any:
        """Put the record among the pending ones and give the library's producer that is to take it."""
        with self._changed:
            if self._closed.is_set():
                raise self._connection.down("this producer is closed")
            if self._kafka is None:
                raise self._down or self._connection.down("this producer is closed")
            if self._size_bytes + waiting.size_bytes > self._settings.buffer_size_bytes_max:
                raise self._connection.down(
                    f"{self._size_bytes} bytes wait for it already (queue.buffer_size_bytes_max)"
                )
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
                    say("%s %s", self._connection.url, "cannot be reached" if down else "is reached again")
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
            self._down = self._connection.down(f"{type(error).__name__}: {error}")
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
