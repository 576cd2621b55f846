"""From an event to a notice: the alerter tells the channels, and evaluation does not wait for them."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from logweir import cli, clock, config
from logweir.alerts.notices import CHANNELS
from logweir.commands.doctor import examine
from logweir.config import Settings
from logweir.queue.port import Queue
from logweir.store import open_store
from logweir.store.port import Store
from logweir_workers.alerts.alerter import Alerter
from logweir_workers.notify.channels import ChannelFile
from logweir_workers.notify.notifier import Notifier
from tests.waiting import until
from tests.workers.helpers import Door, batch, in_thread
from tests.workers.notify.alerts import stored
from tests.workers.notify.receivers import Answer, receiving
from tests.workers.notify.test_notifier import turn

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


def test_doctor_and_audit_say_by_whom_people_are_told_and_what_fails(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody; one that works; a file that is not in force; a channel that fails."""

    def doctor() -> tuple[str, str]:
        (found,) = (one for one in examine(settings) if one.what == "channels")
        return found.state, found.found

    def audit() -> str:
        cli.main(["audit", "--data-dir", str(tmp_path)])
        return capsys.readouterr().out

    with closing(open_store(settings.store)) as store, receiving() as receiver:
        store.prepare()
        nobody = doctor()
        settings.channels_path.write_text(f'[hook]\n{HOOK}\nurl = "{receiver.url}"\n')
        unread = doctor()
        file, stopping = ChannelFile(settings.channels_path), threading.Event()
        notifier = Notifier(store, file, public_url="", stopping=stopping, clock=clock.now_us)
        with in_thread(notifier.run, stopping):
            until(lambda: doctor() == ("ok", "hook: no alerts yet"))
            stored(store, "a-1", now_us=clock.now_us())
            until(lambda: doctor() == ("ok", "hook: 1 notified"))
            said = audit()
            settings.channels_path.write_text("[hook]\n")
            until(lambda: "is not in force" in doctor()[1])
            bad = doctor()
        settings.channels_path.write_text(f'[hook]\n{HOOK}\nurl = "{receiver.url}"\n')
        turn(notifier)
        channel = store.documents.get(CHANNELS, ["hook"])["hook"]
        body = {**channel.body, "failing_since": "2026-01-31T12:00:00Z", "error": "it answered 503"}
        store.documents.put(CHANNELS, "hook", body, version=channel.version)
        failing = doctor()

    assert (nobody[0], "nobody is told of alerts" in nobody[1]) == ("ok", True)
    assert (unread[0], str(settings.channels_path) in unread[1]) == ("warning", True)
    assert "alerts told by hook: 1 notified\n" in said
    assert (bad[0], "hook" in bad[1]) == ("warning", True)
    assert failing == ("fault", "hook fails since 2026-01-31T12:00:00Z: it answered 503")
