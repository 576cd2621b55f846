"""Old books: what they say is carried forward as sums (``logweir/ledger/carried_forward.py``), their documents deleted.

    read the books -> write the sums, with what they are of -> delete that -> write that it is deleted

Killed between any two steps, the next one goes on there; what is named in the sums counts no more by itself.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TypeVar

from logweir.audit.books import Books, read_books_once
from logweir.audit.emitters import books_of_emitter
from logweir.audit.windows import WindowBooks, places_of
from logweir.clock import DAY_US, WINDOW_US
from logweir.config import AccountingSettings
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.activity import Activity
from logweir.ledger.carried_forward import OF_QUEUE_MAX, CarriedForward, read_carried_forward
from logweir.ledger.closings import Closing
from logweir.ledger.documents import (
    ACTIVITY,
    CARRIED_FORWARD,
    CLOSING,
    EMITTER,
    HOUR,
    HOUR_WINDOWS,
    REPLAY,
    REVISION,
    SOURCES,
    STORE_DIFFERENCE,
    WINDOW,
    BucketId,
    PartitionId,
    PartitionNumber,
    StreamId,
    StreamWindow,
    WindowId,
    read_documents,
)
from logweir.ledger.emitter import Emitter, EmitterActivity, EmitterState
from logweir.ledger.equation import Row
from logweir.ledger.hours import has
from logweir.ledger.loss import UNATTRIBUTED, LossClass
from logweir.ledger.replays import ReplayProgress
from logweir.ledger.revisions import Correction, corrections_of
from logweir.ledger.source import sources_from_body
from logweir.ledger.window import Window, stage_of
from logweir.store.port import LedgerDocument, Store
from logweir_workers.accounting.partition import PartitionLedger

log = logging.getLogger(__name__)

_WINDOWS_AT_ONCE = 200
_OTHERS_AT_ONCE = 500
_NEVER_US = 2**62
_TURN_S_MAX = 5.0
_BEHIND_US = DAY_US

_T = TypeVar("_T")
_Revised = tuple[LedgerDocument, list[Correction]]
"""A revision's document and its lines."""
_Emitter = tuple[LedgerDocument, EmitterState]
"""An emitter's document, and what is in it."""
_Gone = tuple[Emitter, list[_Emitter], bool]
"""An emitter, those of its documents that are old, and whether these are all of them."""


def old_books(store: Store, *, group: str, settings: AccountingSettings, now_us: int) -> Books | None:
    """The books, when there may be anything old in them; may take minutes. Raises LogweirError(STORE_DOWN)."""
    before_us = now_us - settings.retention_days * DAY_US
    if not _has_old(store, group, before_us):
        return None

    def is_old(window: Window) -> bool:
        return max(window.windows) < before_us // WINDOW_US

    return read_books_once(store, group=group, late_us=settings.late_us, now_us=now_us, keeps=is_old)


def delete_old_books(
    store: Store,
    *,
    group: str,
    owner: str,
    settings: AccountingSettings,
    ledgers: Collection[PartitionLedger],
    now_us: int,
    books: Books | None,
) -> int:
    """Delete what is more than ``accounting.retention_days`` old on these partitions; gives how many documents.

    ``books``: as ``old_books`` gave them, not necessarily just now: what has changed since stays until the next time,
    as does what takes longer than some seconds. A worker that is behind counts what is old by now: nothing is old that
    was received in the last day that the partition is accounted for. Of topics that are gone, too: whoever has a
    partition looks after all that bore its number. Raises LogweirError(STORE_DOWN).
    """
    before_us = now_us - settings.retention_days * DAY_US
    deadline_s = time.monotonic() + _TURN_S_MAX
    deleted = sum(ledger.sources.forget(before_us) for ledger in ledgers)
    by_partition = {ledger.partition: ledger for ledger in ledgers}
    others = chain(_of_topics_gone(store, group, by_partition, before_us), _replays(store, group, before_us))
    for documents in _chunks(others, _OTHERS_AT_ONCE):
        store.ledger.delete(documents)
        deleted += len(documents)
    if not ledgers or books is None:
        return deleted
    losses = _Losses(books, *books.losses())
    for ledger in ledgers:
        ledger.streams.forget_lost(books.carried.streams)
        old = _Old(store, group, books, min(before_us, ledger.watermark_us - _BEHIND_US), by_partition, losses)
        portions = old.portions(ledger, deadline_s)
        deleted += _carry_forward(store, group, owner, books.carried, ledger.partition, old.before, portions)
        deleted += old.delete_closings(ledger.partition)
    return deleted


