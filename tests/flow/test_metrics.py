"""Every metric of the table is published by a running system; what the ledger says survives any restart."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir.metrics import METRICS, Kind
from tests import waiting
from tests.flow.product import Embedded, environment, free_port, status_of

# Only what goes wrong, or what a person does, gives these a first series.
ON_OCCASION = {
    "logweir_worker_offsets_expired_total",
    "logweir_worker_dead_letters_deleted_total",
    "logweir_console_rejected_requests_total",
}
FILTERS = '[[rule]]\nname = "probes"\nquery = "summary:probe"\n'


class Scraped:
    """The product with its four /metrics."""

    def __init__(self, folder: Path) -> None:
        filters = folder / "filters.toml"
        filters.write_text(FILTERS)
        self.worker_port, self.exporter_port = free_port(), free_port()
        env = environment(
            LOGWEIR_WORKER_METRICS_PORT=str(self.worker_port), LOGWEIR_EXPORTER_PORT=str(self.exporter_port),
            LOGWEIR_EXPORTER_INTERVAL_S="0.2", LOGWEIR_INGEST_CANARY_INTERVAL_S="0.2", LOGWEIR_QUEUE_PARTITIONS="2",
            LOGWEIR_WORKER_FILTERS_FILE=str(filters),
        )  # fmt: skip
        self.product = Embedded(folder / "data", extra=["--tls"], env=env)
        self.product.start()

    def post(self, body: str, *headers: str, key: str | None = None) -> int:
        words = ["curl", "-sSk", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X-Log-Key: {key or self.product.key}"]
        words += [word for header in headers for word in ("-H", header)]
        url = f"https://127.0.0.1:{self.product.ingest_port}/events"
        done = subprocess.run([*words, "-d", body, url], capture_output=True, text=True, check=True)
        return int(done.stdout)

    def text(self, port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def everything(self) -> str:
        url = f"https://127.0.0.1:{self.product.ingest_port}/metrics"
        door = subprocess.run(["curl", "-sSk", url], capture_output=True, text=True, check=True).stdout
        ports = (self.worker_port, self.exporter_port, self.product.console_port)
        return "\n".join([door, *map(self.text, ports)])

    def ledger(self) -> dict[str, float]:
        """The counters that come from the ledger, as the exporter serves them."""
        counters = {row.name for row in METRICS if row.kind is Kind.COUNTER}
        rows = (line.rpartition(" ") for line in self.text(self.exporter_port).splitlines() if line[0] != "#")
        return {series: float(value) for series, _, value in rows if series.partition("{")[0] in counters}


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Scraped]:
    scraped = Scraped(tmp_path)
    yield scraped
    scraped.product.process.kill_family()


def test_every_metric_is_published_and_no_restart_changes_the_ledgers(system: Scraped) -> None:
    """Good, filtered, unfit, unreadable and unauthorised events; then everything is killed and started again."""
    numbered = ("Log-Emitter: web-1", "Log-Epoch: run-1", "Log-Seq: 1", "Log-High: 2")
    sent = [
        system.post('{"summary":"one"}\n{"summary":"two"}', *numbered),
        system.post('{"summary":"probe"}'),
        # Accepted, as the door looks at no event; to be an event, it would have to be an object.
        system.post('{"summary":"bare"}'),
        system.post("{broken"),
        system.post("{}", key="lw_" + "x" * 43),
    ]
    waiting.until(
        lambda: (
            system.ledger().get('logweir_events_total{outcome="indexed"}') == 3
            and system.ledger().get('logweir_events_total{outcome="filtered"}') == 1
            and "logweir_stage_watermark_timestamp_seconds{" in system.text(system.exporter_port)
            and "logweir_dead_letters_held" in system.text(system.exporter_port)
        ),
        wait_s=30,
    )
    text = system.everything()
    system.product.process.kill_family()
    system.product.start()
    waiting.until(lambda: status_of(system.exporter_port, "/healthz") == 200 and system.ledger(), wait_s=30)
    before = _ledger_of(text)
    after = system.ledger()

    assert sent == [202, 202, 202, 400, 401]
    series = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line and line[0] != "#"}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in series} | series
    declared = {row.name for row in METRICS}
    assert declared - bases - ON_OCCASION == set()
    assert {name for name in bases if name.startswith("logweir_")} - declared <= {
        f"{row.name}_{end}" for row in METRICS if row.kind is Kind.HISTOGRAM for end in ("bucket", "sum", "count")
    }
    assert {series: after[series] for series in before} == before


def _ledger_of(text: str) -> dict[str, float]:
    from_ledger = {row.name for row in METRICS if row.kind is Kind.COUNTER and row.name.startswith("logweir_events_")}
    rows = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {series: float(value) for series, _, value in rows if series.partition("{")[0] in from_ledger}
