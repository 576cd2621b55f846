"""What several commands read from their arguments, and how they name the first of many."""

from __future__ import annotations

import argparse
import getpass
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import orjson
from rich.console import Console

from logweir.audit.emitters import EmitterBooks
from logweir.text import counted, safe_json, some_of

T = TypeVar("T")


def whole_number(*, least: int) -> Callable[[str], int]:
    """For ``add_argument(type=…)``: a whole number, ``least`` or more."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
        return int(text)

    return read


def integer(text: str) -> int:
    """For ``add_argument(type=…)``: a whole number, perhaps a negative one, which is for the command to refuse."""
    return -whole_number(least=0)(text[1:]) if text.startswith("-") else whole_number(least=0)(text)


def seconds(text: str) -> float:
    """For ``add_argument(type=…)``: a number of seconds, 0 or more."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return found


def reachable(listening: str) -> str:
    """How a client on this machine writes in a URL the address that something listens on."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listening, listening)  # noqa: S104
    return f"[{address}]" if ":" in address else address


def print_json(document: Any) -> None:
    """On standard output, in one line, which moves no terminal's cursor whatever stands in it."""
    sys.stdout.buffer.write(f"{safe_json(orjson.dumps(document).decode())}\n".encode())


_WIDTH_MIN = 140
_RANGES_SHOWN = 5


def whole(value: Any) -> Any:
    """The document with numbers beyond 64 bits as text: senders choose their numbers, and sums may outgrow JSON's."""
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [whole(inner) for inner in value]
    return str(value) if isinstance(value, int) and not -(2**63) <= value < 2**64 else value


def user_name() -> str:
    """Of who calls; in a container, whose user need not have a name, the user's number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def console() -> Console:
    """Where tables go: as wide as the terminal; wide enough for all columns where there is none."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDTH_MIN)


ROWS_OF_KEY_MAX = 200
"""Most lines of a table that are of one key: senders choose their names, and may have tens of thousands."""


def rows_shown(rows: Iterable[T], *, key: Callable[[T], str], matters: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """Of each key's rows ROWS_OF_KEY_MAX, first those that matter; and those that are left out. Both in their order."""
    by_key: dict[str, list[tuple[bool, int, T]]] = defaultdict(list)
    for at, row in enumerate(rows):
        by_key[key(row)].append((not matters(row), at, row))
    shown: list[tuple[bool, int, T]] = []
    left: list[tuple[bool, int, T]] = []
    for found in by_key.values():
        found.sort(key=lambda one: one[:2])
        shown += found[:ROWS_OF_KEY_MAX]
        left += found[ROWS_OF_KEY_MAX:]
    in_order = [[row for _, _, row in sorted(part, key=lambda one: one[1])] for part in (shown, left)]
    return in_order[0], in_order[1]


def print_left_out(out: Console, keys: Iterable[str], noun: str) -> None:
    """Behind a table of ``rows_shown``: how many it leaves out, by the key of each."""
    for key, count in sorted(Counter(keys).items()):
        out.print(
            f"Not listed: {counted(count, noun, separator=',')} more of the key {key}; --json has all.", markup=False
        )


def count_text(count: int | None) -> str:
    """A count for people; what is unknown says so and is never 0."""
    return "unknown" if count is None else f"{count:,}"


def ranges_text(books: EmitterBooks) -> str:
    """The first of an emitter's lost ranges, and how many more there are."""
    return some_ranges([pair for run in books.runs for pair in run.lost_ranges])


def some_ranges(ranges: Sequence[tuple[int, int]]) -> str:
    """The first of them, and how many more there are."""
    return some_of([f"{first}" if first == last else f"{first}-{last}" for first, last in ranges], _RANGES_SHOWN)
