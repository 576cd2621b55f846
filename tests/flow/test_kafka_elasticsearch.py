"""Several doors and workers on real Kafka and Elasticsearch: killed, stopped, continued; every event exactly once."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from logweir import config
from logweir.config import Settings
from logweir.queue import open_queue
from logweir.store import Store, open_store
from tests.flow.product import (
    Load,
    Process,
    assert_each_once,
    environment,
    free_port,
    ids_found,
    logweir,
    wait_for_all,
    wait_for_http,
)


class Cluster:
    """Two ingest and two worker processes on a topic and a consumer group of their own."""

    def __init__(self, folder: Path, broker_url: str, store_url: str) -> None:
        self.folder = folder
        self.name = f"flow-{uuid4().hex[:8]}"
        self.variables = {
            "LOGWEIR_QUEUE_URL": f"{broker_url}/{self.name}",
            "LOGWEIR_STORE_URL": store_url,
            "LOGWEIR_QUEUE_PARTITIONS": "4",
            "LOGWEIR_QUEUE_SESSION_TIMEOUT_S": "6",
            "LOGWEIR_DATA_DIR": str(folder),
        }
        self.key = logweir("keys", "add", "flow", env=self.env).strip()
        self.ports = [free_port(), free_port()]
        self.ingest = [self.process("ingest", "--port", str(port)) for port in self.ports]
        self.workers = [self.process("worker"), self.process("worker")]
        for port in self.ports:
            wait_for_http(port)

    @property
    def env(self) -> dict[str, str]:
        return environment(**self.variables)

    @property
    def settings(self) -> Settings:
        return config.load(environment=self.env)

    def process(self, *words: str) -> Process:
        return Process(words, self.folder / f"{words[0]}-{uuid4().hex[:8]}.log", self.env)

    def load(self) -> Load:
        return Load(self.ports, self.key, category=self.name)

    def wait_for(self, load: Load, *, within_s: float = 90) -> None:
        wait_for_all(load, self.found, within_s=within_s)

    def found(self) -> Any:
        return ids_found(logweir("search", f"category:{self.name}", "--json", "--size", "0", env=self.env))

    def stop(self) -> None:
        for process in (*self.ingest, *self.workers):
            process.kill_family()


@pytest.fixture
def cluster(tmp_path: Path, kafka: Any, elasticsearch: Any) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, f"kafka://{kafka.bootstrap}", elasticsearch.url)
    yield cluster
    cluster.stop()


def settled(cluster: Cluster) -> Callable[[], dict[str, int]]:
    """The outcomes in all windows of the topic, added up, as the ledger has them."""
    queue = open_queue(cluster.settings.queue)
    topic_id = queue.topic_id()
    queue.close()
    return lambda: _outcomes(cluster, topic_id)


def _outcomes(cluster: Cluster, topic_id: str) -> dict[str, int]:
    store: Store = open_store(cluster.settings.store)
    total = dict.fromkeys(("indexed", "duplicate", "filtered", "dead_lettered"), 0)
    try:
        for body in ledger_bodies(store, f"window:logweir:{topic_id}:"):
            for row in body["outcomes"]:
                for name in total:
                    total[name] += row[name]
    finally:
        store.close()
    return total


def ledger_bodies(store: Store, prefix: str) -> Iterator[dict[str, Any]]:
    yield from (document.body for document in store.scan_ledger(prefix))


def test_a_worker_killed_half_way_loses_nothing_and_repeats_nothing(cluster: Cluster) -> None:
    """Two doors, two workers, one of them killed under load and never started again; every outcome is indexed."""
    with cluster.load() as load:
        time.sleep(4)
        cluster.workers[0].kill_family()
        time.sleep(3)
    cluster.wait_for(load)
    found = cluster.found()
    deadline = time.monotonic() + 15
    outcomes = settled(cluster)
    while (counted := outcomes())["indexed"] < len(found) and time.monotonic() < deadline:
        time.sleep(0.5)

    assert len(load.accepted) > 500
    assert_each_once(load.accepted, found)
    assert counted == {"indexed": len(found), "duplicate": 0, "filtered": 0, "dead_lettered": 0}


def test_a_zombie_worker_changes_no_number(cluster: Cluster) -> None:
    """Stopped past its session and continued, a worker neither repeats events nor touches its successor's books."""
    with cluster.load() as load:
        time.sleep(4)
        zombie = cluster.workers[0].popen
        zombie.send_signal(signal.SIGSTOP)
        time.sleep(10)
        zombie.send_signal(signal.SIGCONT)
        time.sleep(4)
    cluster.wait_for(load)
    found = cluster.found()
    outcomes = settled(cluster)
    deadline = time.monotonic() + 15
    while (counted := outcomes())["indexed"] < len(found) and time.monotonic() < deadline:
        time.sleep(0.5)

    assert zombie.poll() is None
    assert_each_once(load.accepted, found)
    assert counted == {"indexed": len(found), "duplicate": 0, "filtered": 0, "dead_lettered": 0}


def test_kill_9_of_doors_and_workers_again_and_again(cluster: Cluster) -> None:
    """Processes die at random moments and others are started; what was acknowledged is there exactly once."""
    rng = random.Random(3)
    with cluster.load() as load:
        for _ in range(5):
            time.sleep(rng.uniform(0.5, 2.5))
            which = rng.randrange(2)
            if rng.random() < 0.5:
                cluster.workers[which].kill_family()
                cluster.workers[which] = cluster.process("worker")
            else:
                cluster.ingest[which].kill_family()
                cluster.ingest[which] = cluster.process("ingest", "--port", str(cluster.ports[which]))
        time.sleep(3)
    cluster.wait_for(load)

    assert_each_once(load.accepted, cluster.found())
