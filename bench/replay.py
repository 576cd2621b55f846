"""How fast replays are, and that they change no count, on either pair of queue and store.

python -m bench.replay                      1,000,000 events, everything embedded
python -m bench.replay --events 100000
python -m bench.replay --kafka              on a Kafka and an Elasticsearch that are started for it

Records are put into the queue as a door writes them, a worker indexes them, and then everything is replayed: nothing
missing; one in a hundred missing; killed half-way (kill -9) and begun again; redone by other rules. After each step the
store is counted against the books. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.servers import started_servers
from logweir import clock, config
from logweir.audit.books import read_books
from logweir.config import Settings
from logweir.event import stream_of
from logweir.ledger.documents import REPLAY, PartitionId
from logweir.ledger.position import read_offsets
from logweir.ledger.replays import ReplayProgress
from logweir.query.parse import parse
from logweir.queue import open_queue
from logweir.queue.port import Queue
from logweir.record import Accepted, Batch, Kind, Marker, encode
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers.worker import Worker
from tests.tools.product import LOGWEIR, environment

EPOCH = b"\x07" * 16
RECORD_EVENTS = 500
# A replay keeps how far it is once a second: one that is over sooner could not be killed on its way.
_SECONDS_MIN = 15
RULES = '[[rule]]\ncategory = "redone"\nkey = "*"\noverride = true\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument(
        "--kafka", action="store_true", help="on Kafka and Elasticsearch instead of everything embedded"
    )
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="logweir-replay-")))
        env = environment(LOGWEIR_DATA_DIR=str(folder), LOGWEIR_QUEUE_PARTITIONS="1")
        if arguments.kafka:
            bootstrap, store_url = stack.enter_context(started_servers())
            env |= {"LOGWEIR_QUEUE_URL": f"kafka://{bootstrap}/bench", "LOGWEIR_STORE_URL": store_url}
        settings = config.load(environment=env)
        queue = stack.enter_context(closing(open_queue(settings.queue)))
        store = stack.enter_context(closing(open_store(settings.store)))
        queue.prepare()
        store.prepare()
        pair = "Kafka and Elasticsearch" if arguments.kafka else "embedded"
        print(json.dumps({"pair": pair, **Bench(settings, queue, store, env, arguments.events).run()}))
    return 0


class Bench:
    """The steps, with how long each takes."""

    def __init__(self, settings: Settings, queue: Queue, store: Store, env: dict[str, str], events: int) -> None:
        self._settings = settings
        self._queue = queue
        self._store = store
        self._env = env
        self._events = events
        self._seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Take them all; gives the counts before and after. Raises AssertionError where one is another than it was."""
        events, store = self._events, self._store
        self._measured("written to the queue", events, lambda: fill(self._queue, events))
        self._measured("indexed by a worker", events, lambda: work_off(self._settings, self._queue, store))
        before = agreed(store)
        self._measured("replayed, nothing missing", events, lambda: replay(self._env))
        assert agreed(store) == before
        lost = lose(store, events // 100)
        result = self._measured("replayed, 1 % missing", events, lambda: replay(self._env))
        assert result["written"] == lost and agreed(store) == before, result
        rules = self._settings.data_dir / "categories.toml"
        rules.write_text(RULES)
        redo = {**self._env, "LOGWEIR_WORKER_CATEGORIES_FILE": str(rules)}
        kills = self._measured("half of it redone, killed thrice", events // 2, lambda: killed(redo, store, events))
        result = self._measured("and finished", events // 2, lambda: replay(redo, "--reprocess"))
        after = agreed(store)
        redone = store.count(parse("category:redone")).number
        assert (after, redone) == (before, events), (before, after, redone)
        return {
            "events": events,
            "lost_and_written": lost,
            "kills": kills,
            "redone": redone,
            "before": before,
            "after": after,
            "seconds": self._seconds,
        }

    def _measured(self, what: str, events: int, call: Callable[[], Any]) -> Any:
        began_s = time.monotonic()
        result = call()
        took_s = time.monotonic() - began_s
        self._seconds[what] = round(took_s, 1)
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
                    "hostname": f"web-{rng.randrange(40)}.example.org",
                    "processname": "nginx",
                    "severity": "info",
                    "processid": rng.randrange(32768),
                    "category": "web",
                    "details": {"status": rng.choice([200, 200, 304, 404]), "path": f"/item/{rng.randrange(9999)}"},
                }
            ).encode()
            for number in range(first, first + count)
        ]
        batch = Batch(
            id=rng.randbytes(16),
            received_us=now_us,
            key="bench",
            emitter=None,
            epoch=None,
            sequence_first=None,
            high=None,
            previous=None,
            dropped=None,
            bye=False,
            source_address="10.0.0.1",
            format="json",
            stamp=None,
            index_first=0,
            events=raw,
        )
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
    place, end = PartitionId(queue.topic_id(), 0), queue.offsets(0)[1]
    while read_offsets(store, settings.worker.group, [place]).get(place) != end:
        time.sleep(0.1)
    stopping.set()
    thread.join()


def agreed(store: Store) -> dict[str, int]:
    """What the books say, corrections included; the store must have as many documents as are indexed."""
    store.refresh()
    books = read_books(store, group="logweir", late_us=0, now_us=clock.now_us())
    assert books.balanced and not books.corrections
    stored = store.count(parse(f"ingest_stream:{stream_of(EPOCH, 0)}")).number
    assert stored == books.row.outcomes["indexed"], (stored, books.row)
    return books.row.outcomes


def lose(store: Store, count: int) -> int:
    page = store.search(parse("*"), size=min(count, 10_000)).events
    places = [(one["_index"][-8:], one["_id"]) for one in page]
    own = [provenance for provenance in store.provenances(places) if provenance is not None]
    store.delete([(*place, provenance) for place, provenance in zip(places, own, strict=True)])
    return len(own)


def replay(env: dict[str, str], *words: str) -> Any:
    done = subprocess.run([*LOGWEIR, "replay", "--json", *words], env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def killed(env: dict[str, str], store: Store, events: int) -> int:
    """Kill the command when it has come so far, three times, the last time half-way; gives how often."""
    words = [*LOGWEIR, "replay", "--reprocess", "--rate", str(events // _SECONDS_MIN)]
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
    found = [ReplayProgress.from_body(document.body) for _, document in REPLAY.scan(store.ledger, "logweir")]
    return max((one.records_read / one.records for one in found if not one.is_done), default=0)


if __name__ == "__main__":
    sys.exit(main())
