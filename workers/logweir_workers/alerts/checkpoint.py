"""The checkpoint: how far all partitions are evaluated, and what is known of every group at just that point.

It is in the store, under a claim. The groups are written in buckets, only those with changes, each into the slot that
does not count, and so are the rules' beginnings when one changes; then one document that names the slots that count
now, and the positions. A crash in between leaves the checkpoint before. Whoever was taken for dead and wakes up finds
its writes refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logweir.alerts.beginnings import Beginning, Beginnings, Begun
from logweir.alerts.rules import Rule
from logweir.clock import Clock
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.documents import ALERTER, ALERTER_GROUPS, ALERTER_RULES, GroupsId, RulesId, ShardId
from logweir.process import lifetime
from logweir.query.match import time_us_of
from logweir.store.port import LedgerDocument, Store
from logweir_workers.alerts.groups import Groups

_NOTHING: dict[str, Any] = {
    "written_us": 0,
    "topic_id": "",
    "offsets": {},
    "times": {},
    "rules": {},
    "late": [],
    "slots": {},
}
"""The body of a checkpoint before the first one."""


@dataclass(slots=True)
class Progress:
    """How far the evaluation has come."""

    topic_id: str = ""
    offsets: dict[int, int] = field(default_factory=dict)
    """By partition, the next offset to read."""
    times: dict[int, int] = field(default_factory=dict)
    """By partition, up to when what came to the queue is evaluated, in microseconds."""
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By rule: its revision, and counts of what became of its matches."""
    files_bad: list[str] = field(default_factory=list)
    """What is wrong with files of rules, and whether their rules are evaluated all the same."""
    late: list[list[Any]] = field(default_factory=list)
    """What is to be counted by asking the store: rule, group, from and to in microseconds, when that was noted."""
    sight: dict[str, Any] = field(default_factory=dict)
    """When what rules need came last (``Sight.as_body``)."""
    exceptions: dict[str, int] = field(default_factory=dict)
    """By exception, how many matches it kept from counting."""
    storms: dict[str, Any] = field(default_factory=dict)
    """By rule and hour, how many groups have fired (``Storms.as_body``)."""
    beginnings: Beginnings = field(default_factory=Beginnings)
    """Since which number each rule is asked."""

    @property
    def watermark_us(self) -> int:
        """Up to when what came to the queue is evaluated on every partition; 0 when that is not known."""
        return min(self.times.values(), default=0)

    def is_past(self, other: Mapping[str, Any] | None) -> bool:
        """Whether all that had been evaluated at ``other`` (of ``mark``) is evaluated now, too."""
        if other is None or other.get("topic_id") != self.topic_id:
            return True
        return all(self.offsets.get(int(partition), 0) >= offset for partition, offset in other["offsets"].items())

    def mark(self) -> dict[str, Any]:
        """The point at which something is written."""
        offsets = {str(partition): offset for partition, offset in self.offsets.items()}
        return {"topic_id": self.topic_id, "offsets": offsets}


