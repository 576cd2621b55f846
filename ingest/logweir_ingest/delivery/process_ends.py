"""The end of a process that was killed, announced in its place: that nothing more of it comes.

A door ends each of its minutes with a marker. One that is killed leaves its last minute without. Its successor finds
its spool, brings what is in there into the queue, and then announces in every partition that this was all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from logweir import record
from logweir.clock import Clock, window_of
from logweir.errors import LogweirError
from logweir.metrics import registry
from logweir.record import Gone
from logweir_ingest.delivery.report import Confirmed, DeliveryReport

log = logging.getLogger(__name__)


class ProcessEnds:
    """``send`` takes a partition, a record and whom to tell of it, and may raise LogweirError.

    ``by`` is the ingest epoch of the process that announces.
    """

    def __init__(self, send: Callable[[int, bytes, Confirmed], None], *, by: bytes, clock: Clock) -> None:
        self._send = send
        self._by = by
        self._clock = clock
        self._lock = threading.Lock()
        # (ingest epoch, partition) of the records that were sent and not confirmed yet, and of those that are durable.
        self._sent: set[tuple[bytes, int]] = set()
        self._durable: set[tuple[bytes, int]] = set()
        self._records = registry.get("logweir_ingest_records_total").labels("gone")

    def announce(self, ingest_epoch: bytes, partitions: int) -> bool:
        """Announce the end of that process where it is not announced yet; True when that is in every partition.

        To be called again until then, by one thread.
        """
        places = {(ingest_epoch, partition) for partition in range(partitions)}
        with self._lock:
            if places <= self._durable:
                self._durable -= places
                log.info("The process %s is gone; all that it had accepted is in the queue.", ingest_epoch.hex())
                return True
            due = sorted(places - self._durable - self._sent)
            self._sent.update(due)
        for at, place in enumerate(due):
            try:
                self._send(place[1], self._payload(ingest_epoch), partial(self._confirmed, place))
            except LogweirError:
                with self._lock:
                    self._sent.difference_update(due[at:])
                break
        return False

    def _payload(self, ingest_epoch: bytes) -> bytes:
        now_us = self._clock()
        return record.encode(
            record.Kind.GONE,
            ingest_epoch=ingest_epoch,
            first=1,
            count=0,
            window=window_of(now_us),
            body=Gone(self._by, now_us),
        )

    def _confirmed(self, place: tuple[bytes, int], report: DeliveryReport) -> None:
        with self._lock:
            self._sent.discard(place)
            if not isinstance(report, LogweirError):
                self._durable.add(place)
                self._records.inc()
