"""What the benchmarks measure is there, under its name."""

from __future__ import annotations

import importlib
from functools import reduce

import pytest

from bench.stopwatch import PARTS

FUNCTIONS = sorted({name for parts in PARTS.values() for names in parts.values() for name in names})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_stopwatch_finds_its_functions(name: str) -> None:
    module, _, path = name.partition(":")

    assert callable(reduce(getattr, path.split("."), importlib.import_module(module)))
