"""Python's collector of reference cycles, for processes that make many objects and hardly any cycle."""

from __future__ import annotations

import gc

# New objects that were not freed, 700 by default: what requests and records make frees itself.
_COLLECT_EVERY = 20_000


def collect_seldom() -> None:
    """Keep what is there by now for good, and look for cycles among what comes seldom. Once all is set up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)
