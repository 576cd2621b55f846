"""The file of channels: what it may say, what is refused with which words, and that no secret is shown anywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from logweir import cli
from logweir.errors import CHANNELS_BAD, SETTING_NEEDS_EXTRA, LogweirError
from logweir_workers.notify.channels import ChannelFile, find, read_channels
from logweir_workers.notify.notice import Told
from tests.workers.notify.alerts import told
from tests.workers.notify.receivers import Answer, receiving

KEY = "0123456789abcdef0123456789abcdef"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # of the specification's example
Run = Callable[..., tuple[int, str, str]]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "channels.toml"
    path.write_text(text)
    return path


@pytest.fixture
def run(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        status = cli.main(["channels", *words, "--data-dir", str(tmp_path)])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return call


def test_a_file_of_every_kind_of_channel_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets by the environment, by a file, or as they are; without a file there are no channels."""
    monkeypatch.setenv("PAGER_KEY", KEY)
    (tmp_path / "hook").write_text(f"{WHSEC}\n")
    path = written(
        tmp_path,
        f"""
        [pager]
        type = "pagerduty"
        routing_key = "env:PAGER_KEY"
        severities = ["critical", "high"]
        [hook]
        type = "webhook"
        url = "https://hooks.example.org/x"
        secret = "file:{tmp_path}/hook"
        rules = ["ssh_*"]
        group_by = ["rule", "details.ip"]
        [team]
        type = "slack"
        token = "xoxb-1"
        channel = "C1"
        [prometheus]
        type = "alertmanager"
        url = "http://alertmanager:9093/"
        labels = {{ team = "soc" }}
        [mail]
        type = "smtp"
        host = "mail.example.org"
        sender_address = "logweir@example.org"
        to = ["ops@example.org"]
        """,
    )
    channels = read_channels(path)

    assert list(channels) == ["pager", "hook", "team", "prometheus", "mail"]
    assert channels["pager"].settings.routing_key.get_secret_value() == KEY  # type: ignore[attr-defined]
    assert channels["hook"].settings.secret.get_secret_value() == WHSEC  # type: ignore[attr-defined]
    assert (channels["hook"].settings.wait_s, channels["hook"].settings.interval_s) == (30, 300)
    assert (channels["pager"].settings.wait_s, channels["pager"].settings.interval_s) == (0, 0)
    assert KEY not in repr(channels)
    assert WHSEC not in repr(channels)
    assert read_channels(tmp_path / "absent.toml") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[a]\ntype = "pagerdty"\nrouting_key = "S3CRET"', ("'pagerduty'",)),
        ('[a]\ntype = "pagerduty"\nroutng_key = "S3CRET"', ("routng_key", "'routing_key'")),
        ('[a]\ntype = "pagerduty"\nroute = "S3CRET"', ("route", "routing_key")),
        ('[a]\ntype = "pagerduty"', ("routing_key: it is needed",)),
        ('[a]\ntype = "webhook"\nurl = "S3CRET"\nsecret = "whsec_S3CRET"', ("url", "not a URL")),
        ('[a]\ntype = "webhook"\nurl = "https://x/S3CRET"\nsecret = "whsec_S3CRET"', ("secret", "base64")),
        ('[a]\ntype = "pagerduty"\nrouting_key = "env:LW_NONE"', ("routing_key", "no variable LW_NONE")),
        ('[a]\ntype = "pagerduty"\nrouting_key = "file:/nowhere/at/all"', ("routing_key", "/nowhere/at/all")),
        ('[a]\ntype = "pagerduty"\nrouting_key = 7', ("routing_key", "not text")),
        ('[a]\ntype = "pagerduty"\nrouting_key = "x"\nseverities = ["hihg"]', ("severities", "'critical'")),
        ('[a]\ntype = "pagerduty"\nrouting_key = "x"\nrepeat_s = -1', ("repeat_s", "at least 0")),
        ('[a]\ntype = "slack"\ntoken = "S3CRET"', ("token and channel",)),
        ('[a]\ntype = "alertmanager"\nurl = "http://x"\ngroup_by = ["rule"]', ("group_by", "groups alerts itself")),
        ('[a]\ntype = "smtp"\nhost = "x"\nsender_address = "a@b"\nto = []', ("to", "one at least")),
        ('[a]\ntype = "smtp"\nhost = "x"\nsender_address = "a@b"\nto = ["x@y\\r\\nBcc: z@y"]', ("to", "no")),
        ('[a]\ntype = "alertmanager"\nurl = "http://anna:S3CRET@x"', ("url", "not sent")),
        ('[a]\ntype = "alertmanager"\nurl = "http://x"\nca_file = "/nowhere/at.all"', ("ca_file", "No such file")),
        ('[a]\ntype = "alertmanager"\nurl = "http://x"\nca_file = "/etc/hostname"', ("ca_file", "no certificates")),
        ('[A]\ntype = "slack"', ("its name",)),
        ('a = "S3CRET"', ("a channel is a table",)),
        ('[a]\nrouting_key = "S3CRET', ("not TOML (at",)),
    ],
)
def test_what_means_nothing_is_refused_by_its_name_and_without_its_value(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(LogweirError) as error:
        read_channels(written(tmp_path, text))

    assert error.value.problem is CHANNELS_BAD
    assert [word for word in words if word not in str(error.value)] == []
    assert "S3CRET" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_too_many_channels_and_an_absent_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LogweirError) as many:
        read_channels(written(tmp_path, "\n".join(f'[a{n}]\ntype="pagerduty"\nrouting_key="x"' for n in range(33))))
    import sys

    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(LogweirError) as absent:
        read_channels(written(tmp_path, '[a]\ntype = "apprise"\nurls = ["json://localhost"]'))

    assert "at most 32" in str(many.value)
    assert absent.value.problem is SETTING_NEEDS_EXTRA
    assert "logweir[notify]" in str(absent.value)


