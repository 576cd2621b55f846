"""One partition's records out of the spool: to the queue's producer in order, forgotten when it has confirmed them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from logweir.config import MEBIBYTE
from logweir.errors import LogweirError
from logweir.queue.port import Producer
from logweir_ingest.delivery.link import QueueLink
from logweir_ingest.spool.spool import Spool

# At most so much of one partition's spool is in the producer at a time; an outage keeps it there.
_WINDOW_RECORDS = 64
_TURN_RECORDS = 16
_WINDOW_SIZE_BYTES = MEBIBYTE
_RETRY_S = 0.2


class Drain:
    """``forget`` and ``hand_over`` are for the spool's thread; the rest is asked with the lock, which is the owner's.

    ``outstanding``: records that the producer has, and has not settled since ``outstanding_since_s``. ``confirmed``:
    those that the spool may forget. ``has_failed``: from some record on they are to be handed over again.
    ``is_behind``: processes before the reload have left records that another process holds still; nothing goes out.

    ``forwarded(size_bytes)`` and ``failed(error)``, where there is one, are called with the lock.
    """

    def __init__(
        self,
        partition: int,
        spool: Spool,
        link: QueueLink,
        lock: AbstractContextManager[object],
        *,
        forwarded: Callable[[int], None],
        failed: Callable[[LogweirError | None], None],
    ) -> None:
        self._partition = partition
        self.outstanding = 0
        self.outstanding_since_s = 0.0
        self.confirmed = 0
        self.has_failed = False
        self.is_behind = False
        self._spool = spool
        self._link = link
        self._lock = lock
        self._forwarded = forwarded
        self._failed = failed
        self._outstanding_bytes = 0
        self._producer: Producer | None = None
        self._retry_s = 0.0

    @property
    def may_begin(self) -> bool:
        """Whether it would hand something over, and the producer has nothing yet whose end would make it."""
        return not self.outstanding and self._may_go_on()

    def _may_go_on(self) -> bool:
        return not self.is_behind and self._retry_s <= time.monotonic() and self._link.producer is not None

    def pause(self, pause_s: float) -> None:
        self._retry_s = time.monotonic() + pause_s

    def forget(self) -> int:
        """Have the spool forget what is confirmed; gives how many records."""
        with self._lock:
            confirmed, self.confirmed = self.confirmed, 0
            rewind = self.has_failed and not self.outstanding
            self.has_failed = self.has_failed and not rewind
        for _ in range(confirmed):
            self._spool.forwarded(self._partition)
        if rewind:
            self._spool.rewind(self._partition)
        return confirmed

    def hand_over(self) -> None:
        """A few records more, as far as the producer may have them. Raises OSError for what cannot be read."""
        # A few at a time: senders wait for their own records to be written.
        for _ in range(_TURN_RECORDS):
            if not self._has_room() or (payload := self._spool.read(self._partition)) is None:
                break
            self._send(payload)

    def _has_room(self) -> bool:
        return (
            not self.has_failed
            and self._may_go_on()
            and self.outstanding < _WINDOW_RECORDS
            and self._outstanding_bytes < _WINDOW_SIZE_BYTES
            # Confirmations are in order of one producer only, and the spool forgets in that order.
            and (not self.outstanding or self._producer is self._link.producer)
        )

    def _send(self, payload: bytes) -> None:
        size_bytes = len(payload)
        with self._lock:
            producer = self._link.producer
            if self.has_failed or (self.outstanding and self._producer is not producer):
                # It would overtake what is to be handed over again.
                self.has_failed = True
                self._failed(None)
                return
            if not self.outstanding:
                self.outstanding_since_s, self._producer = time.monotonic(), producer
            self.outstanding += 1
            self._outstanding_bytes += size_bytes
            if producer is None:
                self._not_forwarded(size_bytes, None)
                return
            try:
                producer.send(self._partition, payload, lambda error: self._settled(size_bytes, error))
            except LogweirError as error:
                self._not_forwarded(size_bytes, error)

    def _settled(self, size_bytes: int, error: LogweirError | None) -> None:
        """The producer's word."""
        with self._lock:
            if error is not None:
                self._not_forwarded(size_bytes, error)
                return
            self.outstanding -= 1
            self._outstanding_bytes -= size_bytes
            self.outstanding_since_s = time.monotonic()
            # Behind one that failed it is handed over again, to keep the order.
            self.confirmed += not self.has_failed
            self._forwarded(size_bytes)

    def _not_forwarded(self, size_bytes: int, error: LogweirError | None) -> None:
        self.outstanding -= 1
        self._outstanding_bytes -= size_bytes
        self.has_failed = True
        self.pause(_RETRY_S)
        self._failed(error)
