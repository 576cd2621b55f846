"""Records as a door writes them, and a worker that runs in a thread, for the tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from logweir import clock
from logweir.config import Settings
from logweir.errors import LogweirError
from logweir.queue.port import Queue
from logweir.record import Batch, Body, Kind, encode
from logweir.store.port import Store
from logweir_workers.worker import Worker


def batch(
    *events: bytes,
    id: bytes = b"\x01" * 16,
    key: str = "app",
    emitter: str | None = None,
    epoch: str | None = None,
    sequence_first: int | None = None,
    received_us: int | None = None,
    index_first: int = 0,
    high: int | None = None,
    previous: tuple[str, int] | None = None,
    dropped: dict[str, int] | None = None,
    bye: bool = False,
) -> Batch:
    return Batch(
        id=id,
        received_us=received_us or clock.now_us(),
        key=key,
        emitter=emitter,
        epoch=epoch,
        sequence_first=sequence_first,
        high=high,
        previous=previous,
        dropped=dropped,
        bye=bye,
        source_address="10.1.2.3",
        format="json",
        stamp=None,
        index_first=index_first,
        events=list(events),
    )


class Door:
    """Numbers events and writes records, as an ingest process does on one partition, all within one minute.

    A record that repeats numbers is of the minute in which they were given out, also when the next one has begun.
    """

    def __init__(self, queue: Queue, *, epoch: bytes = b"\x07" * 16, partition: int = 0) -> None:
        self._producer = queue.producer()
        self._epoch = epoch
        self._partition = partition
        self._window = clock.window_of(clock.now_us())
        self.next_number = 1

    def write(self, *batches: Batch, first: int | None = None) -> bytes:
        """Write a data record, durably; gives its bytes. ``first`` repeats numbers that were given out before."""
        count = sum(len(one.events) for one in batches)
        first = first or self.next_number
        self.next_number = max(self.next_number, first + count)
        return self.write_as(Kind.DATA, list(batches), first=first, count=count)

    def write_as(self, kind: Kind, body: Body, *, first: int = 0, count: int = 0) -> bytes:
        payload = encode(kind, ingest_epoch=self._epoch, first=first, count=count, window=self._window, body=body)
        self.write_bytes(payload)
        return payload

    def write_bytes(self, payload: bytes) -> None:
        durable = threading.Event()
        errors: list[LogweirError] = []

        def done(error: LogweirError | None) -> None:
            errors.extend([error] if error else [])
            durable.set()

        self._producer.send(self._partition, payload, done)
        assert durable.wait(10)
        assert not errors

    def close(self) -> None:
        self._producer.close(5.0)


@contextmanager
def running_worker(settings: Settings, queue: Queue, store: Store) -> Iterator[Worker]:
    """A worker in a thread; it stops, having flushed, at the end. What it raises is raised here."""
    stopping = threading.Event()
    worker = Worker(settings=settings, queue=queue, store=store, stopping=stopping, clock=clock.now_us)
    with in_thread(worker.run, stopping):
        yield worker


@contextmanager
def in_thread(run: Callable[[], object], stopping: threading.Event) -> Iterator[None]:
    """Run it in a thread, and tell it at the end to stop. What it raises is raised here."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            run()
        except BaseException as error:  # handed to the test's own thread
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(30)
    if raised:
        raise raised[0]
    assert not thread.is_alive()
