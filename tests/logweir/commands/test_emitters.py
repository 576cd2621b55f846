"""`logweir emitters`: who sends, in which state, who has fallen silent; and what a person says of them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from logweir import cli
from logweir.clock import now_us
from logweir.config import Settings
from logweir.store.port import Store
from tests.logweir.silence_world import START, World, batch

NOW = now_us() // 60_000_000 - START


@pytest.fixture
def world(store: Store) -> World:
    """Four of one network that stopped half an hour ago, and one that goes on; sources likewise."""
    world = World(store, group="logweir")
    for at in range(NOW - 90, NOW):
        world.canary(at)
        if at % 5 == 0:
            world.send(batch(at, "steady", address="10.9.0.1"), sources=[("syslog", "h0")])
        if at < NOW - 60 and at % 5 == 0:
            for name in ("a", "b", "c", "d"):
                world.send(batch(at, name), sources=[("syslog", f"h-{name}")])
    world.flush(NOW)
    return world


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was heard for a minute is learned."""
    monkeypatch.setenv("LOGWEIR_SILENCE_LEARN_S", "60")


def emitters(settings: Settings, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = cli.main(["emitters", *words, "--data-dir", str(settings.data_dir)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def document(settings: Settings, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return orjson.loads(emitters(settings, capsys, *words, "--json")[1])


def test_of_a_key_with_very_many_a_few_are_listed_and_the_rest_is_counted(
    settings: Settings, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have fallen silent before others, in both lists; `logweir audit` does likewise."""
    monkeypatch.setattr("logweir.commands.output.ROWS_OF_KEY_MAX", 2)
    _, table = emitters(settings, capsys)
    _, sources = emitters(settings, capsys, "--sources")
    cli.main(["audit", "--data-dir", str(settings.data_dir)])
    books = capsys.readouterr().out

    (key,) = {row["key"] for row in document(settings, capsys)}
    assert [f"{key}/{name} " in table for name in ("a", "b", "steady")] == [True, True, False]
    assert f"Not listed: 3 emitters more of the key {key}; --json has all." in table
    assert f"Not listed: 3 sources more of the key {key}" in sources
    assert f"Not listed: 3 emitters more of the key {key}" in books
    assert len(document(settings, capsys)) == 5


def test_every_emitter_and_source_is_listed_with_its_state(
    settings: Settings, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people a table and a pointer to what was found; for programs an array; both narrowed by a state."""
    _, table = emitters(settings, capsys)
    rows = document(settings, capsys)
    sources = document(settings, capsys, "--sources")

    assert "Findings of silence: 2. See them: logweir emitters silent" in table
    assert "every 5 min" in table
    assert {row["name"]: row["state"] for row in rows} == {
        "app/a": "silent",
        "app/b": "silent",
        "app/c": "silent",
        "app/d": "silent",
        "app/steady": "ok",
    }
    assert all(row["lost"] is None and row["indexed"] > 0 for row in rows)
    assert {row["name"]: row["state"] for row in sources} == {
        "syslog@h-a": "silent",
        "syslog@h-b": "silent",
        "syslog@h-c": "silent",
        "syslog@h-d": "silent",
        "syslog@h0": "ok",
    }
    assert [row["name"] for row in document(settings, capsys, "--state", "ok")] == ["app/steady"]
    assert "syslog@h-a" not in emitters(settings, capsys, "--sources", "--state", "ok")[1]


def test_those_that_fell_silent_together_are_one_line(
    settings: Settings, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the members in it; the exit status says that there is something to look at."""
    status, text = emitters(settings, capsys, "silent")
    found = document(settings, capsys, "silent")

    assert status == 1
    assert "network 10.1.2.0/24: 4 emitters silent since" in text
    assert "app/a, app/b, app/c, app/d" in text
    assert [(one["of"], one["kind"], one["name"], len(one["members"])) for one in found["findings"]] == [
        ("emitter", "network", "10.1.2.0/24", 4),
        ("source", "network", "10.1.2.0/24", 4),
    ]
    assert [row["name"] for row in found["emitters"]] == ["app/a", "app/b", "app/c", "app/d"]


def test_what_a_person_says_holds_until_it_is_taken_back(
    settings: Settings, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fixed cadence, a muting with or without an end, a retirement; each has its opposite."""
    for words, back, state in (
        (("expect", "app/a", "--every", "24h"), "unexpect", "ok"),
        (("mute", "app/a", "--for", "8h"), "unmute", "muted"),
        (("mute", "app/a"), "unmute", "muted"),
        (("retire", "app/a"), "unretire", "retired"),
    ):
        said = document(settings, capsys, *words)
        listed = {row["name"]: row for row in document(settings, capsys)}["app/a"]
        undone = document(settings, capsys, back, "app/a")

        assert said["state"] == listed["state"] == state
        assert (said["fixed"], said["expected_s"]) == ((True, 86_400.0) if words[0] == "expect" else (False, 300.0))
        assert undone["state"] == "silent"


def test_a_source_is_named_as_the_list_names_it(
    settings: Settings, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is said of it is said of no emitter; words for people name state and cadence."""
    status, text = emitters(settings, capsys, "expect", "--source", "syslog@h-a", "--every", "90m")
    states = {row["name"]: row["state"] for row in document(settings, capsys, "--sources")}

    assert (status, text) == (0, "syslog@h-a: ok, expected every 1 h 30 min (fixed)\n")
    assert (states["syslog@h-a"], states["syslog@h-b"]) == ("ok", "silent")


def test_nobody_is_silent_exits_with_0(settings: Settings, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Once all that is silent is muted or retired there is nothing left to look at."""
    for name in "abcd":
        emitters(settings, capsys, "retire", f"app/{name}")
        emitters(settings, capsys, "mute", "--source", f"syslog@h-{name}")
    status, text = emitters(settings, capsys, "silent")

    assert status == 0
    assert text.startswith("Nobody has fallen silent.\nSilence is judged up to 20")


def test_a_name_that_is_not_known_is_refused_with_the_nearest(
    settings: Settings, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is kept of what was said; a time that cannot be is refused before that."""
    status, text = emitters(settings, capsys, "mute", "app/stead")

    assert (status, "Did you mean 'app/steady'?" in text) == (2, True)
    for words in (
        ("expect", "app/a", "--every", "5s"),
        ("expect", "app/a", "--every", "14d"),
        ("expect", "app/a", "--every", "often"),
        ("mute", "app/a", "--for", "0s"),
    ):
        with pytest.raises(SystemExit):
            emitters(settings, capsys, *words)
    assert list(world.store.ledger.scan("expectation:")) == []


def test_what_is_beyond_the_limits_is_said(
    settings: Settings, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Emitters and sources for which there was no room are counted, and the lists say so."""
    ledger = world.ledgers[0]
    ledger.sources.untracked, ledger.emitters.untracked = 3, 1200
    world.canary(NOW)
    world.flush(NOW)
    _, text = emitters(settings, capsys)

    assert "Not watched: 1,200 batches of emitters beyond accounting.emitters_max." in text
    assert "Not watched: 3 records of sources beyond accounting.sources_max." in text
