"""Which days of events ``store.retention_days`` has passed: what is not in the store any more because it is old.

Also the time that it was measured by last: whoever measures next goes on from there.
"""

from __future__ import annotations

from typing import Any

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.documents import EXPIRY, Digest
from logweir.store.port import Store

_PLACE = Digest("days")


def read_expired_before(store: Store, group: str) -> str:
    """Days (YYYYMMDD) before this one may be gone; empty when none is. Raises LogweirError(STORE_DOWN)."""
    return str(_read(store, group).get("before", ""))


def read_aged_us(store: Store, group: str) -> int:
    """The time that ages were measured by last, 0 when none ever was. Raises LogweirError(STORE_DOWN)."""
    return int(_read(store, group).get("aged_us", 0))


def write_expired_before(store: Store, group: str, day: str, *, aged_us: int, owner: str) -> None:
    """Say that the days before this one are about to be deleted, and at which time; unless more was said before.

    Raises LogweirError(STORE_DOWN).
    """
    while (known := _read(store, group)).get("before", "") < day or known.get("aged_us", 0) < aged_us:
        claimed = EXPIRY.claim(store.ledger, group, _PLACE, owner)
        # Another worker may have said more since.
        latest = {
            "before": max(day, claimed.body.get("before", "")),
            "aged_us": max(aged_us, claimed.body.get("aged_us", 0)),
        }
        try:
            store.ledger.write([EXPIRY.document(group, _PLACE, claimed.generation, latest, owner=owner)])
        except LogweirError as error:
            if error.problem is not CLAIM_LOST:
                raise


def _read(store: Store, group: str) -> dict[str, Any]:
    found = EXPIRY.read(store.ledger, group, [_PLACE]).get(_PLACE)
    return {} if found is None else dict(found.body)
