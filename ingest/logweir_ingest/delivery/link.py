"""The connection to the queue: made in the background, and made anew when it is stuck."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from logweir.errors import LogweirError
from logweir.queue.port import Producer, Queue

log = logging.getLogger(__name__)

_RETRY_S_MIN = 0.2
_RETRY_S_MAX = 5.0


class QueueLink:
    """One process's producer, from before there is one until after its end. Safe to use from several threads.

    ``partitions``: how many the topic has; 0 before the queue was reached.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.producer: Producer | None = None
        self.partitions = 0
        self.reason = "it is not connected yet"
        self._stopped = threading.Event()
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, connected: Callable[[], None]) -> None:
        """Connect, again and again until it works; call ``connected`` then, and whenever the producer is another."""
        self._wanted.set()
        self._thread = threading.Thread(target=self._run, args=(connected,), name="queue-link", daemon=True)
        self._thread.start()

    def replace(self) -> None:
        """Make another producer, soon; the one that is there goes as soon as the new one stands."""
        self._wanted.set()

    def _run(self, connected: Callable[[], None]) -> None:
        wait_s, said = _RETRY_S_MIN, ""
        while self._wanted.wait() and not self._stopped.is_set():
            try:
                producer = self._connect()
            except Exception as error:  # noqa: BLE001  The thread outlives it: nobody else would connect.
                self.reason = error.detail if isinstance(error, LogweirError) else repr(error)
                if self.reason != said:
                    log.error("There is no way into the queue: %s Trying on.", error)
                    said = self.reason
                self._stopped.wait(wait_s)
                wait_s = min(wait_s * 2, _RETRY_S_MAX)
                continue
            self._wanted.clear()
            self._install(producer)
            if said:
                log.info("The queue answers.")
            wait_s, said = _RETRY_S_MIN, ""
            connected()

    def _connect(self) -> Producer:
        self._queue.prepare()
        self.partitions = self._queue.partition_count()
        return self._queue.producer()

    def _install(self, producer: Producer) -> None:
        with self._lock:
            former, self.producer = self.producer, None
        # First: what the former still holds must have failed before anything goes to the next, or it is overtaken.
        if former is not None:
            former.close(0)
        with self._lock:
            if not self._stopped.is_set():
                self.producer = producer
                return
        producer.close(0)

    def stop(self, timeout_s: float) -> None:
        """Confirm what was sent, for at most ``timeout_s`` seconds, and let go of the queue."""
        with self._lock:
            self._stopped.set()
            producer = self.producer
        self._wanted.set()
        if producer is not None:
            producer.close(timeout_s)
        if self._thread is not None:
            self._thread.join(max(timeout_s, 0.1))
            if self._thread.is_alive():
                return  # It hangs in a connection attempt: it is a daemon and ends with the process.
        self._queue.close()
