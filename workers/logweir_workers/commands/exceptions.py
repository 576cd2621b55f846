"""Keep some events from counting for a rule: from an alert that was none, or by a query; with a reason, for a while.

    logweir exceptions from 3f2a91 --field details.sourceipaddress --reason 'the scanner of the audit'
    logweir exceptions add ssh_brute_force 'hostname:bastion1' --until 30d --reason 'people mistype there'
    logweir exceptions list
    logweir exceptions end 5c11d0aa

An exception is for 90 days unless it says otherwise. One with which the rule would not fire for its own examples is
refused.
"""

from __future__ import annotations

import argparse
from typing import Any

from logweir.alerts import alert, exceptions
from logweir.alerts.exceptions import ExceptionState, RuleException
from logweir.alerts.rules import Rule
from logweir.clock import iso_seconds, now_us
from logweir.commands.output import print_json, user_name
from logweir.config import Settings
from logweir.errors import RULE_BAD, LogweirError
from logweir.ledger.documents import ALERTER
from logweir.query.times import time_from_now
from logweir.store import existing_store
from logweir.store.port import Store
from logweir.text import counted, printable
from logweir_workers.alerts.examples import Examples, require_narrow
from logweir_workers.alerts.loading import RuleFiles, named_rule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    made = actions.add_parser("from", help="except what the events of an alert have in common")
    made.add_argument("alert", metavar="ALERT", help="the alert's id, or how it begins")
    made.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME",
        help="whose values are excepted; again for more: all must hold (those of its group)",
    )
    added = actions.add_parser("add", help="except what a query finds")
    added.add_argument("rule", metavar="RULE", help="the rule's name")
    added.add_argument("query", metavar="QUERY", help="which events, in the search language")
    for sub in (made, added):
        sub.add_argument("--reason", required=True, metavar="TEXT", help="why")
        sub.add_argument("--until", default="90d", metavar="TIME", help="until when: 30d, or ISO 8601 (90d)")
        sub.add_argument("--force", action="store_true", help="even if its own examples do not fire any more")
    listed = actions.add_parser("list", help="list the exceptions in force, with what they kept from counting")
    listed.add_argument("--past", action="store_true", help="those that have ended, too")
    ended = actions.add_parser("end", help="end one now")
    longer = actions.add_parser("extend", help="have one end at another time")
    longer.add_argument("--until", default="90d", metavar="TIME", help="until when: 30d, or ISO 8601 (90d)")
    for sub in (ended, longer):
        sub.add_argument("id", metavar="ID", help="the exception's id")
    for sub in (made, added, ended):
        sub.add_argument("--by", metavar="NAME", help="who says so (the name of the user who calls)")
    for sub in (made, added, listed, ended, longer):
        sub.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    now = now_us()
    with existing_store(settings.store) as store:
        if arguments.action in ("from", "add"):
            found = [_add(arguments, settings, store, now)]
        elif arguments.action == "end":
            found = [exceptions.end(store.documents, arguments.id, by=arguments.by or user_name(), now_us=now)]
        elif arguments.action == "extend":
            until_us = time_from_now(arguments.until, now)
            found = [exceptions.extend(store.documents, arguments.id, until_us=until_us, now_us=now)]
        elif arguments.past:
            found = exceptions.past_and_present(store.documents)
        else:
            found = exceptions.active(store.documents, now)
        hits = _hits(store, settings.worker.group)
    rows = [{**one.as_dict(), "hits": hits.get(one.id, 0), "ends_soon": one.ends_soon(now)} for one in found]
    if arguments.json:
        print_json({"exceptions": rows})
        return 0
    for one, row in zip(found, rows, strict=True):
        _print(one, row, now)
    if arguments.action == "list":
        print(f"{counted(len(found), 'exception')}.")
    return 0


def _add(arguments: argparse.Namespace, settings: Settings, store: Store, now: int) -> RuleException:
    """Raises LogweirError: EXCEPTION_TOO_WIDE, RULE_UNKNOWN, ALERT_UNKNOWN and those of ``exceptions.add``."""
    alert_id = None
    if arguments.action == "from":
        body = alert.find(store.documents, arguments.alert).body
        alert_id, name = body["id"], body["rule"]
        query = exceptions.query_of(body, arguments.field or list(body.get("group", {})))
    else:
        name, query = arguments.rule, arguments.query
    files = RuleFiles(settings.alerts, settings.rules_path, last_read=settings.rules_last_read_path)
    rule = named_rule(name, files.rules.values())
    by, until_us = arguments.by or user_name(), time_from_now(arguments.until, now)
    exceptions.require_sound(query=query, reason=arguments.reason, until_us=until_us, now_us=now)
    wanted = RuleException("", name, query, arguments.reason, by, "", "")
    _require_fit(rule, wanted, settings, is_forced=arguments.force)
    return exceptions.add(
        store.documents,
        rule=name,
        query=query,
        reason=arguments.reason,
        by=by,
        until_us=until_us,
        now_us=now,
        alert=alert_id,
        is_tried=True,
    )


def _require_fit(rule: Rule, wanted: RuleException, settings: Settings, *, is_forced: bool) -> None:
    if rule.is_about_books:
        reason = "it is about what the accounting finds, not about events: mute its alerts, or change its condition"
        raise LogweirError(RULE_BAD, rule=rule.name, reason=reason)
    if not is_forced:
        require_narrow(rule, wanted, Examples(settings))


def _hits(store: Store, group: str) -> dict[str, int]:
    """By exception, how many matches it kept from counting, as far as that is written down."""
    hits: dict[str, int] = {}
    for _, document in ALERTER.scan(store.ledger, group):
        for id, count in document.body.get("exceptions", {}).items():
            hits[id] = hits.get(id, 0) + count
    return hits


def _print(one: RuleException, row: dict[str, Any], now: int) -> None:
    state = f"until {one.ends}" if one.ends > iso_seconds(now) else f"ended {one.ends}"
    if one.state != ExceptionState.IN_FORCE:
        state = f"{one.state}, {state}" + (f" ({printable(one.refusal)})" if one.refusal else "")
    soon = ", SOON: extend it, or let it end" if row["ends_soon"] else ""
    by = f"{one.by}: {one.reason}" + (f" (ended by {one.ended_by})" if one.ended_by else "")
    matches = counted(row["hits"], "match", plural="matches", separator=",")
    print(f"{one.id}  {one.rule}  {state}{soon}  {matches}  {printable(one.query)}  {printable(by)}")
