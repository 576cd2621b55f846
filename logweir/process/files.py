"""Folders, names and whole files that survive a power cut: a new name is durable only when its folder is synced."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PRIVATE = 0o700
_LOCK_TURN_S = 0.01


def make_folder(folder: Path, mode: int = PRIVATE) -> None:
    """Make the folder and its parents where they are absent, durably. Those that are there keep their permissions."""
    if not folder.is_dir():
        make_folder(folder.parent, mode)
        try:
            folder.mkdir(mode, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, wait_s_max: float = math.inf) -> Iterator[None]:
    """Alone among all processes that lock the same file, which is made for the purpose and stays.

    Raises BlockingIOError when another one holds it for ``wait_s_max`` seconds.
    """
    descriptor = hold(path, wait_s_max=wait_s_max)
    try:
        yield
    finally:
        os.close(descriptor)


def hold(path: Path, *, wait_s_max: float = math.inf, is_there: bool = False) -> int:
    """``locked`` until the descriptor that it gives is closed, or the process ends.

    Raises OSError: as ``locked``; FileNotFoundError when the file ``is_there`` already, and is not.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (0 if is_there else os.O_CREAT), 0o600)
    try:
        _lock(descriptor, wait_s_max)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int, wait_s_max: float) -> None:
    if wait_s_max == math.inf:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    end_s = time.monotonic() + wait_s_max
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end_s:
                raise
            time.sleep(_LOCK_TURN_S)


def write_whole(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner only, safe against a power cut."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def shared_secret(path: Path, size_bytes: int) -> bytes:
    """The random bytes in the file, made at first use; processes that make it at the same moment agree on one.

    Raises OSError when the file cannot be read or made, or has another size.
    """
    if not path.exists():
        make_folder(path.parent)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(size_bytes))
                file.flush()
                os.fsync(file.fileno())
            # A link fails when the name is taken, where a rename would replace another process's secret.
            os.link(name, path)
            sync_folder(path.parent)
        except FileExistsError:
            pass
        finally:
            Path(name).unlink()
    return secret_in(path, size_bytes)


def secret_in(path: Path, size_bytes: int) -> bytes:
    """The bytes in the file. Raises OSError when it cannot be read, or has another size."""
    secret = path.read_bytes()
    if len(secret) != size_bytes:
        raise OSError(f"{path} holds {len(secret)} bytes instead of {size_bytes}; remove it to make a new one")
    return secret


def fingerprint_of(path: Path) -> tuple[int, int, int] | None:
    """What differs after a change of the file, or of who may read it; None while it is not there. Follows links."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ctime_ns, stat.st_ino, stat.st_size
