"""Replay: what is missing comes back, what is redone counts once, whenever it is killed; nothing else changes."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from logweir import clock, config
from logweir.audit.books import read_books
from logweir.errors import LogweirError
from logweir.ledger.documents import POSITION, PartitionId
from logweir.ledger.documents import WINDOW as WINDOW_KIND
from logweir.ledger.replays import ReplayProgress
from logweir.ledger.revisions import read_corrections
from logweir.query.parse import parse
from logweir.queue import open_queue
from logweir.queue.port import Queue
from logweir.receipt import Receipt
from logweir.record import Accepted, Kind, Marker
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers import document as documents
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.store_audit import StoreAuditor
from logweir_workers.deadletters.retry import Retrier
from logweir_workers.normalise.fields import normalise
from logweir_workers.parsers import Parsers
from logweir_workers.replay.replay import Replay, Selection
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

EPOCH = b"\x07" * 16
EVERYTHING = Selection()


class World:
    """A door, a queue, a store, and a worker that has accounted for all records written so far."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        self.rules = folder / "filters.toml"
        folder.mkdir(exist_ok=True)
        self.rules.write_text("")
        values = {
            "data_dir": folder,
            "queue.partitions": 1,
            "worker.ledger_interval_s": 0.1,
            "worker.bulk_events_max": 16,
            "worker.filters_file": self.rules,
            "queue.session_timeout_s": 1,
            **overrides,
        }
        self.settings = config.load(environment={}, overrides=values)
        self.queue: Queue = open_queue(self.settings.queue)
        self.queue.prepare()
        self.store: Store = open_store(self.settings.store)
        self.store.prepare()
        self.door = Door(self.queue)

    def close(self) -> None:
        self.door.close()
        self.queue.close()
        self.store.close()

    def filter(self, query: str = "", name: str = "noise") -> None:
        self.rules.write_text(f'[[rule]]\nname = "{name}"\nquery = "{query}"\n' if query else "")

    def work_off(self) -> None:
        id = POSITION.id("logweir", PartitionId(self.queue.topic_id(), 0))
        with running_worker(self.settings, self.queue, self.store):
            until(
                lambda: (
                    (found := self.store.ledger.read([id])) != {}
                    and found[id].body.get("next_offset") == self.queue.offsets(0)[1]
                )
            )

    def replay(
        self, selection: Selection = EVERYTHING, *, store: Store | None = None, **options: Any
    ) -> ReplayProgress:
        one = self.begun(selection, store=store, **options)
        progress = one.run(lambda _: None)
        assert progress.is_done
        return progress

    def begun(self, selection: Selection = EVERYTHING, *, store: Store | None = None, **options: Any) -> Replay:
        return Replay(
            settings=self.settings,
            store=store or self.store,
            queue=self.queue,
            selection=selection,
            clock=clock.now_us,
            **{"stopping": threading.Event(), **options},
        )

    # --- what is there ---------------------------------------------------------------------------------------------
    def stored(self) -> list[dict[str, Any]]:
        return self.store.search(parse("*"), size=10_000).events

    def summaries(self) -> list[str]:
        return sorted(one["summary"] for one in self.stored())

    def lines(self) -> dict[tuple[str, str], int]:
        found: Counter[tuple[str, str]] = Counter()
        for one in read_corrections(self.store, "logweir"):
            assert one.cause.startswith(("replay", "retry"))
            found[one.from_outcome.value, one.to_outcome.value] += one.count
        return dict(found)

    def outcomes(self) -> dict[str, int]:
        """What the books say, corrections included."""
        books = read_books(self.store, group="logweir", late_us=0, now_us=clock.now_us())
        assert books.balanced
        return {name: count for name, count in books.row.outcomes.items() if count}

    def letters(self) -> int:
        return sum(held.letters for held in self.store.dead_letters.count().values())

    def assert_agreed(self) -> None:
        """The third witness: the store has as many documents as the books say are indexed, letters likewise."""
        outcomes = self.outcomes()
        assert len(self.stored()) == outcomes.get("indexed", 0)
        assert self.letters() == outcomes.get("dead_lettered", 0)

    def lose(self, *summaries: str) -> None:
        """Delete events in the store, as a disaster there would."""
        for one in self.stored():
            if one["summary"] in summaries:
                (own,) = self.store.provenances([(one["_index"][-8:], one["_id"])])
                assert own is not None
                self.store.delete([(one["_index"][-8:], one["_id"], own)])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def event(summary: str, **fields: object) -> bytes:
    return json.dumps({"summary": summary, **fields}).encode()


