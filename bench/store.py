"""How fast a store takes documents, what they cost and how large they are, and how soon a search has its newest rows.

    python -m bench.store                                        the embedded store
    python -m bench.store --events 1000000
    python -m bench.store --url http://127.0.0.1:9200            that Elasticsearch, under a prefix of its own

The documents are a worker's, of the mixed load of bench.parse, spread over one day by their receipt. They are indexed
in bulks of 2,000, by turns with a ceiling that writes the same bytes with the same guarantees and nothing around them:
rows and words in one SQLite file, or these same bulks made beforehand and sent as they are. Then each query is asked
some times for its newest 100 rows, and once for its count. One JSON line each: seconds of CPU are those of this process
for 100,000 events, milliseconds the median and the 95th percentile by the clock. Nothing is met or missed: the goals
are what the next layout is held against.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.parse import shuffled_load
from logweir.clock import DAY_US
from logweir.config import StoreSettings, WorkerSettings
from logweir.event import Document, Provenance
from logweir.query.parse import parse
from logweir.store import open_store
from logweir.store.elasticsearch.store import ElasticsearchStore, create_operation
from logweir.store.port import Store, Written
from logweir.store.sqlite import search as sql
from logweir_workers import enrich
from logweir_workers.document import Documents, Filtered
from logweir_workers.filters import Filters
from logweir_workers.normalise.fields import Context

BULK = 2000
ROUNDS = 10
START_US = 1_769_817_600_000_000  # 2026-01-31
QUERIES = {
    "everything": "*",
    "common_word": "session",
    "rare_word": "mallory",
    "phrase_host_hour": '"failed password" hostname:web1',
    "host": "hostname:web1",
    "username": "details.username:alice",
    "status_range": "details.status:>=500",
    "status": "details.status:200",
    "network": "details.sourceipaddress:192.0.2.0/28",
    "wildcard_hour": "details.useragent:*firefox*",
    "word_wildcard_hour": "*rder*",
}
"""What is asked by name; those that end in _hour, of the last hour."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--times", type=int, default=20, help="how often each query is asked")
    parser.add_argument("--url", help="an Elasticsearch, without security")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{folder}/store"
        settings = StoreSettings(url=url, index_prefix="bench-store-", search_timeout_s=300)
        with closing(open_store(settings)) as store:
            store.prepare()
            measure_writes(store, Path(folder), arguments.events)
            store.refresh()
            say("stored_bytes_per_event", stored_bytes(store, Path(folder)) / arguments.events)
            measure_searches(store, arguments.times)
            store.delete_expired("99991231")
    return 0


