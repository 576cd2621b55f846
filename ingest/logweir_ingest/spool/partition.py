"""One partition's records in the spool: appended to its last segment, read and forwarded from its first."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from logweir.process.files import sync_folder
from logweir_ingest.spool.folders import Folders, number_of, segment_name
from logweir_ingest.spool.held import Held, HeldRow
from logweir_ingest.spool.segment import FRAME_OVERHEAD_BYTES, Segment, framed

log = logging.getLogger(__name__)


class PartitionSpool:
    """The ``segments`` of one partition, in the order in which they are forwarded. For one thread alone.

    ``size_bytes`` is what they hold on disk; ``damaged_bytes`` what was no record, since the start. ``removed`` is
    called with the folder of a segment that was removed. Methods that touch the disk raise OSError.
    """

    def __init__(
        self,
        partition: int,
        folders: Folders,
        *,
        segment_size_bytes: int,
        removed: Callable[[Path], None],
    ) -> None:
        self.segments: deque[Segment] = deque()
        self.size_bytes = 0
        self.damaged_bytes = 0
        self._partition = partition
        self._folders = folders
        # Of the segment that was begun last: without a gap, so that one that is missing is missed.
        self._number = 0
        self._segment_size_bytes = segment_size_bytes
        self._removed = removed
        # Of the last segment; -1 when the next record begins a new one.
        self._descriptor = -1
        self._unsynced_bytes = 0
        # Where the next record to be read begins: in which segment, and at which offset.
        self._at = 0
        self._offset = 0
        # Where the records end that were read and not yet forwarded.
        self._ends: deque[tuple[Segment, int]] = deque()

    # --- in --------------------------------------------------------------------------------------------------------
    def append(self, records: Sequence[bytes]) -> None:
        """Write the records behind the others. None can be read before ``sync``."""
        data = memoryview(b"".join(map(framed, records)))
        if self._descriptor < 0:
            self._begin_segment()
        self._unsynced_bytes += len(data)
        while data:
            data = data[os.write(self._descriptor, data) :]

    def sync(self) -> None:
        """Make durable what was appended."""
        os.fdatasync(self._descriptor)
        segment = self.segments[-1]
        segment.size_bytes += self._unsynced_bytes
        self.size_bytes += self._unsynced_bytes
        self._unsynced_bytes = 0
        with contextlib.suppress(OSError):  # It is on disk all the same.
            row = HeldRow(self._first_own(), self._number, segment.size_bytes)
            Held(self._folders.own).grown(self._partition, row)
        if segment.size_bytes >= self._segment_size_bytes:
            self._seal()

    def discard_unsynced(self) -> None:
        """After a failure nobody knows what of the last write is on disk: cut it off, and go on in another file."""
        self._unsynced_bytes = 0
        if self._descriptor < 0:
            return
        segment = self.segments[-1]
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, segment.size_bytes)
        self._seal()
        if not segment.size_bytes:
            self.segments.pop()
            with contextlib.suppress(OSError):
                segment.path.unlink()
                self._number -= 1

    def _begin_segment(self) -> None:
        self._folders.ensure_own()
        path = self._folders.own / segment_name(self._partition, self._number + 1)
        Held(self._folders.own).begun(self._partition, self._number + 1, first=self._first_own())
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._number += 1
        self.segments.append(Segment(path, 0, is_sealed=False))
        sync_folder(self._folders.own)

    def _first_own(self) -> int:
        """The number of this process's first segment that is there, or of the one that comes next."""
        own = (number_of(one.path) for one in self.segments if one.path.parent == self._folders.own)
        return next(own, self._number + 1)

    def _seal(self) -> None:
        if self.segments:
            self.segments[-1].is_sealed = True
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # The descriptor is gone all the same; what counts is on disk already.
                os.close(descriptor)

    def adopt(self, segment: Segment) -> None:
        """Put a segment of another process in front of this process's own, and behind what others left before.

        Not while something is read and not forwarded: that has gone before.
        """
        found = [*self.segments, segment]
        self.segments = deque(sorted(found, key=lambda one: (one.path.parent == self._folders.own, one.path)))
        self.size_bytes += segment.size_bytes
        self._read_from_front()

    # --- out -------------------------------------------------------------------------------------------------------
    def read(self) -> bytes | None:
        """The next record that was not read yet, or None. What is damaged is passed over, and counted."""
        for segment, offset in self._unread():
            payload = segment.payload_at(offset)
            if payload is not None:
                self._offset = offset + FRAME_OVERHEAD_BYTES + len(payload)
                self._ends.append((segment, self._offset))
                return payload
            self._offset = self._pass_over(segment, offset)
        self._remove_forwarded()
        return None

    def has_unread(self) -> bool:
        return any(True for _ in self._unread())

    def _unread(self) -> Iterator[tuple[Segment, int]]:
        """Where the next record begins, again and again until there is none."""
        while self._at < len(self.segments):
            segment = self.segments[self._at]
            if self._offset < segment.size_bytes:
                yield segment, self._offset
            elif segment.is_sealed and self._at + 1 < len(self.segments):
                self._at += 1
                self._offset = self.segments[self._at].forwarded
            else:
                return

    def _pass_over(self, segment: Segment, offset: int) -> int:
        """Where to read on behind damage: at the next whole frame, or at the segment's end, which is cut off then."""
        if offset in segment.damage:
            return segment.damage[offset]
        following = segment.damage[offset] = segment.next_frame(offset + 1)
        # Only the last one of a process can have been cut off in the middle of a write.
        is_last = all(one is segment or one.path.parent != segment.path.parent for one in self._behind(segment))
        if following < segment.size_bytes or not is_last or not segment.is_torn(offset):
            self._folders.mark_damaged(segment.path.parent)
        size_bytes = following - offset
        self.damaged_bytes += size_bytes
        log.error(
            "%s: %d bytes from byte %d on are no records and are left out. At a file's end it is what a power cut or a"
            " kill tore off, never acknowledged; anywhere else check the disk.",
            segment.path,
            size_bytes,
            offset,
            extra={"path": segment.path, "size_bytes": size_bytes, "byte_offset": offset},
        )
        if following == segment.size_bytes:
            if segment is self.segments[-1]:
                self._seal()  # What is written next would stand behind it.
            segment.size_bytes = offset
            self.size_bytes -= size_bytes
        return min(following, segment.size_bytes)

    def _behind(self, segment: Segment) -> Iterator[Segment]:
        """That segment, and those that come after it."""
        return itertools.dropwhile(lambda one: one is not segment, self.segments)

    def forwarded(self) -> None:
        """The oldest record that was read is in the queue. A segment goes when all of its records are."""
        segment, end = self._ends.popleft()
        while self.segments[0] is not segment:
            self._remove_first()
        segment.forwarded = end
        self._remove_forwarded()

    def _remove_forwarded(self) -> None:
        while self.segments and self.segments[0].forwarded == self.segments[0].size_bytes:
            self._remove_first()

    def _remove_first(self) -> None:
        if len(self.segments) == 1:
            self._seal()
        segment = self.segments.popleft()
        segment.close()
        if self._at:
            self._at -= 1
        else:
            self._read_from_front()
        self.size_bytes -= segment.size_bytes
        folder = segment.path.parent
        if not segment.damage or self._folders.is_damage_known(folder):
            with contextlib.suppress(OSError):  # It may come again after a restart, and is known by its numbers then.
                Held(folder).forwarded(self._partition, number_of(segment.path))
                segment.path.unlink()
        self._removed(folder)

    def rewind(self) -> None:
        """What was read and not forwarded is to be read again."""
        self._ends.clear()
        self._read_from_front()

    def _read_from_front(self) -> None:
        """Read on with the first record that is not in the queue."""
        self._at, self._offset = 0, self.segments[0].forwarded if self.segments else 0

    @property
    def has_unforwarded(self) -> bool:
        """Whether a record was read that is not forwarded yet."""
        return bool(self._ends)

    def close(self) -> None:
        """Let go of the files, which stay."""
        self._seal()
        for segment in self.segments:
            segment.close()
