"""MozDef's query classes: each says of an event whether it matches, and what the store is asked for first.

What the store can say, finds more than the query does (``superset``); ``matches`` has the last word.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import date, datetime, timedelta
from typing import Any

from logweir.event import FIELD_BY_NAME
from logweir.query.match import milliseconds_of, pattern_of, text_of
from logweir.query.tree import TIME_FIELDS, And, Exists, Node, Or, Range
from logweir_workers.alerts.mozdef.texts import holds_phrase, tokens_of, with_all, with_beginning
from logweir_workers.alerts.mozdef.views import has, paths_of, value_of, values_of
from logweir_workers.normalise.details import address_of
from logweir_workers.normalise.times import time_of

Event = Mapping[str, Any]
Search = Callable[["SearchQuery"], list[dict[str, Any]]]
searching: ContextVar[Search] = ContextVar("searching")
"""How ``SearchQuery.execute`` is answered, where a script runs."""

_NOT_IN_WORDS = (*TIME_FIELDS, "ingest_stream", "ingest_number", "content_hash")
_ALTERNATIVES_MAX = 200
"""So many alternatives a store is asked for; of more, the events themselves are."""
_OUTCOMES = {"succeeded": "success", "successful": "success", "failed": "failure", "fail": "failure"}


class Query:
    """One condition."""

    def matches(self, event: Event) -> bool:
        raise NotImplementedError

    def superset(self) -> Node | None:
        """What finds all events that match, and others; None: nothing but all events does."""
        return None

    def __and__(self, other: Query) -> Query:
        return BooleanMatch(must=[self, other])

    def __or__(self, other: Query) -> Query:
        return BooleanMatch(should=[self, other])

    def __invert__(self) -> Query:
        return BooleanMatch(must_not=[self])


class TermMatch(Query):
    """The field's text is this, or has this word; of the summary, one of these words is enough. Case does not count."""

    _is_phrase = False

    def __init__(self, field: str, value: Any) -> None:
        self._field = field
        self.spellings = _spellings(field, value)
        self._is_number = isinstance(value, int | float) and not isinstance(value, bool)
        self._tokens = [tokens_of(one) for one in self.spellings]
        self._is_any = field == "summary" and not self._is_phrase

    def matches(self, event: Event) -> bool:
        if self._field == "_type" and self.spellings == ["event"] and not has(event, "_type"):
            return True
        return any(self._fits(value) for value in values_of(event, self._field))

    def _fits(self, value: Any) -> bool:
        text = text_of(value)
        if text.lower() in self.spellings:
            return True
        if (self._is_number or not isinstance(value, str)) and any(_are_equal(text, one) for one in self.spellings):
            return True
        found = tokens_of(text)
        if self._is_any:
            return any(token in found for tokens in self._tokens for token in tokens)
        return any(holds_phrase(found, tokens) for tokens in self._tokens)

    def superset(self) -> Node | None:
        if self._field.startswith(_NOT_IN_WORDS) or self._field == "_type":
            return None
        texts = [token for tokens in self._tokens for token in tokens] if self._is_any else self.spellings
        if not texts or any(_is_fraction(one) for one in self.spellings):
            return None
        return _either(with_all(one, summary_only=self._is_any) for one in texts)


class PhraseMatch(TermMatch):
    """The field's text has these words side by side. Case does not count."""

    _is_phrase = True


class TermsMatch(Query):
    """The field's text is one of these, or has one of them in it."""

    def __init__(self, field: str, values: Iterable[Any]) -> None:
        self._field = field
        self._any = [PhraseMatch(field, one) for one in ([values] if isinstance(values, str) else values)]
        self._texts = {text for one in self._any for text in one.spellings}
        self._phrases: dict[str, list[tuple[str, ...]]] = {}
        """By their first word: there may be thousands."""
        for text in self._texts:
            if tokens := tokens_of(text):
                self._phrases.setdefault(tokens[0], []).append(tokens)

    def matches(self, event: Event) -> bool:
        return any(self._fits(value) for value in values_of(event, self._field))

    def _fits(self, value: Any) -> bool:
        text = text_of(value)
        if text.lower() in self._texts:
            return True
        if not isinstance(value, str):
            return any(_are_equal(text, one) for one in self._texts)
        tokens = tokens_of(text)
        return any(
            tokens[at : at + len(phrase)] == phrase
            for at, token in enumerate(tokens)
            for phrase in self._phrases.get(token, ())
        )

    def superset(self) -> Node | None:
        return _either(one.superset() for one in self._any)


