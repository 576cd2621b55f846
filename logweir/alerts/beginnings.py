"""Since which number each rule is asked as it is now: by partition, the first offset, and when that was.

A rule begins when it is new, enabled again, or counts something else than before (another revision). The alerter writes
its beginning down with the checkpoint, before any alert of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logweir.alerts.rules import Rule
from logweir.ledger.documents import ALERTER, ALERTER_RULES, RulesId
from logweir.store.port import Store


@dataclass(slots=True, eq=False)
class Beginning:
    """The point at which some rules begin; those that begin together share it."""

    since_us: int
    """They are asked of all that was received since then, and not filtered out."""
    topic_id: str = ""
    """The queue's topic; of one that is made in its place, they are asked of everything."""
    offsets: dict[int, int] = field(default_factory=dict)
    """By partition, the first offset that they are asked of."""

    def is_before(self, mark: Mapping[str, Any] | None) -> bool:
        """Whether what was evaluated at a mark (see the alerter's ``Progress.mark``) goes beyond this point."""
        if mark is None or (self.topic_id and mark.get("topic_id") != self.topic_id):
            return False
        return any(offset > self.offsets.get(int(partition), 0) for partition, offset in mark["offsets"].items())


@dataclass(frozen=True, slots=True)
class Begun:
    """A rule as it is asked now."""

    revision: str
    at: Beginning
    before: str | None = None
    """The revision before it, where it went over from one to the other."""

    def as_json(self) -> dict[str, Any]:
        """For programs: ``offsets`` by partition, ``before``, the revision before it."""
        offsets = {str(partition): offset for partition, offset in self.at.offsets.items()}
        return {"topic_id": self.at.topic_id, "offsets": offsets, "before": self.before}


class Beginnings:
    """Those of a shard's rules. ``is_changed``: something is to be written down."""

    def __init__(self, body: Mapping[str, Any] | None = None) -> None:
        """As ``as_body`` has them."""
        body = body or {"points": [], "rules": {}}
        points = [
            Beginning(since_us, topic_id, {int(partition): offset for partition, offset in offsets.items()})
            for since_us, topic_id, offsets in body["points"]
        ]
        self.rules = {
            name: Begun(revision, points[at], before) for name, (revision, at, before) in body["rules"].items()
        }
        self.is_changed = False

    def as_body(self) -> dict[str, Any]:
        points = {id(one.at): one.at for one in self.rules.values()}
        places = {key: place for place, key in enumerate(points)}
        return {
            "points": [
                [one.since_us, one.topic_id, {str(partition): offset for partition, offset in one.offsets.items()}]
                for one in points.values()
            ],
            "rules": {name: [one.revision, places[id(one.at)], one.before] for name, one in self.rules.items()},
        }

    def hand_over(self, rules: Mapping[str, Rule], at: Beginning) -> set[str]:
        """Have these rules in force, and those begin there that are new or count something else: the latter's names."""
        before = self.rules
        same = {name for name, rule in rules.items() if name in before and before[name].revision == rule.revision}
        self.rules = {
            name: before[name]
            if name in same
            else Begun(rule.revision, at, before[name].revision if name in before else None)
            for name, rule in rules.items()
        }
        self.is_changed |= len(same) < len(rules) or before.keys() != rules.keys()
        return (rules.keys() & before.keys()) - same

    def note_partition(self, topic_id: str, partition: int, offset: int, *, since_us: int) -> None:
        """A partition is begun there, with what was received since then: nothing of it was evaluated before."""
        for one in {id(begun.at): begun.at for begun in self.rules.values()}.values():
            if not one.offsets:
                one.topic_id, one.since_us = topic_id, max(one.since_us, since_us)
            if one.topic_id == topic_id and partition not in one.offsets:
                one.offsets[partition] = offset
                self.is_changed = True


def read_beginnings(store: Store, group: str) -> dict[str, Begun]:
    """By rule, of all shards, as written last. Raises LogweirError(STORE_DOWN)."""
    shards = [
        (place.shard, document.body)
        for place, document in ALERTER.scan(store.ledger, group)
        if "rules_slot" in document.body
    ]
    found: dict[str, Begun] = {}
    # Of a rule that another shard had before, the checkpoint that was written last counts.
    for shard, body in sorted(shards, key=lambda one: one[1]["written_us"]):
        place = RulesId(shard, body["rules_slot"])
        for document in ALERTER_RULES.read(store.ledger, group, [place]).values():
            found |= Beginnings(document.body).rules
    return found
