"""uvicorn's server for one process: with TLS that follows its certificate, and an end that cuts nobody off."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, ClassVar

import uvicorn
from uvicorn.config import Config

log = logging.getLogger(__name__)

# What gunicorn takes for "it cannot start".
_STARTUP_FAILURE = 3
# A connection that is not used is kept for so long after the word to stop: its client may be writing already.
_IDLE_S = 1.0
_TURN_S = 0.05
# A client that does not take part in the end of TLS is waited for so long.
_TLS_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Tls:
    """``failed`` gets why a handshake failed: refused, unfinished or crowded."""

    context: ssl.SSLContext
    handshake_timeout_s: float
    connections_max: int
    failed: Callable[[str], object]


class HttpServer(uvicorn.Server):
    """Takes connections until it is told to end; then it answers what is under way, and each connection once more.

    SIGTERM and SIGINT *stop* it: what is asked from then on is refused with 503, and ``told_to_stop`` is called.
    ``retire`` is for one of several processes of a port, when others go on: whatever is asked on its connections is
    still served. Half of ``stop_timeout_s`` is for all this, the other half for the application's own end.

    ``wait_for`` is asked again and again before the first connection is taken, for ``wait_s_max`` seconds at most;
    ``now_serving`` is called when it is.
    """

    def __init__(
        self,
        config: Config,
        *,
        stop_timeout_s: float,
        tls: Tls | None = None,
        wait_for: Callable[[], bool] = lambda: True,
        wait_s_max: float = 0.0,
        now_serving: Callable[[], object] = lambda: None,
        told_to_stop: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._end_s_max = stop_timeout_s / 2
        self._tls = tls
        self._wait_for = wait_for
        self._wait_s_max = wait_s_max
        self._now_serving = now_serving
        self._told_to_stop = told_to_stop
        self._is_stopping = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._is_stopping = True
        super().handle_exit(sig, frame)

    def retire(self) -> None:
        """End, while other processes of the port go on."""
        self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(_STARTUP_FAILURE)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._wait_s_max
        while not self.should_exit and loop.time() < end_s and not self._wait_for():
            await asyncio.sleep(_TURN_S)
        options = self._tls_options()
        self.servers = [
            await loop.create_server(self._connection, sock=sock, backlog=self.config.backlog, **options)
            for sock in sockets
        ]
        self.started = True
        self._now_serving()

    def _connection(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _tls_options(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        counted = {"tls": self._tls, "connections": self.server_state.connections}
        # The class that wrap_bio makes its connections of: documented for just this.
        self._tls.context.sslobject_class = type("Handshake", (_Handshake,), counted)
        return {
            "ssl": self._tls.context,
            "ssl_handshake_timeout": self._tls.handshake_timeout_s,
            "ssl_shutdown_timeout": _TLS_CLOSE_S,
        }

    async def shutdown(self, sockets: Any = None) -> None:
        # uvloop counts the connections of a server, those in their handshake included, for who waits before the close.
        closed = asyncio.gather(*(server.wait_closed() for server in self.servers))
        await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for sock in sockets or ():
            sock.close()
        await self._end(closed)
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _end(self, closed: asyncio.Future[Any]) -> None:
        """Make each connection's next answer its last; close what is not used; see all off, as long as time permits."""
        loop = asyncio.get_running_loop()
        connections: set[Any] = self.server_state.connections
        end_s = idle_end_s = loop.time() + self._end_s_max
        is_told = False
        while not closed.done() and not self.force_exit and loop.time() < end_s:
            if self._is_stopping and not is_told:
                is_told = True
                idle_end_s = min(end_s, loop.time() + min(_IDLE_S, self._end_s_max / 2))
                self._told_to_stop()
            for connection in list(connections):
                connection.finish(refusing=self._is_stopping, closing=loop.time() >= idle_end_s)
            await asyncio.sleep(_TURN_S)
        if not closed.done():
            log.warning("%d connections were still in use after %g seconds.", len(connections), self._end_s_max)
            closed.cancel()
            # Who waits for an answer still gets it, while the application ends.
            for connection in list(connections):
                connection.cut()


class _Handshake(ssl.SSLObject):
    """A TLS connection, counted from its first byte on until its handshake is done or given up.

    Handshakes under way and connections together are bounded as connections alone are without TLS.
    """

    tls: ClassVar[Tls]
    connections: ClassVar[set[Any]]
    under_way: ClassVar[int] = 0
    _reason: str | None = None

    def do_handshake(self) -> None:
        if self._reason is None:
            self._begin()
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError:
            self._reason = "refused"
            raise
        self._reason = ""
        type(self).under_way -= 1

    def _begin(self) -> None:
        kind = type(self)
        kind.under_way += 1
        self._reason = "unfinished"
        if kind.under_way + len(self.connections) > self.tls.connections_max:
            self._reason = "crowded"
            raise ssl.SSLError("too many connections")

    def __del__(self) -> None:
        # However it ended - a timeout, a reset, a refusal - nobody holds it any longer.
        if self._reason:
            type(self).under_way -= 1
            self.tls.failed(self._reason)
