"""`logweir replay` as users run it: beside a working product, killed half-way; store and books agree to the event."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from logweir import config
from logweir.queue import open_queue
from logweir.store import open_store
from logweir.store.port import Store
from tests.proof import size
from tests.services.own import own_index_prefix
from tests.tools.product import (
    LOGWEIR,
    Embedded,
    Load,
    Process,
    assert_each_once,
    environment,
    free_port,
    ids_found,
    logweir,
    wait_for_http,
)

KILLS = size(1, 5)
EVERY_OTHER = '[[rule]]\nname = "half"\nquery = "*"\nkeep = 0.5\n'
REDONE = '[[rule]]\ncategory = "redone"\nkey = "*"\noverride = true\n'


class Product:
    """A running product, the load on it, and the commands that a person gives beside it."""

    def __init__(self, variables: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.variables = variables
        self.ports: list[int] = []
        self.key = ""
        self.processes: list[Process] = []

    def env(self, **extra: str) -> dict[str, str]:
        return environment(**self.variables, **extra)

    def run(self, *words: str, **extra: str) -> Any:
        return json.loads(logweir(*words, "--json", env=self.env(**extra), timeout_s=120))

    def store(self) -> Store:
        return open_store(config.load(environment=self.env()).store)

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def books(self) -> dict[str, int]:
        """What became of all events, when everything is accounted for; the command fails unless the books balance."""
        deadline = time.monotonic() + 60
        while (books := self.run("audit"))["unread_records"]:
            assert time.monotonic() < deadline, books
            time.sleep(0.3)
        names = ("indexed", "duplicate", "filtered", "dead_lettered")
        return {name: books[name] for name in names}

    def wait_for_positions(self) -> None:
        """Until workers have accounted for what is in the store by now."""
        found = len(self.found())
        deadline = time.monotonic() + 60
        while self.run("audit")["indexed"] < found:
            assert time.monotonic() < deadline
            time.sleep(0.3)

    def found(self, query: str = "*") -> list[str]:
        with closing(self.store()) as store:
            store.refresh()
        return sorted(
            ids_found(logweir("search", query, "--json", "--size", "0", env=self.env(), timeout_s=120)).elements()
        )

    def lose(self, which: slice) -> None:
        """Delete these events, counted from the newest, behind everybody's back."""
        with closing(self.store()) as store:
            lines = logweir("search", "*", "--json", "--size", "0", env=self.env()).splitlines()[which]
            places = [(one["_index"][-8:], one["_id"]) for one in map(json.loads, lines)]
            known = store.provenances(places)
            store.delete([(*place, own) for place, own in zip(places, known, strict=True) if own is not None])

    def replay_killed(self, rng: random.Random, *words: str, **extra: str) -> int:
        """The command, killed at a random moment, several times over; gives how often it was still at work."""
        killed = 0
        for _ in range(KILLS):
            with (self.folder / "replay.log").open("ab") as log:
                popen = subprocess.Popen(
                    [*LOGWEIR, "replay", *words, "--rate", "500"], stdout=log, stderr=log, env=self.env(**extra)
                )
            self.wait_until_begun(popen)
            time.sleep(1 + rng.random())
            killed += popen.poll() is None
            popen.send_signal(signal.SIGKILL)
            popen.wait(10)
        return killed

    def wait_until_begun(self, popen: subprocess.Popen[bytes]) -> None:
        """Until this very process has claimed its replay."""
        deadline = time.monotonic() + 60
        with closing(self.store()) as store:
            while popen.poll() is None and not any(
                f".{popen.pid}." in document.body["owner"] for document in store.ledger.scan("replay:")
            ):
                assert time.monotonic() < deadline
                time.sleep(0.05)


@pytest.fixture(params=["embedded", pytest.param("servers", marks=pytest.mark.proof)])
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    if request.param == "embedded":
        embedded = Embedded(tmp_path / "data")
        made = Product({"LOGWEIR_DATA_DIR": str(tmp_path / "data")}, tmp_path)
        made.processes.append(embedded.start())
        made.ports, made.key = [embedded.ingest_port], embedded.key
    else:
        kafka, elasticsearch = request.getfixturevalue("kafka"), request.getfixturevalue("elasticsearch")
        name = f"replay-{uuid4().hex[:8]}"
        variables = {
            "LOGWEIR_QUEUE_URL": f"kafka://{kafka.bootstrap}/{name}",
            "LOGWEIR_STORE_URL": elasticsearch.url,
            "LOGWEIR_QUEUE_PARTITIONS": "2",
            "LOGWEIR_WORKER_GROUP": name,
            "LOGWEIR_DATA_DIR": str(tmp_path),
            "LOGWEIR_STORE_INDEX_PREFIX": own_index_prefix(elasticsearch, request),
        }
        made = Product(variables, tmp_path)
        made.key = logweir("keys", "add", "flow", env=made.env()).strip()
        made.ports = [free_port()]
        words = [("ingest", "--port", str(made.ports[0])), ("worker",)]
        made.processes += [Process(one, tmp_path / f"{one[0]}.log", made.env()) for one in words]
        wait_for_http(made.ports[0])
    yield made
    for process in made.processes:
        process.kill_family()


