"""A client of the queue that hands out a partition no more, though it is the worker's and has records."""

from __future__ import annotations

import pytest

from logweir.config import Settings
from logweir.query import parse
from logweir.queue import Delivery, Queue
from logweir.queue.sqlite_group import SqliteConsumer
from logweir.store import Store
from logweir_workers import worker
from tests.workers.helpers import Door, batch, eventually, running_worker


def test_a_client_that_goes_deaf_is_replaced(
    settings: Settings, queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker joins its group anew, reads on where it was, and says so once; nothing is stored twice."""
    poll, clients = SqliteConsumer.poll, []

    def deaf(self: SqliteConsumer, *, wait_s: float, records_max: int) -> list[Delivery]:
        if self not in clients:
            clients.append(self)
        found = poll(self, wait_s=wait_s, records_max=records_max)
        return found if len(clients) > 1 else []

    monkeypatch.setattr(SqliteConsumer, "poll", deaf)
    monkeypatch.setattr(worker, "_BARREN_S", 0.5)
    monkeypatch.setattr(worker, "_IDLE_INTERVAL_S", 0.1)
    door = Door(queue)
    door.write(batch(b'{"n":1}', b'{"n":2}'))
    with running_worker(settings, queue, store):
        eventually(lambda: store.search(parse("*"), size=10).total == 2)
    door.close()

    assert len(clients) == 2
    assert sum("joining the group anew" in record.getMessage() for record in caplog.records) == 1
