"""Events of a replay, a bulk at a time: what the books say of them, what is in the store, and what is to be done.

    look -> decide -> letters kept -> documents written -> documents deleted -> letters removed -> revisions

Revisions come last and begin at what the ledger says, never at what the store has: so after a kill between any two
steps the same events, replayed again, end the same, and the correction lines count each of them once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from logweir import event as identity
from logweir.clock import Clock
from logweir.event import Document, Provenance
from logweir.ledger.deviations import INDEXED, OutcomeReason
from logweir.ledger.documents import WindowId
from logweir.ledger.hours import read_window
from logweir.ledger.replays import ReplayCounts
from logweir.ledger.revisions import Change, Present, read_present, revise
from logweir.ledger.window import Window
from logweir.outcomes import DeadLetterReason, Outcome, Stage
from logweir.queue.port import Delivery
from logweir.record import Batch, Record
from logweir.store.port import LetterFilter, Store
from logweir_workers.accounting.store_audit import count_documents
from logweir_workers.backoff import until_it_answers
from logweir_workers.deadletters import letter as dead_letter
from logweir_workers.deadletters.keeper import LetterRoom
from logweir_workers.document import Documents, EventUnfit, Filtered, context_of
from logweir_workers.index import index, outcome_of

CAUSE = "replay"
"""The cause of all correction lines of replays."""

_WINDOWS_IN_MEMORY_MAX = 64


@dataclass(frozen=True, slots=True)
class Event:
    """One accepted event, as it stands in the queue: ``at`` is its place in ``batch.events``, ``id`` its document's."""

    delivery: Delivery
    record: Record
    batch: Batch
    at: int
    stream: str
    number: int
    id: str

    @property
    def raw(self) -> bytes:
        return self.batch.events[self.at]

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.stream, self.number, identity.content_hash_of(self.raw))

    @property
    def day(self) -> str:
        return identity.day_of(self.batch.received_us)

    @property
    def letter_id(self) -> str:
        return identity.letter_id(self.stream, self.number)


@dataclass(slots=True)
class _Case:
    """An event under way. ``counted``: what a worker counted; ``present``: what the ledger says now; None: not kept.

    ``stored``: what is under its id, if it is its own. ``is_told``: ``present`` is what the store has told, not the
    ledger. ``made``: what it becomes by today's rules, when that matters. ``outcome``: what becomes of it.
    """

    event: Event
    place: WindowId
    counted: OutcomeReason | None
    present: OutcomeReason | None
    books: Present
    stored: dict[str, Any] | None = None
    is_told: bool = False
    made: Document | Filtered | EventUnfit | None = None
    outcome: OutcomeReason | None = None

    @property
    def was(self) -> Outcome:
        assert self.present is not None
        return self.present.outcome

    @property
    def moves(self) -> bool:
        """Whether another outcome becomes of it."""
        return self.outcome is not None and self.outcome.outcome is not self.was

    def change(self, outcome: Outcome, reason: str | None) -> Change:
        counted = self.counted or self.present
        assert counted is not None
        batch = self.event.batch
        return Change(self.event.number, (batch.key, batch.emitter), counted.outcome, outcome, reason)


