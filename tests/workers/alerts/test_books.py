"""Rules about the accounting: what the ledger finds becomes alerts, each once, with numbers, hosts and blind rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from logweir import cli, clock, config
from logweir.alerts import alert, rule
from logweir.alerts.alert import ALERTS, Reason, opened
from logweir.alerts.rules import Rule
from logweir.config import Settings
from logweir.errors import CLAIM_LOST, STORE_DOWN, LogweirError
from logweir.outcomes import Outcome
from logweir.query.tree import All
from logweir.queue.port import Queue
from logweir.record import NUMBER_MAX
from logweir.store.port import Store
from logweir_console.app import make_app
from logweir_workers.alerts.blind import blind_rules
from logweir_workers.alerts.books import BooksRules
from logweir_workers.alerts.loading import PACK, read_rules
from tests.logweir.silence_world import DAY, HOUR, START, World, batch
from tests.waiting import until
from tests.workers.alerts.test_engine import running
from tests.workers.helpers import Door, running_worker
from tests.workers.helpers import batch as real_batch

RULES: dict[str, Rule] = {one.name: one for one in read_rules(PACK / "books.py")}
WEB_17 = {"sources": [("web", "web-17")]}


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    overrides = {"data_dir": tmp_path, "worker.group": "g", "silence.learn_s": 60}
    return config.load(environment={}, overrides=overrides)


def asked(store: Store, settings: Settings, *, generation: int = 1, minute: int = 0) -> BooksRules:
    """Who asks the rules, beginning with what the store has. ``minute``: when the clock stands still."""

    def fails(rule: Rule, error: BaseException) -> None:
        raise AssertionError(f"{rule.name} has failed") from error

    return BooksRules(store, settings, generation=generation, clock=lambda: (START + minute) * 60_000_000, failed=fails)


def alerts_of(store: Store, rule: str = "") -> list[dict[str, Any]]:
    """The oldest first."""
    bodies = [one.body for one in store.documents.search(ALERTS, All(), size=1000).documents]
    return sorted((one for one in bodies if rule in ("", one["rule"])), key=lambda one: (one["first"], one["id"]))


def lose(world: World, at: int, first: int, last: int) -> None:
    """The numbers ``first`` to ``last`` of web-17 never come; those around them do, in that minute."""
    for number in (first - 1, last + 1):
        world.send(batch(at, "web-17", epoch="e1", sequence=number), **WEB_17)
    world.canaries(at, at + 3)
    world.flush(at + 4)


# --- losses ---------------------------------------------------------------------------------------------------------
def test_lost_numbers_are_one_alert_with_count_numbers_host_and_blind_rules(
    world: World, store: Store, settings: Settings
) -> None:
    """However often it is looked, and whoever looks."""

    @rule(where="category:web AND details.action:login", severity="low")
    def about_web(found: Any) -> str:
        return "x"

    @rule(where="category:mail", severity="low")
    def about_mail(found: Any) -> str:
        return "x"

    rules = {**RULES, "about_web": about_web, "about_mail": about_mail}
    lose(world, 1, 2, 313)
    for generation in (1, 2, 2, 3):
        books = asked(store, settings, generation=generation)
        books.look(rules)
        books.look(rules)
    (one,) = alerts_of(store)

    assert (one["rule"], one["severity"], one["count"], one["kind"]) == ("events_lost", "high", 312, "alert")
    assert one["group"] == {"emitter": "app/web-17", "run": "e1"}
    assert one["finding"]["numbers"] == [[2, 313]]
    assert one["finding"]["hosts"] == ["web-17"]
    assert one["finding"]["blind"] == ["about_web"]
    assert one["summary"].startswith("web-17 lost 312 events (numbers 2 to 313) from 2025-02-19T21:21")
    assert [row["change"] for row in one["history"]] == ["opened"]


def test_very_many_holes_are_one_alert_but_for_what_the_emitter_says_that_it_dropped(
    world: World, store: Store, settings: Settings
) -> None:
    """Every second number is lost; it says that it dropped ten itself."""
    for number in range(1, 101, 2):
        world.send(batch(1, "web-17", epoch="e1", sequence=number), **WEB_17)
    told = batch(1, "web-17", epoch="e1", sequence=101)
    world.send(msgspec.structs.replace(told, dropped={"full": 10}), **WEB_17)
    world.canaries(2, 5)
    world.flush(6)
    asked(store, settings).look(RULES)
    (one,) = alerts_of(store)

    assert (one["count"], len(one["finding"]["numbers"])) == (40, 20)


def test_losses_go_on_within_quiet_are_quiet_after_it_and_are_another_alert_then(
    world: World, store: Store, settings: Settings
) -> None:
    """By the ledger's time alone."""
    books = asked(store, settings)
    lose(world, 1, 2, 11)
    books.look(RULES)
    lose(world, 9, 13, 17)
    books.look(RULES)
    whole = alerts_of(store)
    world.canaries(13, 40)
    world.flush(41)
    books.look(RULES)
    quiet = alerts_of(store)
    lose(world, 60, 19, 20)
    books.look(RULES)

    assert [(one["count"], one["is_quiet"]) for one in whole] == [(15, False)]
    assert [(one["count"], one["is_quiet"], one["history"][-1]["change"]) for one in quiet] == [
        (15, True, "went quiet")
    ]
    assert [one["count"] for one in alerts_of(store)] == [15, 2]