def _has_old(store: Store, group: str, before_us: int) -> bool:
    """Whether there may be anything to do: reading the books costs more than this."""
    before, ledger = before_us // WINDOW_US, store.ledger
    return (
        any(place.window < before for place, _ in WINDOW.scan(ledger, group))
        or any(place.hour * HOUR_WINDOWS < before for place, _ in HOUR.scan(ledger, group))
        or bool(read_carried_forward(store, group).being_deleted)
        or any(
            EmitterActivity.from_body(document.body).last.received_us < before_us
            for _, document in EMITTER.scan(ledger, group)
        )
        or any(place.window < before for place, _ in REVISION.scan(ledger, group))
    )


def _carry_forward(
    store: Store,
    group: str,
    owner: str,
    known: CarriedForward,
    partition: int,
    before: int,
    portions: Iterator[CarriedForward],
) -> int:
    """Write each portion's sums, and delete what they are of; gives how many documents."""
    first = next(portions, None)
    if first is None and not known.being_deleted:
        return 0
    place = PartitionNumber(partition)
    claimed = CARRIED_FORWARD.claim(store.ledger, group, place, owner)
    total = CarriedForward(edition={partition: 0})
    if claimed.body:
        total = CarriedForward.from_body(claimed.body, partition)
    if total.edition[partition] != known.edition.get(partition, 0):
        return 0  # Another worker was here since the books were read.
    deleted = 0

    def write() -> None:
        total.before = max(total.before, before)
        total.edition[partition] += 1
        body = total.as_body(partition)
        store.ledger.write([CARRIED_FORWARD.document(group, place, claimed.generation, body, owner=owner)])

    try:
        if total.being_deleted:
            deleted += _delete(store, total.being_deleted)
            total.being_deleted = {}
            write()
        for portion in chain([first] if first else (), portions):
            total.add(portion)
            total.being_deleted = portion.being_deleted
            write()
            deleted += _delete(store, total.being_deleted)
            total.being_deleted = {}
            write()
    except LogweirError as error:
        if error.problem is not CLAIM_LOST:
            raise
        log.info("Another worker deletes the old books of partition %d.", partition)
    return deleted


def _delete(store: Store, being_deleted: dict[str, int]) -> int:
    store.ledger.delete([LedgerDocument(id, generation, {}) for id, generation in being_deleted.items()])
    return len(being_deleted)


@dataclass(slots=True)
class _Losses:
    """What is lost of emitters whose documents are still there: of each, the higher of ``shown`` and ``of_queue``.

    These are as ``Books.losses`` gives them, less what was carried forward since.
    """

    books: Books
    shown: Counter[Emitter | str]
    of_queue: Counter[Emitter | str]
    gone: set[Emitter] = field(default_factory=set)
    """Whose documents were all deleted since."""

    def carry_window(self, portion: CarriedForward, emitter: Emitter, lost: int, in_flight: int) -> None:
        """Of a window that is deleted. ``lost``: with what is ``in_flight`` still, and counts as lost from now on."""
        if not lost:
            return
        known, loss_class = self.books.carried.of_queue, self.books.class_of(emitter)
        self.of_queue[self.books.numbered_by(emitter)] += in_flight
        has_room = emitter in known or len(known) < OF_QUEUE_MAX
        if loss_class is not LossClass.UNKNOWN and has_room and emitter not in self.gone:
            known[emitter] += lost
            portion.of_queue[emitter] += lost
        else:
            self._add(portion, emitter, loss_class, shown=0, of_queue=lost)

    def carry_emitter(self, portion: CarriedForward, emitter: Emitter, shown: int, *, wholly: bool) -> None:
        """Of one whose documents are deleted ``wholly``, or some of them, which show so much as lost."""
        of_queue = self.books.carried.of_queue.pop(emitter, 0) if wholly else 0
        portion.of_queue[emitter] -= of_queue
        self._add(portion, emitter, self.books.class_of(emitter), shown=shown, of_queue=of_queue)
        if wholly:
            self.gone.add(emitter)

    def _add(
        self, portion: CarriedForward, emitter: Emitter, loss_class: LossClass, *, shown: int, of_queue: int
    ) -> None:
        who = self.books.numbered_by(emitter)
        before = max(self.shown[who], self.of_queue[who])
        self.shown[who] -= shown
        self.of_queue[who] -= of_queue
        portion.lost_in_queue[loss_class] += of_queue
        if loss_class is not LossClass.UNKNOWN:
            portion.unshown[loss_class] += before - max(self.shown[who], self.of_queue[who]) - shown


