"""Run a part of the product with a stopwatch around some of its functions.

    python -m bench.stopwatch FOLDER ingest --port 8080 …

What the words behind FOLDER say is what `logweir` would do. Each process writes FOLDER/<its id>.json some times a
second: the CPU time that it has used, and how much of it was spent inside the functions of PARTS and all that they
call, by part, in seconds. The clock is each thread's own CPU time, so that waiting for the disk, the network or the
interpreter's lock counts for nothing. What the stopwatch itself costs is measured at the start and taken off.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logweir import cli

INGEST = {
    "headers": ("logweir_ingest.request.emitter_headers:read",),
    "numbers": (
        "logweir_ingest.records.batcher:RecordBatcher._queue_of",
        "logweir_ingest.records.batcher:RecordBatcher._account",
        "logweir_ingest.records.windows:Windows.window",
        "logweir_ingest.records.windows:Windows.next_number",
        "logweir_ingest.records.windows:Windows.give",
    ),
    "markers": ("logweir_ingest.records.batcher:RecordBatcher._write_markers",),
    "receipts": ("logweir.receipt:encode",),
    "canaries": ("logweir_ingest.records.canary:Canary.tick",),
}
WORKER = {
    "before": ("logweir_workers.accounting.partition:PartitionLedger.expect",),
    "identity": ("logweir.event:content_hash_of", "logweir_workers.pipeline:ids_of"),
    "outcomes": ("logweir_workers.pipeline:outcome_of", "logweir_workers.pipeline:take_out_retries"),
    "settle": ("logweir_workers.pipeline:Pipeline.settle",),
    "write": ("logweir_workers.accounting.partition:PartitionLedger.flush",),
    "upkeep": (
        "logweir_workers.accounting.partition:PartitionLedger.idle",
        "logweir_workers.accounting.partition:PartitionLedger.claim",
        "logweir_workers.accounting.store_audit:StoreAuditor.audit_some",
        "logweir_workers.chores:delete_old_books",
    ),
}
"""Per part of the accounting, its functions as module:name; what stands here already counts all that it calls."""
PARTS = {"ingest": INGEST, "worker": WORKER}
_WRITE_INTERVAL_S = 0.2
_CALIBRATION_CALLS = 100_000


class Stopwatch:
    """Per part, how often it was entered from outside of all parts, and for how long."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._threads: list[dict[str, list[int]]] = []
        self._inside_ns, self._whole_ns = 0.0, 0.0
        self._calibrate()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        local, now_ns = self._local, time.thread_time_ns

        def call(*arguments: Any, **options: Any) -> Any:
            if getattr(local, "is_inside", False):
                return function(*arguments, **options)
            cell = self._cell(part)
            local.is_inside = True
            began_ns = now_ns()
            try:
                return function(*arguments, **options)
            finally:
                cell[1] += now_ns() - began_ns
                cell[0] += 1
                local.is_inside = False

        return call

    def figures(self) -> dict[str, Any]:
        """CPU time of the process and of each part, both without what the stopwatch took."""
        spent: dict[str, float] = {}
        calls = 0
        for cells in list(self._threads):
            for part, (count, ns) in list(cells.items()):
                spent[part] = spent.get(part, 0.0) + (ns - count * self._inside_ns) / 1e9
                calls += count
        return {"cpu_s": time.process_time() - calls * self._whole_ns / 1e9, "parts": spent}

    def _cell(self, part: str) -> list[int]:
        cells: dict[str, list[int]] | None = getattr(self._local, "cells", None)
        if cells is None:
            cells = self._local.cells = {}
            self._threads.append(cells)
        cell = cells.get(part)
        if cell is None:
            cell = cells[part] = [0, 0]
        return cell

    def _calibrate(self) -> None:
        """What a call costs through the stopwatch: between its two looks at the clock, and in all."""

        def nothing() -> None: ...

        def cost_ns(call: Callable[[], None]) -> float:
            began_ns = time.thread_time_ns()
            for _ in range(_CALIBRATION_CALLS):
                call()
            return (time.thread_time_ns() - began_ns) / _CALIBRATION_CALLS

        through_ns, plain_ns = cost_ns(self.timed("", nothing)), cost_ns(nothing)
        ((_, spent_ns),) = self._threads.pop().values()
        self._local = threading.local()
        self._inside_ns = spent_ns / _CALIBRATION_CALLS - plain_ns
        self._whole_ns = through_ns - plain_ns


def install(stopwatch: Stopwatch, parts: dict[str, tuple[str, ...]]) -> None:
    for part, names in parts.items():
        for name in names:
            module_name, _, path = name.partition(":")
            *owners, attribute = path.split(".")
            owner: Any = importlib.import_module(module_name)
            for one in owners:
                owner = getattr(owner, one)
            function = vars(owner)[attribute]
            if isinstance(function, classmethod):
                setattr(owner, attribute, classmethod(stopwatch.timed(part, function.__func__)))
            else:
                setattr(owner, attribute, stopwatch.timed(part, function))


def main() -> int:
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    stopwatch = Stopwatch()
    install(stopwatch, PARTS[words[0]])

    def write() -> None:
        path = folder / f"{os.getpid()}.json"
        while True:
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(stopwatch.figures()))
            partial.replace(path)
            time.sleep(_WRITE_INTERVAL_S)

    def start() -> None:
        threading.Thread(target=write, daemon=True, name="stopwatch").start()

    # The processes that serve a port are forks.
    os.register_at_fork(after_in_child=start)
    start()
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main())