class Checkpoint:
    """The claimed checkpoint of a shard. For one thread."""

    def __init__(self, store: Store, group: str, shard: ShardId, claimed: LedgerDocument, owner: str) -> None:
        self._store = store
        self._group = group
        self._shard = shard
        self._owner = owner
        self.generation = claimed.generation
        self._sequence = int(claimed.body.get("sequence", 0))
        self._slots = {int(bucket): int(slot) for bucket, slot in claimed.body.get("slots", {}).items()}
        self._rules_slot: int | None = claimed.body.get("rules_slot")
        self._body = claimed.body
        self._is_unsure = False

    @classmethod
    def claim(cls, store: Store, group: str, shard: ShardId, owner: str) -> Checkpoint:
        """Take the shard over; whoever had it can write nothing more.

        Raises LogweirError: STORE_DOWN, CLAIM_LOST when somebody else took it over at the same time.
        """
        checkpoint = cls(store, group, shard, ALERTER.claim(store.ledger, group, shard, owner), owner)
        # At once, so that whoever waits sees that the shard is taken. Groups and positions stay as they are.
        body = {**_NOTHING, **checkpoint._body, "sequence": checkpoint._sequence + 1, "is_released": False}
        checkpoint._write([], {**body, "process": lifetime.identity()})
        checkpoint._sequence += 1
        return checkpoint

    def load(self, rules: Mapping[str, Rule], groups: Groups) -> Progress:
        """What was written last; ``groups`` takes in those of rules that are still there, in the same revision.

        Raises LogweirError(STORE_DOWN).
        """
        body = self._body
        beginnings = self._beginnings()
        known = {name: one.revision for name, one in beginnings.rules.items()}
        same = {name: rule for name, rule in rules.items() if known.get(name) == rule.revision}
        places = [GroupsId(self._shard.shard, bucket, slot) for bucket, slot in self._slots.items()]
        for place, document in ALERTER_GROUPS.read(self._store.ledger, self._group, places).items():
            groups.load(place.bucket, document.body["groups"], same)
        return Progress(
            topic_id=body.get("topic_id", ""),
            offsets={int(partition): offset for partition, offset in body.get("offsets", {}).items()},
            times={int(partition): time_us for partition, time_us in body.get("times", {}).items()},
            rules=dict(body.get("rules", {})),
            late=list(body.get("late", [])),
            sight=dict(body.get("sight", {})),
            exceptions=dict(body.get("exceptions", {})),
            storms=dict(body.get("storms", {})),
            beginnings=beginnings,
        )

    def _beginnings(self) -> Beginnings:
        if self._rules_slot is None:
            # Written before there were beginnings: of those rules, only the time is known.
            known = {name: row for name, row in self._body.get("rules", {}).items() if row.get("revision")}
            made = Beginnings()
            made.is_changed = bool(known)
            topic_id = self._body.get("topic_id", "")
            for name, row in known.items():
                made.rules[name] = Begun(row["revision"], Beginning(time_us_of(row["since"]), topic_id))
            return made
        place = RulesId(self._shard.shard, self._rules_slot)
        return Beginnings(ALERTER_RULES.read(self._store.ledger, self._group, [place])[place].body)

    def write(self, progress: Progress, groups: Groups, *, clock: Clock, is_released: bool = False) -> None:
        """Write down how far all is evaluated. Raises LogweirError: STORE_DOWN (call again), CLAIM_LOST."""
        self._look()
        changed = sorted(groups.changed)
        slots = {**self._slots, **{bucket: 1 - self._slots.get(bucket, 1) for bucket in changed}}
        documents = [
            ALERTER_GROUPS.document(
                self._group,
                GroupsId(self._shard.shard, bucket, slots[bucket]),
                self.generation,
                {"groups": groups.bucket(bucket)},
                owner=self._owner,
            )
            for bucket in changed
        ]
        rules_slot = self._rules_slot
        if progress.beginnings.is_changed or rules_slot is None:
            rules_slot = 1 - (rules_slot or 0)
            place, beginnings = RulesId(self._shard.shard, rules_slot), progress.beginnings.as_body()
            documents.append(ALERTER_RULES.document(self._group, place, self.generation, beginnings, owner=self._owner))
        body = {
            "sequence": self._sequence + 1,
            "written_us": clock(),
            "process": "" if is_released else lifetime.identity(),
            "is_released": is_released,
            "topic_id": progress.topic_id,
            "offsets": {str(partition): offset for partition, offset in progress.offsets.items()},
            "times": {str(partition): time_us for partition, time_us in progress.times.items()},
            "rules": progress.rules,
            "files_bad": progress.files_bad,
            "late": progress.late,
            "sight": progress.sight,
            "exceptions": progress.exceptions,
            "storms": progress.storms,
            "slots": {str(bucket): slot for bucket, slot in slots.items()},
            "rules_slot": rules_slot,
        }
        self._is_unsure = True
        self._write(documents, body)
        self._is_unsure = False
        self._sequence, self._slots, self._rules_slot = self._sequence + 1, slots, rules_slot
        progress.beginnings.is_changed = False
        groups.changed.difference_update(changed)

    def _write(self, documents: list[LedgerDocument], body: dict[str, Any]) -> None:
        last = ALERTER.document(self._group, self._shard, self.generation, body, owner=self._owner)
        self._store.ledger.write([*documents, last])

    def _look(self) -> None:
        """See whether a write took effect of which we got no answer: then other slots count."""
        if not self._is_unsure:
            return
        stored = read(self._store, self._group, self._shard)
        if stored is None:
            return
        if stored.generation != self.generation:
            raise LogweirError(
                CLAIM_LOST,
                partition=f"the rules {self._shard.shard}",
                generation=stored.generation,
                owner=stored.body.get("owner", "another one"),
                generation_own=self.generation,
            )
        self._sequence = stored.body["sequence"]
        self._slots = {int(bucket): int(slot) for bucket, slot in stored.body["slots"].items()}
        self._rules_slot = stored.body.get("rules_slot")


def read(store: Store, group: str, shard: ShardId) -> LedgerDocument | None:
    """A shard's checkpoint without its groups; None before the first one. Raises LogweirError(STORE_DOWN)."""
    return ALERTER.read(store.ledger, group, [shard]).get(shard)


def shard_id(shard: str) -> ShardId:
    """Of the setting ``alerts.shard``."""
    return ShardId(shard.replace("/", "of"))


class Standby:
    """Says when the process that has a shard is gone: it has said so, has ended on this machine, or is silent."""

    def __init__(self, store: Store, group: str, shard: ShardId, *, takeover_s: float) -> None:
        self._store = store
        self._group = group
        self._shard = shard
        self._takeover_s = takeover_s
        self._sequence = -1
        self._seen_s = 0.0

    def is_free(self, now_s: float) -> bool:
        """Whether the shard may be claimed. ``now_s``: monotonic. Raises LogweirError(STORE_DOWN)."""
        stored = read(self._store, self._group, self._shard)
        if stored is None or stored.body["is_released"] or lifetime.is_gone(stored.body["process"]):
            return True
        if stored.body["sequence"] != self._sequence:
            self._sequence, self._seen_s = stored.body["sequence"], now_s
        return now_s - self._seen_s > self._takeover_s
