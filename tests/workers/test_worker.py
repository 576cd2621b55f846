"""A worker on the embedded queue and store: what becomes of records, good and bad, once and again."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from logweir import cli, clock, config
from logweir.audit.books import read_books
from logweir.clock import now_us
from logweir.config import Settings
from logweir.errors import OFFSETS_EXPIRED, RECORD_VERSION_UNKNOWN, LogweirError
from logweir.ledger.tracker import Tracker
from logweir.query.parse import parse
from logweir.queue import open_queue
from logweir.queue.port import Delivery, Queue
from logweir.queue.sqlite.group import SqliteConsumer
from logweir.record import Accepted, Kind, Marker, Refused
from logweir.store.port import Store
from logweir_workers.bulks import Bulks
from logweir_workers.work import Work
from logweir_workers.worker import Worker
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

EPOCH = b"\x07" * 16


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    overrides = {
        "data_dir": tmp_path,
        "queue.partitions": 1,
        "worker.ledger_interval_s": 0.1,
        "queue.session_timeout_s": 1,
    }
    return config.load(environment={}, overrides=overrides)


def position(store: Store, queue: Queue, group: str = "logweir") -> int:
    id = f"position:{group}:{queue.topic_id()}:0"
    found = store.ledger.read([id])
    return int(found[id].body.get("next_offset") or 0) if found else 0


def outcomes(store: Store, queue: Queue, group: str = "logweir") -> dict[str, int]:
    """The outcomes of all windows, added up."""
    total: dict[str, int] = {}
    for body in windows(store, queue, group):
        for row in body["outcomes"]:
            for name in ("indexed", "duplicate", "filtered", "dead_lettered"):
                total[name] = total.get(name, 0) + row[name]
    return total


def windows(store: Store, queue: Queue, group: str = "logweir") -> list[dict[str, Any]]:
    prefix = f"window:{group}:{queue.topic_id()}:0:{EPOCH.hex()}:"
    return [document.body for document in store.ledger.scan(prefix)]


def found(store: Store, query: str = "*") -> list[dict[str, Any]]:
    return store.search(parse(query), size=10_000).events


def event(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def work_off(settings: Settings, queue: Queue, store: Store) -> None:
    """Run a worker until it has accounted for everything in the queue."""
    with running_worker(settings, queue, store):
        until(lambda: position(store, queue) == queue.offsets(0)[1])


def test_an_event_is_stored_with_its_identity_and_provenance(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """Bare events are known by batch and place, numbered ones by their emitter's number; both say whence they came."""
    door.write(batch(event(summary="one"), event(summary="two"), id=b"\x0a" * 16, index_first=4))
    door.write(batch(event(summary="three"), emitter="web-1", epoch="e1", sequence_first=17))
    work_off(settings, queue, store)
    by_summary = {one["summary"]: one for one in found(store)}

    assert by_summary["two"]["_id"] == "b" + "0a" * 16 + ".5"
    assert by_summary["three"]["_id"].endswith(".17")
    assert by_summary["three"]["emitter"] == "web-1"
    assert [by_summary[name]["ingest_number"] for name in ("one", "two", "three")] == [1, 2, 3]
    assert by_summary["one"]["ingest_stream"] == f"{EPOCH.hex()}-0"
    assert by_summary["one"]["sourceaddress"] == "10.1.2.3"
    assert outcomes(store, queue) == {"indexed": 3, "duplicate": 0, "filtered": 0, "dead_lettered": 0}


