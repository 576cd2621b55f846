"""A run's events in files: a folder for each run, in a folder that the processes of an emitter share.

    FOLDER/<epoch>/page                    its counters (page.py), locked while a process works on the run
    FOLDER/<epoch>/0000000000000001.log    a segment: frames, one behind the other

A frame is a head (magic, first number, count of events, size of what follows, CRC) and the events, a line each.
When a process has died, the lock is free: another one takes the run over and sends what is left of it in its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from logweir.emit.page import OFFSET, SEGMENT, SETTLED, Page, allocate, new_epoch
from logweir.emit.queue import Batch

try:
    import fcntl
except ImportError:  # Windows has none: there, events can be buffered in memory only.
    fcntl = None  # type: ignore[assignment]

_HEAD = struct.Struct("<4sQIII")
_HEAD_WITHOUT_CRC = struct.Struct("<4sQII")
_MAGIC = b"lwf1"
_SEGMENT_SIZE_BYTES_MIN = 64 * 1024
_SEGMENT_SIZE_BYTES_MAX = 8 * 1024 * 1024
_SEGMENTS_MIN = 16


class Folder:
    """The runs of all processes that share a folder, and how much room they may take together."""

    def __init__(self, path: Path, size_bytes_max: int) -> None:
        """Raises OSError when the folder cannot be made or written to."""
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "files cannot be locked on this system, as a buffer_dir needs", str(path))
        self.path = path
        self.size_bytes_max = size_bytes_max
        self.segment_size_bytes = min(
            _SEGMENT_SIZE_BYTES_MAX, max(_SEGMENT_SIZE_BYTES_MIN, size_bytes_max // _SEGMENTS_MIN)
        )
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "the folder cannot be written to", str(path))

    def new_run(self, emitter: str, *, is_synced: bool) -> RunFiles:
        """A run of this process's own. ``is_synced``: it shall survive a power cut. Raises OSError."""
        path = self.path / new_epoch()
        # Nobody looks for runs below a name like this: it gets its own when it is locked.
        partial = self.path / f".{path.name}"
        partial.mkdir(mode=0o700, parents=True)
        try:
            descriptor = _locked(partial / "page", os.O_CREAT)
            assert descriptor is not None
            allocate(descriptor)
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return RunFiles(self, path, descriptor, emitter, is_synced=is_synced)

    def left_runs(self, emitter: str) -> Iterator[RunFiles]:
        """The runs whose processes are gone, oldest first, each locked until it is closed.

        ``emitter``: in whose name those are whose page a power cut has taken.
        """
        for path in self._paths():
            descriptor = _locked(path / "page")
            if descriptor is None:
                with contextlib.suppress(OSError):
                    path.rmdir()  # Its last owner died when nothing else was left to remove.
                continue
            # Its last owner may have finished it while we waited for nothing but the descriptor.
            if os.fstat(descriptor).st_nlink == 0:
                os.close(descriptor)
                continue
            try:
                allocate(descriptor)
                yield RunFiles(self, path, descriptor, emitter)
            except OSError:
                os.close(descriptor)
                raise

    def has_left_runs(self) -> bool:
        """Whether any run's process is gone."""
        for path in self._paths():
            descriptor = _locked(path / "page")
            if descriptor is not None:
                os.close(descriptor)
                return True
        return False

    def require_room(self) -> None:
        """Raises OSError when another segment would not fit any more."""
        size_bytes = 0
        for path in self._paths():
            with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
                size_bytes += sum(entry.stat().st_size for entry in entries)
        if size_bytes + self.segment_size_bytes > self.size_bytes_max:
            message = f"it holds {size_bytes} of at most {self.size_bytes_max} bytes"
            raise OSError(errno.EDQUOT, message, str(self.path))

    def _paths(self) -> list[Path]:
        with os.scandir(self.path) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [self.path / name for name in sorted(names) if not name.startswith(".")]


