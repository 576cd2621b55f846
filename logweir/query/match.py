"""Whether one event is among those that a query finds, without asking a store: the same answer as both stores give.

What the search language means on an event in memory is said here once; the embedded store uses the same pieces.
"""

from __future__ import annotations

import fnmatch
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

import orjson

from logweir.event import FIELD_BY_NAME, Document, Field, Kind
from logweir.query import known, lists, regex
from logweir.query.tree import (
    All,
    And,
    Exists,
    InList,
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
    searchable,
)

Matches = Callable[["Document"], bool]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


Fields = Mapping[str, Field]


def matcher(query: Node, fields: Fields = FIELD_BY_NAME) -> Matches:
    """A function that says whether a search for ``query`` would find a document, once it is stored.

    ``fields``: those that the query was parsed with.
    """
    return _MATCHERS[type(query)](query, fields)


# --- values -------------------------------------------------------------------------------------------------------
def text_of(value: object) -> str:
    """A leaf's text: a string itself, a number or a truth value as JSON writes it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def keywords_of(value: object) -> Iterator[str]:
    """What a keyword field's value, one or a list, can be found by: in lower case, without what is too long."""
    if value is None:
        return
    if isinstance(value, list):
        for item in value:
            yield from keywords_of(item)
    elif searchable(text := text_of(value)):
        yield lower(text)


def milliseconds_of(value: object) -> int | None:
    """Milliseconds since 1970 of an ISO date, rounded down; None when it cannot be searched as a date."""
    return _parsed(value) if isinstance(value, str) else None


def time_us_of(value: object) -> int:
    """Microseconds since 1970 of a time as documents have it, to the millisecond; 0 for what is none."""
    return (milliseconds_of(value) or 0) * 1000


@lru_cache(maxsize=64)  # an event says the same time twice
def _parsed(value: str) -> int | None:
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND


@lru_cache(maxsize=64)
def pattern_of(pattern: str) -> re.Pattern[str]:
    """The expression of a ``Wildcard``'s pattern."""
    # fnmatch's expressions do not backtrack from one * into another: no pattern takes long.
    pieces = re.findall(r"\\.|.", pattern, re.DOTALL)
    glob = "".join(piece if piece in "*?" else piece[-1].translate(_GLOB_ESCAPES) for piece in pieces)
    return re.compile(fnmatch.translate(glob))


_GLOB_ESCAPES = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})


def leaves_of(details: object) -> Iterator[tuple[str, str]]:
    """Path (joined by dots) and text of each leaf of details that can be searched, at any level of lists."""
    for path, value in _walk("", details):
        if value is not None and searchable(text := text_of(value)):
            yield path, text


def known_keywords(details: object) -> dict[str, list[str]]:
    """By ``known.short`` name, the texts of the known keywords that details have, as ``leaves_of`` has them."""
    found: dict[str, list[str]] = {}
    if not isinstance(details, dict):
        return found
    for name in _KNOWN_KEYWORDS & details.keys():
        if texts := [text for path, text in leaves_of({name: details[name]}) if path == name]:
            found[name] = texts
    return found


_KNOWN_KEYWORDS = frozenset(map(known.short, known.KEYWORDS))


def paths_of(details: object) -> set[str]:
    """The path of each leaf of details that has a value, however long, and of each object that holds one."""
    paths: set[str] = set()
    for path, value in _walk("", details):
        if value is not None and path not in paths:
            paths.add(path)
            while (path := path.rpartition(".")[0]) and path not in paths:
                paths.add(path)
    return paths


def holds(paths: set[str], path: str | None) -> bool:
    """Whether ``path`` (None: any) is among the ``paths_of`` some details."""
    return bool(paths) if path is None else path in paths


