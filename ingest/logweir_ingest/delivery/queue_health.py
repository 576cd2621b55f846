"""Whether the queue confirms what its producer was given; a producer that is stuck for good is replaced."""

from __future__ import annotations

import time

from logweir_ingest.delivery.link import QueueLink

_STUCK_S_MIN = 30.0
_STUCK_S_MAX = 600.0


class QueueHealth:
    """All of it is asked with the lock of all partitions.

    ``is_suspect``: the queue confirms nothing any more, so every partition's records go to the spool at once.
    ``confirmed_s``: when it last confirmed a record.
    """

    def __init__(self, link: QueueLink) -> None:
        self.is_suspect = False
        self.confirmed_s = float("-inf")
        self._link = link
        self._stuck_s = _STUCK_S_MIN
        self._replaced_s = time.monotonic()

    def confirmed(self, now_s: float) -> None:
        """A record is in the queue."""
        self.confirmed_s = now_s
        self.is_suspect = False

    def replace_if_stuck(self, in_flight_since_s: float, now_s: float) -> None:
        """A producer that neither confirms nor fails what it has may be stuck for good, though its queue is well.

        ``in_flight_since_s``: since when it has confirmed nothing of some partition of which it has records; ``now_s``
        when it has none.
        """
        if now_s - in_flight_since_s < _STUCK_S_MIN:
            self._stuck_s = _STUCK_S_MIN
        elif now_s - max(in_flight_since_s, self._replaced_s) > self._stuck_s:
            self._replaced_s = now_s
            self._stuck_s = min(2 * self._stuck_s, _STUCK_S_MAX)
            self._link.replace()
