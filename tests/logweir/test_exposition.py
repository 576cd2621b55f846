"""/metrics and /healthz of a process that serves nothing else."""

from __future__ import annotations

import http.client

from logweir import exposition, metrics


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def test_metrics_and_health_are_served_on_the_next_free_port() -> None:
    """A second process on the machine takes the next port; health is what the process says of itself."""
    metrics.prepare(("logweir_worker_",))
    wrong: list[str] = []
    first = exposition.serve("one", "127.0.0.1", 0, lambda: wrong[0] if wrong else None)
    second = exposition.serve("two", "127.0.0.1", first, lambda: None)
    status, text = get(first, "/metrics")
    healthy = get(first, "/healthz")
    wrong.append("it stands still")
    unhealthy = get(first, "/healthz")

    assert status == 200
    # How many, other tests of this process decide.
    assert b'logweir_worker_events_total{outcome="dead_lettered"} ' in text
    assert b"_created" not in text
    assert healthy == (200, b"ok\n")
    assert unhealthy == (503, b"it stands still\n")
    assert second > first
    assert get(second, "/healthz")[0] == 200
    assert get(first, "/")[0] == 404


def test_every_metric_of_the_table_can_be_made() -> None:
    """Names, labels and starting values of every row are such that prometheus-client takes them."""
    for row in metrics.METRICS:
        assert metrics.get(row.name) is metrics.get(row.name)
