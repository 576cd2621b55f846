"""How much may come: by key name (events and bytes a second), and without a good key (attempts a minute, by address).

Buckets of tokens: they fill steadily, and hold what comes in one second, or one minute. A batch is let in while there
is any token at all, and may leave the bucket in debt: so one larger than the bucket is possible, and is paid for by
what comes after it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from logweir.errors import FAILED_ATTEMPTS_EXCEEDED, QUOTA_EXCEEDED, LogweirError
from logweir.http.shares import neighbourhood_of, network_of
from logweir.metrics import registry

Seconds = Callable[[], float]
"""A steady clock, as time.monotonic."""

BARE_SIZE_BYTES = 256
"""What a request takes of a quota in bytes, at least, that brings no events, or that cannot be read.

Of a quota in events it takes one."""


class Bucket:
    """Holds ``capacity`` tokens at most, full in the beginning; ``per_second`` come. For one thread at a time."""

    __slots__ = ("_filled_s", "capacity", "per_second", "tokens")

    def __init__(self, *, per_second: float, capacity: float, at_s: float) -> None:
        self.per_second = per_second
        self.capacity = self.tokens = capacity
        self._filled_s = at_s

    def fill(self, at_s: float) -> None:
        """Put in what has come until now."""
        self.tokens = min(self.capacity, self.tokens + (at_s - self._filled_s) * self.per_second)
        self._filled_s = at_s

    def wait_s(self, tokens: float) -> int:
        """In how many whole seconds, 1 or more, it will hold that many."""
        return max(1, math.ceil((tokens - self.tokens) / self.per_second))


# --- quotas of keys -----------------------------------------------------------------------------------------------
EVENTS, BYTES = "events", "bytes"


class Quota:
    """What all keys of one name together may send through this process: its share of what they may through all.

    Safe to use from several threads.
    """

    def __init__(self, limits: Mapping[str, int], *, processes: int, now_s: Seconds) -> None:
        self._processes = processes
        self._now_s = now_s
        self._lock = threading.Lock()
        self._limits: Mapping[str, int] = {}
        self._buckets: dict[str, Bucket] = {}
        self.set(limits)

    def set(self, limits: Mapping[str, int]) -> None:
        """Change the limits a second, by EVENTS and BYTES; what was used, or is owed, stays so."""
        with self._lock:
            for resource, limit in limits.items():
                share = limit / self._processes
                bucket = self._buckets.get(resource)
                if bucket is None:
                    self._buckets[resource] = Bucket(per_second=share, capacity=share, at_s=self._now_s())
                else:
                    bucket.fill(self._now_s())
                    bucket.per_second = bucket.capacity = share
            for resource in self._buckets.keys() - limits.keys():
                del self._buckets[resource]
            self._limits = dict(limits)

    def check(self) -> None:
        """Raises LogweirError(QUOTA_EXCEEDED) when nothing may come now, with ``retry_after_s``."""
        with self._lock:
            self._check()

    def take(self, *, events: int, size_bytes: int) -> Charge:
        """Take for a batch. Raises LogweirError as ``check``, and takes nothing then."""
        with self._lock:
            self._check()
            self._add(-events, -size_bytes)
        return Charge(self, events, size_bytes)

    def charge(self, *, events: int, size_bytes: int) -> None:
        """Take for what has come already, whatever is left; negative numbers give back."""
        with self._lock:
            self._add(-events, -size_bytes)

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What is left, of the one of its limits that is nearer to its end, as if all processes had as much left."""
        with self._lock:
            self._fill()
            resource, bucket = min(self._buckets.items(), key=lambda one: one[1].tokens / one[1].capacity)
            remaining = max(0, int(bucket.tokens * self._processes))
            reset_s = math.ceil((bucket.capacity - bucket.tokens) / bucket.per_second)
            return (
                (b"x-ratelimit-limit", b"%d" % self._limits[resource]),
                (b"x-ratelimit-remaining", b"%d" % remaining),
                (b"x-ratelimit-reset", b"%d" % reset_s),
                (b"x-ratelimit-resource", resource.encode()),
            )

    def _fill(self) -> None:
        at_s = self._now_s()
        for bucket in self._buckets.values():
            bucket.fill(at_s)

    def _check(self) -> None:
        self._fill()
        empty = {resource: bucket.wait_s(0) for resource, bucket in self._buckets.items() if bucket.tokens <= 0}
        if empty:
            resource = max(empty, key=empty.__getitem__)
            raise LogweirError(
                QUOTA_EXCEEDED, limit=self._limits[resource], resource=resource, retry_after_s=empty[resource]
            )

    def _add(self, events: int, size_bytes: int) -> None:
        for resource, bucket in self._buckets.items():
            bucket.tokens = min(bucket.capacity, bucket.tokens + (events if resource == EVENTS else size_bytes))


