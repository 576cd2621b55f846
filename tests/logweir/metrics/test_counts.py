"""A process's counts in a file: the library reads them, and a full disk costs neither the process nor a count."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from logweir.metrics import registry
from logweir.metrics.counts import CountsFile


def read(path: Path) -> dict[str, float]:
    return {key: value for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path))}


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_library_reads_what_is_counted_and_a_file_is_counted_on(tmp_path: Path) -> None:
    """More than a page of it, with keys of every length."""
    path = tmp_path / "counter_1.db"
    with closing(CountsFile(str(path))) as counts:
        assert read(path) == {}
        for n in range(200):
            assert counts.read_value("k" * n) == (0, 0)
            counts.write_value("k" * n, n + 0.5, 0.0)
    with closing(CountsFile(str(path))) as counts:
        assert counts.read_value("kkk") == (3.5, 0)
        counts.write_value("kkk", 7, 8)
        counts.write_value("new", 1, 0)

    assert read(path) == {**{"k" * n: n + 0.5 for n in range(200)}, "kkk": 7, "new": 1}


def test_what_finds_no_room_is_in_the_file_when_there_is_room_again(tmp_path: Path) -> None:
    """Meanwhile the file is whole: what it held, with what is counted of it."""
    path = tmp_path / "counter_1.db"
    with closing(CountsFile(str(path))) as counts:
        counts.write_value("old", 1, 0)
        with full_disk(path.stat().st_size + 20):
            for n in range(3):
                counts.write_value(f"new{n}", n, 0)
            assert counts.is_behind
            assert read(path) == {"old": 1}
        counts.write_value("old", 2, 0)

        assert not counts.is_behind
        assert read(path) == {"old": 2, "new0": 0, "new1": 1, "new2": 2}


def test_a_file_that_finds_no_room_at_all_reads_as_empty(tmp_path: Path) -> None:
    """Of a process that starts on a full disk: the others' counts are shown beside it."""
    path = tmp_path / "counter_1.db"
    with full_disk(10), closing(CountsFile(str(path))) as counts:
        counts.write_value("new", 1, 0)

        assert counts.read_value("new") == (1, 0)
        assert read(path) == {}


def test_a_reader_never_finds_a_file_without_its_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape reads the folder while a process begins in it: what is there can be read, at every step."""
    found: list[list[dict[str, float]]] = []

    def look(*_: object) -> None:
        found.append([read(path) for path in tmp_path.glob("*.db")])

    sys.setprofile(look)
    try:
        counts = CountsFile(str(tmp_path / "counter_1.db"))
    finally:
        sys.setprofile(None)
    counts.close()

    assert found[0] == [] and found[-1] == [{}]
    assert all(each in ([], [{}]) for each in found)


def test_counts_of_a_process_that_is_gone_stay_whether_the_disk_is_full_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are added to the others' while there is room, and left where they are while there is none: never twice."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    key = '["a_total", "a_total", {}, "help"]'
    (tmp_path / "lock").touch()

    def counted(text: str) -> dict[str, float]:
        lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    for number in (11, 12):
        with closing(CountsFile(str(tmp_path / f"counter_{number}.db"))) as counts:
            counts.write_value(key, number, 0)
    with full_disk(10):
        registry.process_gone(11)
        shown = counted(registry.exposition()[0].decode())
    registry.process_gone(11)
    registry.process_gone(12)

    assert shown == counted(registry.exposition()[0].decode()) == {"a_total": 23}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter_0.db", "lock"]


_SHARING = """
import os, sys
from pathlib import Path
import logweir_ingest.server  # With all that it brings along: none of it makes a metric before it is run.
from logweir.metrics import registry

registry.share(Path(sys.argv[1]))
child = os.fork()
registry.get("logweir_ingest_accepted_bytes_total").inc(2 if child else 3)
if child:
    os.waitpid(child, 0)
    print(registry.exposition()[0].decode())
"""


def test_processes_that_share_a_port_count_in_such_files(tmp_path: Path) -> None:
    """What each has counted is in one sum, and no file of theirs ends a process on a full disk (``CountsFile``)."""
    done = subprocess.run([sys.executable, "-c", _SHARING, tmp_path], capture_output=True, text=True, check=True)

    assert "logweir_ingest_accepted_bytes_total 5.0" in done.stdout.splitlines()
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
