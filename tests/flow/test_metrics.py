"""Every metric of the table is published by a running system; what the ledger says survives any restart."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir.metrics.table import METRICS, Kind
from tests import waiting
from tests.tools.product import Embedded, environment, free_port, status_of

# What may be 0, or not there, while nothing fails, nothing is full and nobody acts; all else the traffic gives a value.
QUIET = {
    # The ways of the queue and the spool when the queue is away, and damage.
    "logweir_ingest_queue_fill_ratio",
    "logweir_ingest_spool_size_bytes",
    "logweir_ingest_spool_fill_ratio",
    "logweir_ingest_spool_oldest_seconds",
    "logweir_ingest_spool_records_total",
    "logweir_ingest_spool_failures_total",
    "logweir_ingest_spool_damaged_bytes_total",
    "logweir_ingest_unconfirmed_events_total",
    "logweir_events_unconfirmed_total",
    "logweir_ingest_processes_died_total",
    # Nobody is told of alerts here.
    "logweir_alerter_notifications_total",
    "logweir_alerter_notifications_pending",
    "logweir_alerter_notifications_oldest_seconds",
    "logweir_alerter_channels_stale",
    # No rule runs on a schedule here, and no sender's unreadable body is kept.
    "logweir_alerter_scheduled_seconds",
    "logweir_alerter_scheduled_runs_total",
    "logweir_ingest_kept_events_total",
    # Limits that are reached.
    "logweir_ingest_failed_addresses_forgotten_total",
    "logweir_ingest_receipts_unanswered_total",
    "logweir_worker_emitters_untracked_total",
    "logweir_worker_sources_untracked_total",
    "logweir_worker_receipt_outcomes_unkept_total",
    "logweir_worker_paused",
    "logweir_series_capped",
    "logweir_worker_windows_unaudited_total",
    # What people do, what few events have, and what takes minutes or days.
    "logweir_worker_redacted_values_total",
    "logweir_worker_windows_audited_total",
    "logweir_worker_filters_stale",
    "logweir_worker_dead_letters_deleted_total",
    "logweir_events_corrected_total",
    "logweir_events_undecided",
    "logweir_silence_findings",
    "logweir_emitter_silence_seconds",
    "logweir_sources",
    # Records that come twice, and losses behind the door.
    "logweir_worker_records_repeated_total",
    "logweir_worker_claims_lost_total",
    "logweir_store_bulk_retries_total",
    "logweir_worker_offsets_expired_total",
    "logweir_queue_expired_offsets_total",
    "logweir_events_lost_in_queue_total",
    "logweir_events_recovered_in_queue_total",
    "logweir_ledger_imbalance_events",
    "logweir_events_in_flight",
    "logweir_events_missing",
    # Where everything is read.
    "logweir_queue_lag_records",
    "logweir_queue_head_age_seconds",
    # What no rule is for.
    "logweir_alerter_records_missed_total",
    "logweir_alerter_rule_errors_total",
    "logweir_alerter_rule_files_bad",
    "logweir_alerter_rules_parked",
    "logweir_alerter_matches_total",
    "logweir_alerter_pending_alerts",
    "logweir_alerter_open_episodes",
    "logweir_alerter_groups",
    "logweir_alerter_watermark_age_seconds",
    "logweir_queue_retention_used_ratio",
}
FILTERS = '[[rule]]\nname = "probes"\nquery = "summary:probe"\n'


class Scraped:
    """The product with its five /metrics."""

    def __init__(self, folder: Path) -> None:
        filters = folder / "filters.toml"
        filters.write_text(FILTERS)
        self.worker_port, self.exporter_port, self.alerter_port = free_port(), free_port(), free_port()
        env = environment(
            LOGWEIR_WORKER_METRICS_PORT=str(self.worker_port),
            LOGWEIR_EXPORTER_PORT=str(self.exporter_port),
            LOGWEIR_ALERTS_METRICS_PORT=str(self.alerter_port),
            LOGWEIR_EXPORTER_INTERVAL_S="0.2",
            LOGWEIR_INGEST_CANARY_INTERVAL_S="0.2",
            LOGWEIR_QUEUE_PARTITIONS="2",
            LOGWEIR_WORKER_FILTERS_FILE=str(filters),
            LOGWEIR_ACCOUNTING_LATE_AFTER_S="1",
        )
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
        ports = (self.worker_port, self.exporter_port, self.alerter_port, self.product.console_port)
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


def send_known_traffic(system: Scraped) -> list[int]:
    """Good, late, lost, dropped, repeated, conflicting, filtered, unreadable and unauthorised events."""
    web = ("Log-Emitter: web-1", "Log-Epoch: run-1")
    clone = ("Log-Emitter: clone", "Log-Epoch: run-1", "Log-Seq: 1", "Log-High: 1")
    answers = [
        system.post(
            '{"summary":"one","category":"a","hostname":"b"}\n{"summary":"two"}', *web, "Log-Seq: 1", "Log-High: 2"
        ),
        system.post('{"summary":"six"}', *web, "Log-Seq: 6", "Log-High: 6", "Log-Dropped: queue_overflow=1"),
        system.post('{"summary":"six"}', *web, "Log-Seq: 6", "Log-High: 6", "Log-Dropped: queue_overflow=1"),
        system.post('{"summary":"original"}', *clone),
        system.post('{"summary":"copy"}', *clone),
        system.post('{"summary":"probe"}'),
        system.post('{"summary":"bare"}'),
        system.post("{broken"),
        system.post("{}", key="lw_" + "x" * 43),
    ]
    waiting.until(lambda: system.ledger().get('logweir_events_lost_total{class="exact"}') == 2, wait_s=30)
    answers.append(
        system.post('{"summary":"three"}', *web, "Log-Seq: 3", "Log-High: 6", "Log-Dropped: queue_overflow=1")
    )
    # More than a request to the console may hold, and no TLS where there is TLS.
    for words in (
        ["-H", f"X-Large: {'x' * 100_000}", f"http://127.0.0.1:{system.product.console_port}/"],
        [f"http://127.0.0.1:{system.product.ingest_port}/readyz"],
    ):
        subprocess.run(["curl", "-s", "-o", "/dev/null", *words], check=False)
    return answers


@pytest.mark.timeout(240)  # The product is started twice, and a minute's books are closed.
def test_every_metric_is_published_and_no_restart_changes_the_ledgers(system: Scraped) -> None:
    """What the traffic gives a value has one, once a minute's books are closed; then everything is killed."""
    answers = send_known_traffic(system)
    waiting.until(lambda: system.ledger().get("logweir_events_accepted_total") == 9, wait_s=90)
    waiting.until(lambda: system.ledger().get('logweir_events_recovered_total{class="exact"}') == 1, wait_s=30)
    text, before = system.everything(), system.ledger()
    system.product.process.kill_family()
    system.product.start()
    waiting.until(lambda: status_of(system.exporter_port, "/healthz") == 200 and system.ledger(), wait_s=30)
    after = system.ledger()
    found = _totals(text)

    assert answers == [202] * 7 + [400, 401, 202]
    assert found.keys() - {row.name for row in METRICS} == set()
    assert {row.name for row in METRICS if not found.get(row.name)} <= QUIET
    assert {series: after[series] for series in before} == before


def _totals(text: str) -> dict[str, float]:
    """The sum of each metric's series, regardless of the sign; of a histogram, how often it was observed."""
    histograms = {row.name for row in METRICS if row.kind is Kind.HISTOGRAM}
    found: dict[str, float] = defaultdict(float)
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        name = series.partition("{")[0]
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        if line.startswith("logweir_") and (base not in histograms or name == f"{base}_count"):
            found[base if base in histograms else name] += abs(float(value))
    return found
