"""What the engine of alerts, the console and the authors of rules agree on.

A file of rules imports ``rule``, ``step`` and ``event`` from here; one about the accounting ``books`` and ``finding``;
one with scheduled rules ``scheduled`` and ``found``.
``counted(1, "host")`` is what to say in its text: ``1 host``, ``2 hosts``.
"""

from logweir.alerts.findings import books, finding
from logweir.alerts.rules import event, rule, step
from logweir.alerts.schedules import found, scheduled
from logweir.text import counted

__all__ = ["books", "counted", "event", "finding", "found", "rule", "scheduled", "step"]
