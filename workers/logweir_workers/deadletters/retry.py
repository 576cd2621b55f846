"""Dead letters tried again, after a fix: the worker's own way from the bytes on, under the same identity.

    document -> index -> correction -> letter removed

A letter is only removed once the store has the event (or the event is a duplicate, or filtered) and the books say so.
Every step can be repeated, also by two at once: the document is created under its id, what an event has become since it
was counted is written once, and removing a letter that is gone is nothing. So a crash between any two steps leaves a
letter that is there still, and trying it again changes no number.
"""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from logweir.clock import now_us
from logweir.config import Settings
from logweir.errors import QUEUE_DOWN, LogweirError
from logweir.event import Document, Provenance, content_hash_of, day_of
from logweir.ledger.deviations import OutcomeReason
from logweir.ledger.documents import PartitionId, WindowId
from logweir.ledger.hours import read_window
from logweir.ledger.position import read_offsets
from logweir.ledger.revisions import Change, Present, revise
from logweir.outcomes import DeadLetterReason, Outcome
from logweir.queue.port import Producer, Queue
from logweir.record import decode
from logweir.store.port import DeadLetter, LetterFilter, Store
from logweir_workers import enrich
from logweir_workers.accounting.store_audit import recheck_differences
from logweir_workers.document import Documents, EventUnfit, Filtered
from logweir_workers.filters import Filters
from logweir_workers.index import index, outcome_of
from logweir_workers.normalise.fields import Context

_CONFIRM_S_MAX = 30.0


class Result(StrEnum):
    """What became of a letter that was tried again. Only of the first four is the letter removed."""

    INDEXED = "indexed"
    DUPLICATE = "duplicate"
    FILTERED = "filtered"
    QUEUED = "queued"
    """A record that can be read now went into the queue once more: its events are on their way."""
    FAILED = "failed"
    """It fails as before, or otherwise; it stays a dead letter."""
    UNSETTLED = "unsettled"
    """No worker has accounted for its record yet: it may still come to be something else."""
    CONFLICT = "identity_conflict"
    """Another event has its number: it can only be exported and sent as a new one."""


REMOVED = (Result.INDEXED, Result.DUPLICATE, Result.FILTERED, Result.QUEUED)


@dataclass(frozen=True, slots=True)
class Tried:
    """One letter, and what became of it. ``error``: why it failed. ``rule``: of the filter that leaves it out."""

    letter: DeadLetter
    result: Result
    error: str = ""
    rule: str | None = None


