"""The first equation, of one window: the doors' word (its marker) held against the workers'.

    accepted + unconfirmed = indexed + duplicate + filtered + dead-lettered + in flight + lost in the queue

In a closed window of which nothing is in flight whatever the two sides differ by is the imbalance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from logweir.clock import WINDOW_US
from logweir.ledger.closings import Closing
from logweir.ledger.corrections import Correction
from logweir.ledger.emitter import Emitter
from logweir.ledger.equation import OUTCOMES, Row
from logweir.ledger.intervals import Intervals
from logweir.ledger.window import Window

PROCESS_GONE = "open: process gone"
CLOSED_AFTERWARDS = "closed afterwards"
"""Its successor, or a person, has said of a process that is gone that nothing more of it comes, and nothing has."""
GONE_AFTER_US = 300_000_000
"""A window that is open so long after its end, and nothing of its process in all that workers have read since: gone."""

WindowOf = tuple[int, str, int]
"""Partition, ingest epoch, window: what a window is, whatever the topic is."""

Stream = tuple[str, int]
"""(ingest epoch, partition): what an ingest process's numbers run in, whatever the topic is."""


@dataclass(slots=True)
class WindowBooks:
    """One window, or an hour of them, reconciled.

    ``gaps``: numbers of it that were given out, and neither settled, void nor known lost.
    """

    topic_id: str
    partition: int
    window: Window
    row: Row
    by_emitter: dict[Emitter, Row]
    lost: Intervals
    gaps: Intervals
    corrections: list[Correction]
    imbalance: int
    state: str

    @property
    def stream(self) -> Stream:
        return self.window.ingest_epoch, self.partition


def joined(parts: Iterable[tuple[str, int, Window]]) -> Iterator[tuple[str, int, Window]]:
    """The windows, as one those with a part in a topic and another part in the one that was made in its place."""
    known: dict[WindowOf, tuple[str, int, Window]] = {}
    for topic_id, partition, window in parts:
        place = partition, window.ingest_epoch, window.window
        if place not in known:
            known[place] = topic_id, partition, window
            continue
        other_topic_id, _, other = known[place]
        # The marker is where the process went on.
        is_later = window.marker is not None
        known[place] = topic_id if is_later else other_topic_id, partition, _with_part(other, window)
    yield from known.values()


def _with_part(window: Window, part: Window) -> Window:
    outcomes = {emitter: list(counts) for emitter, counts in window.outcomes.items()}
    for emitter, counts in part.outcomes.items():
        before = outcomes.get(emitter, [0] * len(counts))
        outcomes[emitter] = [one + other for one, other in zip(before, counts, strict=True)]
    return replace(
        window,
        numbers=Intervals([*window.numbers, *part.numbers]),
        voids=Intervals([*window.voids, *part.voids]),
        outcomes=outcomes,
        marker=part.marker or window.marker,
        amendments=[*window.amendments, *part.amendments],
        parts=[*window.parts, part.id],
    )


@dataclass(frozen=True, slots=True)
class Context:
    """What a window is reconciled with. ``accounted_us``: up to when everything that was received is accounted for."""

    accounted_us: int
    lost: Mapping[Stream, Intervals]
    corrections_of: Mapping[WindowOf, list[Correction]]
    closings: Mapping[Stream, Closing]


