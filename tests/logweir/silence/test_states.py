"""Who is learning, ok, late, silent, retired and muted; what we could not hear; who fell silent together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.config import AccountingSettings, SilenceSettings
from logweir.ledger.cadence import Cadence, TimeBits
from logweir.ledger.expectations import (
    EMITTER,
    FOREVER_US,
    SOURCE,
    Expectation,
    Subject,
    read_expectations,
    set_expectation,
)
from logweir.silence.activity import ActivityMinutes
from logweir.silence.findings import network_of
from logweir.silence.states import source_name
from logweir.silence.watched import State
from logweir.store.port import Store
from tests.logweir.silence_world import DAY, HOUR, OTHER_DOOR, START, World, batch

EVERY_MINUTE = SilenceSettings(learn_s=60)


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def every(world: World, minutes: int, *, until: int, name: str = "web", first: int = 0) -> None:
    """The emitter sends every so many minutes, and canaries come every minute."""
    for at in range(first, until + 1):
        world.canary(at)
        if at % minutes == 0:
            world.send(batch(at, name))


# --- states -------------------------------------------------------------------------------------------------------
def expect(world: World, subject: Subject, change: Callable[[Expectation], Expectation]) -> None:
    set_expectation(world.store, "g", subject, change, owner="me")


def test_an_emitter_is_learned_then_ok_then_late_then_silent_and_ok_again(world: World) -> None:
    """Every ten minutes for a day: late after fifteen minutes, silent after twenty-five."""
    every(world, 10, until=DAY - 10)
    world.flush(DAY - 9)
    young = world.emitter("app/web")
    every(world, 10, first=DAY - 9, until=DAY)
    states = {}
    for now in range(DAY + 1, DAY + 28):
        world.flush(now)
        states[now - DAY] = world.emitter("app/web")
        world.canary(now)
    world.send(batch(DAY + 40, "web"))
    world.flush(DAY + 41)

    assert (young.state, young.expected_s) == (State.LEARNING, None)
    assert {one.expected_s for one in states.values()} == {600.0}
    assert [one.state for one in states.values()] == ["ok"] * 16 + ["late"] * 10 + ["silent"]
    assert states[27].silent_s == 26 * 60
    assert world.emitter("app/web").state == "ok"


def test_what_was_heard_too_few_times_is_not_judged(world: World) -> None:
    """Three times say nothing of a cadence, however far apart they are."""
    for day in range(3):
        world.send(batch(day * DAY, "job"))
    world.canaries(2 * DAY, 5 * DAY)
    world.flush(5 * DAY)

    assert world.emitter("app/job").state == "learning"


def test_a_nightly_job_is_expected_every_night(world: World) -> None:
    """It is silent for a day between two runs of twenty minutes, and that is no finding; three nights are."""
    for night in range(6):
        for minute in range(20):
            world.send(batch(night * DAY + minute, "backup"))
        world.canaries(night * DAY, (night + 1) * DAY - 1)
    world.flush(6 * DAY)
    good = world.emitter("app/backup")
    world.canaries(6 * DAY, 8 * DAY)
    world.flush(8 * DAY)

    assert (good.state, good.expected_s) == ("ok", 24 * 3600.0)
    assert world.emitter("app/backup").state == "silent"


def test_an_outage_of_theirs_is_forgiven_after_two_weeks(world: World) -> None:
    """At first it is the longest gap that is known; later it is an outlier."""
    for hour in range(22 * 24):
        world.canary(hour * HOUR)
        if not 2 * 24 <= hour < 2 * 24 + 30:
            world.send(batch(hour * HOUR, "web"))
        if hour == 7 * 24:
            world.flush(hour * HOUR + 1)
            early = world.emitter("app/web").expected_s
    world.flush(22 * DAY)

    assert early == 31 * 3600.0
    assert world.emitter("app/web").expected_s < 2 * 3600.0 + 1


def test_who_comes_back_after_months_is_learned_anew(world: World) -> None:
    """Of the time that nobody remembers nothing is concluded, however long it was known."""
    for day in range(5):
        world.send(batch(day * DAY, "web"))
    for minute in range(10):
        world.send(batch(60 * DAY + minute, "web"))
    world.canaries(60 * DAY, 60 * DAY + 90)
    world.flush(60 * DAY + 90)

    assert world.emitter("app/web").state == "learning"


def test_a_goodbye_is_no_silence_and_a_new_run_is_watched(world: World) -> None:
    """The run that was heard last said goodbye: retired, for ever; until a new one comes."""
    for at in range(0, DAY + 1, 10):
        world.send(batch(at, "web", epoch="e1", sequence=at + 1, bye=at == DAY))
    world.canaries(0, 3 * DAY)
    world.flush(3 * DAY)
    gone = world.emitter("app/web")
    world.send(batch(3 * DAY, "web", epoch="e2", sequence=1))
    world.flush(3 * DAY + 1)

    assert (gone.state, gone.loss_class) == ("retired", "exact")
    assert world.emitter("app/web").state == "ok"


# --- what a person says -------------------------------------------------------------------------------------------
def test_a_fixed_rhythm_needs_no_learning_and_can_be_taken_back(world: World) -> None:
    """Expected every five minutes from the first event on: late after seven and a half."""
    subject = (EMITTER, "app", "web")
    world.send(batch(0, "web"))
    world.canaries(0, 9)
    world.flush(10)
    before = world.emitter("app/web").state
    expect(world, subject, lambda before: replace(before, every_s=300))
    fixed = world.emitter("app/web")
    expect(world, subject, lambda before: replace(before, every_s=None))

    assert (before, fixed.state, fixed.expected_s) == ("learning", "late", 300.0)
    assert world.emitter("app/web").state == "learning"
    assert read_expectations(world.store, "g") == {}


def test_muted_and_retired_are_no_findings(world: World) -> None:
    """A muting ends with its time; a retirement ends when the emitter is heard of again."""
    for name in ("a", "b", "c"):
        world.send(batch(0, name))
        expect(world, (EMITTER, "app", name), lambda _: Expectation(60))
    world.canaries(0, 48)
    expect(world, (EMITTER, "app", "a"), lambda _: Expectation(60, (START + 50) * 60_000_000))
    expect(world, (EMITTER, "app", "b"), lambda _: Expectation(60, FOREVER_US))
    expect(world, (EMITTER, "app", "c"), lambda _: Expectation(60, None, (START + 20) * 60_000_000))
    world.flush(49)
    early = [one.state for one in world.read(49).emitters]
    late = world.read(51)
    world.send(batch(60, "c"))
    world.flush(61)

    assert early == ["muted", "muted", "retired"]
    assert [one.state for one in late.emitters] == ["silent", "muted", "retired"]
    assert [finding.name for finding in late.findings] == ["app/a"]
    assert [one.state for one in world.read(61).emitters] == ["silent", "muted", "ok"]
    assert world.read(61).emitter_counts() == {("silent", "unknown"): 1, ("muted", "unknown"): 1, ("ok", "unknown"): 1}


# --- what we could hear -------------------------------------------------------------------------------------------
def test_our_own_downtime_makes_nobody_silent_and_teaches_nothing(world: World) -> None:
    """Twelve hours down: nobody is late when we are back, and the gap is not taken for theirs."""
    every(world, 5, until=2 * DAY)
    world.flush(2 * DAY + 1)
    back = 2 * DAY + 720
    world.canaries(back, back + 3)
    world.flush(back + 4)
    down = world.emitter("app/web")
    every(world, 5, first=back + 5, until=back + 60)
    world.flush(back + 61)

    assert (down.state, down.silent_s) == ("ok", 4 * 60)
    assert down.unobserved_s >= 11 * 3600
    assert world.emitter("app/web").expected_s == 300.0


def test_without_records_of_any_kind_nothing_is_heard(world: World) -> None:
    """Nothing at all came for an hour, no canary either: that proves nothing of anybody."""
    every(world, 1, until=HOUR + 1)
    world.flush(HOUR + HOUR)

    assert world.emitter("app/web", settings=EVERY_MINUTE).state == "ok"


@pytest.mark.parametrize(("clear", "state"), [((0,), "ok"), ((0, 1), "silent")])
def test_a_partition_that_lags_proves_no_silence(store: Store, clear: tuple[int, ...], state: str) -> None:
    """A bare emitter may be in any partition: it is judged by the one that is furthest behind."""
    world = World(store, partitions=2)
    for at in range(HOUR + 1):
        world.send(batch(at, "web"), partition=at % 2)
    world.flush(HOUR + 1)
    for at in range(HOUR + 1, HOUR + 60):
        world.canary(at, partition=0)
    world.flush(HOUR + 60, clear=clear)

    assert world.emitter("app/web", settings=EVERY_MINUTE).state == state


def test_an_emitter_that_numbers_its_events_is_judged_by_its_own_partition(store: Store) -> None:
    """All of its events are on one: another that lags hides nothing of it."""
    world = World(store, partitions=2)
    for at in range(HOUR + 1):
        world.send(batch(at, "web", epoch="e", sequence=at + 1), partition=1)
    world.flush(HOUR + 1)
    for at in range(HOUR + 1, HOUR + 60):
        world.canary(at, partition=1)
    world.flush(HOUR + 60, clear=(1,))

    assert world.emitter("app/web", settings=EVERY_MINUTE).state == "silent"
    assert world.read(settings=EVERY_MINUTE).judged_us == (START + HOUR + 1) * 60_000_000


def test_who_sends_without_numbers_too_is_judged_by_all_partitions(store: Store) -> None:
    """Its numbered events are on one, the others anywhere, so also where a worker lags."""
    world = World(store, partitions=2)
    for at in range(0, HOUR + 1, 10):
        world.send(batch(at, "web", epoch="e", sequence=at + 1), partition=1)
    world.send(batch(HOUR, "web"), partition=0)
    for at in range(HOUR + 1, HOUR + 60):
        world.canary(at, partition=1)
    world.flush(HOUR + 60, clear=(1,))

    assert world.emitter("app/web", settings=EVERY_MINUTE).state == "ok"


def test_an_empty_partition_is_worked_off_although_nothing_was_ever_in_it(store: Store) -> None:
    """It has no offset to commit, and yet its worker says up to when it was empty."""
    world = World(store, partitions=2)
    world.canary(0)
    world.flush(10, clear=(0,))
    unknown = world.read().judged_us
    world.flush(10)

    assert (unknown, world.read().judged_us) == (0, (START + 10) * 60_000_000)


def test_a_bare_emitter_is_heard_on_all_partitions_together(store: Store) -> None:
    """Each partition hears of it every eight minutes; together they hear of it every minute."""
    world = World(store, partitions=8)
    for at in range(HOUR + 1):
        world.send(batch(at, "web"), partition=(at * 5) % 8)
    world.flush(HOUR + 1)

    assert world.emitter("app/web", settings=SilenceSettings(floor_s=60, learn_s=60)).expected_s == 60.0


@given(st.sets(st.integers(0, 400), max_size=60), st.integers(0, 400), st.integers(0, 400))
def test_minutes_are_counted_as_heard_exactly(heard: set[int], first: int, last: int) -> None:
    """As a set of them does, whatever is asked for."""
    bits = TimeBits(50_400)
    for at in heard:
        bits.mark(1000 + at)

    assert ActivityMinutes(bits).minutes_between(1000 + first, 1000 + last) == len(heard & set(range(first, last + 1)))


@given(st.sets(st.integers(0, 300), min_size=2), st.sets(st.integers(0, 300)), st.integers(0, 2))
def test_the_usual_gap_is_what_lies_between_in_minutes_that_were_heard(
    spoke: set[int], deaf: set[int], forgiven: int
) -> None:
    """By brute force: the minutes heard from one event to the next, in order of length, but for those forgiven."""
    heard, cadence = TimeBits(50_400), Cadence()
    for at in sorted(spoke | set(range(301)) - deaf):
        heard.mark(60_000 + at)
    for at in spoke:
        cadence.minutes.mark(60_000 + at)
        cadence.hours.mark(1000)
    times = sorted(spoke)
    gaps = [1 + sum(between not in deaf for between in range(one + 1, other)) for one, other in pairwise(times)]
    rest = sorted(gaps, reverse=True)[forgiven:] or [1]

    assert ActivityMinutes(heard).usual_gap_s(cadence, forgiven=forgiven) == 60.0 * rest[0]


# --- in the ledger ------------------------------------------------------------------------------------------------
def test_a_worker_that_starts_anew_knows_all_that_was_flushed_and_redoes_the_rest(world: World) -> None:
    """The cadence, the minutes heard and the sources: with what is worked off again, nothing is counted twice."""
    sources = [("syslog", "web-1")]
    every(world, 10, until=DAY)
    world.send(batch(DAY, "web"), sources=sources)
    world.flush(DAY + 1)
    whole = world.read()
    world.send(batch(DAY + 5, "web"), sources=sources)
    world.claim()
    unflushed = world.read()
    world.send(batch(DAY + 5, "web"), sources=sources)
    world.send(batch(DAY + 5, "web"), sources=sources)
    world.canaries(DAY + 1, DAY + 60)
    world.flush(DAY + 60)
    after = world.read()

    assert unflushed == whole
    assert [one.state for one in after.emitters] == ["silent"]
    assert (after.emitters[0].expected_s, after.emitters[0].silent_s) == (600.0, 54 * 60)
    assert [one.last.received_us for one in after.sources] == [(START + DAY + 5) * 60_000_000 + 1]


def test_sources_are_watched_by_category_and_host_name(world: World) -> None:
    """One host's category falls silent while another of the same host goes on; long names are cut."""
    long = "x" * 1000
    for at in range(HOUR + 30):
        sources = [("sshd", "web-1"), (None, None), (long, None)] if at <= HOUR else []
        world.send(batch(at, None), sources=[*sources, ("cron", "web-1")])
    world.flush(HOUR + 30)
    silence = world.read(settings=EVERY_MINUTE)

    assert {one.name: one.state for one in silence.sources} == {
        "-@-": "silent",
        "cron@web-1": "ok",
        "sshd@web-1": "silent",
        "x" * 256 + "@-": "silent",
    }
    assert silence.source_counts() == {"silent": 3, "ok": 1}


