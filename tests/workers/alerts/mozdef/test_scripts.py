"""Alert scripts of MozDef's, run as they are over events as they are posted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logweir.config import Settings
from logweir.store.port import Store
from tests.workers.alerts.mozdef.worlds import ALERTS, Posted, run, run_badly


@pytest.fixture
def posted(store: Store, settings: Settings) -> Posted:
    return Posted(store, settings)


def test_the_first_alert_of_the_guide(posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """One alert for each address, with MozDef's fields inside of ours."""
    hello = {"category": "helloworld", "tags": ["foo"], "details": {"sourceipaddress": "1.2.3.4"}}
    made = posted(hello, hello, {**hello, "tags": []}, {"category": "helloworld"}, {**hello, "category": "syslog"})
    posted({**hello, "details": {"sourceipaddress": "5.6.7.8"}, "tags": ["bar"]})
    one, other = run(settings, capsys, f"{ALERTS}/foo.py:AlertFoo")
    mozdef = one["mozdef"]

    # The newest event comes first, and this one has no tag.
    assert (one["summary"], one["count"], one["severity"], one["category"]) == (
        "Bar alert",
        3,
        "low",
        "My first alert!",
    )
    assert (other["summary"], other["count"]) == ("Bar alert", 1)
    assert one["tags"] == ["Foo"]
    assert {name: mozdef[name] for name in mozdef if name != "events"} == {
        "utctimestamp": "2026-01-31T12:00:00.000000+00:00",
        "severity": "NOTICE",
        "summary": "Bar alert",
        "category": "My first alert!",
        "tags": ["Foo"],
        "channel": None,
        "notify_mozdefbot": True,
        "status": "manual",
        "classname": "AlertFoo",
    }
    assert {event["documentid"] for event in mozdef["events"]} == {document.id for document in made[:3]}
    assert mozdef["events"][0]["documentsource"]["details"]["sourceipaddress"] == "1.2.3.4"
    assert mozdef["events"][0]["documentindex"].endswith("20260131")
    assert {event["_id"] for event in one["events"]} == {document.id for document in made[:3]}


