"""`logweir search`: what it prints, in each form, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from logweir import cli
from logweir.commands import search
from logweir.config import StoreSettings
from logweir.store import open_store
from tests.contract.stores import NOON_US, document
from tests.tools.product import LOGWEIR, environment
from tests.waiting import until

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


def test_oldest_come_first_when_asked_for(run: Run) -> None:
    """In the order of time, and what is left out is said of the other end."""
    status, out, err = run("--oldest-first", "--size", "2", "--json")

    assert (status, [json.loads(line)["_id"] for line in out.splitlines()]) == (0, ["e1203", "e1202"])
    assert err == "The oldest 2 of 1203 events are shown; --size 0 shows all.\n"


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


def test_no_hits_are_said_beside_the_output(run: Run) -> None:
    """What reads standard output gets nothing; who looks at the terminal knows that it was searched."""
    assert run("nothinghere") == (0, "", "0 events found.\n")
    assert run("nothinghere", "--json") == (0, "", "0 events found.\n")


def test_one_event_is_called_so(run: Run) -> None:
    """The singular where there is one."""
    assert run("--size", "1")[2] == "The newest 1 of 1203 events is shown; --size 0 shows all.\n"


def test_the_same_day_as_from_and_to_is_that_day(run: Run) -> None:
    """As the same time in a query is."""
    assert run("--count", "--from", "2026-01-31", "--to", "2026-01-31")[1] == "1203\n"
    assert run("--count", "--from", "2026-01-30", "--to", "2026-01-30")[1] == "0\n"


CONTROLS = "\x1b[31m\x07\x7f\x85\x9b31m\u202e\u2066\u2028"


def test_nothing_in_an_event_reaches_the_terminal_as_a_command(
    run: Run, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Not ESC and not the eight-bit CSI, as text and as JSON, in values and in names; the JSON says the same."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        source = {"summary": f"evil {CONTROLS}", "hostname": CONTROLS, "details": {f"name{CONTROLS}": CONTROLS}}
        store.index([document("evil", source, number=5000, received_us=NOON_US)])
    _, text, _ = run("evil")
    _, line, _ = run("evil", "--json")

    for shown in (text, line):
        assert not [character for character in shown.rstrip("\n") if not character.isprintable()]
    assert json.loads(line)["details"] == source["details"]


@pytest.mark.parametrize("query", ["caf\udce9", "hostname:caf\udce9", '"\udce9"'])
def test_bytes_that_are_no_utf8_are_refused(run: Run, query: str) -> None:
    """What the shell passes on as it is, no event has."""
    status, out, err = run(query)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "is not UTF-8" in err


def test_ctrl_c_stops_the_search(tmp_path: Path) -> None:
    """In the middle of its work in the store, as one that was interrupted, without a word about the store."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        store.index(
            [document(f"e{number}", {"source": f"{number} {'ab' * 450}"}, number=number) for number in range(3000)]
        )
    slow = " OR ".join(f"source:*a*b*a*b*{number}?c" for number in range(300))
    with subprocess.Popen(
        [*LOGWEIR, "search", slow, "--data-dir", str(tmp_path)],
        env=environment(LOGWEIR_STORE_SEARCH_TIMEOUT_S="60"),
        stderr=subprocess.PIPE,
    ) as process:
        until(lambda: _has_open(process.pid, tmp_path / "store"))
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)

    assert (process.returncode, err) == (130, b"")


def _has_open(pid: int, folder: Path) -> bool:
    """Whether the process has a file of events open: it searches, or is about to."""
    links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())
    return any(link.startswith(f"{folder}/events") for link in links)


def test_slow_search_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends at store.search_timeout_s."""
    monkeypatch.setenv("LOGWEIR_STORE_SEARCH_TIMEOUT_S", "0.001")
    status, out, err = run(" OR ".join(f"details.u{number}:*" for number in range(400)))

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "took longer than 0.001 seconds and was stopped" in err


READERS = (
    ["search"],
    ["search", "x", "--count"],
    ["audit"],
    ["audit", "--json"],
    ["audit", "--window", "1"],
    ["audit", "close", "--process", "ab"],
    ["emitters"],
    ["emitters", "--sources"],
    ["emitters", "silent"],
    ["emitters", "mute", "x"],
    ["deadletters", "list"],
    ["deadletters", "list", "--count"],
    ["deadletters", "show", "x"],
    ["deadletters", "export"],
    ["deadletters", "retry"],
    ["deadletters", "drop", "--yes"],
    ["replay", "--dry-run"],
)


@pytest.mark.parametrize("folder", ["data", "there"])
@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_data_folder_without_a_store_is_an_error(
    words: list[str], folder: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A folder that is not there, or another one: no command says that all is well, and none makes anything."""
    (tmp_path / "there").mkdir()
    status = cli.main([*words, "--data-dir", str(tmp_path / folder)])
    captured = capfd.readouterr()

    assert (status, captured.out) == (2, "")
    assert f"There is no store at sqlite:///{tmp_path}/{folder}/store" in captured.err
    assert "Check --data-dir" in captured.err
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
