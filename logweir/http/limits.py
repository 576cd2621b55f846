"""What a server allows its clients, and what it says beyond that. Settings and answers: logweir/limits.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from logweir.config import HttpSettings
from logweir.errors import (
    BODY_TOO_SLOW,
    CONNECTIONS_TOO_MANY,
    HEADERS_TOO_LARGE,
    HEADERS_TOO_MANY,
    HEADERS_TOO_SLOW,
    PIPELINED_TOO_MANY,
    REQUESTS_TOO_MANY,
    STOPPING,
    LogweirError,
)
from logweir.http.shares import Shares


@dataclass(frozen=True, slots=True)
class Limits:
    """Those of one server."""

    settings: HttpSettings = field(default_factory=HttpSettings)
    section: str = ""
    """The section of the settings, for what is said."""
    exempt: frozenset[bytes] = frozenset()
    """Paths that are served under any load."""
    refused: Callable[[str], object] = lambda _: None
    """Gets the code of each refusal."""
    shares: Shares | None = None
    """Who holds its connections; None where keys are not asked for."""
    looks_at_no_status: Callable[[bytes, Sequence[tuple[bytes, bytes]]], bool] = lambda *_: False
    """Whether the client of a request, by its URL and headers, takes each whole answer for its last word."""

    def headers_too_large(self) -> LogweirError:
        size_bytes_max = self.settings.header_size_bytes_max
        return LogweirError(HEADERS_TOO_LARGE, size_bytes_max=size_bytes_max, section=self.section)

    def headers_too_many(self) -> LogweirError:
        return LogweirError(HEADERS_TOO_MANY, headers_max=self.settings.headers_max, section=self.section)

    def headers_too_slow(self) -> LogweirError:
        return LogweirError(HEADERS_TOO_SLOW, timeout_s=self.settings.header_timeout_s, section=self.section)

    def body_too_slow(self) -> LogweirError:
        return LogweirError(BODY_TOO_SLOW, timeout_s=self.settings.body_timeout_s, section=self.section)

    def overload(
        self, url: bytes, *, waiting: int, requests: int, is_stopping: bool, is_over_limit: bool
    ) -> LogweirError | None:
        """Why a request must not begin, if so.

        ``waiting`` requests of its connection wait for their turn, ``requests`` are under way in the process.
        ``is_over_limit``: its connection is one too many.
        """
        settings, section = self.settings, self.section
        if waiting >= settings.pipelined_requests_max:
            return LogweirError(PIPELINED_TOO_MANY, requests_max=settings.pipelined_requests_max, section=section)
        if url in self.exempt:
            return None
        if is_stopping:
            return LogweirError(STOPPING)
        if is_over_limit:
            return LogweirError(CONNECTIONS_TOO_MANY, connections_max=settings.connections_max, section=section)
        if requests >= settings.requests_max:
            return LogweirError(REQUESTS_TOO_MANY, requests_max=settings.requests_max, section=section)
        return None
