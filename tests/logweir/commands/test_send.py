"""`logweir send`: its key and address, pipes that go on, signals, lines that are bad; over the whole product."""

from __future__ import annotations

import fcntl
import gzip
import http.server
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from logweir import cli
from logweir.config import StoreSettings
from logweir.query.parse import parse
from logweir.store import open_store
from tests.tools.product import LOGWEIR, Embedded, environment, free_port
from tests.waiting import until


@pytest.fixture
def events(tmp_path: Path) -> str:
    path = tmp_path / "events.ndjson"
    path.write_text("{}\n")
    return str(path)


@pytest.mark.parametrize(
    ("listening", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("door.test", "door.test"),
    ],
)
def test_the_default_address_is_where_the_door_is_reached(
    listening: str, reached: str, events: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """IPv6 gets its brackets, and what stands for all networks is this machine."""
    port = free_port()
    monkeypatch.setenv("LOGWEIR_INGEST_ADDRESS", listening)
    monkeypatch.setenv("LOGWEIR_INGEST_PORT", str(port))

    assert cli.main(["send", events, "--key", "lw_x", "--retry", "0"]) == 2
    error = capsys.readouterr().err
    assert f"http://{reached}:{port}/events did not accept" in error
    assert "Failed to parse" not in error


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lw_x\r\nX-Evil: 1", "at place 5 of 15"),
        ("lw_ü", "at place 4 of 4"),
        ("lw x", "at place 3 of 4"),
        (" \n", "No key was given"),
    ],
)
def test_a_key_that_no_header_can_carry_is_said(
    key: str, said: str, events: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the place, and nothing of the key itself."""
    assert cli.main(["send", events, "--key", key]) == 2

    error = capsys.readouterr().err
    assert said in error
    assert key not in error
    assert error.count("\n") == 1


def test_white_space_around_a_key_is_left_out(
    events: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from a file that ends with a new line."""
    monkeypatch.setenv("LOGWEIR_KEY", " lw_x\r\n")

    assert cli.main(["send", events, "--retry", "0", "--url", f"http://127.0.0.1:{free_port()}/events"]) == 2
    assert "did not accept" in capsys.readouterr().err


# --- over the whole product ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    product = Embedded(tmp_path_factory.mktemp("product") / "data")
    product.start()
    yield product
    product.process.kill_family()


@pytest.fixture
def name() -> str:
    """A word that only this test's events have."""
    return f"n{uuid.uuid4().hex[:12]}"


def url_of(product: Embedded) -> str:
    return f"http://127.0.0.1:{product.ingest_port}/events"


def sending(product: Embedded, *words: str, key: str = "", url: str = "") -> subprocess.Popen[bytes]:
    """The command, with a pipe to write to."""
    command = [*LOGWEIR, "send", "--key", key or product.key, "--url", url or url_of(product), *words]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        # Where the tests run by nohup it is ignored, also by what they start.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def sent(product: Embedded, text: bytes, *words: str, url: str = "") -> tuple[int, str]:
    """Status and errors of the command that reads this from a pipe."""
    with sending(product, "-", *words, url=url) as process:
        _, error = process.communicate(text, timeout=60)
    return process.returncode, error.decode()


def event(name: str, number: object) -> bytes:
    return json.dumps({"summary": f"{name} number{number}"}).encode()


def found(product: Embedded, name: str, count: int) -> list[str]:
    """The numbers of the events that are found, once they are ``count``."""
    deadline = time.monotonic() + 20
    with closing(open_store(StoreSettings(url=f"sqlite:///{product.data_dir}/store"))) as store:
        while len(events := store.search(parse(name), size=10_000).events) < count:
            assert time.monotonic() < deadline, events
            time.sleep(0.05)
    return sorted(event["summary"].rpartition("number")[2] for event in events)


def wait_for(process: subprocess.Popen[bytes]) -> str:
    """The errors of a command that ends by itself, with its pipe still open."""
    assert process.stderr is not None
    error = process.stderr.read().decode()
    process.wait(20)
    return error


@pytest.mark.timeout(120)
def test_what_comes_through_a_pipe_is_sent_within_a_second(product: Embedded, name: str) -> None:
    """Line by line, while the pipe stays open."""
    with sending(product, "-") as process:
        assert process.stdin is not None
        for number in range(2):
            process.stdin.write(event(name, number) + b"\n")
            process.stdin.flush()
            # Half a second to be sent, some to be stored and found; the first, besides, to start.
            time.sleep(0.2)
            started_s = time.monotonic()
            assert found(product, name, number + 1) == [str(one) for one in range(number + 1)]
            assert number == 0 or time.monotonic() - started_s < 5
        process.stdin.close()
        process.stdin = None
        error = wait_for(process)

    assert (process.returncode, error) == (0, f"2 events accepted by {url_of(product)}\n")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_sends_what_was_read(product: Embedded, name: str, number: signal.Signals) -> None:
    """A line that waits, lines that are still in the pipe; half a line is named."""
    with sending(product, "-", "--batch", "3") as process:
        assert process.stdin is not None
        process.stdin.write(event(name, 0) + b"\n")
        process.stdin.flush()
        found(product, name, 1)
        process.stdin.write(b"\n".join([*(event(name, one) for one in range(1, 9)), b'{"summary": "ha']))
        process.stdin.flush()
        process.send_signal(number)
        error = wait_for(process)

    assert process.returncode == 128 + number
    assert "9 events accepted" in error
    assert "Line 10 has no end yet, and is not sent: 15 bytes of it" in error
    assert found(product, name, 9) == [str(one) for one in range(9)]


@pytest.mark.timeout(120)
def test_a_signal_while_the_door_is_away_names_the_lines(product: Embedded, name: str) -> None:
    """It is waited for a few seconds more; what was read and not accepted is named."""
    with sending(product, "-", "--retry", "60", url=f"http://127.0.0.1:{free_port()}/events") as process:
        assert process.stdin is not None
        process.stdin.write(b"".join(event(name, one) + b"\n" for one in range(3)))
        process.stdin.flush()
        # Until the command has read all of the pipe.
        until(lambda: not int.from_bytes(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder))
        process.send_signal(signal.SIGTERM)
        started_s = time.monotonic()
        error = wait_for(process)

    assert process.returncode == 2
    assert time.monotonic() - started_s < 50
    assert "lines 1 to 3 were read, and not accepted" in error
    assert "--from-line" not in error


@pytest.mark.timeout(120)
def test_a_signal_in_a_file_says_where_to_go_on(product: Embedded, name: str, tmp_path: Path) -> None:
    """The file is still there: the lines up to the named one are accepted, and none behind it."""
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"".join(event(name, number) + b"\n" for number in range(100_000)))
    with sending(product, str(file), "--batch", "1") as process:
        found(product, name, 10)
        process.send_signal(signal.SIGINT)
        error = wait_for(process)
    line = int(error.split("--from-line ")[1].rstrip(".\n"))

    assert process.returncode == 130
    assert f"{line - 1} events accepted" in error
    assert len(found(product, name, line - 1)) == line - 1


