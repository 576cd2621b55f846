"""What the tests send to a syslog daemon: RFC 5424 messages over TCP, each with its length before it (RFC 6587)."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self


class Syslog(ABC):
    """A daemon that listens on a port of this machine while the block runs."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Returns when it listens. Raises ServiceError."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it; what waits is saved where its configuration says so."""

    def send(self, messages: Iterable[bytes]) -> None:
        """Hand messages over, as fast as the daemon takes them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            for message in messages:
                connection.sendall(b"%d %b" % (len(message), message))


def line(text: bytes, *, data: bytes = b"-", host: bytes = b"web1", process: bytes = b"app") -> bytes:
    """A message of RFC 5424, INFO of the facility user."""
    return b"<14>1 2026-11-30T20:00:00.000000Z %b %b 77 - %b %b" % (host, process, data, text)
