"""Deadlines on a loop whose time the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from logweir.http.deadline import Deadline


class Loop(asyncio.SelectorEventLoop):
    """``timers`` are those that it was asked for."""

    now_s = 100.0
    timers = 0

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[..., object], *arguments: object, **named: object) -> object:
        self.timers += 1
        return super().call_at(when, callback, *arguments, **named)  # type: ignore[call-overload]

    def go_to(self, now_s: float) -> None:
        self.now_s = now_s
        for _ in range(3):
            self.call_soon(self.stop)
            self.run_forever()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_it_expires_once_when_its_time_is_over(loop: Loop) -> None:
    """Not before, and not again."""
    expired: list[float] = []
    deadline = Deadline(loop, lambda: expired.append(loop.time()))
    deadline.set(10)
    loop.go_to(109)
    assert expired == [] and deadline.is_set
    loop.go_to(111)
    loop.go_to(200)

    assert expired == [111] and not deadline.is_set


def test_moving_it_with_every_request_costs_one_timer(loop: Loop) -> None:
    """The timer looks again when it fires."""
    expired: list[float] = []
    deadline = Deadline(loop, lambda: expired.append(loop.time()))
    for _ in range(1000):
        deadline.set(10)
        deadline.clear()
        deadline.set(10)
    assert loop.timers == 1
    loop.now_s = 105
    deadline.set(10)
    loop.go_to(111)
    assert (expired, loop.timers) == ([], 2)
    loop.go_to(116)

    assert expired == [116]


def test_an_earlier_one_takes_the_place_of_a_later_one(loop: Loop) -> None:
    """And a later one that of an earlier one."""
    expired: list[float] = []
    deadline = Deadline(loop, lambda: expired.append(loop.time()))
    deadline.set(50)
    deadline.set(5)
    loop.go_to(106)
    assert expired == [106]
    deadline.set(5)
    deadline.set(50)
    loop.go_to(120)

    assert expired == [106]


def test_cleared_or_ended_it_does_not_expire(loop: Loop) -> None:
    """Cleared, it can be set again."""
    expired: list[float] = []
    deadline = Deadline(loop, lambda: expired.append(loop.time()))
    deadline.set(5)
    deadline.clear()
    loop.go_to(106)
    assert not deadline.is_set
    deadline.set(5)
    deadline.end()
    loop.go_to(120)

    assert expired == []
