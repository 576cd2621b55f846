"""What stood at some offsets of a partition, so that a queue that was rolled back under its ledger is noticed.

A position says only how far the records are accounted for. When the queue comes back from an older copy, and new
records are written to it before the worker looks, the position lies among records that nobody has read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

_FINGERPRINT_OF_BYTES = 256
_CHECKPOINTS_MAX = 64
"""Two for each time that the distance doubles: so they reach back over four thousand million records."""


class Checkpoints:
    """Offsets that are accounted for, each with a fingerprint of its record: the older, the farther apart."""

    def __init__(self, rows: list[list[int | str]] | None = None) -> None:
        self._rows = [(int(offset), str(print_)) for offset, print_ in rows or ()]

    def note(self, offset: int, payload: bytes) -> None:
        """The record at ``offset`` is accounted for."""
        self._rows.append((offset, fingerprint(payload)))
        if len(self._rows) > 2 * _CHECKPOINTS_MAX:
            self._rows = self._thinned()

    def forget_from(self, offset: int) -> None:
        """The queue has lost what stood there."""
        self._rows = [row for row in self._rows if row[0] < offset]

    def as_rows(self) -> list[list[int | str]]:
        """As they stand in the position's document."""
        return [list(row) for row in self._thinned()]

    def last_in_place(self, read: Callable[[int], bytes | None]) -> int | None:
        """The highest offset that still has its record; None when none has, or there is none.

        ``read`` gives the record at an offset, None where there is none any more.
        """
        for offset, expected in reversed(self._rows):
            payload = read(offset)
            if payload is not None and fingerprint(payload) == expected:
                return offset
        return None

    @property
    def newest(self) -> int | None:
        """The highest of the offsets."""
        return self._rows[-1][0] if self._rows else None

    def _thinned(self) -> list[tuple[int, str]]:
        """The latest and the earliest; in between, each at most about twice as far away as the one behind it."""
        rows = self._rows[::-1]
        kept = rows[:1]
        for at in range(1, len(rows)):
            # One goes only where the one before it is near enough: distances stay right, however often it is done.
            is_earliest = at + 1 == len(rows)
            if is_earliest or rows[0][0] - rows[at + 1][0] > 2 * (rows[0][0] - kept[-1][0]) + 1:
                kept.append(rows[at])
        return kept[:_CHECKPOINTS_MAX][::-1]


def fingerprint(payload: bytes) -> str:
    """Two records of a queue have the same one only if they are the same: a record begins with epoch and number."""
    return hashlib.blake2b(payload[:_FINGERPRINT_OF_BYTES], digest_size=8).hexdigest()
