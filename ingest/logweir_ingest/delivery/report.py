"""What the sender of a record is told: where it is durable, or why it is nowhere."""

from __future__ import annotations

from collections.abc import Callable

from logweir.errors import LogweirError

QUEUE = "queue"
SPOOL = "spool"

DeliveryReport = str | LogweirError
"""Where a record is durable (QUEUE, SPOOL), or why it is nowhere."""
Confirmed = Callable[[DeliveryReport], None]
"""Called once for each record that was taken, on a thread of ours that holds no lock of ours."""
