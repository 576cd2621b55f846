"""Conditions as importers make them: a small tree, and the detection (Sigma's selections and condition) for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

VALUES_MAX = 1_000
"""Of one condition, what it asks of its parents among them."""


class Unfit(Exception):
    """A rule cannot be taken; the text says why."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One of the values has to fit the field. ``field``: by its name in Sigma; None is any value of the event."""

    field: str | None
    how: str
    """Sigma's modifiers: ``contains``, ``re|i``; empty: the whole value, in any case."""
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class And:
    """Each part holds; without parts, that is so of every event."""

    parts: tuple[Tree, ...] = ()


@dataclass(frozen=True, slots=True)
class Or:
    """One of the parts holds; without parts, that is so of no event."""

    parts: tuple[Tree, ...] = ()


@dataclass(frozen=True, slots=True)
class Not:
    part: Tree


@dataclass(frozen=True, slots=True)
class Named:
    """A part that people know by a name."""

    name: str
    part: Tree


Tree = Leaf | And | Or | Not | Named
ALWAYS, NEVER = And(), Or()


def all_of(parts: Iterable[Tree]) -> Tree:
    """Each of them, as plainly as it can be said."""
    made: list[Tree] = []
    for one in parts:
        made += [part for part in (one.parts if isinstance(one, And) else [one]) if part not in made]
        _require_few(len(made))
    if NEVER in made:
        return NEVER
    return made[0] if len(made) == 1 else And(tuple(made))


def one_of(parts: Iterable[Tree]) -> Tree:
    """One of them, as plainly as it can be said: values that are looked for alike become one leaf."""
    made: list[Tree] = []
    for one in parts:
        made += [part for part in (one.parts if isinstance(one, Or) else [one]) if part not in made]
        _require_few(len(made))
    if ALWAYS in made:
        return ALWAYS
    leaves: dict[tuple[str | None, str], list[Any]] = {}
    for one in made:
        if isinstance(one, Leaf):
            leaves.setdefault((one.field, one.how), []).extend(one.values)
    joined: list[Tree] = [Leaf(*key, tuple(dict.fromkeys(values))) for key, values in leaves.items()]
    joined += [one for one in made if not isinstance(one, Leaf)]
    return joined[0] if len(joined) == 1 else Or(tuple(joined))


def none_of(part: Tree) -> Tree:
    """The part does not hold."""
    if isinstance(part, Not):
        return part.part
    if part in (ALWAYS, NEVER):
        return NEVER if part == ALWAYS else ALWAYS
    return Not(part)


def named(name: str, part: Tree) -> Tree:
    """The part under a name, where there is something to name."""
    return part if part in (ALWAYS, NEVER) else Named(name, part)


def _require_few(values: int) -> None:
    if values > VALUES_MAX:
        raise Unfit(f"its condition has more than {VALUES_MAX} values, those of its parents among them")


def values_in(tree: Tree) -> int:
    """How many values it asks for."""
    match tree:
        case Leaf():
            return len(tree.values)
        case And() | Or():
            return sum(values_in(one) for one in tree.parts)
    return values_in(tree.part)


def require_small(tree: Tree) -> Tree:
    """The tree. Raises Unfit for one that asks for too many values."""
    _require_few(values_in(tree))
    return tree


def literal(text: str) -> str:
    """A value of Sigma's that means the text itself: neither wildcards nor escapes."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def detection_of(tree: Tree) -> dict[str, Any]:
    """The tree as a detection. Raises Unfit where it asks nothing, or too much."""
    if tree in (ALWAYS, NEVER):
        raise Unfit("its condition would hold for every event" if tree == ALWAYS else "its condition can never hold")
    writer = _Detection()
    condition = writer.said(tree, "selection")
    return {**writer.selections, "condition": condition}


class _Detection:
    def __init__(self) -> None:
        self.selections: dict[str, Any] = {}
        self._values = 0

    def said(self, tree: Tree, name: str) -> str:
        """The condition's words for a part; what it selects is put down under the name, or one like it."""
        match tree:
            case Named():
                return self.said(tree.part, tree.name)
            case Not():
                return f"not {self._within(tree.part, name)}"
            case And():
                return " and ".join(self._conjuncts(tree.parts, name))
            case Or():
                if all(isinstance(one, Leaf) for one in tree.parts):
                    return self._selected(name, [self._mapping([one]) for one in tree.parts])
                return " or ".join(self._within(one, name) for one in tree.parts)
        return self._selected(name, self._mapping([tree]))

    def _within(self, tree: Tree, name: str) -> str:
        said = self.said(tree, name)
        return f"({said})" if " " in said else said

    def _conjuncts(self, parts: Sequence[Tree], name: str) -> list[str]:
        """Leaves of different fields are one selection; the rest is said one after the other."""
        together: list[Leaf] = []
        rest: list[Tree] = []
        for one in parts:
            is_new = isinstance(one, Leaf) and one.field is not None and _key(one) not in map(_key, together)
            (together if is_new else rest).append(one)  # type: ignore[arg-type]
        said = [self._selected(name, self._mapping(together))] if together else []
        # A negation binds closer than the "and" beside it, and one "and" is as good as another.
        return said + [self.said(one, name) if _is_joined(one) else self._within(one, name) for one in rest]

    def _mapping(self, leaves: Sequence[Tree]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for one in leaves:
            assert isinstance(one, Leaf), "the caller has looked"
            self._values += len(one.values)
            _require_few(self._values)
            made[_key(one)] = one.values[0] if len(one.values) == 1 else list(one.values)
        return made

    def _selected(self, name: str, selection: Any) -> str:
        for known, one in self.selections.items():
            if one == selection:
                return known
        number, free = 1, name
        while free in self.selections:
            number += 1
            free = f"{name}_{number}"
        self.selections[free] = selection
        return free


def _is_joined(tree: Tree) -> bool:
    return _is_joined(tree.part) if isinstance(tree, Named) else isinstance(tree, And | Not)


def _key(leaf: Leaf) -> str:
    return "|".join(filter(None, (leaf.field or "", leaf.how))) if leaf.field else f"|{leaf.how}"
