"""Real senders of Splunk's and OpenTelemetry's formats, sending to a door that is restarted twice meanwhile.

Neither format numbers its events: a batch that was durable when the door died, and not answered yet, is sent and stored
again. It is seen here because each event has a number in its text; the books count it as what it is, accepted twice.
"""

from __future__ import annotations

import collections
import json
import logging
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from splunk_handler import SplunkHandler

from tests.proof import size
from tests.senders import programs
from tests.senders.journey import EVENTS, Journey, journey
from tests.tools.product import logweir

# The product starts three times; a busy machine needs ten times what an idle one does.
pytestmark = [pytest.mark.sized, pytest.mark.timeout(size(600, 3000))]

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy/senders/otel-collector.yaml"
BATCH = 500
"""How many records a sender of OpenTelemetry has under way."""


def stored_by(sent: Journey) -> collections.Counter[int]:
    """How often each number is in the store; of 200,000, a busy machine needs minutes to say so."""
    data_dir = str(sent.product.data_dir)
    lines = logweir("search", "event", "--json", "--size", "0", "--data-dir", data_dir, timeout_s=600).splitlines()
    return collections.Counter(int(json.loads(line)["summary"].split()[1]) for line in lines)


def check(sent: Journey, numbers: range) -> collections.Counter[int]:
    """Each is stored, and the books have all that is, also what came twice. Returns how often each was stored again."""
    books = sent.books(accepted=len(numbers))
    stored = stored_by(sent)
    row = books.row.as_json()

    assert stored.keys() == set(numbers)
    assert books.balanced, row
    assert row["accepted"] == row["indexed"] == stored.total()
    return stored - collections.Counter(numbers)


# --- Python -------------------------------------------------------------------------------------------------------
@contextmanager
def splunk_logger(sent: Journey) -> Iterator[logging.Logger]:
    """One batch of some 512 KiB after the other; it waits when its queue is full, so that it drops nothing itself."""
    handler = SplunkHandler(
        "127.0.0.1",
        sent.port,
        sent.key,
        "main",
        protocol="http",
        verify=False,
        hostname="web-1.example.org",
        source="shop.py",
        flush_interval=0.1,
        queue_size=1000,
        force_keep_ahead=True,
        retry_count=12,
        retry_backoff=0.2,
    )
    logger = logging.getLogger("tests.senders.splunk")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()


class PersistentExporter(OTLPLogExporter):
    """Tries for ever: the SDK's own gives a batch up after six tries, half a minute or so."""

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        while super().export(batch) is LogRecordExportResult.FAILURE:
            time.sleep(0.1)
        return LogRecordExportResult.SUCCESS


@contextmanager
def opentelemetry_logger(sent: Journey) -> Iterator[Logger]:
    """With a queue that holds all: else the SDK drops what is too much."""
    headers = {"Authorization": f"Bearer {sent.key}"}
    exporter = PersistentExporter(f"{sent.url}/v1/logs", headers=headers, timeout=120, compression=Compression.Gzip)
    resource = Resource({"service.name": "shop", "host.name": "web-1"})
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    processor = BatchLogRecordProcessor(exporter, 100, BATCH, max_queue_size=EVENTS)
    provider.add_log_record_processor(processor)
    try:
        yield provider.get_logger("shop.cart", "1.0")
        processor.force_flush()
    finally:
        provider.shutdown()


