"""What `logweir up` says when everything runs. tests/flow/test_up.py has it run."""

from __future__ import annotations

from pathlib import Path

from logweir import config
from logweir.commands.up import _Way, _welcome


def test_the_start_says_where_alerts_are_and_where_rules_go(tmp_path: Path) -> None:
    settings = config.load(environment={}, overrides={"data_dir": tmp_path, "console.port": 9081})
    said = _welcome(settings, _Way(settings.ingest, None), None)

    assert "people look at http://127.0.0.1:9081/,\nat alerts in http://127.0.0.1:9081/alerts." in said
    assert f"Your own rules go into {tmp_path}/rules: docs/how-to/write-a-rule.md." in said
