"""Of thousands of conditions, those that an event may be for: by its log sources, then by what must be in it.

Each condition is filed under its *witness*, a text that a field is or contains whenever the condition holds. Texts that
fields contain are looked for all at once, by one Aho-Corasick automaton a field; of conditions that have nothing but
regular expressions, one that joins them says whether any of them has to be asked. What has no witness is always asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from logweir_workers.alerts.sigma.condition import (
    Logsource,
    Look,
    SigmaCondition,
    Witness,
    joined,
    leaves_of,
    witnesses,
)
from logweir_workers.alerts.sigma.view import Marks, View, fits, places_of

T = TypeVar("T")
_ROUTES_MAX = 4_096
_JOINED_MAX = 32
_WELL_KNOWN_FIELDS = frozenset(
    ("channel", "provider_name", "eventsource", "product", "company", "eventtype", "category")
)
"""Of whose values there are few, each in many events."""


class SigmaIndex(Generic[T]):
    """Files conditions, each with whatever the caller wants back for it."""

    def __init__(self, conditions: Iterable[tuple[SigmaCondition, T]]) -> None:
        by_source: dict[Logsource, list[tuple[SigmaCondition, T]]] = {}
        for condition, payload in conditions:
            by_source.setdefault(condition.logsource, []).append((condition, payload))
        self._groups = {source: _Group(of) for source, of in by_source.items()}
        self._routes: dict[Marks, list[_Group[T]]] = {}

    def candidates(self, view: View) -> list[tuple[SigmaCondition, T]]:
        """Those that may hold for the event, of log sources that it is of; some of them twice."""
        marks = view.sources
        groups = self._routes.get(marks)
        if groups is None:
            if len(self._routes) >= _ROUTES_MAX:
                self._routes.clear()
            groups = self._routes[marks] = [group for source, group in self._groups.items() if fits(marks, source)]
        found: list[tuple[SigmaCondition, T]] = []
        for group in groups:
            group.add_candidates(view, found)
        return found

    @property
    def always_asked(self) -> int:
        """How many conditions have no witness."""
        return sum(len(group.always) for group in self._groups.values())


class _Group(Generic[T]):
    """The conditions of one log source."""

    def __init__(self, conditions: list[tuple[SigmaCondition, T]]) -> None:
        self.always: list[tuple[SigmaCondition, T]] = []
        counts = Counter(
            str(value[-1] if isinstance(value, list) else value)
            for condition, _ in conditions
            for leaf in leaves_of(condition.tree)
            if len(leaf) > 2
            for value in leaf[2]
        )

        def worth(found: list[Witness]) -> tuple[float, int]:
            return min(_rarity(one, counts) for one in found), -len(found)

        by_field: dict[str | None, _Texts[T]] = {}
        for condition, payload in conditions:
            known = witnesses(condition.tree, worth)
            if known is None:
                self.always.append((condition, payload))
            for one in set(known or ()):
                by_field.setdefault(one.field, _Texts()).file(one, (condition, payload))
        for texts in by_field.values():
            texts.close()
        self._fields = list(by_field.items())
        self._anyway: list[tuple[str | None, _Texts[T]]] = []
        """Fields that an event may have whatever its details are called."""
        self._by_path: dict[str, list[tuple[str | None, _Texts[T]]]] = {}
        for field, texts in self._fields:
            paths, is_anyway = (frozenset[str](), True) if field is None else places_of(field)
            for path in () if is_anyway else paths:
                self._by_path.setdefault(path, []).append((field, texts))
            if is_anyway:
                self._anyway.append((field, texts))

    def add_candidates(self, view: View, found: list[tuple[SigmaCondition, T]]) -> None:
        found += self.always
        if view.sources.is_audit:
            fields = self._fields
        else:
            # Most of the fields that rules ask for most events do not have.
            fields = list(self._anyway)
            for path in view.flat.keys() & self._by_path.keys():
                fields += self._by_path[path]
        for field, texts in fields:
            for text in view.low[field] if field is not None else (view.all_low,):
                if texts.whole and (known := texts.whole.get(text)) is not None:
                    found += known
                if texts.pieces is not None:
                    for _, filed in texts.pieces.iter(text):
                        found += filed
            for expression, filed in texts.expressions:
                if any(expression.search(text) is not None for text in view.raw[field or ""]):
                    found += filed


class _Texts(Generic[T]):
    """What a field has to be, or to contain, for which conditions."""

    def __init__(self) -> None:
        self.whole: dict[str, list[tuple[SigmaCondition, T]]] = {}
        self._pieces: dict[str, list[tuple[SigmaCondition, T]]] = {}
        self.pieces: Any = None
        """The automaton, once it is closed; None where there is nothing to look for."""

        self._patterns: dict[str, list[tuple[SigmaCondition, T]]] = {}
        self.expressions: list[tuple[Any, list[tuple[SigmaCondition, T]]]] = []
        """Each with the conditions that are to be asked where it matches, once it is closed."""

    def file(self, witness: Witness, condition: tuple[SigmaCondition, T]) -> None:
        filed = {Look.WHOLE: self.whole, Look.PIECE: self._pieces, Look.EXPRESSION: self._patterns}[witness.look]
        filed.setdefault(witness.text, []).append(condition)

    def close(self) -> None:
        patterns = list(self._patterns)
        for first in range(0, len(patterns), _JOINED_MAX):
            some = patterns[first : first + _JOINED_MAX]
            whole = joined(some)
            for part in [some] if whole is not None else [[one] for one in some]:
                expression = whole if whole is not None else joined(part)
                self.expressions.append((expression, [one for pattern in part for one in self._patterns[pattern]]))
        if self._pieces:
            import ahocorasick

            self.pieces = ahocorasick.Automaton()
            for text, filed in self._pieces.items():
                self.pieces.add_word(text, filed)
            self.pieces.make_automaton()


def _rarity(one: Witness, counts: Counter[str]) -> float:
    """How rarely it is there, as far as that can be guessed: long texts are rarer, and those that few rules ask for."""
    if one.look is Look.EXPRESSION:
        return -1_000
    length = min(len(one.text), 40) + (6 if one.look is Look.WHOLE else 0)
    often = counts[one.text]
    known = 10 if (one.field or "").lower() in _WELL_KNOWN_FIELDS else 0
    return length - 4 * math.sqrt(max(0, often - 1)) - known
