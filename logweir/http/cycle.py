"""A request and its answer as ASGI has them: a task of the application's, with scope, receive and send."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import urllib.parse
from collections.abc import Iterable
from enum import Enum
from typing import Any, Protocol

import httptools
from uvicorn.server import ServerState

from logweir.errors import HTTP_BAD, LogweirError
from logweir.http.flow import Flow
from logweir.http.reader import Head
from logweir.http.reply import STATUS_LINES, Header, Reply, answer_of

log = logging.getLogger(__name__)

WRITER = "logweir.writer"
"""In the scope: what has ``write_reply(scope, reply) -> bool``, which writes a whole answer at once, and
``show_key(name)``, to be called when the request has come with the good key of that name."""

# More of a body than this that the application has not taken, and nothing more is read.
_UNTAKEN_BYTES_MAX = 65536
# RFC 9110 section 5.1 and 5.5: what would end a header, or begin another one, in its name and in its value.
_BAD_NAME = re.compile(rb'[\x00-\x20\x7f()<>@,;:\[\]={}\\"]')
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FAILED_BODY = b"Internal Server Error"
_FAILED = {
    "type": "http.response.start",
    "status": 500,
    "headers": [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(_FAILED_BODY)),
        (b"connection", b"close"),
    ],
}


class Connection(Protocol):
    """What a cycle has come by. ``base_scope`` is what the scopes of its requests have in common."""

    transport: asyncio.Transport
    flow: Flow
    base_scope: dict[str, Any]
    app_state: dict[str, Any]
    server_state: ServerState

    key: str | None
    loop: asyncio.AbstractEventLoop

    def answered(self, request: Cycle) -> None: ...
    def show_key(self, name: str, request: Cycle) -> None: ...
    def close(self) -> None: ...


class Answer(Enum):
    """How far it is. Each follows the one before; DROPPED may follow any."""

    DUE = 0
    STARTED = 1
    """Status and headers are written."""
    COMPLETE = 2
    DROPPED = 3
    """Nobody waits for it any more."""


# By themselves: see states.py.
DUE, STARTED, COMPLETE, DROPPED = Answer


class Cycle:
    """One request and its answer. Raises LogweirError(HTTP_BAD) when the request's URL is none."""

    def __init__(self, connection: Connection, head: Head) -> None:
        path, raw_path, query = _parsed(head.url)
        self.scope: dict[str, Any] = {
            **connection.base_scope,
            "http_version": head.version,
            "method": head.method.decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": head.headers,
            "state": connection.app_state.copy(),
        }
        self.keep_alive = head.keep_alive
        self.answer = DUE
        self._connection = connection
        self._expects_100 = head.expects_100
        self._body = bytearray()
        self._is_whole = False
        self._changed = asyncio.Event()
        # Whether the answer has a body, whether that is in chunks, and how much is to come where its length is known.
        self._has_body = True
        self._is_chunked = False
        self._left_bytes: int | None = None

    @property
    def is_started(self) -> bool:
        return self.answer is not DUE

    def add_body(self, piece: bytes) -> None:
        """Hand a piece of the body to the application. Pauses the reading where it takes too little."""
        if self.answer is DUE or self.answer is STARTED:
            self._body += piece
            if len(self._body) > _UNTAKEN_BYTES_MAX:
                self._connection.flow.pause_reading()
            self._changed.set()

    def end_body(self) -> None:
        self._is_whole = True
        self._changed.set()

    def show_key(self, name: str) -> None:
        """It has come with the good key of that name. Any thread may say so."""
        connection = self._connection
        if connection.key is None:
            with contextlib.suppress(RuntimeError):  # The loop has ended, and with it the connection.
                connection.loop.call_soon_threadsafe(connection.show_key, name, self)

    def drop(self) -> None:
        """Nobody waits for the answer any more: the application is told so, and what it still sends is thrown away."""
        self.answer = DROPPED
        self._changed.set()

    async def run(self, application: Any) -> None:
        """Have the application answer. Raises nothing: what it raises is logged, and costs the connection."""
        self.scope[WRITER] = self
        try:
            await application(self.scope, self.receive, self.send)
            if self.answer is DUE or self.answer is STARTED:
                raise RuntimeError("The application ended before its answer did.")
        except Exception:
            # As it was sent: unescaped, it may have line ends.
            log.exception("The application failed at %s %s.", self.scope["method"], self.scope["raw_path"].decode())
            if self.answer is DUE:
                await self.send(_FAILED)
                await self.send({"type": "http.response.body", "body": _FAILED_BODY})
            elif self.answer is STARTED:
                self._connection.close()
        finally:
            # Scope and cycle would hold each other, headers and all, until somebody looks for such pairs.
            del self.scope[WRITER]

    async def receive(self) -> dict[str, Any]:
        """ASGI."""
        connection = self._connection
        if self._expects_100 and self.answer is DUE and not connection.transport.is_closing():
            self._expects_100 = False
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.answer is DUE or self.answer is STARTED:
            if not self._is_whole:
                connection.flow.resume_reading()
            await self._changed.wait()
            self._changed.clear()
        if self.answer is COMPLETE or self.answer is DROPPED:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": not self._is_whole}

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI."""
        connection = self._connection
        if not connection.flow.is_writable:
            await connection.flow.drain()
            if connection.transport.is_closing():
                self.drop()
        if self.answer is DROPPED:
            return
        wanted = _MESSAGES.get(self.answer)
        if message["type"] != wanted:
            raise RuntimeError(f"The application sent {message['type']}, where {wanted or 'nothing'} is due.")
        if self.answer is DUE:
            self._send_head(message["status"], message.get("headers", ()))
        else:
            self._send_body(message.get("body", b""), more_body=message.get("more_body", False))

    def write_reply(self, scope: object, reply: Reply) -> bool:
        """Write the whole answer in one piece; False when it must be sent, as when the client takes no more now.

        Sent, head and body are a system call and a packet each, and every header is looked at.
        """
        connection = self._connection
        if scope is not self.scope or self.answer is not DUE or not connection.flow.is_writable:
            return False
        if self.scope["method"] == "HEAD":
            return False
        headers = connection.server_state.default_headers
        connection.transport.write(answer_of(reply, headers, keep_alive=self.keep_alive))
        self.keep_alive = self.keep_alive and not reply.is_cut
        self._complete()
        return True

    def _send_head(self, status: int, headers: Iterable[Header]) -> None:
        lines = [STATUS_LINES[status]]
        says_close = False
        length: int | None = None
        for name, value in (*self._connection.server_state.default_headers, *headers):
            if _BAD_NAME.search(name) or _BAD_VALUE.search(value):
                raise RuntimeError(f"The application sent a header that is none: {name!r}.")
            lower = name.lower()
            if lower == b"content-length" and length is None:
                length = int(value)
            elif lower == b"connection":
                says_close = says_close or b"close" in [token.strip() for token in value.lower().split(b",")]
            lines.append(b"%b: %b\r\n" % (lower, value))
        self._has_body = self.scope["method"] != "HEAD"
        self._left_bytes = 0 if status in (204, 304) else length
        # RFC 9112 section 6.1: HTTP/1.0 knows no chunks. There the body ends with the connection, which is not kept.
        self._is_chunked = self._has_body and self._left_bytes is None and self.scope["http_version"] != "1.0"
        self.keep_alive = self.keep_alive and not says_close
        if not self.keep_alive and not says_close:
            lines.append(b"connection: close\r\n")
        if self._is_chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._connection.transport.write(b"".join(lines))
        self.answer = STARTED

    def _send_body(self, body: bytes, *, more_body: bool) -> None:
        if self._has_body:
            if self._left_bytes is not None:
                self._left_bytes -= len(body)
                if self._left_bytes < 0:
                    raise RuntimeError("The application's answer is longer than its Content-Length.")
            if self._is_chunked:
                body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more_body else b"0\r\n\r\n")
            if body:
                self._connection.transport.write(body)
        if not more_body:
            if self._has_body and self._left_bytes:
                raise RuntimeError("The application's answer is shorter than its Content-Length.")
            self._complete()

    def _complete(self) -> None:
        self.answer = COMPLETE
        self._body = bytearray()
        self._changed.set()
        self._connection.answered(self)


# What the application may send next.
_MESSAGES = {DUE: "http.response.start", STARTED: "http.response.body"}


def _parsed(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it was sent, and query."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        parsed = None
    if parsed is None or parsed.path is None:
        raise LogweirError(HTTP_BAD, reason="it does not follow the protocol")
    path: bytes = parsed.path
    text = path.decode("ascii")
    return urllib.parse.unquote(text) if "%" in text else text, path, parsed.query or b""
