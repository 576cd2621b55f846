"""pytest fixtures with the real servers, each started at its first use and shared by the whole session.

    kafka                  Kafka, one broker                        .bootstrap
    elasticsearch          9.2 where Java 21 is, otherwise 8.19     .url  .version  .request(method, path, body)
    elasticsearch_8, _9    that one
    elasticsearch_secured  with TLS, password and API keys          .ca_file  .username  .password  .api_key()
    service_directory      a new folder for a test that starts servers of its own, as those that kill them must

LOGWEIR_TEST_KAFKA=127.0.0.1:9092 and LOGWEIR_TEST_ELASTICSEARCH=http://127.0.0.1:9200 use servers that already run
(`make services`): quicker while writing tests.

Without the servers' programs a bare `pytest` skips their tests. With LOGWEIR_TEST_STRICT=1, as in `make test`, it
fetches them, and every skip fails the session unless its reason starts with "allowed:".
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services import shared
from tests.services.elasticsearch import Elasticsearch, is_fetched
from tests.services.fetch import (
    ELASTICSEARCH_8,
    ELASTICSEARCH_9,
    ensure_tools,
    kafka_home,
    missing_for_elasticsearch,
    newest_elasticsearch,
)
from tests.services.kafka import Kafka
from tests.services.process import scratch_directory
from tests.services.running import RunningElasticsearch, RunningKafka

STRICT = os.environ.get("LOGWEIR_TEST_STRICT", "") not in ("", "0")
ALLOWED = "allowed:"


@pytest.fixture
def service_directory() -> Iterator[Path]:
    """Give a new folder under /tmp that the servers' user can reach; removed after the test."""
    with scratch_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def session_service_directory() -> Iterator[Path]:
    with scratch_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def kafka(session_service_directory: Path) -> Iterator[Kafka | RunningKafka]:
    if bootstrap := os.environ.get(shared.KAFKA):
        yield RunningKafka(bootstrap)
        return
    _require(kafka_home().is_dir(), "Kafka")
    with Kafka(session_service_directory / "kafka") as running:
        yield running


@pytest.fixture(scope="session")
def elasticsearch_8(session_service_directory: Path) -> Iterator[Elasticsearch | RunningElasticsearch]:
    yield from _elasticsearch(ELASTICSEARCH_8, session_service_directory)


@pytest.fixture(scope="session")
def elasticsearch_9(session_service_directory: Path) -> Iterator[Elasticsearch | RunningElasticsearch]:
    yield from _elasticsearch(ELASTICSEARCH_9, session_service_directory)


@pytest.fixture(scope="session")
def elasticsearch(request: pytest.FixtureRequest) -> Any:
    """Give the newest Elasticsearch that this machine can run, or the one in LOGWEIR_TEST_ELASTICSEARCH."""
    if url := os.environ.get(shared.ELASTICSEARCH):
        return RunningElasticsearch(url)
    return request.getfixturevalue(
        "elasticsearch_8" if newest_elasticsearch() == ELASTICSEARCH_8 else "elasticsearch_9"
    )


@pytest.fixture(scope="session")
def elasticsearch_secured(session_service_directory: Path) -> Iterator[Elasticsearch]:
    version = newest_elasticsearch()
    _require(is_fetched(version), f"Elasticsearch {version}")
    with Elasticsearch(session_service_directory / "secured", version, security=True) as running:
        yield running


def _elasticsearch(version: str, directory: Path) -> Iterator[Elasticsearch | RunningElasticsearch]:
    url = os.environ.get(shared.ELASTICSEARCH)
    if url and (given := RunningElasticsearch(url)).version.split(".")[0] == version.split(".")[0]:
        yield given
        return
    if version == ELASTICSEARCH_9 and (missing := missing_for_elasticsearch(version)):
        pytest.skip(f"{ALLOWED} {missing}")
    _require(is_fetched(version), f"Elasticsearch {version}")
    with Elasticsearch(directory / version, version) as running:
        yield running


def _require(fetched: bool, name: str) -> None:
    """Let the strict session fetch what is missing; skip in the others, which promise to install and fetch nothing."""
    if STRICT:
        ensure_tools()
    elif not fetched:
        pytest.skip(f"{name} is not on this machine yet: python -m tests.services fetch")


_skipped: list[tuple[str, str]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append((report.nodeid, reason.removeprefix("Skipped: ")))


def _forbidden() -> list[tuple[str, str]]:
    return [skip for skip in _skipped if not skip[1].startswith(ALLOWED)] if STRICT else []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _forbidden() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in the last lines what was not tested."""
    for nodeid, reason in _forbidden():
        terminalreporter.write_line(f"SKIPPED, and LOGWEIR_TEST_STRICT forbids it: {nodeid}: {reason}", red=True)
    for reason in sorted({reason for _, reason in _skipped if reason.startswith(ALLOWED)}):
        tests = sum(1 for _, other in _skipped if other == reason)
        terminalreporter.write_line(
            f"Not tested here ({tests} skipped): {reason.removeprefix(ALLOWED).strip()}", yellow=True
        )
