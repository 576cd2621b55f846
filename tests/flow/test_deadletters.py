"""A fault of ours makes dead letters of real events; it is mended, and `logweir deadletters` puts all of it right."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.flow.product import LOGWEIR, Embedded, Load, environment, ids_found, logweir

BUG = """
import sys

if "worker" in sys.orig_argv:
    from logweir_workers import enrich

    def broken(event, _context):
        if event.get("hostname") == "broken":
            raise ZeroDivisionError("a bug")

    load = enrich.load
    enrich.load = lambda settings: enrich.Enricher((*load(settings).steps, broken))
"""
FILTERS = '[[rule]]\nname = "debug"\nquery = "severity:DEBUG"\n'
BROKEN, GOOD, DEBUG = 1_500, 300, 50


def post(product: Embedded, body: bytes) -> int:
    url = f"http://127.0.0.1:{product.ingest_port}/events"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, {"X-Log-Key": product.key})) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def events(count: int, **fields: str) -> bytes:
    return json.dumps([{**fields, "summary": f"{fields} {at}", "details": {"at": at}} for at in range(count)]).encode()


def eventually(condition: Callable[[], bool], *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_mended_events_are_stored_once_however_often_a_retry_is_killed(tmp_path: Path) -> None:
    """kill -9 of retries at random moments, two at once, under load: every event once, and the books balance.

    A filter leaves debug events out beside it, and an unreadable body is kept; export gives the letters back as events.
    """
    (tmp_path / "bug").mkdir()
    (tmp_path / "bug" / "sitecustomize.py").write_text(BUG)
    (tmp_path / "filters.toml").write_text(FILTERS)
    filters = {"LOGWEIR_WORKER_FILTERS_FILE": str(tmp_path / "filters.toml")}
    data = ("--data-dir", str(tmp_path / "data"))
    rng = random.Random(5)

    def deadletters(*words: str) -> str:
        return logweir("deadletters", *words, *data, env=environment(**filters))

    def counts() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(deadletters("list", "--count", "--json"))
        return found

    def audit() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(logweir("audit", "--json", *data))
        return found

    path = os.pathsep.join([str(tmp_path / "bug"), *filter(None, [os.environ.get("PYTHONPATH")])])
    product = Embedded(tmp_path / "data", env=environment(**filters, PYTHONPATH=path))
    product.start()
    try:
        statuses = [
            post(product, events(BROKEN, hostname="broken")), post(product, events(GOOD, hostname="fine")),
            post(product, events(DEBUG, level="debug")), post(product, b'{"a":"say "hi""}'),
        ]  # fmt: skip
        total = BROKEN + GOOD + DEBUG
        eventually(lambda: audit()["dead_lettered"] == BROKEN and audit()["in_flight"] == 0 and len(counts()) == 2)
        before = audit()
        product.process.kill_family()
        product = Embedded(tmp_path / "data", env=environment(**filters))
        key_of_first = logweir("keys", "add", "again", *data).strip()
        product.start()
        exported = deadletters("export")
        refused = deadletters("export", "--refused")
        retry = [*LOGWEIR, "deadletters", "retry", *data]
        with Load([product.ingest_port], key_of_first, threads=1, pause_s=0.05) as load:
            for _ in range(3):
                running = [subprocess.Popen(retry, env=environment(**filters), stdout=subprocess.DEVNULL) for _ in "12"]
                time.sleep(rng.uniform(0.6, 2.0))
                for one in running:
                    one.kill()
                    one.wait()
            last = json.loads(deadletters("retry", "--json"))
        eventually(lambda: audit()["accepted"] == total + len(load.accepted) and audit()["in_flight"] == 0)
        after = audit()
        left = counts()
        found = product.search("hostname:broken", "--json", "--size", "0").splitlines()
        debug = int(product.search("severity:DEBUG", "--count"))
        loaded = ids_found(product.search("category:flow", "--json", "--size", "0"))
    finally:
        product.process.kill_family()

    assert statuses == [202, 202, 202, 400]
    assert (before["indexed"], before["filtered"]) == (GOOD, DEBUG)
    assert before["balanced"]
    assert len(exported.splitlines()) == BROKEN
    assert sorted(json.loads(line)["details"]["at"] for line in exported.splitlines()) == list(range(BROKEN))
    assert json.loads(refused)["summary"] == '{"a":"say "hi""}'
    assert last["left"] == last["failed"] == 0
    assert sorted(json.loads(line)["details"]["at"] for line in found) == list(range(BROKEN))
    assert debug == 0
    assert set(loaded) == load.accepted
    assert (after["dead_lettered"], after["filtered"], after["duplicate"]) == (0, DEBUG, 0)
    assert after["indexed"] == BROKEN + GOOD + len(load.accepted)
    assert after["balanced"]
    assert list(left) == ["body_refused"]
