"""The console as a process before hostile clients: what they leave half-sent or unread holds nobody up."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from logweir.config import StoreSettings
from logweir.store import open_store

LIMITS = {
    "LOGWEIR_CONSOLE_HEADER_TIMEOUT_S": "1.5",
    "LOGWEIR_CONSOLE_BODY_TIMEOUT_S": "1.5",
    "LOGWEIR_CONSOLE_READ_TIMEOUT_S": "1",
    "LOGWEIR_CONSOLE_CONNECTIONS_MAX": "200",
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("data")
    with closing(open_store(StoreSettings(url=f"sqlite:///{folder}/store"))) as store:
        store.prepare()
    words = ["console", "--data-dir", str(folder), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "logweir.cli", *words], stderr=subprocess.PIPE, text=True, env={**os.environ, **LIMITS}
    ) as process:
        assert process.stderr is not None
        yield int(process.stderr.readline().rpartition(":")[2])
        process.terminate()
        rest = process.communicate(timeout=15)[1]
    assert rest == ""


def answered(port: int, path: str = "/api/search", method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, b"x" if method == "POST" else None)
    response = connection.getresponse()
    connection.close()
    return response.status, response.read()


def refused(port: int, reason: str) -> float:
    name = f'logweir_console_rejected_requests_total{{reason="{reason}"}} '
    return sum(float(line.split()[-1]) for line in answered(port, "/metrics")[1].decode().splitlines() if name in line)


HALVES = {
    "nothing": b"",
    "headers": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
    "body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf",
    "chunks": b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
}


@pytest.mark.parametrize("half", HALVES)
def test_half_sent_requests_do_not_hold_the_console_up(port: int, half: str) -> None:
    """Fifty of them open, and it answers at once; then they are cut."""
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(50)]
        for connection in connections:
            connection.sendall(HALVES[half])
        time.sleep(0.1)
        started_s = time.monotonic()
        for _ in range(20):
            assert answered(port)[0] == 200
        assert time.monotonic() - started_s < 2
        for connection in connections:
            while connection.recv(65536):
                pass
        assert time.monotonic() - started_s < 30


def test_answers_that_are_not_read_do_not_hold_the_console_up(port: int) -> None:
    """Pages that pile up in front of a client that sleeps end its connection, and occupy no thread."""
    before = refused(port, "answer_unread")
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            connection.setblocking(False)
            for _ in range(60):
                connection.send(b"GET /static/console.css HTTP/1.1\r\nHost: localhost\r\n\r\n")
        started_s = time.monotonic()
        for _ in range(20):
            assert answered(port)[0] == 200
        assert time.monotonic() - started_s < 3

    assert answered(port, method="POST")[0] == 405
    assert refused(port, "answer_unread") >= before


def test_each_limit_is_answered_and_counted(port: int) -> None:
    """Headers too large, too slow, and connections too many are refused in the same words as the door's."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 17_000 + b"\r\n\r\n")
        answer = connection.recv(4000)
    assert answer.startswith(b"HTTP/1.1 431 ") and b"raise console.header_size_bytes_max" in answer
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert connection.recv(4000).startswith(b"HTTP/1.1 408 ")
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        status, body = answered(port)
        assert (status, b"console.connections_max" in body) == (503, True)
        assert answered(port, "/healthz")[0] == 200
        reasons = {
            code: refused(port, code) for code in ("headers_too_large", "headers_too_slow", "connections_too_many")
        }

    assert all(reasons.values()), reasons
