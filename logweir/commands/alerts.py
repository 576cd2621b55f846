"""List and show alerts, and say what has become of them.

    logweir alerts list                                    those that are not closed, newest first
    logweir alerts list 'severity:high AND rule:ssh*' --since 1d --closed
    logweir alerts show 3f2a
    logweir alerts close 3f2a --reason benign --comment 'the nightly scan'

An alert is named by its id or the beginning of it. docs/alerting.md says what alerts have to search by.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from logweir.alerts import alert
from logweir.alerts.alert import ALERTS, Reason
from logweir.clock import duration_in_words, now_us
from logweir.commands.output import console, integer, print_json, user_name
from logweir.config import Settings
from logweir.errors import PARAMETER_BAD, LogweirError
from logweir.query.times import time_bounds, time_from_now
from logweir.query.tree import PAGE_MAX
from logweir.store import existing_store
from logweir.store.port import Store
from logweir.text import counted, printable, some_of

_NAMED_MAX = 20
_STYLES = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "info": "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="list alerts, newest first")
    listed.add_argument("query", nargs="?", default="*", metavar="QUERY", help="what to look for (*: all)")
    listed.add_argument("--since", metavar="AGE", help="only what changed in the last 15m, 1h, 7d, …")
    listed.add_argument("--closed", action="store_true", help="those that are closed, too")
    kinds = listed.add_mutually_exclusive_group()
    kinds.add_argument(
        "--near-misses",
        dest="kind",
        action="store_const",
        const="near_miss",
        default="alert",
        help="what could have fired with events that are missing",
    )
    kinds.add_argument(
        "--shadow",
        dest="kind",
        action="store_const",
        const="shadow",
        help="what shadowed rules would have said",
    )
    listed.add_argument("--size", type=integer, default=100, metavar="N", help="most alerts shown (100)")
    shown = actions.add_parser("show", help="show one alert: what, why, whether it could be wrong, its history")
    changes = {
        "ack": "say that somebody looks after it",
        "assign": "say who looks after it",
        "note": "write something down",
        "snooze": "want to hear nothing of it for a while",
        "close": "say that it is done with, and why",
        "reopen": "say that it is not done with",
    }
    made = {name: actions.add_parser(name, help=help) for name, help in changes.items()}
    for name, sub in {"show": shown, **made}.items():
        sub.add_argument("id", metavar="ID", help="the alert's id, or the beginning of it")
        if name != "show":
            sub.add_argument("--by", metavar="NAME", help="who says so (the name of the user who calls)")
    made["assign"].add_argument("to", nargs="?", metavar="WHO", help="who is to look after it; left out, nobody")
    made["note"].add_argument("text", metavar="TEXT", help="what to write down")
    made["snooze"].add_argument("until", metavar="TIME", help="until when: 2h, 1d, or a time as ISO 8601")
    made["close"].add_argument("--reason", required=True, choices=[str(one) for one in Reason], help="why")
    made["close"].add_argument("--comment", default="", metavar="TEXT", help="what else is to be said")
    for sub in (listed, shown, *made.values()):
        sub.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    with existing_store(settings.store) as store:
        if arguments.action == "list":
            return _list(arguments, store)
        found = alert.find(store.documents, arguments.id)
        if arguments.action != "show":
            found = alert.change(store.documents, found.id, _change(arguments))
        if arguments.json:
            print_json(found.body)
        elif arguments.action == "show":
            _print(found.body, arguments.data_dir)
        else:
            print(printable(f"{found.id}: {alert.sentence(found.body['history'][-1])}. It is {_standing(found.body)}."))
    return 0


def _change(arguments: argparse.Namespace) -> alert.Change:
    by, now = arguments.by or user_name(), now_us()
    match arguments.action:
        case "ack":
            return alert.acknowledge(by, now)
        case "assign":
            return alert.assign(by, now, to=arguments.to)
        case "note":
            return alert.note(by, now, text=arguments.text)
        case "snooze":
            return alert.snooze(by, now, until_us=time_from_now(arguments.until, now))
        case "close":
            return alert.close(by, now, reason=Reason(arguments.reason), comment=arguments.comment)
    return alert.reopen(by, now)


def _list(arguments: argparse.Namespace, store: Store) -> int:
    if not 1 <= arguments.size <= PAGE_MAX:
        raise LogweirError(PARAMETER_BAD, name="--size", value=arguments.size, expected=f"from 1 to {PAGE_MAX}")
    query = alert.query_of(arguments.query, with_closed=arguments.closed, kind=arguments.kind)
    from_us, _ = time_bounds(arguments.since, None, now_us())
    page = store.documents.search(ALERTS, query, size=arguments.size, from_us=from_us)
    bodies = [one.body for one in page.documents]
    if arguments.json:
        print_json({"total": page.total, "alerts": bodies})
        return 0
    if bodies:
        table = Table(box=None)
        for name in ("Id", "Severity", "Updated", "Rule", "Summary", "Count", "Completeness", "Status", "Assignee"):
            table.add_column(name, no_wrap=name in ("Id", "Severity", "Updated", "Status"))
        for body in bodies:
            table.add_row(
                body["id"],
                f"[{_STYLES[body['severity']]}]{body['severity']}[/]",
                body["updated"],
                _escaped(body["rule"]),
                _escaped(body["summary"]) + (" [dim](late)[/]" if body.get("late") else ""),
                f"{body['count']:,}",
                _completeness_text(body["completeness"]),
                _status(body).replace(" until ", " until\n"),
                _escaped(body["assignee"]),
            )
        console().print(table)
    if page.total > len(bodies):
        print(f"The newest {len(bodies)} of {page.total} alerts are shown.", file=sys.stderr)
    elif not bodies:
        print("0 alerts found.", file=sys.stderr)
    return 0


def _escaped(value: object) -> str:
    return escape(printable(value))


def _status(body: dict[str, Any]) -> str:
    """With until when it is snoozed."""
    until = body.get("snoozed_until")
    return f"{body['status']} until {until}" if until else str(body["status"])


def _standing(body: dict[str, Any]) -> str:
    return f"{_status(body)}, assignee {printable(body['assignee'])}"


def _completeness_text(completeness: dict[str, Any]) -> str:
    missing = completeness.get("missing")
    return f"{missing:,} missing" if missing else str(completeness.get("state"))


def _print(body: dict[str, Any], data_dir: Path | None) -> None:
    completeness = body["completeness"]
    lines = [
        f"{body['summary']}",
        f"  {body['severity']}, {_standing(body)}",
        *_closed_lines(body.get("closed")),
        f"  rule {body['rule']} (revision {body['revision']})",
        f"  runbook: {body.get('runbook') or 'none'}",
        *_origin_lines(body.get("origin")),
        f"  {counted(body['count'], 'event')} from {body['first']} to {body['last']}"
        + (f", {duration_in_words(body['late']['late_s'])} late" if body["late"] else ""),
        *(f"  {name}: {printable(value)}" for name, value in body["group"].items()),
        f"  completeness: {_completeness_text(completeness)}"
        + (f", up to {completeness['up_to']}" if completeness.get("up_to") else ""),
        *(f"    {printable(one['emitter'])}: {one['missing']} missing" for one in completeness.get("emitters", ())),
        *(f"    {printable(one)}: jumped, so what it lost is unknown" for one in completeness.get("jumped", ())),
    ]
    lines += _revision_lines(body)
    lines += _finding_lines(body.get("finding"))
    if "storm" in body:
        groups = [", ".join(values) for values in body["storm"]["named"]]
        own = "has an alert" if body["storm"]["apart"] == 1 else "have alerts"
        lines.append(f"  {body['storm']['apart']} {own} of their own; others: {some_of(groups, _NAMED_MAX)}")
    if body["search"]:
        where = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir is not None else ""
        lines.append(f"  all events: logweir search {_quoted(body['search'])}{where}")
    if body["previous"]:
        lines.append(f"  goes on from {body['previous']}, which was closed")
    lines += ["Evidence:"] if body["evidence"] else []
    for one in (*body["evidence"], *body["evidence_last"]):
        event = one["event"]
        text = event.get("summary") or event.get("details")
        lines.append(f"  {printable(event.get('timestamp'))} {printable(event.get('hostname'))} {printable(text)}")
    lines += ["Notes:"] if body["notes"] else []
    lines += [f"  {note['time']} {note['by']}: {note['text']}" for note in body["notes"]]
    lines.append("History:")
    lines += [f"  {one.get('time', '')} {alert.sentence(one)}" for one in body["history"]]
    print("\n".join(printable(line) for line in lines))


def _closed_lines(closed: dict[str, Any] | None) -> list[str]:
    if closed is None:
        return []
    comment = f": {closed['comment']}" if closed.get("comment") else ""
    return [f"  closed as {closed['reason']} by {closed.get('by', 'somebody')}{comment}"]


def _origin_lines(origin: dict[str, Any] | None) -> list[str]:
    """Of an alert of one of Sigma's rules, what the rule's author says of it."""
    if not origin:
        return []
    return [
        f"  Sigma {name}: {', '.join(value) if isinstance(value, list) else value}"
        for name, value in origin.items()
        if name != "level"
    ]


def _revision_lines(body: dict[str, Any]) -> list[str]:
    """Since when its rule counts what it counts, and who asked it of stored events."""
    lines = [
        f"  revision {one['revision']} had counted {one['count']:,} from {one['first']} to {one['last']}"
        for one in body.get("earlier", ())
    ]
    if body.get("counts_since"):
        lines.append(f"  its rule is asked as it is since {body['counts_since']}: what matched before is not known")
    if backfilled := body.get("backfilled"):
        untold = "" if backfilled["is_told"] else ", and channels were not told"
        lines.append(f"  backfilled by {backfilled['by']} at {backfilled['time']}{untold}")
    return lines


def _finding_lines(found: dict[str, Any] | None) -> list[str]:
    """What the accounting has found, of an alert about that."""
    if found is None:
        return []
    ranges = ", ".join(f"{first} to {last}" for first, last in found["numbers"])
    blind = some_of(found["blind"], _NAMED_MAX)
    named = {
        "emitters": some_of(found["emitters"], _NAMED_MAX),
        "hosts": some_of(found["hosts"], _NAMED_MAX),
        "numbers": ranges,
        "soon after": ", ".join(found["alerts"]),
        f"blind for it ({counted(found['blind_count'], 'rule')})": blind,
    }
    return [f"  {name}: {text}" for name, text in named.items() if text]


def _quoted(search: dict[str, str]) -> str:
    query = search["query"].replace("'", "'\\''")
    return f"'{query}' --time-field {search['time_field']} --from {search['from']} --to {search['to']}"
