"""The doors that a load is put on, each as processes of its own: logweir's, and the peers beside it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from logweir import record
from logweir.config import QueueSettings
from logweir.keys.file import KeysFile
from logweir.queue import open_queue
from logweir.record import Kind
from tests.tools.product import ROOT, free_port

_START_S_MAX = 30.0
_THREADS = 32


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM, of one certificate for 127.0.0.1 that signed itself."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        made = cls(folder / "tls.crt", folder / "tls.key")
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-out",
            str(made.certificate),
            "-keyout",
            str(made.key),
        ]
        subprocess.run(command, check=True, capture_output=True)
        return made


class Door:
    """Processes that answer ``POST /events``. ``topic`` is where the events go; None when they go nowhere."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str],
        port: int,
        certificate: Certificate | None,
        topic: Topic | None,
    ) -> None:
        self.name = name
        self.topic = topic
        self._port = port
        self._log = folder / f"{name}.log"
        self._origin = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
        self._tls = ssl.create_default_context(cafile=certificate.certificate) if certificate else None
        # From anywhere, the benchmarked code is that of this checkout, and no LOGWEIR_… of the caller changes it.
        clean = {key: value for key, value in os.environ.items() if not key.startswith("LOGWEIR_")}
        sources = os.pathsep.join(str(ROOT / part) for part in (".", "ingest", "workers", "console"))
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                command, stdout=log, stderr=log, env={**clean, "PYTHONPATH": sources, **environment}
            )

    @property
    def url(self) -> str:
        return f"{self._origin}/events"

    def wait(self) -> None:
        """Until it takes events. Ends the program with the door's log when it does not."""
        deadline = time.monotonic() + _START_S_MAX
        while time.monotonic() < deadline and self._popen.poll() is None:
            with contextlib.suppress(OSError):
                if self.name == "logweir":
                    self.get("/readyz")
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            time.sleep(0.1)
        raise SystemExit(f"The door {self.name} did not start: {self._log.read_text(errors='replace')[-3000:]}")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self._origin + path, timeout=10, context=self._tls) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """The sum of a metric of logweir's, over all its labels."""
        lines = (line for line in self.get("/metrics").splitlines() if line.startswith((name + " ", name + "{")))
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def refusals(self) -> Counter[str]:
        """How many requests logweir has refused, by reason."""
        pattern = r'^logweir_ingest_rejected_requests_total\{reason="(\w+)"\} (\S+)$'
        found = re.findall(pattern, self.get("/metrics"), re.M)
        return Counter({reason: round(float(count)) for reason, count in found})

    def cpu_s(self) -> float:
        """Used so far by all its processes, and by those of them that have ended."""
        return sum(sum(one.cpu_times()[:4]) for one in self._family())

    def forget_rss_peak(self) -> None:
        for one in self._family():
            Path(f"/proc/{one.pid}/clear_refs").write_text("5")

    def rss_peak_mib(self) -> float:
        """Of all processes together, each at its highest; what they share counts for each."""
        status = [Path(f"/proc/{one.pid}/status").read_text() for one in self._family()]
        return sum(int(text.partition("VmHWM:")[2].split()[0]) for text in status) / 1024

    def stop(self) -> None:
        family = self._family() if self._popen.poll() is None else []
        self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(15)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._popen.wait(5)

    def _family(self) -> list[psutil.Process]:
        root = psutil.Process(self._popen.pid)
        return [root, *root.children(recursive=True)]


