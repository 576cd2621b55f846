"""The door's contract, over both of its interfaces as real processes: the same bytes in, the same answer out."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from logweir import errors, receipt
from logweir.clock import now_us, window_of
from logweir.event import batch_id_from_idempotency_key
from logweir.keys.file import KeysFile
from logweir.record import NUMBER_MAX, Kind, Refused
from tests.ingest.formats.test_json import GOLDEN
from tests.ingest.formats.test_json import LIMITS as GOLDEN_LIMITS
from tests.ingest.helpers import Answer, Door, answer_on, events_of, of_kind, running
from tests.ingest.request.test_compression import WRITERS, deflate_raw
from tests.waiting import until

LIMITS = {
    "LOGWEIR_INGEST_BODY_SIZE_BYTES_MAX": "200000",
    "LOGWEIR_INGEST_DECOMPRESSED_SIZE_BYTES_MAX": "3000000",
    "LOGWEIR_INGEST_DECOMPRESSION_RATIO_MAX": "100",
    "LOGWEIR_INGEST_EVENT_SIZE_BYTES_MAX": "2000",
    "LOGWEIR_INGEST_EVENTS_PER_REQUEST_MAX": "600",
    "LOGWEIR_INGEST_DEPTH_MAX": "8",
    "LOGWEIR_INGEST_REFUSED_SIZE_BYTES_MAX": "1024",
    "LOGWEIR_INGEST_TRUSTED_PROXIES": "127.0.0.0/8",
}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("door"), interface=request.param, environment=LIMITS)) as door:
        until_ready(door)
        yield door


def until_ready(door: Door) -> None:
    end_s = time.monotonic() + 10
    while door.request("GET", "/readyz").status != 200:
        assert time.monotonic() < end_s
        time.sleep(0.02)


def taken(door: Door, body: Any, headers: dict[str, str] | None = None, **named: Any) -> list[bytes]:
    """The events that the queue holds after the post beyond those before; the answer is checked, too."""
    before = len(of_kind(door.records(), Kind.DATA))
    answer = door.post(body, headers, **named)
    records = of_kind(door.records(), Kind.DATA)
    new = [one for one in records if one[1].batches[0].received_us]
    assert answer.status == 202, answer.body
    assert len(new) == before + 1
    newest = max(new, key=lambda one: one[1].batches[0].received_us)
    events = events_of([newest])
    assert answer.json["accepted"] == len(events)
    return events


def refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer.body
    problem: dict[str, Any] = answer.json
    assert (problem["code"], problem["status"], problem["type"]) == (code, status, f"urn:logweir:problem:{code}")
    assert problem["detail"] and problem["advice"]
    assert b"Traceback" not in answer.body
    return problem


# --- what is taken ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b'{"summary":"one"}', 1),
        (b'[{"a":1},{"a":2}]', 2),
        (b'{"a":1}\n{"a":2}\n{"a":3}\n', 3),
        (b'{"a":1}{"a":2}', 2),
        (b'{\n  "a": 1\n}\n{\n  "a": 2\n}\n', 2),
        (b'\xef\xbb\xbf{"a":1}', 1),
        ('{"summary":"zwölf"}'.encode(), 1),
        (b'{"a":"\\ud800\\u0000"}', 1),
        (b"[" + b",".join([b'{"n":1}'] * 600) + b"]", 600),
    ],
)
@pytest.mark.parametrize(
    "encoding", ["", "gzip", "GZIP", "x-gzip", "identity", "identity, gzip", "deflate", "deflate (raw)", "zstd"]
)
def test_every_shape_is_taken_plain_and_compressed(door: Door, body: bytes, events: int, encoding: str) -> None:
    """Objects, arrays, NDJSON, concatenated and pretty-printed, with or without a byte order mark."""
    compress = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "deflate (raw)": deflate_raw,
        "zstd": zstandard.compress,
    }
    name = encoding.lower().removeprefix("x-").removeprefix("identity, ")
    answer = door.post(
        compress.get(name, bytes)(body), {"Content-Encoding": encoding.removesuffix(" (raw)")} if encoding else {}
    )

    assert (answer.status, answer.headers["content-type"]) == (202, "application/json")
    assert answer.body.startswith(b'{"accepted":%d,"durable":"queue","receipt":"' % events)


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/x-www-form-urlencoded", "plain/text", "x"]
)
def test_any_content_type_is_taken(door: Door, content_type: str | None) -> None:
    """Senders name the type carelessly; the body alone says what it is."""
    assert taken(door, b'{"a":"type"}', {"Content-Type": content_type} if content_type else {}) == [b'{"a":"type"}']


@pytest.mark.parametrize("path", ["/events", "/"])
def test_the_raw_bytes_of_each_event_are_in_the_queue_before_the_answer(door: Door, path: str) -> None:
    """What is kept is what was sent, to the byte: a replay can start from it."""
    events = [b'{"a" : 1.0e5, "a":2 }', '{"b":"ö"}'.encode()]

    assert taken(door, b"\n".join(events), path=path) == events


def test_several_members_of_gzip_are_one_body(door: Door) -> None:
    """A gzip file is a series of members, perhaps padded with zeros."""
    body = gzip.compress(b'{"a":1}\n') + gzip.compress(b'{"a":2}\n') + b"\0\0"

    assert taken(door, body, {"Content-Encoding": "gzip"}) == [b'{"a":1}', b'{"a":2}']


def test_chunked_bodies_are_taken(door: Door) -> None:
    """Fluent Bit and the OpenTelemetry collector send without Content-Length."""
    body = iter([b'{"a":', b'"chunk', b'ed"}', b"\n{}"])

    assert taken(door, body) == [b'{"a":"chunked"}', b"{}"]


def test_a_connection_serves_one_request_after_another(door: Door) -> None:
    """Keep-alive holds over good answers and bad ones, small bodies and large ones."""
    connection = door.connection()
    connection.connect()
    first = connection.sock
    statuses = [
        door.post(body, connection=connection).status
        for body in (b"{}", b"{", b"{}", b'{"a":"%b"}\n' % (b"x" * 1900) * 90, b"", b"{}")
    ]

    assert statuses == [202, 400, 202, 202, 400, 202]
    assert connection.sock is first


def test_a_client_that_expects_100_continue_gets_it(door: Door) -> None:
    """libcurl waits for it before bodies above 1 MiB, and a whole second when it does not come."""
    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall(head.encode())
        first = connection.recv(1000)
        connection.sendall(b"{}")
        second = connection.recv(1000)

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert second.startswith(b"HTTP/1.1 202 ")


def test_curl_posts_without_waiting(door: Door, tmp_path: Path) -> None:
    """The real curl, with the header that makes it wait for a 100 Continue, does not wait in vain."""
    started_s = time.monotonic()
    answer = subprocess.run(
        [
            "curl",
            "-s",
            "-H",
            f"X-My-Log-Input-Key: {door.key}",
            "-H",
            "Expect: 100-continue",
            "--expect100-timeout",
            "60",
            "--data-binary",
            '{"a":1}',
            f"http://127.0.0.1:{door.port}/events",
        ],
        capture_output=True,
        check=True,
    )

    assert json.loads(answer.stdout)["accepted"] == 1
    assert time.monotonic() - started_s < 50


def test_the_receipt_says_which_numbers_the_batch_got(door: Door) -> None:
    """It is signed with the secret of the data folder, and true."""
    token = door.post(b'{"a":"receipt"}\n{"a":"receipt"}').json["receipt"]
    got = receipt.decode(token, receipt.secret_of(door.data_dir))
    (found,) = [(p, one) for p, one in door.records() if b'{"a":"receipt"}' in events_of([(p, one)])]

    assert (got.partition, got.ingest_epoch, got.window) == (found[0], found[1].ingest_epoch, found[1].window)
    assert (got.first, got.count) == (found[1].first, 2)
    assert window_of(now_us()) - got.window in (0, 1)


# --- who is let in ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-My-Log-Input-Key", "{}"),
        ("x-log-key", "{}"),
        ("Authorization", "Bearer {}"),
        ("authorization", "bearer  {}"),
    ],
)
def test_each_key_header_lets_in(door: Door, header: str, value: str) -> None:
    """Names and scheme are read without regard to case."""
    assert door.request("POST", "/events", b"{}", {header: value.format(door.key)}).status == 202


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "key_missing"),
        ({"Authorization": "Basic eA=="}, "key_missing"),
        ({"Authorization": "Basic eDp5"}, "key_unknown"),
        ({"X-Log-Key": ""}, "key_missing"),
        ({"X-Log-Key": "lw_wrong"}, "key_unknown"),
        ({"Authorization": "Bearer " + "x" * 5000}, "key_unknown"),
        ({"X-Log-Key": "\xff\xfe"}, "key_unknown"),
    ],
)
def test_without_a_good_key_nobody_gets_in(door: Door, headers: dict[str, str], code: str) -> None:
    """401, with the challenge that HTTP asks for, before anything of the body is looked at."""
    answer = door.request("POST", "/events", b"not json", headers)

    refused(answer, 401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_keys_come_and_go_without_a_restart(door: Door) -> None:
    """A new key works, and a revoked one does not: the door looks at the file twice a second."""
    keys = KeysFile(door.data_dir / "keys.toml")
    key = keys.add("another")
    until(lambda: door.request("POST", "/events", b"{}", {"X-Log-Key": key}).status == 202)
    keys.revoke("another")
    until(lambda: door.request("POST", "/events", b"{}", {"X-Log-Key": key}).status == 401)

    assert key not in door.log


# --- what is refused ----------------------------------------------------------------------------------------------
BAD_BODIES = [
    (b'{"a": "b" "c"}', 400, "json_bad", {"event_index": 0, "byte_offset": 10}),
    ('{"a":"ö"}{"b":x}'.encode(), 400, "json_bad", {"event_index": 1, "byte_offset": 15}),
    (b'{"a":NaN}', 400, "json_bad", {"byte_offset": 5}),
    (b'{"a":"\xff"}', 400, "utf8_bad", {"byte_offset": 6}),
    (b'[{"a":1},5]', 400, "event_not_object", {"event_index": 1, "byte_offset": 9}),
    (b"", 400, "body_empty", {}),
    (b"[]", 400, "body_empty", {}),
    (b'{"a":' * 9 + b"1" + b"}" * 9, 400, "depth_exceeded", {"depth_max": 8, "byte_offset": 40}),
    (b'{"a":"%b"}' % (b"x" * 2000), 413, "event_too_large", {"event_index": 0, "size_bytes_max": 2000}),
    (b"{}" * 601, 413, "events_too_many", {"events_max": 600}),
    (b" " * 200_001, 413, "body_too_large", {"size_bytes_max": 200_000}),
]


@pytest.mark.parametrize(
    ("body", "status", "code", "numbers"), BAD_BODIES, ids=[bad[2] + str(bad[1]) for bad in BAD_BODIES]
)
def test_bad_bodies_are_refused_with_place_and_limit(
    door: Door, body: bytes, status: int, code: str, numbers: dict[str, Any]
) -> None:
    """The answer names the event, the byte and the limit, and nothing of the request is accepted."""
    before = door.metric('logweir_ingest_accepted_events_total{durable="queue"}')
    problem = refused(door.post(body), status, code)

    assert {name: problem[name] for name in numbers} == numbers
    assert door.metric('logweir_ingest_accepted_events_total{durable="queue"}') == before


def test_a_chunked_body_is_refused_at_its_limit(door: Door) -> None:
    """Without Content-Length the limit counts while the body is read: it is not read to its end."""
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(25):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        answer = connection.recv(2000)  # The last chunk has not come yet, and never will.

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"no gzip", 400, "encoding_bad"),
        (gzip.compress(b'{"a":1}')[:-5], 400, "encoding_bad"),
        (gzip.compress(b'{"a":1}') + b"rest", 400, "encoding_bad"),
        (b"", 400, "encoding_bad"),
        (gzip.compress(b" " * 3_000_001), 413, "decompressed_too_large"),
        (gzip.compress(b" " * 1_100_000), 413, "decompressed_too_large"),
        (gzip.compress(b" " * 190_000_000, 9), 413, "decompressed_too_large"),
    ],
    ids=["no gzip", "cut short", "rest", "empty", "size", "ratio", "bomb"],
)
def test_bad_compression_is_refused(door: Door, body: bytes, status: int, code: str) -> None:
    """Damage is a 400, more than the limit a 413 as soon as it is reached."""
    started_s = time.monotonic()
    refused(door.post(body, {"Content-Encoding": "gzip"}), status, code)

    assert time.monotonic() - started_s < 10


@pytest.mark.parametrize("encoding", ["br", "snappy", "gzip, gzip", "deflate,zstd", "zip", "\xff", "x" * 300])
def test_other_encodings_are_refused(door: Door, encoding: str) -> None:
    """415 says which are understood."""
    answer = door.post(b"{}", {"Content-Encoding": encoding})

    refused(answer, 415, "content_encoding_unknown")
    assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/events", 405, "POST, PUT"),
        ("HEAD", "/events", 405, "POST, PUT"),
        ("OPTIONS", "/events", 405, "POST, PUT"),
        ("PUT", "/", 405, "GET, POST, HEAD"),
        ("POST", "/healthz", 405, "GET, HEAD"),
        ("DELETE", "/metrics", 405, "GET, HEAD"),
        ("GET", "/nothing", 404, None),
        ("POST", "/events/", 404, None),
        ("GET", "/../etc/passwd", 404, None),
        ("POST", "/EVENTS", 404, None),
        ("POST", "//events", 404, None),
        ("POST", "//", 404, None),
        ("POST", "/./events", 404, None),
        ("GET", "//healthz", 404, None),
        ("POST", "/events%2f", 404, None),
        ("POST", "/%00", 404, None),
        ("POST", "/events;a", 404, None),
    ],
)
def test_other_paths_and_methods_are_refused(
    door: Door, method: str, path: str, status: int, allow: str | None
) -> None:
    """404 and 405 are problem answers, too; 405 names the methods."""
    answer = door.request(method, path, b"{}" if method in ("POST", "PUT") else None)

    assert (answer.status, answer.headers.get("allow")) == (status, allow)
    if method != "HEAD":
        refused(answer, status, "method_not_allowed" if allow else "not_found")


@pytest.mark.parametrize(
    "path", ["/events?key=value", "/%65vents", "http://logs.example/events", "/events#part", "/?x"]
)
def test_other_spellings_of_the_path_are_taken(door: Door, path: str) -> None:
    """A query, escapes, a whole URL: what proxies and clients make of a path."""
    assert door.post(b"{}", path=path).status == 202


RAW_REQUESTS = [
    (b"POST /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /healthz?\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nContent-Length: 999999999999999999\r\n\r\n", 413),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX_Log_Key: KEY\r\nContent-Length: 2\r\n\r\n{}", 401),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nX_Log_Key: y\r\nContent-Length: 2\r\n\r\n{}", 202),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nX-Log-Key: KEY\r\nContent-Length: 2\r\n\r\n{}", 401),
    (b"POST / HTTP/1.0\r\nX-Log-Key: KEY\r\nContent-Length: 2\r\n\r\n{}", 202),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nExpect: 200-maybe\r\nContent-Length: 2\r\n\r\n{}", 202),
    (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nX-Log-Key: KEY\r\nContent-Length: 2\r\n\r\n{}", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x, y\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: \xe9\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost:\t[::1]:8080 \r\n\r\n", 200),
    (b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 200),
    (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    (b"POST / HTTP/2.0\r\nHost: x\r\nX-Log-Key: KEY\r\nContent-Length: 2\r\n\r\n{}", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (b"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", 505),
    (b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    (b"GET /healthz HTTP/2\r\nHost: x\r\n\r\n", 505),
    (b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", 400),
    (b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n", 400),
    (b"GET /healthz\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nTransfer-Encoding: \tChunked \r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        202,
    ),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key:\t KEY\t \r\nContent-Length: \t2 \r\n\r\n{}", 202),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key : KEY\r\nContent-Length: 2\r\n\r\n{}", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nContent-Length : 2\r\n\r\n{}", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\n X-Log-Key: KEY\r\nContent-Length: 2\r\n\r\n{}", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\n\tcontinued\r\nContent-Length: 2\r\n\r\n{}", 400),
    (
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: KEY\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 2\r\n\r\n{}",
        202,
    ),
]


@pytest.mark.parametrize(("sent", "status"), RAW_REQUESTS, ids=range(len(RAW_REQUESTS)))
def test_odd_requests_are_answered_the_same(door: Door, sent: bytes, status: int) -> None:
    """Whatever a client writes, both interfaces answer it alike, and never with a fault of ours."""
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall(sent.replace(b"KEY", door.key.encode()))
        answer = connection.recv(4000)

    assert answer.startswith(b"HTTP/1.1 %d " % status), answer


def test_a_connection_that_wishes_for_http2_goes_on(door: Door) -> None:
    """Java's client wishes for it with each request, the first of them a POST: it stays with HTTP/1.1, body and all."""
    wish = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\n{wish}"
    requests = (
        head + 'Content-Length: 7\r\n\r\n{"a":1}',
        head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        f"GET /healthz HTTP/1.1\r\nHost: x\r\n{wish}\r\n",
    )
    statuses = []
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        for request in requests:
            for piece in (request[:150], request[150:-3], request[-3:]):
                connection.sendall(piece.encode())
                time.sleep(0.01)
            statuses.append(answer_on(connection).status)

    assert statuses == [202, 202, 200]


