"""Rules for what is absent: a group that had matches, and has none for so long while anything else came.

Time is that of receipt, in whole minutes in which a record of any kind was received, up to where the workers have
accounted for everything: neither our own downtime nor a worker that lags makes anything absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from logweir.alerts.rules import WindowKind
from logweir.clock import WINDOW_US
from logweir.ledger.activity import read_activities
from logweir.ledger.cadence import ACTIVITY_MINUTES, TimeBits, united_bits
from logweir.silence.activity import ActivityMinutes
from logweir.store.port import Store
from logweir_workers.alerts.groups import Episode, Group


def read_activity(store: Store, group: str) -> ActivityMinutes:
    """The minutes in which anything was received. Raises LogweirError(STORE_DOWN)."""
    minutes = (one.minutes for one in read_activities(store, group).values())
    return ActivityMinutes(united_bits(ACTIVITY_MINUTES, minutes))


def always_active(until_us: int) -> ActivityMinutes:
    """As if something had come in every minute up to then: for examples."""
    return ActivityMinutes(TimeBits(ACTIVITY_MINUTES, until_us // WINDOW_US, (1 << ACTIVITY_MINUTES) - 1))


def absent(groups: Iterable[Group], judged_us: int, activity: ActivityMinutes) -> Iterator[tuple[Group, Episode]]:
    """The groups that have become absent, each with the episode that this is now, up to ``judged_us``."""
    for group in groups:
        if group.rule.window.kind is not WindowKind.ABSENT:
            continue
        absent_us = group.rule.window.absent_us
        judged = [pause for pause in group.pauses if pause[1] <= judged_us]
        group.pauses = [pause for pause in group.pauses if pause[1] > judged_us]
        for begin_us, end_us, place in judged:
            due_us = _due_us(begin_us, absent_us, end_us, activity)
            if due_us is not None:
                yield group, group.miss(begin_us, place, due_us, over_us=end_us)
        if group.is_absent or group.pauses or group.since_us is None or group.latest is None:
            continue
        due_us = _due_us(group.since_us, absent_us, judged_us, activity)
        if due_us is not None:
            yield group, group.miss(group.since_us, group.latest, due_us, over_us=None)


def _due_us(since_us: int, absent_us: int, judged_us: int, activity: ActivityMinutes) -> int | None:
    """The end of the minute with which so much was observed since then; None where that is not by ``judged_us``."""
    first, needed = since_us // WINDOW_US + 1, -(-absent_us // WINDOW_US)
    low, high = first + needed - 1, judged_us // WINDOW_US - 1
    if high < low or activity.minutes_between(first, high) < needed:
        return None
    while low < high:
        middle = (low + high) // 2
        if activity.minutes_between(first, middle) >= needed:
            high = middle
        else:
            low = middle + 1
    return (low + 1) * WINDOW_US
