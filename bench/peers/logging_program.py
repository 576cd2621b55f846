"""A program that logs at a rate through one handler: what its calls cost, as one JSON line on standard output.

    python -m bench.peers.logging_program HANDLER PORT RATE SECONDS FOLDER

Each message is "event-NUMBER-end", from 0. It ends in order, with what the handler does then.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

_BURST = 20


class PlainHandler(logging.Handler):
    """As in docs/how-to/python-logging.md: a request for each event."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._url = f"http://127.0.0.1:{port}/events"

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = {"timestamp": record.created, "severity": record.levelname, "summary": self.format(record)}
            request = urllib.request.Request(self._url, json.dumps(event).encode(), {"X-Log-Key": "lw_bench"})
            with urllib.request.urlopen(request, timeout=0.5) as answer:
                answer.read()
        except Exception:
            self.handleError(record)


def _logweir(port: int, folder: str | None) -> logging.Handler:
    from logweir.emit import LogweirHandler

    return LogweirHandler(f"http://127.0.0.1:{port}", "lw_bench", buffer_dir=folder, exit_timeout_s=30)


def _loki(port: int, *, is_queued: bool) -> logging.Handler:
    import logging_loki

    options: dict[str, Any] = {
        "url": f"http://127.0.0.1:{port}/loki/api/v1/push",
        "tags": {"app": "b"},
        "version": "1",
    }
    if is_queued:
        handler: logging.Handler = logging_loki.LokiQueueHandler(queue.Queue(-1), **options)
    else:
        handler = logging_loki.LokiHandler(**options)
    return handler


def _splunk(port: int) -> logging.Handler:
    from splunk_handler import SplunkHandler

    # Its defaults are a queue of 5,000 and 15 s: these are ours.
    handler: logging.Handler = SplunkHandler(
        "127.0.0.1", port, "t", "main", protocol="http", verify=False, flush_interval=0.5, queue_size=100_000
    )
    return handler


HANDLERS: dict[str, Callable[[int, str], logging.Handler]] = {
    "none": lambda port, folder: logging.NullHandler(),
    "logweir": lambda port, folder: _logweir(port, None),
    "logweir-files": _logweir,
    "HTTPHandler": lambda port, folder: logging.handlers.HTTPHandler(f"127.0.0.1:{port}", "/log", method="POST"),
    "plain": lambda port, folder: PlainHandler(port),
    "loki": lambda port, folder: _loki(port, is_queued=False),
    "loki-queue": lambda port, folder: _loki(port, is_queued=True),
    "splunk": lambda port, folder: _splunk(port),
}


def main() -> None:
    name, port, rate, seconds, folder = sys.argv[1:]
    handler = HANDLERS[name](int(port), folder)
    logger = logging.getLogger("bench.emit")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    clock, per_s, end_s = time.perf_counter_ns, float(rate), float(seconds)
    took_ns: list[int] = []
    began = time.perf_counter()
    cpu = time.process_time()
    while (now := time.perf_counter() - began) < end_s:
        # Whoever is late does not catch up: a program that waits for its log does less.
        for _ in range(_BURST):
            before = clock()
            logger.info("event-%d-end of %s in %.3f s", len(took_ns), "customer-77", 0.125)
            took_ns.append(clock() - before)
        wait_s = began + now + _BURST / per_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
    logged_s = time.perf_counter() - began
    # Of threads, too, for as much as they have done by now.
    cpu_us = (time.process_time() - cpu) / len(took_ns) * 1e6
    ordered = sorted(took_ns)
    count = len(ordered)
    figures = {
        "logged": count,
        "per_s": round(count / logged_s),
        "mean_us": sum(ordered) / count / 1e3,
        "p50_us": ordered[count // 2] / 1e3,
        "p99_us": ordered[count * 99 // 100] / 1e3,
        "max_ms": ordered[-1] / 1e6,
        "cpu_us": cpu_us,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
