"""Keys: made once and shown once, kept hashed, never lost to a second command at the same moment."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from logweir.cli import main
from logweir.errors import KEY_NAME_BAD, KEY_NAME_TAKEN, KEY_NAME_UNKNOWN, KEYS_FILE_BAD, LogweirError
from logweir.keys import KeysFile, hash_of, read_keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.toml"


def _file(path: Path) -> KeysFile:
    return KeysFile(path, clock=lambda: 1_790_000_000_000_000)


def test_a_key_is_kept_hashed_and_only_for_its_owner(path: Path) -> None:
    """The file never holds the key itself, and nobody else may read even the hash."""
    key = _file(path).add("web-1")

    assert key.startswith("lw_") and len(key) == 46
    assert key not in path.read_text()
    assert [(known.name, known.hash, known.created, known.state) for known in read_keys(path)] == [
        ("web-1", hash_of(key.encode()), "2026-09-21T14:13:20Z", "live")
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_live_name_cannot_be_taken_again_until_it_is_revoked(path: Path) -> None:
    """One live key a name; revoking frees the name and keeps the old line as a record."""
    file = _file(path)
    file.add("web")
    with pytest.raises(LogweirError) as caught:
        file.add("web")
    assert caught.value.problem is KEY_NAME_TAKEN

    file.revoke("web")
    file.add("web")

    assert [known.state for known in read_keys(path)] == ["revoked", "live"]


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a/b", 'a"b', "a\nb"])
def test_a_bad_name_is_refused(path: Path, name: str) -> None:
    """Names go into metrics, logs and screens: they are plain."""
    with pytest.raises(LogweirError) as caught:
        _file(path).add(name)
    assert caught.value.problem is KEY_NAME_BAD
    assert not path.exists()


def test_revoking_an_unknown_name_suggests_the_nearest(path: Path) -> None:
    """A typing error is answered with the name that was meant."""
    _file(path).add("firewall")

    with pytest.raises(LogweirError) as caught:
        _file(path).revoke("firewal")
    assert caught.value.problem is KEY_NAME_UNKNOWN
    assert "'firewall'" in str(caught.value)


def test_what_a_person_wrote_into_the_file_stays(path: Path) -> None:
    """Comments beside keys are the operator's."""
    file = _file(path)
    file.add("web")
    path.write_text(path.read_text() + "# the team of the shop has it\n")

    file.add("mail")
    file.revoke("web")

    assert "# the team of the shop has it" in path.read_text()
    assert [known.name for known in read_keys(path)] == ["web", "mail"]


@pytest.mark.parametrize(
    "text",
    [
        "no toml", "[[key]]\nname = 'a'\n", "[[key]]\nname = 'a'\nhash = 'md5:1'\ncreated = 'x'\n",
        "[[key]]\nname = 'a b'\nhash = 'sha256:" + "0" * 64 + "'\ncreated = 'x'\n", "key = 3\n", "key = ['a']\n",
    ],
)  # fmt: skip
def test_a_broken_file_is_an_error_and_is_not_overwritten(path: Path, text: str) -> None:
    """A file that cannot be read may hold keys that are in use: no command touches it."""
    path.parent.mkdir()
    path.write_text(text)

    with pytest.raises(LogweirError) as caught:
        _file(path).add("web")
    assert caught.value.problem is KEYS_FILE_BAD
    assert path.read_text() == text


def test_keys_made_at_the_same_moment_all_survive(path: Path) -> None:
    """Eight processes add a key each at once; a lost one would be a key that was shown and never works."""
    program = "import sys; from pathlib import Path; from logweir.keys import KeysFile;"
    program += "print(KeysFile(Path(sys.argv[1])).add(sys.argv[2]))"
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(path), f"key-{n}"], stdout=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    keys = [process.communicate(timeout=60)[0].strip() for process in running]

    assert {known.hash for known in read_keys(path)} == {hash_of(key.encode()) for key in keys}
    assert len(set(keys)) == 8


def test_the_command_prints_the_key_alone_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`KEY=$(logweir keys add NAME)` works; hints go to standard error, and list shows no key."""
    flags = ["--data-dir", str(tmp_path)]
    assert main(["keys", "add", "web", *flags]) == 0
    key = capsys.readouterr().out.removesuffix("\n")
    assert key.startswith("lw_") and "\n" not in key

    assert main(["keys", "list", *flags]) == 0
    table = capsys.readouterr().out
    assert main(["keys", "revoke", "web", *flags]) == 0
    capsys.readouterr()
    assert main(["keys", "list", "--json", *flags]) == 0
    rows = json.loads(capsys.readouterr().out)

    assert table.splitlines()[0].split() == ["NAME", "CREATED", "STATE"]
    assert table.splitlines()[1].startswith("web ") and table.rstrip().endswith("live")
    assert [(row["name"], row["state"]) for row in rows] == [("web", "revoked")]
    assert key not in table and hash_of(key.encode()) not in json.dumps(rows)
    assert main(["keys", "add", "a b", *flags]) == 2
