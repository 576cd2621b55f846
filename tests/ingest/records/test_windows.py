"""Windows by themselves: how many emitters one takes before the next begins ahead of the clock."""

from __future__ import annotations

from logweir import record
from logweir.record import Kind
from logweir_ingest.records.windows import DueMarker, Windows

WINDOW = 29_833_333
NOW_US = WINDOW * 60_000_000
RECORD_SIZE_BYTES_MAX = 900_000


def run(names: list[str]) -> Windows:
    windows = Windows(partitions=1, marker_size_bytes_max=RECORD_SIZE_BYTES_MAX // 3)
    for name in names:
        window = windows.window(0, NOW_US)
        windows.give(0, window, 1)
        windows.confirm(0, window, {("shop", name): (1, 0)})
    return windows


def size_bytes(due: DueMarker) -> int:
    """Of the record that the marker makes."""
    return len(
        record.encode(
            Kind.MARKER,
            ingest_epoch=b"\x07" * 16,
            first=due.first,
            count=due.count,
            window=due.window,
            body=due.marker,
        )
    )


def test_thousands_of_emitters_a_minute_are_in_one_window() -> None:
    """Their windows do not run ahead of the clock, and the marker fits into a record."""
    windows = run([f"host-{number:05}" for number in range(8_000)])
    (due,) = windows.due(NOW_US + 60_000_000)

    assert windows.window(0, NOW_US) == WINDOW + 1  # It is marked.
    assert (due.window, len(due.marker.accepted)) == (WINDOW, 8_000)
    assert size_bytes(due) < RECORD_SIZE_BYTES_MAX // 3


def test_a_window_ends_early_by_the_size_of_its_marker() -> None:
    windows = run(["é" * 120 + f"{number:05}" for number in range(2_000)])
    due = windows.due(NOW_US + 10 * 60_000_000)

    assert sum(len(one.marker.accepted) for one in due) == 2_000
    assert [one.window for one in due] == [WINDOW, WINDOW + 1]
    assert max(map(size_bytes, due)) < RECORD_SIZE_BYTES_MAX // 3 + 1000
