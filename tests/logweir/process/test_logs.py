"""Every line that a process of ours says is a log line, whoever says it and however the process ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KEY = "lw_" + "k" * 43
_BEGIN = """
import logging, threading, warnings
from logweir import errors
from logweir.config import LogSettings
from logweir.errors import LogweirError
from logweir.process.logs import configure_logging
configure_logging("test", LogSettings(format="{format}"))
log = logging.getLogger("logweir.test")
key = "lw_" + "k" * 43
"""
# Where nobody catches them: in a thread, in a destructor, at the top.
UNCAUGHT = """
def fail():
    raise RuntimeError(f"first\\nsecond {key}")
class Doomed:
    def __del__(self):
        raise RuntimeError(f"destroyed {key}")
thread = threading.Thread(target=fail, name="ticker")
thread.start()
thread.join()
Doomed()
warnings.warn(f"old {key}")
fail()
"""


def logged(program: str, format: str) -> str:
    """What such a program writes to standard error."""
    words = [sys.executable, "-c", _BEGIN.replace("{format}", format) + program]
    return subprocess.run(words, capture_output=True, text=True, timeout=60).stderr


def objects(program: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged(program, "json").splitlines()]


def test_an_exception_that_nobody_catches_is_one_object_without_keys() -> None:
    """Of a thread, of a destructor and of the program itself, and so is a warning; the trace is a field."""
    lines = objects(UNCAUGHT)

    assert KEY not in str(lines)
    assert [(line["level"], line["message"].partition(",")[0]) for line in lines] == [
        ("CRITICAL", "The thread ticker has ended"),
        ("ERROR", "An error that nobody expected"),
        ("WARNING", "<string>:20: UserWarning: old lw_***\n"),
        ("CRITICAL", "The process ends"),
    ]
    assert [line["trace"].splitlines()[-1] for line in lines if "trace" in line] == [
        "second lw_***",
        "RuntimeError: destroyed lw_***",
        "second lw_***",
    ]


def test_as_text_every_line_is_one_thing_or_belongs_to_a_trace() -> None:
    """Whatever a message quotes cannot look like another line; the lines of a trace are behind four spaces."""
    text = logged(r"log.warning('one\ntwo\r%s', '\x1b[2Jthree')" + UNCAUGHT, "text")
    things = [line for line in text.splitlines() if not line.startswith("    ")]

    assert KEY not in text and "\x1b" not in text
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [A-Z]+ test: ", line) for line in things)
    assert len(things) == 5
    assert things[0].endswith(r"WARNING test: one\ntwo\r\x1b[2Jthree")
    assert "    RuntimeError: first\n    second lw_***\n" in text


def test_no_format_has_a_terminal_do_anything() -> None:
    """Not by DEL, by C1, or by what turns the direction of text."""
    for format in ("text", "json"):
        text = logged(r"log.warning('%s', '\x7f\x9b31m\u202e\u2066\u200f')", format)

        assert text.rstrip("\n").isprintable()


def test_a_line_as_json_has_what_it_is_about_as_fields() -> None:
    """The numbers of the problem that it speaks of, and what its caller gave beside; none takes the place of a field
    that every line has."""
    lines = objects(
        """
log.error("%s Again.", LogweirError(errors.OFFSETS_EXPIRED, topic="t", partition=3, offset=5, offset_earliest=9,
          offset_latest=2**60, time="x"))
log.warning("A request failed, reference %s", "abc", extra={"reference": "abc", "url": "\\ud800" + key})
"""
    )

    assert [lines[0][name] for name in ("problem", "partition", "offset")] == ["offsets_expired", 3, 5]
    assert lines[0]["offset_latest"] == str(2**60)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", lines[0]["time"])
    assert lines[1].pop("time")
    assert lines[1] == {
        "level": "WARNING",
        "process": "test",
        "logger": "logweir.test",
        "message": "A request failed, reference abc",
        "reference": "abc",
        "url": "?lw_***",
    }


@pytest.mark.parametrize("format", ["json", "text"])
def test_the_last_error_of_a_process_is_a_log_line(format: str, tmp_path: Path) -> None:
    """`logweir exporter` that cannot listen says so as it says everything else, and ends with status 2."""
    words = ["exporter", "--data-dir", str(tmp_path), "--address", "192.0.2.1"]
    (tmp_path / "logweir.toml").write_text(f'[log]\nformat = "{format}"\n')
    words += ["--config", str(tmp_path / "logweir.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "logweir.cli", *words], capture_output=True, text=True, timeout=60, check=False
    )
    (line,) = done.stderr.splitlines()

    assert done.returncode == 2
    if format == "json":
        said = json.loads(line)
        assert (said["level"], said["process"], said["problem"]) == ("CRITICAL", "exporter", "port_taken")
    else:
        assert "Z CRITICAL exporter: The exporter cannot listen on 192.0.2.1:8090: " in line
