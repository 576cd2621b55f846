"""Where a worker reads a claimed partition on: never behind records that nobody has accounted for."""

from __future__ import annotations

import logging
from contextlib import closing

from logweir.errors import OFFSETS_EXPIRED, LogweirError
from logweir.queue.port import Queue
from logweir_workers.accounting.partition import PartitionLedger

log = logging.getLogger(__name__)

_READ_S_MAX = 5.0


def resume_offset(queue: Queue, ledger: PartitionLedger) -> int:
    """The offset to read on from. Raises LogweirError(QUEUE_DOWN).

    Not the group's committed offset, which may outlive the ledger that it follows. And not the ledger's own position
    either, where other records stand before it than were read: then the queue was set back, and the ledger goes back to
    the last record that is still in its place. What is stored already is recognised when it comes again.
    """
    earliest, end = queue.offsets(ledger.partition)
    position = ledger.next_offset
    if position is None:
        if earliest < end:
            log.warning(
                "The ledger knows no position of partition %d: it is read from its earliest record, offset %d of %d.",
                ledger.partition,
                earliest,
                end,
            )
        if earliest:
            # What was before was stored, perhaps, and is known no more; or retention was faster than the first worker.
            ledger.begin(earliest)
        return earliest
    newest = ledger.checkpoints.newest
    if newest is None or newest < earliest:
        # Retention has removed all that could be compared.
        if position > end:
            ledger.rewind(end)
        return min(position, end)

    def read(offset: int) -> bytes | None:
        return _record_at(queue, ledger.partition, offset) if offset >= earliest else None

    last = ledger.checkpoints.last_in_place(read)
    if last == newest:
        return position
    back = earliest if last is None else last + 1
    log.error(
        "The queue was set back: partition %d has another record at offset %d than was read there, or none. It is read"
        " again from offset %d.",
        ledger.partition,
        newest,
        back,
    )
    ledger.rewind(back)
    return back


def _record_at(queue: Queue, partition: int, offset: int) -> bytes | None:
    """The record at that offset, None when there is none."""
    if offset >= queue.offsets(partition)[1]:
        return None
    with closing(queue.reader(partition, offset)) as reader:
        try:
            found = reader.read(wait_s=_READ_S_MAX, records_max=1)
        except LogweirError as error:
            if error.problem is OFFSETS_EXPIRED:
                return None
            raise
    return found[0].payload if found and found[0].offset == offset else None
