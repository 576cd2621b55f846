"""What several commands read from their arguments, and how they name the first of many."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence


def whole_number(*, least: int) -> Callable[[str], int]:
    """For ``add_argument(type=…)``: a whole number, ``least`` or more."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
        return int(text)

    return read


def some_of(texts: Sequence[str], most: int) -> str:
    """The first ``most`` of them, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def reachable(listening: str) -> str:
    """How a client on this machine writes in a URL the address that something listens on."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listening, listening)  # noqa: S104
    return f"[{address}]" if ":" in address else address
