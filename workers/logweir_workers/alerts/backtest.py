"""What a rule would have found in events that are stored: the conditions and the correlation of the stream.

    store, slice by slice, the oldest first -> the rule's condition -> groups -> the alerts that it would have made

The store is asked for no more than a page at a time; a slice of time that takes too long, or has too many matches, is
cut in half.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from logweir.alerts.exceptions import Excepting
from logweir.alerts.exceptions import active as active_exceptions
from logweir.alerts.rules import Rule, Schedule, WindowKind
from logweir.alerts.schedules import slot_after
from logweir.clock import now_us
from logweir.config import Settings
from logweir.errors import RULE_BAD, SEARCH_TOO_SLOW, LogweirError
from logweir.store.port import Store
from logweir.text import counted
from logweir_workers.alerts.absence import absent, read_activity
from logweir_workers.alerts.evaluator import Evaluator
from logweir_workers.alerts.found import Found, iso, learn_fields
from logweir_workers.alerts.groups import Episode, Group, Groups
from logweir_workers.alerts.recall import Stored, TooMany, stored_matches
from logweir_workers.alerts.scheduled.runs import RunFailed, events_for, found_in
from logweir_workers.backoff import Stopped

ALERTS_MAX = 10_000
"""Alerts that are told whole; of more, only how many there are."""
_SLICE_US = 3_600_000_000
_SLICE_US_MIN = 1_000_000
_SLICE_MATCHES_MAX = 20_000
_TOLD = "told"
# Whose clocks run ahead is found under a time that is yet to come.
_AHEAD_US = 366 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class WouldBe:
    """An alert that the rule would have made."""

    group: dict[str, str]
    first: str
    last: str
    count: int
    summary: str

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Backtest:
    """What a rule would have made of a time, and what it took to know."""

    rule: str
    alerts: list[WouldBe] = field(default_factory=list)
    """The oldest first, at most ALERTS_MAX."""
    alerts_count: int = 0
    events: int = 0
    """Read from the store."""
    matches: int = 0
    excepted: int = 0
    """Matches that an exception kept from counting."""
    unevaluated: int = 0
    """Matches that were not counted: there were too many groups, or a clock ran ahead by more than the lateness."""
    errors: int = 0
    """How often the rule's own code failed."""
    searches: int = 0
    """Of a scheduled rule, how many times it was asked."""
    seconds: float = 0.0

    def remarks(self) -> list[str]:
        """Which matches did not count, and how often the rule's own code failed: sentences, where there is any."""
        matches = partial(counted, noun="match", plural="matches", separator=",")
        made = []
        if self.excepted:
            made.append(f"Excepted: {matches(self.excepted)}.")
        if self.unevaluated:
            made.append(f"Not counted: {matches(self.unevaluated)}, for too many groups, or clocks that run ahead.")
        if self.errors:
            made.append(f"Its own code failed {counted(self.errors, 'time', separator=',')}.")
        return made

    def as_json(self) -> dict[str, Any]:
        cost = {name: getattr(self, name) for name in ("events", "matches", "searches")}
        return {
            "rule": self.rule,
            "alerts_count": self.alerts_count,
            "alerts": [one.as_json() for one in self.alerts],
            "excepted": self.excepted,
            "unevaluated": self.unevaluated,
            "errors": self.errors,
            "cost": {**cost, "seconds": round(self.seconds, 3)},
        }


Progressed = Callable[[int, Backtest], object]
"""Told now and then up to when all is read, in microseconds."""


def backtest(
    store: Store,
    rule: Rule,
    settings: Settings,
    *,
    from_us: int,
    to_us: int,
    progressed: Progressed = lambda *_: None,
) -> Backtest:
    """What the rule would have made of events that happened in that time. Changes nothing.

    A rule for new values learns from the beginning of it. Raises LogweirError: RULE_BAD for a rule that is not about
    events, or has too many matches within a second; STORE_DOWN; SEARCH_TOO_SLOW when a page of a second takes longer
    than store.search_timeout_s.
    """
    if rule.is_about_books:
        raise unfit(rule)
    if rule.schedule is not None:
        return _run_scheduled(store, rule, rule.schedule, from_us, to_us, progressed)

    def found(group: Group, episode: Episode) -> None:
        made = run.looked
        if episode.last_us >= run.from_us:
            made.alerts_count += 1
            if len(made.alerts) < ALERTS_MAX:
                made.alerts.append(would_be(group, episode, made))

    run = StoredRun(store, rule, settings, from_us=from_us, to_us=to_us, found=found)
    made = run.run(progressed)
    made.alerts.sort(key=lambda one: (one.first, one.last, tuple(one.group.values())))
    return made


