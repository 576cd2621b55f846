"""Scheduled rules: each slot once and in order, the same alerts whoever dies, and no harm to others."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import orjson
import psutil
import pytest

from logweir import cli, clock
from logweir.alerts import found, scheduled
from logweir.alerts.alert import ALERTS, Reason, change, close
from logweir.alerts.rules import Rule
from logweir.alerts.schedules import Slot, slot_after, slot_until
from logweir.config import Settings
from logweir.errors import LogweirError
from logweir.event import Document
from logweir.query.parse import parse
from logweir.queue.port import Queue
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers.alerts.alerter import Alerter
from logweir_workers.alerts.scheduled import runs
from logweir_workers.alerts.scheduled.process import Known, ScheduledProcess
from logweir_workers.alerts.scheduled.runs import STATES, Ran, ScheduledRuns, found_by
from tests.contract.stores import NOON_US, document
from tests.waiting import until
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.test_engine import alerts_of, batch
from tests.workers.helpers import Door, in_thread, running_worker

MINUTE_US = 60_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, "")


class World:
    """A store with events, and rules that are asked of them."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self._numbers = itertools.count()
        self.runs = self.anew()
        self.ran: list[Ran] = []

    def anew(self, generation: int = 1) -> ScheduledRuns:
        """As after a restart."""
        self.runs = ScheduledRuns(
            self.store, self.settings, generation=generation, clock=lambda: NOON_US + 3_600_000_000
        )
        return self.runs

    def event(self, at_us: int, **details: Any) -> None:
        self.store.index([self.made(at_us, **details)])

    def made(self, at_us: int, **details: Any) -> Document:
        number = next(self._numbers)
        return document(f"e{number}", {"summary": "x", "details": details}, number=number, received_us=NOON_US + at_us)

    def look(self, *rules: Rule, up_to_us: int, shadowed: tuple[str, ...] = ()) -> None:
        """Ask the rules until none is due."""
        named = {rule.name: rule for rule in rules}
        while self.runs.look(named, shadowed, up_to_us=NOON_US + up_to_us, told=self.ran.append):
            if self.ran[-1].error:
                return

    def alerts(self, query: str = "*") -> list[dict[str, Any]]:
        page = self.store.documents.search(ALERTS, parse(query, ALERTS.by_name), size=1000)
        return sorted((one.body for one in page.documents), key=lambda body: (body["created"], body["id"]))


@pytest.fixture
def world(store: Store, settings: Settings) -> World:
    return World(store, settings)


def rule(ask: Callable[[Any], Any], name: str = "", **arguments: Any) -> Rule:
    ask.__name__ = name or ask.__name__
    return scheduled(**{"every": "5m", "severity": "high", "runbook": "x.md", **arguments})(ask)


def by_user(events: Any) -> Any:
    """A rule: users with two events or more."""
    for user, count in events.top("*", "details.username"):
        if count >= 2:
            shown = list(events.search(f"details.username:{user}"))
            yield found(f"{user}: {count}", group={"details.username": user}, events=shown)


# --- when ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "after", "until"),
    [
        ({"every": "5m"}, (0, 5), (-5, 0)),
        ({"every": "5m", "window": "1h"}, (-55, 5), (-60, 0)),
        ({"every": None, "cron": "*/15 * * * *"}, (0, 15), (-15, 0)),
        ({"every": None, "cron": "0 13 * * *"}, (60 - 1440, 60), (60 - 2880, 60 - 1440)),
        ({"every": None, "cron": "0 13 * * *", "window": "10m"}, (50, 60), (50 - 1440, 60 - 1440)),
    ],
    ids=str,
)
def test_slots_lie_side_by_side_or_are_as_long_as_the_window(
    arguments: dict[str, Any], after: tuple[int, int], until: tuple[int, int]
) -> None:
    """In minutes from noon; the slot that ends at noon is not behind noon."""
    made = rule(by_user, **arguments)
    assert made.schedule is not None

    def slot(pair: tuple[int, int]) -> Slot:
        return Slot(NOON_US + pair[0] * MINUTE_US, NOON_US + pair[1] * MINUTE_US)

    assert slot_after(made.schedule, NOON_US) == slot(after)
    assert slot_until(made.schedule, NOON_US) == slot(until)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"cron": "0 * * * *"}, "either every, or cron"),
        ({"every": None}, "either every, or cron"),
        ({"every": "0s"}, "no time such as"),
        ({"every": "often"}, "no time such as"),
        ({"every": None, "cron": "61 * * * *"}, "cron is '61"),
        ({"every": None, "cron": "0 0 30 2 *"}, "cron is '0 0 30 2"),
        ({"window": "60d"}, "31d at most"),
        ({"timeout": "2h"}, "1h at most"),
        ({"severity": "worst"}, "severity is 'worst'"),
    ],
    ids=str,
)
def test_what_a_schedule_cannot_mean_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(LogweirError, match=reason):
        rule(by_user, **arguments)


