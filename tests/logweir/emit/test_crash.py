"""Programs that are killed, and doors that are away: what is lost is known exactly, and what has a folder arrives."""

from __future__ import annotations

import json
import mmap
import random
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.helpers import Door, is_ready, running
from tests.logweir.emit import programs
from tests.proof import size
from tests.services.process import free_port
from tests.tools.product import Embedded, environment, logweir, stopped_at_the_end
from tests.waiting import until

KILLS = size(3, 40)
OUTAGE_S = size(6.0, 60.0)
LATE_AFTER_S = 60.0  # as AS_EVER has it
EVENTS_PER_S = size(1000, 2000)
AS_EVER = environment()
SOON_LOST = environment(LOGWEIR_ACCOUNTING_LATE_AFTER_S="3")

# After each logging call, its number goes where it can be read when the program is dead.
COUNTED = """
import mmap, struct
with open({counter!r}, "r+b") as file:
    done = mmap.mmap(file.fileno(), 8)
count = 0
def say(text):
    global count
    log.info(text)
    count += 1
    struct.pack_into("Q", done, 0, count)
"""


class Counter:
    """How many logging calls of a program have returned."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        self.path = path
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    @property
    def count(self) -> int:
        return int(struct.unpack_from("Q", self._memory)[0])


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    (tmp_path / "data").mkdir()
    with running(Door(tmp_path / "data")) as found:
        until(lambda: is_ready(found))
        yield found


def url_of(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)


@pytest.mark.sized
@pytest.mark.timeout(120 + 10 * KILLS)  # As many programs are started.
def test_next_start_says_exactly_what_the_killed_one_had_not_written(door: Door, tmp_path: Path) -> None:
    """kill -9 while it logs as fast as it can: all is there but the last moment, whose numbers are known."""
    rng = random.Random(7)
    counted = []
    folder = str(tmp_path / "buffer")
    for number in range(KILLS):
        counter = Counter(tmp_path / f"count-{number}")
        # Half of them while the door is away for them.
        port = door.port if number % 2 else free_port()
        code = COUNTED.format(counter=str(counter.path)) + "while True: say('event')"
        process = programs.start(code, url_of(port), door.key, buffer_dir=folder)
        before = programs.runs_written(tmp_path / "buffer")
        until(lambda: counter.count > 1000 and programs.runs_written(tmp_path / "buffer") - before)  # noqa: B023
        time.sleep(rng.uniform(0, 0.5))
        kill(process)
        counted.append(counter.count)
    programs.run("log.info('after all of them'); time.sleep(0.1)", url_of(door.port), door.key, buffer_dir=folder)

    *killed, last = programs.runs_of(door).values()
    assert len(killed) == KILLS
    for run, count in zip(killed, counted, strict=True):
        assert run.high in (count, count + 1)
        assert run.missing == list(range(run.high - len(run.missing) + 1, run.high + 1))
        assert len(run.missing) < run.high
        assert not run.bye
        assert run.dropped == {}
    assert last.summaries == ["after all of them"]
    assert last.previous == (list(programs.runs_of(door))[-2], killed[-1].high)
    assert last.bye
    assert not programs.files_in(tmp_path / "buffer")


def test_running_process_takes_up_what_another_has_left(door: Door, tmp_path: Path) -> None:
    """Of two processes that share a folder the survivor sends what the dead one had not."""
    folder = str(tmp_path / "buffer")
    survivor_code = """
import logweir.emit.sender
logweir.emit.sender._ADOPT_INTERVAL_S = 0.2
logweir.emit.sender._IDLE_S = 0.1
log.info("the survivor")
time.sleep(100)
"""
    counter = Counter(tmp_path / "count")
    survivor = programs.start(survivor_code, url_of(door.port), door.key, buffer_dir=folder)
    code = COUNTED.format(counter=str(counter.path)) + "\nfor n in range(5000): say('left %d' % n)\ntime.sleep(60)"
    dead = programs.start(code, url_of(free_port()), door.key, buffer_dir=folder)
    until(lambda: counter.count == 5000)
    time.sleep(0.5)
    kill(dead)

    until(lambda: any(len(run.events) == 5000 for run in programs.runs_of(door).values()))
    run = next(run for run in programs.runs_of(door).values() if run.high == 5000)
    assert run.summaries == [f"left {n}" for n in range(5000)]
    survivor.terminate()
    survivor.communicate(timeout=10)


def test_dropped_events_of_a_killed_process_are_told_by_the_next(door: Door, tmp_path: Path) -> None:
    """The counts by reason are where the numbers are: they survive, too."""
    folder = str(tmp_path / "buffer")
    code = """
