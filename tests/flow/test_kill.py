"""kill -9 of anything, again and again, under load from numbered and bare emitters; then the books are closed.

And a rule that every event matches has counted each of them once.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proof import size
from tests.tools import disasters
from tests.tools.torture import assert_books, system, torture

PARTS = {
    "embedded": {"ingest", "worker", "alerter", "everything"},
    "kafka-elasticsearch": {"broker", "store", "ingest-0", "ingest-1", "worker-0", "worker-1", "alerter"},
}


@pytest.mark.sized
@pytest.mark.timeout(size(400, 3600))  # Every kill takes seconds, and the books a minute at the end.
@pytest.mark.parametrize(
    ("on", "kills"),
    [
        pytest.param("embedded", size(5, 200), id="embedded"),
        # Servers take half a minute each to come back.
        pytest.param("kafka-elasticsearch", 60, id="kafka-elasticsearch", marks=pytest.mark.proof),
    ],
)
def test_after_random_kills_the_books_balance_to_the_event(tmp_path: Path, on: str, kills: int) -> None:
    """Each acknowledged event is stored exactly once, and lost is exactly what the emitters withheld.

    Whatever comes at random, every part has died at least once.
    """
    with system(tmp_path, on_kafka=on == "kafka-elasticsearch") as killed:
        outcome = torture(killed, until=lambda done: done >= kills)
        log = killed.log()

    assert outcome.kills.total() == kills
    assert outcome.kills.keys() == PARTS[on]
    assert_books(outcome, log)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("on", ["embedded", "kafka-elasticsearch"])
def test_after_disasters_among_the_kills_the_books_say_what_is_gone(tmp_path: Path, on: str) -> None:
    """Disks that lose, tear, are set back or full, and clocks that jump: what is not stored is not called complete.

    Each has happened at least once, among kills of every part.
    """
    with system(tmp_path, on_kafka=on == "kafka-elasticsearch", with_disasters=True) as struck:
        wanted = struck.victims.keys()
        outcome = torture(struck, until=lambda done: done >= 2 * len(wanted))
        log = struck.log()

    assert outcome.kills.keys() == wanted
    assert outcome.disasters >= len(wanted & disasters.NAMES)
    assert_books(outcome, log)
