"""What requests may cost: the limits of one, and of all bodies together."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from logweir.config import Settings
from logweir.errors import BODIES_TOO_LARGE, BODY_TOO_LARGE, SETTING_BAD, LogweirError

RECORD_OVERHEAD_BYTES = 8 * 1024
"""What a record may need beside its largest event: names, the Log-* headers, the record's own header."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request, from the settings of the same names."""

    body_size_bytes_max: int
    decompressed_size_bytes_max: int
    decompression_ratio_max: int
    event_size_bytes_max: int
    events_per_request_max: int
    depth_max: int
    refused_size_bytes_max: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Raises LogweirError(SETTING_BAD) when an allowed event would not fit into a record."""
        ingest, record_size_bytes_max = settings.ingest, settings.queue.record_size_bytes_max
        if ingest.event_size_bytes_max + RECORD_OVERHEAD_BYTES > record_size_bytes_max:
            raise LogweirError(
                SETTING_BAD,
                where="The configuration",
                name="ingest.event_size_bytes_max",
                value=ingest.event_size_bytes_max,
                reason=f"an event and {RECORD_OVERHEAD_BYTES} bytes must fit into queue.record_size_bytes_max"
                f" ({record_size_bytes_max})",
            )
        return cls(**{name: getattr(ingest, name) for name in cls.__slots__})

    def check_announced(self, content_length: int) -> None:
        """Refuse a body by its Content-Length, before any of it is read. Raises LogweirError(BODY_TOO_LARGE)."""
        if content_length > self.body_size_bytes_max:
            raise LogweirError(BODY_TOO_LARGE, size_bytes_max=self.body_size_bytes_max)

    def small(self) -> Limits:
        """What of it is read while other requests wait: 1 ms for 500 events of 420 bytes, some 20 ms at the worst."""
        return replace(
            self,
            decompressed_size_bytes_max=min(self.decompressed_size_bytes_max, _SMALL_DECOMPRESSED_SIZE_BYTES_MAX),
            events_per_request_max=min(self.events_per_request_max, _SMALL_EVENTS_MAX),
        )


_SMALL_DECOMPRESSED_SIZE_BYTES_MAX = 256 * 1024
_SMALL_EVENTS_MAX = 1000
SMALL_SIZE_BYTES_MAX = 4 * 1024
"""A plain body up to this size is read while others wait, whatever is in it: up to 7 ms for one that is refused."""
LONG_AT_ONCE = 2
"""So many of the bodies that take longer are read at a time: each may become ``decompressed_size_bytes_max`` large."""


COUNTED_FROM_BYTES = 64 * 1024
"""Smaller bodies are not held in the budget: a connection may buffer as much anyway."""


class BodyBudget:
    """How many bytes the bodies that this process is receiving and reading may hold together.

    Those up to COUNTED_FROM_BYTES are not held in it, so who floods the door with large bodies does not keep out who
    sends single events. Safe to use from several threads.
    """

    def __init__(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._held_bytes = 0
        self._by_key: dict[str, int] = {}
        self._lock = threading.Lock()

    def hold(self, size_bytes: int, *, key: str, held_bytes: int = 0) -> int:
        """Hold a body that is so large now, and held ``held_bytes`` before; returns what it holds, to be released.

        Raises LogweirError(BODIES_TOO_LARGE) when there is no room. One body is always let in; and one of each ``key``,
        up to twice the limit together, so that no key's bodies keep out all of another's.
        """
        if size_bytes <= held_bytes:
            return held_bytes
        with self._lock:
            others_bytes = self._held_bytes - held_bytes
            own_bytes = self._by_key.get(key, 0) - held_bytes
            size_bytes_max = self._size_bytes_max if own_bytes else 2 * self._size_bytes_max
            if others_bytes and others_bytes + size_bytes > size_bytes_max:
                raise LogweirError(BODIES_TOO_LARGE, held_bytes=self._held_bytes, size_bytes_max=self._size_bytes_max)
            self._held_bytes = others_bytes + size_bytes
            self._by_key[key] = own_bytes + size_bytes
        return size_bytes

    def release(self, held_bytes: int, *, key: str) -> None:
        with self._lock:
            self._held_bytes -= held_bytes
            self._by_key[key] -= held_bytes
            if not self._by_key[key]:
                del self._by_key[key]