def _walk(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(f"{path}.{name}" if path else name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(path, inner)
    else:
        yield path, value


# --- queries ------------------------------------------------------------------------------------------------------
def _and(query: And, fields: Fields) -> Matches:
    parts = [matcher(node, fields) for node in query.nodes]
    return lambda document: all(part(document) for part in parts)


def _or(query: Or, fields: Fields) -> Matches:
    parts = [matcher(node, fields) for node in query.nodes]
    return lambda document: any(part(document) for part in parts)


def _not(query: Not, fields: Fields) -> Matches:
    part = matcher(query.node, fields)
    return lambda document: not part(document)


def _words(query: Words, _: Fields) -> Matches:
    phrase = f" {' '.join(query.words)} "
    if query.summary_only:
        return lambda document: phrase in f" {document.summary_words} "
    return lambda document: phrase in f" {document.all_words} "


def _word_prefix(query: WordPrefix, _: Fields) -> Matches:
    begin = f" {' '.join((*query.before, query.prefix))}"
    if query.summary_only:
        return lambda document: begin in f" {document.summary_words}"
    return lambda document: begin in f" {document.all_words}"


def _word_wildcard(query: WordWildcard, _: Fields) -> Matches:
    pattern = pattern_of(query.pattern)
    if query.summary_only:
        return lambda document: any(map(pattern.match, document.summary_words.split(" ")))
    return lambda document: any(map(pattern.match, document.all_words.split(" ")))


def text_matcher(query: Term | Prefix | Wildcard | Regex) -> Callable[[str], bool]:
    """Whether a text, lower-cased where the field is a keyword's, is among those that the query finds."""
    if isinstance(query, Regex):
        return regex.compiled(query.pattern)
    if isinstance(query, Wildcard):
        patterns = [pattern_of(form) for form in forms_of(query.pattern)]
        return lambda text: any(pattern.match(text) for pattern in patterns)
    forms = forms_of(query.value)
    return forms.__contains__ if isinstance(query, Term) else lambda text: text.startswith(forms)


def _text(query: Term | Prefix | Wildcard | Regex, _: Fields) -> Matches:
    return _any_value(query.field, text_matcher(without_case(query)))


def without_case(query: _T) -> _T:
    """The same query in lower case, where the field is a known keyword among details."""
    if query.field not in known.KEYWORDS or isinstance(query, Wildcard | Regex):
        return query
    return replace(query, value=lower(query.value))


_T = TypeVar("_T", Term, Term | Prefix | Wildcard | Regex)


def _exists(query: Exists, fields: Fields) -> Matches:
    field = query.field
    kind = fields[field.partition(".")[0]].kind
    if kind in (Kind.TEXT, Kind.NUMBER):
        return lambda document: _value(document, field) is not None
    if kind is Kind.DATE:
        return lambda document: milliseconds_of(_value(document, field)) is not None
    if kind is Kind.FLATTENED:
        path = field.partition(".")[2] or None
        return lambda document: holds(paths_of(document.source.get("details")), path)
    return _any_value(field, lambda _: True)


def _value(document: Document, field: str) -> Any:
    name = _PROVENANCE.get(field)
    return getattr(document.provenance, name) if name else document.source.get(field)


_PROVENANCE = {"ingest_stream": "stream", "ingest_number": "number", "content_hash": "content_hash"}


def _any_value(field: str, fits: Callable[[str], bool]) -> Matches:
    """Whether one of the values of a keyword field, or of the leaves of details at a path, ``fits``."""
    if field.partition(".")[0] != "details":
        return lambda document: any(fits(text) for text in keywords_of(_value(document, field)))
    path = field.partition(".")[2]
    if field in known.KEYWORDS:
        return lambda document: any(fits(lower(text)) for text in _last.leaves_of(document).get(path, ()))
    if path:
        return lambda document: any(map(fits, _last.leaves_of(document).get(path, ())))
    return lambda document: any(fits(text) for texts in _last.leaves_of(document).values() for text in texts)


class _Last(threading.local):
    """The leaves of the document that this thread has asked for last: hundreds of conditions ask for the same ones.

    It is not to be changed meanwhile.
    """

    def __init__(self) -> None:
        self._document: Document | None = None
        self._leaves: dict[str, list[str]] = {}

    def leaves_of(self, document: Document) -> dict[str, list[str]]:
        if self._document is not document:
            self._leaves = {}
            for path, text in leaves_of(document.source.get("details")):
                self._leaves.setdefault(path, []).append(text)
            self._document = document
        return self._leaves


_last = _Last()


def _range(query: Range, fields: Fields) -> Matches:
    field, low, high = query.field, query.low, query.high
    is_known = field in known.ORDERED and fields is FIELD_BY_NAME
    is_date = not is_known and fields[field].kind is Kind.DATE

    def matches(document: Document) -> bool:
        if is_known:
            number = known.ordered_value(document.source, field)
        else:
            value = _value(document, field)
            number = milliseconds_of(value) if is_date else value
        return number is not None and (low is None or number >= low) and (high is None or number < high)

    return matches


def _in_list(query: InList, _: Fields) -> Matches:
    name, is_detail = query.name, query.field.partition(".")[0] == "details" and query.field not in known.KEYWORDS

    def fits(text: str) -> bool:
        found = lists.in_use().get(name)
        return found is not None and (text in found if is_detail else found.has_lowered(text))

    return _any_value(query.field, fits)


_MATCHERS: dict[type, Callable[[Any, Fields], Matches]] = {
    All: lambda *_: lambda _document: True,
    And: _and,
    Or: _or,
    Not: _not,
    Words: _words,
    WordPrefix: _word_prefix,
    WordWildcard: _word_wildcard,
    Term: _text,
    Prefix: _text,
    Wildcard: _text,
    Regex: _text,
    Exists: _exists,
    Range: _range,
    InList: _in_list,
}
