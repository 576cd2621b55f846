"""What the documentation says is there: links, commands, settings, and shell lines that a shell can read."""

import argparse
import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir.cli import COMMANDS
from logweir.config import environment_name, names

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`(logweir [^`]+)`")
_NOT_SETTINGS = {"LOGWEIR_CONFIG", "LOGWEIR_KEY", "LOGWEIR_URL"}


def _pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in sorted(set(listed.stdout.split())) if (ROOT / name).is_file()]


PAGES = _pages()
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_there_are_pages_to_test() -> None:
    """The list below is not empty by mistake."""
    assert ROOT / "README.md" in PAGES
    assert ROOT / "docs/how-to/docker-compose.md" in PAGES


@every_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Each link into the repository names a file or folder that is there, and a heading that it has."""
    broken = []
    for link in _LINK.findall(_without_code(page.read_text(encoding="utf-8"))):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (heading and heading not in _anchors(target)):
            broken.append(link)

    assert broken == []


@every_page
def test_logweir_commands_can_be_given(page: Path) -> None:
    """Each `logweir …` line in a code block or between backticks parses: the command, its arguments, its flags."""
    wrong = []
    for line in _logweir_lines(page.read_text(encoding="utf-8")):
        if reason := _why_not(line):
            wrong.append(f"{line}: {reason}")

    assert wrong == []


@every_page
def test_settings_in_the_documentation_exist(page: Path) -> None:
    """Each LOGWEIR_… name is a setting's or one of the few others; LOGWEIR_TEST_… are the tests' own."""
    known = {environment_name(name) for name in names()} | _NOT_SETTINGS
    said = set(re.findall(r"\bLOGWEIR_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))

    assert {name for name in said if not name.startswith("LOGWEIR_TEST_")} - known - {"LOGWEIR_CACHE_DIR"} == set()


@every_page
def test_shell_blocks_can_be_read_by_a_shell(page: Path, tmp_path: Path) -> None:
    """Each block marked sh is shell: quotes and here-documents end. (… stands for what the reader fills in.)"""
    for language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language in ("sh", "bash", "shell"):
            script = tmp_path / "block.sh"
            script.write_text(text)
            done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, f"{done.stderr}\n{text}"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("logweir ingst", "no command"),
        ("logweir search --sinse 1h sshd", "--sinse"),
        ("logweir keys ad NAME", "ad"),
        ("logweir send", "FILE"),
    ],
)
def test_mistake_in_a_documented_command_is_found(line: str, reason: str) -> None:
    """The check above can fail."""
    assert reason in (_why_not(line) or "")


def test_commands_are_found_behind_what_runs_them() -> None:
    """In pipes, behind variables, in containers and as another user, what is typed is a command of logweir's."""
    block = """```sh
zcat old.gz | LOGWEIR_KEY=k logweir send - > out.txt  # as ever
docker compose run --rm --no-deps ingest keys add a
docker compose exec ingest logweir doctor
runuser -u logweir -- /opt/logweir/bin/logweir keys list
grep logweir access.log && echo logweir
```
See `logweir send`, `logweir search --count x` and `logweir sned`.
"""

    assert list(_logweir_lines(block)) == [
        "logweir send -",
        "logweir keys add a",
        "logweir doctor",
        "logweir keys list",
        "logweir search --count x",
        "logweir sned",
    ]


def _logweir_lines(text: str) -> Iterator[str]:
    """Yield the `logweir …` commands of a page, each from the program's name on."""
    for language, block in _FENCE.findall(text):
        if language in ("sh", "bash", "shell", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from _commands_in(line)
    for inline in _INLINE.findall(_without_blocks(text)):
        # In a sentence, `logweir send` names the command and is not one to type: what lacks an argument is right.
        # `logweir {command}`, in a table of texts with blanks, is any of them.
        for line in _commands_in(inline):
            if "{" not in line and "are required" not in (_why_not(line) or ""):
                yield line


def _commands_in(line: str) -> Iterator[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return  # bash -n says so in another test
    command: list[str] = []
    for word in [*words, ";"]:
        if not set(word) <= set("|&;<>"):
            command.append(word)
            continue
        command = _unwrapped(command)
        if command and command[0].rpartition("/")[2] == "logweir":
            yield shlex.join(["logweir", *command[1:]])
        # What stands behind > or < is a file.
        command = ["file"] if set(word) <= set("<>") else []


def _unwrapped(command: list[str]) -> list[str]:
    """Return the command without the variables and the programs before it."""
    while command and re.match(r"^(\w+=.*|exec|export|nohup)$", command[0]):
        command = command[1:]
    if command[:2] == ["docker", "compose"] and command[2:3] in (["run"], ["exec"]):
        service = next(number for number, word in enumerate(command) if number > 2 and not word.startswith("-"))
        # The image's entry point is logweir: `run` gives it arguments, `exec` names a program.
        return (["logweir"] if command[2] == "run" else []) + command[service + 1 :]
    if command[:2] in (["runuser", "-u"], ["sudo", "-u"]):
        return [word for word in command[3:] if word != "--"]
    return command


def _why_not(line: str) -> str | None:
    """Return why a command line would be refused, or None."""
    _, name, *words = shlex.split(line)
    if name in ("--help", "--version", "COMMAND"):
        return None
    command = next((row for row in COMMANDS if row.name == name), None)
    if command is None:
        return f"no command {name}"
    common = _Parser(allow_abbrev=False)
    common.add_argument("--data-dir")
    common.add_argument("--config")
    parser = _Parser(prog=f"logweir {name}", allow_abbrev=False)
    importlib.import_module(command.module).add_arguments(parser)
    try:
        parser.parse_args(common.parse_known_args(words)[1])
    except ValueError as error:
        return str(error)
    return None


class _Parser(argparse.ArgumentParser):
    """Raises ValueError instead of ending the program."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise ValueError(message)

    def exit(self, status: int = 0, message: str | None = None) -> None:  # type: ignore[override]
        if status:
            raise ValueError(message)

    def print_help(self, file: object = None) -> None:
        pass


def _without_blocks(text: str) -> str:
    return _FENCE.sub("", text)


def _without_code(text: str) -> str:
    return re.sub(r"``.*?``|`[^`\n]*`", lambda match: "x" * len(match[0]), _without_blocks(text))


def _anchors(page: Path) -> set[str]:
    """Return the headings of a page as links name them: lower case, spaces to dashes, punctuation gone."""
    if page.suffix != ".md":
        return set()
    headings = re.findall(r"^#+ (.*)$", _without_blocks(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_architecture_page_lists_what_is_there() -> None:
    """Every file and folder of the page's layout exists, and every room of the product and file beside it is in it."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    listed, parents = set(), [""]
    for indent, name in re.findall(r"^( *)(\S+)", _FENCE.findall(text)[0][1], re.MULTILINE):
        parents = [*parents[: len(indent) // 2 + 1], name]
        listed.add("".join(parents))
    packages = ("logweir", "ingest/logweir_ingest", "workers/logweir_workers", "console/logweir_console")
    rooms = {
        str(path.relative_to(ROOT)) + ("/" if path.is_dir() else "")
        for package in packages
        for path in (ROOT / package).glob("[!_]*")
        if path.suffix == ".py" or path.is_dir()
    }

    assert sorted(name for name in listed if not (ROOT / name).exists()) == []
    assert sorted(rooms - listed) == []
