"""Real Kafka and Elasticsearch servers on this machine, without containers, for tests, benchmarks and `make services`.

    with Kafka(directory) as kafka:          kafka.bootstrap      "127.0.0.1:21093"
    with Elasticsearch(directory) as es:     es.url               "http://127.0.0.1:23411"

Both have start(), stop(), kill() (SIGKILL), running() and remove().
A server that is started again has its data and ports.
The folder is the instance: another process that opens the same folder can stop the server or ask for its address.

Read in this order: kafka.py, elasticsearch.py, process.py, fetch.py, fixtures.py (pytest),
standing.py (`make services`).
"""

from tests.services.elasticsearch import Elasticsearch
from tests.services.errors import MissingTool, ServiceError
from tests.services.kafka import Kafka
from tests.services.process import scratch_directory

__all__ = ["Elasticsearch", "Kafka", "MissingTool", "ServiceError", "scratch_directory"]
