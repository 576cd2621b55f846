"""HEC through a door: what its clients send and ask first, and what each of them makes of the answer."""

from __future__ import annotations

import base64
import gzip
import json
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logweir.errors import AT_THE_DOOR, EVENT_TOO_LARGE, LogweirError, Problem
from logweir.keys.file import KeysFile
from logweir.record import Kind, Refused
from logweir_ingest.formats.splunk import SplunkFormat
from logweir_ingest.request.limits import Limits
from logweir_ingest.request.message import Request
from tests.ingest.helpers import Answer, Door, events_of, is_ready, of_kind, running
from tests.waiting import until

COLLECTOR = "/services/collector"
EVENTS = [COLLECTOR, f"{COLLECTOR}/event", f"{COLLECTOR}/event/1.0"]
RAW = [f"{COLLECTOR}/raw", f"{COLLECTOR}/raw/1.0"]
ACKS = [f"{COLLECTOR}/ack", f"{COLLECTOR}/ack/1.0"]
HEALTH = [f"{COLLECTOR}/health", f"{COLLECTOR}/health/1.0"]
SUCCESS = b'{"text":"Success","code":0}'


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    yield from _started(tmp_path_factory.mktemp("door"))


@pytest.fixture(scope="module")
def other_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Another process, which knows nothing of what the first one has done."""
    yield from _started(tmp_path_factory.mktemp("other"))


def _started(folder: Path) -> Iterator[Door]:
    with running(Door(folder, environment={"LOGWEIR_INGEST_BODY_SIZE_BYTES_MAX": "300000"})) as door:
        until(lambda: is_ready(door))
        yield door


def send(door: Door, body: Any, path: str = COLLECTOR, method: str = "POST", **headers: str) -> Answer:
    return door.request(method, path, body, {"Authorization": f"Splunk {door.key}", **headers})


def stored(door: Door, marked: str) -> list[dict[str, Any]]:
    """What is in the queue of the events that have this text."""
    return [json.loads(event) for event in events_of(of_kind(door.records(), Kind.DATA)) if marked.encode() in event]


# --- events -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", EVENTS)
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_events_are_answered_just_as_clients_want_it(door: Door, path: str, encoding: str) -> None:
    """200 to the byte, for envelopes with nothing between them; the receipt is in a header."""
    mark = uuid.uuid4().hex
    body = f'{{"time":1764504000.5,"host":"h","event":"one {mark}"}}{{"event":{{"message":"two {mark}"}}}}'.encode()
    answer = send(
        door, gzip.compress(body) if encoding else body, path, **({"Content-Encoding": encoding} if encoding else {})
    )
    receipt = door.request("GET", f"/receipts/{answer.headers['log-receipt']}")

    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/json", SUCCESS)
    assert receipt.json["accepted"] == 2
    assert stored(door, mark) == [
        {"summary": f"one {mark}", "timestamp": 1764504000.5, "hostname": "h"},
        {"message": f"two {mark}"},
    ]


@pytest.mark.parametrize("path", RAW)
def test_each_line_of_text_is_an_event(door: Door, path: str) -> None:
    """The URL says what the lines have in common. The channel that Splunk wants there may be left out."""
    mark = uuid.uuid4().hex
    answer = send(door, f"one {mark}\r\ntwo {mark}\n".encode(), f"{path}?host=web-1&sourcetype=nginx")
    said = {"hostname": "web-1", "sourcetype": "nginx"}

    assert (answer.status, answer.body) == (200, SUCCESS)
    assert stored(door, mark) == [{"summary": f"one {mark}", **said}, {"summary": f"two {mark}", **said}]


@pytest.mark.parametrize(
    ("body", "status", "code", "number"),
    [
        (b"", 400, 5, None),
        (b'{"event":"MARK"}{"event":"x"', 400, 6, 1),
        (b'{"event":"MARK"}["x"]', 400, 6, 1),
        (b'{"event":"MARK \xff"}', 400, 6, 0),
        (b'{"event":"MARK"}{"time":1}', 400, 12, 1),
        (b'{"event":"MARK"}{"event":""}', 400, 13, 1),
        (b'{"event":"MARK"}' * 10_001, 413, 27, None),
        (b'{"event":"MARK' + b"x" * 270_000 + b'"}', 413, 27, 0),
        (b"x" * 300_001, 413, 27, None),
    ],
)
def test_a_request_is_refused_as_a_whole(door: Door, body: bytes, status: int, code: int, number: int | None) -> None:
    """With Splunk's number for it and the first bad envelope's; nothing in front of that one was accepted."""
    mark = uuid.uuid4().hex
    answer = send(door, body.replace(b"MARK", mark.encode()))

    assert (answer.status, answer.json["code"], answer.json.get("invalid-event-number")) == (status, code, number)
    assert list(answer.json)[:2] == ["text", "code"]
    assert answer.json["detail"]
    assert stored(door, mark) == []


def test_what_cannot_be_read_is_kept_for_the_operator(door: Door) -> None:
    send(door, b'{"event":"kept"')

    def kept() -> bool:
        bodies = [one.body for _, one in of_kind(door.records(), Kind.REFUSED)]
        return any(
            isinstance(one, Refused) and (one.format, one.body[:16]) == ("splunk", b'{"event":"kept"') for one in bodies
        )

    until(kept)


# --- who sends ----------------------------------------------------------------------------------------------------
def test_the_key_comes_as_a_token(door: Door) -> None:
    """As Splunk's scheme in any case, as the password of Basic, and as all keys do."""
    basic = base64.b64encode(f"x:{door.key}".encode()).decode()
    tried = [
        {"Authorization": f"Splunk {door.key}"},
        {"Authorization": f"splunk  {door.key} "},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": f"Bearer {door.key}"},
        {"X-Log-Key": door.key},
    ]

    assert {door.request("POST", COLLECTOR, b'{"event":"x"}', headers).status for headers in tried} == {200}


