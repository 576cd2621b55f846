"""The emitters of one partition: who sends, and a tracker for each run of those that number their events.

One ledger document per emitter and partition, with the position that it is true for. What an emitter's run is to have
sent lies in its tracker (``ledger/tracker.py``); this file keeps trackers in memory as far as there is room, and knows,
before a record is indexed, which of its events came on an earlier day already, or of which only the store can tell. In
a topic that was made anew, a document begins with what those of the topics before it said.
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from logweir.clock import DAY_US
from logweir.config import AccountingSettings
from logweir.event import day_of
from logweir.ledger.documents import EMITTER, EmitterId, PartitionId
from logweir.ledger.emitter import RETIRED_NAMES_MAX, Emitter, EmitterState, place_of
from logweir.ledger.intervals import Intervals
from logweir.ledger.position import Position
from logweir.ledger.shares import Shares
from logweir.ledger.tracker import Tracker
from logweir.metrics import registry
from logweir.outcomes import Outcome
from logweir.record import Batch, Record
from logweir.store.port import Store
from logweir_workers.accounting.settled import SettledRecord

# With a space, which no header can have: so no run that an emitter names is taken for one of these.
_IMPLIED = re.compile(r"run ([0-9]{1,15})", re.ASCII)
_IMPLIED_FIRST = "run 1"
# By how many numbers a source's own may come out of order when it is heard of first: more is a new run.
_REORDERED_MAX = 100
_SAY_AGAIN_S = 60.0
REASONS_OF_EMITTER_MAX = 512
"""Reasons in Log-Dropped of all tracked runs of one emitter that are told apart; an emitter's document is written each
time that anything comes of it."""

log = logging.getLogger(__name__)


class Earlier(NamedTuple):
    """Numbers that came first on another day (empty: long ago); or, if not ``is_sure``, on that day if at all."""

    first: int
    last: int
    day: str
    is_sure: bool = True


@dataclass(slots=True)
class FirstDays:
    """Of a record's events, by place, the other UTC day on which each came first, as YYYYMMDD."""

    known: dict[int, str] = field(default_factory=dict)
    """Empty when it was long ago."""
    possible: dict[int, list[str]] = field(default_factory=dict)
    """If it came before, then on one of these: only the store knows."""

    def note(self, places: Iterable[int], earlier: Earlier) -> None:
        if earlier.is_sure:
            self.known.update(dict.fromkeys(places, earlier.day))
        else:
            for place in places:
                self.possible.setdefault(place, []).append(earlier.day)


class _Expected(NamedTuple):
    """Numbers in a record that is on its way and not settled yet."""

    offset: int
    epoch: str
    first: int
    last: int
    day: str


@dataclass(slots=True)
class _Entry:
    """An emitter in memory: its document, and what only its worker knows."""

    state: EmitterState
    is_tracked: bool = True
    """False when there is no room for it in the ledger."""
    dirty: bool = False
    """The document is to be written."""
    expected: deque[_Expected] = field(default_factory=deque)
    expected_top: int = 0
    """The highest number that is expected."""


