"""A rule's examples, run as the engine would: through decode, normalise and enrich, to alerts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from logweir.alerts.findings import Finding
from logweir.alerts.rules import EXAMPLE_TIME_US, Example, Rule, WindowKind
from logweir.config import Settings
from logweir.event import Document, Provenance, day_of
from logweir.query.match import milliseconds_of, time_us_of
from logweir.text import counted
from logweir_workers import enrich
from logweir_workers.alerts.absence import absent, always_active
from logweir_workers.alerts.books import episodes
from logweir_workers.alerts.evaluator import Evaluator
from logweir_workers.alerts.found import Found
from logweir_workers.alerts.groups import Groups
from logweir_workers.document import Documents, EventUnfit
from logweir_workers.filters import Filters
from logweir_workers.normalise.fields import Context

_GROUPS_MAX = 100_000


class Tried(NamedTuple):
    """What came of an example. ``problem``: why it is not what the rule's author says; empty when it is."""

    example: Example
    summaries: list[str]
    problem: str


class Examples:
    """Makes documents of example events, and runs examples of rules."""

    def __init__(self, settings: Settings) -> None:
        self._documents = Documents(enrich.load(settings.worker), Filters())

    def document(self, event: Mapping[str, Any], number: int = 1) -> Document:
        """The event as a worker would store it. Raises EventUnfit."""
        time_ms = milliseconds_of(event.get("timestamp"))
        received_us = (time_ms or 1_769_860_800_000) * 1000
        provenance = Provenance("0" * 32 + "-0", number, "0" * 16)
        made = self._documents.make(
            orjson.dumps(event),
            Context(received_us=received_us, key="example"),
            id=f"example-{number}",
            day=day_of(received_us),
            provenance=provenance,
        )
        assert isinstance(made, Document), "there are no filters"
        return made

    def run(self, rule: Rule, example: Example) -> Tried:
        """What the rule makes of the example's events, or findings."""
        if rule.is_about_books:
            return _run_findings(rule, example)
        errors: list[str] = []
        evaluator = Evaluator({rule.name: rule}, Groups(groups_max=_GROUPS_MAX), late_after_us=60_000_000)
        until_us = EXAMPLE_TIME_US + int(example.until * 1_000_000)
        for number, event in enumerate(example.events, start=1):
            try:
                document = self.document(event, number)
            except EventUnfit as unfit:
                return Tried(example, [], f"event {number} cannot be read: {unfit.error}")
            received_us = time_us_of(document.source["receivedtimestamp"])
            until_us = max(until_us, received_us)
            evaluator.evaluate(document, received_us=received_us, emitter=None, horizon_us=0)
        _pass(evaluator, until_us)
        summaries: list[str] = []
        for group in evaluator.groups:
            for episode in group.episodes:
                if episode.fired:
                    try:
                        summaries.append(rule.say(Found(rule, group, episode)))
                    except Exception as error:  # noqa: BLE001 - the author's own code
                        errors.append(f"its function fails: {type(error).__name__}: {error}")
        failed = evaluator.counts.get(rule.name, {}).get("errors", 0)
        if failed:
            errors.append(f"its condition failed on {counted(failed, 'event')}")
        if not errors and len(summaries) != example.alerts:
            errors.append(f"it makes {counted(len(summaries), 'alert')} of them, and should make {example.alerts}")
        return Tried(example, summaries, "; ".join(errors))


def _pass(evaluator: Evaluator, until_us: int) -> None:
    """Time passes, in every minute of which something came, until then: who is absent is found."""
    if any(rule.window.kind is WindowKind.ABSENT for rule in evaluator.rules.values()):
        for _ in absent(evaluator.groups, until_us, always_active(until_us)):
            pass


def _run_findings(rule: Rule, example: Example) -> Tried:
    """What a rule about the accounting makes of the example's findings."""
    (where,) = rule.conditions
    groups: dict[tuple[tuple[str, str], ...], list[Finding]] = defaultdict(list)
    summaries: list[str] = []
    try:
        for one in example.events:
            if not isinstance(one, Finding):
                return Tried(example, [], "its findings are not made by finding(...)")
            assert callable(where), "the condition of a rule about the accounting is a function"
            if one.of == rule.of and where(one):  # type: ignore[arg-type]
                groups[tuple(sorted(one.values.items()))].append(one)
        summaries = [rule.say(episode) for found in groups.values() for episode in episodes(rule, found)]
    except Exception as error:  # noqa: BLE001 - the author's own code
        return Tried(example, summaries, f"its own code fails: {type(error).__name__}: {error}")
    right = len(summaries) == example.alerts
    problem = "" if right else f"it makes {counted(len(summaries), 'alert')} of them, and should make {example.alerts}"
    return Tried(example, summaries, problem)


def lint(rule: Rule) -> list[str]:
    """What a rule should have, and has not."""
    missing = []
    if not rule.runbook:
        missing.append("it has no runbook")
    if not any(example.alerts for example in rule.examples):
        missing.append("it has no example that fires")
    if all(example.alerts for example in rule.examples):
        missing.append("it has no example that does not fire")
    return missing
