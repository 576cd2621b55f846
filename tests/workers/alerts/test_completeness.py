"""What is missing of an alert's own time, by the receipt of what came around it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.alerts import rule
from logweir.record import NUMBER_MAX
from logweir.store.port import Store
from logweir_workers.alerts.completeness import Completeness, Gaps, Missing
from tests.logweir.silence_world import START, World, batch
from tests.workers.alerts.test_books import WEB_17, world  # noqa: F401 - a fixture

MINUTE_US = 60_000_000


@rule(where="x", at_least=2, within="2m", severity="low")
def twice(found: Any) -> str:
    return "x"


@pytest.mark.parametrize(
    ("first", "last", "missing"),
    [
        (1, 2, 0),  # All before was there when the one below the gap came.
        (5, 6, 0),
        (8, 8, 3),  # Two minutes later is in its window.
        (10, 12, 3),
        (20, 20, 3),  # Between the one below and the one above.
        (32, 33, 3),
        (33, 33, 0),
    ],
)
def test_only_what_is_missing_of_its_own_time_and_a_window_around_it_counts(
    world: World,  # noqa: F811
    store: Store,
    first: int,
    last: int,
    missing: int,
) -> None:
    """Web-17 sends every minute until minute 10; the next is in minute 30, three numbers later."""
    for minute in range(1, 11):
        world.send(batch(minute, "web-17", epoch="e1", sequence=minute), **WEB_17)
        world.flush(minute)
    world.canaries(11, 29)
    world.send(batch(30, "web-17", epoch="e1", sequence=14), **WEB_17)
    world.canaries(31, 34)
    world.flush(35)
    completeness = Completeness(store, group="g", late_us=10 * MINUTE_US)
    completeness.up_to_us = (START + 100) * MINUTE_US
    completeness.read_missing()
    verdict = completeness.judge(twice, (START + first) * MINUTE_US, (START + last) * MINUTE_US, of=())

    assert (verdict["missing"], verdict["state"]) == (missing, "incomplete" if missing else "complete")


def test_a_jump_concerns_the_alerts_of_its_own_key_only(
    world: World,  # noqa: F811
    store: Store,
) -> None:
    """It is named there; what is missing for all is counted beside it."""
    world.send(batch(1, "web-17", epoch="e1", sequence=1), **WEB_17)
    world.send(batch(2, "evil", key="second", epoch="e1", sequence=1))
    world.send(batch(2, "evil", key="second", epoch="e1", sequence=NUMBER_MAX))
    world.canaries(3, 5)
    world.flush(6)
    completeness = Completeness(store, group="g", late_us=10 * MINUTE_US)
    completeness.up_to_us = (START + 100) * MINUTE_US
    completeness.read_missing()
    times = (START + 1) * MINUTE_US, (START + 2) * MINUTE_US
    own = completeness.judge(twice, *times, of={("second", "other")})
    others = completeness.judge(twice, *times, of={("app", "web-17")})
    long_ago = completeness.judge(twice, times[0] - 90 * MINUTE_US, times[0] - 90 * MINUTE_US, of={("second", None)})

    assert (own["state"], own["missing"], own["jumped"]) == ("incomplete", 0, ["second/evil"])
    for verdict in (others, long_ago):
        assert (verdict["state"], verdict["missing"], "jumped" in verdict) == ("complete", 0, False)


@given(
    gaps=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(1, 9)), max_size=30),
    begin_us=st.integers(-5, 60),
    length_us=st.integers(0, 30),
    lost_us=st.none() | st.integers(0, 60),
)
def test_gaps_are_counted_as_if_each_was_looked_at(
    gaps: list[tuple[int, int, int]], begin_us: int, length_us: int, lost_us: int | None
) -> None:
    """Also of many; of gaps at the same time each begins no later than those behind it."""
    missing = [Missing(("k", "e"), 1, count, since_us, since_us - before_us) for since_us, before_us, count in gaps]
    missing.sort(key=lambda one: one.since_us)
    after_us = [min(later.after_us for later in missing[at:]) for at in range(len(missing))]
    end_us = begin_us + length_us
    wanted = sum(
        len(one)
        for one, begun_us in zip(missing, after_us, strict=True)
        if begin_us <= one.since_us and begun_us <= end_us and (lost_us is None or one.since_us <= lost_us)
    )

    assert Gaps(missing).count(begin_us, end_us, since_us_max=lost_us) == wanted