def some(count: int, prefix: str = "event", **fields: object) -> list[bytes]:
    return [event(f"{prefix} {number}", **fields) for number in range(count)]


# --- what is missing ------------------------------------------------------------------------------------------------
def test_replay_of_everything_changes_nothing(world: World) -> None:
    """No document, no outcome, no correction: also where events were duplicates, filtered or dead letters."""
    world.filter("noise")
    numbered = {"emitter": "web", "epoch": "e1", "sequence_first": 1}
    world.door.write(batch(*some(40)))
    world.door.write(batch(event("same"), **numbered), batch(event("noise"), b"not json", id=b"\x02" * 16))
    world.door.write(batch(event("same"), **numbered), batch(event("other"), **numbered))
    world.work_off()
    before = world.stored(), world.outcomes(), world.letters()
    progress = world.replay()

    assert (world.stored(), world.outcomes(), world.letters()) == before
    assert world.outcomes() == {"indexed": 41, "duplicate": 1, "filtered": 1, "dead_lettered": 2}
    assert progress.tally.as_json() == {
        "events": 45,
        "missing": 0,
        "changed": 0,
        "written": 0,
        "undecided": 0,
        "uncounted": 0,
        "expired": 0,
        "moved": {},
    }
    assert world.lines() == {}


def test_only_what_is_missing_is_created_again(world: World) -> None:
    """Under the same ids, in the same index, with the same provenance: the store is as it was."""
    world.door.write(batch(*some(50)))
    world.work_off()
    before = world.stored()
    world.lose("event 3", "event 49")
    counted = world.replay(dry_run=True).tally
    left = world.summaries()
    done = world.replay().tally

    assert [counted.events, counted.missing, counted.written, len(left)] == [50, 2, 0, 48]
    assert [done.events, done.missing, done.written] == [50, 2, 2]
    assert world.stored() == before
    assert world.lines() == {}


def test_a_difference_that_the_auditor_found_is_gone_once_the_store_is_mended(world: World) -> None:
    """Workers ask the store for each window now and then: who brings events back has the books say so."""
    world.door.write(batch(*some(30)))
    world.door.write_as(Kind.MARKER, Marker([Accepted("app", None, 30, 0)], []), first=1, count=30)
    world.work_off()
    world.lose("event 3", "event 4")
    place = POSITION.id("logweir", PartitionId(world.queue.topic_id(), 0))
    ledger = PartitionLedger.claim(
        store=world.store, group="logweir", topic_id=world.queue.topic_id(), partition=0, owner="test"
    )
    (window,) = world.store.ledger.scan("window:logweir:")
    auditor = StoreAuditor(store=world.store, group="logweir", clock=clock.now_us)
    auditor.suspect([WINDOW_KIND.place_of(window.id)])
    auditor.audit_some([ledger])
    before = read_books(world.store, group="logweir", late_us=0, now_us=clock.now_us())
    world.replay(dry_run=True)
    still = read_books(world.store, group="logweir", late_us=0, now_us=clock.now_us())
    world.replay()

    assert (before.imbalance, still.imbalance) == (2, 2)
    assert world.store.ledger.read([place])[place].body["next_offset"] == 2
    world.assert_agreed()


def test_a_missing_event_that_todays_filters_leave_out_is_booked_as_filtered(world: World) -> None:
    """What is created again follows today's rules, and the books say so; what is there stays."""
    world.door.write(batch(*some(4, "noise")))
    world.work_off()
    world.lose("noise 1")
    world.filter("noise")
    world.replay()

    assert world.summaries() == ["noise 0", "noise 2", "noise 3"]
    assert world.lines() == {("indexed", "filtered"): 1}
    world.assert_agreed()


def test_a_record_that_came_twice_is_replayed_once(world: World) -> None:
    """A spool may put a record on the topic again: its events are counted and written once."""
    first = batch(*some(20))
    world.door.write(first)
    world.door.write(first, first=1)
    world.work_off()
    world.lose("event 7")
    tally = world.replay().tally

    assert [tally.events, tally.missing, tally.written] == [20, 1, 1]
    assert len(world.stored()) == 20


