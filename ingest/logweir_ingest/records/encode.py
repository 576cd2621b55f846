"""Batches to encoded records, none larger than the queue takes; no queue, no thread and no clock in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from logweir import record
from logweir.errors import QUEUE_RECORD_TOO_LARGE, LogweirError
from logweir.record import Batch

# Of a batch in a record, beside its events and what its emitter can make long.
_BATCH_OVERHEAD_BYTES = 200
_REASON_OVERHEAD_BYTES = 10
_STAMP_OVERHEAD_BYTES = 6
_EVENT_OVERHEAD_BYTES = 5
# What an event in memory needs beside its own bytes.
_EVENT_OBJECT_BYTES = 60


class NamedBatch(Batch, array_like=True, frozen=True):
    """A batch some of whose events are known by names of their own: in a record each of these is a batch by itself."""

    ids: list[bytes | None] = []  # noqa: RUF012  A default of msgspec's, which each object has its own of.
    """For each event the id of its batch; None: that of this one."""

    @classmethod
    def of(cls, batch: Batch, ids: list[bytes | None]) -> NamedBatch:
        return cls(*(*msgspec.structs.astuple(batch), ids))

    def single(self) -> Iterator[Batch]:
        """Yield what a record has of it: one batch for each event."""
        fields = msgspec.structs.astuple(self)[1:-3]
        for index, (event, id) in enumerate(zip(self.events, self.ids, strict=True), start=self.index_first):
            if id is None:
                yield Batch(*(self.id, *fields, index, [event]))
            else:
                yield Batch(*(id, *fields, 0, [event]))


class RecordEncoder:
    """Encodes batches, and remembers how far they shrank. For one thread at a time."""

    def __init__(self, *, ingest_epoch: bytes, record_size_bytes_max: int) -> None:
        self._ingest_epoch = ingest_epoch
        self._size_bytes_max = record_size_bytes_max
        self._shrink = 2.0
        """How many raw bytes the last records had for each encoded one."""

    def records(
        self, batches: list[Batch], size_bytes: int, *, first: int, window: int
    ) -> Iterator[tuple[bytes, int, list[Batch]]]:
        """Yield records as payload, number of events, and the batches, or parts of one, that it holds.

        All batches are in them, in order; numbers go on from ``first``. ``size_bytes`` is the sum of ``memory_size``.
        No record is larger than the queue takes, nor than a reader wants to unpack (record.RAW_SIZE_BYTES_MAX,
        EVENTS_MAX). Raises LogweirError(QUEUE_RECORD_TOO_LARGE) when a single event does not fit.
        """
        size_bytes_max = self._size_bytes_max
        # How far the last ones shrank says how much to put into one; a guess too high is cut in two and tried again.
        raw_size_bytes = min(int(size_bytes_max * max(1.0, self._shrink * 0.8)), record.RAW_SIZE_BYTES_MAX)
        is_one = size_bytes <= raw_size_bytes and len(batches) + _events(batches) <= record.EVENTS_MAX
        runs = deque([batches]) if is_one else deque(_runs(batches, raw_size_bytes))
        while runs:
            run = runs.popleft()
            count = _events(run)
            payload = record.encode(
                record.Kind.DATA,
                ingest_epoch=self._ingest_epoch,
                first=first,
                count=count,
                window=window,
                body=_as_recorded(run),
            )
            if len(payload) <= size_bytes_max:
                # What is small says little.
                if len(payload) > size_bytes_max // 16:
                    self._shrink += (_raw_size_bytes(run) / len(payload) - self._shrink) / 8
                yield payload, count, run
                first += count
            elif count <= 1 and len(run) == 1:
                raise LogweirError(QUEUE_RECORD_TOO_LARGE, size_bytes=len(payload), size_bytes_max=size_bytes_max)
            else:
                self._shrink = max(1.0, self._shrink / 2)
                runs.extendleft(reversed(list(_runs(run, _raw_size_bytes(run) // 2))))


def _as_recorded(run: list[Batch]) -> list[Batch]:
    if not any(isinstance(batch, NamedBatch) for batch in run):
        return run
    return [one for batch in run for one in (batch.single() if isinstance(batch, NamedBatch) else (batch,))]


def memory_size(batch: Batch, events_size_bytes: int) -> int:
    """About how many bytes a batch takes in memory, with events of so many bytes; never less than in a record."""
    return (
        events_size_bytes + _overhead_bytes(batch) + (_EVENT_OBJECT_BYTES + _per_event_bytes(batch)) * len(batch.events)
    )


def _events(batches: Sequence[Batch]) -> int:
    return sum([len(batch.events) for batch in batches])


def _raw_size_bytes(batches: Sequence[Batch]) -> int:
    return sum(
        _overhead_bytes(batch) + sum(map(len, batch.events)) + _per_event_bytes(batch) * len(batch.events)
        for batch in batches
    )


def _per_event_bytes(batch: Batch) -> int:
    """About what an event adds to a record's body beside its own bytes."""
    return _overhead_bytes(batch) if isinstance(batch, NamedBatch) else _EVENT_OVERHEAD_BYTES


