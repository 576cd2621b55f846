"""Which rules an event matches: of all rules only those are asked whose *witness* is in the event.

A witness is a field's value or a word that must be there for a condition to hold. Conditions without one are always
asked. The condition itself has the last word, so a witness decides about speed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from logweir.alerts.rules import NUMERIC, Rule, WindowKind
from logweir.event import Document
from logweir.query import known
from logweir.query.match import Matches, keywords_of, leaves_of, matcher, text_of, without_case
from logweir.query.tree import And, Node, Or, Term, Words, forms_of, lower
from logweir_workers.alerts.guard import Guard
from logweir_workers.alerts.sigma.condition import SigmaCondition
from logweir_workers.alerts.sigma.index import SigmaIndex
from logweir_workers.alerts.sigma.view import View

VALUE_LENGTH_MAX = 1_000
"""Characters of a value that matches are counted by; longer ones are cut."""
_WITNESSES_MAX = 50


class Seen:
    """One event, as rules look at it: any field by its name."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._leaves: dict[str, list[str]] | None = None
        self._sigma: View | None = None

    @property
    def leaves(self) -> dict[str, list[str]]:
        """The texts of details by path."""
        if self._leaves is None:
            self._leaves = {}
            for path, text in leaves_of(self.document.source.get("details")):
                self._leaves.setdefault(path, []).append(text)
        return self._leaves

    @property
    def sigma(self) -> View:
        """The event as Sigma's rules look at it."""
        if self._sigma is None:
            self._sigma = View(self.document)
        return self._sigma

    def texts(self, field: str) -> list[str]:
        """The values of a field as text; of keywords in lower case, as searches compare them."""
        if field.startswith("details."):
            return self.leaves.get(field[len("details.") :], [])
        return list(keywords_of(self.document.source.get(field)))

    def get(self, field: str) -> Any:
        """A field's value, of details the leaf at that path: a list where there are several, None without one."""
        if not field.startswith("details."):
            return self.document.source.get(field)
        texts = self.texts(field)
        return texts[0] if len(texts) == 1 else texts or None

    def value(self, field: str) -> str | None:
        """What matches are counted by: the field's text, several with commas between them; None where it has none."""
        texts = self.texts(field) if field.startswith("details.") else list(as_sent(self.document.source.get(field)))
        return ",".join(texts)[:VALUE_LENGTH_MAX] if texts else None


def as_sent(value: object) -> Iterator[str]:
    """The texts of a field's value, each of several."""
    if isinstance(value, list):
        for one in value:
            yield from as_sent(one)
    elif value is not None:
        yield text_of(value)


class Matched(NamedTuple):
    """A rule that the event is for. ``value``: what the rule's window looks at (see ``windows.Match``)."""

    rule: Rule
    group: tuple[str, ...]
    value: str | float | int | None


@dataclass(slots=True)
class _Condition:
    rule: Rule
    step: int
    holds: Callable[[Seen], object]
    is_code: bool = False
    """It is the operator's own function."""


