"""A folder of MozDef's alerts as scheduled rules: listed, asked at their times, each event in one alert of a class."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from logweir import cli, clock, config
from logweir.alerts.alert import ALERTS as STORED
from logweir.alerts.rules import Rule, Schedule
from logweir.config import Settings
from logweir.query.parse import parse
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.alerts.alerter import Alerter
from logweir_workers.alerts.loading import RuleFiles
from logweir_workers.alerts.mozdef.folder import MozdefFolder
from logweir_workers.alerts.scheduled import alerted
from logweir_workers.alerts.scheduled.runs import STATES, Ran, ScheduledRuns
from tests.contract.stores import NOON_US
from tests.waiting import until
from tests.workers.alerts.mozdef.worlds import ALERTS, SECOND_US, Posted, rules_of
from tests.workers.alerts.test_engine import alerts_of, batch
from tests.workers.helpers import Door, in_thread, running_worker

ROOT = {"category": "syslog", "summary": "session opened for user root"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ALERTS, tmp_path / "alerts", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def settings(tmp_path: Path, folder: Path) -> Settings:
    overrides = {"data_dir": tmp_path, "queue.partitions": 1, "alerts.pack": False, "alerts.mozdef_dir": folder}
    return config.load(environment={}, overrides=overrides)


@pytest.fixture
def posted(store: Store, settings: Settings) -> Posted:
    return Posted(store, settings)


def stored_alerts(store: Store) -> list[dict[str, Any]]:
    page = store.documents.search(STORED, parse("*", STORED.by_name), size=1000)
    return sorted((one.body for one in page.documents), key=lambda body: body["first"])


# --- what a folder says -------------------------------------------------------------------------------------------
def test_each_class_of_alerts_is_a_scheduled_rule(folder: Path) -> None:
    """With its schedule and its arguments; the severity is the first that the class writes."""
    rules = rules_of(folder)

    assert {name: (rule.severity, str(rule.schedule)) for name, rule in rules.items()} == {
        "alert_foo": ("low", "cron */1 * * * *"),
        "alert_bruteforce_ssh": ("high", "cron */5 * * * *"),
        "deadman_backup": ("critical", "every 1 h"),
        "alert_combined": ("medium", "every 5 min"),
        "alert_uploads": ("info", "cron 0,30 3 * * *"),
        "alert_many_names": ("low", "cron */15 * * * *"),
        "alert_generic_loader": ("low", "cron * * * * *"),
        "alert_old_style": ("low", "cron */10 * * * *"),
        "alert_privileged": ("critical", "cron * * * * *"),
        "alert_searched": ("low", "cron 0-59/10 * * * *"),
    }
    assert rules["alert_foo"].description == "Greetings."


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("foo.py", "import pyes\nclass AlertFoo: pass\n", "first generation"),
        ("foo.py", "this is no Python", "line 1"),
        ("foo.py", "class AlertOther: pass\n", "there is no class AlertFoo"),
        ("lib/config.py", "ALERTS = {'foo.AlertFoo': {'schedule': 'often'}}", "neither crontab"),
        ("lib/config.py", "ALERTS = {'foo.AlertFoo': {'schedule': crontab(minute='61')}}", "cron is '61"),
        ("lib/config.py", "ALERTS = {'foo.AlertFoo': {'schedule': read_it()}}", "line 1: foo.AlertFoo: read_it()"),
        ("lib/config.py", "ALERTS = {'AlertFoo': {'schedule': crontab()}}", "'file.Class'"),
        ("lib/config.py", "ALERTS = {'gone.AlertGone': {'schedule': crontab()}}", "gone.py"),
        ("lib/config.py", "ALERTS = load()", "no dictionary"),
        ("plugins/where_from.py", "import no_such_module", "there is no such module"),
        ("lib/config.py", "x = 1", "no file in it has ALERTS"),
    ],
)
def test_what_is_wrong_is_said_and_the_others_go_on(folder: Path, file: str, text: str, reason: str) -> None:
    """A mended file is read again."""
    made = MozdefFolder(folder)
    made.reload()
    before = len(made.rules)
    original = (folder / file).read_text()
    (folder / file).write_text(text)
    assert made.reload()
    problems = [str(problem) for problem in made.problems]
    rules = len(made.rules)
    (folder / file).write_text(original)
    made.reload()

    assert len(problems) == 1 and reason in problems[0], problems
    assert rules == {"foo.py": before - 1, "plugins/where_from.py": before}.get(file, 0)
    assert (len(made.rules), made.problems, made.reload()) == (before, [], False)


def test_constants_are_read_and_nothing_is_run(folder: Path) -> None:
    """Names, arithmetic, update, times of Celery in other forms; a file of alerts that would do harm does none."""
    (folder / "lib/config.py").write_text(
        "from celery.schedules import crontab, schedule\nimport celery, datetime, os\n"
        "M = 2 * 5\nraise SystemExit\n"
        "ALERTS = {**{}, 'foo.AlertFoo': dict(schedule=celery.schedules.crontab(minute={5, 35}, hour=M))}\n"
        "ALERTS.update({'combined.AlertCombined': {'schedule': datetime.timedelta(minutes=M), 'args': [-1]}})\n"
        "ALERTS['searched.AlertSearched'] = {'schedule': 90}\n"
        "ALERTS['uploads.AlertUploads'] = {'schedule': schedule(run_every=float('7'))}\n"
        "ALERTS['privileged.AlertPrivileged'] = {'schedule': crontab(minute='*/' + os.getenv('NO_SUCH', '3'))}\n"
    )
    rules = rules_of(folder)

    assert {name: str(rule.schedule) for name, rule in rules.items()} == {
        "alert_foo": "cron 5,35 10 * * *",
        "alert_combined": "every 10 min",
        "alert_searched": "every 1 min 30 s",
        "alert_uploads": "every 7 s",
        "alert_privileged": "cron */3 * * * *",
    }


def test_a_change_is_read_with_the_other_rules(settings: Settings, folder: Path) -> None:
    """And a rule of another file with the same name is said."""
    files = RuleFiles(settings.alerts, settings.rules_path)
    before = set(files.rules)
    (folder / "bruteforce_ssh.conf").write_text("[options]\n")
    changed = files.reload()
    settings.rules_path.mkdir()
    (settings.rules_path / "own.py").write_text(
        "from logweir.alerts import rule\n\n@rule(where='category:x', severity='low')\n"
        "def alert_foo(found):\n    return 'x'\n"
    )
    files.reload()

    assert (len(before), changed, files.reload()) == (10, True, False)
    assert [problem.numbers["reason"].split(" in ")[0] for problem in files.problems] == [
        "there is another rule alert_foo"
    ]
    assert files.rules["alert_foo"].path.endswith("own.py")


def test_commands_know_them(
    posted: Posted, store: Store, settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Listed, shadowed, backtested; a run by hand makes each alert once."""

    file = settings.data_dir / "logweir.toml"
    file.write_text(f'data_dir = "{settings.data_dir}"\n[alerts]\npack = false\nmozdef_dir = "{folder}"\n')

    def command(*words: str) -> dict[str, Any]:
        cli.main(["rules", *words, "--config", str(file)])
        return dict(json.loads(capsys.readouterr().out))

    posted(*({**ROOT, "hostname": host} for host in ("db1", "db2")), at=-70)
    command("shadow", "alert_privileged", "--json")
    listed = {one["name"]: one for one in command("list", "--json")["rules"]}
    span = ["--since", "2026-01-31T11:50:00Z", "--until", "2026-01-31T12:10:00Z", "--json"]
    (backtest,) = command("backtest", "alert_privileged", *span)["rules"]
    dry = command("run", "alert_privileged", "--at", "2026-01-31T12:00:00Z", "--dry-run")["alerts"]
    made = [command("run", "alert_privileged", "--at", "2026-01-31T12:00:00Z")["alerts"] for _ in range(2)]

    assert (listed["alert_privileged"]["state"], listed["alert_foo"]["state"]) == ("shadow", "enabled")
    assert listed["alert_privileged"]["window"] == "scheduled"
    assert (backtest["alerts_count"], backtest["errors"]) == (2, 0)
    assert ({one["summary"] for one in dry}, len(made[0])) == ({"Root on db1", "Root on db2"}, 2)
    assert {one["summary"]: one["count"] for one in stored_alerts(store)} == {"Root on db1": 1, "Root on db2": 1}


