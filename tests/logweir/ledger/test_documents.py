"""Ids and versions of ledger documents: made, taken apart and checked in one file."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from logweir.errors import LEDGER_VERSION_UNKNOWN, LogweirError
from logweir.ledger.documents import (
    EMITTER,
    KINDS,
    WINDOW,
    BlockId,
    EmitterId,
    PartitionId,
    WindowId,
    read_documents,
)
from logweir.store.port import LedgerDocument, Store

ROOT = Path(__file__).parents[3]
FOLDERS = ("logweir", "ingest", "workers", "console", "bench")
DOCUMENTS = ROOT / "logweir/ledger/documents.py"
EPOCH = "07" * 16
PLACE = WindowId("topic-1", 3, EPOCH, 29_000_000)


def files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != DOCUMENTS]
    assert len(found) > 100
    return found


def test_nobody_else_makes_an_id() -> None:
    """No text in the code begins as an id does."""
    begin = re.compile(rf"({'|'.join(kind.name for kind in KINDS)}):\S*$")
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
        for path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and begin.match(node.value)
    ]

    assert found == []


def test_nobody_else_reads_without_looking_at_the_version() -> None:
    """Beside the stores themselves, nobody asks a store for ledger documents but through their kinds."""
    asked = re.compile(r"\bledger\.(read|scan|claim)\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if asked.search(line)
    ]

    assert found == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_id_has_its_place(kind: Any) -> None:
    """Also of places with digits for a topic id, or with numbers of many digits."""
    fields = [2**40 + at if type is int else f"0{at}" for at, type in enumerate(kind.types)]
    place = kind.place(*fields)
    id = kind.id("a.group-1", place)

    assert kind.place_of(id) == place
    assert id == ":".join(map(str, (kind.name, "a.group-1", *fields)))


def test_documents_are_found_by_the_beginning_of_their_place(store: Store) -> None:
    """In the order of their ids; none of a neighbour whose number begins alike, of another group, or kind."""
    places = [PLACE, PLACE._replace(window=29_000_001), PLACE._replace(partition=31), PLACE._replace(topic_id="t")]
    store.ledger.write([WINDOW.document("g", place, 1, {"n": at}, owner="me") for at, place in enumerate(places)])
    store.ledger.write([WINDOW.document("g2", PLACE, 1, {}, owner="me")])
    emitter = EmitterId("ab", "topic-1", 3)
    store.ledger.write([EMITTER.document("g", emitter, 4, {}, owner="me")])

    assert [place for place, _ in WINDOW.scan(store.ledger, "g", "topic-1", 3)] == places[:2]
    assert {place for place, _ in WINDOW.scan(store.ledger, "g")} == set(places)
    body = {"kind": "window", "v": 1, "owner": "me", "partition": 3, "n": 0}
    assert WINDOW.read(store.ledger, "g", [PLACE, PLACE._replace(window=1)]) == {
        PLACE: LedgerDocument(WINDOW.id("g", PLACE), 1, body)
    }
    assert EMITTER.claim(store.ledger, "g", emitter, "other").generation == 5
    assert emitter.partition_id == PartitionId("topic-1", 3)
    assert BlockId(5, "t", 3, EPOCH, 0).window_id == WindowId("t", 3, EPOCH, 5)


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_a_version_that_this_program_does_not_know_is_an_error(store: Store, version: Any) -> None:
    """Whoever reads, scans or claims it; without a version it is the first."""
    id = WINDOW.id("g", PLACE)
    store.ledger.write([LedgerDocument(id, 1, {"owner": "newer", "v": version})])
    for ask in (
        lambda: WINDOW.read(store.ledger, "g", [PLACE]),
        lambda: list(WINDOW.scan(store.ledger, "g")),
        lambda: WINDOW.claim(store.ledger, "g", PLACE, "me"),
        lambda: read_documents(store.ledger, [id]),
    ):
        with pytest.raises(LogweirError) as caught:
            ask()
        assert caught.value.problem is LEDGER_VERSION_UNKNOWN
        assert str(caught.value) == (
            f"The ledger document {id} has version {version}; this program reads versions up to 1."
            " A newer version of logweir has written it: install that one here, too."
        )
    store.ledger.write([LedgerDocument(id, 9, {"n": 1})])

    assert WINDOW.read(store.ledger, "g", [PLACE])[PLACE].body == {"n": 1}