@dataclass(slots=True)
class _Old:
    """What is old in these books."""

    store: Store
    group: str
    books: Books
    before_us: int
    ledgers: dict[int, PartitionLedger]
    losses: _Losses
    left: Counter[StreamId] = field(init=False)
    """How many windows of a stream are not carried forward."""

    def __post_init__(self) -> None:
        self.left = self.books.held.copy()

    @property
    def before(self) -> int:
        return self.before_us // WINDOW_US

    def portions(self, ledger: PartitionLedger, deadline_s: float) -> Iterator[CarriedForward]:
        """What to carry forward of a partition, a step each, with what to delete for it (``being_deleted``).

        That is deleted when the next one is asked for. There is none after ``deadline_s``, of the monotonic clock.
        """
        corrections = self._corrections(ledger.partition)
        windows = [one for one in self._windows() if one.place.partition == ledger.partition]
        windows.sort(key=lambda one: max(one.window.windows))
        for some in _chunks(windows, _WINDOWS_AT_ONCE):
            portion = self._of_windows(ledger, some, corrections) if time.monotonic() < deadline_s else None
            if portion is None:
                return  # It has changed since it was read, or time is over: the next time.
            yield portion
        if time.monotonic() >= deadline_s:
            return
        for revised in _chunks([one for some in corrections.values() for one in some], _OTHERS_AT_ONCE):
            yield self._of_corrections(revised)
        for emitters in _chunks(self._emitters(ledger.partition), _OTHERS_AT_ONCE):
            yield self._of_emitters(emitters)
            for emitter, gone, _ in emitters:
                self._evict(emitter, gone)

    def _windows(self) -> list[WindowBooks]:
        return [one for one in self.books.windows if max(one.window.windows) < self.before]

    # --- windows ---------------------------------------------------------------------------------------------------
    def _of_windows(
        self, ledger: PartitionLedger, windows: list[WindowBooks], corrections: dict[StreamWindow, list[_Revised]]
    ) -> CarriedForward | None:
        documents = read_documents(self.store.ledger, [id for one in windows for id in one.window.ids(self.group)])
        portion = CarriedForward()
        for one in windows:
            found = [documents.get(id) for id in one.window.ids(self.group)]
            if found[0] is None or None in found or stage_of(found[0].body) != one.window.stage:
                return None  # It has been written since, or another worker has merged more into that hour.
            own = [revised for place in places_of(one.window) for revised in corrections.pop(place, ())]
            if sorted(repr(line) for _, lines in own for line in lines) != sorted(map(repr, one.corrections)):
                return None
            portion.being_deleted |= {document.id: document.generation for document, _ in own}
        left = self._left_of_merging(windows)
        gone = [place for one in windows if not one.window.minutes for place in one.window.places]
        if not ledger.windows.evict([*gone, *left]):
            return None
        documents |= {document.id: document for document in left.values()}
        for one in windows:
            self._add_window(portion, one)
        for stream in {one.stream for one in windows}:
            self._add_outside(portion, stream, [one for one in windows if one.stream == stream])
        differences = [place for one in windows for place in one.window.places]
        for document in STORE_DIFFERENCE.read(self.store.ledger, self.group, differences).values():
            documents[document.id] = document
        portion.being_deleted |= {id: document.generation for id, document in documents.items()}
        return portion

    def _left_of_merging(self, windows: list[WindowBooks]) -> dict[WindowId, LedgerDocument]:
        """Windows that are in one of these hours, and still there because whoever merged them was killed."""
        hour_of = {place: one.window for one in windows if one.window.minutes for place in one.window.places}
        found = WINDOW.read(self.store.ledger, self.group, hour_of)
        return {
            place: document
            for place, document in found.items()
            if has(hour_of[place], Window.from_body(place, document.body))
        }

    def _add_window(self, portion: CarriedForward, one: WindowBooks) -> None:
        # What is in flight still after all this time is not going to come.
        row = Row.from_json(one.row.as_json())
        row.lost_in_queue, row.in_flight = row.lost_in_queue + row.in_flight, 0
        portion.row.add(row)
        of_nobody = row.lost_in_queue
        for emitter, own in one.by_emitter.items():
            lost = own.lost_in_queue + own.in_flight
            self.losses.carry_window(portion, emitter, lost, own.in_flight)
            portion.recovered += 0 if self.books.class_of(emitter) is LossClass.FROM_FIELDS else own.recovered_in_queue
            of_nobody -= lost
        portion.lost_in_queue[UNATTRIBUTED] += of_nobody
        _count(portion, one.corrections)

    def _add_outside(self, portion: CarriedForward, stream: StreamId, windows: list[WindowBooks]) -> None:
        """What of the stream's numbers was in no window up to the last of these; the books begin behind that now."""
        outside = self.books.outside
        last = max(
            high for one in windows for _, high in ((0, 0), *one.window.given, *one.window.numbers, *one.window.voids)
        )
        self.left[stream] -= len(windows)
        if not self.left[stream]:
            last = max(last, outside.lost_until(stream))
        row = outside.row(stream, last)
        # Nobody will say any more whether these had been promised to anybody.
        row.accepted, row.unconfirmed = row.accepted - row.in_flight, row.unconfirmed + row.in_flight
        row.undecided, row.in_flight = row.undecided + row.in_flight, 0
        portion.row.add(row)
        portion.lost_in_queue[UNATTRIBUTED] += row.lost_in_queue
        portion.outside_windows += row.lost_in_queue
        portion.streams[stream] = outside.starts[stream] = max(last + 1, outside.starts.get(stream, 1))

    # --- corrections -----------------------------------------------------------------------------------------------
    def _corrections(self, partition: int) -> dict[StreamWindow, list[_Revised]]:
        """Those of the partition, by the window that they speak of."""
        found: dict[StreamWindow, list[_Revised]] = defaultdict(list)
        for place, document in REVISION.scan(self.store.ledger, self.group):
            is_ours = place.partition == partition and document.id not in self.books.carried.being_deleted
            if is_ours and place.window < self.before:
                lines = list(corrections_of(place, document.body))
                found[place.window_id.in_stream].append((document, lines))
        held = self.books.corrected_in - {place for one in self._windows() for place in places_of(one.window)}
        return {place: revised for place, revised in found.items() if place not in held}

    def _of_corrections(self, revised: list[_Revised]) -> CarriedForward:
        """Of events whose windows are carried forward already."""
        lines = [line for _, lines in revised for line in lines]
        portion = CarriedForward(being_deleted={document.id: document.generation for document, _ in revised})
        for one in lines:
            portion.correct(one.from_outcome.value, one.to_outcome.value, one.count)
        _count(portion, lines)
        return portion

    # --- emitters --------------------------------------------------------------------------------------------------
    def _emitters(self, partition: int) -> list[_Gone]:
        """Who has not sent for so long, with the documents to delete: where it numbers its events, all at once.

        What is lost of it shows in all its documents together: only a worker with all of its partitions can say.
        """
        by_emitter: dict[Emitter, list[_Emitter]] = defaultdict(list)
        for place, document in EMITTER.scan(self.store.ledger, self.group):
            if document.id not in self.books.carried.being_deleted:
                state = EmitterState.from_body(place, document.body)
                by_emitter[state.emitter].append((document, state))
        found = []
        for emitter, own in by_emitter.items():
            numbered = [(document, state) for document, state in own if state.is_numbered]
            gone = [
                (document, state)
                for document, state in own
                if not state.is_numbered and state.place.partition == partition and self._is_old(state)
            ]
            if numbered and min(state.place.partition for _, state in numbered) == partition:
                gone += numbered if self._is_all_old(numbered) else []
            if gone and all(ledger.emitters.is_at_rest(emitter) for ledger in self._ledgers_of(gone)):
                found.append((emitter, gone, len(gone) == len(own)))
        return found

    def _is_all_old(self, numbered: list[_Emitter]) -> bool:
        return all(state.place.partition in self.ledgers and self._is_old(state) for _, state in numbered)

    def _is_old(self, state: EmitterState) -> bool:
        # Not within the minute that begins what is kept: its windows say whose their losses are as long as it is known.
        return state.last_us < self.before * WINDOW_US

    def _ledgers_of(self, gone: list[_Emitter]) -> list[PartitionLedger]:
        """Those that may have them in memory."""
        places = (state.place.partition_id for _, state in gone)
        return [self.ledgers[place.partition] for place in places if self.ledgers[place.partition].place == place]

    def _evict(self, emitter: Emitter, gone: list[_Emitter]) -> None:
        for ledger in self._ledgers_of(gone):
            ledger.emitters.evict(emitter)

    def _of_emitters(self, emitters: list[_Gone]) -> CarriedForward:
        portion = CarriedForward()
        for emitter, gone, is_all in emitters:
            portion.being_deleted |= {document.id: document.generation for document, _ in gone}
            books = books_of_emitter(emitter, [(_NEVER_US, state) for _, state in gone])
            if books.loss_class is not LossClass.UNKNOWN:
                sums = portion.numbered.setdefault(books.loss_class, Counter())
                for name in ("created", "lost", "recovered", "dropped"):
                    sums[name] += books.total(name) or 0
            self.losses.carry_emitter(portion, emitter, books.total("lost") or 0, wholly=is_all)
        return portion

    # --- closings --------------------------------------------------------------------------------------------------
    def delete_closings(self, partition: int) -> int:
        """Delete what was said of processes of which there is nothing any more."""
        old = Counter(one.stream for one in self._windows())
        gone = []
        for stream, document in CLOSING.scan(self.store.ledger, self.group):
            is_old = Closing.from_body(stream, document.body).at_us < self.before_us
            if is_old and stream.partition == partition and self.books.held[stream] <= old[stream]:
                gone.append(document)
        if gone:
            self.store.ledger.delete(gone)
        return len(gone)