def test_unreadable_bodies_are_kept_for_the_operator(door: Door) -> None:
    """rsyslog's template, broken by the quotes of structured data: the bytes are kept, bounded, with the error."""
    body = b'{"summary":"kept","structured data":"[origin software="rsyslogd"]","pad":"%b"}' % (b"x" * 1500)
    before = door.metric('logweir_ingest_refused_bodies_total{kept="yes"}')
    problem = refused(
        door.post(gzip.compress(body), {"Content-Encoding": "gzip", "Log-Emitter": "web-1"}), 400, "json_bad"
    )
    end_s = time.monotonic() + 5
    while door.metric('logweir_ingest_refused_bodies_total{kept="yes"}') == before and time.monotonic() < end_s:
        time.sleep(0.02)
    kept = [one.body for _, one in of_kind(door.records(), Kind.REFUSED)]

    (found,) = [one for one in kept if isinstance(one, Refused) and one.body.startswith(b'{"summary":"kept"')]
    assert problem["byte_offset"] == body.index(b"rsyslogd")
    assert (found.body, found.size_bytes) == (body[:1024], len(body))
    assert (found.key, found.emitter, found.code, found.detail) == ("default", "web-1", "json_bad", problem["detail"])


# --- what an emitter says of itself -------------------------------------------------------------------------------
NUMBERED = {
    "Log-Emitter": "web-1",
    "Log-Epoch": "run-7",
    "Log-Seq": "41",
    "Log-High": "44",
    "Log-Prev": "run:6:1000",
    "Log-Dropped": "queue_overflow=12; disk_full=40",
    "Log-Bye": "1",
}


