"""OTLP/HTTP through a door: answers in the encoding of the request, and none that a Collector takes for lost."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from logweir.errors import AT_THE_DOOR, EVENTS_TOO_MANY, LogweirError, Problem
from logweir.record import Kind
from logweir_ingest.formats.otlp import OtlpFormat
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Request
from tests.ingest.helpers import SOURCES, Answer, Door, events_of, is_ready, of_kind, running
from tests.waiting import until

PROTOBUF, JSON = "application/x-protobuf", "application/json"
# A Collector tries again after these, and drops what is answered anything else.
RETRIED = {429, 502, 503, 504}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    environment = {"LOGWEIR_INGEST_BODY_SIZE_BYTES_MAX": "300000"}
    with running(Door(tmp_path_factory.mktemp("door"), environment=environment)) as door:
        until(lambda: is_ready(door))
        yield door


def send(door: Door, body: bytes, media_type: str, **headers: str) -> Answer:
    said = {"Content-Type": media_type, "Authorization": f"Bearer {door.key}", **headers}
    return door.request("POST", "/v1/logs", body, said)


def request_of(*bodies: str) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for body in bodies:
        scope.log_records.add(time_unix_nano=1764504000123456789).body.string_value = body
    return request


def encoded(request: ExportLogsServiceRequest, media_type: str) -> bytes:
    return request.SerializeToString() if media_type == PROTOBUF else json.dumps(MessageToDict(request)).encode()


def status_of(answer: Answer) -> Any:
    """The google.rpc.Status in an answer."""
    status = Status()
    if answer.headers["content-type"] == JSON:
        status.code, status.message = answer.json["code"], answer.json["message"]
    else:
        assert answer.headers["content-type"] == PROTOBUF
        status.ParseFromString(answer.body)
    return status


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_batch_is_answered_in_its_own_encoding(door: Door, media_type: str, encoding: str) -> None:
    """An empty response of its type: any other body, with 200, a Collector counts as dropped."""
    mark = uuid.uuid4().hex
    body = encoded(request_of(f"one {mark}", f"two {mark}"), media_type)
    headers = {"Content-Encoding": encoding} if encoding else {}
    answer = send(door, gzip.compress(body) if encoding else body, media_type + "; charset=utf-8", **headers)
    receipt = door.request("GET", f"/receipts/{answer.headers['log-receipt']}")
    events = [event for event in events_of(of_kind(door.records(), Kind.DATA)) if mark.encode() in event]

    assert (answer.status, answer.headers["content-type"]) == (200, media_type)
    assert answer.body == (b"" if media_type == PROTOBUF else b"{}")
    assert receipt.json["accepted"] == 2
    assert [json.loads(event)["summary"] for event in events] == [f"one {mark}", f"two {mark}"]
    assert json.loads(events[0])["timestamp"] == 1764504000123456789


@pytest.mark.parametrize(("media_type", "body"), [(PROTOBUF, b""), (PROTOBUF, b"\x0a\x02\x12\x00"), (JSON, b"{}")])
def test_nothing_is_a_good_request(door: Door, media_type: str, body: bytes) -> None:
    """The specification wants success for a request without records; nothing of it comes into the queue."""
    before = len(door.records())
    answer = send(door, body, media_type)

    assert (answer.status, answer.body) == (200, b"" if media_type == PROTOBUF else b"{}")
    assert len(of_kind(door.records(), Kind.DATA)) <= before


@pytest.mark.parametrize(
    ("media_type", "body", "status", "code"),
    [
        (PROTOBUF, b"\xff", 400, 3),
        (PROTOBUF, request_of("x").SerializeToString()[:-1], 400, 3),
        (PROTOBUF, request_of("x" * 290_000).SerializeToString(), 413, 8),
        (PROTOBUF, request_of(*["x"] * 10_001).SerializeToString(), 413, 8),
        (PROTOBUF, b"x" * 300_001, 413, 8),
        (JSON, b"{", 400, 3),
        (JSON, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[7]}]}]}', 400, 3),
        (JSON, b"x" * 300_001, 413, 8),
        ("text/plain", b"x", 415, 3),
    ],
)
def test_it_is_refused_with_a_status(door: Door, media_type: str, body: bytes, status: int, code: int) -> None:
    """In the encoding of the request, with the words of the problem; 415 is answered as protobuf."""
    answer = send(door, body, media_type)
    said = status_of(answer)

    assert (answer.status, said.code) == (status, code)
    assert said.message.endswith((".", "?"))


def test_a_compressed_bomb_is_refused(door: Door) -> None:
    """A hundred bytes of zeros are 64 MiB; of a name that all records share, ten thousand copies would be 2 GiB."""
    zeros = send(door, gzip.compress(b"\0" * 70_000_000), PROTOBUF, **{"Content-Encoding": "gzip"})
    request = request_of(*[""] * 10_000)
    request.resource_logs[0].resource.attributes.add(key="k").value.string_value = "x" * 200_000
    copies = send(door, gzip.compress(request.SerializeToString()), PROTOBUF, **{"Content-Encoding": "gzip"})

    assert (zeros.status, copies.status) == (413, 413)


def test_strangers_are_refused_in_its_words(door: Door) -> None:
    answer = door.request("POST", "/v1/logs", b"", {"Content-Type": PROTOBUF})
    wrong = door.request("POST", "/v1/logs", b"{}", {"Content-Type": JSON, "X-Log-Key": "lw_wrong"})

    assert (answer.status, status_of(answer).code, answer.headers["www-authenticate"]) == (401, 16, "Bearer")
    assert (wrong.status, status_of(wrong).code) == (401, 16)
    assert door.request("GET", "/v1/logs").status == 405


class _Any(dict[str, Any]):
    def __missing__(self, name: str) -> int:
        return 1


@pytest.mark.parametrize("problem", AT_THE_DOOR, ids=lambda problem: problem.code)
def test_what_may_be_tried_again_is_tried_again(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own faults among it: a Collector would drop what is answered 500."""
    monkeypatch.setattr(LogweirError, "_filled", lambda error, template: template.format_map(_Any()))
    request = Request("POST", "/v1/logs", {b"content-type": JSON.encode()}, "")
    reply = OtlpFormat().refused(request, LogweirError(problem, allowed="POST"))
    is_ours = problem.status in (429, 500, 503)

    assert (reply.status in RETRIED) == is_ours
    assert (b"retry-after" in dict(reply.headers)) == is_ours


