"""What a person has said of an emitter or a source: how often it is to be heard of, that it is muted or retired.

One ledger document for each of which anything was said; workers never write them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.store.port import LedgerDocument, Store

EMITTER = "emitter"
SOURCE = "source"
FOREVER_US = 0
"""What ``muted_until_us`` is when the muting has no end."""

Subject = tuple[str, str | None, str | None]
"""EMITTER, key name and own name; or SOURCE, category and host name."""


@dataclass(frozen=True, slots=True)
class Word:
    """What was said. ``every_s``: a fixed rhythm; None: as learned. Times in microseconds; None: not said.

    ``retired_us``: when it was retired: that holds until it is heard of again.
    """

    every_s: int | None = None
    muted_until_us: int | None = None
    retired_us: int | None = None

    def is_muted(self, now_us: int) -> bool:
        return self.muted_until_us is not None and (self.muted_until_us == FOREVER_US or now_us < self.muted_until_us)


NOTHING_SAID = Word()


def read_words(store: Store, group: str) -> dict[Subject, Word]:
    """All that was said. Raises LogweirError(STORE_DOWN)."""
    found = {}
    for document in store.ledger.scan(_prefix(group)):
        kind, one, other = document.body["subject"]
        found[kind, one, other] = Word(**document.body["word"])
    return found


def say(store: Store, group: str, subject: Subject, change: Callable[[Word], Word], *, owner: str) -> Word:
    """Change what is said of it, and write it durably; gives what is said now. Raises LogweirError(STORE_DOWN)."""
    id = f"{_prefix(group)}{hashlib.blake2b(repr(subject).encode(), digest_size=12).hexdigest()}"
    while True:
        claimed = store.ledger.claim(id, owner)
        word = change(Word(**claimed.body["word"]) if claimed.body else NOTHING_SAID)
        body: dict[str, Any] = {"kind": "expectation", "owner": owner, "subject": subject, "word": asdict(word)}
        try:
            if word == NOTHING_SAID:
                store.ledger.delete([claimed])
            else:
                store.ledger.write([LedgerDocument(id, claimed.generation, body)])
        except LogweirError as error:
            if error.problem is CLAIM_LOST:
                continue  # Somebody has said something in between: change that.
            raise
        return word


def _prefix(group: str) -> str:
    return f"expectation:{group}:"
