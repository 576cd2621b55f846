"""The sources of one partition, and when the partition could be heard: what silence is judged by.

A source is a pair of category and host name, as the stored events have them. Sources share ledger documents, so that
10,000 of them are a thousand documents and not ten thousand; a document changes once a minute at most for each of its
sources. Nothing here needs the position that it is true for: a bit set twice is set, and the latest time stays it.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logweir.clock import WINDOW_US
from logweir.config import AccountingSettings
from logweir.ledger.rhythm import MINUTES_HEARD, Bits, Rhythm
from logweir.metrics import table as metrics
from logweir.record import Batch
from logweir.store.port import Store

BUCKETS = 1024
"""Documents that the sources of one partition share."""
NAME_LENGTH_MAX = 256
_CLEAR_SLACK_US = 30_000_000
"""The end of a queue is asked for now and then: what was empty is known to have been empty so long ago."""

Source = tuple[str | None, str | None]
"""Category and host name; None where the events have none."""


class LastBatch(NamedTuple):
    """Of the batch that was heard last: when, under which key, from where, and through which ingest process."""

    received_us: int
    key: str
    source_address: str
    door: str


@dataclass(slots=True)
class SourceState:
    """One source on one partition."""

    source: Source
    first_us: int
    last: LastBatch
    rhythm: Rhythm = field(default_factory=Rhythm)

    def as_body(self) -> dict[str, Any]:
        return {
            "category": self.source[0],
            "hostname": self.source[1],
            "first_us": self.first_us,
            "last": list(self.last),
            "rhythm": self.rhythm.as_body(),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> SourceState:
        source = body["category"], body["hostname"]
        return cls(source, body["first_us"], LastBatch(*body["last"]), Rhythm.from_body(body["rhythm"]))


class SourceLedger:
    """The sources of one claimed partition. Used by one thread. ``count``: how many there are, for the limit."""

    def __init__(self, *, store: Store, prefix: str, settings: AccountingSettings, body: Mapping[str, Any]) -> None:
        self.count: int = body.get("sources", 0)
        self.untracked: int = body.get("sources_untracked", 0)
        self._store = store
        self._prefix = prefix
        self._sources_max = settings.sources_max
        self._in_memory_max = settings.sources_in_memory_max
        # Most recently used last.
        self._buckets: OrderedDict[int, dict[Source, SourceState]] = OrderedDict()
        # All that the buckets have, so that a source that is known costs no more than a look.
        self._known: dict[Source, SourceState] = {}
        self._dirty: set[int] = set()

    def load(self, sources: Iterable[Source]) -> None:
        """Have these sources in memory. Raises LogweirError(STORE_DOWN)."""
        new = [source for source in sources if source not in self._known]
        absent = {bucket for source in new if (bucket := bucket_of(bounded(source))) not in self._buckets}
        if not absent:
            return
        stored = self._store.read_ledger([self._id(bucket) for bucket in absent])
        for bucket in absent:
            found = stored.get(self._id(bucket))
            self._keep(bucket, found.body["sources"] if found else ())

    def _keep(self, bucket: int, rows: Iterable[Mapping[str, Any]]) -> None:
        states = {state.source: state for state in map(SourceState.from_body, rows)}
        self._buckets[bucket] = states
        self._known.update(states)

    def mark(self, sources: Mapping[Source, Batch], door: str) -> None:
        """Note that events of these sources came, each in its batch; to be called after ``load``."""
        for sent, batch in sources.items():
            state = self._known.get(sent) or self._state_of(bounded(sent), batch, door)
            if state is None:
                self.untracked += 1
                metrics.get("logweir_worker_sources_untracked_total").inc()
                continue
            if batch.received_us > state.last.received_us:
                state.last = _last(batch, door)
            if state.rhythm.mark(batch.received_us):
                bucket = bucket_of(state.source)
                self._dirty.add(bucket)
                self._buckets.move_to_end(bucket)

    def _state_of(self, source: Source, batch: Batch, door: str) -> SourceState | None:
        """A new one where it is new; None when there is no room for it."""
        states = self._buckets[bucket_of(source)]
        if source not in states:
            if self.count >= self._sources_max:
                return None
            self.count += 1
            states[source] = self._known[source] = SourceState(source, batch.received_us, _last(batch, door))
        return states[source]

    def touched(self) -> list[tuple[str, dict[str, Any]]]:
        """The documents to be written, as id and body."""
        return [
            (
                self._id(bucket),
                {"kind": "sources", "sources": [one.as_body() for one in self._buckets[bucket].values()]},
            )
            for bucket in self._dirty
        ]

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
        self.count = len(self._known)
        return len(old)

    def _load_all(self) -> None:
        for document in self._store.scan_ledger(self._prefix):
            bucket = int(document.id.removeprefix(self._prefix))
            if bucket not in self._buckets:
                self._keep(bucket, document.body["sources"])

    def _id(self, bucket: int) -> str:
        return f"{self._prefix}{bucket:04}"


class Hearing:
    """In which minutes a partition received anything, and up to when its queue is known to be worked off."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.heard = Bits.from_body(MINUTES_HEARD, body["heard"]) if "heard" in body else Bits(MINUTES_HEARD)
        self.clear_minute: int = body.get("clear_minute", 0)
        self.dirty = False

    def mark(self, minute: int) -> None:
        """A record was received in that minute."""
        heard = self.heard
        if minute != heard.top or not heard.bits:
            self.dirty |= heard.mark(minute)

    def clear(self, now_us: int) -> None:
        """All that had come a little before ``now_us`` is accounted for."""
        minute = (now_us - _CLEAR_SLACK_US) // WINDOW_US
        if minute > self.clear_minute:
            self.clear_minute, self.dirty = minute, True

    def as_body(self) -> dict[str, Any]:
        return {"kind": "hearing", "heard": self.heard.as_body(), "clear_minute": self.clear_minute}


def sources_prefix(group: str) -> str:
    """What the ids of a group's sources begin with; behind it stand topic id, partition and bucket."""
    return f"sources:{group}:"


def hearing_prefix(group: str) -> str:
    """What the ids of a group's hearings begin with; behind it stand topic id, a colon and the partition."""
    return f"hearing:{group}:"


def bounded(source: Source) -> Source:
    """The source with names of bounded length: senders choose them."""
    category, hostname = source
    if len(category or "") <= NAME_LENGTH_MAX and len(hostname or "") <= NAME_LENGTH_MAX:
        return source
    return category and category[:NAME_LENGTH_MAX], hostname and hostname[:NAME_LENGTH_MAX]


def bucket_of(source: Source) -> int:
    """Which of a partition's documents a source is in."""
    return zlib.crc32(repr(source).encode("utf-8", "backslashreplace")) % BUCKETS


def _last(batch: Batch, door: str) -> LastBatch:
    return LastBatch(batch.received_us, batch.key, batch.source_address, door)
