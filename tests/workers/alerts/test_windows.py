"""Correlation: what fires, how it is counted, and that the order in which events come makes no difference."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from logweir.alerts import rule, step
from logweir.alerts.rules import Rule, WindowKind
from logweir_workers.alerts.groups import BUCKETS, GROUP_MATCHES_MAX, Episode, Group, Groups
from logweir_workers.alerts.windows import Match, aggregate
from tests.proof import SEED, size

SECOND = 1_000_000
DAY = 86_400


def made(**arguments: Any) -> Rule:
    @rule(severity="low", **arguments)
    def some_rule(found: Any) -> str:
        return "found"

    return some_rule


def group_of(of: Rule, *matches: tuple[float, Any]) -> Group:
    """A group that the matches came to in this order, each at a second with a value."""
    group = Group(of, ("x",))
    for number, (at, value) in enumerate(matches):
        group.add(Match(int(at * SECOND), f"id{number}", value, "20260131"))
    return group


def fired(group: Group) -> list[tuple[float, float, int]]:
    return [(one.first_us / SECOND, one.last_us / SECOND, one.count) for one in group.episodes if one.fired]


COUNT = made(where="x", at_least=3, within="10s", quiet="20s")
DISTINCT = made(where="x", distinct="details.username", at_least=3, within="10s", quiet="20s")
ORDERED = made(steps=[step("x", at_least=2), "y"], in_order=True, within="10s", quiet="20s")
ANY_ORDER = made(steps=[step("x", at_least=2), "y"], within="10s", quiet="20s")
TOTAL = made(where="x", total="details.bytes", at_least=100, within="10s", quiet="20s")
AVERAGE = made(where="x", average="details.ms", at_least=50, samples=3, within="10s", quiet="20s")
LOW_AVERAGE = made(where="x", average="details.ms", at_most=5, samples=2, within="10s", quiet="20s")
MEDIAN = made(where="x", median="details.ms", at_least=50, samples=3, within="10s", quiet="20s")
PERCENTILE = made(where="x", percentile=("details.ms", 90), at_least=90, samples=10, within="10s", quiet="20s")
MATCH = made(where="x", quiet="20s")
NEW = made(where="x", new="details.country", learn="1d", quiet="20s")


@pytest.mark.parametrize(
    ("of", "matches", "expected"),
    [
        (COUNT, [(0, None), (5, None), (10, None)], [(0, 10, 3)]),
        (COUNT, [(0, None), (5, None), (10.1, None)], []),
        (COUNT, [(0, None), (8, None), (16, None), (17, None)], [(0, 17, 4)]),
        (COUNT, [(0, None), (1, None), (2, None), (40, None), (41, None), (42, None)], [(0, 2, 3), (40, 42, 3)]),
        (DISTINCT, [(0, "a"), (1, "b"), (2, "a"), (3, "c")], [(0, 3, 4)]),
        (DISTINCT, [(0, "a"), (6, "b"), (12, "c")], []),
        (ORDERED, [(0, 1), (1, 1), (2, 2)], [(0, 2, 3)]),
        (ORDERED, [(0, 1), (1, 2), (2, 1)], []),
        (ORDERED, [(0, 2), (1, 1), (2, 1), (3, 2)], [(0, 3, 4)]),
        (ORDERED, [(0, 1), (5, 1), (11, 2)], []),
        (ANY_ORDER, [(0, 2), (1, 1), (2, 1)], [(0, 2, 3)]),
        (ANY_ORDER, [(0, 3), (1, 1)], [(0, 1, 2)]),
        (TOTAL, [(0, 40.0), (1, 40.0), (2, 20.0)], [(0, 2, 3)]),
        (TOTAL, [(0, 99.5), (11, 50.0)], []),
        (AVERAGE, [(0, 10.0), (1, 40.0), (2, 100.0)], [(0, 2, 3)]),
        (AVERAGE, [(0, 90.0), (1, 90.0)], []),
        (LOW_AVERAGE, [(0, 4.0), (1, 6.0)], [(0, 1, 2)]),
        (LOW_AVERAGE, [(0, 4.0), (1, 7.0)], []),
        (MEDIAN, [(0, 1.0), (1, 50.0), (2, 60.0)], [(0, 2, 3)]),
        (MEDIAN, [(0, 1.0), (1, 2.0), (2, 600.0)], []),
        (PERCENTILE, [(at, 10.0 * (at + 1)) for at in range(10)], [(0, 9, 10)]),
        (PERCENTILE, [(at, 8.0 * (at + 1)) for at in range(10)], []),
        (MATCH, [(0, None), (15, None), (60, None)], [(0, 15, 2), (60, 60, 1)]),
        (NEW, [(0, "de"), (2 * DAY, "de"), (2 * DAY + 1, "fr")], [(2 * DAY + 1, 2 * DAY + 1, 1)]),
        (NEW, [(0, "de"), (DAY / 2, "fr"), (2 * DAY, "fr")], []),
    ],
)
def test_each_kind_of_window_fires_when_it_should(of: Rule, matches: list[Any], expected: list[Any]) -> None:
    assert fired(group_of(of, *matches)) == expected


def test_an_event_that_comes_again_counts_once() -> None:
    """A sender's retry, or a record read again after a crash."""
    group = Group(COUNT, ())
    for at in (0, 1, 1, 0, 1):
        group.add(Match(at * SECOND, f"id{at}", None, "20260131"))

    assert [one.count for one in group.episodes] == [2]
    assert fired(group) == []


