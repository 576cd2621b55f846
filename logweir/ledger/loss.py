"""How well it is known what an emitter loses before ingest."""

from __future__ import annotations

from enum import StrEnum


class LossClass(StrEnum):
    EXACT = "exact"
    """It numbers its events."""
    FROM_FIELDS = "from_fields"
    """Its events bring numbers of their own, which ``accounting.event_fields`` names."""
    UNKNOWN = "unknown"
    """Nothing numbers its events."""


NUMBERED = (LossClass.EXACT, LossClass.FROM_FIELDS)
"""Of these, what is lost before ingest is known; of the others it is never shown as 0."""
UNATTRIBUTED = "unattributed"
"""Where a loss class stands, of what was lost of nobody knows whom."""
