"""PromQL taken apart: which series an expression asks for, and what is done to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser

from logweir.metrics.table import METRICS, Kind

# What Grafana puts in, by what it might be.
VARIABLES = {
    "$__rate_interval": "4m",
    "$__range": "1h",
    "$__interval": "15s",
    "$job": ".+",
    "$instance": ".+",
    "$class": ".+",
}
ROWS = {row.name: row for row in METRICS}
_NAMES = list(ROWS)
# The exporter's: of each exporter, and of each address that it has had, there is a series.
LEDGER_COUNTERS = {
    name
    for name in _NAMES[_NAMES.index("logweir_events_accepted_total") :]
    if ROWS[name].kind is Kind.COUNTER and not name.startswith("logweir_alerter_")
}


def filled(expression: str, variables: dict[str, str] | None = None) -> str:
    for name, value in {**VARIABLES, **(variables or {})}.items():
        expression = expression.replace(name, value)
    return expression


@dataclass(frozen=True)
class Selector:
    """One selector of an expression, with what stands around it, the innermost first."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    range_s: float | None
    around: tuple[Any, ...]

    @property
    def text(self) -> str:
        """The selector itself, as a query for the series that it names."""
        inner = ",".join(f'{label}{how}"{value}"' for label, how, value in self.matchers)
        return f"{self.name}{{{inner}}}"

    @property
    def labels(self) -> set[str]:
        return {label for label, _, _ in self.matchers}

    @property
    def function(self) -> str:
        """The function that is called with it, or an empty string."""
        return str(self.around[0].func.name) if self.around and hasattr(self.around[0], "func") else ""


def selectors(expression: str) -> list[Selector]:
    """Every selector of the expression. Raises ValueError when it is no PromQL."""
    return list(_selectors(promql_parser.parse(filled(expression)), ()))


_OPERATORS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}


def _selectors(node: Any, around: tuple[Any, ...], range_s: float | None = None) -> Iterator[Selector]:
    if isinstance(node, promql_parser.MatrixSelector):
        yield from _selectors(node.vector_selector, around, node.range.total_seconds())
    elif isinstance(node, promql_parser.VectorSelector):
        matchers = tuple(
            (one.name, _OPERATORS[str(one.op).rpartition(".")[2]], one.value) for one in node.matchers.matchers
        )
        yield Selector(node.name, matchers, range_s, around)
    else:
        for inner in _inside(node):
            yield from _selectors(inner, (node, *around))


def _inside(node: Any) -> list[Any]:
    if isinstance(node, promql_parser.Call):
        return list(node.args)
    if isinstance(node, promql_parser.BinaryExpr):
        return [node.lhs, node.rhs]
    return [inner for name in ("expr", "param") if (inner := getattr(node, name, None)) is not None]


def metric_of(name: str) -> str:
    """The metric's name in the table: without what a histogram's series have behind it."""
    for end in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(end)
        if base != name and base in ROWS and ROWS[base].kind is Kind.HISTOGRAM:
            return base
    return name
