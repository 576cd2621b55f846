"""Dead letters tried again, on both stores: the same identity, counted once, whatever breaks off or runs beside."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logweir import config
from logweir.audit.books import read_books
from logweir.clock import now_us
from logweir.config import Settings
from logweir.errors import STORE_DOWN, LogweirError
from logweir.ledger.differences import StoreDifference
from logweir.ledger.documents import STORE_DIFFERENCE, WINDOW
from logweir.ledger.revisions import read_corrections
from logweir.query.parse import parse
from logweir.queue import open_queue
from logweir.queue.port import Queue
from logweir.record import Kind, encode
from logweir.store import open_store
from logweir.store.port import DeadLetter, LedgerDocument, LetterFilter, Store
from logweir_workers import enrich
from logweir_workers.deadletters.retry import Result, Retrier
from tests.contract.stores import settings_of
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

BOTH = pytest.mark.parametrize("product", ("sqlite", "elasticsearch"), indirect=True)
"""For what a store has a say in; the rest is asked of the quick one only."""
EPOCH = b"\x07" * 16


class Fixture:
    """A queue, a store and a worker whose enrichment fails on events of the host "broken" until it is mended."""

    def __init__(self, settings: Settings, queue: Queue, store: Store) -> None:
        self.settings, self.queue, self.store = settings, queue, store
        self.door = Door(queue, epoch=EPOCH)

    def work_off(self) -> None:
        """Run a worker until all is in the books."""
        position = f"position:{self.settings.worker.group}:{self.queue.topic_id()}:0"
        with running_worker(self.settings, self.queue, self.store):
            end = self.queue.offsets(0)[1]
            until(
                lambda: (
                    (one := self.store.ledger.read([position]).get(position)) is not None
                    and one.body.get("next_offset") == end
                ),
                wait_s=30,
            )

    def break_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(event: dict[str, Any], _context: object) -> None:
            if event.get("hostname") == "broken":
                raise ZeroDivisionError("a bug")

        monkeypatch.setattr(enrich, "load", lambda _settings: enrich.Enricher((broken,)))

    def letters(self) -> list[DeadLetter]:
        return self.store.dead_letters.page(size=100)

    def retry(self, letters: list[DeadLetter] | None = None) -> list[str]:
        retrier = Retrier(settings=self.settings, store=self.store, queue=self.queue)
        tried = retrier.retry(self.letters() if letters is None else letters)
        retrier.recheck()
        retrier.close()
        return sorted(one.result.value for one in tried)

    def outcomes(self) -> dict[str, int]:
        books = read_books(self.store, group="logweir", late_us=60_000_000, now_us=now_us())
        assert books.balanced
        return {name: count for name, count in books.row.outcomes.items() if count}

    def found(self, query: str = "*") -> list[dict[str, Any]]:
        self.store.refresh()
        return self.store.search(parse(query), size=100).events


@pytest.fixture(params=("sqlite",))
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fixture]:
    of_store = settings_of(request.param, request, tmp_path)
    overrides = {
        "data_dir": tmp_path,
        "queue.partitions": 1,
        "worker.ledger_interval_s": 0.1,
        "queue.session_timeout_s": 1,
        "store.url": of_store.url,
        "store.index_prefix": of_store.index_prefix,
    }
    settings = config.load(environment={}, overrides=overrides)
    queue, store = open_queue(settings.queue), open_store(settings.store)
    queue.prepare()
    store.prepare()
    fixture = Fixture(settings, queue, store)
    yield fixture
    fixture.door.close()
    queue.close()
    store.close()


def event(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def broken_events(product: Fixture, monkeypatch: pytest.MonkeyPatch) -> list[DeadLetter]:
    """Three dead letters, of a numbered and of a bare batch, between good events; the bug is mended at the end."""
    product.break_off(monkeypatch)
    numbered = batch(
        event(host="broken", n=1),
        event(host="fine", n=2),
        event(host="broken", n=3),
        emitter="web-1",
        epoch="e1",
        sequence_first=5,
    )
    product.door.write(numbered)
    product.door.write(batch(event(host="broken", n=4), id=b"\x0b" * 16, index_first=7))
    product.work_off()
    monkeypatch.undo()
    return product.letters()


@BOTH
def test_a_mended_event_is_stored_as_if_nothing_had_been(product: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same id, index and numbers; the books say indexed, with a line of how; the letters are gone."""
    letters = broken_events(product, monkeypatch)
    before = product.outcomes()
    results = product.retry()
    again = product.retry(letters)
    stored = {one["details"]["n"]: one for one in product.found()}
    lines = list(read_corrections(product.store, "logweir"))

    assert before == {"indexed": 1, "dead_lettered": 3}
    assert results == ["indexed"] * 3
    assert again == ["indexed"] * 3  # Somebody else has the same letters in hand: nothing changes.
    assert product.outcomes() == {"indexed": 4}
    assert product.letters() == []
    assert {one.body["event_id"] for one in letters} == {stored[n]["_id"] for n in (1, 3, 4)}
    assert [stored[n]["ingest_number"] for n in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert stored[4]["_id"] == "b" + "0b" * 16 + ".7"
    assert {(one.key, one.emitter, one.count) for one in lines} == {("app", "web-1", 2), ("app", None, 1)}


def test_what_it_mends_is_no_difference_of_the_store_any_more(
    product: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was asked between a retry's document and its correction line: the books balance when it is through."""
    letters = broken_events(product, monkeypatch)
    (window,) = product.store.ledger.scan("window:")
    place = WINDOW.place_of(window.id)
    body = {"kind": "store_difference", "partition": 0, **StoreDifference.found(place, 2, 1, 0).as_body()}
    product.store.ledger.write([LedgerDocument(STORE_DIFFERENCE.id("logweir", place), 1, body)])

    def imbalance() -> int:
        return read_books(product.store, group="logweir", late_us=60_000_000, now_us=now_us()).imbalance

    before = imbalance()
    product.retry(letters)

    assert before == 1
    assert imbalance() == 0


@pytest.mark.parametrize("step", ["index", "ledger.write", "dead_letters.delete"])
def test_broken_off_at_any_step_it_is_done_again_and_counts_once(
    product: Fixture, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Right before and right behind each of its writes, the store is gone; the next try sets everything right."""
    broken_events(product, monkeypatch)
    *path, name = step.split(".")
    part: Any = getattr(product.store, path[0]) if path else product.store
    call = getattr(part, name)
    for done_first in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(part, name, breaking(call, done_first))
            with pytest.raises((LogweirError, RuntimeError)):
                product.retry()
        left = len(product.letters())
        assert left == (0 if step == "dead_letters.delete" and done_first else 3)
    product.retry()

    assert product.outcomes() == {"indexed": 4}
    assert product.letters() == []
    assert len(product.found()) == 4


def breaking(call: Any, done_first: bool) -> Any:
    def broken(*arguments: Any, **named: Any) -> Any:
        if done_first:
            call(*arguments, **named)
        raise RuntimeError("killed here")

    return broken


@BOTH
def test_two_at_once_count_each_event_once(product: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both try all letters, letter by letter, in opposite orders, and both write down what they did."""
    product.break_off(monkeypatch)
    product.door.write(batch(*[event(host="broken", n=n) for n in range(8)]))
    product.work_off()
    monkeypatch.undo()
    letters = product.letters()
    results: list[str] = []
    start = threading.Barrier(2)

    def run(order: int) -> None:
        retrier = Retrier(settings=product.settings, store=product.store, queue=product.queue)
        start.wait()
        for letter in letters[::order]:
            results.extend(one.result.value for one in retrier.retry([letter]))

    threads = [threading.Thread(target=run, args=(order,)) for order in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert results == ["indexed"] * 16
    assert product.outcomes() == {"indexed": 8}
    assert len(product.found()) == 8
    assert product.letters() == []


def test_what_fails_still_stays_a_letter(product: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the fix, nothing is changed; bytes that are no event fail with or without it."""
    product.break_off(monkeypatch)
    product.door.write(batch(event(host="broken"), b'{"bad'))
    product.work_off()

    assert product.retry() == ["failed", "failed"]
    assert len(product.letters()) == 2
    assert product.outcomes() == {"dead_lettered": 2}
    monkeypatch.undo()
    assert product.retry() == ["failed", "indexed"]
    assert [letter.raw for letter in product.letters()] == [b'{"bad']


@BOTH
def test_what_became_of_it_meanwhile_is_told_apart(
    product: Fixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sent again by its emitter: a duplicate. Wanted by nobody any more: filtered. Another's number: a conflict."""
    numbered = {"emitter": "web-1", "epoch": "e1"}
    product.break_off(monkeypatch)
    product.door.write(batch(event(host="broken", n=1), event(host="broken", n=2), sequence_first=5, **numbered))
    product.work_off()
    monkeypatch.undo()
    product.door.write(batch(event(host="broken", n=1), sequence_first=5, **numbered))
    product.door.write(batch(event(host="other", n=9), sequence_first=5, **numbered))
    product.work_off()
    rules = tmp_path / "filters.toml"
    rules.write_text('[[rule]]\nname = "old"\nquery = "details.n:2"\n')
    worker = product.settings.worker.model_copy(update={"filters_file": rules})
    product.settings = product.settings.model_copy(update={"worker": worker})

    assert product.retry() == ["duplicate", "filtered", "identity_conflict"]
    assert product.outcomes() == {"indexed": 1, "duplicate": 1, "filtered": 1, "dead_lettered": 1}
    assert [letter.reason for letter in product.letters()] == ["identity_conflict"]
    assert [one["details"]["n"] for one in product.found()] == [1]


def test_a_letter_of_an_earlier_attempt_corrects_nothing(product: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event was counted as indexed by the worker that came after: the letter goes, the books stay as they are."""
    product.door.write(batch(event(host="broken", n=1)))
    product.work_off()
    product.break_off(monkeypatch)
    product.door.write(batch(event(host="broken", n=1)), first=1)
    product.work_off()
    monkeypatch.undo()

    assert len(product.letters()) == 1
    assert product.outcomes() == {"indexed": 1}
    assert product.retry() == ["indexed"]
    assert product.letters() == []
    assert product.outcomes() == {"indexed": 1}


def test_a_letter_that_no_worker_has_accounted_for_is_left_alone(
    product: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker died between letter and ledger: the next one does the record again, and only then it may be retried."""
    letters = broken_events(product, monkeypatch)
    ahead = [DeadLetter(one.id, one.received_us, one.reason, {**one.body, "offset": 2}, one.raw) for one in letters]

    assert product.retry(ahead) == ["unsettled"] * 3
    assert product.outcomes() == {"indexed": 1, "dead_lettered": 3}
    assert len(product.letters()) == 3


def test_a_record_that_can_be_read_now_goes_through_the_queue_again(product: Fixture) -> None:
    """Its numbers were never counted: a worker counts them, once, however often it is queued; a damaged one stays."""
    good = encode(Kind.DATA, ingest_epoch=EPOCH, first=1, count=1, window=29_000_000, body=[batch(event(n=1))])
    product.door.write_bytes(b"not ours")
    product.work_off()
    (damaged,) = product.letters()
    readable = DeadLetter("readable", damaged.received_us, damaged.reason, damaged.body, good)
    product.store.dead_letters.put([readable])

    assert product.retry() == ["failed", "queued"]
    assert product.retry([readable]) == ["queued"]
    product.work_off()
    assert [one["details"]["n"] for one in product.found()] == [1]
    assert product.outcomes() == {"indexed": 1}
    assert product.letters() == [damaged]


def test_a_store_that_goes_away_in_the_middle_is_said(product: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The letters stay; the command ends with the store's own problem."""
    broken_events(product, monkeypatch)

    def away(_wanted: LetterFilter) -> None:
        raise LogweirError(STORE_DOWN, url="x", reason="gone")

    with monkeypatch.context() as patch:
        patch.setattr(product.store.dead_letters, "delete", away)
        with pytest.raises(LogweirError, match="gone"):
            product.retry()

    assert len(product.letters()) == 3
    assert product.retry() == [Result.INDEXED.value] * 3
