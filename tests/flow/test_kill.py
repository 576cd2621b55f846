"""At least twenty times kill -9 of anything, under load from numbered and bare emitters; then the books are closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flow.torture import assert_books, system, torture

KILLS = 20


@pytest.mark.timeout(900)
@pytest.mark.parametrize("on_kafka", [False, True], ids=["embedded", "kafka-elasticsearch"])
def test_after_random_kills_the_books_balance_to_the_event(tmp_path: Path, on_kafka: bool) -> None:
    """Each acknowledged event is stored exactly once, and lost is exactly what the emitters withheld.

    Whatever comes at random, every part has died at least once.
    """
    with system(tmp_path, on_kafka=on_kafka) as killed:
        outcome = torture(killed, until=lambda kills: kills >= KILLS)
        log = killed.log()
        parts = set(killed.victims)

    assert outcome.kills.total() == KILLS
    assert outcome.kills.keys() == parts
    assert parts >= ({"broker", "store", "ingest-0", "worker-0"} if on_kafka else {"ingest", "worker", "everything"})
    assert_books(outcome, log)
