"""Check configuration, keys, certificate, disk, queue, store, alerts and their channels, and the clock.

It says what to do about each fault. Exit status 0 when nothing is wrong, 1 when something is.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from logweir.alerts import exceptions
from logweir.alerts.notices import books_of, channels_told
from logweir.audit.lag import Lag, lags
from logweir.clock import DAY_US, iso_seconds, now_us
from logweir.commands.output import print_json
from logweir.config import Settings, shown_url
from logweir.errors import FILE_FAILED, STORE_ABSENT, LogweirError
from logweir.http.tls import Pair, load
from logweir.keys.file import live_keys
from logweir.ledger.documents import ALERTER
from logweir.ledger.position import read_positions
from logweir.queue import open_queue
from logweir.queue.port import Queue
from logweir.store import existing_store, open_store
from logweir.store.letters import divided, full, received
from logweir.text import counted, printable, some_of

_FREE_BYTES_MIN = 1024**3
_FSYNC_S_MAX = 0.1
_KEY_ENDS_SOON_US = 7 * DAY_US
# Of what the queue keeps, the first unread record has used so much before it is worth a word.
_RETENTION_USED_MAX = 0.1
_PACE_S = 3.0
_LEFT_S_MIN = 24 * 3600.0
_ALERTER_SILENT_US = 120_000_000
_RULES_NAMED_MAX = 10
_FILES_NAMED_MAX = 3
_STA_UNSYNC = 0x40  # linux/timex.h
_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``state`` is ok, warning or fault; ``advice`` is empty when there is nothing to do."""

    what: str
    state: str
    found: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    findings = examine(settings)
    if arguments.json:
        for finding in findings:
            print_json(asdict(finding))
    else:
        _print_lines(findings)
    return 1 if any(finding.state == "fault" for finding in findings) else 0


def examine(settings: Settings) -> list[Finding]:
    """All findings; no check stops another."""
    checks: list[tuple[str, Callable[[Settings], Finding]]] = [
        ("configuration", _configuration),
        ("keys", _keys),
        ("certificate", _certificate),
        ("disk", _disk),
        ("queue", _queue),
        ("store", _store),
        ("dead letters", _dead_letters),
        ("alerts", _alerts),
        ("exceptions", _exceptions),
        ("channels", _channels),
        ("clock", _clock),
    ]
    findings = []
    for what, check in checks:
        try:
            findings.append(check(settings))
        except LogweirError as error:
            findings.append(Finding(what, "fault", error.detail, error.advice))
        except OSError as error:
            failed = LogweirError(FILE_FAILED, path=error.filename or settings.data_dir, reason=error)
            findings.append(Finding(what, "fault", failed.detail, failed.advice))
    return findings


def _configuration(settings: Settings) -> Finding:
    # Had it been unreadable, the command would have said so before it came here.
    found = f"queue {shown_url(settings.queue.url)}, store {shown_url(settings.store.url)}"
    if settings.queue.url.startswith("sqlite:") and settings.ingest.processes > 1:
        advice = "Set ingest.processes to 1, or use Kafka: the embedded queue is for one ingest process."
        return Finding("configuration", "fault", f"{found}, {settings.ingest.processes} ingest processes", advice)
    console = settings.console
    console.require_hosts()
    if console.is_open:
        found += f"; the console is on {console.address}, beyond this machine, for {', '.join(console.hosts)}"
        advice = "It asks nobody for a password: put something in front that does, or have it listen on 127.0.0.1."
        return Finding("configuration", "warning", found, advice)
    return Finding("configuration", "ok", found)


def _keys(settings: Settings) -> Finding:
    path = settings.keys_path
    ends: dict[str, float] = {}
    for key in live_keys(path):
        end_us = float("inf") if key.expires_us is None else key.expires_us
        ends[key.name] = max(ends.get(key.name, 0), end_us)
    if not ends:
        found = f"{path} has no live key: every request is answered 401"
        return Finding("keys", "warning", found, "Make one: logweir keys add NAME")
    found = f"{len(ends)} live: {', '.join(sorted(ends))}"
    ending = sorted(name for name, end_us in ends.items() if end_us < now_us() + _KEY_ENDS_SOON_US)
    if ending:
        advice = f"logweir keys rotate {ending[0]}, or a later end: logweir keys set {ending[0]} --expires 90d"
        return Finding("keys", "warning", f"{found}; within 7 days no key is left of {', '.join(ending)}", advice)
    return Finding("keys", "ok", found)


