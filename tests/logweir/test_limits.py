"""The table of limits against what it speaks of: settings, problems, and the tests that go past each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from logweir import config
from logweir.errors import Problem
from logweir.limits import LIMITS, Limit

TESTS = Path(__file__).parent.parent
_NAMES = re.compile(r"_(max|timeout_s)$")


def full_names(limit: Limit) -> list[str]:
    return [limit.setting] if "." in limit.setting else [f"ingest.{limit.setting}", f"console.{limit.setting}"]


def test_every_limit_of_the_servers_is_in_the_table() -> None:
    """A setting of the door or the console that ends a growth says what happens then."""
    bounds = {name for name in config.names() if name.startswith(("ingest.", "console.")) and _NAMES.search(name)}
    said = {name for limit in LIMITS for name in full_names(limit)}

    assert bounds <= said
    assert said <= set(config.names())


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.setting)
def test_who_goes_past_a_limit_is_told_its_name(limit: Limit) -> None:
    """What says "raise" names the setting; and there is a test that meets the answer."""
    if not isinstance(limit.beyond, Problem):
        return
    name = limit.setting.rpartition(".")[2]
    tested = "".join(path.read_text(encoding="utf-8") for path in sorted(TESTS.glob("*/**/test_*.py")))

    assert "raise" not in limit.beyond.advice or name in limit.beyond.advice
    assert f'"{limit.beyond.code}"' in tested or limit.beyond.code.upper() in tested
