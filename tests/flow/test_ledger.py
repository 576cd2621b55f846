"""The books against the truth: emitters, doors with a spool, a queue, workers that crash anywhere, an embedded store.

A state machine plays what can happen between an emitter and the store, in any order, and remembers what really was
sent, accepted, withheld and lost. Whatever happened, the books balance, and the gaps that they report are true.
`make proof` plays two thousand times.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from logweir import config
from logweir.audit.books import Books, ExpiredOffsets, read_books
from logweir.audit.close import close_process
from logweir.audit.emitters import TOTALS, EmitterBooks, Run
from logweir.audit.windows import CLOSED_AFTERWARDS, PROCESS_GONE
from logweir.clock import DAY_US
from logweir.config import AccountingSettings, EventFields
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.equation import Row
from logweir.query.parse import parse
from logweir.queue import open_queue
from logweir.queue.port import Delivery
from logweir.record import Accepted, Batch, Body, Gone, Kind, Marker, encode
from logweir_workers.accounting.closing import end_books
from logweir_workers.accounting.hours import HourMerger
from logweir_workers.accounting.partition import PartitionLedger
from logweir_workers.accounting.retention import delete_old_books, old_books
from logweir_workers.deadletters.retry import Retrier
from logweir_workers.enrich import Enricher
from logweir_workers.filters import Filters
from logweir_workers.normalise.fields import Context
from logweir_workers.pipeline import Pipeline
from logweir_workers.work import Work
from tests.crashing import Crash, CrashingStore
from tests.proof import size

GROUP = "logweir"
PARTITIONS = 2
LATE_US = 60_000_000
MINUTE_US = 60_000_000
# A quarter of an hour before midnight, so that runs reach into another day.
START_US = 1_790_000_000_000_000 // 86_400_000_000 * 86_400_000_000 - 15 * MINUTE_US
USUAL = AccountingSettings(late_after_s=LATE_US / 1e6, merge_after_s=600, retention_days=1)
TINY = USUAL.model_copy(update={"gaps_max": 1, "epochs_max": 2, "exceptions_max": 1})
CROWDED = USUAL.model_copy(update={"emitters_max": 1})
NATURAL = "nat"
EVENT_FIELDS = {NATURAL: EventFields(("n",))}


FILTERS = """
[[rule]]
name = "seventh"
query = "summary:noise"
"""


def number_of(summary: str) -> int:
    return int(summary.rsplit(" ", 1)[1])


def event(sender: str, number: int) -> bytes:
    """Every seventh is to be left out on purpose."""
    return json.dumps({"summary": f"{sender} {'event' if number % 7 else 'noise'} {number}"}).encode()


@dataclass
class Sender:
    """An emitter that numbers its events. ``unsent``: numbers that were refused and are to be tried again.

    ``forgotten``: its runs that have left the ledger.
    """

    name: str
    epoch: int = 1
    high: int = 0
    previous: tuple[str, int] | None = None
    dropped: int = 0
    unsent: list[tuple[int, int]] = field(default_factory=list)
    queued: dict[str, set[int]] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)

    @property
    def epoch_name(self) -> str:
        return f"{self.name}-{self.epoch}"

    def forget(self) -> None:
        """The ledger does: it begins a new run."""
        self.forgotten |= {f"{self.name}-{epoch}" for epoch in range(1, self.epoch + 1)}
        self.epoch, self.high, self.dropped, self.previous = self.epoch + 1, 0, 0, None
        self.unsent.clear()
        self.queued.clear()


@dataclass
class Source:
    """What numbers its events inside of them, and had been running when it was first heard of. ``from_run``: the first
    run that is in the ledger.
    """

    run: int = 1
    number: int = 500
    from_run: int = 1

    def begin(self, number: int) -> None:
        self.run, self.number = self.run + 1, number


@dataclass
class Door:
    """An ingest process: numbers, windows, and what it keeps in its spool (per partition, in order)."""

    epoch: bytes
    alive: bool = True
    next_number: list[int] = field(default_factory=lambda: [1] * PARTITIONS)
    spool: list[tuple[int, bytes, list[tuple[Batch, int]]]] = field(default_factory=list)
    counts: dict[tuple[int, int], dict[tuple[str, str | None], list[int]]] = field(default_factory=dict)
    firsts: dict[tuple[int, int], int] = field(default_factory=dict)
    voids: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    marked: int = 0


@dataclass
class Partition:
    """The log of one partition; ``earliest`` is where retention has come to, ``expired`` what nobody had read then."""

    log: list[bytes] = field(default_factory=list)
    doors: list[Door] = field(default_factory=list)
    earliest: int = 0
    expired: set[int] = field(default_factory=set)
    held: list[list[tuple[Batch, int]]] = field(default_factory=list)
    ledger: PartitionLedger | None = None
    read: int = 0
    touched: int = 0
    works: list[Work] = field(default_factory=list)
    indexed: list[Work] = field(default_factory=list)
    zombies: list[PartitionLedger] = field(default_factory=list)


class Product(RuleBasedStateMachine):
    @initialize(limits=st.sampled_from((USUAL, TINY, TINY, CROWDED)))
    def start(self, limits: AccountingSettings) -> None:
        self.limits = limits
        # Where there is one, in memory: the machine writes thousands of times.
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="logweir-ledger-", dir=base))
        (self.folder / "filters.toml").write_text(FILTERS)
        overrides = {"data_dir": self.folder, "worker.filters_file": self.folder / "filters.toml"}
        self.settings = config.load(environment={}, overrides=overrides)
        self.store = CrashingStore(self.settings.store)
        self.store.prepare()
        self.is_broken = False
        logging.getLogger("logweir_workers.document").disabled = True
        self.now = START_US
        self.senders = [Sender("one"), Sender("two")]
        self.source = Source()
        self.doors = [self.new_door()]
        self.turn = 0
        self.past: list[Partition] = []
        self.topic_count = 0
        self.make_topic()
        self.bare = 0
        self.accepted = 0
        self.void: dict[int, Batch] = {}
        self.counters = [0, 0]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.finish()
            self.store.close()
            shutil.rmtree(self.folder)
            logging.getLogger("logweir_workers.document").disabled = False

    def make_topic(self) -> None:
        self.topic_count += 1
        self.partitions = [Partition() for _ in range(PARTITIONS)]
        self.pipeline = Pipeline(
            store=self.store,
            enrich=Enricher((self.enrich,)),
            topic_id=self.topic_id,
            events_max=100,
            clock=lambda: self.now,
            filters=Filters.of_file(self.settings.worker.filters_file),
            event_fields=EVENT_FIELDS,
        )

    @property
    def topic_id(self) -> str:
        return f"t{self.topic_count}"

    def new_door(self) -> Door:
        self.door_count = getattr(self, "door_count", 0) + 1
        return Door(self.door_count.to_bytes(16, "big"))

    @property
    def live_doors(self) -> list[Door]:
        return [door for door in self.doors if door.alive]

    def has_spool(self) -> bool:
        return any(door.spool for door in self.doors)

    # --- in front of the queue -------------------------------------------------------------------------------------
    @rule(
        at=st.integers(0, 1),
        count=st.integers(1, 3),
        withheld=st.integers(0, 2),
        fate=st.sampled_from(
            ("queue", "queue", "queue", "spool", "twice", "refused", "refused yet queued", "spool and queue")
        ),
    )
    def send(self, at: int, count: int, withheld: int, fate: str) -> None:
        """An emitter makes some events it never sends, then some that it sends."""
        sender = self.senders[at]
        sender.high += withheld
        first = sender.high + 1
        sender.high += count
        self.post(sender, first, count, fate)

    @rule(
        at=st.integers(0, 1), fate=st.sampled_from(("queue", "twice")), count=st.integers(1, 4), back=st.integers(0, 9)
    )
    def send_again(self, at: int, fate: str, count: int, back: int) -> None:
        """What was refused; or what is queued, because the answer got lost on its way: the latest, or from long ago."""
        sender = self.senders[at]
        if sender.unsent:
            self.post(sender, *sender.unsent.pop(0), fate)
            return
        queued = [(epoch, number) for epoch in sender.queued for number in sorted(sender.queued[epoch])][::-1]
        if queued:
            epoch, last = queued[back % len(queued)]
            first = last
            while count > 1 and (epoch, first - 1) in queued:
                first, count = first - 1, count - 1
            self.post(sender, first, last - first + 1, fate, epoch)

    @rule(at=st.integers(0, 1), number=st.integers(1, 40))
    def find_withheld(self, at: int, number: int) -> None:
        """It sends after all what it had kept back."""
        sender = self.senders[at]
        if number <= sender.high and number not in sender.queued.get(sender.epoch_name, set()):
            self.post(sender, number, 1, "queue")

    def post(self, sender: Sender, first: int, count: int, fate: str, epoch: str | None = None) -> None:
        epoch = epoch or sender.epoch_name
        events = [event(epoch, number) for number in range(first, first + count)]
        one = self.batch(events, sender, sequence_first=first, epoch=epoch)
        refused = fate.startswith("refused")
        if refused:
            sender.unsent.append((first, count))
        if fate != "refused":
            sender.queued.setdefault(epoch, set()).update(range(first, first + count))
        self.put(self.partition_of(sender), one, fate)

    def partition_of(self, sender: Sender) -> int:
        return sum(sender.name.encode()) % PARTITIONS

    @rule(
        partition=st.integers(0, PARTITIONS - 1),
        count=st.integers(1, 3),
        fate=st.sampled_from(("queue", "spool", "twice")),
    )
    def send_bare(self, partition: int, count: int, fate: str) -> None:
        events = [event("bare", self.bare + at) for at in range(count)]
        self.bare += count
        self.put(partition, self.batch(events, None), fate)

    @precondition(lambda self: not self.has_spool())
    @rule(
        count=st.integers(1, 3),
        withheld=st.integers(0, 2),
        fate=st.sampled_from(("queue", "queue", "twice", "refused", "refused yet queued")),
        restarts=st.sampled_from((False, False, False, True)),
    )
    def send_natural(self, count: int, withheld: int, fate: str, restarts: bool) -> None:
        """Numbers inside of the events, in order: one that a restart repeats comes behind those of before."""
        source = self.source
        if restarts and self.has_begun():
            source.begin(0)
            withheld, fate = 0, "queue"
        source.number += withheld
        numbers = range(source.number + 1, source.number + count + 1)
        source.number += count
        events = [
            json.dumps({**json.loads(event(f"{NATURAL}-{source.run}", number)), "n": number}).encode()
            for number in numbers
        ]
        self.put(0, self.batch(events, None, key=NATURAL), fate)

    def has_begun(self) -> bool:
        """Whether the first number of the source's run has been read: else a restart could not be told from it."""
        return self.source.run == self.source.from_run or 1 in self.natural_runs(read_only=True).get(
            self.source.run, ()
        )

    @rule(at=st.integers(0, 1), made=st.integers(0, 2), dropped=st.integers(0, 1))
    def heartbeat(self, at: int, made: int, dropped: int) -> None:
        """Numbers that were made and never sent show; some of them the emitter says it has dropped."""
        sender = self.senders[at]
        sender.high += made
        sender.dropped += min(dropped, made)
        self.put(self.partition_of(sender), self.batch([], sender), "queue")

    @rule(at=st.integers(0, 1), tail=st.integers(0, 2))
    def restart_emitter(self, at: int, tail: int) -> None:
        """It dies with some events that nobody has seen; its next run says how far the last one was."""
        sender = self.senders[at]
        if not sender.queued.get(sender.epoch_name):
            return
        sender.high += tail
        previous = (sender.epoch_name, sender.high)
        sender.unsent.clear()
        sender.epoch, sender.high, sender.dropped = sender.epoch + 1, 1, 0
        sender.previous = previous
        self.post(sender, 1, 1, "queue")

    def batch(
        self,
        events: list[bytes],
        sender: Sender | None,
        *,
        sequence_first: int | None = None,
        epoch: str | None = None,
        key: str = "app",
    ) -> Batch:
        """What a sender says of its run, unless ``epoch`` is one of before."""
        teller = sender if sender and epoch in (None, sender.epoch_name) else None
        return Batch(
            id=os.urandom(16),
            received_us=self.now,
            key=key,
            emitter=sender.name if sender else None,
            epoch=(epoch or sender.epoch_name) if sender else None,
            sequence_first=sequence_first,
            high=teller.high if teller else None,
            previous=teller.previous if teller else None,
            dropped={"full": teller.dropped} if teller and teller.dropped else None,
            bye=False,
            source_address="10.0.0.1",
            format="json",
            stamp=None,
            index_first=0,
            events=events,
        )

    def put(self, partition: int, one: Batch, fate: str) -> None:
        """A live door numbers a batch and brings it into the queue, or into its spool, or fails to."""
        self.turn += 1
        door = self.live_doors[self.turn % len(self.live_doors)]
        count = len(one.events)
        window = max(self.now // MINUTE_US, door.marked)
        first = door.next_number[partition]
        door.next_number[partition] += count
        payload = encode(Kind.DATA, ingest_epoch=door.epoch, first=first, count=count, window=window, body=[one])
        place = (partition, window)
        door.firsts.setdefault(place, first)
        held = [(one, first)]
        spooled_before = any(at == partition for at, _, _ in door.spool)
        if fate.startswith("refused"):
            if count:
                door.voids.setdefault(place, []).append((first, first + count - 1))
            self.void[id(one)] = one  # kept, so that no other object gets its id
            if fate == "refused yet queued":
                self.append(door, partition, payload, held)
            return
        counts = door.counts.setdefault(place, {}).setdefault((one.key, one.emitter), [0, 0])
        counts[0] += count
        self.accepted += count
        if fate in ("spool", "spool and queue") or spooled_before:
            door.spool.append((partition, payload, held))
        if fate in ("queue", "twice", "spool and queue") and not spooled_before:
            self.append(door, partition, payload, held)
        if fate == "twice":
            self.append(door, partition, payload, held)

    def append(self, door: Door, partition: int, payload: bytes, held: list[tuple[Batch, int]]) -> None:
        self.partitions[partition].log.append(payload)
        self.partitions[partition].doors.append(door)
        self.partitions[partition].held.append(held)

    @rule(seconds=st.sampled_from((1, 20, 61, 300, 2400)))
    def wait(self, seconds: int) -> None:
        self.now += seconds * 1_000_000
        for door in self.live_doors:
            if not door.spool:
                self.mark(door, self.now // MINUTE_US)

    def mark(self, door: Door, before: int) -> None:
        """Write the markers of the windows before ``before``, behind all that is in them."""
        for place in sorted(door.firsts, key=lambda place: (place[1], place[0])):
            partition, window = place
            if window >= before:
                continue
            first = door.firsts.pop(place)
            following = [known for (at, _), known in door.firsts.items() if at == partition and known >= first]
            end = min(following, default=door.next_number[partition])
            rows = [Accepted(key, name, *counts) for (key, name), counts in door.counts.pop(place, {}).items()]
            body: Body = Marker(rows, door.voids.pop(place, []))
            payload = encode(
                Kind.MARKER, ingest_epoch=door.epoch, first=first, count=end - first, window=window, body=body
            )
            self.append(door, partition, payload, [])
            door.marked = max(door.marked, window + 1)

    @precondition(lambda self: self.has_spool())
    @rule(records=st.integers(1, 5))
    def drain_spool(self, records: int) -> None:
        """The door, or one that has adopted the spool, brings the oldest records into the queue."""
        for door in self.doors:
            for partition, payload, held in door.spool[:records]:
                self.append(door, partition, payload, held)
            del door.spool[:records]

    @precondition(lambda self: len(self.live_doors) == 1)
    @rule()
    def open_door(self) -> None:
        """A second one, behind the same balancer."""
        self.doors.append(self.new_door())

    @precondition(lambda self: any(door.firsts for door in self.live_doors))
    @rule()
    def kill_door(self) -> None:
        """Its windows stay open; what is in its spool comes later, behind what its successor sends."""
        next(door for door in self.live_doors if door.firsts).alive = False
        if not self.live_doors:
            self.doors.append(self.new_door())

    # --- behind the queue ------------------------------------------------------------------------------------------
    def claimed(self, partition: int) -> Partition:
        state = self.partitions[partition]
        if state.ledger is None:
            state.ledger = PartitionLedger.claim(
                store=self.store,
                group=GROUP,
                topic_id=self.topic_id,
                partition=partition,
                owner="w",
                settings=self.limits,
            )
            state.read = state.ledger.next_offset or 0
            state.works, state.indexed = [], []
        return state

    def prepare(self, partition: int, records: int) -> None:
        state = self.claimed(partition)
        assert state.ledger is not None
        if state.read < state.earliest:
            delivery = Delivery(partition, state.earliest - 1, 0, b"")
            state.works.append(Work(delivery, state.ledger, None, expired=(state.read, state.earliest - 1)))
            state.read = state.earliest
        for offset in range(state.read, min(state.read + records, len(state.log))):
            delivery = Delivery(partition, offset, 0, state.log[offset])
            state.works.append(self.pipeline.prepare(delivery, state.ledger))
            state.read = offset + 1

    def index(self, partition: int) -> None:
        state = self.partitions[partition]
        self.pipeline.index(state.works, threading.Event())
        state.touched = max([state.touched, *(work.delivery.offset + 1 for work in state.works)])
        state.indexed += state.works
        state.works = []

    def settle(self, partition: int) -> None:
        state = self.partitions[partition]
        self.pipeline.settle(state.indexed)
        state.indexed = []

    def flush(self, partition: int, crashes_after: int | None) -> None:
        state = self.partitions[partition]
        if state.ledger is None:
            return
        try:
            with self.store.dying(crashes_after):
                state.ledger.flush()
        except Crash:
            state.ledger = None

    @rule(
        records=st.integers(1, 20),
        steps=st.sampled_from((1, 2, 3, 4, 4, 4)),
        crashes_after=st.none() | st.integers(0, 4),
    )
    def work(self, records: int, steps: int, crashes_after: int | None) -> None:
        """The steps in a row, as a worker takes them, or only the first ones for now."""
        for partition in range(PARTITIONS):
            self.prepare(partition, records)
            if steps > 1:
                self.index(partition)
            if steps > 2:
                self.settle(partition)
            if steps > 3:
                self.flush(partition, crashes_after)
        self.lost_and_recovered_never_fall()

    @rule(partition=st.integers(0, PARTITIONS - 1), freezes=st.booleans())
    def lose_worker(self, partition: int, freezes: bool) -> None:
        """It dies, or it is only frozen and comes back when another one has its partition."""
        state = self.partitions[partition]
        if freezes and state.ledger is not None:
            state.zombies.append(state.ledger)
        state.ledger = None

    @precondition(lambda self: any(state.zombies for state in self.partitions))
    @rule(partition=st.integers(0, PARTITIONS - 1))
    def wake_zombies(self, partition: int) -> None:
        state = self.claimed(partition)
        for zombie in state.zombies:
            try:
                assert zombie.flush() is None, "a worker wrote although another had claimed its partition"
            except LogweirError as error:
                assert error.problem is CLAIM_LOST
        state.zombies.clear()

    @precondition(lambda self: any(state.read < len(state.log) - 1 for state in self.partitions))
    @rule(partition=st.integers(0, PARTITIONS - 1), records=st.integers(1, 2))
    def expire(self, partition: int, records: int) -> None:
        """Retention passes what nobody has read.

        What a worker had indexed when it died, before it could write that down, is stored and called lost by the books:
        it is left out here, the store's own count shows it.
        """
        state = self.claimed(partition)
        if not state.works and not state.indexed and state.read >= state.touched:
            end = min(len(state.log), max(state.earliest, state.read) + records)
            self.flush(partition, None)
            state.expired |= set(range(max(state.earliest, state.read), end))
            state.earliest = max(state.earliest, end)

    @precondition(lambda self: not self.has_spool() and self.limits is not CROWDED)
    @precondition(lambda self: all(state.read >= state.touched and not state.works for state in self.partitions))
    @rule()
    def make_topic_anew(self) -> None:
        """Somebody deletes the topic, and makes one of its name: what nobody had read is lost.

        Of what a worker had indexed and could not write down, the same holds as in ``expire``; and no record is in the
        topic that is gone and, from a spool, in the new one. Nor does another emitter find room in the new one than in
        the one that is gone (docs/accounting.md).
        """
        for partition in range(PARTITIONS):
            state = self.claimed(partition)
            self.settle(partition)
            self.flush(partition, None)
            if state.read < state.touched:
                return
        for state in self.partitions:
            state.expired |= set(range(max(state.earliest, state.read), len(state.log)))
        self.past += self.partitions
        self.make_topic()

    # --- dead letters ----------------------------------------------------------------------------------------------
    def enrich(self, event: dict[str, Any], _: Context) -> None:
        if self.is_broken and number_of(event["summary"]) % 3 == 0:
            raise ValueError("an enrichment with a fault")

    @precondition(lambda self: not self.has_spool() and self.limits is USUAL)
    @rule()
    def break_or_mend(self) -> None:
        """Workers end what is there, and start anew with an enrichment that fails, or with one that does not.

        Where a record is read once before and once behind that, its events may be stored, and counted as dead letters
        until they are tried again: the store's count shows that, it is left out here. So is what is a dead letter on
        one day and sent again on another, where nothing but the store knows of it (docs/accounting.md).
        """
        self.read_all_there_is()
        for state in self.partitions:
            state.ledger = None
        self.is_broken = not self.is_broken

    @precondition(lambda self: not self.has_spool())
    @rule(crashes_after=st.none() | st.integers(0, 4))
    def retry_dead_letters(self, crashes_after: int | None) -> None:
        """With an enrichment that does not fail: what a worker had accounted for is no dead letter any more.

        Broken off, it may have stored what it has not corrected yet; whoever began it does it again. All is read: of a
        record that comes once more, there would be a letter again, and when the books of its window are let go of,
        nothing knows that it was tried.
        """
        self.read_all_there_is()
        retrier = Retrier(settings=self.settings, store=self.store, queue=open_queue(self.settings.queue))
        before = self.books().row
        try:
            with self.store.dying(crashes_after):
                retrier.retry(self.store.dead_letters.page(size=1000))
        except Crash:
            retrier.retry(self.store.dead_letters.page(size=1000))
        after = self.books().row

        assert after.settled == before.settled
        assert after.outcomes["dead_lettered"] <= before.outcomes["dead_lettered"]

    # --- old books -------------------------------------------------------------------------------------------------
    @rule(crashes_after=st.none() | st.integers(0, 6), ahead=st.sampled_from((0, 1, 2)))
    def merge_windows(self, crashes_after: int | None, ahead: int) -> None:
        """Hours are made of old windows, while their records may come again; how old is of no account."""
        if ahead:
            self.wait(61)
            for partition in range(PARTITIONS):
                self.read_all(partition)
        ledgers = [ledger for at in range(PARTITIONS) if (ledger := self.claimed(at).ledger)]
        merger = HourMerger(
            store=self.store,
            group=GROUP,
            owner="w",
            settings=self.limits,
            clock=lambda: self.now + ahead * 60 * MINUTE_US,
        )
        before = self.books().row
        try:
            with self.store.dying(crashes_after):
                merger.look(ledgers)
                while merger.merge_some():
                    pass
        except Crash:
            self.lose_worker(0, False)
            self.lose_worker(1, False)

        assert self.books().row == before

    @precondition(lambda self: not self.has_spool())
    @rule(crashes_after=st.lists(st.integers(0, 8), max_size=3), age=st.integers(0, 60))
    def let_go_of_old_books(self, crashes_after: list[int], age: int) -> None:
        """All is read and what is missing is lost; then what is older than anything still to come leaves the ledger."""
        self.now += 10 * MINUTE_US
        for partition in range(PARTITIONS):
            self.read_all(partition)
        unmarked = [window for door in self.live_doors for _, window in door.firsts]
        cut_us = min([self.now // MINUTE_US - age, *unmarked]) * MINUTE_US
        before = self.sums()
        for after in (*crashes_after, None):
            ledgers = [ledger for at in range(PARTITIONS) if (ledger := self.claimed(at).ledger)]
            marks = [ledger.watermark_us for ledger in ledgers]
            try:
                with self.store.dying(after):
                    for ledger in ledgers:
                        ledger._position.watermark_us = self.now + 2 * DAY_US
                    delete_old_books(
                        self.store,
                        group=GROUP,
                        owner="w",
                        settings=self.limits,
                        ledgers=ledgers,
                        now_us=cut_us + DAY_US,
                        books=old_books(self.store, group=GROUP, settings=self.limits, now_us=cut_us + DAY_US),
                    )
            except Crash:
                for state in self.partitions:
                    state.ledger = None
            for ledger, mark in zip(ledgers, marks, strict=True):
                ledger._position.watermark_us = mark
            self.compare_sums(before)
        self.forget_old_senders()

    def sums(self) -> tuple[Row, Counter[str]]:
        books = read_books(self.store, group=GROUP, late_us=LATE_US, now_us=self.now + DAY_US)
        assert books.balanced
        return books.row, Counter({name: books.total(name) or 0 for name in TOTALS})

    def compare_sums(self, before: tuple[Row, Counter[str]]) -> None:
        """They do not change, but what was still awaited is lost now; of who numbers its events, it was so before."""
        row, totals = self.sums()
        row_before, totals_before = before
        awaited = row_before.in_flight - row.in_flight

        assert replace(row, in_flight=row_before.in_flight, lost_in_queue=row.lost_in_queue - awaited) == row_before
        assert 0 <= totals["lost"] - totals_before["lost"] <= awaited
        assert totals == totals_before | {"lost": totals["lost"]}

    def forget_old_senders(self) -> None:
        """Who has been silent for as long as books are kept begins a new run."""
        known = {emitter for emitter, books in self.books().emitters.items() if books.runs}
        for sender in self.senders:
            if ("app", sender.name) not in known:
                sender.forget()
        if (NATURAL, None) not in known:
            self.source.begin(500)
            self.source.from_run = self.source.run

    @precondition(lambda self: len(self.doors) > len(self.live_doors))
    @rule(at=st.integers(0, 9), crashes_after=st.none() | st.integers(0, 2))
    def close_dead_door(self, at: int, crashes_after: int | None) -> None:
        """A person says that nothing more of it comes; what is in its spool does so all the same."""
        self.now += 6 * MINUTE_US
        for partition in range(PARTITIONS):
            self.read_all(partition)
        dead = [door for door in self.doors if not door.alive]
        epoch = dead[at % len(dead)].epoch.hex()
        books = self.books()
        try:
            with self.store.dying(crashes_after):
                close_process(self.store, GROUP, books, epoch, who="me", now_us=self.now)
        except (Crash, LogweirError):
            return
        after = self.books()

        assert after.row.void + after.row.undecided == books.row.void + books.row.undecided
        assert not [one for one in after.windows if one.window.ingest_epoch == epoch and one.state == PROCESS_GONE]

    @precondition(lambda self: any(not door.alive and not door.spool for door in self.doors))
    @rule(at=st.integers(0, 9), crashes_after=st.none() | st.integers(0, 3))
    def speak_for_dead_door(self, at: int, crashes_after: int | None) -> None:
        """Its successor has brought its spool into the queue and says that this was all: workers end its books."""
        dead = [door for door in self.doors if not door.alive and not door.spool]
        door, by = dead[at % len(dead)], self.live_doors[0].epoch
        payload = encode(
            Kind.GONE, ingest_epoch=door.epoch, first=1, count=0, window=self.now // MINUTE_US, body=Gone(by, self.now)
        )
        for partition in range(PARTITIONS):
            self.append(door, partition, payload, [])
        self.now += 11_000_000
        for partition in range(PARTITIONS):
            self.read_all(partition)
        before = self.books()
        ledgers = [ledger for at in range(PARTITIONS) if (ledger := self.claimed(at).ledger)]
        try:
            with self.store.dying(crashes_after):
                end_books(self.store, group=GROUP, ledgers=ledgers, now_us=self.now)
                for ledger in ledgers:
                    ledger.flush()
        except Crash:
            self.lose_worker(0, False)
            self.lose_worker(1, False)
            return
        after = self.books()

        assert (after.row.settled, after.row.void) == (before.row.settled, before.row.void)
        own = [one for one in after.windows if one.window.ingest_epoch == door.epoch.hex() and not one.window.closed]
        for one in own:
            is_all_there = not before.outside.undecided(one.stream)
            if one.state == CLOSED_AFTERWARDS:
                assert is_all_there or before.outside.void.get(one.stream)
            elif is_all_there and not self.past:
                assert self.partitions[one.place.partition].expired

    # --- what must hold --------------------------------------------------------------------------------------------
    def books(self) -> Books:
        return read_books(self.store, group=GROUP, late_us=LATE_US, now_us=self.now)

    def lost_and_recovered_never_fall(self) -> None:
        books = self.books()
        counters = [
            sum(one.total(name) or 0 for one in books.emitters.values())
            + sum(sums[name] for sums in books.carried.numbered.values())
            for name in ("lost", "recovered")
        ]

        assert all(now >= before for now, before in zip(counters, self.counters, strict=True))
        self.counters = counters

    def finish(self) -> None:
        """Bring everything through: spools, markers, workers; wait until what is missing is lost. Then compare."""
        self.drain_spool(10**6)
        self.now += 10 * MINUTE_US
        for door in self.live_doors:
            self.mark(door, 10**9)
        for partition in range(PARTITIONS):
            self.read_all(partition)
        books = self.books()
        self.compare_emitters(books)
        self.compare_natural(books)
        self.compare_counts(books)
        self.retry_dead_letters(None)
        books = self.books()
        self.compare_counts(books)

        assert books.row.outcomes["dead_lettered"] == 0
        assert not self.store.dead_letters.page(size=1)

    def read_all_there_is(self) -> None:
        for partition in range(PARTITIONS):
            self.prepare(partition, 10**6)
            self.index(partition)
            self.settle(partition)
            self.flush(partition, None)

    def read_all(self, partition: int) -> None:
        """Until nothing is left in the queue, and what is missing is lost."""
        self.prepare(partition, 10**6)
        self.index(partition)
        self.settle(partition)
        ledger = self.partitions[partition].ledger
        assert ledger is not None
        ledger.idle(self.now)
        self.flush(partition, None)

    def compare_emitters(self, books: Books) -> None:
        """Every run of which anything came, and was not let go of, is in the books with its true gaps.

        Where there is no room for all emitters, one that gets room later is taken to have lost what it sent before.
        """
        if self.limits is CROWDED:
            return
        arrived, twice, told = run_numbers(self.readable()), run_numbers(self.held_twice()), self.told()
        for sender in self.senders:
            own = books.emitters.get(("app", sender.name), EmitterBooks(("app", sender.name)))
            runs = {run.tracker.epoch: run for run in own.runs}
            wanted = {epoch for epoch in told if epoch.startswith(sender.name)} - sender.forgotten
            if self.limits is USUAL:
                assert wanted <= runs.keys()
            assert len(wanted) <= len(runs) + own.retired.get("epochs", 0)
            for epoch, run in runs.items():
                self.compare_run(run, arrived.get(epoch, set()), twice.get(epoch, set()))
                assert run.tracker.top >= told.get(epoch, 0)

    def compare_run(self, run: Run, there: set[int], twice: set[int]) -> None:
        tracker, losses = run.tracker, run.losses
        lost = numbers_of(run.lost_ranges)
        true = set(range(1, tracker.top + 1)) - there
        # What comes late below the floor and is filtered was not asked about: it stays counted as lost.
        unsure = sum(number % 7 == 0 for number in there if number <= tracker.floor)
        # A record that the queue has twice, read again behind a crash, may be counted there as recovered twice.
        unsure_twice = sum(number <= tracker.floor for number in twice)

        assert {number for number in numbers_of(tracker.seen) if number > tracker.floor} == {
            number for number in there if number > tracker.floor
        }
        assert lost == {number for number in true if number > tracker.floor}
        assert losses.missing == 0
        least, most = len(true) - unsure_twice - losses.dropped, len(true) + unsure - losses.dropped
        assert max(0, least) <= losses.net <= max(0, most)
        assert tracker.created == tracker.top

    def compare_natural(self, books: Books) -> None:
        """A run from the lowest number that came to the highest, with all that did not come between them lost."""
        true = self.natural_runs()
        own = books.emitters.get((NATURAL, None), EmitterBooks((NATURAL, None)))
        if self.limits is CROWDED:
            return
        if any(1 not in true[run] for run in true if run > self.source.from_run):
            return  # Its first number expired unread: nothing can tell that it was restarted.
        wanted = [
            (min(numbers), max(numbers), max(numbers) - min(numbers) + 1 - len(numbers)) for numbers in true.values()
        ]
        found = [(run.tracker.start, run.tracker.top, run.losses.net) for run in own.runs]

        assert len(found) + own.retired.get("epochs", 0) == len(wanted)
        assert found == wanted[len(wanted) - len(found) :]
        assert all(run.losses.recovered == run.losses.missing == 0 for run in own.runs)

    def natural_runs(self, *, read_only: bool = False) -> dict[int, set[int]]:
        """What came of each run of the source that is in the ledger."""
        runs: dict[int, set[int]] = {}
        for one in self.readable(read_only=read_only):
            for raw in one.events if one.key == NATURAL else ():
                name, _, number = json.loads(raw)["summary"].split(" ")
                run = int(name.removeprefix(f"{NATURAL}-"))
                if run >= self.source.from_run:
                    runs.setdefault(run, set()).add(int(number))
        return dict(sorted(runs.items()))

    def readable(self, *, read_only: bool = False) -> list[Batch]:
        """The batches that a worker could read, or has, each once although the queue may hold it twice."""
        batches = {
            (id(one), first): one
            for state in (*self.past, *self.partitions)
            for offset, held in enumerate(state.held)
            if offset not in state.expired and (not read_only or offset < state.touched)
            for one, first in held
        }
        return list(batches.values())

    def told(self) -> dict[str, int]:
        """By epoch, the highest number that the emitter has told of."""
        highest: dict[str, int] = {}
        for one in self.readable():
            if one.epoch is not None:
                last = (one.sequence_first or 0) + len(one.events) - 1
                highest[one.epoch] = max(highest.get(one.epoch, 0), one.high or 0, last)
        return highest

    def held_twice(self) -> list[Batch]:
        """The batches of records that a queue has more than once."""
        held = [pair for state in (*self.past, *self.partitions) for held in state.held for pair in held]
        copies = Counter((id(one), first) for one, first in held)
        return [one for one, first in held if copies[id(one), first] > 1]

    def compare_counts(self, books: Books) -> None:
        summaries = [json.loads(raw)["summary"] for one in self.readable() for raw in one.events]
        self.store.refresh()
        stored = [one["summary"] for one in self.store.search(parse("*"), size=10_000).events]
        row: dict[str, Any] = books.row.outcomes

        dead = {json.loads(one.raw)["summary"] for one in self.store.dead_letters.page(size=1000)}
        wanted = {summary for summary in summaries if number_of(summary) % 7}

        assert books.imbalance == 0
        assert len(stored) == len(set(stored))
        assert wanted - dead <= set(stored) <= wanted
        assert row["indexed"] == len(stored)
        assert sum(row.values()) == len(summaries)
        assert row["filtered"] >= len(set(summaries) - wanted - dead)
        assert books.row.accepted + books.row.unconfirmed == (
            books.row.settled + books.row.in_flight + books.row.lost_in_queue + books.row.undecided + books.row.void
        )
        assert books.row.in_flight == 0
        self.compare_losses_of_the_queue(books)

    def compare_losses_of_the_queue(self, books: Books) -> None:
        """What expired unread is lost to the number where a later word of its door survives; else that is said."""
        readable = {id(one) for one in self.readable()} | self.void.keys()
        expired = {
            id(one): len(one.events)
            for state in (*self.past, *self.partitions)
            for offset in state.expired
            for one, _ in state.held[offset]
            if id(one) not in readable
        }
        lost = books.row.lost_in_queue

        # A door that died, or whose marker expired, has not said which of its numbers it had refused.
        a_marker_expired = any(
            not state.held[offset] for state in (*self.past, *self.partitions) for offset in state.expired
        )
        refused = sum(len(one.events) for one in self.void.values())

        assert lost <= sum(expired.values()) + refused
        if len(self.doors) == len(self.live_doors) and not a_marker_expired:
            # They live: their last markers have told of all their numbers.
            assert lost == sum(expired.values())
            assert books.row.accepted == self.accepted
            assert all(hole.exact for hole in books.expired if self.are_all_heard_again(hole))

    def are_all_heard_again(self, hole: ExpiredOffsets) -> bool:
        """Whether each door that has ever sent anything to the partition is heard of behind the hole, in that topic."""
        topic = int(hole.topic_id.removeprefix("t"))
        states = [*self.past, *self.partitions][hole.partition :: PARTITIONS][:topic]
        behind = {
            door.epoch
            for offset, door in enumerate(states[-1].doors)
            if offset > hole.last and offset not in states[-1].expired
        }
        return {door.epoch for state in states for door in state.doors} <= behind


def run_numbers(batches: Iterable[Batch]) -> dict[str, set[int]]:
    """By epoch, the numbers of the emitter in them."""
    numbers: dict[str, set[int]] = {}
    for one in batches:
        if one.epoch is not None and one.sequence_first is not None:
            first = one.sequence_first
            numbers.setdefault(one.epoch, set()).update(range(first, first + len(one.events)))
    return numbers


def numbers_of(ranges: Iterable[tuple[int, int]]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


# Without shrinking, which takes minutes here: take Phase.shrink in to look into a failure.
Product.TestCase.settings = settings(
    max_examples=size(40, 2000),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
TestBooks = pytest.mark.sized(pytest.mark.timeout(size(240, 3600))(Product.TestCase))
