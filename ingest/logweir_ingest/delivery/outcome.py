"""What a sender of records is told of each: where it is durable, or why it is nowhere."""

from __future__ import annotations

from collections.abc import Callable

from logweir.errors import LogweirError

QUEUE = "queue"
SPOOL = "spool"


Result = str | LogweirError
"""Where a record is durable (QUEUE, SPOOL), or why it is nowhere."""
Settled = Callable[[Result], None]
"""Called once per send, on a thread of ours."""
