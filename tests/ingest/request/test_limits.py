"""Past each limit that requests and connections share: what is answered, what is counted, what it costs in memory."""

from __future__ import annotations

import gzip
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from logweir.errors import BODIES_TOO_LARGE, LogweirError
from logweir.keys.file import KeysFile
from logweir_ingest.request.limits import BodyBudget
from tests.ingest.helpers import INTERFACES, Answer, Door, answer_on, running
from tests.ingest.request.test_compression import BOMBS
from tests.ingest.test_server import read_to_end, rss_bytes
from tests.waiting import until

MEBIBYTE = 1024 * 1024
LIMITS = {
    "LOGWEIR_INGEST_BODIES_SIZE_BYTES_MAX": str(3 * MEBIBYTE),
    "LOGWEIR_INGEST_REQUESTS_MAX": "12",
    "LOGWEIR_INGEST_CONNECTIONS_MAX": "20",
    "LOGWEIR_INGEST_PIPELINED_REQUESTS_MAX": "8",
    "LOGWEIR_INGEST_READ_TIMEOUT_S": "1",
    "LOGWEIR_INGEST_IDLE_TIMEOUT_S": "3",
}


@pytest.fixture(scope="module", params=INTERFACES)
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("door"), interface=request.param, environment=LIMITS)) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        yield door


@contextmanager
def counted(door: Door, reason: str) -> Iterator[None]:
    """What happens inside is counted as a refusal for that reason."""
    name = f'logweir_ingest_rejected_requests_total{{reason="{reason}"}}'
    before = door.metric(name)
    yield
    until(lambda: door.metric(name) > before)


def begun(door: Door, headers: str, beginning: bytes = b"") -> socket.socket:
    """A connection with a request for events whose body is not all there."""
    connection = socket.create_connection(("127.0.0.1", door.port), 10)
    connection.sendall(f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\n{headers}\r\n".encode())
    connection.sendall(beginning)
    return connection


def let_in(door: Door, stack: ExitStack) -> socket.socket:
    """A connection whose request for events is under way, with two bytes of body to come."""
    while True:
        connection = stack.enter_context(begun(door, "Content-Length: 2\r\nExpect: 100-continue\r\n"))
        if connection.recv(2000).startswith(b"HTTP/1.1 100 "):
            return connection
        time.sleep(0.05)  # Requests of the test before are still under way.


def settle(door: Door) -> None:
    """Until no request of the test before is under way."""
    with ExitStack() as stack:
        for connection in [let_in(door, stack) for _ in range(12)]:
            connection.sendall(b"{}")
            assert answer_on(connection).status == 202


def refusal(answer: Answer) -> tuple[int, str, str]:
    """Status, code, and the value of Connection; when to come back must be there, too."""
    assert answer.headers.get("retry-after") == "2", answer
    return answer.status, answer.json["code"], answer.headers.get("connection", "")


# --- bodies under way ---------------------------------------------------------------------------------------------
def test_bodies_under_way_are_bounded_together(door: Door) -> None:
    """Announced beyond the limit of all: 503 before a byte is read. Small ones go on; with room again, all do."""
    size = 2 * MEBIBYTE
    with ExitStack() as stack, counted(door, "bodies_too_large"):
        first = stack.enter_context(begun(door, f"Content-Length: {size}\r\n", b'{"a":"'))
        until(lambda: refused_at_once(door, size))
        assert door.post(b'{"a":"%b"}' % (b"x" * 60_000)).status == 202
        first.sendall(b"x" * 1000 + b'"}' + b" " * (size - 1008))
        assert answer_on(first).status == 202

    assert door.post(b"{}" + b" " * size).status == 202


def refused_at_once(door: Door, size: int) -> bool:
    with begun(door, f"Content-Length: {size}\r\nExpect: 100-continue\r\n") as connection:
        first = connection.recv(2000, socket.MSG_PEEK)
        return b" 503 " in first and refusal(answer_on(connection)) == (503, "bodies_too_large", "close")


def test_a_chunked_body_is_refused_when_it_has_grown_too_large_beside_others(door: Door) -> None:
    """What is not announced counts as it comes."""
    with counted(door, "bodies_too_large"), begun(door, f"Content-Length: {2 * MEBIBYTE}\r\n", b"{"):
        time.sleep(0.1)
        with begun(door, "Transfer-Encoding: chunked\r\n") as second:
            for _ in range(16):
                second.sendall(b"16000\r\n" + b" " * 0x16000 + b"\r\n")
            assert refusal(answer_on(second)) == (503, "bodies_too_large", "")


def test_bodies_of_one_key_do_not_keep_out_anothers() -> None:
    """One of each key is let in beside them, up to twice the limit; when they have gone, nothing is held."""
    budget = BodyBudget(100)
    held = [budget.hold(40, key="loud"), budget.hold(60, key="loud")]
    for key, size_bytes in (("loud", 1), ("huge", 101)):
        with pytest.raises(LogweirError) as caught:
            budget.hold(size_bytes, key=key)
        assert caught.value.problem is BODIES_TOO_LARGE
    small = budget.hold(30, key="quiet")
    grown = budget.hold(50, key="quiet", held_bytes=small)
    with pytest.raises(LogweirError):
        budget.hold(1, key="quiet")
    budget.release(grown, key="quiet")
    for size_bytes in held:
        budget.release(size_bytes, key="loud")

    assert (budget._held_bytes, budget._by_key) == (0, {})


def test_one_body_is_always_let_in(tmp_path: Path) -> None:
    """A limit of all bodies below that of one stops nobody who comes alone."""
    environment = {**LIMITS, "LOGWEIR_INGEST_BODIES_SIZE_BYTES_MAX": str(MEBIBYTE)}
    with running(Door(tmp_path, environment=environment)) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)

        assert door.post(b"{}" + b" " * 3 * MEBIBYTE).status == 202
        assert door.post(iter([b"{}"] + [b" " * 65536] * 48)).status == 202


