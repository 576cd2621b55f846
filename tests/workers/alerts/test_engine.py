"""The engine over the embedded queue and store: alerts, once each, whatever dies, and who waits for whom."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from logweir import cli, clock
from logweir.alerts import alert, exceptions
from logweir.alerts.alert import ALERTS, Reason
from logweir.config import Settings
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.query import lists
from logweir.query.parse import parse
from logweir.queue.port import Queue
from logweir.record import Batch
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers.alerts.alerter import Alerter
from logweir_workers.alerts.checkpoint import Checkpoint, Standby, shard_id
from logweir_workers.alerts.engine import Engine
from logweir_workers.alerts.in_force import rules_of_shard
from logweir_workers.alerts.loading import RuleFiles
from tests.proof import SEED, size
from tests.waiting import until
from tests.workers import helpers
from tests.workers.alerts.settings import settings_with
from tests.workers.helpers import Door, in_thread, running_worker

RULES = """
from logweir.alerts import rule, step

@rule(where="details.action:login AND details.outcome:failure", group=["details.ip"], at_least=5, within="2m",
      severity="high", quiet="2m")
def failures(found):
    return f"{found.count} failures from {found.group} on {found.distinct('hostname')} hosts"

@rule(steps=[step("details.outcome:failure", at_least=5), "details.outcome:success"], in_order=True, within="10m",
      group=["details.ip"], severity="critical", quiet="10m")
def success_after_failures(found):
    return f"{found.group} got in"

@rule(where="unheard", severity="low")
def raising(found):
    raise ValueError("never works")
