"""The test servers themselves: a killed one comes back with its data and port, and what is missing is said plainly."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import elasticsearch as elasticsearch_client
import kafka as kafka_client
import pytest

from tests.services import Elasticsearch, Kafka, MissingTool, ServiceError
from tests.services import fetch as fetching
from tests.services.fetch import fetch_kafka, missing_for_elasticsearch
from tests.services.java import find_java
from tests.services.process import ServerProcess, choose_ports, port_is_free

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def own_kafka(kafka: Any, service_directory: Path) -> Any:
    """Give a Kafka that the test may kill; `kafka` is asked for first, so that it is skipped where Kafka is missing."""
    with Kafka(service_directory, sasl=("alice", "secret")) as own:
        yield own


@pytest.mark.proof
@pytest.mark.timeout(300)  # Servers are started.
def test_killed_kafka_comes_back_with_its_records_and_port(own_kafka: Kafka) -> None:
    """kill -9 and start() are what fail-over tests are made of."""
    address = own_kafka.bootstrap
    producer = kafka_client.KafkaProducer(bootstrap_servers=address, acks="all")
    _create_topic(address)
    producer.send("events", b"kept").get(timeout=30)
    producer.close(timeout=5)

    own_kafka.kill()
    assert not own_kafka.running()
    own_kafka.start()

    assert own_kafka.bootstrap == address
    assert _records(address) == [b"kept"]
    assert _records(
        own_kafka.bootstrap_sasl,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_plain_username="alice",
        sasl_plain_password="secret",
    ) == [b"kept"]


@pytest.mark.proof
@pytest.mark.timeout(300)  # Servers are started.
def test_started_in_a_thread_that_ends_kafka_lives_on(own_kafka: Kafka) -> None:
    """The kernel ends a child with the thread that started it; tests that restart a broker later use such a thread."""
    own_kafka.kill()
    thread = threading.Thread(target=own_kafka.start)
    thread.start()
    thread.join()

    assert own_kafka.running()


@pytest.mark.proof
@pytest.mark.timeout(300)  # Servers are started.
def test_killed_elasticsearch_comes_back_with_its_documents_and_port(
    elasticsearch: Any, service_directory: Path
) -> None:
    """What was acknowledged is there after kill -9: the translog is on disk before the answer."""
    with Elasticsearch(service_directory, elasticsearch.version) as own:
        address = own.url
        own.request("PUT", "/events/_doc/1", {"summary": "kept"})

        own.kill()
        assert not own.running()
        own.start()

        assert own.url == address
        assert own.request("GET", "/events/_doc/1")["_source"] == {"summary": "kept"}


@pytest.mark.proof
@pytest.mark.timeout(300)  # Servers are started.
def test_each_elasticsearch_is_the_version_it_is_asked_for(elasticsearch_8: Any, elasticsearch_9: Any) -> None:
    """Tests that take both fixtures really run against both."""
    versions = [
        next(iter(server.request("GET", "/_nodes/_local")["nodes"].values()))["version"]
        for server in (elasticsearch_8, elasticsearch_9)
    ]

    assert [version.split(".")[0] for version in versions] == ["8", "9"]


@pytest.mark.proof
@pytest.mark.timeout(300)  # Servers are started.
def test_secured_elasticsearch_wants_its_certificate_and_password(elasticsearch_secured: Elasticsearch) -> None:
    """The client of logweir is tested with the certificate file, the password and an API key."""
    url, ca_file = elasticsearch_secured.url, str(elasticsearch_secured.ca_file)
    password = (elasticsearch_secured.username, elasticsearch_secured.password)

    assert (
        elasticsearch_client.Elasticsearch(url, ca_certs=ca_file, basic_auth=password).cluster.health()["status"]
        != "red"
    )
    key = elasticsearch_secured.api_key()
    assert elasticsearch_client.Elasticsearch(url, ca_certs=ca_file, api_key=key).cluster.health()["status"] != "red"
    with pytest.raises(elasticsearch_client.AuthenticationException):
        elasticsearch_client.Elasticsearch(url, ca_certs=ca_file, basic_auth=("elastic", "wrong")).cluster.health()
    with pytest.raises(elasticsearch_client.ConnectionError):
        elasticsearch_client.Elasticsearch(url, basic_auth=password, max_retries=0).cluster.health()


@pytest.mark.proof
@pytest.mark.timeout(300)  # Servers are started.
def test_a_server_that_does_not_start_shows_the_end_of_its_log(kafka: Any, service_directory: Path) -> None:
    """Whoever reads the failed run of CI sees the server's own words."""
    broken = Kafka(service_directory, properties={"num.network.threads": "many"})
    # The formatting reads the file too and would refuse it earlier.
    with pytest.raises(ServiceError, match=r"num\.network\.threads"):
        broken.start()

    assert not broken.running()


