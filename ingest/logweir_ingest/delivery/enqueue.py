"""A record's way to where it is safe: into the queue; when that does not take it in time, onto this machine's disk.

Each partition has a route (``route.py``), straight to the queue or through the spool, and every record of a partition
goes behind the ones before it. What is to be written to the spool waits in ``spool_writer.py``; one thread writes and
forwards it (``spool_thread.py``, ``forwarder.py``). ``callbacks.py`` says who tells the senders.

A record that was late may be in the queue twice, from the producer and from the spool. It is the same record, with the
same numbers; readers know it by them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from logweir.clock import now_us
from logweir.config import Settings, shown_url
from logweir.errors import LogweirError
from logweir.queue.port import Queue
from logweir_ingest.delivery.acceptance import Acceptance
from logweir_ingest.delivery.callbacks import Callbacks
from logweir_ingest.delivery.link import QueueLink
from logweir_ingest.delivery.other_processes import OtherProcesses
from logweir_ingest.delivery.pending import PendingRecord
from logweir_ingest.delivery.process_ends import ProcessEnds
from logweir_ingest.delivery.queue_health import QueueHealth
from logweir_ingest.delivery.report import Confirmed
from logweir_ingest.delivery.route import PartitionRoute
from logweir_ingest.delivery.spool_disk import SpoolDisk
from logweir_ingest.delivery.spool_thread import SpoolThread
from logweir_ingest.delivery.spool_writer import SpoolWriter
from logweir_ingest.delivery.telemetry import Telemetry
from logweir_ingest.spool.budget import SpoolBudget
from logweir_ingest.spool.generation import Generation
from logweir_ingest.spool.known_partitions import KnownPartitions
from logweir_ingest.spool.spool import SEGMENT_SIZE_BYTES_MAX, Spool

log = logging.getLogger(__name__)

# A full spool has room again when the first segment is through.
_SEGMENTS_MIN = 16
# Who was refused is told within moments, unless a sender's callback hangs.
_CALLBACKS_S_MAX = 1.0


class Enqueuer:
    """Safe to use from several threads; calls back on threads that hold no lock of its own.

    ``is_open``: the number of partitions is known, and records are taken.
    """

    def __init__(
        self,
        link: QueueLink,
        spool: Spool,
        budget: SpoolBudget,
        *,
        ingest_epoch: bytes,
        known_partitions: KnownPartitions,
        queue_timeout_s: float,
    ) -> None:
        self.is_open = False
        self._link = link
        self._spool = spool
        self._budget = budget
        self._ingest_epoch = ingest_epoch
        self._known_partitions = known_partitions
        self._queue_timeout_s = queue_timeout_s
        # Its lock is around the state of all partitions. Notified when the spool's thread has something to do.
        self._changed = threading.Condition(threading.RLock())
        self._telemetry = Telemetry()
        self.acceptance = Acceptance(budget)
        self._callbacks = Callbacks(self.acceptance.note)
        self._health = QueueHealth(link)
        self._disk = SpoolDisk(spool, self._telemetry, mended=self.acceptance.forget)
        self._writer = SpoolWriter(spool, budget, self._disk, self._telemetry, self._changed)
        self._routes: list[PartitionRoute] = []
        self._spool_thread: SpoolThread | None = None
        self._opened: Callable[[int], None] = lambda _: None

    # --- start -----------------------------------------------------------------------------------------------------
    def start(self, opened: Callable[[int], None]) -> None:
        """Connect in the background. ``opened`` gets the number of partitions as soon as it is known: then send."""
        self._opened = opened
        partitions = self._known_partitions.count()
        if partitions is not None:
            self._open(partitions)
        self._link.start(self._connected)

    def _open(self, partitions: int) -> None:
        self._routes = [self._route(partition) for partition in range(partitions)]
        others = OtherProcesses(
            self._spool,
            self._budget,
            self._disk,
            self._routes,
            ends=ProcessEnds(self.send, by=self._ingest_epoch, clock=now_us),
            known_partitions=self._known_partitions,
        )
        self._spool_thread = SpoolThread(
            self._spool,
            self._routes,
            writer=self._writer,
            disk=self._disk,
            others=others,
            budget=self._budget,
            callbacks=self._callbacks,
            telemetry=self._telemetry,
            changed=self._changed,
            is_needed=lambda: self._link.producer is None or self._health.is_suspect,
        )
        others.start()
        self._callbacks.start()
        self._spool_thread.start()
        self._opened(partitions)
        self.is_open = True

    def _route(self, partition: int) -> PartitionRoute:
        return PartitionRoute(
            partition,
            self._spool.partition(partition),
            link=self._link,
            health=self._health,
            budget=self._budget,
            writer=self._writer,
            callbacks=self._callbacks,
            telemetry=self._telemetry,
            changed=self._changed,
        )

    def _connected(self) -> None:
        partitions = self._link.partitions
        if self._known_partitions.count() != partitions:
            try:
                self._known_partitions.remember(partitions)
            except OSError as error:
                self._disk.failed(error)
        if not self.is_open:
            self._open(partitions)
        if partitions != len(self._routes):
            log.warning(
                "The topic has %d partitions and had %d when it was last reached; start this door again to use them.",
                partitions,
                len(self._routes),
            )
        with self._changed:
            self._health.is_suspect = False
            for route in self._routes:
                route.send_waiting()
            self._changed.notify()

    # --- in --------------------------------------------------------------------------------------------------------
    @property
    def reason(self) -> str:
        """Why it is not open."""
        return self._link.reason

    @property
    def is_connected(self) -> bool:
        """Whether there is a producer: without one, records wait, and then go to the spool."""
        return self._link.producer is not None

    @property
    def partition_count(self) -> int:
        """0 until it is known."""
        return len(self._routes)

    def is_spooling(self, partition: int) -> bool:
        """Whether a record would go to the spool now."""
        return self._routes[partition].is_spooling

    def send(self, partition: int, payload: bytes, confirmed: Confirmed, *, is_reserved: bool = False) -> None:
        """Take a record; ``confirmed`` is told what became of it, of records of one partition in no certain order.

        ``is_reserved``: it fits into what the caller reserved of the spool. Raises LogweirError when the record was
        not taken: QUEUE_RECORD_TOO_LARGE; SPOOL_FULL, SPOOL_FAILED when it would have to go to the spool.
        """
        try:
            self._routes[partition].send(PendingRecord(partition, payload, confirmed, time.monotonic(), is_reserved))
        except LogweirError as error:
            self.acceptance.note(error)
            raise

    def reserve(self, size_bytes: int) -> None:
        """Keep room in the spool free, for records that must all be taken or none. Raises LogweirError(SPOOL_FULL)."""
        self._budget.reserve(size_bytes)

    def release(self, size_bytes: int) -> None:
        self._budget.release(size_bytes)

    # --- looked after ----------------------------------------------------------------------------------------------
    def tick(self) -> None:
        """Divert to the spool what the queue has not confirmed in time; call some twenty times a second."""
        now_s = time.monotonic()
        producer = self._link.producer
        with self._changed:
            self._divert_late(now_s)
            if self._health.is_suspect and producer is not None and not producer.fill():
                self._health.is_suspect = False  # Nothing is left that could be confirmed: the next record shows.
            self._telemetry.spooling(any(route.is_spooling for route in self._routes), now_s)
            in_flight = [route.forwarder.in_flight_since_s for route in self._routes if route.forwarder.in_flight]
            self._health.replace_if_stuck(min(in_flight, default=now_s), now_s)
        self._telemetry.fill(producer.fill() if producer is not None else 0.0, self._budget)

    def _divert_late(self, now_s: float) -> None:
        waiting = [(since_s, route) for route in self._routes if (since_s := route.unconfirmed_since_s) is not None]
        late = [(since_s, route) for since_s, route in waiting if since_s + self._queue_timeout_s <= now_s]
        if any(since_s > self._health.confirmed_s for since_s, _ in late):
            # Nothing at all was confirmed since then: nobody else is to wait for that to show.
            self._health.is_suspect = True
            late = waiting
        for _, route in late:
            route.divert_to_spool()

    def unready(self) -> str | None:
        """Why neither queue nor spool can take records, or None."""
        if not self.is_open:
            return self._link.reason
        with self._changed:
            producer = self._link.producer
            is_straight = (
                producer is not None and not all(route.is_spooling for route in self._routes) and producer.fill() < 1
            )
        if not is_straight and self._disk.is_failing:
            return "the queue does not confirm records, and the spool cannot be written"
        if not is_straight and self._budget.is_full:
            return "the queue does not confirm records, and the spool is full"
        # A queue that looks well may take none of them, as one on a full disk.
        return self.acceptance.why_refused()

    # --- stop ------------------------------------------------------------------------------------------------------
    def stop(self, timeout_s: float, *, is_complete: bool) -> None:
        """Confirm what was sent, and empty the spool if the queue confirms, for at most about ``timeout_s`` seconds.

        What is not confirmed then is in the spool, for the next process. ``is_complete``: all markers were sent, and
        are somewhere; else the next process has to announce that this one has ended.
        """
        end_s = time.monotonic() + timeout_s
        while self._is_busy() and time.monotonic() < end_s:
            self.tick()
            time.sleep(0.01)
        self._link.stop(0)
        if self._spool_thread is None:
            return
        # While the disk hangs, its records are still to be confirmed.
        if self._spool_thread.stop(max(1.0, end_s - time.monotonic()), is_complete=is_complete):
            self._callbacks.stop(_CALLBACKS_S_MAX)

    def _is_busy(self) -> bool:
        with self._changed:
            return any(route.is_busy for route in self._routes)


def open_enqueuer(settings: Settings, queue: Queue, *, ingest_epoch: bytes, generation: Generation) -> Enqueuer:
    """The way of one process's records, with its own part of the spool in the data folder."""
    ingest = settings.ingest
    budget = SpoolBudget(ingest.spool_size_bytes_max, processes=ingest.processes)
    # Ordered by when the processes began: what the older ones left is forwarded first.
    spool = Spool(
        settings.spool_path,
        name=f"{now_us():017}-{ingest_epoch.hex()}",
        generation=generation,
        segment_size_bytes=min(SEGMENT_SIZE_BYTES_MAX, budget.share_bytes // _SEGMENTS_MIN),
    )
    return Enqueuer(
        QueueLink(queue),
        spool,
        budget,
        ingest_epoch=ingest_epoch,
        known_partitions=KnownPartitions(settings.spool_path, shown_url(settings.queue.url)),
        queue_timeout_s=ingest.queue_timeout_s,
    )
