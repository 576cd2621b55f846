"""Room for dead letters: within the store's limits they are kept; when it is full, whoever has one more waits.

Dead letters are accepted events that nobody else has: none is ever dropped to make room. Refused bodies are there for
the operator only: of them the oldest make room for the newest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from logweir.clock import DAY_US
from logweir.config import StoreSettings
from logweir.metrics import registry
from logweir.store.letters import OF_EVENTS, REFUSED, divided, full
from logweir.store.port import DeadLetter, Held, LetterFilter, Store
from logweir_workers.backoff import pause, until_it_answers

log = logging.getLogger(__name__)

_MEASURE_S = 5.0
_SAY_AGAIN_S = 60.0
_EXPIRED_AT_ONCE = 2000
_EXPIRE_S_MAX = 1.0


class LetterRoom:
    """What a worker keeps dead letters through. Safe to use from several threads.

    What is kept already is counted in the store, at most _MEASURE_S ago, and what this worker has kept since is added:
    with several workers, the limits may be passed by what the others keep in that time.
    """

    def __init__(self, store: Store, settings: StoreSettings) -> None:
        self._store = store
        self._settings = settings
        self._lock = threading.Lock()
        self._held = self._refused = Held(0, 0)
        self._measured = -_MEASURE_S
        self._said = -_SAY_AGAIN_S

    def keep(self, letters: Sequence[DeadLetter], stopping: threading.Event) -> None:
        """Keep them durably, as soon as there is room. Raises Stopped when told to stop before."""
        waiting = [letter for letter in letters if letter.reason != REFUSED]
        while waiting:
            taken = self._with_room(waiting, stopping)
            until_it_answers(lambda: self._store.dead_letters.put(taken), stopping)  # noqa: B023
            del waiting[: len(taken)]
        refused = [letter for letter in letters if letter.reason == REFUSED]
        if refused:
            until_it_answers(lambda: self._store.dead_letters.put(refused), stopping)
            self._trim(refused, stopping)

    def expire(self, now_us: int) -> None:
        """Delete what is older than its retention; of very many as far as a second or two go, and the rest next time.

        Any number of workers may do so at any time, a late one too: what is deleted only depends on its age, and who
        comes second finds nothing. Raises LogweirError(STORE_DOWN).
        """
        settings = self._settings
        for what, reasons, days in (
            ("dead letters", OF_EVENTS, settings.dead_letters_retention_days),
            ("refused bodies", (REFUSED,), settings.refused_bodies_retention_days),
        ):
            wanted = LetterFilter(reasons=reasons, to_us=now_us - days * DAY_US)
            deadline = time.monotonic() + _EXPIRE_S_MAX
            while deleted := self._store.dead_letters.delete(wanted, letters_max=_EXPIRED_AT_ONCE):
                for reason, count in deleted.items():
                    log.warning("Deleted %d %s (%s) older than %d days.", count, what, reason, days)
                    registry.get("logweir_worker_dead_letters_deleted_total").labels(reason, "retention").inc(count)
                if time.monotonic() > deadline:
                    break

    def _with_room(self, letters: Sequence[DeadLetter], stopping: threading.Event) -> list[DeadLetter]:
        """The first of ``letters`` for which there is room, at least one; waits until there is."""
        paused = registry.get("logweir_worker_paused").labels("dead_letters_full")
        wait_s = 0.0
        while True:
            with self._lock:
                self._measure(stopping)
                taken = self._fitting(letters)
                if not taken:
                    self._measured = -_MEASURE_S
                self._held = _with(self._held, taken)
            if taken:
                if wait_s:
                    paused.set(0)
                    log.warning("There is room for dead letters again: the worker goes on.")
                return taken
            paused.set(1)
            self._say_full()
            wait_s = pause(wait_s, stopping)

    def _measure(self, stopping: threading.Event) -> None:
        if time.monotonic() - self._measured < _MEASURE_S:
            return
        self._held, self._refused = divided(until_it_answers(self._store.dead_letters.count, stopping))
        self._measured = time.monotonic()

    def _fitting(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Those at the beginning that fit; the one that reaches the limit in bytes may pass it."""
        settings = self._settings
        room, room_bytes = settings.dead_letters_max - self._held.letters, settings.dead_letters_size_bytes_max
        size_bytes = self._held.size_bytes
        taken = []
        for letter in letters[: max(0, room)]:
            if size_bytes >= room_bytes:
                break
            taken.append(letter)
            size_bytes += len(letter.raw)
        return taken

    def _say_full(self) -> None:
        if time.monotonic() - self._said < _SAY_AGAIN_S:
            return
        self._said = time.monotonic()
        log.error("%s", full(self._held, self._settings))

    def _trim(self, refused: Sequence[DeadLetter], stopping: threading.Event) -> None:
        limits = {
            "letters_max": self._settings.refused_bodies_max,
            "size_bytes_max": self._settings.refused_bodies_size_bytes_max,
        }
        with self._lock:
            self._measure(stopping)
            self._refused = _with(self._refused, refused)
            if self._refused.letters <= limits["letters_max"] and self._refused.size_bytes <= limits["size_bytes_max"]:
                return
            self._measured = -_MEASURE_S
        deleted = until_it_answers(lambda: self._store.dead_letters.trim(REFUSED, **limits), stopping)
        registry.get("logweir_worker_dead_letters_deleted_total").labels(REFUSED, "limit").inc(deleted)


def _with(held: Held, letters: Sequence[DeadLetter]) -> Held:
    return Held(held.letters + len(letters), held.size_bytes + sum(len(letter.raw) for letter in letters))
