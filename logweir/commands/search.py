"""Search the stored events, newest first.

    logweir search 'category:syslog AND (sshd OR "failed password")' --since 1h
    logweir search 'details.username:root' --from 2026-01-31 --to 2026-02-01 --json

docs/reference/query.md has the language. Without a query, everything in the time range is found.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from logweir.clock import now_us
from logweir.commands.output import integer, print_json
from logweir.config import Settings
from logweir.errors import PARAMETER_BAD, SEARCH_ABANDONED, LogweirError
from logweir.query.parse import parse
from logweir.query.times import time_bounds
from logweir.query.tree import PAGE_MAX, TIME_FIELDS
from logweir.store import existing_store
from logweir.store.port import COUNT_TIMEOUT_S, Cancellation, Hits, Store
from logweir.text import printable

_PAGE = 1000
# A dash and two characters or more, but neither a long option nor a negative number.
_DASHED_QUERY = re.compile(r"-(?!-)(?![0-9.]+$)..+", re.DOTALL)
_SEVERITY_STYLES = {
    "EMERGENCY": "bold red",
    "ALERT": "bold red",
    "CRITICAL": "bold red",
    "ERROR": "red",
    "WARNING": "yellow",
    "DEBUG": "dim",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="?", default="*", metavar="QUERY", help="what to look for (*: everything)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--since", metavar="AGE", help="only the last 15m, 1h, 7d, …")
    start.add_argument("--from", dest="from_", metavar="TIME", help="only from then on: ISO 8601, epoch seconds or age")
    to_help = "only before then; the same as --from: that day, hour, second, as it is written"
    parser.add_argument("--to", metavar="TIME", help=to_help)
    parser.add_argument("--size", type=integer, default=100, metavar="N", help="most events shown (100); 0 for all")
    parser.add_argument(
        "--time-field",
        choices=TIME_FIELDS,
        default=TIME_FIELDS[0],
        help="the time that bounds and sorts the hits: of receipt, or of what happened (receivedtimestamp)",
    )
    parser.add_argument("--oldest-first", action="store_true", help="in the order of time, not newest first")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print each event as one line of JSON")
    form.add_argument("--count", action="store_true", help="print how many there are, nothing else")


def unambiguous(words: list[str]) -> list[str]:
    """A query such as -hostname:web1 gets a space in front, so that it is not read as the option -h."""
    return [f" {word}" if _DASHED_QUERY.fullmatch(word) else word for word in words]


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.size < 0:
        raise LogweirError(PARAMETER_BAD, name="--size", value=arguments.size, expected="0 or more")
    start = arguments.since or arguments.from_
    now = now_us()
    from_us, to_us = time_bounds(start, arguments.to, now)
    search = {
        "query": parse(arguments.query.strip(), now_us=now),
        "from_us": from_us,
        "to_us": to_us,
        "time_field": arguments.time_field,
    }
    with existing_store(settings.store) as store, _interruptible() as search["cancellation"]:
        if arguments.count:
            print(store.count(**search).number)
            return 0
        shown, is_more = 0, False
        search["oldest_first"] = arguments.oldest_first
        show = print_json if arguments.json else _Lines(arguments.time_field).show
        for hits in _pages(store, search, size=arguments.size):
            shown, is_more = shown + len(hits.events), hits.after is not None
            for event in hits.events:
                show(event)
        if not shown:
            print("0 events found.", file=sys.stderr)
        elif is_more:
            # Behind the rows, which nobody is to wait for.
            sys.stdout.flush()
            del search["oldest_first"]
            total = store.count(timeout_s=COUNT_TIMEOUT_S, **search).said(seen=shown + 1)
            which, verb = "oldest" if arguments.oldest_first else "newest", "is" if shown == 1 else "are"
            print(f"The {which} {shown} of {total} {verb} shown; --size 0 shows all.", file=sys.stderr)
    return 0


@contextmanager
def _interruptible() -> Iterator[Cancellation]:
    """Have Ctrl-C stop a search in the store, too: SQLite would take an exception in its callbacks for an error."""
    cancellation = Cancellation()
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield cancellation  # Whoever started us wants no Ctrl-C.
        return

    def stop(number: int, frame: Any) -> None:
        cancellation.cancel()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, stop)
    try:
        yield cancellation
    except LogweirError as error:
        if error.problem is SEARCH_ABANDONED:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _pages(store: Store, search: dict[str, Any], *, size: int) -> Iterator[Hits]:
    """Pages of together at most ``size`` events; of all when that is 0."""
    left, after = size, None
    while True:
        page = min(left, PAGE_MAX) if size else _PAGE
        hits = store.search(size=page, after=after, **search)
        yield hits
        left -= len(hits.events)
        after = hits.after
        if after is None or (size and left <= 0):
            return


class _Lines:
    """One line an event: time, host, category, severity, summary. In colours on a terminal."""

    def __init__(self, time_field: str) -> None:
        self._time_field = time_field
        self._console = Console(highlight=False, soft_wrap=True)

    def show(self, event: dict[str, Any]) -> None:
        style = _SEVERITY_STYLES.get(str(event.get("severity")), "")
        summary = event["summary"] if "summary" in event else orjson.dumps(event.get("details", {})).decode()
        line = Text(printable(event.get(self._time_field)), "dim")
        line.append(f" {printable(event.get('hostname')):<16}", "cyan")
        line.append(f" {printable(event.get('category')):<12}", "dim")
        line.append(f" {printable(event.get('severity')):<9}", style)
        line.append(f" {printable(summary)}", style)
        self._console.print(line)
