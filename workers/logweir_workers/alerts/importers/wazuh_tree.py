"""The rules of Wazuh 4 among each other: parents, children, and who takes an event from whom.

A rule is asked only where its parent holds, and an event is for one rule alone: of a parent's children, those of level
0 are asked first, and make no alert. So a rule's condition asks for its parents, too, and for none of the children that
would take the event from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TypeVar

from logweir_workers.alerts.importers import wazuh_xml
from logweir_workers.alerts.importers.conditions import (
    ALWAYS,
    Tree,
    Unfit,
    all_of,
    named,
    none_of,
    one_of,
    require_small,
)
from logweir_workers.alerts.importers.wazuh_rule import LEFT, NUMBERS, OBJECTS, OF_WEB, PARENTS, Rule

_PARENTS_MAX = 150
"""Of one rule, those of its parents among them: each is asked by way of the one before it."""
_Made = TypeVar("_Made")


def _once(known: dict[int, _Made | Unfit], rule: Rule, make: Callable[[Rule], _Made]) -> _Made:
    """What ``make`` makes of the rule, made once. Raises Unfit, also for a rule that needs itself."""
    if rule.id not in known:
        known[rule.id] = Unfit(f"{rule.label} is one of its own parents")
        try:
            known[rule.id] = make(rule)
        except Unfit as unfit:
            known[rule.id] = unfit
    found = known[rule.id]
    if isinstance(found, Unfit):
        raise found
    return found


class Rules:
    """All rules that are known, in Wazuh's order."""

    def __init__(self) -> None:
        self._by_id: dict[int, Rule] = {}
        self._children: dict[int, list[Rule]] | None = None
        self._parents: dict[int, list[Rule] | Unfit] = {}
        self._owns: dict[int, Tree | Unfit] = {}
        self._holds: dict[int, Tree | Unfit] = {}
        self.doubles: dict[PurePosixPath, dict[str, str]] = {}
        """By file, rules that are there twice."""

    def read(self, content: bytes, path: PurePosixPath | None) -> list[str]:
        """Add a file's rules; what its remarks say of authors. Raises Unfit."""
        read = wazuh_xml.read(content)
        for groups, element in read.rules:
            sid, level = element.attributes.get("id", ""), element.attributes.get("level", "")
            left = self.doubles.setdefault(path, {}) if path is not None else {}
            if not NUMBERS.fullmatch(sid) or not re.fullmatch(r"\d{1,2}", level) or int(level) > 16:
                left[f"rule {sid[:20] or 'without an id'}"] = "it has no id, or no level from 0 to 16"
                continue
            rule = Rule(int(sid), element, [], path, len(self._by_id))
            before = self._by_id.get(rule.id)
            if before is not None and element.attributes.get("overwrite", "no").lower() != "yes":
                left[f"{rule.label} once more"] = "there is another rule of this id, and it does not say overwrite"
                continue
            if before is not None:
                # What is written over keeps its parents and its place.
                parents = [one for one in before.element.children if one.name in PARENTS]
                element.children = [*parents, *(one for one in element.children if one.name not in PARENTS)]
                rule.order = before.order
            said = [groups, *rule.texts("group")]
            rule.groups = list(dict.fromkeys(one.strip() for text in said for one in text.split(",") if one.strip()))
            self._by_id[rule.id] = rule
        return read.about

    def of(self, path: PurePosixPath) -> list[Rule]:
        return [one for one in self._by_id.values() if one.path == path]

    def named(self, number: int) -> Rule:
        """Raises Unfit."""
        if number not in self._by_id:
            raise Unfit(
                f"rule {number}, which it refers to, is not here: import its file too, or name it with --parents"
            )
        return self._by_id[number]

    def with_group(self, name: str) -> list[Rule]:
        return [one for one in self._by_id.values() if name in one.groups]

    def parents(self, rule: Rule) -> list[Rule]:
        """The rules, one of which has to hold. Raises Unfit."""
        return _once(self._parents, rule, self._parents_of)

    def own(self, rule: Rule) -> Tree:
        """What a rule asks of an event itself. Raises Unfit."""
        return _once(self._owns, rule, self._own_of)

    def holds(self, rule: Rule) -> Tree:
        """Its parents, itself, and none of what comes before it without an alert. Raises Unfit."""
        return _once(self._holds, rule, self._holds_of)

    def _parents_of(self, rule: Rule) -> list[Rule]:
        if "if_level" in {one.name for one in rule.element.children}:
            raise Unfit(LEFT["if_level"])
        found = [self.named(one) for one in rule.numbers("if_sid")]
        groups = rule.texts("if_group")
        if not found and not groups:
            found = [self.named(one) for one in rule.numbers("if_matched_sid")]
            groups = [] if found else rule.texts("if_matched_group")
        for group in groups:
            of_group = [one for one in self.with_group(group) if one.order < rule.order and not one.counts]
            if not of_group:
                raise Unfit(f"there is no rule of the group {group[:40]} here: name its file with --parents")
            found += of_group
        if len(found) > _PARENTS_MAX:
            raise Unfit(f"it has more than {_PARENTS_MAX} parents")
        return found

    def chain(self, rule: Rule) -> list[Rule]:
        """The rule, and all that it goes back to. Raises Unfit."""
        found: dict[int, Rule] = {}
        due = [rule]
        while due:
            one = due.pop()
            if one.id not in found:
                found[one.id] = one
                due += self.parents(one) if one is rule else self._parents_of_parent(one)
            if len(found) > _PARENTS_MAX:
                raise Unfit(f"it goes back to more than {_PARENTS_MAX} rules")
        return list(found.values())

    def _own_of(self, rule: Rule) -> Tree:
        made = rule.own()
        asked = {one.name for one in rule.element.children}
        if asked & {"match", "regex", "id"}:
            told = {name for one in self.chain(rule) for name in (*one.texts("decoded_as"), *one.texts("category"))}
            if asked & {"match", "regex"} and told & OBJECTS:
                raise Unfit("it looks for words in the text of a record that is an object, and here that has none")
            if "id" in asked and not told & OF_WEB:
                raise Unfit("it asks for an id, and what that is, each of Wazuh's decoders says for itself (<id>)")
        return made

    def _holds_of(self, rule: Rule) -> Tree:
        if rule.counts:
            raise Unfit("it counts events")
        self.chain(rule)
        own = named(rule.name, self.own(rule))
        parents = self.parents(rule)
        if not parents:
            return own
        ways = [
            all_of([self._of_parent(parent), *(none_of(one) for one in self._before(parent, rule))])
            for parent in parents
        ]
        # Parents of parents would be copied again and again.
        return require_small(all_of([one_of(ways), own]))

    def _parents_of_parent(self, parent: Rule) -> list[Rule]:
        try:
            return self.parents(parent)
        except Unfit as unfit:
            raise _of_its_parent(parent, unfit) from unfit

    def _of_parent(self, parent: Rule) -> Tree:
        try:
            return self.holds(parent)
        except Unfit as unfit:
            raise _of_its_parent(parent, unfit) from unfit

    def _before(self, parent: Rule, rule: Rule) -> Iterator[Tree]:
        """What keeps an event of the parent's from the rule: children of level 0, which are asked first."""
        for other in self.children(parent):
            if other is not rule and other.level == 0 and (rule.level != 0 or other.order < rule.order):
                yield self._taken_by(other)

    def _taken_by(self, other: Rule) -> Tree:
        """The events that another rule takes from one. Raises Unfit."""
        try:
            own = self.own(other)
        except Unfit as unfit:
            raise Unfit(f"{other.label}, of level 0, keeps events from it: {unfit}") from unfit
        if own == ALWAYS:
            raise Unfit(f"{other.label} takes each of its events")
        return named(other.name, own)

    def children(self, rule: Rule) -> list[Rule]:
        """Of those that are known, without what counts events."""
        if self._children is None:
            self._children = {}
            for one in self._by_id.values():
                if one.counts:
                    continue
                numbers = set(one.numbers("if_sid"))
                for group in one.texts("if_group"):
                    numbers |= {each.id for each in self.with_group(group) if each.order < one.order}
                for number in numbers:
                    self._children.setdefault(number, []).append(one)
        return self._children.get(rule.id, [])

    def ends_at(self, rule: Rule) -> tuple[Tree, list[str]]:
        """The events that are for this rule and for none of its children; what differs. Raises Unfit."""
        parts, changes = [self.holds(rule)], []
        for child in self.children(rule):
            try:
                self.own(child)
            except Unfit as unfit:
                if child.level > 0:
                    changes.append(
                        f"Its child, {child.label}, is not taken ({unfit}): events of that one are for this one here."
                    )
                    continue
            parts.append(none_of(self._taken_by(child)))
        return all_of(parts), changes


def _of_its_parent(parent: Rule, unfit: Unfit) -> Unfit:
    """The reason, as the rule's that goes back to the parent."""
    reason = str(unfit)
    return unfit if reason.startswith("its parent, ") else Unfit(f"its parent, {parent.label}: {reason}")
