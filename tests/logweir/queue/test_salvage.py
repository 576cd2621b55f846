"""What is saved of a damaged file of the embedded queue."""

import contextlib
import json
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from logweir.config import load
from logweir.queue import open_queue
from logweir.queue.sqlite.topic import SqliteQueue
from logweir.store import open_store
from tests.contract.test_queue import send
from tests.tools.product import LOGWEIR, environment, logweir
from tests.waiting import until
from tests.workers.helpers import Door, batch, running_worker

PAGE = 8192


def damage(path: Path, page: int) -> None:
    """Zero one page of the file, as a disk does that lost a write."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(bytes(PAGE))


def held(queue: SqliteQueue, partition: int) -> list[int]:
    with contextlib.closing(sqlite3.connect(queue._path)) as connection:
        query = "SELECT id & ? FROM record WHERE id >> 48 = ? ORDER BY id"
        return [id for (id,) in connection.execute(query, (2**48 - 1, partition))]


@pytest.mark.parametrize("at", range(12, 60, 7))
def test_all_but_the_damaged_page_is_saved(tmp_path: Path, at: int) -> None:
    """Whichever page of records it was: every other record has its offset and its bytes, and what is lost is named."""
    settings = load(environment={}, overrides={"data_dir": tmp_path, "queue.partitions": 2})
    queue = open_queue(settings.queue)
    queue.prepare()
    producer = queue.producer()
    payloads = [os.urandom(1500) for _ in range(200)]
    for partition in (0, 1):
        send(producer, *payloads, partition=partition)
    producer.close(5)
    topic_id = queue.topic_id()
    queue.close()
    path = tmp_path / "queue.sqlite"
    damage(path, at)
    said = logweir("queue", "salvage", "--data-dir", str(tmp_path), env=environment(LOGWEIR_QUEUE_PARTITIONS="2"))
    saved = open_queue(settings.queue)
    offsets = [held(saved, partition) for partition in (0, 1)]
    missing = sum(200 - len(found) for found in offsets)

    assert saved.topic_id() == topic_id
    assert [saved.offsets(partition)[1] for partition in (0, 1)] == [200, 200]
    assert f"{400 - missing} records are saved, {missing} could not be read" in said
    assert 0 <= missing <= 12
    assert "can be written" in saved.check()
    for partition, found in enumerate(offsets):
        for offset in found[::20]:
            (delivery,) = saved.reader(partition, offset).read(wait_s=0, records_max=1)
            assert delivery.payload == payloads[offset]


def test_what_was_lost_with_a_page_is_in_the_books(tmp_path: Path) -> None:
    """A worker passes over the hole that is left, counts what it can tell, and stores everything behind it."""
    settings = load(environment={}, overrides={"data_dir": tmp_path, "queue.partitions": 1})
    queue, store = open_queue(settings.queue), open_store(settings.store)
    queue.prepare()
    store.prepare()
    door = Door(queue)
    for number in range(60):
        noise = os.urandom(2000).hex()
        door.write(batch(json.dumps({"summary": f"e {number}", "noise": noise}).encode(), id=bytes([number]) * 16))
    door.close()
    queue.close()
    path = tmp_path / "queue.sqlite"
    damage(path, path.stat().st_size // PAGE // 2)
    logweir("queue", "salvage", "--data-dir", str(tmp_path), env=environment(LOGWEIR_QUEUE_PARTITIONS="1"))
    queue = open_queue(settings.queue)
    saved = len(held(queue, 0))
    position = f"position:logweir:{queue.topic_id()}:0"
    with running_worker(settings, queue, store):
        until(lambda: (found := store.ledger.read([position])) and found[position].body.get("next_offset") == 60)
    body = store.ledger.read([position])[position].body
    store.close()

    assert sum(last - first + 1 for first, last in body["expired"]) == 60 - saved > 0


def test_what_cannot_be_saved_is_said_and_left_alone(tmp_path: Path) -> None:
    """A file that is no database, or is not there; and the queue of a logweir that runs."""

    def salvage() -> subprocess.CompletedProcess[str]:
        command = [*LOGWEIR, "queue", "salvage", "--data-dir", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, env=environment())

    absent = salvage()
    (tmp_path / "queue.sqlite").write_text("no database, and long enough to be seen as none" * 50)
    broken = salvage()

    assert (absent.returncode, broken.returncode) == (2, 2)
    assert "Nothing of the queue" in absent.stderr and "Nothing of the queue" in broken.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queue.sqlite", "up.lock"]
