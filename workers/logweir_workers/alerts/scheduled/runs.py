"""Which scheduled rules are due, and their runs: each slot once, in order, however long nobody could ask.

    slot over, all of it stored -> the rule's function -> its alerts -> the slot written down as done

A crash in between repeats a slot, and its alerts say which slots they have. A rule that fails is tried again, so its
slots wait: none is passed over.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logweir.alerts.exceptions import Excepting, active
from logweir.alerts.rules import Rule
from logweir.alerts.schedules import FoundAlert, Slot, slot_after, slot_until
from logweir.clock import Clock, iso_seconds, now_us
from logweir.config import Settings
from logweir.errors import DOCUMENT_CHANGED, DOCUMENT_TOO_LARGE, RULE_BAD, LogweirError
from logweir.event import Field, Kind
from logweir.store.documents import DocumentSet, OwnDocument
from logweir.store.port import Store
from logweir_workers.alerts.completeness import Completeness
from logweir_workers.alerts.guard import Guard, RuleEnds, RuleTooSlow
from logweir_workers.alerts.scheduled.alerted import Alerted
from logweir_workers.alerts.scheduled.alerts import Asked, ScheduledAlerts
from logweir_workers.alerts.scheduled.events import StoredEvents
from logweir_workers.alerts.writer import require_own

log = logging.getLogger(__name__)

FOUND_MAX = 10_000
"""Alerts of one run; a rule that finds more has failed."""
_AGAIN_S_MIN, _AGAIN_S_MAX = 10.0, 600.0

STATES = DocumentSet(
    "alert-schedules",
    (Field("updated", Kind.DATE, "When the rule was asked last."),),
    "updated",
    lambda body: {"updated": body["updated"]},
)
"""Of each scheduled rule, up to which slot it was asked, and what came of it."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a run. ``error``: why it failed; the slot is asked for again then."""

    rule: str
    slot: Slot
    alerts: int
    took_s: float
    error: str = ""


class RunFailed(Exception):
    """The rule's own code failed, or what it asked could not be answered; the reason is the message."""


def found_by(
    store: Store, rule: Rule, slot: Slot, *, guard: Guard | None = None, excepting: Excepting | None = None
) -> list[FoundAlert]:
    """What the rule finds in the slot, without what is excepted (by those in force). Changes nothing.

    Raises RunFailed; LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
    """
    return found_in(rule, events_for(store, rule, slot, excepting=excepting), guard=guard)


def events_for(
    store: Store,
    rule: Rule,
    slot: Slot,
    *,
    excepting: Excepting | None = None,
    alerted: Callable[[], Collection[str]] = tuple,
    since_us: int | None = None,
) -> StoredEvents:
    """What the rule is handed; it has to be done with them within its timeout from now on.

    Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
    """
    assert rule.schedule is not None, "it is a scheduled rule"
    excepting = excepting or Excepting(active(store.documents, now_us()))
    left_out, end_s = excepting.nodes(rule.name), time.monotonic() + rule.schedule.timeout_us / 1e6
    return StoredEvents(store, rule.name, slot, end_s=end_s, left_out=left_out, alerted=alerted, since_us=since_us)


def found_in(rule: Rule, events: StoredEvents, *, guard: Guard | None = None) -> list[FoundAlert]:
    """What the rule finds in what it is handed. Changes nothing. Raises RunFailed."""
    assert rule.schedule is not None, "it is a scheduled rule"
    limit_s = rule.schedule.timeout_us / 1e6
    guard = guard or Guard()
    try:
        with guard.running(rule.name, limit_s=limit_s):
            return _alerts_of(rule.say(events))
    except Exception as error:
        raise RunFailed(_words(error)) from error


def _words(error: Exception) -> str:
    """What failed, for logs and for the rule's state, which are UTF-8."""
    try:
        is_ours = isinstance(error, LogweirError) and error.problem is RULE_BAD
        text = str(error.numbers["reason"] if is_ours else error)  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - an exception of the rule's own
        text = "it cannot say why"
    if not isinstance(error, LogweirError | RuleTooSlow | RuleEnds):
        text = f"{type(error).__name__}: {text}"
    return text.encode(errors="backslashreplace").decode()


