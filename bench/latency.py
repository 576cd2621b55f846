"""How soon an alert is there after its event was posted, and how fast an alerter that was away catches up.

    python -m bench.latency                     everything embedded
    python -m bench.latency --kafka             on a Kafka and an Elasticsearch that are started for it
    python -m bench.latency --rate 2000 --rules 900 --seconds 60

A door, a worker and an alerter with so many rules take a steady load. Twice a second an event is posted that makes an
alert of its own: ``door_to_alert`` is from posting it to the alert's being in the store. Then the alerter is stopped,
many events are posted, and it is started again: ``catch_up`` is how many events a second it is asked of until it has
them all, by the clock, while the worker is busy with them, too. One JSON line each. Goals: p50 below 1 s, p99 below
5 s, five times the load. Exit status 1 when one is not met, or an alert is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import re
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.alerts import made_event, made_rules
from bench.servers import started_servers
from logweir import config
from logweir.alerts.alert import ALERTS
from logweir.errors import LogweirError
from logweir.store import open_store
from tests.tools.product import Process, environment, free_port, logweir, wait_for_http

GOALS_S = {"p50": 1.0, "p99": 5.0}
GOAL_TIMES_LIVE = 5.0
_MARKS_PER_S = 2
_POSTS_PER_S = 20
_WARM_UP_S = 5.0
_WAIT_S_MAX = 60.0
_RULE = """
@rule(where="category:marked", group=["details.mark"], severity="low")
def marked(found):
    return "marked"
"""


class Running:
    """A door, a worker and an alerter, with the rules."""

    def __init__(self, folder: Path, *, rules: int, **settings: str) -> None:
        self._folder = folder
        self.port, self.metrics_port = free_port(), free_port()
        self.env = environment(
            LOGWEIR_DATA_DIR=str(folder),
            LOGWEIR_ALERTS_METRICS_PORT=str(self.metrics_port),
            LOGWEIR_ALERTS_PACK="false",
            **settings,
        )
        (folder / "rules").mkdir()
        (folder / "rules/made.py").write_text(f"{made_rules(rules)}\n{_RULE}")
        self.key = logweir("keys", "add", "bench", env=self.env).strip()
        self._processes: dict[str, Process] = {}
        self.start("ingest", "--port", str(self.port))
        self.start("worker")
        self.start("alerter")
        wait_for_http(self.port)
        wait_for_http(self.metrics_port, "/healthz")

    def start(self, name: str, *words: str) -> None:
        self._processes[name] = Process((name, *words), self._folder / f"{name}.log", self.env)

    def stop(self, *names: str) -> None:
        for name in names or tuple(self._processes):
            self._processes.pop(name).stop()

    def evaluated(self) -> float:
        """How many events rules were asked of, by the alerter that runs."""
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
                found = re.search(r"^logweir_alerter_events_total (\S+)$", answer.read().decode(), re.MULTILINE)
            return float(found[1]) if found else 0.0
        return 0.0


class Sender:
    """One connection to the door."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)

    def post(self, events: list[Any]) -> None:
        body = b"[" + b",".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in events) + b"]"
        self._connection.request("POST", "/events", body, {"X-Log-Key": self._running.key})
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 202:
            raise SystemExit(f"The door answered {answer.status}.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", action="store_true", help="on Kafka and Elasticsearch, not embedded")
    parser.add_argument("--rate", type=int, default=1000, help="events per second (1000)")
    parser.add_argument("--rules", type=int, default=250, help="how many rules (250)")
    parser.add_argument("--seconds", type=float, default=30, help="for how long (30)")
    parser.add_argument("--missed", type=int, default=60_000, help="events while the alerter is away (60000)")
    arguments = parser.parse_args()
    about = {"on": "kafka-elasticsearch" if arguments.kafka else "embedded", "rules": arguments.rules}
    with product(rules=arguments.rules, on_kafka=arguments.kafka) as running:
        waits_s, missing = door_to_alert(running, rate=arguments.rate, seconds=arguments.seconds)
        of_all = {"p50": waits_s[len(waits_s) // 2], "p99": waits_s[int(len(waits_s) * 0.99)], "max": waits_s[-1]}
        shown = {f"{name}_s": round(value, 3) for name, value in of_all.items()}
        print(json.dumps({"figure": "door_to_alert", **about, "rate": arguments.rate, **shown, "missing": missing}))
        events_per_s = catch_up(running, arguments.missed)
        times_live = events_per_s / arguments.rate
        shown = {"events_per_s": round(events_per_s), "times_live": round(times_live, 1)}
        print(json.dumps({"figure": "catch_up", **about, **shown}))
    is_met = all(of_all[name] < goal for name, goal in GOALS_S.items()) and times_live >= GOAL_TIMES_LIVE
    return 0 if is_met and not missing else 1


@contextlib.contextmanager
def product(*, rules: int, on_kafka: bool) -> Iterator[Running]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="logweir-bench-")))
        settings = {}
        if on_kafka:
            broker, store_url = stack.enter_context(started_servers())
            settings = {"LOGWEIR_QUEUE_URL": f"kafka://{broker}/bench", "LOGWEIR_STORE_URL": store_url}
        running = Running(folder, rules=rules, **settings)
        stack.callback(running.stop)
        yield running


