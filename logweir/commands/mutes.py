"""Tell nobody of some alerts for a while, as during maintenance. They are made, listed and counted all the same.

    logweir mutes add 'rule:ssh_* AND group:10.0.0.9' --until 2h --reason 'the yearly scan'
    logweir mutes list
    logweir mutes end 3f2a91c0

Alerts that still go on when their mute ends are told then.
"""

from __future__ import annotations

import argparse

from logweir.alerts import mutes
from logweir.clock import iso_seconds, now_us
from logweir.commands.output import print_json, user_name
from logweir.config import Settings
from logweir.query.times import time_from_now
from logweir.store import existing_store
from logweir.text import counted, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    added = actions.add_parser("add", help="mute the alerts that a query finds, from now on")
    added.add_argument("query", metavar="QUERY", help="which alerts, as in logweir alerts list (*: all)")
    added.add_argument("--until", required=True, metavar="TIME", help="until when: 2h, 1d, or a time as ISO 8601")
    added.add_argument("--reason", required=True, metavar="TEXT", help="why")
    listed = actions.add_parser("list", help="list the mutes in force")
    listed.add_argument("--past", action="store_true", help="those that have ended, too")
    ended = actions.add_parser("end", help="end a mute now")
    ended.add_argument("id", metavar="ID", help="the mute's id")
    for sub in (added, ended):
        sub.add_argument("--by", metavar="NAME", help="who says so (the name of the user who calls)")
    for sub in (added, listed, ended):
        sub.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    now = now_us()
    with existing_store(settings.store) as store:
        if arguments.action == "add":
            found = [
                mutes.add(
                    store.documents,
                    query=arguments.query,
                    reason=arguments.reason,
                    by=arguments.by or user_name(),
                    until_us=time_from_now(arguments.until, now),
                    now_us=now,
                )
            ]
        elif arguments.action == "end":
            found = [mutes.end(store.documents, arguments.id, by=arguments.by or user_name(), now_us=now)]
        elif arguments.past:
            found = mutes.past_and_present(store.documents)
        else:
            found = mutes.active(store.documents, now)
    if arguments.json:
        print_json({"mutes": [one.as_dict() for one in found]})
        return 0
    for one in found:
        state = f"until {one.ends}" if one.ends > iso_seconds(now) else f"ended {one.ends}"
        by = f"{one.by}: {one.reason}" + (f" (ended by {one.ended_by})" if one.ended_by else "")
        print(f"{one.id}  {state}  {printable(one.query)}  {printable(by)}")
    if arguments.action == "list":
        print(f"{counted(len(found), 'mute')}.")
    return 0
