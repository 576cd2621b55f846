"""Windows by themselves: how many emitters one tells apart, and when the next begins ahead of the clock."""

from __future__ import annotations

from logweir import record
from logweir.record import OTHERS, Kind
from logweir_ingest.records.windows import DueMarker, Windows

WINDOW = 29_833_333
NOW_US = WINDOW * 60_000_000
RECORD_SIZE_BYTES_MAX = 900_000


def run(names: list[str], *, keys: int = 1) -> Windows:
    windows = Windows(partitions=1, marker_size_bytes_max=RECORD_SIZE_BYTES_MAX // 3)
    for number, name in enumerate(names):
        key = "shop" if keys == 1 else f"key-{number % keys}"
        window = windows.window(0, NOW_US)
        windows.give(0, window, 1)
        windows.confirm(0, window, {(key, name): (1, 0)})
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


def test_a_key_with_very_many_emitters_drives_no_window_ahead_of_the_clock() -> None:
    """They are summed up in one row; those of other keys have theirs, and their events are in their own minute."""
    windows = run(["é" * 120 + f"{number:05}" for number in range(20_000)])
    for name, count in (("a", 3), ("b", 2), (None, 1)):
        window = windows.window(0, NOW_US)
        windows.give(0, window, count)
        windows.confirm(0, window, {("other", name): (count, 0)})
    (due,) = windows.due(NOW_US + 60_000_000)
    rows = {(one.key, one.emitter): one.accepted for one in due.marker.accepted}
    own = [row for row in due.marker.accepted if row.key == "shop"]

    assert due.window == WINDOW
    assert {emitter: count for emitter, count in rows.items() if emitter[0] == "other"} == {
        ("other", "a"): 3,
        ("other", "b"): 2,
        ("other", None): 1,
    }
    assert sum(one.accepted for one in own) == 20_000
    assert len(own) > 1_000
    assert rows["shop", OTHERS] == 20_000 - (len(own) - 1)
    assert size_bytes(due) < RECORD_SIZE_BYTES_MAX // 2


def test_a_window_ends_early_before_its_marker_outgrows_a_record() -> None:
    """Of very many keys, each with many emitters."""
    windows = run(["é" * 120 + f"{number:05}" for number in range(6_000)], keys=60)
    due = windows.due(NOW_US + 10 * 60_000_000)

    assert sum(row.accepted for one in due for row in one.marker.accepted) == 6_000
    assert [one.window for one in due] == [WINDOW, WINDOW + 1, WINDOW + 2]
    assert max(map(size_bytes, due)) < 2 * RECORD_SIZE_BYTES_MAX // 3 + 1000