def test_sources_beyond_the_limit_are_counted_and_old_ones_make_room(store: Store) -> None:
    """Three may be watched: the fourth is said to be missing, until one is forgotten."""
    world = World(store, settings=AccountingSettings(sources_max=3, sources_in_memory_max=1))
    for at, name in enumerate(("a", "b", "c", "d", "a")):
        world.send(batch(at, None), sources=[("syslog", name)])
        world.flush(at)
    full = world.read()
    gone = world.ledgers[0].sources.forget((START + 3) * 60_000_000)
    world.send(batch(9, None), sources=[("syslog", "d")])
    world.flush(9)

    assert ([one.subject[2] for one in full.sources], full.sources_untracked) == (["a", "b", "c"], 1)
    assert gone == 2
    assert [one.subject[2] for one in world.read().sources] == ["a", "d"]


@pytest.mark.parametrize("is_claimed_again", [False, True])
def test_one_keys_names_leave_room_for_anothers(
    store: Store, caplog: pytest.LogCaptureFixture, is_claimed_again: bool
) -> None:
    """Host names and emitters without end fill the common limit; a tenth of it is each other key's own."""
    settings = AccountingSettings(sources_max=20, emitters_max=20)
    world = World(store, settings=settings)
    for at in range(50):
        world.send(batch(0, f"e{at}", key="loud"), sources=[("syslog", f"h{at}")])
    world.flush(1)
    if is_claimed_again:
        world = World(store, settings=settings)
    for at in range(4):
        world.send(batch(0, f"q{at}", key="quiet", sequence=1), sources=[("syslog", f"q{at}")])
    world.flush(1)
    found = world.read()

    assert [one.name for one in found.emitters if one.name.startswith("quiet")] == ["quiet/q0", "quiet/q1"]
    assert [one.subject[2] for one in found.sources if str(one.subject[2]).startswith("q")] == ["q0", "q1"]
    assert len(found.emitters) == len(found.sources) == 22
    assert "Emitters of the key loud are not tracked" in caplog.text
    assert "Sources of the key loud are not watched" in caplog.text


