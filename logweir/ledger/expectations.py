"""What a person expects of an emitter or a source: how often it is to send, that it is muted or retired.

One ledger document for each of which anything was said; workers never write them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.documents import EXPECTATION, Digest
from logweir.store.port import Store

EMITTER = "emitter"
SOURCE = "source"
FOREVER_US = 0
"""What ``muted_until_us`` is when the muting has no end."""

Subject = tuple[str, str | None, str | None]
"""EMITTER, key name and own name; or SOURCE, category and host name."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """Times in microseconds; None: nothing was said."""

    every_s: int | None = None
    """A fixed cadence; None: as learned."""
    muted_until_us: int | None = None
    retired_us: int | None = None
    """When it was retired: that holds until something comes of it again."""

    def is_muted(self, now_us: int) -> bool:
        return self.muted_until_us is not None and (self.muted_until_us == FOREVER_US or now_us < self.muted_until_us)

    def as_body(self, subject: Subject) -> dict[str, Any]:
        return {"subject": subject, "expectation": asdict(self)}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Expectation:
        return cls(**body["expectation"])


DEFAULT = Expectation()
"""Where nothing was said."""


def read_expectations(store: Store, group: str) -> dict[Subject, Expectation]:
    """All of them. Raises LogweirError(STORE_DOWN)."""
    found = {}
    for _, document in EXPECTATION.scan(store.ledger, group):
        kind, one, other = document.body["subject"]
        found[kind, one, other] = Expectation.from_body(document.body)
    return found


def set_expectation(
    store: Store, group: str, subject: Subject, change: Callable[[Expectation], Expectation], *, owner: str
) -> Expectation:
    """Change what is expected of it, durably; gives what is expected now. Raises LogweirError(STORE_DOWN)."""
    place = Digest(hashlib.blake2b(repr(subject).encode(), digest_size=12).hexdigest())
    while True:
        claimed = EXPECTATION.claim(store.ledger, group, place, owner)
        expectation = change(Expectation.from_body(claimed.body) if claimed.body else DEFAULT)
        try:
            if expectation == DEFAULT:
                store.ledger.delete([claimed])
            else:
                body = expectation.as_body(subject)
                store.ledger.write([EXPECTATION.document(group, place, claimed.generation, body, owner=owner)])
        except LogweirError as error:
            if error.problem is CLAIM_LOST:
                continue  # Somebody has said something in between: change that.
            raise
        return expectation
