"""Receipts: what the door says of a batch, over real stores, real doors and real workers. The sum is always exact."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from logweir import cli, config, receipt
from logweir.config import AccountingSettings, Settings, StoreSettings
from logweir.errors import LogweirError
from logweir.event import Provenance, stream_of
from logweir.ledger.deviations import BEYOND_RANGES_MAX
from logweir.ledger.documents import WINDOW as WINDOW_KIND
from logweir.ledger.documents import WindowId
from logweir.ledger.position import STREAM_MINUTES_MAX
from logweir.ledger.revisions import Change, revise
from logweir.outcomes import Outcome
from logweir.process.damage import mark_of
from logweir.record import Body, Kind, Record
from logweir.store import open_store
from logweir.store.port import Store
from logweir_ingest.receipts import DEAD_LETTERS_MAX, Found, Receipts
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.settled import SettledRecord
from tests.contract.stores import NOON_US, STORES, document, settings_of
from tests.ingest.helpers import INTERFACES, SOURCES, Answer, Door, running
from tests.tools.product import LOGWEIR
from tests.waiting import until
from tests.workers.helpers import batch

EPOCH = b"\x07" * 16
PARTITION = 3
WINDOW = NOON_US // 60_000_000
SECRET = b"s" * 32
TERMS = ("indexed", "duplicate", "filtered", "dead_lettered", "lost", "unknown", "in_flight")
INDEXED, DUPLICATE, FILTERED, DEAD = Outcome.INDEXED, Outcome.DUPLICATE, Outcome.FILTERED, Outcome.DEAD_LETTERED


def adds_up(answer: dict[str, Any]) -> dict[str, int]:
    """The terms that are not zero; asserts that they sum up to what was accepted."""
    assert sum(answer[term] or 0 for term in TERMS) == answer["accepted"]
    return {term: answer[term] for term in TERMS if answer[term]}


# --- what is said, over both kinds of store -----------------------------------------------------------------------
class Books:
    """A store with a worker's ledger in it, and a door's answers about it."""

    def __init__(self, settings: StoreSettings) -> None:
        self.store: Store = open_store(settings)
        self.store.prepare()
        self._receipts = Receipts(Settings(store=settings), secret=SECRET)

    def ledger(self, topic_id: str = "t", exceptions_max: int = 5000) -> PartitionLedger:
        return PartitionLedger.claim(
            store=self.store,
            group="logweir",
            topic_id=topic_id,
            partition=PARTITION,
            owner="one",
            settings=AccountingSettings(exceptions_max=exceptions_max),
        )

    def index(self, *numbers: int) -> None:
        stream = stream_of(EPOCH, PARTITION)
        for number in numbers:
            one = document(f"e{number}", {"summary": "event"}, number=number)
            self.store.index([_with(one, Provenance(stream, number, "f" * 16))])
        self.store.refresh()

    def of(self, first: int, last: int, *, epoch: bytes = EPOCH, window: int = WINDOW) -> dict[str, Any]:
        token = receipt.encode(
            SECRET, ingest_epoch=epoch, partition=PARTITION, first=first, count=last - first + 1, window=window
        )
        return self._receipts.of(token.decode(), address="10.0.0.9")


def _with(one: Any, provenance: Provenance) -> Any:
    return type(one)(one.id, one.day, one.source, provenance, one.summary_words, one.all_words)


def settle(
    ledger: PartitionLedger,
    offset: int,
    first: int,
    outcomes: list[Outcome],
    reasons: dict[int, str] | None = None,
    window: int = WINDOW,
) -> None:
    body: Body = [batch(*[b"{}"] * len(outcomes), received_us=NOON_US)]
    record = Record(Kind.DATA, EPOCH, first, len(outcomes), window, body)
    ledger.load([record])
    ledger.settle(SettledRecord(record, offset, outcomes, reasons or {}))


@pytest.fixture(params=STORES)
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Books]:
    opened = Books(settings_of(request.param, request, tmp_path))
    yield opened
    opened.store.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Books]:
    opened = Books(StoreSettings(url=f"sqlite:///{tmp_path}/store"))
    yield opened
    opened.store.close()


def test_a_batch_is_followed_from_the_queue_to_its_outcomes(books: Books) -> None:
    """In flight as a whole, then in part (its events are in two records), then settled, with reasons and letters."""
    unclaimed = books.of(2, 6)
    ledger = books.ledger()
    claimed = books.of(2, 6)
    settle(ledger, 0, 1, [INDEXED, INDEXED, DEAD, DUPLICATE], {2: "event_unreadable"})
    ledger.flush()
    books.index(1, 2)
    partly = books.of(2, 6)
    settle(ledger, 1, 5, [FILTERED, INDEXED, INDEXED], {0: "debug lines"})
    ledger.flush()
    books.index(6, 7)
    whole = books.of(2, 6)

    assert [answer["state"] for answer in (unclaimed, claimed, partly, whole)] == [
        "queued",
        "queued",
        "processing",
        "settled",
    ]
    assert adds_up(unclaimed) == adds_up(claimed) == {"in_flight": 5}
    assert adds_up(partly) == {"indexed": 1, "duplicate": 1, "dead_lettered": 1, "in_flight": 2}
    assert adds_up(whole) == {"indexed": 2, "duplicate": 1, "filtered": 1, "dead_lettered": 1}
    assert whole["searchable"] == 2
    assert whole["detail"].startswith("5 accepted = 2 indexed + 1 duplicate + 1 filtered + 1 dead-lettered: ")
    assert {(row["outcome"], row["reason"], row["count"]) for row in whole["exceptions"]} == {
        ("dead_lettered", "event_unreadable", 1),
        ("duplicate", None, 1),
        ("filtered", "debug lines", 1),
    }
    assert whole["dead_letters"] == [f"{stream_of(EPOCH, PARTITION)}.3"]
    assert (whole["received"][:20], whole["window"]) == ("2026-01-31T12:00:00.", "2026-01-31T12:00:00Z")
    assert whole["processed_until"] == "2026-01-31T12:00:00Z"
    assert (whole["partition"], whole["ingest_epoch"], whole["first"], whole["last"]) == (3, EPOCH.hex(), 2, 6)


def test_what_a_retry_has_changed_is_said_as_it_is_now(books: Books) -> None:
    """One dead letter became indexed, one a duplicate, and one whose outcome was not kept is filtered by now."""
    ledger = books.ledger(exceptions_max=2)
    reasons = {0: "store_refused", 1: "event_unfit", 2: "store_refused", 4: "event_unfit"}
    settle(ledger, 0, 1, [DEAD, DEAD, DEAD, INDEXED, DEAD], reasons)
    ledger.flush()
    books.index(2, 4)
    before = books.of(1, 5)
    changes = [
        Change(2, ("app", None), DEAD, INDEXED),
        Change(1, ("app", None), DEAD, DUPLICATE),
        Change(5, ("app", None), DEAD, FILTERED, "debug lines"),
    ]
    place = WindowId("t", PARTITION, EPOCH.hex(), WINDOW)
    revise(books.store, "logweir", place, changes, cause="retry 1", at_us=NOON_US, owner="two")
    after = books.of(1, 5)

    assert adds_up(before) == {"indexed": 1, "dead_lettered": 2, "unknown": 2}
    assert adds_up(after) == {"indexed": 2, "duplicate": 1, "filtered": 1, "unknown": 1}
    assert (before["revised"], after["revised"]) == (0, 3)
    assert {(row["outcome"], row["reason"]) for row in after["exceptions"]} == {
        ("duplicate", None),
        ("filtered", "debug lines"),
    }
    assert (len(before["dead_letters"]), after["dead_letters"]) == (2, [])


def test_numbers_that_the_queue_lost_are_said_to_be_lost(embedded: Books) -> None:
    """Retention ran past the workers: what was in the hole is neither processed nor under way."""
    ledger = embedded.ledger()
    settle(ledger, 0, 1, [INDEXED] * 3)
    ledger.expire(1, 1)
    settle(ledger, 2, 7, [INDEXED] * 3)
    ledger.flush()

    assert adds_up(embedded.of(2, 8)) == {"indexed": 4, "lost": 3}
    assert embedded.of(2, 8)["state"] == "settled"
    assert adds_up(embedded.of(4, 6)) == {"lost": 3}


def test_a_pruned_ledger_says_that_it_does_not_know(embedded: Books) -> None:
    """The numbers came by and their window is gone, or their process is forgotten: neither in flight nor indexed."""
    ledger = embedded.ledger()
    settle(ledger, 0, 1, [INDEXED] * 3)
    ledger.flush()
    id = WINDOW_KIND.id("logweir", WindowId("t", PARTITION, EPOCH.hex(), WINDOW))
    embedded.store.ledger.delete(list(embedded.store.ledger.read([id]).values()))
    pruned, next_ones = embedded.of(1, 3), embedded.of(4, 5)
    forgotten = embedded.of(1, 3, epoch=b"\x08" * 16, window=WINDOW - STREAM_MINUTES_MAX - 1)

    assert [one["state"] for one in (pruned, forgotten, next_ones)] == ["expired", "expired", "queued"]
    assert adds_up(pruned) == adds_up(forgotten) == {"unknown": 3}
    assert pruned["indexed"] is pruned["in_flight"] is pruned["searchable"] is None
    assert adds_up(next_ones) == {"in_flight": 2}


def test_outcomes_beyond_the_room_for_them_are_unknown(embedded: Books) -> None:
    """Past accounting.exceptions_max nothing is guessed: not of exceptions without room, and of no others."""
    ledger = embedded.ledger(exceptions_max=1)
    settle(ledger, 0, 1, [DUPLICATE, INDEXED, DEAD, INDEXED, DUPLICATE, INDEXED], {2: "store_refused"})
    ledger.flush()

    assert adds_up(embedded.of(1, 6)) == {"indexed": 3, "duplicate": 1, "unknown": 2}
    assert adds_up(embedded.of(6, 6)) == {"indexed": 1}
    assert adds_up(embedded.of(3, 5)) == {"indexed": 1, "unknown": 2}


def test_what_the_store_has_is_not_unknown_because_others_fill_the_room(embedded: Books) -> None:
    """Their numbers are among those of who left no room; of who has a number that is not there it stays unknown."""
    ledger = embedded.ledger(exceptions_max=1)
    for at in range(1, 3 * BEYOND_RANGES_MAX, 2):
        settle(ledger, at, at, [DUPLICATE, INDEXED])
    ledger.flush()
    embedded.index(1000)
    around = embedded.of(999, 1000)

    assert adds_up(embedded.of(1000, 1000)) == {"indexed": 1}
    assert adds_up(embedded.of(1002, 1002)) == adds_up(embedded.of(1001, 1001)) == {"unknown": 1}
    assert adds_up(around) == {"unknown": 2}


def test_a_receipt_survives_its_topic(embedded: Books) -> None:
    """A receipt names no topic: it is found after the topic was made anew, and a door learns of the new one."""
    old = embedded.ledger("old")
    settle(old, 0, 1, [INDEXED] * 3)
    old.flush()
    before = adds_up(embedded.of(1, 3))
    new = embedded.ledger("new")
    settle(new, 0, 4, [INDEXED] * 3, window=WINDOW + 1)
    new.flush()
    time.sleep(2.1)  # so old may a door's knowledge of the topics be

    assert before == adds_up(embedded.of(1, 3)) == {"indexed": 3}
    assert adds_up(embedded.of(4, 6, window=WINDOW + 1)) == {"indexed": 3}


def test_an_empty_batch_is_settled(embedded: Books) -> None:
    """A heartbeat has a receipt, too: nothing was accepted, nothing is under way."""
    answer = embedded.of(1, 0)

    assert (answer["state"], answer["accepted"], adds_up(answer)) == ("settled", 0, {})


def test_not_more_than_so_many_dead_letters_are_named(embedded: Books) -> None:
    """All are counted; the names of the first ones are enough to look at."""
    ledger = embedded.ledger()
    settle(ledger, 0, 1, [DEAD] * 150, dict.fromkeys(range(150), "store_refused"))
    ledger.flush()
    answer = embedded.of(1, 150)

    assert adds_up(answer) == {"dead_lettered": 150}
    assert len(answer["dead_letters"]) == DEAD_LETTERS_MAX
    assert answer["dead_letters"][-1].endswith(f"-{PARTITION}.{DEAD_LETTERS_MAX}")


# --- the running product ------------------------------------------------------------------------------------------
FAST = {
    "LOGWEIR_WORKER_LEDGER_INTERVAL_S": "0.1",
    "LOGWEIR_WORKER_METRICS_PORT": "0",
    "LOGWEIR_QUEUE_SESSION_TIMEOUT_S": "1",
    "LOGWEIR_QUEUE_PARTITIONS": "2",
}


@contextmanager
def working(door: Door) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the door's queue, killed at the end."""
    with (door.data_dir / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [*LOGWEIR, "worker", "--data-dir", str(door.data_dir)],
            env={**os.environ, "PYTHONPATH": SOURCES, **FAST},
            stdout=log,
            stderr=log,
            cwd=door.data_dir,
        )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait(10)


