"""What the accounting for every event costs: its share of the CPU time of a door and of a worker.

    python -m bench.accounting                    every case, on a Kafka and an Elasticsearch that are started for it
    python -m bench.accounting --case single --seconds 10

    batches       16 numbered emitters, 50 events in a request, as a shipper sends them
    single        64 connections of 1,000 numbered emitters, one event in a request with every Log-* header, one number
                  in fifty withheld: the most accounting for an event that a sender can ask for
    bare-single   64 connections that send one event in a request, without a number

Each case is sent to one door process, and one worker puts it into the store meanwhile. One JSON line each:
accounting_share is the CPU time inside the functions that bench/stopwatch.py lists, by part, of all that the process
used for the load, without its start. Goals: 0.10 of a door and 0.15 of a worker. Exit status 1 when a share is above
its goal, or an event is missing in the store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from bench.load import event
from bench.servers import started_servers
from tests.tools.product import environment, free_port, logweir, wait_for_http

GOALS = {"ingest": 0.10, "worker": 0.15}
_WARM_UP_S = 1.5
_STORED_S_MAX = 120.0
_BODIES = 256
_STOP_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Case:
    """``emitters``: names that take turns on the connections, 0 for none; ``withheld``: every so manieth number is."""

    connections: int
    emitters: int
    events_per_request: int
    withheld: int = 0


CASES = {
    "batches": Case(connections=16, emitters=16, events_per_request=50),
    "single": Case(connections=64, emitters=1000, events_per_request=1, withheld=50),
    "bare-single": Case(connections=64, emitters=0, events_per_request=1),
}


class Measured:
    """One process of the product under the stopwatch. ``since`` gives what it used since ``mark``."""

    def __init__(self, folder: Path, name: str, words: list[str], env: dict[str, str]) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        self._before = {"cpu_s": 0.0}
        command = [sys.executable, "-m", "bench.stopwatch", str(self._folder), name, *words]
        with (folder / f"{name}.log").open("ab") as log:
            self._popen = subprocess.Popen(command, stdout=log, stderr=log, env=env)

    def mark(self) -> None:
        self._before = self._figures()

    def since(self) -> dict[str, float]:
        """Seconds of CPU time: of everything (cpu_s), and of each part of the accounting."""
        return {name: spent - self._before.get(name, 0.0) for name, spent in self._figures().items()}

    def stop(self) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def _figures(self) -> dict[str, float]:
        time.sleep(0.5)  # The last ones are written by then.
        total: dict[str, float] = {}
        for path in self._folder.glob("*.json"):
            said = json.loads(path.read_text())
            for name, spent in {"cpu_s": said["cpu_s"], **said["parts"]}.items():
                total[name] = total.get(name, 0.0) + spent
        return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="this one (again for more); by default all")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each case sends (6)")
    arguments = parser.parse_args()
    is_good = True
    with tempfile.TemporaryDirectory(prefix="logweir-bench-") as folder, started_servers() as (bootstrap, store_url):
        for name in arguments.case or CASES:
            case_folder = Path(folder) / name
            case_folder.mkdir()
            is_good &= _measure(name, case_folder, bootstrap, store_url, seconds=arguments.seconds)
    return 0 if is_good else 1


def _measure(name: str, folder: Path, bootstrap: str, store_url: str, *, seconds: float) -> bool:
    """Print the lines of a case; gives whether every event is stored and no share above its goal."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    env = environment(
        LOGWEIR_QUEUE_URL=f"kafka://{bootstrap}/{topic}",
        LOGWEIR_STORE_URL=store_url,
        LOGWEIR_WORKER_GROUP=topic,
        LOGWEIR_DATA_DIR=str(folder),
    )
    key, port = logweir("keys", "add", "bench", env=env).strip(), free_port()
    door = Measured(folder, "ingest", ["--port", str(port)], env)
    worker = Measured(folder, "worker", [], env)
    load = Load(CASES[name], key, port)
    try:
        wait_for_http(port)
        load.run(_WARM_UP_S)
        warm_events = load.accepted
        _wait_until_indexed(env, warm_events)
        door.mark()
        worker.mark()
        load.run(seconds)
        spent_by_door = door.since()
        stored = _wait_until_indexed(env, load.accepted)
        spent_by_worker = worker.since()
    finally:
        door.stop()
        worker.stop()
    is_good = _print(name, "ingest", load.accepted - warm_events, spent_by_door)
    is_good &= _print(name, "worker", stored - warm_events, spent_by_worker)
    return is_good and stored == load.accepted


