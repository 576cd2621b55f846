"""Run the whole product on this machine: ingest, worker, alerter, exporter and console, watched over by this process.

Everything is kept in the data folder (--data-dir): queue, store, keys. Ctrl-C stops it all, as does closing the
terminal from which it was started; any other SIGHUP has ingest read its settings again.
"""

from __future__ import annotations

import argparse
import fcntl
import http.client
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType

from logweir.commands.output import reachable, whole_number
from logweir.config import IngestSettings, Settings, environment_name
from logweir.errors import DATA_DIR_LOCKED, DATA_DIR_UNUSABLE, PORT_TAKEN, SETTING_BAD, LogweirError
from logweir.http.authority import Authority
from logweir.http.tls import pinned
from logweir.keys.file import KeysFile, live_keys, read_keys
from logweir.process.files import make_folder
from logweir.process.lifetime import Terminal, die_with_parent, require_free_port
from logweir.process.logs import configure_logging
from logweir.process.supervisor import GRACE_S, Part, Supervisor
from logweir.store import open_store

log = logging.getLogger(__name__)

KEY_NAME = "first"
_EXAMPLE = '{"category":"test","summary":"hello weir"}'
_PORT_WAIT_S_MAX = 3.0
_TURN_S = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ingest-port", dest="set:ingest.port", metavar="PORT", help="port of ingest (8080)")
    parser.add_argument("--console-port", dest="set:console.port", metavar="PORT", help="port of the console (8081)")
    address_help = "address that ingest listens on (127.0.0.1: this machine only)"
    parser.add_argument("--address", dest="set:ingest.address", metavar="ADDRESS", help=address_help)
    console_help = "address that the console listens on (127.0.0.1); beyond this machine it needs console.hosts"
    parser.add_argument("--console-address", dest="set:console.address", metavar="ADDRESS", help=console_help)
    tls_help = "have ingest serve HTTPS, with a certificate made here unless ingest.tls_cert_file names one"
    parser.add_argument("--tls", action="store_true", help=tls_help)
    parser.add_argument("--workers", type=whole_number(least=1), default=1, metavar="N", help="worker processes (1)")
    parser.add_argument(
        "--die-with-parent", action="store_true", help="stop when the process that started this one dies"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.die_with_parent:
        die_with_parent()
    configure_logging("up", settings.log)
    _require_places(settings)
    terminal, supervisor = Terminal(), Supervisor()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.stop())
    signal.signal(signal.SIGHUP, lambda *_: supervisor.stop() if terminal.is_gone() else supervisor.reload())
    with _locked(settings.data_dir):
        _require_ports(settings)
        _make_store(settings)
        authority = _authority(settings) if arguments.tls else None
        way = _Way(settings.ingest, authority)
        # Made before ingest starts, which would complain that there is none.
        key, is_key_shown = _first_key(settings), False
        try:
            for part in _parts(arguments, settings, authority):
                supervisor.start(part)
            if supervisor.wait_until(_ready(settings, way)):
                print(_welcome(settings, way, key), flush=True)
                is_key_shown = True
                supervisor.watch(every_hour=lambda: way.renew(settings))
        finally:
            supervisor.stop_all(ingest_grace_s=settings.ingest.stop_timeout_s + GRACE_S)
            if key is not None and not is_key_shown:
                KeysFile(settings.keys_path).withdraw(key)
    return 0


def _require_places(settings: Settings) -> None:
    """Raises LogweirError for where nothing can listen, or must not: SETTING_BAD, CONSOLE_HOSTS_MISSING."""
    for name, port in (("ingest.port", settings.ingest.port), ("console.port", settings.console.port)):
        if port == 0:
            reason = "`logweir up` says where things are before they run, so it needs a port's number"
            raise LogweirError(SETTING_BAD, where="The configuration", name=name, value=port, reason=reason)
    settings.console.require_hosts()


def _make_store(settings: Settings) -> None:
    """Make the embedded store, so that it is there for whoever searches before the first event came."""
    if settings.store.url.startswith("sqlite:"):
        with closing(open_store(settings.store)) as store:
            store.prepare()


def _authority(settings: Settings) -> Authority | None:
    """Where the certificate is that was made for ingest; None when the settings name one."""
    if settings.ingest.tls_cert_file is not None:
        return None
    authority = Authority(settings.data_dir / "tls")
    authority.prepare(settings.ingest.address)
    return authority


class _Way:
    """How ingest is reached from this machine: with TLS or without, and whose certificates to trust."""

    def __init__(self, ingest: IngestSettings, authority: Authority | None) -> None:
        certificate = authority.pair.certificate if authority else ingest.tls_cert_file
        self.address, self.port = reachable(ingest.address), ingest.port
        self.authority = authority
        self.certificate = certificate
        self.url = f"{'https' if certificate else 'http'}://{self.address}:{self.port}"

    @property
    def curl(self) -> str:
        """The command, as far as it depends on the way."""
        return f"curl --cacert {shlex.quote(str(self.authority.certificate))}" if self.authority else "curl"

    def status(self, method: str, path: str) -> int:
        """What is answered; 0 when nothing is."""
        return _status(self.address, self.port, method, path, certificate=self.certificate)

    def renew(self, settings: Settings) -> None:
        """Make a new certificate before ours expires; ingest takes it by itself."""
        try:
            if self.authority is not None and self.authority.prepare(settings.ingest.address):
                log.info("The certificate in %s was made anew.", self.authority.pair.certificate)
        except LogweirError as error:
            log.error("The certificate is about to expire and could not be made anew: %s", error)


