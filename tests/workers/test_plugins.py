"""Parsers and enrichments of the operator's own: loaded from a folder, asked first, and never able to harm an event."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from logweir.config import WorkerSettings
from logweir.errors import PLUGIN_BAD, LogweirError
from logweir.event import Document, Provenance
from logweir.outcomes import DeadLetterReason
from logweir_workers import enrich
from logweir_workers.document import Documents, EventUnfit, Filtered
from logweir_workers.filters import Filters
from logweir_workers.normalise.fields import Context

ROOT = Path(__file__).parents[2]
HOW_TO = (ROOT / "docs" / "how-to" / "parse-your-own.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", HOW_TO, re.DOTALL)
CONTEXT = Context(1_767_614_400_000_000, "web")
PARSER = """
from logweir_workers.parsers import line_parser

@line_parser(processes=("badged",), adds=("action",), examples=(("opened", {"action": "open"}), ("x", {})))
def badged(line):
    if line == "opened":
        return {"action": "open", "sourceport": "22", "src_ip": "::ffff:192.0.2.7"}
    if line == "odd":
        return {"x": object()}
    if line == "nan":
        return {"x": float("nan"), "n" * 500: 1}
    if line == "raise":
        raise ValueError("no")

@line_parser(processes=("sshd",), adds=("action",), examples=())
def first(line):
    return {"action": "mine"} if line.startswith("Invalid user root") else None
"""
ENRICHMENT = """
from logweir_workers.enrich import enrichment

@enrichment(adds=("tags",), examples=())
def odd(event, context):
    summary = event.get("summary")
    if summary == "field":
        event["colour"] = "red"
    if summary == "type":
        event["tags"] = "vault"
    if summary == "value":
        event["details"] = {"x": object()}
    if summary == "fine":
        event["tags"] = ["vault"]
        event["details"] = {"client_ip": "192.0.2.7"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "enrich"
    folder.mkdir(mode=0o755)
    return folder


def made(folder: Path, raw: bytes) -> dict[str, Any]:
    documents = Documents(enrich.load(WorkerSettings(enrich_dir=folder)), Filters())
    document: Document | Filtered = documents.make(
        raw, CONTEXT, id="x", day="20260105", provenance=Provenance("s", 1, "h")
    )
    assert isinstance(document, Document)
    return document.source


def test_own_parser_is_asked_and_its_details_take_their_names_and_types(folder: Path) -> None:
    """Ten lines of Python in a file are enough."""
    (folder / "badged.py").write_text(PARSER)

    source = made(folder, b'{"processname": "badged", "message": "opened"}')

    details = source["details"]
    assert (details["action"], details["sourceport"], details["sourceipaddress"]) == ("open", 22, "192.0.2.7")


def test_own_parser_comes_before_the_built_in_one(folder: Path) -> None:
    """What it does not understand, the built-in one still reads."""
    (folder / "badged.py").write_text(PARSER)

    mine = made(folder, b'{"processname": "sshd", "message": "Invalid user root from 192.0.2.7"}')
    theirs = made(folder, b'{"processname": "sshd", "message": "Invalid user a from 192.0.2.7"}')

    assert mine["details"] == {"action": "mine"}
    assert theirs["details"]["action"] == "invalid_user"


@pytest.mark.parametrize("summary", ["odd", "raise"])
def test_own_parser_that_fails_makes_a_dead_letter(folder: Path, summary: str) -> None:
    """It raises, or gives what no store takes: the event is kept with the reason."""
    (folder / "badged.py").write_text(PARSER)

    with pytest.raises(EventUnfit) as caught:
        made(folder, f'{{"processname": "badged", "message": "{summary}"}}'.encode())

    assert caught.value.reason is DeadLetterReason.EVENT_UNFIT


def test_odd_names_and_numbers_of_an_own_parser_are_mended(folder: Path) -> None:
    """As those of a sender would be."""
    (folder / "badged.py").write_text(PARSER)

    details = made(folder, b'{"processname": "badged", "message": "nan"}')["details"]

    assert all(len(name) <= 200 for name in details)


def test_own_enrichment_runs_last_and_its_details_take_their_names(folder: Path) -> None:
    """It sees what all others have added."""
    (folder / "odd.py").write_text(ENRICHMENT)

    source = made(folder, b'{"message": "fine"}')

    assert source["tags"] == ["vault"]
    assert source["details"] == {"sourceipaddress": "192.0.2.7"}


@pytest.mark.parametrize("summary", ["field", "type", "value"])
def test_own_enrichment_that_leaves_an_odd_event_makes_a_dead_letter(folder: Path, summary: str) -> None:
    """A field that is none, a value of another type, a value that is not JSON."""
    (folder / "odd.py").write_text(ENRICHMENT)

    with pytest.raises(EventUnfit) as caught:
        made(folder, f'{{"message": "{summary}"}}'.encode())

    assert caught.value.reason is DeadLetterReason.EVENT_UNFIT


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def (", "SyntaxError"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = 1", "neither a parser nor an enrichment"),
    ],
)
def test_file_that_cannot_be_used_is_named_at_the_start(folder: Path, code: str, reason: str) -> None:
    """A worker does not start with half of the operator's rules."""
    (folder / "bad.py").write_text(code)

    with pytest.raises(LogweirError, match=reason) as caught:
        enrich.load(WorkerSettings(enrich_dir=folder))

    assert caught.value.problem is PLUGIN_BAD
    assert str(folder / "bad.py") in str(caught.value)


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path, and what is wrong with it."""
    with pytest.raises(LogweirError, match="No such file") as caught:
        enrich.load(WorkerSettings(enrich_dir=tmp_path / "none"))

    assert caught.value.problem is PLUGIN_BAD


@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_everybody_may_write_is_not_run(folder: Path, which: str) -> None:
    """Else any user of the machine could run code as the worker."""
    file = folder / "badged.py"
    file.write_text(PARSER)
    (folder if which == "folder" else file).chmod(0o777)

    with pytest.raises(LogweirError, match="chmod o-w"):
        enrich.load(WorkerSettings(enrich_dir=folder))


def test_files_may_share_what_is_in_one_that_is_not_read(folder: Path) -> None:
    """A name that begins with "_" is for the others."""
    (folder / "_own_words.py").write_text("WORD = 'opened'")
    (folder / "badged.py").write_text("import _own_words\n" + PARSER.replace('"opened":', "_own_words.WORD:"))

    assert made(folder, b'{"processname": "badged", "message": "opened"}')["details"]["action"] == "open"


def test_code_of_the_how_to_works(folder: Path) -> None:
    """What people copy loads, and its examples hold."""
    from logweir.config import Settings
    from logweir_workers.commands import parse

    for number, code in enumerate(CODE):
        (folder / f"own{number}.py").write_text(code)
    settings = WorkerSettings(enrich_dir=folder)

    assert [each.name for each in enrich.own_parsers(settings)] == ["badged", "badge_object"]
    assert [each.name for each in enrich.own_enrichments(settings)] == ["vault"]
    assert parse._test(settings) == 0
    assert Settings(worker=settings).worker.enrich_dir == folder
