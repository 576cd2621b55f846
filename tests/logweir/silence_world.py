"""Partitions whose ledgers are told, minute by minute, who sends: the clock is a number, nothing sleeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from logweir.config import AccountingSettings, SilenceSettings
from logweir.ledger.source import Source
from logweir.outcomes import Outcome
from logweir.record import Batch, Kind, Record
from logweir.silence.states import Silence, read_silence
from logweir.silence.watched import Watched
from logweir.store.port import Store
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.settled import SettledRecord

DOOR = b"\x07" * 16
OTHER_DOOR = b"\x08" * 16
START = 29_000_000
"""The first minute: 2025-02-19T21:20Z."""
HOUR, DAY = 60, 1440
SETTINGS = SilenceSettings()


def batch(
    at: int,
    name: str | None,
    *,
    key: str = "app",
    address: str = "10.1.2.3",
    sequence: int | None = None,
    bye: bool = False,
    epoch: str | None = None,
) -> Batch:
    """One event, received in the minute ``at`` (counted from START)."""
    return Batch(
        id=b"\x01" * 16,
        received_us=(START + at) * 60_000_000 + 1,
        key=key,
        emitter=name,
        epoch=epoch,
        sequence_first=sequence,
        high=None,
        previous=None,
        dropped=None,
        bye=bye,
        source_address=address,
        format="json",
        stamp=None,
        index_first=0,
        events=[b"{}"],
    )


@dataclass
class World:
    """Minutes are counted from START. Nothing is in the store before ``flush``."""

    store: Store
    partitions: int = 1
    group: str = "g"
    settings: AccountingSettings = field(default_factory=AccountingSettings)

    def __post_init__(self) -> None:
        self.claim()
        self._numbers = [0] * self.partitions
        self._offsets = [0] * self.partitions

    def claim(self) -> None:
        """As workers do that start anew: what was not flushed is gone."""
        self.ledgers = [
            PartitionLedger.claim(
                store=self.store, group=self.group, topic_id="t", partition=at, owner="me", settings=self.settings
            )
            for at in range(self.partitions)
        ]

    def send(
        self,
        one: Batch,
        *,
        partition: int = 0,
        door: bytes = DOOR,
        sources: Iterable[Source] = (),
        outcomes: Sequence[Outcome] = (),
        reasons: Mapping[int, str] | None = None,
    ) -> None:
        """A record of one batch, worked off: indexed, where no ``outcomes`` are given."""
        self._numbers[partition] += 1
        window = one.received_us // 60_000_000
        self._settle(
            Record(Kind.DATA, door, self._numbers[partition], 1, window, [one]), partition, sources, outcomes, reasons
        )

    def canary(self, at: int, *, partition: int = 0, door: bytes = DOOR) -> None:
        one = Batch(
            door, (START + at) * 60_000_000, "", None, door.hex(), None, at + 1, None, None, False, "", "", None, 0, []
        )
        self._settle(Record(Kind.CANARY, door, 1, 0, START + at, [one]), partition, ())

    def canaries(self, first: int, last: int) -> None:
        """One a minute, to each partition in turn, of the minutes from ``first`` to ``last``."""
        for at in range(first, last + 1):
            self.canary(at, partition=at % self.partitions)

    def _settle(
        self,
        record: Record,
        partition: int,
        sources: Iterable[Source],
        outcomes: Sequence[Outcome] = (),
        reasons: Mapping[int, str] | None = None,
    ) -> None:
        ledger = self.ledgers[partition]
        named = dict.fromkeys(sources, record.batches[0]) if record.batches else {}
        ledger.load([record], (), named)
        ledger.expect(record, self._offsets[partition])
        outcomes = outcomes or [Outcome.INDEXED] * record.count
        ledger.settle(SettledRecord(record, self._offsets[partition], outcomes, reasons=reasons or {}, sources=named))
        self._offsets[partition] += 1

    def flush(self, now: int, *, clear: Iterable[int] | None = None) -> None:
        """Write it all; the partitions ``clear`` (all, if not said) are worked off up to the minute ``now``."""
        for at, ledger in enumerate(self.ledgers):
            if clear is None or at in clear:
                ledger.idle((START + now) * 60_000_000 + 45_000_000)
            ledger.flush()

    def read(self, now: int = 0, settings: SilenceSettings = SETTINGS) -> Silence:
        return read_silence(self.store, group=self.group, settings=settings, now_us=(START + now) * 60_000_000)

    def emitter(self, name: str, now: int = 0, settings: SilenceSettings = SETTINGS) -> Watched:
        (found,) = [one for one in self.read(now, settings).emitters if one.name == name]
        return found
