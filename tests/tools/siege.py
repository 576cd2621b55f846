"""A siege of the door: thousands of cases of ``hostile.py`` from many clients at once, each judged; then the accounts.

What must hold: no answer is 5xx or shows a stack trace, no case hangs, no process dies or outgrows its limit, its
health is told without delay, the log complains of nothing, and the queue has exactly the events that were accepted.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from tests.ingest.helpers import ROOT, Door, events_of, running
from tests.tools import hostile
from tests.tools.hostile import Case, Verdict

RSS_MIB_MAX = {"asgi": 128, "wsgi": 192}
"""Of the process that serves, by its interface: what it needs idle (50), and as many of the largest bodies,
decompressed and split, as it works on at once."""
DEADLINE_S = 20.0
"""For one case. The door's own limits end the slowest after 5 s; the rest is for a machine that has much else to do."""
HEALTH_S_MAX = 1.0
"""How long the door may take to tell its health, whatever else it has to do."""
_FAULTS_MAX = 20
_CASES_PER_TURN = 10
_CLIENTS = 64
# hypothesis watches over the one that the module shares.
_random = random.Random()
_BANNED = (b"Traceback", b'File "', b".py")


@dataclass(frozen=True, slots=True)
class Answer:
    """One final answer of the door."""

    status: int
    body: bytes

    @property
    def accepted(self) -> int:
        return int(json.loads(self.body)["accepted"]) if self.status == 202 else 0