def _count(portion: CarriedForward, corrections: Iterable[Correction]) -> None:
    for one in corrections:
        portion.corrections[one.from_outcome.value, one.to_outcome.value] += one.count


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


# --- what silence is judged by -------------------------------------------------------------------------------------
def _of_topics_gone(
    store: Store, group: str, ledgers: Mapping[int, PartitionLedger], before_us: int
) -> Iterator[LedgerDocument]:
    """Sources, and activity, of topics that nobody has read since then."""

    def is_of_topic_gone(place: BucketId | PartitionId) -> bool:
        ledger = ledgers.get(place.partition)
        return ledger is not None and ledger.topic_id != place.topic_id

    for bucket, document in SOURCES.scan(store.ledger, group):
        if is_of_topic_gone(bucket):
            sources = sources_from_body(document.body)
            if max((source.last.received_us for source in sources), default=0) < before_us:
                yield document
    for partition, document in ACTIVITY.scan(store.ledger, group):
        if is_of_topic_gone(partition) and Activity.from_body(document.body).last_us < before_us:
            yield document


def _replays(store: Store, group: str, before_us: int) -> Iterator[LedgerDocument]:
    """Replays begun before then: done, or stopped and never gone on with."""
    for _, document in REPLAY.scan(store.ledger, group):
        if ReplayProgress.from_body(document.body).begun_us < before_us:
            yield document
