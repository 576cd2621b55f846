"""Room for dead letters: none is dropped when it is full, whoever has one waits; refused bodies stay within bounds."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from logweir import cli, config
from logweir.audit.books import read_books
from logweir.clock import now_us
from logweir.config import Settings, StoreSettings
from logweir.ledger.refusals import read_refusals, write_refusals
from logweir.metrics import registry
from logweir.query.parse import parse
from logweir.queue import open_queue
from logweir.queue.port import Queue
from logweir.store import open_store
from logweir.store.letters import REFUSED
from logweir.store.port import DeadLetter, LetterFilter, Store
from logweir_workers.backoff import Stopped
from logweir_workers.deadletters import keeper as letter_room
from logweir_workers.deadletters import refusals
from logweir_workers.deadletters.keeper import LetterRoom
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

DAY_US = 86_400_000_000


def letters(ids: str, reason: str = "event_unfit", *, size_bytes: int = 10, age_days: int = 0) -> list[DeadLetter]:
    received_us = now_us() - age_days * DAY_US
    return [
        DeadLetter(id, received_us + at, reason, {"reason": reason, "error": "x"}, b"x" * size_bytes)
        for at, id in enumerate(ids)
    ]


def ids_in(store: Store) -> str:
    return "".join(sorted(letter.id for letter in store.dead_letters.page(size=100)))


def kept_in_background(room: LetterRoom, some: list[DeadLetter]) -> threading.Thread:
    thread = threading.Thread(target=room.keep, args=(some, threading.Event()))
    thread.start()
    return thread


@pytest.mark.parametrize("limits", [{"dead_letters_max": 3}, {"dead_letters_size_bytes_max": 25}])
def test_a_full_store_makes_the_worker_wait_and_drops_nothing(
    store: Store, limits: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """By number and by bytes: what fits is kept, the rest waits, and goes on as soon as somebody makes room."""
    room = LetterRoom(store, StoreSettings(**limits))
    waiting = kept_in_background(room, letters("abcde"))
    until(lambda: "the store holds 3 dead letters of 30 bytes" in caplog.text.lower())
    paused = registry.get("logweir_worker_paused").labels("dead_letters_full")
    before, was_paused = ids_in(store), paused._value.get()
    store.dead_letters.delete(LetterFilter(ids=("a", "b")))
    waiting.join(15)

    assert (before, was_paused) == ("abc", 1)
    assert not waiting.is_alive()
    assert ids_in(store) == "cde"
    assert paused._value.get() == 0
    assert "the worker goes on" in caplog.text


def test_a_worker_that_waits_for_room_stops_when_told_to(store: Store) -> None:
    """Nothing is kept of what had no room: whoever reads on does it again."""
    room = LetterRoom(store, StoreSettings(dead_letters_max=1))
    stopping = threading.Event()
    threading.Timer(0.5, stopping.set).start()
    with pytest.raises(Stopped):
        room.keep(letters("ab"), stopping)

    assert ids_in(store) == "a"


@pytest.mark.parametrize("limits", [{"refused_bodies_max": 3}, {"refused_bodies_size_bytes_max": 30}])
def test_the_oldest_refused_bodies_make_room_and_dead_letters_never_do(store: Store, limits: dict[str, int]) -> None:
    """Whatever unreadable bodies somebody sends, they push out nothing but each other; how many is counted."""
    deleted = registry.get("logweir_worker_dead_letters_deleted_total").labels(REFUSED, "limit")
    before = deleted._value.get()
    room = LetterRoom(store, StoreSettings(dead_letters_max=2, **limits))
    room.keep([*letters("ab"), *letters("pqrs", REFUSED)], threading.Event())
    room.keep(letters("t", REFUSED), threading.Event())

    assert ids_in(store) == "abrst"
    assert deleted._value.get() - before == 2


def test_what_is_past_its_retention_is_deleted_and_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead letters and refused bodies each after their own days; by any worker, in slices, and only once."""
    monkeypatch.setattr(letter_room, "_EXPIRED_AT_ONCE", 2)
    deleted = registry.get("logweir_worker_dead_letters_deleted_total").labels("event_unfit", "retention")
    before = deleted._value.get()
    for some in (letters("abcde", age_days=11), letters("f", age_days=9), letters("pq", REFUSED, age_days=3)):
        store.dead_letters.put(some)
    settings = StoreSettings(dead_letters_retention_days=10, refused_bodies_retention_days=2)
    for room in (LetterRoom(store, settings), LetterRoom(store, settings)):
        room.expire(now_us())

    assert ids_in(store) == "f"
    assert deleted._value.get() - before == 5


