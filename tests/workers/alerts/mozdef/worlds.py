"""Stored events as a worker makes them of what is posted, and alert scripts that are asked about them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from logweir import cli
from logweir.alerts.rules import Rule
from logweir.config import Settings
from logweir.event import Document, Provenance, day_of
from logweir.store.port import Store
from logweir_workers import enrich
from logweir_workers.alerts.mozdef.folder import MozdefFolder
from logweir_workers.document import Documents
from logweir_workers.filters import Filters
from logweir_workers.normalise.fields import Context
from tests.contract.stores import NOON_US

ALERTS = Path(__file__).parent / "alerts"
"""The folder of scripts."""
AT = "2026-01-31T12:00:00Z"
SECOND_US = 1_000_000


class Posted:
    """Puts events into a store as if they had been posted some seconds from noon."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._documents = Documents(enrich.load(settings.worker), Filters())
        self._numbers = itertools.count(1)

    def __call__(self, *events: Mapping[str, Any], at: float = -10.0) -> list[Document]:
        made = [self._document(one, NOON_US + int(at * SECOND_US)) for one in events]
        self._store.index(made)
        self._store.refresh()
        return made

    def _document(self, event: Mapping[str, Any], received_us: int) -> Document:
        number = next(self._numbers)
        made = self._documents.make(
            orjson.dumps(event),
            Context(received_us=received_us, key="test"),
            id=f"id{number}",
            day=day_of(received_us),
            provenance=Provenance("ab" * 16 + "-0", number, f"{number:016x}"),
        )
        assert isinstance(made, Document)
        return made


def run(
    settings: Settings, capsys: pytest.CaptureFixture[str], rule: str, *more: str, at: str = AT
) -> list[dict[str, Any]]:
    """The alerts of a dry run."""
    status = cli.main(["rules", "run", rule, "--at", at, "--dry-run", *more, "--data-dir", str(settings.data_dir)])
    said = capsys.readouterr()
    assert status == 0, said.err
    found: list[dict[str, Any]] = json.loads(said.out)["alerts"]
    return found


def run_badly(settings: Settings, capsys: pytest.CaptureFixture[str], rule: str) -> str:
    """What a run that fails says."""
    status = cli.main(["rules", "run", rule, "--at", AT, "--dry-run", "--data-dir", str(settings.data_dir)])
    said = capsys.readouterr()
    assert status != 0, said.out
    return said.err


def rules_of(folder: Path) -> dict[str, Rule]:
    """A folder's rules, where nothing is wrong with it."""
    made = MozdefFolder(folder)
    made.reload()
    assert [str(problem) for problem in made.problems] == []
    return {rule.name: rule for rule in made.rules}
