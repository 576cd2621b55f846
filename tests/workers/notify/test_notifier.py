"""Channels are told of alerts: once each, together or one by one, muted or not, whatever fails or dies in between."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from logweir.alerts import alert, mutes
from logweir.alerts.alert import ALERTS, Reason
from logweir.alerts.notices import NOTICES, books_of
from logweir.errors import STORE_DOWN, LogweirError
from logweir.metrics import registry
from logweir.query.parse import parse
from logweir.store.port import Store
from logweir_workers.alerts.retention import delete_old
from logweir_workers.notify import bundles, notifier, sender_thread
from logweir_workers.notify.channels import ChannelFile
from logweir_workers.notify.notifier import Notifier
from logweir_workers.notify.outages import FAILING_AFTER_US
from tests.proof import SEED, size
from tests.waiting import until
from tests.workers.notify.alerts import NOW_US, changed, stored
from tests.workers.notify.receivers import Answer, Receiver, Request, receiving, slack

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US


class World:
    """A store, a settable clock, a file of channels, and notifiers whose rounds the test takes itself."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.path = folder / "channels.toml"
        self.now_us = NOW_US
        self._made: list[Notifier] = []

    def notifier(self, store: Store | None = None) -> Notifier:
        made = Notifier(
            store or self.store,
            ChannelFile(self.path),
            public_url="https://logs.example.org/",
            stopping=threading.Event(),
            clock=lambda: self.now_us,
        )
        self._made.append(made)
        return made

    def channels(self, **texts: str) -> None:
        self.path.write_text("\n".join(f"[{name}]\n{text}\n" for name, text in texts.items()))

    def fires(self, id: str, **values: Any) -> None:
        stored(self.store, id, now_us=self.now_us, **values)

    def changes(self, id: str, **values: Any) -> None:
        changed(self.store, id, now_us=self.now_us, **values)

    def books(self, channel: str) -> dict[str, int]:
        counts: dict[str, int] = books_of(self.store.documents, channel).alerts
        return {name: count for name, count in counts.items() if count}

    def close(self) -> None:
        for one in self._made:
            one.close()


