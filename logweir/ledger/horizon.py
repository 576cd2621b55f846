"""Up to when the workers have accounted for all that was received: what was not heard of later may still come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logweir.clock import WINDOW_US
from logweir.ledger.position import Place, partition_place
from logweir.ledger.source import hearing_prefix
from logweir.store.port import Store


def read_hearings(store: Store, group: str) -> dict[Place, dict[str, Any]]:
    """The bodies of the documents that say what each partition heard. Raises LogweirError(STORE_DOWN)."""
    return {partition_place(document.id): document.body for document in store.ledger.scan(hearing_prefix(group))}


def horizons(
    positions: Mapping[Place, Mapping[str, Any]], hearings: Mapping[Place, Mapping[str, Any]]
) -> dict[Place, int]:
    """The minute up to which each partition is accounted for, of topics that are gone, too."""
    return {
        place: max(hearings.get(place, {}).get("clear_minute", 0), body.get("watermark_us", 0) // WINDOW_US)
        for place, body in positions.items()
    }


def of_latest_topic(minutes: Mapping[Place, int]) -> dict[Place, int]:
    """Those of the topic that is read now: of one that is gone nothing is accounted for any more."""
    latest = max(minutes, key=lambda place: minutes[place], default=None)
    return {place: minute for place, minute in minutes.items() if latest and place[0] == latest[0]}


def overall(minutes: Mapping[Place, int]) -> int:
    """The minute up to which everything is accounted for on all of these partitions; 0 when nothing is."""
    return min(minutes.values(), default=0)
