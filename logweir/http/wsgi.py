"""A WSGI application as an ASGI one: on threads of its own, and with what the bridge between the two leaves out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from a2wsgi import WSGIMiddleware

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class WsgiFace:
    """The ASGI application. At most ``threads`` requests are worked on at once; others wait.

    A body that the sender does not finish raises an OSError where the application reads it.
    """

    def __init__(self, application: Callable[..., Any], *, threads: int) -> None:
        self._middleware = WSGIMiddleware(_terminated(application), workers=threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # In a WSGI environment X_Log_Key and X-Log-Key are one name: only the second is what was meant.
            scope = {**scope, "headers": [header for header in scope["headers"] if b"_" not in header[0]]}
            exchange = _Exchange(scope, receive, send)
            receive, send = exchange.receive, exchange.send
        await self._middleware(scope, receive, send)  # type: ignore[arg-type]


class _Exchange:
    """One request's messages."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._awaits_100 = expects_100(scope)
        self._is_body_read = False

    async def receive(self) -> Message:
        self._awaits_100 = False
        message = await self._receive()
        # The bridge would take the end of the connection for the end of the body.
        if message["type"] == "http.disconnect" and not self._is_body_read:
            raise ConnectionResetError("the connection ended before the body did")
        self._is_body_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._awaits_100:
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await self._send(message)


def expects_100(scope: Scope) -> bool:
    """Whether the sender waits for "100 Continue".

    Refused without it, it may send the body or not: only a new connection is clear.
    """
    return any(name == b"expect" for name, _ in scope["headers"])


def _terminated(application: Callable[..., Any]) -> Callable[..., Any]:
    def terminated(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        # The input ends where the body does, chunked or not.
        environ["wsgi.input_terminated"] = True
        return application(environ, start_response)

    return terminated
