"""One partition's records out of the spool: to the queue's producer in order, removed when it has confirmed them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from logweir.config import MEBIBYTE
from logweir.errors import QUEUE_DOWN, LogweirError
from logweir.queue.port import Producer
from logweir_ingest.delivery.link import QueueLink
from logweir_ingest.delivery.queue_health import QueueHealth
from logweir_ingest.delivery.telemetry import Telemetry
from logweir_ingest.spool.budget import SpoolBudget
from logweir_ingest.spool.partition import PartitionSpool

# At most so much of one partition's spool is in the producer at a time; an outage keeps it there.
_IN_FLIGHT_RECORDS_MAX = 64
_IN_FLIGHT_SIZE_BYTES_MAX = MEBIBYTE
# A few at a time: senders wait for their own records to be written.
_TURN_RECORDS = 16
_RETRY_S = 0.2
# A segment that cannot be read.
_UNREADABLE_RETRY_S = 5.0


class PartitionForwarder:
    """``forward`` is for the spool's thread; the rest is asked with the lock, which is that of ``changed``.

    ``failed`` is called with the lock when a record was not forwarded: what was sent behind it must not overtake it.
    """

    def __init__(
        self,
        partition: int,
        spool: PartitionSpool,
        *,
        link: QueueLink,
        health: QueueHealth,
        budget: SpoolBudget,
        telemetry: Telemetry,
        changed: threading.Condition,
        failed: Callable[[], None],
    ) -> None:
        # Processes before the last reload have left records that another process holds still: nothing goes out.
        self.is_held_back = False
        # From some record on they are to be forwarded again.
        self.has_failed = False
        # Records that the producer has, and has confirmed none of since then.
        self.in_flight = 0
        self.in_flight_since_s = 0.0
        self._in_flight_bytes = 0
        # Records that are in the queue and still in the spool.
        self._confirmed = 0
        self._partition = partition
        self._spool = spool
        self._link = link
        self._health = health
        self._budget = budget
        self._telemetry = telemetry
        self._changed = changed
        self._failed = failed
        self._producer: Producer | None = None
        self._retry_s = 0.0

    @property
    def has_confirmed(self) -> bool:
        """Whether there is something to remove from the spool."""
        return self._confirmed > 0

    @property
    def may_begin(self) -> bool:
        """Whether it may forward, and has nothing in flight whose confirmation would make it go on."""
        return not self.in_flight and self._may_forward()

    @property
    def has_unread(self) -> bool:
        """Whether the spool has a record that the producer was not given. For the spool's thread."""
        return self._spool.has_unread()

    def _may_forward(self) -> bool:
        return not self.is_held_back and self._retry_s <= time.monotonic() and self._link.producer is not None

    def forward(self) -> None:
        """Remove what is confirmed; send a few records more, as many as may be in flight."""
        self._remove_confirmed()
        try:
            for _ in range(_TURN_RECORDS):
                if not self._has_room() or (payload := self._spool.read()) is None:
                    break
                self._send(payload)
        except OSError as error:
            # Of reading: what can be written is another matter.
            self._retry_s = time.monotonic() + _UNREADABLE_RETRY_S
            self._telemetry.disk_failures.inc()
            self._telemetry.unforwardable(self._partition, error)

    def _remove_confirmed(self) -> None:
        with self._changed:
            confirmed, self._confirmed = self._confirmed, 0
            rewind = self.has_failed and not self.in_flight
            self.has_failed = self.has_failed and not rewind
        for _ in range(confirmed):
            self._spool.forwarded()
        if rewind:
            self._spool.rewind()
        self._telemetry.forwarded.inc(confirmed)

    def _has_room(self) -> bool:
        return (
            not self.has_failed
            and self._may_forward()
            and self.in_flight < _IN_FLIGHT_RECORDS_MAX
            and self._in_flight_bytes < _IN_FLIGHT_SIZE_BYTES_MAX
            # Confirmations are in order of one producer only, and the spool removes in that order.
            and (not self.in_flight or self._producer is self._link.producer)
        )

    def _send(self, payload: bytes) -> None:
        size_bytes = len(payload)
        with self._changed:
            producer = self._link.producer
            if producer is None or self.has_failed or (self.in_flight and self._producer is not producer):
                # It would overtake what is to be forwarded again.
                self._fail(None)
                return
            if not self.in_flight:
                self.in_flight_since_s, self._producer = time.monotonic(), producer
            self.in_flight += 1
            self._in_flight_bytes += size_bytes
            try:
                producer.send(self._partition, payload, lambda error: self._sent(size_bytes, error))
            except LogweirError as error:
                self._sent(size_bytes, error)

    def _sent(self, size_bytes: int, error: LogweirError | None) -> None:
        """The producer has confirmed or failed a record, or not taken it."""
        now_s = time.monotonic()
        with self._changed:
            self.in_flight -= 1
            self._in_flight_bytes -= size_bytes
            if error is not None:
                self._retry_s = now_s + _RETRY_S
                self._fail(error)
                return
            self.in_flight_since_s = now_s
            # Behind one that failed it is forwarded again, to keep the order.
            self._confirmed += not self.has_failed
            self._health.confirmed(now_s)
            self._budget.forwarded(size_bytes)
            self._changed.notify()

    def _fail(self, error: LogweirError | None) -> None:
        self.has_failed = True
        self._failed()
        if error is not None and error.problem is not QUEUE_DOWN:
            self._telemetry.unforwardable(self._partition, error)
        self._changed.notify()
