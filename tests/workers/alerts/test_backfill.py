"""Alerts that a rule would have made of stored events, made after all: each once, whoever dies or runs beside."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logweir import cli, clock
from logweir.alerts import alert, event, exceptions
from logweir.alerts.alert import ALERTS, Reason
from logweir.alerts.catalogue import RULES as CATALOGUE
from logweir.alerts.catalogue import RuleState, change_state
from logweir.alerts.rules import EXAMPLE_TIME_US, Rule
from logweir.config import Settings
from logweir.errors import RULE_BAD, LogweirError
from logweir.queue.port import Queue
from logweir.store.documents import DocumentSet
from logweir.store.port import Store
from logweir_workers.alerts import backfill as module
from logweir_workers.alerts.backfill import Backfill, Backfilled, Bounds, read_bounds
from logweir_workers.alerts.backtest import backtest
from logweir_workers.alerts.examples import Examples
from logweir_workers.alerts.loading import RuleFiles
from logweir_workers.alerts.writer import EPISODES, digest_of
from tests.waiting import until
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.test_engine import alerts_of, an_engine, batch, login, running
from tests.workers.helpers import Door, running_worker

HOUR_US = 3_600_000_000
RULES = """
from logweir.alerts import rule

@rule(where="details.outcome:failure", group=["details.ip"], at_least=3, within="2m", quiet="5m", severity="high")
def failures(found):
    return f"{found.count} failures from {found.group} on {found.distinct('hostname')} hosts"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, RULES, **{"alerts.storm_alerts_max": 5})


@pytest.fixture
def rule(settings: Settings) -> Rule:
    return RuleFiles(settings.alerts, settings.rules_path).rules["failures"]


def failure(at: float, ip: int = 1) -> dict[str, Any]:
    return event(outcome="failure", ip=f"10.0.0.{ip}", hostname=f"web{at % 2:.0f}", summary=f"failure {at}", at=at)


def keep(store: Store, settings: Settings, *events: dict[str, Any]) -> None:
    examples = Examples(settings)
    store.index([examples.document(one, number) for number, one in enumerate(events, start=1)])


def burst(at: float, ip: int = 1, count: int = 3) -> list[dict[str, Any]]:
    """Failures of one address, a second apart."""
    return [failure(at + second, ip) for second in range(count)]


def at_us(seconds: float) -> int:
    return EXAMPLE_TIME_US + int(seconds * 1e6)


def backfilled(
    store: Store,
    rule: Rule,
    settings: Settings,
    *,
    since: float = -60,
    until: float = 30 * 3600,
    end: float = 30 * 3600,
    **given: Any,
) -> Backfilled:
    """From and up to so many seconds after noon; ``end``: as far as the alerter is done with."""
    arguments = {"by": "anna", "is_told": False, "is_dry_run": False, "stopping": threading.Event(), **given}
    times = {"from_us": at_us(since), "to_us": at_us(until), "bounds": Bounds(at_us(end), at_us(40 * 3600))}
    one = Backfill(store, rule, settings, **times, clock=clock.now_us, **arguments)
    return one.run(lambda *_: None)


def found(store: Store) -> list[tuple[str, str, str, int]]:
    """Alerts that are not closed as parts of others: group, first, last, count."""
    return sorted(
        (",".join(one["group"].values()), one["first"], one["last"], one["count"])
        for one in alerts_of(store)
        if (one["closed"] or {}).get("reason") != "duplicate"
    )


def of_alerter(store: Store, rule: Rule, first: float, last: float, *, listed: bool = True, **more: Any) -> str:
    """An alert as an alerter has it, of the first address, from and up to so many seconds after noon."""
    id = f"{digest_of(rule, ['10.0.0.1'])}-1"
    times = {
        name: clock.iso_seconds(at_us(at)).replace("Z", ".000Z") for name, at in (("first", first), ("last", last))
    }
    body = {
        **alert.opened(id, created_us=clock.now_us()),
        **alert.of_rule(rule),
        **alert.without_events(),
        "kind": "alert",
        "summary": "x",
        "group": {"details.ip": "10.0.0.1"},
        **times,
        "count": 3,
        "emitters": [],
        "previous": None,
        "is_quiet": False,
        "completeness": {"state": "open"},
        "generation": 1,
        "upto": None,
        "updated": clock.iso_seconds(clock.now_us()),
        **more,
    }
    store.documents.put(ALERTS, id, body, version=None)
    if listed:
        listed_before = store.documents.get(EPISODES, [digest_of(rule, ["10.0.0.1"])])
        now = clock.iso_seconds(clock.now_us())
        row = {"rule": rule.name, "group": ["10.0.0.1"], "made": 1, "alerts": [id], "updated": now}
        for before in listed_before.values():
            row |= {"backfilled": before.body["backfilled"]}
        version = next((one.version for one in listed_before.values()), None)
        store.documents.put(EPISODES, digest_of(rule, ["10.0.0.1"]), row, version=version)
    return id


