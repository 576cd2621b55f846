"""Which rules of a shard are in force: what their files say, and what people have said of them."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from logweir.alerts.catalogue import RuleState, describe, described, read_catalogue, read_states
from logweir.alerts.rules import QUIET_DEFAULT, Rule, Window, WindowKind
from logweir.clock import Clock, duration_us
from logweir.config import Settings
from logweir.errors import RULE_BAD, LogweirError
from logweir.metrics import registry
from logweir.query import lists
from logweir.store.port import Store
from logweir.text import counted
from logweir_workers.alerts.example_checks import ExampleChecks
from logweir_workers.alerts.loading import RuleFiles
from logweir_workers.alerts.sigma.condition import SigmaCondition

log = logging.getLogger(__name__)

_DESCRIBED_AT_ONCE = 50
_PROBLEMS_MAX = 20
_PROBLEM_LENGTH_MAX = 500


class RulesInForce:
    """Follows files and states, and has the catalogue say what there is. For one thread.

    Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
    """

    def __init__(self, settings: Settings, store: Store, files: RuleFiles, *, clock: Clock) -> None:
        self._shard = settings.alerts.shard
        self._documents = store.documents
        self._clock = clock
        self.files = files
        self.examples = ExampleChecks(settings)
        """Those of own files, run when these are read."""
        self._catalogue = read_catalogue(store.documents)
        self._states = read_states(store.documents)
        self._is_described = False
        self._said: list[str] = []
        """What was said to be wrong with files."""

    @property
    def rules(self) -> dict[str, Rule]:
        """The rules of the shard that are not disabled."""
        rules = rules_of_shard(self.files.rules, self._shard)
        return {name: rule for name, rule in rules.items() if self._states.get(name) is not RuleState.DISABLED}

    @property
    def shadowed(self) -> set[str]:
        """The rules that are asked, and whose alerts are none."""
        return {name for name, state in self._states.items() if state is RuleState.SHADOW}

    @property
    def files_bad(self) -> list[str]:
        """What is wrong with files of rules, and whether their rules are evaluated all the same; the first few."""
        return [problem[:_PROBLEM_LENGTH_MAX] for problem in self._said[:_PROBLEMS_MAX]]

    def reload(self) -> bool:
        """Read files again that have changed; whether any has."""
        if not self.files.reload():
            if self._problems() != self._said:
                self.note_files()
            return False
        self.note_files()
        self._is_described = False
        return True

    def note_files(self) -> None:
        """Say what is wrong with files of rules; keep copies of those that can be read, and run their examples."""
        problems = self._said = self._problems()
        for problem in problems:
            log.error("%s", problem)
        registry.get("logweir_alerter_rule_files_bad").set(len(problems))
        self.files.keep()
        for path, rules in self.files.read_anew.items():
            self.examples.want(path, rules)

    def _problems(self) -> list[str]:
        """What is wrong with files of rules and of lists, and which lists are not there."""
        known = lists.in_use()
        there = {one.name for one in known}
        missing = [
            str(LogweirError(RULE_BAD, rule=rule.name, reason=f"there is no list {name} in {known.folder}"))
            for rule in self.files.rules.values()
            if rule.is_about_events
            for name in sorted(lists_of(rule) - there)
        ]
        return [*(str(problem) for problem in self.files.problems), *known.problems, *missing]

    def read_states(self) -> bool:
        """Read which rules are shadowed or disabled; whether others are than before."""
        before, self._states = self._states, read_states(self._documents)
        return self._states != before

    def describe(self) -> None:
        """Write down what rules there are, some at a time, where that is not known."""
        if self._is_described:
            return
        mine = rules_of_shard(self.files.rules, self._shard)
        known = {name: one.body for name, one in self._catalogue.items()}
        new = [
            name
            for name, rule in mine.items()
            if {**known.get(name, {}), **described(rule), "is_there": True} != known.get(name)
        ]
        gone = [name for name in rules_of_shard(known, self._shard) if known[name]["is_there"] and name not in mine]
        for name in [*new, *gone][:_DESCRIBED_AT_ONCE]:
            self._catalogue[name] = describe(self._documents, name, mine.get(name), now_us=self._clock())
        self._is_described = len(new) + len(gone) <= _DESCRIBED_AT_ONCE

    def as_it_was(self, name: str, revision: str, group: Sequence[str]) -> Rule:
        """A rule in the place of one that is no more, for the alert of a group: as the catalogue describes it."""
        now = self.files.rules.get(name)
        known = self._catalogue[name].body if name in self._catalogue else {}
        said: Mapping[str, Any] = known if "severity" in known or now is None else described(now)
        fields = tuple(said.get("group", ()))
        return Rule(
            name=name,
            say=lambda found: f"{name}: {counted(found.count, 'event', separator=',')} of {found.group or 'it'}",
            window=Window(WindowKind.MATCH),
            severity=said.get("severity", "medium"),
            conditions=(lambda _: True,),
            group=fields if len(fields) == len(group) else tuple(f"value{at}" for at in range(len(group))),
            quiet_us=(duration_us(QUIET_DEFAULT) or 0) if now is None else now.quiet_us,
            category=said.get("category", ""),
            tags=tuple(said.get("tags", ())),
            runbook=said.get("runbook", ""),
            origin=said.get("origin", {}),
            revision=revision,
        )


def lists_of(rule: Rule) -> set[str]:
    """The lists that its conditions ask for."""
    asked = {name for node in rule.nodes() for name in lists.names_in(node)}
    return asked.union(*(one.lists for one in rule.conditions if isinstance(one, SigmaCondition)))


T = TypeVar("T")


def rules_of_shard(rules: Mapping[str, T], shard: str) -> dict[str, T]:
    """Those of the rules, by name, that the shard evaluates."""
    number, _, of = shard.partition("/")
    return {name: rule for name, rule in rules.items() if zlib.crc32(name.encode()) % int(of) == int(number) - 1}
