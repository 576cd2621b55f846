"""Counts of answers, gathered in the process and handed to the metrics a few times a second.

A counter that several processes share costs a system call and a lock at each increment; at ten thousand answers a
second that was a twelfth of the door's whole work.
"""

from __future__ import annotations

import threading

from logweir.metrics import registry
from logweir.metrics.registry import Observations


class Tally:
    """Safe to use from several threads. What was counted is in the metrics after the next ``flush``."""

    def __init__(self) -> None:
        self._requests = registry.get("logweir_ingest_requests_total")
        self._rejected = registry.get("logweir_ingest_rejected_requests_total")
        self._kept = registry.get("logweir_ingest_kept_events_total")
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, int], int] = {}
        self._by_request, self._by_event = _durations()

    def answered(self, endpoint: str, status: int) -> None:
        """One request of the endpoint was answered with the status."""
        answer = (endpoint, status)
        with self._lock:
            self._answers[answer] = self._answers.get(answer, 0) + 1

    def accepted(self, status: int, *, events: int, took_s: float) -> None:
        """One request was answered with a 2xx for so many events, so long after its last byte."""
        answer = ("events", status)
        with self._lock:
            self._answers[answer] = self._answers.get(answer, 0) + 1
            self._by_request.add(took_s)
            self._by_event.add(took_s, events)

    def kept(self, format: str, events: int) -> None:
        """So many events of the format were answered 2xx though they cannot be read."""
        self._kept.labels(format).inc(events)

    def rejected(self, reason: str) -> None:
        """One request was refused with the problem of that code."""
        self._rejected.labels(reason).inc()

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        with self._lock:
            answers, self._answers = self._answers, {}
            durations, (self._by_request, self._by_event) = (self._by_request, self._by_event), _durations()
        for (endpoint, status), count in answers.items():
            self._requests.labels(endpoint, str(status)).inc(count)
        for one in durations:
            one.hand_over()


def _durations() -> tuple[Observations, Observations]:
    return (
        Observations("logweir_ingest_request_duration_seconds", "events"),
        Observations("logweir_event_latency_seconds", "ingest_to_queued"),
    )
