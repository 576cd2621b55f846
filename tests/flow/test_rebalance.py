"""Workers come and go every few seconds, and one stands still now and then: the books are the store's own counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proof import size
from tests.tools.cluster import ClusterSystem
from tests.tools.torture import assert_books, torture

REBALANCE_S = size(10.0, 300.0)
# A zombie, beside which visitors come and go, and a visitor in quiet; in the long one, another zombie at the end.
TURNS_MIN = size(2, 5)
# A visitor comes and goes at least so often, on a slow machine.
VISIT_S_MAX = 12.0


@pytest.fixture
def cluster(tmp_path: Path, kafka: Any, elasticsearch: Any) -> Iterator[ClusterSystem]:
    system = ClusterSystem(tmp_path, bootstrap=kafka.bootstrap, store_url=elasticsearch.url)
    system.victims = {"rebalance": system.rebalance, "zombie": system.zombie}
    yield system
    system.stop()


def unrest() -> Iterator[str]:
    """A zombie first, and then with every fourth."""
    while True:
        yield from ("zombie", "rebalance", "rebalance", "rebalance")


@pytest.mark.sized
@pytest.mark.timeout(300 + 2 * REBALANCE_S)  # Each visit is a process that starts, joins and leaves.
def test_workers_that_come_go_and_stand_still_change_no_number(cluster: ClusterSystem) -> None:
    """Two workers are shared out anew all the time: each window has as many documents as its ledger says, none twice.

    A zombie is a worker that stands still past its session, while others have its partitions, and then goes on.
    """
    end_s = time.monotonic() + REBALANCE_S
    outcome = torture(
        cluster, until=lambda turns: turns >= TURNS_MIN and time.monotonic() > end_s, pause_s=0.5, names=unrest()
    )
    log = cluster.log()

    assert outcome.kills["zombie"] >= size(1, 2)
    assert outcome.kills["rebalance"] >= size(1, 3)
    assert cluster.visits >= REBALANCE_S / VISIT_S_MAX
    assert_books(outcome, log)
