"""A fault of ours makes dead letters of real events; it is mended, and `logweir deadletters` puts all of it right."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from logweir.audit.books import Books, read_books
from logweir.clock import now_us
from logweir.config import StoreSettings
from logweir.query.parse import parse
from logweir.store import open_store
from logweir.store.port import Store
from tests.proof import size
from tests.tools.product import LOGWEIR, Embedded, Load, environment, ids_found, logweir

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


def settled(store: Store, **outcomes: int) -> Books:
    """The books, once they have these outcomes and nothing is in flight."""
    deadline = time.monotonic() + 60
    while True:
        books = read_books(store, group="logweir", late_us=60_000_000, now_us=now_us())
        found = books.row.as_json()
        if not books.row.in_flight and {name: found[name] for name in outcomes} == outcomes:
            return books
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.mark.sized
@pytest.mark.timeout(180)  # Retries that are killed, beside a product that is started twice.
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

    path = os.pathsep.join([str(tmp_path / "bug"), *filter(None, [os.environ.get("PYTHONPATH")])])
    product = Embedded(tmp_path / "data", env=environment(**filters, PYTHONPATH=path))
    product.start()
    store = open_store(StoreSettings(url=f"sqlite:///{tmp_path}/data/store"))
    try:
        statuses = [
            post(product, events(BROKEN, hostname="broken")),
            post(product, events(GOOD, hostname="fine")),
            post(product, events(DEBUG, level="debug")),
            post(product, b'{"a":"say "hi""}'),
        ]
        before = settled(store, indexed=GOOD, filtered=DEBUG, dead_lettered=BROKEN)
        product.process.kill_family()
        product = Embedded(tmp_path / "data", env=environment(**filters))
        key = logweir("keys", "add", "again", *data).strip()
        product.start()
        exported = deadletters("export")
        refused = deadletters("export", "--refused")
        retry = [*LOGWEIR, "deadletters", "retry", *data]
        with Load([product.ingest_port], key, threads=1, pause_s=0.05) as load:
            for _ in range(size(1, 5)):
                running = [subprocess.Popen(retry, env=environment(**filters), stdout=subprocess.DEVNULL) for _ in "12"]
                time.sleep(rng.uniform(0.6, 2.0))
                for one in running:
                    one.kill()
                    one.wait()
            last = json.loads(deadletters("retry", "--json"))
        stored = BROKEN + GOOD + len(load.accepted)
        after = settled(store, indexed=stored, filtered=DEBUG, duplicate=0, dead_lettered=0)
        left = json.loads(deadletters("list", "--count", "--json"))
        found = product.search("hostname:broken", "--json", "--size", "0").splitlines()
        debug = store.count(parse("severity:DEBUG")).number
        loaded = ids_found(product.search("category:flow", "--json", "--size", "0"))
    finally:
        product.process.kill_family()
        store.close()

    assert statuses == [202, 202, 202, 400]
    assert before.balanced
    assert after.balanced
    assert len(exported.splitlines()) == BROKEN
    assert sorted(json.loads(line)["details"]["at"] for line in exported.splitlines()) == list(range(BROKEN))
    assert json.loads(refused)["summary"] == '{"a":"say "hi""}'
    assert last["left"] == last["failed"] == 0
    assert sorted(json.loads(line)["details"]["at"] for line in found) == list(range(BROKEN))
    assert debug == 0
    assert set(loaded) == load.accepted
    assert list(left) == ["body_refused"]