@pytest.fixture(scope="module", params=INTERFACES)
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("receipts"), interface=request.param, environment=FAST)) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        yield door


def posted(door: Door, count: int, headers: dict[str, str] | None = None, *, summary: str = "event") -> str:
    """The receipt of a batch."""
    body = json.dumps([{"summary": f"{summary} {number}"} for number in range(count)])
    answer = door.post(body, headers)
    assert answer.status == 202, answer.body
    return str(answer.json["receipt"])


def asked(door: Door, token: str) -> Answer:
    return door.request("GET", f"/receipts/{token}")


def settled(door: Door, token: str) -> dict[str, Any]:
    """The answer once nothing is in flight; at every look before, its sum must be right."""
    found: dict[str, Any] = {}

    def look() -> bool:
        answer = asked(door, token)
        assert answer.status == 200, answer.body
        adds_up(answer.json)
        found.update(answer.json)
        return bool(answer.json["state"] == "settled")

    until(look)
    return found


def problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer.body
    assert answer.json["code"] == code
    return dict(answer.json)


def test_without_a_worker_all_is_in_flight_and_with_one_all_is_indexed(door: Door) -> None:
    """The way of a good batch, asked for without a key, on both interfaces."""
    token = posted(door, 3)
    waiting = asked(door, token)
    with working(door):
        done = settled(door, token)
    after = asked(door, token)

    assert (waiting.status, waiting.json["state"], adds_up(waiting.json)) == (200, "queued", {"in_flight": 3})
    assert waiting.headers["content-type"] == "application/json"
    assert waiting.headers["cache-control"] == "no-store"
    assert (adds_up(done), done["searchable"], done["exceptions"]) == ({"indexed": 3}, 3, [])
    # Up to when the worker is through goes on after that.
    assert {**after.json, "processed_until": None} == {**done, "processed_until": None}


