"""Close the books: what became of every event, and which numbered ones never came.

    logweir audit --since 1h
    logweir audit --window 2026-01-31T12:05
    logweir audit close --process 5f1e9c --dry-run

The books balance when every event is accounted for; they are complete when none is lost, too. Exit status 0: both;
1: they do not balance; 3: they balance, and events are lost, or may be. ``close`` ends the books of an ingest process
that is gone: what never came of it is void.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from logweir.alerts.notices import ChannelBooks, books_of, channels_told
from logweir.audit.books import Books, explain, read_books, read_books_and_store
from logweir.audit.close import close_process
from logweir.audit.emitters import EmitterBooks
from logweir.audit.span import Span
from logweir.audit.stored import Shortage
from logweir.audit.sums import every_window, no_window
from logweir.clock import WINDOW_US, iso_seconds, now_us, window_of
from logweir.commands.output import (
    console,
    count_text,
    print_json,
    print_left_out,
    ranges_text,
    rows_shown,
    some_ranges,
    user_name,
    whole,
)
from logweir.config import Settings
from logweir.errors import LogweirError
from logweir.ledger.documents import PartitionId
from logweir.ledger.emitter import name_of
from logweir.ledger.equation import OUTCOMES, Row
from logweir.ledger.position import read_offsets
from logweir.query.times import time_bounds, time_of
from logweir.queue import open_queue
from logweir.store import existing_store
from logweir.store.port import Store
from logweir.text import counted, printable

_WATCH_INTERVAL_S = 2.0
_LOST = 3
"""The exit status when the books balance and events are lost, or may be."""
_OF_FIRST_EQUATION = ("accepted", *OUTCOMES, "in_flight")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", help="only from then on: ISO 8601, epoch seconds, or 15m, 1h, 7d, …")
    parser.add_argument("--until", metavar="TIME", help="only before then")
    parser.add_argument("--emitter", metavar="NAME", help="only this one: its name, its key's name, or key/name")
    parser.add_argument("--window", metavar="W", help="explain one minute, given by a time in it or by its number")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("action", nargs="?", choices=("close",), help="close the windows of a process that is gone")
    parser.add_argument(
        "--process", metavar="EPOCH", help="of close: the process, as --window names it; or how it begins"
    )
    parser.add_argument("--dry-run", action="store_true", help="of close: only say what it would do")
    parser.add_argument("--watch", action="store_true", help="print it every two seconds until Ctrl-C")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    with existing_store(settings.store) as store:
        if arguments.action == "close":
            return _close(arguments, settings, store)
        while True:
            status = _once(arguments, settings, store)
            if not arguments.watch:
                return status
            sys.stdout.flush()
            time.sleep(_WATCH_INTERVAL_S)
            if not arguments.json and sys.stdout.isatty():
                print("\033[H\033[2J", end="")


def _close(arguments: argparse.Namespace, settings: Settings, store: Store) -> int:
    now, group = now_us(), settings.worker.group
    books = read_books(store, group=group, late_us=settings.accounting.late_us, now_us=now)
    closed = close_process(
        store,
        group,
        books,
        arguments.process or "",
        who=f"{user_name()}@{socket.gethostname()}",
        now_us=now,
        dry_run=arguments.dry_run,
    )
    if arguments.json:
        print_json({"dry_run": arguments.dry_run, "closed": closed})
        return 0
    would = "would be " if arguments.dry_run else ""
    for one in closed:
        windows, numbers = counted(len(one.windows), "window"), counted(one.void, "number")
        place = f"process {one.ingest_epoch}, partition {one.partition}"
        print(f"{place}: {windows} {would}closed, {numbers} that never came {would}void")
    return 0


def _once(arguments: argparse.Namespace, settings: Settings, store: Store) -> int:
    now = now_us()
    span = _span(arguments, now)
    books = read_books_and_store(
        store,
        group=settings.worker.group,
        late_us=settings.accounting.late_us,
        now_us=now,
        span=span,
        keeps=every_window if arguments.window else no_window,
    )
    doubts = books.doubts
    if arguments.window:
        document = {
            "window": window_of(span.from_us or 0),
            "balanced": books.balanced,
            "rows": list(explain(books)),
            "store_shortages": [one.as_json() for one in books.shortages],
        }
        if arguments.json:
            print_json(whole(document))
        else:
            _print_window(document, books.shortages)
    else:
        unread = read_unread(settings, store, books)
        doubts += unread.doubts
        channels = _channels(store)
        if arguments.emitter and books.jumps:
            doubts.append("what was lost among numbers that were jumped over is unknown")
        if arguments.json:
            # Of what nobody has read, nobody knows.
            complete = None if books.complete and (doubts or unread.records) else books.complete
            document = {**books.as_json(), "complete": complete, "unread_records": unread.records}
            print_json(whole({**document, "channels": {one.name: one.as_dict() for one in channels}}))
        else:
            _print_books(books, unread.records, doubts)
            for one in channels:
                print(f"alerts told by {one.name}: {one.words}")
    if not books.balanced:
        return 1
    return _LOST if books.lost_now or doubts else 0


def _channels(store: Store) -> list[ChannelBooks]:
    """What became of all alerts, for each channel. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
    return [books_of(store.documents, name) for name in channels_told(store.documents).channels]