"""
NOW_S = clock.now_us() // 1_000_000 - 600


def login(outcome: str, *, at: float, ip: str = "10.0.0.9", host: str = "web1") -> bytes:
    """An event of so many seconds after some minutes ago."""
    details = {"action": "login", "outcome": outcome, "ip": ip}
    return orjson.dumps({"timestamp": NOW_S + at, "hostname": host, "summary": f"{outcome} {at}", "details": details})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, RULES, partitions=3)


_ids = itertools.count(1)


def batch(*events: bytes, **arguments: Any) -> Batch:
    """A request of its own."""
    return helpers.batch(*events, id=next(_ids).to_bytes(16, "big"), **arguments)


def alerts_of(store: Store, query: str = "*") -> list[dict[str, Any]]:
    return [one.body for one in store.documents.search(ALERTS, parse(query, ALERTS.by_name), size=1000).documents]


def sums(store: Store) -> list[tuple[str, str, str, str, int]]:
    """What has to be the same, in whatever order events come and whoever dies."""
    return sorted(
        (one["rule"], ",".join(one["group"].values()), one["first"], one["last"], one["count"])
        for one in alerts_of(store)
        # A part of another one, as late events have shown: who read them in time never made it.
        if (one["closed"] or {}).get("reason") != "duplicate"
    )


@contextmanager
def running(settings: Settings, queue: Queue, store: Store) -> Iterator[Alerter]:
    """An alerter in a thread."""
    stopping = threading.Event()
    alerter = Alerter(settings, queue=queue, store=store, stopping=stopping, clock=clock.now_us)
    with in_thread(alerter.run, stopping):
        yield alerter


def an_engine(settings: Settings, queue: Queue, store: Store) -> Engine:
    """An engine with the claim, whose steps the test takes itself."""
    files = RuleFiles(settings.alerts, settings.rules_path, last_read=settings.rules_last_read_path)
    checkpoint = Checkpoint.claim(store, settings.worker.group, shard_id("1/1"), "test")
    engine = Engine(
        settings,
        queue=queue,
        store=store,
        files=files,
        checkpoint=checkpoint,
        stopping=threading.Event(),
        clock=clock.now_us,
    )
    engine.begin()
    return engine


def read_all(engine: Engine, queue: Queue, *partitions: int) -> None:
    """Have the engine take what is in the queue, or in some partitions of it, behind what it took."""
    engine.progress.topic_id = queue.topic_id()
    for partition in partitions or range(queue.partition_count()):
        offset = engine.progress.offsets.get(partition, 0)
        reader = queue.reader(partition, offset)
        for delivery in reader.read(wait_s=0, records_max=10_000):
            engine.take(delivery)
        reader.close()
        engine.progress.offsets.setdefault(partition, 0)


def test_failures_and_a_success_make_two_alerts_that_are_complete(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """With counts, groups and evidence; from several partitions; complete once the workers have accounted for all."""
    with running_worker(settings, queue, store), running(settings, queue, store):
        for at in range(12):
            doors[at % 3].write(batch(login("failure", at=at, host=f"web{at % 2}")))
        until(lambda: alerts_of(store, "rule:failures AND count:12"))
        doors[0].write(batch(login("success", at=20)))
        until(lambda: len(alerts_of(store, "completeness:complete")) == 2)
    one, two = sorted(alerts_of(store), key=lambda body: body["severity"], reverse=True)

    assert (one["rule"], one["severity"], one["count"], one["group"]) == (
        "failures",
        "high",
        12,
        {"details.ip": "10.0.0.9"},
    )
    assert one["summary"] == "12 failures from 10.0.0.9 on 2 hosts"
    assert [len(one["evidence"]), len(one["evidence_last"])] == [10, 2]
    assert one["evidence"][0]["event"]["summary"] == "failure 0"
    assert (two["rule"], two["severity"], two["count"]) == ("success_after_failures", "critical", 13)
    assert one["status"] == two["status"] == "open"
    assert store.sources([(row["day"], row["id"]) for row in one["evidence"]]).count(None) == 0


@pytest.mark.sized
@pytest.mark.timeout(300)
def test_whoever_dies_and_whatever_comes_twice_the_alerts_are_the_same(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """Engines that stop anywhere, without a checkpoint or with one, and a zombie that goes on for a while."""
    rng = random.Random(SEED)
    events = [
        login(
            rng.choice(("failure", "failure", "failure", "success")), at=rng.uniform(0, 500), ip=f"10.0.0.{number % 4}"
        )
        for number in range(size(150, 1500))
    ]
    reference = open_store(settings.store.model_copy(update={"url": f"{settings.store.url}-reference"}))
    reference.prepare()
    zombies: list[Engine] = []
    engine = an_engine(settings, queue, store)
    for raw in events:
        whole = batch(raw)
        for _ in range(rng.choice((1, 1, 1, 2))):
            doors[rng.randrange(3)].write(whole)
        if rng.random() < 0.3:
            read_all(engine, queue)
        if rng.random() < 0.2:
            engine._flush()
        if rng.random() < 0.15:
            engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
        if rng.random() < 0.08:
            zombies.append(engine)
            engine = an_engine(settings, queue, store)
        if zombies and rng.random() < 0.2:
            try:
                read_all(zombies[-1], queue)
                zombies[-1]._flush()
                zombies[-1]._checkpoint.write(zombies[-1].progress, zombies[-1].evaluator.groups, clock=clock.now_us)
            except LogweirError as error:
                assert error.problem is CLAIM_LOST
    read_all(engine, queue)
    engine._flush()
    undisturbed = an_engine(settings, queue, reference)
    read_all(undisturbed, queue)
    undisturbed._flush()
    expected = sums(reference)
    reference.close()

    assert len(expected) > 4
    assert sums(store) == expected


def test_who_reads_in_another_order_than_the_one_that_died_leaves_no_part_of_an_episode_behind(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """One has made two alerts of what, by an event between them, is one episode, and died before it said where."""
    for partition, times in enumerate((range(5), range(200, 205))):
        doors[partition].write(batch(*(login("failure", at=at) for at in times)))
    died = an_engine(settings, queue, store)
    for partition in (0, 1):
        read_all(died, queue, partition)
        died._flush()
    before = [one["status"] for one in alerts_of(store)]
    doors[2].write(batch(login("failure", at=100)))
    engine = an_engine(settings, queue, store)
    for partition in (2, 1, 0):
        read_all(engine, queue, partition)
        engine._flush()

    assert before == ["open", "open"]
    assert sorted((one["status"], one["count"]) for one in alerts_of(store)) == [("closed", 5), ("open", 11)]


def test_what_people_did_stays_and_nothing_goes_back_when_it_is_read_again(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """The process dies before its checkpoint: the next one leaves the alert alone until it has read as far."""
    engine = an_engine(settings, queue, store)
    for at in range(8):
        doors[0].write(batch(login("failure", at=at)))
    read_all(engine, queue)
    engine._flush()
    (before,) = alerts_of(store)
    alert.change(store.documents, before["id"], alert.acknowledge("anna", clock.now_us()))
    again = an_engine(settings, queue, store)
    again.progress.topic_id = queue.topic_id()
    for delivery in queue.reader(0, 0).read(wait_s=0, records_max=6):
        again.take(delivery)
    again._flush()
    (half_way,) = alerts_of(store)
    read_all(again, queue)
    doors[1].write(batch(login("failure", at=9)))
    read_all(again, queue)
    again._flush()
    (after,) = alerts_of(store)

    assert half_way["count"] == 8
    assert (after["count"], after["status"], after["assignee"]) == (9, "acknowledged", "anna")
    assert [line["change"] for line in after["history"]] == ["opened", "status"]


def test_a_snooze_ends_by_itself(
    settings: Settings, queue: Queue, store: Store, doors: list[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alerter looks for those that are over."""
    monkeypatch.setattr("logweir_workers.alerts.engine._SNOOZE_INTERVAL_S", 0.1)
    doors[0].write(batch(*(login("failure", at=at) for at in range(5))))
    with running(settings, queue, store):
        until(lambda: alerts_of(store))
        (one,) = alerts_of(store)
        now_us = clock.now_us()
        alert.change(store.documents, one["id"], alert.snooze("anna", now_us, until_us=now_us + 1_000_000))
        assert alerts_of(store, "status:snoozed")
        until(lambda: alerts_of(store, "status:open"))


