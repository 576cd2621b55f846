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
    """``records``: how many are not settled yet. ``seconds``: the age of the first of them, 0.0 when there is none.

    None when the queue did not give that one in time.
    """

    records: int
    seconds: float | None


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
        return Lag(0, 0.0)
    taken_us = _taken_us(queue, partition, following)
    return Lag(latest - following, None if taken_us is None else max(0.0, (now_us - taken_us) / 1e6))


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
