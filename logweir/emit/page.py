"""The counters of one run of an emitter (an epoch), in memory that may be a file's: then they outlive the process.

A logging call writes the number that it gives here, by one store into memory. A file's memory is the kernel's: what is
in it survives kill -9, so the next start knows how far this run had come. A power cut is another matter: then the file
has what the kernel had written.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import time

SIZE_BYTES = 4096
_MAGIC = struct.unpack("Q", b"lwemit 1")[0]
# Places of whole numbers of eight bytes in the machine's own order: each is stored at once, or not at all.
_IS_MAGIC = 0
HIGH = 1
"""The highest number that an event was given."""
SETTLED = 2
"""All numbers up to this one are delivered, or counted as dropped; for the one who reads the run's files."""
SEGMENT, OFFSET = 3, 4
"""Up to where the run's files are read."""
_IS_ENDED = 5
_EMITTER_SIZE_BYTES = 6
_DROPPED = 16
_EMITTER_AT = 512

# A reason is stored by its place here: add new ones at the end.
REASONS = ("queue_overflow", "disk_full", "refused", "unformattable", "exit_timeout")
"""Why an event is dropped: see docs/how-to/python-logging.md."""


class Page:
    """One run's counters. Each counter has one thread that writes it; all may read."""

    def __init__(self, epoch: str, emitter: str, *, descriptor: int = -1) -> None:
        """``descriptor``: a file of SIZE_BYTES to keep them in; what is in it counts, if it is a page."""
        self.epoch = epoch
        self._memory = mmap.mmap(descriptor, SIZE_BYTES)
        self.counters = memoryview(self._memory).cast("Q")
        if self.counters[_IS_MAGIC] != _MAGIC:
            name = emitter.encode()
            self._memory[:] = bytes(SIZE_BYTES)
            self._memory[_EMITTER_AT : _EMITTER_AT + len(name)] = name
            self.counters[_EMITTER_SIZE_BYTES] = len(name)
            self.counters[_IS_MAGIC] = _MAGIC
        end = _EMITTER_AT + min(self.counters[_EMITTER_SIZE_BYTES], SIZE_BYTES - _EMITTER_AT)
        self.emitter = self._memory[_EMITTER_AT:end].decode(errors="replace")

    @property
    def high(self) -> int:
        return self.counters[HIGH]

    @property
    def dropped(self) -> dict[str, int]:
        """How many events were dropped, by reason, where any were."""
        counts = zip(REASONS, self.counters[_DROPPED : _DROPPED + len(REASONS)], strict=True)
        return {reason: count for reason, count in counts if count}

    def drop(self, reason: str, count: int = 1) -> None:
        self.counters[_DROPPED + REASONS.index(reason)] += count

    @property
    def is_ended(self) -> bool:
        """Whether the run has ended in order: it gives no more numbers, and its goodbye is true."""
        return bool(self.counters[_IS_ENDED])

    def end(self) -> None:
        self.counters[_IS_ENDED] = 1

    def close(self) -> None:
        """Let go of the memory; nothing may be read or written any more."""
        self.counters.release()
        self._memory.close()


def new_epoch() -> str:
    """A name for a run, never given twice; later ones sort behind earlier ones."""
    return f"{time.time_ns():016x}-{secrets.token_hex(6)}"


def allocate(descriptor: int) -> None:
    """Give a new file the room of a page, so that none has to be found when it is written to."""
    if os.fstat(descriptor).st_size < SIZE_BYTES:
        os.pwrite(descriptor, bytes(SIZE_BYTES), 0)