def test_what_has_come_by_is_remembered_to_a_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the processes heard of least recently nothing, of others no more than so many ranges; at the end nothing."""
    monkeypatch.setattr("logweir_workers.replay.replay._SEEN_STREAMS_MAX", 2)
    monkeypatch.setattr("logweir_workers.replay.replay._SEEN_RANGES_MAX", 3)
    monkeypatch.setattr("logweir_workers.replay.replay._SAVE_INTERVAL_S", 0.0)
    for first in range(1, 20, 2):
        world.door.write(batch(event(f"hole {first}"), id=bytes([first]) * 16), first=first)
    for at in range(1, 5):
        other = Door(world.queue, epoch=bytes([at]) * 16)
        other.write(batch(event(f"other {at}"), id=bytes([at]) * 15 + b"o"))
        other.close()
    world.work_off()
    sizes = []

    def note(progress: ReplayProgress) -> None:
        sizes.append((len(progress.seen), max((seen.range_count for seen in progress.seen.values()), default=0)))

    progress = world.begun().run(note)

    assert progress.tally.events == 14
    assert max(streams for streams, _ in sizes) == 2
    assert max(ranges for _, ranges in sizes) == 4
    assert progress.seen == {}


# --- everything by today's rules --------------------------------------------------------------------------------------
def test_reprocessing_follows_a_change_of_normalisation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All documents are changed, none is there twice, no outcome is another one, and the old words are not found."""
    world.door.write(batch(*some(100)))
    world.work_off()
    ids = sorted(one["_id"] for one in world.stored())

    def louder(sent: dict[str, Any], context: Any) -> dict[str, Any]:
        source = normalise(sent, context)
        return {**source, "summary": source["summary"].replace("event", "loud")}

    monkeypatch.setattr(documents, "normalise", louder)
    counted = world.replay(reprocess=True, dry_run=True).tally
    done = world.replay(reprocess=True).tally
    again = world.replay(reprocess=True, restart=True).tally

    assert [counted.changed, counted.written] == [100, 0]
    assert [done.changed, done.written, done.missing] == [100, 100, 0]
    assert [again.changed, again.written] == [0, 100]
    assert sorted(one["_id"] for one in world.stored()) == ids
    assert world.store.count(parse("loud")).number == 100
    assert world.store.count(parse("event")).number == 0
    assert world.lines() == {}
    world.assert_agreed()


def test_reprocessing_fills_the_details_of_events_that_were_stored_before_there_were_parsers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the parsers of today; and by those of the operator's own, which come later still."""
    line = "Failed password for root from 192.0.2.7 port 4242 ssh2"
    world.door.write(batch(event(line, processname="sshd"), event("badge of alice opened north", processname="badged")))
    with monkeypatch.context() as before:
        before.setattr("logweir_workers.enrich.load_parsers", lambda _settings: Parsers(()))
        world.work_off()
    untouched = [one.get("details") for one in world.stored()]

    first = world.replay(reprocess=True).tally
    failed = world.store.search(parse("details.action:login AND details.username:root"), size=10).events
    own = world.rules.with_name("own")
    own.mkdir()
    own.joinpath("badged.py").write_text(BADGED)
    world.settings = world.settings.model_copy(
        update={"worker": world.settings.worker.model_copy(update={"enrich_dir": own})}
    )
    second = world.replay(reprocess=True, restart=True).tally
    opened = world.store.search(parse("details.door:north"), size=10).events

    assert untouched == [None, None]
    assert (first.changed, second.changed) == (1, 1)
    assert [one["summary"] for one in failed] == [line]
    assert failed[0]["details"]["outcome"] == "failure"
    assert [one["details"] for one in opened] == [{"action": "open", "door": "north"}]
    assert len(world.stored()) == 2
    assert world.lines() == {}
    world.assert_agreed()


BADGED = """
from logweir_workers.parsers import line_parser

@line_parser(processes=("badged",), adds=("action", "door"), examples=())
def badged(line):
    return {"action": "open", "door": line.split(" ")[-1]}
"""