def test_the_emitters_headers_are_in_the_record(door: Door) -> None:
    """Each Log-* header is a field of the batch."""
    assert taken(door, b'{"a":"n1"}{"a":"n2"}', NUMBERED) == [b'{"a":"n1"}', b'{"a":"n2"}']
    batches = [batch for _, one in door.records() for batch in one.batches if b'{"a":"n1"}' in batch.events]

    (batch,) = batches
    assert (batch.key, batch.emitter, batch.epoch, batch.sequence_first, batch.high) == (
        "default",
        "web-1",
        "run-7",
        41,
        44,
    )
    assert (batch.previous, batch.dropped) == (("run:6", 1000), {"queue_overflow": 12, "disk_full": 40})
    assert (batch.bye, batch.format, batch.stamp, batch.index_first) == (True, "json", None, 0)


@pytest.mark.parametrize("body", [b"", b"[]", b" \n"])
def test_an_empty_body_with_log_high_is_a_heartbeat(door: Door, body: bytes) -> None:
    """It is accepted with no event, and its batch is in the queue."""
    answer = door.post(body, {"Log-Emitter": "heart", "Log-Epoch": "e", "Log-High": "9"})

    assert (answer.status, answer.json["accepted"]) == (202, 0)
    highs = [batch.high for _, one in door.records() for batch in one.batches if batch.emitter == "heart"]
    assert 9 in highs


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"Log-Seq": "1"}, "Log-Epoch"),
        ({"Log-High": "1"}, "Log-Epoch"),
        ({"Log-Epoch": "e"}, "Log-Seq"),
        ({"Log-Epoch": "e", "Log-Seq": "0"}, "Log-Seq"),
        ({"Log-Epoch": "e", "Log-Seq": "-1"}, "Log-Seq"),
        ({"Log-Epoch": "e", "Log-Seq": "1.5"}, "Log-Seq"),
        ({"Log-Epoch": "e", "Log-Seq": str(2**63)}, "Log-Seq"),
        ({"Log-Epoch": "e", "Log-Seq": str(2**63 - 1)}, "Log-Seq"),
        ({"Log-Epoch": "e", "Log-Seq": str(NUMBER_MAX + 1)}, "Log-Seq"),
        ({"Log-Epoch": "e", "Log-Seq": "1", "Log-High": str(NUMBER_MAX + 1)}, "Log-High"),
        ({"Log-Epoch": "e", "Log-Seq": "1", "Log-Prev": f"d:{NUMBER_MAX + 1}"}, "Log-Prev"),
        ({"Log-Epoch": "e", "Log-Seq": "1", "Log-Dropped": f"r={NUMBER_MAX + 1}"}, "Log-Dropped"),
        ({"Log-Epoch": "e" * 65, "Log-Seq": "1"}, "Log-Epoch"),
        ({"Log-Epoch": "a b", "Log-Seq": "1"}, "Log-Epoch"),
        ({"Log-Emitter": "x" * 257}, "Log-Emitter"),
        ({"Log-Emitter": "\xff"}, "Log-Emitter"),
        ({"Log-Emitter": ""}, "Log-Emitter"),
        ({**NUMBERED, "Log-Prev": "1000"}, "Log-Prev"),
        ({**NUMBERED, "Log-Prev": "e:x"}, "Log-Prev"),
        ({**NUMBERED, "Log-Dropped": "a"}, "Log-Dropped"),
        ({**NUMBERED, "Log-Dropped": "a=1;a=2"}, "Log-Dropped"),
        ({**NUMBERED, "Log-Dropped": ";".join(f"r{n}=1" for n in range(65))}, "Log-Dropped"),
        ({**NUMBERED, "Log-Bye": "yes"}, "Log-Bye"),
        ({"Idempotency-Key": "x" * 257}, "Idempotency-Key"),
    ],
)
def test_malformed_emitter_headers_are_refused_by_name(door: Door, headers: dict[str, str], named: str) -> None:
    """A number that cannot be believed is worse than none: the answer says which header and what it should be."""
    assert refused(door.post(b"{}", headers), 400, "emitter_header_bad")["header"] == named


