"""Run the web console: a page to search the stored events, and the same search as JSON."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import gunicorn.app.base

from logweir.config import Settings
from logweir.http.server import HttpServer
from logweir.http.worker import HttpLog, HttpWorker, limit
from logweir.metrics import registry
from logweir.process.lifetime import die_with_parent, listener
from logweir.process.logs import configure_logging
from logweir.store import open_store
from logweir_console.app import make_app
from logweir_console.asgi import ConsoleFace

log = logging.getLogger(__name__)

_BACKLOG = 256
# A stop takes so long at most; gunicorn kills a little later.
_STOP_S = 6.0
_GRACEFUL_S = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", dest="set:console.address", metavar="ADDRESS", help="listen here (127.0.0.1)")
    parser.add_argument("--port", dest="set:console.port", metavar="PORT", help="listen here (8081); 0: any free port")
    hosts_help = "answer to these names and addresses, with commas between them; needed beyond this machine"
    parser.add_argument("--hosts", dest="set:console.hosts", metavar="NAMES", help=hosts_help)
    parser.add_argument(
        "--die-with-parent", action="store_true", help="end when the process that started this one ends"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.die_with_parent:
        die_with_parent(signal.SIGTERM)
    configure_logging("console", settings.log)
    settings.console.require_hosts()
    if settings.console.is_open:
        log.warning(
            "The console listens on %s, beyond this machine, and asks nobody for a password: whoever reaches it as %s"
            " reads every event.",
            settings.console.address,
            ", ".join(settings.console.hosts),
        )
    _Application(
        settings, listener("The console", settings.console.address, settings.console.port, backlog=_BACKLOG)
    ).run()
    return 0


class _Application(gunicorn.app.base.BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings, on a socket that is bound already."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        host, port = settings.console.address, listener.getsockname()[1]
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"fd://{self._listener.fileno()}",
            "workers": 1,
            "worker_class": HttpWorker,
            "graceful_timeout": _GRACEFUL_S,
            "logger_class": HttpLog,
            "control_socket_disable": True,
            "post_fork": lambda _, worker: die_with_parent(parent=worker.ppid),
            "post_worker_init": self._say_where,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The application of the worker process; made after the fork, for no connection may cross it."""
        registry.prepare(("logweir_console",))
        rejected = registry.get("logweir_console_rejected_requests_total")

        def refused(code: str) -> None:
            rejected.labels(code).inc()

        settings = self._settings
        limit(settings.console, section="console", exempt=(b"/healthz", b"/metrics"), refused=refused)
        store = open_store(settings.store)
        return ConsoleFace(make_app(settings.console, store, group=settings.worker.group, refused=refused))

    def server(self, config: Any, *, now_serving: Callable[[], object]) -> HttpServer:
        return HttpServer(config, stop_timeout_s=_STOP_S, now_serving=now_serving)

    def _say_where(self, worker: Any) -> None:
        if worker.age == 1:
            log.info("Listening on %s", self._url, extra={"url": self._url})
