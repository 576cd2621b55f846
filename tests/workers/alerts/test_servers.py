"""The alerter on real Kafka and Elasticsearch: the same alerts, told once, and the same place to go on from."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from logweir import config
from logweir.alerts.notices import CHANNELS, books_of
from logweir.errors import LogweirError
from logweir.queue import open_queue
from logweir.store import open_store
from logweir.store.port import Store
from tests.services.own import own_index_prefix
from tests.waiting import until
from tests.workers.alerts.test_engine import RULES, alerts_of, batch, login, running
from tests.workers.helpers import Door, running_worker
from tests.workers.notify.receivers import receiving


def is_known(store: Store, channel: str) -> bool:
    """Whether the channel is told of what is found from now on. An index that is being made does not answer yet."""
    try:
        return bool(store.documents.get(CHANNELS, [channel]))
    except LogweirError:
        return False


@pytest.mark.timeout(240)
def test_alerts_on_kafka_and_elasticsearch(
    kafka: Any, elasticsearch: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Found over several partitions, complete, once; the next alerter goes on with the counts of the last."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "own.py").write_text(RULES)
    settings = config.load(
        environment={},
        overrides={
            "data_dir": tmp_path,
            "queue.url": f"kafka://{kafka.bootstrap}/alerts-{secrets.token_hex(4)}",
            "queue.partitions": 3,
            "store.url": elasticsearch.url,
            "store.index_prefix": own_index_prefix(elasticsearch, request),
            "alerts.pack": False,
        },
    )
    with (
        closing(open_queue(settings.queue)) as queue,
        closing(open_store(settings.store)) as store,
        receiving() as receiver,
    ):
        settings.channels_path.write_text(
            f'[hook]\ntype = "webhook"\nurl = "{receiver.url}"\nsecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"'
        )
        queue.prepare()
        store.prepare()
        doors = [Door(queue, partition=partition) for partition in range(3)]
        with running_worker(settings, queue, store):
            with running(settings, queue, store):
                until(lambda: is_known(store, "hook"), wait_s=90)
                for at in range(12):
                    doors[at % 3].write(batch(login("failure", at=at)))
                until(lambda: alerts_of(store, "rule:failures AND count:12 AND completeness:complete"), wait_s=90)
            with running(settings, queue, store):
                doors[0].write(batch(login("failure", at=13)))
                doors[1].write(batch(login("success", at=20)))
                until(lambda: len(alerts_of(store, "completeness:complete")) == 2, wait_s=90)
                until(lambda: alerts_of(store, "rule:failures AND count:13"), wait_s=90)
                until(lambda: books_of(store.documents, "hook").alerts["notified"] == 2, wait_s=90)
        for door in doors:
            door.close()
        keys = [request.headers["webhook-id"] for request in receiver.requests]
        told = {request.json["data"]["alerts"][0]["rule"] for request in receiver.requests}
        found = {one["rule"]: one for one in alerts_of(store)}

    assert (found["failures"]["count"], len(found["failures"]["evidence"])) == (13, 10)
    assert told == {"failures", "success_after_failures"}
    assert len(set(keys)) == len(keys)
    assert found["success_after_failures"]["severity"] == "critical"