def test_the_last_number_of_a_request_is_bounded_as_the_first(door: Door) -> None:
    """The highest that every reader reads exactly is taken; one more is refused, by whichever event reaches it."""
    highest = {"Log-Epoch": "highest", "Log-Seq": str(NUMBER_MAX - 1)}

    assert door.post(b"{}{}", highest).status == 202
    for body in (b"{}{}{}", gzip.compress(b"{}" * 500)):
        encoding = {} if body[:1] == b"{" else {"Content-Encoding": "gzip"}
        problem = refused(door.post(body, {**highest, **encoding}), 400, "emitter_header_bad")
        assert (problem["header"], problem["value"]) == ("Log-Seq", str(NUMBER_MAX - 1))
        assert str(NUMBER_MAX) in problem["expected"]


@pytest.mark.parametrize("events", [1, 10, 100])
def test_white_space_around_a_header_is_no_part_of_it(door: Door, events: int) -> None:
    """However large the body is, and so whichever way the request takes."""
    event = json.dumps({"a": f"space-{events}", "b": "x" * 1000}).encode()
    body = b"\n".join([event] * events)
    names = ("Log-Emitter", "Log-Epoch", "Log-Seq", "X-Log-Key", "Content-Type", "Content-Encoding")
    values = ("spaced", "run", "7", door.key, "application/json", "gzip")
    sent = gzip.compress(body, 0)
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        lines = [f"{name}: \t{value}\t " for name, value in zip(names, values, strict=True)]
        head = "\r\n".join(["POST / HTTP/1.1", "Host: x", *lines, f"Content-Length: {len(sent)} ", "", ""])
        connection.sendall(head.encode() + sent)
        assert answer_on(connection).status == 202
    (batch,) = [batch for _, one in door.records() for batch in one.batches if event in batch.events]

    assert (batch.emitter, batch.epoch, batch.sequence_first) == ("spaced", "run", 7)


