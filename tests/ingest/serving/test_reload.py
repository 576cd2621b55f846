"""The life of the door's processes, on real signals: reloads, deaths, stops, and what hangs behind them."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import itertools
import json
import os
import pty
import re
import shutil
import signal
import socket
import sqlite3
import termios
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from logweir.record import Accepted, Kind, Marker, Record
from tests.ingest.helpers import (
    INTERFACES,
    Answer,
    Door,
    SecureDoor,
    connected_to_each,
    events_of,
    is_ready,
    of_kind,
    running,
)
from tests.ingest.merging import unrepeated
from tests.services.kafka import Kafka
from tests.waiting import until

# Doors that are started, reloaded and stopped, on a Kafka of their own.
pytestmark = pytest.mark.timeout(180)

RELOADS = 5
RELOADED = "new processes serve by the settings as they are now"
HEALTH = ("/healthz", "/readyz", "/metrics")


def hang_up(door: Door) -> None:
    assert door.process is not None
    door.process.send_signal(signal.SIGHUP)


def reload(door: Door) -> None:
    """SIGHUP, until the new processes serve and the old ones are gone."""
    before = door.log.count(RELOADED)
    old = set(door.workers())
    hang_up(door)
    until(lambda: door.log.count(RELOADED) > before and not old & set(door.workers()))


@dataclass
class Load:
    """Threads that post events with unique ids, some over kept connections, some over a new one each time."""

    door: Door
    keeping: int = 4
    fresh: int = 4
    accepted: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        for number in range(self.keeping + self.fresh):
            self._threads.append(threading.Thread(target=self._run, args=(number, number < self.keeping)))
            self._threads[-1].start()
        until(lambda: len(self.accepted) > 100)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, number: int, is_keeping: bool) -> None:
        connection = self.door.connection()
        for n in range(1_000_000):
            if self._ended.is_set():
                break
            event = json.dumps({"id": f"{number}-{n}"})
            try:
                answer = self.door.post(event.encode(), connection=connection)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            (self.accepted if answer.status == 202 else self.failures).append(event)
            if not is_keeping:
                connection.close()
            time.sleep(0.002)
        connection.close()


# --- reload -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("interface", "tls"), [("asgi", False), ("asgi", True), pytest.param("wsgi", False, marks=pytest.mark.proof)]
)
def test_reloads_under_load_refuse_nobody_and_every_202_is_in_the_queue_once(
    tmp_path: Path, interface: str, tls: bool
) -> None:
    """Old and new processes overlap, on the embedded queue with a producer each: no error, nothing lost or twice."""
    with running((SecureDoor if tls else Door)(tmp_path, interface=interface)) as door:
        until(lambda: is_ready(door))
        with Load(door) as load:
            for _ in range(RELOADS):
                reload(door)
        assert door.stop() == 0
        records = door.records()
    events = [event.decode() for event in events_of(records)]

    assert load.failures == []
    assert len(load.accepted) > 300
    assert sorted(events) == sorted(load.accepted)
    assert sum(one.accepted for one in accepted_in(records)) == len(events)
    assert "Traceback" not in door.log


def test_an_unused_connection_is_served_by_the_process_that_has_it_after_a_reload(tmp_path: Path) -> None:
    """It is told then that it ends, instead of being reset under the sender's hands."""
    with running(Door(tmp_path)) as door:
        until(lambda: is_ready(door))
        connection = door.connection()
        assert door.post(b"{}", connection=connection).status == 202
        hang_up(door)
        until(lambda: RELOADED in door.log)
        time.sleep(1)
        answer = door.post(b"{}", connection=connection)

    assert (answer.status, answer.headers["connection"]) == (202, "close")


def test_a_reload_reads_the_settings_and_only_good_ones(tmp_path: Path) -> None:
    """What is in the file now counts; one with a fault, or with what needs a restart, changes nothing and is said."""
    file = tmp_path / "logweir.toml"
    with running(Door(tmp_path)) as door:
        file.write_text("[ingest]\nevents_per_request_max = 1\nprocesses = 1\n")
        reload(door)
        limited = door.post(b"[{},{}]")
        for fault, said in (
            ("events_per_request_max = 0", "events_per_request_max"),
            ("body_size = 1", "not a setting"),
            ("processes = 2", "use Kafka for more"),
            ("keys_file = 'elsewhere'", "only a restart changes it"),
            ("tls_cert_file = 'absent.pem'", "absent.pem cannot be used for TLS"),
        ):
            workers = door.workers()
            file.write_text(f"[ingest]\n{fault}\n")
            hang_up(door)
            door.wait_for(f"Not reloaded, everything stays as it was: .*{said}")
            assert door.workers() == workers
        still_limited = door.post(b"[{},{}]")

    assert (limited.status, limited.json["code"]) == (413, "events_too_many")
    assert still_limited.status == 413


