"""The suite itself: `make test` and `make proof` leave no test out between them."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

ROOT = Path(__file__).resolve().parent.parent


def _marks_of(script: str) -> Expression:
    """Which tests, by their marks, a script's pytest runs; all of tests/ are before its eyes."""
    text = (ROOT / "tests/services" / script).read_text()
    (words,) = re.findall(r"-m pytest (tests (?:[^\n\\]|\\\n)*)", text)
    assert not re.findall(r"--ignore|--deselect| -k | tests/", words)
    (marks,) = re.findall(r'-m "([^"]+)"', words)
    return Expression.compile(marks)


@pytest.mark.parametrize("marks", [(), ("proof",), ("sized",), ("proof", "sized")], ids=str)
def test_every_test_is_in_make_test_or_in_make_proof(marks: tuple[str, ...]) -> None:
    """Whatever its marks are; what is marked proof is not in make test."""
    in_test, in_proof = (
        _marks_of(script).evaluate(lambda name, **_: name in marks) for script in ("stages.sh", "proof.sh")
    )

    assert in_test or in_proof
    assert in_test == ("proof" not in marks)


def test_no_test_stands_outside_of_tests() -> None:
    """Where neither would look."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [name for name in listed if re.fullmatch(r"(.*/)?test_\w+\.py", name)]
    found = itertools.filterfalse(lambda name: name.startswith("tests/"), files)

    assert len(files) > 100
    assert list(found) == []
