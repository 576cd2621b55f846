"""How the embedded store keeps what searches look at, and how a query becomes SQL over it.

One day file: the table ``events`` has a column for each keyword, date and number, and ``document``, the event as JSON;
the FTS5 table ``words``, by the same rowid, has the words of the summary and the words of everything else; ``known``,
by the same rowid, has the numbers and addresses of those events that have some. Files made before there was ``known``,
or with other columns, are read and written without it: a view in its place works the same out of the documents.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import orjson

from logweir.event import FIELDS, Document, Kind
from logweir.query import known
from logweir.query.match import (
    holds,
    leaves_of,
    milliseconds_of,
    paths_of,
    pattern_of,
    text_matcher,
    text_of,
)
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
    searchable,
)
from logweir.query.words import BOUNDARY, WORD_LENGTH_MAX, beginning_of, words_of

_PROVENANCE = ("ingest_stream", "ingest_number", "content_hash")
_KEYWORDS = tuple(field.name for field in FIELDS if field.kind is Kind.KEYWORD and field.name not in _PROVENANCE)
_DATES = tuple(field.name for field in FIELDS if field.kind is Kind.DATE)
COLUMNS = ("id", *_PROVENANCE, *_DATES, *_KEYWORDS, "document")

_KNOWN_TYPES = {Kind.IP: "BLOB", Kind.NUMBER: "INTEGER", Kind.FLOAT: "REAL"}
_KNOWN = tuple(map(known.short, known.ORDERED))
KNOWN_COLUMNS = ", ".join(("event", *(f'"{name}"' for name in _KNOWN)))
"""The columns of ``known``, of which the first is the event's rowid."""
_KNOWN_TABLE = "CREATE TABLE known (event INTEGER PRIMARY KEY, {});".format(
    ", ".join(f'"{known.short(name)}" {_KNOWN_TYPES[kind]}' for name, kind in known.ORDERED.items())
)
_KNOWN_VIEW = "CREATE TEMP VIEW known AS SELECT rowid AS event, {} FROM events".format(  # noqa: S608 - as above
    ", ".join(f"known_value(document, '{name}') AS \"{known.short(name)}\"" for name in known.ORDERED)
)

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
{_KNOWN_TABLE}
"""

# A column holds one value as it is, several as "\x1f first \x1f second \x1f". So that a value cannot look like
# several, the two marks are escaped inside of values.
_LIST_MARK = "\x1f"
_ESCAPE_MARK = "\x1e"

# Whoever cut the words may have stopped early in a very long event. Such an event gets this word, and searches of
# details, which look for words first, look at it in any case.
_LONG_MARK = "\ue001"
_LONG_FROM = 16_000
# This letter is found by i without regard to case, and its word is another one. Events that have it get the mark, too.
_DOTTED_I_FOLDED = "i\u0307"


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
    is_marked = len(document.all_words) > _LONG_FROM or _DOTTED_I_FOLDED in document.all_words
    return summary, f"{rest} {_LONG_MARK}" if is_marked else rest


def known_row_of(document: Document) -> tuple[Any, ...] | None:
    """The values of KNOWN_COLUMNS behind the first; None for an event that has none of them."""
    values = known.ordered_values(document.source)
    return tuple(_comparable(name, values.get(name)) for name in _KNOWN) if values else None


def has_known(connection: sqlite3.Connection) -> bool:
    """Whether a day's file has the table ``known``, with all of its columns."""
    columns = [name for _, name, *_ in connection.execute("PRAGMA main.table_info(known)")]
    return columns == ["event", *_KNOWN]


def _comparable(name: str, value: float | None) -> int | float | bytes | None:
    """A value as SQLite compares it: addresses have more bits than its numbers."""
    return value.to_bytes(16, "big") if name in _ADDRESSES and isinstance(value, int) else value


_ADDRESSES = frozenset(known.short(name) for name, kind in known.ORDERED.items() if kind is Kind.IP)


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


def values_of(field: str) -> str:
    """The expression for the values that an event has of a keyword field, a known detail among them."""
    return f"known_column(document, '{known.short(field)}')" if field in known.KEYWORDS else _quoted(field)


def texts_of(found: str) -> set[str]:
    """The values in what ``values_of`` found."""
    return set(_values(found))


