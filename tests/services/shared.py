"""One Kafka and one Elasticsearch for all processes of a test run (`pytest -n 3`), started by the one that leads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tests.services.elasticsearch import Elasticsearch
from tests.services.fetch import ensure_tools, newest_elasticsearch
from tests.services.kafka import Kafka
from tests.services.process import scratch_directory

KAFKA = "LOGWEIR_TEST_KAFKA"
ELASTICSEARCH = "LOGWEIR_TEST_ELASTICSEARCH"


@contextmanager
def shared_servers() -> Iterator[None]:
    """Have both run until the end, at the addresses in the environment; those that are given there stay as they are."""
    ensure_tools()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_directory())
        kafka = Kafka(folder / "kafka")
        elasticsearch = Elasticsearch(folder / "elasticsearch", newest_elasticsearch(), heap_mb=768)
        wanted = {KAFKA: (kafka, kafka.bootstrap), ELASTICSEARCH: (elasticsearch, elasticsearch.url)}
        missing = {name: found for name, found in wanted.items() if name not in os.environ}
        for server, _ in missing.values():
            stack.callback(server.kill)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda found: found[0].start(), missing.values()))
        os.environ.update({name: address for name, (_, address) in missing.items()})
        stack.callback(lambda: [os.environ.pop(name) for name in missing])
        yield