def _certificate(settings: Settings) -> Finding:
    ingest = settings.ingest
    made = settings.data_dir / "tls/server.pem"  # by `logweir up --tls`
    is_made = ingest.tls_cert_file is None and ingest.tls_key_file is None
    if is_made and not made.exists():
        return Finding("certificate", "ok", "none: ingest serves plain HTTP")
    pair = Pair(made, made) if is_made else Pair.of(ingest)
    try:
        loaded = load(pair)
    except LogweirError as error:
        if not is_made:
            raise
        advice = "`logweir up --tls` makes another one; remove the folder when it is not to be used again."
        return Finding("certificate", "warning", error.detail, advice)
    days = (loaded.expires - datetime.now(UTC)).days
    found = f"{pair.certificate} for {', '.join(loaded.names) or 'no name'}, good for {counted(days, 'more day')}"
    if loaded.is_due:
        advice = "Renew it: ingest serves the new one within seconds, without a restart."
        return Finding("certificate", "warning", found, advice)
    if pair.key.stat().st_mode & 0o004:
        advice = f"Whoever reads the key can pass for this door: chmod o-r {pair.key}"
        return Finding("certificate", "warning", f"{found}; every user can read {pair.key}", advice)
    return Finding("certificate", "ok", found)


def _disk(settings: Settings) -> Finding:
    folder = next(path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists())
    if not folder.is_dir():
        return Finding("disk", "fault", f"{folder} is not a folder", "Set data_dir to another one.")
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / 1024**3:.1f} GiB free of {usage.total / 1024**3:.1f} GiB for {settings.data_dir}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "fault", f"{folder} is not writable", "Correct its permissions, or set data_dir.")
    if usage.free < _FREE_BYTES_MIN:
        return Finding(
            "disk", "fault", found, "Free some space, or lower queue.retention_hours and store.retention_days."
        )
    seconds = _fsync_s(folder)
    found += f", fsync takes {seconds * 1000:.1f} ms"
    if seconds > _FSYNC_S_MAX:
        return Finding("disk", "warning", found, "Every answer waits for an fsync: use a faster disk for data_dir.")
    return Finding("disk", "ok", found)


def _fsync_s(folder: Path) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x" * 4096)
        file.flush()
        started = time.monotonic()
        os.fsync(file.fileno())
        return time.monotonic() - started


def _queue(settings: Settings) -> Finding:
    with closing(open_queue(settings.queue, group=settings.worker.group)) as queue:
        found = queue.check()
        try:
            behind = _behind(settings, queue)
        except LogweirError:
            return Finding("queue", "ok", f"{found}; how much is unread is unknown: the store does not say")
        unread = sum(lag.records for lag in behind.values())
        found += f"; {counted(unread, 'record', separator=',')} unread"
        used = {partition: lag.retention_used or 0.0 for partition, lag in behind.items()}
        worst = max(used, key=lambda partition: used[partition], default=0)
        if used.get(worst, 0.0) <= _RETENTION_USED_MAX:
            return Finding("queue", "ok", found)
        time.sleep(_PACE_S)
        left_s = _behind(settings, queue)[worst].left_s(behind[worst], _PACE_S)
    found += f"; the first of partition {worst} has used {used[worst]:.0%} of what the queue keeps"
    if left_s is None:
        return Finding("queue", "warning", f"{found}, and workers catch up")
    advice = "Start more workers, or have the topic keep more: docs/how-to/runbooks/LogweirLagNearRetention.md"
    found += f": at this pace the lag reaches the end of retention in {left_s / 3600:,.1f} hours"
    return Finding("queue", "fault" if left_s < _LEFT_S_MIN else "warning", found, advice)


def _behind(settings: Settings, queue: Queue) -> dict[int, Lag]:
    with existing_store(settings.store) as store:
        ever = read_positions(store, settings.worker.group)
    topic_id = queue.topic_id()
    places = {place.partition: one.next_offset or 0 for place, one in ever.items() if place.topic_id == topic_id}
    return lags(queue, places, now_us=now_us())


def _store(settings: Settings) -> Finding:
    is_embedded = settings.store.url.startswith("sqlite:")
    with closing(open_store(settings.store)) as store:
        found = "" if is_embedded else store.check()
        try:
            store.require_prepared()
        except LogweirError as error:
            if is_embedded or error.problem is not STORE_ABSENT:
                raise
            # The server is there, and nobody has stored anything on it yet.
            return Finding("store", "warning", f"{found}. {error.detail}", error.advice)
        return Finding("store", "ok", found or store.check())


def _dead_letters(settings: Settings) -> Finding:
    with existing_store(settings.store) as store:
        counts = store.dead_letters.count()
        newest = store.dead_letters.page(size=1) if counts else []
    held, _ = divided(counts)
    limits = settings.store
    if held.letters >= limits.dead_letters_max or held.size_bytes >= limits.dead_letters_size_bytes_max:
        problem = full(held, limits)
        return Finding("dead letters", "fault", problem.detail, problem.advice)
    if not newest:
        return Finding("dead letters", "ok", "none")
    by_reason = ", ".join(f"{held.letters} {reason}" for reason, held in sorted(counts.items()))
    error = printable(newest[0].body.get("error"))
    found = f"{by_reason}; the newest, of {received(newest[0])}: {newest[0].reason}, {error}"
    advice = "See them whole: logweir deadletters list; what to do, by reason: docs/how-to/dead-letters.md"
    return Finding("dead letters", "warning", found, advice)


