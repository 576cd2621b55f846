"""How much of a thing a test does: little in `make test`, which answers within minutes, much in `make proof`."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

IS_PROOF = os.environ.get("LOGWEIR_TEST_PROOF", "") not in ("", "0")
SEED = int(os.environ.get("LOGWEIR_TEST_SEED", "1"))
"""What everything random begins with; `make proof` takes another one each time, and prints it."""


def size(test: T, proof: T) -> T:
    """The one for `make test`, or the one for `make proof`; the test is marked `sized`, so that the latter runs it."""
    return proof if IS_PROOF else test
