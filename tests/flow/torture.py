"""Kill whatever can be killed, at random moments under load, and see that nothing acknowledged is lost or doubled.

python -m tests.flow.torture --minutes 30                   everything embedded
python -m tests.flow.torture --minutes 30 --kafka           Kafka and Elasticsearch, two doors, two workers
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from tests.flow.emitters import Emitter
from tests.flow.product import LOGWEIR, Embedded, Process, environment, free_port, ids_found, logweir, wait_for_http
from tests.services.elasticsearch import Elasticsearch
from tests.services.fetch import ELASTICSEARCH_8, ELASTICSEARCH_9, missing_for_elasticsearch
from tests.services.kafka import Kafka
from tests.services.process import scratch_directory

LATE_AFTER_S = 5
EMITTERS = 6
SETTLED_S_MAX = 180
_FOREIGN = ("broker", "store")


class System(Protocol):
    """A running product whose parts can be killed."""

    ports: list[int]
    key: str
    env: dict[str, str]
    victims: dict[str, Callable[[], None]]
    """By name: kill -9 of the part, and starting it again unless something else does."""

    def stop_doors(self) -> None:
        """Gracefully, so that the last windows are closed."""

    def log(self) -> str: ...


class EmbeddedSystem:
    """`logweir up`, which starts what is killed again; now and then all of it is killed at once."""

    def __init__(self, folder: Path) -> None:
        self.env = environment(LOGWEIR_ACCOUNTING_LATE_AFTER_S=str(LATE_AFTER_S))
        self._product = Embedded(folder / "data", env=self.env)
        self._product.start()
        self.ports, self.key = [self._product.ingest_port], self._product.key
        self.env["LOGWEIR_DATA_DIR"] = str(self._product.data_dir)
        self.victims = {
            "ingest": lambda: self._kill("ingest"),
            "worker": lambda: self._kill("worker"),
            "everything": self._kill_everything,
        }

    def _kill(self, part: str) -> None:
        for process in self._product.process.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if part in process.cmdline():
                    process.send_signal(signal.SIGKILL)

    def _kill_everything(self) -> None:
        self._product.process.kill_family()
        self._product.start()

    def stop_doors(self) -> None:
        self._product.process.stop()
        self._product.start()

    def log(self) -> str:
        return self._product.process.text

    def stop(self) -> None:
        self._product.process.kill_family()


class ClusterSystem:
    """Two doors and two workers on a broker and a store of their own."""

    def __init__(self, folder: Path, services: Path) -> None:
        self._folder = folder
        self._kafka = Kafka(services / "kafka")
        version = ELASTICSEARCH_8 if missing_for_elasticsearch(ELASTICSEARCH_9) else ELASTICSEARCH_9
        self._store = Elasticsearch(services / "elasticsearch", version)
        self._kafka.start()
        self._store.start()
        self.env = environment(
            LOGWEIR_QUEUE_URL=f"kafka://{self._kafka.bootstrap}/torture",
            LOGWEIR_STORE_URL=self._store.url,
            LOGWEIR_QUEUE_PARTITIONS="4",
            LOGWEIR_QUEUE_SESSION_TIMEOUT_S="6",
            LOGWEIR_DATA_DIR=str(folder),
            LOGWEIR_INGEST_QUEUE_TIMEOUT_S="0.2",
            LOGWEIR_ACCOUNTING_LATE_AFTER_S=str(LATE_AFTER_S),
        )
        self.key = logweir("keys", "add", "torture", env=self.env).strip()
        self.ports = [free_port(), free_port()]
        self._commands = {f"ingest-{n}": ["ingest", "--port", str(port)] for n, port in enumerate(self.ports)}
        self._commands |= {"worker-0": ["worker"], "worker-1": ["worker"]}
        self._processes: dict[str, Process] = {}
        for name in self._commands:
            self._start(name)
        for port in self.ports:
            wait_for_http(port)
        self.victims = {name: self._killer(name) for name in self._commands}
        self.victims |= {"broker": self._kill_broker, "store": self._kill_store}

    def _start(self, name: str) -> None:
        self._processes[name] = Process(self._commands[name], self._folder / f"{name}.log", self.env)

    def _killer(self, name: str) -> Callable[[], None]:
        def kill() -> None:
            self._processes[name].kill_family()
            time.sleep(random.uniform(0, 2))
            self._start(name)

        return kill

    def _kill_broker(self) -> None:
        self._kafka.kill()
        time.sleep(random.uniform(0, 3))
        self._kafka.start()

    def _kill_store(self) -> None:
        self._store.kill()
        time.sleep(random.uniform(0, 3))
        self._store.start()

    def stop_doors(self) -> None:
        for name, process in self._processes.items():
            if name.startswith("ingest"):
                process.stop()
                self._start(name)
        for port in self.ports:
            wait_for_http(port)

    def log(self) -> str:
        return "\n".join(f"--- {name}\n{process.text[-4000:]}" for name, process in self._processes.items())

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill_family()
        self._store.remove()
        self._kafka.remove()


@dataclass
class Outcome:
    """What a run found. ``lost`` and ``twice``: acknowledged events that are not stored, or more than once."""

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    acknowledged: int = 0
    stored: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    withheld: dict[str, list[int]] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return json.dumps(
            {"kills": self.kills.total(), "by_part": dict(self.kills), "acknowledged": self.acknowledged,
             "stored": self.stored, "twice": len(self.twice), "lost": len(self.lost),
             "withheld": sum(map(len, self.withheld.values())),
             **{name: self.audit.get(name) for name in ("balanced", "imbalance", "in_flight", "missing")},
             "reported_lost": self.audit.get("lost")}
        )  # fmt: skip


@contextlib.contextmanager
def system(folder: Path, *, on_kafka: bool) -> Iterator[EmbeddedSystem | ClusterSystem]:
    with contextlib.ExitStack() as stack:
        made = ClusterSystem(folder, stack.enter_context(scratch_directory())) if on_kafka else EmbeddedSystem(folder)
        stack.callback(made.stop)
        yield made


def torture(system: System, *, until: Callable[[int], bool], pause_s: float = 1.0) -> Outcome:
    """Load, and kills until ``until(number of kills)``; then peace, and the books."""
    outcome = Outcome()
    emitters = [
        Emitter(system.ports, system.key, f"e{n}", is_numbered=n < EMITTERS - 2, withholds=True, pause_s=0.01)
        for n in range(EMITTERS)
    ]  # fmt: skip
    for emitter in emitters:
        emitter.start()
    while not until(outcome.kills.total()):
        time.sleep(random.uniform(0.2, 2 * pause_s))
        # Servers of others take seconds to be back: they go down less often than what is ours.
        name = random.choice(sorted(system.victims) + [name for name in system.victims if name not in _FOREIGN] * 2)
        system.victims[name]()
        outcome.kills[name] += 1
    time.sleep(2)
    for emitter in emitters:
        emitter.stop()
    for port in system.ports:
        wait_for_http(port)
    for emitter in emitters[:-2]:
        emitter.say_goodbye()
        outcome.withheld[emitter.name] = emitter.withheld
    system.stop_doors()
    accepted = [text for emitter in emitters for text in emitter.accepted]
    outcome.acknowledged = len(accepted)
    found = _settled(system, accepted)
    outcome.stored = sum(found.values())
    outcome.lost = sorted(set(accepted) - found.keys())
    outcome.twice = sorted(text for text, count in found.items() if count > 1)
    outcome.audit = _audited(system, sum(map(len, outcome.withheld.values())))
    return outcome


def _settled(system: System, accepted: list[str]) -> collections.Counter[str]:
    """What is stored, as soon as every acknowledged event is there, or when the time is out."""
    deadline = time.monotonic() + SETTLED_S_MAX
    while True:
        count = int(logweir("search", "category:flow", "--count", env=system.env))
        if count >= len(accepted) or time.monotonic() > deadline:
            time.sleep(2)
            return ids_found(
                logweir("search", "category:flow", "--json", "--size", "0", env=system.env, timeout_s=300)
            )  # fmt: skip
        time.sleep(0.5)


def _audited(system: System, withheld: int) -> dict[str, Any]:
    """What `logweir audit` says, as soon as nothing is in flight or missing, or when the time is out."""
    deadline = time.monotonic() + SETTLED_S_MAX
    while True:
        said: dict[str, Any] = json.loads(audit(system))
        settled = said["in_flight"] == 0 and said["missing"] == 0 and said["lost"] == withheld
        if settled or time.monotonic() > deadline:
            return said
        time.sleep(1)


def audit(system: System) -> str:
    done = subprocess.run(
        [*LOGWEIR, "audit", "--json"], capture_output=True, text=True, env=system.env, timeout=60, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def lost_numbers(audit: dict[str, Any], name: str) -> list[int]:
    """The numbers that the audit reports as lost of the emitter of that name."""
    (row,) = [row for row in audit["emitters"] if row["emitter"] == name]
    return [number for _, first, last in row["lost_ranges"] for number in range(first, last + 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--kafka", action="store_true", help="on Kafka and Elasticsearch instead of everything embedded"
    )
    arguments = parser.parse_args()
    end_s = time.monotonic() + 60 * arguments.minutes

    def until(kills: int) -> bool:
        print(f"\r{kills} kills, {max(0, end_s - time.monotonic()):.0f} s to go ", end="", file=sys.stderr, flush=True)
        return time.monotonic() > end_s

    with tempfile.TemporaryDirectory() as folder, system(Path(folder), on_kafka=arguments.kafka) as under_torture:
        outcome = torture(under_torture, until=until, pause_s=3)
    print(file=sys.stderr)
    print(outcome)
    is_good = not outcome.lost and not outcome.twice and outcome.audit.get("balanced")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