class Matcher:
    """All conditions of some rules.

    ``failed`` is told of a rule whose own code raises; that of rules whose names are in ``parked`` is not run.
    ``guard`` watches it.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        failed: Callable[[Rule, BaseException], None],
        parked: Container[str] = (),
        guard: Guard | None = None,
    ) -> None:
        self._failed = failed
        self._parked = parked
        self._guard = guard or Guard()
        self.unasked: set[str] = set()
        """The rules whose own condition did not say whether it holds of the last event: they are parked, or failed."""
        self._always: list[_Condition] = []
        self._by_value: dict[str, dict[str, list[_Condition]]] = {}
        self._by_word: dict[str, list[_Condition]] = {}
        sigma: list[tuple[SigmaCondition, _Condition]] = []
        for rule in rules:
            for step, (where, node) in enumerate(zip(rule.conditions, rule.nodes(), strict=True)):
                if isinstance(where, SigmaCondition):
                    sigma.append((where, _Condition(rule, step, where)))
                elif callable(where):
                    self._always.append(_Condition(rule, step, where, is_code=True))
                else:
                    self._file(_Condition(rule, step, _of_document(matcher(node))), node)
        self._sigma = SigmaIndex(sigma) if sigma else None

    def _file(self, condition: _Condition, node: Node) -> None:
        witnesses = _witnesses(node)
        if witnesses is None:
            self._always.append(condition)
        for one in witnesses or ():
            if isinstance(one, Words):
                self._by_word.setdefault(max(one.words, key=len), []).append(condition)
            else:
                for form in forms_of(without_case(one).value):
                    self._by_value.setdefault(one.field, {}).setdefault(form, []).append(condition)

    def matches(self, document: Document, seen: Seen | None = None) -> list[Matched]:
        """The rules that the event is for, each once. ``seen``: the event, where somebody has looked at it before."""
        seen = seen or Seen(document)
        self.unasked.clear()
        candidates = list(self._always)
        for field, by_text in self._by_value.items():
            texts = seen.texts(field)
            for text in map(lower, texts) if field in known.KEYWORDS else texts:
                candidates += by_text.get(text, ())
        if self._by_word:
            for word in self._by_word.keys() & set(document.all_words.split(" ")):
                candidates += self._by_word[word]
        of_sigma = self._sigma.candidates(seen.sigma) if self._sigma is not None else ()
        if not candidates and not of_sigma:
            return []
        steps: dict[str, int] = {}
        rules: dict[str, Rule] = {}
        asked: set[tuple[str, int]] = set()
        for one in candidates:
            key = one.rule.name, one.step
            if key not in asked:
                asked.add(key)
                if self._holds(one, seen):
                    rules[one.rule.name] = one.rule
                    steps[one.rule.name] = steps.get(one.rule.name, 0) | 1 << one.step
        for sigma, one in of_sigma:
            key = one.rule.name, one.step
            if key not in asked:
                asked.add(key)
                if self._sigma_holds(sigma, one.rule, seen):
                    rules[one.rule.name] = one.rule
                    steps[one.rule.name] = steps.get(one.rule.name, 0) | 1 << one.step
        return [one for name, rule in rules.items() for one in _matched(rule, seen, steps[name])]

    def _holds(self, condition: _Condition, seen: Seen) -> bool:
        if not condition.is_code:
            return bool(condition.holds(seen))
        if condition.rule.name in self._parked:
            self.unasked.add(condition.rule.name)
            return False
        try:
            with self._guard.running(condition.rule.name):
                return bool(condition.holds(seen))
        except Exception as error:  # noqa: BLE001 - the operator's own code: its rule is the one that suffers
            self._failed(condition.rule, error)
            self.unasked.add(condition.rule.name)
            return False

    def _sigma_holds(self, condition: SigmaCondition, rule: Rule, seen: Seen) -> bool:
        if rule.name in self._parked:
            return False
        try:
            # Its log source is one of the event's: that is what it was found by.
            return condition.holds(seen.sigma)
        except Exception as error:  # noqa: BLE001 - whatever is in a rule that others wrote, others go on
            self._failed(rule, error)
            return False


def _of_document(matches: Matches) -> Callable[[Seen], bool]:
    return lambda seen: matches(seen.document)


def _matched(rule: Rule, seen: Seen, steps: int) -> list[Matched]:
    """Nothing for an event without a value that the rule counts by, or looks at.

    Two for one that two of a correlation's rules are for, which call the same value by names of different fields.
    """
    if not rule.is_imported:
        return _matched_by(rule, seen.value, steps)
    if rule.window.kind is WindowKind.MATCH:
        # Not all that Sigma has rules for comes from a host.
        return [Matched(rule, tuple(seen.value(field) or "" for field in rule.group), None)]
    found: dict[tuple[str, ...], Matched] = {}
    for step, condition in enumerate(rule.conditions):
        if steps >> step & 1 and isinstance(condition, SigmaCondition):
            for one in _matched_by(rule, partial(condition.value, seen), 1 << step):
                before = found.get(one.group)
                if before is not None and rule.window.steps:
                    one = one._replace(value=int(before.value or 0) | 1 << step)
                found[one.group] = one
    return list(found.values())


def group_of(rule: Rule, seen: Seen) -> dict[str, str | None]:
    """By field, what the rule groups the event by."""
    (first, *_) = rule.conditions
    is_of_sigma = rule.is_imported and rule.window.kind is not WindowKind.MATCH
    value_of = partial(first.value, seen) if is_of_sigma and isinstance(first, SigmaCondition) else seen.value
    return {field: value_of(field) for field in rule.group}


def _matched_by(rule: Rule, value_of: Callable[[str], str | None], steps: int) -> list[Matched]:
    group: list[str] = []
    for field in rule.group:
        text = value_of(field)
        if text is None:
            return []
        group.append(text[:VALUE_LENGTH_MAX])
    window = rule.window
    if window.steps:
        return [Matched(rule, tuple(group), steps)]
    if window.field is None:
        return [Matched(rule, tuple(group), None)]
    text = value_of(window.field)
    if text is None:
        return []
    if window.kind not in NUMERIC:
        return [Matched(rule, tuple(group), text[:VALUE_LENGTH_MAX])]
    try:
        number = float(text)
    except ValueError:
        return []
    return [Matched(rule, tuple(group), number)] if math.isfinite(number) else []


def _witnesses(node: Node) -> list[Term | Words] | None:
    """What of which at least one must be there when the condition holds; None where nothing must."""
    if isinstance(node, Term) and node.field != "details":
        return [node]
    if isinstance(node, Words):
        return [node]
    if isinstance(node, And):
        known = [found for one in node.nodes if (found := _witnesses(one)) is not None]
        return max(known, key=_worth, default=None)
    if isinstance(node, Or):
        parts = [_witnesses(one) for one in node.nodes]
        flat = [one for part in parts for one in part or ()]
        return flat if all(part is not None for part in parts) and len(flat) <= _WITNESSES_MAX else None
    return None


def _worth(witnesses: list[Term | Words]) -> tuple[int, int]:
    """The rarer the better: a category or a severity is in many events, and fewer alternatives are in fewer."""
    return min(_rarity(one) for one in witnesses), -len(witnesses)


def _rarity(one: Term | Words) -> int:
    if isinstance(one, Words):
        return 2
    if one.field in ("category", "severity", "hostname", "details.outcome"):
        return 0
    return 3 if one.field.startswith("details.") else 1