def test_an_idempotency_key_fixes_the_identity_of_the_batch(door: Door) -> None:
    """The same key twice: both are accepted, and the worker will see one identity."""
    for _ in range(2):
        assert door.post(b'{"a":"again"}', {"Idempotency-Key": "job 7"}).status == 202
    ids = {batch.id for _, one in door.records() for batch in one.batches if batch.events == [b'{"a":"again"}']}

    assert ids == {batch_id_from_idempotency_key("default", "job 7")}


@pytest.mark.parametrize(
    ("forwarded", "source"),
    [
        (None, "127.0.0.1"),
        ("198.51.100.7", "198.51.100.7"),
        ("1.2.3.4, 198.51.100.7:5000, 127.0.0.9", "198.51.100.7"),
        ("nonsense", "127.0.0.1"),
        ("x, 127.0.0.5", "127.0.0.5"),
        ("[2001:db8::1]:80", "2001:db8::1"),
    ],
)
def test_the_source_address_is_the_nearest_that_no_trusted_proxy_has(
    door: Door, forwarded: str | None, source: str
) -> None:
    """What a sender writes into X-Forwarded-For itself is not believed."""
    marked = json.dumps({"source of": f"{forwarded}"}).encode()
    taken(door, marked, {"X-Forwarded-For": forwarded} if forwarded else {})

    (batch,) = [batch for _, one in door.records() for batch in one.batches if marked in batch.events]
    assert batch.source_address == source


