"""Settings of an alerter that has a test's rules and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from logweir import config
from logweir.config import Settings


def settings_with(folder: Path, rules: str, *, partitions: int = 1, **overrides: Any) -> Settings:
    """Everything embedded in the folder; ``rules``: the text of its file of rules."""
    (folder / "rules").mkdir()
    (folder / "rules/own.py").write_text(rules)
    given = {"data_dir": folder, "queue.partitions": partitions, "alerts.pack": False, **overrides}
    return config.load(environment={}, overrides=given)
