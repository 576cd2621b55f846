"""Publish what the ledger says for Prometheus: accepted, stored, lost, in flight, lag, silence.

One process for the whole installation, however many doors and workers there are. It reads the books again every
exporter.interval_s, and a scrape gets what it read last: the figures are the ledger's, so no restart of anything makes
one of them fall.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import prometheus_client
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from logweir.clock import Clock, iso_seconds, now_us
from logweir.config import Settings, shown_url
from logweir.errors import QUEUE_DOWN, STORE_DOWN, STORE_REFUSES, LogweirError
from logweir.metrics import endpoint as exposition
from logweir.metrics import registry
from logweir.process.lifetime import set_on_stop_signals
from logweir.process.logs import configure_logging
from logweir.queue import open_queue
from logweir.queue.port import Queue
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers.exporter.figures import published

log = logging.getLogger(__name__)

# Books of many windows take long to read: the store is asked for at most this share of the time.
_SHARE_MAX = 0.2
_STALE_S = 300.0
_RETRY_S = 1.0
# A broker or a store that is just starting, or takes a breath, is nothing that anybody can act on.
_SAY_AFTER_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", dest="set:exporter.port", metavar="PORT", help="port of /metrics and /healthz (8090)")
    parser.add_argument("--address", dest="set:exporter.address", metavar="ADDRESS", help="address that it listens on")


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    configure_logging("exporter", settings.log)
    stopping = set_on_stop_signals()
    registry.prepare(())
    with (
        closing(open_store(settings.store)) as store,
        closing(open_queue(settings.queue, group=settings.worker.group)) as queue,
    ):
        exporter = Exporter(settings, store=store, queue=queue, clock=now_us)
        prometheus_client.REGISTRY.register(exporter)
        where = settings.exporter
        port = exposition.serve("The exporter", where.address, where.port, exporter.unhealthy)
        log.info("Reading the ledger in %s; /metrics is on port %d.", shown_url(settings.store.url), port)
        exporter.run(stopping)
    return 0


class Exporter(Collector):
    """What was read last. ``refresh`` and ``run`` are for one thread, ``collect`` for any."""

    def __init__(self, settings: Settings, *, store: Store, queue: Queue, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._clock = clock
        self._read: list[Metric] = []
        self._read_us = clock()
        self._trouble = ""
        self._is_said = False

    def describe(self) -> list[Metric]:
        """Nothing before the ledger was read: what is not known is not shown."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._read

    def unhealthy(self) -> str | None:
        """What /healthz complains of, or None."""
        if self._clock() - self._read_us <= _STALE_S * 1e6:
            return None
        return f"the ledger was last read at {iso_seconds(self._read_us)}; {self._trouble or 'it takes long'}"

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            began_s = time.monotonic()
            try:
                self.refresh()
            except LogweirError as error:
                if error.problem not in (QUEUE_DOWN, STORE_DOWN, STORE_REFUSES):
                    raise
                self._bear(error)
                stopping.wait(_RETRY_S)
                continue
            took_s = time.monotonic() - began_s
            stopping.wait(max(self._settings.exporter.interval_s, took_s / _SHARE_MAX - took_s))

    def _bear(self, error: LogweirError) -> None:
        self._trouble = str(error)
        if not self._is_said and self._clock() - self._read_us > _SAY_AFTER_S * 1e6:
            self._is_said = True
            log.warning("%s What was read last stays published; trying again.", error)

    def refresh(self) -> None:
        """Read the ledger, and the queue's ends. Raises LogweirError: STORE_DOWN, STORE_REFUSES, QUEUE_DOWN."""
        now = self._clock()
        self._read = list(published(self._settings, store=self._store, queue=self._queue, now_us=now))
        self._read_us = now
        self._trouble = ""
        if self._is_said:
            self._is_said = False
            log.info("The ledger is read again.")
