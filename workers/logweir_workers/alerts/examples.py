"""A rule's examples, run as the engine would: through decode, normalise and enrich, to alerts."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from logweir.alerts.exceptions import Excepting, ExceptionState, RuleException
from logweir.alerts.findings import Finding
from logweir.alerts.rules import EXAMPLE_TIME_US, Example, Rule, WindowKind
from logweir.alerts.schedules import Slot
from logweir.config import Settings, StoreSettings
from logweir.errors import EXCEPTION_TOO_WIDE, LogweirError
from logweir.event import Document, Provenance, day_of
from logweir.query.match import milliseconds_of, time_us_of
from logweir.store import open_store
from logweir.text import counted
from logweir_workers import enrich
from logweir_workers.alerts.absence import absent, always_active
from logweir_workers.alerts.books import episodes
from logweir_workers.alerts.evaluator import Evaluator
from logweir_workers.alerts.found import Found
from logweir_workers.alerts.groups import Groups
from logweir_workers.alerts.guard import RuleEnds, RuleTooSlow, in_time
from logweir_workers.alerts.scheduled.runs import RunFailed, found_by
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

    def run(self, rule: Rule, example: Example, excepting: Excepting | None = None) -> Tried:
        """What the rule makes of the example's events, or findings; without events that are excepted."""
        excepting = excepting or Excepting()
        if rule.is_about_books:
            return _run_findings(rule, example)
        if rule.schedule is not None:
            return self._run_scheduled(rule, example, excepting)
        errors: list[str] = []
        evaluator = Evaluator({rule.name: rule}, Groups(groups_max=_GROUPS_MAX), late_after_us=60_000_000)
        evaluator.excepting = excepting
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
        return Tried(example, summaries, "; ".join(errors) or _other_number(example, len(summaries)))

    def _run_scheduled(self, rule: Rule, example: Example, excepting: Excepting) -> Tried:
        """What a scheduled rule finds, asked once about the example's events: up to ``until``, or behind the last."""
        assert rule.schedule is not None, "it is one"
        try:
            documents = [self.document(event, number) for number, event in enumerate(example.events, start=1)]
        except EventUnfit as unfit:
            return Tried(example, [], f"an event cannot be read: {unfit.error}")
        times = [time_us_of(one.source["receivedtimestamp"]) for one in documents]
        end_us = max([EXAMPLE_TIME_US + int(example.until * 1e6), *(time_us + 1000 for time_us in times)])
        begin_us = end_us - rule.schedule.window_us if rule.schedule.window_us else min([EXAMPLE_TIME_US, *times])
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(open_store(StoreSettings(url=f"sqlite:///{folder}"))) as store,
        ):
            store.prepare()
            store.index(documents)
            try:
                found = found_by(store, rule, Slot(begin_us, end_us), excepting=excepting)
            except RunFailed as error:
                return Tried(example, [], f"its own code fails: {error}")
        summaries = [one.summary for one in found]
        return Tried(example, summaries, _other_number(example, len(summaries)))


def refusal_of(rule: Rule, exception: RuleException, settings: Settings) -> str | None:
    """Why an exception cannot be taken into force: as ``require_narrow``, in words; None where it can."""
    if rule.is_about_books:
        return "the rule is about what the accounting finds, not about events"
    try:
        with in_time():
            require_narrow(rule, exception, Examples(settings))
    except LogweirError as error:
        return error.detail
    except (RuleTooSlow, RuleEnds) as error:
        return f"the rule's examples do not come to an end: {error}"
    return None


def require_narrow(rule: Rule, exception: RuleException, examples: Examples) -> None:
    """Raises LogweirError(EXCEPTION_TOO_WIDE) where the rule would not fire any more for an example of its own."""
    excepting = Excepting([replace(exception, state=ExceptionState.IN_FORCE.value)])
    for example in rule.examples:
        if example.alerts and (problem := examples.run(rule, example, excepting).problem):
            raise LogweirError(EXCEPTION_TOO_WIDE, rule=rule.name, example=example.name, reason=problem)


def _other_number(example: Example, made: int) -> str:
    """What is wrong with so many alerts of an example; empty when that is right."""
    return (
        "" if made == example.alerts else f"it makes {counted(made, 'alert')} of them, and should make {example.alerts}"
    )


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
    return Tried(example, summaries, _other_number(example, len(summaries)))


def lint(rule: Rule) -> list[str]:
    """What a rule should have, and has not. Of imported rules nobody asks for more than they came with."""
    if rule.is_imported:
        return []
    missing = []
    if not rule.runbook:
        missing.append("it has no runbook")
    if not any(example.alerts for example in rule.examples):
        missing.append("it has no example that fires")
    if all(example.alerts for example in rule.examples):
        missing.append("it has no example that does not fire")
    return missing
