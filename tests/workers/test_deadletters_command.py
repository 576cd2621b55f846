"""Dead letters as an operator meets them: in `logweir doctor`, and whole in `logweir deadletters`."""

from __future__ import annotations

import base64
import json
from contextlib import closing
from pathlib import Path

import pytest

from logweir import cli
from logweir.config import StoreSettings
from logweir.store import DeadLetter, open_store
from tests.contract.stores import NOON_US

TEXT = b'{"a":"say "hi""}\x1b[2J\nnext'
BYTES = b"\xff\x00not UTF-8"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A data folder with two refused bodies, the newest of which is no UTF-8, and one older event."""
    place = {"partition": 3, "offset": 7, "key": "web", "source_address": "192.0.2.7"}
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        store.put_dead_letters([
            DeadLetter(f"l{at}", NOON_US + at * 1_000_000, reason, {**place, "reason": reason, "stage": stage,
                       "error": f"[bold]fault {at}"}, raw)
            for at, (reason, stage, raw) in enumerate([
                ("event_unfit", "normalise", b"{}"),
                ("body_refused", "ingest", TEXT),
                ("body_refused", "ingest", BYTES),
            ])
        ])  # fmt: skip
    return tmp_path


def test_the_list_is_newest_first_and_safe_for_a_terminal(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Time, reason, stage, error, key, address and place of each, and its bytes escaped on one line."""
    assert cli.main(["deadletters", "list", "--data-dir", str(kept)]) == 0

    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "2026-01-31T12:00:02Z  body_refused  ingest  [bold]fault 2",
        "    id l2, key web, from 192.0.2.7, partition 3, offset 7",
        "    \\xff\\x00not UTF-8",
        "2026-01-31T12:00:01Z  body_refused  ingest  [bold]fault 1",
        "    id l1, key web, from 192.0.2.7, partition 3, offset 7",
        '    {"a":"say "hi""}\\x1b[2J\\nnext',
        "2026-01-31T12:00:00Z  event_unfit  normalise  [bold]fault 0",
        "    id l0, key web, from 192.0.2.7, partition 3, offset 7",
        "    {}",
    ]
    assert captured.err == ""


def test_json_gives_the_bytes_back_whole(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As base64 always, and as text only where they are text."""
    assert cli.main(["deadletters", "list", "--json", "--reason", "body_refused", "--data-dir", str(kept)]) == 0

    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [base64.b64decode(row["raw"]) for row in rows] == [BYTES, TEXT]
    assert [row.get("text") for row in rows] == [None, TEXT.decode()]
    assert rows[0]["offset"] == 7


def test_what_is_left_out_is_counted(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--size bounds the list, by reason too, and says so."""
    assert cli.main(["deadletters", "list", "--size", "1", "--reason", "body_refused", "--data-dir", str(kept)]) == 0

    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert "The newest 1 of 2 are shown" in captured.err


def test_doctor_warns_of_dead_letters_and_names_the_newest(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts by reason, and the newest one's reason and error; without any it says so."""
    rows = []
    for folder in (kept, kept / "other"):
        cli.main(["doctor", "--json", "--data-dir", str(folder)])
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        rows.append(next(row for row in found if row["what"] == "dead letters"))
    cli.main(["doctor", "--data-dir", str(kept)])
    table = capsys.readouterr().out

    assert rows[0]["state"] == "warning"
    assert "2 body_refused, 1 event_unfit" in rows[0]["found"]
    assert "body_refused, [bold]fault 2" in rows[0]["found"]
    assert (rows[1]["state"], rows[1]["found"]) == ("ok", "none")
    assert "[bold]" in table
