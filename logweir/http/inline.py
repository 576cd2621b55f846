"""A request that came in one piece, answered without a task of its own: for applications that need not wait for more.

An ASGI task costs a request more than all that a door does about a small event. An application that has
``handle_inline`` and ``inline_urls`` is handed POST requests for those, when they have come whole, and takes them
(True), or leaves them to ASGI (False).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from uvicorn.server import ServerState

from logweir.http.reader import Head
from logweir.http.reply import Reply, answer_of


class Connection(Protocol):
    """What an inline request has come by."""

    transport: asyncio.Transport
    client: tuple[str, int] | None
    server_state: ServerState
    tasks: set[Any]

    def answered(self, request: InlineRequest) -> None: ...


class InlineRequest:
    """An application that has taken it calls ``answer`` once, on the loop's thread."""

    __slots__ = ("_connection", "_is_dropped", "body", "client", "headers", "keep_alive", "key", "url")
    is_started = False
    """Whether a part of the answer is written: never, for it is written in one piece."""

    def __init__(self, connection: Connection, head: Head, body: bytes) -> None:
        self.url = head.url
        self.headers = head.headers
        self.body = body
        self.client = connection.client
        self.keep_alive = head.keep_alive
        self.key: str | None = None
        """The name of the good key that it has come with: for the application to say, when it takes it."""
        self._connection = connection
        self._is_dropped = False

    def answer(self, reply: Reply) -> None:
        """Answer it, if somebody is still there."""
        connection = self._connection
        connection.tasks.discard(self)
        if not self._is_dropped and not connection.transport.is_closing():
            headers = connection.server_state.default_headers
            connection.transport.write(answer_of(reply, headers, keep_alive=self.keep_alive))
            self.keep_alive = self.keep_alive and not reply.is_cut
            connection.answered(self)

    def drop(self) -> None:
        """Nobody waits for the answer any more."""
        self._is_dropped = True


def hears_no_refusal(application: Any) -> Callable[[Head], bool]:
    """The application's word on requests whose client takes any answer for final, and none as a reason to try again."""
    asked: Callable[[Head], bool] = getattr(application, "hears_no_refusal", lambda _: False)
    return asked


def inline_urls_of(application: Any) -> Collection[bytes]:
    """What the application takes inline; mostly nothing."""
    urls: Collection[bytes] = getattr(application, "inline_urls", ())
    return urls
