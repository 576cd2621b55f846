"""What a serving process does to itself before it serves."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from logweir.config import HttpSettings
from logweir.http.protocol import HttpProtocol
from logweir.http.worker import limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
limit(HttpSettings(connections_max=2000), section="ingest", refused=print)
print(HttpProtocol.limits.settings.connections_max, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "files"),
    [(256, 4000, 2000, 2512), (3000, 4000, 2000, 3000), (256, 1024, 512, 1024)],
)
def test_open_files_are_raised_to_what_connections_need_or_these_lowered(
    soft: int, hard: int, connections: int, files: int
) -> None:
    """As far as the system lets the process; where that is not enough, a line of the log says so."""
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(soft=soft, hard=hard)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert answer.stdout.split() == [str(connections), str(files)]
    assert ("at most 512 connections" in answer.stderr) == (connections == 512)