def test_many_unfinished_bodies_cost_no_more_than_their_limit(door: Door) -> None:
    """Eleven senders of 2 MiB each, of which one has room: the others are in nobody's memory."""
    before = rss_bytes(door.worker())
    with ExitStack() as stack:
        for _ in range(11):
            connection = stack.enter_context(begun(door, f"Content-Length: {2 * MEBIBYTE}\r\n"))
            connection.settimeout(5)
            connection.sendall(b" " * (2 * MEBIBYTE - 10))
        time.sleep(0.2)
        grown = rss_bytes(door.worker()) - before

    assert grown < 9 * MEBIBYTE


@pytest.mark.parametrize("interface", INTERFACES)
def test_bombs_cost_the_door_no_more_than_their_limit(tmp_path: Path, interface: str) -> None:
    """Four at a time of 9 MiB each, gzip, deflate and zstd: 413, and the peak stays within what two may be."""
    limit = 32 * MEBIBYTE
    # What comes out lies in a buffer with an eighth to spare; beside it zstd's window of 8 MiB and its last piece.
    unpacked = limit * 9 // 8 + (8 + 4) * MEBIBYTE
    # Each body twice, while its pieces are put together.
    bodies = 4 * 2 * 9 * MEBIBYTE
    kept_by_the_c_library = 2 * 8 * MEBIBYTE
    environment = {"LOGWEIR_INGEST_DECOMPRESSED_SIZE_BYTES_MAX": str(limit)}
    with (
        running(Door(tmp_path, interface=interface, environment=environment)) as door,
        ThreadPoolExecutor(4) as senders,
    ):
        until(lambda: door.request("GET", "/readyz").status == 200)
        before = rss_bytes(door.worker())
        for encoding, make in BOMBS.values():
            body, headers = make(9 * MEBIBYTE), {"Content-Encoding": encoding}
            answers = list(senders.map(lambda _, body=body, headers=headers: door.post(body, headers), range(4)))
            assert {(answer.status, answer.json["code"]) for answer in answers} == {(413, "decompressed_too_large")}
        peak = peak_rss_bytes(door.worker())

    assert peak - before < 2 * unpacked + bodies + kept_by_the_c_library


