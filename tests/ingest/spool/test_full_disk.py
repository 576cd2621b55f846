"""A door whose data folder is on a full disk, while its queue, which is elsewhere, is well. Mounts a disk, as root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir_ingest.spool.spool import Spool
from tests.ingest.helpers import Door, is_ready, running
from tests.waiting import until

SIZE = "4m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    assert os.geteuid() == 0, "this test mounts a small disk: run it as root"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filling").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))


def test_a_probe_fails_while_the_disk_is_full_and_leaves_nothing(disk: Path) -> None:
    """It takes as much as a large record, where a few bytes would still fit; its folder may have gone meanwhile."""
    spool = Spool(disk / "spool", name="1")
    spool.probe()
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        spool.probe()
    shutil.rmtree(disk / "spool")
    os.truncate(disk / "filling", (disk / "filling").stat().st_size - 4096)
    with pytest.raises(OSError, match="No space left"):
        spool.probe()
    (disk / "filling").unlink()
    spool.probe()
    spool.close(is_complete=True)

    assert [path.name for path in disk.rglob("*")] == ["spool", "lock"]


def test_a_full_disk_ends_no_process_while_the_queue_is_well(disk: Path, tmp_path: Path) -> None:
    """Events are taken, every endpoint answers, what was never counted before is counted, a new process starts."""
    queue = tmp_path / "queue.sqlite"
    with running(Door(disk, environment={"LOGWEIR_QUEUE_URL": f"sqlite:///{queue}"})) as door:
        until(lambda: is_ready(door))
        first = door.worker()
        fill(disk)
        bad = [door.post(body).status for body in (b"{", b"[1]", b"")]
        assert [door.post(b"{}").status, door.request("GET", "/metrics").status] == [202, 200]
        assert door.worker() == first
        os.kill(first, signal.SIGKILL)
        until(lambda: first not in door.workers() and is_ready(door))
        second = door.worker()
        after = [door.post(b"{}").status, door.request("GET", "/metrics").status]
        assert door.worker() == second
        (disk / "filling").unlink()
        until(lambda: door.metric('logweir_ingest_accepted_events_total{durable="queue"}') == 2)

    assert bad == [400, 400, 400]
    assert after == [202, 200]
