"""`logweir rules backfill`: the alerts that a rule would have made of stored events, made after all."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from logweir.alerts.catalogue import note_backfill
from logweir.alerts.rules import Rule
from logweir.clock import iso_seconds, now_us
from logweir.commands.output import print_json, user_name
from logweir.config import Settings
from logweir.process.lifetime import set_on_stop_signals
from logweir.query.times import time_bounds
from logweir.store import existing_store
from logweir.text import counted, printable
from logweir_workers.alerts.backfill import Backfill, Backfilled, Bounds, read_bounds
from logweir_workers.alerts.loading import named_rule

_ALERTS_SHOWN_MAX = 100
_TELL_INTERVAL_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rule", metavar="RULE", help="the rule's name")
    parser.add_argument(
        "--since", default="7d", metavar="TIME", help="what began in that hour or later: 7d, ISO 8601 (7d)"
    )
    parser.add_argument("--until", metavar="TIME", help="what began before then (as far as the alerter is done with)")
    parser.add_argument("--dry-run", action="store_true", help="only say what there is to make")
    parser.add_argument("--notify", action="store_true", help="tell channels of the alerts, as of others")
    parser.add_argument("--by", metavar="NAME", help="who wants it (the name of the user who calls)")


def run(arguments: argparse.Namespace, rules: Sequence[Rule], settings: Settings) -> int:
    """Exit status 130 where it was stopped, 1 where the rule's own code failed. Raises LogweirError."""
    rule = named_rule(arguments.rule, rules)
    from_us, to_us = time_bounds(arguments.since, arguments.until, now_us())
    by = arguments.by or user_name()
    stopping = set_on_stop_signals()
    with existing_store(settings.store) as store:
        bounds = read_bounds(store, rule, settings)
        backfill = Backfill(
            store,
            rule,
            settings,
            from_us=from_us or 0,
            to_us=to_us or now_us(),
            bounds=bounds,
            by=by,
            is_told=arguments.notify,
            is_dry_run=arguments.dry_run,
            stopping=stopping,
            clock=now_us,
        )
        made = backfill.run(_Teller())
        if not made.is_dry_run:
            note_backfill(store.documents, rule.name, {"by": by, **_kept(made)}, now_us=now_us())
    if arguments.json:
        print_json({**made.as_json(), "alerter_until": iso_seconds(max(0, bounds.alerter_us))})
    else:
        _print(made, bounds, is_bounded=(to_us or now_us()) > bounds.end_us)
    if made.is_stopped:
        print("Stopped. The same command makes what is left.", file=sys.stderr)
        return 130
    return 1 if made.looked.errors else 0


def _kept(made: Backfilled) -> dict[str, object]:
    """What the rule's page remembers of it."""
    names = ("revision", "from", "to", "made", "there", "folded", "stopped", "unevaluated")
    said = made.as_json()
    return {name: said[name] for name in names}


class _Teller:
    """Says on standard error how far it is."""

    def __init__(self) -> None:
        self._due_s = time.monotonic() + _TELL_INTERVAL_S

    def __call__(self, at_us: int, made: Backfilled) -> None:
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + _TELL_INTERVAL_S
            share = min(1.0, max(0.0, (at_us - made.from_us) / max(1, made.to_us - made.from_us)))
            counts = f"{made.made:,} made, {made.there:,} there already"
            print(f"{made.rule}: {share:.0%}, at {iso_seconds(at_us)}, {counts}", file=sys.stderr)


def _print(made: Backfilled, bounds: Bounds, *, is_bounded: bool) -> None:
    for row in made.alerts[:_ALERTS_SHOWN_MAX]:
        group = ", ".join(row["group"].values())
        print(printable(f"{row['id']}  {row['first']}  {row['last']}  {row['count']:,}  {group}  {row['summary']}"))
    if made.made > _ALERTS_SHOWN_MAX:
        print(f"… and {made.made - _ALERTS_SHOWN_MAX:,} more")
    alerts, looked = counted(made.made, "alert", separator=","), made.looked
    would = "would be made" if made.is_dry_run else "made"
    there = f"{made.there:,} {'is' if made.there == 1 else 'are'} there already"
    read = f"{counted(looked.events, 'event', separator=',')} read in"
    searches = counted(looked.searches, "search", plural="searches", separator=",")
    matches = counted(looked.matches, "match", plural="matches", separator=",")
    print(f"{made.rule}: {alerts} {would}, {there}; {matches}, {read} {searches}, {looked.seconds:.1f} s.")
    if made.folded:
        print(
            f"Of hours with more than a rule's alerts of their own, {_episodes(made.folded)} only in the hour's alert."
        )
    if made.begun_before:
        print(f"Left out: {_episodes(made.begun_before)} that began before; --since an earlier time has all of it.")
    if made.going_on:
        print(f"Left to the alerter: {_episodes(made.going_on)} that may go on.")
    if is_bounded:
        who = "the alerter may still change" if bounds.alerter_us <= bounds.stored_us else "is not all stored yet"
        end = iso_seconds(max(0, bounds.end_us))
        print(f"It ends at {end}: what happened since, {who}. Ask again for that later.")
    for remark in looked.remarks():
        print(remark)


def _episodes(count: int) -> str:
    return counted(count, "episode", separator=",")
