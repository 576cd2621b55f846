"""What the stream makes of documents: a backtest over a store is held against it."""

from __future__ import annotations

from logweir.alerts.rules import EXAMPLE_TIME_US, Rule
from logweir.event import Document
from logweir_workers.alerts.evaluator import Evaluator
from logweir_workers.alerts.found import iso
from logweir_workers.alerts.groups import Groups

HOUR_US = 3_600_000_000


def of_stream(one: Rule, documents: list[Document]) -> tuple[list[tuple[tuple[str, ...], str, str, int]], int]:
    """The alerts of the engine's own evaluation, in the order of ``documents``, and how many of them match."""
    evaluator = Evaluator({one.name: one}, Groups(groups_max=10_000), late_after_us=60_000_000)
    for document in documents:
        evaluator.evaluate(document, received_us=EXAMPLE_TIME_US + 30 * HOUR_US, emitter=None, horizon_us=0)
    found = [
        (group.values, iso(episode.first_us), iso(episode.last_us), episode.count)
        for group in evaluator.groups
        for episode in group.episodes
        if episode.fired
    ]
    return sorted(found), evaluator.counts.get(one.name, {}).get("matches", 0)
