"""TLS in front of a protocol: connections from the moment they are accepted until their handshake is done or given up.

A server of asyncio's knows nothing of a connection's sender until the handshake is done, so it could not be held to its
share before.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from logweir.http.shares import Shares

log = logging.getLogger(__name__)

# As many are accepted in one round of the loop.
_ACCEPTED_MAX = 100
# When the system has no room for another open file, the next attempt comes after so long, as asyncio has it.
_ACCEPT_AGAIN_S = 1.0
# A client that does not take part in the end of TLS is waited for so long.
_CLOSE_S = 5.0
_TURN_S = 0.05


@dataclass(frozen=True, slots=True)
class Tls:
    """``failed`` gets why a handshake failed: refused, unfinished or crowded."""

    context: ssl.SSLContext
    handshake_timeout_s: float
    failed: Callable[[str], object]


@dataclass(slots=True)
class TlsListener:
    """Takes connections with TLS from a listening socket; ``make`` makes the protocol of each whose handshake is done.

    Handshakes under way and ``connections``, those that are done, are ``connections_max`` together at most. In
    ``shares`` a handshake counts as a connection does that has shown no key. To be used as a server of asyncio's is.
    """

    listening: socket.socket
    tls: Tls
    make: Callable[[], asyncio.Protocol]
    connections: set[Any]
    connections_max: int
    shares: Shares | None
    under_way: set[Handshake] = field(default_factory=set)
    _again: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Take connections from now on."""
        self.listening.setblocking(False)
        self._again = None
        asyncio.get_running_loop().add_reader(self.listening, self._accept)

    def close(self) -> None:
        """Take none any more; those that are there go on."""
        asyncio.get_running_loop().remove_reader(self.listening)
        if self._again is not None:
            self._again.cancel()

    async def wait_closed(self) -> None:
        """Return when no connection is left."""
        while self.under_way or self.connections:
            await asyncio.sleep(_TURN_S)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_MAX):
            try:
                accepted, peer = self.listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                loop = asyncio.get_running_loop()
                loop.remove_reader(self.listening)
                self._again = loop.call_later(_ACCEPT_AGAIN_S, self.open)
                log.error("No connection can be accepted for a second: %s.", error.strerror)
                return
            accepted.setblocking(False)
            Handshake(self, accepted).begin(peer[0] if isinstance(peer, tuple) else "")


class Handshake(asyncio.Protocol):
    """One that is under way. ``connection_made`` is called when it is done."""

    def __init__(self, listener: TlsListener, accepted: socket.socket) -> None:
        self.holder: str | None = None
        self.key: str | None = None
        self._listener = listener
        self._accepted = accepted
        self._task: asyncio.Task[Any] | None = None
        self._is_done = False
        self._is_crowded = False

    def begin(self, address: str) -> None:
        listener = self._listener
        if len(listener.under_way) + len(listener.connections) >= listener.connections_max:
            listener.tls.failed("crowded")
            self._accepted.close()
            return
        listener.under_way.add(self)
        if listener.shares is not None:
            listener.shares.add(self, address)
        loop = asyncio.get_running_loop()
        with_tls = loop.connect_accepted_socket(
            lambda: self,
            self._accepted,
            ssl=listener.tls.context,
            ssl_handshake_timeout=listener.tls.handshake_timeout_s,
            ssl_shutdown_timeout=_CLOSE_S,
        )
        self._task = loop.create_task(with_tls)
        self._task.add_done_callback(self._ended)

    def make_room(self) -> None:
        """Another connection needs the room: end."""
        self._is_crowded = True
        self._listener.under_way.discard(self)
        if self._task is not None:
            self._task.cancel()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._is_done = True
        self._leave()
        protocol = self._listener.make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _leave(self) -> None:
        self._listener.under_way.discard(self)
        if self._listener.shares is not None:
            self._listener.shares.discard(self)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, OSError):
            log.error("A handshake ended by a fault of ours.", exc_info=error)
        if self._is_done:
            return
        self._leave()
        self._accepted.close()
        is_refused = isinstance(error, ssl.SSLError)
        self._listener.tls.failed("crowded" if self._is_crowded else "refused" if is_refused else "unfinished")
