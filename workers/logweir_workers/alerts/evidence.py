"""The events that an alert shows: frozen when it is written, so that it outlives them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from logweir.event import Document
from logweir.store.port import Store

SIZE_BYTES_MAX = 8 * 1024
"""Most bytes of one event that an alert keeps; a larger one is cut, and says so."""
VALUE_LENGTH_MAX = 2_000
_MEMORY_SIZE_BYTES_MAX = 32 * 1024 * 1024
_PROVENANCE = ("ingest_stream", "ingest_number", "content_hash")

Place = tuple[int, str, str]
"""Time in microseconds, id and day of an event."""


class Evidence:
    """Events that matched a little while ago, as an alert keeps them; the others, the store is asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._size_bytes = 0

    def note(self, document: Document) -> None:
        """An event has matched."""
        if document.id in self._recent:
            return
        kept = orjson.dumps(frozen(document.id, document.day, document.source))
        self._recent[document.id] = kept
        self._size_bytes += len(kept)
        while self._size_bytes > _MEMORY_SIZE_BYTES_MAX:
            self._size_bytes -= len(self._recent.popitem(last=False)[1])

    def of(self, places: Sequence[Place], known: Iterable[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """The events at these places, as far as they are anywhere; ``known``: those that the alert has already.

        Raises LogweirError(STORE_DOWN).
        """
        found = {one["id"]: one for one in known}
        for _, id, _ in places:
            if id not in found and id in self._recent:
                found[id] = orjson.loads(self._recent[id])
        absent = [(day, id) for _, id, day in places if id not in found]
        if absent:
            for (day, id), source in zip(absent, self._store.sources(absent), strict=True):
                if source is not None:
                    found[id] = frozen(id, day, source)
        return [found[id] for _, id, _ in places if id in found]


def frozen(id: str, day: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """The event as an alert keeps it."""
    provenance = {name: source.get(name) for name in _PROVENANCE}
    event = {name: value for name, value in source.items() if name not in _PROVENANCE}
    kept = {"id": id, "day": day, **provenance, "event": event}
    if len(orjson.dumps(event)) > SIZE_BYTES_MAX:
        kept = {**kept, "event": _cut(event), "is_cut": True}
    return kept


def _cut(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its texts cut; without details where that is not enough."""
    short = {name: value[:VALUE_LENGTH_MAX] if isinstance(value, str) else value for name, value in event.items()}
    details = short.get("details")
    if isinstance(details, dict):
        short["details"] = {
            name: value[: VALUE_LENGTH_MAX // 4] if isinstance(value, str) else value for name, value in details.items()
        }
    if len(orjson.dumps(short)) > SIZE_BYTES_MAX:
        short = {name: value for name, value in short.items() if isinstance(value, str)}
        short = {name: value[:200] for name, value in short.items()}
    return short
