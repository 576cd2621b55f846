"""The product as processes, and the load that tests put on it: what was answered 2xx, and what is found in the end."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import psutil

from tests.services.process import free_port

LOGWEIR = (sys.executable, "-m", "logweir.cli")
ROOT = Path(__file__).resolve().parents[2]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever runs us in the background has us ignore Ctrl-C, and a process of ours that still starts would do so, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def environment(**extra: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGWEIR_")}
    # Tests that post once and expect 202 are not to fail for a slow disk of the machine that runs them.
    return {**clean, "LOGWEIR_INGEST_QUEUE_TIMEOUT_S": "5", **extra}


def logweir(
    *words: str,
    timeout_s: float = 60,
    env: dict[str, str] | None = None,
    statuses: Collection[int] = (0,),
    **options: object,
) -> str:
    """What a command prints on standard output; fails the test, with its standard error, when it fails."""
    done = subprocess.run(
        [*LOGWEIR, *words], capture_output=True, text=True, timeout=timeout_s, env=env or environment(), **options
    )
    assert done.returncode in statuses, f"logweir {' '.join(words)}: {done.stderr}"
    return done.stdout


class Process:
    """One process of the product (and its children), with its output in a file."""

    def __init__(self, words: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen([*LOGWEIR, *words], stdout=output, stderr=output, env=env or environment())

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def family(self) -> list[psutil.Process]:
        """The process and all that it started, directly or not."""
        try:
            root = psutil.Process(self.popen.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill_family(self) -> None:
        """kill -9 of every process, in a random order, a little apart."""
        family = self.family()
        random.shuffle(family)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        self.popen.wait(10)
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive, f"outlived kill -9: {alive}"

    def stop(self, *, within_s: float = 60.0) -> None:
        """Ctrl-C, and wait until it has ended."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
        self.popen.wait(within_s)


def wait_for_http(port: int, path: str = "/readyz", *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while status_of(port, path) != 200:
        assert time.monotonic() < deadline, f"nothing is ready on port {port} within {within_s} s"
        time.sleep(0.05)


def status_of(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


class Embedded:
    """`logweir up` on a data folder."""

    def __init__(self, data_dir: Path, *, extra: Sequence[str] = (), env: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._env = env
        self.ingest_port, self.console_port = free_port(), free_port()
        self.key = ""
        self._extra = list(extra)
        self._starts = 0

    def start(self) -> Process:
        self._starts += 1
        self.process = Process(
            [
                "up",
                "--data-dir",
                str(self.data_dir),
                "--ingest-port",
                str(self.ingest_port),
                "--console-port",
                str(self.console_port),
                *self._extra,
            ],
            self.data_dir.with_suffix(f".{self._starts}.log"),
            self._env,
        )
        self.wait_until_welcome()
        shown = re.search(r"X-My-Log-Input-Key: (\S+)'", self.process.text)
        if shown:
            self.key = shown.group(1)
        return self.process

    def wait_until_welcome(self) -> None:
        deadline = time.monotonic() + 60
        while "logweir is running" not in self.process.text:
            assert self.process.popen.poll() is None, self.process.text
            assert time.monotonic() < deadline, self.process.text
            time.sleep(0.05)

    def search(self, query: str, *words: str) -> str:
        return logweir("search", query, *words, "--data-dir", str(self.data_dir))


class Load:
    """Threads that post events with unique ids to doors, keep-alive, and remember which were answered 2xx.

    Nothing is ever sent twice: whatever is found must be found once.
    """

    def __init__(
        self, ports: Sequence[int], key: str, *, category: str = "flow", threads: int = 4, pause_s: float = 0.002
    ) -> None:
        self.accepted: set[str] = set()
        self.sent = 0
        self.refusals: collections.Counter[int] = collections.Counter()
        self._ports = list(ports)
        self._key = key
        self._category = category
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        run = f"{number}-{rng.random()}-{time.time_ns()}"
        connection = None
        for turn in range(10**9):
            if self._stopping.is_set():
                return
            ids = [f"{run}-{turn}-{at}" for at in range(rng.choice((1, 1, 1, 7, 40)))]
            body = json.dumps(
                [{"summary": f"event {one}", "category": self._category, "details": {"id": one}} for one in ids]
            )
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", rng.choice(self._ports), timeout=10)
                connection.request("POST", "/events", body, {"X-Log-Key": self._key})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                connection = None
                self._stopping.wait(0.02)
                continue
            with self._lock:
                self.sent += len(ids)
                if response.status == 202:
                    self.accepted.update(ids)
                else:
                    self.refusals[response.status] += 1
            self._stopping.wait(self._pause_s)


def ids_found(lines: str) -> collections.Counter[str]:
    """How often each event id of ``Load`` is among the documents that a search printed."""
    return collections.Counter(json.loads(line)["details"]["id"] for line in lines.splitlines())


def wait_for_all(
    load: Load, find: Callable[[], collections.Counter[str]], *, within_s: float
) -> collections.Counter[str]:
    """What is found when every acknowledged event is; of those whose answer nobody heard, some may be there sooner."""
    deadline = time.monotonic() + within_s
    while missing := load.accepted - (found := find()).keys():
        assert time.monotonic() < deadline, f"{len(missing)} of {len(load.accepted)} acknowledged events are not found"
        time.sleep(0.2)
    return found


def assert_each_once(accepted: set[str], found: collections.Counter[str]) -> None:
    """Every acknowledged event is there exactly once, and nothing is there twice."""
    missing = accepted - found.keys()
    twice = {one: count for one, count in found.items() if count > 1}
    assert not missing, (
        f"{len(missing)} of {len(accepted)} acknowledged events are missing, such as {sorted(missing)[:3]}"
    )
    assert not twice, f"{len(twice)} events are there more than once, such as {sorted(twice)[:3]}"


@contextlib.contextmanager
def stopped_at_the_end(*processes: Process) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill_family()
