"""Imports point one way: the contracts of pyproject.toml, kept by the code."""

import os
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
    ("package", "line", "contract"),
    [
        ("logweir_ingest", "import logweir_workers", "do not know each other"),
        ("logweir", "import logweir_console", "imports none of the sides"),
        ("logweir", "import kafka", "Kafka client is known to its adapter"),
        ("logweir_workers", "import elasticsearch", "Elasticsearch client is known to one file"),
    ],
)
def test_import_against_a_contract_is_found(tmp_path: Path, package: str, line: str, contract: str) -> None:
    """One line in the wrong place breaks the contract that forbids it: the check above can fail."""
    for name in (
        "logweir",
        "logweir/queue",
        "logweir/queue/kafka",
        "logweir/store",
        "logweir/store/elasticsearch",
        "logweir_ingest",
        "logweir_workers",
        "logweir_console",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(line + "\n" if name == package else "")
    # The places where the clients may be: the contracts name them as their exceptions.
    for name in ("topic", "connection", "consumer", "producer"):
        (tmp_path / f"logweir/queue/kafka/{name}.py").write_text("import kafka\n")
    (tmp_path / "logweir/store/elasticsearch/store.py").write_text("import elasticsearch, elastic_transport\n")

    done = _lint_imports((tmp_path,))

    assert done.returncode == 1
    assert any(contract in row and "BROKEN" in row for row in done.stdout.splitlines()), done.stdout


def _lint_imports(packages: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command as run; sys.argv[0] = 'lint-imports'; run()"
    command = [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    path = os.pathsep.join(str(package) for package in packages)
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run(command, env=environment, cwd=packages[0], capture_output=True, text=True, timeout=120)
