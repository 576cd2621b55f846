"""A process that serves the door's port: uvicorn, as gunicorn's worker."""

from __future__ import annotations

import logging
import signal
from typing import Any

from uvicorn_worker import UvicornWorker

DRAIN_S = 3


class FastWorker(UvicornWorker):  # type: ignore[misc]
    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  (as the class that it overrides has it)
        "loop": "uvloop",
        "http": "logweir_ingest.protocol:LimitedProtocol",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        # X-Forwarded-For is ours to read, and believed only from ingest.trusted_proxies.
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": DRAIN_S,
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
