"""/metrics and /healthz of a process that serves nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from logweir import metrics
from logweir.errors import PORT_TAKEN, LogweirError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

_PORTS_TRIED = 100


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    address_family = WSGIServer.address_family
    # So that a restart gets its port back while the last scrapes' connections are being forgotten.
    allow_reuse_address = True
    # With it, a second worker would silently share the first one's port, and each scrape would ask either of them.
    allow_reuse_port = False


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(what: str, address: str, port: int, unhealthy: Callable[[], str | None]) -> int:
    """Serve on a thread of its own, for as long as the process lives; gives the port.

    ``unhealthy`` says what is wrong, or None. A taken port is passed over for the next free one, so that several
    workers can run on one machine. Raises LogweirError(PORT_TAKEN) when none of the next 100 is free.
    """

    def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            body, content_type = metrics.exposition()
            start_response("200 OK", [("Content-Type", content_type)])
            return [body]
        if environ["PATH_INFO"] == "/healthz":
            reason = unhealthy()
            status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
            start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
            return [(reason or "ok").encode() + b"\n"]
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"There is /metrics and /healthz.\n"]

    server = _bound(what, address, port, application)
    threading.Thread(target=server.serve_forever, name="exposition", daemon=True).start()
    return int(server.server_port)


def _bound(what: str, address: str, port: int, application: Any) -> WSGIServer:
    candidates = range(port, port + _PORTS_TRIED) if port else (0,)
    for candidate in candidates:
        try:
            server = make_server(address, candidate, application, server_class=_Server, handler_class=_Handler)
        except OSError as error:
            reason = error.strerror or str(error)
            continue
        return server
    raise LogweirError(PORT_TAKEN, what=what, address=f"{address}:{port}", reason=reason)
