"""When each key was last let in: one small file beside the keys file, written by all doors, a few times a minute.

The keys file itself is the operator's: doors only read it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from logweir.clock import iso_seconds
from logweir.keys.file import lock_path, moment_us
from logweir.process.files import locked, write_whole

# Doors note their uses one after another, each in a few milliseconds. Who notes has to follow the keys, too.
_LOCK_WAIT_S_MAX = 0.2


def usage_path(keys_path: Path) -> Path:
    return keys_path.with_name(keys_path.name + ".used")


def read_usage(keys_path: Path) -> dict[str, str]:
    """The time (ISO 8601, UTC) of each key's last use, by the key's id; empty when nothing readable is there."""
    try:
        document = json.loads(usage_path(keys_path).read_text(encoding="utf-8"))
        return {id: iso_seconds(moment_us(time)) for id, time in document.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note_usage(keys_path: Path, used: Mapping[str, str], *, ids: Collection[str]) -> None:
    """Add times of use to the file; what belongs to none of ``ids``, the keys that there are, is forgotten.

    Raises OSError; BlockingIOError when the lock was held by another one for a while.
    """
    with locked(lock_path(keys_path), wait_s_max=_LOCK_WAIT_S_MAX):
        known = read_usage(keys_path)
        merged = {id: max(known.get(id, ""), used.get(id, "")) for id in sorted({*known, *used}) if id in ids}
        if merged != known:
            write_whole(usage_path(keys_path), json.dumps(merged, indent=0) + "\n")
