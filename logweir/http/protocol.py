"""HTTP/1.1 as our servers speak it: an asyncio.Protocol that holds under hostile clients.

    bytes -> RequestReader -> requests, one answered after another -> bytes
                              InlineRequest: came in one piece, answered without a task
                              Cycle: ASGI

What may happen to a connection when, and what follows, is a table: states.py.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.server import ServerState

from logweir.errors import CONNECTIONS_TOO_MANY, STOPPING, LogweirError
from logweir.http.cycle import Cycle
from logweir.http.deadline import Deadline
from logweir.http.flow import Flow
from logweir.http.inline import InlineRequest, inline_urls_of
from logweir.http.limits import Limits
from logweir.http.pipeline import Pipeline
from logweir.http.reader import Head, RequestReader
from logweir.http.reply import Refusal, refusal_of
from logweir.http.states import (
    BEGIN,
    BODY,
    CLOSE,
    CLOSED,
    CLOSING,
    END,
    HEADERS,
    HEADERS_END,
    IDLE,
    LINGER,
    LOSE,
    NEW,
    OPEN,
    REFUSE,
    after,
)

# A client that is told to come back later is read for so long, and what it sends is thrown away: the system resets a
# connection that is closed with something unread, and a reset may take the answer away.
_LINGER_S = 2.0
# Connections beyond the limit that are told so; any more are ended without a word.
_TOLD_CONNECTIONS_MAX = 256


class HttpProtocol(asyncio.Protocol):
    """One connection. ``limits`` is set once, before the server starts."""

    limits: ClassVar[Limits] = Limits()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn's server makes one."""
        if not config.loaded:
            config.load()
        self.state = NEW
        self.app_state = app_state
        self.server_state = server_state
        self.connections: set[Any] = server_state.connections
        self.tasks: set[Any] = server_state.tasks
        loop = _loop or asyncio.get_running_loop()
        self.loop = loop
        self._inline_urls = inline_urls_of(config.loaded_app)
        self._pipeline = Pipeline(loop, config.loaded_app, self.tasks)
        self._reader = RequestReader(self, self.limits)
        self._deadline = Deadline(loop, self._expire)
        # Where the body goes that comes now: to a request, or aside until it is known whether it comes in one piece.
        self._receiver: Cycle | None = None
        self._held: Head | None = None
        self._held_body: list[bytes] = []
        # What is answered when the earlier requests are.
        self._refusal: Refusal | None = None
        self._cuts_refusal = False
        self.holder: str | None = None
        self.key: str | None = None
        self._is_over_limit = False
        self._is_ending = False
        self._is_refusing = False

    # --- the connection --------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        settings = self.limits.settings
        self.transport = transport
        self.flow = Flow(self.loop, transport, self.limits)
        self.client = _address(transport, "peername")
        self.base_scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "server": _address(transport, "sockname"),
            "client": self.client,
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
            "root_path": "",
        }
        self.connections.add(self)
        if self.limits.shares is not None:
            self.limits.shares.add(self, self.client[0] if self.client else "")
        beyond = len(self.connections) - settings.connections_max
        self._is_over_limit = beyond > 0
        if beyond > _TOLD_CONNECTIONS_MAX:
            self.limits.refused(CONNECTIONS_TOO_MANY.code)
            self.state = after(self.state, CLOSE)
            transport.abort()
        else:
            self._deadline.set(_LINGER_S if self._is_over_limit else settings.header_timeout_s)

    def connection_lost(self, _: Exception | None) -> None:
        self.state = after(self.state, LOSE)
        self.connections.discard(self)
        if self.limits.shares is not None:
            self.limits.shares.discard(self)
        self._pipeline.drop()
        self._deadline.end()
        self.flow.end()
        self._reader.release()
        # What holds the connection, and is held by it, would stay until the garbage collector looks for such pairs.
        self._receiver = None
        del self._reader

    def show_key(self, name: str, request: Cycle | InlineRequest) -> None:
        """A request has come with the good key of that name: the connection is no stranger's any more."""
        shares = self.limits.shares
        if shares is None or self.key is not None or self.state is CLOSED:
            return
        # An answer that has begun has said already that the connection stays.
        if not shares.show_key(self, name) and not request.is_started:
            request.keep_alive = False

    def make_room(self) -> None:
        """Another connection needs the room: end."""
        if self.state is not CLOSING:
            self.state = after(self.state, CLOSE)
        # It counts no more, though it is told so only in the loop's next round.
        self.connections.discard(self)
        self._pipeline.drop()
        self.transport.abort()

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def finish(self, *, refusing: bool, closing: bool) -> None:
        """The server ends: make the answer to what is under way, or to what comes next, the last on this connection.

        ``refusing``: what comes next is answered 503. ``closing``: close the connection now if nothing is under way.
        Harmless when it is called again.
        """
        self._is_ending, self._is_refusing = True, refusing
        if self.state is not NEW and self.state is not IDLE:
            return
        if self._pipeline.current is not None:
            self._pipeline.make_newest_last()
        elif closing:
            self.close()

    def shutdown(self) -> None:
        """What uvicorn's own server calls at its end."""
        self.finish(refusing=False, closing=True)

    def cut(self) -> None:
        """The server has no more time: refuse what is still being sent."""
        if self.state is HEADERS or self.state is BODY:
            self._refuse(LogweirError(STOPPING))

    # --- what comes in ---------------------------------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        if self.state not in OPEN:
            return
        try:
            self._reader.feed(data)
        except LogweirError as error:
            self._refuse(error)
            return
        if self.state is HEADERS or self.state is BODY:
            if self._held is not None:
                self._begin(self._held)
                self._held = None
            if not self._deadline.is_set:
                self._await_rest()

    def _await_rest(self) -> None:
        """Refuse the message under way if its headers, or its body, do not end in time.

        Not while requests before it wait for their turn: until then nothing is read.
        """
        if not self._pipeline.waiting:
            settings = self.limits.settings
            is_in_headers = self.state is HEADERS
            self._deadline.set(settings.header_timeout_s if is_in_headers else settings.body_timeout_s)

    def begin(self) -> None:
        """A message begins. The time for the headers of the first one runs since the connection was made."""
        if self.state is not NEW:
            self._deadline.clear()
        self.state = after(self.state, BEGIN)

    def end_headers(self, head: Head) -> None:
        """The headers of the message have come: begin its request, unless it may come whole. Raises LogweirError."""
        self.state = after(self.state, HEADERS_END)
        self._deadline.clear()
        limits = self.limits
        waiting = self._pipeline.waiting
        is_loaded = waiting or len(self.tasks) >= limits.settings.requests_max
        if is_loaded or self._is_over_limit or self._is_refusing:
            self._is_over_limit = self._is_over_limit and len(self.connections) > limits.settings.connections_max
            error = limits.overload(
                head.url,
                waiting=len(waiting),
                requests=len(self.tasks),
                is_stopping=self._is_refusing,
                is_over_limit=self._is_over_limit,
            )
            if error is not None:
                self._cuts_refusal = limits.looks_at_no_status(head.url, head.headers)
                raise error
            head.keep_alive = head.keep_alive and not self._is_over_limit
            self._begin(head)
        elif (
            head.url in self._inline_urls
            and head.method == b"POST"
            and not head.expects_100
            and self._pipeline.current is None
            and self.flow.is_writable
        ):
            self._held = head
        else:
            self._begin(head)

    def add_body(self, piece: bytes) -> None:
        """A piece of the message's body has come."""
        if self._receiver is not None:
            self._receiver.add_body(piece)
        else:
            self._held_body.append(piece)

    def end(self) -> None:
        """The message has come whole."""
        self.state = after(self.state, END)
        self._deadline.clear()
        if self._held is not None:
            head, self._held = self._held, None
            head.keep_alive = head.keep_alive and not self._is_ending
            request = InlineRequest(self, head, b"".join(self._held_body))
            if self._pipeline.take(request):
                self._held_body.clear()
                if request.key is not None and self.key is None:
                    self.show_key(request.key, request)
                return
            self._begin(head)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.end_body()
        if self._is_ending:
            # Not earlier: closed behind an early answer, the connection would lose it with the body's rest.
            self._pipeline.make_newest_last()
        if self._pipeline.current is None:
            self._deadline.set(self.limits.settings.idle_timeout_s)

    # --- requests and answers --------------------------------------------------------------------------------------
    def _begin(self, head: Head) -> None:
        """Begin the request with what was held back of its body. Raises LogweirError(HTTP_BAD)."""
        cycle = self._receiver = Cycle(self, head)
        if self._held_body:
            cycle.add_body(b"".join(self._held_body))
            self._held_body.clear()
        self._pipeline.add(cycle)
        if self._pipeline.waiting:
            self.flow.pause_reading()

    def answered(self, request: Cycle | InlineRequest) -> None:
        """The current request's answer is written: close the connection or go on with the next request."""
        self.server_state.total_requests += 1
        pipeline = self._pipeline
        if not request.keep_alive or self.transport.is_closing():
            self.close()
            return
        pipeline.advance()
        if not pipeline.waiting:
            self.flow.resume_reading()
        if pipeline.current is not None:
            if self.state is HEADERS or self.state is BODY:
                self._await_rest()
        elif self._refusal is not None:
            self._answer(self._refusal)
        elif self.state is IDLE:
            self._deadline.set(self.limits.settings.idle_timeout_s)

    # --- the end ---------------------------------------------------------------------------------------------------
    def _refuse(self, error: LogweirError) -> None:
        """Answer after what is due to earlier requests, and end the connection."""
        if self.state not in OPEN or self.transport.is_closing():
            return
        self.state = after(self.state, REFUSE)
        self.limits.refused(error.problem.code)
        self._deadline.clear()
        self._reader.release()
        receiver = self._receiver
        self._receiver = self._held = None
        if receiver is not None:
            if receiver.is_started:
                self.close()
                return
            self._pipeline.withdraw_newest()
        refusal = refusal_of(error, is_cut=self._cuts_refusal)
        if self._pipeline.current is None:
            self._answer(refusal)
        else:
            self._refusal = refusal

    def _answer(self, refusal: Refusal) -> None:
        """Write the last answer."""
        self.transport.write(refusal.answer)
        if refusal.is_come_back:
            self.state = after(self.state, LINGER)
            self.flow.resume_reading()
            self._deadline.set(_LINGER_S)
        else:
            self.close()

    def close(self) -> None:
        """Send what is written, and end the connection; with force when the client does not take it."""
        self.state = after(self.state, CLOSE)
        self._pipeline.drop()
        self.transport.close()
        self._deadline.set(self.limits.settings.read_timeout_s)

    def _expire(self) -> None:
        """The time is over for the state that the connection is in."""
        if self.state is HEADERS:
            self._refuse(self.limits.headers_too_slow())
        elif self.state is BODY:
            self._refuse(self.limits.body_too_slow())
        elif self.state is CLOSING:
            self.transport.abort()
        else:
            self.close()


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    """The host and port of one end."""
    try:
        address = transport.get_extra_info(name)
    except OSError:  # The client has gone already.
        return None
    return address[:2] if isinstance(address, tuple) else None
