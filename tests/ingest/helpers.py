"""A real door as a process of its own, and what the queue behind it holds."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from logweir import receipt, record
from logweir.config import QueueSettings
from logweir.http.authority import Authority
from logweir.keys.file import KeysFile
from logweir.queue.sqlite.topic import SqliteQueue
from logweir.record import Kind, Record
from tests.services.process import free_port
from tests.waiting import until

ROOT = Path(__file__).parent.parent.parent
SOURCES = os.pathsep.join(str(ROOT / folder) for folder in (".", "ingest", "workers", "console"))

# What both interfaces answer alike, tests/contract/test_door.py compares in every `make test`; the rest of it is slow.
INTERFACES = ("asgi", pytest.param("wsgi", marks=pytest.mark.proof))
# A disk that stalls on a busy machine must not be a 503 where a test is about something else.
PATIENT = {"LOGWEIR_INGEST_QUEUE_TIMEOUT_S": "5"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Door:
    """``logweir ingest`` on a port that is its own, over its own data folder, with a key named ``default``."""

    data_dir: Path
    interface: str = "asgi"
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None
    key: str = ""
    program: str = "logweir.cli"

    def start(self, *flags: str, wait: bool = True, **options: Any) -> Door:
        """``options`` are those of Popen."""
        keys = KeysFile(self.data_dir / "keys.toml")
        if not self.key:
            self.key = keys.add("default")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                self.program,
                "ingest",
                "--data-dir",
                str(self.data_dir),
                "--port",
                str(self.port),
                "--interface",
                self.interface,
                "--die-with-parent",
                *flags,
            ],
            env={**os.environ, "PYTHONPATH": SOURCES, **PATIENT, **self.environment},
            stderr=(self.data_dir / "log").open("w"),
            cwd=self.data_dir,
            text=True,
            **options,
        )
        if wait:
            self.port = int(self.wait_for(r"Listening on https?://\S+:(\d+)\n").group(1))
        return self

    @property
    def log(self) -> str:
        return (self.data_dir / "log").read_text()

    def wait_for(self, pattern: str, wait_s: float = 20) -> re.Match[str]:
        """Until the log has a line like that."""
        assert self.process is not None
        end_s = time.monotonic() + wait_s
        while time.monotonic() < end_s:
            if found := re.search(pattern, self.log):
                return found
            assert self.process.poll() is None, f"the door ended with {self.process.returncode}: {self.log}"
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} within {wait_s} s in: {self.log}")

    def workers(self) -> list[int]:
        """The process numbers of the worker processes."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def worker(self) -> int:
        """The process number of the only worker process."""
        (worker,) = self.workers()
        return worker

    def kill(self) -> None:
        """Master and workers at once, as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)

    def stop(self, sent: signal.Signals = signal.SIGTERM, wait_s: float = 15) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sent)
        return self.process.wait(wait_s)

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        used = connection or self.connection()
        used.request(method, path, body, headers or {})
        response = used.getresponse()
        answer = Answer(
            response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        )
        if connection is None:
            used.close()
        return answer

    def post(self, body: Any, headers: dict[str, str] | None = None, path: str = "/events", **named: Any) -> Answer:
        """With the key."""
        return self.request("POST", path, body, {"X-Log-Key": self.key, **(headers or {})}, **named)

    def metric(self, name: str) -> float:
        """The value of one line of /metrics, by its name and labels."""
        lines = self.request("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))

    def records(self) -> list[tuple[int, Record]]:
        return records_of(self.data_dir / "queue.sqlite")


@dataclass
class SecureDoor(Door):
    """The same with TLS, by an authority in its data folder."""

    def __post_init__(self) -> None:
        self.authority = Authority(self.data_dir / "tls")
        self.authority.prepare()
        self.environment = {"LOGWEIR_INGEST_TLS_CERT_FILE": str(self.authority.pair.certificate), **self.environment}

    def connection(self) -> http.client.HTTPConnection:
        trusted = ssl.create_default_context(cafile=self.authority.certificate)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=trusted)


def connected_to_each(door: Door, processes: int = 1) -> list[http.client.HTTPConnection]:
    """A kept connection to each of the door's processes, as soon as all of them take events; each has taken one.

    Which process answers a new connection is the system's choice: many good answers may all come from one of them.
    """
    found: dict[bytes, http.client.HTTPConnection] = {}

    def have_all_answered() -> bool:
        connection = door.connection()
        answer = door.post(b"{}", connection=connection)
        epoch = answer.status == 202 and epoch_of(door, answer)
        if epoch and epoch not in found:
            found[epoch] = connection
        else:
            connection.close()
        return len(found) == processes

    until(have_all_answered)
    return list(found.values())


def epoch_of(door: Door, answer: Answer) -> bytes:
    """The ingest epoch of the process that gave a 202."""
    return receipt.decode(answer.json["receipt"], receipt.secret_of(door.data_dir)).ingest_epoch


def is_ready(door: Door) -> bool:
    """Whether it answers, and can take events."""
    try:
        return door.request("GET", "/readyz").status == 200
    except OSError:
        return False


def answer_on(connection: socket.socket) -> Answer:
    """The next answer there, and no more."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


@contextlib.contextmanager
def running(door: Door, *flags: str) -> Iterator[Door]:
    try:
        yield door.start(*flags)
    finally:
        door.kill()


def records_of(path: Path) -> list[tuple[int, Record]]:
    """(partition, record) of everything in an embedded queue, partition by partition, in order."""
    queue = SqliteQueue(QueueSettings(url=f"sqlite:///{path}"))
    consumer = queue.consumer(group="test", assigned=lambda partitions: dict.fromkeys(partitions, 0), revoked=_ignore)
    found: list[tuple[int, int, Record]] = []
    ends = {partition: queue.offsets(partition)[1] for partition in range(queue.partition_count())}
    try:
        while len(found) < sum(ends.values()):
            deliveries = consumer.poll(wait_s=5, records_max=1000)
            assert deliveries, f"{len(found)} of {sum(ends.values())} records came"
            found += [(one.partition, one.offset, record.decode(one.payload)) for one in deliveries]
    finally:
        consumer.close()
        queue.close()
    found.sort(key=lambda one: one[:2])
    return [(partition, one) for partition, _, one in found]


def _ignore(*_: object) -> None:
    pass


def events_of(records: list[tuple[int, Record]]) -> list[bytes]:
    return [event for _, one in records for batch in one.batches for event in batch.events]


def of_kind(records: list[tuple[int, Record]], kind: Kind) -> list[tuple[int, Record]]:
    return [(partition, one) for partition, one in records if one.kind is kind]
