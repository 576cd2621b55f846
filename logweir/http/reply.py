"""Answers as they are written."""

from __future__ import annotations

import http
import json
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from logweir.errors import LogweirError

Header = tuple[bytes, bytes]

# What tells the client to come back later.
_COME_BACK = (429, 503)
RETRY_AFTER_S = 2
"""After how long whoever is told to come back later may, where nothing better is known."""


class Reply(Protocol):
    """A whole answer. ``headers`` are all of them but Content-Length and Connection."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> tuple[Header, ...]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def is_cut(self) -> bool:
        """Whether the connection ends a byte before the answer does, for clients that look at no status."""
        ...


_PHRASES = {status.value: status.phrase.encode() for status in http.HTTPStatus}
STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b"")) for status in range(100, 600)}

# By status: the server's own headers, those of a reply, and both as they are written.
_heads: dict[int, tuple[object, object, bytes]] = {}


def answer_of(reply: Reply, defaults: Sequence[Header], *, keep_alive: bool) -> bytes:
    """The reply in one piece; ``defaults`` are the headers that each answer of the server has."""
    known = _heads.get(reply.status)
    # Mostly they are the same objects as those of the last answer with this status, for a second.
    if known is None or known[0] is not defaults or known[1] is not reply.headers:
        lines = [STATUS_LINES[reply.status], *(b"%b: %b\r\n" % header for header in (*defaults, *reply.headers))]
        known = _heads[reply.status] = (defaults, reply.headers, b"".join(lines))
    end = b"" if keep_alive and not reply.is_cut else b"connection: close\r\n"
    return b"%bcontent-length: %d\r\n%b\r\n%b" % (known[2], len(reply.body) + reply.is_cut, end, reply.body)


class Refusal(NamedTuple):
    """The last answer on a connection."""

    answer: bytes
    is_come_back: bool
    """Whether the client is told to come back later."""


def refusal_of(error: LogweirError, *, is_cut: bool = False) -> Refusal:
    """The problem as an answer. Nothing of the error is kept: it would hold what was read of the message.

    ``is_cut``: as of a reply, if the client is told to come back later.
    """
    body = json.dumps(error.as_dict(), separators=(",", ":")).encode()
    is_come_back = error.problem.status in _COME_BACK
    answer = b"%bcontent-type: application/problem+json\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        STATUS_LINES[error.problem.status],
        b"retry-after: %d\r\n" % RETRY_AFTER_S if is_come_back else b"",
        len(body) + (is_cut and is_come_back),
        body,
    )
    return Refusal(answer, is_come_back)
