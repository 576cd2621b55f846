"""The embedded queue, full of what no worker has read."""

import base64
import http.client
import json
import os
from pathlib import Path

import pytest

from logweir.config import MEBIBYTE
from tests.services.process import free_port
from tests.tools.product import Process, environment, logweir, stopped_at_the_end, wait_for_http
from tests.waiting import until

EVENTS_A_REQUEST = 10


@pytest.mark.timeout(400)  # A queue, a spool and a store are filled.
def test_a_queue_full_of_unread_records_loses_nothing(tmp_path: Path) -> None:
    """While no worker runs: the queue, then the spool, then 503 with Retry-After. What was answered 2xx comes."""
    env = environment(
        LOGWEIR_DATA_DIR=str(tmp_path / "data"),
        LOGWEIR_QUEUE_RETENTION_SIZE_BYTES_MAX=str(MEBIBYTE),
        LOGWEIR_QUEUE_RETENTION_HOURS="0.0001",
        LOGWEIR_INGEST_DECOMPRESSED_SIZE_BYTES_MAX=str(MEBIBYTE),
        LOGWEIR_INGEST_SPOOL_SIZE_BYTES_MAX=str(4 * MEBIBYTE),
        LOGWEIR_WORKER_METRICS_PORT="0",
    )
    key, port = logweir("keys", "add", "k", env=env).strip(), free_port()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    accepted: list[str] = []
    durable: set[str] = set()

    def post() -> http.client.HTTPResponse:
        noise = base64.b85encode(os.urandom(8000)).decode()
        body = "\n".join(json.dumps({"summary": "s", "details": {"noise": noise}}) for _ in range(EVENTS_A_REQUEST))
        connection.request("POST", "/events", body, {"X-Log-Key": key})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        if answer.status == 202:
            accepted.append(document["receipt"])
            durable.add(document["durable"])
        return answer

    with stopped_at_the_end(door := Process(["ingest", "--port", str(port)], tmp_path / "door.log", env)):
        wait_for_http(port)
        while (refused := post()).status == 202:
            assert len(accepted) < 1000
        with stopped_at_the_end(Process(["worker"], tmp_path / "worker.log", env)):
            until((tmp_path / "data/store/main.sqlite").exists)
            wanted = len(accepted) * EVENTS_A_REQUEST
            until(lambda: int(logweir("search", "*", "--count", env=env)) == wanted, wait_s=250)
            until(lambda: post().status == 202)

    assert durable == {"queue", "spool"}
    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert "has to read what is oldest" in door.text
