"""What commands print and ask alike."""

from __future__ import annotations

import getpass
import os

import pytest

from logweir.commands import output


def test_a_user_without_a_name_goes_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number only."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nameless)

    assert output.user_name() == str(os.getuid())