def test_reprocessing_follows_a_change_of_filters_there_and_back(world: World) -> None:
    """Filtered documents go, and come back when the rule goes; each way is a correction line by emitter."""
    world.door.write(batch(*some(30, "noise")), batch(*some(10), id=b"\x02" * 16, key="other"))
    world.work_off()
    before = world.stored()
    world.filter("noise")
    world.replay(reprocess=True)
    without = world.summaries(), world.lines()
    world.assert_agreed()
    world.filter()
    world.replay(reprocess=True)

    assert without == ([f"event {number}" for number in range(10)], {("indexed", "filtered"): 30})
    assert sorted(world.stored(), key=lambda one: one["_id"]) == sorted(before, key=lambda one: one["_id"])
    assert world.lines() == {("indexed", "filtered"): 30, ("filtered", "indexed"): 30}
    assert {one.key for one in read_corrections(world.store, "logweir")} == {"app"}
    world.assert_agreed()


def test_an_event_that_becomes_unfit_is_a_dead_letter_and_comes_back_when_mended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its document goes nothing else; mended, it is indexed and its letter is gone."""
    world.door.write(batch(*some(6), event("bad")))
    world.work_off()

    def broken(sent: dict[str, Any], context: Any) -> dict[str, Any]:
        if sent["summary"] == "bad":
            raise ValueError("a fault of ours")
        return normalise(sent, context)

    with monkeypatch.context() as patched:
        patched.setattr(documents, "normalise", broken)
        world.replay(reprocess=True)
        world.assert_agreed()
        (letter,) = world.store.dead_letters.page(size=9)
        assert len(world.stored()) == 6
    world.replay(reprocess=True)

    assert (letter.reason, letter.raw, letter.body["stage"]) == ("event_unfit", event("bad"), "normalise")
    assert len(world.stored()) == 7
    assert world.lines() == {("indexed", "dead_lettered"): 1, ("dead_lettered", "indexed"): 1}
    world.assert_agreed()


def test_replays_and_retries_of_one_event_are_lines_from_what_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead, retried, filtered by a replay, brought back by another: the books follow each step."""
    with monkeypatch.context() as patched:
        patched.setattr(documents, "normalise", lambda sent, context: 1 / 0)
        world.door.write(batch(event("noise")))
        world.work_off()
    world.assert_agreed()
    retrier = Retrier(settings=world.settings, store=world.store, queue=world.queue)
    retrier.retry(world.store.dead_letters.page(size=9))
    retrier.close()
    world.assert_agreed()
    world.filter("noise")
    world.replay(reprocess=True)
    world.assert_agreed()
    world.filter()
    world.replay(reprocess=True)

    world.assert_agreed()
    assert world.lines() == {("dead_lettered", "indexed"): 1, ("indexed", "filtered"): 1, ("filtered", "indexed"): 1}


def test_duplicates_and_conflicts_stay_what_they_are(world: World) -> None:
    """Another event has their identity: they are not written over it, however often everything is redone."""
    numbered = {"emitter": "web", "epoch": "e1", "sequence_first": 1}
    for summary in ("one", "one", "two"):
        world.door.write(batch(event(summary), **numbered))
    world.work_off()
    before = world.stored()
    world.replay(reprocess=True)

    assert world.stored() == before
    assert world.outcomes() == {"indexed": 1, "duplicate": 1, "dead_lettered": 1}
    assert world.lines() == {}


def test_filtered_events_beyond_what_the_ledger_keeps_come_back_all_the_same(tmp_path: Path) -> None:
    """Where only one outcome is possible, how many there were says it; the store and the books agree."""
    world = World(tmp_path, **{"accounting.exceptions_max": 3})
    world.filter("noise")
    world.door.write(batch(*(event("noise" if number % 2 else "event") for number in range(60))))
    world.work_off()
    world.filter()
    tally = world.replay(reprocess=True).tally

    assert world.lines() == {("filtered", "indexed"): 30}
    assert tally.undecided == 0
    world.assert_agreed()
    world.close()


