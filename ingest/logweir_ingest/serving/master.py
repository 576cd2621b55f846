"""gunicorn with our settings: a master that keeps the socket, and starts, replaces and ends those who serve it."""

from __future__ import annotations

import logging
import math
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gunicorn.app.base
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from logweir.errors import LogweirError
from logweir.http.server import HttpServer
from logweir.http.worker import RETIRE, HttpLog, HttpWorker
from logweir.metrics import registry
from logweir.process.lifetime import Terminal, die_with_parent
from logweir_ingest.app import IngestApp
from logweir_ingest.records.batcher import Post
from logweir_ingest.serving.process import Served, make_asgi, make_server

log = logging.getLogger(__name__)

BACKLOG = 2048
_HANGING_S = 60
# A process that is told to end is killed so long after its ingest.stop_timeout_s is over.
_KILL_GRACE_S = 2.0
# The new processes of a reload wait so long for the queue, while the old ones serve; then they begin without it.
_QUEUE_WAIT_S = 10.0
_SERVING_S_MAX = 30.0
_RESTART_PAUSE_S = 1.0
# What ends a process so soon will end the next one, too.
_YOUNG_S = 5.0
_TURN_S = 0.1


class Application(gunicorn.app.base.BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings, on a socket that is bound already.

    ``open_app`` opens the IngestApp of a process; ``renew`` says what the processes are to serve by after a reload, and
    raises LogweirError.
    """

    def __init__(
        self,
        served: Served,
        listener: socket.socket,
        open_app: Callable[[Served, Post, Post], IngestApp],
        *,
        renew: Callable[[], Served],
        interface: str,
    ) -> None:
        self.served = served
        self.renew = renew
        self.terminal = Terminal()
        self.is_reloading = False
        self._open_app = open_app
        self._interface = interface
        self._port = listener.getsockname()[1]
        # gunicorn takes the socket over by its number.
        self._bind = f"fd://{listener.detach()}"
        self._is_first = True
        super().__init__()

    def run(self) -> None:
        Master(self).run()

    def load_config(self) -> None:
        ingest = self.served.settings.ingest
        options: dict[str, Any] = {
            "bind": self._bind,
            "backlog": BACKLOG,
            "workers": ingest.processes,
            "worker_class": HttpWorker,
            "graceful_timeout": math.ceil(ingest.stop_timeout_s + _KILL_GRACE_S),
            "timeout": _HANGING_S,
            "logger_class": HttpLog,
            "control_socket_disable": True,
            "post_fork": self._born,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def _born(self, _: Any, worker: Any) -> None:
        die_with_parent(parent=worker.ppid)
        self._is_first = worker.age == 1

    def load(self) -> Any:
        """The ASGI application of a process, made after the fork."""
        return make_asgi(self.served.settings, self._opened, interface=self._interface)

    def server(self, config: Any, *, now_serving: Callable[[], object]) -> HttpServer:
        """What runs that application."""
        wait_s_max = _QUEUE_WAIT_S if self.is_reloading else 0.0
        return make_server(self.served, config, wait_s_max=wait_s_max, now_serving=now_serving)

    def _opened(self, post: Post, soon: Post) -> IngestApp:
        app = self._open_app(self.served, post, soon)
        if self._is_first:
            log.info("Listening on %s", self._url(), extra={"url": self._url()})
        return app

    def _url(self) -> str:
        address = self.served.settings.ingest.address
        scheme = "https" if self.served.certificate else "http"
        return f"{scheme}://{f'[{address}]' if ':' in address else address}:{self._port}"


@dataclass(slots=True)
class _Reload:
    """``leaving``: the processes that end as soon as the new ones serve, which they must by ``until_s``."""

    leaving: set[int]
    before: Served
    until_s: float
    is_again_wanted: bool = False


class Master(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter, with a reload that leaves the port served at any moment, and with deaths that are counted.

    On SIGHUP gunicorn itself tells the old processes to end as soon as the new ones are forked, and one of those that
    fails to start ends everything. ``_ending``: processes that were told to end, and when they are killed.
    """

    def __init__(self, app: Application) -> None:
        self._reload: _Reload | None = None
        self._ending: dict[int, float] = {}
        self._spawn_s = 0.0
        self._is_halting = False
        super().__init__(app)

    # --- reload ----------------------------------------------------------------------------------------------------
    def handle_hup(self) -> None:
        if self.app.terminal.is_gone():
            self.handle_term()
        self.reload()

    def handle_usr2(self) -> None:
        log.warning(
            "SIGTTIN, SIGTTOU and SIGUSR2 do nothing here: ingest.processes says how many processes serve, and a new"
            " version takes a restart."
        )

    handle_ttin = handle_ttou = handle_usr2

    def reload(self) -> None:
        if self._reload is not None:
            self._reload.is_again_wanted = True
            return
        before = self.app.served
        try:
            self._serve_by(self.app.renew())
        except LogweirError as error:
            log.error("Not reloaded, everything stays as it was: %s", error)
            return
        self._reload = _Reload(set(self._staying()), before, time.monotonic() + _SERVING_S_MAX)
        self.manage_workers()

    def _serve_by(self, served: Served) -> None:
        self.app.served = served
        self.app.reload()
        self.setup(self.app)

    def _hand_over(self, reload: _Reload) -> None:
        new = self._staying()
        if len(new) >= self.num_workers and all(worker.is_serving for worker in new.values()):
            self._reload = None
            for pid in reload.leaving:
                self.kill_worker(pid, RETIRE)
            log.info("Reloaded: %d new processes serve by the settings as they are now.", len(new))
            if reload.is_again_wanted:
                self.reload()
        elif time.monotonic() > reload.until_s:
            self._roll_back(reload, f"the new processes did not serve within {_SERVING_S_MAX:.0f} s")

    def _roll_back(self, reload: _Reload, reason: str) -> None:
        log.error("Not reloaded, the processes of before serve on: %s", reason)
        for pid in self._staying():
            self.kill_worker(pid, signal.SIGTERM)
        self._reload = None
        self._serve_by(reload.before)

    # --- processes -------------------------------------------------------------------------------------------------
    def _staying(self) -> dict[int, Any]:
        """The processes that are to serve on, the oldest first."""
        leaving = self._reload.leaving if self._reload else set()
        workers = sorted(self.WORKERS.items(), key=lambda item: item[1].age)
        return {pid: worker for pid, worker in workers if pid not in self._ending and pid not in leaving}

    def manage_workers(self) -> None:
        """Called at least once a second: start what lacks, end what is too much or overdue."""
        if self.app.served.certificate is not None:
            self.app.served.certificate.refresh()
        if self._reload is not None:
            self._hand_over(self._reload)
        self.spawn_workers()
        staying = list(self._staying())
        for pid in staying[: len(staying) - self.num_workers]:
            self.kill_worker(pid, signal.SIGTERM)
        for pid, kill_s in self._ending.items():
            if pid in self.WORKERS and time.monotonic() > kill_s:
                self.kill_worker(pid, signal.SIGKILL)

    def spawn_workers(self) -> None:
        self.app.is_reloading = self._reload is not None
        while time.monotonic() >= self._spawn_s and len(self._staying()) < self.num_workers:
            self.spawn_worker()

    def kill_worker(self, pid: int, sig: int) -> None:
        if sig in (signal.SIGTERM, signal.SIGQUIT, RETIRE):
            self._ending.setdefault(pid, time.monotonic() + self.cfg.graceful_timeout)
        super().kill_worker(pid, sig)

    def reap_workers(self) -> None:
        before = dict(self.WORKERS)
        while True:
            try:
                super().reap_workers()
                break
            except HaltServer:
                if not self._can_go_on():
                    raise
        for pid in before.keys() - self.WORKERS.keys():
            self._gone(pid, lived_s=time.monotonic() - before[pid].born_s)

    def _can_go_on(self) -> bool:
        """A new process could not start, and has said why: whether others serve on without it."""
        if self._is_halting:
            return True
        if not any(worker.is_serving for pid, worker in self.WORKERS.items() if pid not in self._ending):
            return False
        self._spawn_s = time.monotonic() + _RESTART_PAUSE_S
        if self._reload is not None:
            self._roll_back(self._reload, "a new process could not start, its own message stands above")
        return True

    def _gone(self, pid: int, *, lived_s: float) -> None:
        is_died = self._ending.pop(pid, None) is None
        if is_died:
            log.error("The process %d has died; another one takes its place.", pid, extra={"pid": pid})
            if lived_s < _YOUNG_S:
                self._spawn_s = time.monotonic() + _RESTART_PAUSE_S
        try:
            _book(pid, is_died=is_died)
        except OSError as error:
            log.warning("What the process %d has counted is lost: %s", pid, error)

    # --- turns and end ---------------------------------------------------------------------------------------------
    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        signals: list[int] = super().wait_for_signals(timeout if self._reload is None else _TURN_S)
        return signals

    def stop(self, graceful: bool = True) -> None:
        self._is_halting = True
        super().stop(graceful)


def _book(pid: int, *, is_died: bool) -> None:
    """Keep what a process that is gone has counted."""
    registry.process_gone(pid)
    if is_died:
        registry.get("logweir_ingest_processes_died_total").inc()
