"""Room that keys share: a common limit, and beyond it a part that is each key's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

OWN_SHARE = 10
"""A tenth of a limit is each key's own, whatever the others have taken: by so much all together may pass it."""


class Shares:
    """How many things of each key there are. ``by_key`` may know less than all, where it was not counted before."""

    def __init__(self, limit: int, *, count: int, by_key: Mapping[str, int]) -> None:
        self.count = count
        self.by_key = Counter(by_key)
        self._limit = limit

    def has_room(self, key: str) -> bool:
        """Whether one more of that key may be taken."""
        return self.count < self._limit or self.by_key[key] < self._limit // OWN_SHARE

    def take(self, key: str, count: int = 1) -> None:
        self.count += count
        self.by_key[key] += count

    def give_back(self, key: str) -> None:
        self.count -= 1
        self.by_key[key] -= 1
        if self.by_key[key] <= 0:
            del self.by_key[key]
