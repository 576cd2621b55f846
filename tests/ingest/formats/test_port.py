"""A second wire format is one file: lines.py, through a door of its own, over both interfaces."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from logweir.record import Kind, Refused
from logweir_ingest.app import ENDPOINTS, endpoint_of
from logweir_ingest.formats import FORMATS
from tests.ingest.helpers import Answer, Door, events_of, of_kind, running
from tests.waiting import until

LIMITS = {"LOGWEIR_INGEST_EVENTS_PER_REQUEST_MAX": "10000", "LOGWEIR_INGEST_BODY_SIZE_BYTES_MAX": "300000"}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("door")
    program = "tests.ingest.formats.with_lines"
    with running(Door(folder, interface=request.param, environment=LIMITS, program=program)) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        yield door


def send(door: Door, body: Any, method: str = "POST", path: str = "/lines", **headers: str) -> Answer:
    return door.request(method, path, body, {"X-Lines-Token": door.key, **headers})


def newest(door: Door) -> tuple[list[bytes], Any]:
    """The events of the newest record, and its batch."""
    _, one = max(of_kind(door.records(), Kind.DATA), key=lambda found: found[1].batches[0].received_us)
    return events_of([(0, one)]), one.batches[0]


def test_it_is_accepted_in_its_own_words(door: Door) -> None:
    """An answer for each line, and each an event in the queue, under the format's name."""
    answer = send(door, "one\nzwölf\n".encode())
    events, batch = newest(door)

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == b'{"refused":false,"items":[{"size":3,"status":201},{"size":6,"status":201}]}'
    assert [json.loads(event) for event in events] == [{"summary": "one"}, {"summary": "zwölf"}]
    assert (batch.format, batch.key, batch.emitter) == ("lines", "default", None)


def test_its_path_says_who_sends(door: Door) -> None:
    """What it reads of the emitter is in the record, whatever the method and however the path goes on."""
    answer = send(door, b"one", "PUT", "/web-1/lines")

    assert answer.status == 200
    assert newest(door)[1].emitter == "web-1"


@pytest.mark.parametrize("lines", [100, 9_000])
@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_it_need_not_know_of_size_and_compression(door: Door, lines: int, encoding: str, is_chunked: bool) -> None:
    """What takes long is read on another thread, and what was packed comes plain."""
    body = b"".join(b"line %d\n" % n for n in range(lines))
    sent = gzip.compress(body) if encoding else body
    pieces = iter([sent[:100], sent[100:]]) if is_chunked else sent
    answer = send(door, pieces, **({"Content-Encoding": encoding} if encoding else {}))

    assert (answer.status, len(answer.json["items"])) == (200, lines)
    assert len(newest(door)[0]) == lines


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"good\n\xff\n", 422, "line_bad"),
        (b"", 422, "body_empty"),
        (b"x\n" * 10_001, 413, "events_too_many"),
        (b"x" * 300_001, 413, "body_too_large"),
    ],
)
def test_it_is_refused_in_its_own_words_and_as_a_whole(door: Door, body: bytes, status: int, code: str) -> None:
    """Also what is refused by the door's own limits, before the format sees anything."""
    before = len(of_kind(door.records(), Kind.DATA))
    answer = send(door, body)

    assert (answer.status, answer.json["refused"], answer.json["code"]) == (status, True, code)
    assert answer.json.keys() == {"refused", "text", "code"}
    assert len(of_kind(door.records(), Kind.DATA)) == before


def test_what_it_cannot_read_is_kept_under_its_name(door: Door) -> None:
    """The operator sees which format could not read the body, and what it was."""
    send(door, b"kept\n\xff")

    def kept() -> list[tuple[str, str, bytes]]:
        bodies = [one.body for _, one in of_kind(door.records(), Kind.REFUSED)]
        return [(one.format, one.code, one.body) for one in bodies if isinstance(one, Refused)]

    until(lambda: ("lines", "line_bad", b"kept\n\xff") in kept())


def test_its_key_comes_its_own_way_or_as_all_keys_do(door: Door) -> None:
    """Where its senders carry it; in X-Log-Key, too. Its own way is no way into another format."""
    refused = send(door, b"one", **{"X-Lines-Token": "lw_wrong"})
    usual = door.request("POST", "/lines", b"one", {"X-Log-Key": door.key})
    other = send(door, b"{}", path="/events")

    assert (refused.status, refused.json["code"]) == (403, "key_unknown")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert usual.status == 200
    assert (other.status, other.headers["content-type"]) == (401, "application/problem+json")


def test_its_senders_are_answered_what_they_ask_first(door: Door) -> None:
    """With their key, or, where the row says so, without; HEAD as GET."""
    greeting = send(door, None, "GET", "/lines?v=1")
    head = send(door, None, "HEAD")
    stranger = door.request("GET", "/lines")
    health = door.request("GET", "/lines/health")

    assert (greeting.status, greeting.body) == (200, b"lines 1.0 v=1")
    assert (head.status, head.body) == (200, b"")
    assert (stranger.status, stranger.json["code"]) == (403, "key_missing")
    assert (health.status, health.body) == (200, b"healthy")


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("DELETE", "/lines", 405, "GET, POST, HEAD"),
        ("POST", "/web-1/lines", 405, "PUT"),
        ("PUT", "//lines", 404, None),
        ("PUT", "/a/b/lines", 404, None),
        ("POST", "/lines/", 404, None),
    ],
)
def test_a_path_is_its_own_as_it_is_written(door: Door, method: str, path: str, status: int, allow: str | None) -> None:
    """Nothing beside its rows: not another method, no empty segment, no more of them."""
    answer = send(door, b"one", method, path)

    assert (answer.status, answer.headers.get("allow")) == (status, allow)


def test_the_others_stay_what_they_are_and_all_are_counted_alike(door: Door) -> None:
    """JSON beside it, and the status that each has really answered."""
    names = [f'logweir_ingest_requests_total{{code="{code}",endpoint="events"}}' for code in (200, 202, 422)]
    before = [door.metric(name) for name in names]
    answer = door.post(b'{"a":1}')
    send(door, b"one")
    send(door, b"\xff")

    assert answer.body.startswith(b'{"accepted":1,"durable":"queue","receipt":"')
    assert [door.metric(name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 1]
    assert "Traceback" not in door.log


def test_no_two_formats_answer_the_same_request() -> None:
    """A row that another hides would never be asked; a name in the queue means one format for good."""
    assert len({(endpoint.path, endpoint.method) for endpoint in ENDPOINTS}) == len(ENDPOINTS)
    assert all(endpoint_of(endpoint.path, endpoint.method) is endpoint for endpoint in ENDPOINTS)
    assert len({format.name for format in FORMATS}) == len(FORMATS)
