"""The embedded queue apart from the port: crashes, full disks, retention, shares, files."""

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from logweir import clock
from logweir.config import MEBIBYTE, QueueSettings
from logweir.errors import LogweirError
from logweir.queue.sqlite.group import share_of
from logweir.queue.sqlite.topic import SqliteQueue
from tests.contract.test_queue import Member, member, payloads, poll_until, process, send, wait_until


def settings_for(tmp_path: Path, **changed) -> QueueSettings:
    return QueueSettings(**{"url": f"sqlite:///{tmp_path}/queue.sqlite", "partitions": 4, **changed})


def prepared(tmp_path: Path, *, group: str | None = None, **changed) -> SqliteQueue:
    queue = SqliteQueue(settings_for(tmp_path, **changed), group)
    queue.prepare()
    return queue


@pytest.mark.parametrize("after_s", [0.2, 0.5, 0.9])
def test_killed_writer_loses_nothing_confirmed(tmp_path: Path, after_s: float) -> None:
    """After kill -9 under load every confirmed record is there, in order, none twice; the next writer goes on."""
    queue = prepared(tmp_path)
    with process("write", settings_for(tmp_path)) as child:
        wait_until(lambda: child.lines)
        time.sleep(after_s)
        child.kill()
    confirmed = [int(line) for line in child.lines]
    held = queue.offsets(0)[1]
    producer = queue.producer()
    send(producer, b"next")
    producer.close(5)
    with member(queue) as one:
        found = [payload.strip() for payload in payloads(one.read(held + 1))]

    assert len(confirmed) > 20
    assert confirmed == list(range(len(confirmed)))
    assert held >= len(confirmed)
    assert found == [*(b"%d" % n for n in range(held)), b"next"]


def test_a_killed_member_is_replaced_at_once(tmp_path: Path) -> None:
    """Its process is gone for certain, so nobody waits for its session to end, however long that is."""
    queue = prepared(tmp_path, session_timeout_s=600)
    with process("consume", settings_for(tmp_path, session_timeout_s=600)) as child:
        wait_until(lambda: child.lines)
        child.kill()
    with member(queue) as successor:
        poll_until(lambda: len(successor.owned) == 4, successor)

    assert child.lines == ["assigned [0, 1, 2, 3]"]


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    """Offsets have no gap and no repeat when several processes write to one partition."""
    queue = prepared(tmp_path)
    with process("write", settings_for(tmp_path)) as first, process("write", settings_for(tmp_path)) as second:
        wait_until(lambda: len(first.lines) > 200 and len(second.lines) > 200)
        first.kill()
        second.kill()
    held = queue.offsets(0)[1]
    with member(queue) as one:
        found = one.read(held)

    assert [delivery.offset for delivery in found] == list(range(held))
    numbers = [int(payload) for payload in payloads(found)]
    confirmed = [int(line) for child in (first, second) for line in child.lines]
    for number in set(confirmed):
        assert numbers.count(number) >= confirmed.count(number)


_FULL_DISK = """
import resource, signal, sys, threading
from logweir.config import QueueSettings
from logweir.queue.sqlite.topic import SqliteQueue

queue = SqliteQueue(QueueSettings(url=sys.argv[1], partitions=1))
queue.prepare()
producer = queue.producer()

def send(size):
    outcomes, called = [], threading.Event()
    producer.send(0, b"x" * size, lambda error: (outcomes.append(error), called.set()))
    called.wait(20)
    return outcomes[0].problem.code if outcomes[0] else "durable"

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
print(send(1000))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
print(send(800_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
print(send(1000))
producer.close(5)
print(queue.offsets(0))
"""


