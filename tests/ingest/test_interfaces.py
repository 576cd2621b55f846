"""What both interfaces do when the door itself is at fault, and what the counts say."""

from __future__ import annotations

import asyncio
import gzip
import logging
import queue
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import zstandard
from uvicorn.server import ServerState

from logweir import config
from logweir.clock import now_us
from logweir.errors import LogweirError
from logweir.http.inline import InlineRequest
from logweir.http.reader import Head
from logweir.keys.file import KeysFile
from logweir.queue import open_queue
from logweir.record import Batch
from logweir_ingest.access.auth import Authenticator
from logweir_ingest.app import Admitted, IngestApp
from logweir_ingest.asgi import AsgiApp
from logweir_ingest.delivery.enqueue import open_enqueuer
from logweir_ingest.formats import FORMATS
from logweir_ingest.formats.json import JsonFormat
from logweir_ingest.formats.port import Parsed
from logweir_ingest.records.batcher import Enqueued, RecordBatcher
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Reply, Request
from logweir_ingest.spool.generation import Generation
from logweir_ingest.tally import Tally
from logweir_ingest.wsgi import make_wsgi
from tests.ingest.helpers import Answer, connected_to_each, epoch_of, running
from tests.ingest.helpers import Door as DoorProcess
from tests.services.kafka import Kafka


def faulty(*_: object) -> Parsed:
    raise ZeroDivisionError("the bug")


@pytest.fixture
def app_and_key(tmp_path: Path) -> tuple[IngestApp, str]:
    key = KeysFile(tmp_path / "keys.toml").add("default")
    settings = config.load(overrides={"data_dir": tmp_path}, environment={})
    batcher = RecordBatcher(
        open_enqueuer(settings, open_queue(settings.queue), ingest_epoch=bytes(16), generation=Generation()),
        ingest_epoch=bytes(16),
        clock=now_us,
        answer_timeout_s=1,
        record_size_bytes_max=900_000,
        pending_size_bytes_max=10**6,
    )
    keys = Authenticator.of(settings)
    app = IngestApp(settings, keys=keys, batcher=batcher, clock=now_us, receipt_secret=b"s" * 32, tally=Tally())
    return app, key


def through_wsgi(app: IngestApp, key: str) -> Answer:
    flask_app = make_wsgi(lambda: app)
    response = flask_app.test_client().post("/events", data=b"{}", headers={"X-Log-Key": key})
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers}, response.data)


def served(app: IngestApp) -> AsgiApp:
    asgi = AsgiApp(lambda _, __: app, lambda _: None, stop_timeout_s=1.0)
    asgi._app = app
    return asgi


def through_asgi(app: IngestApp, key: str) -> Answer:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"x-log-key", key.encode())]
    scope = {"type": "http", "method": "POST", "path": "/events", "headers": headers, "client": ("127.0.0.1", 1)}
    asyncio.run(served(app)({**scope, "query_string": b""}, receive, send))
    head, body = sent
    return Answer(head["status"], {name.decode(): value.decode() for name, value in head["headers"]}, body["body"])


class _Connection:
    """One on which a request for events has come whole."""

    client = ("127.0.0.1", 1)

    def __init__(self) -> None:
        self.written: queue.Queue[bytes] = queue.Queue()
        self.tasks: set[Any] = set()
        self.transport = self
        self.server_state = ServerState()

    def is_closing(self) -> bool:
        return False

    def write(self, answer: bytes) -> None:
        self.written.put(answer)

    def answered(self, _: InlineRequest) -> None:
        pass


def inline(app: IngestApp, key: str, body: bytes = b"{}") -> Answer:
    connection: Any = _Connection()
    head = Head(b"POST", b"/events", "1.1", [(b"x-log-key", key.encode())], keep_alive=True, expects_100=False)
    assert served(app).handle_inline(InlineRequest(connection, head, body))
    first, _, content = connection.written.get(timeout=10).partition(b"\r\n\r\n")
    status, *headers = first.decode().split("\r\n")
    return Answer(int(status.split()[1]), dict(line.lower().split(": ", 1) for line in headers), content)


