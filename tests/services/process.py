"""Processes of servers: started, watched, stopped and killed by the folder they live in; and the ports they listen on.

Linux only: it reads /proc.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.services.errors import ServiceError

LOG_TAIL_LINES = 30
STOP_WAIT_S_MAX = 40.0
PORT_WAIT_S_MAX = 2.0  # the kernel closes a killed server's sockets a little later
# Below the kernel's range for outgoing connections (from 32768): a port that a killed server leaves for a second
# is not given away before the server starts again.
PORTS = range(20_000, 32_000)
# Test processes side by side: each has its part of the ports, so that two never choose the same.
PROCESSES_MAX = 12

# The kernel ends a child when the *thread* that started it ends, not the process (man 2 prctl, PR_SET_PDEATHSIG).
# So one thread starts them all and lives as long as the interpreter: a test may call start() from a thread of its own.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="services")


class ServerProcess:
    """One server: a process and its children, in a session of their own, known by the file `<name>.pid`.

    The file survives the program that wrote it, so that `make services-down` can stop what `make services` started.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.log_file = directory / f"{name}.log"
        self._pid_file = directory / f"{name}.pid"
        self._started: subprocess.Popen[bytes] | None = None

    def launch(
        self,
        command: Sequence[str],
        *,
        environment: dict[str, str] | None = None,
        user: tuple[int, int] | None = None,
        dies_with_parent: bool = True,
    ) -> None:
        """Start the command; return at once. Standard output and error are appended to `<name>.log`."""
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]
        parent = str(os.getpid() if dies_with_parent else 0)
        who = f"{user[0]}:{user[1]}" if user else ""
        with self.log_file.open("ab") as log:
            self._started = _starter.submit(
                subprocess.Popen,
                [*guard, parent, who, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                cwd=self.directory,
                start_new_session=True,
            ).result()
        pid = self._started.pid
        self._pid_file.write_text(json.dumps({"pid": pid, "start_ticks": _stat(pid).start_ticks}))

    @property
    def pid(self) -> int | None:
        """The process that was launched last, whether it still runs or not; None before the first launch."""
        return self._recorded()[0]

    def running(self) -> bool:
        return bool(self._members())

    def stop(self, *, wait_s_max: float = STOP_WAIT_S_MAX) -> None:
        """Ask the server to end, wait until it and its children have; after wait_s_max kill them."""
        self._signal_and_wait(signal.SIGTERM, whole_session=False, wait_s_max=wait_s_max)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the server and its children, as when the machine loses power but for the disk's cache."""
        self._signal_and_wait(signal.SIGKILL, whole_session=True, wait_s_max=10.0)
        if self._started is not None:
            self._started.wait(timeout=10)
            self._started = None
        self._pid_file.unlink(missing_ok=True)

    def log_tail(self) -> str:
        if not self.log_file.is_file():
            return "(no log)"
        lines = self.log_file.read_text(errors="replace").splitlines()
        return "\n".join(["", f"The end of {self.log_file}:", *lines[-LOG_TAIL_LINES:]])

    def wait_until(self, ready: Callable[[], bool], *, wait_s_max: float) -> None:
        """Return when `ready()` is true. Raises ServiceError, with the log's end, if it ends or takes too long."""
        deadline = time.monotonic() + wait_s_max
        while not ready():
            if not self.running():
                raise ServiceError(f"{self.name} ended while it was starting.{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} was not ready after {wait_s_max:.0f} s.{self.log_tail()}")
            time.sleep(0.1)

    def _signal_and_wait(self, number: int, *, whole_session: bool, wait_s_max: float) -> None:
        deadline = time.monotonic() + wait_s_max
        leader, _ = self._recorded()
        members = self._members()
        for pid in members:
            if whole_session or pid == leader or leader not in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        while self._members() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _recorded(self) -> tuple[int | None, int]:
        if not self._pid_file.is_file():
            return None, 0
        said = json.loads(self._pid_file.read_text())
        return said["pid"], said["start_ticks"]

    def _members(self) -> list[int]:
        """Return the living processes of the server's session: the one launched and its children."""
        leader, start_ticks = self._recorded()
        if leader is None:
            return []
        if self._started is not None:
            self._started.poll()  # collects it when it has ended, so that no zombie stays
        with contextlib.suppress(OSError):
            if _stat(leader).start_ticks != start_ticks:
                return []  # the number belongs to somebody else by now
        return [pid for pid, stat in _processes() if stat.session == leader and stat.alive]


class _Stat:
    """What /proc/PID/stat says of one process (man 5 proc)."""

    def __init__(self, text: str) -> None:
        # The second field is the command's name, which may hold blanks and brackets: count from the last bracket.
        fields = text.rpartition(")")[2].split()
        # A killed program's first thread is a zombie (Z) while others still hold its files and ports.
        self.alive = fields[0] not in "ZX" or int(fields[17]) > 1
        self.session = int(fields[3])
        self.start_ticks = int(fields[19])


def _stat(pid: int) -> _Stat:
    return _Stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))


def _processes() -> Iterator[tuple[int, _Stat]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it ended while we looked
                yield int(name), _stat(int(name))


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports in TIME_WAIT are free for a server
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_ports(count: int, *, first_wanted: int | None = None) -> list[int]:
    """Return free ports of 127.0.0.1: upwards from `first_wanted` for the first, random for all others."""
    chosen: list[int] = []
    if first_wanted is not None:
        chosen.append(next(port for port in range(first_wanted, 65_536) if port_is_free(port)))
    while len(chosen) < count:
        port = next(_ports)
        if port_is_free(port):
            chosen.append(port)
    return chosen


def free_port() -> int:
    """Return a port that nobody listens on, and that no other process of the test run will choose."""
    return choose_ports(1)[0]


def _own_ports() -> Iterator[int]:
    """The ports of this process of the test run, in random order, again and again: none twice in a short time."""
    of_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")) + 1
    own = list(PORTS)[of_process % PROCESSES_MAX :: PROCESSES_MAX]
    random.shuffle(own)
    return itertools.cycle(own)


_ports = _own_ports()


def require_free(ports: Sequence[int], *, name: str) -> None:
    """Raise ServiceError when somebody else listens on a port that an instance was given at its first start."""
    deadline = time.monotonic() + PORT_WAIT_S_MAX
    while taken := [port for port in ports if not port_is_free(port)]:
        if time.monotonic() < deadline:
            time.sleep(0.05)
            continue
        raise ServiceError(f"{name} needs port {taken[0]} of 127.0.0.1, but another program has it: end that first.")


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """Give a new folder that another user's servers can reach (not so pytest's tmp_path); remove it at the end."""
    path = Path(tempfile.mkdtemp(prefix="logweir-services-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
