"""A real syslog-ng with http(), from Debian's packages, that takes RFC 5424 messages over TCP."""

from __future__ import annotations

import os
from pathlib import Path

from tests.services.fetch import fetch_syslog_ng
from tests.services.process import ServerProcess, choose_ports, port_is_free
from tests.services.syslog import Syslog

_CONFIGURATION = """\
@version: 3.35
options {{ keep-hostname(yes); }};
source s_src {{ syslog(ip("127.0.0.1") port({port}) transport("tcp") log-iw-size(10000)); }};
@include "{sent}"
"""


class SyslogNg(Syslog):
    """``sent``: a configuration of syslog-ng's that sends what comes from the source s_src, as Debian's calls it."""

    def __init__(self, directory: Path, *, sent: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (port,) = choose_ports(1)
        super().__init__(port)
        self._home = fetch_syslog_ng()
        self._directory = directory
        self._process = ServerProcess("syslog-ng", directory)
        included = directory / "sent.conf"
        included.write_text(sent)
        (directory / "syslog-ng.conf").write_text(_CONFIGURATION.format(port=port, sent=included))

    def start(self) -> None:
        libraries = sorted({str(file.parent) for file in self._home.rglob("*.so*")})
        (modules,) = {file.parent for file in self._home.rglob("libhttp.so")}
        at = self._directory
        self._process.launch(
            [
                str(self._home / "usr/sbin/syslog-ng"),
                "--foreground",
                "--stderr",
                f"--cfgfile={at / 'syslog-ng.conf'}",
                f"--persist-file={at / 'syslog-ng.persist'}",
                f"--control={at / 'syslog-ng.ctl'}",
                f"--pidfile={at / 'daemon.pid'}",
                f"--module-path={modules}",
            ],
            environment={"LD_LIBRARY_PATH": os.pathsep.join(libraries)},
        )
        self._process.wait_until(lambda: not port_is_free(self.port), wait_s_max=60)

    def stop(self) -> None:
        self._process.stop(wait_s_max=60)
