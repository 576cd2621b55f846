"""Filters: rules that leave events out on purpose. Such an event has the outcome "filtered", with the rule's name.

A rule asks a query of the event as it would be stored, in the search language. The first rule that matches decides,
and may keep a share: which events, their identity says, so that a replay keeps and leaves out the same ones.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logweir.errors import FILTERS_BAD, LogweirError
from logweir.event import Document
from logweir.metrics import registry
from logweir.process.files import fingerprint_of
from logweir.query.match import Matches, matcher
from logweir.query.parse import parse
from logweir.query.tree import All
from logweir.text import counted

log = logging.getLogger(__name__)

RULES_MAX = 100
"""Most rules in one file: every event is held against them one by one, and each is a time series of its own."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_KNOWN = ("name", "query", "keep")
_SHARES = 2**64


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``keep``: the share of the events of ``query`` that are stored all the same, 0 to 1."""

    name: str
    query: str
    keep: float
    matches: Matches

    def keeps(self, id: str) -> bool:
        """Whether the event of this identity is in the share that is kept."""
        if not 0 < self.keep < 1:
            return self.keep > 0
        drawn = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big")
        return drawn < self.keep * _SHARES


class Filters:
    """The rules in force: those of a file, as it is now or as it was when it could last be read."""

    def __init__(self, rules: Sequence[Rule] = (), path: Path | None = None, version: object = None) -> None:
        self.rules = tuple(rules)
        self._path = path
        self._version = version

    @classmethod
    def of_file(cls, path: Path | None) -> Filters:
        """The rules in the file; without one, no rules. Raises LogweirError(FILTERS_BAD) that names the rule."""
        if path is None:
            return cls()
        # Looked at first: a change in between is read again, rather than missed.
        version = fingerprint_of(path)
        return cls(_rules_in(path), path, version)

    def rule_for(self, document: Document) -> str | None:
        """The name of the rule that leaves the event out, None when it is to be stored."""
        for rule in self.rules:
            if rule.matches(document):
                return None if rule.keeps(document.id) else rule.name
        return None

    def reload(self) -> None:
        """Read the file again if it has changed. While it cannot be understood, the rules stay as they are."""
        if self._path is None or (version := fingerprint_of(self._path)) == self._version:
            return
        self._version = version
        try:
            self.rules = _rules_in(self._path)
        except LogweirError as error:
            log.error("%s Until then, the filters stay as they were.", error)
            registry.get("logweir_worker_filters_stale").set(1)
            return
        registry.get("logweir_worker_filters_stale").set(0)
        log.info("Filters are read again from %s: %s.", self._path, counted(len(self.rules), "rule"))


def _rules_in(path: Path) -> tuple[Rule, ...]:
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise _bad(path, "the file", error.strerror or str(error)) from error
    except ValueError as error:
        raise _bad(path, "the file", f"it is not TOML: {error}") from error
    for name, value in document.items():
        if name != "rule" or type(value) is not list:
            raise _bad(path, name, "a file of filters holds [[rule]] tables only")
    tables = document.get("rule", [])
    if len(tables) > RULES_MAX:
        raise _bad(path, "the file", f"there are {len(tables)} rules; there may be at most {RULES_MAX}")
    rules: list[Rule] = []
    for number, table in enumerate(tables, 1):
        place = f"rule {number}"
        if rules and parse(rules[-1].query) == All():
            raise _bad(path, place, f"it can never apply: {rules[-1].name!r} before it takes every event")
        rule = _rule_of(table, place, path)
        if any(rule.name == known.name for known in rules):
            raise _bad(path, place, f"there is another rule named {rule.name!r}")
        rules.append(rule)
    return tuple(rules)


def _rule_of(table: Any, place: str, path: Path) -> Rule:
    if type(table) is not dict:
        raise _bad(path, place, "a rule is a table")
    for name in table:
        if name not in _KNOWN:
            raise _bad(path, place, f"{name!r} means nothing here; a rule knows {', '.join(_KNOWN)}")
    name, query, keep = table.get("name"), table.get("query"), table.get("keep", 0)
    if type(name) is not str or not _NAME.fullmatch(name):
        raise _bad(path, place, "it needs a name of 1 to 64 letters, digits, '.', '_' or '-'")
    place = f"{place} ({name})"
    if type(query) is not str or not query.strip():
        raise _bad(path, place, "it needs a query, as in logweir search; * matches every event")
    if type(keep) not in (int, float) or not 0 <= keep <= 1:
        raise _bad(path, place, f"keep is {keep!r}, which is not a share from 0 to 1")
    try:
        return Rule(name, query, float(keep), matcher(parse(query)))
    except LogweirError as error:
        raise _bad(path, place, f"{error.detail.rstrip('.')}") from error


def _bad(path: Path, place: str, reason: str) -> LogweirError:
    return LogweirError(FILTERS_BAD, path=path, place=place, reason=reason)
