"""The keys that workers have doors refuse, as the ledger names them: their dead letters find no room.

A door needs no store to take events. One that cannot reach it, or hears of no worker, refuses nobody for this.
"""

from __future__ import annotations

import logging
import threading
import time

from logweir.config import Settings
from logweir.errors import LETTERS_OF_KEY_FULL, LogweirError
from logweir.ledger.refusals import Refusals, read_refusals
from logweir.store import open_store
from logweir.store.port import Store

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
_BELIEVED_S = 30.0
"""What was said so long ago, and not again, holds no more."""


class RefusedKeys:
    """Followed on a thread of its own once started. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        timeout_s = min(settings.store.timeout_s, _LOOK_EVERY_S)
        self._settings = settings.store.model_copy(update={"timeout_s": timeout_s})
        self._group = settings.worker.group
        self._keys: frozenset[str] = frozenset()
        self._at_us = 0
        self._heard_s = 0.0
        self._store: Store | None = None
        self._is_prepared = False
        self._ended = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="refused-keys", daemon=True)

    def start(self) -> None:
        self._follower.start()

    def stop(self) -> None:
        self._ended.set()

    def check(self, key: str) -> None:
        """Raises LogweirError(LETTERS_OF_KEY_FULL) for a key that is refused."""
        if key in self._keys:
            raise LogweirError(LETTERS_OF_KEY_FULL)

    def hear(self, said: Refusals) -> None:
        """Believe what is new, and what was not long ago."""
        now_s = time.monotonic()
        if said.at_us != self._at_us:
            self._at_us, self._heard_s = said.at_us, now_s
        self._keys = said.keys if now_s - self._heard_s < _BELIEVED_S else frozenset()

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            self._look()
        if self._store is not None:
            self._store.close()

    def _look(self) -> None:
        try:
            if self._store is None:
                self._store = open_store(self._settings)
            if not self._is_prepared:
                self._store.require_prepared()  # Else a look would make an empty one.
                self._is_prepared = True
            self.hear(read_refusals(self._store, self._group))
        except LogweirError:
            # Receipts say so in the log, and workers: here it only means that nothing new is heard.
            self.hear(Refusals(self._keys, self._at_us))
        except Exception:
            log.exception("Which keys are refused could not be looked up; trying again")
