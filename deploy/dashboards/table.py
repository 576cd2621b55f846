"""What the rows of a dashboard are made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# A metric's name, and what is in the braces behind it, where there are any. Recorded series have a colon: not these.
_SELECTOR = re.compile(r"\b(logweir_[a-z0-9_]+)\b(?!:)(?:\{([^}]*)\})?")
_CHOSEN = 'job=~"$job",instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and what its lines are called. Each metric of ours is narrowed to the chosen jobs and instances."""

    written: str
    legend: str

    @property
    def expression(self) -> str:
        return _SELECTOR.sub(lambda found: f"{found[1]}{{{','.join(filter(None, (_CHOSEN, found[2])))}}}", self.written)


def quantiles(bucket: str) -> tuple[Query, ...]:
    """The median and the slowest twentieth and hundredth of a histogram, over all processes."""
    return tuple(
        Query(f"histogram_quantile({at}, sum by (le) (rate({bucket}[$__rate_interval])))", f"p{round(at * 100)}")
        for at in (0.5, 0.95, 0.99)
    )


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``unit``: Grafana's name of it. ``width``: of 24. ``runbook``: the alert that speaks of the same.

    ``red_from`` and ``red_below``: where a value turns red. ``no_value``: what is shown where there is none.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    width: int = 8
    height: int = 7
    stacked: bool = False
    red_from: float | None = None
    red_below: float | None = None
    no_value: str = ""
    runbook: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """``by_class``: whether it has the variable ``class``, of the emitters whose figures it shows."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    by_class: bool = False


def panels_of(dashboard: Dashboard) -> list[Panel]:
    return [panel for row in dashboard.rows for panel in row.panels]