@pytest.mark.parametrize(
    ("asked", "alert", "wanted"),
    [
        ("", told(), True),
        ('severities = ["critical"]', told(severity="high"), False),
        ('severities = ["critical", "high"]', told(severity="high"), True),
        ('rules = ["ssh_*"]', told(rule="ssh_brute_force"), True),
        ('rules = ["ssh_*"]', told(rule="root_login"), False),
        ('tags = ["attack.*"]', told(tags=("attack.t1110", "x")), True),
        ('tags = ["attack.*"]', told(tags=()), False),
        ('tags = ["attack.*"]\nrules = ["no"]', told(tags=("attack.t1110",)), False),
    ],
)
def test_a_channel_takes_the_alerts_that_it_names(tmp_path: Path, asked: str, alert: Told, wanted: bool) -> None:
    channels = read_channels(written(tmp_path, f'[a]\ntype = "pagerduty"\nrouting_key = "x"\n{asked}'))

    assert find(channels, "a").wants(alert) is wanted


def test_changes_count_and_what_cannot_be_read_leaves_all_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a file with a secret, too; neither the log nor the error shows one."""
    secret = tmp_path / "key"
    secret.write_text("S3CRET-1")
    path = written(tmp_path, f'[a]\ntype = "pagerduty"\nrouting_key = "file:{secret}"')
    file = ChannelFile(path)
    first = file.reload(), file.reload()
    before = file.channels
    secret.write_text("S3CRET-22")
    after_secret = file.reload()
    with caplog.at_level(logging.INFO):
        path.write_text('[a]\ntype = "pagerduty"\nrouting_kex = "S3CRET-333"')
        after_mistake = file.reload(), file.reload()
    kept = file.channels
    path.unlink()
    gone = file.reload()

    assert first == (True, False)
    assert (after_secret, after_mistake, gone) == (True, (False, False), True)
    assert before["a"] != kept["a"]
    assert kept["a"].settings.routing_key.get_secret_value() == "S3CRET-22"  # type: ignore[attr-defined]
    assert "routing_kex" in caplog.text
    assert "S3CRET" not in caplog.text
    assert file.channels == {}


def test_channels_are_listed_without_their_secrets(run: Run, tmp_path: Path) -> None:
    written(tmp_path, f'[pager]\ntype = "pagerduty"\nrouting_key = "{KEY}"\nseverities = ["high"]')
    status, table, _ = run("list")
    _, listed, _ = run("list", "--json")

    assert status == 0
    assert "pager " in table
    assert "once: it knows an alert by dedup_key" in table
    assert json.loads(listed)["channels"][0]["severities"] == ["high"]
    assert KEY not in table + listed


def test_a_test_says_that_something_happens_and_that_it_is_over(run: Run, tmp_path: Path) -> None:
    with receiving() as receiver:
        written(tmp_path, f'[hook]\ntype = "webhook"\nurl = "{receiver.url}/in"\nsecret = "{WHSEC}"')
        status, out, err = run("test", "hook", "--json")
        sent = [one.json for one in receiver.requests]

    assert status == 0, err
    assert json.loads(out)["sent"] == ["firing", "resolved"]
    assert [one["data"]["state"] for one in sent] == ["firing", "resolved"]
    assert {one["type"] for one in sent} == {"alert.test"}
    assert sent[0]["data"]["thread"] == sent[1]["data"]["thread"]
    assert sent[0]["data"]["title"].startswith("TEST ")


def test_a_test_that_fails_says_why_and_shows_no_secret(run: Run, tmp_path: Path) -> None:
    """Of a receiver that answers with the URL and the secret, and of one that is not there."""

    def answer(request: object, number: int) -> Answer:
        return Answer(503, body=f"no: {WHSEC} /services/S3CRET-PATH".encode())

    with receiving(answer) as receiver:
        url = f"{receiver.url}/services/S3CRET-PATH"
        written(tmp_path, f'[hook]\ntype = "webhook"\nurl = "{url}"\nsecret = "{WHSEC}"')
        refused = run("test", "hook")
    absent = run("test", "hook")
    unknown = run("test", "hok")

    assert (refused[0], absent[0], unknown[0]) == (2, 2, 2)
    assert "it answered 503: no: *** ***" in refused[2]
    assert "Did you mean 'hook'?" in unknown[2]
    for _, out, err in (refused, absent):
        assert "S3CRET" not in out + err
        assert WHSEC not in out + err
