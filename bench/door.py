"""How fast the door takes events in, what that costs, and whether every one that it accepted is in the queue.

    python -m bench.door                                every case, against a Kafka that is started for it
    python -m bench.door --case single-128 --rounds 5   one case
    python -m bench.door --queue-url sqlite             the embedded queue
    python -m bench.door --queue-url kafka://host:9092/topic

Each case is a load: so many keep-alive connections, each sending its next request as soon as it has its answer.

    single-32, single-128          one event of 418 bytes in a request
    batch-8, batch-gzip-8          arrays of 500 such events, plain or gzip
    tls-single-128, tls-batch-8    the same over TLS

Beside logweir's door, one process with its defaults, the same load goes to "floor", which is served as ours is, but
keeps nothing, and (with Kafka) to "naive": Flask under threads, a record for each request. They take turns, round by
round, so that what else the machine does falls on all alike.

One JSON line a door and case: medians over the rounds. cpu_s_per_100k is CPU time of all the door's processes for
100,000 events; the ratios are to the other doors' same figures, round by round. delivered_events are counted in the
queue. Exit status 1 when they are not those that were accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import doors
from bench.doors import Certificate, Door
from bench.load import Load, Sent, require_wrk, send, write_requests
from tests.services.errors import ServiceError
from tests.services.kafka import Kafka
from tests.services.process import scratch_directory

TLS = "tls-"
CASES = {
    "single-32": Load(32, 1),
    "single-128": Load(128, 1),
    "batch-8": Load(8, 500),
    "batch-gzip-8": Load(8, 500, is_gzipped=True),
    "tls-single-128": Load(128, 1),
    "tls-batch-8": Load(8, 500),
}
_WARM_UP_S = 1.0
# What a door has accepted may still be on its way into the queue, through its spool.
_DELIVERED_S_MAX = 30.0
_SETTLED_S = 0.3


@dataclass(frozen=True, slots=True)
class Account:
    """Events of one load. ``accepted`` and ``unconfirmed``, which were refused but may be delivered, by logweir's own
    count; ``delivered`` as counted in the topic. None where there is no such count.
    """

    answered: int
    accepted: int | None = None
    unconfirmed: int | None = None
    delivered: int | None = None

    def is_right(self, *, unheard_max: int) -> bool:
        """Whether all agree; wrk has not heard up to ``unheard_max`` events' answers."""
        within = range(self.answered, self.answered + unheard_max + 1)
        if self.delivered is None:
            return True
        if self.accepted is None or self.unconfirmed is None:
            return self.delivered in within
        return self.accepted in within and self.delivered == self.accepted + self.unconfirmed


@dataclass(frozen=True, slots=True)
class Round:
    """One load on one door."""

    sent: Sent
    cpu_s: float
    rss_peak_mib: float
    account: Account
    refusals: Counter[str]
    is_right: bool

    @property
    def figures(self) -> dict[str, float]:
        return {
            "requests_per_s": self.sent.accepted / self.sent.seconds,
            "events_per_s": self.account.answered / self.sent.seconds,
            "p50_ms": self.sent.p50_ms,
            "p99_ms": self.sent.p99_ms,
            "cpu_s_per_100k": self.cpu_s / max(1, self.account.answered) * 1e5,
            "rss_peak_mib": self.rss_peak_mib,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="this one (again for more); by default all")
    parser.add_argument("--door", action="append", choices=doors.NAMES, help="this one only (again for more)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round (5)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case and door (3)")
    parser.add_argument("--queue-url", default="", help='kafka://host:port/topic or "sqlite"; by default its own Kafka')
    arguments = parser.parse_args()
    require_wrk()
    names = list(arguments.door or doors.NAMES)
    if arguments.queue_url == "sqlite" and "naive" in names:
        names.remove("naive")
    cases = arguments.case or list(CASES)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="logweir-bench-") as folder, _queue(arguments.queue_url) as queue_url:
        for tls in (False, True):
            chosen = [case for case in cases if case.startswith(TLS) == tls]
            if chosen:
                wrong += _measure(chosen, names, Path(folder) / f"tls-{tls}", arguments, queue_url, tls=tls)
    return 1 if wrong else 0


@contextlib.contextmanager
def _queue(url: str) -> Iterator[str]:
    if url:
        yield url
        return
    try:
        with scratch_directory() as directory, Kafka(directory / "kafka") as kafka:
            yield f"kafka://{kafka.bootstrap}/bench"
    except ServiceError as error:
        raise SystemExit(f"Kafka could not be started: {error}") from error


