"""The embedded queue and store in the test's own folder; a file that wants other settings has its own `settings`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir import config
from logweir.config import Settings
from logweir.queue import open_queue
from logweir.queue.port import Queue
from logweir.store import open_store
from logweir.store.port import Store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return config.load(environment={}, overrides={"data_dir": tmp_path})


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    opened = open_queue(settings.queue)
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings.store)
    opened.prepare()
    yield opened
    opened.close()