@pytest.mark.parametrize("through", [through_wsgi, through_asgi, inline])
def test_a_bug_is_a_500_whose_reference_finds_the_trace(
    app_and_key: tuple[IngestApp, str], through: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender learns a reference and nothing of the inside; the operator finds the trace by it, and no key."""
    app, key = app_and_key
    monkeypatch.setattr(JsonFormat, "split", faulty)
    with caplog.at_level(logging.ERROR):
        answer = through(app, key)

    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json["code"] == "internal"
    assert b"bug" not in answer.body and b"Traceback" not in answer.body
    assert answer.json["reference"] in caplog.text
    assert "ZeroDivisionError: the bug" in caplog.text
    assert key not in caplog.text


def request_for_events(key: str, **headers: str) -> Request:
    sent = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request("POST", "/events", {b"x-log-key": key.encode(), **sent}, "127.0.0.1")


def test_a_format_with_a_bug_answers_all_the_same(
    app_and_key: tuple[IngestApp, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that it cannot confirm is a 500, once; a refusal that it cannot put into words is the door's own."""
    app, key = app_and_key
    replies: list[Reply] = []
    monkeypatch.setattr(JsonFormat, "accepted", faulty)
    events = app.take(request_for_events(key), FORMATS[0], replies.append)
    for _ in range(2):
        if not events.done():
            events.set_result(Enqueued(0, 1, 1, 1, "queue"))
    monkeypatch.setattr(JsonFormat, "refused", faulty)
    app.take(request_for_events("lw_wrong"), FORMATS[0], replies.append)

    assert [reply.status for reply in replies] == [500, 401]
    assert b'"code":"key_unknown"' in replies[1].body


@pytest.mark.parametrize("end", ["read", "too large", "refused", "cut short", "abandoned"])
def test_a_body_is_held_in_the_budget_until_it_is_read_or_given_up(
    end: str, app_and_key: tuple[IngestApp, str]
) -> None:
    """Whatever its end: what stayed behind would be missing for good."""
    app, key = app_and_key
    replies: queue.Queue[Reply] = queue.Queue()
    events = app.take(request_for_events(key, content_length="100000"), FORMATS[0], replies.put)
    assert app.bodies._held_bytes == 100_000
    events.receive(b" " * 150_000, is_last=False)
    assert app.bodies._held_bytes == 150_000
    if end == "too large":
        events.receive(b" " * app.limits.body_size_bytes_max, is_last=False)
    elif end == "cut short":
        events.cut_short()
    elif end == "abandoned":
        events.abandon()
    else:
        events.receive(b"{}" if end == "read" else b"{", is_last=True)

    expected = {"read": 503, "too large": 413, "refused": 400, "cut short": 400, "abandoned": None}[end]
    assert (replies.get(timeout=10).status if expected else None) == expected
    assert app.bodies._held_bytes == 0
    assert not events.wants_body
    assert replies.empty()


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
def test_others_wait_only_for_bodies_that_take_a_moment(name: str, app_and_key: tuple[IngestApp, str]) -> None:
    """Those are read at once, all others on another thread; what becomes of them is the same."""
    app, key = app_and_key
    body, encoding = (MOMENTS | LONG)[name]
    headers = {b"x-log-key": key.encode(), b"content-encoding": encoding.encode()}
    json_format = FORMATS[0]

    def outcome(read: Callable[[Admitted, bytes], Batch | None]) -> list[bytes] | str | None:
        try:
            batch = read(app.admit(Request("POST", "/events", headers, "127.0.0.1"), json_format), body)
            return None if batch is None else batch.events
        except LogweirError as error:
            return error.problem.code

    whole, small = outcome(Admitted.parse), outcome(Admitted.parse_small)

    assert whole is not None
    assert small == (whole if name in MOMENTS else None)


def test_a_body_that_takes_long_is_read_on_another_thread(
    app_and_key: tuple[IngestApp, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small it is, and though it has come whole."""
    app, key = app_and_key
    readers: list[str] = []
    split = JsonFormat.split

    def noted(self: JsonFormat, request: Request, body: bytes, limits: Limits) -> Parsed:
        readers.append(threading.current_thread().name)
        return split(self, request, body, limits)

    monkeypatch.setattr(JsonFormat, "split", noted)
    answer = inline(app, key, TOKENS[:60_000] + b",}")

    assert (answer.status, answer.json["code"]) == (400, "json_bad")
    assert readers == ["long-body_0"]


def test_the_tally_hands_over_what_a_histogram_would_have_seen() -> None:
    """Many observations at once are the same as each by itself, of requests and of events: buckets, sum, count."""
    tally = Tally()
    durations_s = [0.0001, 0.001, 0.0011, 0.2, 29.0, 31.0, 1000.0]

    def values() -> list[float]:
        sample = prometheus_client.REGISTRY.get_sample_value
        found = [sample("logweir_ingest_requests_total", {"endpoint": "events", "code": "202"})]
        for name, label in (
            ("logweir_ingest_request_duration_seconds", {"endpoint": "events"}),
            ("logweir_event_latency_seconds", {"path": "ingest_to_queued"}),
        ):
            found += [sample(name + suffix, label) for suffix in ("_count", "_sum")]
            found += [sample(f"{name}_bucket", {**label, "le": le}) for le in ("0.001", "0.0025", "30.0", "+Inf")]
        # Other tests of this process have counted, too.
        return [value or 0.0 for value in found]

    before = values()
    for duration_s in durations_s:
        tally.accepted(202, events=3, took_s=duration_s)
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