def _wait_until_indexed(env: dict[str, str], events: int) -> int:
    deadline = time.monotonic() + _STORED_S_MAX
    while (stored := _indexed(env)) < events and time.monotonic() < deadline:
        time.sleep(1)
    return stored


def _indexed(env: dict[str, str]) -> int:
    said = subprocess.run(
        [sys.executable, "-m", "logweir.cli", "audit", "--json"], env=env, capture_output=True, text=True, check=False
    )
    return int(json.loads(said.stdout)["indexed"]) if said.stdout else 0


def _print(case: str, process: str, events: int, spent: dict[str, float]) -> bool:
    cpu_s = spent.pop("cpu_s")
    share = sum(spent.values()) / cpu_s
    line = {
        "figure": case,
        "process": process,
        "events": events,
        "cpu_s_per_100k": round(cpu_s / max(1, events) * 1e5, 3),
        "accounting_share": round(share, 4),
        "goal": GOALS[process],
        "by_part": {part: round(part_s / cpu_s, 4) for part, part_s in spent.items()},
    }
    print(json.dumps(line), flush=True)
    return share <= GOALS[process]


class Load:
    """Keep-alive connections, each sending its next request as soon as it has its answer.

    ``accepted``: how many events were answered 202. Anything else ends the benchmark.
    """

    def __init__(self, case: Case, key: str, port: int) -> None:
        self.accepted = 0
        self._case = case
        self._key = key
        self._port = port
        self._epoch = uuid.uuid4().hex.encode()
        self._created = [0] * case.emitters
        self._bodies = [self._body(turn) for turn in range(_BODIES)]

    def run(self, seconds: float) -> None:
        asyncio.run(self._run(time.monotonic() + seconds))

    def _body(self, turn: int) -> bytes:
        count = self._case.events_per_request
        events = [event(turn * count + at) for at in range(count)]
        return events[0] if count == 1 else b"[" + b",".join(events) + b"]"

    async def _run(self, end_s: float) -> None:
        await asyncio.gather(*(self._send(number, end_s) for number in range(self._case.connections)))

    async def _send(self, connection: int, end_s: float) -> None:
        case = self._case
        # An emitter's requests come one after another: it is of one connection.
        own = list(range(connection, case.emitters, case.connections))
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        turn = 0
        while time.monotonic() < end_s:
            head = self._numbers(own[turn % len(own)]) if own else b""
            body = self._bodies[(connection + turn * case.connections) % _BODIES]
            writer.write(
                b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Log-Key: %b\r\n%bContent-Length: %d\r\n\r\n%b"
                % (self._key.encode(), head, len(body), body)
            )
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 202"):
                raise SystemExit(f"The door answered {answer.splitlines()[0].decode()}")
            size = next(line for line in answer.lower().splitlines() if line.startswith(b"content-length:"))
            await reader.readexactly(int(size.partition(b":")[2]))
            self.accepted += case.events_per_request
            turn += 1
        writer.close()

    def _numbers(self, emitter: int) -> bytes:
        """The headers of the emitter's next request."""
        case = self._case
        first = self._created[emitter] + 1
        if case.withheld and first % case.withheld == 0:
            first += 1
        self._created[emitter] = last = first + case.events_per_request - 1
        dropped = b"Log-Dropped: queue_overflow=%d;disk_full=4\r\n" % (last // 100) if case.withheld else b""
        return b"Log-Emitter: host-%d\r\nLog-Epoch: %b\r\nLog-Seq: %d\r\nLog-High: %d\r\n%b" % (
            emitter,
            self._epoch,
            first,
            last,
            dropped,
        )


if __name__ == "__main__":
    sys.exit(main())
