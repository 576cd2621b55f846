"""The sources of one partition: who sends, by category and host name, for whom silence is judged.

A source is a pair of category and host name, as the stored events have them. Sources share ledger documents, so that
10,000 of them are a thousand documents and not ten thousand; a document changes once a minute at most for each of its
sources. Nothing here needs the position that it is true for: a bit set twice is set, and the latest time stays it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from logweir.config import AccountingSettings
from logweir.ledger.documents import SOURCES, BucketId, PartitionId
from logweir.ledger.position import Position
from logweir.ledger.shares import Shares
from logweir.ledger.source import (
    LastBatch,
    Source,
    SourceState,
    bounded,
    bucket_of,
    sources_as_body,
    sources_from_body,
)
from logweir.metrics import registry
from logweir.record import Batch
from logweir.store.port import Store

log = logging.getLogger(__name__)

_SAY_AGAIN_S = 60.0


class SourceLedger:
    """The sources of one claimed partition. Used by one thread. ``shares``: how many there are, for the limit; each is
    of the key that it came with first."""

    def __init__(
        self, *, store: Store, group: str, partition: PartitionId, settings: AccountingSettings, position: Position
    ) -> None:
        self.shares = Shares(settings.sources_max, count=position.sources, by_key=position.sources_by_key)
        self.untracked = position.sources_untracked
        self._store = store
        self._group = group
        self._partition = partition
        self._in_memory_max = settings.sources_in_memory_max
        self._said_s = -_SAY_AGAIN_S
        # Most recently used last.
        self._buckets: OrderedDict[int, dict[Source, SourceState]] = OrderedDict()
        # All that the buckets have, so that a source that is known costs no more than a look.
        self._known: dict[Source, SourceState] = {}
        self._dirty: set[int] = set()

    @property
    def count(self) -> int:
        return self.shares.count

    def load(self, sources: Iterable[Source]) -> None:
        """Have these sources in memory. Raises LogweirError(STORE_DOWN)."""
        new = [source for source in sources if source not in self._known]
        absent = {bucket for source in new if (bucket := bucket_of(bounded(source))) not in self._buckets}
        if not absent:
            return
        stored = SOURCES.read(self._store.ledger, self._group, map(self._place, absent))
        for bucket in absent:
            document = stored.get(self._place(bucket))
            self._keep(bucket, sources_from_body(document.body) if document else ())

    def _keep(self, bucket: int, states: Iterable[SourceState]) -> None:
        self._buckets[bucket] = {state.source: state for state in states}
        self._known.update(self._buckets[bucket])

    def mark(self, sources: Mapping[Source, Batch], door: str) -> None:
        """Note that events of these sources came, each in its batch; to be called after ``load``."""
        for sent, batch in sources.items():
            state = self._known.get(sent) or self._state_of(bounded(sent), batch, door)
            if state is None:
                self.untracked += 1
                self._say_untracked(batch.key)
                registry.get("logweir_worker_sources_untracked_total").inc()
                continue
            if batch.received_us > state.last.received_us:
                state.last = _last(batch, door)
            if state.cadence.mark(batch.received_us):
                bucket = bucket_of(state.source)
                self._dirty.add(bucket)
                self._buckets.move_to_end(bucket)

    def _state_of(self, source: Source, batch: Batch, door: str) -> SourceState | None:
        """A new one where it is new; None when there is no room for it."""
        states = self._buckets[bucket_of(source)]
        if source not in states:
            if not self.shares.has_room(batch.key):
                return None
            self.shares.take(batch.key)
            states[source] = self._known[source] = SourceState(source, batch.received_us, _last(batch, door))
        return states[source]

    def _say_untracked(self, key: str) -> None:
        if time.monotonic() - self._said_s < _SAY_AGAIN_S:
            return
        self._said_s = time.monotonic()
        log.warning(
            "Sources of the key %s are not watched for silence on partition %d: it has %d, and accounting.sources_max"
            " is reached. (Said once a minute; all records are counted.)",
            key,
            self._partition.partition,
            self.shares.by_key[key],
            extra={"key": key, "partition": self._partition.partition},
        )

    def touched(self) -> list[tuple[BucketId, dict[str, Any]]]:
        """The documents to be written, as place and body."""
        return [(self._place(bucket), sources_as_body(self._buckets[bucket].values())) for bucket in self._dirty]

    def written(self) -> None:
        """What was touched is in the store: leave the least recently used out of memory, down to the setting."""
        self._dirty.clear()
        while len(self._known) > self._in_memory_max:
            for source in self._buckets.popitem(last=False)[1]:
                del self._known[source]

    def forget(self, before_us: int) -> int:
        """Let go of what was not heard of since then, so that others have room; gives how many. Raises STORE_DOWN.

        What is written for it is written by the next flush.
        """
        self._load_all()
        old = [
            (bucket, source)
            for bucket, states in self._buckets.items()
            for source, state in states.items()
            if state.last.received_us < before_us
        ]
        for bucket, source in old:
            del self._buckets[bucket][source], self._known[source]
            self._dirty.add(bucket)
        # Exactly, now that all are here: a crash may have left the count behind the documents.
        self.shares.count = len(self._known)
        self.shares.by_key = Counter(state.last.key for state in self._known.values())
        return len(old)

    def _load_all(self) -> None:
        for place, document in SOURCES.scan(self._store.ledger, self._group, *self._partition):
            if place.bucket not in self._buckets:
                self._keep(place.bucket, sources_from_body(document.body))

    def _place(self, bucket: int) -> BucketId:
        return BucketId(*self._partition, bucket)


def _last(batch: Batch, door: str) -> LastBatch:
    return LastBatch(batch.received_us, batch.key, batch.source_address, door)
