"""uvicorn's HTTP protocol with the limits that it lacks; every server of ours speaks it.

Without them one unauthenticated connection with one ever-growing header costs a worker its memory, headers that drip in
are never cut, nor is a client that never reads its answers, and requests that a client sends ahead pile up.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from logweir.config import HttpSettings
from logweir.errors import (
    ANSWER_UNREAD,
    BODY_TOO_SLOW,
    CONNECTIONS_TOO_MANY,
    HEADERS_TOO_LARGE,
    HEADERS_TOO_MANY,
    HEADERS_TOO_SLOW,
    HTTP_BAD,
    PIPELINED_TOO_MANY,
    REQUESTS_TOO_MANY,
    STOPPING,
    LogweirError,
)
from logweir.http.exchange import Exchange, Reply, urls_of

WRITER = "logweir.writer"
"""In the scope: the connection, whose ``write_reply(scope, reply) -> bool`` writes a whole answer at once."""

# A chunked body costs at most this many bytes on the wire for each of its own ("1\r\nx\r\n").
_CHUNKING_FACTOR = 6
# Who is told to come back later is listened to for so long, or the answer would be lost with what was not read.
_LINGER_S = 2.0
_COME_BACK = (429, 503)
_RETRY_AFTER_S = 2
# Connections beyond the limit that are told so; any more are ended without a word.
_TOLD_CONNECTIONS_MAX = 256


# By status: uvicorn's own headers, those of an answer, and both as they are written.
_heads: dict[int, tuple[object, object, bytes]] = {}


class _Flow(FlowControl):
    """Reads nothing more while requests wait for the answer to an earlier one, and writes nothing to who has gone.

    uvicorn asks ``write_paused`` before each of its writes. It tells only the last request that it has read of a lost
    connection, and that one round of the loop late: answers to earlier ones would fail, each with a trace in the log.
    ``answering``: the request that is answered now.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        self._is_write_paused = False
        super().__init__(transport)
        self._pipeline = pipeline
        self.answering: Any = None

    @property
    def write_paused(self) -> bool:
        return self._is_write_paused or self._transport.is_closing()

    @write_paused.setter
    def write_paused(self, paused: bool) -> None:
        self._is_write_paused = paused

    async def drain(self) -> None:
        if not self._transport.is_closing():
            await super().drain()
        if self._transport.is_closing():
            self.answering.disconnected = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._is_writable_event.set()

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class LimitedProtocol(HttpToolsProtocol):
    """One connection. ``configure`` is called once, before the server starts.

    A message is under way from its first byte to its body's end. ``_fed`` counts its bytes on the wire before those
    that are read now, ``_reading`` these, ``_body`` those of its body, ``_since_body`` those on the wire behind it.
    What is no body is headers, trailers or the chunks' own framing, none of which may grow. A *deaf* connection hears
    no more: its last answer is written, or waits for those to earlier requests.
    """

    settings: ClassVar[HttpSettings] = HttpSettings()
    section: ClassVar[str] = ""
    spared: ClassVar[Collection[bytes]] = ()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._under_way = False
        self._in_headers = False
        self._began_behind_another = False
        self._completed_here = False
        self._fed = 0
        self._reading = 0
        self._body = 0
        self._since_body = 0
        self._has_body = False
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since_s = 0.0
        self._is_extra = False
        self._is_deaf = False
        self._is_ending = False
        self._is_refusing = False
        self._asks_for_upgrade = False
        self._last_word: LogweirError | None = None
        self._at_once_urls = urls_of(self.app)

    @classmethod
    def configure(
        cls, settings: HttpSettings, *, section: str, spared: Collection[bytes], refused: Callable[[str], object]
    ) -> None:
        """``section`` is that of the settings, for what is said; ``spared`` are paths that are served under any load.

        ``refused`` gets the code of each refusal.
        """
        cls.settings, cls.section, cls.spared = settings, section, frozenset(spared)
        cls.refused = staticmethod(refused)  # type: ignore[method-assign,assignment]

    @staticmethod
    def refused(code: str) -> None:
        """Count a refusal."""

    # --- the connection --------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        beyond = len(self.connections) - self.settings.connections_max
        self._is_extra = beyond > 0
        if beyond > _TOLD_CONNECTIONS_MAX:
            self.refused(CONNECTIONS_TOO_MANY.code)
            transport.abort()
        else:
            self._arm(_LINGER_S if self._is_extra else self.settings.header_timeout_s, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self.resume_writing()
        if self.scope is not None:
            # Connection and last request would hold each other, headers and all, until somebody looks for such pairs.
            self.scope.pop(WRITER, None)  # type: ignore[misc]
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.flow.answering = cycle  # type: ignore[attr-defined]
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self.settings.read_timeout_s, self._unread)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def finish(self, *, refusing: bool, closing: bool) -> None:
        """The server ends: make the answer to what is under way, or to what comes next, the last one here.

        ``refusing``: what comes next is answered 503. ``closing``: close the connection now if nothing is under way.
        Harmless when it is called again.
        """
        self._is_ending, self._is_refusing = True, refusing
        if self._under_way or self._is_deaf:
            return
        if not self._is_idle():
            self._end_behind_answer()
        elif closing and not self.transport.is_closing():
            self._close()

    def cut(self) -> None:
        """The server has no more time for what is still being sent: refuse it."""
        if self._under_way:
            self._refuse(LogweirError(STOPPING))

    def _end_behind_answer(self) -> None:
        # An answer that has begun has said already that the connection stays.
        if not self.cycle.response_started:
            self.cycle.keep_alive = False

    # --- what comes in ---------------------------------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._completed_here = False
        self._reading = len(data)
        self._has_body = False
        self._feed(data)
        if self._under_way:
            self._go_on(len(data))
            cycle: Any = self.cycle
            if type(cycle) is Exchange and not self._in_headers and not self._is_deaf:
                self._begin_task(cycle)
        elif self._timer is None and not self._completed_here and not self._is_deaf and self._is_idle():
            # Line ends before a request, and nothing else.
            self._arm(self.settings.header_timeout_s, self._too_slow)

    def _go_on(self, size_bytes: int) -> None:
        """Refuse the message under way if too much has come of it, else see that its rest comes in time."""
        settings = self.settings
        # What came in one piece with the end of the message before cannot be told apart; it is one read at most.
        if not self._began_behind_another:
            self._fed += size_bytes
            self._since_body = 0 if self._has_body else self._since_body + size_bytes
        self._began_behind_another = False
        framing_size_bytes_max = settings.header_size_bytes_max + _CHUNKING_FACTOR * self._body
        if self._since_body > settings.header_size_bytes_max or self._fed - self._body > framing_size_bytes_max:
            self._refuse(self._headers_too_large())
        elif len(self.headers) > settings.headers_max:
            self._refuse(self._headers_too_many())
        elif self._timer is None:
            self._await_rest()

    def _await_rest(self) -> None:
        """Refuse the message under way if its headers, or its body, do not end in time.

        Not while requests before it wait for their turn: until then nothing is read.
        """
        if self.pipeline or self._is_deaf:
            return
        settings = self.settings
        self._arm(settings.header_timeout_s if self._in_headers else settings.body_timeout_s, self._too_slow)

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                if self._asks_for_upgrade:
                    data = self._without_upgrade() + data[stopped.args[0] :]
                    self._reading = len(data)
                    continue
                self._refuse(LogweirError(HTTP_BAD, reason="it asks for a tunnel"))
            except httptools.HttpParserError:
                self._refuse(LogweirError(HTTP_BAD, reason="it does not follow the protocol"))
            return

    def _without_upgrade(self) -> bytes:
        """The head of the request once more, for a new parser: this one ends at a wish for HTTP/2, before the body.

        RFC 9110 section 7.8: a server may do as if it was not wished for. Java's own client does so with each POST.
        """
        self._asks_for_upgrade = False
        head = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join([*head, b"\r\n"])

    def on_message_begin(self) -> None:
        # uvicorn makes the scope here, which an exchange does without: see _begin_task.
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._under_way = self._in_headers = True
        self._began_behind_another = self._completed_here
        self._fed = self._body = self._since_body = 0

    def on_headers_complete(self) -> None:
        if self._is_deaf:
            return
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._asks_for_upgrade = True
            return
        self._disarm()
        settings = self.settings
        # Headers are counted one by one only where all that came is larger.
        if self._fed + self._reading > settings.header_size_bytes_max and self._has_large_headers():
            self._refuse(self._headers_too_large())
        elif len(self.headers) > settings.headers_max:
            self._refuse(self._headers_too_many())
        elif self._is_extra or self._is_refusing or self.pipeline or len(self.tasks) >= settings.requests_max:
            self._begin_under_load()
        else:
            self._begin()
        self._in_headers = False
        # The request has its list. RFC 9110 section 6.5.1: trailers must not be merged into it; uvicorn appends them.
        self.headers = []

    def _begin(self) -> None:
        """Begin the request: with a task, unless it may be answered at once should it come whole."""
        is_for_at_once = (
            self.url in self._at_once_urls
            and self.parser.get_method() == b"POST"
            and not self.expect_100_continue
            and self._is_idle()
            and not self.flow.write_paused
        )
        if is_for_at_once:
            keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
            self.cycle = Exchange(self, keep_alive=keep_alive)  # type: ignore[assignment]
        else:
            self._begin_task()

    def _begin_task(self, exchange: Exchange | None = None) -> None:
        """Go uvicorn's way: a scope, a cycle, a task. So does an exchange that has not come whole, or was not taken."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        if exchange is not None:
            headers, expects = exchange.headers, False  # What has come since are trailers.
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.scope["headers"] = headers
        self.scope[WRITER] = self  # type: ignore[literal-required]
        if exchange is None:
            super().on_headers_complete()
            return
        self.cycle = None  # type: ignore[assignment]
        super().on_headers_complete()
        if exchange.body:
            super().on_body(exchange.body)
        if not exchange.more_body:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._has_body = True
        if not self._is_deaf:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._asks_for_upgrade or self._is_deaf:
            return
        self._under_way = False
        self._completed_here = True
        self._disarm()
        super().on_message_complete()
        if self._is_ending:
            # Not earlier: closed behind an early answer, the connection would lose it with the body's rest.
            self._end_behind_answer()
        cycle: Any = self.cycle
        # Of an earlier request's exchange it would be complete, or this one had been queued behind it.
        if type(cycle) is Exchange and not cycle.response_complete:
            self.tasks.add(cycle)  # type: ignore[arg-type]
            if not self.app.at_once(cycle):
                self.tasks.discard(cycle)
                self._begin_task(cycle)

    # --- answers ---------------------------------------------------------------------------------------------------
    def write_reply(self, scope: object, reply: Reply) -> bool:
        """Write an answer in one piece; False when it must go the usual way (pipelining, a full send buffer).

        uvicorn writes head and body apart, each a system call and a packet, and checks each header twice.
        """
        cycle: Any = self.cycle
        if type(cycle) is Exchange or cycle.scope is not scope or cycle.response_started or cycle.disconnected:
            return False
        if self.flow.write_paused:
            return False
        cycle.waiting_for_100_continue = False
        self._write_whole(cycle, reply)
        cycle.on_response()
        return True

    def finish_exchange(self, exchange: Exchange, reply: Reply) -> None:
        """Answer it, if somebody is still there."""
        self.tasks.discard(exchange)
        if not exchange.disconnected and not self.transport.is_closing():
            self._write_whole(exchange, reply)
            self.on_response_complete()

    def _write_whole(self, cycle: Any, reply: Reply) -> None:
        end = b"" if cycle.keep_alive else b"connection: close\r\n"
        head = self._head(reply)
        self.transport.write(b"%bcontent-length: %d\r\n%b\r\n%b" % (head, len(reply.body), end, reply.body))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()

    def _head(self, reply: Reply) -> bytes:
        """What begins an answer: mostly the same as the last one's of that status, for a second."""
        defaults, headers = self.server_state.default_headers, reply.headers
        known = _heads.get(reply.status)
        if known is not None and known[0] is defaults and known[1] is headers:
            return known[2]
        lines = [STATUS_LINE[reply.status], *(b"%b: %b\r\n" % header for header in (*defaults, *headers))]
        head = b"".join(lines)
        _heads[reply.status] = (defaults, headers, head)
        return head

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._close()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if self._under_way:
                self._await_rest()
        elif self._last_word is not None:
            self._say(self._last_word)
        else:
            self._idle_since_s = self.loop.time()
            if self._idle_timer is None:
                self._idle_timer = self.loop.call_later(self.settings.idle_timeout_s, self._idled)

    def _idled(self) -> None:
        """Close the connection if it idles for so long already. One timer each; uvicorn sets one for each answer."""
        rest_s = self._idle_since_s + self.settings.idle_timeout_s - self.loop.time()
        if self._under_way or self._is_deaf or not self._is_idle():
            rest_s = self.settings.idle_timeout_s
        if rest_s > 0:
            self._idle_timer = self.loop.call_later(rest_s, self._idled)
        else:
            self._close()

    # --- refusals --------------------------------------------------------------------------------------------------
    def _begin_under_load(self) -> None:
        """Begin the request or refuse it, when the process or the connection has much to do."""
        error = self._overload()
        if error is not None:
            self._refuse(error)
            return
        self._begin_task()
        if self._is_extra:
            self.cycle.keep_alive = False

    def _overload(self) -> LogweirError | None:
        settings, section = self.settings, self.section
        self._is_extra = self._is_extra and len(self.connections) > settings.connections_max
        if len(self.pipeline) >= settings.pipelined_requests_max:
            requests_max = settings.pipelined_requests_max
            return LogweirError(PIPELINED_TOO_MANY, requests_max=requests_max, section=section)
        if self.url in self.spared:
            return None
        if self._is_refusing:
            return LogweirError(STOPPING)
        if self._is_extra:
            return LogweirError(CONNECTIONS_TOO_MANY, connections_max=settings.connections_max, section=section)
        if len(self.tasks) >= settings.requests_max:
            return LogweirError(REQUESTS_TOO_MANY, requests_max=settings.requests_max, section=section)
        return None

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _has_large_headers(self) -> bool:
        size_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        return size_bytes > self.settings.header_size_bytes_max

    def _headers_too_large(self) -> LogweirError:
        size_bytes_max = self.settings.header_size_bytes_max
        return LogweirError(HEADERS_TOO_LARGE, size_bytes_max=size_bytes_max, section=self.section)

    def _headers_too_many(self) -> LogweirError:
        return LogweirError(HEADERS_TOO_MANY, headers_max=self.settings.headers_max, section=self.section)

    def _too_slow(self) -> None:
        settings, section = self.settings, self.section
        if not self._under_way:
            self._close()  # It never began to ask.
        elif self._in_headers:
            self._refuse(LogweirError(HEADERS_TOO_SLOW, timeout_s=settings.header_timeout_s, section=section))
        else:
            self._refuse(LogweirError(BODY_TOO_SLOW, timeout_s=settings.body_timeout_s, section=section))

    def _unread(self) -> None:
        self.refused(ANSWER_UNREAD.code)
        self.transport.abort()

    def _refuse(self, error: LogweirError) -> None:
        """Answer after what is due to earlier requests, and end the connection."""
        if self._is_deaf or self.transport.is_closing():
            return
        self._is_deaf = True
        self._disarm()
        self.headers.clear()
        self.refused(error.problem.code)
        is_in_body = self._under_way and not self._in_headers
        is_behind = bool(self.pipeline) if is_in_body else not self._is_idle()
        if is_in_body and is_behind:
            self.pipeline.popleft()  # It is the newest, and shall not begin.
        if is_behind:
            self._last_word = error
        elif is_in_body and self.cycle.response_started:
            self._close()
        else:
            self._say(error)

    def _say(self, error: LogweirError) -> None:
        self.transport.write(_problem_answer(error))
        if error.problem.status in _COME_BACK:
            self.flow.resume_reading()
            self._arm(_LINGER_S, self._close)
        else:
            self._close()

    def _close(self) -> None:
        """End the connection; with force when the client does not take what was written."""
        self.transport.close()
        self._arm(self.settings.read_timeout_s, self.transport.abort)

    def _arm(self, timeout_s: float, then: Callable[[], object]) -> None:
        self._disarm()
        self._timer = self.loop.call_later(timeout_s, self._fire, then)

    def _fire(self, then: Callable[[], object]) -> None:
        self._timer = None
        then()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _problem_answer(error: LogweirError) -> bytes:
    body = json.dumps(error.as_dict(), separators=(",", ":")).encode()
    retry_after = b"retry-after: %d\r\n" % _RETRY_AFTER_S if error.problem.status in _COME_BACK else b""
    return b"%bcontent-type: application/problem+json\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        STATUS_LINE[error.problem.status],
        retry_after,
        len(body),
        body,
    )
