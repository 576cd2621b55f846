"""Records on this machine's disk, for as long as the queue does not take them: in order per partition, fsynced.

    spool/                              of all doors that share the folder
        lock                            held while a door makes or adopts a folder
        queue.json                      what was last known of the queue: its number of partitions
        01790000000000000-9f3c…-5d0e…f1.2/
                                        of one process: when it began (microseconds), its ingest epoch, its generation
            lock                        held as long as the process lives
            held                        which segments there should be (held.py)
            damaged                     there when something in it, which may have been acknowledged, could not be read
            00003-00000001.log          a segment: partition, then a running number in it

A segment is removed when all of its records are in the queue. So after a kill the last segment of a partition may be
forwarded once more: readers know a record by its numbers. A process has its folder from its start until it has ended
its books. Who finds the folder of one that did not live to do so says that in its place, when nothing is left in it
and nothing was damaged.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from logweir.config import MEBIBYTE
from logweir_ingest.spool.folders import Folders, ingest_epoch_of, missing_in, partition_of, segment_paths
from logweir_ingest.spool.generation import Generation
from logweir_ingest.spool.partition import PartitionSpool
from logweir_ingest.spool.segment import FRAME_OVERHEAD_BYTES, Segment

log = logging.getLogger(__name__)

SEGMENT_SIZE_BYTES_MAX = 8 * MEBIBYTE

_PROBE_SIZE_BYTES = MEBIBYTE
_NEVER_RELOADED = Generation()


class Spool:
    """What one process keeps, and what it has adopted of processes that are gone. For one thread alone.

    Methods that touch the disk raise OSError, except ``write``, which returns it for each record.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        generation: Generation = _NEVER_RELOADED,
        segment_size_bytes: int = SEGMENT_SIZE_BYTES_MAX,
    ) -> None:
        self._folders = Folders(folder, f"{name}-{generation}")
        self._generation = generation
        self._segment_size_bytes = segment_size_bytes
        self._partitions: dict[int, PartitionSpool] = {}
        # Of processes that are gone and of which nothing is left here, by ingest epoch.
        self._ended: dict[bytes, Path] = {}

    def partition(self, partition: int) -> PartitionSpool:
        """The records of that partition, of which there may be none."""
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = PartitionSpool(
                partition,
                self._folders,
                segment_size_bytes=self._segment_size_bytes,
                removed=self._segment_removed,
            )
        return found

    # --- what is there ---------------------------------------------------------------------------------------------
    def partitions(self) -> list[int]:
        """The partitions of which there are records."""
        return [number for number, partition in self._partitions.items() if partition.segments]

    @property
    def size_bytes(self) -> int:
        return sum([partition.size_bytes for partition in self._partitions.values()])

    @property
    def damaged_bytes(self) -> int:
        """Bytes that were no records, since the start."""
        return sum([partition.damaged_bytes for partition in self._partitions.values()])

    def heads(self, size_bytes: int) -> list[bytes]:
        """The first bytes of each partition's oldest record; where that is damaged, of what there is."""
        oldest = [partition.segments[0] for partition in self._partitions.values() if partition.segments]
        frames = [segment.read(FRAME_OVERHEAD_BYTES + size_bytes, segment.forwarded) for segment in oldest]
        return [frame[FRAME_OVERHEAD_BYTES:] for frame in frames]

    def frees(self) -> list[tuple[int, int]]:
        """(forwarded, free), both rising: when so many bytes more are forwarded, so many are free.

        As if all partitions went at the same pace: each frees a segment when it is through with it.
        """
        ends: list[tuple[int, int]] = []
        unforwarded: list[int] = []
        for partition in self._partitions.values():
            unforwarded_bytes = 0
            for segment in partition.segments:
                unforwarded_bytes += segment.size_bytes - segment.forwarded
                ends.append((unforwarded_bytes, segment.size_bytes))
            unforwarded.append(unforwarded_bytes)
        frees, free_bytes = [], 0
        for forwarded_bytes, size_bytes in sorted(ends):
            free_bytes += size_bytes
            frees.append((sum(min(forwarded_bytes, most_bytes) for most_bytes in unforwarded), free_bytes))
        return frees

    # --- in --------------------------------------------------------------------------------------------------------
    def write(self, records: Sequence[tuple[int, bytes]]) -> list[OSError | None]:
        """Put each (partition, record) behind the others of its partition.

        Returns for each None when it is on disk, else why it is not.
        """
        by_partition: dict[int, list[int]] = defaultdict(list)
        for index, (partition, _) in enumerate(records):
            by_partition[partition].append(index)
        failures: list[OSError | None] = [None] * len(records)
        appended: list[int] = []

        def failed(partition: int, error: OSError) -> None:
            self.partition(partition).discard_unsynced()
            for index in by_partition[partition]:
                failures[index] = error

        try:
            # First written, all of them, then synced: the disk is at the first while the last is written.
            for partition, indexes in by_partition.items():
                try:
                    self.partition(partition).append([records[index][1] for index in indexes])
                    appended.append(partition)
                except OSError as error:
                    failed(partition, error)
            for partition in appended:
                try:
                    self.partition(partition).sync()
                except OSError as error:
                    failed(partition, error)
        except BaseException:
            for partition in by_partition:
                self.partition(partition).discard_unsynced()
            raise
        return failures

    def ensure_folder(self, *, wait_s_max: float) -> None:
        """Have this process's folder: should it be killed, its successor finds that.

        Raises BlockingIOError when another process makes or adopts a folder for so long.
        """
        self._folders.ensure_own(wait_s_max=wait_s_max)

    def probe(self) -> None:
        """Write and sync as much as a large record, and leave nothing. Raises OSError while that does not work."""
        self._folders.ensure_own()
        with tempfile.TemporaryFile(dir=self._folders.own) as file:
            file.write(os.urandom(_PROBE_SIZE_BYTES))
            file.flush()
            os.fsync(file.fileno())

    # --- other processes -------------------------------------------------------------------------------------------
    def has_others(self) -> bool:
        """Whether there is a folder of another process that is not adopted."""
        return bool(self._folders.others())

    def others_size_bytes(self) -> int:
        """How much other processes of this machine keep here."""
        return sum(_size_of(path) for folder in self._folders.others() for path in _segments_now(folder))

    def held_by_predecessors(self) -> set[int]:
        """Partitions of which the processes before the last reload left records that another process holds still."""
        before = (folder for folder in self._folders.others() if self._generation.follows(folder.name))
        return {partition_of(path) for folder in before for path in _segments_now(folder)}

    def adopt(self) -> set[int]:
        """Take over what processes left that are gone, oldest first, in front of what this one has written itself.

        Returns the partitions. Nothing is taken of those of which something is read and not forwarded: that has gone
        before.
        """
        adopted: set[int] = set()
        with self._folders.alone() as others:
            for folder in others:
                # Its process lives, or has just removed it, or it is not ours to read.
                with contextlib.suppress(OSError):
                    adopted |= self._adopt(folder)
        return adopted

    def _adopt(self, folder: Path) -> set[int]:
        self._folders.adopt(folder)
        try:
            segments = [Segment(path, path.stat().st_size) for path in segment_paths(folder)]
            missing = missing_in(folder, {one.path: one.size_bytes for one in segments})
        except OSError:
            self._folders.release(folder)
            raise
        partitions = {partition_of(segment.path) for segment in segments}
        if any(self.partition(partition).has_unforwarded for partition in partitions):
            self._folders.release(folder)
            return set()
        if missing:
            self._folders.mark_damaged(folder)
            log.error(
                "%s: the segments %s are missing, or cut off. The others are forwarded; what these held, and was"
                " acknowledged, may be lost. When it cannot be restored, close the books of the process: logweir audit"
                " close.",
                folder,
                ", ".join(missing),
                extra={"path": folder, "segments": len(missing)},
            )
        for segment in segments:
            self.partition(partition_of(segment.path)).adopt(segment)
        if segments:
            log.info(
                "%s: %d segments that another process left are adopted",
                folder,
                len(segments),
                extra={"path": folder, "segments": len(segments)},
            )
        self._segment_removed(folder)
        return partitions

    def _segment_removed(self, folder: Path) -> None:
        """When nothing is left of another process, it has ended. If some was damaged, nobody can say that."""
        segments = itertools.chain.from_iterable(partition.segments for partition in self._partitions.values())
        if folder == self._folders.own or any(segment.path.parent == folder for segment in segments):
            return
        ingest_epoch = ingest_epoch_of(folder)
        if ingest_epoch is None or self._folders.is_damaged(folder):
            self._folders.remove(folder)
        else:
            self._ended[ingest_epoch] = folder

    def ended(self) -> list[bytes]:
        """The ingest epochs of processes that are gone, and of which nothing is left here, until they are forgotten."""
        return list(self._ended)

    def forget(self, ingest_epoch: bytes) -> None:
        """Remove the folder of one that has ended."""
        self._folders.remove(self._ended.pop(ingest_epoch))

    def close(self, *, is_complete: bool) -> None:
        """Let go of everything; what is not forwarded is there for the next process.

        ``is_complete``: this process's books are ended. Else its folder stays, so that the next process ends them.
        """
        for partition in self._partitions.values():
            partition.close()
        if is_complete:
            self._folders.remove(self._folders.own)
        self._folders.close()
        self._partitions.clear()


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