@pytest.mark.parametrize(
    ("headers", "query", "status", "code"),
    [
        ({}, "", 401, 2),
        ({"Authorization": "Digest x"}, "", 401, 3),
        ({"Authorization": "Splunk lw_wrong"}, "", 403, 4),
        ({"Authorization": "Splunk"}, "", 401, 3),
        ({"Authorization": "Basic !"}, "", 401, 3),
        ({}, "?token=KEY", 400, 16),
    ],
)
def test_others_are_told_why_not(door: Door, headers: dict[str, str], query: str, status: int, code: int) -> None:
    """A key in the URL is refused though it is good: it is in the log of every proxy by then."""
    answer = door.request("POST", COLLECTOR + query.replace("KEY", door.key), b'{"event":"x"}', headers)

    assert (answer.status, answer.json["code"]) == (status, code)
    assert door.key not in answer.body.decode()


# --- acknowledgements ---------------------------------------------------------------------------------------------
def ack(door: Door, channel: str, acks: list[int]) -> dict[str, bool]:
    answer = send(door, json.dumps({"acks": acks}), ACKS[0], **{"X-Splunk-Request-Channel": channel})
    assert answer.status == 200
    return answer.json["acks"]


def test_an_ack_id_is_true_at_every_process_as_often_as_it_is_asked_after(door: Door, other_door: Door) -> None:
    """Who lost an answer must not take its events for lost. What nobody gave out for the channel is false."""
    channel = str(uuid.uuid4())
    doors = (door, other_door)
    sent = [send(one, b'{"event":"x"}', **{"X-Splunk-Request-Channel": channel}) for one in doors * 20]
    ids = [answer.json["ackId"] for answer in sent]
    others = [*range(100), -1, max(ids) + 1, 2**64]

    assert sent[0].body == b'{"text":"Success","code":0,"ackId":%d}' % ids[0]
    assert len(set(ids)) == 40
    assert max(ids) < 2**53
    for one in (*doors, *doors):
        assert ack(one, channel, ids) == {str(ack_id): True for ack_id in ids}
    assert not any(ack(door, channel, others).values())
    assert not any(ack(door, str(uuid.uuid4()), ids).values())