from logweir.emit import handler
buffered = logging.getLogger().handlers[0]
for n in range(100): log.info("x")
class Failing(logging.Formatter):
    def format(self, record): raise ValueError
buffered.setFormatter(Failing())
logging.raiseExceptions = False
for n in range(7): log.info("y")
time.sleep(0.5)
print("ready", flush=True)
time.sleep(60)
"""
    process = programs.start(code, url_of(free_port()), door.key, buffer_dir=folder)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    kill(process)
    programs.run("log.info('next')", url_of(door.port), door.key, buffer_dir=folder)

    killed, _ = programs.runs_of(door).values()
    assert (killed.high, len(killed.events), killed.dropped) == (107, 100, {"unformattable": 7})


def test_program_that_ended_in_order_while_the_door_was_away_says_goodbye_later(door: Door, tmp_path: Path) -> None:
    """Its last events and its goodbye are its successor's to bring: nothing is lost."""
    folder = str(tmp_path / "buffer")
    programs.run("for n in range(300): log.info('%d', n)", url_of(free_port()), door.key, buffer_dir=folder)
    programs.run("log.info('next')", url_of(door.port), door.key, buffer_dir=folder)

    away, following = programs.runs_of(door).values()
    assert away.summaries == [str(n) for n in range(300)]
    assert away.bye
    assert following.bye


def test_poison_that_a_killed_process_had_begun_to_look_for_is_dropped_once(tmp_path: Path) -> None:
    """What was settled before the kill is not sent again, and not counted again."""
    from tests.logweir.emit.stub import Posted, accept, stub

    folder = str(tmp_path / "buffer")

    def respond(posted: Posted) -> Any:
        if any(event["summary"] == "bad" for event in posted.events):
            return 400, {"detail": "bad"}, {}
        if posted.numbers.start > 50 and is_first:
            return 503, {}, {}
        return accept(posted)

    is_first = True
    with stub(respond) as door:
        code = "for n in range(1, 101): log.info('bad' if n == 20 else 'good')\nlogging.shutdown"
        process = programs.start(code + "\ntime.sleep(60)", door.url, buffer_dir=folder)
        until(lambda: any(posted.numbers.start > 50 for posted in door.posted))
        time.sleep(0.3)
        kill(process)
        is_first = False
        before = len(door.posted)
        programs.run("log.info('next')", door.url, buffer_dir=folder)

    epoch = door.posted[0].headers["log-epoch"]
    told = [posted.headers for posted in door.posted[before:] if posted.headers["log-epoch"] == epoch]
    assert told[-1]["log-dropped"] == "refused=1"
    assert door.accepted_numbers == sorted([1, *range(1, 20), *range(21, 101)])


def test_what_was_left_is_sent_without_an_event_of_ones_own(door: Door, tmp_path: Path) -> None:
    """The next start need not log anything for it, and is no run then."""
    folder = str(tmp_path / "buffer")
    programs.run("log.info('left')", url_of(free_port()), door.key, buffer_dir=folder)
    programs.run("time.sleep(1.5)", url_of(door.port), door.key, buffer_dir=folder)

    (run,) = programs.runs_of(door).values()
    assert run.summaries == ["left"]
    assert run.bye
    assert not programs.files_in(tmp_path / "buffer")


# --- the whole product ---------------------------------------------------------------------------------------------
def books_of(product: Embedded, env: dict[str, str], *, created: int, epochs: int) -> dict[str, Any]:
    """The emitter's line of the books, as soon as all of so many numbers are known and nothing is under way."""
    found: dict[str, Any] = {}

    def is_complete() -> bool:
        words = "audit", "--json", "--data-dir", str(product.data_dir)
        books = json.loads(logweir(*words, env=env, statuses=(0, 3)))
        rows = [row for row in books["emitters"] if row["emitter"]]
        if rows:
            found.update(rows[0], balanced=books["balanced"])
        return bool(rows) and (
            found["created"] >= created
            and len(found["epochs"]) == epochs
            and found["missing"] == 0
            and found["in_flight"] == 0
            and not books["unread_records"]
        )

    until(is_complete, wait_s=size(60, 300))
    return found