def test_emitters_beyond_the_limit_are_counted(store: Store) -> None:
    """Those are not watched, and it says so."""
    world = World(store, settings=AccountingSettings(emitters_max=1))
    for name in ("a", "b", "b"):
        world.send(batch(0, name))
    world.flush(1)

    assert [one.name for one in world.read().emitters] == ["app/a"]
    assert world.read().emitters_untracked == 2


# --- together -----------------------------------------------------------------------------------------------------
def many(world: World, stops: dict[str, int], *, until: int, **where: str) -> None:
    """Emitters that send every minute until their time."""
    for at in range(until):
        world.canary(at)
        for name, stop in stops.items():
            if at <= stop:
                address = where.get(name, "10.0.0.1")
                world.send(
                    batch(at, name, address=address), door=OTHER_DOOR if name.startswith("o") else world_door(name)
                )


def world_door(name: str) -> bytes:
    """Everybody's own, so that no two share one by chance."""
    return name.encode().ljust(16, b"\0")


def found(world: World) -> list[tuple[str, str, list[str]]]:
    findings = world.read(settings=EVERY_MINUTE).findings
    return [(one.kind, one.name, [member.name for member in one.members]) for one in findings]


def test_those_behind_one_network_that_fall_silent_together_are_one_finding(world: World) -> None:
    """Four of five behind the network; one elsewhere, on its own, is its own; the key has others that speak."""
    stops = {"a": 60, "b": 60, "c": 61, "d": 62, "e": 120, "x": 40, "y": 120, "z": 120, "w": 120, "v": 120}
    elsewhere = {name: f"10.{at}.0.1" for at, name in enumerate("xyzwv", 1)}
    many(world, stops, until=120, **elsewhere)
    world.flush(120)

    assert found(world) == [
        ("network", "10.0.0.0/24", ["app/a", "app/b", "app/c", "app/d"]),
        ("emitter", "app/x", ["app/x"]),
    ]