def would_be(group: Group, episode: Episode, made: Backtest) -> WouldBe:
    """The alert of an episode; where the rule's function fails, ``made`` counts it."""
    rule = group.rule
    try:
        summary = " ".join(str(rule.say(Found(rule, group, episode))).split())
    except Exception as error:  # noqa: BLE001 - the author's own code
        made.errors += 1
        summary = f"(its function fails: {type(error).__name__}: {error})"
    values = dict(zip(rule.group, group.values, strict=True))
    return WouldBe(values, iso(episode.first_us), iso(episode.last_us), episode.count, summary)


def unfit(rule: Rule) -> LogweirError:
    """Why a rule about the accounting cannot be tried."""
    return LogweirError(RULE_BAD, rule=rule.name, reason="it is about what the accounting finds, not about events")


def _run_scheduled(
    store: Store, rule: Rule, schedule: Schedule, from_us: int, to_us: int, progressed: Progressed
) -> Backtest:
    """Every slot that ends within that time, each alert that was found in one."""
    made, began_s = Backtest(rule.name), time.monotonic()
    store.refresh()
    slot = slot_after(schedule, from_us)
    alerted: set[str] = set()
    while slot.end_us <= to_us:
        try:
            found = found_in(rule, events_for(store, rule, slot, alerted=lambda: alerted))
            alerted.update(mark for one in found for mark in one.marks)
        except RunFailed:
            found, made.errors = [], made.errors + 1
        made.searches += 1
        made.alerts_count += len(found)
        for one in found[: ALERTS_MAX - len(made.alerts)]:
            group = {name: value for name, value in one.group.items() if name != "summary"}
            made.alerts.append(WouldBe(group, iso(slot.begin_us), iso(slot.end_us), one.count, one.summary))
        made.seconds = time.monotonic() - began_s
        progressed(slot.end_us, made)
        slot = slot_after(schedule, slot.end_us)
    return made