def test_what_comes_after_all_is_taken_off_and_the_history_says_so(
    world: World, store: Store, settings: Settings
) -> None:
    """First some, then all; also when nobody looked in between, and another one looks then."""
    lose(world, 1, 2, 5)
    asked(store, settings).look(RULES)
    world.send(batch(6, "web-17", epoch="e1", sequence=2), **WEB_17)
    world.flush(8)
    asked(store, settings, generation=2).look(RULES)
    some = alerts_of(store)
    for number in (3, 4, 5):
        world.send(batch(9, "web-17", epoch="e1", sequence=number), **WEB_17)
    world.flush(11)
    books = asked(store, settings, generation=3)
    books.look(RULES)
    books.look(RULES)
    (one,) = alerts_of(store)

    assert [(body["count"], body["finding"]["numbers"]) for body in some] == [(3, [[3, 5]])]
    assert (one["count"], one["is_quiet"]) == (0, True)
    assert one["summary"].startswith("All came after all. web-17 lost 3 events")
    changes = [(row["change"], row.get("before"), row.get("after")) for row in one["history"]]
    assert changes == [("opened", None, None), ("came after all", 4, 3), ("came after all", 3, 0)]


def test_what_is_lost_after_an_alert_was_closed_is_a_new_one_that_names_it(
    world: World, store: Store, settings: Settings
) -> None:
    books = asked(store, settings)
    lose(world, 1, 2, 5)
    books.look(RULES)
    (first,) = alerts_of(store)
    alert.change(store.documents, first["id"], alert.close("me", (START + 5) * 60_000_000, reason=Reason.BENIGN))
    books.look(RULES)
    lose(world, 8, 7, 8)
    books.look(RULES)
    one, two = alerts_of(store)

    assert (one["status"], one["count"]) == ("closed", 4)
    assert (two["status"], two["count"], two["previous"]) == ("open", 2, one["id"])


def test_a_loss_that_is_long_ago_when_it_is_first_looked_is_no_news(
    world: World, store: Store, settings: Settings
) -> None:
    """But after an outage of the alerter of days, everything since is told."""
    lose(world, 1, 2, 5)
    world.canaries(2 * DAY, 2 * DAY + 3)
    world.flush(2 * DAY + 4)
    asked(store, settings).look(RULES)
    none = alerts_of(store)
    lose(world, 3 * DAY, 7, 9)
    world.canaries(6 * DAY, 6 * DAY + 3)
    world.flush(6 * DAY + 4)
    asked(store, settings, generation=2).look(RULES)

    assert none == []
    assert [one["count"] for one in alerts_of(store)] == [3]