@pytest.fixture
def product(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Embedded]:
    found = Embedded(tmp_path / "data", env=request.param)
    with stopped_at_the_end(found.start()):
        yield found


@pytest.mark.sized
@pytest.mark.timeout(240 + 10 * OUTAGE_S)
@pytest.mark.parametrize("product", [AS_EVER], indirect=True, ids=["late after a minute"])
def test_nothing_is_lost_while_the_whole_product_is_away(product: Embedded, tmp_path: Path) -> None:
    """The door is killed under load and comes back: the audit shows class exact, nothing lost or missing, balanced.

    An outage of more than accounting.late_after_s makes what the program had sent of a batch lost, and then recovered.
    """
    counter, enough = Counter(tmp_path / "count"), tmp_path / "enough"
    code = f"""{COUNTED.format(counter=str(counter.path))}
began = time.monotonic()
while not os.path.exists({str(enough)!r}):
    say("event")
    time.sleep(max(0, began + count / {EVENTS_PER_S} - time.monotonic()))
"""
    program = programs.start(
        code, url_of(product.ingest_port), product.key, buffer_dir=str(tmp_path / "buffer"), exit_timeout_s=60
    )
    until(lambda: counter.count > 2 * EVENTS_PER_S)
    product.process.kill_family()
    time.sleep(OUTAGE_S)
    with stopped_at_the_end(product.start()):
        time.sleep(1)
        enough.touch()
        _, errors = programs.ended(program, wait_s=120)
        books = books_of(product, AS_EVER, created=counter.count, epochs=1)

    assert "Traceback" not in errors
    assert books["class"] == "exact"
    assert books["balanced"]
    assert books["created"] == books["accepted"] == books["indexed"] == counter.count
    assert books["lost"] == books["recovered"]
    assert books["lost"] == 0 or OUTAGE_S > LATE_AFTER_S / 2
    assert (books["dropped"], books["unexplained"]) == (0, 0)
    assert books["epochs"][0]["bye"]
    assert not programs.files_in(tmp_path / "buffer")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("product", [SOON_LOST], indirect=True, ids=["late after 3 s"])
def test_audit_shows_the_tail_that_a_kill_took_and_nothing_else(product: Embedded, tmp_path: Path) -> None:
    """With the folder the tail is lost with its numbers; where the process had a moment's pause, none is."""
    folder = str(tmp_path / "buffer")
    counter = Counter(tmp_path / "count")
    code = COUNTED.format(counter=str(counter.path)) + "while True: say('event')"
    busy = programs.start(code, url_of(product.ingest_port), product.key, buffer_dir=folder)
    until(lambda: counter.count > 20_000)
    kill(busy)
    idle_code = "for n in range(500): log.info('event')\ntime.sleep(0.5)\nprint('ready', flush=True)\ntime.sleep(60)"
    idle = programs.start(idle_code, url_of(product.ingest_port), product.key, buffer_dir=folder)
    assert idle.stdout is not None
    assert idle.stdout.readline() == "ready\n"
    kill(idle)
    programs.run("log.info('last')", url_of(product.ingest_port), product.key, buffer_dir=folder)
    books = books_of(product, SOON_LOST, created=counter.count + 501, epochs=3)

    of_busy, of_idle, of_last = books["epochs"]
    tail = of_busy["created"] - of_busy["accepted"]
    assert books["balanced"]
    assert of_busy["created"] in (counter.count, counter.count + 1)
    assert of_busy["lost"] == tail
    assert of_busy["lost_ranges"] == ([[of_busy["accepted"] + 1, of_busy["created"]]] if tail else [])
    assert (of_idle["created"], of_idle["accepted"], of_idle["lost"]) == (500, 500, 0)
    assert (of_last["created"], of_last["lost"], of_last["bye"]) == (1, 0, True)
    assert books["recovered"] == books["dropped"] == books["unexplained"] == 0
