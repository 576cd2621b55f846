"""Loggers with a handler of ours, closed at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from logweir.emit import LogweirHandler

MakeLogger = Callable[..., tuple[logging.Logger, LogweirHandler]]


@pytest.fixture
def make_logger() -> Iterator[MakeLogger]:
    """Give a logger that no other handler hears, and its handler, with the arguments of the latter."""
    made: list[tuple[logging.Logger, LogweirHandler]] = []

    def make(url: str, key: str = "lw_test", **options: Any) -> tuple[logging.Logger, LogweirHandler]:
        handler = LogweirHandler(url, key, **{"batch_age_s_max": 0.05, "exit_timeout_s": 3.0, **options})
        logger = logging.getLogger(f"tests.emit.{len(made)}")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(handler)
        made.append((logger, handler))
        return logger, handler

    yield make
    for logger, handler in made:
        logger.removeHandler(handler)
        handler.close()
