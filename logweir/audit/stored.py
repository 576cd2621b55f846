"""The store's own word: how many events it has of what the ledger says is indexed.

Documents are found by the numbers of their ingest process, whatever time they bear: a clock that was set back changes
when an event was received, not which it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logweir.clock import DAY_US
from logweir.event import day_of, stream_of
from logweir.ledger.differences import StoreDifference
from logweir.ledger.documents import DAY_WINDOWS, HOUR_WINDOWS, StreamId
from logweir.ledger.window import Window
from logweir.store.port import Store


class StreamDay(NamedTuple):
    """A day of an ingest process on a partition: of its windows from 01:00 on, and those of the first hour of the next.

    Not from midnight: what was received just before midnight may be in a window behind it, and be expired a day sooner.
    """

    stream: StreamId
    day: int
    """Since 1970."""

    @property
    def name(self) -> str:
        """YYYYMMDD."""
        return day_of(self.day * DAY_US)


def stream_day_of(window: Window) -> StreamDay:
    """Of a window, or of an hour of them."""
    return StreamDay(window.stream, (window.window - HOUR_WINDOWS) // DAY_WINDOWS)


@dataclass(slots=True)
class Indexed:
    """Numbers, and how many events of them the ledger says are indexed."""

    lowest: int
    highest: int
    count: int
    first_day: int
    """The earliest that one of them is kept under."""

    def may_be_expired(self, expired_before: str) -> bool:
        return day_of(self.first_day * DAY_US) < expired_before


@dataclass(slots=True)
class IndexedByDay:
    """What the store should have."""

    days: dict[StreamDay, Indexed] = field(default_factory=dict)

    def add(self, window: Window, count: int) -> None:
        """Add a window, or an hour of them, of which so many events are indexed."""
        if not window.numbers.max:
            return
        lowest, highest = window.numbers.min, window.numbers.max
        known = self.days.get(day := stream_day_of(window))
        first_day = day.day if window.received_day is None else min(day.day, window.received_day)
        if known is None:
            self.days[day] = Indexed(lowest, highest, count, first_day)
        else:
            known.first_day = min(known.first_day, first_day)
            known.lowest, known.highest = min(known.lowest, lowest), max(known.highest, highest)
            known.count += count


@dataclass(frozen=True, slots=True)
class Shortage:
    """A day of which the store has fewer events than the ledger says are indexed."""

    place: StreamDay
    stored: int
    indexed: int

    @property
    def missing(self) -> int:
        return self.indexed - self.stored

    def as_json(self) -> dict[str, Any]:
        return {
            "day": self.place.name,
            "partition": self.place.stream.partition,
            "ingest_epoch": self.place.stream.ingest_epoch,
            "stored": self.stored,
            "indexed": self.indexed,
            "difference": -self.missing,
        }


def shortages(
    store: Store, indexed: IndexedByDay, differences: Iterable[StoreDifference], *, expired_before: str
) -> Iterator[Shortage]:
    """Days of which more is missing in the store than its known ``differences`` say; none that is expired.

    Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
    """
    known: dict[StreamDay, int] = {}
    for one in differences:
        day = stream_day_of(Window(one.place))
        known[day] = known.get(day, 0) + min(0, one.difference)
    for place, of_day in indexed.days.items():
        if of_day.may_be_expired(expired_before):
            continue
        expected = of_day.count + known.get(place, 0)
        middle_us = place.day * DAY_US + DAY_US // 2
        stored = count_stored(store, place.stream, of_day.lowest, of_day.highest, at_us=middle_us, expected=expected)
        if stored < expected:
            yield Shortage(place, stored, expected)


def count_stored(store: Store, stream: StreamId, lowest: int, highest: int, *, at_us: int, expected: int) -> int:
    """How many events of these numbers the store has. Looked for where those received at that time are, first.

    Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
    """
    name = stream_of(bytes.fromhex(stream.ingest_epoch), stream.partition)
    days = day_of(max(0, at_us - DAY_US)), day_of(at_us + DAY_US)
    count = store.count_numbers(name, lowest, highest, days=days)
    return count if count == expected else store.count_numbers(name, lowest, highest)
