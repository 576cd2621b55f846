"""The door as a process: hostile connections, a queue that is away, signals, kill -9."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir.cli import main
from logweir.record import Kind, Marker
from tests.ingest.helpers import INTERFACES, Door, events_of, of_kind, running
from tests.waiting import until

TIMES = {"LOGWEIR_INGEST_HEADER_TIMEOUT_S": "1", "LOGWEIR_INGEST_BODY_TIMEOUT_S": "1.5"}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("door"), environment=TIMES)) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        yield door


def rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the other side closes, however it does that."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:
        pass
    except TimeoutError:
        raise AssertionError(f"the connection stays open after {received!r}") from None
    return received


# --- hostile connections ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "begin", [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ", b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\n"]
)
def test_headers_that_never_stop_growing_are_cut(door: Door, begin: bytes) -> None:
    """One connection with one endless header, URL or list of headers costs no memory, and others are served."""
    before = rss_bytes(door.worker())
    piece = b"X-A: b\r\n" * 8192 if begin.endswith(b"1.1\r\n") else b"x" * 65536
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        sent = 0
        try:
            connection.sendall(begin)
            while sent < 100_000_000:
                connection.sendall(piece)
                sent += len(piece)
        except ConnectionError:
            pass
        assert sent < 20_000_000

    assert door.post(b"{}").status == 202
    assert rss_bytes(door.worker()) - before < 10_000_000


def test_too_large_headers_get_a_problem_answer(door: Door) -> None:
    """A whole request whose headers are just too large is told the limit; one within it is served."""
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 16_400 + b"\r\n\r\n")
        answer = read_to_end(connection)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"headers_too_large"' in answer and b"connection: close" in answer
    assert door.request("GET", "/healthz", headers={"X-Long": "x" * 15_000}).status == 200


@pytest.mark.parametrize("begin", [b"POST /events HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"\r\n"])
def test_headers_that_drip_in_are_cut(door: Door, begin: bytes) -> None:
    """A byte now and then does not hold a connection beyond header_timeout_s."""
    started_s = time.monotonic()
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall(begin)
        answer = drip(connection, begin[-1:] if begin == b"\r\n" else b"x")

    assert 0.8 < time.monotonic() - started_s < 12
    if begin != b"\r\n":
        assert answer.startswith(b"HTTP/1.1 408 ") and b'"code":"headers_too_slow"' in answer


def drip(connection: socket.socket, byte: bytes) -> bytes:
    """Send the byte again and again until the other side ends it; gives what it said."""
    connection.settimeout(0.1)
    for _ in range(100):
        try:
            connection.sendall(byte)
            received = connection.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            return b""
        return received
    raise AssertionError("nobody ended it")


def test_a_body_that_drips_in_is_cut(door: Door) -> None:
    """Nor beyond body_timeout_s."""
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode())
        answer = drip(connection, b" ")

    assert answer.startswith(b"HTTP/1.1 408 ") and b'"code":"body_too_slow"' in answer


def test_a_connection_that_says_nothing_is_closed(door: Door) -> None:
    """Nor does one that never asks."""
    started_s = time.monotonic()
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        assert read_to_end(connection) == b""

    assert time.monotonic() - started_s < 12


def test_trailers_and_chunk_extensions_cannot_grow(door: Door) -> None:
    """What is in a chunked body beside its data is bounded as headers are."""
    before = rss_bytes(door.worker())
    for grow in (b"0\r\nX-Trailer: ", b"1;x="):
        with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
            head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head.encode() + grow)
            sent = 0
            try:
                while sent < 50_000_000:
                    connection.sendall(b"x" * 65536)
                    sent += 65536
            except ConnectionError:
                pass
            assert sent < 20_000_000

    assert rss_bytes(door.worker()) - before < 10_000_000


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nA b: c\r\n\r\n"],
)
def test_what_is_not_http_gets_a_problem_answer(door: Door, sent: bytes) -> None:
    """A TLS client on the plain port, for one, is told something."""
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall(sent)
        answer = read_to_end(connection)

    assert answer.startswith(b"HTTP/1.1 400 ") and b'"code":"http_bad"' in answer


def test_a_smaller_body_behind_a_larger_one_is_no_header(door: Door) -> None:
    """What comes of a kept connection's next request, in whatever pieces, is measured by that request alone."""
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nContent-Length: "
    statuses = []
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        for size in (200_000, 199_000, 30_000):
            body = "[" + ",".join(['{"a":"' + "x" * 1000 + '"}'] * (size // 1009)) + "]"
            for piece in (f"{head}{len(body)}\r\n\r\n{body[:20_000]}", body[20_000:25_000], body[25_000:]):
                connection.sendall(piece.encode())
                time.sleep(0.05)
            statuses.append(connection.recv(65536)[9:12])

    assert statuses == [b"202"] * 3


def test_a_body_that_breaks_off_with_a_refusal_is_no_attempt_without_a_key(door: Door) -> None:
    """A good key whose request is refused at once for its framing does not count as a failed attempt."""
    before = door.metric('logweir_ingest_rejected_requests_total{reason="key_missing"}')
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall(head.encode() + b"1;" + b"x" * 40_000)
        answer = read_to_end(connection)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert door.metric('logweir_ingest_rejected_requests_total{reason="key_missing"}') == before


def test_pipelined_requests_are_answered_in_order(door: Door) -> None:
    """Several requests in one packet, bodies and all."""
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n{body}" for body in ("{}", "{", "[{},{}]")]
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall(
            ("".join(requests) + "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").encode()
        )
        answers = read_to_end(connection)

    assert [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]] == [202, 400, 202, 200]


def test_a_body_that_the_door_does_not_read_yet_is_not_too_slow(tmp_path: Path) -> None:
    """Behind a request that waits for the queue, the next one's rest stays in the socket for longer than a body may."""
    with running(Door(tmp_path, environment={**TIMES, "LOGWEIR_INGEST_QUEUE_TIMEOUT_S": "10"})) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nContent-Length: ".encode()
        with (
            contextlib.closing(sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)) as other,
            socket.create_connection(("127.0.0.1", door.port), 10) as connection,
        ):
            other.execute("BEGIN IMMEDIATE")
            connection.sendall(head + b"2\r\n\r\n{}" + head + b"7\r\n\r\n{")
            time.sleep(0.2)
            connection.sendall(b'"a":1}' + head + b"2\r\nConnection: close\r\n\r\n{")
            time.sleep(3)
            other.execute("ROLLBACK")
            until(lambda: connection.recv(65536, socket.MSG_PEEK).count(b"HTTP/1.1 202 ") == 2)
            connection.sendall(b"}")
            answers = read_to_end(connection)

    assert [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]] == [202, 202, 202]