class RunFiles:
    """The files of one run, by the one process that has them locked. One thread appends, one syncs, one reads."""

    def __init__(self, folder: Folder, path: Path, descriptor: int, emitter: str, *, is_synced: bool = False) -> None:
        """``descriptor``: of its page, locked."""
        self._folder = folder
        self._path = path
        self._descriptor = descriptor
        self._is_synced = is_synced
        self.page = Page(path.name, emitter, descriptor=descriptor)
        self._segments = sorted(int(one.stem) for one in path.glob("*.log"))
        self._writing = -1
        # Of segments that are full and not synced yet.
        self._unsynced: deque[int] = deque()
        self._written_bytes = 0
        self._is_damaged = False
        self._reading = -1
        self._read_at = (self.page.counters[SEGMENT], self.page.counters[OFFSET])
        self._settled_before = self.page.counters[SETTLED]
        self.appended_count = 0
        self.appended_bytes = 0
        self.read_count = 0
        self.read_bytes = 0
        self.high = self.page.high
        """The highest number that it gave, as far as its page or its files know."""

    # --- writing ---------------------------------------------------------------------------------------------------
    def append(self, batch: Batch) -> None:
        """Write the events behind all others. Raises OSError, and nothing is written."""
        if self._writing == -1 or self._is_damaged or self._written_bytes >= self._folder.segment_size_bytes:
            self._begin_segment()
        body = b"\n".join(batch.events)
        head = _HEAD_WITHOUT_CRC.pack(_MAGIC, batch.first, len(batch.events), len(body))
        frame = head + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little") + body
        try:
            written = 0
            while written < len(frame):
                written += os.write(self._writing, frame[written:] if written else frame)
        except OSError:
            # What is there of the frame must go, or the next one would stand behind a broken one.
            try:
                os.ftruncate(self._writing, self._written_bytes)
            except OSError:
                self._end_segment()
            raise
        self._written_bytes += len(frame)
        self.appended_bytes += len(frame)
        self.appended_count += len(batch.events)

    def sync(self) -> None:
        """Have what was appended survive a power cut. Another thread may append meanwhile. Raises OSError."""
        # A segment that becomes full while this is looked at is closed here, and nowhere else.
        writing = self._writing
        _sync_folder(self._path)
        while self._unsynced:
            os.fsync(self._unsynced[0])
            os.close(self._unsynced.popleft())
        if writing == self._writing != -1:
            os.fsync(writing)

    def sync_names(self) -> None:
        """Have the run itself be there after a power cut. Raises OSError."""
        os.fsync(self._descriptor)
        _sync_folder(self._folder.path)

    def _begin_segment(self) -> None:
        self._folder.require_room()
        number = self._segments[-1] + 1 if self._segments else 1
        descriptor = os.open(self._segment(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._end_segment()
        self._writing, self._written_bytes, self._is_damaged = descriptor, 0, False
        # The reader goes on to a segment that it sees here.
        self._segments.append(number)

    def _end_segment(self) -> None:
        if self._writing == -1:
            return
        if self._is_synced:
            self._unsynced.append(self._writing)
        else:
            os.close(self._writing)
        self._writing = -1

    # --- reading ---------------------------------------------------------------------------------------------------
    def read(self, *, events_max: int, size_bytes_max: int) -> Batch | None:
        """The next events with consecutive numbers; None when all that is written was read. Raises OSError.

        Behind a frame that is broken, the rest of its segment is left out: its numbers never come.
        """
        while True:
            # Asked before the segment is read to its end: one that has a successor by then is not written to any more.
            following = next((number for number in self._segments if number > self._read_at[0]), None)
            written = self.appended_count, self.appended_bytes
            before = self._read_at
            batch = self._read_segment(events_max, size_bytes_max)
            if batch is not None:
                return batch
            if self._read_at != before:
                continue  # All of that was settled before.
            if following is None:
                self._note_unreadable(*written)
                return None
            self._end_reading()
            self._read_at = (following, 0)

    def _note_unreadable(self, appended_count: int, appended_bytes: int) -> None:
        """Of so much that was written, nothing is left to be read: if that is more than was read, it is broken."""
        if self.read_count < appended_count:
            self._is_damaged = True  # What is written from now on goes to a segment that can be read.
        self.read_count, self.read_bytes = max(self.read_count, appended_count), max(self.read_bytes, appended_bytes)

    def settle(self, batch: Batch) -> None:
        """The events are delivered, or counted as dropped: they need not be kept."""
        counters = self.page.counters
        counters[SETTLED] = max(counters[SETTLED], batch.last)
        if batch.end is None:
            return
        counters[OFFSET] = 0
        counters[SEGMENT], counters[OFFSET] = batch.end
        for number in [one for one in self._segments if one < batch.end[0]]:
            self._segments.remove(number)
            self._segment(number).unlink(missing_ok=True)

    def _read_segment(self, events_max: int, size_bytes_max: int) -> Batch | None:
        segment, offset = self._read_at
        if segment not in self._segments:
            return None
        if self._reading == -1:
            try:
                self._reading = os.open(self._segment(segment), os.O_RDONLY)
            except FileNotFoundError:  # Somebody has removed it.
                return None
        # Many small reads would have the program's other threads wait for the interpreter's lock as often.
        chunk = os.pread(self._reading, size_bytes_max + _HEAD.size, offset)
        first, events, size_bytes, at = 0, list[bytes](), 0, 0
        while len(events) < events_max and (frame := self._frame(chunk, at, offset)) is not None:
            begins, count, body = frame
            if events and (begins != first + len(events) or len(events) + count > events_max):
                break
            if events and size_bytes + len(body) > size_bytes_max:
                break
            at += _HEAD.size + len(body)
            self.read_count += count
            self.read_bytes += _HEAD.size + len(body)
            self.high = max(self.high, begins + count - 1)
            # Of a run that was left, a part of the frame may have been delivered.
            skipped = max(0, min(count, self._settled_before + 1 - begins))
            if skipped < count:
                first = first or begins + skipped
                events += body.split(b"\n")[skipped:]
                size_bytes += len(body) + 1
        self._read_at = (segment, offset + at)
        return Batch(first, events, self._read_at) if events else None

    def _frame(self, chunk: bytes, at: int, offset: int) -> tuple[int, int, bytes] | None:
        """First number, count and body of the frame there; None when there is no whole one.

        ``chunk``: what was read at ``offset``, which ends anywhere: the first frame in it is always looked for whole.
        """
        if len(chunk) < at + _HEAD.size:
            return None
        magic, first, count, size_bytes, crc = _HEAD.unpack_from(chunk, at)
        if magic != _MAGIC or size_bytes > self._folder.size_bytes_max:
            return None
        body = chunk[at + _HEAD.size : at + _HEAD.size + size_bytes]
        if len(body) < size_bytes and at == 0:
            body = os.pread(self._reading, size_bytes, offset + _HEAD.size)
        of_head = zlib.crc32(chunk[at : at + _HEAD_WITHOUT_CRC.size])
        if len(body) < size_bytes or zlib.crc32(body, of_head) != crc:
            return None
        return first, count, body

    def _end_reading(self) -> None:
        if self._reading != -1:
            os.close(self._reading)
            self._reading = -1

    # --- the end ---------------------------------------------------------------------------------------------------
    def remove(self) -> None:
        """All of it is told: nothing is kept of the run."""
        for path in self._path.glob("*.log"):
            path.unlink(missing_ok=True)
        # Last, and still locked: who finds the folder sees a run that is being worked on, or none.
        (self._path / "page").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._path.rmdir()  # Who found it empty may have been faster.

    def close(self) -> None:
        """Let go of the run: if it is there, another process may take it over."""
        self._end_segment()
        while self._unsynced:
            os.close(self._unsynced.popleft())
        self._end_reading()
        self.page.close()
        os.close(self._descriptor)

    def _segment(self, number: int) -> Path:
        return self._path / f"{number:016d}.log"


def _locked(path: Path, flags: int = 0) -> int | None:
    """A descriptor of the file, locked as long as it is open; None when another one has it, or it is not there."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
