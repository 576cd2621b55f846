"""Keys whose events doors refuse for now: their dead letters find no room, and others wait behind them.

One document, which workers write anew every few seconds as long as it names a key. Doors believe one that has changed
lately: so nobody is refused when no worker lives to say when there is room again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.documents import REFUSALS, Digest
from logweir.store.port import Store

_PLACE = Digest("letters")


@dataclass(frozen=True, slots=True)
class Refusals:
    """What the document says, when it was written at ``at_us``."""

    keys: frozenset[str] = frozenset()
    at_us: int = 0


def read_refusals(store: Store, group: str) -> Refusals:
    """Raises LogweirError(STORE_DOWN)."""
    found = REFUSALS.read(store.ledger, group, [_PLACE]).get(_PLACE)
    # One that was only claimed has no body yet.
    return Refusals(frozenset(found.body.get("keys", ())), found.body.get("at_us", 0)) if found else Refusals()


def write_refusals(
    store: Store,
    group: str,
    asked: Collection[str],
    *,
    is_full: Callable[[str], bool],
    owner: str,
    at_us: int,
) -> Refusals:
    """Say of which keys, of those ``asked`` for and those that the document names, the letters find no room.

    Raises LogweirError(STORE_DOWN).
    """
    while True:
        known = read_refusals(store, group)
        keys = frozenset(key for key in known.keys.union(asked) if is_full(key))
        if not keys and not known.keys:
            return known
        claimed = REFUSALS.claim(store.ledger, group, _PLACE, owner)
        if frozenset(claimed.body.get("keys", ())) != known.keys:
            continue  # Another worker has asked for more meanwhile.
        body = {"keys": sorted(keys), "at_us": at_us}
        try:
            store.ledger.write([REFUSALS.document(group, _PLACE, claimed.generation, body, owner=owner)])
        except LogweirError as error:
            if error.problem is not CLAIM_LOST:
                raise
            continue
        return Refusals(keys, at_us)
