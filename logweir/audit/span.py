"""What is asked of the books: which time, which emitter."""

from __future__ import annotations

from dataclasses import dataclass

from logweir.clock import WINDOW_US
from logweir.ledger.emitter import Emitter, name_of


@dataclass(frozen=True, slots=True)
class Span:
    """Which windows and emitters are asked for; ``from_us`` is included, ``to_us`` is not."""

    from_us: int | None = None
    to_us: int | None = None
    emitter: str | None = None

    @property
    def is_bounded(self) -> bool:
        return self.from_us is not None or self.to_us is not None

    def has_time(self, time_us: int) -> bool:
        return (self.from_us is None or time_us >= self.from_us) and (self.to_us is None or time_us < self.to_us)

    def has_window(self, window: int) -> bool:
        late_enough = self.from_us is None or (window + 1) * WINDOW_US > self.from_us
        return late_enough and (self.to_us is None or window * WINDOW_US < self.to_us)

    def has_emitter(self, emitter: Emitter) -> bool:
        return self.emitter in (None, emitter[0], emitter[1], name_of(emitter))


EVERYTHING = Span()
