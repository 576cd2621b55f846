"""``logweir keys`` as an operator types it: the key alone on standard output, all else said without it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from logweir.cli import main
from logweir.commands.doctor import examine
from logweir.config import load
from logweir.keys.file import hash_of, read_keys
from logweir.keys.usage import note_usage

EVERY_FLAG = [
    "--expires",
    "90d",
    "--network",
    "10.0.0.0/8",
    "--network",
    "2001:db8::1",
    "--category",
    "web",
    "--category",
    "mail",
    "--events-per-second",
    "500",
    "--bytes-per-second",
    "1000000",
    "--stamp",
    "site=north",
    "--stamp",
    "category=web",
    "--unreadable",
    "refuse",
]


class Command:
    """Runs the command over one data folder."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data_dir = data_dir
        self.path = data_dir / "keys.toml"
        self._capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        status = main(["keys", *words, "--data-dir", str(self.data_dir)])
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err

    def printed(self, *words: str) -> str:
        status, output, error = self.run(*words)
        assert status == 0, error
        return output

    def rows(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = json.loads(self.printed("list", "--json"))
        return rows


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def test_the_key_is_printed_alone_on_standard_output_and_never_again(command: Command) -> None:
    """`KEY=$(logweir keys add NAME)` works; hints go to standard error; no other command shows key or whole hash."""
    keys = []
    for words in (["add", "web"], ["rotate", "web"]):
        status, output, error = command.run(*words)
        key = output.removesuffix("\n")
        assert status == 0 and key.startswith("lw_") and "\n" not in key and key not in error
        keys.append(key)
    id = read_keys(command.path)[0].id
    shown = [
        command.run(*words)
        for words in (
            ["list"],
            ["list", "--json"],
            ["show", "web"],
            ["show", "web", "--json"],
            ["set", "web", "--events-per-second", "5"],
            ["revoke", "web", "--id", id],
            ["list"],
        )
    ]

    assert all(status == 0 for status, _, _ in shown)
    for _, output, error in shown:
        for key in keys:
            assert key not in output + error
            assert hash_of(key.encode()).removeprefix("sha256:") not in output + error


def test_every_term_is_set_by_a_flag_and_shown(command: Command) -> None:
    """What add was told is what show says, to people and to programs."""
    command.printed("add", "web", *EVERY_FLAG)
    text = command.printed("show", "web")
    (row,) = json.loads(command.printed("show", "web", "--json"))

    until = datetime.fromisoformat(row["expires"])
    assert timedelta(days=89) < until - datetime.now(UTC) < timedelta(days=91)
    assert {name: row[name] for name in ("name", "state", "used", "revoked")} == {
        "name": "web",
        "state": "live",
        "used": None,
        "revoked": None,
    }
    assert row["networks"] == ["10.0.0.0/8", "2001:db8::1/128"]
    assert row["categories"] == ["web", "mail"]
    assert (row["events_per_second"], row["bytes_per_second"]) == (500, 1_000_000)
    assert row["stamp"] == {"site": "north", "category": "web"}
    assert row["unreadable"] == "refuse"
    assert text.startswith("web\n")
    for words in (
        row["id"],
        row["expires"],
        "10.0.0.0/8, 2001:db8::1/128",
        "web, mail",
        "500",
        "1000000",
        "site=north, category=web",
        "unreadable         refuse",
    ):
        assert words in text


def test_a_key_without_terms_says_so(command: Command) -> None:
    """Nothing set reads as a sentence, not as nothing."""
    command.printed("add", "web")
    lines = dict(line.strip().split("  ", 1) for line in command.printed("show", "web").splitlines()[1:])

    assert {label: text.strip() for label, text in lines.items()}.items() >= {
        "expires": "never",
        "networks": "any",
        "categories": "any",
        "events per second": "any number",
        "bytes per second": "any number",
        "stamp": "nothing",
        "unreadable": "kept of senders that a refusal would stop for good",
    }.items()


def test_set_changes_what_it_is_told_and_clears(command: Command) -> None:
    """The rest stays; without a flag it is a mistake."""
    command.printed("add", "web", *EVERY_FLAG)
    printed = command.printed(
        "set",
        "web",
        "--expires",
        "never",
        "--network",
        "192.0.2.0/24",
        "--clear",
        "stamp",
        "--clear",
        "bytes-per-second",
    )
    (row,) = command.rows()
    status, _, error = command.run("set", "web")

    assert row["expires"] is None and row["networks"] == ["192.0.2.0/24"]
    assert row["stamp"] == {} and row["bytes_per_second"] is None
    assert row["categories"] == ["web", "mail"] and row["events_per_second"] == 500
    assert "192.0.2.0/24" in printed
    assert status == 2 and "no flag says what to change" in error


def test_rotate_says_until_when_the_old_keys_work(command: Command) -> None:
    """Seven days unless told otherwise; each old key by its id, with how to end it earlier."""
    command.printed("add", "web", "--network", "10.0.0.0/8")
    _, _, hints = command.run("rotate", "web")
    first, second = command.rows()
    _, _, later_hints = command.run("rotate", "web", "--grace", "never")
    command.printed("rotate", "web", "--grace", "0s")

    end = datetime.fromisoformat(str(first["expires"]))
    assert timedelta(days=6, hours=23) < end - datetime.now(UTC) <= timedelta(days=7)
    assert second["expires"] is None and second["networks"] == first["networks"] == ["10.0.0.0/8"]
    assert f"until {first['expires']}" in hints and f"logweir keys revoke web --id {first['id']}" in hints
    assert f"(id {second['id']}) works until it is revoked" in later_hints
    assert [row["state"] for row in command.rows()] == ["expired", "expired", "expired", "live"]


def test_list_names_every_key_with_its_last_use(command: Command) -> None:
    """One line a key; an empty file says how to begin."""
    status, output, hint = command.run("list")
    assert (status, output) == (0, "") and "logweir keys add NAME" in hint

    command.printed("add", "web", "--expires", "2030-01-31")
    command.printed("add", "mail")
    command.printed("revoke", "mail")
    web, mail = read_keys(command.path)
    note_usage(command.path, {web.id: "2026-01-02T03:04:05Z"}, ids=[web.id, mail.id])
    head, *lines = command.printed("list").splitlines()

    assert head.split() == ["NAME", "ID", "CREATED", "LAST", "USED", "EXPIRES", "STATE"]
    assert lines[0].split() == ["web", web.id, web.created, "2026-01-02T03:04:05Z", "2030-01-31T00:00:00Z", "live"]
    assert lines[1].split() == ["mail", mail.id, mail.created, "-", "-", "revoked", str(mail.revoked)]
    assert command.rows()[0]["used"] == "2026-01-02T03:04:05Z"


MISTAKES = [
    (["add", "a b"], "'a b' cannot be a key's name"),
    (["add", "other", "--network", "10.0.0.1/8"], "write 10.0.0.0/8"),
    (["add", "other", "--expires", "soon"], "not a time with its zone"),
    (["add", "other", "--expires", "999999999w"], "after the year 9999"),
    (["add", "other", "--category", ""], "1 to 200 visible"),
    (["add", "other", "--category", "web", "--stamp", "category=mail"], "has only web"),
    (["add", "web"], "logweir keys rotate web"),
    (["rotate", "web", "--grace", "soon"], "--grace cannot be 'soon'"),
    (["rotate", "web", "--grace", "999999999w"], "after the year 9999"),
    (["rotate", "wep"], "Did you mean 'web'?"),
    (["show", "wep"], "Did you mean 'web'?"),
    (["revoke", "web", "--id", "x"], "has the id 'x'"),
    (["revoke", "lw_" + "k" * 43], "'lw_***'"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(words)[:40] for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_changes_nothing(command: Command, words: list[str], said: str) -> None:
    """Status 2; what was meant wrong, why, and what to do."""
    command.printed("add", "web")
    before = command.path.read_text()
    status, output, error = command.run(*words)

    assert (status, output) == (2, "")
    assert said in error and error.count("\n") == 1 and "k" * 43 not in error
    assert command.path.read_text() == before


@pytest.mark.parametrize("words", [["add", "x", "--events-per-second", "0"], ["add", "x", "--stamp", "site"]])
def test_a_flag_that_cannot_be_read_is_named(command: Command, words: list[str]) -> None:
    """As every command does it."""
    with pytest.raises(SystemExit) as ended:
        command.run(*words)

    assert ended.value.code == 2
    assert not command.path.exists()


def test_doctor_warns_of_a_name_that_is_soon_without_a_key(command: Command) -> None:
    """Before its senders are refused, not after; a name with a later key is fine."""
    command.printed("add", "web", "--expires", "10d")
    command.printed("add", "mail", "--expires", "3d")
    command.printed("add", "app", "--expires", "3d")
    command.printed("rotate", "app", "--expires", "never")

    settings = load(overrides={"data_dir": command.data_dir}, environment={})
    (finding,) = [one for one in examine(settings) if one.what == "keys"]
    command.printed("rotate", "mail", "--expires", "90d")
    (afterwards,) = [one for one in examine(settings) if one.what == "keys"]

    assert finding.state == "warning" and finding.found.endswith("no key is left of mail")
    assert "logweir keys rotate mail" in finding.advice
    assert (afterwards.state, afterwards.found) == ("ok", "3 live: app, mail, web")
