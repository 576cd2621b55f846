"""How many partitions the queue had when it was last reached: a door that knows it starts without the queue."""

from __future__ import annotations

import json
from pathlib import Path

from logweir.process.files import make_folder, write_whole


class KnownPartitions:
    """The number of partitions of ``queue``, remembered in the spool's folder ``root`` for all doors that share it."""

    def __init__(self, root: Path, queue: str) -> None:
        self._root = root
        self._queue = queue

    def count(self) -> int | None:
        """The number that was last remembered of this queue; None when there is none that can be read."""
        try:
            known = json.loads((self._root / "queue.json").read_text())
            return int(known["partitions"]) if known["queue"] == self._queue else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember(self, partitions: int) -> None:
        """Raises OSError."""
        make_folder(self._root)
        write_whole(self._root / "queue.json", json.dumps({"queue": self._queue, "partitions": partitions}) + "\n")
