"""Replay: read records again that workers have accounted for, and bring the store to what they say.

The records come from the queue, beside the workers' group and without touching its positions; only those below the
workers' position, so that none is done by both. How far a replay has come is kept in the ledger: begun again with the
same words, it goes on there. What is done to the events, and why twice is as good as once, is in ``bulk.py``.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from logweir import __version__
from logweir.audit.span import Span
from logweir.clock import DAY_US, WINDOW_US, Clock, window_of
from logweir.config import Settings, WorkerSettings
from logweir.errors import (
    CLAIM_LOST,
    OFFSETS_EXPIRED,
    PARTITION_UNKNOWN,
    RECORD_CORRUPT,
    REPLAY_TAKEN_OVER,
    LogweirError,
)
from logweir.event import day_of, stream_of
from logweir.ledger.documents import REPLAY, Digest, PartitionId
from logweir.ledger.intervals import Intervals
from logweir.ledger.position import read_offsets
from logweir.ledger.replays import OffsetsGone, ReplayProgress
from logweir.process.lifetime import owner_new
from logweir.queue.port import Delivery, Queue
from logweir.receipt import Receipt
from logweir.record import Batch, Record, decode, header_of
from logweir.store.port import Store
from logweir_workers import enrich
from logweir_workers.accounting.store_audit import recheck_differences
from logweir_workers.backoff import Stopped, until_it_answers
from logweir_workers.deadletters.keeper import LetterRoom
from logweir_workers.document import Documents, context_of, ids_of
from logweir_workers.filters import Filters
from logweir_workers.replay.bulk import Event, Replayer

log = logging.getLogger(__name__)

_RECORDS_PER_READ = 64
_READ_WAIT_S = 0.5
_SILENT_S_MAX = 10.0
_SAVE_INTERVAL_S = 1.0
_BULKS_PER_SECOND = 2
# What a door's spool sends again, it sends soon.
_SEEN_STREAMS_MAX = 1000
_SEEN_RANGES_MAX = 1000
# By so much may a door's clock have been set back, or differ from the queue's, while events came.
_CLOCK_SLACK_US = 3_600_000_000
_CLOCK_SLACK_WINDOWS = 60


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are meant; whatever is None does not matter. Times (microseconds) are of receipt.

    ``from_us`` and ``from_offset`` are included, ``to_us`` and ``to_offset`` are not. ``emitter``: its name, its key's,
    or key/name. ``category``: as today's rules give it, in any case.
    """

    from_us: int | None = None
    to_us: int | None = None
    partition: int | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    emitter: str | None = None
    category: str | None = None
    receipt: Receipt | None = None

    def may_have(self, payload: bytes) -> bool:
        """False when no event of the record is meant; to be asked before it is unpacked."""
        header = header_of(payload)
        if header is None:
            return True
        if self.from_us is not None and header.window < window_of(self.from_us):
            return False
        if self.to_us is not None and header.window > window_of(self.to_us) + _CLOCK_SLACK_WINDOWS:
            return False
        receipt = self.receipt
        return receipt is None or (
            header.ingest_epoch == receipt.ingest_epoch
            and header.first < receipt.first + receipt.count
            and header.first + header.count > receipt.first
        )

    def has_batch(self, batch: Batch) -> bool:
        span = Span(self.from_us, self.to_us, self.emitter)
        return span.has_time(batch.received_us) and span.has_emitter((batch.key, batch.emitter))

    def has_number(self, number: int) -> bool:
        receipt = self.receipt
        return receipt is None or receipt.first <= number < receipt.first + receipt.count

    def begins(self, queue: Queue, partition: int) -> int:
        """The first offset that can have events of it. Raises LogweirError(QUEUE_DOWN)."""
        from_us = self.from_us
        if self.receipt is not None:
            from_us = max(from_us or 0, self.receipt.window * WINDOW_US)
        by_time = 0
        if from_us is not None:
            # Records are queued behind their receipt, however long they waited in a spool.
            by_time = queue.offset_at(partition, (from_us - _CLOCK_SLACK_US) // 1000)
        return max(by_time, self.from_offset or 0)


class Replay:
    """One replay. ``words``: what it was asked for with; the same words go on with it, unless it is done.

    ``is_resumed``: it goes on. ``has_other_rules``: it would, but the rules have changed since it was begun; so that no
    half of it is by other rules, it begins anew, with the same range.
    ``rate``: most events a second, None for as fast as it goes. ``dry_run``: count only, and leave no trace.
    Raises LogweirError: PARTITION_UNKNOWN, FILTERS_BAD, SETTING_BAD, QUEUE_DOWN, STORE_DOWN. Once begun, it waits for a
    queue or a store that is away.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        queue: Queue,
        selection: Selection,
        words: tuple[str, ...] = (),
        reprocess: bool = False,
        dry_run: bool = False,
        rate: float | None = None,
        restart: bool = False,
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._rate = rate
        self._dry_run = dry_run
        self._clock = clock
        self._stopping = stopping
        self._selection = selection
        # Looked at first: a change in between begins anew once too often, rather than never.
        self._rules = _fingerprint_of(settings.worker)
        self._documents = Documents(enrich.load(settings.worker), Filters.of_file(settings.worker.filters_file))
        self._owner = owner_new()
        digest = hashlib.blake2b("\0".join((str(reprocess), *words)).encode(), digest_size=16).hexdigest()
        self._place = Digest(digest)
        self._events_max = settings.worker.bulk_events_max
        if rate is not None:
            self._events_max = min(self._events_max, max(1, int(rate / _BULKS_PER_SECOND)))
        self._claim(restart)
        self._replayer = self._new_replayer(reprocess)
        self._on_progress: Callable[[ReplayProgress], None] = lambda _: None
        self._saved_s = self._paced_s = time.monotonic()

    def run(self, on_progress: Callable[[ReplayProgress], None]) -> ReplayProgress:
        """Replay until it is done or told to stop; gives how far it has come. ``on_progress`` is called now and then.

        Raises LogweirError: RECORD_VERSION_UNKNOWN, REPLAY_TAKEN_OVER, STORE_REFUSES.
        """
        self._on_progress = on_progress
        try:
            for partition in self.progress.bounds:
                self._replay_partition(partition)
            if not self._dry_run:
                group = self._settings.worker.group
                until_it_answers(lambda: recheck_differences(self._store, group, at_us=self._clock()), self._stopping)
            self.progress.is_done = True
            self._save()
        except Stopped:
            log.debug("Stopped; what was done since the last save is done again, which changes nothing.")
        return self.progress

    # --- begin, or go on -------------------------------------------------------------------------------------------
    def _claim(self, restart: bool) -> None:
        topic_id = self._queue.topic_id()
        self._generation = 0
        self.is_resumed = self.has_other_rules = False
        if not self._dry_run:
            claimed = REPLAY.claim(self._store.ledger, self._settings.worker.group, self._place, self._owner)
            self._generation = claimed.generation
            before = ReplayProgress.from_body(claimed.body) if claimed.body else None
            if before is not None and before.topic_id == topic_id and not before.is_done and not restart:
                self.progress = before
                self._selection = _selection_of(self.progress.selected)
                self.has_other_rules = self.progress.rules != self._rules
                self.is_resumed = not self.has_other_rules
                if self.is_resumed:
                    return
        self.progress = self._new_progress(topic_id)
        self._save()

    def _new_progress(self, topic_id: str) -> ReplayProgress:
        selection = self._selection
        count = self._queue.partition_count()
        wanted = selection.partition if selection.receipt is None else selection.receipt.partition
        if wanted is not None and wanted >= count:
            raise LogweirError(PARTITION_UNKNOWN, topic=self._queue.topic, partition=wanted, partitions=count)
        progress = ReplayProgress(topic_id, self._clock(), {}, {}, selected=_as_json(selection), rules=self._rules)
        places = [PartitionId(topic_id, partition) for partition in range(count)]
        # What is above has not been settled: it is still the workers' to do, and to do again.
        for (_, partition), end in read_offsets(self._store, self._settings.worker.group, places).items():
            if wanted not in (None, partition):
                continue
            first = selection.begins(self._queue, partition)
            if selection.to_offset is not None:
                end = min(end, selection.to_offset)
            first, gone = self._held(partition, first, end)
            progress.gone += gone
            progress.bounds[partition] = first, max(first, end)
            progress.following[partition] = first
        return progress

    def _held(self, partition: int, first: int, end: int) -> tuple[int, list[OffsetsGone]]:
        """From where on the queue holds what was asked for, and what it does not."""
        earliest, _ = self._queue.offsets(partition)
        if not earliest:
            return first, []
        since_us = self._queued_us(partition, earliest)
        from_us = self._selection.from_us if self._selection.from_offset is None else None
        if from_us is not None and since_us is not None and since_us > from_us:
            # By time, the queue only finds what it holds.
            first = 0
        if first >= min(earliest, end):
            return first, []
        return min(earliest, end), [OffsetsGone(partition, first, min(earliest, end) - 1, since_us)]

    def _queued_us(self, partition: int, offset: int) -> int | None:
        """When the record at ``offset`` was queued, None where there is none."""
        with closing(self._queue.reader(partition, offset)) as reader:
            found = until_it_answers(lambda: reader.read(wait_s=_READ_WAIT_S, records_max=1), self._stopping)
        return found[0].timestamp_ms * 1000 if found else None

    def _new_replayer(self, reprocess: bool) -> Replayer:
        settings = self._settings
        return Replayer(
            store=self._store,
            group=settings.worker.group,
            topic_id=self.progress.topic_id,
            documents=self._documents,
            letter_room=LetterRoom(self._store, settings.store),
            reprocess=reprocess,
            dry_run=self._dry_run,
            first_day=day_of(self._clock() - settings.store.retention_days * DAY_US),
            events_max=settings.worker.bulk_events_max,
            owner=self._owner,
            clock=self._clock,
            stopping=self._stopping,
            tally=self.progress.tally,
        )

    # --- read ------------------------------------------------------------------------------------------------------
    def _replay_partition(self, partition: int) -> None:
        bulk: list[Event] = []
        size_bytes = 0
        for delivery in self._deliveries(partition):
            for event in self._events(delivery):
                bulk.append(event)
                size_bytes += len(event.raw)
                if len(bulk) >= self._events_max or size_bytes >= self._settings.worker.bulk_size_bytes_max:
                    self._take(bulk)
                    size_bytes = 0
            if time.monotonic() - self._saved_s >= _SAVE_INTERVAL_S:
                self._take(bulk)
                size_bytes = 0
                self.progress.following[partition] = delivery.offset + 1
                self._save()
        self._take(bulk)
        self.progress.seen.clear()
        self.progress.following[partition] = self.progress.bounds[partition][1]
        self._save()
        self._on_progress(self.progress)

    def _deliveries(self, partition: int) -> Iterator[Delivery]:
        """The records of the partition that are still to be read."""
        following, end = self.progress.following[partition], self.progress.bounds[partition][1]
        while following < end:
            with closing(self._queue.reader(partition, following)) as reader:
                try:
                    for delivery in self._read(lambda: reader.read(wait_s=_READ_WAIT_S, records_max=_RECORDS_PER_READ)):
                        if delivery.offset >= end:
                            return
                        yield delivery
                        following = delivery.offset + 1
                        if following >= end:
                            return
                except LogweirError as error:
                    if error.problem is not OFFSETS_EXPIRED:
                        raise
                    following = self._expire(partition, following, end, error)

    def _read(self, read: Callable[[], list[Delivery]]) -> Iterator[Delivery]:
        heard_s = time.monotonic()
        while True:
            if self._stopping.is_set():
                raise Stopped
            deliveries = until_it_answers(read, self._stopping)
            yield from deliveries
            if deliveries:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > _SILENT_S_MAX:
                # What is below a position was there: either the queue is away, which this says, or it is slow.
                until_it_answers(self._queue.topic_id, self._stopping)
                heard_s = time.monotonic()

    def _expire(self, partition: int, following: int, end: int, error: LogweirError) -> int:
        """Retention has passed us while we read: note what is gone, and go on behind it."""
        earliest = int(error.numbers["offset_earliest"])
        if not following < earliest:
            raise error
        last = min(earliest, end) - 1
        self.progress.gone.append(OffsetsGone(partition, following, last, self._queued_us(partition, earliest)))
        return last + 1

    def _events(self, delivery: Delivery) -> Iterator[Event]:
        """The events of a record that are meant, but for those that came by before."""
        record = self._record(delivery)
        if record is None or not record.count or not record.batches:
            return
        stream = stream_of(record.ingest_epoch, delivery.partition)
        seen = self._seen(stream)
        fresh = [number for low, high in seen.gaps(record.first, record.last) for number in range(low, high + 1)]
        is_fresh = range(record.first, record.last + 1) if len(fresh) == record.count else frozenset(fresh)
        seen.add(record.first, record.last)
        number = record.first
        for batch in record.batches:
            if self._selection.has_batch(batch):
                context = context_of(batch)
                prefix, id_first = ids_of(batch)
                for at, raw in enumerate(batch.events):
                    if number + at in is_fresh and self._selection.has_number(number + at):
                        wanted = self._selection.category
                        if wanted is None or self._documents.category(raw, context) == wanted.lower():
                            yield Event(delivery, record, batch, at, stream, number + at, prefix + str(id_first + at))
            number += len(batch.events)

    def _seen(self, stream: str) -> Intervals:
        """The numbers of the stream that came by, most recently used last."""
        seen = self.progress.seen
        numbers = seen[stream] = seen.pop(stream, Intervals())
        if len(seen) > _SEEN_STREAMS_MAX:
            del seen[next(iter(seen))]
        if numbers.range_count > _SEEN_RANGES_MAX:
            numbers.remove(*next(iter(numbers)))
        return numbers

    def _record(self, delivery: Delivery) -> Record | None:
        """None for one without events that are meant. A record that cannot be read is among the dead letters, whole."""
        if not self._selection.may_have(delivery.payload):
            return None
        try:
            return decode(delivery.payload)
        except LogweirError as error:
            if error.problem is not RECORD_CORRUPT:
                raise
            return None

    # --- do, and keep ----------------------------------------------------------------------------------------------
    def _take(self, bulk: list[Event]) -> None:
        if bulk:
            if self._stopping.is_set():
                raise Stopped
            self._replayer.take(bulk)
            self._pace(len(bulk))
            bulk.clear()
        self._on_progress(self.progress)

    def _pace(self, events: int) -> None:
        if self._rate is None:
            return
        self._paced_s = max(self._paced_s + events / self._rate, time.monotonic() - 1.0)
        if self._stopping.wait(max(0.0, self._paced_s - time.monotonic())):
            raise Stopped

    def _save(self) -> None:
        """Keep how far it has come. Raises LogweirError(REPLAY_TAKEN_OVER)."""
        self._saved_s = time.monotonic()
        if self._dry_run:
            return
        group, body = self._settings.worker.group, self.progress.as_body()
        document = REPLAY.document(group, self._place, self._generation, body, owner=self._owner)
        try:
            until_it_answers(lambda: self._store.ledger.write([document]), self._stopping)
        except LogweirError as error:
            if error.problem is CLAIM_LOST:
                raise LogweirError(REPLAY_TAKEN_OVER, owner=error.numbers["owner"]) from error
            raise


def _fingerprint_of(settings: WorkerSettings) -> str:
    """Of all that decides what becomes of an event: the files of rules, tables and the operator's code; our version."""
    digest = hashlib.blake2b(repr((__version__, sorted(settings.redact))).encode(), digest_size=16)
    files = [settings.categories_file, settings.filters_file, settings.networks_file, settings.geoip_file]
    files += [settings.redaction_key_file, *_files_in(settings.enrich_dir), *_files_in(settings.lookups_dir)]
    for path in files:
        # One that is named and absent is an error of who loads it.
        content = path.read_bytes() if path is not None and path.is_file() else b""
        digest.update(hashlib.blake2b(content).digest())
    return digest.hexdigest()


def _files_in(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in (".py", ".csv"))


def _as_json(selection: Selection) -> dict[str, Any]:
    body = asdict(selection)
    if selection.receipt is not None:
        body["receipt"]["ingest_epoch"] = selection.receipt.ingest_epoch.hex()
    return body


def _selection_of(body: dict[str, Any]) -> Selection:
    token = body["receipt"]
    if token is not None:
        token = Receipt(**{**token, "ingest_epoch": bytes.fromhex(token["ingest_epoch"])})
    return Selection(**{**body, "receipt": token})