def test_a_late_event_connects_two_episodes() -> None:
    """What had two alerts is one episode then; it says whose alert is a part of it."""
    group = group_of(MATCH, (0, None), (30, None))
    group.episodes[0].alert, group.episodes[1].alert = "first", "second"
    group.add(Match(15 * SECOND, "between", None, "20260131"))

    assert [(one.count, one.alert, one.merged) for one in group.episodes] == [(3, "first", ["second"])]


def test_what_happens_after_an_alert_was_closed_is_another_one() -> None:
    """Those before stay what was closed; those after fire when they are enough by themselves."""
    group = group_of(COUNT, *[(at, None) for at in range(6)])
    (episode,) = group.episodes
    episode.alert = "closed"
    made = group.split(episode, int(2.5 * SECOND))
    assert made is not None
    late = group.add(Match(int(1.5 * SECOND), "late", None, "20260131"))
    new = group.add(Match(9 * SECOND, "new", None, "20260131"))

    assert (episode.count, episode.last_us, late) == (4, 2 * SECOND, episode)
    assert (made.count, made.fired, made.previous, made.alert, new) == (4, True, "closed", None, made)
    assert len(group.episodes) == 2


def test_after_a_closed_alert_too_few_make_no_new_one() -> None:
    group = group_of(COUNT, *[(at, None) for at in range(4)])
    made = group.split(group.episodes[0], int(1.5 * SECOND))
    assert made is not None and not made.fired
    later = group.add(Match(40 * SECOND, "much later", None, "20260131"))

    assert later is not None and later.previous is None
    group.episodes[0].alert = "closed"
    assert group_of(COUNT, (0, None)).split(Episode(0, 0), 10) is None


@pytest.mark.sized
def test_the_order_in_which_events_come_makes_no_difference() -> None:
    """Any permutation, with repeats, and written down and read again half-way: the same episodes, of all kinds."""
    of = (COUNT, DISTINCT, ORDERED, ANY_ORDER, TOTAL, MATCH)
    values: dict[WindowKind, list[Any]] = {
        WindowKind.EVENT_COUNT: [None],
        WindowKind.MATCH: [None],
        WindowKind.VALUE_COUNT: list("abcd"),
        WindowKind.VALUE_SUM: [0.0, 10.5, 40.0, 70.0],
    }
    for seed in range(SEED, SEED + size(400, 20_000)):
        rng = random.Random(seed)
        chosen = rng.choice(of)
        of_kind = values.get(chosen.window.kind, [1, 2, 3])
        matches = [
            Match(rng.randint(0, 80) * SECOND, f"i{number}", rng.choice(of_kind), "20260131")
            for number in range(rng.randint(1, 16))
        ]
        results = {_result(chosen, matches, rng) for _ in range(4)}

        assert results == {_by_definition(chosen, matches)}, f"seed {seed}"


