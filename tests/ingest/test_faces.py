"""What both faces do when the door itself is at fault, and what the counts say."""

from __future__ import annotations

import asyncio
import gzip
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import zstandard

from logweir import config
from logweir.clock import now_us
from logweir.errors import LogweirError
from logweir.http.inline import InlineRequest
from logweir.http.reader import Head
from logweir.keys.file import KeysFile
from logweir.queue import open_queue
from logweir.record import Batch
from logweir_ingest.access.auth import KeyReader
from logweir_ingest.app import Door, Intake, Request
from logweir_ingest.asgi import FastLane
from logweir_ingest.delivery.enqueue import open_enqueuer
from logweir_ingest.records.merge import Merger
from logweir_ingest.spool.generation import Generation
from logweir_ingest.tally import Tally
from logweir_ingest.wsgi import make_app
from tests.ingest.helpers import Answer, connected_to_each, epoch_of, running
from tests.ingest.helpers import Door as DoorProcess
from tests.services.kafka import Kafka


class FaultyDoor(Door):
    """With a bug in it."""

    def batch_of(self, intake: Intake, body: bytes) -> Batch:
        raise ZeroDivisionError("the bug")


@pytest.fixture
def faulty(tmp_path: Path) -> tuple[Door, str]:
    return door_of(FaultyDoor, tmp_path)


def door_of(kind: type[Door], tmp_path: Path) -> tuple[Door, str]:
    key = KeysFile(tmp_path / "keys.toml").add("default")
    settings = config.load(overrides={"data_dir": tmp_path}, environment={})
    queue = open_queue(settings.queue)
    merger = Merger(
        open_enqueuer(settings, queue, ingest_epoch=bytes(16), generation=Generation()),
        ingest_epoch=bytes(16),
        clock=now_us,
        answer_timeout_s=1,
        record_size_bytes_max=900_000,
        pending_size_bytes_max=10**6,
    )
    keys = KeyReader.of(settings)
    door = kind(settings, keys=keys, merger=merger, clock=now_us, receipt_secret=b"s" * 32, tally=Tally())
    return door, key


def through_flask(door: Door, key: str) -> Answer:
    response = (
        make_app(lambda: door, answer_timeout_s=1).test_client().post("/events", data=b"{}", headers={"X-Log-Key": key})
    )
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers}, response.data)


def through_the_fast_lane(door: Door, key: str) -> Answer:
    lane = FastLane(lambda _, __: door, lambda _: None, stop_timeout_s=1.0)
    lane._door = door
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"x-log-key", key.encode())]
    scope = {"type": "http", "method": "POST", "path": "/events", "headers": headers, "client": ("127.0.0.1", 1)}
    asyncio.run(lane(scope, receive, send))
    head, body = sent
    return Answer(head["status"], {name.decode(): value.decode() for name, value in head["headers"]}, body["body"])


