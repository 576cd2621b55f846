"""Folders: private, and durable by name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from logweir import cli
from logweir.config import QueueSettings, StoreSettings
from logweir.keys.file import KeysFile
from logweir.process.files import make_folder
from logweir.queue import open_queue
from logweir.store import open_store


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_are_private_and_old_ones_keep_their_permissions(tmp_path: Path) -> None:
    """Missing parents are made with it; making it again changes nothing."""
    tmp_path.chmod(0o755)
    make_folder(tmp_path / "a/b")
    make_folder(tmp_path / "a/b")

    assert [mode_of(path) for path in (tmp_path, tmp_path / "a", tmp_path / "a/b")] == [0o755, 0o700, 0o700]


@pytest.mark.parametrize("part", ["keys", "queue", "store"])
def test_every_new_folder_s_name_is_synced_in_its_parent(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder whose name is lost in a power cut loses all that was synced inside it."""
    synced: set[str] = set()

    def fsync(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr("os.fsync", fsync)
    folder = tmp_path / "data" / part
    if part == "keys":
        KeysFile(folder / "keys.toml").add("a")
    elif part == "queue":
        open_queue(QueueSettings(url=f"sqlite:///{folder}/queue.sqlite")).prepare()
    else:
        open_store(StoreSettings(url=f"sqlite:///{folder}")).prepare()

    assert {str(tmp_path), str(tmp_path / "data"), str(folder)} <= synced


def test_what_a_command_writes_is_its_owner_s_alone(tmp_path: Path) -> None:
    """Neither folders nor files can be read by group or others; the caller's umask comes back."""
    before = os.umask(0o022)
    try:
        cli.main(["keys", "add", "a", "--data-dir", str(tmp_path / "data")])
        after = os.umask(0o022)
    finally:
        os.umask(before)

    made = [tmp_path / "data", *(tmp_path / "data").iterdir()]
    assert len(made) > 1
    assert [path for path in made if mode_of(path) & 0o077] == []
    assert after == 0o022