def _alerts_of(said: object) -> list[FoundAlert]:
    if said is None:
        return []
    if isinstance(said, FoundAlert):
        return [said]
    if not isinstance(said, Iterable) or isinstance(said, str):
        raise TypeError(f"it returned {said!r}, where what found(...) makes should be")
    alerts: list[FoundAlert] = []
    for one in said:
        if one is None:
            continue
        if not isinstance(one, FoundAlert):
            kind = "yielded" if inspect.isgenerator(said) else "returned"
            raise TypeError(f"it {kind} {one!r}, where what found(...) makes should be")
        alerts.append(one)
        if len(alerts) > FOUND_MAX:
            raise ValueError(f"it found more than {FOUND_MAX:,} alerts at once")
    return alerts


class ScheduledRuns:
    """Asks a shard's scheduled rules. For one thread. ``generation``: that of the shard's claim."""

    def __init__(
        self, store: Store, settings: Settings, *, generation: int, clock: Clock, guard: Guard | None = None
    ) -> None:
        self._store = store
        self._generation = generation
        self._clock = clock
        self._guard = guard or Guard()
        self._alerts = ScheduledAlerts(store.documents, generation=generation, clock=clock)
        self._alerted = Alerted(store.documents)
        self._completeness = Completeness(store, group=settings.worker.group, late_us=settings.accounting.late_us)
        self._states: dict[str, OwnDocument | None] = {}
        self._again_s: dict[str, tuple[Rule, float, float]] = {}
        """By rule that failed: as which rule, when it is tried again (monotonic), and how long that is put off."""
        self._stuck = self._guard.found

    def look(
        self,
        rules: Mapping[str, Rule],
        shadowed: Collection[str] = (),
        *,
        up_to_us: int,
        told: Callable[[Ran], object] = lambda _: None,
    ) -> bool:
        """Ask each rule that is due for its next slot; whether any was.

        ``up_to_us``: what was received by then is stored. ``told``: hears of each run.
        Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW (call again), CLAIM_LOST.
        """
        was_due = False
        if up_to_us <= 0:
            return False  # Not known yet: a rule that was never asked would begin in 1970.
        for rule in rules.values():
            if rule.schedule is None or self._must_wait(rule):
                continue
            slot = self._next(rule, up_to_us)
            if slot.end_us > up_to_us:
                continue
            was_due = True
            told(self._run(rule, slot, up_to_us, is_shadowed=rule.name in shadowed))
        return was_due

    def _must_wait(self, rule: Rule) -> bool:
        failed = self._again_s.get(rule.name)
        return failed is not None and failed[0] is rule and time.monotonic() < failed[1]

    def _next(self, rule: Rule, up_to_us: int) -> Slot:
        """The slot behind the last that is done; of a rule that was never asked, the first that is not over."""
        assert rule.schedule is not None, "it is a scheduled rule"
        state = self._state(rule)
        if state is None:
            before = slot_until(rule.schedule, up_to_us)
            self._keep(rule, before, {})
            return slot_after(rule.schedule, before.end_us)
        return slot_after(rule.schedule, state.body["done_us"])

    def _run(self, rule: Rule, slot: Slot, up_to_us: int, *, is_shadowed: bool) -> Ran:
        began_s = time.monotonic()
        self._guard.watch(stuck_s=_stuck_s(rule))
        try:
            if self._stuck == rule.name:
                self._stuck = ""
                raise RunFailed("its code did not come back, and the process had to be ended")
            self._store.refresh()
            events = events_for(self._store, rule, slot, alerted=lambda: self._alerted.before(rule, slot))
            found = found_in(rule, events, guard=self._guard)
            self._guard.rest()
            count = self._write(rule, slot, found, events, up_to_us, is_shadowed=is_shadowed)
        except RunFailed as error:
            before = self._again_s.get(rule.name)
            wait_s = min(_AGAIN_S_MAX, 2 * before[2]) if before is not None else _AGAIN_S_MIN
            self._again_s[rule.name] = rule, time.monotonic() + wait_s, wait_s
            log.error(
                "The rule %s failed for %s to %s, and is asked again in %.0f s: %s",
                *(rule.name, iso_seconds(slot.begin_us), iso_seconds(slot.end_us), wait_s, error),
            )
            self._note_failure(rule, str(error))
            return Ran(rule.name, slot, 0, time.monotonic() - began_s, str(error))
        finally:
            self._guard.rest()
        self._again_s.pop(rule.name, None)
        took_s = time.monotonic() - began_s
        self._keep(rule, slot, {"runs": 1, "alerts": count}, took_s=took_s)
        return Ran(rule.name, slot, count, took_s)

    def _write(
        self,
        rule: Rule,
        slot: Slot,
        found: Sequence[FoundAlert],
        events: StoredEvents,
        up_to_us: int,
        *,
        is_shadowed: bool,
    ) -> int:
        """Write its alerts down; how many. Raises RunFailed where they cannot be stored as they are; LogweirError."""
        self._completeness.up_to_us = up_to_us
        self._completeness.read_missing()
        begin_us = min(slot.begin_us, slot.end_us - events.looked_back_us)
        verdict = self._completeness.judge(rule, begin_us, slot.end_us - 1, of=())
        try:
            count = self._alerts.write(rule, Asked(slot, verdict, is_shadowed), found)
            marks = [mark for one in found for mark in one.marks]
            self._alerted.note(rule, slot, marks, looked_back_us=events.looked_back_us)
            return count
        except LogweirError as error:
            if error.problem is not DOCUMENT_TOO_LARGE:
                raise
            raise RunFailed(str(error)) from error
        except Exception as error:
            # The events that it shows are objects that it may have changed.
            raise RunFailed(f"what it has found cannot be stored: {_words(error)}") from error

    # --- state ------------------------------------------------------------------------------------------------------
    def _state(self, rule: Rule) -> OwnDocument | None:
        if rule.name not in self._states:
            self._states[rule.name] = self._store.documents.get(STATES, [rule.name]).get(rule.name)
        state = self._states[rule.name]
        if state is not None:
            require_own(state.body, self._generation)
        return state

    def _keep(self, rule: Rule, slot: Slot, counts: Mapping[str, int], *, took_s: float = 0.0) -> None:
        body = {"done_us": slot.end_us, "took_s": round(took_s, 3), "error": None, "failing_since": None}
        self._put(rule, body, counts)

    def _note_failure(self, rule: Rule, reason: str) -> None:
        state = self._state(rule)
        since = state.body["failing_since"] if state is not None else None
        self._put(rule, {"error": reason[:500], "failing_since": since or iso_seconds(self._clock())}, {"failed": 1})

    def _put(self, rule: Rule, changes: Mapping[str, Any], counts: Mapping[str, int]) -> None:
        state = self._state(rule)
        before: dict[str, Any] = state.body if state is not None else {"counts": {}}
        summed = {name: before["counts"].get(name, 0) + counts.get(name, 0) for name in ("runs", "alerts", "failed")}
        body = {
            **before,
            **changes,
            "counts": summed,
            "revision": rule.revision,
            "generation": self._generation,
            "updated": iso_seconds(self._clock()),
        }
        try:
            version = self._store.documents.put(STATES, rule.name, body, version=state.version if state else None)
        except LogweirError as error:
            self._states.pop(rule.name, None)
            if error.problem is not DOCUMENT_CHANGED:
                raise
            # Another process has the claim, or a write of ours took effect without an answer.
            self._state(rule)
            return
        self._states[rule.name] = OwnDocument(rule.name, version, body)


def _stuck_s(rule: Rule) -> float:
    """How long a run may take until the process is ended: code that looks at no signal is not interrupted."""
    assert rule.schedule is not None, "it is a scheduled rule"
    return rule.schedule.timeout_us / 1e6 + 60.0
