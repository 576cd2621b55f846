"""Sigma rules in few words, and events as a worker stores them."""

from __future__ import annotations

import textwrap
from functools import cache
from typing import Any

from logweir import config
from logweir.event import Document
from logweir_workers.alerts.examples import Examples
from logweir_workers.alerts.matching import Seen
from logweir_workers.alerts.sigma.condition import SigmaCondition
from logweir_workers.alerts.sigma.linking import condition_of
from logweir_workers.alerts.sigma.parsing import parse


def sigma_rule(
    detection: str,
    *,
    logsource: str = "product: test",
    title: str = "A test",
    level: str = "high",
    id: str = "",
    name: str = "",
    more: str = "",
) -> str:
    """The YAML of a rule; ``detection``: the lines below ``detection``, without their indentation."""
    parts = [
        f"title: {title}",
        *([f"id: {id}"] if id else []),
        *([f"name: {name}"] if name else []),
        "status: test",
        "author: Ada",
        f"level: {level}",
        "logsource:",
        textwrap.indent(textwrap.dedent(logsource).strip(), "    "),
        "detection:",
        textwrap.indent(textwrap.dedent(detection).strip(), "    "),
        textwrap.dedent(more).strip(),
    ]
    return "\n".join(parts) + "\n"


def condition_in(text: str) -> SigmaCondition:
    (plan,) = parse(text.encode())
    return condition_of(plan, ())


@cache
def examples() -> Examples:
    return Examples(config.load(environment={}, overrides={}))


def document_of(event: dict[str, Any]) -> Document:
    return examples().document(event)


def seen(event: dict[str, Any]) -> Seen:
    return Seen(document_of(event))


def of_test(**details: Any) -> Seen:
    """An event of the log source ``product: test``."""
    return seen({"details": {"logsource": {"product": "test"}, **details}})