@pytest.fixture
def world(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(notifier, "_WAIT_S", 0.02)
    monkeypatch.setattr(sender_thread, "REST_S_FIRST", 0.01)
    monkeypatch.setattr(sender_thread, "REST_S_MAX", 0.05)
    made = World(store, tmp_path)
    yield made
    made.close()


def turn(one: Notifier) -> None:
    """A round in which everything is due."""
    one._due_s.clear()
    for outbox in one.outboxes.values():
        outbox._plan_due_s = 0.0
    one.turn()


def turns(one: Notifier, condition: Callable[[], object] = lambda: True) -> None:
    """Rounds until the condition holds, and then until nothing is under way."""

    def is_done() -> bool:
        turn(one)
        return bool(condition())

    until(is_done)
    for _ in range(2):
        until(lambda: (turn(one), not any(outbox.sender_thread.is_busy for outbox in one.outboxes.values()))[1])


def hook(receiver: Receiver, more: str = "") -> str:
    return f'type = "webhook"\nurl = "{receiver.url}"\nsecret = "{WHSEC}"\n{more}'


def said(receiver: Receiver) -> list[tuple[str, list[str]]]:
    """What a webhook was told: the state, and of which alerts."""
    return [
        (one.json["data"]["state"], sorted(a["id"] for a in one.json["data"]["alerts"])) for one in receiver.requests
    ]


def by_person(world: World, id: str, change: alert.Change) -> None:
    alert.change(world.store.documents, id, change)


# --- one alert ----------------------------------------------------------------------------------------------------
def test_an_alert_is_told_once_and_once_when_it_is_over(world: World) -> None:
    """Whatever else the engine finds of it; and again when it goes on after that, as another incident."""
    with receiving() as receiver:
        world.channels(hook=hook(receiver))
        one = world.notifier()
        turns(one)
        world.fires("a-1")
        turns(one, lambda: len(receiver.requests) == 1)
        world.now_us += HOUR_US
        world.changes("a-1", count=99)
        turns(one)
        world.changes("a-1", is_quiet=True)
        turns(one, lambda: len(receiver.requests) == 2)
        world.now_us += SECOND_US
        world.changes("a-1", completeness={"state": "incomplete", "missing": 3})
        turns(one)
        turns(world.notifier())
        between = said(receiver)
        world.now_us += SECOND_US
        world.changes("a-1", is_quiet=False)
        turns(one, lambda: len(receiver.requests) == 3)
        threads = [request.json["data"]["thread"] for request in receiver.requests]

    assert between == [("firing", ["a-1"]), ("resolved", ["a-1"])]
    assert said(receiver)[2:] == [("firing", ["a-1"])]
    assert threads == ["hook.a-1-1", "hook.a-1-1", "hook.a-1-2"]
    assert world.books("hook") == {"notified": 1}


def test_what_was_there_before_a_channel_and_what_it_does_not_ask_for_is_not_told(world: World) -> None:
    """Nor are near misses."""
    with receiving() as receiver:
        world.fires("before-1")
        world.now_us += 60 * SECOND_US
        world.channels(hook=hook(receiver, 'severities = ["critical"]'))
        one = world.notifier()
        turns(one)
        world.changes("before-1", severity="critical", count=13)
        world.fires("low-1", severity="low")
        world.fires("miss-1", severity="critical", kind="near_miss")
        world.fires("a-1", severity="critical")
        turns(one, lambda: receiver.requests)

    assert said(receiver) == [("firing", ["a-1"])]


def test_alerts_that_came_while_nobody_notified_are_told_by_the_next_process(world: World) -> None:
    """Also one that went quiet meanwhile: that it fired, and that it is over. Not one that somebody closed."""
    with receiving() as receiver:
        world.channels(hook=hook(receiver))
        turns(world.notifier())
        world.now_us += HOUR_US
        world.fires("a-1")
        world.fires("quiet-1", is_quiet=True)
        world.fires("closed-1")
        by_person(world, "closed-1", alert.close("anna", world.now_us, reason=Reason.BENIGN))
        world.now_us += 5 * HOUR_US
        turns(world.notifier(), lambda: len(receiver.requests) == 3)

    assert sorted(said(receiver)) == [("firing", ["a-1"]), ("firing", ["quiet-1"]), ("resolved", ["quiet-1"])]
    assert world.books("hook") == {"notified": 2, "unneeded": 1}


def test_people_acknowledge_snooze_and_close_and_are_heard(world: World) -> None:
    """What is acknowledged or snoozed is not repeated; what is snoozed before it was told, is told when that ends."""
    with receiving() as receiver:
        world.channels(hook=hook(receiver, "repeat_s = 3600"))
        one = world.notifier()
        turns(one)
        for id in ("a-1", "b-1"):
            world.fires(id)
        world.fires("c-1")
        by_person(world, "c-1", alert.snooze("anna", world.now_us, until_us=world.now_us + 3 * HOUR_US))
        turns(one, lambda: len(receiver.requests) == 2)
        by_person(world, "a-1", alert.acknowledge("anna", world.now_us))
        turns(one, lambda: len(receiver.requests) == 3)
        world.now_us += HOUR_US + SECOND_US
        turns(one, lambda: len(receiver.requests) == 4)
        by_person(world, "b-1", alert.snooze("anna", world.now_us, until_us=world.now_us + 9 * HOUR_US))
        world.now_us += 2 * HOUR_US
        turns(one, lambda: len(receiver.requests) == 5)
        by_person(world, "a-1", alert.close("anna", world.now_us, reason=Reason.TRUE_POSITIVE))
        turns(one, lambda: len(receiver.requests) == 6)
        repeats = [request.json["data"]["is_repeat"] for request in receiver.requests]

    assert sorted(said(receiver)[:2]) == [("firing", ["a-1"]), ("firing", ["b-1"])]
    assert said(receiver)[2:] == [
        ("acknowledged", ["a-1"]),
        ("firing", ["b-1"]),
        ("firing", ["c-1"]),
        ("resolved", ["a-1"]),
    ]
    assert repeats == [False, False, False, True, False, False]


def test_a_channel_may_not_want_to_hear_that_alerts_are_over(world: World) -> None:
    with receiving() as receiver:
        world.channels(hook=hook(receiver, "resolved = false"))
        one = world.notifier()
        turns(one)
        world.fires("a-1")
        turns(one, lambda: receiver.requests)
        world.changes("a-1", is_quiet=True)
        turns(one, lambda: not one.outboxes["hook"].bundles)

    assert said(receiver) == [("firing", ["a-1"])]


# --- mutes --------------------------------------------------------------------------------------------------------
def test_muted_alerts_are_counted_and_told_when_the_mute_ends_if_they_go_on(world: World) -> None:
    """One that was quiet before that is not told any more; what was told before is told to be over."""
    documents = world.store.documents
    with receiving() as receiver:
        world.channels(hook=hook(receiver, "repeat_s = 3600"))
        one = world.notifier()
        turns(one)
        world.fires("early-1")
        turns(one, lambda: receiver.requests)
        mute = mutes.add(
            documents,
            query="rule:ssh_* AND group:10.0.0.9",
            reason="the scan",
            by="anna",
            until_us=world.now_us + 9 * HOUR_US,
            now_us=world.now_us,
        )
        world.fires("a-1")
        world.fires("quiet-1")
        world.fires("other-1", group={"details.ip": "10.0.0.8"})
        turns(one, lambda: len(receiver.requests) == 2)
        during = world.books("hook")
        world.now_us += HOUR_US // 2
        turns(one)
        oldest = registry.get("logweir_alerter_notifications_oldest_seconds").labels("hook")._value.get()
        world.now_us += HOUR_US
        world.changes("quiet-1", is_quiet=True)
        world.changes("other-1", is_quiet=True)
        turns(world.notifier(), lambda: len(receiver.requests) == 3)
        turns(one, lambda: True)
        world.changes("early-1", is_quiet=True)
        turns(one, lambda: len(receiver.requests) == 4)
        mutes.end(documents, mute.id, by="bert", now_us=world.now_us)
        turns(one, lambda: len(receiver.requests) == 5)

    assert said(receiver) == [
        ("firing", ["early-1"]),
        ("firing", ["other-1"]),
        ("resolved", ["other-1"]),
        ("resolved", ["early-1"]),
        ("firing", ["a-1"]),
    ]
    assert during == {"notified": 2, "muted": 2}
    assert oldest == 0
    assert world.books("hook") == {"notified": 3, "muted": 1}


# --- groups -------------------------------------------------------------------------------------------------------
def test_alerts_of_one_group_are_told_together(world: World) -> None:
    """The first waits for others; later ones come with the next notice; that they are over is one notice."""
    with receiving() as receiver:
        world.channels(hook=hook(receiver, 'group_by = ["rule"]\ngroup_wait_s = 30\ngroup_interval_s = 300'))
        one = world.notifier()
        turns(one)
        world.fires("a-1")
        world.fires("b-1")
        world.fires("x-1", rule="another")
        turns(one)
        early = len(receiver.requests)
        world.now_us += 31 * SECOND_US
        turns(one, lambda: len(receiver.requests) == 2)
        world.fires("c-1")
        world.now_us += 60 * SECOND_US
        turns(one)
        waiting = len(receiver.requests)
        world.now_us += 300 * SECOND_US
        turns(one, lambda: len(receiver.requests) == 3)
        for id in ("a-1", "b-1", "c-1"):
            world.changes(id, is_quiet=True)
        world.now_us += 301 * SECOND_US
        turns(one, lambda: len(receiver.requests) == 4)

    assert (early, waiting) == (0, 2)
    assert sorted(said(receiver)[:2]) == [("firing", ["a-1", "b-1"]), ("firing", ["x-1"])]
    assert said(receiver)[2:] == [("firing", ["a-1", "b-1", "c-1"]), ("resolved", ["a-1", "b-1", "c-1"])]
    assert world.books("hook") == {"notified": 2, "grouped": 2}


def test_of_a_busy_group_only_sums_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over long since is neither told again nor counted twice."""
    monkeypatch.setattr(bundles, "ENTRIES_KEPT_MAX", 1)
    with receiving() as receiver:
        world.channels(hook=hook(receiver, 'group_by = ["rule"]\ngroup_wait_s = 0\ngroup_interval_s = 0'))
        one = world.notifier()
        turns(one)
        for id in ("a-1", "b-1"):
            world.fires(id)
        turns(one, lambda: receiver.requests)
        for id in ("a-1", "b-1"):
            world.changes(id, is_quiet=True)
        turns(one, lambda: said(receiver)[-1][0] == "resolved")
        before = world.books("hook")
        world.now_us += SECOND_US
        world.changes("a-1", completeness={"state": "incomplete", "missing": 1})
        turns(one)
        count = len(receiver.requests)
        world.fires("c-1")
        turns(one, lambda: len(receiver.requests) > count)

    assert before == {"notified": 1, "grouped": 1}
    assert said(receiver)[-1] == ("firing", ["c-1"])
    assert sum(world.books("hook").values()) == 3


# --- receivers that fail ------------------------------------------------------------------------------------------
def test_after_an_outage_many_alerts_are_one_notice_where_people_read(world: World) -> None:
    """And one that they are over. A program gets each of them."""
    is_down = True

    def answer(request: Request, number: int) -> Answer:
        return Answer(503) if is_down else slack(request, number)

    with receiving(answer) as people, receiving(lambda request, number: Answer(503 if is_down else 200)) as program:
        team = f'type = "slack"\ntoken = "xoxb-1"\nchannel = "C1"\napi_url = "{people.url}"\ndigest_above = 3'
        world.channels(team=team, hook=hook(program, "digest_above = 3"))
        one = world.notifier()
        turns(one)
        world.fires("first-1")
        turns(one, lambda: people.requests and program.requests)
        for number in range(8):
            world.fires(f"a-{number}")
        turns(one, lambda: world.books("team").get("pending") == 9)
        is_down = False
        people.requests.clear()
        program.requests.clear()
        # Another process finds the digest as well as this one does.
        turns(one, lambda: world.books("team") == {"notified": 2, "grouped": 7})
        turns(one, lambda: world.books("hook") == {"notified": 9})
        digest = people.requests[-1].json["text"] if "at once" in people.requests[-1].json["text"] else ""
        digest = digest or next(r.json["text"] for r in people.requests if "at once" in r.json["text"])
        told = len(people.requests)
        for number in range(8):
            world.changes(f"a-{number}", is_quiet=True)
        world.now_us += SECOND_US
        turns(world.notifier(), lambda: len(people.requests) == told + 1)
        world.now_us += SECOND_US
        world.changes("a-0", completeness={"state": "incomplete", "missing": 1})
        turns(one)
        turns(world.notifier())

    assert "[high] 8 alerts at once, among them: 12 failed logins of a-0" in digest
    assert told == 2
    assert people.requests[-1].json["text"].startswith("[resolved] 8 alerts")
    assert people.requests[-1].json["thread_ts"]
    assert len(people.requests) == told + 1


def test_a_receiver_that_hangs_holds_up_nobody_else(world: World) -> None:
    """Neither other channels nor the end of the process."""
    over = threading.Event()
    with receiving(lambda request, number: Answer(hangs=over)) as hanging, receiving() as receiver:
        world.channels(stuck=hook(hanging, "timeout_s = 60"), hook=hook(receiver))
        one = world.notifier()
        turn(one)
        for number in range(3):
            world.fires(f"a-{number}")

        def is_told() -> bool:
            turn(one)
            return len(receiver.requests) == 3

        until(is_told)
        hung = len(hanging.requests)
        over.set()

    assert hung == 1


def test_who_answers_429_is_left_alone_for_as_long_as_it_says(world: World) -> None:
    with receiving(lambda request, number: Answer(429, {"Retry-After": "900"})) as receiver:
        world.channels(hook=hook(receiver))
        one = world.notifier()
        turns(one)
        world.fires("a-1")
        turns(one, lambda: receiver.requests)
        for _ in range(5):
            turn(one)
        rests = one.outboxes["hook"].sender_thread._rests_until_s

    import time

    assert len(receiver.requests) == 1
    assert 800 < rests - time.monotonic() <= 900
    assert world.books("hook") == {"pending": 1}


def test_what_a_receiver_refuses_for_good_is_failed_and_the_others_go_on(world: World) -> None:
    """One that cannot be taken for now is not tried before others that were not."""

    def answer(request: Request, number: int) -> Answer:
        said = request.body
        return Answer(400 if b"bad-1" in said else 500 if b"ill-1" in said else 200)

    with receiving(answer) as receiver:
        world.channels(hook=hook(receiver))
        one = world.notifier()
        turns(one)
        for id in ("bad-1", "ill-1", "z-1", "z-2"):
            world.fires(id)
        turns(one, lambda: world.books("hook") == {"notified": 2, "failed": 1, "pending": 1})
        bad = [one for one in said(receiver) if one[1] == ["bad-1"]]

    assert bad == [("firing", ["bad-1"])]


def test_a_channel_that_fails_is_one_alert_on_the_others_for_each_outage(world: World) -> None:
    """Also over a restart; the alert goes quiet when the channel works again."""
    is_down = True

    def failing() -> list[dict[str, Any]]:
        query = parse("rule:channel_failing", ALERTS.by_name)
        return [one.body for one in world.store.documents.search(ALERTS, query, size=10).documents]

    with receiving(lambda request, number: Answer(503 if is_down else 200)) as broken, receiving() as receiver:
        world.channels(pager=hook(broken), hook=hook(receiver, 'rules = ["channel_failing"]'))
        one = world.notifier()
        turns(one)
        world.fires("a-1")
        turns(one, lambda: len(broken.requests) >= 3)
        soon = failing()
        world.now_us += FAILING_AFTER_US + SECOND_US
        turns(one, failing)
        turns(one, lambda: receiver.requests)
        one = world.notifier()
        turns(one, lambda: one.outboxes["pager"].sender_thread.failures >= 3)
        world.now_us += FAILING_AFTER_US + SECOND_US
        turns(one)
        (found,) = failing()
        state = books_of(world.store.documents, "pager")
        is_down = False
        turns(one, lambda: failing()[0]["is_quiet"])
        turns(one, lambda: len(receiver.requests) == 2)
        is_down = True
        world.fires("b-1")
        turns(one, lambda: one.outboxes["pager"].sender_thread.failures >= 3)
        world.now_us += FAILING_AFTER_US + SECOND_US
        turns(one, lambda: len(failing()) == 2)

    assert soon == []
    assert found["id"] == "channel_failing-pager-1"
    assert found["summary"] == "Nobody is told of alerts by the channel pager: it answered 503: {}"
    assert state.failing_since
    assert said(receiver)[:2] == [
        ("firing", ["channel_failing-pager-1"]),
        ("resolved", ["channel_failing-pager-1"]),
    ]


def test_channels_come_change_and_go_without_a_restart(world: World) -> None:
    """What was told stays told when a channel's settings change."""
    with receiving() as receiver, receiving() as moved:
        world.channels(hook=hook(receiver))
        one = world.notifier()
        turns(one)
        world.fires("a-1")
        turns(one, lambda: receiver.requests)
        world.channels(hook=hook(moved))
        turns(one)
        world.changes("a-1", is_quiet=True)
        turns(one, lambda: moved.requests)
        world.channels()
        turns(one)

    assert said(receiver) == [("firing", ["a-1"])]
    assert said(moved) == [("resolved", ["a-1"])]
    assert one.outboxes == {}


# --- whatever dies ------------------------------------------------------------------------------------------------
class Crash(Exception):
    """The process is gone."""


class Dying:
    """The documents of a store whose process dies, or which does not answer, at a write: before it, or after it."""

    def __init__(self, documents: Any) -> None:
        self._documents = documents
        self.left = 10**9
        self.error: Exception = Crash()
        self.is_after = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._documents, name)

    def put(self, *arguments: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.is_after:
            raise self.error
        done = self._documents.put(*arguments, **named)
        if self.left == 0:
            raise self.error
        return done


@contextmanager
def dying(world: World) -> Iterator[tuple[Dying, Store]]:
    documents = Dying(world.store.documents)
    yield documents, cast("Store", SimpleNamespace(documents=documents))


@pytest.mark.parametrize("is_after", [False, True])
def test_what_changes_between_a_death_and_the_next_process_is_not_taken_for_said(world: World, is_after: bool) -> None:
    """That it is over was sent, and not written down as sent; then it goes on: the receiver must hear that, too."""
    with receiving() as receiver, dying(world) as (documents, store):
        world.channels(hook=hook(receiver))
        one = world.notifier(store)
        turns(one)
        world.fires("a-1")
        turns(one, lambda: receiver.requests)
        world.changes("a-1", is_quiet=True)
        # The first write says that it is about to be sent, the second that it was.
        documents.left, documents.is_after = 2, is_after

        def is_dead() -> bool:
            try:
                turn(one)
            except Crash:
                return True
            return False

        until(is_dead)
        before = said(receiver)
        world.now_us += SECOND_US
        world.changes("a-1", is_quiet=False)
        turns(world.notifier(), lambda: said(receiver)[-1][0] == "firing")
        keys = [request.headers["webhook-id"] for request in receiver.requests]

    assert before == [("firing", ["a-1"]), ("resolved", ["a-1"])]
    assert sorted(set(keys)) == ["hook.a-1-1-1-firing", "hook.a-1-1-2-resolved", "hook.a-1-2-1-firing"]


def test_a_death_behind_a_digest_tells_nothing_twice(world: World) -> None:
    """Before all that is told in it was marked so; the next process finds them there."""
    with receiving(slack) as people, dying(world) as (documents, store):
        api = f'api_url = "{people.url}"\ndigest_above = 3'
        world.channels(team=f'type = "slack"\ntoken = "xoxb-1"\nchannel = "C1"\n{api}')
        turns(world.notifier())
        one = world.notifier(store)
        turn(one)
        for number in range(6):
            world.fires(f"a-{number}")
        # Six bundles, the digest, and two of those that are marked.
        documents.left = 6 + 1 + 2

        def is_dead() -> bool:
            try:
                turn(one)
            except Crash:
                return True
            return False

        until(is_dead)
        before = len(people.requests)
        turns(world.notifier(), lambda: people.requests)
        turns(world.notifier())
        texts = [request.json["text"] for request in people.requests]

    assert before == 0
    assert len(texts) == 1
    assert "6 alerts at once" in texts[0]
    assert world.books("team") == {"notified": 1, "grouped": 5}


def test_what_is_old_when_it_can_be_said_at_last_is_not_said(world: World) -> None:
    """A repeat, or that somebody looks after it, once the alert is over: only that it is over."""
    is_down = False
    with receiving(lambda request, number: Answer(503 if is_down else 200)) as receiver:
        world.channels(hook=hook(receiver, "repeat_s = 60"))
        one = world.notifier()
        turns(one)
        for id in ("a-1", "b-1"):
            world.fires(id)
        turns(one, lambda: world.books("hook") == {"notified": 2})
        is_down = True
        by_person(world, "b-1", alert.acknowledge("anna", world.now_us))
        world.now_us += 61 * SECOND_US
        turns(one, lambda: {"still", "acknowledged"} <= {t[1:].split()[0].strip("]") for t in titles(receiver)})
        for id in ("a-1", "b-1"):
            world.changes(id, is_quiet=True)
        turns(one)
        receiver.requests.clear()
        is_down = False
        turns(one, lambda: len(receiver.requests) >= 2)

    assert sorted(said(receiver)) == [("resolved", ["a-1"]), ("resolved", ["b-1"])]


def titles(receiver: Receiver) -> list[str]:
    return [request.json["data"]["title"] for request in receiver.requests]


def test_another_grouping_tells_nothing_twice(world: World) -> None:
    """What is told already goes on where it was told."""
    with receiving() as receiver:
        grouped = 'group_by = ["rule"]\ngroup_wait_s = 0\ngroup_interval_s = 0'
        world.channels(hook=hook(receiver))
        one = world.notifier()
        turns(one)
        world.fires("a-1")
        turns(one, lambda: receiver.requests)
        world.channels(hook=hook(receiver, grouped))
        turns(one)
        world.now_us += SECOND_US
        world.changes("a-1", count=20)
        world.fires("b-1")
        turns(one, lambda: len(receiver.requests) == 2)
        world.channels(hook=hook(receiver))
        turns(one)
        world.now_us += SECOND_US
        world.changes("b-1", count=20)
        turns(one)
        for id in ("a-1", "b-1"):
            world.changes(id, is_quiet=True)
        turns(one, lambda: len(receiver.requests) == 4)

    assert said(receiver)[:2] == [("firing", ["a-1"]), ("firing", ["b-1"])]
    assert sorted(said(receiver)[2:]) == [("resolved", ["a-1"]), ("resolved", ["b-1"])]


def test_alertmanager_is_told_again_before_it_forgets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what goes on; nothing is written down of that."""
    with receiving() as receiver:
        world.channels(prometheus=f'type = "alertmanager"\nurl = "{receiver.url}"')
        one = world.notifier()
        turns(one)
        for id in ("a-1", "b-1"):
            world.fires(id)
        turns(one, lambda: world.books("prometheus") == {"notified": 2})
        world.now_us += 61 * SECOND_US
        world.changes("b-1", is_quiet=True)
        turns(one, lambda: '"endsAt"' in receiver.requests[-1].body.decode() and len(receiver.requests) >= 3)
        before = len(receiver.requests)
        one.outboxes["prometheus"]._resend_due_s = 0.0
        turns(one, lambda: len(receiver.requests) > before)
        again = receiver.requests[-1].json

    assert [alert["labels"]["alert_id"] for alert in again] == ["a-1"]
    assert again[0]["endsAt"] > again[0]["startsAt"]


def test_what_a_sender_of_events_chose_is_bounded_and_stays_text(world: World) -> None:
    """Else it could make a notice that no receiver takes."""
    with receiving() as receiver:
        world.channels(hook=hook(receiver))
        one = world.notifier()
        turns(one)
        world.fires("a-1", group={"details.user": "x" * 300_000, "b": "\r\n\x1b[2J"}, summary="y\n" * 400)
        turns(one, lambda: receiver.requests)
        alert = receiver.requests[0].json["data"]["alerts"][0]

    assert len(receiver.requests[0].body) < 4_000
    assert len(alert["group"]["details.user"]) == 256
    assert alert["group"]["b"] == "\\r\\n\\x1b[2J"
    assert "\n" not in alert["summary"]


def test_what_is_old_and_settled_is_deleted_with_the_alerts(world: World) -> None:
    """Not what channels are still told of."""
    with receiving() as receiver:
        world.channels(hook=hook(receiver))
        one = world.notifier()
        turns(one)
        for id in ("a-1", "b-1"):
            world.fires(id)
        turns(one, lambda: len(receiver.requests) == 2)
        by_person(world, "a-1", alert.close("anna", world.now_us, reason=Reason.BENIGN))
        turns(one, lambda: len(receiver.requests) == 3)
        mutes.add(
            world.store.documents,
            query="*",
            reason="x",
            by="anna",
            until_us=world.now_us + HOUR_US,
            now_us=world.now_us,
        )
        world.now_us += 40 * 24 * HOUR_US
        deleted = delete_old(world.store.documents, world.now_us - 30 * 24 * HOUR_US)
        left = world.store.documents.search(NOTICES, parse("*", NOTICES.by_name), size=9).documents

    assert deleted == 3
    assert [one.id for one in left] == ["hook.b-1"]


def something_happens(world: World, rng: random.Random, standing: dict[str, str], *, may_close: bool) -> None:
    """To one of three alerts; ``standing`` has those that are closed, two at most."""
    id = f"a-{rng.randrange(3)}"
    if id not in standing:
        world.fires(id)
        standing[id] = "firing"
    elif standing[id] != "closed":
        change = rng.choice(("quiet", "on", "on", "quiet", "ack", "close") if may_close else ("quiet", "on"))
        if change == "ack":
            by_person(world, id, alert.acknowledge("anna", world.now_us))
        elif change != "close":
            world.changes(id, is_quiet=change == "quiet")
        elif list(standing.values()).count("closed") < 2:
            by_person(world, id, alert.close("anna", world.now_us, reason=Reason.BENIGN))
            standing[id] = "closed"


@pytest.mark.sized
@pytest.mark.timeout(300)
def test_whoever_dies_and_wherever_each_receiver_knows_how_all_alerts_stand(world: World) -> None:
    """A receiver that looks at the keys is told everything once, and ends with what is the case.

    Processes die, or hear nothing from the store, before or after any write, one of them after a notice was sent;
    alerts go quiet and on, and are acknowledged and closed meanwhile.
    """
    rng = random.Random(SEED)
    known: dict[str, tuple[int, str]] = {}
    keys: dict[str, bytes] = {}
    twice: list[str] = []

    def answer(request: Request, number: int) -> Answer:
        key, data = request.headers["webhook-id"], request.json["data"]
        if key not in keys:
            keys[key] = request.body
            name = data["thread"].rpartition("-")[0]
            if known.get(name) == (data["thread"], data["state"]) and not data["is_repeat"]:
                twice.append(key)
            known[name] = (data["thread"], data["state"])
        return Answer(rng.choice((200, 200, 200, 503)))

    standing: dict[str, str] = {}
    with receiving(answer) as receiver, dying(world) as (documents, store):
        world.channels(hook=hook(receiver))
        one = world.notifier(store)
        turns(one)
        for step in range(size(60, 2000)):
            world.now_us += SECOND_US
            something_happens(world, rng, standing, may_close=step > 30)
            documents.left = rng.choice((10**9, rng.randrange(1, 6)))
            documents.is_after = rng.random() < 0.5
            documents.error = rng.choice((Crash(), LogweirError(STORE_DOWN, url="x", reason="x", name="store")))
            for _ in range(rng.randrange(1, 4)):
                try:
                    turn(one)
                except Crash:
                    one = world.notifier(store)
                    documents.left = 10**9
                    if rng.random() < 0.7:
                        break  # What was sent may be untrue by the time that the next process looks.
                except LogweirError as error:
                    assert error.problem is STORE_DOWN
                    one._due_s.clear()
        documents.left = 10**9
        turns(
            one,
            lambda: all(
                b.planned(s.channel.settings, {}, world.now_us) is None
                for s in one.outboxes.values()
                for b in s.bundles.values()
            ),
        )
        bodies = {id: doc.body for id, doc in world.store.documents.get(ALERTS, list(standing)).items()}

    expected = {}
    for id, body in bodies.items():
        is_over = body["is_quiet"] or body["status"] == "closed"
        acknowledged = "acknowledged" if body["status"] == "acknowledged" else "firing"
        expected[f"hook.{id}"] = "resolved" if is_over else acknowledged
    assert {name: state for name, (_, state) in known.items() if name in expected} == expected
    assert all(orjson.loads(body)["data"]["state"] in key for key, body in keys.items())
    assert twice == []


def test_two_notifiers_at_once_tell_under_one_key(world: World) -> None:
    """As where a process was taken for dead and is not."""
    with receiving() as receiver:
        world.channels(hook=hook(receiver))
        one, two = world.notifier(), world.notifier()
        turns(one)
        turns(two)
        for number in range(5):
            world.fires(f"a-{number}")
        for _ in range(30):
            turn(one)
            turn(two)
        turns(one, lambda: world.books("hook") == {"notified": 5})
        keys = [request.headers["webhook-id"] for request in receiver.requests]

    assert sorted(set(keys)) == [f"hook.a-{number}-1-1-firing" for number in range(5)]


def test_a_fault_of_ours_does_not_end_all_notifications(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        world.channels(hook=hook(receiver))
        one = world.notifier()
        turns(one)
        world.fires("a-1")
        waits: list[float] = []
        monkeypatch.setattr(
            one, "_stopping", SimpleNamespace(is_set=lambda: len(receiver.requests) > 0, wait=waits.append)
        )
        monkeypatch.setattr(one, "_refresh", lambda: (_ for _ in ()).throw(ZeroDivisionError) if not waits else None)
        one.run()

    assert said(receiver) == [("firing", ["a-1"])]
    assert waits


def test_backfilled_alerts_are_old_news_unless_channels_are_to_be_told_or_they_go_on(world: World) -> None:
    """Each is in the books: as backfilled, as long as it is quiet; nothing of them is told after a restart, either."""
    said_by = {"time": "2026-01-31T12:00:00Z", "by": "anna"}
    with receiving() as receiver:
        world.channels(hook=hook(receiver), groups=hook(receiver, 'group_by = ["rule"]'))
        one = world.notifier()
        turns(one)
        world.fires("a-b1", is_quiet=True, backfilled={**said_by, "is_told": False})
        world.fires("a-b2", is_quiet=True, backfilled={**said_by, "is_told": False})
        turns(one)
        world.now_us += SECOND_US
        turns(world.notifier())
        untold, before = list(receiver.requests), [world.books(name) for name in ("hook", "groups")]
        world.fires("a-b3", is_quiet=True, backfilled={**said_by, "is_told": True})
        world.changes("a-b2", is_quiet=False, count=99)
        one = world.notifier()
        turns(one, lambda: world.books("hook") == {"backfilled": 1, "notified": 2})

    assert untold == []
    assert before == [{"backfilled": 2}, {"backfilled": 2}]
    assert {id for _, ids in said(receiver) for id in ids} == {"a-b2", "a-b3"}
