"""Imports point one way: the contracts of pyproject.toml, kept by the code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT, ROOT / "ingest", ROOT / "workers", ROOT / "console")


def test_imports_keep_to_the_contracts() -> None:
    """import-linter finds every contract kept."""
    done = _lint_imports(PACKAGES)

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("ingest/logweir_ingest/tally.py", "import logweir_workers.index", "do not know each other"),
        ("logweir/commands/up.py", "import logweir_console.app", "imports none of the sides"),
        ("logweir/event.py", "import logweir.store.port", "logweir is built in floors"),
        ("logweir/errors.py", "import logweir.event; import logweir.limits", "logweir is built in floors"),
        ("logweir/new_room.py", "", "logweir is built in floors"),
        ("ingest/logweir_ingest/spool/spool.py", "import logweir_ingest.app", "ingest is built in floors"),
        ("ingest/logweir_ingest/new_room/__init__.py", "", "ingest is built in floors"),
        ("workers/logweir_workers/decode.py", "import logweir_workers.worker", "workers are built in floors"),
        ("workers/logweir_workers/new_room.py", "", "workers are built in floors"),
        ("console/logweir_console/app.py", "import logweir.commands.search", "commands are imported by nobody"),
        ("logweir/commands/up.py", "import logweir.commands.send", "commands do not know each other"),
        ("ingest/logweir_ingest/receipts.py", "import logweir.audit.books", "reads receipts, not the books"),
        ("logweir/emit/door.py", "import logweir.errors", "emitter brings nothing along"),
        ("logweir/emit/formatter.py", "import orjson", "emitter brings nothing along"),
        ("logweir/queue/port.py", "import kafka", "Kafka client is known to its adapter"),
        ("workers/logweir_workers/index.py", "import elasticsearch", "Elasticsearch client is known to its adapter"),
    ],
)
def test_import_against_a_contract_is_found(tmp_path: Path, file: str, line: str, contract: str) -> None:
    """One line in the wrong place, or one file without a floor, breaks the contract: the check above can fail."""
    for package in PACKAGES:
        for name in package.glob("logweir*/"):
            shutil.copytree(name, tmp_path / name.relative_to(ROOT), ignore=shutil.ignore_patterns("__pycache__"))
    changed = tmp_path / file
    changed.parent.mkdir(exist_ok=True)
    with changed.open("a") as code:
        code.write(f"\n{line}\n")

    done = _lint_imports(tuple(tmp_path / package.relative_to(ROOT) for package in PACKAGES))

    assert done.returncode == 1
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert any(contract in row for row in broken), done.stdout


def _lint_imports(packages: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command as run; sys.argv[0] = 'lint-imports'; run()"
    command = [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    path = os.pathsep.join(str(package) for package in packages)
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run(command, env=environment, cwd=packages[0], capture_output=True, text=True, timeout=120)