# --- at their times -----------------------------------------------------------------------------------------------
class World:
    """Scheduled runs over a store, the time going on."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self.ran: list[Ran] = []
        self.restart()

    def restart(self) -> None:
        clock_us = NOON_US + 3600 * SECOND_US
        self.runs = ScheduledRuns(self._store, self._settings, generation=1, clock=lambda: clock_us)

    def until(self, second: float, *rules: Rule) -> list[int]:
        """Ask the rules up to then; how many alerts each run made."""
        before = len(self.ran)
        named = {rule.name: rule for rule in rules}
        while self.runs.look(named, up_to_us=NOON_US + int(second * SECOND_US), told=self.ran.append):
            if self.ran[-1].error:
                break
        return [one.alerts for one in self.ran[before:]]


@pytest.fixture
def world(store: Store, settings: Settings) -> World:
    return World(store, settings)


def test_an_event_is_in_one_alert_of_a_class(
    world: World, store: Store, posted: Posted, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five minutes are looked back each minute; also after a restart, and after a crash between alert and slot."""
    monkeypatch.setattr(alerted, "MARKS_MAX", 1)
    rule = rules_of(folder)["alert_privileged"]
    world.until(0, rule)
    posted({**ROOT, "hostname": "db1"}, {**ROOT, "hostname": "db2"}, at=10)
    first = world.until(60, rule)
    world.restart()
    again = world.until(180, rule)
    posted({**ROOT, "hostname": "late", "timestamp": "2026-01-30T00:00:00Z"}, at=190)
    world.until(239, rule)
    monkeypatch.setattr(ScheduledRuns, "_keep", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        world.until(240, rule)
    monkeypatch.undo()
    world.restart()
    crashed = world.until(300, rule)
    found = stored_alerts(store)

    assert (first, again, crashed) == ([2], [0, 0], [1, 0])
    assert sorted((one["summary"], one["count"]) for one in found) == [
        ("Root on db1", 1),
        ("Root on db2", 1),
        ("Root on late", 1),
    ]
    assert all(len(one["evidence"]) == 1 for one in found)
    assert {one["mozdef"]["classname"] for one in found} == {"AlertPrivileged"}
    assert {one["severity"] for one in found} == {"critical"}


def test_marks_go_once_nobody_looks_back_to_them(world: World, store: Store, posted: Posted, folder: Path) -> None:
    rule = rules_of(folder)["alert_privileged"]
    world.until(0, rule)
    posted({**ROOT, "hostname": "db1"}, at=10)
    world.until(60, rule)
    posted({**ROOT, "hostname": "db1"}, at=2 * 86_400 + 3590)
    named = {rule.name: rule}
    rule.schedule = Schedule(every_us=3600 * SECOND_US)
    while world.runs.look(named, up_to_us=NOON_US + (2 * 86_400 + 3600) * SECOND_US):
        pass
    page = store.documents.search(alerted.MARKS, parse("*", alerted.MARKS.by_name), size=10)

    assert [one.body["slot"] for one in page.documents] == [NOON_US + (2 * 86_400 + 3600) * SECOND_US]


def test_events_below_a_threshold_count_until_it_is_met(
    world: World, store: Store, posted: Posted, folder: Path
) -> None:
    """A value whose events were alerted of begins anew."""
    (folder / "bruteforce_ssh.conf").write_text("[options]\nskiphosts =\nminutes = 10\nchannel = x\n")
    rule = rules_of(folder)["alert_bruteforce_ssh"]
    event = {"summary": "failed login", "details": {"program": "sshd", "sourceipaddress": "192.0.2.7"}}
    world.until(0, rule)
    posted(event, event, at=10)
    below = world.until(300, rule)
    posted(event, at=310)
    met = world.until(600, rule)
    posted(event, at=610)
    anew = world.until(900, rule)

    assert (below, met, anew) == ([0], [1], [0])
    (one,) = stored_alerts(store)
    assert (one["count"], len(one["mozdef"]["events"]), len(one["evidence"])) == (3, 2, 3)


def test_a_script_that_fails_is_said_and_waits(world: World, posted: Posted, folder: Path, store: Store) -> None:
    """Its times are asked for once it is mended; another script goes on."""
    good = (folder / "privileged.py").read_text()
    foo = rules_of(folder)["alert_foo"]
    rule = rules_of(folder)["alert_privileged"]
    world.until(0, rule, foo)
    posted({**ROOT, "hostname": "db1"}, at=10)
    (folder / "privileged.py").write_text(good.replace('["hostname"]', '["no_such"]'))
    world.until(60, rules_of(folder)["alert_privileged"])
    failed = world.ran[-1].error
    others = world.until(60, foo)
    (folder / "privileged.py").write_text(good)
    mended = world.until(120, rules_of(folder)["alert_privileged"])
    state = store.documents.get(STATES, ["alert_privileged"])["alert_privileged"].body

    assert "privileged.py, line 15: KeyError: 'no_such'" in failed
    assert (others, mended, state["error"]) == ([0], [1, 0], None)


@pytest.mark.timeout(180)  # it waits for processes that end and are started again
def test_the_alerter_asks_them(settings: Settings, queue: Queue, store: Store, folder: Path, doors: list[Door]) -> None:
    """As soon as all is stored that was received; a script that ends its process harms no other rule."""
    (folder / "exits.py").write_text(
        "import os\nfrom lib.alerttask import AlertTask\n\nclass AlertExits(AlertTask):\n"
        "    def main(self):\n        os._exit(1)\n"
    )
    (folder / "lib/config.py").write_text(
        "ALERTS = {'exits.AlertExits': {'schedule': timedelta(seconds=2)},"
        " 'privileged.AlertPrivileged': {'schedule': timedelta(seconds=2)}}\nALERT_PLUGINS = []\n"
    )
    stopping = threading.Event()
    alerter = Alerter(settings, queue=queue, store=store, stopping=stopping, clock=clock.now_us)
    with running_worker(settings, queue, store), in_thread(alerter.run, stopping):
        doors[0].write(batch(orjson.dumps({**ROOT, "hostname": "db1"})))
        until(lambda: alerts_of(store, "rule:alert_privileged"), wait_s=120)
        until(
            lambda: "had to be ended" in str(store.documents.get(STATES, ["alert_exits"])["alert_exits"].body["error"]),
            wait_s=120,
        )
        until(lambda: alerts_of(store, "rule:alert_privileged AND completeness:complete"), wait_s=60)

    (one,) = alerts_of(store, "rule:alert_privileged")
    assert (one["summary"], one["count"], one["category"]) == ("Root on db1", 1, "access")
    assert one["mozdef"]["details"] == {"sourceipaddress": "nowhere"}
