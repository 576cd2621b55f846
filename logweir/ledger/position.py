"""Positions: how far each partition is accounted for, also of topics that are gone; written with its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logweir.store.port import Store

Place = tuple[str, int]
"""(topic id, partition)."""


def position_prefix(group: str) -> str:
    """What the ids of a group's positions begin with; behind it stand topic id, a colon and the partition."""
    return f"position:{group}:"


def position_id(group: str, topic_id: str, partition: int) -> str:
    return f"{position_prefix(group)}{topic_id}:{partition}"


def partition_place(id: str) -> Place:
    """Topic id and partition, of an id that ends with them: of positions, hearings, emitters."""
    topic_id, partition = id.rsplit(":", 2)[1:]
    return topic_id, int(partition)


def read_positions(store: Store, group: str) -> dict[Place, dict[str, Any]]:
    """The bodies of all position documents, also of topics that are gone. Raises LogweirError(STORE_DOWN)."""
    return {partition_place(document.id): document.body for document in store.ledger.scan(position_prefix(group))}


def inherited(before: Mapping[Place, dict[str, Any]], partition: int) -> dict[str, Any]:
    """How far each process's numbers had come by in the topic that a new one takes the place of, for its position."""
    former = [body for (_, at), body in before.items() if at == partition and "streams" in body]
    last = max(former, key=_how_far, default={})
    streams = {epoch: [number, -1, window] for epoch, (number, _, window) in last.get("streams", {}).items()}
    # Where nothing comes in the new topic, what is awaited is lost all the same when it is due.
    return {"streams": streams, "awaited": last.get("awaited", {}), "due_us": last.get("due_us", 0)}


def _how_far(position: dict[str, Any]) -> tuple[int, int]:
    """Grows from a topic to the one made in its place: an empty one, or one with old records, has the same time."""
    return position["watermark_us"], sum(last for last, _, _ in position["streams"].values())


STREAM_MINUTES_MAX = 7 * 24 * 60
