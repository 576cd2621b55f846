"""What a worker does beside reading: what is old is measured by what is known, not by the clock alone."""

import logging
from time import sleep

import pytest

from logweir.clock import DAY_US, now_us
from logweir.config import Settings, sqlite_path
from logweir.ledger.expiry import read_aged_us
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.chores import PeriodicTask, RetentionClock
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

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


def test_a_task_that_takes_long_leaves_the_others_their_share(time: Time) -> None:
    """The ledger, say, whose documents are as large as senders make them: reading goes on most of the time."""
    began_s: list[float] = []

    def take_long() -> None:
        began_s.append(time.passed_s)
        time.sleep(8 if len(began_s) == 1 else 0.1)

    task = PeriodicTask(1.0, take_long, share_max=0.25)
    while time.passed_s < 35:
        task.run_when_due()
        time.sleep(0.1)

    assert began_s[:3] == pytest.approx([0, 32, 33], abs=0.2)


def test_ages_follow_the_clock(time: Time) -> None:
    """As long as events come, and also in the hours and days in which none does."""
    aged = RetentionClock(lambda: time.us)
    aged.begin(NOW_US - 5_000_000)
    first = aged.now_us()
    for _ in range(100):
        time.sleep(3600)
        last = aged.now_us()

    assert first == NOW_US - 5_000_000
    assert last == time.us


def test_a_clock_400_days_ahead_deletes_a_day_an_hour_and_says_so(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    """Six seconds of it delete nothing; a machine that was off for three weeks has caught up after a day."""
    aged = RetentionClock(lambda: time.us)
    time.us += 400 * DAY_US
    with caplog.at_level(logging.WARNING):
        aged.begin(NOW_US)
    began = aged.now_us()
    time.sleep(6)
    aged.begin(NOW_US + 400 * DAY_US)
    soon = aged.now_us()
    off = RetentionClock(lambda: time.us)
    off.begin(time.us - 21 * DAY_US)
    for _ in range(24):
        time.sleep(3600)
        caught_up = off.now_us()

    assert began == NOW_US
    assert soon - NOW_US < 200_000_000
    assert "set the clock if it is wrong" in caplog.text
    assert caught_up == time.us


def test_without_anything_known_nothing_is_old(time: Time) -> None:
    """A worker that has no partition yet, or an empty store."""
    aged = RetentionClock(lambda: time.us)

    aged.begin(0)
    assert aged.now_us() == 0
    aged.begin(NOW_US - 1)
    assert aged.now_us() == NOW_US - 1


def test_a_clock_that_is_set_back_makes_nothing_older(time: Time) -> None:
    """It never runs ahead of the clock."""
    aged = RetentionClock(lambda: time.us)
    aged.begin(NOW_US)
    time.us -= 2 * DAY_US

    assert aged.now_us() == time.us


@pytest.mark.parametrize("starts", [1, 3])
def test_what_comes_by_a_wrong_clock_makes_nothing_old(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, queue: Queue, store: Store, starts: int
) -> None:
    """Canaries come every ten seconds: by the time that anything is deleted, the newest receipt is as far ahead."""
    monkeypatch.setattr("logweir_workers.chores._DELETION_DELAY_S", 0.5)
    for start, ahead_us in enumerate((0, *[400 * DAY_US] * starts)):
        monkeypatch.setattr("logweir.clock.now_us", lambda ahead_us=ahead_us: now_us() + ahead_us)
        one = Door(queue, epoch=bytes([start]) * 16)
        one.write(batch(b'{"summary":"kept"}', id=bytes([start]) * 16))
        one.close()
        with running_worker(settings, queue, store):
            until(lambda: read_aged_us(store, settings.worker.group))
            sleep(1.5)

    assert len(list(sqlite_path(settings.store.url).glob("events-*.sqlite"))) == 2
