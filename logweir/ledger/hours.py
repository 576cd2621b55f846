"""Hours: closed windows that are complete, merged into one document for each hour of an ingest process.

A window is one document for each minute, ingest process and partition: thousands a day. Once it is closed, and every
number that its process gave out in it is settled, nothing can be added to it any more; then its numbers, sums and
deviations are as good in the document of its hour. What is not complete (a hole, a void number, an amendment) stays a
window by itself. Of a merged window only its numbers, and what became of each, are kept; by emitter, the hour's sums.

An hour is written under a claim of its own, before its windows are deleted. A window whose numbers are in its hour is
not looked at: so it counts once, whenever whoever merges is killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from logweir.ledger.documents import HOUR, WINDOW, HourId, WindowId, read_documents
from logweir.ledger.intervals import Intervals
from logweir.ledger.window import Counts, Promises, Window
from logweir.outcomes import Outcome
from logweir.store.port import Store


def is_complete(window: Window) -> bool:
    """Whether the two sides agree for each emitter, and no number can come that would change them."""
    marker = window.marker
    if marker is None or window.minutes or window.amendments or window.voids or window.deviations.beyond:
        return False
    if list(window.numbers) != [(first, last) for first, last in window.given if first <= last]:
        return False
    outcomes, promises = window.matched()
    promised = {emitter: promise.accepted + promise.unconfirmed for emitter, promise in promises.items()}
    settled = {emitter: counts.settled for emitter, counts in outcomes.items()}
    emitters = promised.keys() | settled.keys()
    agree = all(promised.get(emitter, 0) == settled.get(emitter, 0) for emitter in emitters)
    return agree and sum(settled.values()) == window.numbers.count


def merge(hour: Window, window: Window) -> None:
    """Add a complete window to its hour."""
    assert window.marker is not None
    ((first, last),) = window.given
    if hour.marker is None:
        hour.marker = Promises(first, last)
    hour.marker.first, hour.marker.last = min(hour.marker.first, first), max(hour.marker.last, last)
    hour.minutes.append((window.window, first, last))
    hour.place = hour.place._replace(window=min(hour.windows))
    hour.numbers.add(first, last)
    hour.deviations.merge(window.deviations)
    if window.received_day is not None:
        hour.note_received(window.received_day)
    outcomes, promises = window.matched()
    for emitter, counts in outcomes.items():
        hour.outcomes.setdefault(emitter, Counts()).add(counts)
    for emitter, promise in promises.items():
        hour.marker.add(emitter, accepted=promise.accepted, unconfirmed=promise.unconfirmed)


def has(hour: Window, window: Window) -> bool:
    """Whether the window is merged into that hour: what is left of it is of no account."""
    is_merged = any(minute == window.window for minute, _, _ in hour.minutes)
    return is_merged and all(hour.numbers.covers(*pair) for pair in window.numbers)


def window_of(hour: Window, minute: int) -> Window | None:
    """One window of an hour, None when it is not merged in it: complete, so that every record of it came before.

    Whose events they were is only kept for the hour: the outcomes are of nobody.
    """
    given = {window: (first, last) for window, first, last in hour.minutes}
    if minute not in given:
        return None
    first, last = given[minute]
    deviations = hour.deviations.cut(first, last)
    counts: Counter[str] = Counter({Outcome.INDEXED: last - first + 1})
    for (outcome, _), ranges in deviations.within(first, last):
        count = sum(high - low + 1 for low, high in ranges)
        counts[outcome] += count
        counts[Outcome.INDEXED] -= count
    return Window(
        hour.place._replace(window=minute),
        numbers=Intervals([(first, last)]),
        outcomes={("", None): Counts(**counts)},
        marker=Promises(first, last),
        deviations=deviations,
        received_day=hour.received_day,
        minutes=[(minute, first, last)],
    )


def from_body(place: HourId, body: Mapping[str, Any]) -> Window:
    """The hour as it was written."""
    return Window.from_body(WindowId(place.topic_id, place.partition, place.ingest_epoch, body["window"]), body)


def read_windows(store: Store, group: str, places: Collection[WindowId]) -> dict[WindowId, Window]:
    """The windows as the ledger has them, by themselves or in their hours; those that it has not are absent.

    Raises LogweirError(STORE_DOWN).
    """
    ids = {place: WINDOW.id(group, place) for place in places}
    hour_ids = {place.hour: HOUR.id(group, place.hour) for place in places}
    # The windows first: when one is deleted already, its hour has it.
    stored = read_documents(store.ledger, [*ids.values(), *hour_ids.values()])
    hours = {hour: from_body(hour, stored[id].body) for hour, id in hour_ids.items() if id in stored}
    found = {}
    for place, id in ids.items():
        merged = window_of(hours[place.hour], place.window) if place.hour in hours else None
        if merged is not None:
            found[place] = merged
        elif id in stored:
            found[place] = Window.from_body(place, stored[id].body)
    return found


def read_window(store: Store, group: str, place: WindowId) -> Window | None:
    """As ``read_windows``, of one."""
    return read_windows(store, group, [place]).get(place)