def test_write_that_fails_leaves_nothing_half_written(tmp_path: Path) -> None:
    """When the file cannot grow the record fails with QUEUE_DOWN, is not there, and later records are taken again."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    url = f"sqlite:///{tmp_path}/queue.sqlite"
    done = subprocess.run([sys.executable, "-c", _FULL_DISK, url], capture_output=True, text=True, timeout=60)

    assert done.stdout.splitlines() == ["durable", "queue_down", "durable", "(0, 2)"], done.stderr


def test_size_is_kept_within_bounds(tmp_path: Path) -> None:
    """Retention by size removes the oldest records; the file stays near the limit and the newest records stay."""
    queue = prepared(tmp_path, retention_size_bytes_max=4 * MEBIBYTE)
    producer = queue.producer()
    sent = 0
    for _ in range(10):
        send(producer, *([os.urandom(100_000)] * 20), partition=sent // 20 % 4)
        sent += 20
    send(producer, b"newest", partition=1)
    wait_until(lambda: sum(end - start for start, end in map(queue.offsets, range(4))) < 80)
    producer.close(5)
    size_bytes = (tmp_path / "queue.sqlite").stat().st_size
    earliest, latest = queue.offsets(1)

    assert size_bytes < 10 * MEBIBYTE
    assert latest == 61
    assert latest > earliest > 0
    assert sum(queue.offsets(partition)[1] for partition in range(4)) == sent + 1


def test_age_limit_removes_only_what_is_older(tmp_path: Path) -> None:
    """Retention by age stops at the first record that is young enough."""
    queue = prepared(tmp_path, retention_hours=3.0 / 3600)
    producer = queue.producer()
    send(producer, b"old", b"old")
    time.sleep(3.2)
    send(producer, b"young")
    wait_until(lambda: queue.offsets(0)[0] > 0)
    bounds = queue.offsets(0)
    producer.close(5)

    assert bounds == (2, 3)


@pytest.mark.parametrize("delay_s", [0.0, 600.0], ids=["known before", "in the first minutes"])
def test_a_clock_that_runs_ahead_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay_s: float
) -> None:
    """A machine that starts 400 days ahead keeps what it has; in the first minutes also where it has wrong times."""
    queue = prepared(tmp_path, retention_hours=24 * 7)
    producer = queue.producer()
    send(producer, b"kept")
    producer.close(5)
    ahead_us = clock.now_us() + 400 * clock.DAY_US
    monkeypatch.setattr("logweir.queue.sqlite.topic.now_us", lambda: ahead_us)
    monkeypatch.setattr("logweir.queue.sqlite.topic._AGING_DELAY_S_MAX", delay_s)
    for _ in range(2 if delay_s else 1):
        producer = queue.producer()
        producer._retention._interval_s = 0.01
        send(producer, b"ahead", partition=1)
        wait_until(lambda producer=producer: producer._retention._newest_ms is not None)
        send(producer, b"ahead", partition=2)
        producer.close(5)

    assert [queue.offsets(partition)[0] for partition in range(3)] == [0, 0, 0]


def test_records_that_the_group_has_not_read_are_never_removed(tmp_path: Path) -> None:
    """Neither by size nor by age: when it is full of them it takes no more, and says so, until some are read."""
    queue = prepared(tmp_path, group="g", partitions=1, retention_size_bytes_max=MEBIBYTE, retention_hours=0.01 / 3600)
    producer = queue.producer()
    sent, outcomes = 0, []
    while not outcomes or outcomes[-1] is None:
        called = threading.Event()
        producer.send(0, os.urandom(100_000), lambda error, called=called: (outcomes.append(error), called.set()))
        assert called.wait(20)
        sent += 1
    full = outcomes[-1]
    with member(queue, group="g") as one:
        held = one.read(sent - 1)
        read = [delivery.offset for delivery in held]
        one.consumer.commit({0: held[-1].offset + 1})
    send(producer, b"next")
    wait_until(lambda: queue.offsets(0)[0] > 0)
    producer.close(5)

    assert read == list(range(sent - 1)) and sent > 5
    assert full.problem.code == "queue_down"
    assert "the group g has to read" in str(full)


def test_replaced_file_is_refused(tmp_path: Path) -> None:
    """A process never goes on with another file than it began with: what it knows of the topic would be wrong."""
    queue = prepared(tmp_path)
    producer = queue.producer()
    send(producer, b"0")
    outcomes: list[LogweirError | None] = []
    for file in tmp_path.iterdir():
        file.unlink()
    producer.send(0, b"1", outcomes.append)
    wait_until(lambda: outcomes)
    producer.close(5)

    assert outcomes[0] is not None
    assert outcomes[0].problem.code == "queue_down"


def test_a_damaged_file_is_used_by_nobody_until_it_is_another(tmp_path: Path) -> None:
    """What one process finds (here a zeroed page, by reading) keeps the door from accepting events into it, too."""
    queue = prepared(tmp_path, partitions=1)
    producer = queue.producer()
    send(producer, *(os.urandom(3000) for _ in range(100)))
    path = tmp_path / "queue.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page = 8192
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // page // 2 * page)
        file.write(bytes(page))
    outcomes: list[LogweirError | None] = []
    producer.send(0, b"unnoticed", outcomes.append)
    wait_until(lambda: outcomes)
    with pytest.raises(LogweirError) as found:
        SqliteQueue(settings_for(tmp_path, partitions=1)).check()
    producer.send(0, b"refused", outcomes.append)
    wait_until(lambda: len(outcomes) == 2)
    with pytest.raises(LogweirError) as read:
        queue.reader(0, 0).read(wait_s=0, records_max=1)
    producer.close(5)
    for file in tmp_path.glob("queue.sqlite*"):
        if not file.name.endswith(".damaged"):
            file.rename(tmp_path / f"aside-{file.name}")
    anew = prepared(tmp_path, partitions=1)
    fresh = anew.producer()
    send(fresh, b"again")
    fresh.close(5)

    assert outcomes[0] is None
    for error in (outcomes[1], found.value, read.value):
        assert error.problem.code == "queue_down"
        assert "damaged" in str(error) and "docs/how-to/damaged-files.md" in str(error)
    assert anew.offsets(0) == (0, 1)
    assert "written" in anew.check()


def test_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    """A path that cannot be a folder, or a file that is no database, is QUEUE_DOWN with the reason."""
    (tmp_path / "file").write_text("this is no database, and long enough to be seen as none" * 20)
    for url in (f"sqlite:///{tmp_path}/file/queue.sqlite", f"sqlite:///{tmp_path}/file"):
        with pytest.raises(LogweirError) as down:
            SqliteQueue(QueueSettings(url=url)).prepare()
        assert down.value.problem.code == "queue_down"
        assert url in str(down.value)


def test_later_format_is_refused(tmp_path: Path) -> None:
    """A file of a later version is not touched."""
    queue = prepared(tmp_path)
    queue.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "queue.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(LogweirError, match="its format is 2"):
        SqliteQueue(settings_for(tmp_path)).check()


def test_producer_that_cannot_finish_in_time_fails_the_rest(tmp_path: Path) -> None:
    """``close`` past its time-out calls the rest back with QUEUE_DOWN, each once."""
    queue = prepared(tmp_path)
    producer = queue.producer()
    send(producer, b"0")
    outcomes: list[LogweirError | None] = []
    with contextlib.closing(sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            producer.send(0, b"1", outcomes.append)
        producer.close(0.2)
        other.execute("ROLLBACK")
    time.sleep(0.3)

    assert [error.problem.code for error in outcomes if error] == ["queue_down"] * 3


def test_three_members_share_evenly_and_nothing_moves_without_need(tmp_path: Path) -> None:
    """Shares differ by one at most; a third member takes one partition, and the others keep the rest."""
    queue = prepared(tmp_path, session_timeout_s=2)
    with member(queue) as first, member(queue) as second:
        poll_until(lambda: (len(first.owned), len(second.owned)) == (2, 2), first, second)
        before = (set(first.owned), set(second.owned))
        with member(queue) as third:
            poll_until(lambda: len(third.owned) == 1, first, second, third)
            counts = sorted(len(each.owned) for each in (first, second, third))
            kept = (first.owned <= before[0], second.owned <= before[1])

    assert counts == [1, 1, 2]
    assert kept == (True, True)


def test_partition_is_never_owned_twice(tmp_path: Path) -> None:
    """While members come and go in threads of their own, nobody is given a partition that another still has."""
    queue = prepared(tmp_path, partitions=8)
    owners: dict[int, str] = {}
    clashes: list[str] = []
    lock = threading.Lock()

    def live(name: str, lifetime_s: float) -> None:
        def assigned(partitions):
            with lock:
                for partition in partitions:
                    if partition in owners:
                        clashes.append(f"{partition}: {owners[partition]}, {name}")
                    owners[partition] = name
            return {}

        def revoked(partitions, lost):
            with lock:
                for partition in partitions:
                    owners.pop(partition)

        consumer = queue.consumer(group="workers", assigned=assigned, revoked=revoked)
        until_s = time.monotonic() + lifetime_s
        while time.monotonic() < until_s:
            consumer.poll(wait_s=0.02, records_max=10)
        consumer.close()

    threads = [threading.Thread(target=live, args=(f"m{n}", 0.5 + 0.4 * n)) for n in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()

    assert clashes == []
    assert owners == {}


@pytest.mark.parametrize(
    ("counts", "partitions", "shares"),
    [
        ({1: 8}, 8, {1: 8}),
        ({1: 8, 2: 0}, 8, {1: 4, 2: 4}),
        ({1: 0, 2: 3}, 3, {1: 1, 2: 2}),
        ({1: 2, 2: 2, 3: 1}, 5, {1: 2, 2: 2, 3: 1}),
        ({1: 0, 2: 0, 3: 0}, 2, {1: 1, 2: 1, 3: 0}),
    ],
)
def test_shares_are_even_and_sum_up(counts: dict[int, int], partitions: int, shares: dict[int, int]) -> None:
    """Every partition has a place, and the odd ones stay with who has more."""
    assert {each: share_of(each, counts, partitions=partitions) for each in counts} == shares


def test_idle_polling_costs_little(tmp_path: Path) -> None:
    """A consumer that waits uses almost no processor time."""
    queue = prepared(tmp_path)
    one = Member(queue)
    one.poll()
    began_s = time.process_time()
    one.poll(2.0)
    used_s = time.process_time() - began_s
    one.consumer.close()

    assert used_s < 0.2