def test_settings_samples_a_threshold_and_the_most_common(
    posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threshold is included; an environment variable wins over the file."""

    def failed(host: str, text: str, address: str = "1.2.3.4") -> dict[str, Any]:
        return {
            "summary": text,
            "hostname": host,
            "details": {"program": "sshd", "sourceipaddress": address},
        }

    posted(*(failed("web1.example.com", f"Login FAILED {n}") for n in range(2)), failed("web2", "failed: Invalid user"))
    posted(
        failed("web3", "login failed from 10.9.9.9"),
        failed("web4", "login failed", "1.2.3.5"),
        failed("web5", "user failed"),
    )
    posted(failed("web6", "login failed"), at=-200)
    (one,) = run(settings, capsys, f"{ALERTS}/bruteforce_ssh.py:AlertBruteforceSsh")
    monkeypatch.setenv("OPTIONS_SKIPHOSTS", "nobody")
    with_skipped = run(settings, capsys, f"{ALERTS}/bruteforce_ssh.py:AlertBruteforceSsh")
    monkeypatch.setenv("OPTIONS_MINUTES", "5")
    of_longer = run(settings, capsys, f"{ALERTS}/bruteforce_ssh.py:AlertBruteforceSsh")

    assert one["summary"] == "3 ssh bruteforce attempts by 1.2.3.4 web1.example.com (2 hits) web2 (1 hits)"
    assert (one["count"], len(one["mozdef"]["events"]), len(one["events"])) == (3, 2, 3)
    assert (one["severity"], one["mozdef"]["severity"]) == ("high", "ERROR")
    assert (one["mozdef"]["url"], one["mozdef"]["channel"]) == ("https://runbooks/ssh", "#soc")
    assert [found["count"] for found in with_skipped] == [4]
    assert [found["count"] for found in of_longer] == [5]


def test_a_deadman_alerts_of_what_is_missing(
    posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the arguments of ALERTS; its alert has no events."""
    posted({"category": "backup", "hostname": "db1.example.com"})
    rule = f"{ALERTS}/deadman_backup.py:DeadmanBackup"
    (one,) = run(settings, capsys, rule)

    assert (one["summary"], one["severity"], one["count"], one["mozdef"]["events"]) == (
        "No backup of db2",
        "critical",
        0,
        [],
    )
    assert (one["mozdef"]["category"], one["mozdef"]["classname"]) == ("deadman", "DeadmanBackup")


def test_every_query_class_together(posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Each event but the first fails one condition; the details are found by the names that they were sent with."""
    details = {
        "uri": "http://x/a.exe",
        "src_ip": "10.1.2.3",
        "status": 204,
        "bytes": "999",
        "method": "GET",
        "blocked": True,
        "http_user_agent": "curl/8",
    }
    event = {"category": "squid", "summary": "denied", "hostname": "fw1", "details": details}
    posted(event, {**event, "category": "none"}, {**event, "hostname": "lab1"}, {**event, "summary": "allowed it"})
    for other in (
        {"uri": "http://x/a.exe.txt"},
        {"src_ip": "10.2.2.3"},
        {"status": 300},
        {"bytes": 1000},
        {"method": "PUT"},
        {"blocked": False},
    ):
        posted({**event, "details": {**details, **other}})
    (one,) = run(settings, capsys, f"{ALERTS}/combined.py:AlertCombined")

    assert one["summary"] == "10.1.2.3 fetched http://x/a.exe"
    assert (one["category"], one["severity"], one["mozdef"]["tags"]) == ("squid", "medium", ["proxy"])
    assert one["mozdef"]["classname"] == "AlertCombined"


def test_should_json_settings_dots_and_times(
    posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of words of which none must be, one at least has to; what a script prints is no part of the output."""
    when = {"when": "2026-01-31T13:00:00+01:00"}
    posted(
        {"summary": "a file was uploaded", "details": {"user": "anna", **when}},
        {"summary": "Copied by", "details": {"username": "", **when}},
        {"summary": "removed", "details": {"user": "carl", **when}},
    )
    (one,) = run(settings, capsys, f"{ALERTS}/uploads.py:AlertUploads")

    assert one["summary"] == "anna at 2026-01-31T12:00:00+00:00"
    assert (one["category"], one["severity"], one["mozdef"]["notify_mozdefbot"]) == ("AlertUploads", "info", False)


def test_one_class_with_alerts_of_several_names(
    posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """An event may be in an alert of each; its own library beside ours; a search that the script makes itself."""
    posted({"category": "named", "details": {"color": "red"}}, {"category": "named", "details": {"color": "red"}})
    found = run(settings, capsys, f"{ALERTS}/many_names.py:AlertManyNames")

    assert [one["summary"] for one in found] == ["hello first: red of 2"] * 2 + ["hello second: red of 2"] * 2
    assert {one["mozdef"]["classname"] for one in found} == {"first", "second"}


def test_rules_in_hjson_by_a_loader_of_ones_own(
    posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = {"category": "ids", "details": {"signature": "SCAN nmap", "dst_ip": "192.0.2.77"}}
    posted(scan, scan, {**scan, "details": {**scan["details"], "dst_ip": "192.0.2.78"}})
    (one,) = run(settings, capsys, f"{ALERTS}/generic_loader.py:AlertGenericLoader")

    assert (one["summary"], one["severity"], one["mozdef"]["severity"]) == (
        "ids: scans of 192.0.2.0/24",
        "info",
        "DEBUG",
    )
    assert (one["mozdef"]["classname"], one["mozdef"]["tags"]) == ("Scans", ["ids"])


def test_names_of_old_alerts(posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """_type, a field that only MozDef has, and the full name of a host."""
    posted({"eventsource": "old", "hostname": "web1.example.com"}, {"eventsource": "old", "host": "web2", "type": "x"})
    (one,) = run(settings, capsys, f"{ALERTS}/old_style.py:AlertOldStyle")

    assert one["summary"] == "web1.example.com old True"


def test_a_plug_in_changes_alerts_that_have_its_word(
    posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only plug-ins of ALERT_PLUGINS are loaded."""
    opened = {"category": "syslog", "summary": "pam_unix: Session opened for user root by anna", "hostname": "db1"}
    posted({**opened, "details": {"remote_addr": "10.0.0.7"}}, {**opened, "details": {"user": "backup"}})
    (one,) = run(settings, capsys, f"{ALERTS}/privileged.py:AlertPrivileged")

    assert (one["summary"], one["severity"]) == ("Root on db1", "critical")
    assert one["mozdef"]["where_from"] == "inside"
    assert one["mozdef"]["tags"] == ["root", "located"]


def test_lucene_of_several_parts(posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    tty = {"details": {"tty": "pts/0"}}
    posted(
        {"summary": "a root login", **tty},
        {"summary": "sudoers changed", "tags": ["loud"], **tty},
        {"summary": "root login"},
        {"summary": "root login, quietly", "tags": ["quiet"], **tty},
        {"summary": "login root", **tty},
    )
    found = run(settings, capsys, f"{ALERTS}/searched.py:AlertSearched")

    assert {(one["summary"], *one["mozdef"]["tags"]) for one in found} == {
        ("a root login",),
        ("sudoers changed", "loud"),
    }


def test_a_run_looks_at_events_by_receipt_and_by_their_own_time(
    posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those received in the time, however old; and those that happened in it, whenever they came."""
    opened = {"category": "syslog", "summary": "session opened for user root"}
    posted({**opened, "hostname": "late", "timestamp": "2026-01-30T12:00:00Z"})
    posted({**opened, "hostname": "then", "timestamp": "2026-01-31T11:58:00Z"}, at=3600)
    posted({**opened, "hostname": "now", "timestamp": "2026-01-31T12:00:00Z"}, at=3600)
    posted({**opened, "hostname": "never", "timestamp": "2026-01-31T11:54:00Z"}, at=3600)
    posted({**opened, "hostname": "before"}, at=-301)
    found = run(settings, capsys, f"{ALERTS}/privileged.py:AlertPrivileged")
    since = run(settings, capsys, f"{ALERTS}/privileged.py:AlertPrivileged", "--since", "2026-01-31T11:54:00Z")

    received = {"utctimestamp": "2026-01-31T11:00:00Z", "receivedtimestamp": "2026-01-31T11:01:00Z"}
    posted({**opened, "hostname": "copied", **received})
    then = run(settings, capsys, f"{ALERTS}/privileged.py:AlertPrivileged", at="2026-01-31T11:04:00Z")
    again = run(settings, capsys, f"{ALERTS}/privileged.py:AlertPrivileged")

    assert [one["summary"][8:] for one in then] == ["copied"]
    assert len(again) == len(found)
    assert {one["summary"][8:] for one in found} == {"late", "then", "now"}
    assert {one["summary"][8:] for one in since} == {"late", "then", "now", "never", "before"}


HEAD = """from lib.alerttask import AlertTask
from mozdef_util.query_models import SearchQuery, TermMatch, QueryStringMatch

class AlertBad(AlertTask):
    def main(self):
"""
SEARCH = """        self.filtersManual(SearchQuery(minutes=5))
        self.searchEventsSimple()
        self.walkEvents()
"""
ON_EVENT = SEARCH + "    def onEvent(self, event):\n"
OTHER_MODULE = "from mozdef_util.elasticsearch_client import X\n"


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("import pyes\n\nclass AlertBad: pass\n", ["line 1", "pyes", "SearchQuery(minutes"]),
        (HEAD + "        self.filtersManual(None, must=[])\n", ["line 6", "first generation"]),
        (HEAD + "        self.searchEventsAggreg('x')\n", ["line 6", "searchEventsAggregated"]),
        (
            OTHER_MODULE + HEAD + "        pass\n",
            ["line 1", "mozdef_util.query_models"],
        ),
        ("import no_such_module\n" + HEAD + "        pass\n", ["line 1", "no_such_module", "install it"]),
        (HEAD.replace("TermMatch,", "TreeMatch,") + "        pass\n", ["line 2", "TreeMatch", "TermMatch"]),
        (HEAD + "        import no_such_module\n", ["bad.py, line 6", "no_such_module", "install it"]),
        (
            HEAD + "        self.parse_config('bad.conf', ['a', 'missing'])\n",
            ["bad.py, line 6", "no missing under"],
        ),
        (HEAD + "        self.parse_config('none.conf', ['a'])\n", ["bad.py, line 6", "none.conf"]),
        (HEAD + "        self.parse_json_alert_config('bad.conf')\n", ["bad.py, line 6", "is no JSON"]),
        (HEAD + "        self.searchEventsSimple()\n", ["bad.py, line 6", "filtersManual"]),
        (HEAD + "        self.filtersFromKibanaDash('x')\n", ["bad.py, line 6", "Kibana"]),
        (HEAD + "        SearchQuery(minute=5)\n", ["bad.py, line 6", "minutes=20"]),
        (HEAD + "        SearchQuery().add_must('x')\n", ["bad.py, line 6", "query classes"]),
        (HEAD + "        QueryStringMatch('a:(')\n", ["bad.py, line 6", "a:("]),
        (HEAD + SEARCH, ["bad.py, line 8", "no onEvent"]),
        (
            HEAD + ON_EVENT + "        return event['_source']['nothing']\n",
            ["line 10", "nothing"],
        ),
        (HEAD + ON_EVENT + "        return {'a': 1}\n", ["createAlertDict"]),
        (HEAD + "        raise SystemExit(3)\n", ["bad.py, line 6", "SystemExit"]),
        (HEAD + "     oops\n", ["line 6"]),
        ("class AlertBad: pass\n", ["is no AlertTask"]),
        ("class AlertBad:\n    print 'x'\n", ["line 2", "Python 2"]),
    ],
    ids=lambda value: value[-40:] if isinstance(value, str) else "",
)
def test_what_cannot_be_run_is_said_with_file_line_and_the_way_out(
    text: str,
    reasons: list[str],
    posted: Posted,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    posted({"summary": "x"})
    (tmp_path / "bad.py").write_text(text)
    (tmp_path / "bad.conf").write_text("[options]\na = 1\n")
    said = run_badly(settings, capsys, f"{tmp_path}/bad.py:AlertBad")

    assert "bad.py" in said or "alert_bad" in said
    for reason in reasons:
        assert reason in said


def test_whatever_a_script_puts_into_its_alert_is_bounded_and_json(
    posted: Posted, settings: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Long events are cut, as evidence is; of very much only texts are kept; other values become texts."""
    (tmp_path / "bad.py").write_text(
        "import datetime\n"
        + HEAD
        + ON_EVENT
        + "        alert = self.createAlertDict('x' * 900, 'c', ['t'], [event] * 30)\n"
        "        alert['when'] = datetime.datetime(2026, 1, 31)\n        alert['some'] = {1, 2}\n"
        "        alert['odd'] = '\\ud800'\n"
        "        if event['_source']['category'] == 'large':\n            alert['much'] = ['y' * 1000] * 1000\n"
        "        return alert\n"
    )
    posted({"category": "small", "summary": "z" * 20_000}, {"category": "large", "summary": "w"})
    found = run(settings, capsys, f"{tmp_path}/bad.py:AlertBad")
    large, small = sorted((one["mozdef"] for one in found), key=lambda one: "is_cut" not in one)

    assert (small["when"], small["some"], len(small["odd"])) == ("2026-01-31 00:00:00", [1, 2], 1)
    assert (len(small["events"]), small["events_left_out"]) == (20, 10)
    assert len(small["events"][0]["documentsource"]["summary"]) == 2000
    assert ("much" in large, large["events"][0]["documentsource"], len(large["summary"])) == (False, None, 900)
    assert {len(one["summary"]) for one in found} == {500}


def test_a_script_that_catches_whatever_it_likes_hides_no_failing_search(
    posted: Posted,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that did not see all events is no run."""
    monkeypatch.setattr("logweir_workers.alerts.scheduled.events.StoredEvents._require_time", _too_late)
    (tmp_path / "bad.py").write_text(
        HEAD + "        try:\n    " + SEARCH.replace("\n", "\n    ").rstrip() + "\n        except Exception: pass\n"
    )

    assert "too late" in run_badly(settings, capsys, f"{tmp_path}/bad.py:AlertBad")


def _too_late(_: object) -> None:
    raise TimeoutError("too late")


def test_a_script_that_never_comes_back_is_ended(
    posted: Posted,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("logweir_workers.alerts.mozdef.folder.TIMEOUT_US", 300_000)
    (tmp_path / "bad.py").write_text(HEAD + "        while True: pass\n")

    assert "it took longer than" in run_badly(settings, capsys, f"{tmp_path}/bad.py:AlertBad")
