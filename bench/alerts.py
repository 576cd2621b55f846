"""What the alerter does on one core: events per second with few and many rules, memory and checkpoint with many groups.

    python -m bench.alerts                        25, 250 and 900 rules; 100,000 groups
    python -m bench.alerts --rules 250 --events 100000 --groups 0
    python -m bench.alerts --sigma DIR            Sigma's rules in that folder: 25, 250, 900 and all of them

One JSON line each. ``events_per_s``: whole, from a record's bytes to groups, with everything that a worker does to an
event before it is stored; ``match_per_s``: the rules alone, over documents that are made already. By CPU time. The
rules are written for this: half of them with a category, a detail and a phrase, half with a process and one of two
words. With ``--sigma``, each number of rules is a sample of the folder's (the same each time), the events are of many
kinds in turn (``made_sigma_event``), and a line says how long a start takes, with nothing compiled and with the cache.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson

from logweir import clock, config
from logweir.alerts import rule
from logweir.event import Document, Provenance
from logweir.queue import open_queue
from logweir.queue.port import Delivery
from logweir.record import Kind, decode, encode
from logweir.store import open_store
from logweir_workers.alerts.checkpoint import Checkpoint, Progress, shard_id
from logweir_workers.alerts.engine import Engine
from logweir_workers.alerts.groups import Groups
from logweir_workers.alerts.loading import RuleFiles
from logweir_workers.alerts.windows import Match
from logweir_workers.document import context_of
from tests.workers.helpers import batch

_EVENTS_PER_RECORD = 1000
_START_US = 1_769_860_800_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, nargs="*", default=[25, 250, 900], help="how many rules (25 250 900)")
    parser.add_argument("--events", type=int, default=40_000, help="how many events (40000)")
    parser.add_argument(
        "--sigma", type=Path, metavar="DIR", help="a folder of Sigma rules, to take in place of made ones"
    )
    parser.add_argument("--groups", type=int, default=100_000, help="how many groups (100000); 0 for none")
    arguments = parser.parse_args()
    if arguments.sigma is not None:
        sigma(arguments.sigma, arguments.rules, arguments.events)
        return 0
    for rules in arguments.rules:
        print(json.dumps(evaluated(rules, arguments.events)), flush=True)
    if arguments.groups:
        print(json.dumps(remembered(arguments.groups)), flush=True)
    return 0


def sigma(folder: Path, counts: list[int], events: int) -> None:
    """How fast events are evaluated with so many of the folder's rules, and how long a start with all of them takes."""
    paths = sorted(path for path in folder.rglob("*.yml"))
    for count in [*(count for count in counts if count < len(paths)), len(paths)]:
        chosen = random.Random(1).sample(paths, count)
        with tempfile.TemporaryDirectory() as data:
            for path in chosen:
                to = Path(data) / "rules" / path.relative_to(folder)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(path.read_bytes())
            found = evaluated_in(Path(data), events, made_sigma_event)
            print(json.dumps({"sigma_files": count, **found}), flush=True)
            if count == len(paths):
                print(json.dumps(started(Path(data))), flush=True)


def started(data: Path) -> dict[str, float]:
    """CPU-seconds until the first event, without a cache and with it; and of a look at files that are the same.

    In processes of their own, which import all anew.
    """
    shutil.rmtree(data / "rules-last-read", ignore_errors=True)
    made: dict[str, float] = {}
    for name in ("start_cpu_s", "start_cached_cpu_s"):
        shown = subprocess.run([sys.executable, "-c", _START, str(data)], capture_output=True, text=True, check=True)
        rules, start_s, look_s, kb = shown.stdout.split()
        made |= {"rules": int(rules), name: float(start_s), "look_cpu_s": float(look_s), "memory_mb": int(kb) // 1024}
    return made


_START = """
import resource, sys, time
from pathlib import Path
from logweir import config
from logweir_workers.alerts.loading import RuleFiles
from logweir_workers.alerts.matching import Matcher
settings = config.load(environment={}, overrides={"data_dir": Path(sys.argv[1]), "alerts.pack": False})
files = RuleFiles(settings.alerts, settings.rules_path, last_read=settings.rules_last_read_path)
Matcher(files.rules.values(), failed=lambda *_: None)
start_s = time.process_time()
files.keep()
began_s = time.process_time()
for _ in range(10):
    files.reload()
look_s = (time.process_time() - began_s) / 10
print(len(files.rules), round(start_s, 2), round(look_s, 4), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def evaluated(rules: int, events: int) -> dict[str, float]:
    """How fast events are evaluated with so many rules."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rules").mkdir()
        (Path(folder) / "rules/made.py").write_text(made_rules(rules))
        return {"rules": rules, **evaluated_in(Path(folder), events, made_event)}


