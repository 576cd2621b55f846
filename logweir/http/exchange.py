"""A request that came in one piece, answered without a task of its own: for applications that need not wait for more.

An ASGI task costs a request more than all that a door does about a small event. An application that has ``at_once`` and
``at_once_urls`` is handed POST requests for those, when they have come whole, and takes them (True) or leaves them to
the usual way (False).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol


class Reply(Protocol):
    """An answer, ready to be written. ``headers`` are all of them but Content-Length and Connection."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]: ...
    @property
    def body(self) -> bytes: ...


class Connection(Protocol):
    """What an exchange is part of."""

    url: bytes
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None

    def finish_exchange(self, exchange: Exchange, reply: Reply) -> None: ...


class _Nobody:
    """Whom uvicorn tells of each piece of a body; here nobody waits for it."""

    def set(self) -> None: ...


class Exchange:
    """Stands where uvicorn's cycle does, under its names, as far as a connection looks at one.

    ``answer`` is to be called once, on the loop's thread, by an application that has taken it.
    """

    __slots__ = (
        "body",
        "client",
        "connection",
        "disconnected",
        "headers",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "url",
    )
    message_event = _Nobody()

    def __init__(self, connection: Connection, *, keep_alive: bool) -> None:
        self.connection = connection
        self.url = connection.url
        self.headers = connection.headers
        self.client = connection.client
        self.keep_alive = keep_alive
        self.body = b""
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def answer(self, reply: Reply) -> None:
        self.connection.finish_exchange(self, reply)


def urls_of(application: Any) -> Collection[bytes]:
    """What the application takes at once; mostly nothing."""
    urls: Collection[bytes] = getattr(application, "at_once_urls", ())
    return urls
