"""See the channels by which people are told of alerts, and try them.

    logweir channels list
    logweir channels test pager               send it a test, and then say that the test is over

docs/how-to/notifications.md says how channels are written into channels.toml.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from contextlib import closing
from dataclasses import replace
from typing import Any

from logweir.alerts.notices import ChannelBooks, books_of
from logweir.clock import iso_seconds, now_us
from logweir.commands.output import print_json
from logweir.config import Settings
from logweir.errors import CHANNEL_FAILED, LogweirError
from logweir.store import existing_store
from logweir.text import counted, printable
from logweir_workers.notify.channels import Channel, find, read_channels
from logweir_workers.notify.notice import Notice, Standing, State, Told
from logweir_workers.notify.senders.port import NoticeRefused, SendFailed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="list the channels, and what became of the alerts for each")
    tried = actions.add_parser("test", help="send a test by a channel, and then that it is over")
    tried.add_argument("name", metavar="NAME", help="the channel's name")
    for sub in (listed, tried):
        sub.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    channels = read_channels(settings.channels_path)
    if arguments.action == "list":
        _list(channels, settings, as_json=arguments.json)
    else:
        _test(find(channels, arguments.name), settings, as_json=arguments.json)
    return 0


def _list(channels: dict[str, Channel], settings: Settings, *, as_json: bool) -> None:
    known: dict[str, ChannelBooks] = {}
    try:
        with existing_store(settings.store) as store:
            known = {name: books_of(store.documents, name) for name in channels}
    except LogweirError as error:
        print(f"What became of alerts is not known: {printable(str(error))}", file=sys.stderr)
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "type": one.settings.type,
            "severities": list(one.settings.severities),
            "rules": list(one.settings.rules),
            "tags": list(one.settings.tags),
            "group_by": list(one.settings.group_by),
            "delivery": one.settings.delivery,
            **known.get(one.name, ChannelBooks(one.name, None, None, None)).as_dict(),
        }
        for one in channels.values()
    ]
    if as_json:
        print_json({"channels": rows})
        return
    for row in rows:
        counts = known[row["name"]].words if row["name"] in known else "what became of alerts is unknown"
        print(f"{row['name']:<20} {row['type']:<13} {counts}")
        print(f"{'':<20} {row['delivery']}")
        if row["failing_since"]:
            print(f"{'':<20} FAILING since {row['failing_since']}: {printable(row['error'])}")
    print(f"{counted(len(rows), 'channel')}.")


def _test(channel: Channel, settings: Settings, *, as_json: bool) -> None:
    """Raises LogweirError(CHANNEL_FAILED)."""
    thread = f"test-{secrets.token_hex(6)}"
    firing = trial_notice(channel.name, thread, public_url=settings.console.public_url.rstrip("/"))
    sent = ["firing"]
    with closing(channel.settings.sender()) as sender:
        try:
            remembered = sender.send(firing)
            if channel.settings.has_resolve:
                over = tuple(replace(one, standing=Standing.QUIET) for one in firing.alerts)
                key = f"{thread}-2-{State.RESOLVED}"
                sender.send(
                    replace(firing, key=key, number=2, state=State.RESOLVED, alerts=over, remembered=remembered)
                )
                sent.append("resolved")
        except (SendFailed, NoticeRefused) as error:
            reason = channel.settings.scrubbed(str(error))
            raise LogweirError(CHANNEL_FAILED, name=channel.name, reason=reason or "it says no more") from None
    if as_json:
        print_json({"channel": channel.name, "type": channel.settings.type, "sent": sent, "thread": thread})
    else:
        print(f"{channel.name} took the test ({', then '.join(sent)}).")


def trial_notice(channel: str, thread: str, *, public_url: str) -> Notice:
    """A notice of an alert that is none."""
    now = now_us()
    alert = Told(
        id=thread,
        rule="channel_test",
        severity="info",
        summary="This is a test of the channel: nothing has happened",
        category="logweir",
        tags=(),
        group={"channel": channel},
        count=1,
        first=iso_seconds(now),
        last=iso_seconds(now),
        created=iso_seconds(now),
        completeness="complete",
        runbook="",
        assignee="",
        reason="",
        standing=Standing.FIRING,
        url=f"{public_url}/alerts" if public_url else "",
    )
    return Notice(
        channel=channel,
        key=f"{thread}-1-{State.FIRING}",
        thread=thread,
        number=1,
        state=State.FIRING,
        alerts=(alert,),
        time_us=now,
        is_test=True,
    )