def test_loggers_of_python_lose_nothing(tmp_path: Path) -> None:
    """Splunk's handler sends the first half of the numbers, the SDK of OpenTelemetry the second."""
    with journey(tmp_path) as sent:
        with splunk_logger(sent) as splunk, opentelemetry_logger(sent) as opentelemetry:

            def log(numbers: range) -> None:
                for number in numbers:
                    splunk.info("event %d of the shop", number)
                    opentelemetry.emit(
                        LogRecord(
                            timestamp=time.time_ns(),
                            severity_number=SeverityNumber.WARN,
                            severity_text="WARN",
                            body=f"event {EVENTS + number} of the shop",
                            attributes={"http.request.method": "GET"},
                        )
                    )
                    if number % BATCH == 0:
                        time.sleep(0.1)  # So that batches go out while the door is restarted.

            sent.send(log)
        again = check(sent, range(2 * EVENTS))
        by_splunk = sorted(number for number in again if number < EVENTS)
        by_opentelemetry = sorted(number for number in again if number >= EVENTS)

        # At most the one batch of each that was under way when the door died: one behind the other.
        for numbers in (by_splunk, by_opentelemetry):
            assert not numbers or numbers[-1] - numbers[0] == len(numbers) - 1
        assert len(by_opentelemetry) <= BATCH
        assert set(again.values()) <= {1}
        query = "hostname:web-1 AND source:shop.py AND details.index:main"
        assert int(sent.product.search(query, "--count")) == EVENTS + len(by_splunk)
        query = "hostname:web-1 AND processname:shop AND source:shop.cart AND severity:WARNING AND details.method:GET"
        assert int(sent.product.search(query, "--count")) == EVENTS + len(by_opentelemetry)


# --- JavaScript ---------------------------------------------------------------------------------------------------
@pytest.mark.proof
def test_the_sdk_for_javascript_loses_nothing(tmp_path: Path) -> None:
    """What its exporter gives up is handed to it again, as in a program that must lose nothing."""
    with journey(tmp_path) as sent:
        command = ["node", "send.js", f"{sent.url}/v1/logs", sent.key]
        with subprocess.Popen(
            command, cwd=programs.opentelemetry_js(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as node:
            stdin, stdout = node.stdin, node.stdout
            assert stdin is not None and stdout is not None

            def hand_over(numbers: range) -> None:
                stdin.write(f"{numbers.start} {numbers.stop}\n")
                stdin.flush()
                assert stdout.readline() == "handed over\n"

            sent.send(hand_over)
            stdin.close()
            assert stdout.readline().startswith("given up and tried again: ")
        again = check(sent, range(EVENTS))

        assert again.total() <= BATCH
        query = "hostname:web-1 AND processname:shop AND source:shop.cart AND severity:WARNING"
        assert int(sent.product.search(query, "--count")) == EVENTS + again.total()


# --- the Collector ------------------------------------------------------------------------------------------------
@pytest.mark.proof
def test_a_collector_loses_nothing(tmp_path: Path) -> None:
    """By the configuration that we ship: it follows a file, and holds what the door does not take yet."""
    with journey(tmp_path) as sent:
        lines = tmp_path / "shop.log"
        configuration = CONFIGURATION.read_text(encoding="utf-8")
        for shipped, here in (
            ("https://logs.example.com", sent.url),
            ("lw_the_key", sent.key),
            ("/var/log/shop/*.log", str(lines)),
            ("127.0.0.1:4318", "127.0.0.1:0"),
        ):
            assert shipped in configuration
            configuration = configuration.replace(shipped, here)
        (tmp_path / "collector.yaml").write_text(configuration, encoding="utf-8")
        log = tmp_path / "collector.log"
        command = [str(programs.collector()), "--config", str(tmp_path / "collector.yaml")]
        with log.open("w") as output, subprocess.Popen(command, stderr=output) as collector, lines.open("a") as file:

            def hand_over(numbers: range) -> None:
                for number in numbers:
                    file.write(f"event {number} of the shop\n")
                    if number % BATCH == 0:
                        file.flush()
                        time.sleep(0.1)
                file.flush()

            try:
                sent.send(hand_over)
                again = check(sent, range(EVENTS))
            finally:
                collector.terminate()

        # Ten requests of a thousand may be under way at a time.
        assert again.total() <= 10_000
        assert "Dropping data" not in log.read_text()
        query = f'source:"{lines}" AND hostname:web-1 AND processname:shop'
        assert int(sent.product.search(query, "--count")) == EVENTS + again.total()