def _span(arguments: argparse.Namespace, now: int) -> Span:
    if arguments.window:
        is_number = re.fullmatch(r"[0-9]{1,8}", arguments.window)
        window = int(arguments.window) if is_number else window_of(time_of(arguments.window, now))
        return Span(window * WINDOW_US, (window + 1) * WINDOW_US, arguments.emitter)
    return Span(*time_bounds(arguments.since, arguments.until, now), arguments.emitter)


@dataclass(frozen=True, slots=True)
class Unread:
    """What of the queue no worker has accounted for yet. ``records`` is None when that is unknown."""

    records: int | None
    doubts: list[str]
    """Why something of it may be lost, or be more."""


def read_unread(settings: Settings, store: Store, books: Books) -> Unread:
    """Of the queue as it is now, behind these books. Raises LogweirError(STORE_DOWN)."""
    queue = open_queue(settings.queue, group=settings.worker.group)
    try:
        topic_id = queue.topic_id()
        ends = {PartitionId(topic_id, at): queue.offsets(at) for at in range(queue.partition_count())}
    except LogweirError:
        return Unread(None, ["what is not read yet is unknown: the queue does not answer"])
    finally:
        queue.close()
    if any(books.positions.get(place, 0) > end for place, (_, end) in ends.items()):
        return Unread(None, ["what is not read yet is unknown: the queue was set back behind what was read of it"])
    # Now, not as in the books: retention may have passed what was read since.
    positions = read_offsets(store, settings.worker.group, ends)
    if books.positions and not any(place.topic_id == topic_id for place in books.positions):
        return Unread(
            sum(end - first for first, end in ends.values()),
            ["the topic was made anew, and no worker reads it yet: what was unread of the other is unknown"],
        )
    gone = sum(max(0, first - positions.get(place, 0)) for place, (first, _) in ends.items())
    doubts = [f"{_are(gone, 'record')} gone from the queue unread"] if gone else []
    return Unread(sum(end - max(first, books.positions.get(at, 0)) for at, (first, end) in ends.items()), doubts)


# --- for people ---------------------------------------------------------------------------------------------------
def _print_books(books: Books, unread: int | None, doubts: Sequence[str]) -> None:
    out = console()
    out.print(_verdict(books, unread, doubts))
    row = books.row
    parts = [f"accepted {row.accepted:,}", *(f"{name} {count:,}" for name, count in row.outcomes.items())]
    parts += _unusual(row)
    parts.append(f"in flight {row.in_flight:,}")
    out.print(Text(", ".join(parts).replace("_", " ")))
    _print_carried(out, books)
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(books.states.items())) or "none"
    out.print(Text(f"windows: {states}"))
    for hole in books.expired:
        exactly = "all of it is counted as lost" if hole.exact else "how many events it held is unknown"
        place = f"partition {hole.partition}, offsets {hole.first} to {hole.last}"
        out.print(Text(f"expired before it was read: {place}; {exactly}", "yellow"))
    for (epoch, partition), ranges in books.lost_in_queue_ranges().items():
        numbers = some_ranges(list(ranges))
        out.print(Text(f"lost in the queue: partition {partition}, process {epoch}, numbers {numbers}", "red"))
    for (epoch, partition), ranges in books.without_window.items():
        numbers = some_ranges(list(ranges))
        text = f"the ledger has lost its windows: partition {partition}, process {epoch}, numbers {numbers}"
        out.print(Text(text, "red"))
    for one in books.store_differences:
        where = f"window {one.place.window}, partition {one.place.partition}"
        if one.difference:
            out.print(Text(f"{where}: the store has {one.stored}, the ledger says {one.indexed} indexed", "red"))
        else:
            was = f"{abs(one.first_difference)} {'fewer' if one.first_difference < 0 else 'more'}"
            found, looked = iso_seconds(one.first_us), iso_seconds(one.at_us)
            text = f"{where}: the store had {was} at {found}, and was right at {looked}: no difference any more"
            out.print(Text(text, "dim"))
    _print_shortages(out, books.shortages)
    for jump in books.jumps:
        who, numbers = counted(jump.emitters, "emitter"), counted(jump.numbers, "number", separator=",")
        text = f"key {printable(jump.key)}: {who} jumped over {numbers} that cannot have been counted up to"
        out.print(Text(f"{text}: what they lost of these is unknown", "yellow"))
    if books.emitters:
        emitters = sorted(books.emitters.values(), key=lambda one: name_of(one.emitter))
        shown, left = rows_shown(emitters, key=lambda one: one.emitter[0], matters=_has_something_to_say)
        out.print(_emitters_table(shown))
        print_left_out(out, (one.emitter[0] for one in left), "emitter")