def test_it_makes_the_alerts_of_a_backtest_as_an_alerter_would_have(
    store: Store, settings: Settings, rule: Rule
) -> None:
    """With evidence, a search for all events, who it was and when; found as such; the same again makes none."""
    keep(store, settings, *burst(0, count=13), *burst(4000), *burst(100, ip=2), failure(50, ip=3))
    would = backtest(store, rule, settings, from_us=at_us(-60), to_us=at_us(30 * 3600))
    dry = backfilled(store, rule, settings, is_dry_run=True)
    none = alerts_of(store)
    done = backfilled(store, rule, settings)
    again = [
        backfilled(store, rule, settings, since=since, is_dry_run=dry) for since, dry in ((-60, True), (-900, False))
    ]
    one = next(body for body in alerts_of(store) if body["count"] == 13)

    assert none == []
    assert (dry.made, dry.there, dry.alerts[0]["summary"]) == (3, 0, "13 failures from 10.0.0.1 on 2 hosts")
    assert (done.made, done.there, done.looked.matches) == (3, 0, 20)
    assert found(store) == sorted((*one.group.values(), one.first, one.last, one.count) for one in would.alerts)
    assert (
        {row["id"] for row in dry.alerts} == {row["id"] for row in done.alerts} == {b["id"] for b in alerts_of(store)}
    )
    assert [(one.made, one.there) for one in again] == [(0, 3), (0, 3)]
    assert len(alerts_of(store, "backfilled:yes")) == 3
    assert (one["kind"], one["status"], one["is_quiet"], one["severity"]) == ("alert", "open", True, "high")
    assert (one["backfilled"]["by"], one["backfilled"]["is_told"]) == ("anna", False)
    assert alert.sentence(one["history"][0]) == "anna backfilled it: the rule was asked of stored events"
    assert [len(one["evidence"]), len(one["evidence_last"])] == [10, 3]
    assert one["evidence"][0]["event"]["summary"] == "failure 0"
    assert one["completeness"]["state"] == "complete"
    assert one["search"]["query"] == '(details.outcome:failure) AND details.ip:"10.0.0.1"'


class Death(Exception):
    """The process dies."""


