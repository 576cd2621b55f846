"""What every test may use: the real servers of tests/services, with the rules about skipping; the embedded adapters."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

pytest_plugins = ["tests.services.fixtures", "tests.suite", "tests.embedded"]


@pytest.fixture(autouse=True)
def logging_is_left_as_found() -> Iterator[None]:
    """A command that logs, run inside of a test, would log to that test's standard error in all tests behind it."""
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    before = list(logging.root.handlers)
    yield
    if sys.excepthook is hooks[0]:
        return
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(False)
    for handler in list(logging.root.handlers):
        if handler not in before and type(handler) is logging.StreamHandler:
            logging.root.removeHandler(handler)
