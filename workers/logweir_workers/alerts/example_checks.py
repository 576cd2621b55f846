"""The examples of own rules, run when their file is read: a rule that does not do what its author says is named.

Each file in a process of its own: examples that take long hold nothing up, and those that never end are ended.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from logweir.alerts.rules import Rule
from logweir.config import Settings
from logweir.query import lists
from logweir_workers.alerts.examples import Examples
from logweir_workers.alerts.loading import read_rules

log = logging.getLogger(__name__)

CHECK_S_MAX = 60.0
"""How long the examples of a file may take."""
_PROBLEM_LENGTH_MAX = 300


class _Running(NamedTuple):
    path: Path
    names: Sequence[str]
    process: BaseProcess
    receiving: Connection
    end_s: float
    """When it has taken too long, monotonic."""


class ExampleChecks:
    """Runs the examples of files, one after the other. For one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._due: dict[Path, Sequence[str]] = {}
        self._running: _Running | None = None
        self.failed: dict[str, str] = {}
        """By rule, the first of its examples that is not as its author says, and why."""

    def want(self, path: Path, rules: Sequence[Rule]) -> None:
        """Have the file's examples run: these are its rules now."""
        for rule in rules:
            self.failed.pop(rule.name, None)
        self._due.pop(path, None)
        if any(rule.examples for rule in rules):
            self._due[path] = [rule.name for rule in rules if rule.examples]

    def turn(self) -> None:
        """Begin with the next file, or see what came of the one before; waits for nothing."""
        if self._running is None:
            self._begin()
            return
        path, names, process, receiving, end_s = self._running
        is_over = receiving.poll() or not process.is_alive()
        if not is_over and time.monotonic() < end_s:
            return
        self._running = None
        found = dict.fromkeys(names, f"its file's examples did not come to an end within {CHECK_S_MAX:.0f} s")
        if is_over:
            with suppress(EOFError):
                found = receiving.recv()
        process.kill()
        process.join()
        receiving.close()
        if path in self._due:
            return  # It was read again meanwhile.
        for name, problem in found.items():
            self.failed[name] = problem
            log.warning("The rule %s is in force, and an example of it fails: %s (%s)", name, problem, path)

    def _begin(self) -> None:
        if not self._due:
            return
        path, names = next(iter(self._due.items()))
        del self._due[path]
        # Spawned: a fork would take over the locks of threads that it has not.
        context = multiprocessing.get_context("spawn")
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_check, args=(self._settings, path, sending), daemon=True)
        try:
            process.start()
        except OSError as error:
            log.warning("The examples in %s could not be run: %s", path, error)
            receiving.close()
            return
        finally:
            sending.close()
        self._running = _Running(path, names, process, receiving, time.monotonic() + CHECK_S_MAX)


def _check(settings: Settings, path: Path, sending: Connection) -> None:
    """Send by rule what is wrong with its examples."""
    # Also when whoever waits for it is gone.
    resource.setrlimit(resource.RLIMIT_CPU, (int(CHECK_S_MAX), int(CHECK_S_MAX)))
    lists.use(settings.lists_path)
    examples = Examples(settings)
    failed: dict[str, str] = {}
    for rule in read_rules(path):
        for example in rule.examples:
            if problem := examples.run(rule, example).problem:
                failed.setdefault(rule.name, f"{example.name!r}: {problem}"[:_PROBLEM_LENGTH_MAX])
    sending.send(failed)
