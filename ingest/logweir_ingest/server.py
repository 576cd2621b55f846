"""Run the door: events in over HTTP, answered once the queue has them."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gunicorn.app.base
import gunicorn.glogging
from uvicorn_worker import UvicornWorker

from logweir.config import Settings
from logweir.errors import FILE_UNREADABLE, SETTING_BAD, LogweirError
from logweir.keys import read_keys
from logweir.logs import configure_logging
from logweir.process import die_with_parent, listener
from logweir.receipt import secret_of
from logweir_ingest.limits import Limits
from logweir_ingest.proxies import SourceAddress

# Nothing that imports logweir.metrics may be imported up here: the folder of PROMETHEUS_MULTIPROC_DIR is made in
# ``run``, and prometheus-client looks at it once, when it is imported.
if TYPE_CHECKING:
    from logweir_ingest.app import Door
    from logweir_ingest.merge import Post

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
BACKLOG = 2048
THREADS = 32
# Requests in flight get so long to end, then the merger so long to settle them; gunicorn kills after both.
_DRAIN_S = 3
_STOP_S = 4.0
_GRACEFUL_S = 8
_HANGING_S = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", dest="set:ingest.address", metavar="ADDRESS", help="listen here (127.0.0.1)")
    parser.add_argument("--port", dest="set:ingest.port", metavar="PORT", help="listen here (8080); 0 takes a free one")
    parser.add_argument("--processes", dest="set:ingest.processes", metavar="N", help="how many serve the port (1)")
    parser.add_argument(
        "--face", choices=("fast", "flask"), default="fast",
        help="fast: the hot endpoints bypass Flask; flask: Flask serves all of them, under gunicorn's threads, without"
        " time limits for slow senders: put it behind a proxy that has them",
    )  # fmt: skip
    parser.add_argument(
        "--die-with-parent", action="store_true", help="end when the process that started this one ends"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.die_with_parent:
        die_with_parent(signal.SIGTERM)
    configure_logging("ingest")
    _check(settings)
    # Beside the keys: what all doors of an installation share, where the data folder is each machine's own.
    secret = _receipt_secret(settings.keys_path.parent)
    opened = listener("ingest", settings.ingest.address, settings.ingest.port, backlog=BACKLOG)
    _prepare_metrics(settings.data_dir, opened.getsockname()[1])
    _Application(settings, opened, face=arguments.face, secret=secret).run()
    return 0


def _check(settings: Settings) -> None:
    """Say what cannot work before anything is started."""
    read_keys(settings.keys_path)
    Limits.of(settings)
    SourceAddress(settings.ingest.trusted_proxies)
    if settings.ingest.processes > 1 and settings.queue.url.startswith("sqlite:"):
        raise LogweirError(
            SETTING_BAD, where="The configuration", name="ingest.processes", value=settings.ingest.processes,
            reason="the embedded queue is for one ingest process; use Kafka for more",
        )  # fmt: skip


def _receipt_secret(folder: Path) -> bytes:
    try:
        return secret_of(folder)
    except OSError as error:
        raise LogweirError(FILE_UNREADABLE, path=folder, reason=error.strerror or error) from error


def _prepare_metrics(data_dir: Path, port: int) -> None:
    """An empty folder in which the processes of this port keep their counts."""
    folder = data_dir / "metrics" / f"ingest-{port}"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogweirError(FILE_UNREADABLE, path=folder, reason=error.strerror or error) from error
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def open_door(settings: Settings, post: Post, soon: Post, *, receipt_secret: bytes) -> Door:
    """A door that works: keys read, queue connecting in the background, deadlines and markers looked after."""
    from logweir.clock import now_us
    from logweir.queue import open_queue
    from logweir_ingest.app import Door
    from logweir_ingest.auth import KeyReader, Keys
    from logweir_ingest.enqueue import open_enqueuer
    from logweir_ingest.merge import Merger
    from logweir_ingest.tally import Tally

    tally = Tally()
    ingest_epoch = os.urandom(16)
    merger = Merger(
        open_enqueuer(settings, open_queue(settings.queue), ingest_epoch=ingest_epoch),
        ingest_epoch=ingest_epoch,
        clock=now_us,
        answer_timeout_s=settings.ingest.queue_timeout_s + settings.ingest.spool_timeout_s,
        record_size_bytes_max=settings.queue.record_size_bytes_max,
        pending_size_bytes_max=settings.queue.buffer_size_bytes_max,
        post=post,
        soon=soon,
        ticked=tally.flush,
    )
    keys = KeyReader(Keys(settings.keys_path), settings.ingest.key_headers)
    door = Door(settings, keys=keys, merger=merger, clock=now_us, receipt_secret=receipt_secret, tally=tally)
    merger.start()
    return door


class _Application(gunicorn.app.base.BaseApplication):  # type: ignore[misc]
    """gunicorn with our settings, on a socket that is bound already."""

    def __init__(self, settings: Settings, listener: socket.socket, *, face: str, secret: bytes) -> None:
        self._settings = settings
        self._listener = listener
        self._face = face
        self._secret = secret
        self._url = _url(settings.ingest.address, listener.getsockname()[1])
        self._is_first = True
        self._door: Door | None = None
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"fd://{self._listener.fileno()}",
            "backlog": BACKLOG,
            "workers": self._settings.ingest.processes,
            "worker_class": _FastWorker if self._face == "fast" else "gthread",
            "threads": 1 if self._face == "fast" else THREADS,
            "keepalive": KEEP_ALIVE_S,
            "graceful_timeout": _GRACEFUL_S,
            "timeout": _HANGING_S,
            "logger_class": _Log,
            "control_socket_disable": True,
            "post_fork": self._born,
            "worker_exit": self._ending,
            "child_exit": _forget,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The application of a worker process, made after the fork."""
        from logweir import metrics
        from logweir_ingest.fastlane import FastLane
        from logweir_ingest.merge import call_now
        from logweir_ingest.protocol import LimitedProtocol
        from logweir_ingest.wsgi import make_app

        metrics.prepare(("logweir_ingest",))
        ingest = self._settings.ingest
        answer_timeout_s = ingest.queue_timeout_s + ingest.spool_timeout_s
        if self._face == "fast":
            LimitedProtocol.settings = ingest
            return FastLane(self._opened, lambda door: make_app(door, answer_timeout_s=answer_timeout_s))
        door = self._opened(call_now, call_now)
        self._door = door
        return make_app(lambda: door, answer_timeout_s=answer_timeout_s)

    def _opened(self, post: Post, soon: Post) -> Door:
        door = open_door(self._settings, post, soon, receipt_secret=self._secret)
        if self._is_first:
            print(f"ingest: {self._url}", file=sys.stderr, flush=True)
        return door

    def _born(self, _: Any, worker: Any) -> None:
        die_with_parent(parent=worker.ppid)
        self._is_first = worker.age == 1

    def _ending(self, _: Any, __: Any) -> None:
        # The fast lane's door is stopped inside the event loop, while that still runs.
        if self._door is not None:
            self._door.stop(_STOP_S)


class _FastWorker(UvicornWorker):  # type: ignore[misc]
    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  (as the class that it overrides has it)
        "loop": "uvloop",
        "http": "logweir_ingest.protocol:LimitedProtocol",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        # X-Forwarded-For is ours to read, and believed only from ingest.trusted_proxies.
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": _DRAIN_S,
    }

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # A line for each sender that does not speak HTTP would fill the disk; they are counted.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        logging.getLogger("uvicorn.error").propagate = True

    def handle_exit(self, _: int, __: Any) -> None:
        # Ctrl-C makes gunicorn send SIGQUIT, which uvicorn's worker takes for its own and does nothing about:
        # killed after the graceful time-out, it would leave its windows open.
        signal.raise_signal(signal.SIGTERM)


class _Log(gunicorn.glogging.Logger):  # type: ignore[misc]
    """gunicorn's lines among ours, from warnings up; no access log: requests are counted."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.loglevel = logging.WARNING
        self.error_log.handlers = []
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
        self.access_log.handlers = []


def _forget(_: Any, worker: Any) -> None:
    """A worker has ended: its gauges must not count on. Runs in the master."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