def test_matches_after_a_close_open_a_new_alert_that_names_the_old_one(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    engine = an_engine(settings, queue, store)
    for at in range(6):
        doors[0].write(batch(login("failure", at=at)))
    read_all(engine, queue)
    engine._flush()
    (first,) = alerts_of(store)
    closed_us = (NOW_S + 30) * 1_000_000
    alert.change(store.documents, first["id"], alert.close("anna", closed_us, reason=Reason.BENIGN))
    for at in range(40, 46):
        doors[0].write(batch(login("failure", at=at)))
    read_all(engine, queue)
    for _ in range(2):
        engine._flush()
    by_id = {one["id"]: one for one in alerts_of(store)}
    (second,) = [one for id, one in by_id.items() if id != first["id"]]

    assert (by_id[first["id"]]["count"], by_id[first["id"]]["status"]) == (6, "closed")
    assert (second["count"], second["status"], second["previous"]) == (6, "open", first["id"])


def test_withheld_numbers_could_have_fired_and_fire_late_when_they_come(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """Of twelve numbered events five never came; they come after all."""
    settings = settings.model_copy(update={"accounting": settings.accounting.model_copy(update={"late_after_s": 1.0})})
    text = RULES.replace("at_least=5, within", "at_least=10, within")
    (settings.rules_path / "own.py").write_text(text)
    received_us = (NOW_S + 12) * 1_000_000

    def write(numbers: range, at_us: int) -> None:
        events = [login("failure", at=number) for number in numbers]
        first = numbers[0] + 1
        doors[0].write(
            batch(
                *events,
                emitter="web-17",
                epoch="e1",
                sequence_first=first,
                high=first + len(events) - 1,
                received_us=at_us,
            )
        )

    with running_worker(settings, queue, store), running(settings, queue, store):
        write(range(4), received_us)
        write(range(9, 12), received_us)
        write(range(12, 13), received_us + 5_000_000)
        until(lambda: alerts_of(store, "rule:failures AND kind:near_miss AND completeness:incomplete"))
        (missed,) = alerts_of(store, "rule:failures")
        write(range(4, 9), received_us + 300_000_000)
        until(lambda: alerts_of(store, "rule:failures AND kind:alert AND late:yes AND completeness:complete"))
    (fired,) = alerts_of(store, "rule:failures")

    assert (missed["count"], missed["completeness"]["missing"], missed["severity"]) == (8, 5, "low")
    assert missed["completeness"]["emitters"] == [{"emitter": "app/web-17", "missing": 5}]
    assert (fired["id"], fired["count"], fired["severity"]) == (missed["id"], 13, "high")
    assert fired["late"]["late_s"] > 60
    assert missed["summary"] == "could have fired: failures for 10.0.0.9: 8 matches, 5 numbers missing from app/web-17"


@pytest.mark.parametrize(
    ("came", "comment"),
    [(5, "All numbers came; the rule did not fire."), (4, "Too few numbers are missing still for the rule to fire.")],
)
def test_a_near_miss_is_withdrawn_when_its_rule_cannot_fire_by_what_is_missing_any_more(
    settings: Settings, queue: Queue, store: Store, doors: list[Door], came: int, comment: str
) -> None:
    """With a reason and a line of history; two more failures, and it is an alert that is open."""
    settings = settings.model_copy(update={"accounting": settings.accounting.model_copy(update={"late_after_s": 1.0})})
    (settings.rules_path / "own.py").write_text(RULES.replace("at_least=5, within", "at_least=10, within"))

    def write(first: int, *events: bytes, after_s: int) -> None:
        high = first + len(events) - 1
        received_us = (NOW_S + after_s) * 1_000_000
        numbered = {"emitter": "web-17", "epoch": "e1", "sequence_first": first, "high": high}
        doors[0].write(batch(*events, **numbered, received_us=received_us))

    def failed(first: int, last: int) -> list[bytes]:
        return [login("failure", at=at) for at in range(first, last + 1)]

    with running_worker(settings, queue, store), running(settings, queue, store):
        write(1, *failed(1, 4), after_s=12)
        write(10, *failed(5, 8), after_s=12)
        write(14, login("none", at=9), after_s=20)
        until(lambda: alerts_of(store, "rule:failures AND kind:near_miss"))
        write(5, *[login("none", at=9)] * came, after_s=30)
        until(lambda: alerts_of(store, "rule:failures AND status:closed"))
        (withdrawn,) = alerts_of(store, "rule:failures")
        write(15, *failed(10, 11), after_s=40)
        until(lambda: alerts_of(store, "rule:failures AND kind:alert AND status:open"))
    (fired,) = alerts_of(store, "rule:failures")

    assert (withdrawn["kind"], withdrawn["closed"]["by"], withdrawn["closed"]["reason"]) == (
        *("near_miss", "logweir", "benign"),
    )
    assert withdrawn["closed"]["comment"] == comment
    assert withdrawn["history"][-1]["after"] == "closed"
    assert withdrawn["summary"].startswith("could have fired: failures for 10.0.0.9: 8 matches, ")
    assert withdrawn["completeness"]["missing"] == 5 - came
    assert (fired["id"], fired["count"], fired["summary"]) == (
        *(withdrawn["id"], 10, "10 failures from 10.0.0.9 on 1 hosts"),
    )


def test_events_later_than_what_is_remembered_are_counted_by_asking_the_store(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """Each once, also what a sender repeats hours later, and into the alert that is there already."""
    settings = settings.model_copy(update={"alerts": settings.alerts.model_copy(update={"lateness_s": 60.0})})
    with running_worker(settings, queue, store), running(settings, queue, store) as alerter:
        first = [batch(login("failure", at=at, host=f"web{at}")) for at in range(3)]
        for one in first:
            doors[0].write(one)
        until(lambda: alerter.engine is not None and alerter.engine.progress.watermark_us > (NOW_S + 300) * 1_000_000)
        for at in range(3, 12):
            doors[at % 3].write(batch(login("failure", at=at, host=f"web{at}")))
        doors[1].write(first[0])
        doors[1].write(batch(login("failure", at=-500)))
        until(lambda: alerts_of(store, "rule:failures AND count:12 AND completeness:complete"))
        doors[1].write(batch(login("failure", at=12, host="web12")))
        until(lambda: alerts_of(store, "rule:failures AND count:13"))
    (one,) = alerts_of(store)

    assert one["summary"] == "13 failures from 10.0.0.9 on 13 hosts"
    assert one["late"]["late_s"] > 300
    assert [row["event"]["hostname"] for row in one["evidence"]] == [f"web{at}" for at in range(10)]


def test_a_second_alerter_waits_and_goes_on_where_the_first_was(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    with running(settings, queue, store) as first:
        until(lambda: first.engine is not None)
        with running(settings, queue, store) as second:
            for at in range(4):
                doors[0].write(batch(login("failure", at=at)))
            until(lambda: first.engine is not None and first.engine.evaluator.counts.get("failures"))
            assert second.engine is None
            first._stopping.set()
            until(lambda: second.engine is not None)
            doors[0].write(batch(login("failure", at=5)))
            until(lambda: alerts_of(store, "count:5"))


def test_a_process_that_is_silent_is_taken_for_gone_only_after_a_while(
    settings: Settings, queue: Queue, store: Store
) -> None:
    """Another machine's: whether it has ended cannot be seen from here. One of this machine that has ended is gone."""
    standby = Standby(store, settings.worker.group, shard_id("1/1"), takeover_s=10)
    assert standby.is_free(0.0)
    engine = an_engine(settings, queue, store)
    seen = [standby.is_free(at) for at in (100.0, 109.0)]
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    seen += [standby.is_free(at) for at in (111.0, 120.0, 121.5)]
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us, is_released=True)

    assert seen == [False, False, False, False, True]
    assert standby.is_free(122.0)


def test_a_rule_that_raises_makes_its_alert_and_is_parked_when_it_goes_on(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """Others are not harmed; what a parked rule misses is counted."""
    engine = an_engine(settings, queue, store)
    for at in range(8):
        doors[0].write(batch(orjson.dumps({"summary": "unheard", "timestamp": NOW_S + at * 0.01})))
        read_all(engine, queue)
        engine._flush()
    (one,) = alerts_of(store)

    assert one["summary"].startswith("raising: ")
    assert "never works" in engine.evaluator.parked["raising"]
    assert engine.evaluator.counts["raising"]["unevaluated"] >= 2
    assert engine.evaluator.counts["raising"]["errors"] >= 5


def test_an_exception_that_is_wanted_is_tried_first(settings: Settings, queue: Queue, store: Store) -> None:
    """One with which the rule would not fire for its own example is refused, and says why."""
    failed = "event(outcome='failure', action='login', ip='10.0.0.9', at=at)"
    example = f"failures.example('five', [{failed} for at in range(5)], alerts=1)"
    (settings.rules_path / "own.py").write_text(f"{RULES}\nfrom logweir.alerts import event\n{example}\n")
    now_us = clock.now_us()
    for query in ("details.ip:10.0.0.9", "details.ip:10.0.0.7"):
        named = {"reason": "x", "by": "anna", "until_us": now_us + clock.DAY_US, "now_us": now_us}
        exceptions.add(store.documents, rule="failures", query=query, **named)
    engine = an_engine(settings, queue, store)
    found = {one.query: one for one in exceptions.past_and_present(store.documents)}

    assert [one.query for one in engine.evaluator.excepting.exceptions] == ["details.ip:10.0.0.7"]
    assert found["details.ip:10.0.0.7"].state == "in_force"
    assert found["details.ip:10.0.0.9"].state == "refused"
    assert "example 'five'" in (found["details.ip:10.0.0.9"].refusal or "")


def test_rules_ask_lists_as_they_are_now_and_one_that_is_not_there_is_said(
    settings: Settings, queue: Queue, store: Store, doors: list[Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a change of the rule; in the search language and in Python; a backtest finds the same."""
    monkeypatch.setattr(lists, "_in_use", lists.Lists(settings.lists_path))
    settings.lists_path.mkdir()
    (settings.lists_path / "bad.txt").write_text("10.0.0.0/8\n")
    (settings.rules_path / "own.py").write_text("""
from logweir.alerts import lists, rule

@rule(where="details.ip:@bad", severity="low")
def listed(found):
    return "x"

@rule(where=lambda seen: seen.get("details.ip") in lists("bad"), severity="low")
def listed_in_python(found):
    return "x"

@rule(where="details.ip:@absent", severity="low")
def not_there(found):
    return "x"
""")
    engine = an_engine(settings, queue, store)
    for at, ip in enumerate(("10.0.0.9", "11.0.0.9")):
        doors[0].write(batch(login("failure", at=at, ip=ip)))
    read_all(engine, queue)
    (settings.lists_path / "bad.txt").write_text("11.0.0.0/8\n")
    lists.in_use().reload()
    doors[0].write(batch(login("failure", at=5, ip="10.0.0.10")), batch(login("failure", at=6, ip="11.0.0.10")))
    read_all(engine, queue)
    engine.reload()

    counts = {name: counts["matches"] for name, counts in engine.evaluator.counts.items()}
    assert counts == {"listed": 2, "listed_in_python": 2}
    assert [problem for problem in engine.progress.files_bad if "no list absent" in problem]


def test_what_is_excepted_does_not_count_and_is_counted_whoever_dies(
    settings: Settings, queue: Queue, store: Store, doors: list[Door]
) -> None:
    """Also of late events, and in a backtest; what ends counts again."""

    def write_checkpoint(engine: Engine) -> None:
        engine._note_progress()
        engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)

    def excepting(query: str) -> str:
        until_us = clock.now_us() + clock.DAY_US
        named = {"reason": "x", "by": "anna", "until_us": until_us, "now_us": clock.now_us()}
        return exceptions.add(store.documents, rule="failures", query=query, **named).id

    def write(user: str, *, at: float = 0.0) -> None:
        event = orjson.loads(login("failure", at=at))
        event["details"]["username"] = user
        doors[0].write(batch(orjson.dumps(event)))

    id = excepting("details.username:scanner")
    engine = an_engine(settings, queue, store)
    for at in range(4):
        write("anna", at=at)
        write("scanner", at=at)
    read_all(engine, queue)
    engine._flush()
    write_checkpoint(engine)
    none_yet = alerts_of(store, "rule:failures")
    write("scanner", at=5)
    write("anna", at=6)
    engine = an_engine(settings, queue, store)
    read_all(engine, queue)
    engine._flush()
    write_checkpoint(engine)
    (one,) = alerts_of(store, "rule:failures")
    counts = dict(engine.evaluator.counts["failures"])
    exceptions.end(store.documents, id, by="anna", now_us=clock.now_us())
    engine.read_exceptions()
    write("scanner", at=7)
    read_all(engine, queue)
    engine._flush()
    (after,) = alerts_of(store, "rule:failures")

    assert none_yet == []
    assert (one["count"], counts) == (5, {"matches": 10, "excepted": 5, "counted": 5})
    assert engine.evaluator.excepted == {id: 5}
    assert after["count"] == 6


@pytest.mark.parametrize("takes", ["'x' * 10**15", "bytearray(1 << 62)", "[0] * 10**14"])
def test_a_rule_that_takes_all_memory_harms_no_other_nor_does_an_event_with_thousands_of_fields(
    settings: Settings, queue: Queue, store: Store, doors: list[Door], takes: str
) -> None:
    """In its condition and in its words."""
    (settings.rules_path / "own.py").write_text(
        RULES.replace('raise ValueError("never works")', f"return str(len({takes}))")
        + f"\n@rule(where=lambda event: len({takes}) > 0, severity='low')\ndef hungry(found):\n    return 'x'\n"
    )
    engine = an_engine(settings, queue, store)
    for at in range(8):
        event = orjson.loads(login("failure", at=at))
        event["details"] |= {f"field{number}": "unheard" * 20 for number in range(5_000)}
        doors[0].write(batch(orjson.dumps({**event, "summary": "unheard"})))
        read_all(engine, queue)
        engine._flush()

    assert engine.evaluator.parked.keys() == {"raising", "hungry"}
    assert engine.evaluator.counts["hungry"] == {"errors": 5, "matches": 8, "unevaluated": 8}
    (found,) = alerts_of(store, "rule:failures")
    assert (found["count"], len(found["evidence"])) == (8, 8)


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
def test_a_rule_that_only_says_something_else_goes_on_counting(
    settings: Settings, queue: Queue, store: Store, doors: list[Door], is_restarted: bool
) -> None:
    """A comment, the words, the severity: what was counted stays, and the open alert takes them over."""
    engine = an_engine(settings, queue, store)
    for at in range(3):
        doors[0].write(batch(login("failure", at=at)))
    for at in range(5):
        doors[0].write(batch(login("failure", at=at, ip="10.0.0.1")))
    read_all(engine, queue)
    engine._flush()
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    said = RULES.replace("failures from", "bad logins of").replace('severity="high"', 'severity="medium"')
    (settings.rules_path / "own.py").write_text(said + "\n# changed\n")
    if is_restarted:
        engine = an_engine(settings, queue, store)
    else:
        engine.reload()
    engine._flush()
    (before,) = alerts_of(store, "rule:failures")
    for at in range(3, 5):
        doors[0].write(batch(login("failure", at=at)))
    read_all(engine, queue)
    engine._flush()

    assert (before["summary"], before["severity"]) == ("5 bad logins of 10.0.0.1 on 1 hosts", "medium")
    assert sorted((one["summary"], one["severity"], one["count"]) for one in alerts_of(store, "rule:failures")) == [
        ("5 bad logins of 10.0.0.1 on 1 hosts", "medium", 5),
        ("5 bad logins of 10.0.0.9 on 1 hosts", "medium", 5),
    ]


def test_a_rule_that_changes_begins_anew_and_others_go_on(
    settings: Settings, queue: Queue, store: Store, doors: list[Door], caplog: pytest.LogCaptureFixture
) -> None:
    """Also when it cannot be read: then it stays as it was."""
    (settings.rules_path / "other.py").write_text(RULES.replace("def ", "def other_"))
    engine = an_engine(settings, queue, store)
    for at in range(4):
        doors[0].write(batch(login("failure", at=at)))
    read_all(engine, queue)
    (settings.rules_path / "own.py").write_text(RULES.replace('at_least=5, within="2m"', 'at_least=5, within="119s"'))
    (settings.rules_path / "other.py").write_text("this is no Python")
    engine.reload()
    doors[0].write(batch(login("failure", at=5)))
    read_all(engine, queue)
    engine._flush()

    assert [one["rule"] for one in alerts_of(store)] == ["other_failures"]
    assert "The rule failures counts something else than before: it begins anew." in caplog.messages
    assert len([text for text in caplog.messages if "begins anew" in text]) == 1
    assert "other.py" in str(engine.in_force.files.problems[0])
    assert set(engine.evaluator.rules) == {
        *("failures", "success_after_failures", "raising"),
        *("other_failures", "other_success_after_failures", "other_raising"),
    }


def test_shards_share_the_rules_out_and_leave_none_out(settings: Settings) -> None:
    (settings.rules_path / "own.py").write_text(
        "from logweir.alerts import rule\n"
        + "\n".join(f"@rule(where='x', severity='low')\ndef rule_{number}(found): return 'x'" for number in range(50))
    )
    rules = RuleFiles(settings.alerts, settings.rules_path).rules
    shares = [set(rules_of_shard(rules, f"{number}/4")) for number in range(1, 5)]

    assert sum(map(len, shares)) == 50
    assert set().union(*shares) == set(rules)
    assert all(shares)


def test_doctor_says_whether_rules_are_evaluated(
    settings: Settings, queue: Queue, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody ever; now; with a rule that is parked; no more."""

    def said() -> dict[str, Any]:
        cli.main(["doctor", "--json", "--data-dir", str(settings.data_dir)])
        lines = [orjson.loads(line) for line in capfd.readouterr().out.splitlines()]
        return next(line for line in lines if line["what"] == "alerts")

    found = [said()]
    engine = an_engine(settings, queue, store)
    engine._note_rules()
    for parked, at_us in ((None, clock.now_us()), ("raising", clock.now_us()), (None, clock.now_us() - 600_000_000)):
        engine.evaluator.parked = {parked: "it fails"} if parked else {}
        engine._note_rules()
        engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=lambda: at_us)  # noqa: B023
        found.append(said())

    assert [line["state"] for line in found] == ["warning", "ok", "warning", "warning"]
    assert [line["found"].partition(",")[0] for line in found[1:]] == ["3 rules evaluated"] * 3
    assert "parked: raising" in found[2]["found"]
    assert "Start logweir alerter again" in found[3]["advice"]