def test_a_body_that_drips_in_behind_another_request_is_cut(door: Door) -> None:
    """As soon as it is its turn, its time runs."""
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nContent-Length: "
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall((f"{head}2\r\n\r\n{{}}" + f"{head}2\r\n\r\n{{").encode())
        answers = read_to_end(connection)

    assert [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]] == [202, 408]


# --- the queue away -----------------------------------------------------------------------------------------------
def test_a_door_serves_while_its_queue_is_away(tmp_path: Path) -> None:
    """It starts, says so, answers 503 with Retry-After, stays alive, and takes events when the queue comes."""
    blocker = tmp_path / "queue-folder"
    blocker.write_text("a file where the folder should be")
    environment = {"LOGWEIR_QUEUE_URL": f"sqlite:///{blocker}/queue.sqlite"}
    with running(Door(tmp_path, environment=environment)) as door:
        answer = door.post(b"{}")
        ready = door.request("GET", "/readyz")
        alive = door.request("GET", "/healthz")
        blocker.unlink()
        until(lambda: door.request("GET", "/readyz").status == 200)
        afterwards = door.post(b"{}")

        assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "queue_unavailable", "2")
        assert (ready.status, ready.json["status"]) == (503, "not ready")
        assert ready.json["reason"]
        assert (alive.status, afterwards.status) == (200, 202)
        assert door.log.count("There is no way into the queue") == 1


# --- starting and stopping ----------------------------------------------------------------------------------------
def test_a_taken_port_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not five tries with a trace at the end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status = main(["ingest", "--data-dir", str(tmp_path), "--port", str(port)])

    assert status == 2
    assert capsys.readouterr().err.count(f"cannot listen on 127.0.0.1:{port}") == 1


def test_the_embedded_queue_is_for_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two would wait for each other's locks; the message says what to do."""
    assert main(["ingest", "--data-dir", str(tmp_path), "--port", "0", "--processes", "2"]) == 2
    assert "use Kafka for more" in capsys.readouterr().err