def test_events_beyond_what_the_ledger_keeps_that_were_indexed_and_lost_are_not_taken_for_filtered(
    tmp_path: Path,
) -> None:
    """Which is which nobody can say: they are left alone and counted, by either command; what is known comes back.

    Every other one is an exception, so they are in more ranges than are kept apart.
    """
    world = World(tmp_path, **{"accounting.exceptions_max": 3})
    world.filter("noise")
    world.door.write(batch(*(event(f"{'noise' if number % 2 else 'event'} {number}") for number in range(3000))))
    world.work_off()
    world.lose(*world.summaries())
    counted = world.replay(dry_run=True).tally
    done = world.replay().tally
    world.filter()
    again = world.replay().tally
    redone = world.replay(reprocess=True, words=("since=1h",)).tally

    assert [counted.missing, counted.undecided] == [4, 1496]
    assert [done.missing, done.written, done.undecided] == [4, 4, 1496]
    assert [again.missing, again.written, again.undecided] == [0, 0, 2993]
    assert redone.undecided == 2993
    assert world.outcomes() == {"indexed": 1503, "filtered": 1497}
    assert world.lines() == {("filtered", "indexed"): 3}
    world.close()


def test_filtered_events_beyond_what_the_ledger_keeps_are_not_missing(tmp_path: Path) -> None:
    """The store has as many as were indexed: the others never were there, though today's rules would have them."""
    world = World(tmp_path, **{"accounting.exceptions_max": 3})
    world.filter("noise")
    world.door.write(batch(*(event(f"{'noise' if number % 2 else 'event'} {number}") for number in range(60))))
    world.work_off()
    world.lose("event 0", "event 2")
    world.filter()
    done = world.replay().tally

    assert [done.missing, done.written, done.undecided] == [2, 2, 0]
    assert world.outcomes() == {"indexed": 30, "filtered": 30}
    world.assert_agreed()
    world.close()


def test_events_whose_outcome_is_not_known_are_left_alone(tmp_path: Path) -> None:
    """Beyond what the ledger keeps, where several outcomes are possible, nothing is guessed; the tally says so."""
    world = World(tmp_path, **{"accounting.exceptions_max": 1})
    world.filter("noise")
    numbered = {"emitter": "web", "epoch": "e1", "sequence_first": 1}
    for _ in range(2):
        world.door.write(batch(event("same"), **numbered), batch(event("noise"), id=b"\x02" * 16))
    world.door.write(batch(event("last"), id=b"\x03" * 16))
    world.work_off()
    before = world.outcomes()
    world.filter()
    tally = world.replay(reprocess=True).tally

    assert tally.undecided == 2
    assert world.outcomes() == {"indexed": 3, "duplicate": 1, "filtered": 1} != before
    world.close()


# --- which ------------------------------------------------------------------------------------------------------------
def test_events_are_selected_by_time_offset_emitter_category_and_receipt(world: World) -> None:
    """Each alone, and together; times are of receipt, categories in any case."""
    now = clock.now_us()
    for number, (emitter, category) in enumerate([("web", "Nginx"), ("web", "app"), (None, "nginx"), ("db", "app")]):
        raw = event(f"event {number}", category=category)
        received_us = now - (4 - number) * 3_600_000_000
        world.door.write(batch(raw, id=bytes([number]) * 16, emitter=emitter, received_us=received_us))
    world.work_off()

    def selected(**options: Any) -> int:
        return world.replay(Selection(**options), dry_run=True).tally.events

    hour = 3_600_000_000
    assert selected(from_us=now - 3 * hour) == 3
    assert selected(from_us=now - 3 * hour, to_us=now - hour) == 2
    assert selected(partition=0, from_offset=1, to_offset=3) == 2
    assert [selected(emitter=name) for name in ("web", "app", "app/db", "nobody")] == [2, 4, 1, 0]
    assert [selected(category=name) for name in ("nginx", "NGINX", "app", "none")] == [2, 2, 2, 0]
    assert selected(emitter="web", category="nginx", from_us=now - 5 * hour) == 1
    window = clock.window_of(now)
    assert selected(receipt=Receipt(EPOCH, 0, first=2, count=2, window=window - 1)) == 2
    assert selected(receipt=Receipt(b"\x08" * 16, 0, first=2, count=2, window=window - 1)) == 0


def test_an_unknown_partition_is_refused(world: World) -> None:
    """With how many there are."""
    with pytest.raises(LogweirError) as refused:
        world.begun(Selection(partition=1))

    assert refused.value.problem.code == "partition_unknown"
    assert refused.value.numbers["partitions"] == 1