def test_what_the_queue_lost_is_one_alert_also_when_whoever_looked_died_before_it_was_written(
    world: World, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has no time of it: the one that was written down first stays, two hours later, too."""
    world.send(batch(0, "web-17"), **WEB_17)
    world.ledgers[0].expire(1, 4)
    world._offsets[0] = 5
    world._numbers[0] += 4
    world.send(batch(1, "web-17"), **WEB_17)
    world.canaries(2, 4)
    world.flush(5)
    books = asked(store, settings)

    def dies(*_: Any) -> bool:
        raise LogweirError(STORE_DOWN, url="there", reason="it died")

    with monkeypatch.context() as patched:
        patched.setattr(books, "_put", dies)
        with pytest.raises(LogweirError):
            books.look(RULES)
    none = alerts_of(store)
    world.canaries(2 * HOUR, 2 * HOUR + 3)
    world.flush(2 * HOUR + 4)
    for generation in (2, 3):
        asked(store, settings, generation=generation).look(RULES)
    (one,) = alerts_of(store, "queue_loss")

    assert none == []
    assert (one["severity"], one["count"]) == ("critical", 4)
    assert one["finding"]["numbers"] == [[2, 5]]
    assert one["first"] < "2025-02-19T21:30"


# --- silence --------------------------------------------------------------------------------------------------------
def sends(world: World, first: int, last: int, *, sending_until: int) -> None:
    """Every minute a canary, every ten minutes something of web-17, up to a minute."""
    for at in range(first, last + 1):
        world.canary(at)
        if at % 10 == 0 and at <= sending_until:
            world.send(batch(at, "web-17"), **WEB_17)
    world.flush(last + 1)


def test_who_falls_silent_is_one_alert_while_it_lasts_and_quiet_when_it_speaks(
    world: World, store: Store, settings: Settings
) -> None:
    """Its source, which is the same, is none besides. Our own downtime makes nobody silent."""
    books = asked(store, settings)
    sends(world, 0, 5 * HOUR, sending_until=5 * HOUR)
    books.look(RULES)
    world.flush(10 * HOUR)  # Nothing at all came: nobody could be heard.
    books.look(RULES)
    nobody = alerts_of(store)
    sends(world, 10 * HOUR, 12 * HOUR, sending_until=0)
    books.look(RULES)
    sends(world, 12 * HOUR + 1, 12 * HOUR + 20, sending_until=0)
    asked(store, settings, generation=2).look(RULES)
    silent = alerts_of(store)
    sends(world, 12 * HOUR + 21, 12 * HOUR + 41, sending_until=DAY)
    books = asked(store, settings, generation=3)
    books.look(RULES)
    spoken = alerts_of(store)
    sends(world, 12 * HOUR + 42, 30 * HOUR, sending_until=0)
    books.look(RULES)

    assert nobody == []
    (one,) = silent
    assert (one["rule"], one["group"], one["is_quiet"]) == (
        "emitter_silent",
        {"of": "emitter", "name": "app/web-17"},
        False,
    )
    assert one["finding"]["hosts"] == ["web-17"]
    assert [(body["is_quiet"], body["history"][-1]["change"]) for body in spoken] == [(True, "went quiet")]
    assert len(alerts_of(store)) == 2


def test_a_host_that_falls_silent_or_loses_events_soon_after_an_alert_is_an_alert(
    world: World, store: Store, settings: Settings
) -> None:
    """And not when the alert was about another host."""
    sends(world, 0, 5 * HOUR, sending_until=5 * HOUR)
    found = {
        "kind": "alert",
        "rule": "ssh_brute_force",
        "severity": "high",
        "summary": "ten failures",
        "group": {},
        "count": 10,
        "first": clock.iso_seconds((START + 5 * HOUR - 2) * 60_000_000),
        "last": clock.iso_seconds((START + 5 * HOUR - 1) * 60_000_000),
        "updated": clock.iso_seconds((START + 5 * HOUR) * 60_000_000),
        "evidence": [{"event": {"hostname": "web-17"}}],
        "evidence_last": [],
        "completeness": {"state": "complete"},
    }
    other = {**found, "evidence": [{"event": {"hostname": "db-1"}}], "emitters": ["app/db-1"]}
    store.documents.put(ALERTS, "a-1", {**opened("a-1", created_us=1), **found}, version=None)
    store.documents.put(ALERTS, "b-1", {**opened("b-1", created_us=1), **other}, version=None)
    sends(world, 5 * HOUR + 1, 8 * HOUR, sending_until=0)
    books = asked(store, settings)
    books.look(RULES)
    books.look(RULES)
    (one,) = alerts_of(store, "silence_after_match")

    assert one["finding"]["alerts"] == ["a-1"]
    assert (one["severity"], one["summary"]) == ("high", "web-17 fell silent soon after: ten failures")


def alert_about(store: Store, id: str, *, at_us: int, emitter: str) -> None:
    """An alert about one event of an emitter, without a host name."""
    time = clock.iso_seconds(at_us)
    found = {
        **dict.fromkeys(("first", "last", "updated"), time),
        "kind": "alert",
        "rule": "ssh_brute_force",
        "severity": "high",
        "summary": f"{id} fired",
        "group": {},
        "count": 1,
        "completeness": {"state": "complete"},
        "evidence": [],
        "evidence_last": [],
        "emitters": [emitter],
    }
    store.documents.put(ALERTS, id, {**opened(id, created_us=1), **found}, version=None)


def test_numbers_lost_after_a_match_of_another_emitter_or_before_the_match_are_no_chain(
    world: World, store: Store, settings: Settings
) -> None:
    """And what was one is withdrawn when the numbers come after all."""
    minute_us = 60_000_000
    alert_about(store, "other", at_us=(START + 2) * minute_us, emitter="app/db-1")
    alert_about(store, "later", at_us=(START + 3) * minute_us + 20_000_000, emitter="app/web-17")
    lose(world, 3, 2, 5)
    asked(store, settings).look(RULES)
    none = alerts_of(store, "silence_after_match")
    alert_about(store, "before", at_us=(START + 2) * minute_us, emitter="app/web-17")
    asked(store, settings, generation=2).look(RULES)
    (one,) = alerts_of(store, "silence_after_match")
    world.send(batch(9, "web-17", epoch="e1", sequence=2), **WEB_17)
    world.flush(10)
    asked(store, settings, generation=3).look(RULES)
    (fewer,) = alerts_of(store, "silence_after_match")
    for number in (3, 4, 5):
        world.send(batch(11, "web-17", epoch="e1", sequence=number), **WEB_17)
    world.flush(12)
    asked(store, settings, generation=4).look(RULES)
    (gone,) = alerts_of(store, "silence_after_match")

    assert none == []
    assert (one["finding"]["alerts"], one["count"]) == (["before"], 4)
    assert fewer["count"] == 3
    assert (gone["count"], gone["is_quiet"], gone["history"][-1]["change"]) == (0, True, "came after all")
    assert gone["summary"].startswith("All came after all. web-17 lost numbers soon after: before fired")


def test_a_host_is_named_only_where_no_other_emitter_sends_from_its_address(
    world: World, store: Store, settings: Settings
) -> None:
    """The ledger knows a source by key and address: of emitters that share these, it does not know whose it is."""
    world.send(batch(0, "web-1", epoch="e9", sequence=1), sources=[("web", "web-1"), (None, "10.1.2.3")])
    lose(world, 1, 2, 5)
    asked(store, settings).look(RULES)
    (one,) = alerts_of(store, "events_lost")

    assert (one["finding"]["hosts"], one["finding"]["emitters"]) == ([], ["app/web-17"])
    assert one["summary"].startswith("app/web-17 lost 4 events")


def test_a_jump_is_an_alert_of_its_own_and_no_loss(world: World, store: Store, settings: Settings) -> None:
    """Once, also when some of the numbers come after all."""
    world.send(batch(1, "web-17", epoch="e1", sequence=1), **WEB_17)
    world.send(batch(1, "web-17", epoch="e1", sequence=NUMBER_MAX), **WEB_17)
    world.canaries(2, 5)
    world.flush(6)
    books = asked(store, settings)
    books.look(RULES)
    world.send(batch(7, "web-17", epoch="e1", sequence=1000), **WEB_17)
    world.canaries(8, 9)
    world.flush(10)
    books.look(RULES)
    (one,) = alerts_of(store)

    assert (one["rule"], one["severity"], one["count"]) == ("emitter_jumped", "medium", NUMBER_MAX - 2)
    assert one["group"] == {"emitter": "app/web-17", "run": "e1"}
    assert f"{NUMBER_MAX - 2:,} numbers" in one["summary"]


# --- what the windows say -------------------------------------------------------------------------------------------
def refused(world: World, at: int, count: int, reason: str) -> None:
    for _ in range(count):
        world.send(batch(at, "web-17"), outcomes=[Outcome.DEAD_LETTERED], reasons={0: reason}, **WEB_17)


def test_dead_letters_that_rise_and_identity_conflicts_are_alerts(
    world: World, store: Store, settings: Settings
) -> None:
    """A few are none; conflicts are dead letters that say more."""
    refused(world, 2, 5, "mapping")
    world.canaries(2, 30)
    world.flush(31)
    books = asked(store, settings)
    books.look(RULES)
    few = alerts_of(store)
    refused(world, 31, 30, "mapping")
    refused(world, 33, 2, "identity_conflict")
    world.canaries(33, 50)
    world.flush(51)
    books.look(RULES)
    books.look(RULES)
    one, two = sorted(alerts_of(store), key=lambda body: body["rule"])

    assert few == []
    assert (one["rule"], one["count"], one["group"]) == ("dead_letters_rising", 32, {"emitter": "app/web-17"})
    assert (two["rule"], two["count"], two["finding"]["hosts"]) == ("identity_conflict", 2, ["web-17"])


def test_much_less_than_usual_in_a_whole_hour_is_an_alert_and_our_own_downtime_is_not(
    world: World, store: Store, settings: Settings
) -> None:
    """200 an hour for more than a day, then ten; then an hour in which we took nothing for half of it."""
    start = -START % HOUR + HOUR
    for hour in range(28):
        for at in range(HOUR):
            minute = start + hour * HOUR + at
            if hour != 27 or at < 30:
                world.canary(minute)
            if at % 6 == 0:
                for _ in range(20 if hour < 26 else 1):
                    world.send(batch(minute, "web-17"), **WEB_17)
        world.flush(start + (hour + 1) * HOUR + 1)
    books = asked(store, settings)
    books.look(RULES)
    books.look(RULES)
    (one,) = alerts_of(store, "volume_drop")

    assert (one["count"], one["finding"]["usual"]) == (10, 200.0)


# --- who asks -------------------------------------------------------------------------------------------------------
def test_whoever_had_the_shard_before_writes_nothing_more(world: World, store: Store, settings: Settings) -> None:
    old, new = asked(store, settings, generation=1), asked(store, settings, generation=2)
    lose(world, 1, 2, 5)
    old.look(RULES)
    new.look(RULES)
    lose(world, 8, 7, 8)
    with pytest.raises(LogweirError) as raised:
        old.look(RULES)
    with pytest.raises(LogweirError) as again:
        asked(store, settings, generation=1).look(RULES)

    assert raised.value.problem is again.value.problem is CLAIM_LOST


@pytest.mark.parametrize(
    ("where", "sources", "is_blind"),
    [
        ("category:web", [("web", "h")], True),
        ("category:web", [("mail", "h"), ("web", "h")], True),
        ("category:web", [("mail", "h")], False),
        ("category:web", [], True),
        ("details.action:login", [("mail", "h")], True),
        ("category:web AND details.action:login", [("mail", "h")], False),
        ("category:web OR details.action:login", [("mail", "h")], True),
        ("NOT category:web", [("web", "h")], False),
        ("hostname:web* AND login", [(None, "web1")], True),
        ("hostname:web* AND login", [(None, None)], False),
        (lambda seen: False, [("mail", "h")], True),
    ],
)
def test_blind_are_the_rules_that_category_and_host_do_not_rule_out(
    where: Any, sources: list[tuple[str | None, str | None]], is_blind: bool
) -> None:
    @rule(where=where, severity="low")
    def some(found: Any) -> str:
        return "x"

    assert blind_rules([some, *RULES.values()], sources) == (["some"] if is_blind else [])


def test_the_alerter_asks_them_beside_the_others(
    queue: Queue, store: Store, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A hole in an emitter's numbers, all the way from the queue to the alert, as people see it."""
    overrides = {"data_dir": tmp_path, "accounting.late_after_s": 0.1, "alerts.books_interval_s": 1}
    settings = config.load(environment={}, overrides=overrides)
    door = Door(queue)
    with running_worker(settings, queue, store), running(settings, queue, store):
        for number in (1, 9):
            door.write(real_batch(b'{"hostname": "web-17"}', emitter="web-17", epoch="e1", sequence_first=number))
        # The watermark is that of what came: something has to come after it.
        until(lambda: door.write(real_batch(b"{}", id=bytes([7] * 16))) and alerts_of(store, "events_lost"))
    door.close()
    (one,) = alerts_of(store, "events_lost")

    assert (one["count"], one["finding"]["numbers"]) == (7, [[2, 8]])
    assert one["finding"]["blind_count"] > 5
    capfdbinary.readouterr()
    assert cli.main(["alerts", "show", one["id"], "--data-dir", str(tmp_path)]) == 0
    shown = capfdbinary.readouterr().out.decode()
    page = make_app(settings.console, store).test_client().get(f"/alerts/{one['id']}", headers={"Host": "localhost"})
    assert "  numbers: 2 to 8\n" in shown
    assert "  emitters: app/web-17\n" in shown
    assert "ssh_brute_force" in shown
    assert "2 to 8" in page.text
    assert "ssh_brute_force" in page.text