def _ready(settings: Settings, way: _Way) -> dict[str, Callable[[], bool]]:
    console = reachable(settings.console.address), settings.console.port
    # By a name that it answers to.
    headers = {"Host": settings.console.hosts[0].lstrip(".")} if settings.console.hosts else {}

    def is_ingest_ready() -> bool:
        # Whose keys are all revoked or expired may still want to search, and to make another.
        path = "/readyz" if live_keys(settings.keys_path) else "/healthz"
        return way.status("GET", path) == http.client.OK

    return {
        "ingest": is_ingest_ready,
        "console": lambda: _status(*console, "GET", "/healthz", headers) == http.client.OK,
    }


def _parts(arguments: argparse.Namespace, settings: Settings, authority: Authority | None) -> list[Part]:
    environment = dict(os.environ)
    for name, value in vars(arguments).items():
        if name.startswith("set:") and value is not None:
            environment[environment_name(name.removeprefix("set:"))] = str(value)
    if authority is not None:
        environment[environment_name("ingest.tls_cert_file")] = str(authority.pair.certificate)
    common = ["--data-dir", str(settings.data_dir)]
    if arguments.config:
        common += ["--config", str(arguments.config)]

    def part(name: str, command: str, *, is_ingest: bool = False) -> Part:
        return Part(name, [sys.executable, "-m", "logweir.cli", command, *common], environment, is_ingest)

    workers = [part(f"worker {number}", "worker") for number in range(1, arguments.workers + 1)]
    return [
        part("ingest", "ingest", is_ingest=True),
        *workers,
        part("console", "console"),
        part("exporter", "exporter"),
        part("alerter", "alerter"),
    ]


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Have the data folder for ourselves. Raises LogweirError(DATA_DIR_LOCKED), (DATA_DIR_UNUSABLE)."""
    try:
        make_folder(data_dir)
        file = (data_dir / "up.lock").open("a+")
    except OSError as error:
        raise LogweirError(DATA_DIR_UNUSABLE, path=data_dir, reason=error) from error
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
    """A key, when there has never been one; None when there has."""
    return None if read_keys(settings.keys_path) else KeysFile(settings.keys_path).add(KEY_NAME)


def _welcome(settings: Settings, way: _Way, key: str | None) -> str:
    console = f"http://{reachable(settings.console.address)}:{settings.console.port}"
    program = f"{Path(sys.argv[0])} {{}} --data-dir {settings.data_dir}"
    lines = [
        "",
        f"logweir is running. Events go to {way.url}/events, people look at {console}/,",
        f"at alerts in {console}/alerts. Your own rules go into {settings.rules_path}: docs/how-to/write-a-rule.md.",
        f"Everything is kept in {settings.data_dir}. Ctrl-C stops it.",
        "",
    ]
    if way.authority is not None:
        trusted = shlex.quote(str(way.authority.certificate))
        lines += [
            f"Senders must trust the authority that has made its certificate, {way.authority.certificate}:",
            f"  {way.curl} {way.url}/readyz",
            f"  {Path(sys.argv[0])} send --ca-file {trusted} --url {way.url}/events --key KEY FILE",
            "",
        ]
    if key is not None:
        header = [*(f"{name}: {key}" for name in settings.ingest.key_headers), f"Authorization: Bearer {key}"][0]
        lines += [
            f"A key was made, named {KEY_NAME!r}. This is the only time that it is shown:",
            f"  {key}",
            "Send an event with it:",
            f"  {way.curl} -H '{header}' -d '{_EXAMPLE}' {way.url}/events",
            "Find it:",
            f"  {program.format('search hello')}",
        ]
    else:
        lines += [
            "Keys are shown once, when they are made (the first one by the first start). These are live:",
            *(f"  {row.name}  made {row.created}" for row in live_keys(settings.keys_path)),
            "Make another one:",
            f"  {program.format('keys add NAME')}",
        ]
    return "\n".join([*lines, ""])


def _status(
    address: str,
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str] = MappingProxyType({}),
    *,
    certificate: Path | None = None,
) -> int:
    """What is answered; 0 when nothing is. ``certificate``: ask with TLS, and trust this one alone."""
    host = address.strip("[]")
    try:
        connection = (
            http.client.HTTPSConnection(host, port, timeout=1, context=pinned(certificate))
            if certificate is not None
            else http.client.HTTPConnection(host, port, timeout=1)
        )
        with closing(connection):
            connection.request(method, path, headers=headers)
            return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
