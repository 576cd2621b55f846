"""A canary: a record that this process sends every few seconds, to each partition in turn, for the worker to send back.

It carries no event and takes no number, so no book knows of it. It goes the way of events as far as the queue and,
through a worker, into the store's ledger: when it comes back no more, neither would an event.
"""

from __future__ import annotations

import time

from logweir import record
from logweir.clock import Clock, window_of
from logweir.errors import LogweirError
from logweir.metrics import registry
from logweir.record import Batch
from logweir_ingest.delivery.enqueue import Enqueuer
from logweir_ingest.delivery.report import QUEUE, DeliveryReport


class Canary:
    """``tick`` is to be called a few times a second, by one thread. ``interval_s`` 0: none are sent."""

    def __init__(self, enqueuer: Enqueuer, *, ingest_epoch: bytes, clock: Clock, interval_s: float) -> None:
        self._enqueuer = enqueuer
        self._ingest_epoch = ingest_epoch
        self._clock = clock
        self._interval_s = interval_s
        self._due_s = time.monotonic() + interval_s
        self._number = 0
        self._sent = registry.get("logweir_canary_sent_total")
        self._sent_at = registry.get("logweir_canary_sent_timestamp_seconds")
        self._in_queue = registry.get("logweir_ingest_records_total").labels("canary")

    def tick(self) -> None:
        """Send the next one if it is due; one that cannot be sent is counted as sent, and does not come back."""
        now_s = time.monotonic()
        if not self._interval_s or now_s < self._due_s:
            return
        self._due_s = now_s + self._interval_s
        self._number += 1
        self._sent.inc()
        # By the name that the exporter has for this process; no series of one that sends none.
        self._sent_at.labels(self._ingest_epoch.hex()[:12]).set(self._clock() / 1e6)
        partitions = self._enqueuer.partition_count
        if not partitions:
            return
        # Doors that start together should not all begin with partition 0.
        partition = (self._ingest_epoch[0] + self._number) % partitions
        # What waits for the queue on this machine's disk is for events.
        if not self._enqueuer.is_spooling(partition):
            try:
                self._enqueuer.send(partition, self._payload(), self._on_confirmed)
            except LogweirError:
                return

    def _payload(self) -> bytes:
        now_us, epoch = self._clock(), self._ingest_epoch.hex()
        batch = Batch(
            self._ingest_epoch, now_us, "", None, epoch, None, self._number, None, None, False, "", "", None, 0, []
        )
        return record.encode(
            record.Kind.CANARY,
            ingest_epoch=self._ingest_epoch,
            first=1,
            count=0,
            window=window_of(now_us),
            body=[batch],
        )

    def _on_confirmed(self, result: DeliveryReport) -> None:
        if result == QUEUE:
            self._in_queue.inc()
