"""The command line: options before and behind the command, and words that nothing knows."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from logweir import cli
from logweir.keys.file import KeysFile
from logweir.keys.terms import Terms


@pytest.mark.parametrize("before", [True, False])
def test_common_options_stand_before_or_behind_the_command(
    before: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`logweir --data-dir D keys list` is what `logweir keys list --data-dir D` is."""
    KeysFile(tmp_path / "keys.toml").add("mine")
    (tmp_path / "my.toml").write_text("")
    common = ["--data-dir", str(tmp_path), f"--config={tmp_path / 'my.toml'}"]

    assert cli.main([*common, "keys", "list"] if before else ["keys", *common, "list"]) == 0
    assert "mine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "nosuch"),
        (["keys", "list", "--jsn"], "unrecognized arguments: --jsn"),
        (["--data-dri=x", "keys", "list"], "--data-dri=x"),
        (["search", "--sinec", "1h"], "unrecognized arguments: --sinec"),
        (["send", "-", "--batch", "0"], "'0' is not a whole number, 1 or more"),
        (["up", "--workers", "x"], "'x' is not a whole number, 1 or more"),
    ],
)
def test_misspelt_words_are_named_with_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is guessed, nothing is run."""
    with pytest.raises(SystemExit) as left:
        cli.main(words)

    assert left.value.code == 2
    assert said in capsys.readouterr().err


CONTROLS = "\x7f\x9b31m\u202e\u2066\u2028"


@pytest.mark.parametrize(
    "line",
    [
        "config",
        "config data_dir",
        "doctor",
        "doctor --json",
        "keys list",
        "keys list --json",
        "keys show mine",
        "keys show mine --json",
        "keys show nobody",
        "audit",
        "audit --json",
        "emitters --sources --json",
        "deadletters list",
        "search x --count",
        "receipt x",
        "queue salvage",
    ],
)
def test_no_command_has_the_terminal_do_anything(
    line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in settings, in the file of keys and in paths: as text, as JSON, and in what is wrong."""
    folder = tmp_path / f"data{CONTROLS}\x1b[2J"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    KeysFile(folder / "keys.toml").add("mine", terms=Terms(categories=(f"web{CONTROLS}",), stamp={"site": CONTROLS}))
    cli.main([*line.split(), "--data-dir", str(folder)])
    shown = capfd.readouterr()

    for text in (shown.out, shown.err):
        assert not [character for character in text if character != "\n" and not character.isprintable()], text


def test_an_unknown_setting_is_named_not_set(capsys: pytest.CaptureFixture[str]) -> None:
    """`logweir config` only asks for a setting, and says so when there is none of that name."""
    assert cli.main(["config", "queue.ulr"]) == 2

    error = capsys.readouterr().err
    assert "The command line names 'queue.ulr', which is not a setting. Did you mean 'queue.url'?" in error


def test_ctrl_c_ends_a_command_that_is_still_being_imported(tmp_path: Path) -> None:
    """Also where what is imported would take the exception for its own, and go on."""
    (tmp_path / "deaf.py").write_text(
        "import time\nprint('importing', flush=True)\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass\n"
    )
    program = (
        "import signal\nfrom logweir import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "cli.COMMANDS = (cli.Command('deaf', '', 'deaf'),)\n"
        "cli.main(['deaf'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)

    assert process.wait(30) == -signal.SIGINT
