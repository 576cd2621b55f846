"""What people install: the wheel has all of the product, whichever way it is built, and its base needs nothing else."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.logweir.emit.stub import stub

ROOT = Path(__file__).resolve().parent.parent
PACKAGE_FOLDERS = (
    ROOT / "logweir",
    ROOT / "ingest/logweir_ingest",
    ROOT / "workers/logweir_workers",
    ROOT / "console/logweir_console",
)
BASE_MODULES = (
    "logweir",
    "logweir.cli",
    "logweir.clock",
    "logweir.emit",
    "logweir.errors",
    "logweir.event",
    "logweir.outcomes",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the wheel built as pip builds it: from the sdist, on the way of which nothing must be lost."""
    folder = tmp_path_factory.mktemp("wheel")
    sdist = _build(ROOT, folder / "sdist", "--sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return _build(unpacked, folder / "built", "--wheel")


@pytest.fixture(scope="module")
def base_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the bin folder of a new environment with the wheel and nothing else in it, installed without network."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    install = ("install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", str(wheel))
    _run(sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), *install)
    return folder / "bin"


@pytest.mark.proof
def test_wheel_from_sdist_has_the_same_files_as_the_wheel_from_the_tree(wheel: Path, tmp_path: Path) -> None:
    """Whoever installs from a checkout gets what pip's users get."""
    assert _files(_build(ROOT, tmp_path / "tree", "--wheel")) == _files(wheel)


def test_wheel_has_every_file_of_the_four_packages(wheel: Path) -> None:
    """Modules, templates, data files and type markers: all that lies in the packages' folders."""
    wanted = {
        str(path.relative_to(folder.parent)): path.read_bytes()
        for folder in PACKAGE_FOLDERS
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {name: data for name, data in _files(wheel).items() if ".dist-info/" not in name} == wanted
    assert "logweir/py.typed" in wanted


def test_wheel_carries_its_licence_and_needs_nothing(wheel: Path) -> None:
    """Apache-2.0 with its full text; every requirement belongs to an extra."""
    files = _files(wheel)
    metadata = next(data for name, data in files.items() if name.endswith(".dist-info/METADATA")).decode()
    requirements = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]

    assert "License-Expression: Apache-2.0" in metadata.splitlines()
    assert (ROOT / "LICENSE").read_bytes() in [data for name, data in files.items() if name.endswith("/LICENSE")]
    assert requirements
    assert [line for line in requirements if "extra ==" not in line] == []


def test_base_install_prints_its_help(base_install: Path) -> None:
    """`logweir --help` names the commands without the server's packages."""
    done = _run(str(base_install / "logweir"), "--help")

    assert "ingest" in done.stdout
    assert "worker" in done.stdout


def test_base_install_says_what_a_command_lacks(base_install: Path) -> None:
    """A command that needs the server's packages ends with 2 and says how to install them, in one line."""
    command = [str(base_install / "logweir"), "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=_environment())

    assert done.returncode == 2
    assert "pip install 'logweir[server]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_base_install_logs_to_a_door(base_install: Path, tmp_path: Path) -> None:
    """The handler works without the server's packages, with its folder, too."""
    code = (
        "import logging, sys; from logweir.emit import LogweirHandler;"
        "handler = LogweirHandler(sys.argv[1], 'lw_x', buffer_dir=sys.argv[2]);"
        "logging.basicConfig(level=logging.INFO, handlers=[handler]);"
        "logging.getLogger('app').info('from the base install')"
    )
    with stub() as door:
        _run(str(base_install / "python"), "-c", code, door.url, str(tmp_path / "buffer"))

    assert [event["summary"] for event in door.events] == ["from the base install"]
    assert door.posted[-1].headers["log-bye"] == "1"


@pytest.mark.parametrize("module", BASE_MODULES)
def test_base_module_imports_nothing_but_the_standard_library(base_install: Path, module: str) -> None:
    """What programs that log import, or what only prints help, pulls nothing in."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = _run(str(base_install / "python"), "-c", code)

    assert set(done.stdout.split()) - set(sys.stdlib_module_names) - {"__main__"} == {"logweir"}


def _build(source: Path, target: Path, kind: str) -> Path:
    _run(sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(target), str(source))
    (built,) = target.iterdir()
    return built


def _files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def _environment() -> dict[str, str]:
    """Return ours without what would show the working tree's modules to another Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LOGWEIR_"))}


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=_environment(), cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done
