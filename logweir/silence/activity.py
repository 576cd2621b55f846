"""When anything could be observed: the minutes, and from them the hours, in which anything was received."""

from __future__ import annotations

from itertools import accumulate, compress

from logweir.ledger.cadence import Cadence, TimeBits


class ActivityMinutes:
    """The minutes, and from them the hours, in which any partition received anything."""

    def __init__(self, minutes: TimeBits) -> None:
        self.first = minutes.first if minutes.bits else 0
        self._minutes = f"{minutes.bits:b}".encode().translate(_AS_FLAGS) if minutes.bits else b""
        self._sums = [0, *accumulate(self._minutes)]
        self._first_hour = self.first // 60
        aligned = bytes(self.first % 60) + self._minutes
        self._hours = bytes(1 in aligned[at : at + 60] for at in range(0, len(aligned), 60))

    def minutes_between(self, first: int, last: int) -> int:
        """In how many of the minutes from ``first`` to ``last`` anything was received."""
        end = len(self._minutes)
        low, high = min(max(first - self.first, 0), end), min(max(last - self.first + 1, 0), end)
        return max(0, self._sums[high] - self._sums[low])

    def usual_gap_s(self, cadence: Cadence, *, forgiven: int) -> float:
        """The longest time between two events, but for the ``forgiven`` longest; unobserved time is left out."""
        if hours := _silent_run(cadence.hours, self._hours, self._first_hour, forgiven):
            return 3600.0 * (hours + 1)
        return 60.0 * (_silent_run(cadence.minutes, self._minutes, self.first, forgiven) + 1)


_AS_FLAGS = bytes.maketrans(b"01", b"\0\1")


def _silent_run(bits: TimeBits, active: bytes, active_first: int, forgiven: int) -> int:
    """The length of the longest run of silent units between others, but for so many that are longer."""
    first, known = bits.first, bits.bits
    # What is older than all activity that is known counts as active.
    flags = b"\1" * (min(active_first, bits.top + 1) - first)
    flags += active[max(0, first - active_first) : max(0, bits.top - active_first + 1)]
    if 0 in flags:
        known = int("".join(compress(f"{known:b}", flags)), 2)
    # Every step takes a bit off each run, and its highest bit stands for what is left of it.
    silent = known ^ ((1 << known.bit_length()) - 1)
    length = 0
    while (silent & ~(silent >> 1)).bit_count() > forgiven:
        silent &= silent >> 1
        length += 1
    return length