def test_a_small_body_that_takes_seconds_to_refuse_stops_nobody(door: Door) -> None:
    """50 KB that unpack to 9 MB and break at their very end: meanwhile others are answered."""
    padding = random.Random(1).randbytes(40_000).hex().encode()
    event = b"{" + b",".join([b'"":""'] * 40_000) + b"}\n"
    body = gzip.compress(b'{"p":"%b"}\n' % padding + event * 36 + b'{"a":1,}')
    with ThreadPoolExecutor(1) as sender:
        answer = sender.submit(door.post, body, {"Content-Encoding": "gzip"})
        answered = 0
        while not answer.done():
            assert door.request("GET", "/healthz").status == 200
            answered += 1

    assert len(body) < 64 * 1024
    assert answer.result().json["code"] == "json_bad"
    assert answered > 10


def test_bodies_of_the_usual_size_need_no_new_memory(tmp_path: Path) -> None:
    """They take the place of those before: few of their pages come from the system."""
    body = b"[" + b",".join([b'{"summary":"%b"}' % (b"x" * 400)] * 500) + b"]"
    with running(Door(tmp_path)) as door, ThreadPoolExecutor(8) as senders:
        until(lambda: door.request("GET", "/readyz").status == 200)
        assert {answer.status for answer in senders.map(lambda _: door.post(body), range(50))} == {202}
        before = page_faults(door.worker())
        assert {answer.status for answer in senders.map(lambda _: door.post(body), range(100))} == {202}
        faults = page_faults(door.worker()) - before

    assert faults / 100 < len(body) / 4096 / 2


