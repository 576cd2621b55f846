"""What the engine of alerts, the console and the authors of rules agree on.

A file of rules imports ``rule``, ``step`` and ``event`` from here; one about the accounting ``books`` and ``finding``;
one with scheduled rules ``scheduled`` and ``found``. ``lists("ours")`` is a list: ``"10.0.0.9" in lists("ours")``.
``counted(1, "host")`` is what to say in its text: ``1 host``, ``2 hosts``.
"""

from logweir.alerts.findings import books, finding
from logweir.alerts.rules import event, rule, step
from logweir.alerts.schedules import found, scheduled
from logweir.query.lists import ValueList, in_use
from logweir.text import counted

__all__ = ["books", "counted", "event", "finding", "found", "lists", "rule", "scheduled", "step"]


def lists(name: str) -> ValueList:
    """The list of that name, as it is now. Raises LogweirError(LIST_UNKNOWN)."""
    return in_use().named(name)
