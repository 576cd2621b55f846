"""The generated pages are current, and the check that says so can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy"))

import generate  # noqa: E402


def test_generated_pages_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/reference/ is what the tables in the code say."""
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_stale_page_is_named_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--check names the page that is not current, ends with 1 and writes nothing; without it the page is mended."""
    folder = tmp_path / "docs" / "reference"
    monkeypatch.setattr(generate, "REFERENCE", folder)
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    generate.main([])
    (folder / "metrics.md").write_text("old")

    assert generate.main(["--check"]) == 1
    assert (folder / "metrics.md").read_text() == "old"
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_stale_page_is_named_on_standard_error() -> None:
    """The file runs as the command that the documentation names."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy/generate.py"), "--help"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0
    assert "--check" in done.stdout


def test_text_that_markdown_would_swallow_is_shown() -> None:
    """A < outside of code and a | anywhere in a cell reach the reader."""
    table = generate._table(("a",), [("<x> `<y>` a|b",)])

    assert table.splitlines()[-1] == "| &lt;x> `<y>` a\\|b |"
