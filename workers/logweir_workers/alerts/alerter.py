"""Ask every rule of every accepted event, and write down what was found as alerts.

One process reads everything. A second one waits until the first is gone, and goes on where it was: nothing is missed,
and nothing alerted twice. Where one is not enough, alerts.shard gives each a part of the rules. The rules are those
that come with logweir and your own in alerts.rules_dir; docs/how-to/write-a-rule.md says how to write one. The process
with the first part of the rules tells the channels, too: docs/how-to/notifications.md.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from logweir.alerts.rules import Rule
from logweir.clock import Clock, now_us
from logweir.config import Settings, shown_url
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.metrics import endpoint as exposition
from logweir.metrics import registry
from logweir.process.collector import collect_seldom
from logweir.process.files import make_folder
from logweir.process.lifetime import owner_new, set_on_stop_signals
from logweir.process.logs import configure_logging
from logweir.queue import open_queue
from logweir.queue.port import Queue
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers.alerts.books import BooksRules
from logweir_workers.alerts.checkpoint import Checkpoint, Standby, shard_id
from logweir_workers.alerts.engine import Engine
from logweir_workers.alerts.guard import Guard
from logweir_workers.alerts.loading import RuleFiles
from logweir_workers.alerts.scheduled.process import ScheduledProcess
from logweir_workers.backoff import Stopped, until_it_answers
from logweir_workers.notify.channels import ChannelFile
from logweir_workers.notify.notifier import Notifier

log = logging.getLogger(__name__)

_LOOK_INTERVAL_S = 0.5
_STALLED_S = 120.0
_BOOKS_JOIN_S = 10.0
_NOTIFIER_END_S = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shard", dest="set:alerts.shard", metavar="N/M", help="which part of the rules (1/1: all)")
    parser.add_argument(
        "--metrics-address",
        dest="set:alerts.metrics_address",
        metavar="ADDRESS",
        help="address of /metrics and /healthz (127.0.0.1)",
    )
    parser.add_argument(
        "--metrics-port",
        dest="set:alerts.metrics_port",
        metavar="PORT",
        help="port of /metrics and /healthz (8091, or the next free one)",
    )


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    configure_logging("alerter", settings.log)
    stopping = set_on_stop_signals()
    if settings.alerts.rules_dir is None:
        make_folder(settings.rules_path)
    registry.prepare(("logweir_alerter_",))
    with (
        closing(open_store(settings.store)) as store,
        closing(open_queue(settings.queue, group=settings.worker.group)) as queue,
    ):
        alerter = Alerter(settings, queue=queue, store=store, stopping=stopping, clock=now_us)
        where = settings.alerts
        port = exposition.serve("The alerter's /metrics", where.metrics_address, where.metrics_port, alerter.unhealthy)
        log.info("Reading %s; /metrics is on port %d.", shown_url(settings.queue.url), port)
        collect_seldom()
        alerter.run()
    return 0


class Alerter:
    """Evaluates the shard's rules whenever nobody else does. ``run`` returns when ``stopping`` is set."""

    def __init__(
        self, settings: Settings, *, queue: Queue, store: Store, stopping: threading.Event, clock: Clock
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._store = store
        self._stopping = stopping
        self._clock = clock
        self._owner = owner_new()
        self._shard = shard_id(settings.alerts.shard)
        self.engine: Engine | None = None
        """While it evaluates."""

    def unhealthy(self) -> str | None:
        """What /healthz complains of: the evaluating loop has not turned for two minutes."""
        engine = self.engine
        seconds = time.monotonic() - engine.turned_s if engine is not None else 0.0
        return f"no rule was evaluated for {seconds:.0f} s" if seconds > _STALLED_S else None

    def run(self) -> None:
        """Wait for the shard, evaluate, and wait again when somebody else has taken it over."""
        try:
            until_it_answers(self._store.prepare, self._stopping)
            until_it_answers(self._queue.prepare, self._stopping)
            while not self._stopping.is_set():
                self._wait()
                self._evaluate()
        except Stopped:
            return

    def _wait(self) -> None:
        """Return when nobody evaluates the shard's rules. Raises Stopped."""
        group, takeover_s = self._settings.worker.group, self._settings.alerts.takeover_s
        standby = Standby(self._store, group, self._shard, takeover_s=takeover_s)
        is_said = False
        while not until_it_answers(lambda: standby.is_free(time.monotonic()), self._stopping):
            if not is_said:
                is_said = True
                log.info("Another process evaluates the rules %s; waiting until it is gone.", self._shard.shard)
            if self._stopping.wait(_LOOK_INTERVAL_S):
                raise Stopped

    def _evaluate(self) -> None:
        group = self._settings.worker.group
        settings = self._settings
        files = RuleFiles(settings.alerts, settings.rules_path, last_read=settings.rules_last_read_path)
        try:
            checkpoint = until_it_answers(
                lambda: Checkpoint.claim(self._store, group, self._shard, self._owner), self._stopping
            )
        except LogweirError as error:
            if error.problem is not CLAIM_LOST:
                raise
            return
        # Now that nobody else on this machine uses the file.
        guard = Guard(self._settings.data_dir / f"alerter-{self._shard.shard}.rule")
        engine = until_it_answers(
            lambda: Engine(
                self._settings,
                queue=self._queue,
                store=self._store,
                files=files,
                checkpoint=checkpoint,
                stopping=self._stopping,
                clock=self._clock,
                guard=guard,
            ),
            self._stopping,
        )
        log.info("Evaluating %d rules.", len(engine.evaluator.rules))
        registry.get("logweir_alerter_is_active").set(1)
        self.engine = engine
        books = BooksRules(
            self._store,
            self._settings,
            generation=checkpoint.generation,
            clock=self._clock,
            failed=engine.evaluator.failed,
        )
        over = threading.Event()
        # A thread of its own: books of many emitters take a while to read, and events must not wait for that.
        books_thread = threading.Thread(
            target=books.run,
            args=(lambda: _in_force(engine), over),
            kwargs={"interval_s": self._settings.alerts.books_interval_s},
            name="books",
            daemon=True,  # The operator's own code may not come back.
        )
        books_thread.start()
        scheduled = ScheduledProcess(self._settings, generation=checkpoint.generation)
        scheduled_thread = threading.Thread(
            target=scheduled.run,
            args=(lambda: _in_force(engine), lambda: engine.completeness.up_to_us, over),
            name="scheduled",
        )
        scheduled_thread.start()
        try:
            with self._notifying():
                engine.run()
        except LogweirError as error:
            if error.problem is not CLAIM_LOST:
                raise
            log.warning("Another process has taken over the rules: %s", error.detail)
        finally:
            over.set()
            books_thread.join(_BOOKS_JOIN_S)
            scheduled_thread.join()
            self.engine = None
            guard.close()
            registry.get("logweir_alerter_is_active").set(0)

    @contextmanager
    def _notifying(self) -> Iterator[None]:
        """Channels are told in the block, on a thread of its own: by the process with the first part of the rules."""
        if not self._settings.alerts.shard.startswith("1/"):
            yield
            return
        ended = threading.Event()
        notifier = Notifier(
            self._store,
            ChannelFile(self._settings.channels_path),
            public_url=self._settings.console.public_url,
            stopping=ended,
            clock=self._clock,
        )
        thread = threading.Thread(target=notifier.run, name="notifier", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_NOTIFIER_END_S)


def _in_force(engine: Engine) -> tuple[dict[str, Rule], set[str]]:
    """The rules that are asked, and which of them are shadowed."""
    evaluator = engine.evaluator
    rules = {name: rule for name, rule in evaluator.rules.items() if name not in evaluator.parked}
    return rules, evaluator.shadowed
