"""The first equation, of one window: the doors' word (its marker) held against the workers'.

    accepted + unconfirmed = indexed + duplicate + filtered + dead-lettered + in flight + lost in the queue

In a closed window of which nothing is in flight whatever the two sides differ by is the imbalance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from logweir.clock import WINDOW_US
from logweir.ledger.closings import Closing
from logweir.ledger.documents import StreamId, StreamWindow, WindowId
from logweir.ledger.emitter import Emitter
from logweir.ledger.equation import Row
from logweir.ledger.intervals import Intervals
from logweir.ledger.revisions import Correction
from logweir.ledger.window import Counts, Window
from logweir.record import OTHERS

PROCESS_GONE = "open: process gone"
CLOSED_AFTERWARDS = "closed afterwards"
"""Its successor, or a person, has said of a process that is gone that nothing more of it comes, and nothing has."""
GONE_AFTER_US = 300_000_000
"""A window that is open so long after its end, and nothing of its process in all that workers have read since: gone."""


@dataclass(slots=True)
class WindowBooks:
    """One window, or an hour of them, reconciled.

    ``gaps``: numbers of it that were given out, and neither settled, void nor known lost.
    """

    window: Window
    row: Row
    by_emitter: dict[Emitter, Row]
    lost: Intervals
    gaps: Intervals
    corrections: list[Correction]
    imbalance: int
    state: str

    @property
    def place(self) -> WindowId:
        return self.window.place

    @property
    def stream(self) -> StreamId:
        return self.window.place.stream


def joined(parts: Iterable[Window]) -> Iterable[Window]:
    """The windows, as one those with a part in a topic and another part in the one that was made in its place."""
    known: dict[StreamWindow, Window] = {}
    for window in parts:
        place = window.place.in_stream
        known[place] = _with_part(known[place], window) if place in known else window
    return known.values()


def _with_part(window: Window, part: Window) -> Window:
    outcomes = {emitter: replace(counts) for emitter, counts in window.outcomes.items()}
    for emitter, counts in part.outcomes.items():
        outcomes.setdefault(emitter, Counts()).add(counts)
    return replace(
        window,
        # The marker is where the process went on.
        place=part.place if part.marker is not None else window.place,
        numbers=Intervals([*window.numbers, *part.numbers]),
        voids=Intervals([*window.voids, *part.voids]),
        outcomes=outcomes,
        marker=part.marker or window.marker,
        amendments=[*window.amendments, *part.amendments],
        received_day=min((day for day in (window.received_day, part.received_day) if day is not None), default=None),
        parts=[*(window.parts or [window.place]), part.place],
    )


@dataclass(frozen=True, slots=True)
class Context:
    """What a window is reconciled with. ``accounted_us``: up to when everything that was received is accounted for."""

    accounted_us: int
    lost: Mapping[StreamId, Intervals]
    corrections_of: Mapping[StreamWindow, list[Correction]]
    closings: Mapping[StreamId, Closing]


def reconciled(window: Window, context: Context) -> WindowBooks:
    """One window's books; ``state_of_open`` says more of those whose marker has not come."""
    voided = _voided(window)
    counted, promises = window.matched()
    by_emitter = {
        emitter: Row(
            outcomes=counts.by_outcome(),
            identity_conflicts=counts.identity_conflicts,
            recovered_in_queue=counts.recovered_in_queue,
        )
        for emitter, counts in counted.items()
    }
    stream_lost = context.lost.get(window.stream, Intervals())
    lost_here, gaps = Intervals(), Intervals()
    imbalance = 0
    here = Intervals([*window.numbers, *window.voids])
    if window.marker is None:
        for row in by_emitter.values():
            row.accepted = row.settled
    else:
        for emitter, promise in promises.items():
            row = by_emitter.setdefault(emitter, Row())
            row.accepted += promise.accepted
            row.unconfirmed += promise.unconfirmed
        for first, last in (gap for pair in window.given for gap in here.gaps(*pair)):
            gaps.add(first, last)
            lost_here.add_all(stream_lost.within(first, last))
        gaps.remove_all(lost_here)
        imbalance = _imbalance(window, by_emitter, lost=lost_here.count, gaps=gaps.count, voided=voided)
    own = [one for place in places_of(window) for one in context.corrections_of.get(place, ())]
    for correction in own:
        others = correction.key, OTHERS
        is_summed = correction.sender not in by_emitter and others in by_emitter
        row = by_emitter.setdefault(others if is_summed else correction.sender, Row())
        row.outcomes[correction.from_outcome] -= correction.count
        row.outcomes[correction.to_outcome] += correction.count
    total = Row()
    for row in by_emitter.values():
        total.add(row)
    # Exact for the window, also where numbers that did not come and void ones that did are of one emitter.
    total.in_flight, total.lost_in_queue = gaps.count, lost_here.count
    total.recovered_in_queue = sum(last - first + 1 for pair in here for first, last in stream_lost.within(*pair))
    if window.marker is None:
        total.accepted, total.unconfirmed = total.settled - voided, voided
    else:
        total.unconfirmed = voided + sum(promise.unconfirmed for promise in window.marker.by_emitter.values())
    state = "open"
    if window.closed and (imbalance or not gaps):
        state = "unbalanced" if imbalance else "balanced"
    return WindowBooks(window, total, by_emitter, lost_here, gaps, own, imbalance, state)


def _imbalance(window: Window, by_emitter: dict[Emitter, Row], *, lost: int, gaps: int, voided: int) -> int:
    """By how many events the door's word and the worker's differ in a closed window.

    Per emitter, so that one event too few of one and one too many of another do not cancel. What explains a difference:
    numbers that did not come (too few), and void numbers that came after all (too many).
    """
    differences = [row.unexplained for row in by_emitter.values()]
    lost_left, gaps_left = lost, gaps
    for row, difference in zip(by_emitter.values(), differences, strict=True):
        if difference > 0:
            row.lost_in_queue = min(lost_left, row.unexplained)
            row.in_flight = min(gaps_left, row.unexplained)
            lost_left, gaps_left = lost_left - row.lost_in_queue, gaps_left - row.in_flight
        row.unconfirmed += min(voided, max(0, -difference))
    unexplained = abs(sum(differences) - (lost + gaps - voided))
    if not lost + gaps:
        unexplained = max(unexplained, sum(one for one in differences if one > 0))
    if not voided:
        unexplained = max(unexplained, -sum(one for one in differences if one < 0))
    settled = sum(counts.settled for counts in window.outcomes.values())
    return max(unexplained, abs(window.numbers.count - settled))


def _voided(window: Window) -> int:
    """How many numbers came although they were declared void."""
    return sum(last - first + 1 for pair in window.voids for first, last in window.numbers.within(*pair))


def places_of(window: Window) -> Iterator[StreamWindow]:
    """What it is, or what those are that are merged in it."""
    for minute in window.windows:
        yield window.place._replace(window=minute).in_stream


def state_of_open(books: WindowBooks, context: Context, active_us: int) -> str:
    """Of a window without a marker. ``active_us``: the end of the last window in which anything of its process came."""
    window = books.window
    closing = context.closings.get(books.stream)
    if closing and closing.holds_of(window.place, window.numbers.count):
        return CLOSED_AFTERWARDS
    ended_us = (window.window + 1) * WINDOW_US
    return PROCESS_GONE if context.accounted_us - max(ended_us, active_us) > GONE_AFTER_US else "open"
