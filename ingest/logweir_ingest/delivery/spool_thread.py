"""The thread that alone touches the spool: it writes what is diverted, and forwards what is there."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from logweir.errors import SPOOL_FAILED, LogweirError
from logweir.record import HEADER_SIZE_BYTES
from logweir_ingest.delivery.callbacks import Callbacks
from logweir_ingest.delivery.other_processes import OtherProcesses
from logweir_ingest.delivery.pending import PendingRecord
from logweir_ingest.delivery.report import DeliveryReport
from logweir_ingest.delivery.route import PartitionRoute
from logweir_ingest.delivery.spool_disk import SpoolDisk
from logweir_ingest.delivery.spool_writer import SpoolWriter
from logweir_ingest.delivery.telemetry import Telemetry
from logweir_ingest.spool.budget import SpoolBudget
from logweir_ingest.spool.spool import Spool

log = logging.getLogger(__name__)

_RETRY_S = 0.2
_WAIT_S_MAX = 0.5


class SpoolThread:
    """Works when ``changed`` is notified, and some times a second."""

    def __init__(
        self,
        spool: Spool,
        routes: Sequence[PartitionRoute],
        *,
        writer: SpoolWriter,
        disk: SpoolDisk,
        others: OtherProcesses,
        budget: SpoolBudget,
        callbacks: Callbacks,
        telemetry: Telemetry,
        changed: threading.Condition,
        is_needed: Callable[[], bool],
    ) -> None:
        """``is_needed``: whether what comes now goes to the spool."""
        self._spool = spool
        self._routes = routes
        self._writer = writer
        self._disk = disk
        self._others = others
        self._budget = budget
        self._callbacks = callbacks
        self._telemetry = telemetry
        self._changed = changed
        self._is_needed = is_needed
        self._is_stopped = False
        self._is_complete = False
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            reports: list[DeliveryReport] = [LogweirError(SPOOL_FAILED, reason="see this door's log")] * len(group)
            try:
                reports = self._writer.write(group)
                self._disk.probe_if_due(is_needed=self._is_needed())
                self._others.look()
                self._forward()
            except Exception:  # The thread outlives whatever goes wrong in it: senders wait for it.
                log.exception("The spool could not be looked after")
                time.sleep(_RETRY_S)
            # Only now: the senders' next records find a partition that goes straight again.
            for record, report in zip(group, reports, strict=True):
                self._callbacks.call(record, report)
        self._spool.close(is_complete=self._is_complete)

    def _next_group(self) -> list[PendingRecord] | None:
        """What is to be written, as soon as there is anything to do; None when it is stopped and all is written."""
        with self._changed:
            if (
                not self._is_stopped
                and not self._writer.has_waiting
                and not any(route.has_work for route in self._routes)
            ):
                self._changed.wait(_WAIT_S_MAX)
            if self._is_stopped and not self._writer.has_waiting:
                return None
            return self._writer.next_group()

    def _forward(self) -> None:
        for partition in self._spool.partitions():
            if partition < len(self._routes) and self._routes[partition].is_reachable:
                self._routes[partition].forwarder.forward()
            else:
                self._telemetry.unforwardable(partition, "the topic does not have that partition")
        for route in self._routes:
            route.return_if_forwarded()
        self._budget.held_bytes = self._spool.size_bytes
        self._telemetry.damaged(self._spool.damaged_bytes)
        with contextlib.suppress(OSError):  # What cannot be read is counted where it is to be forwarded.
            self._telemetry.oldest(self._spool.heads(HEADER_SIZE_BYTES))

    def stop(self, timeout_s: float, *, is_complete: bool) -> bool:
        """Write what is to be written, and let go of the spool. Whether that is done after ``timeout_s`` seconds.

        ``is_complete``: as ``Spool.close``.
        """
        with self._changed:
            self._is_complete = is_complete
            self._is_stopped = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
