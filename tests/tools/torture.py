"""Kill whatever can be killed, at random moments under load, and see that nothing acknowledged is lost or doubled.

python -m tests.tools.torture --minutes 30                   everything embedded
python -m tests.tools.torture --minutes 30 --kafka           Kafka and Elasticsearch, two doors, two workers
python -m tests.tools.torture --minutes 30 --brokers 3       with three brokers, of which one at a time is killed
python -m tests.tools.torture --minutes 5 --kafka --only rebalance --only zombie
                                                            workers that come, go and stand still, and nothing else
python -m tests.tools.torture --minutes 30 --disasters       also disks that lose, tear, are set back or full, and
                                                            clocks that jump: what is gone must be told
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
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from logweir import config
from logweir.audit.windows import CLOSED_AFTERWARDS
from logweir.event import stream_of
from logweir.ledger.documents import WINDOW
from logweir.ledger.window import Window
from logweir.query.tree import And, Range, Term
from logweir.store import open_store
from tests import waiting
from tests.services.elasticsearch import Elasticsearch
from tests.services.fetch import newest_elasticsearch
from tests.services.kafka import Kafka
from tests.services.process import scratch_directory
from tests.tools import disasters
from tests.tools.alerting import SETTINGS, Alerting
from tests.tools.cluster import LATE_AFTER_S, ClusterSystem, broker_victims, server_victims
from tests.tools.emitters import Emitter
from tests.tools.product import LOGWEIR, Embedded, environment, ids_found, logweir, wait_for_http

EMITTERS = 6
SETTLED_S_MAX = 180
UNREAD_S_MAX = 60
# Takes seconds to be back, or is slow by itself: done less often than what is ours and quick.
_SELDOM = ("broker", "store", "zombie", "coordinator", "leader", "controller")
_CLOSED = {"balanced", CLOSED_AFTERWARDS}
_SAID = ("indexed", "duplicate", "filtered", "dead_lettered", "balanced", "imbalance", "in_flight", "missing")
# Nobody dies of it, and it takes its time: done where it is asked for.
_UNREST = ("rebalance", "zombie")


class System(Protocol):
    """A running product whose parts can be killed."""

    ports: list[int]
    key: str
    category: str
    env: dict[str, str]
    victims: dict[str, Callable[[], None]]
    """By name: kill -9 of the part, and starting it again unless something else does."""
    alerting: Alerting | None
    """None where no alerter runs."""

    def stop_doors(self) -> None:
        """Gracefully, so that the last windows are closed."""

    def mend(self) -> bool:
        """Do what an operator does about files that were found damaged; whether there were any."""

    def log(self) -> str: ...


class EmbeddedSystem:
    """`logweir up`, which starts what is killed again; now and then all of it is killed at once."""

    category = "flow"

    def __init__(self, folder: Path, **settings: str) -> None:
        self.env = environment(LOGWEIR_ACCOUNTING_LATE_AFTER_S=str(LATE_AFTER_S), **SETTINGS, **settings)
        self._product = Embedded(folder / "data", env=self.env)
        self.alerting = Alerting(folder / "data", self.category)
        self._product.start()
        self.ports, self.key = [self._product.ingest_port], self._product.key
        self.env["LOGWEIR_DATA_DIR"] = str(self._product.data_dir)
        self.victims = {
            "ingest": lambda: self._kill("ingest"),
            "worker": lambda: self._kill("worker"),
            "alerter": lambda: self._kill("alerter"),
            "everything": self._kill_and_start,
        }

    def _kill(self, part: str) -> None:
        for process in self._product.process.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if part in process.cmdline():
                    process.send_signal(signal.SIGKILL)

    def _kill_and_start(self) -> None:
        self.kill_everything()
        self.start()

    def kill_everything(self) -> None:
        self._product.process.kill_family()

    def start(self) -> None:
        try:
            self._product.start()
        except AssertionError:
            if not self.mend():
                raise

    def mend(self) -> bool:
        data = self._product.data_dir
        is_damaged = bool(disasters.damaged(data))
        if is_damaged:
            self.kill_everything()
            disasters.set_aside(data, self.env)
            self.start()
        return is_damaged

    def stop_doors(self) -> None:
        self._product.process.stop()
        self._product.start()

    def log(self) -> str:
        return self._product.process.text

    def stop(self) -> None:
        self._product.process.kill_family()
        self.alerting.close()


@dataclass
class Outcome:
    """What a run found."""

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    """What was done, how often."""
    events: int = 0
    """How many the emitters created."""
    acknowledged: int = 0
    """Those that were answered 2xx."""
    stored: collections.Counter[str] = field(default_factory=collections.Counter)
    """By emitter, its events in the store."""
    alerted: collections.Counter[str] | None = None
    """By emitter, those that its alerts have counted; None where no rule is."""
    untold: list[str] = field(default_factory=list)
    """What is wrong with what was told of alerts."""
    lost: list[str] = field(default_factory=list)
    """Acknowledged events that are not stored."""
    twice: list[str] = field(default_factory=list)
    """Events that are stored more than once."""
    differences: list[str] = field(default_factory=list)
    """Windows of which the store has another number of documents than the ledger says."""
    unlost: list[str] = field(default_factory=list)
    """Events that the audit calls lost, and the store has."""
    mended: int = 0
    """How often damaged files had to be set aside."""
    withheld: dict[str, list[int]] = field(default_factory=dict)
    """By emitter, the numbers that were created and never sent."""
    durable: collections.Counter[str] = field(default_factory=collections.Counter)
    """Where the acknowledged events went at first."""
    audit: dict[str, Any] = field(default_factory=dict)
    """What `logweir audit` says in the end."""

    @property
    def disasters(self) -> int:
        """How many things happened after which events may be gone."""
        return sum(self.kills[name] for name in disasters.NAMES)

    def __str__(self) -> str:
        return json.dumps(
            {
                "kills": self.kills.total(),
                "by_part": dict(self.kills),
                "mended": self.mended,
                "events": self.events,
                "acknowledged": self.acknowledged,
                "durable": dict(self.durable),
                "stored": self.stored.total(),
                "alerted": None if self.alerted is None else self.alerted.total(),
                "twice": len(self.twice),
                "lost": len(self.lost),
                "differing_windows": len(self.differences),
                "lost_and_stored": len(self.unlost),
                "windows": self.audit.get("windows"),
                "withheld": sum(map(len, self.withheld.values())),
                **{name: self.audit.get(name) for name in _SAID},
                "reported_lost": self.audit.get("lost"),
            }
        )


@contextlib.contextmanager
def system(
    folder: Path, *, on_kafka: bool, brokers: int = 1, only: Collection[str] = (), with_disasters: bool = False
) -> Iterator[EmbeddedSystem | ClusterSystem]:
    """The product with all that may be killed of it, or ``only`` what is named so; on Kafka with its own servers.

    ``with_disasters``: and what else can happen to it, by tests.tools.disasters.
    """
    with contextlib.ExitStack() as stack:
        clock = None
        if with_disasters:
            clock = disasters.FakedClock(folder)
            folder = stack.enter_context(disasters.small_disk(folder))
        made = _cluster(folder, stack, brokers, clock) if on_kafka else _embedded(folder, clock)
        stack.callback(made.stop)
        wanted = only or [name for name in made.victims if name not in _UNREST]
        made.victims = {name: call for name, call in made.victims.items() if name in wanted}
        yield made


def _embedded(folder: Path, clock: disasters.FakedClock | None) -> EmbeddedSystem:
    made = EmbeddedSystem(folder, **(clock.environment if clock else {}))
    if clock:
        made.victims |= disasters.embedded(made, Path(made.env["LOGWEIR_DATA_DIR"]), clock)
    return made


def _cluster(
    folder: Path, stack: contextlib.ExitStack, brokers: int, clock: disasters.FakedClock | None
) -> ClusterSystem:
    services = stack.enter_context(scratch_directory())
    kafka = Kafka(services / "kafka", brokers=brokers)
    store = Elasticsearch(services / "elasticsearch", newest_elasticsearch())
    for server in (kafka, store):
        stack.callback(server.remove)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: server.start(), (kafka, store)))
    settings = {"LOGWEIR_QUEUE_REPLICATION": str(brokers), **SETTINGS, **(clock.environment if clock else {})}
    made = ClusterSystem(folder, bootstrap=kafka.bootstrap, store_url=store.url, **settings)
    made.alerting = Alerting(folder, made.category)
    stack.callback(made.alerting.close)
    made.run_also("alerter")
    made.victims |= {"rebalance": made.rebalance, "zombie": made.zombie}
    made.victims |= server_victims(kafka, store) if brokers == 1 else broker_victims(kafka, made)
    if clock:
        prefix = made.env["LOGWEIR_STORE_INDEX_PREFIX"]
        made.victims |= disasters.cluster(kafka, store, topic=made.name, prefix=prefix, disk=folder, clock=clock)
    return made


def random_names(system: System) -> Iterator[str]:
    """What to do next, for ever: everything once, in any order, and then whatever comes."""
    yield from random.sample(sorted(system.victims), len(system.victims))
    while True:
        yield random.choice(sorted(system.victims) + [name for name in system.victims if name not in _SELDOM] * 2)


def torture(
    system: System, *, until: Callable[[int], bool], pause_s: float = 1.0, names: Iterator[str] | None = None
) -> Outcome:
    """Load, and kills until ``until(number of kills)``; then peace, and the books.

    ``names``: what is done, in order; by default at random.
    """
    outcome = Outcome()
    names = names or random_names(system)
    emitters = [
        Emitter(
            system.ports,
            system.key,
            f"e{n}",
            is_numbered=n < EMITTERS - 2,
            withholds=True,
            pause_s=0.01,
            category=system.category,
        )
        for n in range(EMITTERS)
    ]
    if system.alerting is not None:
        system.alerting.wait_until_told(system.env)
    for emitter in emitters:
        emitter.start()
    while not until(outcome.kills.total()):
        time.sleep(random.uniform(0.2, 2 * pause_s))
        name = next(names)
        system.victims[name]()
        outcome.kills[name] += 1
        outcome.mended += system.mend()
    for port in system.ports:
        wait_for_http(port)
    for emitter in emitters:
        emitter.stop()
    for emitter in emitters[:-2]:
        emitter.say_goodbye()
        outcome.withheld[emitter.name] = emitter.withheld
    # Who has taken the place of one that was killed looks around once a second, and speaks for it.
    waiting.until(lambda: len(_spool_folders(system)) <= len(system.ports), wait_s=SETTLED_S_MAX)
    system.stop_doors()
    accepted = [text for emitter in emitters for text in emitter.accepted]
    outcome.events = sum(emitter.created for emitter in emitters)
    outcome.acknowledged = len(accepted)
    for emitter in emitters:
        outcome.durable += emitter.durable
    # Only when nothing is in flight any more it shows whether anything came twice.
    outcome.audit = audited(system, lost=sum(map(len, outcome.withheld.values())), closed=True)
    found = settled(system, accepted, within_s=0 if outcome.disasters else SETTLED_S_MAX)
    for text, count in found.items():
        outcome.stored[text.partition("-")[0]] += count
    if system.alerting is not None and not outcome.disasters:
        outcome.alerted = system.alerting.counted(system.env, outcome.stored, within_s=SETTLED_S_MAX)
        outcome.untold = system.alerting.untold(system.env, within_s=SETTLED_S_MAX)
    outcome.lost = sorted(set(accepted) - found.keys())
    outcome.twice = sorted(text for text, count in found.items() if count > 1)
    outcome.differences = differences(system)
    for emitter in emitters[:-2]:
        said = (f"{emitter.name}-{emitter.epoch}-{number}" for number in lost_numbers(outcome.audit, emitter.name))
        outcome.unlost += [text for text in said if text in found]
    return outcome


def _spool_folders(system: System) -> list[Path]:
    """One of each serving process, and one of each that was killed, until its end is told."""
    spool = Path(system.env["LOGWEIR_DATA_DIR"]) / "spool"
    return [path for path in spool.iterdir() if path.is_dir()]


def settled(system: System, accepted: list[str], *, within_s: float = SETTLED_S_MAX) -> collections.Counter[str]:
    """What is stored, as soon as every acknowledged event is there, or when the time is out."""
    deadline = time.monotonic() + within_s
    while True:
        count = int(logweir("search", f"category:{system.category}", "--count", env=system.env))
        if count >= len(accepted) or time.monotonic() > deadline:
            return ids_found(
                logweir(
                    "search", f"category:{system.category}", "--json", "--size", "0", env=system.env, timeout_s=1800
                )
            )
        time.sleep(0.5)


def audited(system: System, *, lost: int, closed: bool = False) -> dict[str, Any]:
    """What `logweir audit` says, as soon as nothing is in flight or missing and so many are lost, or in the end.

    ``closed``: and no window is open any more.
    """
    deadline = time.monotonic() + SETTLED_S_MAX
    unread, less_s = 0, time.monotonic()
    while True:
        try:
            said: dict[str, Any] = json.loads(audit(system))
        except (AssertionError, json.JSONDecodeError):
            if not system.mend():
                raise
            continue
        is_settled = said["in_flight"] == 0 and said["missing"] == 0 and said["lost"] == lost
        is_settled = is_settled and (not closed or said["windows"].keys() <= _CLOSED)
        now_s = time.monotonic()
        before, unread = unread, said["unread_records"] or 0
        if unread < before or not unread:
            less_s = now_s
        # Of what is read the books speak; what is not is waited for as long as it becomes less, on any machine.
        is_over = now_s > deadline and (not unread or now_s > less_s + UNREAD_S_MAX)
        if is_settled or is_over:
            return said
        time.sleep(1)


def audit(system: System) -> str:
    done = subprocess.run(
        [*LOGWEIR, "audit", "--json"], capture_output=True, text=True, env=system.env, timeout=60, check=False
    )
    assert done.returncode in (0, 1, 3), done.stderr
    return done.stdout


def assert_books(outcome: Outcome, log: str) -> None:
    """All that must hold after a run, whatever was done: each event once, lost is what was withheld, books balance."""
    assert faults(outcome) == [], f"{outcome}\n{log}"


def faults(outcome: Outcome) -> list[str]:
    """What does not hold after a run, a line each."""
    return _untold(outcome) if outcome.disasters else _unbalanced(outcome)


def _untold(outcome: Outcome) -> list[str]:
    """What does not hold after disasters: events may be gone, and then the books say so, or that they do not know."""
    said = outcome.audit
    is_complete = said["complete"] is True
    reported = {name: set(lost_numbers(said, name)) for name in outcome.withheld}
    unnamed = [text for text in outcome.lost if not _is_in(text, reported)]
    held_back = [name for name, numbers in outcome.withheld.items() if not reported[name].issuperset(numbers)]
    holds = {
        "there was load": outcome.acknowledged > 100,
        f"none is stored twice: {outcome.twice[:3]}": not outcome.twice,
        # Of numbers from before a ledger that is gone, nobody knows what the store has.
        f"what is called lost is not stored: {outcome.unlost[:3]}": not outcome.unlost
        or (not is_complete and any(outcome.kills[name] for name in disasters.OF_THE_LEDGER)),
        f"what is not stored is not called complete: {outcome.lost[:3]}": not (outcome.lost and is_complete),
        f"numbers that are gone are lost, or the books do not balance: {unnamed[:3]}": not (
            unnamed and said["balanced"] and is_complete
        ),
        f"lost are the numbers withheld, of {held_back}": not (held_back and is_complete),
        f"windows with other documents are no complete books: {outcome.differences[:3]}": not (
            outcome.differences and is_complete
        ),
        f"all is read: {said['unread_records']}": said["unread_records"] == 0,
    }
    return [fault for fault, is_held in holds.items() if not is_held]


def _is_in(text: str, reported: dict[str, set[int]]) -> bool:
    """Whether an event is one of those numbers that are reported."""
    name, _, number = text.split("-")
    return int(number) in reported.get(name, set())


def _unbalanced(outcome: Outcome) -> list[str]:
    said = outcome.audit
    withheld = sum(map(len, outcome.withheld.values()))
    reported = {name: lost_numbers(said, name) for name in outcome.withheld}
    wrong = [name for name, numbers in outcome.withheld.items() if reported[name] != numbers]
    holds = {
        "there was load": outcome.acknowledged > 100,
        "numbers were withheld": withheld > 0,
        f"acknowledged events are stored: {outcome.lost[:3]}": not outcome.lost,
        f"none is stored twice: {outcome.twice[:3]}": not outcome.twice,
        f"the books balance, the imbalance is {said['imbalance']}": said["balanced"] and said["imbalance"] == 0,
        f"nothing is in flight or missing: {said['in_flight']}, {said['missing']}": said["in_flight"]
        == said["missing"]
        == 0,
        f"lost are the numbers withheld, of {wrong}": not wrong,
        f"{withheld} are withheld and {said['lost']} lost": said["lost"] == withheld,
        f"{outcome.stored.total()} are stored and {said['indexed']} indexed": said["indexed"] == outcome.stored.total(),
        f"alerts have counted each once: {outcome.alerted} of {outcome.stored}": outcome.alerted
        in (None, outcome.stored),
        f"alerts are told once: {outcome.untold}": not outcome.untold,
        f"each window has its documents: {outcome.differences[:3]}": not outcome.differences,
        f"each window is closed: {said['windows']}": said["windows"].keys() <= _CLOSED,
    }
    return [fault for fault, is_held in holds.items() if not is_held]


def differences(system: System) -> list[str]:
    """Each window whose documents in the store are not as many as the ledger says: the store's own word."""
    settings = config.load(environment=system.env)
    store = open_store(settings.store)
    found = []
    try:
        store.refresh()
        for place, document in WINDOW.scan(store.ledger, settings.worker.group):
            window = Window.from_body(place, document.body)
            indexed = sum(counts.indexed for counts in window.outcomes.values())
            stream = stream_of(bytes.fromhex(place.ingest_epoch), place.partition)
            stored = 0
            for first, last in window.numbers:
                query = And((Term("ingest_stream", stream), Range("ingest_number", first, last + 1)))
                stored += store.count(query).number
            if stored != indexed:
                found.append(f"{document.id}: {stored} stored, {indexed} indexed")
    finally:
        store.close()
    return found


