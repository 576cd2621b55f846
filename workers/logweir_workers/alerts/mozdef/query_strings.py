"""``QueryStringMatch``: what Lucene's query language asks of an event."""

from __future__ import annotations

import re

from luqum import tree

from logweir.errors import LogweirError
from logweir.query.parse import syntax_of
from logweir.query.tree import Node
from logweir_workers.alerts.mozdef.queries import (
    BooleanMatch,
    Event,
    ExistsMatch,
    MissingMatch,
    PhraseMatch,
    Query,
    RangeMatch,
    RegexMatch,
    TermMatch,
    WildcardMatch,
)
from logweir_workers.alerts.mozdef.texts import tokens_of, with_all
from logweir_workers.alerts.mozdef.views import all_values_of

_UNSUPPORTED = {tree.Fuzzy: "fuzzy words (word~)", tree.Proximity: 'words near each other ("…"~2)'}
_WILDCARD = re.compile(r"(?<!\\)[*?]")


class QueryStringMatch(Query):
    """Lucene's query language; of words side by side, one is enough. Raises ValueError."""

    def __init__(self, query: str) -> None:
        try:
            self._query = _query(syntax_of(str(query))[0], None)
        except LogweirError as error:
            raise ValueError(f"{query!r}: {error.detail}") from error

    def matches(self, event: Event) -> bool:
        return self._query.matches(event)

    def superset(self) -> Node | None:
        return self._query.superset()


class AnyMatch(Query):
    """Any value of the event has these words side by side, or is like a pattern."""

    def __init__(self, text: str) -> None:
        self._text = "" if _WILDCARD.search(text) else text
        # The field does not matter: each value is asked for itself.
        made = WildcardMatch("value", text) if _WILDCARD.search(text) else PhraseMatch("value", text)
        self._holds = made.matches

    def matches(self, event: Event) -> bool:
        return any(self._holds({"details": {"value": value}}) for value in all_values_of(event))

    def superset(self) -> Node | None:
        return with_all(self._text) if tokens_of(self._text) else None


def _query(item: tree.Item, field: str | None) -> Query:
    """What it asks of ``field``; of any, where that is None."""
    match item:
        case tree.SearchField():
            return _query(item.expr, _plain(item.name))
        case tree.Group() | tree.FieldGroup() | tree.Boost():
            return _query(item.children[0], field)
        case tree.AndOperation():
            return BooleanMatch(must=[_query(one, field) for one in item.children])
        case tree.OrOperation():
            return BooleanMatch(should=[_query(one, field) for one in item.children])
        case tree.UnknownOperation():
            return _side_by_side(item, field)
        case tree.Not() | tree.Prohibit():
            return BooleanMatch(must_not=[_query(item.children[0], field)])
        case tree.Plus():
            return _query(item.children[0], field)
    return _of_one(item, field)


def _side_by_side(item: tree.UnknownOperation, field: str | None) -> Query:
    made = BooleanMatch()
    for one in item.children:
        if isinstance(one, tree.Plus):
            made.must.append(_query(one, field))
        elif isinstance(one, tree.Not | tree.Prohibit):
            made.must_not.append(_query(one.children[0], field))
        else:
            made.should.append(_query(one, field))
    return made


def _of_one(item: tree.Item, field: str | None) -> Query:
    for kind, what in _UNSUPPORTED.items():
        if isinstance(item, kind):
            raise ValueError(f"{str(item).strip()}: {what} cannot be asked for; write the words themselves")
    match item:
        case tree.Word():
            return _of_word(item.value, field)
        case tree.Phrase():
            text = _plain(item.value[1:-1])
            return AnyMatch(re.sub(r"([*?\\])", r"\\\1", text)) if _is_any(field) else PhraseMatch(str(field), text)
        case tree.Regex() if not _is_any(field):
            return RegexMatch(str(field), item.value[1:-1].replace("\\/", "/"))
        case tree.Range() if not _is_any(field):
            excluded = (not item.include_low, not item.include_high)
            return RangeMatch(str(field), _bound(item.low), _bound(item.high), excluded=excluded)
        case tree.From() if not _is_any(field):
            return RangeMatch(str(field), _bound(item.a), None, excluded=(not item.include, False))
        case tree.To() if not _is_any(field):
            return RangeMatch(str(field), None, _bound(item.a), excluded=(False, not item.include))
    raise ValueError(f"{str(item).strip()} needs a field before it, such as summary:{str(item).strip()}")


def _of_word(text: str, field: str | None) -> Query:
    if field in ("_exists_", "_missing_"):
        return ExistsMatch(_plain(text)) if field == "_exists_" else MissingMatch(_plain(text))
    if _is_any(field):
        return BooleanMatch() if text == "*" else AnyMatch(text)
    field = str(field)
    if text == "*":
        return ExistsMatch(field)
    return WildcardMatch(field, text) if _WILDCARD.search(text) else TermMatch(field, _plain(text))


def _is_any(field: str | None) -> bool:
    return field is None or "*" in field or field == "_all"


def _bound(item: tree.Item) -> str | None:
    text = _plain(str(item.value).strip('"'))
    return None if text == "*" else text


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
