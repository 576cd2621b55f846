"""The spool's folders: this process's own, and those of processes that are gone. Who lives holds a lock in its own.

``spool.py`` says what is in them.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from logweir.process.files import hold, locked, make_folder, sync_folder

log = logging.getLogger(__name__)

_LOCK = "lock"
_DAMAGED = "damaged"
_SEGMENT = re.compile(r"\d{5,}-\d{8}\.log")


class Folders:
    """For one thread alone. ``own``: this process's folder, from ``ensure_own`` on."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self.own = root / name
        self._own_locks: list[int] = []
        self._adopted: dict[Path, int] = {}
        self._unmarked: set[Path] = set()

    # --- this process's own ----------------------------------------------------------------------------------------
    def ensure_own(self, *, wait_s_max: float = math.inf) -> None:
        """Have this process's folder, durably and locked; nothing is done where that is so. Raises OSError.

        BlockingIOError, when another process makes or adopts a folder for so long.
        """
        if self._is_locked():
            return
        make_folder(self._root)
        with locked(self._root / _LOCK, wait_s_max=wait_s_max):
            make_folder(self.own)
            # A lock of before is held, too: its folder may be away only, and who holds no lock counts as gone.
            self._own_locks.append(hold(self.own / _LOCK, wait_s_max=0))

    def _is_locked(self) -> bool:
        try:
            there = (self.own / _LOCK).stat()
        except OSError:
            return False
        return any(os.path.samestat(os.fstat(descriptor), there) for descriptor in self._own_locks)

    # --- those of other processes ----------------------------------------------------------------------------------
    def others(self) -> list[Path]:
        """Those that are not adopted, the oldest first; none where that cannot be told."""
        try:
            return self._others()
        except OSError:
            return []

    def _others(self) -> list[Path]:
        found = []
        for folder in self._root.iterdir():
            try:
                is_process = (folder / _LOCK).is_file()
            except OSError as error:
                _say_once(folder, error.strerror)
                continue
            if is_process and folder != self.own and folder not in self._adopted:
                found.append(folder)
        return sorted(found)

    @contextlib.contextmanager
    def alone(self) -> Iterator[list[Path]]:
        """``others``, while no process makes or adopts a folder; none when one does just now. Raises OSError."""
        with contextlib.ExitStack() as stack:
            others: list[Path] = []
            if self._root.is_dir():
                with contextlib.suppress(BlockingIOError):
                    stack.enter_context(locked(self._root / _LOCK, wait_s_max=0))
                    others = self._others()
            yield others

    def adopt(self, folder: Path) -> None:
        """Raises OSError when its process lives, or has just removed it, or it is not ours to read."""
        self._adopted[folder] = hold(folder / _LOCK, wait_s_max=0, is_there=True)

    def release(self, folder: Path) -> None:
        """Leave an adopted one to whoever comes next."""
        os.close(self._adopted.pop(folder))

    def remove(self, folder: Path) -> None:
        """Remove one in which no segment is left. What cannot be removed is held: else it would be adopted again."""
        try:
            if segment_paths(folder):
                return
            (folder / _LOCK).unlink()
        except OSError:
            return
        with contextlib.suppress(OSError):
            (folder / _DAMAGED).unlink(missing_ok=True)
            folder.rmdir()
        if folder in self._adopted:
            self.release(folder)

    def close(self) -> None:
        """Let go of all of them."""
        for descriptor in (*self._own_locks, *self._adopted.values()):
            os.close(descriptor)
        self._own_locks.clear()
        self._adopted.clear()

    # --- damage ----------------------------------------------------------------------------------------------------
    def mark_damaged(self, folder: Path) -> None:
        """Note, for later processes, that something in it could not be read that may have been acknowledged."""
        try:
            (folder / _DAMAGED).touch(0o600)
            sync_folder(folder)
        except OSError:
            self._unmarked.add(folder)
        else:
            self._unmarked.discard(folder)

    def is_damaged(self, folder: Path) -> bool:
        if folder in self._unmarked:
            return True
        try:
            return (folder / _DAMAGED).exists()
        except OSError:
            return True

    def is_damage_known(self, folder: Path) -> bool:
        """Whether a later process will know of it, though the file that is damaged is removed."""
        if folder in self._unmarked:
            self.mark_damaged(folder)
        return folder not in self._unmarked


def segment_paths(folder: Path) -> list[Path]:
    """The files of a folder, by partition, the oldest first. Raises OSError: what cannot be listed is not empty."""
    return sorted(path for path in folder.iterdir() if _SEGMENT.fullmatch(path.name))


def partition_of(path: Path) -> int:
    """Of a segment."""
    return int(path.name.partition("-")[0])


@functools.cache
def _say_once(folder: Path, reason: str) -> None:
    log.warning("%s cannot be looked into, and is left alone: %s", folder, reason)