def _print_shortages(out: Console, shortages: Iterable[Shortage]) -> None:
    for short in shortages:
        day, stream = short.place.name, short.place.stream
        where = f"{day[:4]}-{day[4:6]}-{day[6:]}, partition {stream.partition}, process {stream.ingest_epoch}"
        text = f"{where}: the store has {short.stored:,} events, {short.missing:,} fewer than were indexed"
        out.print(Text(text, "red"))


def _verdict(books: Books, unread: int | None, doubts: Sequence[str]) -> Text:
    """The first line: whether the books balance, what is lost, and what they do not know yet."""
    found = [Text("The books balance", "bold green")]
    if not books.balanced:
        found = [Text(f"THE BOOKS DO NOT BALANCE: {_are(books.imbalance, 'event')} unexplained", "bold red")]
    if books.lost_now:
        found.append(Text(f"{_are(books.lost_now, 'event')} lost", "bold red"))
    found += [Text(doubt, "bold red") for doubt in doubts]
    if unread:
        found.append(Text(f"{_are(unread, 'record')} not read yet", "yellow"))
    return Text("; ").join(found)


def _are(count: int, noun: str) -> str:
    return f"{counted(count, noun, separator=',')} {'is' if count == 1 else 'are'}"


def _unusual(row: Row) -> list[str]:
    counts = {
        "unconfirmed": row.unconfirmed,
        "lost in the queue": row.lost_in_queue,
        "undecided": row.undecided,
        "void": row.void,
    }
    return [f"{name} {count:,}" for name, count in counts.items() if count]


def _print_carried(out: Console, books: Books) -> None:
    """What the totals have of the time before the ledger's windows."""
    carried = books.carried
    if not carried.before:
        return
    row = carried.row
    parts = [f"accepted {row.accepted:,}", *(f"{name} {count:,}" for name, count in row.outcomes.items())]
    parts += _unusual(row)
    if row.unexplained:
        parts.append(f"unexplained {row.unexplained:,}")
    before = iso_seconds(carried.before * WINDOW_US)
    out.print(Text(f"of that, before {before}: " + ", ".join(parts).replace("_", " ")))


def _has_something_to_say(one: EmitterBooks) -> bool:
    """Whether anything of it is lost or missing, or its events are not all accounted for."""
    return bool(
        one.imbalance or one.row.lost_in_queue or one.total("lost") or one.total("missing") or one.total("jumped")
    )


def _emitters_table(emitters: Sequence[EmitterBooks]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("EMITTER", overflow="fold")
    table.add_column("CLASS")
    for name in ("ACCEPTED", "INDEXED", "DUPLICATE", "FILTERED", "DEAD", "IN FLIGHT", "LOST", "RECOVERED", "MISSING"):
        table.add_column(name, justify="right")
    # Seldom there: an emitter that says to have dropped what came all the same.
    is_explained = not any(one.total("unexplained") for one in emitters)
    if not is_explained:
        table.add_column("UNEXPLAINED", justify="right")
    table.add_column("LOST NOW", overflow="fold")
    for one in emitters:
        counts = ("-" if (count := one.counts[name]) is None else f"{count:,}" for name in _OF_FIRST_EQUATION)
        losses = ("lost", "recovered", "missing") if is_explained else ("lost", "recovered", "missing", "unexplained")
        table.add_row(
            printable(name_of(one.emitter)),
            one.loss_class.value.replace("_", " "),
            *counts,
            *(count_text(one.total(name)) for name in losses),
            ranges_text(one),
            style="red" if (one.total("lost") or 0) > (one.total("recovered") or 0) else "",
        )
    return table


def _print_window(document: dict[str, Any], shortages: Iterable[Shortage]) -> None:
    out = console()
    _print_shortages(out, shortages)
    if not document["rows"]:
        out.print(f"Nothing is known of window {document['window']}.")
    for row in document["rows"]:
        merged = row["merged_windows"]
        window = f"windows {merged[0]} to {merged[-1]}, merged" if merged else f"window {row['window']}"
        head = f"{window}, partition {row['partition']}, process {row['ingest_epoch']}: {row['state']}"
        out.print(Text(head, "bold red" if row["imbalance"] else "bold"))
        for name in (
            "imbalance",
            "accepted",
            "unconfirmed",
            "indexed",
            "duplicate",
            "filtered",
            "dead_lettered",
            "in_flight",
            "lost_in_queue",
            "recovered_in_queue",
            "undecided",
            "void",
            "identity_conflicts",
            "marker",
            "numbers",
            "voids",
            "not_arrived",
            "lost_in_queue_ranges",
        ):
            out.print(f"    {name.replace('_', ' '):<22}{row[name] if row[name] is not None else '-'}")
        for line in row["amendments"]:
            out.print(f"    behind the marker: {line['count']} numbers of {line['first']} to {line['last']}")
        for line in row["corrections"]:
            out.print(f"    {line['cause']}: {line['count']} from {line['from_outcome']} to {line['to_outcome']}")
        for emitter in row["emitters"]:
            counts = ", ".join(f"{name} {count}" for name, count in emitter.items() if name != "name" and count)
            out.print(Text(f"    {printable(emitter['name'])}: {counts}"))
