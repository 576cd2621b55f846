"""How much may still go to the spool, and when there will be more."""

from __future__ import annotations

import math
import threading
import time
from collections import deque

from logweir.errors import SPOOL_FULL, LogweirError

_RATE_OVER_S = 10.0
_RETRY_AFTER_S_MAX = 60
# Nothing is forwarded: nobody knows how long the queue stays away.
_RETRY_AFTER_UNKNOWN_S = 30
_FULL_BELOW_BYTES = 64 * 1024


class SpoolBudget:
    """How many bytes one process's spool may hold. Safe to use from several threads.

    Of ``size_bytes_max`` for all ``processes`` of the machine, each fills at most its share, and none what the others
    hold already.
    """

    def __init__(self, size_bytes_max: int, *, processes: int = 1) -> None:
        self.size_bytes_max = size_bytes_max
        self.share_bytes = size_bytes_max // processes
        # As last seen, set by who looks at the disk: what this process's spool and those of the others hold, and what
        # comes free when (``Spool.frees``).
        self.held_bytes = 0
        self.others_bytes = 0
        self.frees: list[tuple[int, int]] = []
        self._reserved_bytes = 0
        # Of the last seconds: when how much was forwarded; and the sum.
        self._forwarded: deque[tuple[float, int]] = deque()
        self._rate_bytes = 0
        self._lock = threading.Lock()

    def reserve(self, size_bytes: int) -> None:
        """Keep so many bytes for what is to be written. Raises LogweirError(SPOOL_FULL), with ``retry_after_s``."""
        with self._lock:
            lacking_bytes = size_bytes - self._free_bytes()
            if lacking_bytes > 0:
                raise LogweirError(
                    SPOOL_FULL,
                    held_bytes=self.held_bytes + self.others_bytes,
                    size_bytes_max=self.size_bytes_max,
                    retry_after_s=self._retry_after_s(lacking_bytes),
                )
            self._reserved_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """What was reserved is written, or will not be."""
        with self._lock:
            self._reserved_bytes -= size_bytes

    def forwarded(self, size_bytes: int) -> None:
        """So much has come into the queue; it is free when its whole segment has."""
        with self._lock:
            self._forget_old()
            self._forwarded.append((time.monotonic(), size_bytes))
            self._rate_bytes += size_bytes

    @property
    def is_full(self) -> bool:
        with self._lock:
            return self._free_bytes() < _FULL_BELOW_BYTES

    @property
    def fill_ratio(self) -> float:
        """How much of what this process may fill is used, by itself or by others: 0 to 1, where it takes no more."""
        with self._lock:
            return min(1.0, max(0.0, 1 - self._free_bytes() / self.share_bytes))

    def _free_bytes(self) -> int:
        used_bytes = self.held_bytes + self._reserved_bytes
        return min(self.share_bytes - used_bytes, self.size_bytes_max - self.others_bytes - used_bytes)

    def _forget_old(self) -> None:
        since_s = time.monotonic() - _RATE_OVER_S
        while self._forwarded and self._forwarded[0][0] < since_s:
            self._rate_bytes -= self._forwarded.popleft()[1]

    def _retry_after_s(self, size_bytes: int) -> int:
        """How long it takes, at the rate of the last seconds, until so many bytes are free."""
        self._forget_old()
        if not self._rate_bytes:
            return _RETRY_AFTER_UNKNOWN_S
        over_s = max(1.0, time.monotonic() - self._forwarded[0][0])
        # Bytes come free a segment at a time.
        forwarded_bytes = next((forwarded for forwarded, free in self.frees if free >= size_bytes), size_bytes)
        return min(_RETRY_AFTER_S_MAX, max(1, math.ceil(forwarded_bytes * over_s / self._rate_bytes)))
