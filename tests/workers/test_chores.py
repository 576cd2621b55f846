"""What a worker does beside reading: what is old is measured by what is known, not by the clock alone."""

import logging

import pytest

from logweir.clock import DAY_US
from logweir_workers.chores import RetentionClock

NOW_US = 1_800_000_000_000_000


class Time:
    """A clock, and the monotonic seconds beside it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.us = NOW_US
        self.passed_s = 0.0
        monkeypatch.setattr("logweir_workers.chores.time.monotonic", lambda: self.passed_s)

    def sleep(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)
        self.passed_s += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def test_ages_follow_the_clock(time: Time) -> None:
    """As long as events come, and also in the hours and days in which none does."""
    aged = RetentionClock(lambda: time.us)
    first = aged.now_us(NOW_US - 5_000_000)
    for _ in range(100):
        time.sleep(3600)
        last = aged.now_us(NOW_US)

    assert first == NOW_US - 5_000_000
    assert last == time.us


def test_a_clock_400_days_ahead_deletes_a_day_an_hour_and_says_so(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    """Six seconds of it delete nothing; a machine that was off for three weeks has caught up after a day."""
    aged = RetentionClock(lambda: time.us)
    time.us += 400 * DAY_US
    with caplog.at_level(logging.WARNING):
        began = aged.now_us(NOW_US)
    time.sleep(6)
    soon = aged.now_us(NOW_US + 400 * DAY_US)
    off = RetentionClock(lambda: time.us)
    off.now_us(time.us - 21 * DAY_US)
    for _ in range(24):
        time.sleep(3600)
        caught_up = off.now_us(0)

    assert began == NOW_US
    assert soon - NOW_US < 200_000_000
    assert "set the clock if it is wrong" in caplog.text
    assert caught_up == time.us


def test_without_anything_known_nothing_is_old(time: Time) -> None:
    """A worker that has no partition yet, or an empty store."""
    aged = RetentionClock(lambda: time.us)

    assert aged.now_us(0) == 0
    assert aged.now_us(NOW_US - 1) == NOW_US - 1


def test_a_clock_that_is_set_back_makes_nothing_older(time: Time) -> None:
    """It never runs ahead of the clock."""
    aged = RetentionClock(lambda: time.us)
    aged.now_us(NOW_US)
    time.us -= 2 * DAY_US

    assert aged.now_us(NOW_US) == time.us