def test_a_door_without_such_senders_does_not_load_protobuf() -> None:
    """It would cost each process 30 ms and 7 MB."""
    program = "import sys, logweir_ingest.app; assert not any('protobuf' in name for name in sys.modules)"
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": SOURCES}, check=True)


LIMITS = Limits(
    body_size_bytes_max=10_000,
    decompressed_size_bytes_max=100_000,
    decompression_ratio_max=10,
    event_size_bytes_max=1000,
    events_per_request_max=20,
    depth_max=8,
    refused_size_bytes_max=100,
)


@given(body=st.binary(max_size=200), position=st.integers(0, 200), byte=st.integers(0, 255), is_json=st.booleans())
def test_damaged_bodies_are_refused_in_words(body: bytes, position: int, byte: int, is_json: bool) -> None:
    """Random bytes, and a good request with one byte changed: events, each an object, or a problem."""
    media_type = JSON if is_json else PROTOBUF
    good = bytearray(encoded(request_of("one", "two"), media_type))
    good[position % len(good)] = byte
    request = Request("POST", "/v1/logs", {b"content-type": media_type.encode()}, "")
    for sent in (body, bytes(good)):
        try:
            events = OtlpFormat().split(request, sent, LIMITS).events
        except LogweirError as error:
            assert 0 <= error.numbers.get("byte_offset", 0) <= len(sent)
            assert error.detail
        else:
            assert all(isinstance(json.loads(event), dict) for event in events)


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf that has a length."""
    length, size = len(content), bytearray()
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes((number << 3 | 2, *size, length)) + content


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (PROTOBUF, _field(1, _field(2, _field(2, _field(6, b"") * 400))) * 15),
        (PROTOBUF, _field(1, _field(1, _field(1, b"") * 400)) * 15),
        (PROTOBUF, _field(1, _field(1, _field(1, _field(2, _field(5, _field(1, b"") * 400))))) * 15),
        (JSON, b'{"resourceLogs":[%b{}]}' % (b"{}," * 350)),
        (JSON, b'{"resourceLogs":[{"scopeLogs":[%b{}]}]}' % (b"{}," * 350)),
    ],
    ids=["attributes", "attributes of resources", "values of arrays", "resources", "scopes"],
)
def test_what_is_in_a_body_is_counted_before_it_costs_anything(media_type: str, body: bytes) -> None:
    """Two bytes may be a value, and thousands of one name no more than one member: 64 MiB would take a minute."""
    request = Request("POST", "/v1/logs", {b"content-type": media_type.encode()}, "")

    with pytest.raises(LogweirError) as caught:
        OtlpFormat().split(request, body, LIMITS)

    assert caught.value.problem is EVENTS_TOO_MANY
