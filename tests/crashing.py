"""A store whose process dies between any two writes of the ledger."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from logweir.config import StoreSettings
from logweir.store.port import LedgerDocument
from logweir.store.sqlite.database import Folder
from logweir.store.sqlite.ledger import SqliteLedger
from logweir.store.sqlite.store import SqliteStore

_NEVER = 10**9


class Crash(Exception):
    pass


class _CrashingLedger(SqliteLedger):
    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self.left = _NEVER

    def claim(self, id: str, owner: str) -> LedgerDocument:
        self._count([None], lambda _: None)
        return super().claim(id, owner)

    def write(self, documents: Sequence[LedgerDocument]) -> None:
        self._count(documents, super().write)

    def delete(self, documents: Sequence[LedgerDocument]) -> None:
        self._count(documents, super().delete)

    def _count(self, items: Sequence[Any], do: Callable[[Sequence[Any]], None]) -> None:
        done = items[: self.left]
        if done:
            do(done)
        self.left -= len(done)
        if len(done) < len(items):
            raise Crash


class CrashingStore(SqliteStore):
    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings)
        self._crashing = _CrashingLedger(self._folder)
        self.ledger = self._crashing

    @contextmanager
    def dying(self, after: int | None) -> Iterator[None]:
        """Raises Crash when so many more documents of the ledger are written, deleted or claimed; None: never."""
        self._crashing.left = _NEVER if after is None else after
        try:
            yield
        finally:
            self._crashing.left = _NEVER
