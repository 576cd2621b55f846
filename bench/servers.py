"""A Kafka and an Elasticsearch of a benchmark's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.services.elasticsearch import Elasticsearch
from tests.services.errors import ServiceError
from tests.services.fetch import newest_elasticsearch
from tests.services.kafka import Kafka
from tests.services.process import scratch_directory


@contextlib.contextmanager
def started_servers() -> Iterator[tuple[str, str]]:
    """The brokers and the store's URL; gone at the end. Ends the program when one cannot be started."""
    try:
        with (
            scratch_directory() as directory,
            Kafka(directory / "kafka") as kafka,
            Elasticsearch(directory / "elasticsearch", newest_elasticsearch()) as store,
        ):
            yield kafka.bootstrap, store.url
    except ServiceError as error:
        raise SystemExit(f"A server could not be started: {error}") from error
