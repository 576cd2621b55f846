"""A worker's part in having doors refuse a key whose dead letters find no room while other keys wait behind it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from logweir.clock import Clock
from logweir.ledger.refusals import write_refusals
from logweir.store.port import Store
from logweir.text import printable, some_of

log = logging.getLogger(__name__)

DOORS_HEAR_S = 15.0
"""So long after a worker has asked for it, doors refuse a key: they look every few seconds."""
_KEYS_SHOWN_MAX = 5


class KeyRefusals:
    """The keys that doors are to refuse. ``ask`` and ``tend`` are for one thread, ``is_heard`` for any."""

    def __init__(self, store: Store, *, group: str, owner: str, clock: Clock) -> None:
        self._store = store
        self._group = group
        self._owner = owner
        self._clock = clock
        self._asked: set[str] = set()
        self._since_s: dict[str, float] = {}

    def ask(self, keys: Collection[str]) -> None:
        """Have doors refuse these keys, with the next ``tend``, until there is room."""
        self._asked.update(keys)

    def tend(self, is_full: Callable[[str], bool]) -> None:
        """Write down which keys are to be refused still: those that are asked for and ``is_full``.

        Raises LogweirError(STORE_DOWN).
        """
        now = write_refusals(
            self._store, self._group, self._asked, is_full=is_full, owner=self._owner, at_us=self._clock()
        )
        self._asked.clear()
        before, now_s = self._since_s, time.monotonic()
        self._since_s = {key: before.get(key, now_s) for key in now.keys}
        for keys, said in (
            (now.keys - before.keys(), "refused by doors: their dead letters find no room, and others wait"),
            (before.keys() - now.keys, "taken again: there is room for their dead letters"),
        ):
            if keys:
                named = some_of(sorted(map(printable, keys)), _KEYS_SHOWN_MAX)
                log.warning("Events of the keys %s are %s.", named, said, extra={"keys": named})

    def is_heard(self, key: str) -> bool:
        """Whether doors refuse the key by now: what is left of it was accepted before."""
        since_s = self._since_s.get(key)
        return since_s is not None and time.monotonic() - since_s >= DOORS_HEAR_S
