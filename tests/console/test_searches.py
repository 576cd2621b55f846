"""The console as a process under searches that take long: they end, and nothing else waits for them."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

import pytest

from logweir.config import StoreSettings
from logweir.store import open_store
from tests.contract.stores import document
from tests.tools.product import environment

# Minutes of work over the events below.
SLOW = quote(" OR ".join(f"type:*a*b*a*b*{number}?c" for number in range(400)))
TIMEOUT_S = 3.0


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("data")
    with closing(open_store(StoreSettings(url=f"sqlite:///{folder}/store"))) as store:
        store.prepare()
        store.index([document(f"e{n}", {"type": f"{n} {'ab' * 450}"}, number=n) for n in range(3000)])
    with subprocess.Popen(
        [sys.executable, "-m", "logweir.cli", "console", "--data-dir", str(folder), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(LOGWEIR_STORE_SEARCH_TIMEOUT_S=str(TIMEOUT_S)),
    ) as process:
        assert process.stderr is not None
        yield int(process.stderr.readline().rpartition(":")[2])
        process.terminate()
        rest = process.communicate(timeout=15)[1]
    assert rest == ""


def answered(port: int, path: str) -> tuple[int, bytes, float]:
    started_s = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(), time.monotonic() - started_s


def counted(port: int, reason: str) -> float:
    name = f'logweir_console_rejected_requests_total{{reason="{reason}"}} '
    return sum(float(line.split()[-1]) for line in answered(port, "/metrics")[1].decode().splitlines() if name in line)


def test_a_slow_search_is_answered_at_its_deadline(port: int) -> None:
    """With what to do, on the page, too; and it is counted."""
    status, body, took_s = answered(port, f"/api/search?q={SLOW}")
    page_status, page, _ = answered(port, f"/?since=&q={SLOW}")

    assert (status, page_status) == (503, 503)
    assert b'"code":"search_too_slow"' in body
    assert b"raise store.search_timeout_s" in page
    assert TIMEOUT_S <= took_s < TIMEOUT_S + 30
    assert counted(port, "search_too_slow") == 2


def test_searches_that_are_left_alone_end_and_hold_nobody_up(port: int) -> None:
    """More of them than are worked on at once: health is answered beside them, and the next search behind them."""
    with ExitStack() as stack:
        for _ in range(12):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            connection.sendall(f"GET /api/search?q={SLOW} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(0.5)
        beside = [answered(port, path)[::2] for path in ("/healthz", "/metrics", "/static/console.css")]
    status, _, took_s = answered(port, "/api/search?q=*&size=1")

    assert [found for found, _ in beside] == [200, 200, 200]
    assert max(seconds for _, seconds in beside) < TIMEOUT_S
    assert status == 200
    assert took_s < TIMEOUT_S
    deadline = time.monotonic() + 30
    while counted(port, "search_abandoned") < 12:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /api/search?q=caf\xe9 HTTP/1.1", 400),
        ("GET /api/search?q=café HTTP/1.1".encode(), 400),
        (b"GET /api/search?q=caf%C3%A9 HTTP/1.1", 200),
        (b"GET /api/search?q=%00 HTTP/1.1", 400),
        (b"GET /api/search?q=a%2Bb HTTP/1.1", 200),
        (b"GET /?endpoint=x HTTP/1.1", 400),
        (b'GET /api/search?after=[18446744073709551615,"x",1] HTTP/1.1', 400),
        (b"GET /caf%E9 HTTP/1.1", 404),
        (b"HEAD /?since= HTTP/1.1", 200),
    ],
)
def test_whatever_is_asked_has_an_answer(port: int, line: bytes, status: int) -> None:
    """Never 500, whatever bytes stand in the URL."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = connection.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 %d " % status)


# --- beyond this machine ------------------------------------------------------------------------------------------
def console(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "logweir.cli", "console", "--data-dir", str(tmp_path), "--port", "0", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "logs.example.org"])
def test_beyond_this_machine_it_wants_to_know_its_names(tmp_path: Path, address: str) -> None:
    """Without console.hosts it does not start: any page could have a browser read the logs."""
    with console(tmp_path, "--address", address) as process:
        _, error = process.communicate(timeout=20)

    assert process.returncode == 2
    assert f"The console is to listen on {address}, beyond this machine" in error
    assert "set console.hosts" in error


def test_beyond_this_machine_it_warns(tmp_path: Path) -> None:
    """It asks nobody for a password, and says so when it starts."""
    with console(tmp_path, "--address", "0.0.0.0", "--hosts", "localhost,logs.example.org") as process:
        assert process.stderr is not None
        warning, listening = process.stderr.readline(), process.stderr.readline()
        port = int(listening.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/healthz", headers={"Host": "evil.example"})
        status = connection.getresponse().status
        process.terminate()
        process.communicate(timeout=15)

    assert "WARNING console: The console listens on 0.0.0.0, beyond this machine, and asks nobody" in warning
    assert status == 400


def test_on_this_machine_it_says_nothing(tmp_path: Path) -> None:
    """Where others cannot reach it."""
    with console(tmp_path, "--address", "127.0.0.2") as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.terminate()
        process.communicate(timeout=15)

    assert "Listening on http://127.0.0.2:" in first
