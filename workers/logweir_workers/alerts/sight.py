"""Which rules are blind: they need a field, or a category, that no event has brought for a week.

A week is 168 hours in which events came: our own downtime makes no rule blind. What is needed is read off a rule's
conditions: only what every match must have, so no rule is called blind that is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from logweir.alerts.rules import Rule
from logweir.query.tree import And, InList, Node, Or, Prefix, Range, Term, Wildcard
from logweir_workers.alerts.matching import Seen

BLIND_HOURS = 7 * 24
_HOUR_US = 3_600_000_000
_DETAILS = "details."
_CATEGORY = "category:"


class Sight:
    """When what rules need came last, in hours in which anything came. For one thread."""

    def __init__(self) -> None:
        self.hours = 0
        """In how many hours, by receipt, events have come so far."""
        self._hour = 0
        self._seen: dict[str, int] = {}
        """By what is needed, ``hours`` when it came last, or when it was needed first."""
        self._needs: dict[str, list[str]] = {}
        # What has not come in this hour, by how it is looked for; nearly always nothing, or what never comes.
        self._details: set[str] = set()
        self._fields: set[str] = set()
        self._categories: set[str] = set()

    def watch(self, rules: Iterable[Rule]) -> None:
        """Look for what these rules need, and for nothing else."""
        self._needs = {rule.name: sorted(needs_of(rule)) for rule in rules}
        needed = {need for needs in self._needs.values() for need in needs}
        self._seen = {need: self._seen.get(need, self.hours) for need in needed}
        self._begin_hour()

    def _begin_hour(self) -> None:
        """Nothing has come yet."""
        self._categories = {need[len(_CATEGORY) :] for need in self._seen if need.startswith(_CATEGORY)}
        self._details = {need[len(_DETAILS) :] for need in self._seen if need.startswith(_DETAILS)}
        self._fields = {need for need in self._seen if not need.startswith((_CATEGORY, _DETAILS))}

    def note(self, seen: Seen, received_us: int) -> None:
        """An event has come."""
        hour = received_us // _HOUR_US
        if hour > self._hour:
            self._hour = hour
            self.hours += 1
            self._begin_hour()
        if self._categories:
            for category in self._categories.intersection(seen.texts("category")):
                self._categories.discard(category)
                self._seen[_CATEGORY + category] = self.hours
        if self._details:
            for path in self._details & seen.leaves.keys():
                self._details.discard(path)
                self._seen[_DETAILS + path] = self.hours
        if self._fields:
            for field in [field for field in self._fields if seen.document.source.get(field) is not None]:
                self._fields.discard(field)
                self._seen[field] = self.hours

    def missing(self, name: str) -> list[str]:
        """What the rule needs that has not come for a week; nothing where it is not blind."""
        return [need for need in self._needs.get(name, ()) if self.hours - self._seen[need] >= BLIND_HOURS]

    def as_body(self) -> dict[str, Any]:
        return {"hours": self.hours, "hour": self._hour, "seen": self._seen}

    def load(self, body: Mapping[str, Any]) -> None:
        """Go on from what was written down, before ``watch``."""
        self.hours, self._hour, self._seen = body.get("hours", 0), body.get("hour", 0), dict(body.get("seen", {}))


def needs_of(rule: Rule) -> set[str]:
    """What each of a rule's matches must have: a field by its name, or ``category:`` and a category."""
    if not rule.is_about_events or rule.is_imported:
        return set()  # Of thousands of imported rules most are for what an installation never has.
    needs = {need for node in rule.nodes() for need in _needs(node)}
    return needs | set(rule.group) | ({rule.window.field} if rule.window.field else set())


def _needs(node: Node) -> set[str]:
    if isinstance(node, And):
        return {need for one in node.nodes for need in _needs(one)}
    if isinstance(node, Or):
        first, *others = (_needs(one) for one in node.nodes)
        return first.intersection(*others)
    if isinstance(node, Term) and node.field == "category":
        return {_CATEGORY + node.value}
    if isinstance(node, Term | Prefix | Wildcard | Range | InList) and node.field != "details":
        return {node.field}
    return set()