def test_a_batch_sent_again_is_duplicate_and_other_content_a_dead_letter(door: Door) -> None:
    """By its Idempotency-Key: the first batch is indexed, its retry is a duplicate, another body is in conflict."""
    first, again = (posted(door, 2, {"Idempotency-Key": "a"}) for _ in range(2))
    other = posted(door, 3, {"Idempotency-Key": "a"}, summary="another")
    with working(door):
        answers = [settled(door, token) for token in (first, again, other)]
    indexed = [adds_up(answer).get("indexed", 0) for answer in answers]
    with closing(open_store(StoreSettings(url=f"sqlite:///{door.data_dir}/store"))) as store:
        kept = {letter.id for letter in store.dead_letters.page(size=100)}

    # Which partition is read first decides who is first: a duplicate or conflict is whoever comes behind.
    assert sorted(indexed[:2]) in ([0, 2], [0, 0])
    assert sum(indexed) == 3
    (conflict,) = {
        (row["outcome"], row["reason"])
        for answer in answers
        for row in answer["exceptions"]
        if row["outcome"] == "dead_lettered"
    }
    assert conflict == ("dead_lettered", "identity_conflict")
    named = {id for answer in answers for id in answer["dead_letters"]}
    assert named == kept
    assert len(named) == sum(answer["dead_lettered"] for answer in answers)


