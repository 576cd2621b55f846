"""Settings: where they come from, which wins, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from logweir import config
from logweir.commands.config import as_toml, value_of
from logweir.commands.doctor import _configuration
from logweir.errors import CONFIG_UNREADABLE, SETTING_BAD, SETTING_UNKNOWN, LogweirError
from logweir.queue import open_queue
from logweir.store import open_store


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "logweir.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    """Each place overrules the one before it, setting by setting."""
    path = written(tmp_path, "[ingest]\nport = 1001\nprocesses = 3\naddress = '10.0.0.1'\n")
    settings = config.load(
        config_file=path,
        environment={"LOGWEIR_INGEST_PORT": "1002", "LOGWEIR_INGEST_PROCESSES": "4"},
        overrides={"ingest.port": "1003"},
    )

    assert (settings.ingest.port, settings.ingest.processes, settings.ingest.address) == (1003, 4, "10.0.0.1")


def test_places_follow_from_the_data_folder(tmp_path: Path) -> None:
    """Queue, store and keys are in the data folder unless said otherwise."""
    settings = config.load(overrides={"data_dir": tmp_path}, environment={})

    assert config.sqlite_path(settings.queue.url) == tmp_path / "queue.sqlite"
    assert config.sqlite_path(settings.store.url) == tmp_path / "store"
    assert settings.keys_path == tmp_path / "keys.toml"


@pytest.mark.parametrize(
    ("text", "environment", "named"),
    [
        ("[queue]\nulr = 'x'\n", {}, "'queue.url'"),
        ("[que]\nurl = 'x'\n", {}, "'queue.url'"),
        ("", {"LOGWEIR_QUEUE_ULR": "x"}, "'LOGWEIR_QUEUE_URL'"),
    ],
)
def test_an_unknown_setting_is_an_error_that_names_the_nearest(
    tmp_path: Path, text: str, environment: dict[str, str], named: str
) -> None:
    """A misspelt setting never passes silently, wherever it stands."""
    with pytest.raises(LogweirError) as caught:
        config.load(config_file=written(tmp_path, text), environment=environment)

    assert caught.value.problem is SETTING_UNKNOWN
    assert f"Did you mean {named}?" in str(caught.value)


def test_a_bad_value_says_where_it_stands_and_keeps_secrets(tmp_path: Path) -> None:
    """The error names place, setting, value and reason; a password's value is masked."""
    with pytest.raises(LogweirError) as caught:
        config.load(environment={"LOGWEIR_INGEST_PORT": "70000"})
    with pytest.raises(LogweirError) as masked:
        config.load(config_file=written(tmp_path, "[queue]\npassword = ['hunter2']\n"), environment={})

    assert caught.value.problem is SETTING_BAD
    assert "LOGWEIR_INGEST_PORT" in str(caught.value)
    assert "70000" in str(caught.value)
    assert "hunter2" not in str(masked.value)


@pytest.mark.parametrize("prefix", ["Staging-", "-x", "a b", "a/", "x-events-", "a" * 101])
def test_a_prefix_that_no_index_may_have_or_that_reaches_into_anothers_is_refused(prefix: str) -> None:
    """Elasticsearch's rules for names; with "events-" in it, its indices would be those of another's days."""
    with pytest.raises(LogweirError) as caught:
        config.load(environment={"LOGWEIR_STORE_INDEX_PREFIX": prefix})

    assert caught.value.problem is SETTING_BAD
    assert "begin with a letter or digit, without 'events-'" in str(caught.value)


def test_a_named_file_must_be_there_and_readable(tmp_path: Path) -> None:
    """The default file may be absent; one that was asked for may not, nor may it be broken."""
    for path in (tmp_path / "absent.toml", written(tmp_path, "[queue\n")):
        with pytest.raises(LogweirError) as caught:
            config.load(config_file=path, environment={})

        assert caught.value.problem is CONFIG_UNREADABLE
        assert str(path) in str(caught.value)


def test_an_empty_variable_is_not_set() -> None:
    """Compose and unit files pass empty variables for what the operator left out."""
    assert config.load(environment={"LOGWEIR_INGEST_PORT": ""}).ingest.port == 8080


