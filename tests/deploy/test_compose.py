"""docker-compose.yml is valid, safe as it stands, and open to what an env file changes."""

import json
import re
from importlib import resources
from typing import Any

import jsonschema
import pytest

from logweir.commands.config import value_of
from logweir.config import Settings, environment_name, names
from tests.deploy.compose import COMPOSE_FILE, ROOT, load, own_services, variables_of
from tests.services.fetch import ELASTICSEARCH_9, KAFKA_VERSION

SETTINGS = {environment_name(name) for name in names()}


def test_file_is_valid_by_the_compose_specification() -> None:
    """The Compose Specification's own JSON schema takes the file with all its defaults filled in."""
    _validator().validate(load())


def test_validation_refuses_a_misspelt_key() -> None:
    """The schema is one that says no: a service with a key that Compose does not know."""
    compose = load()
    compose["services"]["worker"]["healthchek"] = {}

    with pytest.raises(jsonschema.ValidationError, match="healthchek"):
        _validator().validate(compose)


def test_everything_is_there_on_its_port() -> None:
    """The ports that people are told: 8443 and 8080 for senders, 80 console, 9090 Kibana, and the watching ones."""
    published = {name: _published(row) for name, row in load()["services"].items() if "ports" in row}

    assert published == {
        "front": ["127.0.0.1:8443", "127.0.0.1:8080"],
        "console": ["127.0.0.1:80"],
        "kibana": ["127.0.0.1:9090"],
        "prometheus": ["127.0.0.1:9091"],
        "alertmanager": ["127.0.0.1:9093"],
        "grafana": ["127.0.0.1:3000"],
    }


def test_opening_the_door_opens_nothing_else() -> None:
    """BIND_ADDRESS opens the port with TLS alone; what has no password stays on loopback."""
    services = load({"BIND_ADDRESS": "0.0.0.0"})["services"]
    published = [address for row in services.values() for address in _published(row)]

    assert [address for address in published if not address.startswith("127.0.0.1:")] == ["0.0.0.0:8443"]


def test_scalable_services_publish_no_port() -> None:
    """`--scale ingest=3 --scale worker=3` would fail on a second container with the same port or name."""
    services = load()["services"]

    for name in ("ingest", "worker"):
        assert "ports" not in services[name]
        assert "container_name" not in services[name]


def test_own_services_run_restricted() -> None:
    """An ordinary user, a read-only disk, no capabilities, no new privileges, and time to end in."""
    for name, row in own_services(load()).items():
        assert row["read_only"] is True, name
        assert row["cap_drop"] == ["ALL"], name
        assert row["security_opt"] == ["no-new-privileges:true"], name
        assert row["stop_grace_period"] == "30s", name
        assert row["init"] is True, name


def test_every_service_that_stays_is_watched_restarted_and_logs_within_bounds() -> None:
    """All but those that end by themselves have a health check and come back; no log fills the disk."""
    services = load()["services"]
    one_shot = {"settings", "certificate", "kibana-setup"}

    for name, row in services.items():
        assert row["logging"]["options"] == {"max-size": "10m", "max-file": "5"}, name
        assert ("healthcheck" in row) == (name not in one_shot), name
        assert row["restart"] == "unless-stopped" or name in one_shot, name


def test_dependencies_can_be_met() -> None:
    """Who waits for health waits for something with a health check; who waits for an end, for something that ends."""
    services = load()["services"]

    for name, row in services.items():
        for other, how in row.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], (name, other)
            if how["condition"] == "service_completed_successfully":
                assert services[other]["restart"] == "no", (name, other)


def test_env_file_points_at_ones_own_servers() -> None:
    """With an external Elasticsearch, Kafka and Kibana the bundled have no container, and ours go to the others."""
    services = load(
        {
            "BUNDLED_ELASTICSEARCH": "0",
            "LOGWEIR_STORE_URL": "https://es.example.com:9200",
            "LOGWEIR_STORE_API_KEY": "abc",
            "BUNDLED_KAFKA": "0",
            "LOGWEIR_QUEUE_URL": "kafka://k.example.com:9092/events",
            "BUNDLED_KIBANA": "0",
            "KIBANA_URL": "https://kibana.example.com",
        }
    )["services"]

    assert [services[name]["scale"] for name in ("elasticsearch", "kafka", "kibana")] == ["0", "0", "0"]
    for name in ("ingest", "worker", "console", "exporter", "alerter"):
        assert services[name]["environment"]["LOGWEIR_STORE_URL"] == "https://es.example.com:9200"
        assert services[name]["environment"]["LOGWEIR_STORE_API_KEY"] == "abc"
        assert services[name]["environment"]["LOGWEIR_QUEUE_URL"] == "kafka://k.example.com:9092/events"
    assert services["kibana-setup"]["environment"]["KIBANA_URL"] == "https://kibana.example.com"


