"""`logweir parse`: what becomes of lines, and whether all examples hold."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest

from logweir import cli

AUTH_LOG = """\
Jan 31 12:00:00 web1 sshd[77]: Failed password for root from 192.0.2.7 port 4242 ssh2
2026-01-31T12:00:01.5+01:00 web1 CRON[78]: pam_unix(cron:session): session closed for user root
<38>Jan  1 12:00:02 web1 app: hello

{"processname": "sudo", "message": "alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/ls"}
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "auth.log"
    path.write_text(AUTH_LOG)
    return path


def test_lines_are_shown_with_their_parser_and_what_it_adds(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines with a syslog head are taken apart, objects are events; the last line counts."""
    assert cli.main(["parse", str(log)]) == 0
    out, err = capsys.readouterr()

    assert "1: sshd, " in out
    assert "    details.sourceipaddress = 192.0.2.7\n" in out
    assert "2: pam, " in out
    assert "3: no parser, " in out
    assert "5: sudo, " in out
    assert "    details.command = /bin/ls\n" in out
    assert "    category = authentication\n" in out
    assert err.startswith("4 lines, 3 understood (sshd 1, pam 1, sudo 1); ")


def test_json_has_the_event_as_it_would_be_stored(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, for programs."""
    assert cli.main(["parse", str(log), "--json", "--key", "bastion"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [(one["line"], one["parsers"], one["error"]) for one in shown] == [
        (1, ["sshd"], None),
        (2, ["pam"], None),
        (3, [], None),
        (5, ["sudo"], None),
    ]
    assert shown[0]["added"]["details.sourceport"] == 4242
    assert shown[0]["event"]["hostname"] == "web1" and shown[0]["event"]["key"] == "bastion"
    assert shown[1]["event"]["timestamp"] == "2026-01-31T11:00:01.500000+00:00"
    assert shown[0]["took_us"] > 0


def test_heads_of_rfc_5424_are_taken_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With and without structured data and a process's number."""
    log = tmp_path / "log"
    log.write_text(
        "<38>1 2026-01-31T12:00:00Z web1 sshd 77 - - \ufeffInvalid user a from 192.0.2.7\n"
        '<38>1 2026-01-31T12:00:00Z web1 sshd - ID7 [a@1 b="x"][c@1 d="\\]"] Invalid user b from 192.0.2.7\n'
        "<38>1 2026-01-31T12:00:00Z web1 app - - -\n"
    )

    assert cli.main(["parse", str(log), "--json"]) == 0
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]

    assert [(event.get("processid"), event.get("details", {}).get("username")) for event in events] == [
        ("77", "a"),
        (None, "b"),
        (None, None),
    ]
    assert {event["hostname"] for event in events} == {"web1"}


def test_a_line_with_its_pri_becomes_what_it_becomes_when_it_is_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the severity of its PRI; the process that --process names is for lines that name none."""
    stream = io.TextIOWrapper(io.BytesIO(b"<35>Jan  1 12:00:02 web1 sshd[7]: Invalid user a from 192.0.2.7\n"))
    monkeypatch.setattr(sys, "stdin", stream)

    assert cli.main(["parse", "-", "--process", "cron", "--category", "login", "--json"]) == 0
    out, err = capsys.readouterr()
    event = json.loads(out)["event"]
    assert (event["processname"], event["severity"], event["category"]) == ("sshd", "ERROR", "login")
    assert event["details"]["original"].startswith("<35>Jan")
    assert err.startswith("1 line, 1 understood (sshd 1); ")


def test_lines_without_a_head_get_process_and_category(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a file of bare messages, from standard input, with bytes that are no UTF-8."""
    stream = io.TextIOWrapper(io.BytesIO(b"Invalid user \xff from 192.0.2.7\n"))
    monkeypatch.setattr(sys, "stdin", stream)

    assert cli.main(["parse", "-", "--process", "sshd", "--category", "login"]) == 0
    out, _ = capsys.readouterr()

    assert "1: sshd, " in out
    assert "details.username = \ufffd" in out


def test_own_parser_that_raises_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what would become of the event."""
    folder = tmp_path / "enrich"
    folder.mkdir(mode=0o755)
    (folder / "broken.py").write_text(
        "from logweir_workers.parsers import line_parser\n"
        "@line_parser(begins=('x',), adds=(), examples=(('x', {'a': 1}), ('xy', {})))\n"
        "def broken(line): raise ValueError(line)\n"
    )
    monkeypatch.setenv("LOGWEIR_WORKER_ENRICH_DIR", str(folder))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x\n")))

    assert cli.main(["parse", "-"]) == 0
    out, err = capsys.readouterr()
    assert "ValueError: x: the event would be a dead letter" in out
    assert "1 would be a dead letter" in err

    assert cli.main(["parse", "--test"]) == 1
    out, _ = capsys.readouterr()
    assert "broken: x\n    raised ValueError('x')" in out
    assert "2 failed" in out


def test_all_built_in_examples_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """`--test` is what an operator runs after an upgrade."""
    assert cli.main(["parse", "--test"]) == 0

    assert ", 0 failed" in capsys.readouterr().out


def test_enrichments_whose_package_is_not_installed_are_not_tried(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `make run`, which installs none of the extras."""
    find = importlib.util.find_spec
    missing = ("ua_parser_rs", "iptocc")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    status = cli.main(["parse", "--test"])
    printed = capsys.readouterr().out

    assert status == 0, printed
    assert "useragent: not tried" in printed
    assert "country: not tried" in printed


def test_wrong_example_is_shown_with_what_came_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a parser and of an enrichment."""
    folder = tmp_path / "enrich"
    folder.mkdir(mode=0o755)
    (folder / "wrong.py").write_text(
        "from logweir_workers.parsers import line_parser\n"
        "from logweir_workers.enrich import enrichment\n"
        "@line_parser(begins=('x',), adds=('a',), examples=(('x', {'a': 2}),))\n"
        "def wrong(line): return {'a': 1}\n"
        "@enrichment(adds=('type',), examples=(({}, {'type': 'b'}),))\n"
        "def also(event, context): event['type'] = 'a'\n"
    )
    monkeypatch.setenv("LOGWEIR_WORKER_ENRICH_DIR", str(folder))

    assert cli.main(["parse", "--test"]) == 1
    out = capsys.readouterr().out

    assert 'wrong: x\n    wanted {"a":2}\n    got    {"a":1}' in out
    assert 'also: {}\n    wanted {"type":"b"}\n    got    {"type":"a"}' in out


def test_file_that_is_not_there_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user's mistake ends with 2."""
    assert cli.main(["parse", str(tmp_path / "none")]) == 2

    assert "none cannot be read: No such file" in capsys.readouterr().err