class Replayer:
    """Replays bulks of events. ``reprocess``: all of them by today's rules; else only what is missing in the store.

    ``dry_run``: only counts. For one thread.
    """

    def __init__(
        self,
        *,
        store: Store,
        group: str,
        topic_id: str,
        documents: Documents,
        letter_room: LetterRoom,
        reprocess: bool,
        dry_run: bool,
        first_day: str,
        events_max: int,
        owner: str,
        clock: Clock,
        stopping: threading.Event,
        tally: ReplayCounts,
    ) -> None:
        self._store = store
        self._group = group
        self._topic_id = topic_id
        self._documents = documents
        self._letter_room = letter_room
        self._reprocess = reprocess
        self._dry_run = dry_run
        self._first_day = first_day
        self._events_max = events_max
        self._owner = owner
        self._clock = clock
        self._stopping = stopping
        self._tally = tally
        self._windows: OrderedDict[WindowId, Window | None] = OrderedDict()
        self._whole: OrderedDict[WindowId, bool] = OrderedDict()

    def take(self, events: Sequence[Event]) -> None:
        """Replay them, durably; none may be there twice. Raises Stopped; LogweirError(STORE_REFUSES)."""
        tally = self._tally
        kept = [event for event in events if event.day >= self._first_day]
        tally.events += len(events)
        tally.expired += len(events) - len(kept)
        cases = self._cases(kept)
        tally.uncounted += len(kept) - len(cases)
        self._look(cases)
        unkept = [case for case in cases if case.present is None]
        self._settle([case for case in cases if case.present is not None])
        # Behind the others: what was missing of them is in the store again, so that it is whole but for these.
        self._tell(unkept)
        self._settle([case for case in unkept if case.present is not None])
        tally.undecided += sum(case.present is None for case in unkept)

    def _settle(self, cases: list[_Case]) -> None:
        for case in cases:
            self._decide(case)
        if not self._dry_run:
            self._apply([case for case in cases if case.outcome is not None])
        for case in cases:
            self._count(case)

    # --- look ------------------------------------------------------------------------------------------------------
    def _cases(self, events: Sequence[Event]) -> list[_Case]:
        """Those of the events that a worker has counted, with what the ledger says of them."""
        by_window: dict[WindowId, list[Event]] = defaultdict(list)
        for event in events:
            epoch = event.record.ingest_epoch.hex()
            place = WindowId(self._topic_id, event.delivery.partition, epoch, event.record.window)
            by_window[place].append(event)
        cases: list[_Case] = []
        for place, of_window in by_window.items():
            window = self._window(place)
            if window is not None:
                cases += self._of_window(window, of_window)
        return cases

    def _of_window(self, window: Window, events: list[Event]) -> list[_Case]:
        first, last = min(event.number for event in events), max(event.number for event in events)
        books = until_it_answers(lambda: read_present(self._store, self._group, window, first, last), self._stopping)
        counted, revised = books.counted(first, last), books.revised(first, last)
        return [
            _Case(event, window.place, counted[event.number], revised.get(event.number, counted[event.number]), books)
            for event in events
            if event.number in counted
        ]

    def _window(self, place: WindowId) -> Window | None:
        if place not in self._windows:
            self._windows[place] = until_it_answers(
                lambda: read_window(self._store, self._group, place), self._stopping
            )
            if len(self._windows) > _WINDOWS_IN_MEMORY_MAX:
                self._windows.popitem(last=False)
        self._windows.move_to_end(place)
        return self._windows[place]

    def _look(self, cases: list[_Case]) -> None:
        """See what the store has of them."""
        places = [(case.event.day, case.event.id) for case in cases]
        if self._reprocess:
            stored = until_it_answers(lambda: self._store.sources(places), self._stopping)
        else:
            found = until_it_answers(lambda: self._store.provenances(places), self._stopping)
            stored = [
                None if one is None else {"ingest_stream": one.stream, "ingest_number": one.number} for one in found
            ]
        for case, source in zip(cases, stored, strict=True):
            event = case.event
            if source and (source["ingest_stream"], source["ingest_number"]) == (event.stream, event.number):
                case.stored = source
                if case.present is None:
                    case.present, case.is_told = INDEXED, True

    def _tell(self, cases: list[_Case]) -> None:
        """Say what those were whose outcome the ledger had no room for, where only one is possible."""
        if not cases:
            return
        wanted = LetterFilter(ids=tuple(case.event.letter_id for case in cases))
        page = until_it_answers(lambda: self._store.dead_letters.page(size=len(cases), wanted=wanted), self._stopping)
        letters = {letter.id: letter.reason for letter in page}
        for case in cases:
            case.is_told = True
            if case.event.letter_id in letters:
                case.present = OutcomeReason(Outcome.DEAD_LETTERED, letters[case.event.letter_id])
                continue
            self._make(case)
            possible = case.books.outcomes_unkept
            if isinstance(case.made, Filtered) and Outcome.FILTERED in possible:
                case.present = OutcomeReason(Outcome.FILTERED, case.made.rule)
            elif self._is_whole(case.place) and (len(possible) == 1 or not self._reprocess):
                # It never was in the store. Without --reprocess it does not matter which of them it was.
                case.present = OutcomeReason(possible[0])

    def _is_whole(self, place: WindowId) -> bool:
        """Whether the store has as many documents of the window as the books say: none was indexed and lost."""
        if place not in self._whole:
            window = self._window(place)
            assert window is not None
            until_it_answers(self._store.refresh, self._stopping)
            stored, expected = until_it_answers(
                lambda: count_documents(self._store, self._group, window), self._stopping
            )
            self._whole[place] = stored == expected
            if len(self._whole) > _WINDOWS_IN_MEMORY_MAX:
                self._whole.popitem(last=False)
        return self._whole[place]

    # --- decide ----------------------------------------------------------------------------------------------------
    def _decide(self, case: _Case) -> None:
        """Set ``outcome`` to what is to become of the event, None when it is to stay as it is; a store may differ."""
        if case.stored and not self._reprocess:
            # There, whatever the ledger says: a replay or a retry was killed before it could say so.
            case.outcome = None if case.was is Outcome.INDEXED else INDEXED
            return
        if not self._is_wanted(case):
            return
        self._make(case)
        if isinstance(case.made, Filtered):
            case.outcome = OutcomeReason(Outcome.FILTERED, case.made.rule)
        elif isinstance(case.made, EventUnfit):
            case.outcome = OutcomeReason(Outcome.DEAD_LETTERED, case.made.reason.value)
        else:
            case.outcome = INDEXED

    def _is_wanted(self, case: _Case) -> bool:
        assert case.present is not None
        if case.stored:
            return True
        if not self._reprocess:
            return case.was is Outcome.INDEXED
        # Another event has its identity, whatever becomes of its own bytes.
        return case.was is not Outcome.DUPLICATE and case.present.reason != DeadLetterReason.IDENTITY_CONFLICT

    def _make(self, case: _Case) -> None:
        if case.made is None:
            event = case.event
            try:
                case.made = self._documents.make(
                    event.raw, context_of(event.batch), id=event.id, day=event.day, provenance=event.provenance
                )
            except EventUnfit as unfit:
                case.made = unfit

    # --- do --------------------------------------------------------------------------------------------------------
    def _apply(self, cases: list[_Case]) -> None:
        self._note([case for case in cases if case.moves])
        unfit = [case for case in cases if isinstance(case.made, EventUnfit) and case.was is not Outcome.DEAD_LETTERED]
        self._keep_letters([(case, case.made) for case in unfit if isinstance(case.made, EventUnfit)])
        self._write([case for case in cases if isinstance(case.made, Document)])
        gone = [case for case in cases if case.stored and case.outcome and case.outcome.outcome is not Outcome.INDEXED]
        if gone:
            documents = [(case.event.day, case.event.id, case.event.provenance) for case in gone]
            until_it_answers(lambda: self._store.delete(documents), self._stopping)
        mended = [case for case in cases if case.was is Outcome.DEAD_LETTERED and not _is_dead(case.outcome)]
        if mended:
            letters = LetterFilter(ids=tuple(case.event.letter_id for case in mended))
            until_it_answers(lambda: self._store.dead_letters.delete(letters), self._stopping)
        self._revise(cases)

    def _write(self, cases: list[_Case]) -> None:
        """Write the documents; what the store does not take becomes a dead letter or a duplicate."""
        documents = [case.made for case in cases if isinstance(case.made, Document)]
        items = index(
            self._store, documents, events_max=self._events_max, stopping=self._stopping, over_own=self._reprocess
        )
        refused: list[tuple[_Case, EventUnfit]] = []
        for case, document, item in zip(cases, documents, items, strict=True):
            outcome, reason = outcome_of(document, item)
            case.outcome = OutcomeReason(outcome, reason and reason.value)
            if reason is not None:
                error = item.reason
                refused.append((case, EventUnfit(reason, Stage.INDEX, error)))
        self._note([case for case, _ in refused])
        self._keep_letters([(case, unfit) for case, unfit in refused if case.was is not Outcome.DEAD_LETTERED])

    def _keep_letters(self, unfit: list[tuple[_Case, EventUnfit]]) -> None:
        letters = [
            dead_letter.of_event(
                topic_id=self._topic_id,
                delivery=case.event.delivery,
                record=case.event.record,
                batch=case.event.batch,
                index=case.event.at,
                number=case.event.number,
                reason=why.reason,
                stage=why.stage,
                error=why.error,
                id=case.event.id,
            )
            for case, why in unfit
        ]
        if letters:
            self._letter_room.keep(letters, self._stopping)

    def _note(self, cases: list[_Case]) -> None:
        """Write down what the store has told of them, before it changes and would tell something else."""
        self._write_changes(
            [(case.place, case.change(*case.present)) for case in cases if case.is_told and case.present]
        )

    def _revise(self, cases: list[_Case]) -> None:
        self._write_changes([(case.place, case.change(*case.outcome)) for case in cases if case.moves and case.outcome])

    def _write_changes(self, changes: list[tuple[WindowId, Change]]) -> None:
        by_place: dict[WindowId, list[Change]] = defaultdict(list)
        for place, change in changes:
            by_place[place].append(change)
        for place, some in by_place.items():
            write = partial(
                revise, self._store, self._group, place, some, cause=CAUSE, at_us=self._clock(), owner=self._owner
            )
            until_it_answers(write, self._stopping)

    # --- count -----------------------------------------------------------------------------------------------------
    def _count(self, case: _Case) -> None:
        tally = self._tally
        is_missing = case.was is Outcome.INDEXED and not case.stored
        tally.missing += is_missing
        if case.outcome is None:
            return
        is_stored = case.outcome.outcome is Outcome.INDEXED and isinstance(case.made, Document)
        tally.written += is_stored and not self._dry_run
        if case.outcome.outcome is not case.was:
            tally.moved[f"{case.was} -> {case.outcome.outcome}"] += 1
            tally.changed += 1
        elif is_stored and case.stored and isinstance(case.made, Document):
            tally.changed += orjson.loads(orjson.dumps(case.made.source)) != case.stored


def _is_dead(outcome: OutcomeReason | None) -> bool:
    return outcome is not None and outcome.outcome is Outcome.DEAD_LETTERED