def door_to_alert(running: Running, *, rate: int, seconds: float) -> tuple[list[float], int]:
    """How long each alert took, in order of length, and how many have not come."""
    end_s = time.monotonic() + _WARM_UP_S + seconds
    load = threading.Thread(target=_load, args=(running, rate, end_s))
    load.start()
    time.sleep(_WARM_UP_S)
    posted_s: dict[str, float] = {}
    waits_s: list[float] = []
    all_posted = threading.Event()
    watched = threading.Thread(target=_watch, args=(running, posted_s, waits_s, all_posted))
    watched.start()
    sender = Sender(running)
    for number in range(int(seconds * _MARKS_PER_S)):
        # Its alert's id follows from the rule and the group.
        digest = hashlib.blake2b(f"marked\0{number}".encode(), digest_size=8).hexdigest()
        posted_s[f"{digest}-1"] = time.monotonic()
        sender.post([{"summary": "marked", "category": "marked", "details": {"mark": str(number)}}])
        time.sleep(1 / _MARKS_PER_S)
    load.join()
    all_posted.set()
    watched.join()
    if not waits_s:
        raise SystemExit(f"None of {len(posted_s)} alerts has come.")
    return sorted(waits_s), len(posted_s)


def _load(running: Running, rate: int, end_s: float) -> None:
    sender, number, due_s = Sender(running), 0, time.monotonic()
    while due_s < end_s:
        sender.post([made_event(number + n) for n in range(rate // _POSTS_PER_S)])
        number += rate // _POSTS_PER_S
        due_s += 1 / _POSTS_PER_S
        time.sleep(max(0.0, due_s - time.monotonic()))


def _watch(running: Running, posted_s: dict[str, float], waits_s: list[float], all_posted: threading.Event) -> None:
    """Take out of ``posted_s`` what has its alert, until all have, or the time is out."""
    end_s = float("inf")
    with contextlib.closing(open_store(config.load(environment=running.env).store)) as store:
        while time.monotonic() < end_s:
            if all_posted.is_set():
                end_s = min(end_s, time.monotonic() + _WAIT_S_MAX) if posted_s else 0.0
            with contextlib.suppress(LogweirError):  # while the index of alerts is made
                for id in store.documents.get(ALERTS, list(posted_s)):
                    waits_s.append(time.monotonic() - posted_s.pop(id))
            time.sleep(0.02)


def catch_up(running: Running, missed: int) -> float:
    """Events per second that an alerter is asked of that has been away."""
    running.stop("alerter")
    sender = Sender(running)
    for first in range(0, missed, 500):
        sender.post([made_event(first + n) for n in range(500)])
    running.start("alerter")
    while not (first_seen := running.evaluated()):
        time.sleep(0.02)
    began_s = time.monotonic()
    while (seen := running.evaluated()) < missed:
        if time.monotonic() > began_s + _WAIT_S_MAX:
            raise SystemExit(f"Of {missed} events the alerter was asked of {seen:.0f}.")
        time.sleep(0.02)
    return (seen - first_seen) / (time.monotonic() - began_s)


if __name__ == "__main__":
    sys.exit(main())