def chunked(door: Door, headers: str, trailers: str, *, pause_s: float) -> Answer:
    """The answer to one event whose body's end comes so much later than the headers, or in one piece with them."""
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
    rest = f'd\r\n{{"a":"chunk"}}\r\n0\r\n{trailers}\r\n'
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        for piece in (head + rest,) if not pause_s else (head, rest):
            connection.sendall(piece.encode())
            time.sleep(pause_s)
        return answer_on(connection)


@pytest.mark.parametrize("pause_s", [0.0, 0.2], ids=["in one piece", "in two"])
def test_what_stands_behind_a_body_is_no_header(door: Door, pause_s: float) -> None:
    """RFC 9110 section 6.5.1: a trailer lets nobody in, says of nobody where he comes from, numbers and packs nothing.

    A proxy in front writes its own headers, and hands on a sender's trailers as they are.
    """
    headers = f"X-Log-Key: {door.key}\r\nX-Forwarded-For: 203.0.113.9\r\nLog-Emitter: chunk {pause_s}\r\n"
    trailers = (
        "X-Forwarded-For: 10.0.0.1\r\nLog-Emitter: another\r\nLog-Epoch: e\r\nLog-Seq: 7\r\nIdempotency-Key: k\r\n"
        "Content-Encoding: gzip\r\nExpect: 100-continue\r\n"
    )
    taken_in = chunked(door, headers, trailers, pause_s=pause_s)
    stranger = chunked(door, "", f"X-Log-Key: {door.key}\r\n", pause_s=pause_s)
    batches = [batch for _, one in door.records() for batch in one.batches if batch.emitter == f"chunk {pause_s}"]

    assert taken_in.status == 202
    assert [(one.source_address, one.epoch, one.sequence_first) for one in batches] == [("203.0.113.9", None, None)]
    assert batches[0].id != batch_id_from_idempotency_key("default", "k")
    refused(stranger, 401, "key_missing")


