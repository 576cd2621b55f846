"""The search language: Lucene's syntax, cut down to what both stores answer alike, as a small tree of our own.

``parse`` gives the tree; each store turns the tree into its own query. Whatever the tree can say, both stores can do,
and a query that asks for more is an error that names what it asks for.
"""

from __future__ import annotations

import difflib
import math
import re
import threading
from collections.abc import Mapping
from itertools import groupby
from typing import NoReturn

from luqum import tree
from luqum.exceptions import IllegalCharacterError, ParseSyntaxError
from luqum.parser import parser as _luqum

from logweir.clock import duration_us
from logweir.errors import (
    QUERY_BAD,
    QUERY_FIELD_UNKNOWN,
    QUERY_OPERATOR_UNFIT,
    LogweirError,
)
from logweir.event import DETAIL_BY_NAME, DETAILS, FIELD_BY_NAME, FIELDS, Field, Kind
from logweir.query import hints, known, lists, regex
from logweir.query.match import text_matcher
from logweir.query.times import interval_us
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
    lower,
)
from logweir.query.words import is_one_character, words_of

QUERY_LENGTH_MAX = 10_000
NESTING_MAX = 25
CLAUSES_MAX = 500
WILDCARDS_MAX = 10
PATTERN_SIZE_BYTES_MAX = 400
FIELD_SIZE_BYTES_MAX = 500
"""Limits of one query: characters, groups inside groups (Elasticsearch takes 30), words and values; of one value with
wildcards: wildcards (each may double the work), bytes of UTF-8; of a field's name. For what begins in a given way,
Elasticsearch 8 takes 1,000 bytes, the name of the field below details among them."""

OPERATORS = {
    Kind.KEYWORD: 'field:value (whole, in any case), field:"a value", the wildcards * and ?, /regular expressions/,'
    " field:*",
    Kind.TEXT: 'words, "phrases", the wildcards * and ? in a word, field:*',
    Kind.DATE: "field:2026-01-31 (or more or less exact), [a TO b], {a TO b}, >, >=, <, <=, field:*",
    Kind.NUMBER: "field:5, [a TO b], {a TO b}, >, >=, <, <=, field:*",
    Kind.FLOAT: "field:0.5, [a TO b], {a TO b}, >, >=, <, <=, field:*",
    Kind.IP: 'field:10.0.0.7, field:10.0.0.0/8, field:"2001:db8::/32", [a TO b], {a TO b}, >, >=, <, <=, a * at the end'
    " of a value, field:*",
    Kind.FLATTENED: 'field:value (whole, in this case), field:"a value", a * at the end of a value, field:*',
}
"""What each kind of field can do, in words."""

_ANYWHERE = "(none given: all words)"


# --- from text to tree --------------------------------------------------------------------------------------------
_luqum_lock = threading.Lock()


def parse(text: str, fields: Mapping[str, Field] = FIELD_BY_NAME, *, now_us: int | None = None) -> Node:
    """The tree of a query; the empty one asks for everything. ``fields``: what it may ask for, an event's by default.

    ``now_us``: what ``now-1h`` counts from; without it, that is an error, for what is asked again and again.
    Raises LogweirError: QUERY_BAD (with the column, from 1), QUERY_FIELD_UNKNOWN, QUERY_OPERATOR_UNFIT.
    """
    if len(text) > QUERY_LENGTH_MAX:
        raise LogweirError(
            QUERY_BAD, column=QUERY_LENGTH_MAX + 1, reason=f"it is longer than {QUERY_LENGTH_MAX} characters"
        )
    if not text.strip():
        return All()
    item, columns = syntax_of(text)
    return _Translation(text, columns, fields, now_us).node(item, None, 0)