def test_those_behind_one_door_are_one_finding_wherever_they_are(world: World) -> None:
    """Three networks, one ingest process: it is the process."""
    stops = {"o1": 60, "o2": 60, "o3": 60, **{f"n{at}": 120 for at in range(4)}}
    many(world, stops, until=120, **{name: f"10.{at}.0.1" for at, name in enumerate(stops)})
    world.flush(120)

    assert found(world) == [("door", OTHER_DOOR.hex(), ["app/o1", "app/o2", "app/o3"])]


def test_all_of_one_key_are_one_finding(world: World) -> None:
    """A key that was revoked: its holders are everywhere, and nothing else is common to them."""
    for at in range(121):
        world.canary(at)
        for number in range(3):
            if at <= 60:
                name, address = f"k{number}", f"10.{number}.0.1"
                world.send(batch(at, name, key="old", address=address), door=world_door(name))
    world.flush(120)

    assert found(world) == [("key", "old", ["old/k0", "old/k1", "old/k2"])]


def test_those_that_fell_silent_apart_are_findings_apart(world: World) -> None:
    """Hours apart: one moment does not explain them, so each stands alone."""
    many(world, {"a": 60, "b": 120, "c": 180}, until=240)
    world.flush(240)

    assert found(world) == [("emitter", f"app/{name}", [f"app/{name}"]) for name in "abc"]


