"""The books of ingest processes that are gone, ended on their successors' word: where all is known that they sent."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice

from logweir.errors import CLAIM_LOST, LogweirError
from logweir.ledger.closings import Closing, close, read_closing
from logweir.ledger.documents import WINDOW, StreamId, WindowId
from logweir.ledger.window import Window
from logweir.store.port import Store
from logweir.text import counted
from logweir_workers.accounting.partition import PartitionLedger

log = logging.getLogger(__name__)

_AT_ONCE = 20


def end_books(store: Store, *, group: str, ledgers: Iterable[PartitionLedger], now_us: int) -> None:
    """End those of some processes of which it was said on these partitions that they are gone.

    Where something is missing a person has to look: it may have been acknowledged. Raises LogweirError(STORE_DOWN):
    call again.
    """
    due = (
        (ledger, epoch, by) for ledger in ledgers for epoch, by in ledger.streams.ended(ledger.written_offset).items()
    )
    for ledger, epoch, by in list(islice(due, _AT_ONCE)):
        stream, about = StreamId(epoch, ledger.partition), {"ingest_epoch": epoch, "partition": ledger.partition}
        before = read_closing(store, group, stream)
        left = _open_windows(store, group, ledger, epoch)
        if left.items() <= before.windows.items():
            pass  # It ended its books itself, or a person has.
        elif (reason := ledger.streams.why_incomplete(epoch, ledger.written_offset)) is not None:
            log.warning(
                "The ingest process %s is gone; %s of partition %d left open, for %s."
                " docs/how-to/dead-processes.md says what to do.",
                epoch,
                counted(len(left), "window"),
                ledger.partition,
                reason,
                extra=about,
            )
        elif _is_closed(store, group, stream, Closing(before.windows | left, before.numbers, f"process {by}", now_us)):
            log.info(
                "The ingest process %s is gone, says its successor: %s of partition %d closed, nothing"
                " unaccounted for.",
                epoch,
                counted(len(left), "window"),
                ledger.partition,
                extra=about,
            )
        else:
            continue
        ledger.streams.forget_ended(epoch)


def _is_closed(store: Store, group: str, stream: StreamId, closing: Closing) -> bool:
    """False when somebody else closes it at this moment."""
    try:
        close(store, group, stream, closing)
    except LogweirError as error:
        if error.problem is not CLAIM_LOST:
            raise
        return False
    return True


def _open_windows(store: Store, group: str, ledger: PartitionLedger, epoch: str) -> dict[WindowId, int]:
    """How many numbers have come in each; of one with a part in an earlier topic, only here."""
    found = WINDOW.scan(store.ledger, group, *ledger.place, epoch)
    windows = (Window.from_body(place, document.body) for place, document in found)
    return {window.place: window.numbers.count for window in windows if not window.closed}