def syntax_of(text: str) -> tuple[tree.Item, list[int]]:
    """What Lucene's syntax makes of a text, and the column in it of each of luqum's positions.

    Raises LogweirError(QUERY_BAD).
    """
    spelled, columns = _with_word_operators(text)
    try:
        with _luqum_lock:  # PLY's lexer and parser keep their state in themselves
            item = _luqum.parse(spelled)
    except (ParseSyntaxError, IllegalCharacterError) as error:
        raise _syntax_error(str(error), spelled, columns) from error
    except (ValueError, ArithmeticError) as error:  # luqum's own reading of the numbers in a~1.2.3 or a^x
        raise LogweirError(QUERY_BAD, column=1, reason="a number after ~ or ^ cannot be read") from error
    return item, columns


def _with_word_operators(text: str) -> tuple[str, list[int]]:
    """The query with ``&& || !`` spelled AND OR -, which luqum knows; and each character's column in ``text``."""
    pieces = re.finditer(
        r"(?P<operator>(?<![^\s(])!(?=\S)|(?<![^\s)])(?:&&|\|\|)(?=[\s(!]))"
        r'|\\.|"(?:\\.|[^"\\])*"|/(?:\\.|[^/\\])*/|.',
        text,
        re.DOTALL,
    )
    spelled: list[str] = []
    columns: list[int] = []
    for piece in pieces:
        replaced = {"&&": " AND ", "||": " OR ", "!": "-"}[piece[0]] if piece["operator"] else None
        spelled.append(replaced or piece[0])
        columns.extend([piece.start() + 1] * len(replaced) if replaced else range(piece.start() + 1, piece.end() + 1))
    return "".join(spelled), [*columns, len(text) + 1]


def _syntax_error(message: str, spelled: str, columns: list[int]) -> LogweirError:
    found = re.search(r"at position (\d+)!?$", message)
    position = int(found[1]) if found else len(spelled)
    rest = spelled[position:]
    if not rest:
        reason = "it ends too early, perhaps inside of a parenthesis"
    elif message.startswith("Illegal") and rest[0] in '"/':
        reason = f"the {rest[0]} is never closed; put a backslash before it to search for it"
        if rest.rstrip().endswith('\\"'):
            reason = (
                'the " is never closed: a backslash makes the last one part of the value; write \\\\ for a backslash'
            )
    elif rest[0] == ":":
        reason = (
            "a colon cannot stand here; a value that has one needs quotes, such as an IPv6 address, or a time with an"
            " offset"
        )
    else:
        reason = f"{rest.split()[0][:20]!r} cannot stand here; quote it, or put a backslash before it, to search for it"
    return LogweirError(QUERY_BAD, column=columns[position], reason=reason)


_UNSUPPORTED = {
    tree.Boost: "boosting (^) is not supported, hits come newest first",
    tree.Fuzzy: "fuzzy words (~) are not supported",
    tree.Proximity: "proximity (~) is not supported",
}


