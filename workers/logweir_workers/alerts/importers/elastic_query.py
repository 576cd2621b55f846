"""What a query of Elasticsearch's asks of an event: its query DSL, and Lucene's syntax in ``query_string``.

Which fields are compared whole and which by words, an index says and not a query: here the message is looked for by
words, and each other field is compared whole, in any case; names that end in ``.keyword`` or ``.raw`` in their case.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from luqum import tree as lucene

from logweir.errors import LogweirError
from logweir.query.parse import QUERY_LENGTH_MAX, syntax_of
from logweir_workers.alerts.importers.conditions import (
    ALWAYS,
    NEVER,
    Leaf,
    Tree,
    Unfit,
    all_of,
    literal,
    none_of,
    one_of,
)
from logweir_workers.alerts.importers.fields import Place, place_of

_DEPTH_MAX = 30
_REGEXP_LENGTH_MAX = 1_000
_RAW = (".keyword", ".raw")
_BOUNDS = ("gt", "gte", "lt", "lte")
_ANY_FIELD = ("_all", "*")


def query_of(query: Any, depth: int = 0) -> Tree:
    """The tree of one query of the DSL. Raises Unfit."""
    if depth > _DEPTH_MAX:
        raise Unfit(f"its filter is nested more than {_DEPTH_MAX} levels deep")
    if not isinstance(query, Mapping) or len(query) != 1:
        raise Unfit(f"a part of its filter is no query with one kind: {str(query)[:80]}")
    ((kind, asked),) = query.items()
    if kind in ("query", "filter", "constant_score"):
        return query_of(asked, depth + 1)
    if kind == "bool":
        return _bool(asked, depth + 1)
    if kind in ("and", "or"):
        parts = [query_of(one, depth + 1) for one in _listed(asked)]
        return all_of(parts) if kind == "and" else one_of(parts)
    if kind == "not":
        return none_of(query_of(asked, depth + 1))
    if kind == "match_all":
        return ALWAYS
    if kind in ("query_string", "simple_query_string"):
        return _of_query_string(kind, asked)
    if kind in ("exists", "missing"):
        place = _asked_place(str(_mapping(kind, asked).get("field", "")))[0]
        there = place.asked("exists", (True,))
        return there if kind == "exists" else none_of(there)
    if kind in _OF_FIELD:
        return _of_field(kind, _mapping(kind, asked))
    raise Unfit(f"its filter asks with {str(kind)[:40]!r}, for which there is nothing like it here")


def _mapping(kind: str, asked: Any) -> Mapping[str, Any]:
    if not isinstance(asked, Mapping) or not asked:
        raise Unfit(f"its filter has {kind!r} without a field")
    return asked


def _listed(asked: Any) -> list[Any]:
    return list(asked) if isinstance(asked, list | tuple) else [asked]


def _bool(asked: Any, depth: int) -> Tree:
    parts = {
        name: [query_of(one, depth) for one in _listed(inner)]
        for name, inner in _mapping("bool", asked).items()
        if name in ("must", "filter", "should", "must_not")
    }
    unknown = set(asked) - {*parts, "minimum_should_match", "boost"}
    if unknown:
        raise Unfit(f"its filter has a bool with {', '.join(sorted(map(str, unknown)))[:60]}")
    required = [*parts.get("must", ()), *parts.get("filter", ())]
    should = parts.get("should", [])
    least = asked.get("minimum_should_match", 0 if required or not should else 1)
    if least not in (0, 1, "0", "1"):
        raise Unfit(f"its filter asks for {str(least)[:20]} of several (minimum_should_match)")
    made = [*required, *(none_of(one) for one in parts.get("must_not", ()))]
    # Without a minimum, what should be there only changes the order of hits.
    return all_of([*made, one_of(should)] if int(least) else made)


# --- queries of one field -------------------------------------------------------------------------------------------
_OF_FIELD = ("term", "terms", "match", "match_phrase", "range", "wildcard", "prefix", "regexp")


def _of_field(kind: str, asked: Mapping[str, Any]) -> Tree:
    given = {name: value for name, value in asked.items() if name not in ("boost", "_name")}
    if len(given) != 1:
        raise Unfit(f"its filter has {kind!r} of several fields")
    ((name, value),) = given.items()
    place, is_cased = _asked_place(str(name))
    if kind == "range":
        return _range(place, _mapping(kind, value))
    if isinstance(value, Mapping):
        value = _only_value(kind, value)
    values = _listed(value)
    if any(isinstance(one, Mapping | list | tuple) or one is None for one in values):
        raise Unfit(f"its filter has {kind!r} with a value that is none")
    if kind == "match":
        if place.is_text:
            return one_of(_words(place, word) for one in values for word in str(one).split())
        return one_of(_whole(place, one, is_cased=is_cased) for one in values)
    if kind in ("wildcard", "prefix"):
        patterns = [str(one) if kind == "wildcard" else re.sub(r"([*?\\])", r"\\\1", str(one)) + "*" for one in values]
        return one_of(_pattern(place, one, is_cased=is_cased) for one in patterns)
    if kind == "regexp":
        return one_of(_regexp(place, str(one)) for one in values)
    if place.is_text and kind in ("term", "terms") and any(not re.fullmatch(r"\w+", str(one)) for one in values):
        raise Unfit(f"its {kind} asks for several words as one of the message, which Elasticsearch finds in no text")
    return one_of(_whole(place, one, is_cased=is_cased) for one in values)


def _only_value(kind: str, asked: Mapping[str, Any]) -> Any:
    """The value of the long form: ``{"value": …}``, ``{"query": …}``."""
    names = [name for name in ("value", "query", "wildcard") if name in asked]
    unknown = set(asked) - {*names, "boost", "rewrite", "case_insensitive"}
    if len(names) != 1 or unknown:
        raise Unfit(f"its filter has {kind!r} with {', '.join(sorted(map(str, unknown)))[:60] or 'no value'}")
    return asked[names[0]]


def _asked_place(name: str) -> tuple[Place, bool]:
    """The field, and whether its values are compared in their case."""
    for end in _RAW:
        if name.endswith(end) and name != end:
            return place_of(name.removesuffix(end)), True
    return place_of(name), False


def _whole(place: Place, value: Any, *, is_cased: bool = False) -> Tree:
    """The field is that value; of the message, it has these words."""
    if place.is_text and not is_cased:
        return _words(place, str(value))
    network = _network(value)
    if network is not None:
        return place.asked("cidr", (network,))
    value = place.value(value)
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, str):
        return place.asked("cased" if is_cased else "", (literal(value),))
    if not isinstance(value, int | float):
        value = literal(str(value))  # A date, say.
    return place.asked("", (value,))


def _network(value: Any) -> str | None:
    if isinstance(value, str) and "/" in value:
        try:
            return str(ipaddress.ip_network(value, strict=False))
        except ValueError:
            return None
    return None


def _words(place: Place | None, text: str) -> Tree:
    """The message, or any field, has these words side by side."""
    words = re.findall(r"\w+", text)
    if not words:
        raise Unfit(f"its filter asks for {text[:40]!r}, in which there is no word")
    return _expression(place, _bounded(r"\W+".join(words), words[0][0], words[-1][-1]))


def _expression(place: Place | None, pattern: str) -> Tree:
    return Leaf(None, "re|i", (pattern,)) if place is None else place.asked("re|i", (pattern,))


def _bounded(pattern: str, first: str, last: str) -> str:
    """Not as a part of a longer word. What \\b takes for a word has the letters of English alone."""
    begin = r"\b" if first.isascii() else r"(?:^|[^\pL\pN_])"
    return begin + pattern + (r"\b" if last.isascii() else r"(?:[^\pL\pN_]|$)")


def _pattern(place: Place | None, text: str, *, is_cased: bool = False) -> Tree:
    """A pattern with * and ?, and backslashes before what means itself."""
    pieces = re.findall(r"\\.|.", text, re.DOTALL)
    plain = "".join(one[-1] for one in pieces if one not in ("*", "?"))
    if place is None or (place.is_text and not is_cased):
        if re.fullmatch(r"\w+", plain):
            # One word of several.
            middle = "".join({"*": r"\w*", "?": r"\w"}.get(one) or one[-1] for one in pieces)
            return _expression(place, _bounded(middle, plain[0], plain[-1]))
        if place is None:
            raise Unfit(f"its filter asks every field for the pattern {text[:40]!r}, which is not one word")
    sigma = "".join(one if one in ("*", "?") else literal(one[-1]) for one in pieces)
    assert place is not None, "said above"
    return place.asked("cased" if is_cased else "", (sigma,))


def _regexp(place: Place, pattern: str) -> Tree:
    """Lucene's expressions fit the whole value; what they alone have is refused."""
    if len(pattern) > _REGEXP_LENGTH_MAX:
        raise Unfit(f"its regular expression has more than {_REGEXP_LENGTH_MAX} characters")
    unescaped = re.sub(r"\\.|\[[^\]]*\]", "", pattern)
    found = sorted(set(unescaped) & set('#@&<>~"'))
    if found:
        raise Unfit(f"its regular expression {pattern[:60]!r} has {found[0]}, an operator that only Lucene's have")
    if place.is_text:
        raise Unfit("its regular expression is for one word of the message, and not for the message")
    if any(one in "^$" for one in unescaped) or re.search(r"\\[A-Za-z0-9]", pattern):
        raise Unfit(f"its regular expression {pattern[:60]!r} has ^, $ or a class, which mean something else to Lucene")
    return place.asked("re", (f"(?s)^(?:{pattern})$",))


