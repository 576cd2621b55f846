"""READ FIRST: what happens to a record, from the queue to its outcome.

    decode -> normalise -> enrich -> filter -> index -> settle -> flush -> commit

worker.py polls and calls ``prepare``, which does the first four on the worker's own thread (document.py has them,
parsers and redaction, too). bulks.py calls ``index``, which writes to the store, on another, and ``settle``, which
counts, in the order of the offsets, once everything before it is durable. The worker then flushes the ledger and
commits the offsets (worker.py). A crash between any two steps repeats work and changes no number.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from logweir import event as identity
from logweir.clock import Clock
from logweir.config import EventFields, StoreSettings
from logweir.errors import RECORD_CORRUPT, LogweirError
from logweir.event import Provenance
from logweir.metrics import registry
from logweir.metrics.registry import Observations
from logweir.outcomes import DeadLetterReason, Outcome, Stage
from logweir.queue.port import Delivery
from logweir.record import Batch, Record, Refused, decode
from logweir.store.port import DeadLetter, Store
from logweir_workers.accounting.emitters import FirstDays
from logweir_workers.accounting.natural import natural_runs
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.settled import SettledRecord
from logweir_workers.deadletters import letter as dead_letter
from logweir_workers.deadletters.keeper import LetterRoom
from logweir_workers.deadletters.letter import LetterLog
from logweir_workers.document import Documents, EventUnfit, Filtered, context_of, ids_of
from logweir_workers.duplicates import conflicts, take_out_retries
from logweir_workers.enrich import Enricher
from logweir_workers.filters import Filters
from logweir_workers.index import index, outcome_of
from logweir_workers.work import Retry, Work

log = logging.getLogger(__name__)


class Pipeline:
    """The steps, with what they need. ``prepare`` and ``settle`` are for one thread; ``index`` may run on several."""

    def __init__(
        self,
        *,
        store: Store,
        enrich: Enricher,
        topic_id: str,
        events_max: int,
        clock: Clock,
        filters: Filters | None = None,
        letter_room: LetterRoom | None = None,
        letter_log: LetterLog | None = None,
        event_fields: Mapping[str, EventFields] | None = None,
    ) -> None:
        self._store = store
        self._documents = Documents(enrich, filters or Filters())
        self._letter_room = letter_room or LetterRoom(store, StoreSettings())
        self._letter_log = letter_log or LetterLog()
        self._topic_id = topic_id
        self._events_max = events_max
        self._event_fields = event_fields or {}
        self._clock = clock

    def prepare(self, delivery: Delivery, ledger: PartitionLedger) -> Work:
        """A record's documents and dead letters; to be called in the order of the offsets.

        Raises LogweirError: RECORD_VERSION_UNKNOWN (never skip that one), STORE_DOWN (call again).
        """
        try:
            record = decode(delivery.payload)
        except LogweirError as error:
            if error.problem is not RECORD_CORRUPT:
                raise
            letter = dead_letter.of_record(topic_id=self._topic_id, delivery=delivery, error=error)
            return Work(delivery, ledger, None, len(delivery.payload), letters=[letter])
        work = Work(delivery, ledger, record, len(delivery.payload))
        if isinstance(record.body, Refused):
            letter = dead_letter.of_refused(topic_id=self._topic_id, delivery=delivery, refused=record.body)
            work.letters.append(letter)
        first_days = ledger.expect(record, delivery.offset)
        place = 0
        for batch in record.batches:
            work.outcomes += [None] * len(batch.events)
            self._prepare_batch(work, record, batch, place, first_days)
            place += len(batch.events)
            if batch.key in self._event_fields and batch.epoch is None:
                work.natural += natural_runs(batch, self._event_fields[batch.key])
        registry.get("logweir_worker_records_total").labels(record.kind.name.lower()).inc()
        return work

    def index(self, works: list[Work], stopping: threading.Event) -> None:
        """Give every event of these records its outcome, durably, but for ``waiting`` letters. Raises Stopped."""
        take_out_retries(self._store, works, events_max=self._events_max, stopping=stopping)
        places = [(work, place) for work in works for place in work.documents]
        documents = [work.documents[place] for work, place in places]
        items = index(self._store, documents, events_max=self._events_max, stopping=stopping)
        for (work, place), document, item in zip(places, documents, items, strict=True):
            outcome, reason = outcome_of(document, item)
            work.outcomes[place] = outcome
            if reason is not None:
                error = item.reason
                self._refuse(work, place, document.id, reason, Stage.INDEX, error)
        for work, place, retry, stored in conflicts(self._store, works, stopping):
            if stored is None:
                work.outcomes[place] = Outcome.DUPLICATE
            else:
                reason = DeadLetterReason.IDENTITY_CONFLICT
                self._refuse(work, place, retry.id, reason, Stage.INDEX, f"stored is {stored}")
        for work in works:
            work.waiting = work.letters
            work.documents = {}
        self.keep_letters(works, stopping)
        self._observe_latency(works)

    def keep_letters(self, works: list[Work], stopping: threading.Event) -> None:
        """Keep those dead letters that are ``waiting`` for which there is room by now. Raises Stopped."""
        waiting = [letter for work in works for letter in work.waiting]
        if not waiting:
            return
        left = {letter.id for letter in self._letter_room.keep_some(waiting, stopping)}
        for work in works:
            work.waiting = [letter for letter in work.waiting if letter.id in left]

    def settle(self, works: list[Work]) -> None:
        """Count indexed records, whose letters are kept, in their partitions' ledgers; in the order of the offsets.

        Raises LogweirError(STORE_DOWN) before anything is counted: call again.
        """
        live = [work for work in works if not work.ledger.dropped]
        for ledger in {work.ledger for work in live}:
            records = [work.record for work in live if work.ledger is ledger and work.record is not None]
            natural = [run for work in live if work.ledger is ledger for run in work.natural]
            ledger.load(records, natural, {source for work in live if work.ledger is ledger for source in work.sources})
        for work in live:
            self._settle_one(work)

    def _settle_one(self, work: Work) -> None:
        offset = work.delivery.offset
        if work.expired is not None:
            first, last = work.expired
            work.ledger.expire(first, last)
            partition = str(work.delivery.partition)
            registry.get("logweir_worker_offsets_expired_total").labels(partition).inc(last - first + 1)
        elif work.record is None:
            work.ledger.pass_over(offset)
            work.ledger.remember(offset, work.delivery.payload)
        else:
            is_new = work.ledger.settle(
                SettledRecord(work.record, offset, _known(work.outcomes), work.reasons, work.natural, work.sources)
            )
            work.ledger.remember(offset, work.delivery.payload)
            if not is_new:
                registry.get("logweir_worker_records_repeated_total").inc()
                return
        for outcome in Outcome:
            if count := work.outcomes.count(outcome):
                registry.get("logweir_worker_events_total").labels(outcome.value).inc(count)
        for place, reason in work.reasons.items():
            if work.outcomes[place] is Outcome.FILTERED:
                registry.get("logweir_worker_filtered_events_total").labels(reason).inc()
        for letter in work.letters:
            self._letter_log.kept(letter, work.delivery, work.record)
            registry.get("logweir_worker_dead_letters_total").labels(letter.reason, letter.body["stage"]).inc()

    def _prepare_batch(self, work: Work, record: Record, batch: Batch, place: int, first_days: FirstDays) -> None:
        context = context_of(batch)
        prefix, number_first = ids_of(batch)
        stream = identity.stream_of(record.ingest_epoch, work.delivery.partition)
        day = identity.day_of(batch.received_us)
        for at, raw in enumerate(batch.events):
            id = prefix + str(number_first + at)
            provenance = Provenance(stream, record.first + place + at, identity.content_hash_of(raw))
            work.size_bytes += len(raw)
            if place + at in first_days.known:
                work.retries[place + at] = Retry(id, first_days.known[place + at], provenance.content_hash)
                continue
            try:
                made = self._documents.make(raw, context, id=id, day=day, provenance=provenance)
            except EventUnfit as unfit:
                self._refuse(work, place + at, id, unfit.reason, unfit.stage, unfit.error)
                continue
            if isinstance(made, Filtered):
                work.outcomes[place + at] = Outcome.FILTERED
                work.reasons[place + at] = made.rule
            else:
                work.documents[place + at] = made
                if place + at in first_days.possible:
                    work.doubtful[place + at] = first_days.possible[place + at]
                work.sources[made.source.get("category"), made.source.get("hostname")] = batch

    def _refuse(self, work: Work, place: int, id: str, reason: DeadLetterReason, stage: Stage, error: str) -> None:
        work.outcomes[place] = Outcome.DEAD_LETTERED
        work.reasons[place] = reason.value
        work.letters.append(self._letter(work, place, id, reason, stage, error))

    def _letter(
        self, work: Work, place: int, id: str, reason: DeadLetterReason, stage: Stage, error: str
    ) -> DeadLetter:
        assert work.record is not None
        batch, index_in_batch = dead_letter.batch_at(work.record.batches, place)
        return dead_letter.of_event(
            topic_id=self._topic_id,
            delivery=work.delivery,
            record=work.record,
            batch=batch,
            index=index_in_batch,
            number=work.record.first + place,
            reason=reason,
            stage=stage,
            error=error,
            id=id,
        )

    def _observe_latency(self, works: list[Work]) -> None:
        now_us = self._clock()
        seen = Observations("logweir_event_latency_seconds", "ingest_to_stored")
        for batch in [batch for work in works if work.record for batch in work.record.batches]:
            # The door's clock may be ahead of ours.
            seen.add(max(0, now_us - batch.received_us) / 1e6, len(batch.events))
        seen.hand_over()


def _known(outcomes: list[Outcome | None]) -> list[Outcome]:
    known = [outcome for outcome in outcomes if outcome is not None]
    assert len(known) == len(outcomes), "an event without an outcome"
    return known
