"""uvicorn's server for one process: with TLS that follows its certificate, and an end that cuts nobody off."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import Config

from logweir.http.handshake import Tls, TlsListener

log = logging.getLogger(__name__)

# What gunicorn takes for "it cannot start".
_STARTUP_FAILURE = 3
# A connection that is not used is kept for so long after the word to stop: its client may be writing already.
_IDLE_S = 1.0
_TURN_S = 0.05


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
        self.servers = [await self._listen(sock) for sock in sockets]
        self.started = True
        self._now_serving()

    async def _listen(self, sock: socket.socket) -> Any:
        if self._tls is None:
            loop = asyncio.get_running_loop()
            return await loop.create_server(self._protocol, sock=sock, backlog=self.config.backlog)
        limits = self.config.http_protocol_class.limits  # type: ignore[attr-defined]
        connections, connections_max = self.server_state.connections, limits.settings.connections_max
        listener = TlsListener(sock, self._tls, self._protocol, connections, connections_max, limits.shares)
        listener.open()
        return listener

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

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
