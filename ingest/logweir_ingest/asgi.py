"""The ASGI interface: serves the hot endpoints at the least cost, hands everything else to Flask, decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from logweir.http.cycle import WRITER
from logweir.http.inline import InlineRequest
from logweir.http.reader import Head
from logweir.http.wsgi import Receive, Scope, Send, WsgiFace, expects_100
from logweir.process.collector import collect_seldom
from logweir_ingest.app import ENDPOINTS, EventsRequest, IngestApp, endpoint_of
from logweir_ingest.formats.port import Format
from logweir_ingest.records.batcher import Post, call_now
from logweir_ingest.request.limits import COUNTED_FROM_BYTES
from logweir_ingest.request.message import Reply, Request

# For what is served beside the events, and takes no time.
_OTHER_THREADS = 8


class AsgiApp:
    """The ASGI application. Opens its IngestApp when the process's event loop runs, stops it when the server stops.

    ``open_app(post, soon)`` opens one whose batcher uses these; ``make_wsgi(app)`` makes the WSGI application for what
    is not hot. With ``wsgi_threads`` that application serves everything, so many requests for events at once. The app
    has ``stop_timeout_s`` seconds for its end.
    """

    def __init__(
        self,
        open_app: Callable[[Post, Post], IngestApp],
        make_wsgi: Callable[[Callable[[], IngestApp]], Any],
        *,
        stop_timeout_s: float,
        wsgi_threads: int = 0,
    ) -> None:
        self._open_app = open_app
        self._stop_timeout_s = stop_timeout_s
        self._app: IngestApp | None = None
        self._is_all_wsgi = wsgi_threads > 0
        self._wsgi = WsgiFace(make_wsgi(lambda: self.app), threads=wsgi_threads + _OTHER_THREADS)
        self.inline_urls = {} if self._is_all_wsgi else _formats_by_url()

    @property
    def app(self) -> IngestApp:
        assert self._app is not None, "the server has not started"
        return self._app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            endpoint = endpoint_of(scope["path"], scope["method"])
            # Flask knows what is left out of an answer to HEAD.
            if endpoint is None or not endpoint.hot or self._is_all_wsgi or scope["method"] == "HEAD":
                await self._wsgi(scope, receive, send)
            elif endpoint.format is not None:
                await self._events(endpoint.format, scope, receive, send)
            else:
                await _write(send, self.app.answer(_request(scope)))
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _events(self, format: Format, scope: Scope, receive: Receive, send: Send) -> None:
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        events = self.app.take(_request(scope), format, answered.set_result)
        if events.key is not None and (writer := scope.get(WRITER)) is not None:
            writer.show_key(events.key)
        try:
            while events.wants_body:
                if not await _receive_piece(events, receive):
                    return
            reply = await answered
        finally:
            events.abandon()
        is_whole = events.has_body or reply.is_cut
        if is_whole and (writer := scope.get(WRITER)) is not None and writer.write_reply(scope, reply):
            return
        await _write(send, reply, close=not events.has_body and expects_100(scope))

    def handle_inline(self, inline: InlineRequest) -> bool:
        """Take a request for events whose body is there already, unless that is large."""
        body = inline.body
        if len(body) > COUNTED_FROM_BYTES:
            return False
        peer = inline.client[0] if inline.client else ""
        request = Request("POST", inline.url.decode(), headers_of(inline.headers), peer)
        events = self.app.take(request, self.inline_urls[inline.url], inline.answer)
        inline.key = events.key
        events.receive(body, is_last=True)
        return True

    def hears_no_refusal(self, head: Head) -> bool:
        """Whether a request that cannot even begin is better left without an answer, as its format has it."""
        endpoint = endpoint_of(head.url.partition(b"?")[0].decode("latin-1"), head.method.decode("latin-1"))
        if endpoint is None or endpoint.format is None:
            return False
        return endpoint.format.hears_no_refusal(headers_of(head.headers))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        loop = asyncio.get_running_loop()

        def soon(function: Callable[..., object], *arguments: object) -> None:
            # Two rounds of the loop: one reads what the sockets hold, the next starts the requests that were read.
            loop.call_soon(lambda: loop.call_soon(function, *arguments))

        # Flask's requests wait on threads of their own, and need no loop to be told.
        ways = (call_now, call_now) if self._is_all_wsgi else (loop.call_soon_threadsafe, soon)
        self._app = self._open_app(*ways)
        collect_seldom()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        # On another thread: what it waits for is answered on this one.
        await loop.run_in_executor(None, self.app.stop, self._stop_timeout_s)
        await send({"type": "lifespan.shutdown.complete"})


async def _receive_piece(events: EventsRequest, receive: Receive) -> bool:
    """Whether there was one: if the connection ends before the body does, there is nobody to answer."""
    message = await receive()
    if message["type"] != "http.request":
        return False
    events.receive(message["body"], is_last=not message["more_body"])
    return True


def _formats_by_url() -> dict[bytes, Format]:
    """The URLs of requests for events that may be taken at once, and their formats."""
    return {
        endpoint.path.encode(): endpoint.format
        for endpoint in ENDPOINTS
        if endpoint.format is not None and endpoint.hot and endpoint.method == "POST" and "<" not in endpoint.path
    }


def _request(scope: Scope) -> Request:
    client = scope["client"]
    peer = client[0] if client else ""
    return Request(scope["method"], scope["path"], headers_of(scope["headers"]), peer, scope["query_string"])


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