def _range(place: Place, asked: Mapping[str, Any]) -> Tree:
    unknown = set(asked) - {*_BOUNDS, "boost"}
    if unknown or not set(asked) & set(_BOUNDS):
        raise Unfit(f"its filter has a range with {', '.join(sorted(map(str, unknown)))[:60] or 'no bound'}")
    return all_of(place.asked(how, (_number(asked[how]),)) for how in _BOUNDS if how in asked)


def _number(value: Any) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return int(str(value)) if re.fullmatch(r"-?\d{1,18}", str(value)) else float(str(value))
    except ValueError as error:
        raise Unfit(f"its filter has a range of {str(value)[:40]!r}, and here ranges are of numbers") from error


# --- query_string ---------------------------------------------------------------------------------------------------
def _of_query_string(kind: str, asked: Any) -> Tree:
    asked = {"query": asked} if isinstance(asked, str) else _mapping(kind, asked)
    if kind == "simple_query_string":
        raise Unfit("its filter has a simple_query_string, which has another syntax")
    unknown = set(asked) - {"query", "default_operator", "analyze_wildcard", "default_field", "boost"}
    if unknown:
        raise Unfit(f"its filter has a query_string with {', '.join(sorted(map(str, unknown)))[:60]}")
    field = str(asked.get("default_field", "*"))
    is_and = str(asked.get("default_operator", "or")).lower() == "and"
    return _QueryString(is_and).tree(str(asked.get("query", "")), None if field in _ANY_FIELD else field)