def dying(monkeypatch: pytest.MonkeyPatch, store: Store, after: int | None, *, is_written: bool) -> None:
    """Die at a write, before it takes effect or behind it, when so many are done; None: never."""
    left = [10**9 if after is None else after]
    put = type(store.documents).put

    def counted(self: Any, *words: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0 and not is_written:
            raise Death
        made = put(self, *words, **named)
        if left[0] < 0:
            raise Death
        return made

    monkeypatch.setattr(store.documents, "put", counted.__get__(store.documents))


@pytest.mark.parametrize("is_written", [False, True])
def test_whoever_dies_between_any_two_writes_an_episode_has_one_alert(
    store: Store, settings: Settings, rule: Rule, monkeypatch: pytest.MonkeyPatch, is_written: bool
) -> None:
    """The next one makes what is left; a storm has its exact number, and no more alerts beside it than without."""
    events = [one for ip in range(1, 9) for one in burst(ip * 10, ip)] + burst(5000)
    keep(store, settings, *events)
    writes = 0
    for writes in range(100):
        dying(monkeypatch, store, writes, is_written=is_written)
        try:
            backfilled(store, rule, settings)
            break
        except Death:
            continue
    monkeypatch.undo()
    again = backfilled(store, rule, settings)
    (storm,) = [one for one in alerts_of(store) if "storm" in one]

    assert writes >= 3
    assert len([one for one in alerts_of(store) if "storm" not in one]) == 6
    assert len({one[:2] for one in found(store)}) == 7
    assert (again.made, again.there, again.folded) == (0, 6, 3)
    assert storm["count"] == 8
    assert storm["summary"] == "failures: 8 episodes within the hour, 3 of them only here"
    assert storm["storm"]["named"] == [["10.0.0.6"], ["10.0.0.7"], ["10.0.0.8"]]


@pytest.mark.parametrize(
    ("first", "last", "more", "is_there"),
    [
        (10, 20, {}, True),
        (-100, 0, {}, True),
        (-400, -200, {}, True),
        (-800, -400, {}, False),
        (500, 600, {}, False),
        (1, 1, {"revision": "another"}, True),
        (-200, -100, {"revision": "another"}, False),
        (1, 1, {"status": "closed", "closed": {"reason": "benign", "time_us": at_us(50)}}, True),
        (1, 1, {"kind": "shadow"}, True),
        (1, 1, {"kind": "near_miss"}, False),
        (1, 1, {"group": {"details.ip": "10.0.0.2"}}, False),
    ],
)
def test_an_episode_that_has_an_alert_gets_no_other(
    store: Store, settings: Settings, rule: Rule, first: float, last: float, more: dict[str, Any], is_there: bool
) -> None:
    """From 12:00:00 to 12:00:20, pauses of five minutes: live or closed, of whatever revision it overlaps."""
    keep(store, settings, *burst(0, count=21))
    of_alerter(store, rule, first, last, listed="group" not in more, **more)
    done = backfilled(store, rule, settings)

    assert (done.made, done.there) == ((0, 1) if is_there else (1, 0))


def test_what_the_alerter_has_folded_into_one_alert_is_there(store: Store, settings: Settings, rule: Rule) -> None:
    keep(store, settings, *burst(0), *burst(3700, ip=2))
    named = {"groups": 300, "apart": 5, "named": []}
    hour = EXAMPLE_TIME_US // HOUR_US * 3600 - EXAMPLE_TIME_US // 1_000_000
    of_alerter(store, rule, hour, hour + 3599, listed=False, group={}, storm=named)
    done = backfilled(store, rule, settings)

    assert (done.made, done.there) == (1, 1)


@pytest.mark.parametrize("is_closed_by_now", [False, True])
def test_an_alerter_that_finds_the_same_at_the_same_time_makes_the_only_alert(
    store: Store, settings: Settings, rule: Rule, monkeypatch: pytest.MonkeyPatch, is_closed_by_now: bool
) -> None:
    """It has taken its id, or written its alert, between any two steps here."""
    keep(store, settings, *burst(0))
    put, at = store.documents.put, [0]

    def beside(among: DocumentSet, id: str, body: dict[str, Any], *, version: str | None) -> str:
        at[0] += 1
        if at[0] == (2 if is_closed_by_now else 1):
            monkeypatch.undo()
            of_alerter(store, rule, 0, 2)
        return put(among, id, body, version=version)

    monkeypatch.setattr(store.documents, "put", beside)
    done = backfilled(store, rule, settings)

    assert (done.made, done.there) == (0, 1)
    assert [one["id"].endswith("-1") for one in alerts_of(store)] == [True]


def test_an_id_that_an_alerter_took_just_now_is_waited_for(
    store: Store, settings: Settings, rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its alert comes a moment later. Where none comes, it has died, and nothing waits for it."""
    keep(store, settings, *burst(0))
    id = of_alerter(store, rule, 0, 2)
    (stored,) = store.documents.get(ALERTS, [id]).values()
    store.documents.delete(ALERTS, id, version=stored.version)
    monkeypatch.setattr(module.time, "sleep", lambda _: store.documents.put(ALERTS, id, stored.body, version=None))
    found_by_both = backfilled(store, rule, settings)
    (stored,) = store.documents.get(ALERTS, [id]).values()
    store.documents.delete(ALERTS, id, version=stored.version)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    alone = backfilled(store, rule, settings)

    assert (found_by_both.made, found_by_both.there) == (0, 1)
    assert (alone.made, alone.there) == (1, 0)


def test_only_whole_episodes_that_the_alerter_is_done_with_are_made(
    store: Store, settings: Settings, rule: Rule
) -> None:
    """What began before, and what may go on, is left out and said; one that goes on behind --until is whole."""
    keep(store, settings, *burst(3590, count=20), *burst(7000, count=20), *burst(20_000, count=20))
    cut = backfilled(store, rule, settings, since=5000, until=7005, end=20_100, is_dry_run=True)
    open_ = backfilled(store, rule, settings, end=20_100)

    assert (cut.made, cut.begun_before, cut.going_on) == (1, 1, 0)
    assert cut.alerts[0]["count"] == 20
    assert (open_.made, open_.begun_before, open_.going_on) == (2, 0, 1)


def test_which_episodes_fold_does_not_depend_on_where_the_time_begins(
    store: Store, settings: Settings, rule: Rule
) -> None:
    """It begins with its hour: asked for more, it finds the same alerts there."""
    keep(store, settings, *(one for ip in range(1, 9) for one in burst(ip * 300, ip)), *burst(-2000))
    first = backfilled(store, rule, settings, since=1700)
    more = backfilled(store, rule, settings, since=-3600)

    assert (first.made, first.folded) == (5, 3)
    assert (more.made, more.there, more.folded) == (1, 5, 3)


def test_exceptions_hold_a_shadowed_rule_makes_findings_and_a_disabled_one_is_refused(
    store: Store, settings: Settings, rule: Rule
) -> None:
    keep(store, settings, *burst(0), *burst(0, ip=2))
    now_us = clock.now_us()
    named = {"reason": "x", "by": "anna", "until_us": now_us + clock.DAY_US, "now_us": now_us, "is_tried": True}
    exceptions.add(store.documents, rule="failures", query="details.ip:10.0.0.2", **named)
    change_state(store.documents, "failures", RuleState.SHADOW, by="anna", why="", now_us=now_us)
    done = backfilled(store, rule, settings)
    change_state(store.documents, "failures", RuleState.DISABLED, by="anna", why="", now_us=now_us)
    with pytest.raises(LogweirError) as raised:
        read_bounds(store, rule, settings)

    assert (done.made, done.looked.excepted) == (1, 3)
    assert [one["kind"] for one in alerts_of(store)] == ["shadow"]
    assert raised.value.problem is RULE_BAD


def test_it_ends_between_two_alerts_when_it_is_told_to(store: Store, settings: Settings, rule: Rule) -> None:
    keep(store, settings, *(one for at in range(0, 36_000, 1800) for one in burst(at)))
    stopping = threading.Event()

    class Stopping(threading.Event):
        def is_set(self) -> bool:
            return len(alerts_of(store)) >= 4

    stopped = backfilled(store, rule, settings, stopping=Stopping())
    rest = backfilled(store, rule, settings, stopping=stopping)

    assert (stopped.made, stopped.is_stopped) == (4, True)
    assert (rest.made, rest.there, rest.is_stopped) == (16, 4, False)


def test_a_late_event_goes_on_in_the_backfilled_alert(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """The alerter asks the store for what lay around it; two backfilled alerts that it connects become one."""
    settings = settings.model_copy(update={"alerts": settings.alerts.model_copy(update={"lateness_s": 60.0})})
    now_s = clock.now_us() // 1_000_000 - 600

    def failed(at: float) -> bytes:
        return json.dumps({"timestamp": now_s + at, "details": {"outcome": "failure", "ip": "10.0.0.1"}}).encode()

    events = [failed(at) for at in (-9000, -8999, -8998, -8600, -8599, -8598)]
    with running_worker(settings, queue, store):
        door.write(batch(*events))
        until(lambda: backtest_count(store, settings) == 2)
        rule = RuleFiles(settings.alerts, settings.rules_path).rules["failures"]
        bounds = Bounds((now_s - 5000) * 1_000_000, clock.now_us())
        times = {"from_us": (now_s - 9900) * 1_000_000, "to_us": clock.now_us(), "bounds": bounds}
        said = {"by": "anna", "is_told": False, "is_dry_run": False, "stopping": threading.Event()}
        done = Backfill(store, rule, settings, **times, **said, clock=clock.now_us).run(lambda *_: None)
        with running(settings, queue, store) as alerter:
            until(lambda: alerter.engine is not None and alerter.engine.progress.watermark_us > now_s * 1_000_000)
            door.write(batch(failed(-8800)))
            until(lambda: alerts_of(store, "count:7 AND backfilled:yes"))
            until(lambda: alerts_of(store, "reason:duplicate"))

    assert done.made == 2
    assert sorted((one["status"], one["count"]) for one in alerts_of(store)) == [("closed", 3), ("open", 7)]


def backtest_count(store: Store, settings: Settings) -> int:
    rule = RuleFiles(settings.alerts, settings.rules_path).rules["failures"]
    now_us = clock.now_us()
    return backtest(store, rule, settings, from_us=now_us - 4 * HOUR_US, to_us=now_us).alerts_count


# --- the command ----------------------------------------------------------------------------------------------------
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LOGWEIR_ALERTS_PACK", "false")

    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            status = cli.main(["rules", *words, "--data-dir", str(settings.data_dir)])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return status, *capfd.readouterr()

    return call


def test_the_command_stops_at_the_alerters_watermark_and_is_remembered(
    run: Run, settings: Settings, queue: Queue, store: Store, rule: Rule, door: Door
) -> None:
    """Without an alerter, or where that has another revision in force, it is refused."""
    status, _, err = run("backfill", "failures")
    assert (status, "no alerter has it in force yet" in err) == (2, True)
    keep(store, settings, *burst(0), *burst(4000))
    engine = an_engine(settings, queue, store)
    engine.progress.times = {0: at_us(3600 + 3600)}
    engine._note_progress()
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    door.write(batch(login("none", at=0)))
    with running_worker(settings, queue, store):
        until(lambda: read_bounds(store, rule, settings).stored_us > at_us(24 * 3600))
    span = ("--since", "2026-01-31T11:00:00Z")
    _, dry, _ = run("backfill", "failures", *span, "--dry-run")
    status, out, _ = run("backfill", "failures", *span, "--by", "anna")
    as_json = json.loads(run("backfill", "failures", *span, "--json")[1])
    (body,) = (one.body for one in store.documents.get(CATALOGUE, ["failures"]).values())
    engine.evaluator.count("failures", "unevaluated", 7)
    engine._note_progress()
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    (row,) = json.loads(run("list", "--json")[1])["rules"]
    listed = run("list")[1]
    (settings.rules_path / "own.py").write_text(RULES.replace("at_least=3", "at_least=4"))
    other_status, _, err = run("backfill", "failures", *span)

    assert "failures: 1 alert would be made, 0 are there already; 3 matches" in dry
    assert status == 0
    assert "failures: 1 alert made, 0 are there already; 3 matches, " in out
    assert "It ends at 2026-01-31T13:00:00Z: what happened since, the alerter may still change." in out
    assert (as_json["made"], as_json["there"], as_json["to"]) == (0, 1, "2026-01-31T13:00:00Z")
    assert [(one["by"], one["made"], one["there"]) for one in body["backfills"][:1]] == [("anna", 1, 0)]
    assert len(body["backfills"]) == len(row["backfills"]) == 2
    assert (row["begun"]["revision"], row["begun"]["before"], row["counts"]["unevaluated"]) == (rule.revision, None, 7)
    assert "0 matches, 7 unevaluated, 1 alert backfilled since" in listed
    assert (other_status, "in force, and here it is" in err) == (2, True)


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_kill_9_anywhere_leaves_one_alert_an_episode(
    settings: Settings, queue: Queue, store: Store, rule: Rule, door: Door
) -> None:
    """The command as a process, killed again and again, until one comes to its end."""
    keep(store, settings, *(one for at in range(0, 200 * 1800, 1800) for one in burst(at)))
    engine = an_engine(settings, queue, store)
    engine.progress.times = {0: at_us(200 * 1800 + 9000)}
    engine._note_progress()
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    door.write(batch(login("none", at=0)))
    with running_worker(settings, queue, store):
        until(lambda: read_bounds(store, rule, settings).stored_us > at_us(30 * 24 * 3600))
    words = ["rules", "backfill", "failures", "--since", "2026-01-31T11:00:00Z", "--data-dir", str(settings.data_dir)]
    rng, kills = random.Random(3), 0
    while True:
        process = subprocess.Popen([sys.executable, "-m", "logweir.cli", *words], stdout=subprocess.DEVNULL)
        made = len(alerts_of(store))
        wanted = made + rng.randrange(1, 60)
        until(lambda: len(alerts_of(store)) >= wanted or process.poll() is not None, wait_s=120)  # noqa: B023
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1

    assert process.returncode == 0
    assert kills > 2
    assert len(found(store)) == 200
    assert {one[3] for one in found(store)} == {3}


def test_a_closed_backfilled_alert_stays_closed(store: Store, settings: Settings, rule: Rule) -> None:
    keep(store, settings, *burst(0))
    (row,) = backfilled(store, rule, settings).alerts
    alert.change(store.documents, row["id"], alert.close("anna", clock.now_us(), reason=Reason.BENIGN))
    again = backfilled(store, rule, settings)

    assert (again.made, again.there) == (0, 1)
