"""Hours: closed windows that are complete, merged into one document for each hour of an ingest process.

A window is one document for each minute, ingest process and partition: thousands a day. Once it is closed, and every
number that its process gave out in it is settled, nothing can be added to it any more; then its numbers, sums and
exceptions are as good in the document of its hour. What is not complete (a hole, a void number, an amendment) stays a
window by itself. Of a merged window only its numbers, and what became of each, are kept; by emitter, the hour's sums.

An hour is written under a claim of its own, before its windows are deleted. A window whose numbers are in its hour is
not looked at: so it counts once, whenever whoever merges is killed.
"""

from __future__ import annotations

from typing import Any

from logweir.ledger.window import Window
from logweir.outcomes import Outcome


def is_complete(window: Window) -> bool:
    """Whether the two sides agree for each emitter, and no number can come that would change them."""
    marker = window.marker
    if marker is None or window.minutes or window.amendments or len(window.voids) or window.exceptions.beyond:
        return False
    if list(window.numbers) != [(first, last) for first, last in window.given if first <= last]:
        return False
    promised: dict[tuple[str, str | None], int] = {}
    for row in marker["accepted"]:
        emitter = row["key"], row["emitter"]
        promised[emitter] = promised.get(emitter, 0) + row["accepted"] + row["unconfirmed"]
    settled = {emitter: sum(counts[: len(Outcome)]) for emitter, counts in window.outcomes.items()}
    emitters = promised.keys() | settled.keys()
    agree = all(promised.get(emitter, 0) == settled.get(emitter, 0) for emitter in emitters)
    return agree and sum(settled.values()) == len(window.numbers)


def merge(hour: Window, window: Window) -> None:
    """Add a complete window to its hour."""
    assert window.marker is not None
    if hour.marker is None:
        hour.marker = {"accepted": []}
    ((first, last),) = window.given
    hour.minutes.append((window.window, first, last))
    hour.window = min(hour.windows)
    hour.numbers.add(first, last)
    hour.exceptions.merge(window.exceptions)
    for emitter, counts in window.outcomes.items():
        sums = hour.outcomes.get(emitter, [0] * len(counts))
        hour.outcomes[emitter] = [one + other for one, other in zip(sums, counts, strict=True)]
    rows = {(row["key"], row["emitter"]): row for row in hour.marker["accepted"]}
    for row in window.marker["accepted"]:
        known = rows.setdefault((row["key"], row["emitter"]), {**row, "accepted": 0, "unconfirmed": 0})
        known["accepted"] += row["accepted"]
        known["unconfirmed"] += row["unconfirmed"]
    hour.marker["accepted"] = list(rows.values())


def as_body(hour: Window) -> dict[str, Any]:
    return {**hour.as_body(), "kind": "hour", "minutes": hour.minutes}


def from_body(id: str, body: dict[str, Any]) -> Window:
    """The hour as it was written."""
    hour = Window.from_body(id, body)
    hour.minutes = [(minute, first, last) for minute, first, last in body["minutes"]]
    return hour


def has(hour: Window, window: Window) -> bool:
    """Whether the window is merged into that hour: what is left of it is of no account."""
    is_merged = any(minute == window.window for minute, _, _ in hour.minutes)
    return is_merged and all(hour.numbers.covers(*pair) for pair in window.numbers)