class WildcardMatch(Query):
    """The field's text, or a word of it, is like this: ``*`` is any characters, ``?`` is one. Case does not count."""

    def __init__(self, field: str, pattern: str) -> None:
        self._field = field
        self._pattern = str(pattern).lower()
        self._matcher = pattern_of(self._pattern)

    def matches(self, event: Event) -> bool:
        return any(_any_text(value, self._matcher.match) for value in values_of(event, self._field))

    def superset(self) -> Node | None:
        return None if self._field.startswith(_NOT_IN_WORDS) else with_beginning(self._pattern)


class RegexMatch(Query):
    """The field's text, or a word of it, is all of this regular expression. Case does not count."""

    def __init__(self, field: str, expression: str) -> None:
        self._field = field
        self._matcher = re.compile(expression, re.IGNORECASE | re.DOTALL)

    def matches(self, event: Event) -> bool:
        return any(_any_text(value, self._matcher.fullmatch) for value in values_of(event, self._field))


class ExistsMatch(Query):
    """The event has the field."""

    def __init__(self, field: str) -> None:
        self._field = field

    def matches(self, event: Event) -> bool:
        return has(event, self._field)

    def superset(self) -> Node | None:
        return _any_of([Exists(path) for path in paths_of(self._field) if _is_searchable(path)])


class MissingMatch(Query):
    """The event has not the field."""

    def __init__(self, field: str) -> None:
        self._field = field

    def matches(self, event: Event) -> bool:
        return not has(event, self._field)


class RangeMatch(Query):
    """The field is a time, a number or a text from ``begin`` to ``end``, both included; None is open."""

    def __init__(self, field: str, begin_value: Any, end_value: Any, *, excluded: tuple[bool, bool] = (False, False)):
        self._field = field
        self._low, self._high = _bound(begin_value), _bound(end_value)
        self._excluded = excluded

    def matches(self, event: Event) -> bool:
        return any(self._fits(value) for value in values_of(event, self._field))

    def _fits(self, value: Any) -> bool:
        for bound, is_low, is_excluded in (
            (self._low, True, self._excluded[0]),
            (self._high, False, self._excluded[1]),
        ):
            if bound is None:
                continue
            ordered = _compared(value, bound)
            if ordered is None or (ordered == 0 and is_excluded) or (ordered < 0 if is_low else ordered > 0):
                return False
        return True

    def superset(self) -> Node | None:
        if self._field not in TIME_FIELDS:
            return None
        low, high = _milliseconds(self._low), _milliseconds(self._high)
        return None if low is None and high is None else Range(self._field, low, None if high is None else high + 1)


class LessThanMatch(RangeMatch):
    """The field is a time or a number below this."""

    def __init__(self, field: str, value: Any) -> None:
        super().__init__(field, None, value, excluded=(False, True))


class SubnetMatch(Query):
    """The field is an address of this network."""

    def __init__(self, field: str, network: str) -> None:
        self._field = field
        self._network = ipaddress.ip_network(str(network).strip(), strict=False)

    def matches(self, event: Event) -> bool:
        return any(self._holds(value) for value in values_of(event, self._field))

    def _holds(self, value: Any) -> bool:
        try:
            return ipaddress.ip_address(str(value).strip()) in self._network
        except ValueError:
            return False

    def superset(self) -> Node | None:
        return ExistsMatch(self._field).superset()


class BooleanMatch(Query):
    """All of ``must``, none of ``must_not``; and of ``should`` one at least, where nothing must be."""

    def __init__(self, must: Any = (), must_not: Any = (), should: Any = ()) -> None:
        self.must, self.must_not, self.should = _listed(must), _listed(must_not), _listed(should)

    def matches(self, event: Event) -> bool:
        return (
            all(one.matches(event) for one in self.must)
            and not any(one.matches(event) for one in self.must_not)
            and (bool(self.must) or not self.should or any(one.matches(event) for one in self.should))
        )

    def superset(self) -> Node | None:
        if not self.must and self.should:
            return _either(one.superset() for one in self.should)
        parts = [node for one in self.must if (node := one.superset()) is not None]
        # Whether a detail is there, the embedded store asks of each event; ``matches`` does so at less cost.
        parts = [node for node in parts if not _is_existence(node)] or parts
        return (parts[0] if len(parts) == 1 else And(tuple(parts))) if parts else None


class Aggregation:
    """The most frequent values of a field, in what ``SearchQuery.execute`` returns."""

    def __init__(self, field_name: str, aggregation_size: int = 20) -> None:
        self.field_name = field_name
        self.size = aggregation_size