def test_a_new_rule_begins_once_it_is_known_up_to_when_all_is_stored(world: World) -> None:
    """Not with the slots since 1970."""
    named = {"by_user": rule(by_user)}

    assert not world.runs.look(named, up_to_us=0)
    world.look(*named.values(), up_to_us=5 * MINUTE_US)
    world.look(*named.values(), up_to_us=10 * MINUTE_US)
    assert [one.slot.end_us for one in world.ran] == [NOON_US + 10 * MINUTE_US]


# --- what -----------------------------------------------------------------------------------------------------------
def test_a_rule_asks_whatever_it_likes_of_the_events_of_its_time(world: World) -> None:
    """All of them, also where they are more than a page; none of before, or of the end."""
    world.store.index([world.made(at_ms * 1000, number=str(at_ms % 3)) for at_ms in range(2500)])
    world.event(-1000, number="before")
    world.event(5 * MINUTE_US, number="behind")
    asked: dict[str, Any] = {}

    def ask(events: Any) -> None:
        asked["time"] = events.begin, events.end
        asked["all"] = sum(1 for _ in events.search())
        asked["count"] = events.count("details.number:1")
        asked["top"] = events.top("*", "details.number", 2)
        asked["histogram"] = events.histogram("details.number:0", "1s")[:3]

    assert found_by(world.store, rule(ask), Slot(NOON_US, NOON_US + 5 * MINUTE_US)) == []
    assert asked == {
        "time": ("2026-01-31T12:00:00.000Z", "2026-01-31T12:05:00.000Z"),
        "all": 2500,
        "count": 833,
        "top": [("0", 834), ("1", 833)],
        "histogram": [
            ("2026-01-31T12:00:00.000Z", 334),
            ("2026-01-31T12:00:01.000Z", 333),
            ("2026-01-31T12:00:02.000Z", 167),
        ],
    }


def test_each_slot_counts_once_and_a_group_goes_on_in_its_alert(world: World) -> None:
    """Begun with what comes from now on; whatever the time between two looks; quiet when nothing more is found."""
    made = rule(by_user, quiet="10m")
    world.event(-MINUTE_US, username="long ago")
    world.event(-MINUTE_US, username="long ago")
    world.look(made, up_to_us=0)
    for minute in (1, 2, 6, 7, 8):
        world.event(minute * MINUTE_US, username="anna")
    world.look(made, up_to_us=4 * MINUTE_US)
    too_early = world.alerts()
    world.look(made, up_to_us=10 * MINUTE_US)
    (one,) = world.alerts()
    world.look(made, up_to_us=26 * MINUTE_US)
    (quiet,) = world.alerts()

    assert too_early == []
    assert (one["count"], one["group"], one["severity"], one["summary"]) == (
        *(5, {"details.username": "anna"}, "high", "anna: 3"),
    )
    assert (one["first"], one["last"]) == ("2026-01-31T12:01:00.000Z", "2026-01-31T12:08:00.000Z")
    assert [event["event"]["details"]["username"] for event in one["evidence"]] == ["anna"] * 5
    assert one["completeness"]["state"] == "complete"
    assert (one["is_quiet"], quiet["is_quiet"]) == (False, True)
    assert quiet["history"][-1]["change"] == "went quiet"
    assert [ran.slot.end_us - NOON_US for ran in world.ran] == [minute * MINUTE_US for minute in (5, 10, 15, 20, 25)]


def test_of_slots_that_overlap_no_event_is_counted_twice(world: World) -> None:
    made = rule(by_user, every="1m", window="10m")
    world.look(made, up_to_us=0)
    for second in (10, 20, 30):
        world.event(second * 1_000_000, username="anna")
    world.look(made, up_to_us=8 * MINUTE_US)

    (one,) = world.alerts()
    assert (one["count"], len(one["evidence"])) == (3, 3)


