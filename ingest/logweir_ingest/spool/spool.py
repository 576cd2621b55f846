"""Records on this machine's disk, for as long as the queue does not take them: in order per partition, fsynced.

    spool/                              of all doors that share the folder
        lock                            held while a door makes or adopts a folder
        queue.json                      what was last known of the queue: its number of partitions
        01790000000000000-9f3c…-5d0e…f1.2/
                                        of one process: when it began (microseconds), its ingest epoch, its generation
            lock                        held as long as the process lives
            damaged                     there when something in it, which may have been acknowledged, could not be read
            00003-00000001.log          a segment: partition, then a running number

A segment is removed when all of its records are in the queue. So after a kill the last segment of a partition may be
forwarded once more: readers know a record by its numbers. A process has its folder from its start until it has ended
its books. Who finds the folder of one that did not live to do so says that in its place, when nothing is left in it
and nothing was damaged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from logweir.config import MEBIBYTE
from logweir.process.files import make_folder, sync_folder, write_whole
from logweir_ingest.spool.folders import Folders, partition_of, segment_paths
from logweir_ingest.spool.segment import FRAME_OVERHEAD_BYTES, Segment, framed

log = logging.getLogger(__name__)

SEGMENT_SIZE_BYTES_MAX = 8 * MEBIBYTE

_FOLDER = re.compile(r"\d+-([0-9a-f]{32})-")
_PROBE_SIZE_BYTES = MEBIBYTE


@dataclass(slots=True)
class _Chain:
    """One partition's segments, in the order in which they are forwarded.

    ``read``: an offset into ``segments[at]``. ``ends``: where the records that were read and not yet forwarded end.
    ``writer``: of the last segment, -1 when the next record begins a new one.
    """

    segments: deque[Segment] = field(default_factory=deque)
    writer: int = -1
    at: int = 0
    read: int = 0
    ends: deque[tuple[Segment, int]] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Generation:
    """The processes that serve a door from one reload to the next. ``door`` is another one after each start."""

    door: str = ""
    number: int = 0

    def __str__(self) -> str:
        return f"{self.door}.{self.number}"

    def next(self) -> Generation:
        """Of after the next reload."""
        return replace(self, number=self.number + 1)

    def follows(self, folder: str) -> bool:
        """Whether the folder of that name is of a process of the same door before a reload."""
        door, _, number = folder.rpartition("-")[2].partition(".")
        return door == self.door and number.isdecimal() and int(number) < self.number


class Spool:
    """What one process keeps, and what it has adopted of processes that are gone. For one thread alone.

    Methods that touch the disk raise OSError, except ``write``, which gives it for each record.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        generation: Generation = Generation(),
        segment_size_bytes: int = SEGMENT_SIZE_BYTES_MAX,
    ) -> None:
        self._root = folder
        self._folders = Folders(folder, f"{name}-{generation}")
        self._generation = generation
        self._segment_size_bytes = segment_size_bytes
        self._finished: dict[bytes, Path] = {}
        self._chains: dict[int, _Chain] = defaultdict(_Chain)
        self._next_segment = 1
        self.size_bytes = 0
        self.damaged_bytes = 0

    # --- what is there ---------------------------------------------------------------------------------------------
    def partitions(self) -> list[int]:
        """The partitions of which there are records."""
        return [partition for partition, chain in self._chains.items() if chain.segments]

    def heads(self, size_bytes: int) -> list[bytes]:
        """The first bytes of each partition's oldest record; where that is damaged, of what there is."""
        oldest = [chain.segments[0] for chain in self._chains.values() if chain.segments]
        frames = [segment.read(FRAME_OVERHEAD_BYTES + size_bytes, segment.forwarded) for segment in oldest]
        return [frame[FRAME_OVERHEAD_BYTES:] for frame in frames]

    def has_unread(self, partition: int) -> bool:
        chain = self._chains[partition]
        return any(True for _ in self._unread(chain))

    def has_others(self) -> bool:
        """Whether there is a folder of another process that is not adopted."""
        return bool(self._folders.others())

    def others_size_bytes(self) -> int:
        """How much other processes of this machine keep here."""
        return sum(_size_of(path) for folder in self._folders.others() for path in _segments_now(folder))

    def awaited(self) -> set[int]:
        """Partitions of which the processes before the last reload left records that another process holds still."""
        before = (folder for folder in self._folders.others() if self._generation.follows(folder.name))
        return {partition_of(path) for folder in before for path in _segments_now(folder)}

    def frees(self) -> list[tuple[int, int]]:
        """(forwarded, free), both rising: when so many bytes more are forwarded, so many are free.

        As if all partitions went at the same pace: each frees a segment when it is through with it.
        """
        steps: list[tuple[int, int]] = []
        lefts: list[int] = []
        for chain in self._chains.values():
            left = 0
            for segment in chain.segments:
                left += segment.size_bytes - segment.forwarded
                steps.append((left, segment.size_bytes))
            lefts.append(left)
        frees, free_bytes = [], 0
        for each, size_bytes in sorted(steps):
            free_bytes += size_bytes
            frees.append((sum(min(each, left) for left in lefts), free_bytes))
        return frees

    # --- in --------------------------------------------------------------------------------------------------------
    def write(self, records: Sequence[tuple[int, bytes]]) -> list[OSError | None]:
        """Put (partition, record) behind the others of its partition; gives for each whether it is on disk."""
        by_partition: dict[int, list[int]] = defaultdict(list)
        for index, (partition, _) in enumerate(records):
            by_partition[partition].append(index)
        try:
            return self._written(records, by_partition)
        except BaseException:
            for partition in by_partition:
                self._give_up(self._chains[partition])
            raise

    def _written(
        self, records: Sequence[tuple[int, bytes]], by_partition: dict[int, list[int]]
    ) -> list[OSError | None]:
        results: list[OSError | None] = [None] * len(records)
        written: list[tuple[_Chain, Segment, int, list[int]]] = []
        for partition, indexes in by_partition.items():
            chain = self._chains[partition]
            try:
                segment, size_bytes = self._append(partition, chain, [records[index][1] for index in indexes])
                written.append((chain, segment, size_bytes, indexes))
            except OSError as error:
                self._give_up(chain)
                for index in indexes:
                    results[index] = error
        for chain, segment, size_bytes, indexes in written:
            try:
                os.fdatasync(chain.writer)
            except OSError as error:
                self._give_up(chain)
                for index in indexes:
                    results[index] = error
                continue
            segment.size_bytes += size_bytes
            self.size_bytes += size_bytes
            if segment.size_bytes >= self._segment_size_bytes:
                _seal(chain)
        return results

    def _append(self, partition: int, chain: _Chain, records: Sequence[bytes]) -> tuple[Segment, int]:
        data = memoryview(b"".join(map(framed, records)))
        if chain.writer < 0:
            self._begin_segment(partition, chain)
        left = data
        while left:
            left = left[os.write(chain.writer, left) :]
        return chain.segments[-1], len(data)

    def _begin_segment(self, partition: int, chain: _Chain) -> None:
        self._folders.begin()
        path = self._folders.own / f"{partition:05}-{self._next_segment:08}.log"
        chain.writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._next_segment += 1
        chain.segments.append(Segment(path, 0, is_sealed=False))
        sync_folder(self._folders.own)

    def _give_up(self, chain: _Chain) -> None:
        """After a failure nobody knows what of the last write is on disk: cut it off, and write to another file."""
        if chain.writer < 0:
            return
        segment = chain.segments[-1]
        with contextlib.suppress(OSError):
            os.ftruncate(chain.writer, segment.size_bytes)
        _seal(chain)
        if not segment.size_bytes:
            chain.segments.pop()
            with contextlib.suppress(OSError):
                segment.path.unlink()

    def begin(self, *, wait_s_max: float) -> None:
        """Have this process's folder: should it be killed, its successor finds that.

        Raises BlockingIOError when another process makes or adopts a folder for so long.
        """
        self._folders.begin(wait_s_max=wait_s_max)

    def probe(self) -> None:
        """Write and sync as much as a large record, and leave nothing. Raises OSError while that does not work."""
        self._folders.begin()
        with tempfile.TemporaryFile(dir=self._folders.own) as file:
            file.write(os.urandom(_PROBE_SIZE_BYTES))
            file.flush()
            os.fsync(file.fileno())

    # --- out -------------------------------------------------------------------------------------------------------
    def read(self, partition: int) -> bytes | None:
        """The next record that was not read yet, or None. What is damaged is passed over, and counted."""
        chain = self._chains[partition]
        for segment, offset in self._unread(chain):
            payload = segment.payload_at(offset)
            if payload is not None:
                chain.read = offset + FRAME_OVERHEAD_BYTES + len(payload)
                chain.ends.append((segment, chain.read))
                return payload
            chain.read = self._damaged(chain, segment, offset)
        self._remove_finished(chain)
        return None

    def _unread(self, chain: _Chain) -> Iterator[tuple[Segment, int]]:
        """Where the next record stands, again and again until there is none."""
        while chain.at < len(chain.segments):
            segment = chain.segments[chain.at]
            if chain.read < segment.size_bytes:
                yield segment, chain.read
            elif segment.is_sealed and chain.at + 1 < len(chain.segments):
                chain.at += 1
                chain.read = chain.segments[chain.at].forwarded
            else:
                return

    def forwarded(self, partition: int) -> None:
        """The oldest record that was read is in the queue."""
        chain = self._chains[partition]
        segment, end = chain.ends.popleft()
        while chain.segments[0] is not segment:
            self._remove_first(chain)
        segment.forwarded = end
        self._remove_finished(chain)

    def _remove_finished(self, chain: _Chain) -> None:
        while chain.segments and chain.segments[0].forwarded == chain.segments[0].size_bytes:
            self._remove_first(chain)

    def _remove_first(self, chain: _Chain) -> None:
        if len(chain.segments) == 1:
            _seal(chain)
        segment = chain.segments.popleft()
        segment.close()
        if chain.at:
            chain.at -= 1
        else:
            _begin(chain)
        self.size_bytes -= segment.size_bytes
        folder = segment.path.parent
        if not segment.damage or self._folders.is_damage_known(folder):
            with contextlib.suppress(OSError):  # It may come again after a restart, and is known by its numbers then.
                segment.path.unlink()
        self._leave(folder)

    def rewind(self, partition: int) -> None:
        """What was read and not forwarded is to be read again."""
        chain = self._chains[partition]
        chain.ends.clear()
        _begin(chain)

    def _damaged(self, chain: _Chain, segment: Segment, offset: int) -> int:
        """Where to read on: at the next whole frame, or at the segment's end, which is cut off before the damage."""
        if offset in segment.damage:
            return segment.damage[offset]
        following = segment.damage[offset] = segment.next_frame(offset + 1)
        if following < segment.size_bytes or not segment.is_torn(offset):
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
            if segment is chain.segments[-1]:
                _seal(chain)  # What is written next would stand behind it.
            segment.size_bytes = offset
            self.size_bytes -= size_bytes
        return min(following, segment.size_bytes)

    # --- processes that are gone -----------------------------------------------------------------------------------
    def adopt(self) -> set[int]:
        """Take over what processes left that are gone, oldest first, in front of what this one has written itself.

        Gives the partitions. Of those of which something is read and not forwarded it takes nothing: that went before.
        """
        adopted: set[int] = set()
        with self._folders.alone() as others:
            for folder in others:
                # Its process lives, or has just removed it, or it is not ours to read.
                with contextlib.suppress(OSError):
                    adopted |= self._take_over(folder)
        return adopted

    def _take_over(self, folder: Path) -> set[int]:
        self._folders.adopt(folder)
        try:
            segments = [Segment(path, path.stat().st_size) for path in segment_paths(folder)]
        except OSError:
            self._folders.release(folder)
            raise
        partitions = {partition_of(segment.path) for segment in segments}
        if any(self._chains[partition].ends for partition in partitions):
            self._folders.release(folder)
            return set()
        for segment in segments:
            self._put_in_front(self._chains[partition_of(segment.path)], segment)
            self.size_bytes += segment.size_bytes
        if segments:
            log.info(
                "%s: %d segments that another process left are adopted",
                folder,
                len(segments),
                extra={"path": folder, "segments": len(segments)},
            )
        self._leave(folder)
        return partitions

    def _put_in_front(self, chain: _Chain, segment: Segment) -> None:
        """Of this process's own, and behind what others left before."""
        found = [*chain.segments, segment]
        chain.segments = deque(sorted(found, key=lambda one: (one.path.parent == self._folders.own, one.path)))
        _begin(chain)

    def _leave(self, folder: Path) -> None:
        """When nothing is left of another process: it is ``finished``. If some was damaged, nobody can say that."""
        if folder == self._folders.own or any(
            segment.path.parent == folder for chain in self._chains.values() for segment in chain.segments
        ):
            return
        named = _FOLDER.match(folder.name)
        if named is None or self._folders.is_damaged(folder):
            self._folders.remove(folder)
        else:
            self._finished[bytes.fromhex(named[1])] = folder

    def finished(self) -> list[bytes]:
        """The ingest epochs of processes that are gone, and of which nothing is left here, until they are forgotten."""
        return list(self._finished)

    def forget(self, ingest_epoch: bytes) -> None:
        """Remove the folder of one that is finished."""
        self._folders.remove(self._finished.pop(ingest_epoch))

    def close(self, *, is_complete: bool) -> None:
        """Let go of everything; what is not forwarded is there for the next process.

        ``is_complete``: this process's books are ended. Else its folder stays, so that the next process ends them.
        """
        for chain in self._chains.values():
            _seal(chain)
            for segment in chain.segments:
                segment.close()
        if is_complete:
            self._folders.remove(self._folders.own)
        self._folders.close()
        self._chains.clear()

    # --- what is known of the queue --------------------------------------------------------------------------------
    def partition_count(self, queue: str) -> int | None:
        """How many partitions ``queue`` had when it was last reached from here, or None."""
        try:
            known = json.loads((self._root / "queue.json").read_text())
            return int(known["partitions"]) if known["queue"] == queue else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def know(self, queue: str, partitions: int) -> None:
        """Remember it for a start without the queue."""
        make_folder(self._root)
        write_whole(self._root / "queue.json", json.dumps({"queue": queue, "partitions": partitions}) + "\n")


def _begin(chain: _Chain) -> None:
    """Read on with the first record that is not in the queue."""
    chain.at, chain.read = 0, chain.segments[0].forwarded if chain.segments else 0


def _seal(chain: _Chain) -> None:
    if chain.segments:
        chain.segments[-1].is_sealed = True
    if chain.writer >= 0:
        descriptor, chain.writer = chain.writer, -1
        with contextlib.suppress(OSError):  # The descriptor is gone all the same; what counts is on disk already.
            os.close(descriptor)


def _segments_now(folder: Path) -> list[Path]:
    """Of another process, which may remove the folder meanwhile."""
    try:
        return segment_paths(folder)
    except OSError:
        return []


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
