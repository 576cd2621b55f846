"""When each partition received anything, and up to when it is accounted for: silence is judged within that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logweir.clock import WINDOW_US
from logweir.ledger.cadence import ACTIVITY_MINUTES, TimeBits
from logweir.ledger.documents import ACTIVITY, PartitionId
from logweir.ledger.position import Position
from logweir.store.port import Store

_SLACK_US = 30_000_000
"""The end of a queue is asked for now and then: what was empty is known to have been empty so long ago."""


@dataclass(slots=True)
class Activity:
    """Of one partition."""

    minutes: TimeBits = field(default_factory=lambda: TimeBits(ACTIVITY_MINUTES))
    """Those in which it received a record of any kind."""
    caught_up_minute: int = 0
    """Up to when its queue is known to be worked off."""

    def mark(self, minute: int) -> bool:
        """A record was received in that minute; whether that changed anything."""
        minutes = self.minutes
        return (minute != minutes.top or not minutes.bits) and minutes.mark(minute)

    def catch_up(self, now_us: int) -> bool:
        """All that had come a little before ``now_us`` is accounted for; whether that changed anything."""
        minute = (now_us - _SLACK_US) // WINDOW_US
        if minute <= self.caught_up_minute:
            return False
        self.caught_up_minute = minute
        return True

    @property
    def last_us(self) -> int:
        """The beginning of the latest minute in which it received anything, 0 when there is none."""
        return self.minutes.top * WINDOW_US

    def as_body(self) -> dict[str, Any]:
        return {"minutes": self.minutes.as_body(), "caught_up_minute": self.caught_up_minute}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Activity:
        return cls(TimeBits.from_body(ACTIVITY_MINUTES, body["minutes"]), body["caught_up_minute"])


def read_activities(store: Store, group: str) -> dict[PartitionId, Activity]:
    """Of each partition, also of topics that are gone. Raises LogweirError(STORE_DOWN)."""
    return {place: Activity.from_body(document.body) for place, document in ACTIVITY.scan(store.ledger, group)}


# --- up to when all is accounted for: what did not come until then may still come later ---------------------------
def caught_up_minutes(
    positions: Mapping[PartitionId, Position], activities: Mapping[PartitionId, Activity]
) -> dict[PartitionId, int]:
    """The minute up to which each partition is accounted for, of topics that are gone, too."""
    return {
        place: max(activities.get(place, _NO_ACTIVITY).caught_up_minute, position.watermark_us // WINDOW_US)
        for place, position in positions.items()
    }


_NO_ACTIVITY = Activity()


def of_latest_topic(minutes: Mapping[PartitionId, int]) -> dict[PartitionId, int]:
    """Those of the topic that is read now: of one that is gone nothing is accounted for any more."""
    latest = max(minutes, key=lambda place: minutes[place], default=None)
    return {place: minute for place, minute in minutes.items() if latest and place.topic_id == latest.topic_id}


def overall(minutes: Mapping[PartitionId, int]) -> int:
    """The minute up to which everything is accounted for on all of these partitions; 0 when nothing is."""
    return min(minutes.values(), default=0)
