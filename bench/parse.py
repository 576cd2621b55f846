"""What the parsers cost a worker, for an event of a mixed load and for each kind of line, before and after in one run.

    python -m bench.parse
    python -m bench.parse --rounds 20

The load: web servers' access lines, sshd, sudo, PAM, audit records, CloudTrail, JSON and key=value in messages, and as
many lines again that no parser understands; once with each event from another sender, which is the worst for a
processor's caches, and once as senders send, 50 events of one host in a request. Each round makes the documents of all
events without parsers, then with them; redaction and the enrichments of addresses and user agents are measured on top.
The figures are the CPU times of the fastest rounds. Goal: at most 6 microseconds an event more, as senders send. Exit
status 1 when it is not met.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterable

from logweir.config import WorkerSettings
from logweir.event import Provenance
from logweir_workers import enrich
from logweir_workers.decode import event_of
from logweir_workers.document import Documents
from logweir_workers.filters import Filters
from logweir_workers.normalise.fields import Context, normalise
from logweir_workers.parsers import Parsers, built_in
from logweir_workers.redaction import Redaction

GOAL_US = 6.0
EVENTS = 4000
CONTEXT = Context(1_767_614_400_000_000, "bench")
PROVENANCE = Provenance("0" * 32 + "-0", 1, "0" * 16)

KINDS: dict[str, tuple[int, str, str | None, str]] = {
    # share of the load in percent, who sends it, process, line
    "access": (
        20,
        "web server",
        "nginx",
        '192.0.2.{n} - - [31/Jan/2026:12:00:00 +0000] "GET /item/{n}?page=2 HTTP/1.1" 200 {n} "https://example.org/" "Mozilla/5.0 (X11; Linux x86_64) Firefox/147.0"',
    ),
    "sshd": (8, "host", "sshd", "Failed password for invalid user admin from 192.0.2.{n} port 4{n} ssh2"),
    "pam": (
        5,
        "host",
        "sshd",
        "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.{n}  user=root",
    ),
    "sudo": (4, "host", "sudo", "   alice : TTY=pts/{n} ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/ls -l /root"),
    "auditd": (
        6,
        "host",
        "audit",
        'type=SYSCALL msg=audit(1700000000.123:{n}): arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c a1=7ffd a2=0 a3=0 items=1 ppid=2686 pid={n} auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts0 ses=1 comm="cat" exe="/usr/bin/cat" key="shadow"',
    ),
    "kernel": (10, "host", "kernel", "[12345.{n}] usb 1-1: new high-speed USB device number 5 using xhci_hcd"),
    "systemd": (10, "host", "systemd", "Started session-{n}.scope - Session {n} of User alice."),
    "json": (3, "app", "app", '{{"level": "info", "msg": "order {n} placed", "user": "alice", "duration_s": 0.{n}}}'),
    "logfmt": (
        3,
        "app",
        "app",
        'time=2026-01-31T12:00:00Z level=info msg="order {n} placed" user=alice duration=0.{n}',
    ),
    "java": (
        15,
        "app",
        "app",
        "2026-01-31 12:00:00,123 INFO  [worker-{n}] c.e.shop.OrderService - order {n} placed in 35 ms",
    ),
    "prose": (15, "app", "app", "request {n} answered in 35 ms by worker 7, cache hit for user session"),
    "cloudtrail": (1, "cloud", None, ""),
}
BATCH_EVENTS = 50
OLD = ("hostname", "category")
"""The enrichments that do not look at what parsers add."""

CLOUDTRAIL = {
    "eventVersion": "1.08",
    "userIdentity": {"type": "IAMUser", "userName": "alice", "accountId": "111122223333"},
    "eventTime": "2026-01-31T12:00:00Z",
    "eventSource": "iam.amazonaws.com",
    "eventName": "CreateUser",
    "awsRegion": "us-east-1",
    "sourceIPAddress": "192.0.2.7",
    "userAgent": "aws-cli/2.15.0",
    "requestParameters": {"userName": "mallory"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    everything = enrich.load(WorkerSettings())
    parsers = tuple(step for step in everything.steps if isinstance(step, Parsers))
    redaction = tuple(step for step in everything.steps if isinstance(step, Redaction))
    others = tuple(each.prepare(WorkerSettings()) for each in enrich.enrichments() if each.name in OLD)
    steps = {"without_parsers": others, "with_parsers": (*parsers, *others)}
    added_us = 0.0
    for order, load in {"shuffled": shuffled_load(), "by_sender": load_by_sender()}.items():
        before, after = compared(
            rounds,
            lambda: documents(load, enrich.Enricher(steps["without_parsers"])),  # noqa: B023
            lambda: documents(load, enrich.Enricher(steps["with_parsers"])),  # noqa: B023
        )
        say("document_without_parsers_us", before / len(load), load=order)
        say("document_with_parsers_us", after / len(load), load=order)
        added_us = say("parsers_added_us", (after - before) / len(load), load=order, goal=GOAL_US)
        redacted, everything_us = compared(
            rounds,
            lambda: documents(load, enrich.Enricher((*steps["with_parsers"], *redaction))),  # noqa: B023
            lambda: documents(load, everything),  # noqa: B023
        )
        say("redaction_added_us", (redacted - after) / len(load), load=order)
        say("other_enrichments_added_us", (everything_us - redacted) / len(load), load=order)
    for kind in KINDS:
        events = [normalise(event_of(raw), CONTEXT) for raw in events_of(kind, 500)]
        parsers = Parsers(built_in())
        spent, _ = compared(5, lambda: parse_all(parsers, events), lambda: None)  # noqa: B023
        say("parse_us", spent / len(events), kind=kind)
    return 0 if added_us <= GOAL_US else 1


def shuffled_load() -> list[bytes]:
    """Every event from another sender than the one before."""
    load = [raw for kind, (share, _, _, _) in KINDS.items() for raw in events_of(kind, EVENTS * share // 100)]
    random.Random(1).shuffle(load)
    return load


def load_by_sender() -> list[bytes]:
    """The same events as they come: in requests of BATCH_EVENTS, each from one sender with its own kinds of lines."""
    rng = random.Random(1)
    requests: list[list[bytes]] = []
    for sender in sorted({sender for _, sender, _, _ in KINDS.values()}):
        kinds = [(kind, share) for kind, (share, of, _, _) in KINDS.items() if of == sender]
        load = [raw for kind, share in kinds for raw in events_of(kind, EVENTS * share // 100)]
        rng.shuffle(load)
        requests += [load[at : at + BATCH_EVENTS] for at in range(0, len(load), BATCH_EVENTS)]
    rng.shuffle(requests)
    return [raw for request in requests for raw in request]


def events_of(kind: str, count: int) -> list[bytes]:
    _, _, process, line = KINDS[kind]
    if not line:
        return [json.dumps({**CLOUDTRAIL, "sourceIPAddress": f"192.0.2.{n % 250}"}).encode() for n in range(count)]
    head = {"hostname": "web1.example.org", "severity": "info", "timestamp": "2026-01-31T12:00:00Z"}
    if process:
        head |= {"processname": process, "processid": "77"}
    return [json.dumps({**head, "summary": line.format(n=10 + n % 240)}).encode() for n in range(count)]


def documents(load: Iterable[bytes], enricher: enrich.Enricher) -> None:
    made = Documents(enricher, Filters())
    for raw in load:
        made.make(raw, CONTEXT, id="x", day="20260131", provenance=PROVENANCE)


def parse_all(parsers: Parsers, events: Iterable[dict[str, object]]) -> None:
    for event in events:
        parsers.parse(event.copy())


def compared(rounds: int, one: Callable[[], None], other: Callable[[], None]) -> tuple[float, float]:
    """What both take at their fastest, in microseconds of CPU time; they take turns, so that both meet the same noise."""
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, times in zip((one, other), spent, strict=True):
            began_ns = time.process_time_ns()
            call()
            times.append((time.process_time_ns() - began_ns) / 1000)
    return min(spent[0]), min(spent[1])


def say(figure: str, value: float, **more: object) -> float:
    print(json.dumps({"figure": figure, "value": round(value, 2), **more}), flush=True)
    return value


if __name__ == "__main__":
    sys.exit(main())