def page_faults(pid: int) -> int:
    """How often the process got a page of memory from the system."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def peak_rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


# --- requests -----------------------------------------------------------------------------------------------------
def test_requests_under_way_are_bounded(door: Door) -> None:
    """One too many: 503, Retry-After, and the connection ends. Health and metrics answer; with room again, all do."""
    with ExitStack() as stack, counted(door, "requests_too_many"):
        waiting = [let_in(door, stack) for _ in range(12)]
        with begun(door, "Content-Length: 2\r\n", b"{}") as one_more:
            assert refusal(answer_on(one_more)) == (503, "requests_too_many", "close")
            assert read_to_end(one_more) == b""
        for path in ("/healthz", "/readyz", "/metrics"):
            assert door.request("GET", path).status == 200
        for connection in waiting:
            connection.sendall(b"{}")
            assert answer_on(connection).status == 202

    assert door.post(b"{}").status == 202


def test_a_refused_sender_gets_its_answer_though_it_sends_on(door: Door) -> None:
    """It is listened to for a while: a reset would take the answer away."""
    with ExitStack() as stack:
        for _ in range(12):
            let_in(door, stack)
        with begun(door, "Content-Length: 1000000\r\n") as one_more:
            for _ in range(10):
                one_more.sendall(b" " * 100_000)
                time.sleep(0.01)
            assert refusal(answer_on(one_more)) == (503, "requests_too_many", "close")
            started_s = time.monotonic()
            assert read_to_end(one_more) == b""
            assert time.monotonic() - started_s < 20


def test_requests_sent_ahead_are_bounded(door: Door) -> None:
    """Nine are answered in their order, the tenth is told to come back, and what follows is not looked at."""
    request = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nContent-Length: %d\r\n\r\n%s"
    bodies = ["{}", "{", "[{},{}]"] * 30
    settle(door)
    with counted(door, "pipelined_too_many"), socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        connection.sendall("".join(request % (len(body), body) for body in bodies).encode())
        answers = read_to_end(connection)

    assert statuses(answers) == [202, 400, 202] * 3 + [429]
    assert answers.count(b"retry-after: 2") == 1 and b'"code":"pipelined_too_many"' in answers


def test_what_is_no_http_behind_a_good_request_is_answered_behind_it(door: Door) -> None:
    """The answer to an accepted request is never lost to what its sender does next, nor overtaken."""
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\n"
    good = head + "Content-Length: 2\r\n\r\n{}"
    for bad in ("nonsense\r\n\r\n", head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"):
        with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
            connection.sendall((good + good + bad).encode())
            assert statuses(read_to_end(connection)) == [202, 202, 400]


def statuses(answers: bytes) -> list[int]:
    return [int(answer[:3]) for answer in answers.split(b"HTTP/1.1 ")[1:]]


# --- headers ------------------------------------------------------------------------------------------------------
def test_headers_are_counted(door: Door) -> None:
    """A hundred, and not one more: many small ones cost more memory than their bytes."""
    with counted(door, "headers_too_many"):
        assert door.request("GET", "/healthz", headers={f"X-{n}": "" for n in range(98)}).status == 200
        answer = door.request("GET", "/healthz", headers={f"X-{n}": "" for n in range(99)})
    assert (answer.status, answer.json["code"]) == (431, "headers_too_many")


@pytest.mark.parametrize("half", ["POST /events HTTP/1.1\r\nHost: x\r\n", "trailers", "one trailer"])
def test_headers_that_do_not_end_cost_no_memory(door: Door, half: str) -> None:
    """Nor do thousands in a request that is not all there, or behind a body, whose size is no excuse."""
    before = rss_bytes(door.worker())
    body = b"16000\r\n" + b" " * 0x16000 + b"\r\n"
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", door.port), 10))
            try:
                if half.startswith("POST"):
                    connection.sendall(half.encode())
                else:
                    connection.sendall(
                        b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body * 20
                    )
                    connection.sendall(b"0\r\n" + (b"a: " if half == "one trailer" else b""))
                for _ in range(200):
                    connection.sendall(b"x" * 4000 if half == "one trailer" else b"a:\r\n" * 1000)
            except ConnectionError:
                continue
            read_to_end(connection)  # It has an end.
        grown = rss_bytes(door.worker()) - before

    assert grown < 10 * MEBIBYTE


# --- connections --------------------------------------------------------------------------------------------------
def test_connections_are_bounded(door: Door) -> None:
    """One too many is told so when it asks, but for its health; when others have gone it is served."""
    with ExitStack() as stack, counted(door, "connections_too_many"):
        others = [stack.enter_context(socket.create_connection(("127.0.0.1", door.port), 10)) for _ in range(20)]
        time.sleep(0.1)
        with begun(door, "Content-Length: 2\r\n", b"{}") as one_more:
            assert refusal(answer_on(one_more)) == (503, "connections_too_many", "close")
        health = door.request("GET", "/healthz")
        assert (health.status, health.headers["connection"]) == (200, "close")
        waiting = socket.create_connection(("127.0.0.1", door.port), 10)
        others.pop().close()
        time.sleep(0.1)
        with waiting:
            waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"connection: close" not in waiting.recv(2000)

    until(lambda: door.post(b"{}").status == 202)


def test_connections_far_beyond_the_limit_are_ended(door: Door) -> None:
    """Nor can those that are only told to come back become many."""
    with counted(door, "connections_too_many"), ExitStack() as stack:
        flood = [stack.enter_context(socket.create_connection(("127.0.0.1", door.port), 10)) for _ in range(400)]
        started_s = time.monotonic()
        for connection in flood[-100:]:
            assert read_to_end(connection) == b""
        assert time.monotonic() - started_s < 1.5

    until(lambda: door.post(b"{}").status == 202)


FLOOD = {
    "LOGWEIR_INGEST_CONNECTIONS_MAX": "100",
    "LOGWEIR_INGEST_CONNECTIONS_WITHOUT_KEY_MAX": "60",
    "LOGWEIR_INGEST_CONNECTIONS_WITHOUT_KEY_PER_ADDRESS_MAX": "30",
    "LOGWEIR_INGEST_CONNECTIONS_PER_KEY_MAX": "20",
}


@pytest.mark.parametrize("interface", INTERFACES)
def test_half_open_connections_end_nobody_elses(tmp_path: Path, interface: str) -> None:
    """From one address, that of good senders and proxies, too, and from many: who has shown a key stays, who is about
    to is let in, and health is told."""
    with (
        running(Door(tmp_path, interface=interface, environment=FLOOD)) as door,
        ExitStack() as stack,
        counted(door, "connections_without_key_too_many"),
    ):
        until(lambda: door.request("GET", "/readyz").status == 200)
        good = stack.enter_context(begun(door, "Content-Length: 2\r\n", b"{}"))
        assert answer_on(good).status == 202
        halves = (b"", b"POST /events HTTP/1.1\r\nX-Log-", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        for number in range(400):
            address = "127.0.0.1" if number < 200 else f"127.0.0.{number % 100 + 2}"
            flooding = socket.create_connection(("127.0.0.1", door.port), 10, (address, 0))
            stack.enter_context(flooding).sendall(halves[number % 3])
            if number % 50 == 49:
                assert door.post(b"{}").status == 202
                health = door.request("GET", "/healthz")
                assert (health.status, "connection" in health.headers) == (200, False)
                good.sendall(
                    f"POST / HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
                )
                assert answer_on(good).status == 202


def test_a_key_keeps_so_many_connections_and_no_more(tmp_path: Path) -> None:
    """Beyond that each is served, and ends with its answer; when others have gone it may stay."""
    environment = {"LOGWEIR_INGEST_CONNECTIONS_PER_KEY_MAX": "3"}
    with running(Door(tmp_path, environment=environment)) as door, ExitStack() as stack:
        until(lambda: door.request("GET", "/readyz").status == 200)
        connections = [stack.enter_context(begun(door, "Content-Length: 2\r\n", b"{}")) for _ in range(5)]
        answers = [answer_on(connection) for connection in connections]
        another = KeysFile(tmp_path / "keys.toml").add("another")
        until(lambda: door.request("POST", "/events", b"{}", {"X-Log-Key": another}).status == 202)

    assert [answer.status for answer in answers] == [202] * 5
    assert [answer.headers.get("connection") for answer in answers].count("close") == 2


def test_a_connection_that_idles_is_closed(door: Door) -> None:
    """Between two requests as well: after idle_timeout_s, and not before."""
    with socket.create_connection(("127.0.0.1", door.port), 10) as connection:
        for _ in range(2):
            started_s = time.monotonic()
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer_on(connection).status == 200
        assert read_to_end(connection) == b""

    assert 2.5 < time.monotonic() - started_s < 30


# --- slow readers -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("interface", INTERFACES)
def test_a_client_that_never_reads_costs_nothing_and_is_cut(tmp_path: Path, interface: str) -> None:
    """Answers that nobody reads do not pile up, nor do the requests behind them, and the connection does not stay."""
    environment = {**LIMITS, "LOGWEIR_INGEST_PIPELINED_REQUESTS_MAX": "1000000"}
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(Door(tmp_path, interface=interface, environment=environment)) as door:
        until(lambda: door.request("GET", "/readyz").status == 200)
        before = rss_bytes(door.worker())
        with counted(door, "answer_unread"), socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(10)
            connection.connect(("127.0.0.1", door.port))
            with pytest.raises(ConnectionError):
                while True:
                    connection.sendall(request * 1000)

        assert rss_bytes(door.worker()) - before < 20 * MEBIBYTE
        assert door.post(b"{}").status == 202
