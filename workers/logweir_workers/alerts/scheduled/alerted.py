"""What a scheduled rule has found already, for rules whose slots overlap: marks of its own, such as ids of events.

Written when a slot's alerts are, and before the slot is done: a slot that is asked for again does not find its own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from logweir.alerts.rules import Rule
from logweir.alerts.schedules import Slot
from logweir.clock import iso_seconds
from logweir.errors import DOCUMENT_CHANGED, LogweirError
from logweir.event import Field, Kind
from logweir.query.tree import Term
from logweir.store.documents import DocumentSet, OwnDocument
from logweir.store.port import Documents

MARKS_MAX = 10_000
"""In one document."""
_KEPT_US = 86_400_000_000
"""How much longer marks are kept than the rule looks back: clocks of senders that run ahead."""
_PAGE = 200

MARKS = DocumentSet(
    "alert-schedule-marks",
    (
        Field("rule", Kind.KEYWORD, "The rule."),
        Field("until", Kind.DATE, "The end of the slot in which it found them."),
    ),
    "until",
    lambda body: {name: body[name] for name in ("rule", "until")},
)


class Alerted:
    """Keeps them. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def before(self, rule: Rule, slot: Slot) -> set[str]:
        """What the rule has marked in slots that ended before this one."""
        return {mark for one in self._all(rule) if one.body["slot"] < slot.end_us for mark in one.body["marks"]}

    def note(self, rule: Rule, slot: Slot, marks: Collection[str], *, looked_back_us: int) -> None:
        """Write down the slot's, and forget those that are too old to matter."""
        listed = sorted(set(marks))
        for at in range(0, len(listed), MARKS_MAX):
            id = f"{rule.name}.{slot.end_us}.{at}"
            stored = self._documents.get(MARKS, [id]).get(id)
            body = {
                "rule": rule.name,
                "until": iso_seconds(slot.end_us),
                "slot": slot.end_us,
                "marks": listed[at : at + MARKS_MAX],
            }
            self._documents.put(MARKS, id, body, version=stored.version if stored is not None else None)
        if listed:
            for one in self._all(rule, until_us=slot.end_us - looked_back_us - _KEPT_US):
                try:
                    self._documents.delete(MARKS, one.id, version=one.version)
                except LogweirError as error:
                    if error.problem is not DOCUMENT_CHANGED:
                        raise

    def _all(self, rule: Rule, *, until_us: int | None = None) -> list[OwnDocument]:
        found: list[OwnDocument] = []
        after: tuple[Any, ...] | None = None
        if until_us is not None and until_us <= 0:
            return []
        while True:
            page = self._documents.search(MARKS, Term("rule", rule.name), size=_PAGE, to_us=until_us, after=after)
            found += page.documents
            after = page.after
            if after is None:
                return found
