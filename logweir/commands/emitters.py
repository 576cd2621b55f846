"""List who sends, or whose events they are: class, state, rate, when last, what of it is lost or missing.

    logweir emitters
    logweir emitters --sources --state silent
    logweir emitters silent
    logweir emitters expect backup/db-1 --every 24h
    logweir emitters mute --source syslog@printer-7 --for 8h

The class says how well losses before ingest are known: *exact* where the emitter numbers its events, *from fields*
where they bring numbers of their own, *unknown* of all others. A source is a category and a host name, as
category@hostname. States: learning, ok, late, silent, retired, muted. Of those that fell silent together `silent` makes
one finding; it exits with 1 when there is any.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from logweir.audit.books import read_books
from logweir.audit.emitters import EmitterBooks
from logweir.clock import DAY_US, duration_in_words, duration_us, iso_seconds, now_us
from logweir.commands.output import (
    console,
    count_text,
    print_json,
    print_left_out,
    ranges_text,
    rows_shown,
    whole,
)
from logweir.config import Settings
from logweir.errors import EMITTER_UNKNOWN, LogweirError
from logweir.ledger.emitter import name_of
from logweir.ledger.expectations import FOREVER_US, Expectation, set_expectation
from logweir.process.lifetime import owner_new
from logweir.silence.states import Silence, read_silence
from logweir.silence.watched import State, Watched
from logweir.store import existing_store
from logweir.store.port import Store
from logweir.text import counted, printable

_EVERY_US_MIN = 60_000_000
# Silence is known for as long as it is known what was heard: 35 days.
_EVERY_US_MAX = 13 * DAY_US
_MEMBERS_SHOWN_MAX = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print JSON: an array; for silent and all changes, an object"
    )
    parser.add_argument("--sources", action="store_true", help="list sources (category@hostname) instead of emitters")
    parser.add_argument("--state", choices=[state.value for state in State], help="only those in this state")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    silent = actions.add_parser("silent", help="who has fallen silent, together where it was together")
    silent.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
    expect = _add_change(actions, "expect", "fix how often it is to be heard of, instead of what was learned")
    expect.add_argument(
        "--every",
        required=True,
        type=_duration(_EVERY_US_MIN, _EVERY_US_MAX),
        metavar="TIME",
        help="longest time between two events: 5m, 24h, …; from 1m to 13d",
    )
    _add_change(actions, "unexpect", "go by what was learned again")
    mute = _add_change(actions, "mute", "say nothing of it, for a while or until unmute")
    mute.add_argument(
        "--for", dest="for_us", type=_duration(1, 10**17), metavar="TIME", help="for so long: 30m, 8h, 7d, …"
    )
    _add_change(actions, "unmute", "watch it again")
    _add_change(actions, "retire", "it is not coming back; if it does, it is watched again by itself")
    _add_change(actions, "unretire", "it is to come back: watch it again")


def _add_change(actions: Any, name: str, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=help)
    parser.add_argument("name", metavar="NAME", help="as the list has it")
    parser.add_argument("--source", action="store_true", help="NAME is a source's, category@hostname")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
    return parser


def _duration(least_us: int, most_us: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        found = duration_us(text)
        if found is None or not least_us <= found <= most_us:
            raise argparse.ArgumentTypeError(f"{text!r} is not a time in its bounds; write 5m, 8h or 7d")
        return found

    return read


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    now = now_us()
    with existing_store(settings.store) as store:
        if arguments.action == "silent":
            return _print_findings(_read(store, settings, now), as_json=arguments.json)
        if arguments.action is not None:
            return _change(arguments, settings, store, now)
        silence = _read(store, settings, now)
        if arguments.sources:
            _list_sources(arguments, silence)
        else:
            late_us, group = settings.accounting.late_us, settings.worker.group
            books = read_books(store, group=group, late_us=late_us, now_us=now)
            _list_emitters(arguments, silence, list(books.emitters.values()))
    return 0


def _read(store: Store, settings: Settings, now: int) -> Silence:
    return read_silence(store, group=settings.worker.group, settings=settings.silence, now_us=now)


# --- what a person says --------------------------------------------------------------------------------------------
def _change(arguments: argparse.Namespace, settings: Settings, store: Store, now: int) -> int:
    is_source = arguments.source or arguments.sources
    one = _named(_read(store, settings, now), arguments.name, is_source=is_source)
    changes: dict[str, Callable[[Expectation], Expectation]] = {
        "expect": lambda before: replace(before, every_s=arguments.every // 1_000_000),
        "unexpect": lambda before: replace(before, every_s=None),
        "mute": lambda before: replace(
            before, muted_until_us=now + arguments.for_us if arguments.for_us else FOREVER_US
        ),
        "unmute": lambda before: replace(before, muted_until_us=None),
        "retire": lambda before: replace(before, retired_us=now),
        "unretire": lambda before: replace(before, retired_us=None),
    }
    set_expectation(store, settings.worker.group, one.subject, changes[arguments.action], owner=owner_new())
    changed = _named(_read(store, settings, now), arguments.name, is_source=is_source)
    if arguments.json:
        print_json(whole(changed.as_json()))
    else:
        console().print(f"{printable(changed.name)}: {changed.state.value}, expected {_every(changed)}", markup=False)
    return 0


def _named(silence: Silence, name: str, *, is_source: bool) -> Watched:
    """Raises LogweirError(EMITTER_UNKNOWN)."""
    watched = {one.name: one for one in (silence.sources if is_source else silence.emitters)}
    if name in watched:
        return watched[name]
    nearest = difflib.get_close_matches(name, watched, n=1)
    raise LogweirError(
        EMITTER_UNKNOWN,
        what="source" if is_source else "emitter",
        name=name,
        nearest=f" Did you mean {nearest[0]!r}?" if nearest else "",
        command="logweir emitters --sources" if is_source else "logweir emitters",
    )


# --- lists ---------------------------------------------------------------------------------------------------------
def _list_emitters(arguments: argparse.Namespace, silence: Silence, books: Sequence[EmitterBooks]) -> None:
    watched = {(one.subject[1], one.subject[2]): one for one in silence.emitters}
    rows = [(one, watched.get(one.emitter)) for one in sorted(books, key=lambda one: name_of(one.emitter))]
    if arguments.state is not None:
        rows = [(one, found) for one, found in rows if found is not None and found.state == arguments.state]
    if arguments.json:
        print_json([whole(_document(one, found)) for one, found in rows])
        return
    table = _table(
        "EMITTER",
        "CLASS",
        "STATE",
        "EXPECTED",
        "LAST SEEN",
        "EVENTS/S",
        "LOST",
        "LATE",
        "MISSING",
        "DROPPED",
        "LOST NOW",
    )
    shown, left = rows_shown(rows, key=lambda row: row[0].emitter[0], matters=_has_something_to_say)
    for one, found in shown:
        losses = (count_text(one.total(name)) for name in ("lost", "recovered", "missing", "dropped"))
        table.add_row(
            printable(name_of(one.emitter)),
            one.loss_class.value.replace("_", " "),
            found.state.value if found else "-",
            _every(found) if found else "-",
            _time(one.last_us),
            f"{one.rate_per_s:,.2f}",
            *losses,
            ranges_text(one),
        )
    console().print(table)
    print_left_out(console(), (one.emitter[0] for one, _ in left), "emitter")
    _print_notes(silence)


def _has_something_to_say(row: tuple[EmitterBooks, Watched | None]) -> bool:
    """Whether anything of it is lost or missing, or it is late or silent."""
    one, found = row
    is_missed = found is not None and found.state in (State.LATE, State.SILENT)
    return bool(is_missed or one.total("lost") or one.total("missing"))


def _document(one: EmitterBooks, found: Watched | None) -> dict[str, Any]:
    """``late``: of its numbers, those that came after they were counted as lost."""
    watched = found.as_json() if found else {"state": None, "expected_s": None}
    return {**watched, **one.as_json(), "late": one.total("recovered")}


def _list_sources(arguments: argparse.Namespace, silence: Silence) -> None:
    rows = [one for one in silence.sources if arguments.state in (None, one.state)]
    if arguments.json:
        print_json([whole(one.as_json()) for one in rows])
        return
    table = _table("SOURCE", "STATE", "EXPECTED", "LAST SEEN", "SILENT FOR", "LAST KEY", "FROM")
    shown, left = rows_shown(
        rows, key=lambda one: one.last.key, matters=lambda one: one.state in (State.LATE, State.SILENT)
    )
    for one in shown:
        last = one.last
        silent = duration_in_words(one.silent_s) if one.silent_s else "-"
        table.add_row(
            printable(one.name),
            one.state.value,
            _every(one),
            _time(last.received_us),
            silent,
            printable(last.key),
            printable(last.source_address),
        )
    console().print(table)
    print_left_out(console(), (one.last.key for one in left), "source")
    _print_notes(silence)


def _print_findings(silence: Silence, *, as_json: bool) -> int:
    if as_json:
        print_json(whole({**silence.as_json(), **_only_silent(silence)}))
    else:
        for finding in silence.findings:
            names = [printable(one.name) for one in finding.members[:_MEMBERS_SHOWN_MAX]]
            more = len(finding.members) - len(names)
            since = f"silent since {_time(finding.since_us)}"
            if len(finding.members) == 1:
                one = finding.members[0]
                line = (
                    f"{finding.kind} {names[0]} is {since}: {duration_in_words(one.silent_s)}, expected {_every(one)}"
                )
            else:
                rest = f" and {more:,} more" if more else ""
                count = counted(len(finding.members), finding.of, separator=",")
                line = f"{finding.kind} {printable(finding.name)}: {count} {since}: {', '.join(names)}{rest}"
            console().print(line, markup=False, soft_wrap=True)
        if not silence.findings:
            console().print("Nobody has fallen silent.")
        _print_notes(silence, of_findings=False)
    return 1 if silence.findings else 0


def _only_silent(silence: Silence) -> dict[str, Any]:
    return {
        name: [one.as_json() for one in watched if one.state is State.SILENT]
        for name, watched in (("emitters", silence.emitters), ("sources", silence.sources))
    }


def _print_notes(silence: Silence, *, of_findings: bool = True) -> None:
    """What a list alone would hide: findings, what was not watched, how far it is judged."""
    if of_findings and silence.findings:
        console().print(f"Findings of silence: {len(silence.findings):,}. See them: logweir emitters silent")
    if silence.emitters_untracked:
        batches = counted(silence.emitters_untracked, "batch", plural="batches", separator=",")
        console().print(f"Not watched: {batches} of emitters beyond accounting.emitters_max.")
    if silence.sources_untracked:
        records = counted(silence.sources_untracked, "record", separator=",")
        console().print(f"Not watched: {records} of sources beyond accounting.sources_max.")
    judged = f"up to {_time(silence.judged_us)}" if silence.judged_us else "not yet: not all partitions are read"
    console().print(f"Silence is judged {judged}.", markup=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        if name in ("EVENTS/S", "LOST", "LATE", "MISSING", "DROPPED", "SILENT FOR"):
            table.add_column(name, justify="right")
        else:
            table.add_column(name, overflow="fold")
    return table


def _every(one: Watched) -> str:
    if one.expected_s is None:
        return "-"
    return f"every {duration_in_words(int(one.expected_s))}" + (
        " (fixed)" if one.expectation.every_s is not None else ""
    )


def _time(time_us: int) -> str:
    return iso_seconds(time_us) if time_us else "-"