def test_events_that_no_worker_has_accounted_for_are_left_to_the_workers(world: World) -> None:
    """Above the position a worker may still do, or redo, the records: a replay ends below it."""
    world.door.write(batch(*some(5)))
    world.work_off()
    world.door.write(batch(*some(5, "later"), id=b"\x02" * 16))
    tally = world.replay(reprocess=True).tally
    between = world.summaries()
    world.work_off()

    assert tally.events == 5
    assert len(between) == 5
    assert world.outcomes() == {"indexed": 10}
    world.assert_agreed()


def test_what_retention_has_taken_is_said(world: World) -> None:
    """By offsets and by time: which are gone, and since when there is something; the rest is replayed."""
    for number in range(4):
        world.door.write(batch(event(f"event {number}"), id=bytes([number]) * 16))
    world.work_off()
    began_us = clock.now_us() - 7_200_000_000
    connection = world.queue._database._open()  # type: ignore[attr-defined]
    connection.execute("DELETE FROM record WHERE id < 2")
    world.lose("event 1", "event 3")
    by_offset = world.replay(Selection(partition=0, from_offset=1), words=("offset",))
    by_time = world.replay(Selection(from_us=began_us), dry_run=True)
    kept = world.replay(Selection(partition=0, from_offset=2), dry_run=True)

    (gone,) = by_offset.gone
    assert (gone.partition, gone.first, gone.last) == (0, 1, 1)
    assert abs((gone.since_us or 0) - clock.now_us()) < 120_000_000
    assert "offsets 1 to 1 are gone" in str(gone)
    assert [(one.first, one.last) for one in by_time.gone] == [(0, 1)]
    assert kept.gone == []
    assert by_offset.tally.written == 1
    assert world.summaries() == ["event 0", "event 2", "event 3"]


def test_events_older_than_the_store_keeps_are_not_brought_back(world: World) -> None:
    """The day's index was deleted on purpose: a replay would only have it deleted again."""
    old_us = clock.now_us() - 200 * 86_400_000_000
    world.door.write(batch(*some(3), received_us=old_us), batch(*some(2, "new"), id=b"\x02" * 16))
    world.work_off()
    world.store.delete_expired("20990101")
    tally = world.replay().tally

    assert [tally.events, tally.expired, tally.written] == [5, 3, 2]
    assert world.summaries() == ["new 0", "new 1"]


# --- stopped and killed ---------------------------------------------------------------------------------------------
class Killed(BaseException):
    """The process dies here."""


class Mortal:
    """A store that dies at its n-th write: before it, or after it was done but not answered."""

    def __init__(self, store: Store, writes: int, *, after: bool) -> None:
        self._left = writes
        self._after = after
        self._store = _MortalPart(store, self._write, {"index", "replace", "delete"})
        self.ledger = _MortalPart(store.ledger, self._write, {"claim", "write", "delete"})
        self.dead_letters = _MortalPart(store.dead_letters, self._write, {"put", "delete"})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _write(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Killed
        result = call(*arguments, **options)
        if self._left < 0:
            raise Killed
        return result


class _MortalPart:
    def __init__(self, part: object, write: Callable[..., Any], names: set[str]) -> None:
        self._part, self._write, self._names = part, write, names
        assert all(hasattr(part, name) for name in names)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._part, name)
        return partial(self._write, call) if name in self._names else call


def mixed(world: World) -> None:
    """Events of all outcomes, among them some that other rules make something else of."""
    world.filter("summary:quiet", "quiet")
    numbered = {"emitter": "web", "epoch": "e1"}
    world.door.write(batch(*some(10, "noise")), batch(*some(10, "quiet"), id=b"\x02" * 16))
    world.door.write(
        batch(b"not json", *some(9, "bad"), id=b"\x03" * 16), batch(*some(5), sequence_first=1, **numbered)
    )
    world.door.write(batch(*some(5), sequence_first=1, **numbered), batch(*some(20, "loud"), id=b"\x04" * 16))
    world.work_off()
    world.lose("loud 3", "noise 4")


def other_rules(sent: dict[str, Any], context: Any) -> dict[str, Any]:
    source = normalise(sent, context)
    if source["summary"].startswith("bad"):
        raise ValueError("a fault of ours")
    return {**source, "summary": source["summary"].replace("loud", "LOUD")}


