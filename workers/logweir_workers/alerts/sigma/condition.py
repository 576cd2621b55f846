"""A condition of Sigma's, asked of one event: whether it holds, why, and what must be there when it does.

Its tree becomes closures, made when it is first asked. Regular expressions are RE2's: none can hold an event up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from logweir.query import lists
from logweir.query.match import milliseconds_of
from logweir_workers.alerts.sigma.plans import Tree, digest_of
from logweir_workers.alerts.sigma.view import View, fits

if TYPE_CHECKING:
    from logweir_workers.alerts.matching import Seen

Logsource = tuple[str, str, str]
"""Category, product and service; each empty where any will do."""
Holds = Callable[[View], bool]
_WITNESSES_MAX = 2_000
_SHOWN_MAX = 20


class Look(StrEnum):
    """How a witness is looked for."""

    WHOLE = "whole"
    """The field is that text, in lower case."""
    PIECE = "piece"
    """The text is in the field, in lower case."""
    EXPRESSION = "expression"
    """The regular expression matches in the field: the last resort, as it costs more."""


class Witness(NamedTuple):
    """What must be in an event: something that a field (None: anything) is, or has in it."""

    field: str | None
    text: str
    look: Look


class SigmaCondition:
    """The detection of one Sigma rule, with the filters that exclude events of it.

    ``text``: the rule's title. ``aliases``: names that a correlation has for fields of this rule.
    """

    def __init__(
        self, text: str, logsource: Logsource, tree: Tree, *, aliases: Mapping[str, str] | None = None
    ) -> None:
        self.text = text
        self.logsource = logsource
        self.tree = tree
        self._aliases = aliases or {}
        self._holds: Holds | None = None
        self.digest = digest_of([list(logsource), tree, dict(self._aliases)])
        """The same as long as it finds the same."""

    def __call__(self, seen: Any) -> bool:
        """Whether the event is of the rule's log source, and the detection holds for it."""
        return fits(seen.sigma.sources, self.logsource) and self.holds(seen.sigma)

    @property
    def holds(self) -> Holds:
        """Whether the detection holds for an event of the log source."""
        if self._holds is None:
            self._holds = compiled(self.tree)
        return self._holds

    @property
    def lists(self) -> set[str]:
        """The lists that it asks for."""
        return {name for leaf in leaves_of(self.tree) if leaf[0] == "list" for name, *_ in leaf[2]}

    def value(self, seen: Seen, field: str) -> str | None:
        """The text of a field by its name in Sigma, several with commas between them; None where there is none."""
        texts = seen.sigma.raw[self._aliases.get(field, field)]
        return ",".join(texts) if texts else None

    def explained(self, seen: Seen) -> dict[str, Any]:
        """The condition as a tree, each part with whether it holds and the values that it looked at."""
        view = seen.sigma
        is_of_source = fits(view.sources, self.logsource)
        named = zip(("category", "product", "service"), self.logsource, strict=True)
        marks = view.sources
        value = {
            "category": sorted(marks.categories),
            "product": sorted(marks.products),
            "service": sorted(marks.services),
            "called": sorted(marks.names),
        }
        source = {
            "condition": f"log source {', '.join(f'{name} {one}' for name, one in named if one) or 'any'}",
            "holds": is_of_source,
            "value": "; ".join(f"{name} {', '.join(of)}" for name, of in value.items() if of) or None,
        }
        parts = [source, _explained(view, self.tree)]
        return {"condition": "all of", "holds": is_of_source and parts[1]["holds"], "parts": parts}


# --- closures -------------------------------------------------------------------------------------------------------
def compiled(tree: Tree) -> Holds:
    """A function that says whether a tree holds for an event."""
    kind = tree[0]
    if kind == "and":
        return _all([compiled(one) for one in sorted(tree[1], key=_cost)])
    if kind == "or":
        return _any([compiled(one) for one in sorted(tree[1], key=_cost)])
    if kind == "not":
        inner = compiled(tree[1])
        return lambda view: not inner(view)
    field = tree[1]
    if field is None:
        return _anywhere(kind, tree[2])
    if kind == "null":
        return lambda view: not view.raw[field]
    if kind == "exists":
        return lambda view: bool(view.raw[field])
    if kind == "field":
        return _of_other_field(field, *tree[2])
    if kind.endswith("_cased"):
        return _of_texts(field, _LOOKS[kind.removesuffix("_cased")](tree[2]), is_low=False)
    return _of_texts(field, _LOOKS[kind](tree[2]), is_low=kind in _LOWERED)