BAD = {
    "NaN": (b'{"v":NaN}', "not valid JSON at byte 5 of the line"),
    "Latin-1": (b'{"summary":"caf\xe9"}', "byte 15 of the line is not UTF-8"),
    "UTF-16": ("{}".encode("utf-16"), "byte 0 of the line is not UTF-8"),
    "large": (b'{"summary":"' + b"x" * 300_000 + b'"}', "the event is larger than 262144 bytes"),
    "too long": (b'{"summary":"' + b"x" * 17_000_000 + b'"}', "it is longer than 16777216 bytes"),
    "no object": (b"[1]", "it is a number; an event is a JSON object"),
    "deep": (b'{"a":' * 50 + b"1" + b"}" * 50, "the event is nested deeper than 32 levels at byte"),
    "cut": (b'{"summary":"x', "not valid JSON at byte"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_line_is_named_in_words_about_the_line(product: Embedded, name: str, bad: str) -> None:
    """Its number, its byte, one full stop; what stands before it is accepted, and how to go on is right for a pipe."""
    line, said = BAD[bad]
    status, error = sent(product, b"\n".join([event(name, 1), b"", line, event(name, 4)]))

    assert status == 2
    assert f"logweir send: Line 3: {said}" in error
    assert ".." not in error
    assert "of the body" not in error and "event 1" not in error
    assert "lines 3 to 4 were read, and not accepted" in error
    assert "--skip-bad" in error and "--from-line" not in error
    assert found(product, name, 1) == ["1"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("bad", BAD)
def test_skip_bad_goes_on_behind_a_bad_line(product: Embedded, name: str, bad: str) -> None:
    """It says which line, and why; all others are accepted; the exit status says that something was left out."""
    line, said = BAD[bad]
    status, error = sent(product, b"\n".join([event(name, 1), line, b"", event(name, 4), line]), "--skip-bad")
    reported = error.splitlines()

    assert status == 1
    assert [one.partition(":")[0] for one in reported[:2]] == ["Line 2 is left out", "Line 5 is left out"]
    assert all(said in one for one in reported[:2])
    assert reported[2:] == [f"2 events accepted by {url_of(product)}; 2 lines left out"]
    assert found(product, name, 2) == ["1", "4"]


@pytest.mark.timeout(120)
def test_skip_bad_finds_every_bad_line_of_many(product: Embedded, name: str, tmp_path: Path) -> None:
    """Also at both ends of a batch, and several in one; of a file, too."""
    bad = {1, 2, 500, 501, 777, 1000}
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"".join((b"{" if n in bad else event(name, n)) + b"\n" for n in range(1, 1001)))
    with sending(product, str(file), "--skip-bad") as process:
        error = wait_for(process)

    assert process.returncode == 1
    assert [int(line.split()[1]) for line in error.splitlines() if line.startswith("Line ")] == sorted(bad)
    assert {int(number) for number in found(product, name, 994)} == set(range(1, 1001)) - bad


@pytest.mark.timeout(120)
def test_a_bad_line_of_a_file_says_both_ways_to_go_on(product: Embedded, name: str, tmp_path: Path) -> None:
    """Correct it, or leave it out; both commands are right."""
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join([event(name, 1), b"{", event(name, 3)]))
    with sending(product, str(file)) as process:
        error = wait_for(process)
    with sending(product, str(file), "--skip-bad", "--from-line", "2") as process:
        wait_for(process)

    assert "leave out what is bad with --skip-bad" in error
    assert "the same command with --from-line 2" in error
    assert found(product, name, 2) == ["1", "3"]


@pytest.mark.timeout(120)
def test_batches_that_are_too_large_for_the_door_are_halved(name: str, tmp_path: Path) -> None:
    """The door's limit may be lower than the batch: its answer names no event, and none is at fault."""
    product = Embedded(
        tmp_path / "data",
        env=environment(LOGWEIR_INGEST_EVENTS_PER_REQUEST_MAX="7", LOGWEIR_INGEST_BODY_SIZE_BYTES_MAX="2000"),
    )
    product.start()
    try:
        large = json.dumps({"summary": "x" * 3000}).encode()
        lines = [*(event(name, number) for number in range(20)), large]
        refused = sent(product, b"\n".join(lines))
        status, error = sent(product, b"\n".join(lines), "--skip-bad")
    finally:
        product.process.kill_family()

    assert refused[0] == 2 and "Line 21: The request body is larger than 2000 bytes" in refused[1]
    assert (status, "20 events accepted" in error) == (1, True)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("path", ["/events", "/", "/nosuch"])
def test_what_is_no_door_is_called_so(product: Embedded, path: str) -> None:
    """The console's address: no line is blamed, and nothing is tried again."""
    started_s = time.monotonic()
    status, error = sent(product, b"{}\n", "--retry", "30", url=f"http://127.0.0.1:{product.console_port}{path}")

    assert status == 2
    assert f"There is no door at http://127.0.0.1:{product.console_port}{path}: it answers 40" in error
    assert "Line" not in error and "spelling" not in error
    assert time.monotonic() - started_s < 15


@pytest.mark.parametrize("status", [200, 301, 404])
def test_any_other_server_is_no_door(status: int, events: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One that answers everything with a page, or leads elsewhere."""

    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Location", "http://192.0.2.1/")
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/events"
    try:
        assert cli.main(["send", events, "--key", "lw_x", "--url", url]) == 2
    finally:
        server.shutdown()
    assert f"There is no door at {url}: it answers {status}." in capsys.readouterr().err


@pytest.mark.parametrize("url", ["ftp://host/events", "localhost:8080", "http://", "http://host:port/", "x"])
def test_an_address_that_is_none_is_said_at_once(url: str, events: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is tried again for a minute."""
    assert cli.main(["send", events, "--key", "lw_x", "--url", url]) == 2
    assert "is not an address such as http://127.0.0.1:8080/events" in capsys.readouterr().err


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda packed: packed[: len(packed) // 2], "is cut off: its compressed data ends too early, behind line"),
        (lambda packed: packed[:20], "is cut off: its compressed data ends too early, behind line 0"),
        (lambda packed: packed + packed[:10] + b"\x07" * 1000, "is damaged: its compressed data cannot be unpacked"),
    ],
)
def test_a_compressed_file_that_is_cut_or_damaged_is_called_so(
    product: Embedded, name: str, tmp_path: Path, spoil: object, said: str
) -> None:
    """All whole lines before the fault are accepted, and the message says up to which."""
    file = tmp_path / "events.ndjson.gz"
    lines = b"".join(event(name, f"{number}-{os.urandom(20).hex()}") + b"\n" for number in range(1000))
    file.write_bytes(spoil(gzip.compress(lines)))  # type: ignore[operator]
    with sending(product, str(file)) as process:
        error = wait_for(process)
    line = int(error.split("behind line ")[1].split(".")[0])

    assert process.returncode == 2
    assert said in error
    assert f"{line} event{'' if line == 1 else 's'} accepted" in error
    assert len(found(product, name, line)) == line


@pytest.mark.timeout(120)
def test_compressed_parts_pads_and_byte_order_marks_are_understood(
    product: Embedded, name: str, tmp_path: Path
) -> None:
    """Several members, zeros at the end, a mark at the beginning, lines that end as on Windows, none at the end."""
    parts = [gzip.compress(event(name, 1) + b"\r\n"), gzip.compress(b"\r\n" + event(name, 3))]
    (tmp_path / "a.gz").write_bytes(b"".join(parts) + b"\0" * 100)
    (tmp_path / "b").write_bytes(b"\xef\xbb\xbf" + event(name, 4) + b"\r\n" + event(name, 5))
    for file in ("a.gz", "b"):
        with sending(product, str(tmp_path / file)) as process:
            error = wait_for(process)
        assert (process.returncode, error) == (0, f"2 events accepted by {url_of(product)}\n")

    assert sent(product, gzip.compress(event(name, 6))) == (0, f"1 event accepted by {url_of(product)}\n")
    assert found(product, name, 5) == ["1", "3", "4", "5", "6"]


@pytest.mark.parametrize("name", ["/no/such", "/"])
def test_a_file_that_cannot_be_read_is_said_in_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the system says, without numbers and brackets."""
    assert cli.main(["send", name, "--key", "lw_x"]) == 2
    error = capsys.readouterr().err
    assert "cannot be read: no such file" in error or "cannot be read: is a directory" in error
    assert "[Errno" not in error