class Topic:
    """What a door has delivered, counted where it was delivered to."""

    def __init__(self, url: str, *, has_records_of_ours: bool = True) -> None:
        self._queue = open_queue(QueueSettings(url=url))
        self._queue.prepare()
        self._count = self._count_record if has_records_of_ours else self._count_body
        self._seen: set[tuple[bytes, int, int]] = set()

    def ends(self) -> dict[int, int]:
        """Per partition the offset that the next record gets."""
        return {partition: self._queue.offsets(partition)[1] for partition in range(self._queue.partition_count())}

    def events(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> int:
        """How many events are in the records from ``starts`` to before ``ends``; a record that comes again, once."""
        left = sum(ends[partition] - start for partition, start in starts.items())
        consumer = self._queue.consumer(
            group=f"bench-{time.time_ns()}", assigned=lambda _: dict(starts), revoked=lambda *_: None
        )
        count, deadline = 0, time.monotonic() + 60
        try:
            while left:
                for one in consumer.poll(wait_s=1, records_max=500):
                    if one.offset < ends[one.partition]:
                        count += self._count(one.partition, one.payload)
                        left -= 1
                if time.monotonic() > deadline:
                    raise SystemExit(f"{left} records cannot be read back from the queue.")
        finally:
            consumer.close()
        return count

    def close(self) -> None:
        self._queue.close()

    def _count_record(self, partition: int, payload: bytes) -> int:
        found = record.decode(payload)
        place = (found.ingest_epoch, partition, found.first)
        if found.kind is not Kind.DATA or place in self._seen:
            return 0
        self._seen.add(place)
        return found.count

    @staticmethod
    def _count_body(_: int, payload: bytes) -> int:
        # Each of the load's events has this once.
        return payload.count(b'"processname":')


@contextlib.contextmanager
def running(
    names: Sequence[str], folder: Path, *, queue_url: str, certificate: Certificate | None
) -> Iterator[tuple[list[Door], str]]:
    """The doors of these names, ready, and the key that logweir's wants; over TLS when there is a certificate."""
    folder.mkdir()
    key = KeysFile(folder / "data" / "keys.toml").add("bench")
    doors: list[Door] = []
    try:
        for name in names:
            doors.append(_STARTS[name](folder, queue_url, certificate))
        for door in doors:
            door.wait()
        yield doors, key
    finally:
        for door in doors:
            door.stop()
            if door.topic is not None:
                door.topic.close()


def _logweir(folder: Path, queue_url: str, certificate: Certificate | None) -> Door:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "logweir.cli",
        "ingest",
        "--data-dir",
        str(folder / "data"),
        "--port",
        str(port),
        "--die-with-parent",
    ]
    if certificate:
        command += ["--tls-cert", str(certificate.certificate), "--tls-key", str(certificate.key)]
    if queue_url == "sqlite":
        queue_url = f"sqlite:///{(folder / 'data' / 'queue.sqlite').absolute()}"
    return Door(
        "logweir",
        command,
        folder,
        environment={"LOGWEIR_QUEUE_URL": queue_url},
        port=port,
        certificate=certificate,
        topic=Topic(queue_url),
    )


def _floor(folder: Path, _: str, certificate: Certificate | None) -> Door:
    port = free_port()
    command = [*_gunicorn(port, certificate), "-k", "bench.peers.floor.Worker", "bench.peers.floor:app"]
    return Door("floor", command, folder, environment={}, port=port, certificate=certificate, topic=None)


def _naive(folder: Path, queue_url: str, certificate: Certificate | None) -> Door:
    port, topic_url = free_port(), f"{queue_url}-naive"
    servers, _, topic = topic_url.removeprefix("kafka://").partition("/")
    command = [
        *_gunicorn(port, certificate),
        "-k",
        "gthread",
        "--threads",
        str(_THREADS),
        "--keep-alive",
        "75",
        "bench.peers.naive:app",
    ]
    return Door(
        "naive",
        command,
        folder,
        environment={"BENCH_KAFKA": servers, "BENCH_TOPIC": topic},
        port=port,
        certificate=certificate,
        topic=Topic(topic_url, has_records_of_ours=False),
    )


_STARTS = {"logweir": _logweir, "floor": _floor, "naive": _naive}
NAMES = tuple(_STARTS)


def _gunicorn(port: int, certificate: Certificate | None) -> list[str]:
    command = [sys.executable, "-m", "gunicorn", "-w", "1", "-b", f"127.0.0.1:{port}", "--log-level", "error"]
    if certificate:
        command += ["--certfile", str(certificate.certificate), "--keyfile", str(certificate.key)]
    return command
