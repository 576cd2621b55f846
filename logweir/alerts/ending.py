"""What mutes and exceptions have in common: a reason, an end within a year, and no change once they have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logweir.clock import DAY_US, iso_seconds
from logweir.errors import DOCUMENT_CHANGED, PARAMETER_BAD, LogweirError, Problem
from logweir.query.tree import PAGE_MAX, All
from logweir.store.documents import DocumentSet
from logweir.store.port import Documents

REASON_LENGTH_MAX = 1_000
DURATION_US_MAX = 366 * DAY_US


def require_reason(reason: str) -> None:
    """Raises LogweirError(PARAMETER_BAD)."""
    if not 0 < len(reason.strip()) <= REASON_LENGTH_MAX:
        raise LogweirError(
            PARAMETER_BAD, name="reason", value=reason[:40], expected=f"1 to {REASON_LENGTH_MAX} characters"
        )


def require_end(until_us: int, now_us: int) -> None:
    """Raises LogweirError(PARAMETER_BAD)."""
    if not now_us < until_us <= now_us + DURATION_US_MAX:
        raise LogweirError(
            PARAMETER_BAD, name="until", value=iso_seconds(until_us), expected="a time within a year from now"
        )


def change(
    documents: Documents, among: DocumentSet, id: str, changes: Mapping[str, Any], *, now_us: int, unknown: Problem
) -> dict[str, Any]:
    """The body after the changes; one that has ended stays as it is. Raises LogweirError(unknown)."""
    while True:
        stored = documents.get(among, [id]).get(id)
        if stored is None:
            raise LogweirError(unknown, id=id)
        if stored.body["ends"] <= iso_seconds(now_us):
            return stored.body
        body = {**stored.body, **changes}
        try:
            documents.put(among, id, body, version=stored.version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            continue
        return body


def active(documents: Documents, among: DocumentSet, now_us: int, *, size: int) -> list[dict[str, Any]]:
    """The bodies of those that have not ended, the one that ends last first."""
    # A time ends its second: from the next one on, it is over.
    from_us = (now_us // 1_000_000 + 1) * 1_000_000
    return [one.body for one in documents.search(among, All(), size=size, from_us=from_us).documents]


def past_and_present(documents: Documents, among: DocumentSet) -> list[dict[str, Any]]:
    """The bodies of all that are kept, the one that ends last first."""
    return [one.body for one in documents.search(among, All(), size=PAGE_MAX).documents]
