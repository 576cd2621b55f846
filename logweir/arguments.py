"""What several commands read from their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole_number(*, least: int) -> Callable[[str], int]:
    """For ``add_argument(type=…)``: a whole number, ``least`` or more."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
        return int(text)

    return read


def reachable(listening: str) -> str:
    """How a client on this machine writes in a URL the address that something listens on."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listening, listening)  # noqa: S104
    return f"[{address}]" if ":" in address else address