def test_a_numbered_event_sent_again_is_a_duplicate_and_other_content_a_conflict(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """A retry leaves one document; a cloned machine's event under a taken number is kept among the dead letters."""
    numbered = {"emitter": "web-1", "epoch": "e1", "sequence_first": 5}
    door.write(batch(event(summary="same"), **numbered))
    door.write(batch(event(summary="same"), **numbered))
    door.write(batch(event(summary="other"), **numbered))
    work_off(settings, queue, store)
    letters = store.dead_letters.page(size=10)

    assert [one["summary"] for one in found(store)] == ["same"]
    assert outcomes(store, queue) == {"indexed": 1, "duplicate": 1, "filtered": 0, "dead_lettered": 1}
    assert [(letter.reason, letter.raw) for letter in letters] == [("identity_conflict", event(summary="other"))]


@pytest.mark.parametrize("lost", ["ledger", "store"])
def test_a_lost_ledger_is_made_again_from_the_queue(
    settings: Settings, queue: Queue, store: Store, door: Door, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Alone, or with all that was stored: the committed offset outlives it, and is not where the worker reads on."""
    door.write(batch(event(summary="one"), event(summary="two")))
    work_off(settings, queue, store)
    before = outcomes(store, queue)
    caplog.clear()
    if lost == "ledger":
        store.ledger.delete(list(store.ledger.scan("")))
    else:
        store.close()
        shutil.rmtree(config.sqlite_path(settings.store.url))
    work_off(settings, queue, store)

    assert sorted(one["summary"] for one in found(store)) == ["one", "two"]
    assert outcomes(store, queue) == before == {"indexed": 2, "duplicate": 0, "filtered": 0, "dead_lettered": 0}
    assert "knows no position of partition 0: it is read from its earliest record, offset 0 of" in caplog.text


def test_the_group_goes_back_with_its_ledger(
    settings: Settings, queue: Queue, store: Store, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the queue would say of a backlog that is to be read again that nothing is left, and let it expire."""
    door.write(batch(event(summary="one")))
    work_off(settings, queue, store)
    store.ledger.delete(list(store.ledger.scan("")))

    def committed() -> list[int]:
        with closing(sqlite3.connect(config.sqlite_path(settings.queue.url))) as file:
            return [offset for (offset,) in file.execute("SELECT next_offset FROM committed")]

    before = committed()
    monkeypatch.setattr(Bulks, "settle_indexed", lambda _: None)
    with running_worker(settings, queue, store):
        until(lambda: committed() == [0])

    assert before == [1]


def test_what_was_gone_from_the_queue_when_the_books_began_is_not_called_complete(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """The store is lost with its ledger, and of what it had the queue's retention has taken a part."""
    door.write(batch(event(summary="one"), event(summary="two")))
    door.write(batch(event(summary="three"), id=b"\x02" * 16))
    work_off(settings, queue, store)
    whole = read_books(store, group=settings.worker.group, late_us=1, now_us=now_us())
    store.close()
    shutil.rmtree(config.sqlite_path(settings.store.url))
    with closing(sqlite3.connect(config.sqlite_path(settings.queue.url), isolation_level=None)) as file:
        file.execute("DELETE FROM record WHERE id = 0")
    work_off(settings, queue, store)
    books = read_books(store, group=settings.worker.group, late_us=1, now_us=now_us())

    assert whole.complete is True
    assert [one["summary"] for one in found(store)] == ["three"]
    assert [(one.first, one.last, one.exact) for one in books.expired] == [(0, 0, False)]
    assert (books.balanced, books.complete) == (True, None)


@pytest.mark.parametrize("is_lost", [False, True], ids=["an older copy", "lost"])
def test_a_ledger_that_is_set_back_under_a_running_worker_hides_nothing(
    settings: Settings, queue: Queue, store: Store, door: Door, is_lost: bool
) -> None:
    """The worker has let go of the windows by then; its position alone must not stand for them."""
    with running_worker(settings, queue, store):
        door.write(batch(event(summary="one")))
        until(lambda: position(store, queue) == 1)
        copy = [*store.ledger.scan("")]
        door.write(batch(event(summary="two"), id=b"\x02" * 16))
        door.write_as(Kind.MARKER, Marker([Accepted("app", None, 2, 0)], []), first=1, count=2)
        until(lambda: position(store, queue) == 3)
        store.ledger.delete(list(store.ledger.scan("")))
        days = list(config.sqlite_path(settings.store.url).glob("events-*.sqlite"))
        with closing(sqlite3.connect(days[0], isolation_level=None)) as file:
            file.execute("DELETE FROM events WHERE ingest_number = 2")
        if not is_lost:
            store.ledger.write(copy)
        other = Door(queue, epoch=b"\x08" * 16)
        other.write(batch(event(summary="three"), id=b"\x03" * 16))
        other.close()
        until(lambda: position(store, queue) == 4)

    assert sorted(one["summary"] for one in found(store)) == ["one", "three", "two"]
    assert outcomes(store, queue)["indexed"] == 2
    assert read_books(store, group=settings.worker.group, late_us=1, now_us=now_us()).row.in_flight == 0


@pytest.mark.parametrize("written_since", [0, 1, 5], ids=lambda count: f"{count} written since")
def test_a_queue_that_was_set_back_under_the_ledger_loses_nothing(
    settings: Settings, store: Store, tmp_path: Path, written_since: int, caplog: pytest.LogCaptureFixture
) -> None:
    """From an older copy, to which a door has written before the worker looked: the position is among new records."""
    path = config.sqlite_path(settings.queue.url)

    def write(name: str, count: int) -> None:
        queue = open_queue(settings.queue)
        queue.prepare()
        door = Door(queue, epoch=name.encode() * 16)
        for number in range(count):
            door.write(batch(event(summary=f"{name} {number}"), id=name.encode() + bytes([number]) * 15))
        door.close()
        queue.close()

    def work() -> None:
        queue = open_queue(settings.queue)
        work_off(settings, queue, store)
        queue.close()

    write("a", 4)
    shutil.copytree(path.parent, tmp_path / "copy", ignore=lambda *_: {"store", "copy"})
    write("b", 3)
    work()
    for part in (tmp_path / "copy").glob("queue.sqlite*"):
        shutil.copy(part, path.parent)
    write("c", written_since)
    work()
    wanted = [
        f"{name} {number}" for name, count in (("a", 4), ("b", 3), ("c", written_since)) for number in range(count)
    ]

    assert sorted(one["summary"] for one in found(store)) == wanted
    assert "The queue was set back: partition 0" in caplog.text


@pytest.mark.parametrize("unsettled", [0, 2])
def test_a_queue_that_was_set_back_under_a_running_worker_loses_nothing(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unsettled: int
) -> None:
    """A log is cut off and filled again beyond the position, as Kafka tells a consumer of it.

    ``unsettled``: how many records of what is cut off the worker has fetched, and perhaps not counted yet.
    """
    queue = open_queue(settings.queue)
    queue.prepare()
    before = Door(queue, epoch=b"b" * 16)
    for number in range(4):
        before.write(batch(event(summary=f"b {number}"), id=b"b" + bytes([number]) * 15))
    work_off(settings, queue, store)
    for number in range(4, 4 + unsettled):
        before.write(batch(event(summary=f"b {number}"), id=b"b" + bytes([number]) * 15))
    poll = SqliteConsumer.poll
    steps = iter(("cut", "say"))

    def polled(consumer: SqliteConsumer, **named: Any) -> list[Delivery]:
        found = poll(consumer, **named)
        if len(found) < unsettled or (step := next(steps, None)) is None:
            return found
        if step == "say":
            places = {"partition": 0, "offset": 4 + unsettled, "offset_earliest": 0, "offset_latest": 8}
            raise LogweirError(OFFSETS_EXPIRED, topic="events", **places)
        with closing(sqlite3.connect(config.sqlite_path(settings.queue.url))) as file, file:
            file.execute("DELETE FROM record WHERE id >= 2")
            file.execute("UPDATE partition SET next_offset = 2")
        after = Door(queue, epoch=EPOCH)
        for number in range(6):
            after.write(batch(event(summary=f"a {number}"), id=b"a" + bytes([number]) * 15))
        after.close()
        return found

    monkeypatch.setattr(SqliteConsumer, "poll", polled)
    with running_worker(settings, queue, store):
        until(lambda: position(store, queue) == 8)

    assert {f"a {number}" for number in range(6)} <= {one["summary"] for one in found(store)}
    assert outcomes(store, queue)["indexed"] == 6
    assert "The queue was set back: partition 0" in caplog.text
    before.close()
    queue.close()


def test_a_record_sent_twice_is_counted_once(settings: Settings, queue: Queue, store: Store, door: Door) -> None:
    """The queue may hold a record twice; its numbers are settled once."""
    payload = door.write(batch(event(summary="once"), id=b"\x0b" * 16))
    door.write_bytes(payload)
    work_off(settings, queue, store)

    assert len(found(store)) == 1
    assert outcomes(store, queue)["indexed"] == 1
    assert outcomes(store, queue)["duplicate"] == 0


def test_work_done_before_a_crash_is_recognised_as_our_own(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """Indexed, but not written into the ledger: the next worker finds its documents and counts them as indexed."""
    door.write(batch(event(summary="one"), event(summary="two")))
    work_off(settings, queue, store)
    # A group of its own has no ledger yet: to it, the documents are there and nothing was ever counted.
    again = settings.model_copy(update={"worker": settings.worker.model_copy(update={"group": "again"})})
    with running_worker(again, queue, store):
        until(lambda: position(store, queue, "again") == 1)

    assert len(found(store)) == 2
    assert outcomes(store, queue, "again") == {"indexed": 2, "duplicate": 0, "filtered": 0, "dead_lettered": 0}


def test_what_cannot_be_read_is_a_dead_letter_and_holds_nothing_up(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """A foreign record and an unreadable event are kept with reason, stage, place and bytes; the rest is indexed."""
    door.write_bytes(b"not ours")
    door.write(batch(b'{"summary": tru}', event(summary="good")))
    work_off(settings, queue, store)
    letters = {letter.reason: letter for letter in store.dead_letters.page(size=10)}

    assert [one["summary"] for one in found(store)] == ["good"]
    assert letters["record_corrupt"].raw == b"not ours"
    assert letters["record_corrupt"].body["offset"] == 0
    assert letters["event_unreadable"].raw == b'{"summary": tru}'
    assert letters["event_unreadable"].body["stage"] == "decode"
    assert letters["event_unreadable"].body["ingest_number"] == 1
    assert outcomes(store, queue) == {"indexed": 1, "duplicate": 0, "filtered": 0, "dead_lettered": 1}


def test_a_refused_body_is_kept_and_has_no_outcome(settings: Settings, queue: Queue, store: Store, door: Door) -> None:
    """What the door could not read is there for the operator, and in no equation."""
    refused = Refused(
        b"\x0c" * 16, clock.now_us(), "rsyslog", None, "10.0.0.9", "json", "json_bad", "at byte 7", 9, b'{"a":"b"c'
    )
    door.write_as(Kind.REFUSED, refused)
    work_off(settings, queue, store)
    letters = store.dead_letters.page(size=10)

    assert [(letter.reason, letter.raw, letter.body["key"]) for letter in letters] == [
        ("body_refused", b'{"a":"b"c', "rsyslog")
    ]
    assert outcomes(store, queue) == {}


def test_a_marker_closes_the_window_with_what_the_door_accepted(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """Two witnesses in one ledger document: the door's count and the worker's."""
    door.write(batch(event(summary="one"), event(summary="two")))
    door.write_as(Kind.MARKER, Marker([Accepted("app", None, 2, 0)], []), first=1, count=2)
    work_off(settings, queue, store)
    bodies = windows(store, queue)

    assert sum(row["accepted"] for body in bodies if body["marker"] for row in body["marker"]["accepted"]) == 2
    assert sum(row["indexed"] for body in bodies for row in body["outcomes"]) == 2


def test_a_record_of_a_later_version_stops_the_worker_before_it(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """Skipping it would lose it: the worker says what to upgrade, and the record waits in the queue."""
    payload = bytearray(door.write(batch(event(summary="now"))))
    payload[3] = 2
    door.write_bytes(bytes(payload))
    worker = Worker(settings=settings, queue=queue, store=store, stopping=Event(), clock=clock.now_us)
    with pytest.raises(LogweirError) as caught:
        worker.run()

    assert caught.value.problem is RECORD_VERSION_UNKNOWN
    assert position(store, queue) <= 1


@pytest.mark.parametrize(
    "said",
    [
        {"sequence_first": 2**63 - 2},
        {"sequence_first": 2**53},
        {"sequence_first": 1, "high": 2**63 - 1},
        {"sequence_first": 1, "previous": ("e0", 2**63 - 1)},
        {"sequence_first": 1, "dropped": {"r": 2**64 - 1, "s": 2**64 - 1}},
    ],
    ids=str,
)
def test_numbers_that_nothing_could_count_cost_only_who_sends_them(
    settings: Settings, queue: Queue, store: Store, door: Door, said: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A door of before the bound took them: the events are stored, and everybody else's books stay exact."""
    hostile = {"key": "hostile", "emitter": "h", "epoch": "e1", **said}
    door.write(batch(event(summary="hostile one"), event(summary="hostile two"), id=b"\x0a" * 16, **hostile))
    door.write(batch(event(summary="good"), id=b"\x0b" * 16, emitter="web", epoch="e1", sequence_first=1, high=3))
    work_off(settings, queue, store)
    status = cli.main(["audit", "--json", "--data-dir", str(settings.data_dir)])
    audited = json.loads(capsys.readouterr().out)
    numbered = {one["emitter"]: one for one in audited["emitters"]}

    assert sorted(one["summary"] for one in found(store)) == ["good", "hostile one", "hostile two"]
    assert (status, outcomes(store, queue)["indexed"]) == (0, 3)
    assert (numbered["web"]["created"], numbered["web"]["lost"] + numbered["web"]["missing"]) == (3, 2)
    assert not numbered["h"]["created"]


def test_a_worker_that_dies_of_a_fault_of_ours_writes_nothing_that_is_half_counted(
    settings: Settings, queue: Queue, store: Store, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves its group, and writes nothing: who reads on counts all of it, each once."""
    door.write(batch(event(summary="one"), emitter="web", epoch="e1", sequence_first=1))
    work_off(settings, queue, store)
    before = [document.body for document in store.ledger.scan("")]
    arrive = Tracker.arrive

    def fault(tracker: Tracker, first: int, *arguments: Any, **named: Any) -> None:
        arrive(tracker, first, *arguments, **named)
        if first == 4:
            monkeypatch.undo()
            raise OverflowError("Python int too large to convert to C ssize_t")

    monkeypatch.setattr(Tracker, "arrive", fault)
    # The window counts the record before its emitter does, and that its first batch before its second.
    numbered = {"emitter": "web", "epoch": "e1"}
    door.write(
        batch(event(summary="two"), id=b"\x02" * 16, sequence_first=2, **numbered),
        batch(event(summary="four"), id=b"\x04" * 16, sequence_first=4, **numbered),
    )
    worker = Worker(settings=settings, queue=queue, store=store, stopping=Event(), clock=clock.now_us)
    with pytest.raises(OverflowError):
        worker.run()

    def counted(bodies: list[dict[str, Any]]) -> list[Any]:
        return [(body.get("next_offset"), body.get("outcomes"), body.get("epochs")) for body in bodies]

    assert counted([document.body for document in store.ledger.scan("")]) == counted(before)
    work_off(settings, queue, store)
    assert outcomes(store, queue) == {"indexed": 3, "duplicate": 0, "filtered": 0, "dead_lettered": 0}


def test_a_backlog_of_full_records_is_worked_off_within_the_limits(
    settings: Settings, queue: Queue, store: Store, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More work in one poll than a session is long: the member stays, and no bulk outgrows its limit by a record."""
    count, records = 2000, 20
    for number in range(records):
        events = [event(summary=f"{number} {at}", details={"text": "x" * 200}) for at in range(count)]
        door.write(batch(*events, id=bytes([number]) * 16))
    sizes = []
    add = Bulks.add

    def noting(bulks: Bulks, work: Work) -> None:
        add(bulks, work)
        sizes.append(bulks._filling.events)

    monkeypatch.setattr(Bulks, "add", noting)
    with running_worker(settings, queue, store):
        until(lambda: position(store, queue) == records, wait_s=120)

    assert len(sizes) == records
    assert max(sizes) < settings.worker.bulk_events_max + count
    assert store.count(parse("*")).number == count * records
    assert outcomes(store, queue)["indexed"] == count * records


def test_expired_offsets_are_counted_behind_what_was_read_before(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """Retention passes a worker that is behind: what it had read is indexed, the hole is noted, the rest goes on."""
    door.write(batch(event(summary="0"), id=b"\x00" * 16))
    work_off(settings, queue, store)
    for number in range(1, 5):
        door.write(batch(event(summary=str(number)), id=bytes([number]) * 16))
    file = sqlite3.connect(config.sqlite_path(settings.queue.url))
    with file:
        file.execute("DELETE FROM record WHERE id <= 2")
    file.close()
    work_off(settings, queue, store)
    body = store.ledger.read([f"position:logweir:{queue.topic_id()}:0"]).popitem()[1].body

    assert sorted(one["summary"] for one in found(store)) == ["0", "3", "4"]
    assert body["next_offset"] == 5
    assert body["expired"] == [[1, 2]]


def test_looking_for_old_windows_keeps_no_worker_from_reading(
    settings: Settings, queue: Queue, store: Store, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may take minutes to say which windows there are; the worker goes on meanwhile."""
    monkeypatch.setattr("logweir_workers.chores._BOOKS_DELAY_S", 0.0)
    scan, looked, said = store.ledger.scan, Event(), Event()

    def slow(prefix: str) -> Any:
        if prefix.startswith(f"window:logweir:{queue.topic_id()}:0:"):
            looked.set()
            said.wait(60)
        return scan(prefix)

    monkeypatch.setattr(store.ledger, "scan", slow)
    with running_worker(settings, queue, store):
        until(looked.is_set)
        door.write(batch(event(summary="meanwhile")))
        try:
            until(lambda: position(store, queue) == 1)
        finally:
            said.set()

    assert [one["summary"] for one in found(store)] == ["meanwhile"]


@pytest.mark.timeout(120)  # They are away for twelve seconds.
def test_a_store_and_a_queue_that_go_away_for_a_while_stop_no_worker(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """A running worker waits for both and goes on, with every event indexed once."""
    locks = [
        sqlite3.connect(path, isolation_level=None)
        for path in (config.sqlite_path(settings.store.url) / "main.sqlite", config.sqlite_path(settings.queue.url))
    ]
    with running_worker(settings, queue, store):
        door.write(batch(event(summary="before"), id=b"\x01" * 16))
        until(lambda: len(found(store)) == 1)
        for locked in locks:
            locked.execute("BEGIN EXCLUSIVE")
        time.sleep(12)
        for locked in locks:
            locked.execute("ROLLBACK")
            locked.close()
        door.write(batch(event(summary="after"), id=b"\x02" * 16))
        until(lambda: position(store, queue) == 2, wait_s=60)

    assert sorted(one["summary"] for one in found(store)) == ["after", "before"]
    assert outcomes(store, queue)["indexed"] == 2
