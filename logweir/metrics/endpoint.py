"""/metrics and /healthz of a process that serves nothing else."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse

from logweir.metrics import registry
from logweir.process.lifetime import cannot_listen, family_of

_PORTS_TRIED = 100
_PORT_MAX = 65535


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
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
    workers can run on one machine. Raises LogweirError(PORT_TAKEN) when none of the next 100 is free, or the address is
    none of this machine's.
    """

    def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            body, content_type = registry.exposition()
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
    last = min(port + _PORTS_TRIED - 1, _PORT_MAX) if port else 0
    server_class = type("_Server", (_Server,), {"address_family": family_of(address)})
    for candidate in range(port, last + 1):
        try:
            return make_server(address, candidate, application, server_class=server_class, handler_class=_Handler)
        except OSError as error:
            failed = error
            # What else may be wrong with the address is wrong with it at every port.
            if error.errno != errno.EADDRINUSE:
                break
    raise cannot_listen(what, address, port, failed)
