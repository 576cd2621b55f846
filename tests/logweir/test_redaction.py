"""A key that got into a text is not in what becomes of the text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from logweir.errors import NOT_FOUND, LogweirError
from logweir.keys import KeysFile
from logweir.redaction import holds_key, without_keys


def test_every_key_is_known_by_its_looks(tmp_path: Path) -> None:
    """Whole or cut off, alone or in a sentence; words that only begin like one stay."""
    for number in range(50):
        key = KeysFile(tmp_path / "keys.toml").add(f"key-{number}")
        for text in (key, f"a {key}, b", f"/{key}/", key[:20], f"{key}{key}"):
            assert holds_key(text) == (key in text)
            assert key[3:15] not in without_keys(text) and "lw_***" in without_keys(text)
        assert without_keys(f"a={key} b") == "a=lw_*** b"
    for text in ("", "lw_", "lw_short", "flow_of_events", "blw-abcdefghijklmnop"):
        assert without_keys(text) == text and not holds_key(text)
    assert not holds_key("lw_collector_frankfurt_01")


def test_no_problem_repeats_a_key() -> None:
    """Neither its words nor its numbers."""
    key = "lw_" + "k" * 43
    error = LogweirError(NOT_FOUND, path=f"/events/{key}")

    assert key not in str(error) and key not in str(error.as_dict())
    assert error.as_dict()["path"] == "/events/lw_***"


def test_no_log_line_nor_trace_has_a_key() -> None:
    """Whoever logs it: libraries quote what they were sent."""
    program = (
        "import logging; from logweir.logs import configure_logging; configure_logging('test')\n"
        "key = 'lw_' + 'k' * 43\n"
        "logging.getLogger('gunicorn.error').warning('Invalid request: %s', key)\n"
        "try:\n    raise ValueError(f'bad: {key}')\n"
        "except ValueError:\n    logging.getLogger('logweir').exception('failed with %r', [key])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert "kkk" not in done.stderr
    assert "Invalid request: lw_***" in done.stderr
    assert "ValueError: bad: lw_***" in done.stderr and "failed with ['lw_***']" in done.stderr
