"""The books of ingest processes that are gone, ended on their successors' word, a little after it came."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from logweir.audit import read_books
from logweir.audit_close import closing_of
from logweir.audit_windows import Stream
from logweir.closings import Closing, close
from logweir.config import AccountingSettings
from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger import PartitionLedger
from logweir.store import Store

log = logging.getLogger(__name__)

_AFTER_US = 10_000_000
"""What the process had sent just before it died may stand behind its successor's word, if the broker was busy."""


def said_gone(ledgers: Iterable[PartitionLedger], now_us: int) -> dict[Stream, str]:
    """By whom it was said, of each process on each of these partitions whose books are to be ended."""
    return {
        (epoch, ledger.partition): by for ledger in ledgers for epoch, by in ledger.gone(now_us - _AFTER_US).items()
    }


def closings_of(
    store: Store, *, group: str, settings: AccountingSettings, said: Mapping[Stream, str], now_us: int
) -> dict[Stream, Closing]:
    """What there is to be said of them. May take minutes; only reads. Raises LogweirError(STORE_DOWN)."""
    books = read_books(store, group=group, late_us=settings.late_us, now_us=now_us)
    return {stream: closing_of(books, stream, who=f"process {by}", now_us=now_us) for stream, by in said.items()}


def end_books(
    store: Store, *, group: str, ledgers: Mapping[int, PartitionLedger], closings: Mapping[Stream, Closing]
) -> None:
    """Write them down. Of a process that ended its books itself there is nothing to say.

    Raises LogweirError(STORE_DOWN): what is not written is found again.
    """
    for stream, closing in closings.items():
        epoch, partition = stream
        if partition not in ledgers:
            continue
        if closing.windows and not _is_closed(store, group, stream, closing):
            continue
        ledgers[partition].forget_gone(epoch)


def _is_closed(store: Store, group: str, stream: Stream, closing: Closing) -> bool:
    try:
        close(store, group, stream, closing)
    except LogweirError as error:
        if error.problem is not CLAIM_LOST:
            raise
        return False  # A person closes it at this moment.
    log.info(
        "The ingest process %s is gone, says its successor: %d windows of partition %d are closed, and %d numbers that"
        " never came are void.",
        stream[0], len(closing.windows), stream[1], len(closing.numbers),
        extra={"ingest_epoch": stream[0], "partition": stream[1]},
    )  # fmt: skip
    return True