def test_hangups_on_top_of_each_other_are_one_more_reload(tmp_path: Path) -> None:
    """And gunicorn's other signals, which would change how many serve or start a second master, change nothing."""
    with running(Door(tmp_path)) as door:
        until(lambda: is_ready(door))
        assert door.process is not None
        for number in (signal.SIGTTIN, signal.SIGUSR2):
            door.process.send_signal(number)
        until(lambda: door.log.count("do nothing here") == 2)
        old = door.worker()
        hang_up(door)
        until(lambda: [pid for pid in door.workers() if pid != old])
        (new,) = (pid for pid in door.workers() if pid != old)
        # Held up, the new process cannot serve, and the reload not end, before the others have come.
        os.kill(new, signal.SIGSTOP)
        for _ in range(3):
            hang_up(door)
            time.sleep(0.05)
        assert door.post(b"{}").status == 202
        os.kill(new, signal.SIGCONT)
        until(lambda: door.log.count(RELOADED) == 2 and len(door.workers()) == 1)

        assert door.worker() not in (old, new)
        assert door.stop() == 0
    assert door.log.count(RELOADED) == 2


def test_new_processes_that_cannot_start_leave_the_old_ones(tmp_path: Path) -> None:
    """A reload that fails half-way is undone: the port is served all the time, and the next reload works."""
    metrics = tmp_path / "metrics"
    with running(Door(tmp_path)) as door:
        until(lambda: is_ready(door))
        old = door.workers()
        metrics.rename(tmp_path / "aside")
        hang_up(door)
        door.wait_for("Not reloaded, the processes of before serve on: a new process could not start")
        until(lambda: door.workers() == old)
        answer = door.post(b"{}")
        (tmp_path / "aside").rename(metrics)
        reload(door)

        assert answer.status == 202
        assert door.post(b"{}").status == 202


def test_a_reload_while_the_queue_is_away_keeps_an_emitters_order(tmp_path: Path) -> None:
    """Its connection is told when to change; what the old process has spooled comes into the queue first."""
    numbers = itertools.count(1)
    with running(Door(tmp_path, environment=QUICK)) as door:
        until(lambda: is_ready(door))
        connection = door.connection()

        def post() -> str:
            headers = {"Log-Emitter": "e", "Log-Epoch": "run", "Log-Seq": str(next(numbers))}
            return str(door.post(b"{}", headers, connection=connection).json["durable"])

        durable = [post()]
        with contextlib.closing(sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            durable += [post(), post()]
            old = door.worker()
            hang_up(door)
            while old in door.workers():
                durable.append(post())
                time.sleep(0.02)
            durable += [post(), post()]
        until(lambda: door.metric("logweir_ingest_spool_size_bytes") == 0)
        until(lambda: post() == "queue")
        assert door.stop() == 0
        records = unrepeated(door.records())
    sequence = [batch.sequence_first for _, one in records for batch in one.batches]

    assert durable[0] == "queue"
    assert set(durable[1:]) == {"spool"}
    assert sequence == list(range(1, len(sequence) + 1))
    assert len(sequence) > len(durable)


# --- the end ------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def half_sent(door: Door) -> Iterator[socket.socket]:
    """A request that lacks the last byte of its body."""
    with socket.create_connection(("127.0.0.1", door.port), 20) as connection:
        head = f"POST /events HTTP/1.1\r\nHost: x\r\nX-Log-Key: {door.key}\r\nContent-Length: 2\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        time.sleep(0.1)
        yield connection


def begin(connection: http.client.HTTPConnection, head: str) -> None:
    """Send a head that lacks its end."""
    connection.sock.sendall(f"{head}Host: x\r\n".encode())


def end(connection: http.client.HTTPConnection, body: bytes = b"") -> Answer:
    connection.sock.sendall(b"\r\n" + body)
    response = http.client.HTTPResponse(connection.sock)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def refuses_connections(door: Door) -> bool:
    try:
        socket.create_connection(("127.0.0.1", door.port), 20).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_stop_finishes_what_is_under_way_and_refuses_what_comes(tmp_path: Path, interface: str) -> None:
    """A kept connection hears 503, to come back later, and that it is closed; a request half sent is still taken."""
    with running(Door(tmp_path, interface=interface)) as door:
        until(lambda: is_ready(door))
        kept, asking, dropping = (door.connection() for _ in range(3))
        for connection in (kept, asking, dropping):
            assert door.request("GET", "/healthz", connection=connection).status == 200
        with half_sent(door) as connection:
            # Begun, since a connection that nothing comes on is closed after a second.
            begin(kept, f"POST /events HTTP/1.1\r\nX-Log-Key: {door.key}\r\nContent-Length: 2\r\n")
            begin(asking, "GET /readyz HTTP/1.1\r\n")
            begin(dropping, f"POST /_bulk HTTP/1.1\r\nX-Log-Key: {door.key}\r\nContent-Length: 2\r\n")
            assert door.process is not None
            door.process.terminate()
            until(lambda: refuses_connections(door))
            unready, refused = end(asking), end(kept, b"{}")
            # rsyslog's omelasticsearch drops what has a whole answer without items, and sends again what has none.
            with pytest.raises(http.client.IncompleteRead):
                end(dropping, b"{}")
            connection.sendall(b"}")
            finished = connection.recv(65536)
        status = door.process.wait(10)

    assert (refused.status, refused.json["code"], refused.headers["connection"]) == (503, "stopping", "close")
    assert int(refused.headers["retry-after"]) > 0
    assert (unready.status, unready.json["reason"]) == (503, "this door is stopping")
    assert finished.startswith(b"HTTP/1.1 202 ") and b"connection: close" in finished
    assert status == 0
    assert len(events_of(door.records())) == 1


def test_a_stop_takes_no_longer_than_its_setting(tmp_path: Path) -> None:
    """Who never ends his request is cut, what was accepted has its marker, and the status is 0."""
    with running(Door(tmp_path, environment={"LOGWEIR_INGEST_STOP_TIMEOUT_S": "2"})) as door:
        until(lambda: is_ready(door))
        assert door.post(b"{}").status == 202
        with half_sent(door) as connection:
            started_s = time.monotonic()
            status = door.stop()
            took_s = time.monotonic() - started_s
            refused = connection.recv(65536)
        records = door.records()

    assert status == 0
    assert 0.9 < took_s < 20
    assert refused.startswith(b"HTTP/1.1 503 ") and b'"code":"stopping"' in refused
    assert "1 connections were still in use after 1 seconds" in door.log
    assert len(of_kind(records, Kind.MARKER)) == 1


def test_an_unused_connection_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """It is closed a second later."""
    with running(Door(tmp_path)) as door:
        connection = door.connection()
        assert door.request("GET", "/healthz", connection=connection).status == 200
        started_s = time.monotonic()

        assert door.stop() == 0
        assert time.monotonic() - started_s < 12


def test_a_closed_terminal_stops_the_door_in_order(tmp_path: Path) -> None:
    """The system tells master and worker at once: the worker waits for the master's word, and writes its marker."""
    terminal, inner = pty.openpty()
    door = Door(tmp_path)
    try:
        door.start(stdin=inner, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY))
        os.close(inner)
        until(lambda: is_ready(door))
        assert door.post(b"{}").status == 202
        os.kill(door.worker(), signal.SIGHUP)
        assert door.post(b"{}").status == 202
        os.close(terminal)
        assert door.process is not None
        status = door.process.wait(10)
    finally:
        door.kill()

    assert status == 0
    assert sum(one.accepted for one in accepted_in(door.records())) == 2