def _cost(tree: Tree) -> int:
    """What is quick is asked first."""
    return {"eq": 0, "null": 0, "exists": 0, "ends": 1, "begins": 1, "has": 2, "and": 4, "or": 4}.get(tree[0], 3)


def _all(parts: list[Holds]) -> Holds:
    if len(parts) == 2:
        first, second = parts
        return lambda view: first(view) and second(view)

    def holds(view: View) -> bool:
        for part in parts:  # noqa: SIM110 - all() of a generator takes twice as long
            if not part(view):
                return False
        return True

    return holds


def _any(parts: list[Holds]) -> Holds:
    def holds(view: View) -> bool:
        for part in parts:  # noqa: SIM110 - as above
            if part(view):
                return True
        return False

    return holds


Looks = Callable[[str], bool]
"""Whether a text is one that is looked for."""


def _of_texts(field: str, looks: Looks, *, is_low: bool) -> Holds:
    def low(view: View) -> bool:
        for text in view.low[field]:  # noqa: SIM110 - as above
            if looks(text):
                return True
        return False

    def raw(view: View) -> bool:
        return any(looks(text) for text in view.raw[field])

    return low if is_low else raw


def _eq(values: list[str]) -> Looks:
    return frozenset(values).__contains__


def _begins(values: list[str]) -> Looks:
    beginnings = tuple(values)
    return lambda text: text.startswith(beginnings)


def _ends(values: list[str]) -> Looks:
    endings = tuple(values)
    return lambda text: text.endswith(endings)


def _has(values: list[str]) -> Looks:
    if len(values) == 1:
        one = values[0]
        return lambda text: one in text

    def looks(text: str) -> bool:
        for value in values:  # noqa: SIM110 - as above
            if value in text:
                return True
        return False

    return looks


def _like(values: list[list[str]]) -> Looks:
    return _re([pattern for pattern, _ in values])


def _re(patterns: list[str]) -> Looks:
    expressions = [_expression(one) for one in patterns]
    return lambda text: any(one.search(text) is not None for one in expressions)


@lru_cache(maxsize=4_096)
def _expression(pattern: str) -> Any:
    import re2

    return re2.compile(pattern)


def joined(patterns: list[str]) -> Any:
    """An expression that matches wherever one of these does; None where they are too much for one.

    Not RE2's sets: of those that run out of memory, nothing says so.
    """
    import re2

    try:
        return re2.compile("|".join(f"(?:{one})" for one in patterns))
    except re2.error:
        return None


def _list(asked: list[tuple[str, bool, bool]]) -> Looks:
    """By list: its name, and whether anything may stand before its values, and behind them."""

    def looks(text: str) -> bool:
        for name, begins_open, ends_open in asked:
            found = lists.in_use().get(name)
            if found is None:
                continue
            if not (begins_open or ends_open):
                is_in = found.has_lowered(text)
            elif begins_open and ends_open:
                is_in = any(value in text for value in found.lowered())
            else:
                is_at = text.endswith if begins_open else text.startswith
                is_in = is_at(tuple(found.lowered()))
            if is_in:
                return True
        return False

    return looks


def _cidr(values: list[str]) -> Looks:
    networks = [ipaddress.ip_network(one) for one in values]

    def looks(text: str) -> bool:
        address = _address(text) if len(text) <= 45 else None
        return address is not None and any(address in one for one in networks)

    return looks


@lru_cache(maxsize=8_192)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _compares(compare: Callable[[float, float], bool]) -> Callable[[list[float]], Looks]:
    def of(values: list[float]) -> Looks:
        def looks(text: str) -> bool:
            try:
                number = float(text)
            except ValueError:
                return False
            return any(compare(number, value) for value in values)

        return looks

    return of


def _part(of: Callable[[datetime], int]) -> Callable[[list[float]], Looks]:
    def of_values(values: list[float]) -> Looks:
        def looks(text: str) -> bool:
            at_ms = milliseconds_of(text)
            return at_ms is not None and of(datetime.fromtimestamp(at_ms / 1000, UTC)) in values

        return looks

    return of_values


_LOOKS: dict[str, Callable[[Any], Looks]] = {
    "eq": _eq,
    "begins": _begins,
    "ends": _ends,
    "has": _has,
    "like": _like,
    "re": _re,
    "cidr": _cidr,
    "list": _list,
    "lt": _compares(lambda a, b: a < b),
    "lte": _compares(lambda a, b: a <= b),
    "gt": _compares(lambda a, b: a > b),
    "gte": _compares(lambda a, b: a >= b),
    "neq": _compares(lambda a, b: a != b),
    "minute": _part(lambda at: at.minute),
    "hour": _part(lambda at: at.hour),
    "day": _part(lambda at: at.day),
    "week": _part(lambda at: at.isocalendar().week),
    "month": _part(lambda at: at.month),
    "year": _part(lambda at: at.year),
}
_LOWERED = frozenset(("eq", "begins", "ends", "has", "like", "list"))


