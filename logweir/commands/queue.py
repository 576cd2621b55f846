"""Look after the file of the embedded queue.

    logweir queue salvage

``salvage`` copies what can be read of a damaged file into a new one, and puts that in its place; the damaged one is
kept beside it. Stop logweir before. docs/how-to/damaged-files.md says when.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path

from logweir.config import Settings, shown_url, sqlite_path
from logweir.errors import DATA_DIR_LOCKED, QUEUE_UNSALVAGEABLE, LogweirError
from logweir.process.files import locked, sync_folder
from logweir.queue.sqlite.salvage import Salvaged, salvage
from logweir.text import printable

_SUFFIXES = ("", "-wal", "-shm", ".damaged")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("salvage",), help="save what can be read of a damaged file")


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    url = shown_url(settings.queue.url)
    if not settings.queue.url.startswith("sqlite:"):
        raise LogweirError(QUEUE_UNSALVAGEABLE, url=url, reason="it is not the embedded queue")
    path = sqlite_path(settings.queue.url)
    new = path.with_name(f".salvaged-{path.name}")
    kept = path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    try:
        with locked(settings.data_dir / "up.lock", wait_s_max=0):
            _remove(new)
            salvaged = salvage(path, new)
            for suffix in _SUFFIXES:
                part = path.with_name(path.name + suffix)
                if part.exists():
                    part.rename(kept.with_name(kept.name + suffix))
            new.rename(path)
            sync_folder(path.parent)
    except BlockingIOError as error:
        pid = (settings.data_dir / "up.lock").read_text().strip() or "?"
        raise LogweirError(DATA_DIR_LOCKED, path=settings.data_dir, pid=pid) from error
    except (OSError, sqlite3.Error) as error:
        _remove(new)
        raise LogweirError(QUEUE_UNSALVAGEABLE, url=url, reason=error) from error
    _print(salvaged, kept)
    return 0


def _remove(path: Path) -> None:
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _print(salvaged: Salvaged, kept: Path) -> None:
    lost = sum(last - first + 1 for _, first, last in salvaged.lost)
    where = printable(str(kept))
    print(f"{salvaged.records} records are saved, {lost} could not be read; the damaged file is kept as {where}.")
    for partition, first, last in salvaged.lost:
        print(f"partition {partition}: offsets {first} to {last} could not be read", file=sys.stderr)
