"""The numbers that this process gives out on each partition, and what became of them, window by window.

A window ends when its minute is over. Its marker has a row for each emitter, thousands; beyond that, those of a key are
summed up in one row, where the key has its own share of rows already. Were its marker to outgrow a record all the same,
of very many keys, the next window would begin early, ahead of the clock. Its marker is due when none of its records is
in flight. Not for several threads at once: the batcher's lock is around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from logweir.clock import window_of
from logweir.ledger.shares import Shares
from logweir.record import OTHERS, Accepted, Marker

Emitter = tuple[str, str | None]
"""(key name, emitter name)."""
_ROW_SIZE_BYTES = 23
"""Of a marker's row beside the names, at most: what stands around them, and two counts."""


@dataclass(slots=True)
class _Window:
    first: int
    rows: Shares
    """How many bytes its marker's rows have, at most."""
    count: int = 0
    in_flight: int = 0
    """Records."""
    counts: dict[Emitter, list[int]] = field(default_factory=dict)
    """Per emitter, the events accepted and the unconfirmed ones."""
    voids: list[tuple[int, int]] = field(default_factory=list)
    marker_under_way: bool = False


@dataclass(slots=True)
class _Partition:
    next_number: int = 1
    current: int = 0
    open: dict[int, _Window] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DueMarker:
    """A marker to write: ``first`` and ``count`` are all numbers that were given out in the window."""

    partition: int
    window: int
    first: int
    count: int
    marker: Marker


class Windows:
    """Numbers from 1 in each partition, without a gap, in the order of ``give``."""

    def __init__(self, *, partitions: int, marker_size_bytes_max: int) -> None:
        """``marker_size_bytes_max``: a marker as large tells no more emitters apart than a tenth of it for each key.

        A window whose marker is twice as large ends early.
        """
        self._partitions = [_Partition() for _ in range(partitions)]
        self._marker_size_bytes_max = marker_size_bytes_max

    def next_number(self, partition: int) -> int:
        return self._partitions[partition].next_number

    def window(self, partition: int, now_us: int) -> int:
        """The window of a record that leaves now: it never goes back, even if the clock does."""
        state = self._partitions[partition]
        state.current = max(state.current, window_of(now_us))
        current = state.open.get(state.current)
        if current is not None and current.rows.count >= 2 * self._marker_size_bytes_max:
            state.current += 1
        return state.current

    def give(self, partition: int, window: int, count: int) -> None:
        """The next ``count`` numbers belong to a record that the queue has taken over."""
        state = self._partitions[partition]
        opened = state.open.get(window)
        if opened is None:
            rows = Shares(self._marker_size_bytes_max, count=0, by_key={})
            opened = state.open[window] = _Window(state.next_number, rows)
        opened.count += count
        opened.in_flight += 1
        state.next_number += count

    def confirm(self, partition: int, window: int, counts: Mapping[Emitter, Sequence[int]]) -> None:
        """The queue has confirmed a record: add its events, accepted and unconfirmed, by emitter."""
        opened = self._partitions[partition].open[window]
        opened.in_flight -= 1
        for emitter, (accepted, unconfirmed) in counts.items():
            totals = opened.counts.get(emitter)
            if totals is None and emitter[1] is not None and not opened.rows.has_room(emitter[0]):
                emitter = emitter[0], OTHERS
                totals = opened.counts.get(emitter)
            if totals is None:
                totals = opened.counts[emitter] = [0, 0]
                opened.rows.take(emitter[0], _size_bytes(emitter))
            totals[0] += accepted
            totals[1] += unconfirmed

    def void(self, partition: int, window: int, first: int, count: int) -> None:
        """The queue has failed a record: its numbers are refused to their senders."""
        opened = self._partitions[partition].open[window]
        opened.in_flight -= 1
        if not count:
            return
        if opened.voids and opened.voids[-1][1] == first - 1:
            opened.voids[-1] = (opened.voids[-1][0], first + count - 1)
        else:
            opened.voids.append((first, first + count - 1))

    def due(self, now_us: int, *, stopping: bool = False) -> list[DueMarker]:
        """The markers of windows that ended and have nothing in flight, each once until ``marked`` or ``unmarked``."""
        markers = []
        for partition, state in enumerate(self._partitions):
            for window, opened in state.open.items():
                if opened.in_flight or opened.marker_under_way:
                    continue
                if not stopping and window >= max(state.current, window_of(now_us)):
                    continue
                # Behind its marker a window stays closed: a clock that goes back must not open it again.
                state.current = max(state.current, window + 1)
                opened.marker_under_way = True
                markers.append(DueMarker(partition, window, opened.first, opened.count, _marker_of(opened)))
        return markers

    def marked(self, due: DueMarker) -> None:
        """The marker is in the queue: the window is closed."""
        del self._partitions[due.partition].open[due.window]

    def unmarked(self, due: DueMarker) -> None:
        """The marker may not be in the queue: it is due again."""
        self._partitions[due.partition].open[due.window].marker_under_way = False

    def open_count(self) -> int:
        """How many windows have no confirmed marker yet."""
        return sum(len(state.open) for state in self._partitions)


def _size_bytes(emitter: Emitter) -> int:
    key, name = emitter
    return _ROW_SIZE_BYTES + len(key.encode()) + (0 if name is None else len(name.encode()))


def _marker_of(opened: _Window) -> Marker:
    accepted = [Accepted(key, emitter, *counts) for (key, emitter), counts in opened.counts.items()]
    return Marker(accepted=accepted, voids=sorted(opened.voids))
