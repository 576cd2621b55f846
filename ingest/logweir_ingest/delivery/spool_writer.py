"""Records on their way to this machine's disk."""

from __future__ import annotations

import threading
from collections import Counter, deque

from logweir.config import MEBIBYTE
from logweir_ingest.delivery.pending import PendingRecord
from logweir_ingest.delivery.report import SPOOL, DeliveryReport
from logweir_ingest.delivery.spool_disk import SpoolDisk
from logweir_ingest.delivery.telemetry import Telemetry
from logweir_ingest.spool.budget import SpoolBudget
from logweir_ingest.spool.segment import FRAME_OVERHEAD_BYTES
from logweir_ingest.spool.spool import Spool

_GROUP_SIZE_BYTES_MAX = 8 * MEBIBYTE


class SpoolWriter:
    """Takes records one by one, and writes many at a time.

    ``changed`` is around the state of all partitions, and notified when there is something to write.
    """

    def __init__(
        self, spool: Spool, budget: SpoolBudget, disk: SpoolDisk, telemetry: Telemetry, changed: threading.Condition
    ) -> None:
        self._spool = spool
        self._budget = budget
        self._disk = disk
        self._telemetry = telemetry
        self._changed = changed
        self._waiting: deque[PendingRecord] = deque()
        # Of each partition, how many records wait or are being written.
        self._unwritten: Counter[int] = Counter()

    def append(self, record: PendingRecord) -> None:
        """Take a record that is to be written. With the lock. Raises LogweirError: SPOOL_FULL, SPOOL_FAILED."""
        self._disk.check()
        if not record.is_reserved:
            self._budget.reserve(len(record.payload) + FRAME_OVERHEAD_BYTES)
        self._waiting.append(record)
        self._unwritten[record.partition] += 1
        self._changed.notify()

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def is_writing(self, partition: int) -> bool:
        """Whether a record of that partition is still on its way to the disk. With the lock."""
        return self._unwritten[partition] > 0

    def next_group(self) -> list[PendingRecord]:
        """What is to be written next; none when there is nothing. With the lock."""
        group: list[PendingRecord] = []
        size_bytes = 0
        while self._waiting and size_bytes < _GROUP_SIZE_BYTES_MAX:
            group.append(self._waiting.popleft())
            size_bytes += len(group[-1].payload)
        return group

    def write(self, group: list[PendingRecord]) -> list[DeliveryReport]:
        """Write and sync; returns for each record what its sender is to be told. For the spool's thread."""
        try:
            failures = self._spool.write([(record.partition, record.payload) for record in group])
        finally:
            self._budget.held_bytes = self._spool.size_bytes
            with self._changed:
                for record in group:
                    self._unwritten[record.partition] -= 1
                    if not record.is_reserved:
                        self._budget.release(len(record.payload) + FRAME_OVERHEAD_BYTES)
        reports: list[DeliveryReport] = [
            SPOOL if failure is None else self._disk.failed(failure) for failure in failures
        ]
        if SPOOL in reports:
            self._disk.succeeded()
        self._telemetry.written.inc(reports.count(SPOOL))
        return reports
