"""How many events each emitter sent in each hour, from the windows of the ledger."""

from __future__ import annotations

from collections import Counter, defaultdict

from logweir.ledger import hours
from logweir.ledger.documents import HOUR, HOUR_WINDOWS, WINDOW, WindowId
from logweir.ledger.emitter import Emitter
from logweir.ledger.window import Window
from logweir.record import OTHERS
from logweir.store.port import Store

Volumes = dict[Emitter, Counter[int]]
"""Settled events by emitter and hour since 1970; without hours in which some emitters of its key are only summed up."""


def read_volumes(store: Store, group: str, *, from_hour: int) -> Volumes:
    """Of all hours from that one on. Raises LogweirError(STORE_DOWN)."""
    merged: set[WindowId] = set()
    while True:
        volumes: Volumes = defaultdict(Counter)
        seen: set[WindowId] = set()
        for place, document in WINDOW.scan(store.ledger, group):
            if place.window // HOUR_WINDOWS >= from_hour and place not in merged:
                seen.add(place)
                _add(volumes, Window.from_body(place, document.body))
        # The hours behind the windows: what is merged meanwhile is in both, and is then left out as a window.
        twice: set[WindowId] = set()
        for hour_place, document in HOUR.scan(store.ledger, group):
            if hour_place.hour >= from_hour:
                hour = hours.from_body(hour_place, document.body)
                twice.update(one for one in hour.places if one in seen)
                _add(volumes, hour)
        if not twice:
            return _told_apart(volumes)
        merged |= twice


def _told_apart(volumes: Volumes) -> Volumes:
    summed = {(key, hour) for (key, name), by_hour in volumes.items() if name == OTHERS for hour in by_hour}
    found: Volumes = {}
    for (key, name), by_hour in volumes.items():
        known = Counter({hour: count for hour, count in by_hour.items() if name is None or (key, hour) not in summed})
        if known:
            found[key, name] = known
    return found


def _add(volumes: Volumes, window: Window) -> None:
    for emitter, counts in window.outcomes.items():
        volumes[emitter][window.window // HOUR_WINDOWS] += counts.settled
