"""What a scheduled rule is handed: the stored events of its time (see ``logweir.alerts.schedules.Events``)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from logweir.alerts.rules import duration_of
from logweir.alerts.schedules import Slot
from logweir.errors import RULE_BAD, LogweirError
from logweir.query.match import leaves_of, time_us_of
from logweir.query.parse import parse
from logweir.query.tree import And, Node, Not
from logweir.store.port import Store
from logweir_workers.alerts.found import iso
from logweir_workers.alerts.matching import as_sent

VALUES_MAX = 1_000_000
"""Different values that ``top`` counts; of a field with more nobody knows which are the most frequent."""
PARTS_MAX = 100_000
_PAGE = 1_000


class StoredEvents:
    """All events of a slot, by receipt, but for those ``left_out``.

    Every method raises TimeoutError behind ``end_s`` (monotonic). ``alerted`` returns the marks of what the rule has
    found before; ``since_us``: it is to look back to then, and not as far as it says itself.
    """

    def __init__(
        self,
        store: Store,
        rule: str,
        slot: Slot,
        *,
        end_s: float,
        left_out: Sequence[Node] = (),
        alerted: Callable[[], Collection[str]] = tuple,
        since_us: int | None = None,
    ) -> None:
        self._store = store
        self._rule = rule
        self.slot = slot
        self._end_s = end_s
        self._left_out = tuple(Not(one) for one in left_out)
        self.alerted = alerted
        self.since_us = since_us
        self.looked_back_us = 0
        """How far before the end of the slot the rule has looked."""
        self.begin, self.end = iso(slot.begin_us), iso(slot.end_us)

    def search(self, query: str | Node = "*") -> Iterator[dict[str, Any]]:
        node = parse(query) if isinstance(query, str) else query
        for one in self.stored(node, self.slot.begin_us, self.slot.end_us):
            # Stores compare whole milliseconds.
            if self.slot.begin_us <= time_us_of(one.get("receivedtimestamp")) < self.slot.end_us:
                yield one

    def stored(
        self, node: Node, from_us: int, to_us: int, *, time_field: str = "receivedtimestamp"
    ) -> Iterator[dict[str, Any]]:
        """Events of any time, the newest first; those within the first and the last millisecond, too."""
        node = self._node(node)
        after: tuple[Any, ...] | None = None
        while True:
            self._require_time()
            page = self._store.search(
                node,
                size=_PAGE,
                from_us=from_us,
                to_us=to_us,
                time_field=time_field,
                after=after,
            )
            yield from page.events
            after = page.after
            if after is None:
                return

    def count(self, query: str | Node = "*") -> int:
        self._require_time()
        if self.slot.begin_us % 1000 == self.slot.end_us % 1000 == 0:
            begin_us, end_us = self.slot.begin_us, self.slot.end_us
            return self._store.count(self._node(query), from_us=begin_us, to_us=end_us).number
        return sum(1 for _ in self.search(query))

    def top(self, query: str | Node, field: str, size: int = 10) -> list[tuple[str, int]]:
        counts: Counter[str] = Counter()
        for one in self.search(query):
            counts.update(set(_values(one, field)))
            if len(counts) > VALUES_MAX:
                raise self._bad(f"{field} has more than {VALUES_MAX:,} different values in this time")
        return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:size]

    def histogram(self, query: str | Node, width: str) -> list[tuple[str, int]]:
        width_us = duration_of(self._rule, "width", width)
        begin_us = self.slot.begin_us // width_us * width_us
        parts = -(-(self.slot.end_us - begin_us) // width_us)
        if parts > PARTS_MAX:
            raise self._bad(f"a histogram by {width} has more than {PARTS_MAX:,} parts")
        counts = [0] * parts
        for one in self.search(query):
            counts[(time_us_of(one["receivedtimestamp"]) - begin_us) // width_us] += 1
        return [(iso(begin_us + at * width_us), count) for at, count in enumerate(counts)]

    def _node(self, query: str | Node) -> Node:
        node = parse(query) if isinstance(query, str) else query
        return And((node, *self._left_out)) if self._left_out else node

    def _require_time(self) -> None:
        if time.monotonic() > self._end_s:
            raise TimeoutError("it took longer than its timeout")

    def _bad(self, reason: str) -> LogweirError:
        return LogweirError(RULE_BAD, rule=self._rule, reason=reason)


def _values(event: dict[str, Any], field: str) -> Iterator[str]:
    """The values of a field of one event, as they were sent."""
    if not field.startswith("details."):
        return as_sent(event.get(field))
    wanted = field.removeprefix("details.")
    return (text for path, text in leaves_of(event.get("details")) if path == wanted)
