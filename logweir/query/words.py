"""How text is cut into words: one way for both stores, for searches and for rules.

FTS5 and Elasticsearch's standard analyser cut differently (``foo.bar``), so neither is asked to: documents carry their
words joined with spaces, and both stores split at spaces only.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

BOUNDARY = "\ue000"
"""A word that nobody can type, put between values so that no phrase reaches from one into the next."""

WORD_LENGTH_MAX = 200
"""Longer words are cut: Elasticsearch's whitespace tokenizer would split them at 255."""

# ECMA-48 section 5.4: what a terminal takes as a colour. Without this, a word would begin with the end of one.
_CONTROL_SEQUENCE = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]")
_ASCII_WORD = re.compile(r"\w+", re.ASCII)
_LATIN_WORD = re.compile(r"\w+")
_NOT_LATIN = re.compile("[\u00ad\u0300-\U0010ffff]")

# Where words are not set apart by spaces (or, in Korean, are written together with what belongs to them), each
# character is a word: a search for some characters in a row is a phrase of them, and finds them wherever they stand.
# Pairs, as Lucene's analyser for Chinese, Japanese and Korean makes them, would need another way for a single one.
_NO_SPACES = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Tai
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Korean
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3040-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"  # Japanese
    "\u3100-\u312f\u31a0-\u31bf\ua000-\ua4cf"  # Bopomofo, Yi
)
_OF_NO_SPACES = re.compile(f"[{_NO_SPACES}]")
_PIECES = re.compile(f"[{_NO_SPACES}]|[^{_NO_SPACES}]+")

# What some write inside of words and others do not: soft hyphens, joiners, marks that choose a glyph; the vowels of
# Arabic and Hebrew, and the stroke that lengthens Arabic words.
_OPTIONAL = re.compile(
    "[\u00ad\u034f\u180b-\u180f\u200c\u200d\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef"
    "\u0640\u064b-\u0652\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]+"
)


def words_of(text: str) -> list[str]:
    """Runs of letters, digits, their marks and underscores, case-folded, each at most WORD_LENGTH_MAX characters.

    Equal however the letters are composed (é, or e and its accent), and in compatible forms (full-width, ligatures):
    Unicode's NFKC_Casefold, as Lucene's ICU filter has it. NFC would leave apart what people take for the same, such as
    half-width katakana. In scripts without spaces each character is a word. A terminal's control sequences are no part
    of the text.
    """
    if "\x1b" in text:
        text = _CONTROL_SEQUENCE.sub("", text)
    if text.isascii():
        text = text.lower()
        words = _ASCII_WORD.findall(text)
    else:
        # Unicode 3.13, toNFKC_Casefold.
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        words = _words_of_other_scripts(text) if _NOT_LATIN.search(text) else _LATIN_WORD.findall(text)
    if len(text) > WORD_LENGTH_MAX:
        return [word[:WORD_LENGTH_MAX] for word in words]
    return words


def is_one_character(word: str) -> bool:
    """Whether the word is a character of a script without spaces, so that any word begins and ends behind it."""
    return _OF_NO_SPACES.match(word) is not None


def beginning_of(text: str) -> list[str]:
    """The words of any text that begins with ``text``, as far as they are certain; the last one may go on in it.

    The last letter is left out: with an accent behind it, it would be another one. Empty when nothing is certain.
    """
    words = words_of(text)
    if not words or (text[-1].isascii() and not words_of(text[-1])):
        return words
    last = words.pop()
    while last and unicodedata.combining(last[-1]):
        last = last[:-1]
    return [*words, last[:-1]] if len(last) > 1 else words


def _words_of_other_scripts(text: str) -> list[str]:
    if _OPTIONAL.search(text):
        text = unicodedata.normalize("NFC", _OPTIONAL.sub("", text))
    words = _word_with_marks().findall(text)
    if _OF_NO_SPACES.search(text):
        return [piece for word in words for piece in _PIECES.findall(word)]
    return words


@lru_cache(maxsize=1)
def _word_with_marks() -> re.Pattern[str]:
    # Python's \w knows no marks: accents that no composed letter has, and the vowel signs of many scripts. The pattern
    # takes some milliseconds to make. All marks are in these two planes, but for those that are optional.
    marks = [code for code in range(0x300, 0x20000) if unicodedata.category(chr(code)).startswith("M")]
    ranges: list[list[int]] = []
    for code in marks:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return re.compile(rf"[\w{''.join(f'{chr(first)}-{chr(last)}' for first, last in ranges)}]+")