def accepted_in(records: list[tuple[int, Record]]) -> list[Accepted]:
    """What the markers say."""
    markers = [one.body for _, one in of_kind(records, Kind.MARKER) if isinstance(one.body, Marker)]
    return [one for marker in markers for one in marker.accepted]


# --- a dependency that hangs --------------------------------------------------------------------------------------
def slowest_s(door: Door, *, for_s: float) -> float:
    """The longest that any health endpoint took to answer, whatever it said."""
    slowest = 0.0
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        for path in HEALTH:
            started_s = time.monotonic()
            assert door.request("GET", path).status in (200, 503)
            slowest = max(slowest, time.monotonic() - started_s)
        time.sleep(0.05)
    return slowest


@dataclass
class Posting:
    """Threads that post one event after another, and wait for each answer however long it takes."""

    door: Door
    answers: list[Answer] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Posting:
        self._threads = [threading.Thread(target=self._run) for _ in range(8)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.answers.append(self.door.post(b'{"summary":"while it hangs"}'))


QUICK = {"LOGWEIR_INGEST_QUEUE_TIMEOUT_S": "0.2", "LOGWEIR_INGEST_STOP_TIMEOUT_S": "4"}


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_locked_queue_holds_up_neither_health_endpoints_nor_a_stop(tmp_path: Path, interface: str) -> None:
    """Somebody else's transaction on the embedded queue's file: events go to the spool, the door answers as ever."""
    with running(Door(tmp_path, interface=interface, environment=QUICK)) as door:
        until(lambda: is_ready(door))
        assert door.post(b"{}").status == 202
        with contextlib.closing(sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with Posting(door) as posting:
                slowest = slowest_s(door, for_s=1.5)
            started_s = time.monotonic()
            status = door.stop()
            took_s = time.monotonic() - started_s

    assert slowest < 1
    assert {answer.status for answer in posting.answers} == {202}
    assert status == 0
    assert took_s < 40


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@contextlib.contextmanager
def frozen(kafka: Kafka) -> Iterator[None]:
    session = kafka.processes[0].pid
    assert session is not None
    os.killpg(session, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(session, signal.SIGCONT)


def on_kafka(kafka: Kafka, folder: Path, **environment: str) -> Door:
    url = f"kafka://{kafka.bootstrap}/life-{uuid.uuid4().hex[:8]}"
    return Door(folder, environment={"LOGWEIR_QUEUE_URL": url, "LOGWEIR_QUEUE_PARTITIONS": "2", **QUICK, **environment})


def test_a_frozen_broker_holds_up_neither_health_endpoints_nor_a_stop(own_kafka: Kafka, tmp_path: Path) -> None:
    """SIGSTOP leaves its sockets open and its answers out; a door that starts meanwhile is alive, too."""
    with running(on_kafka(own_kafka, tmp_path)) as door:
        until(lambda: is_ready(door))
        assert door.post(b"{}").status == 202
        with frozen(own_kafka):
            with Posting(door) as posting:
                slowest = slowest_s(door, for_s=2)
            started_s = time.monotonic()
            status = door.stop()
            took_s = time.monotonic() - started_s
            door.start()
            slowest_anew = slowest_s(door, for_s=1)
        until(lambda: is_ready(door))
        until(lambda: door.metric("logweir_ingest_spool_size_bytes") == 0)

    assert slowest < 1 and slowest_anew < 1
    assert {answer.status for answer in posting.answers} == {202}
    assert {answer.json["durable"] for answer in posting.answers} <= {"queue", "spool"}
    assert status == 0
    assert took_s < 40


# --- processes that die -------------------------------------------------------------------------------------------
SAMPLE = re.compile(r"^(logweir_\w+(?:_total|_bucket|_count|_sum)(?:\{.*\})?) (\S+)$", re.MULTILINE)


@dataclass
class Watch:
    """Asks for the metrics again and again, and notes what counts less than before."""

    door: Door
    fallen: list[str] = field(default_factory=list)
    seen: dict[str, float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            with contextlib.suppress(OSError, http.client.HTTPException):  # who is killed answers nothing
                text = self.door.request("GET", "/metrics").body.decode()
                now = {name: float(value) for name, value in SAMPLE.findall(text)}
                self.fallen += [name for name, value in self.seen.items() if now.get(name, 0) < value]
                self.seen.update(now)


def test_counts_never_fall_when_processes_are_replaced(own_kafka: Kafka, tmp_path: Path) -> None:
    """Two processes, killed and reloaded under load: each is replaced, said, counted, and what it counted stays."""
    with running(on_kafka(own_kafka, tmp_path), "--processes", "2") as door:
        until(lambda: is_ready(door) and len(door.workers()) == 2)
        with Watch(door) as watch, Posting(door) as posting:
            until(lambda: len(posting.answers) > 50)
            for _ in range(2):
                killed = door.workers()[0]
                os.kill(killed, signal.SIGKILL)
                until(lambda killed=killed: len(set(door.workers()) - {killed}) == 2 and is_ready(door))
            reload(door)
            until(lambda: watch.seen.get("logweir_ingest_processes_died_total") == 2)
            # Of the two that serve, of the master, and one for all that are gone.
            until(lambda: len(list((tmp_path / "metrics").rglob("counter_*.db"))) <= 4)

    assert watch.fallen == []
    assert watch.seen['logweir_ingest_requests_total{code="202",endpoint="events"}'] > 50
    assert len(re.findall(r"The process \d+ has died; another one takes its place", door.log)) == 2


def test_a_process_that_cannot_be_replaced_now_is_replaced_later(own_kafka: Kafka, tmp_path: Path) -> None:
    """While others serve, one that cannot start does not end them; it is tried again, a second apart."""
    with running(on_kafka(own_kafka, tmp_path), "--processes", "2") as door:
        connected_to_each(door, 2)
        shutil.move(tmp_path / "metrics", tmp_path / "aside")
        first, second = door.workers()
        os.kill(first, signal.SIGKILL)
        until(lambda: door.log.count("has died") >= 2)
        answer = door.post(b"{}")
        shutil.move(tmp_path / "aside", tmp_path / "metrics")
        until(lambda: len(door.workers()) == 2 and second in door.workers() and is_ready(door))

    assert answer.status == 202


def test_a_process_that_dies_young_is_replaced_a_second_later(tmp_path: Path) -> None:
    """What ends each one at its start does not keep the machine busy; a connection waits, and is served."""
    with running(Door(tmp_path)) as door:
        until(lambda: is_ready(door))
        killed, killed_s = door.worker(), time.monotonic()
        os.kill(killed, signal.SIGKILL)
        until(lambda: set(door.workers()) - {killed})
        replaced_s = time.monotonic()
        answer = door.post(b"{}")

    assert replaced_s - killed_s > 0.9
    assert answer.status == 202
