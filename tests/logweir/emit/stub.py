"""A door that answers as a test says: what a real one does only when something is wrong with it."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any


@dataclass
class Posted:
    headers: dict[str, str]
    events: list[dict[str, Any]]
    connection: int
    at_s: float = field(default_factory=time.monotonic)

    @property
    def numbers(self) -> range:
        first = int(self.headers.get("log-seq", 1))
        return range(first, first + len(self.events))


Respond = Callable[[Posted], tuple[int, dict[str, Any], dict[str, str]] | None]
"""Status, body and headers of the answer; None ends the connection without one."""


def accept(posted: Posted) -> tuple[int, dict[str, Any], dict[str, str]]:
    return 202, {"accepted": len(posted.events), "durable": "queue", "receipt": "r"}, {}


@dataclass
class Stub:
    respond: Respond = accept
    posted: list[Posted] = field(default_factory=list)
    url: str = ""

    @property
    def events(self) -> list[dict[str, Any]]:
        """Those of the requests that were accepted."""
        return [event for _, event in sorted(self._numbered(), key=itemgetter(0))]

    @property
    def accepted_numbers(self) -> list[int]:
        return sorted(number for number, _ in self._numbered())

    def _numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for posted in list(self.posted):
            if posted.headers.get("answered") == "202":
                yield from zip(posted.numbers, posted.events, strict=True)


@contextmanager
def stub(respond: Respond = accept, *, port: int = 0) -> Iterator[Stub]:
    found = Stub(respond)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            events = [_event(line) for line in body.splitlines()]
            headers = {name.lower(): value for name, value in self.headers.items()}
            posted = Posted(headers, events, self.client_address[1])
            answer = found.respond(posted)
            posted.headers["answered"] = str(answer[0] if answer else 0)
            found.posted.append(posted)
            if answer is None:
                self.close_connection = True
                return
            status, document, more = answer
            text = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**more, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def _event(line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {"unreadable": line.decode(errors="replace")}
