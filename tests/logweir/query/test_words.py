"""How text is cut into words: the same way for what is stored and for what is looked for, in any script."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.query.tree import lower
from logweir.query.words import WORD_LENGTH_MAX, beginning_of, words_of

CUTS = (
    ("foo.bar foo_bar Foo-2", ["foo", "bar", "foo_bar", "foo", "2"]),
    ("Straße", ["strasse"]),
    ("Fore\u0302t", ["forêt"]),
    ("Forêt", ["forêt"]),
    ("日本語 x1", ["日", "本", "語", "x1"]),
    ("foo日本bar", ["foo", "日", "本", "bar"]),
    ("エラー", ["エ", "ラ", "ー"]),
    ("ｴﾗｰ ＦＯＯ", ["エ", "ラ", "ー", "foo"]),
    ("ไทย", ["ไ", "ท", "ย"]),
    ("हिन्दी में", ["हिन्दी", "में"]),
    ("العَرَبِيَّة", ["العربية"]),
    ("Ver\u00adbindung", ["verbindung"]),
    ("naïve\u200b x", ["naïve", "x"]),
    ("🔥 — …", []),
    ("x" * 300, ["x" * WORD_LENGTH_MAX]),
    ("ß" * 150, ["s" * WORD_LENGTH_MAX]),
)


@pytest.mark.parametrize(("text", "words"), CUTS)
def test_text_is_cut_into_words(text: str, words: list[str]) -> None:
    """Letters, digits and underscores in a row, with their marks; one character each where there are no spaces."""
    assert words_of(text) == words


@given(st.text(max_size=30))
def test_words_do_not_depend_on_how_letters_are_composed(text: str) -> None:
    """Composed, decomposed, and cut again: the same words, each short enough, none with what separates words."""
    words = words_of(text)

    assert words_of(unicodedata.normalize("NFC", text)) == words
    assert words_of(unicodedata.normalize("NFD", text)) == words
    assert all(word and not word.isspace() and " " not in word and len(word) <= WORD_LENGTH_MAX for word in words)
    assert [piece for word in words for piece in words_of(word)] == words


SPOKEN = st.text(alphabet="ae.b \u0302\u0323\u00ad日กำ한Åﬁ1", max_size=8)


@given(SPOKEN, SPOKEN)
def test_the_beginning_of_a_text_has_words_of_the_whole(beginning: str, rest: str) -> None:
    """What is looked for by its first words is found, whatever follows."""
    words, whole = beginning_of(beginning), words_of(beginning + rest)

    assert whole[: len(words)][:-1] == words[:-1]
    assert not words or whole[len(words) - 1].startswith(words[-1])


def test_lower_case_leaves_words_as_they_are() -> None:
    """The embedded store looks for the words of a keyword first. It marks events that have the one exception."""
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    others = [
        one for one in letters if (lowered := lower(one)) != one and words_of(f"a{one}") != words_of(f"a{lowered}")
    ]

    assert others == ["İ"]
