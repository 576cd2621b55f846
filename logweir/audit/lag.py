"""How far a group is behind, by its positions, whether anybody reads for it or not."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from logweir.errors import OFFSETS_EXPIRED, LogweirError
from logweir.queue.port import Queue

_READ_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Lag:
    records: int
    """How many are not settled yet."""
    seconds: float | None
    """The age of the first of them, 0.0 when there is none; None when the queue did not give that one in time."""
    retention_used: float | None = None
    """How far the first of them is on its way to being deleted unread, as ``Queue.retention_used``."""

    def left_s(self, before: Lag, seconds: float) -> float | None:
        """When the queue's retention is at the first of them, at the pace since it was as ``before``, ``seconds`` ago.

        None when it is not, or when nothing is known.
        """
        if self.retention_used is None or before.retention_used is None or seconds <= 0:
            return None
        used_per_s = (self.retention_used - before.retention_used) / seconds
        return (1.0 - self.retention_used) / used_per_s if used_per_s > 0 else None


def lags(queue: Queue, positions: Mapping[int, int], *, now_us: int) -> dict[int, Lag]:
    """Of every partition of the topic, behind its next offset in ``positions`` (0 where that names none).

    Raises LogweirError(QUEUE_DOWN).
    """
    return {
        partition: _lag(queue, partition, positions.get(partition, 0), now_us)
        for partition in range(queue.partition_count())
    }


def _lag(queue: Queue, partition: int, position: int, now_us: int) -> Lag:
    earliest, latest = queue.offsets(partition)
    following = max(position, earliest)
    if following >= latest:
        return Lag(0, 0.0, queue.retention_used(partition, latest, 0.0))
    taken_us = _taken_us(queue, partition, following)
    if taken_us is None:
        return Lag(latest - following, None)
    age_s = max(0.0, (now_us - taken_us) / 1e6)
    return Lag(latest - following, age_s, queue.retention_used(partition, following, age_s))


def _taken_us(queue: Queue, partition: int, offset: int) -> int | None:
    """When the queue took the record at the offset; None when it is gone by now, or does not come."""
    with closing(queue.reader(partition, offset)) as reader:
        try:
            found = reader.read(wait_s=_READ_WAIT_S, records_max=1)
        except LogweirError as error:
            if error.problem is not OFFSETS_EXPIRED:
                raise
            found = []
    return found[0].timestamp_ms * 1000 if found else None
