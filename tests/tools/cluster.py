"""Doors and workers as processes on Kafka and Elasticsearch, and what can be done to them while they run."""

from __future__ import annotations

import random
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kafka as kafka_library

from tests.services.elasticsearch import Elasticsearch
from tests.services.kafka import Kafka
from tests.tools.alerting import Alerting
from tests.tools.product import Process, environment, free_port, logweir, wait_for_http
from tests.waiting import until

LATE_AFTER_S = 5
PARTITIONS = 4
# The least that a broker allows.
SESSION_TIMEOUT_S = 6
# A broker that is gone has been replaced by then as a leader, a coordinator and a controller.
_FAIL_OVER_S = 6.0
_WHOLE_S_MAX = 60.0
_OFFSETS_TOPIC = "__consumer_offsets"


class ClusterSystem:
    """Two doors and two workers, with a topic, a group, indices and a category of their own.

    ``victims``, by name: what may be done to a door, a worker or the group, after which all of it runs again.
    ``visits``: how often a third worker has come and gone.
    """

    def __init__(self, folder: Path, *, bootstrap: str, store_url: str, **settings: str) -> None:
        self.name = f"flow-{uuid.uuid4().hex[:8]}"
        self.category = self.name
        self.bootstrap = bootstrap
        self._folder = folder
        self.env = environment(
            LOGWEIR_QUEUE_URL=f"kafka://{bootstrap}/{self.name}",
            LOGWEIR_STORE_URL=store_url,
            LOGWEIR_STORE_INDEX_PREFIX=f"{self.name}-",
            LOGWEIR_QUEUE_PARTITIONS=str(PARTITIONS),
            LOGWEIR_QUEUE_SESSION_TIMEOUT_S=str(SESSION_TIMEOUT_S),
            LOGWEIR_WORKER_GROUP=self.name,
            LOGWEIR_DATA_DIR=str(folder),
            LOGWEIR_ACCOUNTING_LATE_AFTER_S=str(LATE_AFTER_S),
        )
        self.env |= {"LOGWEIR_INGEST_QUEUE_TIMEOUT_S": "0.2", **settings}
        self.key = logweir("keys", "add", "torture", env=self.env).strip()
        self.ports = [free_port(), free_port()]
        self._commands = {f"ingest-{n}": ["ingest", "--port", str(port)] for n, port in enumerate(self.ports)}
        self._commands |= {"worker-0": ["worker"], "worker-1": ["worker"]}
        self.processes: dict[str, Process] = {}
        self.visits = 0
        self.alerting: Alerting | None = None
        self.victims: dict[str, Callable[[], None]] = {name: self._killer(name) for name in self._commands}
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self, kind: str = "") -> None:
        """Start what is not running: everything, or the processes whose names begin so."""
        for name in self._commands:
            if name.startswith(kind) and (name not in self.processes or self.processes[name].popen.poll() is not None):
                self._start(name)
        self.wait_for_doors()

    def run_also(self, command: str) -> None:
        """One more process, which can be killed as the others."""
        self._commands[command] = [command]
        self.victims[command] = self._killer(command)
        self._start(command)

    def mend(self) -> bool:
        """Nothing that an operator would have to mend is done to it."""
        return False

    def wait_for_doors(self) -> None:
        for port in self.ports:
            wait_for_http(port)

    def stop_all(self, kind: str) -> None:
        """Gracefully: doors close their windows, workers hand their partitions over."""
        for name, process in self.processes.items():
            if name.startswith(kind):
                process.stop(within_s=30)

    def stop_doors(self) -> None:
        self.stop_all("ingest")
        self.start("ingest")

    def log(self) -> str:
        return "\n".join(f"--- {name}\n{process.text[-4000:]}" for name, process in self.processes.items())

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill_family()

    def _start(self, name: str) -> None:
        self.processes[name] = Process(self._commands[name], self._folder / f"{name}.log", self.env)

    def _killer(self, name: str) -> Callable[[], None]:
        def kill() -> None:
            self.processes[name].kill_family()
            time.sleep(random.uniform(0, 2))
            self._start(name)

        return kill

    def rebalance(self) -> None:
        """A third worker comes and goes: the partitions are shared out anew, twice. Now and then it dies instead."""
        visitor = Process(["worker"], self._folder / "visitor.log", self.env)
        self.processes["visitor"] = visitor
        time.sleep(random.uniform(2, 4))
        if random.random() < 0.25:
            visitor.kill_family()
        else:
            visitor.stop(within_s=30)
        self.visits += 1

    def zombie(self) -> None:
        """A worker stands still until others have its partitions, while the group is unquiet, and then goes on."""
        popen = self.processes[random.choice(("worker-0", "worker-1"))].popen
        popen.send_signal(signal.SIGSTOP)
        end_s = time.monotonic() + SESSION_TIMEOUT_S + 3
        while time.monotonic() < end_s:
            self.rebalance()
        popen.send_signal(signal.SIGCONT)


