"""Certificates: of how many accepted events a rule has looked at how many, what it found, and that we said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from logweir import cli, clock
from logweir.config import Settings
from logweir.errors import LogweirError
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.alerts.certificate import certify, require_genuine
from logweir_workers.alerts.loading import RuleFiles
from tests.waiting import until
from tests.workers.alerts.settings import settings_with
from tests.workers.alerts.test_engine import RULES, batch, login
from tests.workers.helpers import Door, running_worker

SECRET = b"s" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path, RULES)


@pytest.fixture
def certified(settings: Settings, queue: Queue, store: Store, door: Door) -> Any:
    """Makes a certificate of the last hour, once so many events are stored."""

    def call(events: int, **numbered: Any) -> dict[str, Any]:
        made = [login("failure", at=at * 0.1) for at in range(events)]
        door.write(batch(*made, received_us=clock.now_us() - 600_000_000, **numbered))
        door.end_window()
        rule = RuleFiles(settings.alerts, settings.rules_path).rules["failures"]
        with running_worker(settings, queue, store):

            def of_the_hour() -> dict[str, Any]:
                now_us = clock.now_us()
                times = {"from_us": now_us - 3_600_000_000, "to_us": now_us, "now_us": now_us}
                return certify(store, rule, settings, secret=SECRET, **times)

            until(lambda: of_the_hour()["looked_at"] == events)
            until(lambda: of_the_hour()["in_flight"] == 0)
            return of_the_hour()

    return call