# --- around it ----------------------------------------------------------------------------------------------------
def test_health_readiness_and_metrics_answer(door: Door) -> None:
    """They need no key, and HEAD works as GET does."""
    assert door.request("GET", "/healthz").json == {"status": "ok"}
    assert door.request("GET", "/readyz").json == {"status": "ready"}
    head = door.request("HEAD", "/healthz")
    metrics = door.request("GET", "/metrics")

    assert (head.status, head.body) == (200, b"")
    assert metrics.headers["content-type"].startswith("text/plain")
    for name in (
        "requests_total{",
        "request_duration_seconds_bucket{",
        "record_confirm_seconds_count",
        "queue_fill_ratio",
    ):
        assert f"logweir_ingest_{name}".encode() in metrics.body


def test_requests_are_counted_by_endpoint_code_and_reason(door: Door) -> None:
    """What the operator sees on the dashboard is what happened."""
    names = [
        'logweir_ingest_requests_total{code="202",endpoint="events"}',
        'logweir_ingest_requests_total{code="400",endpoint="events"}',
        'logweir_ingest_rejected_requests_total{reason="json_bad"}',
        'logweir_ingest_accepted_events_total{durable="queue"}',
        "logweir_ingest_accepted_bytes_total",
    ]
    before = [door.metric(name) for name in names]
    door.post(b'{"a":1}\n{"b":2}')
    door.post(b'{"a":1')

    assert [door.metric(name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 1, 2, 14]


@pytest.mark.parametrize(
    "rest",
    [
        'Content-Length: 100\r\n\r\n{"a":"half"}\n',
        'Transfer-Encoding: chunked\r\n\r\nd\r\n{"a":"half"}\n\r\n',
        'Transfer-Encoding: chunked\r\n\r\nff\r\n{"a":"half"}\n',
        'Transfer-Encoding: chunked\r\n\r\nd\r\n{"a":"half"}\n\r\nzz',
    ],
    ids=["length", "no last chunk", "half a chunk", "no chunk"],
)
def test_half_a_body_is_not_accepted(door: Door, rest: str) -> None:
    """A sender that goes away in the middle has sent nothing, even if what came is whole JSON; the door lives on."""
    before = len(of_kind(door.records(), Kind.DATA))
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall(f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\n{rest}".encode())
    time.sleep(0.3)

    assert len(of_kind(door.records(), Kind.DATA)) == before
    assert door.post(b"{}").status == 202


def test_no_trace_reaches_a_log_for_a_senders_fault(door: Door) -> None:
    """After all of the above: nothing of it was a fault of ours."""
    assert "Traceback" not in door.log
    assert "reference" not in door.log


# --- both interfaces at once --------------------------------------------------------------------------------------
GOLDEN_ENVIRONMENT = {
    f"LOGWEIR_INGEST_{name.upper()}": str(getattr(GOLDEN_LIMITS, name)) for name in GOLDEN_LIMITS.__slots__
} | {"LOGWEIR_INGEST_EVENT_SIZE_BYTES_MAX": "1000", "LOGWEIR_QUEUE_RECORD_SIZE_BYTES_MAX": "20000"}


@pytest.fixture(scope="module")
def interfaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Door, Door]]:
    with (
        running(Door(tmp_path_factory.mktemp("asgi"), interface="asgi", environment=GOLDEN_ENVIRONMENT)) as asgi,
        running(Door(tmp_path_factory.mktemp("wsgi"), interface="wsgi", environment=GOLDEN_ENVIRONMENT)) as wsgi,
    ):
        until_ready(asgi)
        until_ready(wsgi)
        yield asgi, wsgi


