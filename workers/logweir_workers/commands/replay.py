"""Bring the store to what the queue still has: create again what is missing, or redo everything by today's rules.

    logweir replay --since 2h --dry-run
    logweir replay --since 2h
    logweir replay --category nginx --since 1d --reprocess --rate 2000
    logweir replay --partition 3 --from 120000 --to 125000
    logweir replay --receipt TOKEN

Without --reprocess, only events are created that should be in the store and are not there. With it, normalisation,
enrichment and filters run again over the bytes as they were sent, and what is stored is overwritten.

Workers may go on meanwhile: only what they have accounted for is replayed. Stopped or killed, a replay goes on when the
same command is given again, or begins anew when the rules have changed since. Exit status 1 when something that was
asked for could not be replayed.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from logweir import receipt
from logweir.clock import iso_seconds, now_us
from logweir.commands.output import print_json, whole_number
from logweir.config import Settings
from logweir.errors import FILE_UNREADABLE, LogweirError
from logweir.ledger.replays import ReplayProgress
from logweir.process.lifetime import set_on_stop_signals
from logweir.process.logs import configure_logging
from logweir.query.times import time_bounds
from logweir.queue import open_queue
from logweir.store import existing_store
from logweir.text import printable
from logweir_workers.replay.replay import Replay, Selection

_LINE_INTERVAL_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    offset = whole_number(least=0)
    parser.add_argument(
        "--since", metavar="TIME", help="received then or later: ISO 8601, epoch seconds, or 15m, 1h, 7d"
    )
    parser.add_argument("--until", metavar="TIME", help="received before then")
    parser.add_argument("--partition", type=offset, metavar="N", help="only this partition of the topic")
    parser.add_argument("--from", dest="first", type=offset, metavar="OFFSET", help="from this offset on")
    parser.add_argument("--to", dest="end", type=offset, metavar="OFFSET", help="up to, and without, this offset")
    parser.add_argument("--emitter", metavar="NAME", help="only this one: its name, its key's name, or key/name")
    parser.add_argument("--category", metavar="NAME", help="only events that have this category by today's rules")
    parser.add_argument("--receipt", metavar="TOKEN", help="only the batch of this receipt")
    parser.add_argument("--reprocess", action="store_true", help="redo all of them by today's rules, and overwrite")
    parser.add_argument("--dry-run", action="store_true", help="count what there is to do, and change nothing")
    parser.add_argument("--rate", type=whole_number(least=1), metavar="N", help="most events a second (no limit)")
    parser.add_argument("--restart", action="store_true", help="begin anew instead of going on where it was stopped")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    configure_logging("replay", settings.log)
    stopping = set_on_stop_signals()
    with (
        existing_store(settings.store) as store,
        closing(open_queue(settings.queue, group=settings.worker.group)) as queue,
    ):
        one = Replay(
            settings=settings,
            store=store,
            queue=queue,
            selection=_selection(arguments, settings),
            words=_words(arguments),
            reprocess=arguments.reprocess,
            dry_run=arguments.dry_run,
            rate=arguments.rate,
            restart=arguments.restart,
            clock=now_us,
            stopping=stopping,
        )
        if one.is_resumed:
            at = f"{one.progress.records_read:,} of {one.progress.records:,} records"
            print(f"Going on with what was begun at {iso_seconds(one.progress.begun_us)}: {at} done.", file=sys.stderr)
        elif one.has_other_rules:
            print(
                "Filters, categories or logweir's version have changed since it was stopped: beginning anew, with the"
                " same range.",
                file=sys.stderr,
            )
        with _Shown(dry_run=arguments.dry_run) as shown:
            progress = one.run(shown.show)
    return _report(arguments, progress)


def _selection(arguments: argparse.Namespace, settings: Settings) -> Selection:
    """Raises LogweirError: TIME_BAD, PARAMETER_BAD, RECEIPT_BAD, FILE_UNREADABLE."""
    from_us, to_us = time_bounds(arguments.since, arguments.until, now_us())
    token = None
    if arguments.receipt:
        folder = settings.keys_path.parent
        try:
            token = receipt.decode(arguments.receipt, receipt.secret_of(folder))
        except OSError as error:
            raise LogweirError(FILE_UNREADABLE, path=folder, reason=error.strerror or error) from error
    return Selection(
        from_us=from_us,
        to_us=to_us,
        partition=arguments.partition,
        from_offset=arguments.first,
        to_offset=arguments.end,
        emitter=arguments.emitter,
        category=arguments.category,
        receipt=token,
    )


def _words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """What the command selects, as it was typed: an hour ago is another hour later, and the same replay."""
    names = ("since", "until", "partition", "first", "end", "emitter", "category", "receipt")
    return tuple(f"{name}={getattr(arguments, name)}" for name in names if getattr(arguments, name) is not None)


class _Shown:
    """A progress bar with the time that is left; where standard error is no terminal, a line every few seconds."""

    def __init__(self, *, dry_run: bool) -> None:
        self._verb = "counting" if dry_run else "replaying"
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn(self._verb),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[events]:,} events"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._verb, events=0)
        self._began_s = self._said_s = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> _Shown:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: ReplayProgress) -> None:
        done, total, events = progress.records_read, progress.records, progress.tally.events
        if self._first is None:
            self._first = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, events=events)
            return
        now_s = time.monotonic()
        if now_s - self._said_s >= _LINE_INTERVAL_S:
            self._said_s = now_s
            rate = (done - self._first) / (now_s - self._began_s)
            left = f", about {(total - done) / rate:.0f} s left" if rate else ""
            print(f"{self._verb}: {done:,} of {total:,} records, {events:,} events{left}", file=sys.stderr)


def _report(arguments: argparse.Namespace, progress: ReplayProgress) -> int:
    tally = progress.tally
    unfound = 0
    if arguments.receipt and progress.is_done:
        unfound = progress.selected["receipt"]["count"] - tally.events
    document = {
        "done": progress.is_done,
        "dry_run": arguments.dry_run,
        **tally.as_json(),
        "not_found": unfound,
        "gone": [
            {"partition": one.partition, "first": one.first, "last": one.last, "left_since_us": one.since_us}
            for one in progress.gone
        ],
    }
    if arguments.json:
        print_json(document)
    else:
        _print(document, reprocess=arguments.reprocess)
    for one in progress.gone:
        print(printable(str(one)), file=sys.stderr)
    if not progress.is_done:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    return 1 if progress.gone or tally.undecided or tally.uncounted or unfound else 0


def _print(document: dict[str, Any], *, reprocess: bool) -> None:
    rows = [("events", "in what was asked for"), ("missing", "that should be in the store and were not")]
    if reprocess or document["moved"]:
        rows.append(("changed", "whose document or outcome is another now"))
    if not document["dry_run"]:
        rows.append(("written", "documents written"))
    optional = [
        ("expired", "left alone: older than store.retention_days"),
        ("undecided", "left alone: lost or never stored, the ledger had no room to say (accounting.exceptions_max)"),
        ("uncounted", "left alone: the ledger knows nothing of them, or not any more"),
        ("not_found", "of the receipt are not in the queue, or no worker has accounted for them yet"),
    ]
    for name, text in [*rows, *(row for row in optional if document[row[0]])]:
        print(f"{document[name]:>12,}  {text}")
    for pair, count in sorted(document["moved"].items()):
        print(f"{count:>12,}  {pair.replace('_', '-')}")
