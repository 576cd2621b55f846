"""What a worker does beside reading, every so often: expiry, hours, the books of processes that are gone, audits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from logweir.audit.books import Books
from logweir.clock import DAY_US, Clock, iso_seconds
from logweir.config import Settings
from logweir.errors import SEARCH_TOO_SLOW, STORE_DOWN, STORE_REFUSES, LogweirError, Problem
from logweir.event import day_of
from logweir.ledger.documents import WindowId
from logweir.ledger.expiry import read_aged_us, write_expired_before
from logweir.store.port import Store
from logweir_workers.accounting.closing import end_books
from logweir_workers.accounting.hours import HourMerger
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.retention import delete_old_books, old_books
from logweir_workers.accounting.store_audit import StoreAuditor, suspicious
from logweir_workers.backoff import tolerate
from logweir_workers.deadletters.keeper import LetterRoom
from logweir_workers.filters import Filters

log = logging.getLogger(__name__)

_RETENTION_INTERVAL_S = 3600.0
_READ_INTERVAL_S = 1.0
_LETTERS_INTERVAL_S = 60.0
_REFUSALS_INTERVAL_S = 2.0
_MERGE_INTERVAL_S = 1.0
_CLOSE_INTERVAL_S = 2.0
_FILTERS_INTERVAL_S = 2.0
# All that the store should have is counted so often, where that does not take longer.
_ROUND_INTERVAL_S = 6 * 3600.0
# A worker that has just begun has the backlog to read first.
_BOOKS_DELAY_S = 60.0
# Whoever started a machine with a wrong clock has some minutes to notice it.
_DELETION_DELAY_S = 600.0
# How many times faster than time itself ages catch up with a clock that is ahead of all that is known: a day an hour.
_CATCH_UP = 24
_AHEAD_US_MAX = 2 * DAY_US

T = TypeVar("T")


@dataclass(slots=True)
class PeriodicTask:
    """Something to do every ``interval_s`` seconds, beside reading."""

    interval_s: float
    call: Callable[[], None]
    tolerated: tuple[Problem, ...] = ()
    """Problems that are said in the log, and otherwise left to the next time."""
    share_max: float = 1.0
    """Most of the time that it may take: when it has taken long, it is due so much later."""
    due_s: float = 0.0
    """When it is due, monotonic; at once in the beginning."""

    def run_when_due(self) -> None:
        began_s = time.monotonic()
        if began_s < self.due_s:
            return
        try:
            self.call()
        except LogweirError as error:
            tolerate(error, *self.tolerated)
        finally:
            took_s = time.monotonic() - began_s
            self.due_s = began_s + max(self.interval_s, took_s / self.share_max)


class Chores:
    """``ledgers``: those of the partitions that are claimed at the moment, as they come and go."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        ledgers: Mapping[int, PartitionLedger],
        owner: str,
        clock: Clock,
        filters: Filters,
        letter_room: LetterRoom,
    ) -> None:
        self._group = settings.worker.group
        self._accounting = settings.accounting
        self._retention_days = settings.store.retention_days
        self._store = store
        self._ledgers = ledgers
        self._owner = owner
        self._clock = clock
        self._letter_room = letter_room
        self._old_books: BackgroundRead[Books | None] = BackgroundRead("books")
        self._mergeable: BackgroundRead[None] = BackgroundRead("merging")
        self._auditor = StoreAuditor(store=store, group=self._group, clock=clock)
        self._suspicious: BackgroundRead[list[WindowId]] = BackgroundRead("store-audit")
        self._merger = HourMerger(store=store, group=self._group, owner=owner, settings=self._accounting, clock=clock)
        self._retention_clock = RetentionClock(clock)
        of_store = STORE_DOWN, STORE_REFUSES
        begun_s = time.monotonic()
        later_s, deletion_s = begun_s + _BOOKS_DELAY_S, begun_s + _DELETION_DELAY_S
        self._tasks = (
            PeriodicTask(_RETENTION_INTERVAL_S, self._delete_expired, of_store, due_s=deletion_s),
            PeriodicTask(_RETENTION_INTERVAL_S, self._read_old_books, due_s=deletion_s),
            PeriodicTask(_READ_INTERVAL_S, self._delete_old_books, of_store),
            PeriodicTask(_MERGE_INTERVAL_S, self._merge_windows, of_store, due_s=later_s),
            PeriodicTask(_CLOSE_INTERVAL_S, self._close_gone, of_store),
            PeriodicTask(_ROUND_INTERVAL_S, self._look_for_suspicious, due_s=deletion_s),
            PeriodicTask(self._accounting.store_audit_interval_s, self._audit_store, (*of_store, SEARCH_TOO_SLOW)),
            PeriodicTask(_REFUSALS_INTERVAL_S, letter_room.tend_refusals, of_store),
            PeriodicTask(_LETTERS_INTERVAL_S, self._expire_letters, of_store, due_s=deletion_s),
            PeriodicTask(_FILTERS_INTERVAL_S, filters.reload),
        )

    def run_due(self) -> None:
        """Do what is due. A store that is away or refuses ends nothing; raises LogweirError(CLAIM_LOST)."""
        for task in self._tasks:
            task.run_when_due()

    def claimed(self, ledger: PartitionLedger) -> None:
        """A partition is claimed, and nothing of it read yet: what comes now may bear the time of a wrong clock.

        Raises LogweirError(STORE_DOWN).
        """
        known_us, aged_us = ledger.watermark_us, read_aged_us(self._store, self._group)
        self._retention_clock.begin(min(known_us, aged_us) if aged_us else known_us)

    def _aged_us(self) -> int:
        """The time that ages are measured by; 0 while nothing is known to have been received."""
        self._retention_clock.begin(max((one.watermark_us for one in self._ledgers.values()), default=0))
        return self._retention_clock.now_us()

    def _delete_expired(self) -> None:
        if not (now_us := self._aged_us()):
            return
        before = day_of(now_us - self._retention_days * DAY_US)
        write_expired_before(self._store, self._group, before, aged_us=now_us, owner=self._owner)
        for day in self._store.delete_expired(before):
            log.info("Deleted the events of %s: store.retention_days is %d.", day, self._retention_days)

    def _read_old_books(self) -> None:
        if not (now_us := self._aged_us()):
            return
        self._old_books.begin(
            lambda: old_books(self._store, group=self._group, settings=self._accounting, now_us=now_us)
        )

    def _delete_old_books(self) -> None:
        if not self._old_books.is_done:
            return
        deleted = delete_old_books(
            self._store,
            group=self._group,
            owner=self._owner,
            settings=self._accounting,
            ledgers=self._ledgers.values(),
            now_us=self._aged_us(),
            books=self._old_books.take(),
        )
        if deleted:
            days = self._accounting.retention_days
            log.info("Deleted %d documents of the ledger: accounting.retention_days is %d.", deleted, days)

    def _merge_windows(self) -> None:
        if self._mergeable.is_done:
            self._mergeable.take()
        if self._ledgers and self._merger.is_look_due:
            ledgers = list(self._ledgers.values())
            self._mergeable.begin(lambda: self._merger.look(ledgers))
        self._merger.merge_some()

    def _close_gone(self) -> None:
        end_books(self._store, group=self._group, ledgers=self._ledgers.values(), now_us=self._clock())

    def _look_for_suspicious(self) -> None:
        partitions = frozenset(self._ledgers)
        self._suspicious.begin(lambda: suspicious(self._store, self._group, partitions, now_us=self._clock()))

    def _audit_store(self) -> None:
        if self._suspicious.is_done:
            self._auditor.suspect(self._suspicious.take())
        self._auditor.audit_some(self._ledgers.values())

    def _expire_letters(self) -> None:
        if now_us := self._aged_us():
            self._letter_room.expire(now_us)