def _overhead_bytes(batch: Batch) -> int:
    """About what a batch adds to a record's body beside its events."""
    size_bytes = _BATCH_OVERHEAD_BYTES + len(batch.emitter or "") + len(batch.epoch or "")
    if batch.dropped:
        size_bytes += sum(_REASON_OVERHEAD_BYTES + len(reason) for reason in batch.dropped)
    if batch.stamp:
        size_bytes += sum(_STAMP_OVERHEAD_BYTES + len(name) + len(text.encode()) for name, text in batch.stamp.items())
    return size_bytes


def _runs(batches: Sequence[Batch], size_bytes_max: int) -> Iterator[list[Batch]]:
    """Yield the batches in order, in runs of at most ``size_bytes_max`` raw bytes and record.EVENTS_MAX events.

    Each run has one event at least, whatever its size. A batch that is larger is cut: each part says with which index,
    and which sequence, it begins.
    """
    run: list[Batch] = []
    bytes_left, events_left = size_bytes_max, record.EVENTS_MAX
    for batch in batches:
        for part in _parts(batch, size_bytes_max):
            size_bytes, count = _raw_size_bytes([part]), max(1, len(part.events))
            if run and (size_bytes > bytes_left or count > events_left):
                yield run
                run, bytes_left, events_left = [], size_bytes_max, record.EVENTS_MAX
            run.append(part)
            bytes_left -= size_bytes
            events_left -= count
    if run:
        yield run


def _parts(batch: Batch, size_bytes_max: int) -> Iterator[Batch]:
    """Yield the batch as it is, or in parts that each fit into a run of their own."""
    count = len(batch.events)
    if count <= 1 or (count <= record.EVENTS_MAX and _raw_size_bytes([batch]) <= size_bytes_max):
        yield batch
        return
    events_size_bytes_max, per_event_bytes = size_bytes_max - _overhead_bytes(batch), _per_event_bytes(batch)
    start, bytes_left = 0, events_size_bytes_max
    for index, event in enumerate(batch.events):
        size_bytes = len(event) + per_event_bytes
        if index > start and (size_bytes > bytes_left or index - start >= record.EVENTS_MAX):
            yield _part(batch, start, index)
            start, bytes_left = index, events_size_bytes_max
        bytes_left -= size_bytes
    yield _part(batch, start, count)


def _part(batch: Batch, start: int, end: int) -> Batch:
    sequence_first = None if batch.sequence_first is None else batch.sequence_first + start
    part = msgspec.structs.replace(
        batch, events=batch.events[start:end], index_first=batch.index_first + start, sequence_first=sequence_first
    )
    return msgspec.structs.replace(part, ids=part.ids[start:end]) if isinstance(part, NamedBatch) else part
