"""What an import has done with each file and rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logweir.errors import RULES_UNREADABLE, LogweirError
from logweir.process.files import make_folder

Progressed = Callable[[int, int], object]
"""Told now and then how many files are read, and of how many."""


@dataclass(slots=True)
class Imported:
    """What became of each file, by its path within the folder or ZIP file."""

    to: Path
    tell: Progressed = field(default=lambda *_: None, repr=False)
    of: int = 0
    """How many files there are."""
    read: int = 0
    taken: dict[str, str] = field(default_factory=dict)
    """``added``, ``updated`` or ``unchanged``."""
    left: dict[str, str] = field(default_factory=dict)
    """Why; of a file with several rules, by the rule, too."""
    written: dict[str, str] = field(default_factory=dict)
    """Of a file that was taken as another: that one."""
    changes: dict[str, list[str]] = field(default_factory=dict)
    """By rule, in what it differs from its source."""
    rules: int = 0
    """How many rules there are in what was taken."""
    filters: int = 0
    silent: int = 0
    """How many rules make no alerts of their own: only others ask for them."""

    def progressed(self) -> None:
        """One more file is read."""
        self.read += 1
        self.tell(self.read, self.of)

    def as_json(self) -> dict[str, Any]:
        names = ("taken", "left", "written", "changes", "rules", "filters", "silent")
        return {"to": str(self.to), **{name: getattr(self, name) for name in names}}


def put(path: Path, content: bytes) -> str:
    """Write a file as a whole; whether it was ``added``, ``updated`` or ``unchanged``.

    Raises LogweirError(RULES_UNREADABLE).
    """
    try:
        before = path.read_bytes() if path.is_file() else None
        if before == content:
            return "unchanged"
        make_folder(path.parent)
        # A step of its own for each: an alerter that reads meanwhile must not find half a rule.
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise LogweirError(
            RULES_UNREADABLE, path=path, reason=f"it cannot be written: {error}", advice="See who may write there."
        ) from error
    return "added" if before is None else "updated"
