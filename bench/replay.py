"""How fast replays are, and that they change no count: a million events on the embedded queue and store.

python -m bench.replay                      1,000,000 events
python -m bench.replay --events 100000

Records are put into the queue as a door writes them, a worker indexes them, and then everything is replayed: nothing
missing; one in a hundred missing; killed half-way (kill -9) and begun again; redone by other rules. After each step the
store is counted against the books.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from logweir import clock, config
from logweir.audit import read_books
from logweir.config import Settings
from logweir.event import stream_of
from logweir.ledger import position_id
from logweir.query import parse
from logweir.queue import Queue, open_queue
from logweir.record import Accepted, Batch, Kind, Marker, encode
from logweir.store import Store, open_store
from logweir_workers.worker import Worker

EPOCH = b"\x07" * 16
RECORD_EVENTS = 500
RULES = '[[rule]]\ncategory = "redone"\nkey = "*"\noverride = true\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="logweir-replay-") as name:
        folder = Path(name)
        overrides = {"data_dir": folder, "queue.partitions": 1}
        settings = config.load(environment={}, overrides=overrides)
        with closing(open_queue(settings.queue)) as queue, closing(open_store(settings.store)) as store:
            queue.prepare()
            store.prepare()
            measured("written to the queue", arguments.events, lambda: fill(queue, arguments.events))
            measured("indexed by a worker", arguments.events, lambda: work_off(settings, queue, store))
            before = agreed(store)
            measured("replayed, nothing missing", arguments.events, lambda: replay(folder))
            assert agreed(store) == before
            lost = lose(store, arguments.events // 100)
            result = measured("replayed, 1 % missing", arguments.events, lambda: replay(folder))
            assert result["written"] == lost and agreed(store) == before, result
            rules = folder / "categories.toml"
            rules.write_text(RULES)
            kills = measured(
                "half of it redone, killed thrice", arguments.events // 2, lambda: killed(folder, rules, store)
            )
            measured(f"and finished after {kills} kills", arguments.events // 2, lambda: replay(folder, rules))
            assert agreed(store) == before
            redone = store.search(parse("category:redone"), size=0).total
            assert redone == arguments.events, redone
            print(f"all {redone:,} are redone, none is there twice; books and store agree: {before}")
    return 0


def measured(what: str, events: int, call: Any) -> Any:
    began_s = time.monotonic()
    result = call()
    took_s = time.monotonic() - began_s
    print(f"{what:<32} {took_s:7.1f} s  {events / took_s:10,.0f} events/s", flush=True)
    return result


def fill(queue: Queue, events: int) -> None:
    producer = queue.producer()
    rng = random.Random(1)
    errors: list[object] = []
    now_us = clock.now_us()
    window = clock.window_of(now_us)
    waiting = threading.Semaphore(64)

    def done(error: object) -> None:
        errors.extend([error] if error else [])
        waiting.release()

    for first in range(1, events + 1, RECORD_EVENTS):
        count = min(RECORD_EVENTS, events + 1 - first)
        raw = [
            json.dumps(
                {
                    "summary": f"request {number} answered in {rng.randrange(900)} ms by worker {rng.randrange(32)}",
                    "hostname": f"web-{rng.randrange(40)}.example.org", "processname": "nginx", "severity": "info",
                    "processid": rng.randrange(32768), "category": "web",
                    "details": {"status": rng.choice([200, 200, 304, 404]), "path": f"/item/{rng.randrange(9999)}"},
                }
            ).encode()
            for number in range(first, first + count)
        ]  # fmt: skip
        batch = Batch(
            id=rng.randbytes(16), received_us=now_us, key="bench", emitter=None, epoch=None, sequence_first=None,
            high=None, previous=None, dropped=None, bye=False, source_address="10.0.0.1", format="json", stamp=None,
            index_first=0, events=raw,
        )  # fmt: skip
        waiting.acquire()
        payload = encode(Kind.DATA, ingest_epoch=EPOCH, first=first, count=count, window=window, body=[batch])
        producer.send(0, payload, done)
    marker = Marker([Accepted("bench", None, events, 0)], [])
    waiting.acquire()
    producer.send(0, encode(Kind.MARKER, ingest_epoch=EPOCH, first=1, count=events, window=window, body=marker), done)
    producer.close(60)
    assert not errors, errors[0]


def work_off(settings: Settings, queue: Queue, store: Store) -> None:
    stopping = threading.Event()
    worker = Worker(settings=settings, queue=queue, store=store, stopping=stopping, clock=clock.now_us)
    thread = threading.Thread(target=worker.run)
    thread.start()
    id, end = position_id(settings.worker.group, queue.topic_id(), 0), queue.offsets(0)[1]
    while not (found := store.read_ledger([id])) or found[id].body.get("next_offset") != end:
        time.sleep(0.1)
    stopping.set()
    thread.join()


def agreed(store: Store) -> dict[str, int]:
    """What the books say, corrections included; the store must have as many documents as are indexed."""
    books = read_books(store, group="logweir", late_us=0, now_us=clock.now_us())
    assert books.balanced and not books.corrections
    stored = store.search(parse(f"ingest_stream:{stream_of(EPOCH, 0)}"), size=0).total
    assert stored == books.row.outcomes["indexed"], (stored, books.row)
    return books.row.outcomes


def lose(store: Store, count: int) -> int:
    page = store.search(parse("*"), size=min(count, 10_000)).events
    places = [(one["_index"], one["_id"]) for one in page]
    own = [provenance for provenance in store.provenances(places) if provenance is not None]
    store.delete([(*place, provenance) for place, provenance in zip(places, own, strict=True)])
    return len(own)


def command(folder: Path, rules: Path | None) -> tuple[list[str], dict[str, str]]:
    words = [sys.executable, "-m", "logweir.cli", "replay", "--data-dir", str(folder), "--json"]
    env = {**os.environ, "LOGWEIR_QUEUE_PARTITIONS": "1"}
    if rules is not None:
        words.append("--reprocess")
        env["LOGWEIR_WORKER_CATEGORIES_FILE"] = str(rules)
    return words, env


def replay(folder: Path, rules: Path | None = None) -> Any:
    words, env = command(folder, rules)
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def killed(folder: Path, rules: Path, store: Store) -> int:
    """Kill the command when it has come so far, three times, the last time half-way; gives how often."""
    words, env = command(folder, rules)
    shares = (0.1, 0.3, 0.5)
    for share in shares:
        popen = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL)
        while share_done(store) < share:
            assert popen.poll() is None, "it was done before it could be killed"
            time.sleep(0.1)
        popen.send_signal(signal.SIGKILL)
        popen.wait()
    return len(shares)


def share_done(store: Store) -> float:
    """Of the replay that is not done."""
    bodies = [document.body for document in store.scan_ledger("replay:")]
    return max(
        (one["following"][0][1] / one["bounds"][0][2] for one in bodies if not one.get("is_done", True)), default=0
    )


if __name__ == "__main__":
    sys.exit(main())