class EmitterLedger:
    """The emitters of one claimed partition. Changes its position; used by one thread."""

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
        self.shares = Shares(settings.emitters_max, count=position.emitters, by_key=position.emitters_by_key)
        """How many documents there are, for the limit; those that a crash left without a position are not in it."""
        self.untracked = position.emitters_untracked
        """How many batches came of emitters for which there was no room."""
        self._late_us = settings.late_us
        self._store = store
        self._group = group
        self._partition = partition
        self._before = before
        self._position = position
        self._settings = settings
        self._said_s = -_SAY_AGAIN_S
        # Most recently used last.
        self._entries: OrderedDict[Emitter, _Entry] = OrderedDict()

    @property
    def count(self) -> int:
        return self.shares.count

    # --- before a record is indexed --------------------------------------------------------------------------------
    def load(self, batches: Iterable[Batch]) -> None:
        """Have the emitters of these batches in memory. Raises LogweirError(STORE_DOWN)."""
        absent = {
            (batch.key, batch.emitter): place_of((batch.key, batch.emitter), self._partition)
            for batch in batches
            if (batch.key, batch.emitter) not in self._entries
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
                state = stored[place]
                state.position = self._position.true_for(state.position, state.rewinds)
                self._entries[emitter] = _Entry(state)
            elif self.shares.has_room(emitter[0]):
                self.shares.take(emitter[0])
                state = EmitterState(place, emitter)
                state.begin_with([stored_before[place] for place in former[emitter] if place in stored_before])
                self._entries[emitter] = _Entry(state)
            else:
                self._entries[emitter] = _Entry(EmitterState(place, emitter), is_tracked=False)

    def _read(self, places: Collection[EmitterId]) -> dict[EmitterId, EmitterState]:
        found = EMITTER.read(self._store.ledger, self._group, places) if places else {}
        return {place: EmitterState.from_body(place, document.body) for place, document in found.items()}

    def expect(self, record: Record, offset: int) -> FirstDays:
        """The record is going to be indexed: which of its numbered events came first on another day, or may have.

        To be called in the order of the offsets, after ``load``.
        """
        found = FirstDays()
        place = 0
        for batch in record.batches:
            is_numbered = batch.epoch is not None and batch.sequence_first is not None and batch.events
            if is_numbered and batch.has_numbers_in_bounds:
                assert batch.epoch is not None and batch.sequence_first is not None
                at = place - batch.sequence_first
                last = batch.sequence_first + len(batch.events) - 1
                expected = _Expected(offset, batch.epoch, batch.sequence_first, last, day_of(batch.received_us))
                for earlier in self._earlier(batch, expected):
                    found.note(range(at + earlier.first, at + earlier.last + 1), earlier)
            place += len(batch.events)
        return found

    def _earlier(self, batch: Batch, expected: _Expected) -> list[Earlier]:
        """Which numbers of a batch came first on another day, or may have; from now on all of them are expected."""
        entry = self._entries[batch.key, batch.emitter]
        _, epoch, first, last, day = expected
        tracker = entry.state.epochs.get(epoch)
        found: list[Earlier] = []
        if tracker is None:
            if not entry.is_tracked or entry.state.has_retired(epoch):
                # Nothing is known of its numbers. A sender that heard no answer tries again soon: not days later.
                found.append(Earlier(first, last, day_of(batch.received_us - DAY_US), is_sure=False))
        elif first <= tracker.top:
            found += (Earlier(*one) for one in tracker.on_other_days(first, last, day))
            if first <= tracker.floor:
                found += self._perhaps_earlier(entry.state, tracker, expected, batch.received_us)
        if first <= entry.expected_top:
            found += _on_the_way(entry.expected, tracker, expected)
        entry.expected.append(expected)
        if last > entry.expected_top:
            entry.expected_top = last
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
    def settle(self, settled: SettledRecord) -> None:
        """Count the record's batches, and its events as they number themselves, each once."""
        record, offset, door = settled.record, settled.offset, settled.ingest_epoch
        place = 0
        for batch in record.batches:
            end = place + len(batch.events)
            self._count(batch, offset, settled.outcomes[place:end], natural=False, door=door)
            place = end
        for run in settled.natural:
            self._count(run, offset, [Outcome.INDEXED] * len(run.events), natural=True, door=door)
        # All of the record is counted: its emitters' documents are true behind it.
        for batch in (*record.batches, *settled.natural):
            state = self._entries[batch.key, batch.emitter].state
            if state.position <= offset:
                state.position = offset + 1

    def _count(self, batch: Batch, offset: int, outcomes: Sequence[Outcome], *, natural: bool, door: str) -> None:
        """Count one batch.

        ``natural``: its numbers are the events' own; without an epoch, a number 1 that comes again begins a new run.
        ``door``: the ingest process that received it.
        """
        position, entry = self._position, self._entries[batch.key, batch.emitter]
        state = entry.state
        if batch.received_us > position.watermark_us:
            position.watermark_us = batch.received_us
        self._entries.move_to_end(state.emitter)
        while entry.expected and entry.expected[0].offset <= offset:
            entry.expected.popleft()
        if not entry.expected:
            entry.expected_top = 0
        if not entry.is_tracked:
            self.untracked += 1
            self._say_untracked(batch.key)
            registry.get("logweir_worker_emitters_untracked_total").inc()
            return
        if offset < state.position:
            # Counted, but perhaps by one who died before the position was written, and with it when this is due.
            gaps = [tracker.gaps[-1].since_us for tracker in state.epochs.values() if tracker.gaps]
            position.due_us = max([position.due_us, *(since_us + self._late_us for since_us in gaps)])
            return
        entry.dirty = True
        state.first_us = state.first_us or batch.received_us
        state.cadence.mark(batch.received_us)
        if batch.received_us >= state.last_us:
            state.last_us, state.source_address, state.door = batch.received_us, batch.source_address, door
        if not batch.has_numbers_in_bounds:
            # A door of before the bound took it. No tracker could count it, and no store keep it.
            self.untracked += 1
            registry.get("logweir_worker_emitters_untracked_total").inc()
            return
        epoch = batch.epoch
        if natural and epoch is None:
            epoch = _implied_epoch(state, batch, self._late_us)
        if epoch is not None and (epoch in state.epochs or epoch not in state.retired_names):
            self._track(state, batch, epoch, outcomes, natural=natural)

    def _say_untracked(self, key: str) -> None:
        if time.monotonic() - self._said_s < _SAY_AGAIN_S:
            return
        self._said_s = time.monotonic()
        log.warning(
            "Emitters of the key %s are not tracked, nor watched for silence, on partition %d: it has %d, and"
            " accounting.emitters_max (%d) is reached. (Said once a minute; all batches are counted.)",
            key,
            self._partition.partition,
            self.shares.by_key[key],
            self._settings.emitters_max,
            extra={"key": key, "partition": self._partition.partition},
        )

    def _track(
        self, state: EmitterState, batch: Batch, epoch: str, outcomes: Sequence[Outcome], *, natural: bool
    ) -> None:
        """Count a batch of which it is known in which run it is."""
        position, late_us, gaps_max = self._position, self._late_us, self._settings.gaps_max
        watermark_us = position.watermark_us
        tracker = state.epochs.get(epoch)
        is_new = tracker is None
        if tracker is None:
            start = (batch.sequence_first or 1) if natural else 1
            tracker = Tracker(epoch, natural=natural, start=start, top=start - 1, begun_us=batch.received_us)
        if batch.previous is not None:
            tracker.previous = batch.previous
            if is_new:
                self._bound_previous(state, batch.previous)
        state.epochs[epoch] = tracker
        state.epochs.move_to_end(epoch)
        if batch.sequence_first is not None and outcomes:
            tracker.arrive(
                batch.sequence_first,
                outcomes,
                day=day_of(batch.received_us),
                watermark_us=watermark_us,
                late_us=late_us,
                ranges_max=gaps_max,
            )
        if batch.high is not None and batch.high > tracker.top:
            tracker.reach(batch.high, watermark_us=watermark_us, ranges_max=gaps_max)
        if batch.dropped:
            tracker.drop(batch.dropped, watermark_us=watermark_us, late_us=late_us)
        if batch.bye:
            tracker.bye = True
        if batch.received_us > tracker.last_us:
            tracker.last_us = batch.received_us
        if is_new:
            self._retire(state)
        self._bound(state)
        if (tracker.gaps or is_new) and watermark_us + late_us > position.due_us:
            position.due_us = watermark_us + late_us

    def _bound_previous(self, state: EmitterState, previous: tuple[str, int]) -> None:
        """A new run says how far the one before it was: what of that never came is missing now."""
        epoch, last = previous
        tracker = state.epochs.get(epoch)
        if tracker is None:
            # Of an emitter that is new here nobody knows what it sent before; a run that we forgot is settled.
            if not state.epochs or state.has_retired(epoch):
                return
            tracker = state.epochs[epoch] = Tracker(epoch, last_us=state.last_us)
        tracker.reach(last, watermark_us=self._position.watermark_us, ranges_max=self._settings.gaps_max)

    def _retire(self, state: EmitterState) -> None:
        while len(state.epochs) > self._settings.epochs_max:
            epoch, tracker = state.epochs.popitem(last=False)
            # Nothing of it is waited for any more: what is missing is lost.
            losses = tracker.losses(watermark_us=self._position.watermark_us + self._late_us, late_us=self._late_us)
            sums = {
                "epochs": 1,
                "created": tracker.created,
                "accepted": tracker.accepted,
                "lost": losses.lost,
                "recovered": losses.recovered,
                "dropped": losses.dropped,
                "jumped": losses.jumped,
            }
            for name, count in sums.items():
                state.retired[name] = state.retired.get(name, 0) + count
            state.retired_names = [*state.retired_names, epoch][-RETIRED_NAMES_MAX:]

    def _bound(self, state: EmitterState) -> None:
        """Keep what its document says of all its runs together within limits: the oldest runs' is only summed up."""
        gaps = sum(len(tracker.gaps) for tracker in state.epochs.values()) - self._settings.gaps_max
        reasons = sum(len(tracker.dropped) for tracker in state.epochs.values()) - REASONS_OF_EMITTER_MAX
        for tracker in state.epochs.values():
            if gaps <= 0 and reasons <= 0:
                return
            if gaps > 0:
                before = len(tracker.gaps)
                tracker.bound_gaps(max(0, before - gaps))
                gaps -= before - len(tracker.gaps)
            if reasons > 0:
                before = len(tracker.dropped)
                tracker.bound_reasons(max(0, before - reasons))
                reasons -= before - len(tracker.dropped)

    # --- in the store ----------------------------------------------------------------------------------------------
    def rewind(self, offset: int) -> None:
        """The queue will give out the offsets from ``offset`` on again."""
        for entry in self._entries.values():
            if entry.state.position > offset:
                entry.state.position, entry.dirty = offset, True

    def touched(self) -> list[EmitterState]:
        """Those to be written."""
        return [entry.state for entry in self._entries.values() if entry.dirty]

    def written(self) -> None:
        """What was touched is in the store: leave the least recently used out of memory, down to the setting."""
        for entry in self._entries.values():
            entry.dirty = False
        surplus = len(self._entries) - self._settings.emitters_in_memory_max
        for emitter in list(self._entries)[: max(0, surplus)]:
            entry = self._entries[emitter]
            if not entry.expected:
                if entry.is_tracked and not entry.state.position:
                    self.shares.give_back(emitter[0])  # It was loaded for a record that never settled: there is none.
                del self._entries[emitter]

    def is_at_rest(self, emitter: Emitter) -> bool:
        """Whether nothing of it is to be written or on its way."""
        entry = self._entries.get(emitter)
        return entry is None or not (entry.dirty or entry.expected)

    def evict(self, emitter: Emitter) -> None:
        """Forget one whose document is about to leave the ledger, and which is at rest."""
        self._entries.pop(emitter, None)
        self.shares.give_back(emitter[0])


def _implied_epoch(state: EmitterState, batch: Batch, late_us: int) -> str:
    """Of numbers without a run: they are of the latest such run, and begin another one when they begin anew."""
    newest_first = reversed(state.epochs.items())
    own = (epoch for epoch, tracker in newest_first if tracker.natural and _IMPLIED.fullmatch(epoch))
    latest = next(own, _IMPLIED_FIRST)
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


def _on_the_way(expected: Iterable[_Expected], tracker: Tracker | None, wanted: _Expected) -> Iterator[Earlier]:
    """Of the wanted numbers, those that came first in a record that is not settled yet, on another day."""
    new = Intervals([(wanted.first, wanted.last)])
    if tracker is not None:
        # Which of those up to the floor have come is not known: that one on the way is the first is as good.
        new.remove_all(tracker.seen.within(max(wanted.first, tracker.floor + 1), wanted.last))
    for earlier in expected:
        if earlier.epoch != wanted.epoch:
            continue
        for first, last in list(new.within(earlier.first, earlier.last)):
            new.remove(first, last)
            if earlier.day != wanted.day:
                yield Earlier(first, last, earlier.day)
