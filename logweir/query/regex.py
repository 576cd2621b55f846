"""Regular expressions of the search language, as both engines have them: RE2 here, Lucene's automata in Elasticsearch.

What both mean alike is understood, and anything else is an error: literals, ``.``, classes, ``\\d \\w \\s`` and their
opposites, groups, ``|``, ``* + ? {2} {2,} {2,5}``. An expression is for the whole of a value; case does not count, as
values are compared in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from functools import lru_cache

import re2

from logweir.query.tree import lower

REPEATS_MAX = 100
"""Most repetitions that ``{…}`` may ask for."""
LENGTH_MAX = 1000
"""Longest expression, with ``\\w`` and the like written out: Elasticsearch takes no more."""
_TOKEN = re.compile(
    r"(?P<escape>\\.)|(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<group>\((?:\?:)?)|(?P<repeat>[*+?]|\{[0-9]+(?:,[0-9]*)?\})"
    r"(?P<lazy>\??)|(?P<sign>[.|)])|(?P<bad>[\[\]{}^$])|(?P<literal>.)",
    re.DOTALL,
)
_MEMBER = re.compile(r"(\\.|[^\\])(?:-(\\.|[^\\]))?", re.DOTALL)
_SETS = {"d": "0-9", "w": "0-9_a-z", "s": " \t\n\f\r"}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_SPECIAL = set('.?+*|{}[]()"\\#@&<>~^$-')


class Unreadable(ValueError):
    """The text says what cannot be read, or is not understood."""


def canonical(pattern: str) -> str:
    """The expression in lower case, in the words that both engines have. Raises Unreadable."""
    text = pattern.removeprefix("(?i)").removeprefix("^")
    if text.endswith("$") and not text.endswith("\\$"):
        text = text[:-1]
    made: list[str] = []
    depth, before = 0, _Before.NOTHING
    for found in _TOKEN.finditer(text):
        piece, kind = found[0], found.lastgroup
        if kind == "bad":
            raise Unreadable(f"{piece} cannot stand here; put a backslash before it to mean it itself")
        if kind == "group":
            if piece == "(" and text.startswith("(?", found.start()):
                raise Unreadable("groups that begin with (? are not understood, but for (?:…)")
            depth, before = depth + 1, _Before.NOTHING
            made.append("(")
        elif found["repeat"]:
            if before is not _Before.SOMETHING:
                raise Unreadable(f"{piece} has nothing before it to repeat")
            before = _Before.REPEATED
            made.append(_repeat(found["repeat"]))
        elif piece in ("|", ")"):
            # Lucene would take a sign behind nothing for itself.
            if before is _Before.NOTHING or (piece == ")" and not depth):
                raise Unreadable(f"{piece} has nothing before it")
            depth, before = (depth, _Before.NOTHING) if piece == "|" else (depth - 1, _Before.SOMETHING)
            made.append(piece)
        else:
            before = _Before.SOMETHING
            made.append(_one(piece, kind))
    if depth or before is _Before.NOTHING:
        raise Unreadable("it ends too early")
    if sum(map(len, made)) > LENGTH_MAX:
        raise Unreadable(f"written out, it is longer than {LENGTH_MAX} characters")
    return "".join(made)


class _Before(Enum):
    """What stands before a piece, in its alternative."""

    NOTHING = "nothing"
    SOMETHING = "something"
    REPEATED = "repeated"


def is_plain(pattern: str) -> bool:
    """Whether nothing in it is more than a letter that means itself: somebody has typed a path."""
    return all(found.lastgroup == "literal" for found in _TOKEN.finditer(pattern))


def _one(token: str, kind: str | None) -> str:
    if kind == "class":
        return _class(token)
    if kind == "escape":
        name = token[1]
        if name.lower() in _SETS:
            return f"[{'^' if name.isupper() else ''}{_SETS[name.lower()]}]"
        return _literal(_meant(token))
    return token if kind == "sign" else _literal(token)


def _meant(token: str) -> str:
    """The character that a token, perhaps with a backslash, stands for."""
    name = token[-1]
    if len(token) == 1 or not name.isalnum():
        return name
    if name not in _CONTROLS:
        raise Unreadable(f"{token} is not understood")
    return _CONTROLS[name]


def _literal(character: str) -> str:
    lowered = lower(character)
    return f"\\{lowered}" if lowered in _SPECIAL else lowered


def _repeat(sign: str) -> str:
    if any(int(number) > REPEATS_MAX for number in re.findall("[0-9]+", sign)):
        raise Unreadable(f"{sign} asks for more than {REPEATS_MAX} repetitions")
    low, comma, high = sign.strip("{}").partition(",")
    if comma and high and int(low) > int(high):
        raise Unreadable(f"{sign} ends before it begins")
    return sign


def _class(token: str) -> str:
    inner = token[1:-1]
    negation = "^" if inner.startswith("^") else ""
    made: list[str] = []
    for found in _MEMBER.finditer(inner.removeprefix("^")):
        first, last = found[1], found[2]
        if first[0] == "\\" and first[1:] in ("d", "w", "s") and last is None:
            made.append(_SETS[first[1]])
        elif last is None:
            made.append(_literal(_meant(first)))
        else:
            made.append(_range(_meant(first), _meant(last)))
    if not made or "[" in re.sub(r"\\.", "", inner):
        raise Unreadable(f"{token} is no class of characters that is understood")
    return f"[{negation}{''.join(made)}]"


def _range(first: str, last: str) -> str:
    """A range of characters, in lower case: who asks for a capital letter means the small one."""
    if first > last or (not (first + last).isascii() and lower(first + last) != first + last):
        raise Unreadable(f"the range {first}-{last} is not understood")
    if last < "A" or first > "Z":
        return f"{_literal(first)}-{_literal(last)}"
    parts = [(first, "@")] if first < "A" else []
    parts.append((max(first, "A").lower(), min(last, "Z").lower()))
    parts += [("[", last)] if last > "Z" else []
    return "".join(f"{_literal(one)}-{_literal(other)}" for one, other in parts)


@lru_cache(maxsize=64)
def compiled(pattern: str) -> Callable[[str], bool]:
    """Whether a text in lower case is all of a ``canonical`` expression. Raises Unreadable."""
    try:
        options = re2.Options()
        options.log_errors = False
        found = re2.compile(f"(?s){pattern}", options)
    except re2.error as error:
        raise Unreadable(f"it is not understood: {error}") from error
    return lambda text: found.fullmatch(text) is not None