class RetentionClock:
    """The time that ages are measured by, so that a machine whose clock is ahead does not delete everything.

    It begins with what was known before this start, and follows the clock from there, a day an hour at most.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._us = 0
        self._looked_s = 0.0

    def begin(self, known_us: int) -> None:
        """Begin at ``known_us``, the time of the newest receipt that is known; nothing is done when it has, or at 0."""
        if self._us or not known_us:
            return
        now_us = self._clock()
        self._us, self._looked_s = min(known_us, now_us), time.monotonic()
        if now_us - known_us > _AHEAD_US_MAX:
            log.warning(
                "The clock says %s, and the newest event that is known was received at %s. Old events, dead letters"
                " and books are deleted a day further each hour until the two agree: set the clock if it is wrong.",
                iso_seconds(now_us),
                iso_seconds(known_us),
            )

    def now_us(self) -> int:
        """Never later than the clock; 0 until it has begun."""
        now_us, now_s = self._clock(), time.monotonic()
        if self._us:
            self._us += int((now_s - self._looked_s) * 1_000_000 * _CATCH_UP)
        self._looked_s = now_s
        self._us = min(self._us, now_us)
        return self._us


class BackgroundRead(Generic[T]):
    """One thing at a time read on a thread of its own: it may take minutes, and who does not poll is taken for dead.

    Not on an executor's thread, which would hold up the end of the process: it only reads, and is left behind.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._result: Future[T] | None = None

    def begin(self, read: Callable[[], T]) -> None:
        """Begin, unless it is under way."""
        if self._result is not None:
            return
        result = self._result = Future()

        def run() -> None:
            try:
                result.set_result(read())
            except Exception as error:  # noqa: BLE001 - whoever takes the result gets it
                result.set_exception(error)

        threading.Thread(target=run, name=self._name, daemon=True).start()

    @property
    def is_done(self) -> bool:
        """There is something to take."""
        return self._result is not None and self._result.done()

    def take(self) -> T:
        """What was read; raises what went wrong. The next one may begin."""
        assert self._result is not None
        result, self._result = self._result, None
        return result.result()
