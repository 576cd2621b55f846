"""Folders and names that survive a power cut: a new name is durable only when its folder is synced."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o700


def make_folder(folder: Path, mode: int = PRIVATE) -> None:
    """Make the folder and its parents where they are absent, durably. Those that are there keep their permissions."""
    if not folder.is_dir():
        make_folder(folder.parent, mode)
        folder.mkdir(mode, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
