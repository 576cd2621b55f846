"""Requests that come in one piece are answered without a task; in pieces they are answered the same."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest

from tests.ingest.helpers import Door, events_of, running
from tests.waiting import until


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("door"), environment={"LOGWEIR_INGEST_REQUESTS_MAX": "4"})) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        yield door


def post(door: Door, body: bytes, *, last: bool = False, chunked: bool = False) -> bytes:
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    end = b"Connection: close\r\n" if last else b""
    head = b"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: %b\r\n%b\r\n%b\r\n" % (door.key.encode(), length, end)
    return head + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body)


def exchanged(door: Door, *pieces: bytes, pause_s: float = 0.002) -> list[int]:
    """The statuses of all answers, in their order, until the door closes the connection."""
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        answers = b""
        while piece := connection.recv(65536):
            answers += piece
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_is_answered_the_same_wherever_it_is_cut(door: Door, chunked: bool) -> None:
    """Inside the headers, between headers and body, inside the body; each event is in the queue once."""
    before = len(events_of(door.records()))
    whole = post(door, b'{"summary":"cut"}', last=True, chunked=chunked)
    cuts = range(1, len(whole), 3)

    statuses = [exchanged(door, whole[:cut], whole[cut:]) for cut in cuts]

    assert statuses == [[202]] * len(cuts)
    assert len(events_of(door.records())) - before == len(cuts)


def test_requests_sent_ahead_are_answered_in_order_however_packets_cut_them(door: Door) -> None:
    """Good and bad ones, of which some come whole, some in pieces, and some behind one that waits for the queue."""
    bodies = [b"{}", b"{", b"[{},{}]", b"[]", b'{"n":1}{"n":2}', b"nonsense"]
    stream = b"".join(post(door, body, last=body == b"nonsense") for body in bodies)
    randomly = random.Random(4)
    for _ in range(30):
        cuts = sorted(randomly.sample(range(1, len(stream)), randomly.randrange(4)))
        pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

        assert exchanged(door, *pieces) == [202, 400, 202, 400, 202, 400]


def test_senders_that_go_before_their_answer_leave_nothing_behind(door: Door) -> None:
    """More of them than requests may be under way; their events are in the queue all the same."""
    before = len(events_of(door.records()))
    for gone in range(1, 13):
        with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
            connection.sendall(post(door, b'{"summary":"gone"}'))
        until(lambda count=before + gone: len(events_of(door.records())) == count)

    assert exchanged(door, post(door, b"{}", last=True)) == [202]


def test_a_request_of_http_1_0_is_answered_and_closed(door: Door) -> None:
    """As the protocol has it for who does not ask for more."""
    assert exchanged(door, post(door, b"{}").replace(b"HTTP/1.1", b"HTTP/1.0")) == [202]
