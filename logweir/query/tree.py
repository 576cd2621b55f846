"""What a query asks, as a small tree: Lucene text becomes one, and each store turns it into its own query.

Whatever the tree can say, both stores can do.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from logweir.errors import PARAMETER_BAD, LogweirError


@dataclass(frozen=True, slots=True)
class All:
    """Every event."""


@dataclass(frozen=True, slots=True)
class And:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    node: Node


@dataclass(frozen=True, slots=True)
class Words:
    """These words (as ``words_of`` cuts them), one directly after the other inside one value; at least one."""

    words: tuple[str, ...]
    summary_only: bool = False


@dataclass(frozen=True, slots=True)
class WordPrefix:
    """A word that begins like this, directly behind the words ``before`` it, inside one value."""

    prefix: str
    summary_only: bool = False
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WordWildcard:
    """A word like this: ``*`` is any run of characters, ``?`` one."""

    pattern: str
    summary_only: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """A KEYWORD field with this value (``lower``-cased), or a leaf of details with this text; in any of its forms.

    ``field``: a name of event.FIELDS; ``details.a.b`` is the leaf at that path, ``details`` alone any leaf. Case does
    not count in known details that are keywords (``known.KEYWORDS``).
    """

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """Like Term, for a value that begins like this."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A KEYWORD field, a known detail among them: ``*`` is any run of characters, ``?`` one.

    The pattern is ``lower``-cased; a backslash makes the next character itself.
    """

    field: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Regex:
    """A KEYWORD field, a known detail among them, of which a whole value is like a ``regex.canonical`` expression."""

    field: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value that can be searched; of details, one at that path or below it, however long it is."""

    field: str


@dataclass(frozen=True, slots=True)
class Range:
    """A DATE (milliseconds since 1970), NUMBER, FLOAT or IP field from ``low`` to below ``high``; None is open.

    ``field``: a name of event.FIELDS or of ``known.ORDERED``. Addresses are numbers (``known.address_number``).
    """

    field: str
    low: int | float | None
    high: int | float | None


@dataclass(frozen=True, slots=True)
class InList:
    """A KEYWORD field, or a leaf of details, with one of the values of a list (see ``lists.py``)."""

    field: str
    name: str


Node = (
    All
    | And
    | Or
    | Not
    | Words
    | WordPrefix
    | WordWildcard
    | Term
    | Prefix
    | Wildcard
    | Regex
    | Exists
    | Range
    | InList
)
TIME_FIELDS = ("receivedtimestamp", "timestamp", "utctimestamp")
"""What a search can be bounded and sorted by."""
IGNORE_ABOVE = 8000
"""Keywords and leaves of details with more UTF-16 units than this are kept but not searchable, in both stores."""
PAGE_MAX = 10_000
"""Most events of one page of a search."""
PAGE_SIZE_BYTES_MAX = 8 * 1024 * 1024
"""Most bytes of one page's events, as JSON, unless it is told otherwise."""


def lower(text: str) -> str:
    """Lower case one character for one, as Lucene's filter does it: no final sigma, no dot above a small i."""
    if text.isascii():
        return text.lower()
    return "".join([character.lower() for character in text.replace("\u0130", "i")])


def forms_of(text: str) -> tuple[str, ...]:
    """The text as it is, and as it would be with all its letters composed, or decomposed (é: one character, or two).

    Values are kept and compared as they were sent; who searches cannot see in which form that was.
    """
    if text.isascii():
        return (text,)
    return tuple(dict.fromkeys((text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))))


def searchable(text: str) -> bool:
    """Whether a keyword or leaf is short enough to be searched (see IGNORE_ABOVE)."""
    return len(text) <= IGNORE_ABOVE // 2 or len(text.encode("utf-16-le")) // 2 <= IGNORE_ABOVE


def time_range(time_field: str, from_us: int | None, to_us: int | None) -> All | Range:
    """The range of a search's time bounds: whole milliseconds, none of the asked-for microseconds left out."""
    if time_field not in TIME_FIELDS:
        raise LogweirError(
            PARAMETER_BAD, name="time_field", value=time_field, expected=f"one of {', '.join(TIME_FIELDS)}"
        )
    if from_us is None and to_us is None:
        return All()
    low = None if from_us is None else from_us // 1000
    high = None if to_us is None else -(-to_us // 1000)
    return Range(time_field, low, high)
