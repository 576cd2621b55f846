"""What no process can help: disks that lose, tear or set back what they had, or are full, and clocks that jump.

``embedded`` and ``cluster`` give what can be done to either system, by name, as ``victims`` of tests.tools.torture.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import elasticsearch

from logweir.process.damage import SUFFIX, damage_of
from tests.services.elasticsearch import Elasticsearch
from tests.services.errors import MissingTool
from tests.services.kafka import Kafka
from tests.tools.product import logweir

NAMES = frozenset({"store-lost", "ledger-lost", "queue-set-back", "queue-torn", "store-torn", "clock", "disk-full"})
OF_THE_LEDGER = ("store-lost", "ledger-lost", "store-torn")
"""After these the ledger begins anew, or is older than the store's events."""
DISK_MIB = 3072
_JUMPS_S = (-2 * 86_400, -3_600, -90, 90, 3_600, 2 * 86_400)
"""By how much a clock is wrong for a while: more and less than a window, than an hour's retention, than a day."""
_WRONG_S = (3.0, 8.0)
_FULL_S = (3.0, 6.0)
_BETWEEN_S = (3.0, 8.0)


class Files:
    """The embedded product's data folder, while no process has it open."""

    def __init__(self, data: Path, rng: random.Random) -> None:
        self._data = data
        self._kept = data.with_name(f"{data.name}-kept")
        self._rng = rng

    def lose_store(self) -> None:
        shutil.rmtree(self._data / "store")

    def lose_ledger(self) -> None:
        self._remove("store/main.sqlite*")

    def lose_days(self) -> None:
        self._remove("store/events-*")

    def keep_queue(self) -> None:
        """Copy it aside, for ``set_queue_back``."""
        shutil.rmtree(self._kept, ignore_errors=True)
        self._kept.mkdir()
        for path in self._data.glob("queue.sqlite*"):
            shutil.copy(path, self._kept)

    def set_queue_back(self) -> None:
        self._remove("queue.sqlite*")
        for path in self._kept.iterdir():
            shutil.copy(path, self._data)

    def tear_queue(self) -> None:
        tear(self._data / "queue.sqlite-wal", self._rng)

    def tear_store(self) -> None:
        for path in (self._data / "store").glob("*-wal"):
            tear(path, self._rng)

    def _remove(self, pattern: str) -> None:
        for path in self._data.glob(pattern):
            path.unlink()


def damaged(data: Path) -> list[Path]:
    """The files of the data folder that the product has found damaged."""
    marks = (*data.glob(f"*{SUFFIX}"), *data.glob(f"store/*{SUFFIX}"))
    return [path for path in (mark.with_suffix("") for mark in marks) if damage_of(path)]


def set_aside(data: Path, env: dict[str, str]) -> None:
    """What docs/how-to/damaged-files.md says of damaged files, while nothing runs."""
    for path in damaged(data):
        if path.parent == data:
            logweir("queue", "salvage", env=env, statuses=(0, 1))
            continue
        for part in path.parent.glob(f"{path.name}*"):
            part.rename(data / f"{part.name}.{time.time_ns()}")


def tear(path: Path, rng: random.Random, *, at_most: int | None = None) -> None:
    """Cut a file off at a random place, ``at_most`` so many bytes, as a disk that had not written all of it."""
    if path.exists():
        size = path.stat().st_size
        least = 0 if at_most is None else max(0, size - at_most)
        os.truncate(path, rng.randint(least, size))


# Python runs it at the start of every process. What measures lengths of time stays right, as where a clock is set.
_PRELUDE = """
import time

_right, _right_ns, _monotonic = time.time, time.time_ns, time.monotonic
_known = [0, -1.0]


def _wrong_s():
    if _monotonic() > _known[1]:
        try:
            with open({path!r}) as file:
                _known[0] = int(file.read())
        except OSError:
            pass
        _known[1] = _monotonic() + 0.2
    return _known[0]


time.time = lambda: _right() + _wrong_s()
time.time_ns = lambda: _right_ns() + _wrong_s() * 1_000_000_000
"""