def _result(of: Rule, matches: list[Match], rng: random.Random) -> tuple[Any, ...]:
    group = Group(of, ("x",))
    order = [*matches, *rng.sample(matches, len(matches) // 2)]
    rng.shuffle(order)
    for number, match in enumerate(order):
        group.add(match)
        if number == len(order) // 2:
            group = Group.from_row(of, orjson.loads(orjson.dumps(group.as_row())))
    return tuple((one.first_us, one.last_us, one.count, one.fired) for one in group.episodes)


def _by_definition(of: Rule, matches: list[Match]) -> tuple[Any, ...]:
    """Episodes are runs without a pause longer than quiet; one fires when any window that ends at a match does."""
    ordered = sorted(matches)
    runs: list[list[Match]] = []
    for match in ordered:
        if runs and match.time_us - runs[-1][-1].time_us <= of.quiet_us:
            runs[-1].append(match)
        else:
            runs.append([match])
    return tuple((run[0].time_us, run[-1].time_us, len(run), _fires(of, run)) for run in runs)


def _fires(of: Rule, run: list[Match]) -> bool:
    if not of.window.within_us:
        return True
    for high in range(1, len(run) + 1):
        window = [one for one in run[:high] if one.time_us >= run[high - 1].time_us - of.window.within_us]
        whole = aggregate(of.window)
        for match in window:
            whole.add(match)
        if whole.reached(of.window, window, 0, len(window)):
            return True
    return False


def test_a_flood_in_one_group_is_bounded_and_counted() -> None:
    """More matches than are remembered: the count goes on."""
    group = Group(COUNT, ())
    for at in range(GROUP_MATCHES_MAX + 10):
        group.add(Match(at * 1000, f"i{at}", None, "20260131"))

    assert len(group) <= GROUP_MATCHES_MAX
    assert group.episodes[0].count == GROUP_MATCHES_MAX + 10
    assert len(group.episodes[0].first) == len(group.episodes[0].last) == 10


def test_a_flood_of_groups_pushes_no_other_group_out() -> None:
    """New ones are refused, and counted; what was there goes on."""
    groups = Groups(groups_max=100)
    slow = groups.make(COUNT, ("slow",), "good")
    made = [groups.make(COUNT, (f"flood {number}",)) for number in range(1000)]

    assert (made.count(None), len(groups), groups.refused) == (901, 100, {"some_rule": 901})
    assert groups.get(COUNT, ("slow",)) is slow


def test_a_flood_of_groups_of_one_key_leaves_room_for_each_other_key() -> None:
    """A tenth of the limit is each key's own, also after the groups were written down and read again."""
    groups = Groups(groups_max=100)
    flood = [groups.make(COUNT, (f"flood {number}",), "bad") for number in range(1000)]
    read = Groups(groups_max=100)
    for number in range(BUCKETS):
        read.load(number, orjson.loads(orjson.dumps(groups.bucket(number))), {COUNT.name: COUNT})

    assert flood.count(None) == 900
    assert len(read) == 100
    for each in (groups, read):
        made = [each.make(COUNT, (f"slow {number}",), "good") for number in range(20)]
        assert made.count(None) == 10
        assert each.make(COUNT, ("one more",), "bad") is None
    for _ in range(2):
        read.forget_before(1000 * SECOND, groups_max=1000)
    assert len(read) == 0
    assert read.make(COUNT, ("one more",), "bad") is not None


def test_what_is_too_old_is_forgotten_with_its_group() -> None:
    """But not while its end was not said; nor what a rule for new values knows."""
    groups = Groups(groups_max=100)
    for of, value in ((COUNT, None), (NEW, "de")):
        group = groups.make(of, (of.window.kind.value,))
        assert group is not None
        for at in range(3):
            group.add(Match(at * SECOND, f"i{at}", value, "20260131"))
    (episode,) = groups.get(COUNT, ("event_count",)).episodes  # type: ignore[union-attr]
    late_us = 1000 * SECOND
    for _ in range(2):
        groups.forget_before(late_us, groups_max=1000)
    assert groups.get(COUNT, ("event_count",)) is not None
    episode.is_quiet = True
    for _ in range(3):
        groups.forget_before(late_us, groups_max=1000)

    assert [group.rule for group in groups] == [NEW]
