"""Receivers of notices on this machine: HTTP servers that answer as they are told, and a real server for mail."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    hangs: threading.Event | None = None
    """The answer is held back until this is set."""


class Receiver:
    """``answer``: given the request, and how many came before. ``requests``: all that came."""

    def __init__(
        self,
        answer: Callable[[Request, int], Answer] = lambda request, number: Answer(),
        *,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                with receiver._lock:
                    number = len(receiver.requests)
                    receiver.requests.append(request)
                answer = receiver.answer(request, number)
                if answer.hangs is not None:
                    answer.hangs.wait(30)
                try:
                    self.send_response(answer.status)
                    for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer.body)
                except OSError:
                    self.close_connection = True  # Whoever asked has given up.

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # Whoever was sending has been killed.

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def receiving(
    answer: Callable[[Request, int], Answer] = lambda request, number: Answer(), context: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    receiver = Receiver(answer, context=context)
    try:
        yield receiver
    finally:
        receiver.close()


def slack(request: Request, number: int) -> Answer:
    """As chat.postMessage answers."""
    return Answer(body=json.dumps({"ok": True, "channel": "C1", "ts": f"1700000000.{number:06}"}).encode())