def lost_numbers(audit: dict[str, Any], name: str) -> list[int]:
    """The numbers that the audit reports as lost of the emitter of that name."""
    ranges = [pair for row in audit["emitters"] if row["emitter"] == name for pair in row["lost_ranges"]]
    return [number for _, first, last in ranges for number in range(first, last + 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--kafka", action="store_true", help="on Kafka and Elasticsearch instead of everything embedded"
    )
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="3: on Kafka, with three replicas")
    parser.add_argument("--disasters", action="store_true", help="lose, tear, set back and fill disks and clocks, too")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="do this alone (again for more)")
    arguments = parser.parse_args()
    end_s = 0.0

    def until(kills: int) -> bool:
        print(f"\r{kills} kills, {max(0, end_s - time.monotonic()):.0f} s to go ", end="", file=sys.stderr, flush=True)
        return time.monotonic() > end_s

    on_kafka = arguments.kafka or arguments.brokers > 1
    with (
        tempfile.TemporaryDirectory() as folder,
        system(
            Path(folder),
            on_kafka=on_kafka,
            brokers=arguments.brokers,
            only=arguments.only,
            with_disasters=arguments.disasters,
        ) as under_torture,
    ):
        end_s = time.monotonic() + 60 * arguments.minutes
        outcome = torture(under_torture, until=until, pause_s=1 if arguments.only else 3)
    print(file=sys.stderr)
    print(outcome)
    found = faults(outcome)
    for fault in found:
        print(f"This does not hold: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
