"""The process that asks scheduled rules: their code can neither hold events up nor take the alerter along.

The alerter starts it once there is a scheduled rule, and again when it ends. It tells it up to when all is stored and
which rules are shadowed or disabled, and only what it was told before it has read: nobody waits for it while a rule
takes long. It hears what came of each run.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from logweir.alerts.rules import Rule
from logweir.clock import now_us
from logweir.config import Settings
from logweir.errors import CLAIM_LOST, SEARCH_TOO_SLOW, STORE_DOWN, STORE_REFUSES, LogweirError
from logweir.metrics import registry
from logweir.process.logs import configure_logging
from logweir.query import lists
from logweir.store import open_store
from logweir_workers.alerts.guard import Guard
from logweir_workers.alerts.loading import RuleFiles
from logweir_workers.alerts.scheduled.runs import Ran, ScheduledRuns
from logweir_workers.backoff import tolerate

log = logging.getLogger(__name__)

_LOOK_INTERVAL_S = 1.0
_RELOAD_INTERVAL_S = 2.0
_START_AGAIN_S = 5.0
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Known:
    """What the alerter tells."""

    up_to_us: int
    names: frozenset[str]
    """The rules in force."""
    shadowed: frozenset[str]


class ScheduledProcess:
    """Keeps the process. ``run`` is for a thread of the alerter's.

    ``known``: what is told; ``rules``: those in force now.
    """

    def __init__(self, settings: Settings, *, generation: int) -> None:
        self._settings = settings
        self._generation = generation
        # What a door has received, and not refused by then, is in the queue (or in its spool).
        self._in_flight_us = int((settings.ingest.queue_timeout_s + settings.ingest.spool_timeout_s) * 1e6)
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._has_read = False
        self._started_s = -_START_AGAIN_S

    def run(
        self,
        rules: Callable[[], tuple[Mapping[str, Rule], Collection[str]]],
        up_to_us: Callable[[], int],
        stopping: threading.Event,
    ) -> None:
        """Keep it running while there are scheduled rules, until told to stop.

        ``up_to_us``: up to when all that had come to the queue is stored.
        """
        try:
            while not stopping.wait(_LOOK_INTERVAL_S):
                in_force, shadowed = rules()
                names = frozenset(name for name, rule in in_force.items() if rule.schedule is not None)
                if names:
                    stored_us = up_to_us() - self._in_flight_us
                    self._tell(Known(stored_us, names, names & frozenset(shadowed)))
                else:
                    self._end()
        finally:
            self._end()

    def _tell(self, known: Known) -> None:
        if self._process is None or not self._process.is_alive():
            self._end()
            if time.monotonic() - self._started_s < _START_AGAIN_S:
                return
            self._start()
        connection = self._connection
        assert connection is not None, "it was opened with the process"
        with suppress(OSError, EOFError):
            while connection.poll():
                ran = connection.recv()
                if ran is None:
                    self._has_read = True
                else:
                    _observe(ran)
            if self._has_read:
                self._has_read = False
                connection.send(known)

    def _start(self) -> None:
        self._started_s = time.monotonic()
        # Spawned: a fork would take over the locks of threads that it has not.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._has_read = True
        self._process = context.Process(
            target=ask_until_told_to_stop,
            args=(self._settings, self._generation, theirs),
            name="scheduled",
            daemon=True,
        )
        try:
            self._process.start()
        except OSError as error:
            log.error("Scheduled rules are not asked, as no process can be started for them: %s", error)
            self._process = None
        finally:
            theirs.close()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.join(_END_S)
            process.kill()
            process.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _observe(ran: Ran) -> None:
    outcome = "failed" if ran.error else "done"
    registry.get("logweir_alerter_scheduled_runs_total").labels(ran.rule, outcome).inc()
    registry.get("logweir_alerter_scheduled_seconds").labels(ran.rule).set(ran.took_s)


def ask_until_told_to_stop(settings: Settings, generation: int, connection: Connection) -> None:
    """The process. It ends when whoever started it is gone, or somebody else asks the rules."""
    configure_logging("alerter", settings.log)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the alerter, which ends this one.
    lists.use(settings.lists_path)
    parent = os.getppid()
    shard = settings.alerts.shard.replace("/", "of")
    guard = Guard(settings.data_dir / f"alerter-{shard}.scheduled-rule")

    def leave(*_: object) -> None:
        guard.close()  # The rule that runs is not the reason.
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    files = RuleFiles(settings.alerts, settings.rules_path, last_read=settings.rules_last_read_path)
    reload_due_s = time.monotonic() + _RELOAD_INTERVAL_S
    with closing(open_store(settings.store)) as store:
        runs = ScheduledRuns(store, settings, generation=generation, clock=now_us, guard=guard)
        known: Known | None = None
        while os.getppid() == parent:
            try:
                while connection.poll(_LOOK_INTERVAL_S if known is None else 0):
                    known = connection.recv()
                    connection.send(None)
            except (OSError, EOFError):
                return
            if time.monotonic() >= reload_due_s:
                reload_due_s = time.monotonic() + _RELOAD_INTERVAL_S
                files.reload()
            if known is None:
                continue
            rules = {name: rule for name, rule in files.rules.items() if name in known.names}
            try:
                was_due = runs.look(rules, known.shadowed, up_to_us=known.up_to_us, told=connection.send)
            except LogweirError as error:
                if error.problem is CLAIM_LOST:
                    return
                tolerate(error, STORE_DOWN, STORE_REFUSES, SEARCH_TOO_SLOW)
                was_due = False
            except OSError:
                return  # Nobody listens any more.
            if not was_due:
                known = None