@dataclass(slots=True)
class Report:
    """``cases`` by strategy and what came of them: a status, "cut" or "left". ``faults`` say how to get them again."""

    seed: int
    cases: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    accepted_events: int = 0
    rss_mib: float = 0.0
    slowest_s: float = 0.0
    health_s: float = 0.0

    def outcomes(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for (kind, outcome), count in sorted(self.cases.items()):
            found.setdefault(kind, {})[outcome] = count
        return found


def besiege(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    cases_max: int = sys.maxsize,
    interface: str = "asgi",
    health_s_max: float = HEALTH_S_MAX,
) -> Report:
    """Start a door in the folder, besiege it for so long or with so many cases, stop it, and compare the accounts."""
    with running(Door(folder, interface=interface, environment=hostile.ENVIRONMENT)) as door:
        while door.request("GET", "/readyz").status != 200:
            time.sleep(0.05)
        worker = door.worker()
        end_s = time.monotonic() + seconds
        siege = _Siege(door.port, door.key.encode(), seed=seed, end_s=end_s, cases_max=cases_max)
        report = siege.report
        with _pulse(door.port, report):
            siege.run()
        if not report.health_s <= health_s_max:
            siege.fault(f"its health took {report.health_s:.1f} s")
        if door.worker() != worker:
            siege.fault("the process that served is another than before")
        if door.post(b'{"id":"the last"}').status != 202:
            siege.fault("a good event is not accepted any more")
        siege.must[b'{"id":"the last"}'] += 1
        report.rss_mib = _rss_peak_mib(door.worker())
        if report.rss_mib > RSS_MIB_MAX[interface]:
            siege.fault(f"the process needed {report.rss_mib:.0f} MiB")
        if door.stop() != 0:
            siege.fault("it did not end as it should")
        if complaints := [line for line in door.log.splitlines() if _is_complaint(line)]:
            siege.fault(f"the log complains: {complaints[:5]}")
        records = door.records()
        found = Counter(events_of(records))
        if any(batch.source_address == hostile.NOBODY for _, one in records for batch in one.batches):
            siege.fault("a trailer has said where an event comes from")
    siege.settle(found)
    return report


@contextlib.contextmanager
def _pulse(port: int, report: Report) -> Iterator[None]:
    """Watch the door's health meanwhile; the report has infinity when it was not told at all."""
    command = [sys.executable, "-m", "tests.tools.pulse", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as pulse:
        yield
        said, _ = pulse.communicate()
    report.health_s = float(said or "inf")


def _rss_peak_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def _is_complaint(line: str) -> bool:
    return any(word in line for word in (" WARNING ", " ERROR ", " CRITICAL ", "Traceback"))


class _Siege:
    """``must``: events that were accepted. ``may``: events of whose acceptance nobody heard."""

    def __init__(self, port: int, key: bytes, *, seed: int, end_s: float, cases_max: int) -> None:
        self.report = Report(seed)
        self.must: Counter[bytes] = Counter()
        self._may: Counter[bytes] = Counter()
        self._port = port
        self._key = key
        self._end_s = end_s
        self._cases_max = cases_max
        self._made = 0
        self._lock = threading.Lock()
        self._cases: Queue[tuple[str, Case] | None] = Queue(_CLIENTS)

    def run(self) -> None:
        """Make cases on this thread, and deliver them on others: hypothesis is for one thread at a time."""
        clients = [threading.Thread(target=self._client) for _ in range(_CLIENTS)]
        for client in clients:
            client.start()
        # Left to hypothesis, which varies what it has made, some kinds would not come for hundreds of cases.
        kinds = [kind for kind, count in hostile.KINDS.items() for _ in range(count)]
        random.Random(self.report.seed).shuffle(kinds)
        for turn, kind in enumerate(itertools.cycle(kinds)):
            self._make(kind, self.report.seed * 1_000_000 + turn)
            if self._is_over():
                break
        for _ in clients:
            self._cases.put(None)
        for client in clients:
            client.join()

    def _make(self, kind: Callable[[], SearchStrategy[Case]], seed: int) -> None:
        @hypothesis.seed(seed)
        @settings(
            max_examples=_CASES_PER_TURN,
            phases=(Phase.generate,),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(kind())
        def put(case: Case) -> None:
            if not self._is_over():
                self._made += 1
                self._cases.put((kind.__name__, case))

        put()

    def fault(self, text: str) -> None:
        with self._lock:
            self.report.faults.append(text)

    def settle(self, found: Counter[bytes]) -> None:
        """Compare with what the queue holds."""
        missing = self.must - found
        unasked = found - self.must - self._may
        self.report.accepted_events = self.must.total()
        if missing:
            self.fault(f"{missing.total()} accepted events are not in the queue, such as {next(iter(missing))!r}")
        if unasked:
            self.fault(f"{unasked.total()} events in the queue were not accepted, such as {next(iter(unasked))!r}")

    def _client(self) -> None:
        while (made := self._cases.get()) is not None:
            try:
                self._try(*made)
            except Exception as error:  # A fault of the siege's own must not end in silence.
                self.fault(f"{made}: {error!r}")

    def _is_over(self) -> bool:
        with self._lock:
            has_failed = len(self.report.faults) >= _FAULTS_MAX
        return has_failed or self._made >= self._cases_max or time.monotonic() > self._end_s

    def _try(self, kind: str, case: Case) -> None:
        started_s = time.monotonic()
        client = _Client(case, self._port, self._key, deadline_s=started_s + DEADLINE_S)
        answers = client.deliver()
        took_s = time.monotonic() - started_s
        wrong = _wrong(case, answers, is_ended=client.is_ended)
        with self._lock:
            self.report.slowest_s = max(self.report.slowest_s, took_s)
            for outcome in [str(one.status) for one in answers] or ["cut" if case.answers else "left"]:
                self.report.cases[kind, outcome] += 1
            accepted = sum(one.accepted for one in answers)
            if accepted and accepted == len(case.events):
                self.must.update(case.events)
            elif accepted or len(answers) < max(1, case.answers):
                self._may.update(case.events)
        if wrong:
            wire = b"".join(piece for piece in case.wire if isinstance(piece, bytes))
            said = [(one.status, one.body[:300]) for one in answers]
            self.fault(f"{kind}: {wrong} after {took_s:.1f} s: sent {wire[:3000]!r} ({len(wire)} bytes), heard {said}")


def _wrong(case: Case, answers: list[Answer], *, is_ended: bool) -> str:
    """What is wrong with the answers; nothing when they are right."""
    for one in answers:
        # A transfer coding and a version that we do not speak are 501 and 505 (RFC 9110 sections 15.6.2 and 15.6.6).
        if (one.status >= 500 or one.status < 200) and one.status not in (501, 505):
            return f"{one.status} for a client's fault"
        if any(word in one.body for word in _BANNED):
            return "an answer shows the program"
        if one.status >= 400 and not _is_problem(one.body):
            return f"{one.status} without a problem"
    if not case.answers:
        return ""
    if len(answers) < case.answers and not is_ended:
        return "it hangs"
    accepted = sum(one.accepted for one in answers)
    if case.verdict is Verdict.ACCEPTED and accepted != len(case.events):
        return f"{accepted} of {len(case.events)} events accepted"
    if case.verdict is Verdict.REFUSED and accepted:
        return f"{accepted} events accepted"
    if not case.may_be_cut and len(answers) != case.answers:
        return f"{len(answers)} answers instead of {case.answers}"
    return ""


def _is_problem(body: bytes) -> bool:
    try:
        return {"code", "status", "title"} <= json.loads(body).keys()
    except (ValueError, AttributeError):
        return False


class _Client:
    """Sends one case and hears the answers. ``is_ended``: the door has ended the connection."""

    def __init__(self, case: Case, port: int, key: bytes, *, deadline_s: float) -> None:
        self.is_ended = False
        self._case = case
        self._port = port
        self._key = key
        self._deadline_s = deadline_s
        # From many addresses, as strangers come; all of 127.0.0.0/8 is this machine.
        self._address = f"127.{_random.randrange(1, 255)}.{_random.randrange(256)}.{_random.randrange(1, 255)}"
        self._received = b""
        self._heard: list[Answer] = []

    def deliver(self) -> list[Answer]:
        try:
            with socket.create_connection(
                ("127.0.0.1", self._port), DEADLINE_S, source_address=(self._address, 0)
            ) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._send(connection)
                self._hear(connection, self._case.answers)
        except TimeoutError:
            pass
        return self._heard

    def _send(self, connection: socket.socket) -> None:
        # What the door does not want to read any more cannot be sent; it may have answered before.
        with contextlib.suppress(ConnectionError):
            for piece in self._case.wire:
                if isinstance(piece, bytes):
                    connection.settimeout(max(0.001, self._deadline_s - time.monotonic()))
                    connection.sendall(piece.replace(hostile.KEY, self._key))
                elif piece is None:
                    self._hear(connection, len(self._heard) + 1)
                else:
                    time.sleep(piece)
        if self._case.resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _hear(self, connection: socket.socket, count: int) -> None:
        """Until that many answers are there, or the connection or the time ends."""
        while len(self._heard) < count and not self.is_ended:
            if (answer := self._next_answer()) is not None:
                self._heard += [answer] if answer.status != 100 else []
                continue
            connection.settimeout(max(0.001, self._deadline_s - time.monotonic()))
            try:
                piece = connection.recv(65536)
            except ConnectionError:
                piece = b""
            self.is_ended = not piece
            self._received += piece

    def _next_answer(self) -> Answer | None:
        """The next whole answer of what was received. All of the door's say their length."""
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        size = int(headers.get(b"content-length", b"0"))
        if len(rest) < size:
            return None
        self._received = rest[size:]
        return Answer(int(first.split()[1]), rest[:size])