# --- queries ------------------------------------------------------------------------------------------------------
def condition(query: Node) -> tuple[str, list[Any]]:
    """The SQL condition over ``events`` that is true for the events of the query, and its parameters."""
    if (words := _match(query)) is not None:
        return "rowid IN (SELECT rowid FROM words WHERE words MATCH ?)", [words]
    return cast("Callable[[Node], tuple[str, list[Any]]]", _CONDITIONS[type(query)])(query)


def _match(query: Node) -> str | None:
    """The whole query as one FTS5 expression, when it asks for words only."""
    if isinstance(query, Words | WordPrefix):
        text = " ".join(query.words if isinstance(query, Words) else (*query.before, query.prefix))
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


def _word_wildcard(query: WordWildcard) -> tuple[str, list[Any]]:
    # FTS5 finds whole words and beginnings: so it is asked for each of the words there are that are like this.
    column = "{summary} : " if query.summary_only else ""
    like = "".join("[[]" if character == "[" else character for character in query.pattern)
    rows = "SELECT words.rowid FROM vocabulary, words WHERE vocabulary.term GLOB ? AND words MATCH ? || vocabulary.term"
    return f"rowid IN ({rows} || '\"')", [like, f'{column}"']


def _text(query: Term | Prefix | Wildcard | Regex) -> tuple[str, list[Any]]:
    if query.field in known.KEYWORDS:
        return _known_keyword(query)
    is_of_details = query.field.startswith("details")
    if isinstance(query, Regex):
        return f"keyword_fits({_quoted(query.field)}, ?)", [query.pattern]
    if isinstance(query, Wildcard):
        parts = [(f"keyword_like({_quoted(query.field)}, ?)", [form]) for form in forms_of(query.pattern)]
    elif is_of_details:
        parts = [_leaf(query.field, form, whole=isinstance(query, Term)) for form in forms_of(query.value)]
    else:
        parts = [(_term if isinstance(query, Term) else _prefix)(query.field, form) for form in forms_of(query.value)]
    return f"({' OR '.join(part for part, _ in parts)})", [value for _, values in parts for value in values]


def _known_keyword(query: Term | Prefix | Wildcard | Regex) -> tuple[str, list[Any]]:
    """A detail that is compared without regard to case: words first, as ``_leaf`` does it."""
    text = query.pattern if isinstance(query, Wildcard | Regex) else lower(query.value)
    part, values = "details_fit(document, ?, ?, ?)", [_path(query.field), type(query).__name__, text]
    if isinstance(query, Regex):
        return part, values
    found = [_words_within(form, query) for form in forms_of(text)]
    if not all(found):
        return part, values
    match = " OR ".join((*found, f'"{_LONG_MARK}"'))
    return f"(rowid IN (SELECT rowid FROM words WHERE words MATCH ?) AND {part})", [match, *values]  # noqa: S608


def _words_within(text: str, query: Term | Prefix | Wildcard) -> str:
    """What an event with such a value has among its words, for FTS5; empty where nothing is certain."""
    if isinstance(query, Wildcard):
        # Whole words only, between characters that are part of none, and outside of what is escaped.
        found = _SURE_WORDS.findall(text) if _PLAIN_PATTERN.fullmatch(text) else []
        return "(" + " AND ".join(f'"{word[:WORD_LENGTH_MAX]}"' for word in found) + ")" if found else ""
    words = words_of(text) if isinstance(query, Term) else beginning_of(text)
    return f'"{" ".join(words)}"{"" if isinstance(query, Term) else "*"}' if words and not _is_fraction(text) else ""


# Neither what is escaped, nor what could be a part of a terminal's colours, which no word has.
_PLAIN_PATTERN = re.compile(r"[^\\\[;\x1b\x80-\U0010ffff]*")
_SURE_WORDS = re.compile(r"(?:(?<=[^\w*?])|^)\w+(?=[^\w*?]|$)")


def _is_fraction(text: str) -> bool:
    """Whether it may be spelled otherwise among the words (1e22, 1e+22)."""
    return re.fullmatch(r"-?\d+[.eE][-+.\deE]*", text) is not None


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
    if query.field in known.ORDERED:
        return _known_range(query)
    bounds = [(">=", query.low), ("<", query.high)]
    parts = [(f"{_quoted(query.field)} {sign} ?", bound) for sign, bound in bounds if bound is not None]
    if not parts:
        return _exists(Exists(query.field))
    return f"({' AND '.join(part for part, _ in parts)})", [bound for _, bound in parts]


