"""A product that is restarted twice while a sender sends to it, and what is in its books and its store in the end.

Each event that is sent has a number of its own, in its text: ``event 17``. One in a thousand is sent so that no worker
can read it: poison.
"""

from __future__ import annotations

import base64
import collections
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from logweir.audit.books import Books, read_books
from logweir.clock import now_us
from logweir.config import StoreSettings
from logweir.store import open_store
from tests.proof import size
from tests.tools.product import Embedded, logweir

EVENTS = size(4_000, 100_000)
POISON_EVERY = 1000
"""The last of so many is poison."""

_SETTLED_S_MAX = 240.0
_NUMBER = re.compile(rb"event (\d+)")


def is_poison(number: int) -> bool:
    return number % POISON_EVERY == POISON_EVERY - 1


POISON = {number for number in range(EVENTS) if is_poison(number)}
GOOD = set(range(EVENTS)) - POISON


class Journey:
    """The product, on a data folder of its own, with a key for its senders."""

    def __init__(self, folder: Path) -> None:
        self.product = Embedded(folder / "data")
        self.product.start()
        self.port, self.key = self.product.ingest_port, self.product.key
        self.url = f"http://127.0.0.1:{self.port}"

    def send(self, hand_over: Callable[[range], object]) -> None:
        """Hand over a third of all numbers, one while the product stops and starts, one while it dies and starts."""
        third = EVENTS // 3
        hand_over(range(third))
        with self._restarted(self.product.process.stop):
            hand_over(range(third, 2 * third))
        with self._restarted(self.product.process.kill_family):
            hand_over(range(2 * third, EVENTS))

    @contextmanager
    def _restarted(self, end: Callable[[], object]) -> Iterator[None]:
        failed: list[BaseException] = []

        def restart() -> None:
            try:
                end()
                time.sleep(1)  # So long that its senders find nobody.
                self.product.start()
            except BaseException as error:
                failed.append(error)

        restarting = threading.Thread(target=restart)
        restarting.start()
        yield
        restarting.join()
        assert not failed, failed

    def books(self, *, accepted: int = EVENTS) -> Books:
        """The books, once so many events at least are accepted and none is in flight."""
        store = open_store(StoreSettings(url=f"sqlite:///{self.product.data_dir}/store"))
        deadline = time.monotonic() + _SETTLED_S_MAX
        try:
            while True:
                books = read_books(store, group="logweir", late_us=60_000_000, now_us=now_us())
                if books.row.accepted >= accepted and not books.row.in_flight:
                    return books
                assert time.monotonic() < deadline, books.row.as_json()
                time.sleep(0.2)
        finally:
            store.close()

    def stored(self) -> collections.Counter[int]:
        """How often each number is in the store."""
        lines = self.product.search("event", "--json", "--size", "0").splitlines()
        return collections.Counter(_number_in(json.loads(line)["summary"].encode()) for line in lines)

    def letters(self) -> collections.Counter[int]:
        """How often each number is in a dead letter for bytes that cannot be read."""
        words = ("list", "--reason", "event_unreadable", "--size", "0", "--json")
        lines = logweir("deadletters", *words, "--data-dir", str(self.product.data_dir)).splitlines()
        return collections.Counter(_number_in(_bytes_of(json.loads(line))) for line in lines)


def _bytes_of(letter: dict[str, str]) -> bytes:
    return base64.b64decode(letter["raw"])


def _number_in(text: bytes) -> int:
    found = _NUMBER.search(text)
    assert found is not None, text
    return int(found[1])


@contextmanager
def journey(folder: Path) -> Iterator[Journey]:
    begun = Journey(folder)
    try:
        yield begun
    finally:
        begun.product.process.kill_family()