def state(world: World) -> Any:
    fields = ("_id", "summary", "ingest_number")
    stored = sorted([one[name] for name in fields] for one in world.stored())
    return stored, world.lines(), world.outcomes(), world.letters()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_between_any_two_steps_and_begun_again_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Each write in turn is the last one that a process does; what comes after it finishes the work.

    Documents, dead letters and correction lines are those of a replay that nobody disturbed.
    """
    template = World(tmp_path / "template")
    mixed(template)
    template.close()
    monkeypatch.setattr(documents, "normalise", other_rules)
    lines = {("indexed", "filtered"): 10, ("filtered", "indexed"): 10, ("indexed", "dead_lettered"): 9}

    assert killed_at_each_write(tmp_path, monkeypatch, lines, after=after) > 15


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_where_the_ledger_had_no_room_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """What only the store tells of an event is told once more, or written down, when the store has changed."""
    template = World(tmp_path / "template", **{"accounting.exceptions_max": 1})
    template.filter("summary:quiet", "quiet")
    template.door.write(batch(*(event(("quiet", "noise", "bad")[number % 3]) for number in range(40))))
    template.work_off()
    template.close()
    monkeypatch.setattr(documents, "normalise", other_rules)
    lines = {("indexed", "filtered"): 13, ("filtered", "indexed"): 14, ("indexed", "dead_lettered"): 13}

    assert killed_at_each_write(tmp_path, monkeypatch, lines, after=after) > 15


def killed_at_each_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lines: dict[tuple[str, str], int], *, after: bool
) -> int:
    """Have a replay of the folder's template killed at each of its writes and begun again; gives how many there are."""
    monkeypatch.setattr("logweir_workers.replay.replay._SAVE_INTERVAL_S", 0.0)
    undisturbed: Any = None
    for writes in (10**9, *range(1000)):
        shutil.copytree(folder / "template", folder / str(writes))
        world = World(folder / str(writes))
        world.filter("noise")
        is_killed = False
        try:
            world.replay(reprocess=True, store=Mortal(world.store, writes, after=after))  # type: ignore[arg-type]
        except Killed:
            is_killed = True
            world.outcomes()
            world.replay(reprocess=True)
        world.assert_agreed()
        undisturbed = undisturbed or state(world)
        assert state(world) == undisturbed
        assert world.lines() == lines
        world.close()
        if not is_killed and writes < 10**9:
            return writes
    raise AssertionError("it never ends")


def test_killed_at_random_moments_with_the_rules_changed_again_and_again_it_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was left half done, the next replay that ends brings store and books together."""
    rng = random.Random(5)
    world = World(tmp_path)
    mixed(world)
    for turn in range(12):
        world.filter(rng.choice(["", "noise", "loud", "quiet OR event"]))
        monkeypatch.setattr(documents, "normalise", rng.choice([normalise, other_rules]))
        for _ in range(rng.randrange(4)):
            store = Mortal(world.store, rng.randrange(12), after=rng.random() < 0.5)
            with contextlib.suppress(Killed):
                world.replay(reprocess=True, restart=True, store=store)  # type: ignore[arg-type]
        world.replay(reprocess=True, words=(str(turn),))

        world.assert_agreed()


def test_the_same_words_go_on_where_they_were_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bounds and the counts that it had; done, or told to begin anew, it begins at the beginning."""
    monkeypatch.setattr("logweir_workers.replay.replay._SAVE_INTERVAL_S", 0.0)
    for number in range(10):
        world.door.write(batch(*some(16, f"r{number}"), id=bytes([number]) * 16))
    world.work_off()
    stopping = threading.Event()
    first = world.begun(words=("since=1h",), stopping=stopping)
    progress = first.run(lambda progress: stopping.set() if progress.tally.events >= 80 else None)
    other = world.begun(Selection(emitter="nobody"), words=("emitter=nobody",))
    second = world.begun(words=("since=1h",))
    resumed = second.progress.records_read
    done = second.run(lambda _: None)
    third = world.begun(words=("since=1h",))

    token = Selection(receipt=Receipt(EPOCH, 0, first=17, count=16, window=clock.window_of(clock.now_us()) - 1))
    assert not world.begun(token, words=("receipt",)).is_resumed
    by_receipt = world.begun(words=("receipt",))

    assert by_receipt.is_resumed
    assert by_receipt.run(lambda _: None).tally.events == 16
    assert not progress.is_done
    assert (second.is_resumed, resumed) == (True, 5)
    assert done.tally.events == 160
    assert not other.is_resumed
    assert (third.is_resumed, third.progress.records_read) == (False, 0)