class SearchQuery(BooleanMatch):
    """A search of the events of the time before a run: ``SearchQuery(minutes=20)``; without a time, of all."""

    def __init__(self, **duration: float) -> None:
        super().__init__()
        self.aggregation: list[Aggregation] = []
        try:
            looked_back = timedelta(**duration)
        except TypeError as error:
            raise ValueError(f"SearchQuery takes a time such as minutes=20, and not {duration!r}") from error
        self.window_us = looked_back // timedelta(microseconds=1) if duration else None

    def add_must(self, one_or_more: Any) -> None:
        self.must += _listed(one_or_more)

    def add_must_not(self, one_or_more: Any) -> None:
        self.must_not += _listed(one_or_more)

    def add_should(self, one_or_more: Any) -> None:
        self.should += _listed(one_or_more)

    def add_aggregation(self, one_or_more: Any) -> None:
        self.aggregation += one_or_more if isinstance(one_or_more, list | tuple) else [one_or_more]

    def execute(self, *_: Any, **__: Any) -> dict[str, Any]:
        """What is found: ``hits``, ``meta``, and ``aggregations`` where there are any. The arguments do not matter."""
        hits = searching.get()(self)
        found: dict[str, Any] = {"hits": hits, "meta": {"timed_out": False}}
        if self.aggregation:
            found["aggregations"] = {one.field_name: {"terms": _terms(hits, one)} for one in self.aggregation}
        return found


# --- what they are made of ------------------------------------------------------------------------------------------
def _listed(one_or_more: Any) -> list[Query]:
    made = list(one_or_more) if isinstance(one_or_more, list | tuple) else [one_or_more]
    for one in made:
        if not isinstance(one, Query):
            raise TypeError(f"{one!r} is none of MozDef's query classes")
    return made


def _terms(hits: Sequence[Event], one: Aggregation) -> list[dict[str, Any]]:
    counts: dict[Any, int] = {}
    for hit in hits:
        for value in set(value_of(hit["_source"], one.field_name)):
            counts[value] = counts.get(value, 0) + 1
    most = sorted(counts.items(), key=lambda pair: -pair[1])[: one.size]
    return [{"key": value, "count": count} for value, count in most]


def _spellings(field: str, value: Any) -> list[str]:
    """The value in lower case, and as stored events have it where that is another spelling."""
    text = text_of(value) if isinstance(value, str | int | float | bool) else str(value)
    made = [text.lower()]
    if (address := address_of(text)) is not None:
        made.append(address)
    if "details.outcome" in paths_of(field) and text.lower() in _OUTCOMES:
        made.append(_OUTCOMES[text.lower()])
    return list(dict.fromkeys(made))


def _are_equal(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def _is_fraction(text: str) -> bool:
    """Whether it is a number that may be stored in other digits."""
    return bool(re.fullmatch(r"[-+]?\d*\.?\d*(?:e[-+]?\d+)?", text)) and not text.isdigit()


def _any_text(value: Any, fits: Callable[[str], object]) -> bool:
    text = text_of(value).lower()
    return bool(fits(text)) or any(fits(token) for token in tokens_of(text))


def _is_searchable(path: str) -> bool:
    return path in FIELD_BY_NAME or path.startswith("details.")


def _either(nodes: Iterable[Node | None]) -> Node | None:
    """One of these; None where one of them says nothing."""
    found = list(nodes)
    if len(found) > _ALTERNATIVES_MAX:
        return None
    return None if None in found else _any_of([one for one in found if one is not None])


def _any_of(nodes: list[Node]) -> Node | None:
    return (nodes[0] if len(nodes) == 1 else Or(tuple(nodes))) if nodes else None


def _is_existence(node: Node) -> bool:
    return isinstance(node, Exists) or (isinstance(node, Or) and all(isinstance(one, Exists) for one in node.nodes))


def _bound(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return None if value == "*" else value


def _milliseconds(value: Any) -> int | None:
    if not isinstance(value, str):
        return None
    milliseconds = milliseconds_of(value)
    if milliseconds is None and (read := time_of(value, 0)) is not None:
        milliseconds = read[0] // 1000
    return milliseconds


def _compared(value: Any, bound: Any) -> int | None:
    """Below 0, 0 or above 0; None for what cannot be compared."""
    try:
        one, other = float(value), float(bound)
    except (TypeError, ValueError):
        times = _milliseconds(value), _milliseconds(bound)
        if times[0] is not None and times[1] is not None:
            return (times[0] > times[1]) - (times[0] < times[1])
        if not isinstance(value, str) or not isinstance(bound, str):
            return None
        return (value > bound) - (value < bound)
    return (one > other) - (one < other)