@pytest.mark.timeout(120)  # Workers are started again and again.
def test_a_worker_killed_again_and_again_changes_no_answer(door: Door) -> None:
    """kill -9 at random moments: at the end each batch is settled, all indexed, and its events are there once."""
    rng = random.Random(7)
    tokens: list[tuple[str, int]] = []
    for _ in range(3):
        with working(door):
            deadline = time.monotonic() + rng.uniform(0.8, 1.8)
            while time.monotonic() < deadline:
                count = rng.choice((1, 3, 50))
                tokens.append((posted(door, count), count))
                adds_up(asked(door, tokens[-1][0]).json)
    with working(door):
        answers = [settled(door, token) for token, _ in tokens]

    assert [adds_up(answer) for answer in answers] == [{"indexed": count} for _, count in tokens]
    assert [answer["searchable"] for answer in answers] == [count for _, count in tokens]


def test_a_token_that_was_not_made_here_is_nothing(door: Door) -> None:
    """Forged, cut, of another installation or no token at all: 404, and the store is not asked."""
    token = posted(door, 1)
    foreign = receipt.encode(SECRET, ingest_epoch=EPOCH, partition=0, first=1, count=1, window=WINDOW).decode()
    others = [foreign, token[:-1], token + "A", "x", "%00", "%FF%FE", "a" * 5000]
    flipped = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))]

    for forged in (*others, *flipped):
        problem(asked(door, forged), 404, "receipt_bad")
    for path in ("/receipts", "/receipts/", f"/receipts/{token}/", f"/receipts//{token}", f"//receipts/{token}"):
        problem(door.request("GET", path), 404, "not_found")
    assert problem(door.request("POST", f"/receipts/{token}"), 405, "method_not_allowed")["allowed"] == "GET, HEAD"
    head = door.request("HEAD", f"/receipts/{token}")
    assert (head.status, head.body) == (200, b"")


