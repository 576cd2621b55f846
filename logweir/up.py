"""Run the whole product on this machine: ingest, worker and console, watched over by this process.

Everything is kept in the data folder (--data-dir): queue, store, keys. Ctrl-C stops it all.
"""

from __future__ import annotations

import argparse
import fcntl
import http.client
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from logweir.arguments import reachable, whole_number
from logweir.config import Settings, environment_name
from logweir.errors import DATA_DIR_LOCKED, DATA_DIR_UNUSABLE, PART_FAILED, PORT_TAKEN, SETTING_BAD, LogweirError
from logweir.files import make_folder
from logweir.keys import KeysFile, read_keys
from logweir.logs import configure_logging
from logweir.process import die_with_parent, require_free_port

log = logging.getLogger(__name__)

KEY_NAME = "first"
_EXAMPLE = '{"category":"test","summary":"hello weir"}'
_READY_S_MAX = 60.0
_PORT_WAIT_S_MAX = 3.0
_KEY_WAIT_S_MAX = 3.0
_GRACE_S = 4.0
_RESTART_WAIT_S_MAX = 10.0
_TURN_S = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ingest-port", dest="set:ingest.port", metavar="PORT", help="port of ingest (8080)")
    parser.add_argument("--console-port", dest="set:console.port", metavar="PORT", help="port of the console (8081)")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="address that both listen on (127.0.0.1: this machine only)"
    )
    parser.add_argument("--workers", type=whole_number(least=1), default=1, metavar="N", help="worker processes (1)")
    parser.add_argument(
        "--die-with-parent", action="store_true", help="stop when the process that started this one dies"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.die_with_parent:
        die_with_parent()
    configure_logging("up")
    settings = _listening(settings, arguments.address)
    supervisor = Supervisor()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.stop())
    with _locked(settings.data_dir):
        _require_ports(settings)
        for part in _parts(arguments, settings):
            supervisor.start(part)
        try:
            if supervisor.wait_until_ready(settings):
                print(_welcome(settings, _first_key(settings)), flush=True)
                supervisor.watch()
        finally:
            supervisor.stop_all()
    return 0


def _listening(settings: Settings, address: str | None) -> Settings:
    """With the ports named and the address that was asked for. Raises LogweirError(SETTING_BAD)."""
    for name, port in (("ingest.port", settings.ingest.port), ("console.port", settings.console.port)):
        if port == 0:
            reason = "`logweir up` says where things are before they run, so it needs a port's number"
            raise LogweirError(SETTING_BAD, where="The configuration", name=name, value=port, reason=reason)
    if not address:
        return settings
    ingest = settings.ingest.model_copy(update={"address": address})
    console = settings.console.model_copy(update={"address": address})
    return settings.model_copy(update={"ingest": ingest, "console": console})


@dataclass(slots=True)
class Part:
    """One child process. ``stop_first``: it takes events in, so it stops before those that work them off."""

    name: str
    command: list[str]
    environment: dict[str, str]
    stop_first: bool = False
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restart_at: float = 0.0
    restart_wait_s: float = field(default=0.5)

    def start(self) -> None:
        parent = os.getpid()
        # A process group of its own: Ctrl-C in the terminal reaches us alone, and we stop the parts in order.
        self.process = subprocess.Popen(  # noqa: S603
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=lambda: die_with_parent(parent=parent),
        )
        self.started = time.monotonic()

    def exit_status(self) -> int | None:
        return self.process.poll() if self.process else None


