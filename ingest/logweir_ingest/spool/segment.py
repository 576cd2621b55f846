"""One file of the spool: a run of frames.

A frame is a header of 12 bytes (big-endian) and a record:

    offset  size  what
    0       4     b"LWS\\x01"
    4       4     size of the record in bytes
    8       4     CRC-32 of the size and the record
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from logweir.config import MEBIBYTE

FRAME_OVERHEAD_BYTES = 12

_MAGIC = b"LWS\x01"
_HEAD = struct.Struct(">4sII")
_SCAN_SIZE_BYTES = MEBIBYTE


def framed(payload: bytes) -> bytes:
    """The frame of a record."""
    size = len(payload).to_bytes(4, "big")
    return _MAGIC + size + zlib.crc32(payload, zlib.crc32(size)).to_bytes(4, "big") + payload


@dataclass(slots=True, eq=False)
class Segment:
    """One file. Sizes and offsets are in bytes; what reads raises OSError."""

    path: Path
    size_bytes: int
    """How much of it is on disk for sure."""
    is_sealed: bool = True
    """Whether nothing is written to it any more."""
    forwarded: int = 0
    """Up to where it is in the queue."""
    damage: dict[int, int] = field(default_factory=dict)
    """Where bytes begin that are no records and are counted already, and where the next record begins."""
    descriptor: int = -1
    """Open for reading; -1 while it is not."""

    def read(self, size_bytes: int, offset: int) -> bytes:
        if self.descriptor < 0:
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self.descriptor, min(size_bytes, self.size_bytes - offset), offset)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def payload_at(self, offset: int) -> bytes | None:
        """The record of the frame at ``offset``, or None when there is no whole one."""
        head = self.read(FRAME_OVERHEAD_BYTES, offset)
        if len(head) < FRAME_OVERHEAD_BYTES:
            return None
        magic, size_bytes, crc = _HEAD.unpack(head)
        if magic != _MAGIC or self._ends_behind(offset, size_bytes):
            return None
        payload = self.read(size_bytes, offset + FRAME_OVERHEAD_BYTES)
        return payload if zlib.crc32(payload, zlib.crc32(head[4:8])) == crc else None

    def next_frame(self, offset: int) -> int:
        """Where the next whole frame begins at or behind ``offset``; the segment's end when there is none."""
        while offset < self.size_bytes:
            # One scan overlaps the next by what a cut magic needs.
            chunk = self.read(_SCAN_SIZE_BYTES, offset)
            found = chunk.find(_MAGIC)
            if found < 0:
                offset += max(1, len(chunk) - len(_MAGIC) + 1)
                continue
            offset += found
            if self.payload_at(offset) is not None:
                return offset
            offset += 1
        return self.size_bytes

    def is_torn(self, offset: int) -> bool:
        """Whether a frame begins there that was not written to its end, as the last of a process that was killed."""
        head = self.read(FRAME_OVERHEAD_BYTES, offset)
        if len(head) < FRAME_OVERHEAD_BYTES:
            return _MAGIC.startswith(head[: len(_MAGIC)])
        magic, size_bytes, _ = _HEAD.unpack(head)
        return bool(magic == _MAGIC and self._ends_behind(offset, size_bytes))

    def _ends_behind(self, offset: int, size_bytes: int) -> bool:
        return offset + FRAME_OVERHEAD_BYTES + size_bytes > self.size_bytes
