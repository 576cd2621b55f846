"""Waiting for a queue or a store that does not answer, without giving up and without hammering it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from logweir.errors import QUEUE_DOWN, STORE_DOWN, LogweirError, Problem

log = logging.getLogger(__name__)

_WAIT_S_FIRST = 0.1
_WAIT_S_MAX = 10.0

T = TypeVar("T")


class Stopped(Exception):
    """The worker stops before it got an answer; whoever reads the queue next does the work again."""


def until_it_answers(call: Callable[[], T], stopping: threading.Event) -> T:
    """What ``call`` gives, tried again with growing pauses while it raises QUEUE_DOWN or STORE_DOWN.

    Raises Stopped when ``stopping`` is set meanwhile; whatever else ``call`` raises.
    """
    wait_s = 0.0
    while True:
        try:
            result = call()
        except LogweirError as error:
            if error.problem not in (QUEUE_DOWN, STORE_DOWN):
                raise
            if not wait_s:
                log.warning("%s Trying again until it does.", error)
            wait_s = pause(wait_s, stopping)
        else:
            if wait_s:
                log.warning("It answers again.")
            return result


def pause(wait_s: float, stopping: threading.Event) -> float:
    """Wait, twice as long as the last time (0.0: the first); gives how long. Raises Stopped."""
    wait_s = min(max(_WAIT_S_FIRST, wait_s * 2), _WAIT_S_MAX)
    if stopping.wait(wait_s):
        raise Stopped
    return wait_s


def tolerate(error: LogweirError, *tolerated: Problem) -> None:
    """Say in the log that the queue or the store is away for now, when it is that; raises everything else."""
    if error.problem not in tolerated:
        raise error
    log.warning("%s Trying again.", error)
