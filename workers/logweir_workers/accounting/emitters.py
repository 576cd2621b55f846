"""The emitters of one partition: who sends, and a tracker for each run of those that number their events.

One ledger document per emitter and partition, with the position that it is true for. What an emitter's run is to have
sent lies in its tracker (``ledger/tracker.py``); this file keeps trackers in memory as far as there is room, and knows,
before a record is indexed, which of its events came on an earlier day already, or of which only the store can tell. In
a topic that was made anew, a document begins with what those of the topics before it said.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from logweir.clock import DAY_US
from logweir.config import AccountingSettings
from logweir.event import day_of
from logweir.ledger.documents import EMITTER, EmitterId, PartitionId
from logweir.ledger.emitter import _RETIRED_NAMES_MAX, Emitter, EmitterState, _Expected, place_of
from logweir.ledger.intervals import Intervals
from logweir.ledger.position import Position
from logweir.ledger.tracker import Tracker
from logweir.metrics import registry
from logweir.outcomes import Outcome
from logweir.record import Batch
from logweir.store.port import Store

# With a space, which no header can have: so no run that an emitter names is taken for one of these.
_IMPLIED = re.compile(r"run ([0-9]{1,15})", re.ASCII)
_IMPLIED_FIRST = "run 1"
# By how many numbers a source's own may come out of order when it is heard of first: more is a new run.
_REORDERED_MAX = 100


class Earlier(NamedTuple):
    """Numbers that came first on another day (empty: long ago); or, if not ``is_sure``, on that day if at all."""

    first: int
    last: int
    day: str
    is_sure: bool = True


class EmitterLedger:
    """The emitters of one claimed partition. Used by one thread.

    ``count``: how many documents there are, for the limit; those that a crash left without a position are not in it.
    ``untracked``: how many batches came of emitters for which there was no room.
    """

    def __init__(
        self,
        *,
        store: Store,
        group: str,
        partition: PartitionId,
        before: Collection[PartitionId],
        settings: AccountingSettings,
        position: Position,
    ) -> None:
        self.count = position.emitters
        self.untracked = position.emitters_untracked
        self.late_us = settings.late_us
        self._store = store
        self._group = group
        self._partition = partition
        self._before = before
        self._position = position
        self._settings = settings
        # Most recently used last.
        self._states: OrderedDict[Emitter, EmitterState] = OrderedDict()

    # --- before a record is indexed --------------------------------------------------------------------------------
    def load(self, batches: Iterable[Batch]) -> None:
        """Have the emitters of these batches in memory. Raises LogweirError(STORE_DOWN)."""
        absent = {
            (batch.key, batch.emitter): place_of((batch.key, batch.emitter), self._partition)
            for batch in batches
            if (batch.key, batch.emitter) not in self._states
        }
        if not absent:
            return
        stored = self._read(absent.values())
        former = {
            emitter: [place_of(emitter, partition) for partition in self._before]
            for emitter, place in absent.items()
            if place not in stored
        }
        stored_before = self._read([place for places in former.values() for place in places])
        for emitter, place in absent.items():
            if place in stored:
                state = self._states[emitter] = stored[place]
                state.position = self._position.true_for(state.position, state.rewinds)
            elif self.count < self._settings.emitters_max:
                self.count += 1
                state = self._states[emitter] = EmitterState(place, emitter)
                state.begin_with([stored_before[place] for place in former[emitter] if place in stored_before])
            else:
                self._states[emitter] = EmitterState(place, emitter, is_tracked=False)

    def _read(self, places: Collection[EmitterId]) -> dict[EmitterId, EmitterState]:
        found = EMITTER.read(self._store.ledger, self._group, places) if places else {}
        return {place: EmitterState.from_body(place, document.body) for place, document in found.items()}

    def expect(self, batch: Batch, offset: int) -> list[Earlier]:
        """The batch is going to be indexed: which of its numbers came first on another day, or may have.

        To be called in the order of the offsets, after ``load``.
        """
        state = self._states[batch.key, batch.emitter]
        if batch.epoch is None or batch.sequence_first is None or not batch.events:
            return []
        first, last = batch.sequence_first, batch.sequence_first + len(batch.events) - 1
        expected = _Expected(offset, batch.epoch, first, last, day_of(batch.received_us))
        tracker = state.epochs.get(batch.epoch)
        found: list[Earlier] = []
        if tracker is None:
            if not state.is_tracked or state.has_retired(batch.epoch):
                # Nothing is known of its numbers. A sender that heard no answer tries again soon: not days later.
                found.append(Earlier(first, last, day_of(batch.received_us - DAY_US), is_sure=False))
        elif first <= tracker.top:
            found += (Earlier(*one) for one in tracker.on_other_days(first, last, expected.day))
            if first <= tracker.floor:
                found += self._perhaps_earlier(state, tracker, expected, batch.received_us)
        if first <= state.expected_top:
            found += _on_the_way(state, tracker, expected)
        state.expected.append(expected)
        if last > state.expected_top:
            state.expected_top = last
        return found

    def _perhaps_earlier(
        self, state: EmitterState, tracker: Tracker, wanted: _Expected, received_us: int
    ) -> Iterator[Earlier]:
        """Of numbers that the tracker only counts, the days on which they may have come."""
        for first, last, day in tracker.perhaps_on_other_days(wanted.first, wanted.last, wanted.day):
            if day:
                yield Earlier(first, last, day, is_sure=False)
                continue
            since_us = max(state.first_us, received_us - self._settings.retention_days * DAY_US)
            for at in range(since_us // DAY_US, received_us // DAY_US):
                yield Earlier(first, last, day_of(at * DAY_US), is_sure=False)

    # --- when it is indexed ----------------------------------------------------------------------------------------
    def settle(
        self,
        batch: Batch,
        offset: int,
        outcomes: Sequence[Outcome],
        watermark_us: int,
        *,
        natural: bool = False,
        door: str = "",
    ) -> int:
        """Count a batch, once; gives when all that is missing now will be lost (microseconds; 0: nothing is).

        ``natural``: its numbers are the events' own; without an epoch, a number 1 that comes again begins a new run.
        ``door``: the ingest process that received it.
        """
        state = self._states[batch.key, batch.emitter]
        self._states.move_to_end(state.emitter)
        while state.expected and state.expected[0].offset <= offset:
            state.expected.popleft()
        if not state.expected:
            state.expected_top = 0
        if not state.is_tracked:
            self.untracked += 1
            registry.get("logweir_worker_emitters_untracked_total").inc()
            return 0
        if offset < state.position:
            # Counted, but perhaps by one who died before the position was written, and with it when this is due.
            gaps = [tracker.gaps[-1].since_us for tracker in state.epochs.values() if tracker.gaps]
            return max(gaps) + self.late_us if gaps else 0
        state.dirty = True
        state.first_us = state.first_us or batch.received_us
        state.rhythm.mark(batch.received_us)
        if batch.received_us >= state.last_us:
            state.last_us, state.source_address, state.door = batch.received_us, batch.source_address, door
        epoch = batch.epoch
        if natural and epoch is None:
            epoch = _implied_epoch(state, batch, self.late_us)
        if epoch is None or (epoch not in state.epochs and epoch in state.retired_names):
            return 0
        return self._track(state, batch, epoch, outcomes, watermark_us, natural=natural)

    def _track(
        self,
        state: EmitterState,
        batch: Batch,
        epoch: str,
        outcomes: Sequence[Outcome],
        watermark_us: int,
        *,
        natural: bool,
    ) -> int:
        tracker = state.epochs.get(epoch)
        known = tracker is not None
        if tracker is None:
            start = (batch.sequence_first or 1) if natural else 1
            tracker = Tracker(epoch, natural=natural, start=start, top=start - 1, begun_us=batch.received_us)
        if batch.previous is not None:
            tracker.previous = batch.previous
            if not known:
                self._bound_previous(state, batch.previous, watermark_us)
        state.epochs[epoch] = tracker
        state.epochs.move_to_end(epoch)
        gaps_max = self._settings.gaps_max
        if batch.sequence_first is not None and outcomes:
            tracker.arrive(
                batch.sequence_first,
                outcomes,
                day=day_of(batch.received_us),
                watermark_us=watermark_us,
                late_us=self.late_us,
                ranges_max=gaps_max,
            )
        if batch.high is not None and batch.high > tracker.top:
            tracker.reach(batch.high, watermark_us=watermark_us, ranges_max=gaps_max)
        if batch.dropped:
            tracker.drop(batch.dropped, watermark_us=watermark_us, late_us=self.late_us)
        if batch.bye:
            tracker.bye = True
        if batch.received_us > tracker.last_us:
            tracker.last_us = batch.received_us
        if not known:
            self._retire(state, watermark_us)
        return watermark_us + self.late_us if tracker.gaps or not known else 0

    def _bound_previous(self, state: EmitterState, previous: tuple[str, int], watermark_us: int) -> None:
        """A new run says how far the one before it was: what of that never came is missing now."""
        epoch, last = previous
        tracker = state.epochs.get(epoch)
        if tracker is None:
            # Of an emitter that is new here nobody knows what it sent before; a run that we forgot is settled.
            if not state.epochs or state.has_retired(epoch):
                return
            tracker = state.epochs[epoch] = Tracker(epoch, last_us=state.last_us)
        tracker.reach(last, watermark_us=watermark_us, ranges_max=self._settings.gaps_max)

    def _retire(self, state: EmitterState, watermark_us: int) -> None:
        while len(state.epochs) > self._settings.epochs_max:
            epoch, tracker = state.epochs.popitem(last=False)
            # Nothing of it is waited for any more: what is missing is lost.
            losses = tracker.losses(watermark_us=watermark_us + self.late_us, late_us=self.late_us)
            sums = {
                "epochs": 1,
                "created": tracker.created,
                "accepted": tracker.accepted,
                "lost": losses.lost,
                "recovered": losses.recovered,
                "dropped": losses.dropped,
            }
            for name, count in sums.items():
                state.retired[name] = state.retired.get(name, 0) + count
            state.retired_names = [*state.retired_names, epoch][-_RETIRED_NAMES_MAX:]

    # --- in the store ----------------------------------------------------------------------------------------------
    def counted(self, batches: Iterable[Batch], offset: int) -> None:
        """All of the record at ``offset`` is counted: its emitters' documents are true behind it."""
        for batch in batches:
            state = self._states[batch.key, batch.emitter]
            if state.position <= offset:
                state.position = offset + 1

    def rewind(self, offset: int) -> None:
        for state in self._states.values():
            if state.position > offset:
                state.position, state.dirty = offset, True

    def touched(self) -> list[EmitterState]:
        """Those to be written."""
        return [state for state in self._states.values() if state.dirty]

    def is_at_rest(self, emitter: Emitter) -> bool:
        """Whether nothing of it is to be written or on its way."""
        state = self._states.get(emitter)
        return state is None or not (state.dirty or state.expected)

    def let_go(self, emitter: Emitter) -> None:
        """Forget one whose document is about to leave the ledger, and which is at rest."""
        self._states.pop(emitter, None)
        self.count -= 1

    def forget(self) -> None:
        """Leave the least recently used out of memory, down to the setting; never one that has to be written."""
        surplus = len(self._states) - self._settings.emitters_in_memory_max
        for emitter in list(self._states)[: max(0, surplus)]:
            state = self._states[emitter]
            if not (state.dirty or state.expected):
                if state.is_tracked and not state.position:
                    self.count -= 1  # It was loaded for a record that never settled: there is no document.
                del self._states[emitter]