def test_after_its_alert_was_closed_it_is_another_one_that_names_it(world: World) -> None:
    made = rule(by_user)
    world.look(made, up_to_us=0)
    for minute in (1, 2, 6, 7):
        world.event(minute * MINUTE_US, username="anna")
    world.look(made, up_to_us=5 * MINUTE_US)
    (first,) = world.alerts()
    change(world.store.documents, first["id"], close("anna", NOON_US, reason=Reason.BENIGN, comment=""))
    world.look(made, up_to_us=10 * MINUTE_US)

    second = next(one for one in world.alerts() if one["id"] != first["id"])
    assert (second["previous"], second["count"], second["status"]) == (first["id"], 2, "open")


def test_without_a_group_each_text_is_an_alert_and_a_shadowed_rules_alerts_are_none(world: World) -> None:
    made = rule(lambda events: [found("one thing"), found("another", severity="low"), found("one thing")], "texts")
    world.look(made, up_to_us=0)
    world.look(made, up_to_us=5 * MINUTE_US, shadowed=("texts",))

    assert sorted((one["summary"], one["severity"], one["kind"]) for one in world.alerts()) == [
        ("another", "low", "shadow"),
        ("one thing", "high", "shadow"),
    ]


@pytest.mark.parametrize("dies_at", range(12))
def test_whoever_dies_and_wherever_the_alerts_are_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """Between any two writes; what had been written is not counted again."""
    made = rule(by_user, window="10m")
    world.look(made, up_to_us=0)
    for minute in (1, 2, 6, 7, 8):
        for name in ("anna", "bert"):
            world.event(minute * MINUTE_US, username=name)
    documents, writes = world.store.documents, itertools.count()
    put = documents.put

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(writes) == dies_at:
            raise KeyboardInterrupt
        return put(*arguments, **named)

    monkeypatch.setattr(documents, "put", dying)
    try:
        world.look(made, up_to_us=10 * MINUTE_US)
    except KeyboardInterrupt:
        world.anew(generation=2)
        world.look(made, up_to_us=10 * MINUTE_US)

    assert [(one["group"]["details.username"], one["count"]) for one in world.alerts()] in (
        [("anna", 5), ("bert", 5)],
        [("bert", 5), ("anna", 5)],
    )


def test_who_was_taken_over_from_writes_nothing_more(world: World) -> None:
    made = rule(by_user)
    world.look(made, up_to_us=0)
    stale = world.runs
    world.anew(generation=2)
    world.look(made, up_to_us=5 * MINUTE_US)
    world.event(6 * MINUTE_US, username="anna")
    world.event(7 * MINUTE_US, username="anna")
    world.runs = stale
    world.runs._states.clear()
    with pytest.raises(LogweirError) as lost:
        world.look(made, up_to_us=10 * MINUTE_US)

    assert lost.value.problem.code == "claim_lost"
    assert world.alerts() == []


class Unspeakable(Exception):
    """An error whose own words fail."""

    def __str__(self) -> str:
        raise ValueError


def raising(error: BaseException) -> NoReturn:
    raise error


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda events: 1 / 0, "ZeroDivisionError"),
        (lambda events: "a text", "it returned 'a text'"),
        (lambda events: [1], "it returned 1"),
        (lambda events: events.count("a:b:c:"), "query"),
        (lambda events: [found("x")] * 10_001, "more than 10,000"),
        (lambda events: "x" * 10**15, "MemoryError"),
        (lambda events: list(events.histogram("*", "often")), "width is 'often'"),
        (lambda events: sys.exit(0), "SystemExit, which would end the process"),
        (lambda events: raising(GeneratorExit()), "GeneratorExit, which would end the process"),
        (lambda events: raising(Unspeakable()), "Unspeakable: it cannot say why"),
        (lambda events: raising(ValueError("\ud800")), "ValueError: \\ud800"),
        (lambda events: found("x", severity="worst"), "severity is 'worst'"),
        (lambda events: found("x", count=10**30), "which no alert can have"),
        (lambda events: found("x", tags="web"), "a list of texts"),
        (lambda events: found("x", events=["a text"]), "what it has found cannot be stored"),
        (lambda events: found("x", events=[{**one, "x": object()} for one in events.search()]), "cannot be stored"),
        (lambda events: found("x", group={str(n): "x" * 1000 for n in range(1100)}), "Make it smaller"),
    ],
)
def test_a_rule_that_fails_is_asked_again_and_no_slot_is_passed_over(
    world: World, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Any], Any], error: str
) -> None:
    """Others go on; once it is mended, it is asked for all that it has missed."""
    monkeypatch.setattr(runs, "_AGAIN_S_MIN", 0.0)
    bad, good = rule(ask, "bad"), rule(by_user)
    world.look(bad, good, up_to_us=0)
    for minute in (1, 2, 6, 7):
        world.event(minute * MINUTE_US, username="anna")
    for _ in range(4):
        world.look(bad, good, up_to_us=10 * MINUTE_US)
    state = world.store.documents.get(STATES, ["bad"])["bad"].body
    failed = [ran for ran in world.ran if ran.rule == "bad"]
    mended = rule(by_user)
    mended.name = "bad"
    world.look(mended, good, up_to_us=10 * MINUTE_US)

    assert all(error in ran.error for ran in failed) and len(failed) >= 3
    assert state["done_us"] == NOON_US and error in state["error"] and state["failing_since"]
    assert {one["rule"]: one["count"] for one in world.alerts()} == {"by_user": 4, "bad": 4}
    assert world.store.documents.get(STATES, ["bad"])["bad"].body["error"] is None


