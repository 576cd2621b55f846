"""A record from when it is taken until its sender is told."""

from __future__ import annotations

from dataclasses import dataclass

from logweir_ingest.delivery.report import Confirmed


@dataclass(slots=True, eq=False)
class PendingRecord:
    """``confirmed`` is for ``Callbacks`` alone; the rest is under the lock of all partitions."""

    partition: int
    payload: bytes
    confirmed: Confirmed | None
    """To be called when it is known where it is durable, or why nowhere; None once that is done, or will be."""
    sent_s: float
    is_reserved: bool
    """Whether it fits into what its sender reserved of the spool."""
    is_in_producer: bool = False
    """Whether a producer was given it, be it that it did not take it."""
