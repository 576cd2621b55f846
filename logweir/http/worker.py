"""gunicorn's worker process that serves ASGI over our HTTP protocol."""

from __future__ import annotations

import asyncio
import logging
import mmap
import resource
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import gunicorn.glogging
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from logweir.config import HttpSettings
from logweir.http.limits import Limits
from logweir.http.protocol import HttpProtocol
from logweir.http.shares import Shares
from logweir.process.lifetime import give_large_memory_back

log = logging.getLogger(__name__)

RETIRE = signal.SIGUSR2
"""Tells a process that has served once to end while others of its port go on: see HttpServer."""

# The loop takes the interpreter's lock anew for each socket that has something, from threads that read long bodies:
# with Python's 5 ms they make a request wait for seconds when many sockets are busy.
_SWITCH_S = 0.001

# What a process opens beside its connections: the queue's, the store's, files, and those that are told to come back.
_OTHER_FILES = 512


class HttpWorker(UvicornWorker):  # type: ignore[misc]
    """Its process calls ``limit`` before it serves. ``server`` of gunicorn's application gives its HttpServer.

    ``born_s``: when the master made it, on the monotonic clock.
    """

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  (as the class that it overrides has it)
        "loop": "uvloop",
        "http": HttpProtocol,
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        # X-Forwarded-For is ours to read, and believed only from trusted proxies.
        "proxy_headers": False,
        "server_header": False,
    }

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.born_s = time.monotonic()
        # A line for each sender that does not speak HTTP would fill the disk; they are counted.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        logging.getLogger("uvicorn.error").propagate = True
        # Shared with the process that is forked from this one.
        self._serving = mmap.mmap(-1, 1)

    @property
    def is_serving(self) -> bool:
        """Whether the process takes connections, or did: for the master to see."""
        return bool(self._serving[0])

    def init_signals(self) -> None:
        super().init_signals()
        # When a terminal closes, every process that was started from it is told. The master says what is to be done.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = self.app.server(self.config, now_serving=self._now_serving)
        asyncio.get_running_loop().add_signal_handler(RETIRE, server.retire)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _now_serving(self) -> None:
        self._serving[0] = 1

    def handle_exit(self, _: int, __: Any) -> None:
        # Ctrl-C makes gunicorn send SIGQUIT, which uvicorn's worker takes for its own and does nothing about:
        # killed after the graceful time-out, it would leave undone what it does at its end.
        signal.raise_signal(signal.SIGTERM)


class HttpLog(gunicorn.glogging.Logger):  # type: ignore[misc]
    """gunicorn's lines among ours, from warnings up; no access log: requests are counted."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.loglevel = logging.WARNING
        self.error_log.handlers = []
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
        self.access_log.handlers = []


def limit(
    settings: HttpSettings,
    *,
    section: str,
    exempt: Collection[bytes] = (),
    refused: Callable[[str], object],
    shares: Shares | None = None,
    looks_at_no_status: Callable[[bytes, Sequence[tuple[bytes, bytes]]], bool] = lambda *_: False,
) -> None:
    """Have this process's server keep to the settings. The other arguments are those of ``Limits``.

    Raises the process's own limit of open files as far as the system lets it. Where that is not enough for
    ``connections_max``, it is lowered, and said so in the log.
    """
    give_large_memory_back()
    sys.setswitchinterval(_SWITCH_S)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections_max = settings.connections_max
    if hard != resource.RLIM_INFINITY and hard < connections_max + _OTHER_FILES:
        connections_max = max(1, hard - _OTHER_FILES)
        if shares is not None:
            shares.without_key_max = min(shares.without_key_max, max(1, connections_max * 3 // 4))
        log.warning("The system allows a process %d open files: at most %d connections.", hard, connections_max)
    if soft < connections_max + _OTHER_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, connections_max + _OTHER_FILES), hard))
    settings = settings.model_copy(update={"connections_max": connections_max})
    HttpProtocol.limits = Limits(settings, section, frozenset(exempt), refused, shares, looks_at_no_status)