def measure_writes(store: Store, folder: Path, events: int) -> None:
    """Index so many events, and write as many by the ceiling, in ROUNDS slices by turns."""
    ceiling = (
        bulk_ceiling(store) if isinstance(store, ElasticsearchStore) else sqlite_ceiling(folder / "ceiling.sqlite")
    )
    spent: dict[str, list[float]] = {"store": [0.0, 0.0], "ceiling": [0.0, 0.0]}
    made = bulks(events)
    for _ in range(ROUNDS):
        several = [next(made) for _ in range(events // BULK // ROUNDS)]
        write_ceiling = ceiling(several)
        for name, write in (("store", lambda: index(store, several)), ("ceiling", write_ceiling)):  # noqa: B023
            began_s, began_cpu_s = time.monotonic(), time.process_time()
            write()
            spent[name][0] += time.monotonic() - began_s
            spent[name][1] += time.process_time() - began_cpu_s
    written = events // BULK // ROUNDS * ROUNDS * BULK
    for name, (seconds, cpu_s) in spent.items():
        say("indexed_events_per_s", written / seconds, by=name)
        say("cpu_s_per_100000", cpu_s * 100_000 / written, by=name)


def bulks(events: int) -> Iterator[list[Document]]:
    """Documents in the order of their receipt, which is spread over the day."""
    steps = enrich.load(WorkerSettings())
    documents, load = Documents(steps, Filters()), shuffled_load()
    rng = random.Random(1)
    batch: list[Document] = []
    for number in range(1, events + 1):
        context = Context(START_US + number * DAY_US // (events + 2), "bench")
        provenance = Provenance("0" * 32 + "-0", number, f"{number:016x}")
        raw = load[rng.randrange(len(load))]
        found = documents.make(raw, context, id=f"n{'ab' * 15}.{number}", day="20260131", provenance=provenance)
        assert not isinstance(found, Filtered)
        batch.append(found)
        if len(batch) == BULK:
            yield batch
            batch = []


def index(store: Store, several: Iterable[list[Document]]) -> None:
    for batch in several:
        assert all(item.written is Written.CREATED for item in store.index(batch))


def sqlite_ceiling(path: Path) -> Callable[[list[list[Document]]], Callable[[], None]]:
    """Rows and words as the embedded store has them, made beforehand, in one table of its own."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        "CREATE TABLE events (rowid INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, received INTEGER, document TEXT);"
        "CREATE INDEX received ON events (received);"
        "CREATE VIRTUAL TABLE words USING fts5(summary, rest, content='', columnsize=0, tokenize='ascii');"
    )
    at = sql.COLUMNS.index("receivedtimestamp")

    def prepared(several: list[list[Document]]) -> Callable[[], None]:
        rows = [[(sql.row_of(one), sql.words_row_of(one)) for one in batch] for batch in several]

        def write() -> None:
            for batch in rows:
                connection.execute("BEGIN IMMEDIATE")
                (last,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM events").fetchone()
                of_events = [(last + n, row[0], row[at], row[-1]) for n, (row, _) in enumerate(batch, 1)]
                connection.executemany("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)", of_events)
                of_words = [(last + n, *words) for n, (_, words) in enumerate(batch, 1)]
                connection.executemany("INSERT INTO words (rowid, summary, rest) VALUES (?, ?, ?)", of_words)
                connection.execute("COMMIT")

        return write

    return prepared


def bulk_ceiling(store: ElasticsearchStore) -> Callable[[list[list[Document]]], Callable[[], None]]:
    """The same bulks, made beforehand, into the index of a day that no search asks."""
    client = store._connection.client
    place = store._connection.names.of_day("20200101")

    def prepared(several: list[list[Document]]) -> Callable[[], None]:
        bodies = [
            b"".join(create_operation(one, {"create": {"_index": place, "_id": one.id}}) for one in batch)
            for batch in several
        ]
        headers = {"content-type": "application/x-ndjson", "accept": "application/json"}

        def write() -> None:
            for body in bodies:
                answer = client.perform_request(
                    "POST", "/_bulk", params={"filter_path": "errors"}, headers=headers, body=body
                )
                assert not answer.body["errors"]

        return write

    return prepared


def stored_bytes(store: Store, folder: Path) -> float:
    if not isinstance(store, ElasticsearchStore):
        return float(sum(path.stat().st_size for path in (folder / "store").glob("events-*")))
    name = store._connection.names.of_day("20260131")
    client = store._connection.client
    client.indices.forcemerge(index=name, max_num_segments=1, wait_for_completion=True)
    return float(client.indices.stats(index=name, metric="store")["_all"]["primaries"]["store"]["size_in_bytes"])


def measure_searches(store: Store, times: int) -> None:
    for name, text in QUERIES.items():
        query = parse(text)
        from_us = START_US + DAY_US - 3_600_000_000 if name.endswith("_hour") else START_US
        asked: dict[str, Any] = {"from_us": from_us, "to_us": START_US + DAY_US}
        spent = [timed(lambda: store.search(query, size=100, **asked)) for _ in range(times)]  # noqa: B023
        percentiles = statistics.quantiles(spent, n=20)
        rows = len(store.search(query, size=100, **asked).events)
        say("newest_100_ms", percentiles[9], query=name, p95=round(percentiles[-1], 2), rows=rows)
        began_s = time.monotonic()
        found = store.count(query, **asked).number
        say("count_ms", (time.monotonic() - began_s) * 1000, query=name, found=found)


def timed(call: Callable[[], object]) -> float:
    began_s = time.monotonic()
    call()
    return (time.monotonic() - began_s) * 1000


def say(figure: str, value: float, **more: object) -> None:
    print(json.dumps({"figure": figure, "value": round(value, 2), **more}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
