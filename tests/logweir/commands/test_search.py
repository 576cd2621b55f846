"""`logweir search`: what it prints, in each form, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from logweir import cli
from logweir.commands import search
from logweir.config import StoreSettings
from logweir.store import open_store
from tests.contract.stores import NOON_US, document

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs the command over a store of 1,203 events; gives status, output and errors."""
    monkeypatch.setattr(search, "now_us", lambda: NOON_US)
    monkeypatch.setenv("COLUMNS", "80")
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        first = [
            {"summary": "Failed password for root", "hostname": "web1", "category": "syslog", "severity": "WARNING"},
            {"summary": "\x1b[31mred\x07\nnext line", "hostname": "a" * 100, "tags": ["x"]},
            {"details": {"user": "[bold]root[/bold]"}, "severity": "ERROR"},
        ]
        sources = first + [{"summary": f"filler {number} {'long ' * 50}"} for number in range(1200)]
        store.index(
            [
                document(f"e{number}", source, number=number, received_us=NOON_US - number * 1_000_000)
                for number, source in enumerate(sources, start=1)
            ]
        )

    def run(*words: str) -> tuple[int, str, str]:
        status = cli.main(["--data-dir", str(tmp_path), "search", *words])
        captured = capfdbinary.readouterr()
        return status, captured.out.decode(), captured.err.decode()

    yield run


def test_json_is_one_document_a_line_with_its_id_first(run: Run) -> None:
    """--json prints whole documents, _id first, newest first."""
    status, out, err = run("hostname:web1 OR tags:x", "--json")
    lines = out.splitlines()

    assert (status, err) == (0, "")
    assert [json.loads(line)["_id"] for line in lines] == ["e1", "e2"]
    assert lines[0].startswith('{"_id":"e1","_index":"events-20260131",')
    assert json.loads(lines[1])["summary"] == "\x1b[31mred\x07\nnext line"


def test_count_is_the_number_alone(run: Run) -> None:
    """--count prints how many there are, nothing else."""
    assert run("filler", "--count") == (0, "1200\n", "")
    assert run("nosuchword", "--count") == (0, "0\n", "")


def test_lines_show_time_host_category_severity_and_summary(run: Run) -> None:
    """Each event is one line, whatever it holds; what could move the cursor is spelled out; no colours in a pipe."""
    _, out, _ = run("NOT filler")
    lines = out.splitlines()

    assert len(lines) == 3
    assert " ".join(lines[0].split()) == "2026-01-31T11:59:59.000000Z web1 syslog WARNING Failed password for root"
    assert lines[1].endswith(r"\x1b[31mred\x07\nnext line")
    assert lines[2].endswith('ERROR     {"user":"[bold]root[/bold]"}')
    assert "\x1b" not in out


def test_newest_hundred_are_shown_and_the_rest_is_mentioned(run: Run) -> None:
    """Without --size the newest hundred; a note on standard error says that there are more."""
    status, out, err = run("filler")

    assert status == 0
    assert len(out.splitlines()) == 100
    assert err == "The newest 100 of 1200 events are shown; --size 0 shows all.\n"


@pytest.mark.parametrize(("size", "lines"), [("0", 1203), ("1203", 1203), ("1202", 1202), ("1", 1)])
def test_size_is_kept_over_pages(run: Run, size: str, lines: int) -> None:
    """--size N shows N, --size 0 all, each event once."""
    _, out, err = run("--json", "--size", size)

    assert len({json.loads(line)["_id"] for line in out.splitlines()}) == len(out.splitlines()) == lines
    assert bool(err) == (lines < 1203)


def test_times_bound_the_search(run: Run) -> None:
    """--since, --from and --to take ages, ISO times and epoch seconds; --from is included and --to is not."""
    assert run("--count", "--since", "10s")[1] == "10\n"
    assert run("--count", "--since", "1h")[1] == "1203\n"
    assert run("--count", "--from", "2026-01-31T11:59:50Z", "--to", "2026-01-31T11:59:55")[1] == "5\n"
    assert run("--count", "--from", "1769860790", "--to", "5s")[1] == "5\n"
    assert run("--count", "--from", "2026-02-01")[1] == "0\n"
    assert run("--count", "--since", "10s", "--time-field", "timestamp")[1] == "10\n"
    assert run("--count", "--since", "10s", "--time-field", "utctimestamp")[1] == "0\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["(a"], "ends too early"),
        (["hostnam:x"], "Did you mean 'hostname'?"),
        (["--since", "1y"], "'1y' is not a time"),
        (["--size", "-1"], "--size, which reads -1"),
        (["--from", "2026-02-01", "--to", "2026-01-01"], "not a time after '2026-02-01'"),
        (["-hostnam:x"], "Did you mean 'hostname'?"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_status_2(run: Run, words: list[str], said: str) -> None:
    """A user's mistake is one line on standard error, and nothing on standard output."""
    status, out, err = run(*words)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize("words", [["-hostname:web1"], ["--", "-hostname:web1"], [" -hostname:web1"]])
def test_a_query_may_begin_with_a_dash(run: Run, words: list[str]) -> None:
    """It means NOT, and is not read as the option -h."""
    status, out, err = run("--count", *words)

    assert (status, out, err) == (0, "1202\n", "")


def test_store_that_is_not_there_yet_has_no_hits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Before the first event a search finds nothing, and makes no files."""
    assert cli.main(["search", "--data-dir", str(tmp_path / "data")]) == 0
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
