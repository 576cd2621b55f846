"""List who sends: class, rate, when last, what of it is lost or missing.

Class A numbers its events, so that losses before the door are exact; class D does not, and what of it never
reached the door is unknown.
"""

from __future__ import annotations

import argparse
from contextlib import closing

import orjson
from rich.table import Table

from logweir.audit import EmitterBooks, name_of, read_books
from logweir.audit_command import console, count_text, ranges_text, whole
from logweir.clock import iso_seconds, now_us
from logweir.config import Settings
from logweir.search import printable
from logweir.store import open_store

_QUIET_S = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    now = now_us()
    with closing(open_store(settings.store)) as store:
        late_us = settings.accounting.late_us
        books = read_books(store, group=settings.worker.group, late_us=late_us, now_us=now)
    emitters = sorted(books.emitters.values(), key=lambda one: name_of(one.emitter))
    if arguments.json:
        rows = [{**one.as_json(), "state": state_of(one, now)} for one in emitters]
        print(orjson.dumps([whole(row) for row in rows]).decode())
    else:
        console().print(_table(emitters, now))
    return 0


def state_of(books: EmitterBooks, now: int) -> str:
    """``gone`` after a goodbye of its latest run, ``quiet`` after minutes without an event, else ``sending``."""
    latest = max(books.runs, key=lambda run: run.tracker.last_us, default=None)
    if latest is not None and latest.tracker.bye:
        return "gone"
    return "quiet" if now - books.last_us > _QUIET_S * 1_000_000 else "sending"


def _table(emitters: list[EmitterBooks], now: int) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("EMITTER", overflow="fold")
    table.add_column("CLASS")
    table.add_column("STATE")
    table.add_column("LAST SEEN")
    for name in ("EVENTS/S", "LOST", "RECOVERED", "MISSING", "DROPPED"):
        table.add_column(name, justify="right")
    table.add_column("LOST NOW", overflow="fold")
    for one in emitters:
        losses = (count_text(one.total(name)) for name in ("lost", "recovered", "missing", "dropped"))
        table.add_row(
            printable(name_of(one.emitter)), one.honesty, state_of(one, now), _time(one.last_us),
            f"{one.rate_per_s:,.2f}", *losses, ranges_text(one),
        )  # fmt: skip
    return table


def _time(time_us: int) -> str:
    return iso_seconds(time_us) if time_us else "-"
