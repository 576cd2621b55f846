"""A request and an answer, as both interfaces read and write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec


class Request(msgspec.Struct):
    """A request; one for events is without its body."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    """Names are in lower case; a header sent twice has both values, with a comma."""
    peer: str
    """The address at the other end of the connection."""
    query: bytes = b""
    """What stands behind the path's ``?``, as it was sent."""
    read: Callable[[int], bytes] | None = None
    """Returns the body, or so many bytes of it; None of a request for events."""
    body: bytes = b""
    """What was read for an endpoint that wants it."""


class Reply(msgspec.Struct, frozen=True):
    """An answer, ready to be written."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    """All of them but Content-Length."""
    body: bytes
    is_cut: bool = False
    """As logweir/http/reply.py has it."""