class Retrier:
    """Tries letters again, with the settings of the workers. For one thread."""

    def __init__(self, *, settings: Settings, store: Store, queue: Queue) -> None:
        self._store = store
        self._queue = queue
        self._group = settings.worker.group
        self._events_max = settings.worker.bulk_events_max
        self._documents = Documents(enrich.load(settings.worker), Filters.of_file(settings.worker.filters_file))
        self._cause = f"retry {secrets.token_hex(8)}"
        self._begun_us = now_us()
        self._producer: Producer | None = None
        self._stopping = threading.Event()

    def retry(self, letters: Sequence[DeadLetter]) -> list[Tried]:
        """Try these again; one result each, in no order. What is removed is in the store and in the books."""
        tried, events, records = self._sorted_out(letters)
        tried += self._index(events)
        self._correct(tried)
        tried += [self._queue_again(letter) for letter in records]
        removed = tuple(one.letter.id for one in tried if one.result in REMOVED)
        if removed:
            self._store.dead_letters.delete(LetterFilter(ids=removed))
        return tried

    def recheck(self) -> None:
        """Ask the store again of windows for which it differed: what has been tried again may be what was not there.

        To be called behind the last ``retry``. Raises LogweirError(STORE_DOWN).
        """
        recheck_differences(self._store, self._group, at_us=now_us())

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(_CONFIRM_S_MAX)

    # --- which -----------------------------------------------------------------------------------------------------
    def _sorted_out(self, letters: Sequence[DeadLetter]) -> tuple[list[Tried], list[DeadLetter], list[DeadLetter]]:
        """What cannot be tried; the events to try; and the records to try."""
        tried: list[Tried] = []
        events: list[DeadLetter] = []
        records: list[DeadLetter] = []
        offsets = read_offsets(self._store, self._group, {_partition_of(letter) for letter in letters})
        for letter in letters:
            body = letter.body
            if letter.reason == DeadLetterReason.IDENTITY_CONFLICT:
                tried.append(Tried(letter, Result.CONFLICT, str(body["error"])))
            elif body["offset"] >= offsets.get(_partition_of(letter), 0):
                # Its worker may yet do the record again, find what a retry has done, and count that, too.
                tried.append(Tried(letter, Result.UNSETTLED))
            elif letter.reason == DeadLetterReason.RECORD_CORRUPT:
                records.append(letter)
            else:
                events.append(letter)
        return tried, events, records

    # --- events ----------------------------------------------------------------------------------------------------
    def _index(self, letters: Sequence[DeadLetter]) -> list[Tried]:
        tried: list[Tried] = []
        documents: list[Document] = []
        of_documents: list[DeadLetter] = []
        for letter in letters:
            try:
                made = self._made(letter)
            except EventUnfit as unfit:
                tried.append(Tried(letter, Result.FAILED, f"{unfit.reason}: {unfit.error}"))
                continue
            if isinstance(made, Filtered):
                tried.append(Tried(letter, Result.FILTERED, rule=made.rule))
            else:
                documents.append(made)
                of_documents.append(letter)
        items = index(self._store, documents, events_max=self._events_max, stopping=self._stopping)
        for letter, document, item in zip(of_documents, documents, items, strict=True):
            outcome, reason = outcome_of(document, item)
            if reason is None:
                tried.append(Tried(letter, Result(outcome.value)))
            else:
                tried.append(Tried(letter, Result.FAILED, f"{reason}: {item.reason}"))
        return tried

    def _made(self, letter: DeadLetter) -> Document | Filtered:
        body = letter.body
        context = Context(
            received_us=body["received_us"],
            key=body["key"],
            emitter=body["emitter"],
            source_address=body["source_address"],
            format=body["format"],
            stamp=body["stamp"],
        )
        provenance = Provenance(body["ingest_stream"], body["ingest_number"], content_hash_of(letter.raw))
        day = day_of(body["received_us"])
        return self._documents.make(letter.raw, context, id=body["event_id"], day=day, provenance=provenance)

    def _correct(self, tried: Sequence[Tried]) -> None:
        """Write into the books what is no dead letter any more."""
        found: dict[WindowId, list[Tried]] = defaultdict(list)
        for one in tried:
            if one.result in (Result.INDEXED, Result.DUPLICATE, Result.FILTERED):
                found[_window_of(one.letter)].append(one)
        for place, some in found.items():
            counted = self._counted(place, [one.letter.body["ingest_number"] for one in some])
            changes = [_change(one, counted.get(one.letter.body["ingest_number"])) for one in some]
            revise(self._store, self._group, place, changes, cause=self._cause, at_us=self._begun_us, owner=self._cause)

    def _counted(self, place: WindowId, numbers: Sequence[int]) -> dict[int, OutcomeReason | None]:
        """What a worker counted these events as, where the ledger still says.

        A letter may be of an earlier attempt, and the event have been counted as indexed: by a worker that was begun
        anew in between, or when the record came twice.
        """
        window = read_window(self._store, self._group, place)
        present = Present(window, {}) if window else None
        return {number: present.counted(number, number).get(number) for number in numbers} if present else {}

    # --- records ---------------------------------------------------------------------------------------------------
    def _queue_again(self, letter: DeadLetter) -> Tried:
        """Put a record that can be read now behind all others of its partition: its numbers were never counted."""
        try:
            decode(letter.raw)
        except LogweirError as error:
            return Tried(letter, Result.FAILED, error.detail)
        if self._queue.topic_id() != letter.body["topic_id"]:
            return Tried(letter, Result.FAILED, "its topic was made anew since")
        self._send(letter.body["partition"], letter.raw)
        return Tried(letter, Result.QUEUED)

    def _send(self, partition: int, payload: bytes) -> None:
        """Have it in the queue, durably. Raises LogweirError: QUEUE_DOWN, QUEUE_RECORD_TOO_LARGE."""
        self._producer = self._producer or self._queue.producer()
        done = threading.Event()
        errors: list[LogweirError] = []

        def confirm(error: LogweirError | None) -> None:
            errors.extend([error] if error else [])
            done.set()

        self._producer.send(partition, payload, confirm)
        if not done.wait(_CONFIRM_S_MAX):
            raise LogweirError(QUEUE_DOWN, url=self._queue.topic, reason=f"no confirmation in {_CONFIRM_S_MAX:.0f} s")
        if errors:
            raise errors[0]


def _partition_of(letter: DeadLetter) -> PartitionId:
    return PartitionId(letter.body["topic_id"], letter.body["partition"])


def _window_of(letter: DeadLetter) -> WindowId:
    body = letter.body
    epoch = body["ingest_stream"].rpartition("-")[0]
    return WindowId(body["topic_id"], body["partition"], epoch, body["window"])


def _change(tried: Tried, counted: OutcomeReason | None) -> Change:
    body = tried.letter.body
    return Change(
        number=body["ingest_number"],
        sender=(body["key"], body["emitter"]),
        counted=counted.outcome if counted else Outcome.DEAD_LETTERED,
        outcome=Outcome(tried.result.value),
        reason=tried.rule,
    )
