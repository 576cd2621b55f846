"""Close the windows of an ingest process that is gone: ``logweir audit close``.

A process that died without its markers leaves its last windows open. Its successor ends its books where all is known
that it sent; else a person who knows that nothing of it waits in a spool says so here: what never came is void from
then on, with who said it and when. Should its spool turn up after all, what comes of it is counted as ever.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from logweir.audit.books import Books
from logweir.audit.windows import CLOSED_AFTERWARDS, GONE_AFTER_US, PROCESS_GONE, WindowBooks
from logweir.errors import PROCESS_ALIVE, PROCESS_UNKNOWN, LogweirError
from logweir.ledger.closings import Closing, close
from logweir.ledger.documents import StreamId
from logweir.ledger.position import read_positions
from logweir.store.port import Store
from logweir.text import some_of

_NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class Closed:
    """What was closed on one partition. ``void``: how many of the process's numbers never came."""

    ingest_epoch: str
    partition: int
    windows: list[int]
    void: int


def close_process(
    store: Store, group: str, books: Books, process: str, *, who: str, now_us: int, dry_run: bool = False
) -> list[Closed]:
    """Close all open windows of the process, given by its epoch or how it begins; one line for each partition.

    ``books``: all of them, read now. Raises LogweirError: PROCESS_UNKNOWN, PROCESS_ALIVE, STORE_DOWN, CLAIM_LOST
    (somebody else closes it at this moment).
    """
    epoch = _epoch(books, process)
    left = [one for one in books.windows if one.window.ingest_epoch == epoch and not one.window.closed]
    living = [one.window.window for one in left if one.state not in (PROCESS_GONE, CLOSED_AFTERWARDS)]
    if living or _is_heard(store, group, epoch, now_us):
        raise LogweirError(PROCESS_ALIVE, process=epoch, minutes=GONE_AFTER_US // 60_000_000)
    found = []
    streams = {one.stream for one in left} | {one for one in books.left_behind if one.ingest_epoch == epoch}
    for stream in sorted(streams):
        windows = [one for one in left if one.stream == stream]
        closing = _closing(books, stream, windows, who, now_us)
        if not dry_run:
            close(store, group, stream, closing)
        found.append(Closed(*stream, [one.window.window for one in windows], closing.numbers.count))
    return found


def _epoch(books: Books, process: str) -> str:
    unclosed = [one for one in books.windows if not one.window.closed]
    epochs = {one.window.ingest_epoch for one in unclosed} | {one.ingest_epoch for one in books.left_behind}
    meant = [epoch for epoch in sorted(epochs) if process and epoch.startswith(process.lower())]
    if len(meant) != 1:
        counts = Counter(dict.fromkeys((one.ingest_epoch for one in books.left_behind), 0))
        counts.update(one.window.ingest_epoch for one in unclosed if one.state != CLOSED_AFTERWARDS)
        known = some_of([f"{epoch} ({count})" for epoch, count in counts.most_common()], _NAMED_MAX) or "none"
        raise LogweirError(PROCESS_UNKNOWN, process=process, count=len(meant), known=known)
    return meant[0]


def _closing(books: Books, stream: StreamId, windows: list[WindowBooks], who: str, now_us: int) -> Closing:
    counts = {one.place: one.window.numbers.count for one in windows}
    return Closing(counts, books.outside.undecided(stream), who, now_us)


def _is_heard(store: Store, group: str, epoch: str, now_us: int) -> bool:
    """Whether a canary of it has come lately: a process may live without taking any events."""
    canaries = (position.canaries.get(epoch) for position in read_positions(store, group).values())
    return any(canary and now_us - canary.sent_us <= GONE_AFTER_US for canary in canaries)