def test_events_larger_than_a_record_are_refused_as_a_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An allowed event that no record can carry would fail only when it comes; it fails at the start instead."""
    (tmp_path / "logweir.toml").write_text("[queue]\nrecord_size_bytes_max = 200000\n")
    flags = ["--data-dir", str(tmp_path), "--config", str(tmp_path / "logweir.toml"), "--port", "0"]

    assert main(["ingest", *flags]) == 2
    assert "ingest.event_size_bytes_max" in capsys.readouterr().err


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_end_finishes_requests_and_writes_markers(
    tmp_path: Path, interface: str, sent: signal.Signals
) -> None:
    """What is under way is answered, and every window is closed with what was accepted in it."""
    with running(Door(tmp_path, interface=interface)) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        accepted = [0]
        loading = threading.Thread(target=load, args=(door, accepted, 400))
        loading.start()
        until(lambda: accepted[0] > 50)
        started_s = time.monotonic()
        assert door.stop(sent) == 0
        took_s = time.monotonic() - started_s
        loading.join(10)
        records = door.records()

    markers = [one.body for _, one in of_kind(records, Kind.MARKER) if isinstance(one.body, Marker)]
    assert took_s < 60
    assert len(events_of(records)) >= accepted[0]
    assert sum(one.accepted for marker in markers for one in marker.accepted) == len(events_of(records))
    assert "Traceback" not in door.log


def load(door: Door, accepted: list[int], requests: int, name: str = "") -> set[str]:
    """Post events one after another until the door is gone; gives those that were answered 202."""
    confirmed: set[str] = set()
    connection = door.connection()
    for n in range(requests):
        event = json.dumps({"id": f"{name}{n}"})
        try:
            answer = door.post(event.encode(), connection=connection)
        except OSError:
            return confirmed
        except Exception:  # http.client has many ways to say that the connection is gone.
            return confirmed
        if answer.status == 202:
            confirmed.add(event)
            accepted[0] += 1
    return confirmed


def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """However the master dies, its worker goes with it, and the port is free."""
    with running(Door(tmp_path)) as door:
        worker = door.worker()
        door.kill()
        until(lambda: not Path(f"/proc/{worker}").exists() or "State:\tZ" in Path(f"/proc/{worker}/status").read_text())

        with running(Door(tmp_path, port=door.port, key=door.key)) as again:
            assert again.request("GET", "/healthz").status == 200


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    """gunicorn starts another; senders see a closed connection at worst."""
    with running(Door(tmp_path)) as door:
        worker = door.worker()
        signal_to(worker)
        until(lambda: answers(door))
        until(lambda: door.post(b"{}").status == 202)

        assert door.worker() != worker


def signal_to(worker: int) -> None:
    import os

    os.kill(worker, signal.SIGKILL)


def answers(door: Door) -> bool:
    try:
        return door.request("GET", "/readyz").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("interface", INTERFACES)
def test_after_kill_9_every_confirmed_event_is_in_the_queue_once(tmp_path: Path, interface: str) -> None:
    """Killed under load again and again: a 202 is a promise, and nothing that was sent once is there twice."""
    confirmed: set[str] = set()
    lock = threading.Lock()
    door = Door(tmp_path, interface=interface)

    def emit(name: str) -> None:
        found = load(door, [0], 10_000, name)
        with lock:
            confirmed.update(found)

    for attempt in range(4):
        with running(door):
            until(lambda: answers(door))
            threads = [threading.Thread(target=emit, args=(f"{attempt}-{n}-",)) for n in range(8)]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0.3, 0.8))
            door.kill()
            for thread in threads:
                thread.join(10)
    events = [event.decode() for event in events_of(door.records())]

    assert len(confirmed) > 100
    assert confirmed <= set(events)
    assert len(events) == len(set(events))


def test_one_event_is_answered_quickly(door: Door) -> None:
    """Senders give up after half a second; half of the answers come within three milliseconds where measured."""
    connection = door.connection()
    times_s = []
    for _ in range(100):
        started_s = time.monotonic()
        assert door.post(b'{"summary":"quick"}', connection=connection).status == 202
        times_s.append(time.monotonic() - started_s)

    assert sorted(times_s)[50] < 0.2
