"""Which days of events ``store.retention_days`` has passed: what is not in the store any more because it is old."""

from __future__ import annotations

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.documents import EXPIRY, Digest
from logweir.store.port import Store

_PLACE = Digest("days")


def read_expired_before(store: Store, group: str) -> str:
    """Days (YYYYMMDD) before this one may be gone; empty when none is. Raises LogweirError(STORE_DOWN)."""
    found = EXPIRY.read(store.ledger, group, [_PLACE]).get(_PLACE)
    return "" if found is None else str(found.body["before"])


def write_expired_before(store: Store, group: str, day: str, *, owner: str) -> None:
    """Say that the days before this one are about to be deleted, unless as much was said before.

    Raises LogweirError(STORE_DOWN).
    """
    while read_expired_before(store, group) < day:
        claimed = EXPIRY.claim(store.ledger, group, _PLACE, owner)
        # Another worker may have said more since.
        latest = max(day, claimed.body.get("before", ""))
        try:
            store.ledger.write([EXPIRY.document(group, _PLACE, claimed.generation, {"before": latest}, owner=owner)])
        except LogweirError as error:
            if error.problem is not CLAIM_LOST:
                raise
