"""uvicorn's HTTP protocol with the limits that it lacks: header bytes, header time, body time.

Without them one unauthenticated connection with one ever-growing header costs a worker its memory, and headers that
drip in are never cut.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from logweir import metrics
from logweir.config import IngestSettings
from logweir.errors import BODY_TOO_SLOW, HEADERS_TOO_LARGE, HEADERS_TOO_SLOW, HTTP_BAD, LogweirError
from logweir_ingest.app import Reply, problem_reply
from logweir_ingest.fastlane import WRITER

# A chunked body costs at most this many bytes on the wire for each of its own ("1\r\nx\r\n").
_CHUNKING_FACTOR = 6


class LimitedProtocol(HttpToolsProtocol):
    """One connection. ``settings`` is set once, before the server starts.

    A message is under way from its first byte to its body's end. ``_fed`` counts its bytes on the wire, ``_body`` those
    of its body: what is over is headers, trailers or the chunks' own framing, none of which may grow.
    """

    settings: ClassVar[IngestSettings] = IngestSettings()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._under_way = False
        self._in_headers = False
        self._began_behind_another = False
        self._completed_here = False
        self._fed = 0
        self._body = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(self.settings.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._completed_here = False
        super().data_received(data)
        if not self._under_way:
            if self._timer is None and not self._completed_here and self._is_idle():
                self._arm(self.settings.header_timeout_s)  # Line ends before a request, and nothing else.
            return
        # What came in one piece with the end of the message before cannot be told apart; it is one read at most.
        if not self._began_behind_another:
            self._fed += len(data)
        self._began_behind_another = False
        if self._fed - self._body > self.settings.header_size_bytes_max + _CHUNKING_FACTOR * self._body:
            self._refuse(self._headers_too_large())
        elif self._timer is None:
            settings = self.settings
            self._arm(settings.header_timeout_s if self._in_headers else settings.body_timeout_s)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[WRITER] = self  # type: ignore[literal-required]
        self._under_way = self._in_headers = True
        self._began_behind_another = self._completed_here
        self._fed = self._body = 0

    def on_headers_complete(self) -> None:
        self._disarm()
        size_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size_bytes > self.settings.header_size_bytes_max:
            self._refuse(self._headers_too_large())
        else:
            super().on_headers_complete()
        self._in_headers = False

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if self.cycle is not None and not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._under_way = False
        self._completed_here = True
        self._disarm()
        if self.cycle is not None and not self.transport.is_closing():
            super().on_message_complete()

    def write_reply(self, scope: object, reply: Reply) -> bool:
        """Write an answer in one piece; False when it must go the usual way (pipelining, a full send buffer).

        uvicorn writes head and body apart, each a system call and a packet, and checks each header twice.
        """
        cycle = self.cycle
        if cycle.scope is not scope or cycle.response_started or cycle.disconnected or self.flow.write_paused:
            return False
        lines = [STATUS_LINE[reply.status]]
        for header in (*self.server_state.default_headers, *reply.headers):
            lines.append(b"%b: %b\r\n" % header)
        lines.append(b"content-length: %d\r\n" % len(reply.body))
        lines.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        lines.append(reply.body)
        self.transport.write(b"".join(lines))
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's words, where ours are said)
        self._refuse(LogweirError(HTTP_BAD, reason="it does not follow the protocol"))

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _headers_too_large(self) -> LogweirError:
        return LogweirError(HEADERS_TOO_LARGE, size_bytes_max=self.settings.header_size_bytes_max)

    def _arm(self, timeout_s: float) -> None:
        self._timer = self.loop.call_later(timeout_s, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self._under_way:
            self.transport.close()  # It never began to ask.
        elif self._in_headers:
            self._refuse(LogweirError(HEADERS_TOO_SLOW, timeout_s=self.settings.header_timeout_s))
        else:
            self._refuse(LogweirError(BODY_TOO_SLOW, timeout_s=self.settings.body_timeout_s))

    def _refuse(self, error: LogweirError) -> None:
        """Answer, unless another answer is due or on its way, and end the connection."""
        if self.transport is None or self.transport.is_closing():
            return
        metrics.get("logweir_ingest_rejected_requests_total").labels(error.problem.code).inc()
        is_before_body = self._in_headers or not self._under_way
        if self._is_idle() if is_before_body else not self.cycle.response_started:
            reply = problem_reply(error)
            lines = [STATUS_LINE[reply.status]]
            lines += [b"%b: %b\r\n" % header for header in reply.headers]
            lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(reply.body))
            self.transport.write(b"".join([*lines, reply.body]))
        self.transport.close()
