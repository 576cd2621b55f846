"""`logweir up`: where it listens, when its first key is made, its certificate, its terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
import time
from contextlib import closing
from pathlib import Path

import pytest

from logweir.config import StoreSettings
from logweir.keys.file import read_keys
from logweir.store import open_store
from tests.tools.product import LOGWEIR, Embedded, Process, environment, free_port, logweir

# Each starts the whole product.
pytestmark = pytest.mark.timeout(180)


def test_another_address_is_listened_on_and_its_first_key_works_at_once(tmp_path: Path) -> None:
    """What is printed names the address, and its key is accepted at once; the console stays where it was."""
    product = Embedded(tmp_path / "data", extra=["--address", "127.0.0.2"])
    try:
        text = product.start().text
        curl = next(line.strip() for line in text.splitlines() if "curl -H" in line)
        answer = json.loads(subprocess.run(curl, shell=True, capture_output=True, text=True, check=True).stdout)
        with closing(open_store(StoreSettings(url=f"sqlite:///{product.data_dir}/store"))) as store:
            letters = store.dead_letters.count()
    finally:
        product.process.kill_family()

    assert f"http://127.0.0.2:{product.ingest_port}/events" in curl
    assert f"http://127.0.0.1:{product.console_port}/" in text
    assert "no live key" not in text
    assert answer["accepted"] == 1
    assert letters == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ingest-port", "0"], "ingest.port to 0"),
        (["--console-port", "0"], "console.port to 0"),
        (["--workers", "0"], "'0' is not a whole number, 1 or more"),
        (["--address", "192.0.2.1"], "Ingest cannot listen on 192.0.2.1"),
        (["--console-address", "0.0.0.0"], "The console is to listen on 0.0.0.0, beyond this machine"),
    ],
)
def test_what_cannot_work_is_said_at_once_and_makes_no_key(tmp_path: Path, words: list[str], said: str) -> None:
    """Status 2 and one line, not a time-out a minute later."""
    ports = ["--ingest-port", str(free_port()), "--console-port", str(free_port())]
    process = Process(["up", "--data-dir", str(tmp_path / "data"), *ports, *words], tmp_path / "log")

    assert process.popen.wait(60) == 2
    assert said in process.text
    assert read_keys(tmp_path / "data/keys.toml") == []


def test_a_start_that_is_interrupted_leaves_no_key_that_nobody_saw(tmp_path: Path) -> None:
    """Ctrl-C before the parts are ready, and the next start still has a first key to show."""
    product = Embedded(tmp_path / "data")
    process = Process(
        [
            "up",
            "--data-dir",
            str(product.data_dir),
            "--ingest-port",
            str(product.ingest_port),
            "--console-port",
            str(product.console_port),
        ],
        tmp_path / "log",
    )
    deadline = time.monotonic() + 30
    while len(process.family()) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.popen.send_signal(signal.SIGINT)

    assert process.popen.wait(20) == 0
    assert "logweir is running" not in process.text
    assert read_keys(product.data_dir / "keys.toml") == []


def test_tls_for_trying_out_works_as_it_is_printed(tmp_path: Path) -> None:
    """Both printed curl commands and doctor; the next start serves the same certificate."""
    product = Embedded(tmp_path / "data folder", extra=["--tls"])
    certificate = product.data_dir / "tls/server.pem"
    try:
        lines = product.start().text.splitlines()
        asked, posted = (line.strip() for line in lines if line.startswith("  curl --cacert "))
        ready = subprocess.run(asked, shell=True, capture_output=True, text=True, check=True).stdout
        answer = json.loads(subprocess.run(posted, shell=True, capture_output=True, text=True, check=True).stdout)
        doctor = logweir("doctor", "--data-dir", str(product.data_dir))
        product.process.stop()
        served = certificate.read_bytes()
        again = product.start().text
        subprocess.run(asked, shell=True, capture_output=True, check=True)
    finally:
        product.process.kill_family()

    assert (ready, answer["accepted"]) == ('{"status":"ready"}', 1)
    assert "https://127.0.0.1:" in posted
    assert f"certificate    ok       {certificate} for localhost" in doctor
    assert certificate.read_bytes() == served
    assert str(product.data_dir / "tls/ca.crt") in again


def test_a_hangup_reloads_ingest_unless_the_terminal_is_gone(tmp_path: Path) -> None:
    """`kill -HUP` has the door read its settings again; closing the terminal stops everything, in order."""
    terminal, inner = pty.openpty()
    ports = ["--ingest-port", str(free_port()), "--console-port", str(free_port())]
    with (tmp_path / "log").open("w") as output:
        up = subprocess.Popen(
            [*LOGWEIR, "up", "--data-dir", str(tmp_path / "data"), *ports],
            stdin=inner,
            stdout=output,
            stderr=output,
            env=environment(),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY),
        )
    os.close(inner)
    try:
        wait_for_line(tmp_path / "log", "logweir is running")
        up.send_signal(signal.SIGHUP)
        wait_for_line(tmp_path / "log", "Reloaded: 1 new processes serve")
        assert up.poll() is None
        os.close(terminal)
        status = up.wait(20)
    finally:
        if up.poll() is None:
            up.kill()

    assert status == 0
    assert "Stopping." in (tmp_path / "log").read_text()


def wait_for_line(log: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_console_beyond_this_machine_is_told_apart_from_ingest(tmp_path: Path) -> None:
    """Each listens where it is told; the console is ready by a name that it answers to, and warns."""
    product = Embedded(
        tmp_path / "data",
        extra=["--console-address", "127.0.0.3"],
        env=environment(LOGWEIR_CONSOLE_HOSTS=".example.org"),
    )
    try:
        text = product.start().text
        doctor = logweir(
            "doctor",
            "--data-dir",
            str(product.data_dir),
            env=environment(LOGWEIR_CONSOLE_ADDRESS="0.0.0.0", LOGWEIR_CONSOLE_HOSTS="logs.example.org"),
        )
        fault = subprocess.run(
            [*LOGWEIR, "doctor", "--data-dir", str(product.data_dir)],
            env=environment(LOGWEIR_CONSOLE_ADDRESS="0.0.0.0"),
            capture_output=True,
            text=True,
        )
    finally:
        product.process.kill_family()

    assert f"http://127.0.0.1:{product.ingest_port}/events" in text
    assert f"http://127.0.0.3:{product.console_port}/" in text
    assert "the console is on 0.0.0.0, beyond this machine, for logs.example.org" in doctor
    assert "configuration  warning" in doctor
    assert fault.returncode == 1
    assert "console.hosts does not say by which names it is called" in fault.stdout


def test_first_start_complains_of_nothing(tmp_path: Path) -> None:
    """All is there when it is needed: no warning, no error; a search before the first event finds none."""
    product = Embedded(tmp_path / "data")
    try:
        text = product.start().text
        done = subprocess.run(
            [*LOGWEIR, "search", "--data-dir", str(product.data_dir)],
            env=environment(),
            capture_output=True,
            text=True,
        )
    finally:
        product.process.kill_family()

    assert not [word for word in ("WARNING", "ERROR", "no live key", "refused") if word in text], text
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "0 events found.\n")


@pytest.mark.parametrize("words", [["up"], ["ingest", "--port", "0"], ["keys", "add", "a"], ["search"], ["doctor"]])
def test_data_folder_that_cannot_be_used_is_said(tmp_path: Path, words: list[str]) -> None:
    """A file where the folder should be: an error that names it, and no trace."""
    (tmp_path / "file").write_text("")
    ports = ["--ingest-port", str(free_port()), "--console-port", str(free_port())] if words == ["up"] else []
    done = subprocess.run(
        [*LOGWEIR, *words, *ports, "--data-dir", str(tmp_path / "file/data")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == (1 if words == ["doctor"] else 2)
    assert str(tmp_path / "file") in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