def evaluated_in(folder: Path, events: int, made: Callable[[int], bytes]) -> dict[str, float]:
    """How fast events are evaluated with the rules in a folder for data."""
    settings = config.load(environment={}, overrides={"data_dir": folder, "alerts.pack": False})
    with closing(open_queue(settings.queue)) as queue, closing(open_store(settings.store)) as store:
        queue.prepare()
        store.prepare()
        engine = Engine(
            settings,
            queue=queue,
            store=store,
            files=RuleFiles(settings.alerts, settings.rules_path),
            checkpoint=Checkpoint.claim(store, "logweir", shard_id("1/1"), "bench"),
            stopping=threading.Event(),
            clock=clock.now_us,
        )
        records = _records(events, made)
        began_s = time.process_time()
        for offset, payload in enumerate(records):
            engine.take(Delivery(0, offset, clock.now_us() // 1000, payload))
        whole_s = time.process_time() - began_s
        documents = _documents(engine, records[:5])
        matcher = engine.evaluator.matcher(engine.evaluator.rules.values())
        for document in documents:
            matcher.matches(document)  # Conditions are made when they are first asked.
        began_s = time.process_time()
        for document in documents:
            matcher.matches(document)
        match_s = time.process_time() - began_s
    return {"events_per_s": round(events / whole_s), "match_per_s": round(len(documents) / match_s)}


def remembered(count: int) -> dict[str, float]:
    """What so many groups with a match each take in memory, and how long a checkpoint of all of them takes."""

    @rule(where="x", at_least=10, within="2m", group=["details.ip"], severity="low")
    def one_of_many(found: object) -> str:
        return "x"

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    groups = Groups(groups_max=count)
    for number in range(count):
        group = groups.make(one_of_many, (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",))
        assert group is not None
        group.add(Match(_START_US + number, f"b01a22ce5507179569457b1397591012a.{number}", None, "20260131"))
    memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with tempfile.TemporaryDirectory() as folder:
        settings = config.load(environment={}, overrides={"data_dir": Path(folder)})
        with closing(open_store(settings.store)) as store:
            store.prepare()
            checkpoint = Checkpoint.claim(store, "logweir", shard_id("1/1"), "bench")
            began_s = time.monotonic()
            checkpoint.write(Progress(), groups, clock=clock.now_us)
            took_s = time.monotonic() - began_s
    return {"groups": count, "bytes_per_group": round(memory_kb * 1024 / count), "checkpoint_s": round(took_s, 2)}


def made_rules(count: int) -> str:
    """A file of so many rules."""
    text = ["from logweir.alerts import rule"]
    for number in range(count):
        if number % 2:
            where = f'category:c{number % 20} AND details.action:act{number} AND "word{number} here"'
            window = "group=['details.sourceipaddress'], at_least=5, within='1m', "
        else:
            where, window = f"processname:p{number} AND (failed OR error{number})", ""
        text.append(f"@rule(where={where!r}, {window}severity='low')\ndef rule_{number}(found): return 'x'")
    return "\n".join(text)


def _records(events: int, made: Callable[[int], bytes]) -> list[bytes]:
    random.seed(1)
    window = clock.window_of(clock.now_us())
    return [
        encode(
            Kind.DATA,
            ingest_epoch=b"\x07" * 16,
            first=first + 1,
            count=_EVENTS_PER_RECORD,
            window=window,
            body=[batch(*map(made, range(first, first + _EVENTS_PER_RECORD)), id=first.to_bytes(16, "big"))],
        )
        for first in range(0, events, _EVENTS_PER_RECORD)
    ]


def made_event(number: int) -> bytes:
    """An event that some of them may be for, as it is sent."""
    address = f"10.0.{number % 255}.{number % 200}"
    return orjson.dumps(
        {
            "processname": random.choice(("sshd", "cron", "nginx", "app")),
            "hostname": f"web{number % 50}",
            "category": "syslog",
            "severity": "INFO",
            "summary": f"Line {number} about user{number % 100} doing a thing at {address} port {number}, result ok",
            "details": {
                "action": random.choice(("login", "read", "write")),
                "outcome": "success",
                "username": f"u{number % 100}",
                "sourceipaddress": address,
                "pid": number,
            },
        }
    )


def made_sigma_event(number: int) -> bytes:
    """Events of a site with Windows and Linux, as senders send them; few of them are what a rule is for."""
    user, address = f"user{number % 100}", f"10.0.{number % 255}.{number % 200}"
    program = random.choice(("chrome", "msedge", "teams", "outlook", "backup"))
    path = f"C:\\Program Files\\{program}\\{program}.exe"
    sysmon = {"Channel": "Microsoft-Windows-Sysmon/Operational", "SourceName": "Microsoft-Windows-Sysmon"}
    windows = {"EventTime": "2026-01-31 12:00:00", "Hostname": f"pc{number % 50}.example.org"}
    kinds: tuple[dict[str, object], ...] = (
        {
            **windows,
            **sysmon,
            "EventID": 1,
            "Image": path,
            "CommandLine": f'"{path}" --type=renderer --lang=de --profile={number} --num-raster-threads=4',
            "ParentImage": "C:\\Windows\\explorer.exe",
            "ParentCommandLine": "C:\\Windows\\explorer.exe",
            "CurrentDirectory": f"C:\\Users\\{user}\\",
            "User": f"LAB\\{user}",
            "IntegrityLevel": "Medium",
            "Hashes": f"MD5={number:032x},SHA256={number:064x}",
            "OriginalFileName": f"{program}.exe",
            "Company": "Example",
        },
        {
            "winlog": {
                "event_id": 4624,
                "channel": "Security",
                "provider_name": "Microsoft-Windows-Security-Auditing",
                "event_data": {"TargetUserName": user, "LogonType": "3", "IpAddress": address, "IpPort": "50022"},
            },
            "hostname": "dc1",
            "message": "An account was successfully logged on.",
        },
        {
            "processname": "sshd",
            "hostname": f"web{number % 50}",
            "category": "syslog",
            "summary": f"Accepted publickey for {user} from {address} port {50_000 + number % 999} ssh2",
        },
        {
            "processname": random.choice(("systemd", "cron", "app")),
            "hostname": f"web{number % 50}",
            "category": "syslog",
            "summary": f"Line {number} about {user} doing a thing at {address}, result ok",
        },
        {
            "processname": "nginx",
            "hostname": f"web{number % 50}",
            "summary": f'{address} - - [31/Jan/2026:12:00:00 +0000] "GET /shop/{number}?page=2 HTTP/1.1" 200 {number} '
            '"https://example.org/" "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"',
        },
        {
            "hostname": f"web{number % 50}",
            "summary": f"type=SYSCALL msg=audit(1769860800.123:{number}): arch=c000003e syscall=59 success=yes exit=0 "
            f'ppid=1 pid={number} auid=1000 uid=1000 tty=pts0 ses=1 comm="ls" exe="/usr/bin/ls" key=(null)',
        },
        {
            "eventVersion": "1.08",
            "eventSource": "ec2.amazonaws.com",
            "eventName": "DescribeInstances",
            "eventTime": "2026-01-31T12:00:00Z",
            "userIdentity": {"type": "IAMUser", "userName": user},
            "sourceIPAddress": address,
            "userAgent": "aws-cli/2.15.0",
        },
    )
    return orjson.dumps(kinds[number % len(kinds)])


def _documents(engine: Engine, records: list[bytes]) -> list[Document]:
    made = []
    for payload in records:
        for one in decode(payload).batches:
            context = context_of(one)
            for number, raw in enumerate(one.events):
                provenance = Provenance("0" * 32 + "-0", number + 1, "0" * 16)
                document = engine._documents.make(raw, context, id=str(number), day="20260131", provenance=provenance)
                assert isinstance(document, Document)
                made.append(document)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
