"""Ask a door what became of a batch, by the receipt that was in its answer.

    logweir receipt AQPVAWwifI1VF8Lp1b2ak2AAAAAEAAAAAAAAAAEAAAACAcU…
    logweir receipt AQPVAWwifI1VF8Lp1b2ak2AAAAAEAAAAAAAAAAEAAAACAcU… --wait 30 && echo all there

The exit status is 0 when every event is indexed, a duplicate or filtered, and 1 while some are in flight, or when some
are dead-lettered, lost or unknown. docs/how-to/receipts.md has the words. It needs no key.
"""

from __future__ import annotations

import argparse
import json
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3

from logweir.commands.door import check_trust, door_url, trusted
from logweir.commands.output import print_json, seconds
from logweir.config import Settings
from logweir.errors import RECEIPT_BAD, RECEIPT_UNANSWERED, LogweirError
from logweir.text import printable

_WAIT_S_FIRST = 0.1
_WAIT_S_MAX = 2.0
_GOOD = ("indexed", "duplicate", "filtered")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("token", metavar="TOKEN", help="the receipt")
    parser.add_argument("--url", help="the door (ingest of this machine)")
    wait_help = "ask again until nothing is in flight, at most so long (0)"
    parser.add_argument("--wait", type=seconds, default=0.0, metavar="SECONDS", help=wait_help)
    parser.add_argument("--json", action="store_true", help="print the door's answer as one line of JSON")
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="certificates of the authorities to trust, for https"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    door = _Door(arguments.url or door_url(settings), trusted(arguments.ca_file))
    answer = _waited(door, arguments.token, wait_s=arguments.wait)
    if arguments.json:
        print_json(answer)
    else:
        print(as_text(answer))
    return 0 if sum(answer[name] or 0 for name in _GOOD) == answer["accepted"] else 1


def _waited(door: _Door, token: str, *, wait_s: float) -> dict[str, Any]:
    """The last answer within so long. Raises LogweirError as ``ask``; RECEIPT_UNANSWERED only of the last try."""
    deadline = time.monotonic() + wait_s
    pause_s = _WAIT_S_FIRST
    while True:
        left_s = deadline - time.monotonic()
        try:
            answer = door.ask(token)
            if not answer["in_flight"] or left_s <= 0:
                return answer
        except LogweirError as error:
            if error.problem is not RECEIPT_UNANSWERED or left_s <= 0:
                raise
        time.sleep(max(0.0, min(pause_s, left_s)))
        pause_s = min(pause_s * 2, _WAIT_S_MAX)


class _Door:
    def __init__(self, url: str, trusted: ssl.SSLContext) -> None:
        self._url = url.rstrip("/").removesuffix("/events")
        self._pool = urllib3.PoolManager(ssl_context=trusted, retries=False, timeout=30.0)

    def ask(self, token: str) -> dict[str, Any]:
        """The door's answer. Raises LogweirError: RECEIPT_BAD, RECEIPT_UNANSWERED, DOOR_UNTRUSTED."""
        try:
            response = self._pool.request("GET", f"{self._url}/receipts/{quote(token, safe='')}")
        except urllib3.exceptions.HTTPError as error:
            check_trust(self._url, error)
            raise self._unanswered(str(error).rpartition(": ")[2]) from error
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = None
        if response.status == 200 and isinstance(answer, dict) and "in_flight" in answer:
            return answer
        problem = answer if isinstance(answer, dict) else {}
        if problem.get("code") == RECEIPT_BAD.code:
            raise LogweirError(RECEIPT_BAD)
        raise self._unanswered(f"it answers {response.status}: {problem.get('detail', 'not as a door does')}")

    def _unanswered(self, reason: str) -> LogweirError:
        return LogweirError(RECEIPT_UNANSWERED, reason=f"{self._url}: {reason}")


def as_text(answer: dict[str, Any]) -> str:
    """A few lines for people."""
    found = "" if answer["searchable"] is None else f"; searches find {answer['searchable']} of them now"
    lines = [
        printable(answer["detail"]),
        f"Received {printable(answer['received'] or 'in the minute of ' + answer['window'])}{found}.",
    ]
    if answer["in_flight"]:
        lines.append(f"Partition {answer['partition']} is processed up to {printable(answer['processed_until'])}.")
    if answer["revised"]:
        lines.append(f"{answer['revised']} had another outcome before a retry or a replay.")
    for row in answer["exceptions"]:
        reason = f" ({printable(row['reason'])})" if row["reason"] else ""
        lines.append(f"{row['count']} {printable(row['outcome'])}{reason}: {printable(row['meaning'])}")
    lines += [f"Dead letter {printable(id)}" for id in answer["dead_letters"]]
    return "\n".join(lines)
