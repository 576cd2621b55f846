"""Lengths of time in words."""

from __future__ import annotations

import pytest

from logweir.clock import duration_in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3_601, "1 h"),
        (20_467, "5 h 41 min"),
        (183_600, "2 d 3 h"),
    ],
)
def test_a_length_of_time_has_its_two_largest_units(seconds: int, words: str) -> None:
    assert duration_in_words(seconds) == words
