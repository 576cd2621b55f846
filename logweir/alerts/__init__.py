"""What the engine of alerts, the console and the authors of rules agree on.

A file of rules imports ``rule``, ``step`` and ``event`` from here; one about the accounting ``books`` and ``finding``.
"""

from logweir.alerts.findings import books, finding
from logweir.alerts.rules import event, rule, step

__all__ = ["books", "event", "finding", "rule", "step"]
