"""Whether this process's records find a place: what became of the last ones says what will become of the next."""

from __future__ import annotations

import time

from logweir.errors import QUEUE_UNAVAILABLE, SPOOL_FAILED, SPOOL_FULL, LogweirError
from logweir_ingest.delivery.report import DeliveryReport
from logweir_ingest.spool.budget import SpoolBudget

_KNOWN_S = 15.0
"""A refusal says so much of what follows; canaries, every ten seconds if they are sent, find out without any sender."""


class Acceptance:
    """What the last record came to. Safe to use from several threads."""

    def __init__(self, budget: SpoolBudget) -> None:
        self._budget = budget
        self._refused: tuple[float, LogweirError] | None = None

    def note(self, report: DeliveryReport) -> None:
        """A record is durable, or is nowhere."""
        if not isinstance(report, LogweirError):
            self._refused = None
        elif report.problem in (QUEUE_UNAVAILABLE, SPOOL_FAILED) or (
            # A large batch may find no room where others do.
            report.problem is SPOOL_FULL and self._budget.is_full
        ):
            self._refused = time.monotonic(), report.with_traceback(None)

    def forget(self) -> None:
        """What refused the last ones is mended."""
        self._refused = None

    def why_refused(self) -> str | None:
        """Why records are refused; None when the last one was not, or nobody knows."""
        if self._refused is None:
            return None
        noted_s, error = self._refused
        if time.monotonic() - noted_s > _KNOWN_S or (error.problem is SPOOL_FULL and not self._budget.is_full):
            return None
        return error.problem.code.replace("_", " ") + f": {error.numbers.get('reason', 'there is no room')}"