def test_texts_of_what_was_found_are_such_as_alerts_can_have(world: World) -> None:
    """Cut, and without halves of surrogate pairs; whatever is no text is written as one."""

    def odd(events: Any) -> Any:
        return found("x\ud800", group={1: 2, "\udfff": "y" * 9000}, tags=[3, "\ud800"], query="z" * 9000)  # type: ignore[dict-item,list-item]

    made = rule(odd)
    world.look(made, up_to_us=0)
    world.look(made, up_to_us=5 * MINUTE_US)
    (alert,) = world.alerts()

    assert alert["summary"] == "x?"
    assert alert["group"] == {"1": "2", "?": "y" * 1000}
    assert alert["tags"] == ["3", "?"]
    assert alert["search"]["query"] == "z" * 9000


# --- by command, and by the alerter -------------------------------------------------------------------------------
OWN = """
from logweir.alerts import event, found, scheduled

@scheduled(every="2s", severity="high", runbook="x.md", timeout="9s")
def often(events):
    for user, count in events.top("details.outcome:failure", "details.username"):
        if count >= 3:
            shown = list(events.search("details.outcome:failure"))[:3]
            yield found(f"{user} failed {count} times", group={"details.username": user}, count=count, events=shown)

often.example("three", [event(outcome="failure", username="anna", at=at) for at in range(3)], alerts=1)
often.example("two", [event(outcome="failure", username="anna", at=at) for at in range(2)], alerts=0)
"""
STUCK = """

@scheduled(every="2s", severity="low", runbook="x.md", timeout="1s")
def stuck(events):
    while True:
        pass
"""


@pytest.fixture
def stored_events(settings: Settings) -> Iterator[Store]:
    """Three failures in the second ten seconds behind noon, in the store of the settings."""
    (settings.rules_path / "own.py").write_text(OWN)
    with closing(open_store(settings.store)) as store:
        store.prepare()
        made = World(store, settings)
        for second in (11, 12, 13):
            made.event(second * 1_000_000, username="anna", outcome="failure")
        yield store


