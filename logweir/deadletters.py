"""List what could not be indexed, and bodies that the door could not read, newest first and whole.

logweir deadletters list --reason body_refused
logweir deadletters list --size 1 --json
"""

from __future__ import annotations

import argparse
import base64
import sys
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import orjson

from logweir.arguments import whole_number
from logweir.config import Settings
from logweir.outcomes import DeadLetterReason
from logweir.query import PAGE_MAX
from logweir.search import printable
from logweir.store import DeadLetter, LetterFilter, open_store

_SIZE_DEFAULT = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show them, newest first")
    listing.add_argument(
        "--size", type=whole_number(least=1), default=_SIZE_DEFAULT, metavar="N",
        help=f"most letters shown ({_SIZE_DEFAULT}; at most {PAGE_MAX})",
    )  # fmt: skip
    listing.add_argument("--reason", choices=[reason.value for reason in DeadLetterReason], help="only those of it")
    listing.add_argument("--json", action="store_true", help="print each as one line of JSON, its bytes as base64")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    size = min(arguments.size, PAGE_MAX)
    with closing(open_store(settings.store)) as store:
        wanted = LetterFilter(reasons=(arguments.reason,) if arguments.reason else ())
        letters = store.dead_letters(size=size, wanted=wanted)
        total = sum(held.letters for held in store.count_dead_letters(wanted).values())
    for letter in letters:
        if arguments.json:
            sys.stdout.buffer.write(orjson.dumps(as_json(letter), option=orjson.OPT_APPEND_NEWLINE))
        else:
            print(as_text(letter))
    if len(letters) < total:
        print(f"The newest {len(letters)} of {total} dead letters are shown; --size shows more.", file=sys.stderr)
    return 0


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """All of the letter. ``raw`` is base64; ``text`` is there too when the bytes are UTF-8."""
    document = {"id": letter.id, "time": received(letter), **letter.body, "raw": base64.b64encode(letter.raw).decode()}
    try:
        return {**document, "text": letter.raw.decode()}
    except UnicodeDecodeError:
        return document


def as_text(letter: DeadLetter) -> str:
    """A line on what and why, one on where it came from, and its bytes on one line, safe for a terminal."""
    body = letter.body
    what = f"{received(letter)}  {letter.reason}  {printable(body.get('stage'))}  {printable(body.get('error'))}"
    sender = f"key {printable(body.get('key'))}, from {printable(body.get('source_address'))}"
    place = f"partition {printable(body.get('partition'))}, offset {printable(body.get('offset'))}"
    return f"{what}\n    {sender}, {place}\n    {printable(letter.raw.decode(errors='backslashreplace'))}"


def received(letter: DeadLetter) -> str:
    """When it was received: ISO 8601 in UTC."""
    time = datetime.fromtimestamp(letter.received_us // 1_000_000, tz=UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
