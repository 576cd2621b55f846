"""Rules of other products, imported in a test's folder, and events that are held against them as the engine does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from logweir.alerts.rules import Example, Rule, event
from logweir_workers.alerts.importers.importing import import_rules
from logweir_workers.alerts.importers.report import Imported
from logweir_workers.alerts.loading import read_rules
from logweir_workers.alerts.sigma.plans import PlanCache
from tests.workers.alerts.sigma.helpers import examples

Event = dict[str, Any]


def imported(folder: Path, files: Mapping[str, str], **more: Any) -> tuple[Imported, dict[str, Rule]]:
    """What became of these files, and the rules that were made, by name."""
    source = folder / "source"
    for name, text in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    made = import_rules(source, folder / "to", PlanCache(None), **more)
    rules = [rule for name in made.written.values() for rule in read_rules(folder / "to" / name)]
    return made, {rule.name: rule for rule in rules}


def alerts_of(rule: Rule, events: Sequence[Event], *, until: float = 0.0) -> list[str]:
    """What the alerts say that come of these events, as a worker would store them."""
    tried = examples().run(rule, Example("", tuple(events), alerts=0, until=until))
    assert "its" not in tried.problem.partition("it makes")[0], tried.problem
    return tried.summaries


def at(seconds: float, **values: Any) -> Event:
    """An event of a host so many seconds after noon."""
    return event(at=seconds, **{"hostname": "web1", **values})