def judged(answer: Answer) -> tuple[int, Any, dict[str, str]]:
    """An answer without what differs from request to request."""
    body = answer.json
    body.pop("receipt", None)
    return (
        answer.status,
        body,
        {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")},
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.body")))
def test_both_interfaces_keep_each_rule(interfaces: tuple[Door, Door], name: str) -> None:
    """Each golden body over HTTP, plain and chunked: as many events, or the same refusal in the same words."""
    expected = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))[name]
    body = (GOLDEN / f"{name}.body").read_bytes()
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    asgi, wsgi = interfaces
    status, found, headers = judged(asgi.post(body))

    assert judged(wsgi.post(body)) == (status, found, headers)
    assert judged(asgi.post(iter(pieces)))[:2] == judged(wsgi.post(iter(pieces)))[:2] == (status, found)
    if "events" in expected:
        assert (status, found["accepted"]) == (202, len(expected["events"]))
    else:
        problem = next(one for one in vars(errors).values() if getattr(one, "code", "") == expected["problem"])
        assert (status, found["code"], found["detail"]) == (problem.status, expected["problem"], expected["detail"])


_bodies = st.sampled_from([path.read_bytes() for path in sorted(GOLDEN.glob("*.body"))])
_encodings = st.sampled_from(["", "", "", "gzip", "deflate", "zstd", "identity", "br", "gzip,gzip"])
_types = st.sampled_from([None, "", "application/json", "text/plain; charset=utf-16", "multipart/form-data"])
_damages = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 3)), max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    body=_bodies,
    damages=_damages,
    encoding=_encodings,
    content_type=_types,
    writer=st.sampled_from(list(WRITERS)),
    is_compressed=st.booleans(),
    is_chunked=st.booleans(),
    path=st.sampled_from(["/", "/events"]),
)
@example(b"{}", [], "gzip", None, "gzip", False, True, "/")
def test_both_interfaces_judge_damaged_requests_alike(
    interfaces: tuple[Door, Door],
    body: bytes,
    damages: list[tuple[float, bytes, int]],
    encoding: str,
    content_type: str | None,
    writer: str,
    is_compressed: bool,
    is_chunked: bool,
    path: str,
) -> None:
    """Bytes changed, cut and inserted, before compression or after: the same answer twice, never a fault of ours."""
    if is_compressed:
        body = WRITERS[writer][1](body)
    for position, inserted, cut in damages:
        at = int(position * len(body))
        body = body[:at] + inserted + body[at + cut :]
    headers = {"Content-Encoding": encoding} if encoding else {}
    if content_type is not None:
        headers["Content-Type"] = content_type
    answers = [
        judged(door.post(iter([body[:5], body[5:]]) if is_chunked else body, headers, path)) for door in interfaces
    ]

    assert answers[0] == answers[1]
    assert 200 <= answers[0][0] < 500
