"""Which rules could have been for events that never came: those that nothing known of these events rules out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from logweir.alerts.rules import Rule
from logweir.event import Document, Provenance
from logweir.ledger.source import Source
from logweir.query.match import matcher
from logweir.query.tree import All, And, Node, Not, Or, Prefix, Term, Wildcard

_KNOWN = ("category", "hostname")
_NOT_STORED = Provenance("", 0, "")


class _Holds(Enum):
    YES = "yes"
    NO = "no"
    PERHAPS = "perhaps"


def blind_rules(rules: Iterable[Rule], sources: Collection[Source]) -> list[str]:
    """The names of rules about events that could have been for events of these categories and host names.

    A rule is left out only where its condition excludes all of them: nothing is guessed of fields that are not known.
    Where no source is known, no rule is left out.
    """
    blind = [
        rule
        for rule in rules
        if rule.is_about_events
        and (not sources or any(_could_match(node, one) for node in rule.nodes() for one in sources))
    ]
    # An alert names the first few: of thousands of imported rules, last.
    return [rule.name for rule in sorted(blind, key=lambda rule: (rule.is_imported, rule.name))]


def _could_match(node: Node, source: Source) -> bool:
    category, hostname = source
    known = {"category": category, "hostname": hostname}
    view = {name: value for name, value in known.items() if value is not None}
    return _holds(node, Document("", "", view, _NOT_STORED, "", "")) is not _Holds.NO


def _holds(node: Node, document: Document) -> _Holds:
    if isinstance(node, All):
        return _Holds.YES
    if isinstance(node, And | Or):
        parts = [_holds(one, document) for one in node.nodes]
        decisive = _Holds.NO if isinstance(node, And) else _Holds.YES
        if decisive in parts:
            return decisive
        return _Holds.PERHAPS if _Holds.PERHAPS in parts else _OPPOSITE[decisive]
    if isinstance(node, Not):
        return _OPPOSITE[_holds(node.node, document)]
    if isinstance(node, Term | Prefix | Wildcard) and node.field in _KNOWN:
        return _Holds.YES if matcher(node)(document) else _Holds.NO
    return _Holds.PERHAPS


_OPPOSITE = {_Holds.YES: _Holds.NO, _Holds.NO: _Holds.YES, _Holds.PERHAPS: _Holds.PERHAPS}
