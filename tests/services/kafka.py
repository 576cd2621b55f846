"""A real Kafka of one or three brokers (KRaft, no ZooKeeper), each one process with 512 MB of heap."""

import base64
import socket
import struct
import subprocess
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.services.errors import ServiceError
from tests.services.fetch import fetch_kafka, java_for_kafka
from tests.services.instance import Instance
from tests.services.java import extra_options
from tests.services.process import STOP_WAIT_S_MAX, ServerProcess, choose_ports, require_free

START_WAIT_S_MAX = 90.0
JAVA_OPTIONS = ("-Xms128m", "-Xmx512m", "-Xss512k", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true")

LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
# One line per partition and request: they would fill the disk and hide the others.
logger.state.name = state.change.logger
logger.state.level = WARN
logger.clients.name = org.apache.kafka.clients.NetworkClient
logger.clients.level = ERROR
"""


class Kafka(Instance):
    """Kafka in a folder.

    brokers      1, or 3 for fail-over: then topics get three replicas; two must have a record (min.insync.replicas).
    sasl         (user, password): a second listener, `bootstrap_sasl`, that wants SASL PLAIN over plain TCP.
    properties   more lines of server.properties, for all brokers: {"message.max.bytes": 2_000_000}.
    port_wanted  the first broker's port: this one, or the next that is free; otherwise any.

    start(), stop(), kill() and running() take the number of one broker, from 1; without it they mean all.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        brokers: int = 1,
        sasl: tuple[str, str] | None = None,
        properties: Mapping[str, Any] | None = None,
        port_wanted: int | None = None,
        dies_with_parent: bool = True,
    ) -> None:
        super().__init__(directory, dies_with_parent=dies_with_parent)
        self.brokers = brokers
        self._sasl = sasl
        self._properties = dict(properties or {})
        chosen = self._remembered(lambda: _choose(brokers, port_wanted))
        self._cluster_id: str = chosen["cluster_id"]
        # Per broker: the plain listener, the controller's, the one with SASL.
        self._ports: list[list[int]] = chosen["ports"]
        self.processes = [ServerProcess(f"kafka-{n}", self.directory) for n in range(1, brokers + 1)]

    @property
    def bootstrap(self) -> str:
        """The brokers' addresses as clients want them: "127.0.0.1:21093", joined by commas."""
        return ",".join(f"127.0.0.1:{plain}" for plain, _, _ in self._ports)

    @property
    def bootstrap_sasl(self) -> str:
        return ",".join(f"127.0.0.1:{with_sasl}" for _, _, with_sasl in self._ports)

    def start(self, broker: int | None = None, *, wait: bool = True) -> None:
        """Start what is not running; return when it would create a topic with a replica on every running broker.

        With `wait=False` return at once, for a broker that has no majority to join. Raises MissingTool, ServiceError.
        """
        starting = [n for n in self._numbers(broker) if not self.processes[n - 1].running()]
        for n in starting:
            self._launch(n)
        for n in starting if wait else ():
            self.processes[n - 1].wait_until(partial(self._ready, n), wait_s_max=START_WAIT_S_MAX)

    def stop(self, broker: int | None = None) -> None:
        """Controlled shutdown, one after another; a broker that has no majority to ask is killed after 3 s."""
        for n in self._numbers(broker):
            running = sum(process.running() for process in self.processes)
            has_majority = running > self.brokers // 2
            self.processes[n - 1].stop(wait_s_max=STOP_WAIT_S_MAX if has_majority else 3.0)

    def kill(self, broker: int | None = None) -> None:
        for n in self._numbers(broker):
            self.processes[n - 1].kill()

    def running(self, broker: int | None = None) -> bool:
        return all(self.processes[n - 1].running() for n in self._numbers(broker))

    def _numbers(self, broker: int | None) -> list[int]:
        return [broker] if broker is not None else list(range(1, self.brokers + 1))

    def _launch(self, n: int) -> None:
        require_free(self._ports[n - 1], name=f"kafka-{n}")
        java, jars = java_for_kafka().command, f"{fetch_kafka()}/*"
        config = self.directory / f"kafka-{n}.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in self._server_properties(n).items()))
        (self.directory / "log4j2.properties").write_text(LOG4J)
        log4j = f"-Dlog4j2.configurationFile={self.directory}/log4j2.properties"
        if not (self._data(n) / "meta.properties").is_file():
            format_ = [java, "-Xmx128m", log4j, "-cp", jars, "kafka.tools.StorageTool", "format"]
            _run_once([*format_, "-t", self._cluster_id, "-c", str(config)])
        self.processes[n - 1].launch(
            [java, *JAVA_OPTIONS, *extra_options(), log4j, "-cp", jars, "kafka.Kafka", str(config)],
            dies_with_parent=self.dies_with_parent,
        )

    def _data(self, n: int) -> Path:
        return self.directory / f"kafka-{n}"

    def _ready(self, n: int) -> bool:
        replicas = sum(process.running() for process in self.processes)
        return would_create_topic(self._ports[n - 1][0], replicas=replicas)

    def _server_properties(self, n: int) -> dict[str, Any]:
        plain, controller, with_sasl = self._ports[n - 1]
        voters = ",".join(f"{i}@127.0.0.1:{ports[1]}" for i, ports in enumerate(self._ports, start=1))
        listeners = [f"PLAINTEXT://127.0.0.1:{plain}"]
        if self._sasl:
            listeners.append(f"SASL_PLAINTEXT://127.0.0.1:{with_sasl}")
        return {
            "process.roles": "broker,controller",
            "node.id": n,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{controller}"]),
            "advertised.listeners": ",".join(listeners),
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self._data(n),
            "default.replication.factor": self.brokers,
            "min.insync.replicas": 2 if self.brokers >= 3 else 1,
            "auto.create.topics.enable": "false",
            **_internal_topics(self.brokers),
            **_small_and_quick(),
            **(_sasl_properties(*self._sasl) if self._sasl else {}),
            **self._properties,
        }


