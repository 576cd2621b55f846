"""Counts of answers, gathered in the process and handed to the metrics a few times a second.

A counter that several processes share costs a system call and a lock at each increment; at ten thousand answers a
second that was a twelfth of the door's whole work.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Any

from logweir import metrics

_DURATION = "logweir_ingest_request_duration_seconds"


class Tally:
    """Safe to use from several threads. What was counted is in the metrics after the next ``flush``."""

    def __init__(self) -> None:
        self._requests = metrics.get("logweir_ingest_requests_total")
        self._rejected = metrics.get("logweir_ingest_rejected_requests_total")
        self._durations = metrics.get(_DURATION)
        self._bounds = metrics.buckets_of(_DURATION)
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, int], int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._sums_s: dict[str, float] = {}

    def answered(self, endpoint: str, status: int, *, took_s: float | None = None) -> None:
        """One request of the endpoint was answered with the status, after so long where that is measured."""
        answer = (endpoint, status)
        with self._lock:
            self._answers[answer] = self._answers.get(answer, 0) + 1
            if took_s is not None:
                self._took(endpoint, took_s)

    def rejected(self, reason: str) -> None:
        """One request was refused with the problem of that code."""
        self._rejected.labels(reason).inc()

    def _took(self, endpoint: str, duration_s: float) -> None:
        buckets = self._buckets.get(endpoint)
        if buckets is None:
            buckets = self._buckets[endpoint] = [0] * (len(self._bounds) + 1)
        buckets[bisect_left(self._bounds, duration_s)] += 1
        self._sums_s[endpoint] = self._sums_s.get(endpoint, 0.0) + duration_s

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        with self._lock:
            answers, self._answers = self._answers, {}
            buckets, self._buckets = self._buckets, {}
            sums_s, self._sums_s = self._sums_s, {}
        for (endpoint, status), count in answers.items():
            self._requests.labels(endpoint, str(status)).inc(count)
        for endpoint, counts in buckets.items():
            _observe(self._durations.labels(endpoint), counts, sums_s[endpoint])


def _observe(histogram: Any, counts: list[int], sum_s: float) -> None:
    # prometheus-client has no call for many observations at once; these two are what its ``observe`` writes to.
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(sum_s)