class _QueryString:
    """Lucene's query language as Elasticsearch reads it. ``is_and``: of words side by side, each has to be there."""

    def __init__(self, is_and: bool) -> None:
        self._is_and = is_and

    def tree(self, text: str, field: str | None) -> Tree:
        """Raises Unfit."""
        if text.strip() in ("", "*", "*:*"):
            return ALWAYS if text.strip() else NEVER
        if len(text) > QUERY_LENGTH_MAX:
            raise Unfit(f"its query has more than {QUERY_LENGTH_MAX} characters")
        try:
            return self._of(syntax_of(text)[0], field, 0)
        except LogweirError as error:
            raise Unfit(f"its query {text[:80]!r} cannot be read: {error.detail}") from error

    def _of(self, item: lucene.Item, field: str | None, depth: int) -> Tree:
        if depth > _DEPTH_MAX:
            raise Unfit(f"its query is nested more than {_DEPTH_MAX} levels deep")
        match item:
            case lucene.SearchField():
                return self._of(item.expr, _unescaped(item.name), depth + 1)
            case lucene.Group() | lucene.FieldGroup() | lucene.Boost():
                return self._of(item.children[0], field, depth + 1)
            case lucene.BaseOperation():
                return self._clauses(item, field, depth)
            case lucene.Not() | lucene.Prohibit():
                return none_of(self._of(item.children[0], field, depth + 1))
            case lucene.Plus():
                return self._of(item.children[0], field, depth + 1)
        return self._leaf(item, field)

    def _clauses(self, item: lucene.BaseOperation, field: str | None, depth: int) -> Tree:
        """Lucene has no precedence: AND makes both its sides required, and beside what is required OR asks nothing."""
        required, prohibited, optional = [], [], []
        clauses = list(_flat(item))
        for at, (joint, one) in enumerate(clauses):
            following = clauses[at + 1][0] if at + 1 < len(clauses) else ""
            inner = self._of(one, field, depth + 1)
            if isinstance(one, lucene.Not | lucene.Prohibit):
                prohibited.append(inner)
            elif isinstance(one, lucene.Plus) or "and" in (joint, following) or (self._is_and and joint != "or"):
                required.append(inner)
            else:
                optional.append(inner)
        if self._is_and and optional and required:
            raise Unfit("its query has OR beside words that all have to be there: write parentheses")
        if required:
            return all_of([*required, *prohibited])
        return all_of([*([one_of(optional)] if optional else []), *prohibited])

    def _leaf(self, item: lucene.Item, field: str | None) -> Tree:
        if isinstance(item, lucene.Fuzzy | lucene.Proximity):
            raise Unfit(
                f"its query has {str(item).strip()[:40]}: what is only like it, or near it, is not looked for here"
            )
        is_any = field is None or field in _ANY_FIELD
        if not is_any and "*" in str(field):
            raise Unfit(f"its query has {field[:40] if field else ''}, fields by a pattern of their names")
        if field in ("_exists_", "_missing_"):
            there = _asked_place(_unescaped(str(item)))[0].asked("exists", (True,))
            return there if field == "_exists_" else none_of(there)
        place, is_cased = (None, False) if is_any else _asked_place(str(field))
        if isinstance(item, lucene.Phrase):
            text = _unescaped(item.value[1:-1])
            return _words(None, text) if place is None else _whole(place, text, is_cased=is_cased)
        if isinstance(item, lucene.Word):
            if item.value == "*":
                return ALWAYS if place is None else place.asked("exists", (True,))
            if re.search(r"(?<!\\)[*?]", item.value):
                return _pattern(place, item.value, is_cased=is_cased)
            text = _unescaped(item.value)
            return _words(None, text) if place is None else _whole(place, text, is_cased=is_cased)
        if place is not None and isinstance(item, lucene.Regex):
            return _regexp(place, item.value[1:-1].replace("\\/", "/"))
        if place is not None and isinstance(item, lucene.Range | lucene.From | lucene.To):
            return _range(place, _bounds_of(item))
        raise Unfit(f"its query has {str(item).strip()[:40]} without a field")