@pytest.mark.parametrize("path", [*EVENTS, *RAW])
def test_the_channel_may_stand_in_the_url(door: Door, path: str) -> None:
    channel = str(uuid.uuid4())
    ack_id = send(door, b'{"event":"x"}', f"{path}?channel={channel}").json["ackId"]
    asked = gzip.compress(json.dumps({"acks": [ack_id]}).encode())
    answer = send(door, asked, f"{ACKS[1]}?channel={channel.upper()}", **{"Content-Encoding": "gzip"})

    assert answer.body == b'{"acks":{"%d":true}}' % ack_id


@pytest.mark.parametrize(
    ("channel", "body", "status", "code"),
    [
        ("", b'{"acks":[1]}', 400, 10),
        ("?channel=a%20b", b'{"acks":[1]}', 400, 11),
        ("?channel=", b'{"acks":[1]}', 400, 11),
        ("?channel=c", b"", 400, 6),
        ("?channel=c", b"{}", 400, 6),
        ("?channel=c", b'{"acks":["1"]}', 400, 6),
        ("?channel=c", b'{"acks":[' + b"1," * 600_000 + b"1]}", 413, 27),
        ("?channel=c", gzip.compress(b'{"acks":[' + b"1," * 600_000 + b"1]}"), 413, 27),
    ],
)
def test_bad_questions_are_answered_so(door: Door, channel: str, body: bytes, status: int, code: int) -> None:
    """However large they are, packed or not."""
    encoding = {"Content-Encoding": "gzip"} if body.startswith(b"\x1f") else {}
    answer = send(door, body, ACKS[0] + channel, **encoding)

    assert (answer.status, answer.json["code"]) == (status, code)


def test_nobody_without_a_key_may_ask(door: Door) -> None:
    assert door.request("POST", f"{ACKS[0]}?channel=c", b'{"acks":[1]}').json["code"] == 2


# --- what is asked first ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [*EVENTS, *RAW, *ACKS, *HEALTH])
def test_options_say_the_method(door: Door, path: str) -> None:
    """Docker's driver asks so, without its key, before a container starts."""
    answer = door.request("OPTIONS", path)

    assert (answer.status, answer.headers["allow"]) == (200, "GET" if path in HEALTH else "POST")


@pytest.mark.parametrize("path", HEALTH)
def test_health_is_said_to_anybody_but_who_shows_a_bad_key(door: Door, path: str) -> None:
    """A balancer has none; Vector would send with it, and drop all that is then refused."""
    answer = door.request("GET", path)
    wrong = door.request("GET", path, None, {"Authorization": "Splunk lw_wrong"})

    assert (answer.status, answer.json) == (200, {"text": "HEC is healthy", "code": 17})
    assert (wrong.status, wrong.json["code"]) == (400, 4)


def test_a_door_that_takes_no_events_is_unhealthy(tmp_path: Path) -> None:
    """Who balances by it goes elsewhere."""
    with running(Door(tmp_path)) as door:
        until(lambda: door.request("GET", HEALTH[0]).status == 200)
        KeysFile(tmp_path / "keys.toml").revoke("default")
        until(lambda: door.request("GET", HEALTH[0]).status == 503)
        answer = door.request("GET", HEALTH[1])

    assert (answer.json["text"], answer.json["code"]) == ("HEC is unhealthy, queues are full", 18)
    assert answer.headers["retry-after"]


# --- its clients, as their sources say ----------------------------------------------------------------------------
def test_vector(door: Door) -> None:
    """It asks after its health with its key, sends with a channel, and takes for lost what no ack says true of."""
    channel = str(uuid.uuid4())
    token = {"Authorization": f"Splunk {door.key}"}
    health = door.request("GET", HEALTH[1], None, token)
    body = gzip.compress(b'{"event":{"message":"x"},"fields":{},"time":1764504000.123,"host":"h"}' * 3)
    said = {**token, "X-Splunk-Request-Channel": channel, "Content-Encoding": "gzip"}
    sent = door.request("POST", f"{COLLECTOR}/event", body, {**said, "Content-Type": "application/json"})
    ack_id = sent.json["ackId"]
    polled = door.request("POST", f"{ACKS[0]}?channel={channel}", json.dumps({"acks": [ack_id]}), token)

    assert (health.status, sent.status) == (200, 200)
    assert polled.json == {"acks": {str(ack_id): True}}


