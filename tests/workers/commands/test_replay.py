"""`logweir replay` on the command line: what it prints, its exit status, Ctrl-C, and a terminal's progress bar."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logweir import cli, clock, receipt
from tests.workers.helpers import batch
from tests.workers.replay.test_replay import EPOCH, World, event, some

Run = Callable[..., int]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.door.write(batch(*some(40)))
    made.door.write(batch(*some(40, "later"), id=b"\x02" * 16))
    made.work_off()
    yield made
    made.close()


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("LOGWEIR_QUEUE_PARTITIONS", "1")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lambda *words: cli.main(["replay", "--data-dir", str(world.settings.data_dir), *words])
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_what_is_missing_is_counted_and_then_created(
    world: World, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers with words for people; one JSON object for programs."""
    world.lose("event 1", "event 2")
    counted, counted_text = run("--dry-run"), capsys.readouterr().out
    done, result = run("--json"), json.loads(capsys.readouterr().out)

    assert (counted, done) == (0, 0)
    assert counted_text.split("\n")[:2] == [
        "          80  in what was asked for",
        "           2  that should be in the store and were not",
    ]
    assert {name: result[name] for name in ("done", "events", "missing", "written", "gone")} == {
        "done": True,
        "events": 80,
        "missing": 2,
        "written": 2,
        "gone": [],
    }
    assert len(world.stored()) == 80


def test_changes_of_outcome_are_named(world: World, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """From which to which, and how many."""
    world.filter("later")
    os.environ["LOGWEIR_WORKER_FILTERS_FILE"] = str(world.rules)
    try:
        status = run("--reprocess")
    finally:
        del os.environ["LOGWEIR_WORKER_FILTERS_FILE"]

    assert status == 0
    assert "          40  indexed -> filtered" in capsys.readouterr().out
    assert len(world.stored()) == 40


def test_a_receipt_selects_its_batch_and_says_what_is_not_found(
    world: World, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events of the receipt that are not in the queue are counted, and the status is 1; a forged one is refused."""
    secret = receipt.secret_of(world.settings.keys_path.parent)
    window = clock.window_of(clock.now_us()) - 1

    def token(count: int) -> str:
        return receipt.encode(secret, ingest_epoch=EPOCH, partition=0, first=41, count=count, window=window).decode()

    found = run("--receipt", token(40), "--json"), json.loads(capsys.readouterr().out)
    missed = run("--receipt", token(45), "--json"), json.loads(capsys.readouterr().out)
    forged = run("--receipt", "x" + token(40)[1:])

    assert (found[0], found[1]["events"], found[1]["not_found"]) == (0, 40, 0)
    assert (missed[0], missed[1]["events"], missed[1]["not_found"]) == (1, 40, 5)
    assert forged == 2


def test_a_folder_without_queue_or_store_is_an_error_at_once(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped --data-dir does not wait for a queue to appear, and makes nothing."""
    status = run("--data-dir", str(tmp_path / "nowhere"))

    assert status == 2
    assert "CRITICAL replay: There is no store at sqlite:" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_ctrl_c_stops_it_and_the_same_command_goes_on(
    world: World, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, with status 130; the second time it says where it goes on, and tells how far it is in lines."""
    monkeypatch.setattr("logweir_workers.commands.replay._LINE_INTERVAL_S", 0.0)
    monkeypatch.setattr("logweir_workers.replay.replay._SAVE_INTERVAL_S", 0.0)
    words = ("--since", "1h", "--reprocess", "--json")
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    stopped = run(*words, "--rate", "40"), capsys.readouterr()
    timer.join()
    done = run(*words), capsys.readouterr()

    assert stopped[0] == 130
    assert "The same command goes on from here." in stopped[1].err
    assert not json.loads(stopped[1].out)["done"]
    assert "Going on with what was begun at" in done[1].err
    assert re.search(r"replaying: 1 of 2 records, [\d,]+ events", stopped[1].err + done[1].err)
    assert done[0] == 0
    assert len(world.stored()) == 80
    assert world.lines() == {}


def test_changed_rules_are_said_before_it_begins_anew(
    world: World, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody shall believe that half of it is done already."""
    monkeypatch.setattr("logweir_workers.replay.replay._SAVE_INTERVAL_S", 0.0)
    words = ("--since", "1h", "--reprocess")
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    stopped = run(*words, "--rate", "40")
    timer.join()
    capsys.readouterr()
    monkeypatch.setattr("logweir_workers.replay.replay.__version__", "99")
    done = run(*words), capsys.readouterr()

    assert (stopped, done[0]) == (130, 0)
    assert "Filters, categories or logweir's version have changed" in done[1].err
    assert "          80  in what was asked for" in done[1].out


def test_events_left_alone_are_said_with_status_1(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost from the store where the ledger had no room to say what they were: not a success.

    Every other one is an exception, so they are in more ranges than are kept apart.
    """
    other = World(tmp_path / "other", **{"accounting.exceptions_max": 1})
    other.filter("noise")
    other.door.write(batch(*(event(f"{'noise' if number % 2 else 'event'} {number}") for number in range(3000))))
    other.work_off()
    other.lose(*other.summaries())
    other.close()
    monkeypatch.setenv("LOGWEIR_WORKER_FILTERS_FILE", str(other.rules))
    status = run("--data-dir", str(other.settings.data_dir))

    assert status == 1
    assert re.search(r"^ +1,498  left alone: lost or never stored", capsys.readouterr().out, re.MULTILINE)


def test_a_terminal_gets_a_progress_bar(world: World) -> None:
    """With what is done and what time is left; a pipe gets none of it."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "logweir.cli", "replay", "--data-dir", str(world.settings.data_dir)]
    env = {**os.environ, "LOGWEIR_QUEUE_PARTITIONS": "1", "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run([*words, "--dry-run"], stderr=theirs, stdout=subprocess.PIPE, text=True, env=env)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    piped = subprocess.run([*words, "--dry-run"], capture_output=True, text=True, env=env)

    assert (done.returncode, piped.returncode) == (0, 0)
    assert "counting" in shown and "100%" in shown and "80 events" in shown
    assert "counting" not in piped.stderr
    assert done.stdout == piped.stdout
