"""The folder of the embedded store: its files, made whole or not at all, and their connections."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from logweir.config import StoreSettings, sqlite_path
from logweir.errors import SEARCH_ABANDONED, SEARCH_TOO_SLOW, STORE_ABSENT, STORE_DOWN, LogweirError
from logweir.process.damage import ADVICE, DamagedFileError, inconsistent, using
from logweir.process.files import make_folder, sync_folder
from logweir.store.port import Cancellation
from logweir.store.sqlite import search

SUFFIX = ".sqlite"
"""What the names of all its files end with."""
_DAYS_OPEN_MAX = 4
_CACHE_KIBIBYTES = 32 * 1024
_CHECKPOINT_PAGES = 4000
_LEFTOVER_AGE_S = 60
# How often a search looks whether it is to stop, in SQLite's own steps: some hundred microseconds.
_STEPS = 2000
# Of the names of a day's file, as of a daily index.
DAY_PREFIX = "events-"


class _Open(NamedTuple):
    """A connection that is kept, and which file (by inode) was at its path when it was opened."""

    connection: sqlite3.Connection
    inode: int


class SearchLimit:
    """When a search has to stop: SQLite asks it again and again.

    ``check`` raises LogweirError: SEARCH_TOO_SLOW, SEARCH_ABANDONED.
    """

    def __init__(self, timeout_s: float, cancellation: Cancellation | None) -> None:
        self._timeout_s = timeout_s
        self._end_s = time.monotonic() + timeout_s
        self._cancellation = cancellation
        self._interrupted: BaseException | None = None

    def check(self) -> None:
        if self._interrupted is not None:
            raise self._interrupted
        if self._cancellation is not None and self._cancellation.is_cancelled:
            raise LogweirError(SEARCH_ABANDONED)
        if time.monotonic() > self._end_s:
            raise LogweirError(SEARCH_TOO_SLOW, timeout_s=self._timeout_s)

    def is_over(self) -> bool:
        """For ``set_progress_handler``: whether SQLite is to stop."""
        try:
            self.check()
        except BaseException as error:  # noqa: BLE001 - SQLite swallows it, Ctrl-C too; ``check`` raises it again
            self._interrupted = error
            return True
        return False


class Folder:
    """``main`` has the tables of ``main_schema``; beside it lies one file of events for each day, and ``documents``.

    Threads share its connections for writing one after the other.
    """

    def __init__(self, settings: StoreSettings, *, main_schema: str) -> None:
        self._url = settings.url
        self.path = sqlite_path(settings.url)
        self.main = self.path / f"main{SUFFIX}"
        self.documents = self.path / f"documents{SUFFIX}"
        self._main_schema = main_schema
        self._timeout_s = settings.timeout_s
        self._search_timeout_s = settings.search_timeout_s
        self._lock = threading.RLock()
        self._open: dict[Path, _Open] = {}

    def prepare(self) -> None:
        with self.problems():
            make_folder(self.path)
            for leftover in self.path.glob(".new-*"):
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
                    leftover.unlink(missing_ok=True)
            self._make(self.main, self._main_schema)

    def require_whole(self, path: Path) -> None:
        """Read the whole file, if it is there."""
        with self.reading(path) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise inconsistent(found)

    def require_prepared(self) -> None:
        with self.problems():
            is_there = self.main.is_file()
        if not is_there:
            raise LogweirError(STORE_ABSENT, url=self._url)

    def day_path(self, day: str) -> Path:
        return self.path / f"{DAY_PREFIX}{day}{SUFFIX}"

    def day_paths(self) -> list[Path]:
        """The files of events, oldest day first."""
        return sorted(self.path.glob(f"{DAY_PREFIX}*{SUFFIX}"))

    def remove(self, path: Path) -> None:
        """Remove a day's file for good."""
        # Under main's write lock no day file is made, and under the day's own nothing is being written to it;
        # who waits for that lock finds the file gone when its turn comes (see writing).
        self._forget(path)
        with self.writing(self.main), closing(self._connect(path)) as day:
            day.execute("BEGIN IMMEDIATE")
            path.unlink(missing_ok=True)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            sync_folder(self.path)
            day.execute("ROLLBACK")

    @contextmanager
    def searching(self, cancellation: Cancellation | None, timeout_s: float | None = None) -> Iterator[SearchLimit]:
        """As ``problems``, for a search; what stopped it is raised instead of what SQLite makes of that.

        ``timeout_s``: instead of store.search_timeout_s.
        """
        limit = SearchLimit(self._search_timeout_s if timeout_s is None else timeout_s, cancellation)
        with self.problems():
            limit.check()
            try:
                yield limit
            except sqlite3.DatabaseError:
                limit.check()
                raise

    @contextmanager
    def problems(self) -> Iterator[None]:
        """Whatever the files or the disk object to is STORE_DOWN: the caller tries again."""
        try:
            yield
        except DamagedFileError as error:
            raise LogweirError(STORE_DOWN, url=self._url, reason=error, advice=ADVICE) from error
        except (sqlite3.DatabaseError, OSError) as error:
            raise LogweirError(STORE_DOWN, url=self._url, reason=error) from error

    @contextmanager
    def writing(self, path: Path, make: str | None = None) -> Iterator[sqlite3.Connection]:
        """A transaction in the file, committed to the disk at the end, undone on any exception."""
        with self._lock, using(path):
            connection = self._begun(path, make)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.DatabaseError):
                    self._forget(path)
                raise

    def _begun(self, path: Path, make: str | None) -> sqlite3.Connection:
        while True:
            opened = self._open.get(path) or self._remember(path, make)
            opened.connection.execute("BEGIN IMMEDIATE")
            # The lock is ours now. If the file was unlinked before, what we would write would go nowhere.
            if path.exists() and path.stat().st_ino == opened.inode:
                return opened.connection
            opened.connection.execute("ROLLBACK")
            self._forget(path)

    def _remember(self, path: Path, make: str | None) -> _Open:
        if make is not None and not path.exists():
            with self.writing(self.main):
                self._make(path, make)
        days = [known for known in self._open if known not in (self.main, self.documents)]
        if path not in (self.main, self.documents) and len(days) >= _DAYS_OPEN_MAX:
            self._forget(min(days))
        inode = path.stat().st_ino
        self._open[path] = _Open(self._connect(path), inode)
        return self._open[path]

    def _forget(self, path: Path) -> None:
        opened = self._open.pop(path, None)
        if opened is not None:
            opened.connection.close()

    def _connect(self, path: Path) -> sqlite3.Connection:
        """A connection to a file that is there."""
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        return connection

    @contextmanager
    def reading(
        self, path: Path, limit: SearchLimit | None = None, *, schema: str | None = None
    ) -> Iterator[sqlite3.Connection]:
        """A connection for one reader; where the file is not there yet, an empty database of the schema instead."""
        with using(path), closing(self._connection(path, schema)) as connection:
            search.register(connection)
            connection.execute("PRAGMA query_only = ON")
            if limit is not None:
                connection.set_progress_handler(limit.is_over, _STEPS)
            yield connection

    def _connection(self, path: Path, schema: str | None) -> sqlite3.Connection:
        if path.exists():
            return self._connect(path)
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.executescript(schema or (self._main_schema if path == self.main else search.SCHEMA))
        return connection

    def _make(self, path: Path, schema: str) -> None:
        """Make the file with its tables, whole or not at all; harmless when another process does so at once."""
        if path.exists():
            return
        fresh = path.with_name(f".new-{path.name}-{os.getpid()}-{threading.get_ident()}")
        fresh.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN; {schema} COMMIT;")
            _sync(fresh)
            # A link, not a rename: it fails when somebody else was first, and so never replaces their file.
            path.hardlink_to(fresh)
        except FileExistsError:
            return
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(self.path)

    def close(self) -> None:
        with self._lock:
            while self._open:
                self._open.popitem()[1].connection.close()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
