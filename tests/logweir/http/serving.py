"""A server of ours in a thread of the test, over an ASGI application of the test, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvloop
from uvicorn.config import Config

from logweir.config import HttpSettings
from logweir.http.limits import Limits
from logweir.http.protocol import HttpProtocol
from logweir.http.server import HttpServer
from tests.waiting import until


@dataclass
class Served:
    """``refused``: how often each problem was counted."""

    port: int
    server: HttpServer
    refused: Counter[str] = field(default_factory=Counter)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def said(self, data: bytes) -> bytes:
        """All that is answered to it, until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return to_end(connection)


def to_end(connection: socket.socket) -> bytes:
    said = b""
    while piece := connection.recv(65536):
        said += piece
    return said


def heard(connection: socket.socket, end: bytes) -> bytes:
    """What comes, up to ``end``."""
    said = b""
    while not said.endswith(end):
        piece = connection.recv(65536)
        assert piece, said
        said += piece
    return said


@contextlib.contextmanager
def serving(application: Any, *, exempt: frozenset[bytes] = frozenset(), **settings: Any) -> Iterator[Served]:
    refused: Counter[str] = Counter()
    limits = Limits(HttpSettings(**settings), "test", exempt, lambda code: refused.update([code]))
    config = Config(
        application,
        http=type("Protocol", (HttpProtocol,), {"limits": limits}),
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        date_header=False,
        server_header=False,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HttpServer(config, stop_timeout_s=2.0)
        runs = server.serve(sockets=[listener])
        thread = threading.Thread(target=lambda: asyncio.Runner(loop_factory=uvloop.new_event_loop).run(runs))
        thread.start()
        try:
            until(lambda: server.started)
            yield Served(listener.getsockname()[1], server, refused)
        finally:
            server.retire()
            thread.join(10)
    assert not thread.is_alive()