def test_a_silent_host_is_one_finding_of_its_sources(world: World) -> None:
    """Three categories of one host name."""
    for at in range(121):
        sources = [(name, "web-1") for name in ("sshd", "cron", "nginx")] if at <= 60 else []
        world.send(batch(at, None), sources=[*sources, *(("x", f"h{number}") for number in range(4))])
    world.flush(120)
    expect(world, (SOURCE, "x", "h0"), lambda _: Expectation(60))

    assert found(world) == [("hostname", "web-1", ["cron@web-1", "nginx@web-1", "sshd@web-1"])]


def test_no_two_sources_have_the_same_name() -> None:
    """Senders choose categories and host names: none of them can pass for another that a person means."""
    parts = (None, "-", "", "a", "a@b", "b@c", "c", "a%40b", "%2D")
    names = {source_name((category, hostname)) for category in parts for hostname in parts}

    assert len(names) == len(parts) ** 2
    assert source_name(("sshd", "web-1")) == "sshd@web-1"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.0/24"),
        ("::ffff:10.1.2.3", "10.1.2.0/24"),
        ("fe80::1%eth0", "fe80::/64"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("unix", ""),
        ("", ""),
    ],
)
def test_networks_are_named_by_their_first_24_or_64_bits(address: str, network: str) -> None:
    """As the address comes with the batch; what is no address has no network."""
    assert network_of(address) == network


def test_a_thousand_emitters_are_read_fast(world: World) -> None:
    """In well under the tenth of a second that an exporter can spend; here with room for a busy machine."""
    for number in range(1000):
        for at in (0, 7, 30, 65):
            world.send(batch(at, f"e{number}", address=f"10.0.{number % 200}.1"))
    world.canaries(0, 300)
    world.flush(300)
    begun = time.process_time()
    silence = world.read(settings=EVERY_MINUTE)
    taken = time.process_time() - begun

    assert silence.emitter_counts() == {("silent", "unknown"): 1000}
    assert sum(len(one.members) for one in silence.findings) == 1000
    assert taken < 0.5