def _flat(item: lucene.BaseOperation, joint: str = "") -> list[tuple[str, lucene.Item]]:
    """The clauses of one level, each with the word before it: ``and``, ``or`` or nothing."""
    word = {lucene.AndOperation: "and", lucene.OrOperation: "or"}.get(type(item), "")
    found: list[tuple[str, lucene.Item]] = []
    for at, one in enumerate(item.children):
        before = word if at else joint
        found += _flat(one, before) if isinstance(one, lucene.BaseOperation) else [(before, one)]
    return found


def _bounds_of(item: lucene.Item) -> dict[str, Any]:
    if isinstance(item, lucene.Range):
        bounds = {"gte" if item.include_low else "gt": item.low, "lte" if item.include_high else "lt": item.high}
    elif isinstance(item, lucene.From):
        bounds = {"gte" if item.include else "gt": item.a}
    else:
        bounds = {"lte" if item.include else "lt": item.a}
    texts = {how: str(getattr(one, "value", one)).strip('"') for how, one in bounds.items()}
    return {how: _unescaped(text) for how, text in texts.items() if text != "*"}


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text.strip())


def filter_of(filters: Sequence[Any]) -> Tree:
    """Each of the filters has to hold. Raises Unfit."""
    return all_of(query_of(one) for one in filters)
