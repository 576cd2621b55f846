"""category: what kind of log an event is from, by ordered rules, where the event does not say it itself."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from logweir.config import WorkerSettings
from logweir.errors import SETTING_BAD, LogweirError
from logweir.event import KEYWORD_LENGTH_MAX
from logweir_workers.enrich import Enrich, Event, configured_enrichment
from logweir_workers.normalise.fields import Context

RULES_MAX = 1000
"""Most rules in one file: every event without a category is held against them one by one."""

FIELDS = ("processname", "source", "hostname", "type", "key", "emitter")
"""Fields that a rule can compare with patterns, beside ``summary_contains``."""

CONTAINS = "summary_contains"

Matches = Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a file."""

    category: str
    override: bool
    """Whether it replaces a category that the event has."""
    process: Matches | None
    """What it asks of the process's name, if anything."""
    matches: tuple[Matches, ...]
    """What else must all match."""


@configured_enrichment(
    adds=("category",),
    examples=(
        ({"processname": "sshd", "summary": "Accepted publickey for alice"}, {"category": "authentication"}),
        ({"processname": "SSHD"}, {"category": "authentication"}),
        ({"processname": "sshd", "category": "bastion"}, {}),
        ({"processname": "postfix/smtpd"}, {"category": "mail"}),
        ({"processname": "nginx"}, {"category": "web"}),
        ({"processname": "something else"}, {}),
        ({"summary": "sshd"}, {}),
        ({}, {}),
    ),
)
def category(settings: WorkerSettings) -> Enrich:
    """The first rule that matches gives its category; without one the event stays without."""
    rules = load_rules(settings.categories_file)
    overriding = tuple(rule for rule in rules if rule.override)
    # Of the rules, most ask for the process, and there are few processes: what is left of them is looked up.
    of_process = lru_cache(maxsize=4096)(lambda process: _left(rules, process))
    overriding_of_process = lru_cache(maxsize=4096)(lambda process: _left(overriding, process))

    def enrich(event: Event, _context: Context) -> None:
        look_up = overriding_of_process if "category" in event else of_process
        for name, matches in look_up(event.get("processname")):
            if all(match(event) for match in matches):
                event["category"] = name
                return

    return enrich


def _left(rules: tuple[Rule, ...], process: str | None) -> tuple[tuple[str, tuple[Matches, ...]], ...]:
    """The rules that can match an event of the process, with what they ask for beside it."""
    return tuple(
        (rule.category, rule.matches)
        for rule in rules
        if rule.process is None or rule.process({} if process is None else {"processname": process})
    )


def load_rules(path: Path | None) -> tuple[Rule, ...]:
    """The rules in a file, or the built-in ones. Raises LogweirError(SETTING_BAD) that names the rule."""
    if path is None:
        return _rules_of(resources.files(__package__).joinpath("categories.toml").read_bytes(), "categories.toml")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _bad("The configuration", "worker.categories_file", str(path), error.strerror or str(error)) from error
    return _rules_of(content, str(path))


def _rules_of(content: bytes, where: str) -> tuple[Rule, ...]:
    try:
        document = tomllib.loads(content.decode())
    except ValueError as error:
        raise _bad(where, "the file", "", f"it is not TOML: {error}") from error
    for name, value in document.items():
        if name != "rule" or type(value) is not list:
            raise _bad(where, name, value, "a file of categories holds [[rule]] tables only")
    tables = document.get("rule", [])
    if len(tables) > RULES_MAX:
        raise _bad(where, "rule", len(tables), f"there are {len(tables)} rules; there may be at most {RULES_MAX}")
    rules = tuple(_rule_of(table, number, where) for number, table in enumerate(tables, 1))
    for number, rule in enumerate(rules[:-1], 1):
        if not rule.matches and rule.process is None:
            reason = "it has no condition, so no rule behind it would ever apply"
            raise _bad(where, f"rule {number}", rule.category, reason)
    return rules


def _rule_of(table: Any, number: int, where: str) -> Rule:
    if type(table) is not dict:
        raise _bad(where, f"rule {number}", table, "a rule is a table")
    conditions = []
    process: Matches | None = None
    for name, value in table.items():
        place = f"rule {number}: {name}"
        if name == "processname":
            process = _whole(name, _patterns(value, place, where))
        elif name in FIELDS:
            conditions.append(_whole(name, _patterns(value, place, where)))
        elif name == CONTAINS:
            conditions.append(_part(_patterns(value, place, where)))
        elif name not in ("category", "override"):
            known = ", ".join((*FIELDS, CONTAINS, "category", "override"))
            raise _bad(where, place, value, f"a rule knows {known}")
    name, override = table.get("category"), table.get("override", False)
    if type(name) is not str or not name.strip() or len(name) > KEYWORD_LENGTH_MAX:
        raise _bad(where, f"rule {number}: category", name, "a rule needs the category that it gives, as text")
    if type(override) is not bool:
        raise _bad(where, f"rule {number}: override", override, "it is neither true nor false")
    return Rule(name.strip(), override, process, tuple(conditions))


def _patterns(value: Any, place: str, where: str) -> tuple[str, ...]:
    patterns = value if type(value) is list else [value]
    if not patterns or not all(type(pattern) is str and pattern for pattern in patterns):
        raise _bad(where, place, value, "it is neither a text nor a list of texts")
    return tuple(pattern.casefold() for pattern in patterns)


def _whole(field: str, patterns: tuple[str, ...]) -> Matches:
    """Whether the whole field is one of ``patterns``, in which ``*`` and ``?`` stand for any characters."""
    if not any(character in pattern for pattern in patterns for character in "*?["):
        exact = frozenset(patterns)
        return lambda event: field in event and event[field].casefold() in exact
    glob = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))
    return lambda event: field in event and glob.match(event[field].casefold()) is not None


def _part(patterns: tuple[str, ...]) -> Matches:
    """Whether the summary has one of ``patterns`` in it."""

    def match(event: Event) -> bool:
        summary = event.get("summary", "").casefold()
        return any(pattern in summary for pattern in patterns)

    return match


def _bad(where: str, name: str, value: Any, reason: str) -> LogweirError:
    return LogweirError(SETTING_BAD, where=where, name=name, value=value, reason=reason)