def _known_range(query: Range) -> tuple[str, list[Any]]:
    column = known.short(query.field)
    parts, values = [f"{_quoted(column)} IS NOT NULL"], []
    for sign, bound in ((">=", query.low), ("<", query.high)):
        if bound is not None and not (column in _ADDRESSES and bound >= known.ADDRESSES):
            parts.append(f"{_quoted(column)} {sign} ?")
            values.append(_comparable(column, bound))
        elif bound is not None and sign == ">=":
            return "0", []  # behind the last address
    return f"rowid IN (SELECT event FROM known WHERE {' AND '.join(parts)})", values  # noqa: S608


def _leaf(field: str, value: str, *, whole: bool) -> tuple[str, list[Any]]:
    """A leaf of details: its words first, which an index finds; then the event itself, which decides."""
    exact = "details_equal" if whole else "details_begin"
    part, values = f"{exact}(document, ?, ?)", [_path(field), value]
    words = words_of(value) if whole else beginning_of(value)
    if not words or _is_fraction(value):
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
    Regex: _text,
    Exists: _exists,
    Range: _range,
    WordWildcard: _word_wildcard,
}


# --- what SQL cannot say ------------------------------------------------------------------------------------------
def register(connection: sqlite3.Connection) -> None:
    """Give the connection the functions that conditions use."""
    connection.create_function("keyword_like", 2, _keyword_like, deterministic=True)
    connection.create_function("keyword_fits", 2, _keyword_fits, deterministic=True)
    connection.create_function("details_has", 2, _details_has, deterministic=True)
    connection.create_function("details_equal", 3, _details_equal, deterministic=True)
    connection.create_function("details_begin", 3, _details_begin, deterministic=True)
    connection.create_function("details_fit", 4, _details_fit, deterministic=True)
    connection.create_function("known_column", 2, _known_column, deterministic=True)
    connection.create_function("known_value", 2, _known_value, deterministic=True)


def ready(connection: sqlite3.Connection) -> None:
    """Give the connection to a day's file, beside these functions, the tables that conditions use."""
    connection.execute("PRAGMA query_only = OFF")
    connection.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, words, row)")
    if not has_known(connection):
        connection.execute(_KNOWN_VIEW)
    connection.execute("PRAGMA query_only = ON")


def _keyword_like(column: str | None, pattern: str) -> bool:
    return column is not None and any(pattern_of(pattern).match(value) for value in _values(column))


def _keyword_fits(column: str | None, pattern: str) -> bool:
    return column is not None and any(map(_fits("", "Regex", pattern), _values(column)))


def _details_has(document: str, path: str | None) -> bool:
    return holds(_paths(document), path)


def _details_equal(document: str, path: str | None, value: str) -> bool:
    return any(text == value and path in (None, found) for found, text in _leaves(document))


def _details_begin(document: str, path: str | None, value: str) -> bool:
    return any(text.startswith(value) and path in (None, found) for found, text in _leaves(document))


def _details_fit(document: str, path: str, kind: str, text: str) -> bool:
    fits = _fits(path, kind, text)
    return any(found == path and fits(lower(leaf)) for found, leaf in _leaves(document))


@lru_cache(maxsize=64)
def _fits(path: str, kind: str, text: str) -> Callable[[str], bool]:
    return text_matcher(_TEXT_NODES[kind](path, text))


_TEXT_NODES: dict[str, Callable[[str, str], Term | Prefix | Wildcard | Regex]] = {
    "Regex": Regex,
    "Term": Term,
    "Prefix": Prefix,
    "Wildcard": Wildcard,
}


def _known_column(document: str, path: str) -> str | None:
    texts = [leaf for found, leaf in _leaves(document) if found == path]
    return _column(texts[0] if len(texts) == 1 else texts)


def _known_value(document: str, field: str) -> int | float | bytes | None:
    return _comparable(known.short(field), _ordered(document).get(known.short(field)))


# A query that asks several things of details asks them of one event after the other.
@lru_cache(maxsize=2)
def _ordered(document: str) -> dict[str, int | float]:
    return known.ordered_values(orjson.loads(document))


@lru_cache(maxsize=2)
def _leaves(document: str) -> tuple[tuple[str, str], ...]:
    return tuple(leaves_of(orjson.loads(document).get("details")))


@lru_cache(maxsize=2)
def _paths(document: str) -> set[str]:
    return paths_of(orjson.loads(document).get("details"))