def reconciled(topic_id: str, partition: int, window: Window, context: Context) -> WindowBooks:
    """One window's books; ``state_of_open`` says more of those whose marker has not come."""
    voided = _voided(window)
    by_emitter = {
        emitter: Row(
            outcomes=dict(zip(OUTCOMES, counts, strict=False)),
            identity_conflicts=conflicts,
            recovered_in_queue=recovered,
        )
        for emitter, (*counts, conflicts, recovered) in window.outcomes.items()
    }
    stream = window.ingest_epoch, partition
    stream_lost = context.lost.get(stream, Intervals())
    lost_here, gaps = Intervals(), Intervals()
    imbalance = 0
    here = Intervals([*window.numbers, *window.voids])
    if window.marker is None:
        for row in by_emitter.values():
            row.accepted = row.settled
    else:
        for line in window.marker["accepted"]:
            row = by_emitter.setdefault((line["key"], line["emitter"]), Row())
            row.accepted += line["accepted"]
            row.unconfirmed += line["unconfirmed"]
        for first, last in (gap for pair in window.given for gap in here.gaps(*pair)):
            gaps.add(first, last)
            lost_here.add_all(stream_lost.within(first, last))
        gaps.remove_all(lost_here)
        imbalance = _imbalance(window, by_emitter, lost=len(lost_here), gaps=len(gaps), voided=voided)
    own = [one for place in places_of(partition, window) for one in context.corrections_of.get(place, ())]
    for correction in own:
        row = by_emitter.setdefault(correction.sender, Row())
        row.outcomes[correction.from_outcome] -= correction.count
        row.outcomes[correction.to_outcome] += correction.count
    total = Row()
    for row in by_emitter.values():
        total.add(row)
    # Exact for the window, also where numbers that did not come and void ones that did are of one emitter.
    total.in_flight, total.lost_in_queue = len(gaps), len(lost_here)
    total.recovered_in_queue = sum(last - first + 1 for pair in here for first, last in stream_lost.within(*pair))
    if window.marker is None:
        total.accepted, total.unconfirmed = total.settled - voided, voided
    else:
        total.unconfirmed = voided + sum(line["unconfirmed"] for line in window.marker["accepted"])
    state = "open"
    if window.closed and (imbalance or not gaps):
        state = "unbalanced" if imbalance else "balanced"
    return WindowBooks(topic_id, partition, window, total, by_emitter, lost_here, gaps, own, imbalance, state)


def _imbalance(window: Window, by_emitter: dict[Emitter, Row], *, lost: int, gaps: int, voided: int) -> int:
    """By how many events the door's word and the worker's differ in a closed window.

    Per emitter, so that one event too few of one and one too many of another do not cancel. What explains a difference:
    numbers that did not come (too few), and void numbers that came after all (too many).
    """
    differences = [row.unexplained for row in by_emitter.values()]
    left = {"lost_in_queue": lost, "in_flight": gaps}
    for row, difference in zip(by_emitter.values(), differences, strict=True):
        for name, count in left.items() if difference > 0 else ():
            explained = min(count, row.unexplained)
            setattr(row, name, explained)
            left[name] = count - explained
        row.unconfirmed += min(voided, max(0, -difference))
    unexplained = abs(sum(differences) - (lost + gaps - voided))
    if not lost + gaps:
        unexplained = max(unexplained, sum(one for one in differences if one > 0))
    if not voided:
        unexplained = max(unexplained, -sum(one for one in differences if one < 0))
    settled = sum(sum(counts[: len(OUTCOMES)]) for counts in window.outcomes.values())
    return max(unexplained, abs(len(window.numbers) - settled))


def _voided(window: Window) -> int:
    """How many numbers came although they were declared void."""
    return sum(last - first + 1 for pair in window.voids for first, last in window.numbers.within(*pair))


def places_of(partition: int, window: Window) -> Iterator[WindowOf]:
    """What it is, or what those are that are merged in it."""
    for minute in window.windows:
        yield partition, window.ingest_epoch, minute


def state_of_open(books: WindowBooks, context: Context, active_us: int) -> str:
    """Of a window without a marker. ``active_us``: the end of the last window in which anything of its process came."""
    window = books.window
    closing = context.closings.get(books.stream)
    if closing and closing.holds_of(books.topic_id, window.window, len(window.numbers)):
        return CLOSED_AFTERWARDS
    ended_us = (window.window + 1) * WINDOW_US
    return PROCESS_GONE if context.accounted_us - max(ended_us, active_us) > GONE_AFTER_US else "open"