def of_key(key: str, ids: str, reason: str = "event_unfit") -> list[DeadLetter]:
    return [replace(letter, body={**letter.body, "key": key}) for letter in letters(ids, reason)]


def test_a_part_of_the_limits_is_each_keys_own(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """One key fills the rest, and waits; another's are kept, up to a tenth, in whatever order they come."""
    room = LetterRoom(store, StoreSettings(dead_letters_max=20))
    mixed = [*of_key("loud", "abcdefghijklmnopqrst"), *of_key("loud", "u"), *of_key("quiet", "XYZ")]
    left = room.keep_some(mixed, threading.Event())

    assert "".join(letter.id for letter in left) == "uZ"
    assert "Those of loud, quiet wait." in caplog.text
    assert [one.id for one in room.keep_some([*left, *of_key("third", "3")], threading.Event())] == ["u", "Z"]
    store.dead_letters.delete(LetterFilter(ids=("X", "a", "b", "c", "d")))
    assert room.keep_some(left, threading.Event()) == []


def test_refused_bodies_of_one_key_push_out_its_own_first(store: Store) -> None:
    """It may keep a half of the room; what others sent before it stays."""
    room = LetterRoom(store, StoreSettings(refused_bodies_max=8))
    room.keep(of_key("quiet", "ab", REFUSED), threading.Event())
    for ids in ("cdefgh", "ijklmn", "opqrst"):
        room.keep(of_key("loud", ids, REFUSED), threading.Event())

    assert ids_in(store) == "abqrst"


@contextmanager
def room_for_ten(tmp_path: Path) -> Iterator[tuple[Settings, Queue, Store, Door]]:
    """One partition, and a store that has room for ten dead letters."""
    overrides = {
        "data_dir": tmp_path,
        "queue.partitions": 1,
        "worker.ledger_interval_s": 0.1,
        "store.dead_letters_max": 10,
    }
    settings = config.load(environment={}, overrides=overrides)
    queue, store = open_queue(settings.queue), open_store(settings.store)
    queue.prepare()
    door = Door(queue)
    with closing(queue), closing(store), closing(door):
        yield settings, queue, store, door


def fill(door: Door) -> None:
    """The worker waits with letters of the key loud, of which ten had room, and twenty have not."""
    for number in range(3):
        door.write(batch(*[b'{"bad'] * 10, id=bytes([number]) * 16, key="loud"))
    until(lambda: registry.get("logweir_worker_paused").labels("dead_letters_full")._value.get() == 1)


def test_what_another_key_sends_does_not_wait_for_room_for_the_letters_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind them in the same partition it is stored at once, and its own letters are kept; the books wait."""
    monkeypatch.setattr(refusals, "DOORS_HEAR_S", 3600.0)
    with room_for_ten(tmp_path) as (settings, queue, store, door):
        with running_worker(settings, queue, store):
            fill(door)
            for number in range(100, 120):
                door.write(batch(b'{"summary":"good"}', id=bytes([number]) * 16, key="quiet"))
                door.write(batch(b'{"summary":"loud"}', id=bytes([number + 100]) * 16, key="loud"))
            door.write(batch(b'{"quiet', id=bytes([99]) * 16, key="quiet"))
            until(lambda: store.count(parse("good")).number == 20)
            until(lambda: len(store.dead_letters.page(size=99, wanted=LetterFilter(key="quiet"))) == 1)
            settled = read_books(store, group="logweir", late_us=1, now_us=now_us()).row.settled
            loud = len(store.dead_letters.page(size=99, wanted=LetterFilter(key="loud")))

            def is_all_settled() -> bool:
                store.dead_letters.delete(LetterFilter(key="loud"))
                return read_books(store, group="logweir", late_us=1, now_us=now_us()).row.settled == 71

            until(is_all_settled)
        row = read_books(store, group="logweir", late_us=1, now_us=now_us()).row
        paused = registry.get("logweir_worker_paused").labels("dead_letters_full")._value.get()

    assert (loud, settled <= 10, paused) == (10, True, 0)
    assert (row.outcomes["indexed"], row.outcomes["dead_lettered"]) == (40, 31)


@contextmanager
def full_of_loud(tmp_path: Path) -> Iterator[tuple[Store, Door]]:
    """A worker that waits with letters of the key loud, of which ten had room, and twenty have not."""
    with room_for_ten(tmp_path) as (settings, queue, store, door), running_worker(settings, queue, store):
        fill(door)
        yield store, door


def settled(store: Store) -> int:
    return read_books(store, group="logweir", late_us=1, now_us=now_us()).row.settled


def test_doors_are_to_refuse_a_key_whose_letters_make_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What doors had accepted of it before is kept beyond the limit, up to twice as many letters; the rest waits.

    With room again, they are told so.
    """
    monkeypatch.setattr(refusals, "DOORS_HEAR_S", 0.0)
    with full_of_loud(tmp_path) as (store, door):
        door.write(batch(b'{"summary":"quiet"}', id=b"\x63" * 16, key="quiet"))
        until(lambda: read_refusals(store, "logweir").keys == {"loud"})
        until(lambda: store.dead_letters.count()["event_unreadable"].letters == 20)
        before = read_refusals(store, "logweir")
        until(lambda: read_refusals(store, "logweir").at_us > before.at_us)
        store.dead_letters.delete(LetterFilter(key="loud"))
        until(lambda: settled(store) == 31)
        until(lambda: not store.dead_letters.delete(LetterFilter(key="loud")))
        until(lambda: read_refusals(store, "logweir").keys == frozenset())


def test_nobody_is_refused_while_nobody_else_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one key alone the queue holds what comes, and doors take it."""
    monkeypatch.setattr(refusals, "DOORS_HEAR_S", 0.0)
    asked = registry.get("logweir_worker_paused")
    with full_of_loud(tmp_path) as (store, door):
        door.write(batch(b'{"summary":"loud"}', id=b"\x63" * 16, key="loud"))
        until(lambda: store.count(parse("loud")).number == 1)
        time.sleep(2.5)  # A look for room, and one at what is asked for.
        keys, letters = read_refusals(store, "logweir").keys, store.dead_letters.count()["event_unreadable"].letters

    assert (keys, letters, asked.labels("dead_letters_full")._value.get()) == (frozenset(), 10, 1)


def test_workers_that_ask_at_once_are_all_heard(store: Store) -> None:
    """Each keeps what the others asked for, and takes out what has room."""
    full = {"a", "b", "c"}

    def ask(key: str) -> None:
        write_refusals(store, "g", {key}, is_full=full.__contains__, owner=key, at_us=1)

    threads = [threading.Thread(target=ask, args=(key,)) for key in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    together = read_refusals(store, "g").keys
    full.remove("b")
    ask("d")

    assert (together, read_refusals(store, "g").keys) == ({"a", "b", "c"}, {"a", "c"})


def test_a_running_worker_waits_at_the_limit_and_loses_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Doctor names the fault; once letters are dropped, the rest is kept, and what came behind them is stored."""
    overrides = {
        "data_dir": tmp_path,
        "queue.partitions": 1,
        "worker.ledger_interval_s": 0.1,
        "queue.session_timeout_s": 1,
        "store.dead_letters_max": 4,
    }
    settings = config.load(environment={}, overrides=overrides)
    limits = tmp_path / "logweir.toml"
    limits.write_text("[store]\ndead_letters_max = 4\n")
    queue, store = open_queue(settings.queue), open_store(settings.store)
    queue.prepare()
    door = Door(queue)
    command = ["--data-dir", str(tmp_path), "--config", str(limits)]
    with running_worker(settings, queue, store):
        door.write(batch(*[b'{"bad' for _ in range(6)], b'{"summary":"good"}', id=b"\x01" * 16))
        door.write(batch(b'{"summary":"behind"}', id=b"\x02" * 16))
        until(lambda: len(store.dead_letters.page(size=9)) == 4)
        cli.main(["doctor", "--json", *command])
        rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        at_limit = read_books(store, group="logweir", late_us=1, now_us=now_us()).row.settled
        assert cli.main(["deadletters", "drop", "--yes", *command]) == 0
        until(lambda: read_books(store, group="logweir", late_us=1, now_us=now_us()).row.settled == 8)
    (finding,) = [row for row in rows if row["what"] == "dead letters"]
    row = read_books(store, group="logweir", late_us=1, now_us=now_us()).row
    door.close()

    assert at_limit == 0
    assert finding["state"] == "fault"
    assert "holds 4 dead letters of 20 bytes; it may hold 4" in finding["found"]
    assert (row.outcomes["indexed"], row.outcomes["dead_lettered"]) == (2, 6)
    assert len(store.dead_letters.page(size=9)) == 2
    assert store.count(parse("good OR behind")).number == 2
    queue.close()
    store.close()