def _anywhere(kind: str, values: list[Any]) -> Holds:
    """Words: in any value that the sender sent."""
    if kind == "has" and not any("\n" in one for one in values):
        looks = _has(values)
        return lambda view: looks(view.all_low)
    inner = _LOOKS[kind.removesuffix("_cased")](values)
    if kind in _LOWERED:
        return lambda view: any(inner(text.lower()) for text in view.all_values())
    return lambda view: any(inner(text) for text in view.all_values())


def _of_other_field(field: str, how: str, other: str) -> Holds:
    def holds(view: View) -> bool:
        values = view.low[other]
        if not values:
            return False
        looks = _LOOKS[how](values)
        return any(looks(text) for text in view.low[field])

    return holds


# --- what must be there ---------------------------------------------------------------------------------------------
_WHOLE = ("eq", "eq_cased")
_PIECES = ("has", "begins", "ends", "has_cased", "begins_cased", "ends_cased")


def witnesses(tree: Tree, worth: Callable[[list[Witness]], Any]) -> list[Witness] | None:
    """What of which at least one is there in every event that the tree holds for; None where nothing must.

    ``worth``: of several that would do, that is taken of which it is highest.
    """
    kind = tree[0]
    if kind == "and":
        known = [found for one in tree[1] if (found := witnesses(one, worth)) is not None]
        return max(known, key=worth, default=None)
    if kind == "or":
        parts = [witnesses(one, worth) for one in tree[1]]
        flat = [one for part in parts for one in part or ()]
        return flat if all(part is not None for part in parts) and len(flat) <= _WITNESSES_MAX else None
    if kind in (*_WHOLE, *_PIECES):
        texts = [one.lower() for one in tree[2]]
    elif kind in ("like", "like_cased"):
        texts = [longest.lower() for _, longest in tree[2]]
    elif kind == "re" and tree[1] is not None:
        return [Witness(tree[1], pattern, Look.EXPRESSION) for pattern in tree[2]]
    else:
        return None
    look = Look.WHOLE if kind in _WHOLE and tree[1] is not None else Look.PIECE
    if len(texts) > _WITNESSES_MAX or not (look is Look.WHOLE or all(texts)):
        return None
    return [Witness(tree[1], text, look) for text in texts]


def leaves_of(tree: Tree) -> Iterator[Tree]:
    """Its leaves."""
    if tree[0] in ("and", "or"):
        for one in tree[1]:
            yield from leaves_of(one)
    elif tree[0] == "not":
        yield from leaves_of(tree[1])
    else:
        yield tree


# --- why ------------------------------------------------------------------------------------------------------------
def _explained(view: View, tree: Tree) -> dict[str, Any]:
    made: dict[str, Any] = {"holds": compiled(tree)(view)}
    kind = tree[0]
    if kind in ("and", "or"):
        parts = [_explained(view, one) for one in tree[1]]
        return {"condition": "all of" if kind == "and" else "one of", **made, "parts": parts}
    if kind == "not":
        return {"condition": "not", **made, "parts": [_explained(view, tree[1])]}
    field = tree[1]
    values = [
        str(one[0] if kind in ("like", "like_cased", "list") else one) for one in (tree[2] if len(tree) > 2 else ())
    ]
    more = f" and {len(values) - _SHOWN_MAX} more" if len(values) > _SHOWN_MAX else ""
    asked = (" " if kind == "field" else " or ").join(values[:_SHOWN_MAX])
    word = f"{_WORDS.get(kind.removesuffix('_cased'), kind)}{', in this case,' if kind.endswith('_cased') else ''}"
    made["condition"] = " ".join(part for part in (field or "any value", word, f"{asked}{more}") if part)
    made["value"] = (", ".join(view.raw[field]) or None) if field is not None else None
    return made


_WORDS = {
    "eq": "is",
    "has": "contains",
    "begins": "begins with",
    "ends": "ends with",
    "like": "matches",
    "re": "matches",
    "cidr": "is in",
    "list": "is in the list",
    "null": "is absent",
    "exists": "is there",
    "field": "and the other field:",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "neq": "!=",
}