class Supervisor:
    """Starts parts, starts them again when they die, stops them."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._stopping = False

    def stop(self) -> None:
        """Have ``watch`` return; a second time, kill everything at once."""
        if self._stopping:
            self._signal(self._parts, signal.SIGKILL)
        self._stopping = True

    def start(self, part: Part) -> None:
        self._parts.append(part)
        part.start()

    def wait_until_ready(self, settings: Settings) -> bool:
        """True once ingest and console answer; False when told to stop before. Raises LogweirError(PART_FAILED)."""
        deadline = time.monotonic() + _READY_S_MAX
        waiting = [("ingest", reachable(settings.ingest.address), settings.ingest.port, "GET", "/readyz")]
        waiting.append(("console", reachable(settings.console.address), settings.console.port, "GET", "/healthz"))
        while waiting and not self._stopping:
            for part in self._parts:
                if (part.exit_status() or 0) > 0:
                    raise LogweirError(PART_FAILED, part=part.name, status=part.exit_status())
                self._restart_if_dead(part)
            if time.monotonic() > deadline:
                raise LogweirError(PART_FAILED, part=waiting[0][0], status=f"not ready after {_READY_S_MAX:.0f} s")
            waiting = [one for one in waiting if _status(*one[1:]) != http.client.OK]
            time.sleep(_TURN_S)
        return not self._stopping

    def watch(self) -> None:
        """Start again what dies, with growing pauses, until told to stop."""
        while not self._stopping:
            for part in self._parts:
                self._restart_if_dead(part)
            time.sleep(_TURN_S)

    def stop_all(self) -> None:
        """Stop the parts in order, each within its grace; then kill what is left."""
        log.info("Stopping.")
        for group in (
            [part for part in self._parts if part.stop_first],
            [part for part in self._parts if not part.stop_first],
        ):
            self._signal(group, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE_S
            while time.monotonic() < deadline and any(part.exit_status() is None for part in group):
                time.sleep(_TURN_S / 4)
            self._signal(group, signal.SIGKILL)
            for part in group:
                if part.process:
                    part.process.wait()

    def _restart_if_dead(self, part: Part) -> None:
        now = time.monotonic()
        if part.exit_status() is None:
            return
        if not part.restart_at:
            if now - part.started > _RESTART_WAIT_S_MAX:
                part.restart_wait_s = 0.5
            part.restart_at = now + part.restart_wait_s
            log.warning("%s ended with status %s; starting it again.", part.name, part.exit_status())
        elif now >= part.restart_at:
            part.restart_at = 0.0
            part.restart_wait_s = min(part.restart_wait_s * 2, _RESTART_WAIT_S_MAX)
            part.start()

    def _signal(self, parts: list[Part], number: signal.Signals) -> None:
        for part in parts:
            if part.process and part.exit_status() is None:
                part.process.send_signal(number)


def _parts(arguments: argparse.Namespace, settings: Settings) -> list[Part]:
    environment = dict(os.environ)
    for name, value in vars(arguments).items():
        if name.startswith("set:") and value is not None:
            environment[environment_name(name.removeprefix("set:"))] = str(value)
    if arguments.address:
        environment[environment_name("ingest.address")] = arguments.address
        environment[environment_name("console.address")] = arguments.address
    common = ["--data-dir", str(settings.data_dir)]
    if arguments.config:
        common += ["--config", str(arguments.config)]

    def part(name: str, command: str, *, stop_first: bool = False) -> Part:
        return Part(name, [sys.executable, "-m", "logweir.cli", command, *common], environment, stop_first)

    workers = [part(f"worker {number}", "worker") for number in range(1, arguments.workers + 1)]
    return [part("ingest", "ingest", stop_first=True), *workers, part("console", "console")]


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Have the data folder for ourselves. Raises LogweirError(DATA_DIR_LOCKED), (DATA_DIR_UNUSABLE)."""
    try:
        make_folder(data_dir)
        file = (data_dir / "up.lock").open("a+")
    except OSError as error:
        raise LogweirError(DATA_DIR_UNUSABLE, path=data_dir, reason=error.strerror) from error
    with file:
        deadline = time.monotonic() + _PORT_WAIT_S_MAX
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                # One that was killed a moment ago may still be on its way out.
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise LogweirError(DATA_DIR_LOCKED, path=data_dir, pid=file.read().strip() or "?") from error
                time.sleep(_TURN_S)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _require_ports(settings: Settings) -> None:
    deadline = time.monotonic() + _PORT_WAIT_S_MAX
    wanted = [("Ingest", settings.ingest.address, settings.ingest.port)]
    wanted.append(("The console", settings.console.address, settings.console.port))
    for what, address, port in wanted:
        while True:
            try:
                require_free_port(what, address, port)
                break
            except LogweirError as error:
                if error.problem is not PORT_TAKEN or time.monotonic() > deadline:
                    raise
                time.sleep(_TURN_S)


def _first_key(settings: Settings) -> str | None:
    """A key that the door accepts already, when there has never been one; None when there has."""
    path = settings.keys_path
    if read_keys(path):
        return None
    key = KeysFile(path).add(KEY_NAME)
    door = reachable(settings.ingest.address), settings.ingest.port
    deadline = time.monotonic() + _KEY_WAIT_S_MAX
    # The door looks for new keys every other second. An empty body is refused, but not before its key is known.
    while _status(*door, "POST", "/events", key) == http.client.UNAUTHORIZED and time.monotonic() < deadline:
        time.sleep(_TURN_S)
    return key


def _welcome(settings: Settings, key: str | None) -> str:
    ingest = f"http://{reachable(settings.ingest.address)}:{settings.ingest.port}"
    console = f"http://{reachable(settings.console.address)}:{settings.console.port}"
    program = f"{Path(sys.argv[0])} {{}} --data-dir {settings.data_dir}"
    lines = [
        "",
        f"logweir is running. Events go to {ingest}/events, people look at {console}/",
        f"Everything is kept in {settings.data_dir}. Ctrl-C stops it.",
        "",
    ]
    if key is not None:
        header = [*(f"{name}: {key}" for name in settings.ingest.key_headers), f"Authorization: Bearer {key}"][0]
        lines += [
            f"A key was made, named {KEY_NAME!r}. This is the only time that it is shown:",
            f"  {key}",
            "Send an event with it:",
            f"  curl -H '{header}' -d '{_EXAMPLE}' {ingest}/events",
            "Find it:",
            f"  {program.format('search hello')}",
        ]
    else:
        lines += [
            "Keys are shown once, when they are made (the first one by the first start). These are live:",
            *(f"  {row.name}  made {row.created}" for row in read_keys(settings.keys_path) if row.state == "live"),
            "Make another one:",
            f"  {program.format('keys add NAME')}",
        ]
    return "\n".join([*lines, ""])


def _status(address: str, port: int, method: str, path: str, key: str = "") -> int:
    """What is answered; 0 when nothing is."""
    connection = http.client.HTTPConnection(address.strip("[]"), port, timeout=1)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {key}"} if key else {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
