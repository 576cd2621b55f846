"""Hold a steady load for a long time; watch the memory of every process and the logs.

    python -m bench.soak --minutes 30 --rate 2000
    python -m bench.soak --minutes 30 --queue-url kafka://… --store-url http://…   (2 ingest and 2 worker processes)

Prints one JSON line per process: RSS after 5 minutes (or a sixth of the time) and at the end, in MiB, and their ratio;
then one with what was sent, accepted and found, and the log lines above INFO. Exit status 1 when a ratio is over 1.1,
an event is missing, or a log has a warning.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tests.tools.product import Embedded, Process, environment, free_port, logweir, wait_for_http

RATIO_MAX = 1.1
_BATCH = 19


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=2000, help="events per second")
    parser.add_argument("--queue-url", default="")
    parser.add_argument("--store-url", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="logweir-soak-", ignore_cleanup_errors=True) as folder:
        processes, ports, key, env = _start(Path(folder), arguments)
        try:
            return _soak(Path(folder), arguments, processes, ports, key, env)
        finally:
            for process in processes:
                process.kill_family()


def _start(folder: Path, arguments: argparse.Namespace) -> tuple[list[Process], list[int], str, dict[str, str]]:
    if not arguments.queue_url:
        product = Embedded(folder / "data")
        return [product.start()], [product.ingest_port], product.key, environment()
    env = environment(LOGWEIR_QUEUE_URL=arguments.queue_url, LOGWEIR_STORE_URL=arguments.store_url)
    key = logweir("keys", "add", "soak", "--data-dir", str(folder / "data"), env=env).strip()
    ports = [free_port(), free_port()]
    common = ["--data-dir", str(folder / "data")]
    processes = [
        Process(["ingest", *common, "--port", str(port)], folder / f"ingest-{port}.log", env) for port in ports
    ]
    processes += [Process(["worker", *common], folder / f"worker-{number}.log", env) for number in (1, 2)]
    for port in ports:
        wait_for_http(port)
    return processes, ports, key, env


def _soak(
    folder: Path,
    arguments: argparse.Namespace,
    processes: list[Process],
    ports: list[int],
    key: str,
    env: dict[str, str],
) -> int:
    seconds = arguments.minutes * 60
    load = _SteadyLoad(ports, key, rate=arguments.rate, seconds=seconds)
    load.start()
    began, early_s = time.monotonic(), min(300.0, seconds / 6)
    early: dict[psutil.Process, float] = {}
    samples: dict[psutil.Process, list[float]] = {}
    while time.monotonic() - began < seconds:
        time.sleep(5)
        for one in [member for process in processes for member in process.family()]:
            samples.setdefault(one, []).append(one.memory_info().rss / 1024**2)
        if not early and time.monotonic() - began >= early_s:
            early = {one: statistics.median(values[-3:]) for one, values in samples.items()}
    late = {one: statistics.median(values[-3:]) for one, values in samples.items()}
    load.join()
    faults = _report_memory(early, late)
    found = _found(folder, env, load.accepted)
    lines = [line for process in processes for line in process.text.splitlines() if _is_complaint(line)]
    print(
        json.dumps(
            {
                "figure": "soak",
                "minutes": arguments.minutes,
                "sent": load.sent,
                "accepted": load.accepted,
                "found": found,
                "refusals": load.refusals,
                "slowest_answer_s": round(load.slowest_s, 3),
                "complaints": lines[:20],
            }
        ),
        flush=True,
    )
    return 1 if faults or lines or found != load.accepted else 0


def _report_memory(early: dict[psutil.Process, float], late: dict[psutil.Process, float]) -> int:
    faults = 0
    for one, before in early.items():
        after = late[one]
        faults += after > before * RATIO_MAX
        try:
            command = " ".join(one.cmdline()[2:6])
        except psutil.NoSuchProcess:
            command, faults = "gone", faults + 1
        print(
            json.dumps(
                {
                    "figure": "rss_mib",
                    "process": command,
                    "early": round(before, 1),
                    "late": round(after, 1),
                    "ratio": round(after / before, 3),
                }
            ),
            flush=True,
        )
    return faults


def _found(folder: Path, env: dict[str, str], accepted: int) -> int:
    deadline = time.monotonic() + 60
    while True:
        found = int(logweir("search", "category:soak", "--count", "--data-dir", str(folder / "data"), env=env))
        if found >= accepted or time.monotonic() > deadline:
            return found
        time.sleep(1)


def _is_complaint(line: str) -> bool:
    return any(word in line for word in (" WARNING ", " ERROR ", " CRITICAL ", "Traceback"))


class _SteadyLoad(threading.Thread):
    """Half of the requests one event each, the others ``_BATCH``; sends at the rate, whatever the answers take."""

    def __init__(self, ports: list[int], key: str, *, rate: int, seconds: float) -> None:
        super().__init__()
        self.sent = self.accepted = self.refusals = 0
        self.slowest_s = 0.0
        self._ports, self._key, self._rate, self._seconds = ports, key, rate, seconds

    def run(self) -> None:
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for port in self._ports]
        began, turn = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < self._seconds:
            if self.sent > elapsed * self._rate:
                time.sleep(0.002)
                continue
            turn += 1
            events = [self._event(at) for at in range(1 if turn % 2 else _BATCH)]
            started = time.monotonic()
            connection = connections[turn % len(connections)]
            connection.request("POST", "/events", json.dumps(events), {"X-Log-Key": self._key})
            response = connection.getresponse()
            response.read()
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            self.sent += len(events)
            if response.status == 202:
                self.accepted += len(events)
            else:
                self.refusals += 1

    def _event(self, at: int) -> dict[str, object]:
        return {
            "category": "soak",
            "hostname": f"web-{self.sent % 50}.example.com",
            "processname": "soak",
            "processid": 4711,
            "severity": "INFO",
            "timestamp": time.time(),
            "tags": ["soak"],
            "summary": f"request {self.sent + at} took {self.sent % 977} ms for user {self.sent % 5003}",
            "details": {"status": 200, "path": f"/item/{self.sent % 9973}", "user": f"user-{self.sent % 5003}"},
        }


if __name__ == "__main__":
    sys.exit(main())
