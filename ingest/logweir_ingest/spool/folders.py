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
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from logweir.process.files import hold, locked, make_folder, sync_folder
from logweir_ingest.spool.held import Held

log = logging.getLogger(__name__)

_LOCK = "lock"
_DAMAGED = "damaged"
_SEGMENT = re.compile(r"\d{5,}-\d{8}\.log")
_PROCESS = re.compile(r"\d+-([0-9a-f]{32})-")
# A process that lives makes its lock again within seconds.
_WITHOUT_LOCK_S_MAX = 60.0


class Folders:
    """For one thread alone. ``own``: this process's folder, from ``ensure_own`` on."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self.own = root / name
        self._own_locks: list[int] = []
        self._adopted: dict[Path, int] = {}
        self._unmarked: set[Path] = set()
        # Since when folders of other processes are seen without their lock.
        self._without_lock_s: dict[Path, float] = {}

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
        without_lock_s: dict[Path, float] = {}
        now_s = time.monotonic()
        for folder in self._root.iterdir():
            if folder == self.own or folder in self._adopted:
                continue
            try:
                is_process = (folder / _LOCK).is_file()
                if not is_process and ingest_epoch_of(folder) is not None and folder.is_dir():
                    since_s = without_lock_s[folder] = self._without_lock_s.get(folder, now_s)
                    is_process = now_s - since_s > _WITHOUT_LOCK_S_MAX
            except OSError as error:
                _say_once(folder, error.strerror)
                continue
            if is_process:
                found.append(folder)
        self._without_lock_s = without_lock_s
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
        is_without_lock = folder in self._without_lock_s and not (folder / _LOCK).exists()
        self._adopted[folder] = hold(folder / _LOCK, wait_s_max=0, is_there=not is_without_lock)
        if is_without_lock:
            self.mark_damaged(folder)
            log.error(
                "%s has no lock: somebody has removed files there. What is left is forwarded; whether that is all that"
                " its process had accepted is unknown.",
                folder,
                extra={"path": folder},
            )

    def release(self, folder: Path) -> None:
        """Leave an adopted one to whoever comes next."""
        os.close(self._adopted.pop(folder))

    def remove(self, folder: Path) -> None:
        """Remove one in which no segment is left. What cannot be removed is held: else it would be adopted again."""
        try:
            if segment_paths(folder):
                return
            Held(folder).remove()
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


def ingest_epoch_of(folder: Path) -> bytes | None:
    """Of the process whose folder it is; None when it is none."""
    named = _PROCESS.match(folder.name)
    return None if named is None else bytes.fromhex(named[1])


def missing_in(folder: Path, sizes: Mapping[Path, int]) -> list[str]:
    """The names of segments that must be missing among these, or are cut off: they are numbered, and go in their order.

    ``sizes``: of each one that is there. Raises OSError.
    """
    held = Held(folder)
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for path, size_bytes in sizes.items():
        found[partition_of(path)][number_of(path)] = size_bytes
    missing = []
    for partition in sorted({*found, *held.partitions()}):
        there, row = found[partition], held.read(partition)
        wanted = {*range(min(there), max(there))} if there else set()
        if row is not None:
            wanted |= {*range(row.first, row.last)}
            # Of the last one, nothing may be there that was ever acknowledged.
            if row.first <= row.last and there.get(row.last, 0) < row.size_bytes:
                wanted.add(row.last)
                there.pop(row.last, None)
        missing += [segment_name(partition, number) for number in sorted(wanted - there.keys())]
    return missing


def segment_name(partition: int, number: int) -> str:
    return f"{partition:05}-{number:08}.log"


def number_of(path: Path) -> int:
    """Of a segment, among those of its partition."""
    return int(path.stem.partition("-")[2])


def partition_of(path: Path) -> int:
    """Of a segment."""
    return int(path.name.partition("-")[0])


@functools.cache
def _say_once(folder: Path, reason: str) -> None:
    log.warning("%s cannot be looked into, and is left alone: %s", folder, reason)
