"""`make services`: one Kafka and one Elasticsearch that stay after the command ends, in .services/ of the checkout.

State is in the instances' own folders; .services/state.json only says the addresses and processes to other programs.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.services.elasticsearch import Elasticsearch
from tests.services.fetch import fetch_all, newest_elasticsearch
from tests.services.kafka import Kafka

HOME = Path(__file__).resolve().parents[2] / ".services"
STATE = HOME / "state.json"
KAFKA_PORT = 9092
ELASTICSEARCH_PORT = 9200


def up() -> None:
    """Start what doesn't run, say where it is. Returns when both answer."""
    with _alone():
        kafka, elasticsearch = _instances()
        if not (kafka.running() and elasticsearch.running()):
            fetch_all(_tell)
        for server, name in ((kafka, "Kafka"), (elasticsearch, f"Elasticsearch {elasticsearch.version}")):
            if not server.running():
                _tell(f"  starting {name} ...")
                server.start()
        STATE.write_text(json.dumps(_state(kafka, elasticsearch), indent=2) + "\n")
    _say(kafka, elasticsearch)


def down(*, keep: bool) -> None:
    """Stop both; remove their data unless `keep`."""
    if not HOME.is_dir():
        print("  no services here")
        return
    with _alone():
        for server in _instances():
            server.stop()
            if not keep:
                server.remove()
        STATE.unlink(missing_ok=True)
    if keep:
        print(f"  stopped; the data stays in {_data()}")
        return
    shutil.rmtree(_data(), ignore_errors=True)
    shutil.rmtree(HOME, ignore_errors=True)
    print("  stopped, data removed")


def status() -> bool:
    """Say what runs; return whether all does."""
    if not STATE.is_file():
        print("  no services here: make services")
        return False
    kafka, elasticsearch = _instances()
    for server, name in ((kafka, "Kafka"), (elasticsearch, "Elasticsearch")):
        print(f"  {name} {'runs' if server.running() else 'does not run'}")
    return kafka.running() and elasticsearch.running()


def _instances() -> tuple[Kafka, Elasticsearch]:
    kafka = Kafka(_data() / "kafka", port_wanted=KAFKA_PORT, dies_with_parent=False)
    elasticsearch = Elasticsearch(
        _data() / "elasticsearch", newest_elasticsearch(), port_wanted=ELASTICSEARCH_PORT, dies_with_parent=False
    )
    return kafka, elasticsearch


def _data() -> Path:
    """The instances' folder: .services, unless we are root and the checkout is where Elasticsearch's user can't go."""
    closed = any(not folder.stat().st_mode & 0o001 for folder in HOME.parents)
    if os.geteuid() != 0 or not closed:
        return HOME
    return Path("/var/tmp") / f"logweir-services-{hashlib.sha256(str(HOME).encode()).hexdigest()[:12]}"


def _state(kafka: Kafka, elasticsearch: Elasticsearch) -> dict[str, Any]:
    return {
        "kafka": {"bootstrap": kafka.bootstrap, "pids": [process.pid for process in kafka.processes]},
        "elasticsearch": {
            "url": elasticsearch.url,
            "version": elasticsearch.version,
            "pids": [process.pid for process in elasticsearch.processes],
        },
    }


def _say(kafka: Kafka, elasticsearch: Elasticsearch) -> None:
    notes = [
        f"  port {wanted} was taken, so {name} is elsewhere"
        for name, wanted, address in (
            ("Kafka", KAFKA_PORT, kafka.bootstrap),
            ("Elasticsearch", ELASTICSEARCH_PORT, elasticsearch.url),
        )
        if not address.endswith(f":{wanted}")
    ]
    _tell(f"  Kafka answers at {kafka.bootstrap}")
    _tell(f"  Elasticsearch {elasticsearch.version} answers at {elasticsearch.url}")
    for note in notes:
        _tell(note)
    print(f"export LOGWEIR_QUEUE_URL=kafka://{kafka.bootstrap}/events")
    print(f"export LOGWEIR_STORE_URL={elasticsearch.url}")


def _tell(line: str) -> None:
    """Say it to the person: standard output has only what `eval "$(make services)"` may run."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