def test_a_broken_store_is_a_503_that_says_nothing_of_the_inside(door: Door) -> None:
    """The sender is told to ask again, the operator reads the reason in the log, and events are taken all the while."""
    token = posted(door, 1)
    with working(door):
        settled(door, token)
    main = door.data_dir / "store" / "main.sqlite"
    kept = {path: path.read_bytes() for path in main.parent.glob("main.sqlite*")}
    for path in kept:
        path.write_bytes(b"not a database, " * 400)
    broken = [asked(door, token) for _ in range(3)]
    taken = door.post(b"{}")
    for path, content in kept.items():
        path.write_bytes(content)
    mark_of(main).unlink()
    mended = asked(door, token)

    for answer in broken:
        assert problem(answer, 503, "receipt_unanswered")["cause"] == "store"
        assert answer.headers["retry-after"] == "2"
        assert str(door.data_dir).encode() not in answer.body and b"database" not in answer.body
    assert door.log.count("Receipts cannot be answered: The store sqlite:///") == 1
    assert (taken.status, mended.status) == (202, 200)
    assert door.metric('logweir_ingest_receipts_unanswered_total{cause="store"}') == 3


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.timeout(120)  # Questions wait four seconds.
def test_a_store_that_hangs_holds_up_nothing_else(tmp_path: Path) -> None:
    """Two questions wait their time, the others are turned away at once, and events, health and metrics go on."""
    with silent_server() as port:
        environment = {
            "LOGWEIR_STORE_URL": f"http://127.0.0.1:{port}",
            "LOGWEIR_INGEST_RECEIPTS_AT_ONCE_MAX": "4",  # Half of them for one address.
            "LOGWEIR_INGEST_RECEIPTS_TIMEOUT_S": "4",
        }
        with running(Door(tmp_path, environment=environment)) as door, ThreadPoolExecutor(8) as pool:
            until(lambda: door.request("GET", "/readyz").status == 200)
            token = posted(door, 1)
            started = time.monotonic()
            questions = [pool.submit(asked, door, token) for _ in range(8)]
            durations = [_timed(lambda: door.post(b"{}")) for _ in range(5)]
            health = [door.request("GET", path).status for path in ("/healthz", "/readyz", "/metrics")]
            others_took_s = time.monotonic() - started
            causes = [problem(one.result(), 503, "receipt_unanswered")["cause"] for one in questions]
            took_s = time.monotonic() - started
            until(lambda: asked(door, token).json["cause"] != "busy")  # the slots come free

    assert causes.count("busy") == 6
    assert {"busy", "store", "timeout"} >= set(causes)  # the store's own clock may be first, or ours
    assert health == [200, 200, 200]
    assert max(durations) <= others_took_s < 3.5
    assert 3.5 < took_s < 60


def _timed(action: Any) -> float:
    started = time.monotonic()
    assert action().status == 202
    return time.monotonic() - started


def test_a_store_that_is_away_is_a_503_and_costs_no_event(tmp_path: Path) -> None:
    """Nobody listens at the store's address: the door works, only receipts wait."""
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    with running(Door(tmp_path, environment={"LOGWEIR_STORE_URL": f"http://127.0.0.1:{port}"})) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        answer = asked(door, posted(door, 2))

    assert problem(answer, 503, "receipt_unanswered")["cause"] == "store"
    assert str(port).encode() not in answer.body


