"""What an operator sees of this folder: its metrics, and the lines of the log that are not to be repeated."""

from __future__ import annotations

import logging

from logweir.clock import WINDOW_US, now_us
from logweir.metrics import registry
from logweir.record import header_of
from logweir_ingest.spool.budget import SpoolBudget

log = logging.getLogger(__name__)

# A spool that is used for a moment, because a disk or a broker paused, is nothing that anybody can act on.
_SAY_AFTER_S = 2.0


class Telemetry:
    """``spooling`` and ``unforwardable`` are called with the lock of all partitions, or by the spool's thread."""

    def __init__(self) -> None:
        self._confirm_seconds = registry.get("logweir_ingest_record_confirm_seconds")
        self._fill_ratio = registry.get("logweir_ingest_queue_fill_ratio")
        self._spool_bytes = registry.get("logweir_ingest_spool_size_bytes")
        self._spool_fill_ratio = registry.get("logweir_ingest_spool_fill_ratio")
        self._spool_oldest_seconds = registry.get("logweir_ingest_spool_oldest_seconds")
        records = registry.get("logweir_ingest_spool_records_total")
        self.written = records.labels("written")
        self.forwarded = records.labels("forwarded")
        self.disk_failures = registry.get("logweir_ingest_spool_failures_total")
        self._damaged = registry.get("logweir_ingest_spool_damaged_bytes_total")
        self._damaged_bytes = 0
        self._spooling_since_s: float | None = None
        self._is_spooling_said = False
        self._unforwardable: set[int] = set()

    # --- metrics ---------------------------------------------------------------------------------------------------
    def confirmed(self, duration_s: float) -> None:
        self._confirm_seconds.observe(duration_s)

    def damaged(self, size_bytes: int) -> None:
        """``size_bytes``: since the start."""
        self._damaged.inc(size_bytes - self._damaged_bytes)
        self._damaged_bytes = size_bytes

    def oldest(self, heads: list[bytes]) -> None:
        """``heads``: how the records begin that have waited longest in the spool."""
        headers = filter(None, map(header_of, heads))
        # A record may be of its window's last moment.
        at_us = now_us()
        ended_us = min(((header.window + 1) * WINDOW_US for header in headers), default=at_us)
        self._spool_oldest_seconds.set(max(0.0, (at_us - ended_us) / 1e6))

    def fill(self, queue_fill_ratio: float, budget: SpoolBudget) -> None:
        self._fill_ratio.set(queue_fill_ratio)
        self._spool_bytes.set(budget.held_bytes)
        self._spool_fill_ratio.set(budget.fill_ratio)

    # --- log -------------------------------------------------------------------------------------------------------
    def spooling(self, is_spooling: bool, now_s: float) -> None:
        """Say when records have gone through the spool for a while, and when they do no more."""
        if not is_spooling:
            if self._is_spooling_said:
                log.info("The spool is empty; records go straight to the queue again.")
            self._spooling_since_s, self._is_spooling_said = None, False
        elif self._spooling_since_s is None:
            self._spooling_since_s = now_s
        elif not self._is_spooling_said and now_s - self._spooling_since_s > _SAY_AFTER_S:
            self._is_spooling_said = True
            log.warning(
                "The queue does not confirm records in time: they are kept in the spool, and forwarded when it does."
            )

    def unforwardable(self, partition: int, reason: object) -> None:
        """Say it, once a partition."""
        if partition not in self._unforwardable:
            self._unforwardable.add(partition)
            log.error(
                "The spool's records of partition %d cannot be forwarded: %s",
                partition,
                reason,
                extra={"partition": partition},
            )
