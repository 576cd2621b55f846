"""How a query becomes Elasticsearch's own, and which daily indices it asks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from logweir.event import FIELDS, Kind, day_of
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
    Term,
    Wildcard,
    WordPrefix,
    Words,
    forms_of,
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


def _words_field(query: Words | WordPrefix) -> str:
    return "summary_words" if query.summary_only else "all_words"


def _range(query: Range, numbers: frozenset[str]) -> dict[str, Any]:
    bounds: dict[str, Any] = {"gte": query.low, "lt": query.high}
    if query.field not in numbers:
        # strict_date_optional_time knows the years 1 to 9999, and no event has another one.
        if query.low is not None and query.low >= _YEAR_10000_MS:
            return {"match_none": {}}
        bounds["lt"] = None if query.high is None or query.high >= _YEAR_10000_MS else _iso(query.high)
        bounds["gte"] = None if query.low is None else _iso(query.low)
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
    WordPrefix: lambda query, _: {"prefix": {_words_field(query): query.prefix}},
    Term: lambda query, _: _any([{"term": {query.field: form}} for form in forms_of(query.value)]),
    Prefix: lambda query, _: _any([{"prefix": {query.field: form}} for form in forms_of(query.value)]),
    Wildcard: lambda query, _: _any([{"wildcard": {query.field: form}} for form in forms_of(query.pattern)]),
    Exists: _exists,
    Range: _range,
}