class StoredRun:
    """A rule asked of stored events, the oldest first, and its episodes that have fired, each once it has ended.

    ``found``: told of each. Of those that end before ``from_us``, and of those that the beginning or the end cuts, too.
    ``until_us``: where only episodes that begin before then matter, reading ends when these have, at ``to_us`` at the
    latest. ``stopping``: ends it, with Stopped.
    """

    def __init__(
        self,
        store: Store,
        rule: Rule,
        settings: Settings,
        *,
        from_us: int,
        to_us: int,
        found: Callable[[Group, Episode], object],
        until_us: int | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._store = store
        self._rule = rule
        self._found = found
        self._stopping = stopping or threading.Event()
        # Whole milliseconds, as stores compare times: so slices side by side share no event.
        self.from_us = from_us // 1000 * 1000
        self._to_us = -(-to_us // 1000) * 1000
        self._until_us = self._to_us if until_us is None else until_us
        self._lateness_us = int(settings.alerts.lateness_s * 1e6)
        learn_fields(rule)
        groups = Groups(groups_max=settings.alerts.groups_max)
        self._evaluator = Evaluator({rule.name: rule}, groups, late_after_us=settings.accounting.late_us)
        self._evaluator.excepting = Excepting(active_exceptions(store.documents, now_us()))
        self._matcher = self._evaluator.matcher([rule])
        self.looked = Backtest(rule.name)
        """What was read so far."""
        is_absence = rule.window.kind is WindowKind.ABSENT
        self._activity = read_activity(store, settings.worker.group) if is_absence else None

    def run(self, progressed: Progressed) -> Backtest:
        """Read to the end; what it took. Raises as ``backtest``; Stopped."""
        made, began_s = self.looked, time.monotonic()
        self._store.refresh()
        # What was before the beginning may be in a window with what was behind it.
        at_us, slice_us = max(0, self.from_us - self._rule.memory_us), _SLICE_US
        while at_us < self._to_us and not (at_us >= self._until_us and self.open_since_us(at_us) >= self._until_us):
            end_us = min(at_us + slice_us, self._to_us)
            try:
                found = self._matches(at_us, end_us)
            except TooMany as error:
                if slice_us <= _SLICE_US_MIN:
                    reason = f"more than {_SLICE_MATCHES_MAX:,} events match it within a second"
                    raise LogweirError(RULE_BAD, rule=self._rule.name, reason=reason) from error
                slice_us = max(slice_us // 2000 * 1000, _SLICE_US_MIN)
                continue
            except LogweirError as error:
                if error.problem is not SEARCH_TOO_SLOW or slice_us <= _SLICE_US_MIN:
                    raise
                slice_us = max(slice_us // 2000 * 1000, _SLICE_US_MIN)
                continue
            self._count(found, at_us)
            at_us = end_us
            slice_us = min(slice_us * 2, _SLICE_US) if len(found) < _SLICE_MATCHES_MAX // 4 else slice_us
            self._collect(at_us)
            made.seconds = time.monotonic() - began_s
            progressed(at_us, made)
        self._to_us = at_us
        self._count(self._matches(at_us, at_us + _AHEAD_US), at_us)
        self._collect(None)
        counts = self._evaluator.counts.get(self._rule.name, {})
        made.errors += counts.get("errors", 0)
        made.seconds = time.monotonic() - began_s
        made.unevaluated += counts.get("unevaluated", 0)
        made.excepted = counts.get("excepted", 0)
        return made

    def open_since_us(self, at_us: int) -> int:
        """Since when there are episodes that may fire or go on, when all before ``at_us`` is read; else ``at_us``."""
        since_us = [one.first_us for group in self._evaluator.groups for one in group.episodes if one.alert is None]
        if self._activity is not None:
            for group in self._evaluator.groups:
                since_us += [begin_us for begin_us, *_ in group.pauses]
                since_us += [] if group.since_us is None else [group.since_us]
        return min([at_us - self._lateness_us, *since_us])

    def _matches(self, from_us: int, to_us: int) -> list[Stored]:
        """The matches of a slice that count, in the order of their time. Raises TooMany, Stopped."""
        found: list[Stored] = []
        for one in stored_matches(
            self._store,
            self._rule,
            self._matcher,
            from_us=from_us,
            to_us=to_us,
            is_within=False,
            page_read=self._page_read,
        ):
            if self.from_us - self._rule.memory_us <= one.time_us < self._to_us:
                found.append(one)
            if len(found) > _SLICE_MATCHES_MAX:
                raise TooMany
        return sorted(found, key=lambda one: (one.time_us, one.document.id))

    def _page_read(self, events: int) -> None:
        self.looked.searches += 1
        self.looked.events += events
        if self._stopping.is_set():
            raise Stopped

    def _count(self, found: list[Stored], begin_us: int) -> None:
        horizon_us = begin_us - self._lateness_us
        for one in found:
            self.looked.matches += one.time_us >= self.from_us
            if self._evaluator.is_excepted(self._rule, one.document):
                continue
            if one.time_us < horizon_us:
                self.looked.unevaluated += 1
                continue
            source = one.document.source
            emitter = str(source.get("key") or ""), source.get("emitter")
            self._evaluator.put(one.matched, one.document, one.time_us, one.received_us, emitter, 0)

    def _pass(self, until_us: int) -> None:
        """Time passes until then: who is absent is found."""
        if self._activity is not None:
            for _ in absent(self._evaluator.groups, min(until_us, self._to_us), self._activity):
                pass

    def _collect(self, before_us: int | None) -> None:
        """Take out episodes that nothing can be added to any more; None: all."""
        groups = self._evaluator.groups
        self._pass(self._to_us if before_us is None else before_us)
        is_by_time = self._rule.window.kind is not WindowKind.ABSENT
        for group in groups:
            for episode in group.episodes:
                end_us = episode.last_us + self._rule.quiet_us + self._lateness_us
                is_over = before_us is None or (end_us < before_us and (is_by_time or episode.is_quiet))
                if episode.fired and episode.alert is None and is_over:
                    # One that is absent still is none that has ended.
                    episode.is_quiet, episode.alert = is_by_time or episode.is_quiet, _TOLD
                    self._found(group, episode)
        if before_us is not None:
            groups.forget_before(before_us - self._lateness_us, groups_max=len(groups) + 1)
