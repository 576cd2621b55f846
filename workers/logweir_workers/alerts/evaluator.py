"""One event, all rules: matched, put to its groups, episodes that have changed given back."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from logweir.alerts.exceptions import Excepting
from logweir.alerts.rules import Rule, WindowKind
from logweir.event import Document
from logweir.ledger.emitter import Emitter
from logweir.metrics import registry
from logweir.query.match import milliseconds_of
from logweir_workers.alerts.groups import Episode, Group, Groups
from logweir_workers.alerts.guard import Guard
from logweir_workers.alerts.matching import Matched, Matcher, Seen
from logweir_workers.alerts.sight import Sight
from logweir_workers.alerts.storms import HOUR_US
from logweir_workers.alerts.windows import Match

log = logging.getLogger(__name__)

FAILURES_MAX = 5
FAILURES_WITHIN_S = 600.0
"""A rule whose own code raises so often within that time is parked."""


class Changed(NamedTuple):
    """An episode that is another one than before."""

    group: Group
    episode: Episode
    has_fired: bool
    """Just now."""
    hours_before: set[int]
    hours_after: set[int]
    """The hours in which episodes of the group have fired, without it and with it."""


class Late(NamedTuple):
    """A match that is older than what is remembered: it is to be counted by asking the store."""

    rule: Rule
    group: tuple[str, ...]
    time_us: int


class Evaluator:
    """All rules in force, with their groups. For one thread.

    ``late_after_us``: an alert says so when the event that made it was received so long after it happened.
    """

    def __init__(
        self, rules: Mapping[str, Rule], groups: Groups, *, late_after_us: int, guard: Guard | None = None
    ) -> None:
        self._late_after_us = late_after_us
        self.guard = guard or Guard()
        self.groups = groups
        self.counts: dict[str, dict[str, int]] = {}
        """By rule, its matches: how many, and what became of them."""
        self.parked: dict[str, str] = {}
        """Rules that are not evaluated because their own code fails, with the error: until their file changes."""
        self.shadowed: set[str] = set()
        """Rules that are asked, and whose alerts are none."""
        self.excepting = Excepting()
        """What does not count, though it matches."""
        self.excepted: dict[str, int] = {}
        """By exception, how many matches did not count."""
        self._failures: dict[str, deque[float]] = {}
        self.sight = Sight()
        """Which of the rules are blind."""
        self._rules = dict(rules)
        self._matcher = self.matcher(self._rules.values())
        _count_from_zero(name for name, rule in rules.items() if not rule.is_imported)
        self.sight.watch(self._rules.values())

    def matcher(self, rules: Iterable[Rule]) -> Matcher:
        """One for those of the rules that are about events, which tells this evaluator what fails."""
        rules = [rule for rule in rules if rule.is_about_events]
        return Matcher(rules, failed=self.failed, parked=self.parked, guard=self.guard)

    @property
    def rules(self) -> Mapping[str, Rule]:
        return self._rules

    def replace_rules(self, rules: Mapping[str, Rule]) -> None:
        """Take other rules into force. Groups of rules that are the same stay."""
        changed = {name for name, rule in rules.items() if self._rules.get(name) is not rule}
        self._rules = dict(rules)
        for name in changed:
            self.parked.pop(name, None)
            self._failures.pop(name, None)
        _count_from_zero(name for name in changed if not rules[name].is_imported)
        self.groups.keep_only(self._rules)
        self.sight.watch(self._rules.values())
        self._matcher = self.matcher(self._rules.values())

    def failed(self, rule: Rule, error: BaseException) -> None:
        """A rule's own code has raised."""
        self.count(rule.name, "errors")
        times = self._failures.setdefault(rule.name, deque(maxlen=FAILURES_MAX))
        times.append(time.monotonic())
        if len(times) == FAILURES_MAX and times[-1] - times[0] <= FAILURES_WITHIN_S and rule.name not in self.parked:
            self.parked[rule.name] = f"{type(error).__name__}: {error}"
            log.error(
                "The rule %s is parked: its own code has failed %d times.", rule.name, FAILURES_MAX, exc_info=error
            )

    def park(self, name: str, reason: str) -> None:
        """Evaluate the rule no more until its file changes."""
        self.parked[name] = reason
        log.error("The rule %s is parked: %s", name, reason)

    def count(self, name: str, what: str, by: int = 1) -> None:
        """Count something of a rule."""
        counts = self.counts.setdefault(name, {})
        counts[what] = counts.get(what, 0) + by
        if what == "errors":
            registry.get("logweir_alerter_rule_errors_total").labels(name).inc(by)
        elif what != "matches":
            registry.get("logweir_alerter_matches_total").labels(name, what).inc(by)

    def evaluate(
        self, document: Document, *, received_us: int, emitter: Emitter | None, horizon_us: int
    ) -> tuple[list[Changed], list[Late]]:
        """What an event changes. ``horizon_us``: what happened before then is too late to be counted here."""
        changed: list[Changed] = []
        late: list[Late] = []
        seen = Seen(document)
        self.sight.note(seen, received_us)
        found = self._matcher.matches(document, seen)
        for name in self._matcher.unasked.difference(one.rule.name for one in found):
            # Perhaps it is one: nobody knows.
            self.count(name, "matches")
            self.count(name, "unevaluated")
        if not found:
            return changed, late
        happened_ms = milliseconds_of(document.source.get("timestamp"))
        time_us = received_us if happened_ms is None else min(happened_ms * 1000, received_us)
        for one in found:
            self.count(one.rule.name, "matches")
            if one.rule.name in self.parked:
                self.count(one.rule.name, "unevaluated")
                continue
            if self.is_excepted(one.rule, document):
                continue
            if time_us < horizon_us and one.rule.window.kind not in (WindowKind.NEW_VALUE, WindowKind.ABSENT):
                self.count(one.rule.name, "late")
                late.append(Late(one.rule, one.group, time_us))
                continue
            if (change := self.put(one, document, time_us, received_us, emitter, horizon_us)) is not None:
                changed.append(change)
        return changed, late

    def is_excepted(self, rule: Rule, document: Document) -> bool:
        """Whether a match does not count; then that is counted."""
        id = self.excepting.by(rule.name, document)
        if id is None:
            return False
        self.count(rule.name, "excepted")
        self.excepted[id] = self.excepted.get(id, 0) + 1
        return True

    def put(
        self,
        one: Matched,
        document: Document,
        time_us: int,
        received_us: int,
        emitter: Emitter | None,
        horizon_us: int,
    ) -> Changed | None:
        """Count a match; None where that changes nothing. ``horizon_us``: a new group knows nothing from before."""
        rule = one.rule
        group = self.groups.make(rule, one.group, emitter[0] if emitter is not None else "")
        if group is None:
            self.count(rule.name, "unevaluated")
            return None
        match = Match(time_us, document.id, one.value, document.day)
        if rule.window.kind is WindowKind.ABSENT:
            self.count(rule.name, "shadow" if rule.name in self.shadowed else "counted")
            ended = group.come(match, received_us)
            return None if ended is None else Changed(group, ended, False, set(), set())
        if not group.episodes and not len(group) and not group.known_from_us:
            group.known_from_us = horizon_us
        fired = {id(episode) for episode in group.episodes if episode.fired}
        hours_before = group.fired_hours
        episode = group.add(match)
        if episode is None:
            return None
        self.count(rule.name, "shadow" if rule.name in self.shadowed else "counted")
        episode.is_quiet = False
        if emitter is not None:
            episode.note_emitter(emitter)
        self.note_event(rule, episode, document, received_us)
        has_fired = episode.fired and id(episode) not in fired
        if has_fired and episode.fired_hour is None:
            episode.fired_hour = received_us // HOUR_US
        if has_fired and received_us - time_us > self._late_after_us:
            episode.late_us = received_us - time_us
        return Changed(group, episode, has_fired, hours_before, group.fired_hours)

    def note_event(self, rule: Rule, episode: Episode, document: Document, received_us: int) -> None:
        """Keep of an episode's event what its alert says: when it was received, and what the rule's function wants."""
        episode.received_us = max(episode.received_us, received_us)
        if rule.tracked:
            seen = Seen(document)
            for field in rule.tracked:
                value = seen.value(field)
                if value is not None:
                    episode.track(field, [value])


def _count_from_zero(names: Iterable[str]) -> None:
    """Have the rules' series from the start, so that the first match is an increase."""
    for name in names:
        registry.get("logweir_alerter_rule_errors_total").labels(name)
        for outcome in ("counted", "excepted", "late", "unevaluated"):
            registry.get("logweir_alerter_matches_total").labels(name, outcome)
