"""Room for dead letters: within the store's limits they are kept; when it is full, whoever has one more waits.

Dead letters are accepted events that nobody else has: none is ever dropped to make room. A part of the limits is each
key's own, so that one key's letters make no other's wait. Refused bodies are there for the operator only: of them the
oldest make room for the newest, and first those of a key that holds more than half.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial

from logweir.clock import DAY_US
from logweir.config import StoreSettings
from logweir.metrics import registry
from logweir.store.letters import OF_EVENTS, REFUSED, divided, full
from logweir.store.port import DeadLetter, Held, LetterFilter, Store
from logweir.text import printable, some_of
from logweir_workers.backoff import pause, until_it_answers
from logweir_workers.deadletters.refusals import KeyRefusals

log = logging.getLogger(__name__)

OWN_SHARE = 10
"""A tenth of the limits is each key's own, whatever the others keep: by so much all together may pass them."""
REFUSED_SHARE = 2
"""Of refused bodies, one key may keep a half once the limits are reached."""
_MEASURE_S = 5.0
_SAY_AGAIN_S = 60.0
_EXPIRED_AT_ONCE = 2000
_EXPIRE_S_MAX = 1.0
_KEYS_SHOWN_MAX = 5


class LetterRoom:
    """What a worker keeps dead letters through. Safe to use from several threads.

    What is kept already is counted in the store, at most _MEASURE_S ago, and what this worker has kept since is added:
    with several workers, the limits may be passed by what the others keep in that time. With ``refusals``, letters of
    a key that doors refuse by now are kept beyond the limits, up to twice as many: they were accepted before, and
    others wait behind them.
    """

    def __init__(self, store: Store, settings: StoreSettings, refusals: KeyRefusals | None = None) -> None:
        self._refusals = refusals
        self._store = store
        self._settings = settings
        self._lock = threading.Lock()
        self._held = self._refused = Held(0, 0)
        # Of some keys, as needed.
        self._by_key: dict[str, Held] = {}
        self._measured = -_MEASURE_S
        self._said = -_SAY_AGAIN_S

    def keep(self, letters: Sequence[DeadLetter], stopping: threading.Event) -> None:
        """Keep them durably, as soon as there is room. Raises Stopped when told to stop before."""
        paused = registry.get("logweir_worker_paused").labels("dead_letters_full")
        wait_s = 0.0
        while letters := self.keep_some(letters, stopping):
            paused.set(1)
            wait_s = pause(wait_s, stopping)
        if wait_s:
            paused.set(0)
            log.warning("There is room for dead letters again: the worker goes on.")

    def keep_some(self, letters: Sequence[DeadLetter], stopping: threading.Event) -> list[DeadLetter]:
        """Keep durably those for which there is room; returns the others. Raises Stopped when told to stop before."""
        refused = [letter for letter in letters if letter.reason == REFUSED]
        if refused:
            until_it_answers(lambda: self._store.dead_letters.put(refused), stopping)
            self._trim(refused, stopping)
        waiting = [letter for letter in letters if letter.reason != REFUSED]
        if not waiting:
            return []
        with self._lock:
            self._measure(stopping)
            taken = self._fitting(waiting, stopping)
            self._held = _with(self._held, taken)
        if taken:
            until_it_answers(lambda: self._store.dead_letters.put(taken), stopping)
        if len(taken) == len(waiting):
            return []
        kept = {letter.id for letter in taken}
        left = [letter for letter in waiting if letter.id not in kept]
        with self._lock:
            self._measured = -_MEASURE_S
        self._say_full(left)
        return left

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

    def _measure(self, stopping: threading.Event) -> None:
        if time.monotonic() - self._measured < _MEASURE_S:
            return
        self._held, self._refused = divided(until_it_answers(self._store.dead_letters.count, stopping))
        self._by_key = {}
        self._measured = time.monotonic()

    def _fitting(self, letters: Sequence[DeadLetter], stopping: threading.Event) -> list[DeadLetter]:
        """Those that fit into the limits, or into what is their key's own; the one that reaches a limit in bytes may
        pass it."""
        held, limits = self._held, self._limits
        taken: list[DeadLetter] = []
        for letter in letters:
            key = letter.body.get("key")
            is_full = held.letters >= limits.letters or held.size_bytes >= limits.size_bytes
            # Without a key it is no event's: a record that nobody can read.
            if is_full and not (
                isinstance(key, str) and (self._has_own_room(key, taken, stopping) or self._may_exceed(key, held))
            ):
                continue
            taken.append(letter)
            held = _with(held, [letter])
            if key in self._by_key:
                self._by_key[key] = _with(self._by_key[key], [letter])
        return taken

    def _has_own_room(self, key: str, taken: Sequence[DeadLetter], stopping: threading.Event) -> bool:
        """``taken``: what is to be kept now, and is not in the store yet."""
        if key not in self._by_key:
            wanted = LetterFilter(reasons=OF_EVENTS, key=key)
            counts = until_it_answers(lambda: self._store.dead_letters.count(wanted), stopping)
            self._by_key[key] = _with(divided(counts)[0], [one for one in taken if one.body.get("key") == key])
        own, limits = self._by_key[key], self._limits
        return own.letters < max(1, limits.letters // OWN_SHARE) and own.size_bytes < limits.size_bytes // OWN_SHARE

    def _may_exceed(self, key: str, held: Held) -> bool:
        is_within = held.letters < 2 * self._limits.letters and held.size_bytes < 2 * self._limits.size_bytes
        return is_within and self._refusals is not None and self._refusals.is_heard(key)

    def tend_refusals(self) -> None:
        """Have doors refuse the keys that are asked for until they have room. Raises LogweirError(STORE_DOWN)."""
        if self._refusals is not None:
            self._refusals.tend(self._is_full_for)

    def _is_full_for(self, key: str) -> bool:
        """Whether there is no room for more of the key: neither of the common room nor of its own a tenth is free."""
        count, limits = self._store.dead_letters.count, self._limits
        held, own = divided(count())[0], divided(count(LetterFilter(reasons=OF_EVENTS, key=key)))[0]
        own_limits = Held(max(1, limits.letters // OWN_SHARE), limits.size_bytes // OWN_SHARE)
        return all(
            10 * one.letters > 9 * most.letters or 10 * one.size_bytes > 9 * most.size_bytes
            for one, most in ((held, limits), (own, own_limits))
        )

    @property
    def _limits(self) -> Held:
        return Held(self._settings.dead_letters_max, self._settings.dead_letters_size_bytes_max)

    def _say_full(self, waiting: Sequence[DeadLetter]) -> None:
        if time.monotonic() - self._said < _SAY_AGAIN_S:
            return
        self._said = time.monotonic()
        keys = some_of(sorted({printable(letter.body.get("key")) for letter in waiting}), _KEYS_SHOWN_MAX)
        log.error("%s Those of %s wait.", full(self._held, self._settings), keys, extra={"keys": keys})

    def _trim(self, refused: Sequence[DeadLetter], stopping: threading.Event) -> None:
        limits = Held(self._settings.refused_bodies_max, self._settings.refused_bodies_size_bytes_max)
        with self._lock:
            self._measure(stopping)
            self._refused = _with(self._refused, refused)
            if self._refused.letters <= limits.letters and self._refused.size_bytes <= limits.size_bytes:
                return
            self._measured = -_MEASURE_S
        share = Held(limits.letters // REFUSED_SHARE, limits.size_bytes // REFUSED_SHARE)
        keys = {key for letter in refused if isinstance(key := letter.body.get("key"), str)}
        deleted = 0
        for key, most in [*((key, share) for key in keys), (None, limits)]:
            trim = partial(self._store.dead_letters.trim, REFUSED, key=key)
            trimmed = partial(trim, letters_max=most.letters, size_bytes_max=most.size_bytes)
            deleted += until_it_answers(trimmed, stopping)
        registry.get("logweir_worker_dead_letters_deleted_total").labels(REFUSED, "limit").inc(deleted)


def _with(held: Held, letters: Sequence[DeadLetter]) -> Held:
    return Held(held.letters + len(letters), held.size_bytes + sum(len(letter.raw) for letter in letters))
