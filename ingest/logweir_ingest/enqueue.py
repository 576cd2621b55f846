"""The way into the queue: connects in the background, hands records over, and says how it stands."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from logweir import metrics
from logweir.errors import QUEUE_DOWN, QUEUE_UNAVAILABLE, LogweirError
from logweir.queue import Done, Producer, Queue

log = logging.getLogger(__name__)

_RETRY_S_MIN = 0.2
_RETRY_S_MAX = 5.0
# A failure makes the door unready for so long; then it is asked for events again, and shows whether it can take them.
_FAILURE_S = 5.0


class QueueLink:
    """One process's producer, from before there is one until after its end. Safe to use from several threads."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._producer: Producer | None = None
        self._stopped = threading.Event()
        self._reason = "it is not connected yet"
        self._failed_s = float("-inf")
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._confirm_seconds = metrics.get("logweir_ingest_record_confirm_seconds")
        self._fill_ratio = metrics.get("logweir_ingest_queue_fill_ratio")

    def start(self, connected: Callable[[int], None]) -> None:
        """Connect, again and again until it works; then call ``connected`` with the number of partitions."""
        self._thread = threading.Thread(target=self._connect, args=(connected,), name="queue-link", daemon=True)
        self._thread.start()

    def _connect(self, connected: Callable[[int], None]) -> None:
        wait_s, said = _RETRY_S_MIN, ""
        while not self._stopped.is_set():
            try:
                self._queue.prepare()
                partitions = self._queue.partition_count()
                producer = self._queue.producer()
            except LogweirError as error:
                self._reason = error.detail
                if error.problem.code != said:
                    log.error("No event is accepted: %s Trying on.", error)
                    said = error.problem.code
            else:
                self._hand_over(producer, partitions, connected)
                if said:
                    log.info("The queue answers; events are accepted.")
                return
            self._stopped.wait(wait_s)
            wait_s = min(wait_s * 2, _RETRY_S_MAX)

    def _hand_over(self, producer: Producer, partitions: int, connected: Callable[[int], None]) -> None:
        connected(partitions)
        with self._lock:
            stopped = self._stopped.is_set()
            self._producer = None if stopped else producer
        if stopped:
            producer.close(0)

    @property
    def connected(self) -> bool:
        return self._producer is not None

    @property
    def reason(self) -> str:
        """Why there is no connection."""
        return self._reason

    def send(self, partition: int, payload: bytes, done: Done) -> None:
        """As the port's ``send``. Raises LogweirError(QUEUE_UNAVAILABLE) when the queue cannot take it now."""
        producer = self._producer
        if producer is None:
            raise LogweirError(QUEUE_UNAVAILABLE, reason=self._reason)
        sent_s = time.monotonic()

        def settled(error: LogweirError | None) -> None:
            self._settled(sent_s, error)
            done(error)

        try:
            producer.send(partition, payload, settled)
        except LogweirError as error:
            with self._lock:
                self._failed_s = time.monotonic()
            if error.problem is QUEUE_DOWN:
                raise LogweirError(QUEUE_UNAVAILABLE, reason=error.numbers.get("reason", error)) from error
            raise

    def _settled(self, sent_s: float, error: LogweirError | None) -> None:
        now_s = time.monotonic()
        with self._lock:
            failed_before = self._failed_s > float("-inf")
            self._failed_s = float("-inf") if error is None else now_s
        self._confirm_seconds.observe(now_s - sent_s)
        if error is not None and not failed_before:
            log.error("The queue fails: %s", error)
        elif error is None and failed_before:
            log.info("The queue confirms records again.")

    def unready(self) -> str | None:
        """Why the queue cannot take events, or None when it can. Costs no round trip."""
        producer = self._producer
        if producer is None:
            return self._reason
        if producer.fill() >= 1.0:
            return "its buffer is full"
        with self._lock:
            if time.monotonic() - self._failed_s < _FAILURE_S:
                return "its last answer was a failure"
        return None

    def tick(self) -> None:
        """Say the buffer's fill; call about once a second."""
        producer = self._producer
        if producer is not None:
            self._fill_ratio.set(producer.fill())

    def stop(self, timeout_s: float) -> None:
        """Confirm what was sent, for at most ``timeout_s`` seconds, and let go of the queue."""
        with self._lock:
            self._stopped.set()
            producer = self._producer
        if producer is not None:
            producer.close(timeout_s)
        if self._thread is not None:
            self._thread.join(max(timeout_s, 0.1))
            if self._thread.is_alive():
                return  # It hangs in a connection attempt: it is a daemon and ends with the process.
        self._queue.close()
