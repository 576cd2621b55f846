"""Encoding: whatever is in the batches, each record fits, and together they hold every event once and in order."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logweir import record
from logweir.errors import QUEUE_RECORD_TOO_LARGE, LogweirError
from logweir.record import Batch
from logweir_ingest.records.encode import NamedBatch, RecordEncoder, memory_size

SIZE_BYTES_MAX = 2_000
# Half of it shrinks to nothing, half does not shrink at all.
_NOISE = random.Random(7).randbytes(SIZE_BYTES_MAX) + bytes(SIZE_BYTES_MAX)


def batch(name: str, sizes_bytes: list[int], offset: int = 0, sequence_first: int | None = None) -> Batch:
    events = [_NOISE[offset : offset + size_bytes] for size_bytes in sizes_bytes]
    return Batch(bytes(16), 1, name, "e", None, sequence_first, None, None, None, False, "", "json", None, 0, events)


def encoded(encoder: RecordEncoder, batches: list[Batch]) -> list[record.Record]:
    size_bytes = sum(memory_size(one, sum(map(len, one.events))) for one in batches)
    found = []
    first = 1
    for payload, count, parts in encoder.records(batches, size_bytes, first=1, window=3):
        decoded = record.decode(payload)
        assert len(payload) <= SIZE_BYTES_MAX
        assert (decoded.first, decoded.count, decoded.window) == (first, count, 3)
        assert decoded.batches == parts
        first += count
        found.append(decoded)
    return found


_sizes = st.lists(st.integers(0, SIZE_BYTES_MAX - 500), max_size=12)


@given(st.lists(st.tuples(_sizes, st.integers(0, SIZE_BYTES_MAX)), min_size=1, max_size=8))
@example([([], 0)])
@example([([1_500] * 12, 0)])
def test_every_event_is_in_one_record_in_its_order(shapes: list[tuple[list[int], int]]) -> None:
    """Each part of a batch that was cut says with which index, and which sequence, it begins."""
    encoder = RecordEncoder(ingest_epoch=bytes(16), record_size_bytes_max=SIZE_BYTES_MAX)
    batches = [batch(str(n), sizes, offset, 1001) for n, (sizes, offset) in enumerate(shapes)]
    for _ in range(2):  # The second time it knows how far they shrink.
        parts = [part for one in encoded(encoder, batches) for part in one.batches]

        for name, whole in zip(map(str, range(len(batches))), batches, strict=True):
            own = [part for part in parts if part.key == name]
            assert [event for part in own for event in part.events] == whole.events
            index = 0
            for part in own:
                assert (part.index_first, part.sequence_first) == (index, 1001 + index)
                index += len(part.events)
        assert [int(part.key) for part in parts] == sorted(int(part.key) for part in parts)


def test_an_event_that_fits_no_record_is_refused_behind_those_that_do() -> None:
    """What stands before it has been encoded: who sends must know what it has given away."""
    encoder = RecordEncoder(ingest_epoch=bytes(16), record_size_bytes_max=1_000)
    batches = [batch("good", [10]), batch("large", [1_900])]
    records = encoder.records(batches, 10_000, first=1, window=3)

    assert next(records)[2] == [batches[0]]
    with pytest.raises(LogweirError) as caught:
        next(records)
    assert caught.value.problem is QUEUE_RECORD_TOO_LARGE


@given(_sizes, st.integers(0, SIZE_BYTES_MAX), st.data())
def test_a_named_event_is_a_batch_of_its_own_wherever_it_is(sizes: list[int], offset: int, data: st.DataObject) -> None:
    """Cut anywhere, each event has the id of its name, or its place in the batch."""
    ids = data.draw(st.lists(st.none() | st.binary(min_size=16, max_size=16), min_size=len(sizes), max_size=len(sizes)))
    whole = NamedBatch.of(batch("k", sizes, offset), ids)
    encoder = RecordEncoder(ingest_epoch=bytes(16), record_size_bytes_max=SIZE_BYTES_MAX)
    size_bytes = memory_size(whole, sum(sizes))
    found: list[Batch] = []
    counted = 0
    for payload, count, parts in encoder.records([whole], size_bytes, first=1, window=3):
        batches = record.decode(payload).batches
        assert len(payload) <= SIZE_BYTES_MAX
        assert count == sum(len(part.events) for part in parts) == len(batches)
        assert parts[0].index_first == counted
        counted += count
        found += batches

    assert [one.events for one in found] == [[event] for event in whole.events]
    assert [(one.id, one.index_first) for one in found] == [
        (bytes(16), index) if id is None else (id, 0) for index, id in enumerate(ids)
    ]
