"""One of three brokers is killed and comes back, again and again, whatever part it has to play just then."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kafka as kafka_library
import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from tests.services.kafka import Kafka
from tests.tools.cluster import ClusterSystem, broker_victims
from tests.tools.torture import assert_books, torture

PARTS = ("coordinator", "leader", "controller")
KILLS = 20


@pytest.fixture
def cluster(tmp_path: Path, service_directory: Path, elasticsearch: Any) -> Iterator[ClusterSystem]:
    with Kafka(service_directory / "kafka", brokers=3) as brokers:
        system = ClusterSystem(
            tmp_path, bootstrap=brokers.bootstrap, store_url=elasticsearch.url, LOGWEIR_QUEUE_REPLICATION="3"
        )
        try:
            system.victims = broker_victims(brokers, system)
            yield system
        finally:
            system.stop()


@pytest.mark.proof
@pytest.mark.timeout(600 + 60 * KILLS)  # Of which a busy machine takes minutes to start the servers.
def test_a_broker_that_dies_under_load_costs_nothing(cluster: ClusterSystem) -> None:
    """Its group's coordinator, its partitions' leader, the controller: nothing is lost, nothing twice, all explained.

    The topic is made so that two brokers have what is confirmed: with one of three gone the door goes on confirming.
    """
    outcome = torture(cluster, until=lambda kills: kills >= KILLS, names=itertools.cycle(PARTS), pause_s=0.5)
    log = cluster.log()

    assert in_sync_min(cluster) == "2"
    assert outcome.kills.total() == KILLS
    assert outcome.kills.keys() == set(PARTS)
    assert outcome.durable["queue"] > 0
    assert_books(outcome, log)


def in_sync_min(system: ClusterSystem) -> str:
    admin = kafka_library.KafkaAdminClient(bootstrap_servers=system.bootstrap.split(","))
    try:
        asked = ConfigResource(ConfigResourceType.TOPIC, system.name, {"min.insync.replicas": None})
        found = admin.describe_configs([asked], config_filter="all")
        return str(found["topic"][system.name]["min.insync.replicas"]["value"])
    finally:
        admin.close()