def test_each_service_is_given_what_it_needs_and_no_more() -> None:
    """Every setting of the sections that it works by, wherever .env sets it; no password of others."""
    secrets = {"LOGWEIR_QUEUE_PASSWORD": "queue", "LOGWEIR_STORE_PASSWORD": "store", "KIBANA_PASSWORD": "kibana"}
    services = load({**secrets, "LOGWEIR_LOG_FORMAT": "json"})["services"]
    sections = {
        "ingest": {"ingest", "queue", "store", "worker", "accounting", "log"},
        "worker": {"worker", "queue", "store", "accounting", "silence", "log"},
        "console": {"console", "store", "log"},
        "exporter": {"exporter", "worker", "queue", "store", "accounting", "silence", "log"},
        "alerter": {"alerts", "queue", "store", "worker", "accounting", "log"},
    }
    for name, wanted in sections.items():
        given = services[name]["environment"]
        assert {environment_name(setting) for setting in names() if setting.partition(".")[0] in wanted} <= set(given)
        assert given["LOGWEIR_LOG_FORMAT"] == "json"
    holders = {
        secret: {name for name, row in services.items() if secret in row.get("environment", {}).values()}
        for secret in secrets.values()
    }

    assert holders == {
        "queue": {"ingest", "worker", "exporter", "alerter"},
        "store": {"ingest", "worker", "console", "exporter", "alerter"},
        "kibana": {"kibana-setup"},
    }
    assert {name for name, row in services.items() if "env_file" in row} == {"settings"}
    assert services["settings"]["network_mode"] == "none"


def test_own_services_are_given_settings_that_exist() -> None:
    """An unknown LOGWEIR_… name would stop the service at its start: the file and the example have none."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    in_example = set(re.findall(r"^#?(LOGWEIR_\w+)=", example, re.MULTILINE))
    in_file = {key for row in own_services(load()).values() for key in row.get("environment", {})}

    assert in_example <= SETTINGS
    assert {key for key in in_file if key.startswith("LOGWEIR_")} <= SETTINGS


def test_example_lists_every_variable_with_its_default() -> None:
    """What the file can be given beside the settings is in .env.example; a default shown there is the true one."""
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    example = dict(re.findall(r"^#(\w+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    defaults = {environment_name(name): value_of(Settings(), name) for name in names()}
    plain_defaults = dict(re.findall(r"\$\{(\w+):?-([^}]*)\}", text))

    assert variables_of(text) - {"ENV_FILE"} - SETTINGS <= set(example)
    for name, shown in example.items():
        if name in plain_defaults and not _is_for_ones_own(name):
            assert shown == (plain_defaults[name] or defaults.get(name)), name


def test_tests_run_the_versions_that_the_file_runs() -> None:
    """Kafka and Elasticsearch are those that the whole test suite runs against."""
    services = load()["services"]

    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert services["elasticsearch"]["image"] == f"elasticsearch:{ELASTICSEARCH_9}"
    assert services["kibana"]["image"] == f"kibana:{ELASTICSEARCH_9}"


def test_mounted_files_and_copied_files_are_there() -> None:
    """Every ./path of the file and every COPY of the Dockerfile exists; a missing one would be made as a folder."""
    mounts = {volume.split(":")[0] for row in load()["services"].values() for volume in row.get("volumes", [])}
    dockerfile = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    copied = [
        line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY ") and "--from" not in line
    ]

    assert [path for path in mounts if path.startswith(".") and not (ROOT / path).is_dir()] == []
    assert [path for paths in copied for path in paths if not (ROOT / path).exists()] == []
    assert {f"!{path}" for paths in copied for path in paths} <= set(
        (ROOT / "deploy/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    )


def test_named_volumes_and_networks_are_declared() -> None:
    """Compose refuses a volume or network that a service uses and the file does not declare."""
    compose = load()
    volumes = {volume.split(":")[0] for row in compose["services"].values() for volume in row.get("volumes", [])}
    networks = {network for row in compose["services"].values() for network in row.get("networks", [])}

    assert {volume for volume in volumes if not volume.startswith((".", "/"))} == set(compose["volumes"])
    assert networks == set(compose["networks"])


def test_redaction_key_outlives_the_workers_that_share_it() -> None:
    """Else equal values would get other marks with each container; and the image has the folder, owned by its user."""
    worker = load()["services"]["worker"]
    folder = worker["environment"]["LOGWEIR_WORKER_REDACTION_KEY_FILE"].rpartition("/")[0]

    assert f"redaction:{folder}" in worker["volumes"]
    assert f" {folder} " in (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")


def test_image_ends_as_an_ordinary_user() -> None:
    """The image's last USER is a number that is not root's, the one that the front runs as to read the TLS key."""
    dockerfile = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    users = re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)

    assert users[-1:] == [load()["services"]["front"]["user"]] == ["10001:10001"]


def _is_for_ones_own(name: str) -> bool:
    """Whether the example shows another value than the default: those of one's own servers."""
    return name.startswith(("LOGWEIR_STORE", "LOGWEIR_QUEUE", "BUNDLED_", "KIBANA_")) or name in (
        "TLS_DIR",
        "CA_DIR",
        "RULES_DIR",
    )


def _published(row: dict[str, Any]) -> list[str]:
    return [port.rpartition(":")[0] for port in row.get("ports", [])]


def _validator() -> Any:
    """Return a validator for the Compose Specification's schema, as the package check-jsonschema ships it.

    It is written in the JSON Schema draft that the schema names: by another, its strictness would be passed over.
    """
    file = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    assert schema["title"] == "Compose Specification"
    return jsonschema.validators.validator_for(schema)(schema)
