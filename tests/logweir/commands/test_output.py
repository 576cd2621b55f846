"""What commands print and ask alike."""

from __future__ import annotations

import getpass
import os

import pytest

from logweir.commands import output


def test_a_table_has_a_few_rows_of_each_key_those_that_matter_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order; a key that names thousands of emitters hides no other's, nor its own that lose events."""
    monkeypatch.setattr(output, "ROWS_OF_KEY_MAX", 3)
    rows = ["bad/1", "bad/2", "bad/3", "bad/4", "bad/5 lost", "good/1"]

    shown, left = output.rows_shown(rows, key=lambda row: row.partition("/")[0], matters=lambda row: "lost" in row)

    assert shown == ["bad/1", "bad/2", "bad/5 lost", "good/1"]
    assert left == ["bad/3", "bad/4"]


def test_a_user_without_a_name_goes_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number only."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nameless)

    assert output.user_name() == str(os.getuid())
