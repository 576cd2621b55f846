"""Which way the records of one partition go: straight to the queue's producer, or through the spool.

*Straight*: the producer confirms them in order. When one is not confirmed in time, or fails, all that are not confirmed
yet are *diverted* to the spool, and the partition with them: whatever comes later follows through the spool, so that
the order stays. When the last spooled record is handed to the producer, the partition *returns* to the straight way:
the producer keeps the order.

After a reload the processes of before may have records of the partition in the spool still. Until those are forwarded,
by them or by who adopts them, it is *held back*: records are only added to the spool, and nothing is sent, neither way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from logweir.errors import QUEUE_RECORD_TOO_LARGE, LogweirError
from logweir_ingest.delivery.callbacks import Callbacks
from logweir_ingest.delivery.forwarder import PartitionForwarder
from logweir_ingest.delivery.link import QueueLink
from logweir_ingest.delivery.pending import PendingRecord
from logweir_ingest.delivery.queue_health import QueueHealth
from logweir_ingest.delivery.report import QUEUE
from logweir_ingest.delivery.spool_writer import SpoolWriter
from logweir_ingest.delivery.telemetry import Telemetry
from logweir_ingest.spool.budget import SpoolBudget
from logweir_ingest.spool.partition import PartitionSpool

log = logging.getLogger(__name__)


class PartitionRoute:
    """Its methods take the lock of ``changed``, which all partitions share, where they need it."""

    def __init__(
        self,
        partition: int,
        spool: PartitionSpool,
        *,
        link: QueueLink,
        health: QueueHealth,
        budget: SpoolBudget,
        writer: SpoolWriter,
        callbacks: Callbacks,
        telemetry: Telemetry,
        changed: threading.Condition,
    ) -> None:
        self.partition = partition
        self._link = link
        self._health = health
        self._writer = writer
        self._callbacks = callbacks
        self._telemetry = telemetry
        self._changed = changed
        # What went straight and is not confirmed yet, the oldest first; at the end, what waits for the first producer.
        self._unconfirmed: deque[PendingRecord] = deque()
        self._is_spooling = False
        self.forwarder = PartitionForwarder(
            partition,
            spool,
            link=link,
            health=health,
            budget=budget,
            telemetry=telemetry,
            changed=changed,
            failed=self.divert_to_spool,
        )

    @property
    def is_spooling(self) -> bool:
        """Whether a record would go to the spool now."""
        return self._health.is_suspect or self._is_spooling

    @property
    def is_reachable(self) -> bool:
        """Whether the topic has this partition: one that was made anew may have fewer than before."""
        return not self._link.partitions or self.partition < self._link.partitions

    @property
    def unconfirmed_since_s(self) -> float | None:
        """When the oldest record was sent that went straight and is not confirmed yet; None when there is none."""
        return self._unconfirmed[0].sent_s if self._unconfirmed else None

    @property
    def has_work(self) -> bool:
        """Whether the spool's thread has something to forward, or to remove."""
        return self.is_reachable and (self.forwarder.has_confirmed or (self._is_spooling and self.forwarder.may_begin))

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way to the disk, or to a queue that confirms."""
        return self.is_reachable and bool(
            self._unconfirmed
            or self._writer.is_writing(self.partition)
            or (not self._health.is_suspect and (self._is_spooling or self.forwarder.in_flight))
        )

    # --- straight --------------------------------------------------------------------------------------------------
    def send(self, record: PendingRecord) -> None:
        """Raises LogweirError when the record was not taken: as ``Enqueuer.send``."""
        with self._changed:
            if not self.is_spooling:
                # Behind one that waits for the first producer: ``send_waiting`` sends both.
                is_behind = bool(self._unconfirmed) and not self._unconfirmed[-1].is_in_producer
                self._unconfirmed.append(record)
                if is_behind or self._link.producer is None or self._produce(record):
                    return
                self._unconfirmed.pop()
                self.divert_to_spool()
            self._append(record)

    def send_waiting(self) -> None:
        """Give to the first producer what was taken before there was one."""
        with self._changed:
            for record in [record for record in self._unconfirmed if not record.is_in_producer]:
                try:
                    if not self._produce(record):
                        self.divert_to_spool()
                        return
                except LogweirError as error:
                    self._callbacks.call_soon(record, error)

    def _produce(self, record: PendingRecord) -> bool:
        """Give it to the producer; False when that does not take it. Raises LogweirError(QUEUE_RECORD_TOO_LARGE)."""
        producer = self._link.producer
        if producer is None or not self.is_reachable:
            return False
        record.is_in_producer = True
        try:
            producer.send(self.partition, record.payload, lambda error: self._produced(record, error))
        except LogweirError as error:
            if error.problem is QUEUE_RECORD_TOO_LARGE:
                self._unconfirmed.remove(record)
                raise
            return False
        except Exception:  # Whether it was taken or not: in the spool it is safe, and known by its numbers.
            log.exception("The queue's producer failed")
            return False
        return True

    def _produced(self, record: PendingRecord, error: LogweirError | None) -> None:
        """The producer has confirmed or failed a record. One that is diverted by now is in the spool all the same."""
        now_s = time.monotonic()
        with self._changed:
            if error is None:
                self._health.confirmed(now_s)
                if record in self._unconfirmed:
                    self._unconfirmed.remove(record)
            elif record in self._unconfirmed:
                self.divert_to_spool()
        if error is None:
            self._telemetry.confirmed(now_s - record.sent_s)
            self._callbacks.call(record, QUEUE)

    # --- through the spool -----------------------------------------------------------------------------------------
    def divert_to_spool(self) -> None:
        """From now on through the spool, with all that is not confirmed. What that does not take is refused."""
        with self._changed:
            self._is_spooling = True
            unconfirmed, self._unconfirmed = self._unconfirmed, deque()
            for record in unconfirmed:
                try:
                    self._append(record)
                except LogweirError as error:
                    self._callbacks.call_soon(record, error)

    def _append(self, record: PendingRecord) -> None:
        self._writer.append(record)
        self._is_spooling = True

    def hold_back(self, is_held_back: bool) -> None:
        """Send nothing while there is something of before the reload that is to go first."""
        with self._changed:
            if is_held_back and not self.forwarder.is_held_back:
                self.divert_to_spool()
            self.forwarder.is_held_back = is_held_back

    def return_if_forwarded(self) -> None:
        """Straight again, if the producer has all of the spool: what comes is behind it. For the spool's thread."""
        with self._changed:
            forwarder = self.forwarder
            is_blocked = forwarder.has_failed or forwarder.is_held_back or self._link.producer is None
            if self._is_spooling and not is_blocked and not self._writer.is_writing(self.partition):
                self._is_spooling = forwarder.has_unread