def server_victims(kafka: Kafka, store: Elasticsearch) -> dict[str, Callable[[], None]]:
    """kill -9 of the only broker, and of the store."""

    def kill(server: Kafka | Elasticsearch) -> None:
        server.kill()
        time.sleep(random.uniform(0, 3))
        server.start()

    return {"broker": lambda: kill(kafka), "store": lambda: kill(store)}


def broker_victims(kafka: Kafka, system: ClusterSystem) -> dict[str, Callable[[], None]]:
    """kill -9 of that one of three brokers which has a part to play just then; it is back when the others have it."""

    def killer(whose: Callable[[Any, ClusterSystem], int]) -> Callable[[], None]:
        def kill() -> None:
            admin = kafka_library.KafkaAdminClient(bootstrap_servers=kafka.bootstrap.split(","))
            try:
                broker = whose(admin, system)
            finally:
                admin.close()
            kafka.kill(broker)
            time.sleep(_FAIL_OVER_S)
            kafka.start(broker)
            wait_until_whole(kafka, system)

        return kill

    parts = {"coordinator": _coordinator, "leader": _leader, "controller": _controller}
    return {name: killer(whose) for name, whose in parts.items()}


def wait_until_whole(kafka: Kafka, system: ClusterSystem) -> None:
    """Until every broker has all that the others have."""
    admin = kafka_library.KafkaAdminClient(bootstrap_servers=kafka.bootstrap.split(","))

    def is_whole() -> bool:
        (topic,) = admin.describe_topics([system.name])
        return all(len(one["isr_nodes"]) == kafka.brokers for one in topic["partitions"])

    try:
        until(is_whole, wait_s=_WHOLE_S_MAX)
    finally:
        admin.close()


def _leader(admin: Any, system: ClusterSystem) -> int:
    """Of the most partitions of the topic."""
    (topic,) = admin.describe_topics([system.name])
    leaders = [int(one["leader_id"]) for one in topic["partitions"]]
    return max(leaders, key=leaders.count)


def _coordinator(admin: Any, system: ClusterSystem) -> int:
    """Of the workers' group: who leads the partition with its offsets, which is found by Java's hash of its name."""
    until(lambda: admin.describe_topics([_OFFSETS_TOPIC])[0]["partitions"], wait_s=30)
    (topic,) = admin.describe_topics([_OFFSETS_TOPIC])
    hashed = 0
    for letter in system.name:
        hashed = (31 * hashed + ord(letter)) & 0xFFFFFFFF
    wanted = (hashed & 0x7FFFFFFF) % len(topic["partitions"])
    return next(int(one["leader_id"]) for one in topic["partitions"] if one["partition_index"] == wanted)


def _controller(admin: Any, _: ClusterSystem) -> int:
    quorum = admin.describe_metadata_quorum()
    return int(quorum["topics"][0]["partitions"][0]["leader_id"])
