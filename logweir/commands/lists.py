"""See and change the lists of values that rules and searches name as @NAME.

    logweir lists list
    logweir lists check tor_exits 203.0.113.9
    logweir lists add ours 10.0.0.0/8 --note 'the office'
    logweir lists add suspects 203.0.113.9 --until 7d --note 'ticket 4711'
    logweir lists remove suspects 203.0.113.9

docs/how-to/lists.md says what a list's file may say.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import getpass
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from logweir.clock import iso_seconds, now_us
from logweir.commands.output import print_json
from logweir.config import Settings
from logweir.errors import LIST_BAD, LogweirError
from logweir.process.files import make_folder, write_whole
from logweir.query.lists import NAME, ValueList, in_use, read_entries
from logweir.query.times import time_from_now
from logweir.text import counted, printable

_HEADER = ("value", "expires", "note", "by")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="list the lists")
    shown = actions.add_parser("show", help="show the values of a list")
    checked = actions.add_parser("check", help="say whether a value is in a list; exit status 1 when it is not")
    added = actions.add_parser("add", help="put a value into a list, which is made if it is not there")
    removed = actions.add_parser("remove", help="take a value out of a list")
    for sub in (shown, checked, added, removed):
        sub.add_argument("name", metavar="NAME", help="the list's name")
    for sub in (checked, added, removed):
        sub.add_argument("value", metavar="VALUE", help="a text, an address, or a network")
    added.add_argument("--until", metavar="TIME", help="until when: 7d, or ISO 8601 (for good)")
    added.add_argument("--note", default="", metavar="TEXT", help="why")
    for sub in (listed, shown, checked, added, removed):
        sub.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.action == "add":
        return _add(arguments, settings.lists_path)
    if arguments.action == "remove":
        return _remove(arguments, settings.lists_path)
    if arguments.action == "list":
        return _list(arguments)
    found = in_use().named(arguments.name)
    if arguments.action == "check":
        is_in = arguments.value in found or found.has_lowered(arguments.value.lower())
        if arguments.json:
            print_json({"list": found.name, "value": arguments.value, "is_in": is_in})
        else:
            print(f"{printable(arguments.value)} is {'' if is_in else 'not '}in {found.name}.")
        return 0 if is_in else 1
    _show(found, as_json=arguments.json)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found, problems = list(in_use()), in_use().problems
    if arguments.json:
        print_json({"lists": [{"name": one.name, "values": len(one)} for one in found], "problems": problems})
    else:
        for one in found:
            print(f"{one.name:<32} {counted(len(one), 'value', separator=',')}")
        print(f"{counted(len(found), 'list')} in {in_use().folder}.")
    for problem in problems:
        print(f"logweir lists: {printable(problem)}", file=sys.stderr)
    return 1 if problems else 0


def _show(found: ValueList, *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"value": value, "expires": None if end_us is None else iso_seconds(end_us)} for value, end_us in found.items()
    ]
    if as_json:
        print_json({"list": found.name, "values": rows})
        return
    for row in rows:
        print(printable(row["value"]) + (f"  until {row['expires']}" if row["expires"] else ""))
    print(f"{counted(len(rows), 'value', separator=',')}.")


def _add(arguments: argparse.Namespace, folder: Path) -> int:
    now = now_us()
    expires = iso_seconds(time_from_now(arguments.until, now)) if arguments.until else ""
    with _changing(folder, arguments.name) as rows:
        rows[:] = [row for row in rows if row["value"] != arguments.value]
        by = getpass.getuser() if os.getuid() else "root"
        rows.append({"value": arguments.value, "expires": expires, "note": arguments.note, "by": by})
    return _said(arguments, f"is in {arguments.name}" + (f" until {expires}" if expires else ""))


def _remove(arguments: argparse.Namespace, folder: Path) -> int:
    with _changing(folder, arguments.name) as rows:
        kept = [row for row in rows if row["value"] != arguments.value]
        was_in = len(kept) < len(rows)
        rows[:] = kept
    _said(arguments, f"is {'no longer' if was_in else 'not'} in {arguments.name}")
    return 0 if was_in else 1


def _said(arguments: argparse.Namespace, text: str) -> int:
    if arguments.json:
        print_json({"list": arguments.name, "value": arguments.value})
    else:
        print(f"{printable(arguments.value)} {text}.")
    return 0


@contextmanager
def _changing(folder: Path, name: str) -> Iterator[list[dict[str, str]]]:
    """The rows of a list's CSV file, written back behind the block. Raises LogweirError(LIST_BAD)."""
    path = folder / f"{name}.csv"
    if not NAME.fullmatch(name):
        reason = "a list's name is of a to z, digits and _, beginning with a letter, 64 at most"
        raise LogweirError(LIST_BAD, path=path, line="", reason=reason)
    if path.with_suffix(".txt").exists():
        reason = "it is a text file: edit it by hand"
        raise LogweirError(LIST_BAD, path=path.with_suffix(".txt"), line="", reason=reason)
    make_folder(folder)
    # Two that change it at once: one after the other.
    with (folder / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fields = list(_HEADER)
        rows: list[dict[str, str]] = []
        if path.exists():
            for _ in read_entries(path):
                pass  # It is sound.
            reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
            fields += [column for column in reader.fieldnames or () if column not in fields]
            rows = [{column: row.get(column) or "" for column in fields} for row in reader]
        yield rows
        text = io.StringIO()
        writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(path, text.getvalue())
