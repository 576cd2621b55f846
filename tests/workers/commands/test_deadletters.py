"""Dead letters as an operator meets them: in `logweir doctor`, and with `logweir deadletters`."""

from __future__ import annotations

import base64
import io
import json
from contextlib import closing
from pathlib import Path

import pytest

from logweir import cli
from logweir.config import StoreSettings
from logweir.store import open_store
from logweir.store.port import DeadLetter, LetterFilter
from tests.contract.stores import NOON_US

TEXT = b'{"a":"say "hi""}\x1b[2J\nnext'
BYTES = b"\xff\x00not UTF-8"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A data folder with two refused bodies, the newest of which is no UTF-8, and one older event."""
    place = {"partition": 3, "offset": 7, "key": "web", "source_address": "192.0.2.7"}
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        store.dead_letters.put(
            [
                DeadLetter(
                    f"l{at}",
                    NOON_US + at * 1_000_000,
                    reason,
                    {**place, "reason": reason, "stage": stage, "error": f"[bold]fault {at}"},
                    raw,
                )
                for at, (reason, stage, raw) in enumerate(
                    [
                        ("event_unfit", "normalise", b"{}"),
                        ("body_refused", "ingest", TEXT),
                        ("body_refused", "ingest", BYTES),
                    ]
                )
            ]
        )
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
    assert "The newest 1 of 2 is shown" in captured.err


def test_doctor_warns_of_dead_letters_and_names_the_newest(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts by reason, and the newest one's reason and error; without any it says so."""
    rows = []
    with closing(open_store(StoreSettings(url=f"sqlite:///{kept}/other/store"))) as empty:
        empty.prepare()
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


# --- show, export, drop, retry ------------------------------------------------------------------------------------
def left_in(folder: Path) -> list[str]:
    with closing(open_store(StoreSettings(url=f"sqlite:///{folder}/store"))) as store:
        return [letter.id for letter in store.dead_letters.page(size=100)]


def run(kept: Path, *words: str) -> int:
    return cli.main(["deadletters", *words, "--data-dir", str(kept)])


def test_counts_are_by_reason(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In words for people, the most frequent first, and as JSON; of those that the filters choose."""
    run(kept, "list", "--count")
    table = capfd.readouterr().out.splitlines()
    run(kept, "list", "--count", "--json", "--reason", "event_unfit", "--key", "web")

    assert [line.split()[0] for line in table] == ["2", "1"]
    assert "body_refused       An authenticated body that the door could not read" in table[0]
    assert json.loads(capfd.readouterr().out) == {"event_unfit": {"letters": 1, "size_bytes": 2}}


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["--refused"], ["l2", "l1"]),
        (["--refused", "--until", "2026-01-31T12:00:02Z"], ["l1"]),
        (["--since", "2026-01-31T12:00:01Z"], ["l2", "l1"]),
        (["--stage", "normalise"], ["l0"]),
        (["--key", "app"], []),
        (["--emitter", "w1"], []),
        (["--id", "l0", "--id", "l2"], ["l2", "l0"]),
        (["--size", "0"], ["l2", "l1", "l0"]),
    ],
)
def test_filters_choose_which(kept: Path, capfd: pytest.CaptureFixture[str], words: list[str], ids: list[str]) -> None:
    """Each by itself; times are those of receipt."""
    assert run(kept, "list", "--json", *words) == 0
    assert [json.loads(line)["id"] for line in capfd.readouterr().out.splitlines()] == ids


def test_one_is_shown_with_all_that_is_known_of_it(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Safe for a terminal, or its bytes as they were; one that is not there is an error that says so."""
    shown = run(kept, "show", "l1")
    page = capfd.readouterr().out
    run(kept, "show", "l1", "--raw")
    raw = capfd.readouterr().out
    run(kept, "show", "l1", "--json")
    document = json.loads(capfd.readouterr().out)
    absent = run(kept, "show", "l9")

    assert (shown, absent) == (0, 2)
    assert "reason          body_refused" in page
    assert "source_address  192.0.2.7" in page
    assert '    {"a":"say "hi""}\\x1b[2J\n    next' in page
    assert raw == TEXT.decode()
    assert document["text"] == TEXT.decode()
    assert "There is no dead letter or refused body 'l9'" in capfd.readouterr().err


def test_export_gives_events_that_a_door_takes(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An event as it was sent, on one line; text and bytes that are none, inside of one. Nothing is removed."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{kept}/store"))) as store:
        body = {"reason": "store_refused", "error": "too long"}
        store.dead_letters.put([DeadLetter("l3", NOON_US, "store_refused", body, b'{"a":\n "b\\n"}\r\n')])
    run(kept, "export")
    events = capfd.readouterr()
    run(kept, "export", "--refused")
    refused = [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    assert events.out == '{"a":  "b\\n"}\n{}\n'
    assert "2 exported; they are still kept." in events.err
    assert [one.get("summary") for one in refused] == [None, TEXT.decode()]
    assert base64.b64decode(refused[0]["details"]["dead_letter"]["raw"]) == BYTES
    assert refused[0]["tags"] == ["dead_letter"]
    assert left_in(kept) == ["l2", "l1", "l3", "l0"]


def test_drop_asks_and_takes_only_what_was_meant(
    kept: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused bodies only when they are asked for; without a yes, nothing."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\ny\n"))
    refused = run(kept, "drop")
    after_no = left_in(kept)
    agreed = run(kept, "drop")
    after_yes = left_in(kept)
    run(kept, "drop", "--refused", "--yes", "--json", "--until", "2026-01-31T12:00:02Z")
    said = capfd.readouterr()

    assert (refused, agreed) == (1, 0)
    assert "Drop 1 for good (1 event_unfit)? [y/N]" in said.err
    assert after_no == ["l2", "l1", "l0"]
    assert after_yes == ["l2", "l1"]
    assert said.out.splitlines() == ["1 dropped.", '{"body_refused":1}']
    assert left_in(kept) == ["l2"]


def test_retry_says_what_became_of_them(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Status 1 while some are left, with the reason in words; refused bodies are none of its business."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{kept}/store"))) as store:
        body = {"reason": "event_unfit", "error": "x", "topic_id": "t", "partition": 0, "offset": 5}
        store.dead_letters.delete(LetterFilter(ids=("l0",)))
        store.dead_letters.put([DeadLetter("l4", NOON_US, "event_unfit", body, b"{}")])
    words = run(kept, "retry")
    said = capfd.readouterr().out
    as_json = run(kept, "retry", "--json")
    counts = json.loads(capfd.readouterr().out)
    nothing = run(kept, "retry", "--key", "nobody")

    assert (words, as_json, nothing) == (1, 1, 0)
    assert "1  not accounted for by a worker yet" in said
    assert (counts["unsettled"], counts["indexed"], counts["left"]) == (1, 0, 1)
    assert "There is nothing to try again." in capfd.readouterr().out
    assert left_in(kept) == ["l2", "l1", "l4"]
