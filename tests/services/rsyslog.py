"""A real rsyslog with omhttp, built from Debian's source, that takes RFC 5424 messages over TCP."""

from __future__ import annotations

from pathlib import Path

from tests.services.fetch import fetch_rsyslog
from tests.services.process import ServerProcess, choose_ports, port_is_free
from tests.services.syslog import Syslog

_CONFIGURATION = """\
global(workDirectory="{directory}" maxMessageSize="64k")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="input")
{sent}
ruleset(name="input") {{ {rules} }}
"""


class Rsyslog(Syslog):
    """``sent``: a configuration; ``rules``: what is done with each message. Both are rsyslog's."""

    def __init__(self, directory: Path, *, sent: str, rules: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (port,) = choose_ports(1)
        super().__init__(port)
        self._home = fetch_rsyslog()
        self._process = ServerProcess("rsyslogd", directory)
        self._file = directory / "rsyslog.conf"
        self._file.write_text(_CONFIGURATION.format(directory=directory, port=port, sent=sent, rules=rules))

    def start(self) -> None:
        modules = self._home / "usr/lib/rsyslog"
        pid = self._file.with_name("rsyslog.pid")
        self._process.launch(
            [str(self._home / "usr/sbin/rsyslogd"), "-n", "-f", str(self._file), "-i", str(pid), "-M", str(modules)]
        )
        self._process.wait_until(lambda: not port_is_free(self.port), wait_s_max=60)

    def stop(self) -> None:
        self._process.stop(wait_s_max=60)