@pytest.mark.parametrize("through", [through_flask, through_the_fast_lane])
def test_a_bug_is_a_500_whose_reference_finds_the_trace(
    faulty: tuple[Door, str], through: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The sender learns a reference and nothing of the inside; the operator finds the trace by it, and no key."""
    door, key = faulty
    with caplog.at_level(logging.ERROR):
        answer = through(door, key)

    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json["code"] == "internal"
    assert b"bug" not in answer.body and b"Traceback" not in answer.body
    assert answer.json["reference"] in caplog.text
    assert "ZeroDivisionError: the bug" in caplog.text
    assert key not in caplog.text


EVENT = b'{"timestamp":"2026-01-01T00:00:00Z","hostname":"h","summary":"%b","details":{"a":[1]}}' % (b"x" * 330)
USUAL = b"[" + b",".join([EVENT] * 500) + b"]"
TOKENS = b"{" + b",".join([b'"":""'] * 40_000) + b"}"
MOMENTS = {
    "nothing": (b"", ""),
    "one": (EVENT, ""),
    "broken": (EVENT[:-1], ""),
    "lone surrogate": (b'{"a":"\\ud800"}', ""),
    "array": (USUAL, ""),
    "lines": ((EVENT + b"\n") * 500, ""),
    "gzip": (gzip.compress(USUAL), "gzip"),
    "zstd": (zstandard.compress(USUAL), "zstd"),
    "many values": (TOKENS, ""),
}
LONG = {
    "large": (b"[" + b",".join([EVENT] * 700) + b"]", ""),
    "many": (b'{"a":1}' * 1001, ""),
    "broken at its end": (USUAL[:-1] + b",]", ""),
    "of many values, broken": (TOKENS[:-1] + b",}", ""),
    "surrogate among many": (USUAL.replace(b"xx", b"\\ud800", 1), ""),
    "no UTF-8": (USUAL[:-2] + b"\xff}]", ""),
    "large unpacked": (gzip.compress(USUAL * 2), "gzip"),
    "bomb": (zstandard.compress(b" " * 2**24), "zstd"),
    "many parts": (zstandard.compress(b"{}") * 1001, "zstd"),
    "one broken, packed": (gzip.compress(EVENT[:-1]), "gzip"),
    "not packed": (b"{}", "gzip"),
}


@pytest.mark.parametrize("name", [*MOMENTS, *LONG])
def test_others_wait_only_for_bodies_that_take_a_moment(name: str, tmp_path: Path) -> None:
    """Those are read at once, all others on another thread; what becomes of them is the same."""
    door, key = door_of(Door, tmp_path)
    body, encoding = (MOMENTS | LONG)[name]
    headers = {b"x-log-key": key.encode(), b"content-encoding": encoding.encode()}

    def outcome(read: Callable[[Intake, bytes], Batch | None]) -> list[bytes] | str | None:
        try:
            batch = read(door.let_in(Request("POST", "/events", headers, "127.0.0.1")), body)
            return None if batch is None else batch.events
        except LogweirError as error:
            return error.problem.code

    whole, brief = outcome(door.batch_of), outcome(door.brief_batch_of)

    assert whole is not None
    assert brief == (whole if name in MOMENTS else None)


class _Connection:
    """One that is not there any more."""

    client = ("127.0.0.1", 1)


def test_a_body_that_takes_long_is_not_answered_at_once(tmp_path: Path) -> None:
    """However small it is, and though it has come whole."""
    door, key = door_of(Door, tmp_path)
    lane = FastLane(lambda _, __: door, lambda _: None, stop_timeout_s=1.0)
    lane._door = door
    head = Head(b"POST", b"/events", "1.1", [(b"x-log-key", key.encode())], keep_alive=True, expects_100=False)
    connection: Any = _Connection()

    assert not lane.at_once(InlineRequest(connection, head, TOKENS[:60_000] + b",}"))


def test_the_tally_hands_over_what_a_histogram_would_have_seen() -> None:
    """Many observations at once are the same as each by itself, of requests and of events: buckets, sum, count."""
    tally = Tally()
    durations_s = [0.0001, 0.001, 0.0011, 0.2, 29.0, 31.0, 1000.0]

    def values() -> list[float]:
        sample = prometheus_client.REGISTRY.get_sample_value
        found = [sample("logweir_ingest_requests_total", {"endpoint": "events", "code": "202"})]
        for name, label in (
            ("logweir_ingest_request_duration_seconds", {"endpoint": "events"}),
            ("logweir_event_latency_seconds", {"path": "door_to_queued"}),
        ):
            found += [sample(name + suffix, label) for suffix in ("_count", "_sum")]
            found += [sample(f"{name}_bucket", {**label, "le": le}) for le in ("0.001", "0.0025", "30.0", "+Inf")]
        # Other tests of this process have counted, too.
        return [value or 0.0 for value in found]

    before = values()
    for duration_s in durations_s:
        tally.accepted(events=3, took_s=duration_s)
    tally.flush()
    tally.flush()
    grown = [after - was for after, was in zip(values(), before, strict=True)]

    requests = [7, sum(durations_s), 2, 3, 5, 7]
    assert grown == pytest.approx([7, *requests, *(3 * value for value in requests)])


def test_several_processes_serve_one_port_on_kafka(kafka: Kafka, tmp_path: Path) -> None:
    """Both take events, /metrics adds them up, quickly, whichever is asked, and a graceful end leaves no child."""
    environment = {
        "LOGWEIR_QUEUE_URL": f"kafka://{kafka.bootstrap}/events-{tmp_path.name}",
        "LOGWEIR_QUEUE_PARTITIONS": "2",
    }
    with running(DoorProcess(tmp_path, environment=environment), "--processes", "2") as door:
        connections = connected_to_each(door, 2)
        before = door.metric('logweir_ingest_accepted_events_total{durable="queue"}')
        answers = [door.post(b'{"a":1}', connection=connections[n % 2]) for n in range(300)]
        epochs = {epoch_of(door, one) for one in answers}
        time.sleep(0.5)
        times_s = [_timed(lambda: door.request("GET", "/metrics")) for _ in range(21)]
        counted = door.metric('logweir_ingest_accepted_events_total{durable="queue"}')
        assert door.stop() == 0

    assert len(epochs) == 2
    assert [one.status for one in answers] == [202] * 300
    assert counted == before + 300
    assert statistics.median(times_s) < 1
    assert "Traceback" not in door.log


def _timed(ask: Callable[[], Answer]) -> float:
    began_s = time.perf_counter()
    assert ask().status == 200
    return time.perf_counter() - began_s
