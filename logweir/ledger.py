"""The ledger of one partition: its position, and its windows with what became of every number.

Two kinds of ledger documents, written by the worker that has claimed the partition, under the generation of its claim:

* ``position``: how far the partition is fully accounted for. It is written last, so it is never ahead of a window.
* ``window``: one minute of one ingest process: which numbers are settled, the outcomes by emitter, and, once the
  process's marker has come by, what that process says it accepted. Its ``position`` is the offset that it is true
  for: a record below it is counted already.

All values are absolute. Writing a document again, or late, or by a worker that took over, changes no number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from logweir.outcomes import Outcome
from logweir.record import Kind, Marker, Record, Void
from logweir.sequence import Intervals
from logweir.store import LedgerDocument, Store

_OUTCOMES = tuple(Outcome)
_NAMES = tuple(outcome.value for outcome in Outcome)
WINDOWS_IN_MEMORY_MAX = 256
"""Windows of one partition kept in memory; the least recently used are read again from the store when needed."""

Emitter = tuple[str, str | None]
"""Key name, and the emitter's own name where it sent one."""


@dataclass(slots=True)
class Window:
    """What is known of one window on one partition. ``position``: the next offset behind the last record counted."""

    id: str
    ingest_epoch: str
    window: int
    position: int = 0
    numbers: Intervals = field(default_factory=Intervals)
    outcomes: dict[Emitter, list[int]] = field(default_factory=dict)
    marker: dict[str, Any] | None = None
    voids: Intervals = field(default_factory=Intervals)
    dirty: bool = False

    @property
    def closed(self) -> bool:
        """The process has said that nothing of this window comes after."""
        return self.marker is not None

    def count(self, emitter: Emitter, outcomes: Collection[Outcome]) -> None:
        counts = self.outcomes.setdefault(emitter, [0] * len(_OUTCOMES))
        for at, outcome in enumerate(_OUTCOMES):
            counts[at] += sum(1 for found in outcomes if found is outcome)

    def as_body(self) -> dict[str, Any]:
        return {
            "kind": "window",
            "ingest_epoch": self.ingest_epoch,
            "window": self.window,
            "position": self.position,
            "numbers": [list(pair) for pair in self.numbers],
            "outcomes": [
                {"key": key, "emitter": emitter, **dict(zip(_NAMES, counts, strict=True))}
                for (key, emitter), counts in self.outcomes.items()
            ],
            "marker": self.marker,
            "voids": [list(pair) for pair in self.voids],
            "closed": self.closed,
        }

    @classmethod
    def from_body(cls, id: str, body: dict[str, Any]) -> Window:
        return cls(
            id=id,
            ingest_epoch=body["ingest_epoch"],
            window=body["window"],
            position=body["position"],
            numbers=Intervals((first, last) for first, last in body["numbers"]),
            outcomes={(row["key"], row["emitter"]): [row[name] for name in _NAMES] for row in body["outcomes"]},
            marker=body["marker"],
            voids=Intervals((first, last) for first, last in body["voids"]),
        )


