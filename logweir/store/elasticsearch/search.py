"""How a query becomes Elasticsearch's own, and which daily indices it asks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from logweir.event import FIELDS, Kind, day_of
from logweir.query import known
from logweir.query.times import within_years
from logweir.query.tree import (
    All,
    And,
    Exists,
    Node,
    Not,
    Or,
    Prefix,
    Range,
    Regex,
    Term,
    Wildcard,
    WordPrefix,
    Words,
    WordWildcard,
    forms_of,
    lower,
)
from logweir.store.elasticsearch.mapping import IndexNames

_DAYS_NAMED_MAX = 62
_YEAR_1_MS = -62_135_596_800_000
_YEAR_10000_MS = 253_402_300_800_000
_EVENT_NUMBERS = frozenset(field.name for field in FIELDS if field.kind is Kind.NUMBER)


def indices(names: IndexNames, time_field: str, from_us: int | None, to_us: int | None) -> str:
    """The daily indices that can have hits, by name when they are few."""
    if time_field != "receivedtimestamp" or from_us is None or to_us is None:
        return names.days
    first, last = day_of(within_years(from_us)), day_of(within_years(to_us))
    days = [first]
    while days[-1] < last and len(days) <= _DAYS_NAMED_MAX:
        days.append(_next_day(days[-1]))
    return names.days if days[-1] < last else ",".join(map(names.of_day, days))


def _next_day(day: str) -> str:
    return (datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)).strftime("%Y%m%d")


def dsl(query: Node, numbers: frozenset[str] = _EVENT_NUMBERS) -> dict[str, Any]:
    """The server's own query. ``numbers``: the fields that are numbers; other ranges are of dates."""
    return cast("Callable[[Node, frozenset[str]], dict[str, Any]]", _DSL[type(query)])(query, numbers)


def _words_field(query: Words | WordPrefix | WordWildcard) -> str:
    return "summary_words" if query.summary_only else "all_words"


def _word_prefix(query: WordPrefix, _numbers: frozenset[str]) -> dict[str, Any]:
    field = _words_field(query)
    if not query.before:
        return {"prefix": {field: query.prefix}}
    # Not match_phrase_prefix, which leaves out words beyond a number of them; here too many are an error.
    before = [{"match": {"query": word}} for word in query.before]
    in_order = {"ordered": True, "max_gaps": 0, "intervals": [*before, {"prefix": {"prefix": query.prefix}}]}
    return {"intervals": {field: {"all_of": in_order}}}


def _text(query: Term | Prefix | Wildcard, _numbers: frozenset[str]) -> dict[str, Any]:
    operator = type(query).__name__.lower()
    text = query.pattern if isinstance(query, Wildcard) else query.value
    is_known = query.field in known.KEYWORDS
    of_known = [{operator: {known_field(query.field): lower(form)}} for form in forms_of(text) if is_known]
    # As it was sent, events are found that were stored before there was ``known``, too.
    of_field = [{operator: {query.field: form}} for form in forms_of(text) if not (is_known and operator == "wildcard")]
    return _any([*of_known, *of_field])


def _regex(query: Regex, _numbers: frozenset[str]) -> dict[str, Any]:
    field = known_field(query.field) if query.field in known.KEYWORDS else query.field
    return {"regexp": {field: {"value": query.pattern, "flags": "NONE"}}}


def known_field(field: str) -> str:
    """What the server calls the value that a known detail has beside its text."""
    return f"known.{known.short(field)}"


def _known_range(query: Range) -> dict[str, Any]:
    field, low, high = known_field(query.field), query.low, query.high
    bounds: dict[str, Any]
    if known.ORDERED[query.field] is not Kind.IP:
        bounds = {"gte": low, "lt": high}
    elif low is not None and low >= known.ADDRESSES:
        return {"match_none": {}}
    else:
        bounds = {
            "gte": None if low is None else known.address_text(int(low)),
            "lt": None if high is None or high >= known.ADDRESSES else known.address_text(int(high)),
        }
    given = {name: value for name, value in bounds.items() if value is not None}
    return {"range": {field: given}} if given else {"exists": {"field": field}}


def _range(query: Range, numbers: frozenset[str]) -> dict[str, Any]:
    if query.field in known.ORDERED and numbers is _EVENT_NUMBERS:
        return _known_range(query)
    bounds: dict[str, Any] = {"gte": query.low, "lt": query.high}
    if query.field not in numbers:
        # strict_date_optional_time knows the years 1 to 9999, and no event has another one.
        if query.low is not None and query.low >= _YEAR_10000_MS:
            return {"match_none": {}}
        bounds["lt"] = None if query.high is None or query.high >= _YEAR_10000_MS else _iso(int(query.high))
        bounds["gte"] = None if query.low is None else _iso(int(query.low))
    given = {name: value for name, value in bounds.items() if value is not None}
    return {"range": {query.field: given}} if given else {"exists": {"field": query.field}}


def _iso(milliseconds: int) -> str:
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=max(milliseconds, _YEAR_1_MS))
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _any(queries: list[dict[str, Any]]) -> dict[str, Any]:
    return queries[0] if len(queries) == 1 else {"bool": {"should": queries, "minimum_should_match": 1}}


def _exists(query: Exists, _numbers: frozenset[str]) -> dict[str, Any]:
    name, _, path = query.field.partition(".")
    if name != "details":
        return {"exists": {"field": query.field}}
    return {"term": {"details_paths": path}} if path else {"exists": {"field": "details_paths"}}


_DSL: dict[type, Callable[[Any, frozenset[str]], dict[str, Any]]] = {
    All: lambda *_: {"match_all": {}},
    And: lambda query, numbers: {"bool": {"filter": [dsl(node, numbers) for node in query.nodes]}},
    Or: lambda query, numbers: _any([dsl(node, numbers) for node in query.nodes]),
    Not: lambda query, numbers: {"bool": {"must_not": [dsl(query.node, numbers)]}},
    Words: lambda query, _: {"match_phrase": {_words_field(query): " ".join(query.words)}},
    WordPrefix: _word_prefix,
    WordWildcard: lambda query, _: {"wildcard": {_words_field(query): query.pattern}},
    Term: _text,
    Prefix: _text,
    Wildcard: _text,
    Regex: _regex,
    Exists: _exists,
    Range: _range,
}