def test_fluent_bit(door: Door) -> None:
    """It knows 200 alone, drops what is answered 4xx, and reads no body."""
    said = {"Content-Encoding": "gzip", "User-Agent": "Fluent-Bit", "Content-Type": "application/json"}
    body = gzip.compress(b'{"time":1764504000.000000001,"event":{"log":"x"}}{"time":1764504000.2,"event":{"log":"y"}}')

    assert send(door, body, f"{COLLECTOR}/event", **said).status == 200
    assert send(door, b"x\ny\n", f"{COLLECTOR}/raw", **said | {"Content-Encoding": "identity"}).status == 200


def test_docker(door: Door) -> None:
    """Its driver asks with OPTIONS; anything but 200 keeps a container from starting, and a batch in its memory."""
    event = {"line": "hello", "source": "stdout", "tag": "4f6b"}
    message = json.dumps({"event": event, "time": "1764504000.123456", "host": "docker-1"}).encode()

    assert door.request("OPTIONS", f"{COLLECTOR}/event/1.0").status == 200
    assert send(door, message * 2, f"{COLLECTOR}/event/1.0", **{"Content-Type": "application/json"}).body == SUCCESS


def test_java(door: Door) -> None:
    """The logging libraries of Splunk fail on anything but 200, and write these Content-Types."""
    event = 'application/json; profile="urn:splunk:event:1.0"; charset=utf-8'
    message = {"time": "1764504000.123", "event": {"severity": "INFO", "logger": "a.B", "message": "x"}}

    assert send(door, json.dumps(message), f"{COLLECTOR}/event/1.0", **{"Content-Type": event}).body == SUCCESS
    assert send(door, "x", f"{COLLECTOR}/raw", **{"Content-Type": "plain/text"}).body == SUCCESS


def test_syslog_ng(door: Door) -> None:
    """It sends again for ever what was answered 400 or 413, before all else; it drops what is answered 422."""
    bad = [b'{"event":', b"", b"x" * 300_001]
    path = f"{COLLECTOR}/event/1.0?index=main&source=s&sourcetype=t"
    told = [send(door, body, path, **{"User-Agent": "syslog-ng 4.8.1/libcurl 8.5.0"}) for body in bad]

    assert [answer.status for answer in told] == [422] * 3
    assert [answer.json["code"] for answer in told] == [6, 5, 27]


def test_a_line_that_is_too_large_costs_no_more_than_itself() -> None:
    """Written as JSON, each of its control characters has six bytes: it is refused before that."""
    limits = Limits(2**20, 2**24, 100, 1000, 10, 5, 100)
    body = b"\x01" * 2**24
    request = Request("POST", f"{COLLECTOR}/raw", {}, "")
    tracemalloc.start()
    try:
        with pytest.raises(LogweirError) as caught:
            SplunkFormat().split(request, body, limits)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert caught.value.problem is EVENT_TOO_LARGE
    assert peak < 2.5 * len(body)


# --- all that can be refused --------------------------------------------------------------------------------------
NUMBERS = dict.fromkeys(("event_index", "byte_offset", "retry_after_s"), 1)


class _Any(dict[str, Any]):
    def __missing__(self, name: str) -> int:
        return 1


@pytest.mark.parametrize("problem", AT_THE_DOOR, ids=lambda problem: problem.code)
def test_every_problem_has_an_answer_that_clients_understand(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Come again is 503, which all of them know, with when; what is bad is 4xx, with Splunk's number for it."""
    monkeypatch.setattr(LogweirError, "_filled", lambda error, template: template.format_map(_Any()))
    reply = SplunkFormat().refused(Request("POST", COLLECTOR, {}, ""), LogweirError(problem, allowed="POST", **NUMBERS))
    body = json.loads(reply.body)

    assert body["text"]
    assert isinstance(body["code"], int)
    assert body["problem"] == problem.code
    assert reply.status in {400, 401, 403, 413, 500, 503, 501, 505}
    assert (reply.status == 503) == (problem.status in (429, 503))
    assert (b"retry-after" in dict(reply.headers)) == (reply.status == 503)
