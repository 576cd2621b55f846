"""Text as it is shown: without keys, safe for a terminal, in its user's words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from logweir.errors import NOT_FOUND, LogweirError
from logweir.keys.file import KeysFile
from logweir.text import counted, holds_key, in_words, safe_json, without_keys


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


def logged(format: str) -> str:
    """What three lines look like that quote a key: a library's, one of ours, and a trace."""
    program = (
        "import logging; from logweir.process.logs import configure_logging; from logweir.config import LogSettings\n"
        f"configure_logging('test', LogSettings(format={format!r}))\n"
        "key = 'lw_' + 'k' * 43\n"
        "logging.getLogger('gunicorn.error').warning('Invalid request: %s', key)\n"
        "try:\n    raise ValueError(f'bad: {key}')\n"
        "except ValueError:\n    logging.getLogger('logweir').exception('failed with %r', [key])\n"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60).stderr


def test_no_log_line_nor_trace_has_a_key() -> None:
    """Whoever logs it: libraries quote what they were sent."""
    text = logged("text")

    assert "kkk" not in text
    assert "Invalid request: lw_***" in text
    assert "ValueError: bad: lw_***" in text and "failed with ['lw_***']" in text


def test_log_lines_as_json_are_an_object_each_and_have_no_key_either() -> None:
    """A trace, of many lines, is one field of one line."""
    text = logged("json")
    lines = [json.loads(line) for line in text.splitlines()]

    assert "kkk" not in text
    assert [(line["level"], line["process"], line["logger"]) for line in lines] == [
        ("WARNING", "test", "gunicorn.error"),
        ("ERROR", "test", "logweir"),
    ]
    assert lines[0]["message"] == "Invalid request: lw_***"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", lines[0]["time"])
    assert lines[1]["message"] == "failed with ['lw_***']"
    assert lines[1]["trace"].splitlines()[-1] == "ValueError: bad: lw_***"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("it's C:\\x", "'it's C:\\x'"),
        ("a\x1bb", r"'a\x1bb'"),
        (Path("/a/b"), "'/a/b'"),
        (("a", "b"), "'a, b'"),
        (True, "'true'"),
        (5, "5"),
    ],
)
def test_values_are_quoted_as_their_user_writes_them(value: object, shown: str) -> None:
    """Without escapes, types and brackets of Python's."""
    assert f"{in_words(value)!r}" == shown


def test_what_the_system_says_is_said_without_its_numbers() -> None:
    """As a part of a sentence."""
    assert in_words(PermissionError(13, "Permission denied", "/x")) == "permission denied"
    with pytest.raises(UnicodeDecodeError) as caught:
        b"caf\xe9".decode()
    assert in_words(caught.value) == "byte 3 is not UTF-8"


def test_json_that_is_safe_for_a_terminal_is_the_same_json() -> None:
    """Whatever a value or a name holds."""
    document = {"a\x9b": '\x1b[31m \x7f \x85 \u202e \u2066 \u2028 日本 é "\\'}
    text = safe_json(orjson.dumps(document).decode())

    assert text.isprintable()
    assert json.loads(text) == document


def test_one_is_singular() -> None:
    """And none and many are not."""
    assert [counted(number, "event") for number in (0, 1, 2)] == ["0 events", "1 event", "2 events"]
    assert counted(1200, "batch", plural="batches", separator=",") == "1,200 batches"