def _implied_epoch(state: EmitterState, batch: Batch, late_us: int) -> str:
    """Of numbers without a run: they are of the latest such run, and begin another one when they begin anew."""
    own = [epoch for epoch, tracker in state.epochs.items() if tracker.natural and _IMPLIED.fullmatch(epoch)]
    latest = own[-1] if own else _IMPLIED_FIRST
    tracker = state.epochs.get(latest)
    if tracker is not None and _begins_anew(tracker, batch, late_us):
        return f"run {int(latest.removeprefix('run ')) + 1}"
    return latest


def _begins_anew(tracker: Tracker, batch: Batch, late_us: int) -> bool:
    """Whether the source has begun to count again, and not only sent on several ways at once when it was heard first.

    What came out of order then is a little below the first number that came, and not much later than that.
    """
    first = batch.sequence_first or 0
    if first >= tracker.start:
        return first == 1 and tracker.seen.covers(1, 1)
    skipped = tracker.start - (first + len(batch.events))
    return skipped > _REORDERED_MAX or (first == 1 and batch.received_us > tracker.begun_us + late_us)


def _on_the_way(state: EmitterState, tracker: Tracker | None, wanted: _Expected) -> Iterator[Earlier]:
    """Of the wanted numbers, those that came first in a record that is not settled yet, on another day."""
    new = Intervals([(wanted.first, wanted.last)])
    if tracker is not None:
        # Which of those up to the floor have come is not known: that one on the way is the first is as good.
        new.remove_all(tracker.seen.within(max(wanted.first, tracker.floor + 1), wanted.last))
    for earlier in state.expected:
        if earlier.epoch != wanted.epoch:
            continue
        for first, last in list(new.within(earlier.first, earlier.last)):
            new.remove(first, last)
            if earlier.day != wanted.day:
                yield Earlier(first, last, earlier.day)