def _alerts(settings: Settings) -> Finding:
    with existing_store(settings.store) as store:
        shards = [document.body for _, document in ALERTER.scan(store.ledger, settings.worker.group)]
    if not shards:
        advice = "Run logweir alerter, which logweir up does by itself: no rule is asked of any event."
        return Finding("alerts", "warning", "no alerter has ever run on this store", advice)
    rules = {name: row for body in shards for name, row in body["rules"].items()}
    parked = sorted(name for name, row in rules.items() if row.get("parked"))
    found = f"{counted(len(rules), 'rule')} evaluated"
    oldest_us = min(body["written_us"] for body in shards)
    if now_us() - oldest_us > _ALERTER_SILENT_US:
        found += f", last at {iso_seconds(oldest_us)}"
        return Finding("alerts", "warning", found, "Start logweir alerter again; it goes on where it was.")
    if files_bad := sorted({problem for body in shards for problem in body.get("files_bad", ())}):
        advice = "logweir rules list has all of them; logweir rules test FILE checks one."
        named = "; ".join(printable(problem) for problem in files_bad[:_FILES_NAMED_MAX])
        more = f"; and {len(files_bad) - _FILES_NAMED_MAX} more" if len(files_bad) > _FILES_NAMED_MAX else ""
        return Finding("alerts", "warning", f"{found}, but for files of rules: {named}{more}", advice)
    if parked:
        advice = "Their own code fails; logweir rules list says how. They go on when their file changes."
        return Finding("alerts", "warning", f"{found}, but for those parked: {', '.join(parked)}", advice)
    if blind := sorted(name for name, row in rules.items() if row.get("blind")):
        found += f"; blind, as nothing that they need has come for a week: {some_of(blind, _RULES_NAMED_MAX)}"
    return Finding("alerts", "ok", found)


def _exceptions(settings: Settings) -> Finding:
    now = now_us()
    with existing_store(settings.store) as store:
        found = exceptions.active(store.documents, now)
    if soon := [one for one in found if one.ends_soon(now)]:
        named = some_of([f"{one.id} ({one.rule}, until {one.ends})" for one in soon], _RULES_NAMED_MAX)
        advice = f"Is it still wanted? logweir exceptions extend {soon[0].id}; else it ends by itself."
        return Finding("exceptions", "warning", f"within 7 days these end: {named}", advice)
    return Finding("exceptions", "ok", f"{counted(len(found), 'exception')} in force")


def _channels(settings: Settings) -> Finding:
    path = settings.channels_path
    with existing_store(settings.store) as store:
        told = channels_told(store.documents)
        books = [books_of(store.documents, name) for name in told.channels]
    if told.problem:
        advice = "Correct the file; until then people are told as before.."
        return Finding("channels", "warning", f"{path} is not in force: {printable(told.problem)}", advice)
    if not books:
        if path.exists():
            advice = "Start logweir alerter, which reads it; logweir channels list shows what is in it."
            return Finding("channels", "warning", f"nobody is told of alerts, though there is {path}", advice)
        return Finding("channels", "ok", f"none: nobody is told of alerts (docs/how-to/notifications.md: {path})")
    found = "; ".join(f"{one.name}: {one.words}" for one in books)
    failing = [one for one in books if one.failing_since]
    if failing:
        said = "; ".join(f"{one.name} fails since {one.failing_since}: {printable(one.error)}" for one in failing)
        return Finding("channels", "fault", said, f"Try it: logweir channels test {failing[0].name}")
    return Finding("channels", "ok", found)


def _clock(_settings: Settings) -> Finding:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    synchronised = _clock_is_synchronised()
    if synchronised is False:
        advice = "Start a time service (chrony, systemd-timesyncd): receipt times and windows follow this clock."
        return Finding("clock", "warning", f"{now}, not synchronised", advice)
    return Finding("clock", "ok", f"{now}, {'synchronised' if synchronised else 'synchronisation unknown here'}")


def _clock_is_synchronised() -> bool | None:
    """What the kernel says (adjtimex(2)); None where it cannot be asked."""
    if not sys.platform.startswith("linux"):
        return None
    timex = (ctypes.c_char * 512)()
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "adjtimex") or library.adjtimex(timex) < 0:
        return None
    # struct timex: modes (int, padded), offset, freq, maxerror, esterror (long each), status (int).
    status = ctypes.c_int.from_buffer(timex, 5 * ctypes.sizeof(ctypes.c_long)).value
    return not status & _STA_UNSYNC


def _print_lines(findings: list[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        colour = _COLOURS[finding.state]
        console.print(f"{finding.what:<14} [{colour}]{finding.state:<8}[/] {escape(printable(finding.found))}")
        if finding.advice:
            console.print(f"{'':<14} {'':<8} {escape(printable(finding.advice))}")
