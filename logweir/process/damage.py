"""Files that SQLite has found damaged: what was found is noted beside the file, and no process uses it any more."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".damaged"
ADVICE = "docs/how-to/damaged-files.md says how to save what can be read, and how to go on without the rest."
_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DamagedFileError(sqlite3.DatabaseError):
    """The file must not be used."""


@contextlib.contextmanager
def using(path: Path) -> Iterator[None]:
    """The file is used in the block. Raises DamagedFileError where it is, or shows to be, damaged."""
    if found := damage_of(path):
        raise DamagedFileError(f"its file {path.name} is damaged ({found})")
    try:
        yield
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        note_damage(path, error)
        raise DamagedFileError(f"its file {path.name} is damaged ({error})") from error


def inconsistent(reason: str) -> sqlite3.DatabaseError:
    """The error for a file that contradicts itself where SQLite does not notice."""
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says by this error that the file is damaged."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CODES


def note_damage(path: Path, error: BaseException) -> None:
    """Note what was found in the file that is there now."""
    with contextlib.suppress(OSError):
        mark_of(path).write_text(f"{path.stat().st_ino} {error}\n")


def damage_of(path: Path) -> str:
    """What was found in the file that is there now, by any process; empty when nothing was."""
    try:
        inode, _, found = mark_of(path).read_text().strip().partition(" ")
        return found if inode == str(path.stat().st_ino) else ""
    except OSError:
        return ""


def mark_of(path: Path) -> Path:
    """The file beside it in which that is noted."""
    return path.with_name(path.name + SUFFIX)
