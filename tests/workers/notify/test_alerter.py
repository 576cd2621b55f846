"""From an event to a notice: the alerter tells the channels, and evaluation does not wait for them."""

from __future__ import annotations

import threading
from pathlib import Path

import orjson
import pytest

from logweir import clock, config
from logweir.config import Settings
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.alerts.alerter import Alerter
from logweir_workers.notify.bundles import CHANNELS
from tests.waiting import until
from tests.workers.helpers import Door, batch, in_thread
from tests.workers.notify.receivers import Answer, receiving

RULES = """
from logweir.alerts import rule

@rule(where="details.action:login", group=["details.ip"], severity="high")
def login(found):
    return f"{found.count} logins from {found.group}"
"""
HOOK = 'type = "webhook"\nsecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"'


def event(ip: str) -> bytes:
    seconds = clock.now_us() // 1_000_000
    return orjson.dumps({"timestamp": seconds, "summary": ip, "details": {"action": "login", "ip": ip}})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/own.py").write_text(RULES)
    overrides = {"data_dir": tmp_path, "alerts.pack": False, "console.public_url": "https://logs.example.org/"}
    return config.load(environment={}, overrides=overrides)


def test_an_event_becomes_a_notice_and_a_channel_that_hangs_holds_up_nothing(
    settings: Settings, queue: Queue, store: Store, door: Door
) -> None:
    """Not the evaluation, not the other channels, not the end of the process."""
    over, stopping = threading.Event(), threading.Event()
    with receiving(lambda request, number: Answer(hangs=over)) as hanging, receiving() as receiver:
        settings.channels_path.write_text(
            f'[stuck]\n{HOOK}\nurl = "{hanging.url}"\ntimeout_s = 60\n[hook]\n{HOOK}\nurl = "{receiver.url}"\n'
        )
        alerter = Alerter(settings, queue=queue, store=store, stopping=stopping, clock=clock.now_us)
        with in_thread(alerter.run, stopping):
            # Channels are told of what is found once they are known.
            until(lambda: len(store.documents.get(CHANNELS, ["stuck", "hook"])) == 2)
            door.write(batch(event("10.0.0.1"), id=b"1" * 16))
            until(lambda: hanging.requests and receiver.requests)
            door.write(batch(event("10.0.0.2"), id=b"2" * 16))
            until(lambda: len(receiver.requests) == 2)
        over.set()
        one, two = (request.json["data"] for request in receiver.requests)

    assert (one["title"], two["title"]) == ("[high] 1 logins from 10.0.0.1", "[high] 1 logins from 10.0.0.2")
    assert one["alerts"][0]["url"] == f"https://logs.example.org/alerts/{one['alerts'][0]['id']}"
    assert len(hanging.requests) == 1


def test_of_several_parts_of_the_rules_only_the_first_ones_process_tells(
    settings: Settings, queue: Queue, store: Store
) -> None:
    """Else each notice would come from all of them."""
    shard = settings.model_copy(update={"alerts": settings.alerts.model_copy(update={"shard": "2/2"})})
    stopping = threading.Event()
    alerter = Alerter(shard, queue=queue, store=store, stopping=stopping, clock=clock.now_us)
    with in_thread(alerter.run, stopping):
        until(lambda: alerter.engine is not None)
        names = [thread.name for thread in threading.enumerate()]

    assert "notifier" not in names
