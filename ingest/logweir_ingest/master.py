"""gunicorn with our settings: a master that keeps the socket, and the processes that serve it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gunicorn.app.base

from logweir.config import Settings
from logweir.http_worker import HttpLog, limit
from logweir.process import die_with_parent
from logweir_ingest.serving import FastWorker

# Nothing that imports logweir.metrics may be imported up here: see server.py.
if TYPE_CHECKING:
    from logweir_ingest.app import Door
    from logweir_ingest.merge import Post

BACKLOG = 2048
# Requests in flight get http_worker.DRAIN_S to end, then the merger its time to settle them; gunicorn kills after both.
_GRACEFUL_S = 8
_HANGING_S = 60


class Application(gunicorn.app.base.BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings, on a socket that is bound already; ``open_door`` makes the door of a process."""

    def __init__(
        self, settings: Settings, listener: socket.socket, open_door: Callable[[Settings, Post, Post], Door], *,
        face: str,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._listener = listener
        self._open_door = open_door
        self._face = face
        self._url = _url(settings.ingest.address, listener.getsockname()[1])
        self._is_first = True
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"fd://{self._listener.fileno()}",
            "backlog": BACKLOG,
            "workers": self._settings.ingest.processes,
            "worker_class": FastWorker,
            "graceful_timeout": _GRACEFUL_S,
            "timeout": _HANGING_S,
            "logger_class": HttpLog,
            "control_socket_disable": True,
            "post_fork": self._born,
            "child_exit": _forget,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The application of a worker process, made after the fork."""
        from logweir import metrics
        from logweir_ingest.fastlane import FastLane
        from logweir_ingest.wsgi import make_app

        metrics.prepare(("logweir_ingest",))
        ingest = self._settings.ingest
        rejected = metrics.get("logweir_ingest_rejected_requests_total")
        spared = (b"/healthz", b"/readyz", b"/metrics")
        limit(ingest, section="ingest", spared=spared, refused=lambda code: rejected.labels(code).inc())
        answer_timeout_s = ingest.queue_timeout_s + ingest.spool_timeout_s
        return FastLane(
            self._opened, lambda door: make_app(door, answer_timeout_s=answer_timeout_s),
            flask_threads=0 if self._face == "fast" else ingest.requests_max,
        )  # fmt: skip

    def _opened(self, post: Post, soon: Post) -> Door:
        door = self._open_door(self._settings, post, soon)
        if self._is_first:
            print(f"ingest: {self._url}", file=sys.stderr, flush=True)
        return door

    def _born(self, _: Any, worker: Any) -> None:
        die_with_parent(parent=worker.ppid)
        self._is_first = worker.age == 1


def _forget(_: Any, worker: Any) -> None:
    """A worker has ended: its gauges must not count on. Runs in the master."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
