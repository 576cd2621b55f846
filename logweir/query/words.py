"""How text is cut into words: one way for both stores, for searches and for rules.

FTS5 and Elasticsearch's standard analyser cut differently (``foo.bar``), so neither is asked to: documents carry their
words joined with spaces, and both stores split at spaces only.
"""

from __future__ import annotations

import re

BOUNDARY = "\ue000"
"""A word that nobody can type, put between values so that no phrase reaches from one into the next."""

WORD_LENGTH_MAX = 200
"""Longer words are cut: Elasticsearch's whitespace tokenizer would split them at 255."""

_WORD = re.compile(r"\w+")
# ECMA-48 section 5.4: what a terminal takes as a colour. Without this, a word would begin with the end of one.
_CONTROL_SEQUENCE = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]")


def words_of(text: str) -> list[str]:
    """Runs of letters, digits and underscores, case-folded, each at most WORD_LENGTH_MAX characters.

    A terminal's control sequences are no part of the text.
    """
    if "\x1b" in text:
        text = _CONTROL_SEQUENCE.sub("", text)
    words = _WORD.findall(text.casefold())
    if len(text) > WORD_LENGTH_MAX:
        return [word[:WORD_LENGTH_MAX] for word in words]
    return words
