"""What the engine of alerts, the console and the authors of rules agree on.

A file of rules imports ``rule``, ``step`` and ``event`` from here.
"""

from logweir.alerts.rules import event, rule, step

__all__ = ["event", "rule", "step"]
