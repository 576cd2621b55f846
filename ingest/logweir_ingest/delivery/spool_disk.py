"""Whether this machine's disk takes what is to be spooled."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from logweir.errors import SPOOL_FAILED, LogweirError
from logweir_ingest.delivery.telemetry import Telemetry
from logweir_ingest.spool.spool import Spool

log = logging.getLogger(__name__)

# A disk that failed is tried again after so long, and counts on being bad until that works.
_PROBE_EVERY_S = 5.0


class SpoolDisk:
    """Whether the spool can be written. Once that failed, it counts as failing until a probe works.

    So no sender's record is needed to find out. Safe to use from several threads.
    """

    def __init__(self, spool: Spool, telemetry: Telemetry, *, mended: Callable[[], object] = lambda: None) -> None:
        """``mended`` is called when a probe works after a failure."""
        self._spool = spool
        self._telemetry = telemetry
        self._mended = mended
        # When it was last known to be good.
        self._good_s = -math.inf
        # When it is tried again; None while it is good.
        self._probe_s: float | None = None

    @property
    def is_failing(self) -> bool:
        return self._probe_s is not None

    def check(self) -> None:
        """Raises LogweirError(SPOOL_FAILED) while it is failing, with the time to the next probe."""
        probe_s = self._probe_s
        if probe_s is not None:
            raise _spool_failed("it failed before", probe_s=probe_s)

    def failed(self, error: OSError) -> LogweirError:
        """Note that writing failed; returns what the sender of what was to be written is told."""
        probe_s = time.monotonic() + _PROBE_EVERY_S
        was_good, self._probe_s = self._probe_s is None, probe_s
        if was_good:
            log.error("The spool cannot be written: %s", error)
        self._telemetry.disk_failures.inc()
        return _spool_failed(error.strerror or error, probe_s=probe_s)

    def succeeded(self) -> None:
        """Note that writing worked."""
        self._good_s = time.monotonic()

    def probe_if_due(self, *, is_needed: bool) -> None:
        """For the spool's thread. ``is_needed``: what comes now would go to the disk, so whether it is good matters."""
        now_s, probe_s = time.monotonic(), self._probe_s
        if now_s < (self._good_s + _PROBE_EVERY_S if probe_s is None else probe_s) or (
            probe_s is None and not is_needed
        ):
            return
        try:
            self._spool.probe()
        except OSError as error:
            self.failed(error)
            return
        self._good_s = time.monotonic()
        if probe_s is not None:
            log.info("The spool can be written again.")
            self._probe_s = None
            self._mended()


def _spool_failed(reason: object, *, probe_s: float) -> LogweirError:
    retry_after_s = max(1, math.ceil(probe_s - time.monotonic()))
    return LogweirError(SPOOL_FAILED, reason=reason, retry_after_s=retry_after_s)