def would_create_topic(port: int, *, replicas: int) -> bool:
    """Ask a broker whether it would create a topic with that many replicas; False also when nobody answers.

    A port that listens is not enough: a broker listens before the controller has let it in. The request is
    CreateTopics, version 2, with validate_only (https://kafka.apache.org/protocol).
    """
    topic = struct.pack(">i", 1) + _string("logweir-probe") + struct.pack(">ihii", 1, replicas, 0, 0)
    request = struct.pack(">hhi", 19, 2, 1) + _string("logweir-probe") + topic + struct.pack(">i?", 1000, True)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answers:
                (size,) = struct.unpack(">i", answers.read(4))
                answer = answers.read(size)
        # Correlation id, throttle time, one topic: its name, its error code (0: none).
        (name_size,) = struct.unpack_from(">h", answer, 12)
        (error_code,) = struct.unpack_from(">h", answer, 14 + name_size)
    except (OSError, struct.error):
        return False
    return bool(error_code == 0)


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _choose(brokers: int, port_wanted: int | None) -> dict[str, Any]:
    ports = choose_ports(3 * brokers, first_wanted=port_wanted)
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
    return {"cluster_id": cluster_id, "ports": [ports[i : i + 3] for i in range(0, len(ports), 3)]}


def _internal_topics(brokers: int) -> dict[str, Any]:
    in_sync = 2 if brokers >= 3 else 1
    return {
        "offsets.topic.replication.factor": brokers,
        "offsets.topic.num.partitions": 4,  # 50 by default: seconds for the first consumer group
        "transaction.state.log.replication.factor": brokers,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": brokers,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def _small_and_quick() -> dict[str, Any]:
    return {
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,  # of the 512 MB heap it would take 128
        "num.network.threads": 2,
        "num.io.threads": 4,
        # What a topic's retention has passed is gone within a second or two; 5 minutes by default.
        "log.retention.check.interval.ms": 1000,
        "log.initial.task.delay.ms": 1000,
        # A killed broker is let in again, and given up by others, after this long; 9 s by default.
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 500,
    }


def _sasl_properties(user: str, password: str) -> dict[str, Any]:
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    return {
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{module} required user_{user}="{password}";',
    }


def _run_once(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise ServiceError(f"Kafka's folder could not be formatted: {done.stdout[-2000:]}{done.stderr[-2000:]}")