def test_a_port_that_somebody_has_is_named(service_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept port that was taken in the meantime is not a time-out after a minute and a half."""
    import socket

    with socket.create_server(("127.0.0.1", choose_ports(1)[0])) as other:
        taken = other.getsockname()[1]
        server = Kafka(service_directory)
        server._ports[0][0] = taken

        with pytest.raises(ServiceError, match=f"needs port {taken}"):
            server.start()
    assert port_is_free(taken)


def test_servers_die_with_the_program_that_started_them(tmp_path: Path) -> None:
    """A test run that is killed leaves no server behind."""
    program = (
        "import os, pathlib, sys, time; from tests.services.process import ServerProcess;"
        "server = ServerProcess('sleep', pathlib.Path(sys.argv[1])); server.launch(['sleep', '600']);"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=False)
    server = ServerProcess("sleep", tmp_path)

    assert server.pid
    _wait_until(lambda: not server.running())


def test_another_program_can_stop_a_server_by_its_folder(tmp_path: Path) -> None:
    """`make services-down` did not start what it stops."""
    program = (
        "import pathlib, sys; from tests.services.process import ServerProcess;"
        "ServerProcess('sleep', pathlib.Path(sys.argv[1])).launch(['sleep', '600'], dies_with_parent=False)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=True)
    server = ServerProcess("sleep", tmp_path)
    assert server.running()

    server.stop()

    assert not server.running()


def test_missing_java_and_maven_name_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who isn't root gets the command for somebody who is; nothing is installed behind their back."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(MissingTool, match=r"As root: apt-get install .* maven"):
        fetching.ensure_tools()
    monkeypatch.setenv("LOGWEIR_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(MissingTool, match="mvn is needed"):
        fetch_kafka(lambda _: None)
    assert list((tmp_path / "cache").glob(".kafka*")) == []


def test_elasticsearch_9_without_java_21_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one permitted absence; the reason stands in the last lines of the run."""
    monkeypatch.setattr(fetching, "find_java", lambda at_least: None if at_least >= 21 else find_java(at_least))

    assert "no Java 21 or newer" in missing_for_elasticsearch("9.2.4")


def test_strict_session_fails_for_a_skip_unless_it_is_allowed(tmp_path: Path) -> None:
    """A green `make test` has skipped nothing silently."""
    text = "import pytest\ndef test_it(): pytest.skip({!r})\n"
    (tmp_path / "test_bad.py").write_text(text.format("no server"))
    (tmp_path / "test_good.py").write_text(text.format("allowed: no Java 21"))

    bad, good = (_pytest(tmp_path / name, LOGWEIR_TEST_STRICT="1") for name in ("test_bad.py", "test_good.py"))

    assert bad.returncode == 1
    assert "LOGWEIR_TEST_STRICT forbids it" in bad.stdout
    assert good.returncode == 0
    assert "Not tested here (1 skipped): no Java 21" in good.stdout
    assert _pytest(tmp_path / "test_bad.py", LOGWEIR_TEST_STRICT="").returncode == 0


def _pytest(file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "tests.services.fixtures", "-p", "no:cacheprovider", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [*command, f"--rootdir={file.parent}", "-c", os.devnull],
        env=environment,
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def _create_topic(address: str) -> None:
    admin = kafka_client.KafkaAdminClient(bootstrap_servers=address)
    admin.create_topics({"events": {"num_partitions": 1, "replication_factor": 1}})
    admin.close()


def _records(address: str, **settings: Any) -> list[bytes]:
    consumer = kafka_client.KafkaConsumer(
        "events", bootstrap_servers=address, auto_offset_reset="earliest", consumer_timeout_ms=15_000, **settings
    )
    values = [next(consumer).value]
    consumer.close()
    return values


def _wait_until(done: Any, wait_s_max: float = 10.0) -> None:
    import time

    deadline = time.monotonic() + wait_s_max
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
