"""When something came, in whole minutes and hours: two rows of bits that can be marked again and be united.

A bit that is set stays set, whoever sets it and how often: a record counted twice changes nothing, and what several
partitions know of one emitter is the union of their bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from logweir.clock import WINDOW_US

MINUTES = 24 * 60
"""Minutes of which a cadence knows whether something came: a day."""
HOURS = 35 * 24
"""Hours of which it knows: five weeks."""
ACTIVITY_MINUTES = HOURS * 60
"""Minutes of which a partition knows whether it received anything at all."""


@dataclass(slots=True)
class TimeBits:
    """The latest ``size`` units of time: bit k of ``bits`` is for the unit ``top`` - k; none is set where none was."""

    size: int
    top: int = 0
    bits: int = 0

    def mark(self, at: int) -> bool:
        """Set the bit of the unit ``at``, unless it is too long ago; whether that changed anything."""
        if not self.bits:
            self.top, self.bits = at, 1
            return True
        ahead = at - self.top
        if ahead > 0:
            self.bits = (self.bits << ahead | 1) & ((1 << self.size) - 1) if ahead < self.size else 1
            self.top = at
            return True
        bit = 1 << -ahead if -ahead < self.size else 0
        if self.bits & bit == bit:
            return False
        self.bits |= bit
        return True

    @property
    def first(self) -> int:
        """The earliest unit that is known to be set."""
        return self.top - self.bits.bit_length() + 1

    def as_body(self) -> list[Any]:
        return [self.top, f"{self.bits:x}"]

    @classmethod
    def from_body(cls, size: int, body: list[Any]) -> TimeBits:
        return cls(size, body[0], int(body[1], 16))


def united_bits(size: int, parts: Iterable[TimeBits]) -> TimeBits:
    """What is set in any of them."""
    known = [part for part in parts if part.bits]
    if len(known) == 1:
        return known[0]
    whole = TimeBits(size, max((part.top for part in known), default=0))
    for part in known:
        behind = whole.top - part.top
        if behind < size:
            whole.bits |= part.bits << behind
    whole.bits &= (1 << size) - 1
    return whole


@dataclass(slots=True)
class Cadence:
    """The minutes of a day and the hours of five weeks in which something came."""

    minutes: TimeBits = field(default_factory=lambda: TimeBits(MINUTES))
    hours: TimeBits = field(default_factory=lambda: TimeBits(HOURS))
    _body: list[Any] | None = None

    def mark(self, at_us: int) -> bool:
        """Note that something came then (microseconds); whether that changed anything."""
        minute = at_us // WINDOW_US
        # Nearly always it is the minute that was marked last.
        if minute == self.minutes.top and self.minutes.bits:
            return False
        changed = self.minutes.mark(minute)
        changed |= self.hours.mark(minute // 60)
        if changed:
            self._body = None
        return changed

    def as_body(self) -> list[Any]:
        # Kept, because it is asked for every second and changes every minute at most.
        if self._body is None:
            self._body = [*self.minutes.as_body(), *self.hours.as_body()]
        return self._body

    @classmethod
    def from_body(cls, body: list[Any]) -> Cadence:
        return cls(TimeBits.from_body(MINUTES, body[:2]), TimeBits.from_body(HOURS, body[2:]))


def united_cadence(parts: Iterable[Cadence]) -> Cadence:
    """What is set in any of them."""
    known = list(parts)
    if len(known) == 1:
        return known[0]
    return Cadence(
        united_bits(MINUTES, (part.minutes for part in known)), united_bits(HOURS, (part.hours for part in known))
    )
