"""The ASGI face: serves the hot endpoints at the least cost, hands everything else to Flask, decides nothing itself."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from logweir.errors import BODY_TOO_LARGE, LogweirError
from logweir.http.cycle import WRITER
from logweir.http.inline import InlineRequest as Exchange
from logweir.http.wsgi import Message, Receive, Scope, Send, WsgiFace, expects_100
from logweir.record import Batch
from logweir_ingest.app import BY_ROUTE, Door, Intake, Reply, Request
from logweir_ingest.records.merge import Post, Result, call_now
from logweir_ingest.request.limits import COUNTED_FROM_BYTES, LONG_AT_ONCE

# For what is served beside the events, and takes no time.
_OTHER_THREADS = 8
# New objects that were not freed, 700 by default: requests free theirs by themselves.
_COLLECT_EVERY = 20_000


class _SenderGoneError(Exception):
    """The connection ended before the body did: there is nobody to answer."""


class _Answering:
    """The future of an exchange: answers it when it is told what became of the batch."""

    __slots__ = ("_door", "_exchange", "_intake", "_is_done")

    def __init__(self, door: Door, intake: Intake, exchange: Exchange) -> None:
        self._door = door
        self._intake = intake
        self._exchange = exchange
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, result: Result, /) -> None:
        self._is_done = True
        try:
            reply = self._door.accepted(self._intake, result)
        except Exception:  # noqa: BLE001  The senders behind it are to be told all the same.
            reply = self._door.failed("events")
        self._exchange.answer(reply)


class FastLane:
    """The ASGI application. Makes its door when the process's event loop runs, and stops it when the server stops.

    ``open_door(post, soon)`` makes a door whose merger uses these two; ``make_fallback(door)`` the WSGI application for
    what is not hot. With ``flask_threads`` that application serves everything, so many requests for events at once. The
    door has ``stop_timeout_s`` seconds for its end.
    """

    def __init__(
        self,
        open_door: Callable[[Post, Post], Door],
        make_fallback: Callable[[Callable[[], Door]], Any],
        *,
        stop_timeout_s: float,
        flask_threads: int = 0,
    ) -> None:
        self._open_door = open_door
        self._stop_timeout_s = stop_timeout_s
        self._door: Door | None = None
        self._is_bypassing = not flask_threads
        self._fallback = WsgiFace(make_fallback(lambda: self.door), threads=flask_threads + _OTHER_THREADS)
        self._hot = {route: endpoint for route, endpoint in BY_ROUTE.items() if endpoint.hot and self._is_bypassing}
        self.at_once_urls = frozenset(
            path.encode() for (path, method), endpoint in self._hot.items() if method == "POST" and not endpoint.answer
        )
        # What takes long is done on another thread, so that no other request waits.
        self._long = ThreadPoolExecutor(LONG_AT_ONCE, "long-body")

    @property
    def door(self) -> Door:
        assert self._door is not None, "the server has not started"
        return self._door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            endpoint = self._hot.get((scope["path"], scope["method"]))
            if endpoint is None:
                await self._fallback(scope, receive, send)
            elif endpoint.answer is None:
                await self._events(scope, receive, send)
            else:
                await _write(send, self.door.answer(_request(scope)))
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = self.door
        intake = None
        try:
            intake = door.let_in(_request(scope))
            batch = await self._batch(intake, receive)
            future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            door.enqueue(intake, batch, future)
            reply = door.accepted(intake, await future)
        except LogweirError as error:
            reply = door.refused("events", error)
        except _SenderGoneError:
            return
        except Exception:  # noqa: BLE001  A bug of ours must not end the process, nor show itself to the sender.
            reply = door.failed("events")
        is_body_read = intake is not None and intake.started_s > 0
        if is_body_read and (writer := scope.get(WRITER)) is not None and writer.write_reply(scope, reply):
            return
        await _write(send, reply, close=not is_body_read and expects_100(scope))

    def at_once(self, exchange: Exchange) -> bool:
        """Serve a request for events whose body is there already, if it is small and plain."""
        body, headers = exchange.body, headers_of(exchange.headers)
        if len(body) > COUNTED_FROM_BYTES or b"content-encoding" in headers:
            return False
        door = self.door
        peer = exchange.client[0] if exchange.client else ""
        try:
            intake = door.let_in(Request("POST", exchange.url.decode(), headers, peer))
            batch = door.brief_batch_of(intake, body)
            if batch is None:
                return False
            door.enqueue(intake, batch, _Answering(door, intake, exchange))
        except LogweirError as error:
            exchange.answer(door.refused("events", error))
        except Exception:  # noqa: BLE001  As in _events.
            exchange.answer(door.failed("events"))
        return True

    async def _batch(self, intake: Intake, receive: Receive) -> Batch:
        """The batch of the request's body, which is held no longer than that takes."""
        door = self.door
        message = None
        if intake.announced_bytes <= COUNTED_FROM_BYTES:
            message = await receive()
            if message["type"] == "http.request" and not message["more_body"]:
                body: bytes = message["body"]
                if len(body) <= door.body_size_bytes_max:
                    return door.brief_batch_of(intake, body) or await self._long_batch(intake, body)
        with door.bodies.hold(intake.announced_bytes) as grow:
            body = await _body(message or await receive(), receive, door.body_size_bytes_max, grow)
            return door.brief_batch_of(intake, body) or await self._long_batch(intake, body)

    async def _long_batch(self, intake: Intake, body: bytes) -> Batch:
        return await asyncio.get_running_loop().run_in_executor(self._long, self.door.batch_of, intake, body)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        loop = asyncio.get_running_loop()

        def soon(function: Callable[..., object], *arguments: object) -> None:
            # Two rounds of the loop: one reads what the sockets hold, the next starts the requests that were read.
            loop.call_soon(lambda: loop.call_soon(function, *arguments))

        # Flask's requests wait on threads of their own, and need no loop to be told.
        ways = (loop.call_soon_threadsafe, soon) if self._is_bypassing else (call_now, call_now)
        self._door = self._open_door(*ways)
        # Everything up to here stays: not to be looked at again by each collection.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_EVERY)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        # On another thread: what it waits for is settled on this one.
        await loop.run_in_executor(None, self.door.stop, self._stop_timeout_s)
        await send({"type": "lifespan.shutdown.complete"})


async def _body(message: Message, receive: Receive, size_bytes_max: int, grow: Callable[[int], None]) -> bytes:
    """The whole body, which begins with ``message``.

    Raises LogweirError: BODY_TOO_LARGE at the first byte too many, and what ``grow`` raises.
    """
    pieces: list[bytes] = []
    size_bytes = 0
    while message["type"] == "http.request":
        pieces.append(message["body"])
        size_bytes += len(message["body"])
        if size_bytes > size_bytes_max:
            raise LogweirError(BODY_TOO_LARGE, size_bytes_max=size_bytes_max)
        grow(size_bytes)
        if not message["more_body"]:
            return b"".join(pieces)
        message = await receive()
    raise _SenderGoneError


def _request(scope: Scope) -> Request:
    client = scope["client"]
    return Request(scope["method"], scope["path"], headers_of(scope["headers"]), client[0] if client else "")


def headers_of(pairs: Collection[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header names to values; the values of a name that was sent twice are joined, as RFC 9110 section 5.2 has it."""
    headers = dict(pairs)
    if len(headers) != len(pairs):
        headers = {}
        for name, value in pairs:
            headers[name] = headers[name] + b"," + value if name in headers else value
    return headers


async def _write(send: Send, reply: Reply, *, close: bool = False) -> None:
    headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