def test_questions_at_once_are_bounded_and_their_slots_come_back(tmp_path: Path) -> None:
    """A slot is free again after an answer, a refusal and a store that cannot be opened."""
    settings = config.load(
        environment={}, overrides={"data_dir": tmp_path, "ingest.receipts_at_once_max": 1, "store.url": "http://["}
    )
    receipts = Receipts(settings, secret=SECRET)
    token = receipt.encode(SECRET, ingest_epoch=EPOCH, partition=0, first=1, count=1, window=WINDOW).decode()
    causes = []
    for _ in range(3):
        with pytest.raises(LogweirError) as caught:
            receipts.of(token, address="10.0.0.9")
        causes.append(caught.value.numbers["cause"])
        until(lambda: not any(thread.name == "receipt" for thread in threading.enumerate()))

    assert causes == ["store"] * 3


def test_who_asks_slowly_leaves_half_of_the_slots_to_other_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a /64 in IPv6, and the last one to who has none; they are there again when the slow questions are answered."""
    settings = config.load(environment={}, overrides={"data_dir": tmp_path, "ingest.receipts_timeout_s": 0.01})
    receipts = Receipts(settings, secret=SECRET)
    go_on, found = threading.Event(), Found()
    monkeypatch.setattr(receipts, "_opened", go_on.wait)
    monkeypatch.setattr(receipts._ledger, "find", lambda *_: found)
    token = receipt.encode(SECRET, ingest_epoch=EPOCH, partition=0, first=1, count=1, window=WINDOW).decode()

    def cause(address: str) -> str:
        try:
            receipts.of(token, address=address)
        except LogweirError as error:
            return str(error.numbers["cause"])
        return "answered"

    slow = [cause(f"2001:db8::{number}") for number in range(4)]
    others = [cause(address) for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3")]
    go_on.set()
    until(lambda: not any(thread.name == "receipt" for thread in threading.enumerate()))

    assert slow == ["timeout", "timeout", "busy", "busy"]
    assert others == ["timeout", "busy", "timeout", "busy"]
    assert receipts._slots.take("2001:db8::/64")


# --- logweir receipt ----------------------------------------------------------------------------------------------
def command(door: Door, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "logweir.cli", "receipt", *words, "--url", f"http://127.0.0.1:{door.port}/events"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": SOURCES},
    )


def test_the_command_waits_and_its_status_says_whether_all_is_well(door: Door) -> None:
    """1 while in flight, 0 when all is indexed, 1 with dead letters and their names, 2 for a token that is none."""
    good = posted(door, 2, {"Idempotency-Key": "c1"})
    early = command(door, good)
    with working(door):
        waited = command(door, good, "--wait", "30")
        bad = posted(door, 2, {"Idempotency-Key": "c1"}, summary="another")
        dead = command(door, bad, "--wait", "30")
        as_json = command(door, bad, "--json")
    forged = command(door, "AQ" + good[2:-3] + "AAA", "--wait", "30")

    assert (early.returncode, waited.returncode, dead.returncode, as_json.returncode) == (1, 0, 1, 1)
    assert "2 accepted = 2 in flight: " in early.stdout
    assert "2 accepted = 2 indexed: " in waited.stdout and "searches find 2 of them now" in waited.stdout
    assert "2 dead_lettered (identity_conflict): " in dead.stdout
    answer = json.loads(as_json.stdout)
    assert dead.stdout.splitlines()[-2:] == [f"Dead letter {id}" for id in answer["dead_letters"]]
    assert (forged.returncode, forged.stdout) == (2, "")
    assert "This receipt was not made here." in forged.stderr


def test_the_command_says_what_it_got_when_there_is_no_door(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address, the cause and what to do, not a trace; with --wait only after that time."""
    monkeypatch.chdir(tmp_path)
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    started = time.monotonic()
    status = cli.main(["receipt", "AQx", "--url", f"http://127.0.0.1:{port}", "--wait", "0.5"])
    took_s = time.monotonic() - started

    assert status == 2
    assert f"http://127.0.0.1:{port}: " in capsys.readouterr().err
    assert 0.5 <= took_s < 20
