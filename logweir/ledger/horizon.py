"""Up to when the workers have accounted for all that was received: what was not heard of later may still come."""

from __future__ import annotations

from collections.abc import Mapping

from logweir.clock import WINDOW_US
from logweir.ledger.documents import PartitionId
from logweir.ledger.position import Position
from logweir.ledger.source import Hearing


def horizons(
    positions: Mapping[PartitionId, Position], hearings: Mapping[PartitionId, Hearing]
) -> dict[PartitionId, int]:
    """The minute up to which each partition is accounted for, of topics that are gone, too."""
    return {
        place: max(hearings.get(place, _NOTHING_HEARD).clear_minute, position.watermark_us // WINDOW_US)
        for place, position in positions.items()
    }


_NOTHING_HEARD = Hearing()


def of_latest_topic(minutes: Mapping[PartitionId, int]) -> dict[PartitionId, int]:
    """Those of the topic that is read now: of one that is gone nothing is accounted for any more."""
    latest = max(minutes, key=lambda place: minutes[place], default=None)
    return {place: minute for place, minute in minutes.items() if latest and place.topic_id == latest.topic_id}


def overall(minutes: Mapping[PartitionId, int]) -> int:
    """The minute up to which everything is accounted for on all of these partitions; 0 when nothing is."""
    return min(minutes.values(), default=0)
