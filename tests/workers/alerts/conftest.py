"""Doors that write to the queue what alerters read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from logweir.queue.port import Queue
from tests.workers.helpers import Door


@pytest.fixture
def doors(queue: Queue) -> Iterator[list[Door]]:
    """One to each of three partitions."""
    opened = [Door(queue, partition=partition) for partition in range(3)]
    yield opened
    for door in opened:
        door.close()
