"""The last word of a process that did not live to say it: that nothing more of it comes.

A door ends each of its minutes with a marker. One that is killed leaves its last minute without. Its successor finds
its spool, brings what is in there into the queue, and then says in every partition that this was all.
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
from logweir_ingest.delivery.outcome import Result, Settled

log = logging.getLogger(__name__)


class LastWords:
    """``send`` takes a partition, a record and whom to tell of it, and may raise LogweirError."""

    def __init__(self, send: Callable[[int, bytes, Settled], None], *, by: bytes, clock: Clock) -> None:
        self._send = send
        self._by = by
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: set[tuple[bytes, int]] = set()
        self._said: set[tuple[bytes, int]] = set()
        self._records = registry.get("logweir_ingest_records_total").labels("gone")

    def say(self, ingest_epoch: bytes, partitions: int) -> bool:
        """Say of that process that it is gone, where that is not said yet; True when it is in every partition.

        To be called again until then, by one thread.
        """
        places = {(ingest_epoch, partition) for partition in range(partitions)}
        with self._lock:
            if places <= self._said:
                self._said -= places
                log.info("The process %s is gone; all that it had accepted is in the queue.", ingest_epoch.hex())
                return True
            due = sorted(places - self._said - self._under_way)
            self._under_way.update(due)
        for at, place in enumerate(due):
            try:
                self._send(place[1], self._payload(ingest_epoch), partial(self._settled, place))
            except LogweirError:
                with self._lock:
                    self._under_way.difference_update(due[at:])
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

    def _settled(self, place: tuple[bytes, int], result: Result) -> None:
        with self._lock:
            self._under_way.discard(place)
            if not isinstance(result, LogweirError):
                self._said.add(place)
                self._records.inc()