class FakedClock:
    """A clock for processes of the product that can be set while they run: ``environment`` is theirs."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        prelude = folder / "prelude"
        prelude.mkdir()
        (prelude / "sitecustomize.py").write_text(_PRELUDE.format(path=str(self._file)))
        paths = [str(prelude), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {"PYTHONPATH": os.pathsep.join(paths)}

    def set(self, wrong_s: int) -> None:
        """Have it be wrong by so much, for all who look in a fifth of a second."""
        partial = self._file.with_suffix(".new")
        partial.write_text(str(wrong_s))
        partial.rename(self._file)

    def jump(self) -> None:
        """Be wrong for some seconds, and right again."""
        self.set(random.choice(_JUMPS_S))
        time.sleep(random.uniform(*_WRONG_S))
        self.set(0)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """An empty disk of DISK_MIB, mounted in ``folder``. Raises MissingTool for who may not mount."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise MissingTool(f"a disk that can be filled is needed: run it as root ({mounted.stderr.strip()})")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill_for_a_while(disk: Path) -> None:
    """Leave no byte on it for some seconds."""
    filling = disk / "filling"
    try:
        with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 20)):
                pass
        time.sleep(random.uniform(*_FULL_S))
    finally:
        filling.unlink()


# --- done to a system ---------------------------------------------------------------------------------------------
class Restartable(Protocol):
    """A system all of whose processes can be killed at once, and started again."""

    def kill_everything(self) -> None: ...

    def start(self) -> None: ...


def embedded(system: Restartable, data: Path, clock: FakedClock) -> dict[str, Callable[[], None]]:
    """What can happen to `logweir up`, whose data folder lies on a small disk."""
    files = Files(data, random.Random())

    def struck(*happenings: Callable[[], None]) -> Callable[[], None]:
        """Everything is killed before each, and runs for a while between two."""

        def strike() -> None:
            for number, happens in enumerate(happenings):
                if number:
                    time.sleep(random.uniform(*_BETWEEN_S))
                system.kill_everything()
                happens()
                system.start()

        return strike

    return {
        "store-lost": struck(files.lose_store),
        "ledger-lost": struck(files.lose_ledger),
        "queue-set-back": struck(files.keep_queue, files.set_queue_back),
        "queue-torn": struck(files.tear_queue),
        "store-torn": struck(files.tear_store),
        "clock": clock.jump,
        "disk-full": lambda: fill_for_a_while(data.parent),
    }


def cluster(
    kafka: Kafka, store: Elasticsearch, *, topic: str, prefix: str, disk: Path, clock: FakedClock
) -> dict[str, Callable[[], None]]:
    """What can happen to doors and workers on Kafka and Elasticsearch, which go on running meanwhile.

    A torn Elasticsearch is not among it: it refuses to start, until somebody has decided what to give up.
    """
    log = kafka.directory / "kafka-1"
    kept = kafka.directory / "kept"
    rng = random.Random()

    def lose(pattern: str) -> Callable[[], None]:
        def lost() -> None:
            with elasticsearch.Elasticsearch(store.url, request_timeout=60) as client:
                for name in client.indices.get(index=f"{prefix}{pattern}"):
                    client.indices.delete(index=name)

        return lost

    def stopped(happens: Callable[[], object]) -> None:
        kafka.kill()
        happens()
        kafka.start()

    def set_back() -> None:
        shutil.rmtree(kept, ignore_errors=True)
        stopped(lambda: shutil.copytree(log, kept))
        time.sleep(random.uniform(*_BETWEEN_S))
        stopped(lambda: (shutil.rmtree(log), shutil.copytree(kept, log)))

    def tear_topic() -> None:
        for folder in log.glob(f"{topic}-*"):
            segments = sorted(folder.glob("*.log"))
            for path in segments[-1:]:
                tear(path, rng, at_most=65_536)

    return {
        "store-lost": lose("*"),
        "ledger-lost": lose("logweir-ledger*"),
        "queue-set-back": set_back,
        "queue-torn": lambda: stopped(tear_topic),
        "clock": clock.jump,
        "disk-full": lambda: fill_for_a_while(disk),
    }
