"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from logweir.queue.port import Queue
from tests.workers.helpers import Door


@pytest.fixture
def door(queue: Queue) -> Iterator[Door]:
    opened = Door(queue)
    yield opened
    opened.close()
