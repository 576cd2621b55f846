"""How a run of all tests goes: shared out among processes, with servers for all, and each test's duration kept.

A test file stays in one process, in its order, since its fixtures are the dear part. What may take longest (`timeout`)
begins first: at the end, when a process has nothing to do any more, only short tests are left to wait for.
"""

from __future__ import annotations

import collections
import os
import random
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.proof import IS_PROOF, SEED
from tests.services.fixtures import STRICT
from tests.services.shared import shared_servers

ROOT = Path(__file__).resolve().parents[1]
DURATIONS = ROOT / "build/test-durations.tsv"
_SLOWEST_SHOWN = 15
# Each test of these starts a system of its own and takes long.
_APART = {f"tests/flow/test_{name}.py" for name in ("kill", "replay", "retention", "hostile", "metrics")}
_FOLDERS = ("flow", "senders", "contract", "ingest", "deploy", "workers", "logweir", "console")

hypothesis.settings.register_profile(
    "test",
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "proof", hypothesis.settings.get_profile("test"), max_examples=2000, derandomize=False
)

_servers = ExitStack()
_durations: collections.Counter[str] = collections.Counter()


def pytest_configure() -> None:
    # Before anything is started, and inherited by the other processes of the run.
    os.environ.setdefault("LOGWEIR_TEST_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    # Ignored where the tests run in the background, and then by all that they start, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.load_profile("proof" if IS_PROOF else "test")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """The process that leads the others starts what they share, before any test's time runs."""
    if STRICT and getattr(session.config.option, "numprocesses", None) and not hasattr(session.config, "workerinput"):
        _servers.enter_context(shared_servers())


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    _servers.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if hasattr(getattr(item, "obj", None), "hypothesis"):
            item.add_marker(pytest.mark.sized)
    longest: dict[str, float] = collections.defaultdict(float)
    for item in items:
        longest[_file(item.nodeid)] = max(longest[_file(item.nodeid)], _seconds_max(item))
    items.sort(
        key=lambda item: (-longest[_file(item.nodeid)], _FOLDERS.index(_folder(item.nodeid)), _file(item.nodeid))
    )


class _Groups(LoadScopeScheduling):
    """Gives a process what belongs together, group after group, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        if "[elasticsearch_8" in nodeid:
            # Started by the process that needs it: by one, once.
            return "elasticsearch_8"
        return nodeid if _file(nodeid) in _APART else _file(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Groups(config, log)


def _file(nodeid: str) -> str:
    return nodeid.split("::")[0]


def _seconds_max(item: pytest.Item) -> float:
    marked = item.get_closest_marker("timeout")
    return float(marked.args[0]) if marked else 0.0


def _folder(nodeid: str) -> str:
    folder = nodeid.split("/")[1] if nodeid.count("/") > 1 else ""
    return folder if folder in _FOLDERS else _FOLDERS[-1]


@pytest.fixture(autouse=True)
def _random_as_before(request: pytest.FixtureRequest) -> None:
    """What a test draws at random, it draws again in the next run with the same seed."""
    random.seed(f"{SEED} {request.node.nodeid}")


def pytest_report_header() -> list[str]:
    return [f"make proof with LOGWEIR_TEST_SEED={SEED}"] if IS_PROOF else []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _durations[report.nodeid] += report.duration


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Keep how long each test took, and say where the time went."""
    if not STRICT or not _durations:
        return
    DURATIONS.parent.mkdir(exist_ok=True)
    DURATIONS.write_text("".join(f"{seconds:.2f}\t{nodeid}\n" for nodeid, seconds in _durations.most_common()))
    folders: collections.Counter[str] = collections.Counter()
    for nodeid, seconds in _durations.items():
        folders[str(Path(_file(nodeid)).parent)] += seconds
    terminalreporter.section(f"seconds in tests; each test in {DURATIONS.relative_to(ROOT)}")
    for folder, seconds in folders.most_common():
        terminalreporter.write_line(f"{seconds:7.1f}  {folder}")
    terminalreporter.write_line(f"The {_SLOWEST_SHOWN} slowest:")
    for nodeid, seconds in _durations.most_common(_SLOWEST_SHOWN):
        terminalreporter.write_line(f"{seconds:7.1f}  {nodeid}")