def _measure(
    cases: Sequence[str],
    names: Sequence[str],
    folder: Path,
    arguments: argparse.Namespace,
    queue_url: str,
    *,
    tls: bool,
) -> int:
    """Print the lines of these cases; gives how many doors were wrong about what they accepted."""
    wrong = 0
    certificate = Certificate.make(folder.parent) if tls else None
    with doors.running(names, folder, queue_url=queue_url, certificate=certificate) as (running, key):
        for case in cases:
            load = CASES[case]
            requests = folder / f"{case}.requests"
            write_requests(requests, load, key=key)
            for door in running:
                send(door.url, requests, load, seconds=_WARM_UP_S)
            rounds: dict[str, list[Round]] = {door.name: [] for door in running}
            for turn in range(arguments.rounds):
                # The first of a round finds another machine than the last: not always the same door.
                for door in running[turn % len(running) :] + running[: turn % len(running)]:
                    rounds[door.name].append(_round(door, requests, load, arguments.seconds))
            for name, ours in rounds.items():
                print(json.dumps(_line(case, name, ours, rounds)), flush=True)
                wrong += not all(one.is_right for one in ours)
    return wrong


def _round(door: Door, requests: Path, load: Load, seconds: float) -> Round:
    starts = _settled_ends(door)
    before = _counts(door)
    refusals_before = _refusals(door)
    door.forget_rss_peak()
    cpu_before_s = door.cpu_s()
    sent = send(door.url, requests, load, seconds=seconds)
    cpu_s, rss_peak_mib = door.cpu_s() - cpu_before_s, door.rss_peak_mib()
    # wrk does not wait for the last answer of each connection.
    unheard_max = load.connections * load.events_per_request
    account = Account(sent.accepted * load.events_per_request)
    deadline = time.monotonic() + _DELIVERED_S_MAX
    while door.topic is not None:
        ends = _settled_ends(door)
        delivered = door.topic.events(starts, ends) + (account.delivered or 0)
        accepted, unconfirmed = _since(before, _counts(door))
        account = Account(account.answered, accepted, unconfirmed, delivered)
        if account.is_right(unheard_max=unheard_max) or time.monotonic() > deadline:
            break
        starts = ends
    refusals = _refusals(door) - refusals_before
    return Round(sent, cpu_s, rss_peak_mib, account, refusals, account.is_right(unheard_max=unheard_max))


def _counts(door: Door) -> list[int] | None:
    """What logweir says that it has accepted, and what it refused that got into the queue all the same."""
    if door.name != "logweir":
        return None
    names = ("logweir_ingest_accepted_events_total", "logweir_ingest_unconfirmed_events_total")
    return [round(door.metric(name)) for name in names]


def _refusals(door: Door) -> Counter[str]:
    return door.refusals() if door.name == "logweir" else Counter()


def _since(before: list[int] | None, after: list[int] | None) -> list[int] | list[None]:
    return [None, None] if before is None or after is None else [after[0] - before[0], after[1] - before[1]]


def _settled_ends(door: Door) -> dict[int, int]:
    """The ends of the door's topic, when what an earlier load left under way is in it."""
    if door.topic is None:
        return {}
    ends = door.topic.ends()
    while True:
        time.sleep(_SETTLED_S)
        ends, before = door.topic.ends(), ends
        if ends == before:
            return ends


def _line(case: str, name: str, ours: list[Round], rounds: dict[str, list[Round]]) -> dict[str, object]:
    line: dict[str, object] = {"figure": case, "door": name, "rounds": len(ours)}
    line |= {figure: _rounded(statistics.median(one.figures[figure] for one in ours)) for figure in ours[0].figures}
    costs = [one.figures["cpu_s_per_100k"] for one in ours]
    line["cpu_s_per_100k_range"] = [_rounded(min(costs)), _rounded(max(costs))]
    line["errors"] = sum(one.sent.refusals + one.sent.timeouts for one in ours)
    if name == "logweir":
        line["refused"] = dict(sum((one.refusals for one in ours), Counter()))
    line["dropped_connections"] = sum(one.sent.dropped for one in ours)
    for count in ("answered", "accepted", "unconfirmed", "delivered"):
        numbers = [getattr(one.account, count) for one in ours]
        if None not in numbers:
            line[f"{count}_events"] = sum(numbers)
    line["accounts_are_right"] = all(one.is_right for one in ours)
    if name == "logweir":
        for other, theirs in rounds.items():
            if other != name:
                line[f"ratio_to_{other}"] = {
                    figure: _rounded(_ratio(figure, ours, theirs)) for figure in ("requests_per_s", "cpu_s_per_100k")
                }
    return line


def _ratio(figure: str, ours: list[Round], theirs: list[Round]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(mine.figures[figure] / max(1e-9, other.figures[figure]) for mine, other in pairs)


def _rounded(value: float) -> float:
    return round(value, 3) if value < 100 else round(value)


if __name__ == "__main__":
    sys.exit(main())
