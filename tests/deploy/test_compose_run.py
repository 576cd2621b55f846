"""The compose file's own services, run from what stands in the file, against the real Kafka and Elasticsearch."""

import json
import re
import secrets
import shlex
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from logweir import receipt
from tests.deploy.compose import COMPOSE_FILE, ROOT, load, own_services
from tests.deploy.kibana import Kibana
from tests.deploy.local import ENTRYPOINT, Stack

pytestmark = pytest.mark.timeout(400)  # Five services are started, one after the other.

FOUND_S_MAX = 100.0
STAYING = ("ingest", "worker", "console", "exporter", "alerter")
ENDING = ("settings", "certificate", "kibana-setup")


@pytest.fixture(scope="module")
def stack(kafka: Any, elasticsearch: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give the composition on this machine with ingest, worker, console, exporter and alerter running."""
    servers = {
        # A topic of its own: the servers are shared with other tests.
        "kafka:9092/events": f"{kafka.bootstrap}/compose-{secrets.token_hex(4)}",
        "http://elasticsearch:9200": elasticsearch.url,
    }
    stack = Stack(load(), tmp_path_factory.mktemp("compose"), servers)
    try:
        for name in STAYING:
            stack.start(name)
        yield stack
    finally:
        stack.stop()


def test_every_own_service_is_run_by_a_test() -> None:
    """The services below are all that run our image, with the entry point that the image has."""
    dockerfile = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")

    assert set(own_services(load())) == {*STAYING, *ENDING}
    assert re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE) == [json.dumps(ENTRYPOINT)]


@pytest.mark.parametrize("name", STAYING)
def test_health_check_of_a_service_that_does_not_run_fails(tmp_path: Path, name: str) -> None:
    """A health check that is always content would be none."""
    assert not Stack(load(), tmp_path).service(name).is_healthy()


def test_event_posted_to_ingest_is_found_on_the_console(stack: Stack) -> None:
    """With a key made by the command that the file documents, an event goes the whole way."""
    key = _documented_key(stack)
    word = f"compose{secrets.token_hex(6)}"

    answer = _post(stack, key, {"summary": f"hello {word}", "hostname": "web1", "category": "test"})

    assert answer["accepted"] == 1
    assert answer["durable"] == "queue"
    # Signed with the secret on the volume that all ingest containers share: any of them can read it later.
    assert receipt.decode(answer["receipt"], receipt.secret_of(stack.folder / "keys")).count == 1
    (event,) = _found(stack, word)
    assert event["summary"] == f"hello {word}"
    assert event["key"] == "my-first-sender"


def test_prometheus_asks_where_the_services_answer(stack: Stack) -> None:
    """At each port that deploy/prometheus/prometheus.yml names for a service of ours, it has /metrics."""
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    asked = {names["names"][0]: names["port"] for job in jobs for names in job.get("dns_sd_configs", [])}

    for name, port in asked.items():
        # By an address, as Prometheus does, and not by a name that browsers may use.
        url = f"http://127.0.0.1:{stack.ports[str(port)]}/metrics"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": "10.0.0.7"}), timeout=10) as answer:
            assert b"logweir_build_info{" in answer.read(), name
    assert set(asked) == set(STAYING)


def test_settings_service_says_what_of_the_env_file_is_no_setting(tmp_path: Path, monkeypatch: Any) -> None:
    """It is given the whole file as Compose would give it, and ends with the name that is wrong; else well."""
    service = Stack(load(), tmp_path).service("settings")
    environment = service.environment()
    monkeypatch.setattr(service, "environment", lambda: {**environment, **given})
    given = {"LOGWEIR_INGEST_PROCESSES": "2", "KIBANA_PASSWORD": "secret"}
    good = service.run()
    given = {"LOGWEIR_INGEST_PROCESS": "2"}
    bad = service.run()

    assert good.returncode == 0, good.stderr
    assert bad.returncode == 2
    assert "LOGWEIR_INGEST_PROCESSES" in bad.stderr


def test_certificate_service_makes_the_fronts_certificate(tmp_path: Path) -> None:
    """Run as it stands in the file, it leaves what the front reads, and ends well."""
    done = Stack(load({"TLS_NAME": "logs.example.com"}), tmp_path).service("certificate").run()

    assert done.returncode == 0, done.stderr
    assert "logs.example.com" in done.stdout
    assert (tmp_path / "tls/tls.crt").is_file()
    assert (tmp_path / "tls/tls.key").is_file()


def test_kibana_setup_service_brings_the_objects(tmp_path: Path, kibana: Kibana) -> None:
    """Run as it stands in the file, it gives Kibana the data view and the saved search, and ends well."""
    compose = load({"LOGWEIR_STORE_INDEX_PREFIX": "site-"})
    done = Stack(compose, tmp_path, {"http://kibana:5601": kibana.url}).service("kibana-setup").run()

    assert done.returncode == 0, done.stderr
    assert [path for path, _, _ in kibana.posted] == [
        "/api/saved_objects/_import?overwrite=true",
        "/api/data_views/default",
    ]
    assert b'"title": "site-events"' in kibana.posted[0][2]


@pytest.mark.parametrize("name", STAYING)
def test_service_ends_within_the_time_that_the_file_gives_it(stack: Stack, name: str) -> None:
    """Asked to end, a service does so before Docker would kill it, and its health check fails from then on."""
    time_given_s = float(stack.compose["services"][name]["stop_grace_period"].removesuffix("s"))
    service = stack.started[name]
    assert service.is_healthy()

    began = time.monotonic()
    service.stop()

    assert time.monotonic() - began < time_given_s
    assert not service.is_healthy()


def _documented_key(stack: Stack) -> str:
    """Run the command at the head of the compose file, as `docker compose run` would, and return the key it prints."""
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    (line,) = re.findall(r"^#\s+docker compose run --rm --no-deps (.*)$", text, re.MULTILINE)
    service, *words = shlex.split(line)
    done = stack.service(service).run(words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _post(stack: Stack, key: str, event: dict[str, Any]) -> dict[str, Any]:
    """Post one event, again while the key is not yet known: doors follow the keys file within two seconds."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.ports['8080']}/events",
        json.dumps(event).encode(),
        {"X-My-Log-Input-Key": key},
    )
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                value: dict[str, Any] = json.loads(answer.read())
                return value
        except urllib.error.HTTPError as error:
            if error.code != 401 or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _found(stack: Stack, word: str) -> list[dict[str, Any]]:
    """Return what the console finds for a word, as soon as it finds anything.

    While Elasticsearch makes the day's index, a search cannot be complete and is answered 503: try again.
    """
    address = f"http://127.0.0.1:{stack.ports['8081']}/api/search?" + urllib.parse.urlencode({"q": word})
    deadline = time.monotonic() + FOUND_S_MAX
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                if hits := json.loads(answer.read())["hits"]:
                    return list(hits)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        time.sleep(0.2)
    return []
