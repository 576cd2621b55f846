"""The unit files in deploy/systemd, read by systemd itself."""

import re
import subprocess
from pathlib import Path

import pytest

from logweir.cli import COMMANDS
from logweir.config import IngestSettings
from tests.deploy.compose import ROOT

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
EXPOSURE_MAX = 2.0


def test_there_is_a_unit_for_each_service() -> None:
    """Ingest, worker, console, exporter and alerter have one each, and it runs the command of that name."""
    commands = {re.search(r"^ExecStart=/opt/logweir/bin/logweir (\w+)$", unit.read_text(), re.M)[1] for unit in UNITS}  # type: ignore[index]

    assert commands == {"ingest", "worker", "console", "exporter", "alerter"}
    assert commands <= {command.name for command in COMMANDS}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_say_about_a_unit(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` prints nothing: it ends with 0 even when it passes over a misspelt line."""
    done = _analyze("verify", str(_with_a_program(unit, tmp_path)))

    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_ingest_is_given_the_time_that_its_stop_may_take() -> None:
    """Its master alone is told, and killed only when all that it waits for itself is over; a reload is a SIGHUP."""
    unit = (ROOT / "deploy/systemd/logweir-ingest.service").read_text()
    timeout_s = float(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1])  # type: ignore[index]

    assert timeout_s > 1.5 * IngestSettings().stop_timeout_s
    assert "\nKillMode=mixed\n" in unit
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in unit


def test_systemd_names_a_misspelt_line(tmp_path: Path) -> None:
    """The check above can fail."""
    unit = _with_a_program(UNITS[0], tmp_path)
    unit.write_text(unit.read_text().replace("NoNewPrivileges=", "NoNewPrivilegs="))

    assert "NoNewPrivilegs" in _analyze("verify", str(unit)).stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_exposes_little(unit: Path, tmp_path: Path) -> None:
    """systemd's own measure of what a service could do to the machine, 0 to 10, stays low."""
    done = _analyze("security", "--offline=true", "--no-pager", str(_with_a_program(unit, tmp_path)))
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)

    assert level, done.stderr
    assert float(level[1]) <= EXPOSURE_MAX


def _with_a_program(unit: Path, folder: Path) -> Path:
    """Copy the unit with a program that is on this machine: systemd asks whether it is there."""
    copy = folder / unit.name
    copy.write_text(unit.read_text(encoding="utf-8").replace("/opt/logweir/bin/logweir", "/bin/true"))
    return copy


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)
