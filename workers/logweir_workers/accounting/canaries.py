"""Canaries: records that every ingest process sends through everything, to see that it works."""

from __future__ import annotations

from logweir.ledger.position import LastCanary, Position
from logweir.record import Record

CANARIES_MAX = 1000
CANARY_AGE_US_MAX = 3_600_000_000
"""The last canary of an ingest process is known for so long, and of so many processes."""


class CanaryLedger:
    """The canaries of one partition. Changes its position; used by one thread."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._unwritten: list[int] = []
        self._returned: list[int] = []

    def note(self, record: Record) -> None:
        """A record without numbers has come: note it, if it is a canary."""
        canary = record.canary
        if canary is None or canary.high is None:
            return
        sent_us = canary.received_us
        self._position.watermark_us = max(self._position.watermark_us, sent_us)
        known = self._position.canaries
        known.pop(record.ingest_epoch.hex(), None)
        known[record.ingest_epoch.hex()] = LastCanary(canary.high, sent_us)
        for epoch in list(known):
            is_old = known[epoch].sent_us < sent_us - CANARY_AGE_US_MAX
            if is_old or len(known) > CANARIES_MAX:
                del known[epoch]
        self._unwritten.append(sent_us)

    def written(self) -> None:
        """The position is in the store."""
        self._returned += self._unwritten
        self._unwritten = []

    def take_returned(self) -> list[int]:
        """When the canaries were sent, in microseconds, that have come into the store since the last call."""
        returned, self._returned = self._returned, []
        return returned
