"""Programs that log, as processes of their own, and what a real door's queue has of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logweir.record import Batch, Kind
from tests.ingest.helpers import ROOT, Door, of_kind

BEGIN = """
import logging, os, sys, time
from logweir.emit import LogweirHandler
logging.basicConfig(level=logging.INFO, handlers=[LogweirHandler(**OPTIONS)])
log = logging.getLogger("app")
"""


def start(code: str, url: str, key: str = "lw_test", **options: Any) -> subprocess.Popen[str]:
    """A program that logs by ``log`` to a handler with these options."""
    return start_bare(f"OPTIONS = {options!r}\n{BEGIN}\n{code}", url, key)


def start_bare(code: str, url: str, key: str = "lw_test") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOGWEIR_URL": url, "LOGWEIR_KEY": key}
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], *, wait_s: float = 50) -> tuple[str, str]:
    """What it printed, and its standard error; fails when it ended with an error."""
    out, errors = process.communicate(timeout=wait_s)
    assert process.returncode == 0, errors
    return out, errors


def run(code: str, url: str, key: str = "lw_test", **options: Any) -> tuple[str, str]:
    return ended(start(code, url, key, **options))


@dataclass
class Run:
    """What came of one epoch."""

    numbers: Counter[int] = field(default_factory=Counter)
    events: list[dict[str, Any]] = field(default_factory=list)
    high: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    previous: tuple[str, int] | None = None
    bye: bool = False

    @property
    def missing(self) -> list[int]:
        return [number for number in range(1, self.high + 1) if number not in self.numbers]

    @property
    def summaries(self) -> list[str]:
        return [event["summary"] for event in self.events]


def runs_of(door: Door) -> dict[str, Run]:
    """By epoch, in the order of their first numbers' times; each event once, as the store would have it."""
    found: dict[str, Run] = {}
    for _, record in of_kind(door.records(), Kind.DATA):
        for batch in record.batches:
            assert batch.epoch is not None
            _add(found.setdefault(batch.epoch, Run()), batch)
    return dict(sorted(found.items()))


def _add(run: Run, batch: Batch) -> None:
    for at, event in enumerate(batch.events):
        number = (batch.sequence_first or 0) + batch.index_first + at
        if number not in run.numbers:
            run.events.append(json.loads(event))
        run.numbers[number] += 1
    run.high = max(run.high, batch.high or 0)
    run.dropped |= batch.dropped or {}
    run.previous = run.previous or batch.previous
    run.bye = run.bye or batch.bye


def runs_written(folder: Path) -> set[str]:
    """The epochs of which events are in files there."""
    found = set()
    for path in folder.rglob("*.log"):
        with suppress(FileNotFoundError):
            if path.stat().st_size:
                found.add(path.parent.name)
    return found


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