@pytest.mark.parametrize("changed", ["filters", "categories", "version", "own", "lookups", "redact", "nothing"])
def test_a_stopped_replay_whose_rules_have_changed_begins_anew_with_the_same_range(
    world: World, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """So that what says it is done has done all by the same rules; without a change it goes on."""
    monkeypatch.setattr("logweir_workers.replay.replay._SAVE_INTERVAL_S", 0.0)
    categories = world.rules.with_name("categories.toml")
    categories.write_text('[[rule]]\ncategory = "old"\nsummary_contains = "event"\n')
    folder = world.rules.with_name("own")
    folder.mkdir()
    (folder / "badged.py").write_text(BADGED)
    update: dict[str, Any] = {"categories_file": categories, "enrich_dir": folder, "lookups_dir": folder}
    world.settings = world.settings.model_copy(update={"worker": world.settings.worker.model_copy(update=update)})
    for number in range(10):
        world.door.write(batch(*some(16), id=bytes([number]) * 16))
    world.work_off()
    since = Selection(from_us=1)
    stopping = threading.Event()
    world.begun(since, words=("since=1h",), reprocess=True, stopping=stopping).run(
        lambda progress: stopping.set() if progress.tally.events >= 80 else None
    )
    if changed == "filters":
        world.filter("nobody")
    elif changed == "categories":
        categories.write_text(categories.read_text().replace("old", "new"))
    elif changed == "version":
        monkeypatch.setattr("logweir_workers.replay.replay.__version__", "99")
    elif changed == "own":
        (folder / "badged.py").write_text(BADGED + "\n")
    elif changed == "lookups":
        (folder / "hosts.csv").write_text("hostname,team\nweb1,shop\n")
    elif changed == "redact":
        update["redact"] = ("none",)
    world.settings = world.settings.model_copy(update={"worker": world.settings.worker.model_copy(update=update)})
    again = world.begun(Selection(from_us=2), words=("since=1h",), reprocess=True)
    progress = again.run(lambda _: None)

    is_same = changed == "nothing"
    assert (again.is_resumed, again.has_other_rules) == (is_same, not is_same)
    assert progress.is_done
    assert progress.selected["from_us"] == 1
    assert progress.tally.events == 160
    assert progress.tally.written == 160
    assert {one["category"] for one in world.stored()} == {"new" if changed == "categories" else "old"}


def test_a_second_process_with_the_same_words_takes_the_replay_over(world: World) -> None:
    """The first one says so and stops."""
    world.door.write(batch(*some(5)))
    world.work_off()
    first, second = world.begun(), world.begun()
    with pytest.raises(LogweirError) as taken:
        first.run(lambda _: None)

    assert taken.value.problem.code == "replay_taken_over"
    assert second.run(lambda _: None).is_done


def test_the_rate_is_kept(world: World) -> None:
    """So many events a second, however large records and bulks are."""
    world.door.write(batch(*some(60)))
    world.work_off()
    began = clock.now_us()
    world.replay(rate=40)

    assert 1.0 < (clock.now_us() - began) / 1e6 < 20


def test_a_replay_beside_a_working_worker_changes_no_count(world: World) -> None:
    """Records go on coming and being counted; everything is there once, and the group's positions are the worker's."""
    for number in range(8):
        world.door.write(batch(*some(20, f"a{number}"), id=bytes([number]) * 16))
    world.work_off()
    with running_worker(world.settings, world.queue, world.store):
        for number in range(8, 24):
            world.door.write(batch(*some(20, f"b{number}"), id=bytes([number]) * 16))
            if number % 4 == 0:
                world.replay(reprocess=True, words=(str(number),))
        id = POSITION.id("logweir", PartitionId(world.queue.topic_id(), 0))
        until(lambda: world.store.ledger.read([id])[id].body["next_offset"] == 24)
    accepted = [Accepted("app", None, 480, 0)]
    world.door.write_as(Kind.MARKER, Marker(accepted, []), first=1, count=480)
    world.work_off()

    assert world.outcomes() == {"indexed": 480}
    assert world.lines() == {}
    world.assert_agreed()
