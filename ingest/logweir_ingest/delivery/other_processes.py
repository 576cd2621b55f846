"""What other processes of this machine keep in the same spool, and what this one owes to those that are gone.

What is there counts against the spool's bound. What a process left that is gone is adopted; when all of that is in the
queue, this process announces the other's end. What processes from before a reload have goes before what is sent now.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from logweir_ingest.delivery.process_ends import ProcessEnds
from logweir_ingest.delivery.route import PartitionRoute
from logweir_ingest.delivery.spool_disk import SpoolDisk
from logweir_ingest.spool.budget import SpoolBudget
from logweir_ingest.spool.known_partitions import KnownPartitions
from logweir_ingest.spool.spool import Spool

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
# Doors that start together make their folders one after the other; one that hangs holds up nobody.
_START_S_MAX = 0.3


class OtherProcesses:
    """For the spool's thread; ``start`` comes before that runs. ``routes`` are those of all partitions."""

    def __init__(
        self,
        spool: Spool,
        budget: SpoolBudget,
        disk: SpoolDisk,
        routes: Sequence[PartitionRoute],
        *,
        ends: ProcessEnds,
        known_partitions: KnownPartitions,
    ) -> None:
        self._spool = spool
        self._budget = budget
        self._disk = disk
        self._routes = routes
        self._ends = ends
        self._known_partitions = known_partitions
        self._look_s = 0.0

    def start(self) -> None:
        """Be seen by the others, and take over what there is, before anything is sent."""
        self._ensure_folder(wait_s_max=_START_S_MAX)
        self._adopt()
        self._hold_back()

    def look(self) -> None:
        """See whom to wait for; once a second, see what the others hold and adopt or announce what can be."""
        now_s = time.monotonic()
        if now_s >= self._look_s:
            self._look_s = now_s + _LOOK_EVERY_S
            self._budget.others_bytes = self._spool.others_size_bytes()
            self._budget.frees = self._spool.frees()
            self._ensure_folder(wait_s_max=0)
            if self._spool.has_others():
                self._adopt()
            self._announce_ended()
        self._hold_back()

    def _ensure_folder(self, *, wait_s_max: float) -> None:
        if self._disk.is_failing:
            return
        try:
            self._spool.ensure_folder(wait_s_max=wait_s_max)
        except BlockingIOError:
            return  # Another process is at the spool's lock. In a second again.
        except OSError as error:
            self._disk.failed(error)

    def _adopt(self) -> None:
        """Not under the lock while the disk is asked: senders and health do not wait for it."""
        adopted: set[int] = set()
        try:
            adopted = self._spool.adopt()
        except OSError as error:
            log.error("What other processes left in the spool cannot be adopted: %s", error)
        self._budget.held_bytes = self._spool.size_bytes
        for partition in adopted:
            if partition < len(self._routes):
                self._routes[partition].divert_to_spool()

    def _hold_back(self) -> None:
        held = self._spool.held_by_predecessors()
        for route in self._routes:
            route.hold_back(route.partition in held)

    def _announce_ended(self) -> None:
        ended = self._spool.ended()
        if not ended:
            return
        # Doors that were started since may have used more partitions than this one knows: then they have to do it.
        partitions = len(self._routes)
        if (self._known_partitions.count() or 0) > partitions or not all(route.is_reachable for route in self._routes):
            return
        for ingest_epoch in ended:
            if self._ends.announce(ingest_epoch, partitions):
                self._spool.forget(ingest_epoch)