@dataclass(frozen=True, slots=True)
class Charge:
    """What one batch has taken from its key's quota."""

    quota: Quota
    events: int
    size_bytes: int

    def give_back(self) -> None:
        """The batch was not accepted: for us to blame, not for its sender to pay."""
        self.quota.charge(events=-self.events, size_bytes=-self.size_bytes)


class Quotas:
    """The quotas by key name; they outlive changes of the keys, so that a new key is no new second's worth."""

    def __init__(self, *, processes: int = 1, now_s: Seconds = time.monotonic) -> None:
        self._processes = processes
        self._now_s = now_s
        self._by_name: dict[str, Quota] = {}

    def set(self, limits_by_name: Mapping[str, Mapping[str, int]]) -> dict[str, Quota]:
        """The quota of each name, changed to these limits; names that are not among them have none any more."""
        by_name: dict[str, Quota] = {}
        for name, limits in limits_by_name.items():
            quota = self._by_name.get(name)
            if quota is None:
                quota = Quota(limits, processes=self._processes, now_s=self._now_s)
            else:
                quota.set(limits)
            by_name[name] = quota
        self._by_name = by_name
        return by_name


# --- attempts without a good key ----------------------------------------------------------------------------------
class FailedAttempts:
    """Counts requests without a good key by the address that they come from. Safe to use from several threads.

    At most ``addresses_max`` addresses are remembered; the one that has not failed for longest is forgotten for a new
    one, and counted: of the new one's own neighbours when they are half of all, so that they push out nobody else.
    """

    def __init__(
        self, *, per_minute_max: int, addresses_max: int, processes: int = 1, now_s: Seconds = time.monotonic
    ) -> None:
        self._per_minute_max = per_minute_max
        self._share = max(1.0, per_minute_max / processes)
        self._addresses_max = addresses_max
        self._now_s = now_s
        self._lock = threading.Lock()
        # The one that failed last at the end; all, and by neighbourhood.
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._neighbours: dict[str, OrderedDict[str, None]] = {}
        self._forgotten = registry.get("logweir_ingest_failed_addresses_forgotten_total")

    def count(self, address: str) -> None:
        """Count one. Raises LogweirError(FAILED_ATTEMPTS_EXCEEDED), with ``retry_after_s``, when there are too many."""
        network = network_of(address)
        at_s = self._now_s()
        with self._lock:
            bucket = self._buckets.pop(network, None)
            if bucket is None:
                bucket = Bucket(per_second=self._share / 60, capacity=self._share, at_s=at_s)
                if len(self._buckets) >= self._addresses_max:
                    self._forget_one(network)
            self._buckets[network] = bucket
            neighbours = self._neighbours.setdefault(neighbourhood_of(network), OrderedDict())
            neighbours[network] = None
            neighbours.move_to_end(network)
            bucket.fill(at_s)
            if bucket.tokens < 1:
                raise LogweirError(
                    FAILED_ATTEMPTS_EXCEEDED, attempts_max=self._per_minute_max, retry_after_s=bucket.wait_s(1)
                )
            bucket.tokens -= 1

    def _forget_one(self, network: str) -> None:
        own = self._neighbours.get(neighbourhood_of(network), OrderedDict())
        oldest = next(iter(own if len(own) > self._addresses_max // 2 else self._buckets))
        del self._buckets[oldest]
        neighbours = self._neighbours[neighbourhood_of(oldest)]
        del neighbours[oldest]
        if not neighbours:
            del self._neighbours[neighbourhood_of(oldest)]
        self._forgotten.inc()

    def __len__(self) -> int:
        return len(self._buckets)