class PartitionLedger:
    """The claimed ledger of one partition. Made by ``claim``; used by one thread."""

    def __init__(self, *, store: Store, prefix: str, owner: str, partition: int, claimed: LedgerDocument) -> None:
        self.partition = partition
        self.dropped = False
        self._store = store
        self._prefix = prefix
        self._owner = owner
        self._generation = claimed.generation
        self._expired = Intervals((first, last) for first, last in claimed.body.get("expired", []))
        self._windows: dict[str, Window] = {}
        self._dirty = False
        self.next_offset: int | None = claimed.body.get("next_offset")

    @classmethod
    def claim(cls, *, store: Store, group: str, topic_id: str, partition: int, owner: str) -> PartitionLedger:
        """Take the partition over from whoever had it. Their later writes fail with CLAIM_LOST."""
        prefix = f"{group}:{topic_id}:{partition}"
        claimed = store.claim(f"position:{prefix}", owner)
        return cls(store=store, prefix=prefix, owner=owner, partition=partition, claimed=claimed)

    def load(self, records: Iterable[Record]) -> None:
        """Have the windows of these records in memory, from the store where they were written before."""
        wanted = {self._window_id(record): record for record in records if record.kind != Kind.REFUSED}
        absent = [id for id in wanted if id not in self._windows]
        if not absent:
            return
        stored = self._store.read_ledger(absent)
        for id in absent:
            record = wanted[id]
            self._windows[id] = (
                Window.from_body(id, stored[id].body)
                if id in stored
                else Window(id, record.ingest_epoch.hex(), record.window)
            )

    def settle(self, record: Record, offset: int, outcomes: list[Outcome]) -> bool:
        """Count a record's outcomes, one for each of its events, and move behind it. False: it was counted before.

        To be called in the order of the offsets, after ``load``, once everything of the record is durable.
        """
        # A refused body has no numbers: it is in no window.
        counted = record.kind == Kind.REFUSED or self._count(record, offset, outcomes)
        self.pass_over(offset)
        return counted

    def pass_over(self, offset: int) -> None:
        """Move behind a record that has no numbers."""
        self.next_offset = offset + 1
        self._dirty = True

    def expire(self, first: int, last: int) -> None:
        """Note that the queue no longer had the offsets ``first`` to ``last``; go on behind them.

        To be called when everything before ``first`` is settled.
        """
        self._expired.add(first, last)
        self.next_offset = last + 1
        self._dirty = True

    def rewind(self, offset: int) -> None:
        """Go back to where the queue ends: it has lost what was behind, and will give these offsets out again."""
        self.next_offset = offset
        self._dirty = True
        for window in self._windows.values():
            window.position = min(window.position, offset)
            window.dirty = True

    def flush(self) -> int | None:
        """Write what has changed; gives the offset to commit, None when nothing has changed.

        Raises LogweirError: CLAIM_LOST, STORE_DOWN (then all of it is written by the next flush).
        """
        if not self._dirty or self.next_offset is None:
            return None
        touched = [window for window in self._windows.values() if window.dirty]
        documents = [
            LedgerDocument(window.id, self._generation, self._identified(window.as_body())) for window in touched
        ]
        # The position last: a crash in between leaves it behind the windows, which know what they have counted.
        self._store.write_ledger(
            [*documents, LedgerDocument(f"position:{self._prefix}", self._generation, self._position())]
        )
        for window in touched:
            window.dirty = False
        self._dirty = False
        self._forget()
        return self.next_offset

    def _count(self, record: Record, offset: int, outcomes: list[Outcome]) -> bool:
        window = self._windows[self._window_id(record)]
        if offset < window.position:
            return True
        if isinstance(record.body, Marker | Void):
            # A marker may come twice, when the door was told that the first had failed.
            for first, last in record.body.voids:
                window.voids.add(first, last)
            if isinstance(record.body, Marker):
                window.marker = _marker_body(record, record.body)
        elif record.count and window.numbers.add(record.first, record.last) == 0:
            return False
        at = 0
        for batch in record.batches:
            window.count((batch.key, batch.emitter), outcomes[at : at + len(batch.events)])
            at += len(batch.events)
        window.position = offset + 1
        window.dirty = True
        # Most recently used last, for _forget.
        self._windows[window.id] = self._windows.pop(window.id)
        return True

    def _forget(self) -> None:
        closed = [id for id, window in self._windows.items() if window.closed]
        surplus = list(self._windows)[: max(0, len(self._windows) - WINDOWS_IN_MEMORY_MAX)]
        for id in {*closed, *surplus}:
            del self._windows[id]

    def _window_id(self, record: Record) -> str:
        return f"window:{self._prefix}:{record.ingest_epoch.hex()}:{record.window}"

    def _identified(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"owner": self._owner, "partition": self.partition, **body}

    def _position(self) -> dict[str, Any]:
        expired = [list(pair) for pair in self._expired]
        return self._identified({"kind": "position", "next_offset": self.next_offset, "expired": expired})


def _marker_body(record: Record, marker: Marker) -> dict[str, Any]:
    return {
        "first": record.first,
        "last": record.last,
        "accepted": [
            {"key": row.key, "emitter": row.emitter, "accepted": row.accepted, "unconfirmed": row.unconfirmed}
            for row in marker.accepted
        ],
    }
