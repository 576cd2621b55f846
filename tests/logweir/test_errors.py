"""How a problem is put into words."""

from __future__ import annotations

from logweir.errors import RULES_UNREADABLE, LogweirError


def test_a_reason_that_ends_with_a_question_ends_the_sentence() -> None:
    error = LogweirError(RULES_UNREADABLE, path="shop.py", reason="'categry' is no field. Did you mean 'category'?")

    assert error.detail == "The rules in shop.py cannot be read: 'categry' is no field. Did you mean 'category'?"
    assert str(error).startswith(f"{error.detail} Correct the file.")
