"""What a process's folder in the spool should hold: so that a segment that is gone or cut off is missed by its adopter.

One file beside the segments, with a row of three numbers for each partition: the first segment that is not forwarded,
the last one that was begun, and how much of that one is on disk for sure. Which ones there are is synced. How much is
on disk of the last one is not, and so costs no time: after a kill it is right all the same, after a power cut perhaps
too low.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

_NAME = "held"
_ROW = struct.Struct(">QQQ")


class HeldRow(NamedTuple):
    """Of one partition."""

    first: int
    last: int
    """Less than ``first`` when it holds none."""
    size_bytes: int
    """Of the last one."""


class Held:
    """That file of one folder. What writes raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME

    def begun(self, partition: int, number: int, *, first: int) -> None:
        """A segment is about to be made."""
        self._write(partition, HeldRow(first, number, 0), is_synced=True)

    def grown(self, partition: int, row: HeldRow) -> None:
        """So much is on disk of the last segment."""
        self._write(partition, row, is_synced=False)

    def forwarded(self, partition: int, number: int) -> None:
        """That segment, and those before, are about to be removed."""
        if (row := self.read(partition)) is not None and row.first <= number:
            self._write(partition, row._replace(first=number + 1), is_synced=True)

    def read(self, partition: int) -> HeldRow | None:
        """None when nothing is known of it."""
        try:
            with self._path.open("rb") as file:
                file.seek(partition * _ROW.size)
                found = file.read(_ROW.size)
        except FileNotFoundError:
            return None
        return HeldRow(*_ROW.unpack(found)) if len(found) == _ROW.size and any(found) else None

    def partitions(self) -> range:
        """Those that something may be known of."""
        try:
            return range(self._path.stat().st_size // _ROW.size)
        except FileNotFoundError:
            return range(0)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _write(self, partition: int, row: HeldRow, *, is_synced: bool) -> None:
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, _ROW.pack(*row), partition * _ROW.size)
            if is_synced:
                # Its name is made durable with the first segment's.
                os.fsync(descriptor) if is_new else os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