def command(settings: Settings, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = cli.main(["rules", *words, "--data-dir", str(settings.data_dir)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_rule_is_tested_run_and_backtested_by_command(
    settings: Settings, stored_events: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run by hand makes the alert once; a dry one and a backtest make none."""
    (settings.rules_path / "own.py").write_text(OWN.replace("2s", "10s"))
    tested = command(settings, capsys, "test", f"{settings.rules_path}/own.py")
    at = "2026-01-31T12:00:25Z"
    dry = json.loads(command(settings, capsys, "run", "often", "--at", at, "--dry-run")[1])
    file = json.loads(
        command(settings, capsys, "run", f"{settings.rules_path}/own.py:often", "--at", at, "--dry-run")[1]
    )
    span = ["--since", "2026-01-31T12:00:00Z", "--until", "2026-01-31T12:01:00Z", "--json"]
    backtest = json.loads(command(settings, capsys, "backtest", "often", *span)[1])["rules"][0]
    before = len(World(stored_events, settings).alerts())
    for _ in range(2):
        command(settings, capsys, "run", "often", "--at", at)
    (one,) = World(stored_events, settings).alerts()
    other = command(settings, capsys, "run", "ssh_brute_force")

    assert tested[:2] == (0, "2 examples of 1 rule, all as they should be.\n")
    assert dry == file
    assert (dry["begin"], dry["end"]) == ("2026-01-31T12:00:10.000Z", "2026-01-31T12:00:20.000Z")
    assert [(found["summary"], found["count"], len(found["events"])) for found in dry["alerts"]] == [
        ("anna failed 3 times", 3, 3)
    ]
    assert (backtest["alerts_count"], backtest["cost"]["searches"], before) == (1, 6, 0)
    assert backtest["alerts"][0]["first"] == "2026-01-31T12:00:10.000Z"
    assert (one["count"], len(one["evidence"])) == (3, 3)
    assert other[0] == 2 and "it is not a scheduled one" in other[2]


def test_nobody_waits_for_a_process_that_does_not_read(settings: Settings) -> None:
    """A rule may take an hour: whoever stops the alerter meanwhile would wait for that."""
    told = ScheduledProcess(settings, generation=1)
    told._process = multiprocessing.current_process()
    told._connection, theirs = multiprocessing.Pipe()
    told._has_read = True
    names = frozenset(f"rule_{number}" for number in range(100))

    def tell() -> None:
        for up_to_us in range(1000):
            told._tell(Known(up_to_us, names, names))

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()

    assert theirs.recv().up_to_us == 0
    assert not theirs.poll()
    theirs.send(None)
    tell()
    assert theirs.recv().up_to_us == 0
    told._process = None


def test_a_new_rule_waits_until_it_is_known_up_to_when_all_is_stored(world: World) -> None:
    """Its first time is one of now, not one of 1970."""
    made = {"by_user": rule(by_user)}
    before = [world.runs.look(made, up_to_us=up_to_us) for up_to_us in (0, -5_200_000)]
    states = world.store.documents.get(STATES, ["by_user"])
    world.runs.look(made, up_to_us=NOON_US)

    assert (before, states) == ([False, False], {})
    assert world.store.documents.get(STATES, ["by_user"])["by_user"].body["done_us"] == NOON_US


def test_what_is_in_flight_is_waited_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is received before it is in the queue: asked up to the same moment, a rule would never see it."""
    told: list[Known] = []
    process, stopping = ScheduledProcess(settings, generation=1), threading.Event()
    monkeypatch.setattr("logweir_workers.alerts.scheduled.process._LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(process, "_tell", lambda known: (told.append(known), stopping.set()))
    process.run(lambda: ({"by_user": rule(by_user)}, ()), lambda: NOON_US, stopping)

    assert told[0].up_to_us == NOON_US - 5_200_000


def _spawned() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]


def test_the_alerter_asks_them_in_a_process_of_its_own(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """A rule that never comes back harms no other; a killed process is started again; another file is taken over."""
    (settings.rules_path / "own.py").write_text(OWN + STUCK)
    stopping = threading.Event()
    alerter = Alerter(settings, queue=queue, store=store, stopping=stopping, clock=clock.now_us)

    def state(name: str) -> dict[str, Any]:
        found = store.documents.get(STATES, [name]).get(name)
        return found.body if found is not None else {}

    with running_worker(settings, queue, store), in_thread(alerter.run, stopping):
        until(lambda: state("often").get("done_us") and state("stuck").get("error"), wait_s=120)
        before_us = state("often")["done_us"]
        # The examples of rules are tried in another one, for a while.
        until(lambda: len(_spawned()) == 1, wait_s=120)
        (child,) = _spawned()
        child.kill()
        for number in range(3):
            event = {"summary": "x", "details": {"outcome": "failure", "username": "anna", "number": number}}
            doors[0].write(batch(orjson.dumps(event)))
        until(lambda: alerts_of(store, "rule:often"), wait_s=120)
        (settings.rules_path / "own.py").write_text(OWN.replace("2s", "7s"))
        until(lambda: "stuck" not in alerter.engine.evaluator.rules if alerter.engine else False, wait_s=60)
        until(lambda: (state("often")["done_us"] // 1_000_000) % 7 == 0, wait_s=120)

    (one,) = alerts_of(store, "rule:often")
    assert (one["summary"], one["count"], one["group"]) == ("anna failed 3 times", 3, {"details.username": "anna"})
    assert one["completeness"]["state"] == "complete"
    assert state("often")["done_us"] > before_us
    assert "longer than 1 s" in state("stuck")["error"]
    assert child.pid not in psutil.pids()