def test_what_config_prints_can_be_read_again(tmp_path: Path) -> None:
    """`logweir config` prints a file that gives the same settings, without the secrets."""
    before = config.load(
        environment={"LOGWEIR_STORE_PASSWORD": "hunter2", "LOGWEIR_INGEST_KEY_HEADERS": "X-A, X-B"},
        overrides={"data_dir": tmp_path},
    )
    text = as_toml(before)
    after = config.load(config_file=written(tmp_path, text), environment={"LOGWEIR_STORE_PASSWORD": "hunter2"})

    assert "hunter2" not in text
    assert after == before


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:hunter2@es:9200", "https://***@es:9200"),
        ("https://me:hunter2@a:9200,https://me:hunter2@b:9200", "https://***@a:9200,https://***@b:9200"),
        ("https://me:hunt,er2/@x@es:9200", "https://***@es:9200"),
        ("htps:/me:hunter2@es", "***@es"),
        ("me:hunter2@es:9200", "***@es:9200"),
        ("kafka://me:hunter2@k1:9092,me:hunter2@k2/events", "kafka://***@k2/events"),
        ("https://es:9200", "https://es:9200"),
        ("kafka://k1:9092,k2:9092/events", "kafka://k1:9092,k2:9092/events"),
        ("sqlite:////srv/a@b/store", "sqlite:////srv/a@b/store"),
    ],
)
def test_a_shown_url_has_neither_user_nor_password(url: str, shown: str) -> None:
    """However badly an address is written, its password is not printed; what has none stays as it is."""
    assert config.shown_url(url) == shown


def test_passwords_in_addresses_are_printed_by_no_command(tmp_path: Path) -> None:
    """`logweir config`, `doctor` and the errors of a mistyped scheme mask what stands before the @."""
    for scheme in ("https", "htps"):
        url = f"{scheme}://me:hunter2@127.0.0.1:1"
        settings = config.load(environment={"LOGWEIR_STORE_URL": url, "LOGWEIR_QUEUE_URL": url})
        printed = [as_toml(settings), value_of(settings, "store.url"), str(_configuration(settings))]
        for open_port in (lambda s: open_queue(s.queue), lambda s: open_store(s.store).check()):
            with pytest.raises(LogweirError) as caught:
                open_port(settings)
            printed.append(str(caught.value))
        with pytest.raises(LogweirError) as caught:
            config.load(config_file=written(tmp_path, f"[store]\nurl = ['{url}']\n"), environment={})
        printed.append(str(caught.value))

        assert all("127.0.0.1:1" in text for text in printed)
        assert "hunter2" not in "".join(printed)
        assert config.load(config_file=written(tmp_path, printed[0]), environment={}).store.url.startswith("sqlite:")


def test_advanced_settings_stand_below_the_others() -> None:
    """In each section, under a line that says what they are; none is left out."""
    lines = as_toml(config.load(environment={})).splitlines()
    section = lines[lines.index("[ingest]") : lines.index("[queue]")]
    names = [
        name
        for line in section
        if (name := line.lstrip("# ").partition(" = ")[0]) in config.IngestSettings.model_fields
    ]
    split = next(at for at, line in enumerate(section) if line.startswith("# Advanced"))

    assert sorted(names) == sorted(config.IngestSettings.model_fields)
    assert section.index("port = 8080") < split < section.index("headers_max = 100")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ingest.port", "x", "'x': it is not a whole number."),
        ("ingest.port", "70000", "'70000': it must be at most 65535."),
        ("store.timeout_s", "0", "'0': it must be more than 0."),
        ("store.timeout_s", "inf", "'inf': it is not a number."),
        ("queue.tls", "maybe", "'maybe': it is neither true nor false."),
        ("log.format", "xml", "'xml': it must be 'text' or 'json'."),
        ("worker.group", "a b", "'a b': it has a character that it may not have, or is too long."),
        ("accounting.event_fields", "{a}", "'{a}': '{a}' does not read"),
    ],
)
def test_what_is_wrong_with_a_value_is_said_in_words(name: str, value: str, said: str) -> None:
    """Not in a library's."""
    with pytest.raises(LogweirError) as caught:
        config.load(environment={}, overrides={name: value})

    assert f"sets {name} to {said}" in caught.value.detail


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("[::1]", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("10.0.0.1", True),
        ("logs.example.org", True),
    ],
)
def test_console_is_open_beyond_loopback(address: str, is_open: bool) -> None:
    """And demands the names that it is called by there."""
    console = config.ConsoleSettings(address=address)

    assert console.is_open == is_open
    if is_open:
        with pytest.raises(LogweirError, match="does not say by which names"):
            console.require_hosts()
    console.model_copy(update={"hosts": ("x",)}).require_hosts()
