"""Texts as MozDef's index cut and compared them: Elasticsearch's standard analyser."""

from __future__ import annotations

import re
from functools import lru_cache

from logweir.query.tree import And, Node, Or, Term, WordPrefix, Words
from logweir.query.words import words_of

# Unicode annex 29, Word Boundaries: a colon, a full stop or an apostrophe between letters, and a comma or a full stop
# between digits, are inside of a word. So www.example.com and 10.0.0.1 are one, and web1.example.com is two.
_TOKEN = re.compile(r"\w+(?:(?:(?<=[^\W\d_])[:.'·․’‘](?=[^\W\d_])|(?<=\d)[.,;'․’‘](?=\d))\w+)*")
_IDEOGRAPHS = "\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Each of these is a word."""
_PIECES = re.compile(f"[{_IDEOGRAPHS}]|[^{_IDEOGRAPHS}]+")
_CUT = Term("tags", "partly_searchable")
"""Events of which not all words can be searched for."""


@lru_cache(maxsize=8192)
def tokens_of(text: str) -> tuple[str, ...]:
    """Its words in lower case."""
    found = _TOKEN.findall(text.lower())
    if not text.isascii():
        found = [piece for token in found for piece in _PIECES.findall(token)]
    return tuple(found)


def holds_phrase(tokens: tuple[str, ...], phrase: tuple[str, ...]) -> bool:
    """Whether the one are in the other, side by side."""
    count = len(phrase)
    return bool(count) and any(tokens[at : at + count] == phrase for at in range(len(tokens) - count + 1))


# --- what the store can be asked for, that finds all events that may have such a text -------------------------------
def with_all(text: str, *, summary_only: bool = False) -> Node | None:
    """Events with each word of the text; None where the store cannot say."""
    words = tuple(dict.fromkeys(word for token in tokens_of(text) for word in words_of(token)))
    if not words:
        return None
    return Or((_all(tuple(Words((word,), summary_only) for word in words)), _CUT))


def with_beginning(pattern: str) -> Node | None:
    """Events with a word that begins as the pattern does, up to its first wildcard; None where that says nothing."""
    head = re.split(r"[*?\\]", pattern, maxsplit=1)[0]
    words = words_of(head)
    if not words or not head[0].isalnum() or not head.isascii():
        return None
    return Or((WordPrefix(words[0]), _CUT))


def _all(nodes: tuple[Node, ...]) -> Node:
    return nodes[0] if len(nodes) == 1 else And(nodes)
