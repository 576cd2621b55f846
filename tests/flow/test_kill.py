"""At least twenty times kill -9 of anything, under load from numbered and bare emitters; then the books are closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flow.torture import lost_numbers, system, torture

KILLS = 20


@pytest.mark.timeout(900)
@pytest.mark.parametrize("on_kafka", [False, True], ids=["embedded", "kafka-elasticsearch"])
def test_after_random_kills_the_books_balance_to_the_event(tmp_path: Path, on_kafka: bool) -> None:
    """Each acknowledged event is stored exactly once, and lost is exactly what the emitters withheld."""
    with system(tmp_path, on_kafka=on_kafka) as killed:
        outcome = torture(killed, until=lambda kills: kills >= KILLS)
        log = killed.log()

    assert outcome.acknowledged > 1000
    assert outcome.lost == [], log
    assert outcome.twice == [], log
    assert (outcome.audit["balanced"], outcome.audit["imbalance"], outcome.audit["in_flight"]) == (True, 0, 0), log
    assert sum(map(len, outcome.withheld.values())) > 0
    for name, withheld in outcome.withheld.items():
        assert lost_numbers(outcome.audit, name) == withheld
    assert outcome.audit["lost"] == sum(map(len, outcome.withheld.values()))
    assert outcome.audit["indexed"] == outcome.stored
