"""Which processes serve a door between two reloads: part of the name of a process's folder in the spool."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Generation:
    """The processes that serve a door from one reload to the next."""

    door: str = ""
    """Another one after each start of the door."""
    number: int = 0
    """How many reloads were before."""

    def __str__(self) -> str:
        return f"{self.door}.{self.number}"

    def next(self) -> Generation:
        """The generation after the next reload."""
        return replace(self, number=self.number + 1)

    def follows(self, folder: str) -> bool:
        """Whether the folder of that name is of a process of the same door before a reload."""
        door, _, number = folder.rpartition("-")[2].partition(".")
        return door == self.door and number.isdecimal() and int(number) < self.number