class _Translation:
    """One query's way from luqum's tree to ours. ``columns``: of each of luqum's positions, where it is in ``text``."""

    def __init__(self, text: str, columns: list[int], fields: Mapping[str, Field], now_us: int | None) -> None:
        self._text = text
        self._columns = columns
        self._fields = fields
        self._now_us = now_us
        self._is_of_events = fields is FIELD_BY_NAME
        self._clauses = 0

    def node(self, item: tree.Item, field: str | None, depth: int) -> Node:
        if depth > NESTING_MAX:
            self._bad(item, f"it is nested deeper than {NESTING_MAX} levels")
        if isinstance(item, tree.UnknownOperation | tree.AndOperation):
            self._require_no_small_operator(item, field)
            return And(tuple(self.node(operand, field, depth + 1) for operand in item.operands))
        if isinstance(item, tree.OrOperation):
            return Or(tuple(self.node(operand, field, depth + 1) for operand in item.operands))
        if isinstance(item, tree.BaseGroup):
            return self.node(item.expr, field, depth + 1)
        if isinstance(item, tree.Plus):
            return self.node(item.a, field, depth + 1)
        if isinstance(item, tree.Not | tree.Prohibit):
            return Not(self.node(item.a, field, depth + 1))
        if isinstance(item, tree.SearchField):
            return self._search_field(item, field, depth)
        if isinstance(item, tree.Word) and item.value[0] == "@" and self._may_be_listed(field):
            return self._in_list(item, field or "")
        return self._leaf(item, field)

    def _may_be_listed(self, field: str | None) -> bool:
        return (
            field is not None
            and self._is_of_events
            and (self._kind(field) in (Kind.KEYWORD, Kind.FLATTENED) or field in known.ORDERED)
        )

    def _require_no_small_operator(self, item: tree.Item, field: str | None) -> None:
        """Refuse ``a:b and c:d`` and ``a:(b or c)``, which is Kibana's language: here the operator would be a word."""
        if field is None and all(isinstance(operand, tree.Term) for operand in item.operands):
            return  # Nothing but words, of which "and" may be one.
        for operand in item.operands:
            if isinstance(operand, tree.Word) and operand.value.lower() in ("and", "or", "not"):
                capitals = operand.value.upper()
                self._bad(operand, f'{capitals} is written in capitals; to look for the word, write "{operand.value}"')

    def _search_field(self, item: tree.SearchField, outer: str | None, depth: int) -> Node:
        if outer is not None:
            reason = f"the field {item.name} stands inside of the field {outer}"
            self._bad(item, f'{reason}; a value that has a colon needs quotes: "{self._typed(item)}"')
        if item.name == "*" and isinstance(item.expr, tree.Word) and item.expr.value == "*":
            return All()
        field = self._resolved(item)
        if isinstance(item.expr, tree.SearchField):
            what = "a time with an offset" if self._kind(field) is Kind.DATE else "a value that has a colon"
            self._bad(item.expr, f'{what} needs quotes: {item.name}:"{self._typed(item.expr)}"')
        if isinstance(item.expr, tree.Not | tree.Prohibit | tree.Plus):
            self._bad(item.expr, "a sign follows the field; write -field:value, or quote a negative value")
        stored_as = hints.known_detail(field)
        if stored_as is None:
            return self.node(item.expr, field, depth + 1)
        of_known = self.node(item.expr, stored_as, depth + 1)
        try:
            # What is known has one name since: events of before, and values of another form, have it as it was sent.
            return Or((self.node(item.expr, field, depth + 1), of_known))
        except LogweirError as error:
            if error.problem is not QUERY_OPERATOR_UNFIT:
                raise
            return of_known  # Numbers and addresses have their order under the known name alone.

    def _resolved(self, item: tree.SearchField) -> str:
        """The field's own name; other names of it (ECS) are resolved."""
        pieces = self._pieces(item, item.name)
        name = "".join(character for character, _ in pieces)
        if len(name.encode()) > FIELD_SIZE_BYTES_MAX:
            self._bad(item, f"a field's name is longer than {FIELD_SIZE_BYTES_MAX} bytes")
        if name in self._fields:
            return name
        if not self._is_of_events:
            nearest = difflib.get_close_matches(name.lower(), self._fields, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            advice = f"There are {', '.join(self._fields)}; text that has a colon needs quotes.{hint}"
            raise LogweirError(QUERY_FIELD_UNKNOWN, field=name, nearest=hint, advice=advice)
        if name.startswith("details.") and name != "details." and not any(wild for _, wild in pieces):
            return name
        if name in _BY_ALIAS:
            return _BY_ALIAS[name]
        value = self._typed(item)[len(item.name) + 1 :]
        raise LogweirError(QUERY_FIELD_UNKNOWN, field=name, nearest=hints.for_field(name, value))

    def _typed(self, item: tree.Item) -> str:
        """What was typed from there on, up to the next space."""
        rest = self._text[self._columns[item.pos or 0] - 1 :].split(maxsplit=1)
        return rest[0].rstrip(")]}") if rest else ""

    def _leaf(self, item: tree.Item, field: str | None) -> Node:
        self._count(item, 1)
        if type(item) in _UNSUPPORTED:
            self._bad(item, _UNSUPPORTED[type(item)])
        if isinstance(item, tree.Range | tree.From | tree.To):
            return self._range(item, field)
        if isinstance(item, tree.Regex):
            return self._regex(item, field)
        if item.value == "*":
            return Exists(field) if field else All()
        return self._said(item, field)

    def _said(self, item: tree.Term, field: str | None) -> Node:
        """A word, a value or a phrase."""
        is_phrase = isinstance(item, tree.Phrase)
        pieces = self._pieces(item, item.value[1:-1], quoted=True) if is_phrase else self._pieces(item, item.value)
        wildcards = sum(wild for _, wild in pieces)
        if wildcards > WILDCARDS_MAX:
            self._bad(item, f"a value has more than {WILDCARDS_MAX} wildcards")
        if wildcards and len(item.value.encode()) > PATTERN_SIZE_BYTES_MAX:
            self._bad(item, f"a value with wildcards is longer than {PATTERN_SIZE_BYTES_MAX} bytes")
        kind = self._kind(field)
        text = "".join(character for character, _ in pieces)
        # What has a backslash before it means itself; colons need one in any case.
        is_literal = is_phrase or "\\/" in item.value
        if field is not None and field in known.ORDERED and self._is_of_events:
            return self._ordered(item, field, pieces, text)
        if not is_literal and hints.is_network(text):
            raise self._unfit(field, f"the range of addresses {text}", hint=_of_network(text))
        if kind is Kind.TEXT:
            return self._words(item, field, pieces)
        if kind in (Kind.KEYWORD, Kind.FLATTENED):
            if not is_phrase and item.value[:1] in _OTHER_QUOTES:
                self._bad(item, f'{text[0]} is not a quote here; write "…"')
            return self._value(item, field or "", pieces, text)
        if any(wild for _, wild in pieces):
            raise self._unfit(field, "wildcards")
        low, high = self._bounds(item, field, text)
        return Range(field or "", low, high)

    def _in_list(self, item: tree.Word, field: str) -> Node:
        self._count(item, 1)
        name = item.value[1:]
        if not lists.NAME.fullmatch(name):
            reason = f"@{name[:40]} is no list's name (a to z, digits, _)"
            self._bad(item, f'{reason}; a value that begins with @ needs quotes: "{self._typed(item)}"')
        return InList(field, name)

    def _value(self, item: tree.Item, field: str, pieces: _Pieces, text: str) -> Node:
        """A value of a keyword field or of details, whole or as a pattern."""
        is_pattern = _split_stars(pieces)[0] is None
        if field.startswith("details") and not (is_pattern and field in known.KEYWORDS):
            return self._detail(field, pieces)
        return self._possible(item, _keyword(field, pieces), text)

    def _ordered(self, item: tree.Item, field: str, pieces: _Pieces, text: str) -> Node:
        """A value of a field that has an order, or the beginning of its text."""
        kind = self._kind(field)
        if kind is Kind.IP and (network := known.network_range(text.strip("[]"))) is not None:
            found = Range(field, *network)
            # In quotes, as an exception that is made from an event has it, it may be meant as it is written, too.
            is_text = isinstance(item, tree.Phrase) and field != known.SENDER
            return Or((found, Term(field, text.lower()))) if is_text else found
        if field == known.SENDER:
            return self._possible(item, _keyword(field, pieces), text)
        node = self._detail(field, pieces)
        if kind is Kind.IP:
            address = hints.address_of(text) if isinstance(node, Term) else None
            return type(node)(field, address or node.value.lower())
        if kind is Kind.FLOAT and isinstance(node, Term) and _NUMBER.fullmatch(text):
            return Or((node, Range(field, *self._bounds(item, field, text))))  # 0.250 is 0.25
        return node

    def _regex(self, item: tree.Regex, field: str | None) -> Node:
        pattern = item.value[1:-1].replace("\\/", "/")
        behind = self._text[self._columns[(item.pos or 0) + len(item.value)] - 1 :][:1]
        if regex.is_plain(pattern) or behind.strip(" \t\r\n)"):
            self._bad(item, "between slashes stands a regular expression, such as /web[0-9]+/; write a path in quotes")
        if field is None or self._kind(field) is not Kind.KEYWORD:
            raise self._unfit(field, "regular expressions", hint="; keywords can, such as hostname:/web[0-9]+/")
        if len(pattern.encode()) > PATTERN_SIZE_BYTES_MAX:
            self._bad(item, f"a regular expression is longer than {PATTERN_SIZE_BYTES_MAX} bytes")
        try:
            made = regex.canonical(pattern)
            regex.compiled(made)
        except regex.Unreadable as error:
            self._bad(item, f"the regular expression cannot be read: {error}")
        return Regex(field, made)

    def _detail(self, field: str, pieces: _Pieces) -> Term | Prefix:
        text, stars = _split_stars(pieces)
        if text is None:
            raise self._unfit(field, "wildcards other than one * at the end")
        return (Prefix if stars else Term)(field, text)

    def _words(self, item: tree.Item, field: str | None, pieces: _Pieces) -> Node:
        text, stars = _split_stars(pieces)
        if text is None:
            return self._word_wildcard(item, field, pieces)
        words = words_of(text)
        if not words:
            self._bad(item, f"{item.value[:20]} has no letter or digit to look for")
        self._count(item, len(words) - 1)
        summary_only = field is not None
        if not stars or is_one_character(words[-1]) or not words_of(text[-1]):
            return Words(tuple(words), summary_only)  # Whatever follows the last word is another one.
        return WordPrefix(words[-1], summary_only, tuple(words[:-1]))

    def _word_wildcard(self, item: tree.Item, field: str | None, pieces: _Pieces) -> Node:
        """One word with wildcards in it."""
        parts: list[str] = []
        for is_wild, run in groupby(pieces, key=lambda piece: piece[1]):
            part = "".join(character for character, _ in run)
            words = [part] if is_wild else words_of(part)
            # As part of a longer word, it is to be cut as it is here.
            if not is_wild and (words_of(f"a{part}a") != [f"a{''.join(words)}a"] or is_one_character(words[0])):
                is_of_no_spaces = any(map(is_one_character, words))
                what = "in scripts without spaces" if is_of_no_spaces else "around more than one word"
                raise self._unfit(field, f"wildcards {what}", hint="; ask for each word by itself: a*b AND c*d")
            parts += words
        if all(part.strip("*?") == "" for part in parts):
            self._bad(item, f"{item.value[:20]} has no letter or digit to look for")
        return WordWildcard("".join(parts), field is not None)

    def _possible(self, item: tree.Item, node: Node, text: str) -> Node:
        """The node, if the field can have such a value at all: some take only what is known beforehand."""
        if not isinstance(node, Term | Prefix | Wildcard):
            return node
        if node.field == "severity" and self._is_of_events:
            if isinstance(node, Term) and (severity := hints.severity_of(text)) is not None:
                return Term(node.field, severity.lower())
            matches = text_matcher(node)
            if not any(matches(name.lower()) for name in hints.SEVERITIES):
                self._bad(item, f"{text[:40]!r} is no severity{hints.for_severity(text)}; there are {_SEVERITIES}")
        if node.field == "sourceaddress" and isinstance(node, Term):
            address = hints.address_of(text)
            if address is None:
                self._bad(item, f"{text[:40]!r} is no address, and neither a beginning of some, such as 10.1.*")
            return Term(node.field, lower(address))
        return node

    def _count(self, item: tree.Item, clauses: int) -> None:
        self._clauses += clauses
        if self._clauses > CLAUSES_MAX:
            self._bad(item, f"it asks for more than {CLAUSES_MAX} words and values")

    def _range(self, item: tree.Item, field: str | None) -> Node:
        is_severity = field == "severity" and self._is_of_events
        if self._kind(field) not in (Kind.DATE, Kind.NUMBER, Kind.FLOAT, Kind.IP) and not is_severity:
            raise self._unfit(field, "ranges", hint=_OF_RANGES if self._kind(field) is Kind.FLATTENED else "")
        low = high = None
        if isinstance(item, tree.Range | tree.From):
            bound, included = (item.low, item.include_low) if isinstance(item, tree.Range) else (item.a, item.include)
            first = self._bounds(bound, field, self._bound_text(bound))
            low = first[0] if included else first[1]
        if isinstance(item, tree.Range | tree.To):
            bound, included = (item.high, item.include_high) if isinstance(item, tree.Range) else (item.a, item.include)
            last = self._bounds(bound, field, self._bound_text(bound))
            high = last[1] if included else last[0]
        return _severities(low, high) if is_severity else Range(field or "", low, high)

    def _bound_text(self, item: tree.Item) -> str:
        if isinstance(item, tree.Prohibit):
            return "-" + self._bound_text(item.a)
        is_phrase = isinstance(item, tree.Phrase)
        pieces = self._pieces(item, item.value[1:-1], quoted=True) if is_phrase else self._pieces(item, item.value)
        return "".join(character for character, _ in pieces)

    def _bounds(self, item: tree.Item, field: str | None, text: str) -> tuple[_Bound, _Bound]:
        """The first value that ``text`` stands for and the first behind it; ``*`` is open to both sides."""
        if text == "*":
            return None, None
        kind = self._kind(field)
        if field == "severity":
            severity = hints.severity_of(text)
            if severity is None:
                self._bad(item, f"{text[:40]!r} is no severity{hints.for_severity(text)}; there are {_SEVERITIES}")
            rank = hints.SEVERITIES[::-1].index(severity)
            return rank, rank + 1
        if kind is Kind.DATE:
            return self._time_bounds(item, text)
        if kind is Kind.IP:
            bounds = known.network_range(text.strip("[]")) or _address_bounds(text)
            if bounds is None:
                self._bad(
                    item, f"{text[:40]!r} is no address such as 10.0.0.7, and no range of them such as 10.0.0.0/8"
                )
            return bounds
        if kind is Kind.FLOAT:
            if not _NUMBER.fullmatch(text):
                self._bad(item, f"{text[:40]!r} is not a number such as 5 or 0.25")
            number = float(text) + 0.0
            return number, math.nextafter(number, math.inf)
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            self._bad(item, f"{text[:40]!r} is not a whole number of at most 18 digits")
        return int(text), int(text) + 1

    def _time_bounds(self, item: tree.Item, text: str) -> tuple[int, int]:
        """In milliseconds."""
        found = _NOW.fullmatch(text)
        if found is None:
            interval = interval_us(text)
            if interval is None:
                age = "; an age is written now-15m" if duration_us(text) is not None else ""
                self._bad(item, f"{text[:40]!r} is not a time such as 2026-01-31 or 2026-01-31T12:00:00Z{age}")
            return interval[0] // 1000, -(-interval[1] // 1000)
        ahead_us = duration_us(found["duration"]) if found["duration"] else 0
        if ahead_us is None:
            self._bad(item, f"{text[:40]!r} is not a time such as now or now-15m (s, m, h, d, w)")
        if self._now_us is None:
            self._bad(item, "searches alone know what now is; a rule says by its window how far it looks back")
        milliseconds = (self._now_us + (ahead_us if found["sign"] == "+" else -ahead_us)) // 1000
        return milliseconds, milliseconds + 1

    def _pieces(self, item: tree.Item, text: str, *, quoted: bool = False) -> _Pieces:
        """The characters of ``text``, with which ``item`` begins (behind its quote), without backslashes."""
        pieces: _Pieces = []
        for found in re.finditer(r"\\.|.", text, re.DOTALL):
            character = found[0][-1]
            if len(found[0]) > 1 and (character.isalnum() or (quoted and character not in _SPECIAL)):
                reason = f"a backslash before {character} means nothing; write \\\\ for a backslash"
                self._bad(item, reason, behind=found.start() + quoted)
            pieces.append((character, not quoted and found[0] in "*?"))
        return pieces

    def _kind(self, field: str | None) -> Kind:
        if field is None:
            return Kind.TEXT
        if self._is_of_events and field in known.ORDERED:
            return known.ORDERED[field]
        named = DETAIL_BY_NAME.get(field) if self._is_of_events else None
        return (named or self._fields[field.partition(".")[0]]).kind

    def _unfit(self, field: str | None, operator: str, *, hint: str = "") -> LogweirError:
        operators = OPERATORS[self._kind(field)] + hint
        if field is None:
            field, operators = _ANYWHERE, operators.replace("field:*", "*")
        return LogweirError(QUERY_OPERATOR_UNFIT, field=field, operator=operator, operators=operators)

    def _bad(self, item: tree.Item, reason: str, *, behind: int = 0) -> NoReturn:
        raise LogweirError(QUERY_BAD, column=self._columns[(item.pos or 0) + behind], reason=reason)


_BY_ALIAS = {field.ecs: field.name for field in (*FIELDS, *DETAILS) if field.ecs}

_Pieces = list[tuple[str, bool]]
"""Characters, and whether each is a wildcard."""


_SPECIAL = '+-&|!(){}[]^"~*?:\\/<>= \t'
"""What is special somewhere in Lucene's syntax: many programs put a backslash before each of these, in quotes too."""
_OTHER_QUOTES = tuple("“”„«»‘’‚‹›")


def _split_stars(pieces: _Pieces) -> tuple[str | None, bool]:
    """The text before a * at the end, and whether there is one; None for the text when there are other wildcards."""
    stars = pieces[-1:] == [("*", True)]
    plain = pieces[:-1] if stars else pieces
    return (None if any(wild for _, wild in plain) else "".join(character for character, _ in plain)), stars


def _keyword(field: str, pieces: _Pieces) -> Node:
    text, stars = _split_stars(pieces)
    if text is not None:
        return (Prefix if stars else Term)(field, lower(text))
    escaped = (character if wild else re.sub(r"([*?\\])", r"\\\1", lower(character)) for character, wild in pieces)
    return Wildcard(field, "".join(escaped))


def _of_network(network: str) -> str:
    """What there is instead of a range of addresses, for the advice."""
    addresses = " and ".join(name for name, kind in known.ORDERED.items() if kind is Kind.IP)
    return f"; {addresses} can do {network}; in quotes, the range is looked for as it is written"


def _address_bounds(text: str) -> tuple[int, int] | None:
    address = hints.address_of(text)
    number = None if address is None else known.address_number(address)
    return None if number is None else (number, number + 1)


def _severities(low: _Bound, high: _Bound) -> Node:
    """The severities from one to below another, the least serious first."""
    last = len(hints.SEVERITIES) if high is None else int(high)
    meant = hints.SEVERITIES[::-1][int(low or 0) : last]
    terms = tuple(Term("severity", name.lower()) for name in meant)
    return terms[0] if len(terms) == 1 else Or(terms) if terms else Not(All())


_Bound = int | float | None
_SEVERITIES = ", ".join(hints.SEVERITIES)
_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_NOW = re.compile(r"now(?:(?P<sign>[+-])(?P<duration>.*))?", re.DOTALL)
_OF_RANGES = "; ranges are for " + ", ".join(name for name in known.ORDERED if name != known.SENDER)