@pytest.mark.sized
@pytest.mark.timeout(300)  # Six replays of a thousand events, each held back to 500 a second.
def test_replays_beside_workers_killed_and_begun_again_change_no_count(product: Product) -> None:
    """What was lost comes back, everything is redone by other rules and back again: each event is there once.

    All the while events come in, and every replay is killed several times on its way.
    """
    rng = random.Random(7)
    redone = {"LOGWEIR_WORKER_CATEGORIES_FILE": product.file("categories.toml", REDONE)}
    half = {"LOGWEIR_WORKER_FILTERS_FILE": product.file("filters.toml", EVERY_OTHER), **redone}
    with Load(product.ports, product.key, threads=1, pause_s=0.1) as load:
        while len(load.accepted) < 1000:
            time.sleep(0.1)
        product.wait_for_positions()
        product.lose(slice(-50, None))
        created = product.run("replay", "--since", "1h")
        killed = product.replay_killed(rng, "--since", "1h", "--reprocess", **redone)
        product.run("replay", "--since", "1h", "--reprocess", **redone)
    accepted = len(load.accepted)
    before = product.books()

    assert killed > 0
    assert (created["missing"], created["written"]) == (50, 50)
    assert before == {"indexed": accepted, "duplicate": 0, "filtered": 0, "dead_lettered": 0}

    assert_each_once(load.accepted, ids_found_in(product.found()))
    killed = product.replay_killed(rng, "--reprocess", **half)
    product.run("replay", "--reprocess", **half)
    kept = product.found()
    filtered = product.books()

    assert killed > 0
    assert product.found("category:redone") == kept
    assert 0.4 * accepted < len(kept) < 0.6 * accepted
    assert filtered == {"indexed": len(kept), "duplicate": 0, "filtered": accepted - len(kept), "dead_lettered": 0}

    product.run("replay", "--reprocess", **redone)
    assert_each_once(load.accepted, ids_found_in(product.found("category:redone")))
    assert product.books() == before
    assert product.run("replay", "--dry-run")["missing"] == 0


def ids_found_in(found: list[str]) -> Any:
    return ids_found("\n".join(json.dumps({"details": {"id": one}}) for one in found))


@pytest.mark.timeout(180)  # A product of its own, on Kafka.
def test_retention_that_took_a_part_is_said_and_the_rest_is_replayed(kafka: Any, tmp_path: Path) -> None:
    """On Kafka, records deleted below an offset: the command names them, replays what is left, and its status is 1."""
    import kafka as kafka_library

    name = f"replay-{uuid4().hex[:8]}"
    variables = {
        "LOGWEIR_QUEUE_URL": f"kafka://{kafka.bootstrap}/{name}",
        "LOGWEIR_QUEUE_PARTITIONS": "1",
        "LOGWEIR_DATA_DIR": str(tmp_path),
        "LOGWEIR_STORE_URL": f"sqlite:///{tmp_path}/store",
    }
    product = Product(variables, tmp_path)
    key, port = logweir("keys", "add", "flow", env=product.env()).strip(), free_port()
    words = [("ingest", "--port", str(port)), ("worker",)]
    product.processes = [Process(one, tmp_path / f"{one[0]}.log", product.env()) for one in words]
    try:
        wait_for_http(port)
        with Load([port], key, threads=1) as load:
            while len(load.accepted) < 600:
                time.sleep(0.05)
        accepted = product.books()["indexed"]
        with closing(open_queue(config.load(environment=product.env()).queue)) as queue:
            end = queue.offsets(0)[1]
        with kafka_library.KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
            admin.delete_records({kafka_library.TopicPartition(name, 0): 10})
        product.lose(slice(20))
        done = subprocess.run([*LOGWEIR, "replay", "--json"], capture_output=True, text=True, env=product.env())
    finally:
        for process in product.processes:
            process.kill_family()
    result = json.loads(done.stdout)

    assert end > 20
    assert accepted == len(load.accepted)
    assert done.returncode == 1, done.stderr
    assert "Partition 0: offsets 0 to 9 are gone" in done.stderr
    assert [(one["first"], one["last"]) for one in result["gone"]] == [(0, 9)]
    assert result["written"] == 20
    assert len(product.found()) == accepted
