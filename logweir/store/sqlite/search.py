"""How the embedded store keeps what searches look at, and how a query becomes SQL over it.

One day file: the table ``events`` has a column for each keyword, date and number, and ``document``, the event as JSON;
the FTS5 table ``words``, by the same rowid, has the words of the summary and the words of everything else.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import orjson

from logweir.event import FIELDS, Document, Kind
from logweir.query.match import holds, leaves_of, milliseconds_of, paths_of, pattern_of, text_of
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
    lower,
    searchable,
)
from logweir.query.words import BOUNDARY, beginning_of, words_of

_PROVENANCE = ("ingest_stream", "ingest_number", "content_hash")
_KEYWORDS = tuple(field.name for field in FIELDS if field.kind is Kind.KEYWORD and field.name not in _PROVENANCE)
_DATES = tuple(field.name for field in FIELDS if field.kind is Kind.DATE)
COLUMNS = ("id", *_PROVENANCE, *_DATES, *_KEYWORDS, "document")

SCHEMA = f"""
CREATE TABLE events (
    rowid INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    ingest_stream TEXT NOT NULL,
    ingest_number INTEGER NOT NULL,
    content_hash TEXT NOT NULL,
    {" ".join(f'"{name}" INTEGER,' for name in _DATES)}
    {" ".join(f'"{name}" TEXT,' for name in _KEYWORDS)}
    document TEXT NOT NULL
);
CREATE INDEX events_received ON events (receivedtimestamp);
CREATE INDEX events_provenance ON events (ingest_stream, ingest_number);
CREATE VIRTUAL TABLE words USING fts5(
    summary, rest, content='', columnsize=0, tokenize="ascii tokenchars '_'"
);
"""

# A column holds one value as it is, several as "\x1f first \x1f second \x1f". So that a value cannot look like
# several, the two marks are escaped inside of values.
_LIST_MARK = "\x1f"
_ESCAPE_MARK = "\x1e"

# Whoever cut the words may have stopped early in a very long event. Such an event gets this word, and searches of
# details, which look for words first, look at it in any case.
_LONG_MARK = "\ue001"
_LONG_FROM = 16_000


class Unfit(ValueError):
    """A document that this store will never take; the text says why."""


def row_of(document: Document) -> tuple[Any, ...]:
    """The values of COLUMNS. Raises Unfit."""
    source, provenance = document.source, document.provenance
    if not isinstance(source.get("details"), dict | None):
        raise Unfit("details is not an object")
    try:
        text = orjson.dumps({name: value for name, value in source.items() if name not in _PROVENANCE}).decode()
    except TypeError as error:
        raise Unfit(f"it cannot be written as JSON: {error}") from error
    return (
        document.id,
        provenance.stream,
        provenance.number,
        provenance.content_hash,
        *[milliseconds_of(source.get(name)) for name in _DATES],
        *[_column(source.get(name)) for name in _KEYWORDS],
        text,
    )


def words_row_of(document: Document) -> tuple[str, str]:
    """The words of the summary and the words of everything else: no phrase reaches from one column to the other."""
    summary, rest = document.summary_words, document.all_words
    if rest == summary:
        rest = ""
    elif summary and rest.startswith(f"{summary} {BOUNDARY}"):
        rest = rest[len(summary) + 1 :]
    return summary, f"{rest} {_LONG_MARK}" if len(document.all_words) > _LONG_FROM else rest


def _column(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _value(value)
    if isinstance(value, list):
        values = [column for item in value if (column := _column(item)) is not None]
        return _LIST_MARK + _LIST_MARK.join(values) + _LIST_MARK if values else None
    if isinstance(value, dict):
        raise Unfit("a keyword field holds an object")
    return _value(text_of(value))


def _value(text: str) -> str | None:
    if not searchable(text):
        return None
    text = lower(text)
    if _LIST_MARK in text or _ESCAPE_MARK in text:
        text = text.replace(_ESCAPE_MARK, _ESCAPE_MARK + "0").replace(_LIST_MARK, _ESCAPE_MARK + "1")
    return text


def _values(column: str) -> list[str]:
    """The values that a column holds: the inverse of ``_column``."""
    values = column[1:-1].split(_LIST_MARK) if column.startswith(_LIST_MARK) else [column]
    return [value.replace(_ESCAPE_MARK + "1", _LIST_MARK).replace(_ESCAPE_MARK + "0", _ESCAPE_MARK) for value in values]


# --- queries ------------------------------------------------------------------------------------------------------
def condition(query: Node) -> tuple[str, list[Any]]:
    """The SQL condition over ``events`` that is true for the events of the query, and its parameters."""
    if (words := _match(query)) is not None:
        return "rowid IN (SELECT rowid FROM words WHERE words MATCH ?)", [words]
    return cast("Callable[[Node], tuple[str, list[Any]]]", _CONDITIONS[type(query)])(query)


def _match(query: Node) -> str | None:
    """The whole query as one FTS5 expression, when it asks for words only."""
    if isinstance(query, Words | WordPrefix):
        text = " ".join(query.words) if isinstance(query, Words) else query.prefix
        star = "*" if isinstance(query, WordPrefix) else ""
        return f'{"{summary} : " if query.summary_only else ""}"{text}"{star}'
    if isinstance(query, And | Or):
        parts = [_match(node) for node in query.nodes]
        operator = " AND " if isinstance(query, And) else " OR "
        return None if None in parts else f"({operator.join(cast('list[str]', parts))})"
    return None


def _joined(query: And | Or) -> tuple[str, list[Any]]:
    # The words among the parts go into one MATCH, which FTS5 answers better than an intersection of rowids.
    words = tuple(node for node in query.nodes if _match(node) is not None)
    others = [node for node in query.nodes if _match(node) is None]
    nodes = [*others, type(query)(words)] if words else others
    parts = [condition(node) for node in nodes]
    operator = " AND " if isinstance(query, And) else " OR "
    return f"({operator.join(part for part, _ in parts)})", [value for _, values in parts for value in values]


def _not(query: Not) -> tuple[str, list[Any]]:
    # Not `NOT`: a comparison with an absent field is NULL, and NOT NULL is not true.
    part, values = condition(query.node)
    return f"(({part}) IS NOT TRUE)", values


def _text(query: Term | Prefix | Wildcard) -> tuple[str, list[Any]]:
    is_of_details = query.field.startswith("details")
    if isinstance(query, Wildcard):
        parts = [(f"keyword_like({_quoted(query.field)}, ?)", [form]) for form in forms_of(query.pattern)]
    elif is_of_details:
        parts = [_leaf(query.field, form, whole=isinstance(query, Term)) for form in forms_of(query.value)]
    else:
        parts = [(_term if isinstance(query, Term) else _prefix)(query.field, form) for form in forms_of(query.value)]
    return f"({' OR '.join(part for part, _ in parts)})", [value for _, values in parts for value in values]


def _term(field: str, text: str) -> tuple[str, list[Any]]:
    if field in _PROVENANCE:
        return f"{field} = ?", [text]
    value = _value(text)
    if value is None:
        return "0", []
    return f"({_quoted(field)} = ? OR {_in_list(field)})", [value, f"{_LIST_MARK}{value}{_LIST_MARK}"]


def _prefix(field: str, text: str) -> tuple[str, list[Any]]:
    value, column = _value(text), _quoted(field)
    if value is None:
        return "0", []
    # U+10FFFF is no character: nothing that begins with value comes after value and it.
    bounds = [value, value + "\U0010ffff"]
    return f"({column} BETWEEN ? AND ? OR {_in_list(field)})", [*bounds, f"{_LIST_MARK}{value}"]


def _exists(query: Exists) -> tuple[str, list[Any]]:
    if query.field == "summary":
        return "coalesce(json_type(document, '$.summary'), 'null') <> 'null'", []
    if query.field.startswith("details"):
        return "details_has(document, ?)", [_path(query.field)]
    return f"{_quoted(query.field)} IS NOT NULL", []


def _range(query: Range) -> tuple[str, list[Any]]:
    bounds = [(">=", query.low), ("<", query.high)]
    parts = [(f"{_quoted(query.field)} {sign} ?", bound) for sign, bound in bounds if bound is not None]
    if not parts:
        return _exists(Exists(query.field))
    return f"({' AND '.join(part for part, _ in parts)})", [bound for _, bound in parts]


def _leaf(field: str, value: str, *, whole: bool) -> tuple[str, list[Any]]:
    """A leaf of details: its words first, which an index finds; then the event itself, which decides."""
    exact = "details_equal" if whole else "details_begin"
    part, values = f"{exact}(document, ?, ?)", [_path(field), value]
    words = words_of(value) if whole else beginning_of(value)
    # A fraction or exponent may be spelled otherwise among the words (1e22, 1e+22).
    if not words or re.fullmatch(r"-?\d+[.eE][-+.\deE]*", value):
        return part, values
    star = "" if whole else "*"
    found = f'"{" ".join(words)}"{star} OR "{_LONG_MARK}"'
    return f"(rowid IN (SELECT rowid FROM words WHERE words MATCH ?) AND {part})", [found, *values]  # noqa: S608


def _path(field: str) -> str | None:
    return field.partition(".")[2] or None


def _quoted(name: str) -> str:
    return f'"{name}"'


def _in_list(name: str) -> str:
    column = _quoted(name)
    return f"({column} >= char(31) AND {column} < ' ' AND instr({column}, ?))"


_CONDITIONS = {
    All: lambda _: ("1", []),
    And: _joined,
    Or: _joined,
    Not: _not,
    Term: _text,
    Prefix: _text,
    Wildcard: _text,
    Exists: _exists,
    Range: _range,
}


# --- what SQL cannot say ------------------------------------------------------------------------------------------
def register(connection: sqlite3.Connection) -> None:
    """Give the connection the functions that conditions use."""
    connection.create_function("keyword_like", 2, _keyword_like, deterministic=True)
    connection.create_function("details_has", 2, _details_has, deterministic=True)
    connection.create_function("details_equal", 3, _details_equal, deterministic=True)
    connection.create_function("details_begin", 3, _details_begin, deterministic=True)


def _keyword_like(column: str | None, pattern: str) -> bool:
    return column is not None and any(pattern_of(pattern).match(value) for value in _values(column))


def _details_has(document: str, path: str | None) -> bool:
    return holds(_paths(document), path)


def _details_equal(document: str, path: str | None, value: str) -> bool:
    return any(text == value and path in (None, found) for found, text in _leaves(document))


def _details_begin(document: str, path: str | None, value: str) -> bool:
    return any(text.startswith(value) and path in (None, found) for found, text in _leaves(document))


# A query that asks several things of details asks them of one event after the other.
@lru_cache(maxsize=2)
def _leaves(document: str) -> tuple[tuple[str, str], ...]:
    return tuple(leaves_of(orjson.loads(document).get("details")))


@lru_cache(maxsize=2)
def _paths(document: str) -> set[str]:
    return paths_of(orjson.loads(document).get("details"))
