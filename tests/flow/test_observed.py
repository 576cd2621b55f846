"""What operators see is what happened: known traffic through the whole product, asked of a real Prometheus.

Doors, worker, alerter, console and exporter on real Kafka and Elasticsearch are scraped by a real Prometheus with the
rules of deploy/. Good, late, repeated, bad, unauthorised, filtered and conflicting events are sent, and some numbers
never are.
Then every query of every panel, and every series that a rule asks for, must be there, and the figures must be right.
After that the queue loses records while no worker reads, and everything is started again: no total may fall.
"""

from __future__ import annotations

import json
import math
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from logweir import config
from logweir.http.authority import Authority
from logweir.metrics.table import METRICS
from logweir.metrics.table import Kind as MetricKind
from logweir.queue import open_queue
from logweir.record import Accepted, Kind, Marker
from tests.deploy.compose import ROOT
from tests.deploy.promql import filled, selectors
from tests.deploy.rules import alerts, recorded, rules
from tests.services.prometheus import Prometheus, Sample, total
from tests.tools.product import Process, environment, free_port, logweir, wait_for_http
from tests.waiting import until
from tests.workers import helpers
from tests.workers.notify.receivers import Receiver

DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
VARIABLES = {"$__rate_interval": "5m", "$__range": "10m"}
LATE_AFTER_S = 2
FILTERS = '[[rule]]\nname = "probes"\nquery = "summary:probe"\n'
ONE = [{"summary": "who am I"}]
NOBODYS = "lw_" + "x" * 43
# What the traffic has to set off; those that wait for minutes are pending.
SPEAKING = {
    "LogweirLossExact": "pending",
    "LogweirLossFastBurn": "firing",
    "LogweirDeadLetters": "firing",
    "LogweirIdentityConflicts": "firing",
    "LogweirRejecting": "pending",
}
# And whose own expression gives something, at once.
ALERTING = {*SPEAKING, "LogweirLossSlowBurn", "LogweirLossBudgetBurn"}


class Observed:
    """A door without TLS and one with, worker, alerter, console and exporter; and the Prometheus that scrapes them."""

    def __init__(self, folder: Path, *, broker: str, store_url: str) -> None:
        self.name = name = f"observed-{uuid.uuid4().hex[:8]}"
        filters, tls = folder / "filters.toml", Authority(folder / "tls")
        filters.write_text(FILTERS)
        tls.prepare("127.0.0.1")
        ports = {part: free_port() for part in ("ingest", "tls", "worker", "alerter", "console", "exporter")}
        self.env = environment(
            LOGWEIR_QUEUE_URL=f"kafka://{broker}/{name}",
            LOGWEIR_STORE_URL=store_url,
            LOGWEIR_WORKER_GROUP=name,
            LOGWEIR_STORE_INDEX_PREFIX=f"{name}-",
            LOGWEIR_QUEUE_PARTITIONS="2",
            LOGWEIR_DATA_DIR=str(folder),
            LOGWEIR_WORKER_FILTERS_FILE=str(filters),
            LOGWEIR_ACCOUNTING_LATE_AFTER_S=str(LATE_AFTER_S),
            LOGWEIR_INGEST_CANARY_INTERVAL_S="0.5",
            LOGWEIR_ACCOUNTING_EVENT_FIELDS="syslog sequence=details.seqnum emitter=hostname epoch=details.boot",
            LOGWEIR_EXPORTER_INTERVAL_S="0.5",
            LOGWEIR_EXPORTER_PORT=str(ports["exporter"]),
            LOGWEIR_WORKER_METRICS_PORT=str(ports["worker"]),
            LOGWEIR_ALERTS_METRICS_PORT=str(ports["alerter"]),
        )
        self.topic, self.broker = name, broker
        # What the door has to count: the bytes of each event that it accepted.
        self.accepted_bytes = 0
        self.key, self.syslog_key = (logweir("keys", "add", one, env=self.env).strip() for one in ("web", "syslog"))
        self.ports = ports
        self._folder = folder
        self._processes: dict[str, Process] = {}
        pair = ("--tls-cert", str(tls.pair.certificate), "--tls-key", str(tls.pair.key))
        self.told = Receiver()
        channel = {"type": "webhook", "url": self.told.url, "secret": f"whsec_{'A' * 40}"}
        rows = [f"{name} = {json.dumps(value)}" for name, value in channel.items()]
        (folder / "channels.toml").write_text("\n".join(["[hook]", *rows]))
        self._commands = {
            "ingest": ("ingest", "--port", str(ports["ingest"])),
            "tls": ("ingest", "--port", str(ports["tls"]), *pair),
            "worker": ("worker",),
            "alerter": ("alerter",),
            "console": ("console", "--port", str(ports["console"])),
            "exporter": ("exporter",),
        }
        self.start()
        jobs = {part: f"logweir-{part}" for part in ports}
        self.prometheus = Prometheus(
            folder / "prometheus",
            targets={jobs[part]: f"127.0.0.1:{port}" for part, port in ports.items()},
            schemes={jobs["tls"]: "https"},
            rules=ROOT / "deploy/prometheus/rules",
        )
        self.prometheus.start()

    def start(self, *parts: str) -> None:
        for part in parts or self._commands:
            self._processes[part] = Process(self._commands[part], self._folder / f"{part}.log", self.env)
        for part in {"ingest", "console"} & {*(parts or self._commands)}:
            wait_for_http(self.ports[part], "/healthz" if part == "console" else "/readyz")

    def stop(self, *parts: str) -> None:
        """Gracefully: a door closes its windows."""
        for part in parts:
            self._processes[part].stop(within_s=30)

    def end(self) -> None:
        for process in self._processes.values():
            process.kill_family()

    def close(self) -> None:
        self.prometheus.stop()
        self.end()
        self.told.close()

    def post(self, events: list[dict[str, Any]] | bytes, *, key: str = "", **headers: str) -> int:
        body = events if isinstance(events, bytes) else json.dumps(events).encode()
        given = {"X-Log-Key": key or self.key, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url = f"http://127.0.0.1:{self.ports['ingest']}/events"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, given), timeout=10) as answer:
                self.accepted_bytes += sum(len(json.dumps(event)) for event in events)
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def send(self, numbers: range, *, high: int, what: str = "event", emitter: str = "web-1", **headers: str) -> int:
        """Events of a numbered emitter."""
        events = [{"summary": f"{what} {number}"} for number in numbers]
        return self.post(
            events, Log_Emitter=emitter, Log_Epoch=self.name, Log_Seq=str(numbers[0]), Log_High=str(high), **headers
        )

    def syslog(self, number: int) -> dict[str, Any]:
        """An event that has a number of its own inside."""
        return {"summary": "from syslog", "hostname": "router", "details": {"seqnum": number, "boot": self.name}}

    def figure(self, expression: str, **labels: str) -> float:
        return total(self.prometheus.query(expression), **labels)

    def counted(self, metric: str, *labels: str) -> dict[Any, float]:
        """What was counted, by the values of these labels (of one: by its value); what is 0 is left out."""
        found: Counter[Any] = Counter()
        for given, value in self.prometheus.query(metric):
            values = tuple(given[label] for label in labels)
            found[values if len(values) > 1 else values[0]] += value
        return {values: value for values, value in found.items() if value}

    def totals(self) -> dict[str, float]:
        """Every counter of the exporter, asked of itself; nothing while it has not read the ledger."""
        url = f"http://127.0.0.1:{self.ports['exporter']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            rows = [line.rpartition(" ") for line in answer.read().decode().splitlines()]
        return {series: float(value) for series, _, value in rows if re.match(r"logweir_\w+_total\b", series)}

    def alerting(self) -> set[str]:
        """The alerts whose own expression gives something now, whether or not they wait for longer."""
        return {name for name, rule in alerts().items() if self.prometheus.query(rule["expr"])}


@pytest.fixture
def system(tmp_path: Path, kafka: Any, elasticsearch: Any) -> Iterator[Observed]:
    observed = Observed(tmp_path, broker=kafka.bootstrap, store_url=elasticsearch.url)
    yield observed
    observed.close()


def send_known_traffic(system: Observed) -> list[int]:
    """Of 24 numbered events 18, two of the others dropped; events twice; bare, filtered and unauthorised ones."""
    answers = [
        system.send(range(1, 11), high=10),
        system.send(range(15, 23), high=24, Log_Dropped="queue_overflow=2"),
        # The same once more: its sender had not heard the answer.
        system.send(range(1, 6), high=24, Log_Dropped="queue_overflow=2"),
        # A cloned machine: the same name, another event.
        system.send(range(1, 3), high=2, what="original", emitter="clone"),
        system.send(range(1, 3), high=2, what="copy", emitter="clone"),
        system.post([{"summary": f"bare {number}"} for number in range(7)]),
        system.post([{"summary": f"probe {number}"} for number in range(3)]),
        # What a rule that comes along makes an alert of, and the channel is told.
        system.post([{"summary": "new user: name=mallory, UID=1001, GID=1001", "processname": "useradd"}]),
        system.post(b"{broken"),
        *[system.post(ONE, key=NOBODYS) for _ in range(4)],
        system.post([system.syslog(number) for number in (1, 2, 4)], key=system.syslog_key),
    ]
    write_what_no_door_writes(system)
    # More than a request to the console may hold.
    subprocess.run(
        [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-H",
            f"X-Large: {'x' * 100_000}",
            f"http://127.0.0.1:{system.ports['console']}/",
        ],
        check=False,
    )
    with urllib.request.urlopen(f"https://127.0.0.1:{system.ports['tls']}/readyz", context=_unchecked()) as answer:
        assert answer.status == 200
    return answers


def write_what_no_door_writes(system: Observed) -> None:
    """A record of two events one of which no worker can read, its window's marker, and what is no record."""
    with closing(open_queue(config.load(environment=system.env).queue)) as queue:
        door = helpers.Door(queue)
        door.write(helpers.batch(b"{", b'{"summary":"forged"}', key="forged"))
        door.write_as(Kind.MARKER, Marker([Accepted("forged", None, 2, 0)], []), first=1, count=2)
        door.write_bytes(b"no record")
        door.close()


def lose_in_the_queue(system: Observed) -> None:
    """While no worker runs, the queue's retention takes a record of five events; another one comes behind it."""
    import kafka

    system.stop("worker")
    system.start("ingest", "tls")
    # The marker of the minute must not be among what the queue loses.
    until(lambda: time.time() % 60 < 40, wait_s=60)
    assert system.send(range(1, 6), high=7, emitter="victim") == 202
    until(lambda: system.figure("logweir_queue_lag_records") > 0, wait_s=60)
    with closing(open_queue(config.load(environment=system.env).queue)) as queue:
        ends = {partition: queue.offsets(partition)[1] for partition in range(queue.partition_count())}
    until(lambda: system.figure("logweir_queue_head_age_seconds") > 2, wait_s=60)
    assert "LogweirTargetDown" in system.alerting()
    with kafka.KafkaAdminClient(bootstrap_servers=system.broker) as admin:
        admin.delete_records({kafka.TopicPartition(system.topic, partition): end for partition, end in ends.items()})
    assert system.send(range(6, 8), high=7, emitter="victim") == 202
    system.start("worker")
    until(lambda: system.figure("logweir_queue_expired_offsets_total") > 0, wait_s=60)
    expired = "logweir_worker_offsets_expired_total"
    until(lambda: system.figure(expired) == system.figure("logweir_queue_expired_offsets_total"), wait_s=60)


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def panel_queries() -> list[tuple[str, str, str]]:
    """(dashboard, panel, query) of every query of every panel."""
    return [
        (file.stem, panel["title"], filled(target["expr"], VARIABLES))
        for file in DASHBOARDS
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]
        for target in panel.get("targets", [])
    ]


def shown(system: Observed, panel: str) -> dict[str, float]:
    """What a panel shows, by the names of its lines."""
    found = {}
    for file in DASHBOARDS:
        for one in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            for target in one.get("targets", []) if one["title"] == panel else ():
                for labels, value in system.prometheus.query(filled(target["expr"], VARIABLES)):
                    found[_named(target["legendFormat"], labels)] = value
    return found


def _named(legend: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend


def unanswered(system: Observed, *, wait_s: float) -> list[tuple[str, str, str]]:
    """The queries of panels that give nothing, or nothing but NaN, within that time."""
    left, end_s = panel_queries(), time.monotonic() + wait_s
    while left and time.monotonic() < end_s:
        left = [query for query in left if not _known(system.prometheus.query(query[2]))]
    return left


def told(system: Observed) -> list[str]:
    """The rules whose alerts the channel was told of, each time."""
    return [alert["rule"] for request in system.told.requests for alert in request.json["data"]["alerts"]]


def speaking(system: Observed) -> dict[str, str]:
    """The alerts that are pending or firing, and which."""
    rules_now = system.prometheus.rules()
    return {rule["name"]: rule["state"] for rule in rules_now if rule.get("state", "inactive") != "inactive"}


def asked_besides() -> set[str]:
    """Every series that rules, annotations and variables ask for: they themselves give nothing while all is well."""
    dashboards = [json.loads(file.read_text(encoding="utf-8")) for file in DASHBOARDS]
    asked = [rule["expr"] for rule in rules()]
    asked += [annotation["expr"] for one in dashboards for annotation in one["annotations"]["list"]]
    for variable in (variable for one in dashboards for variable in one["templating"]["list"]):
        if variable["type"] == "query":
            asked.append(variable["query"].removeprefix("label_values(").rpartition(",")[0])
    return {selector.text for expression in asked for selector in selectors(expression)}


@pytest.mark.timeout(900)
def test_every_panel_and_rule_shows_what_was_sent(system: Observed) -> None:
    """No query is empty or refused, every rule is well, and the books on the screen are those of the traffic; nor are
    they others when the queue has lost something, or when everything was started again.
    """
    # What a counter has at its first sample is no increase.
    until(lambda: system.prometheus.query("logweir:events_lost:net"), wait_s=60)
    answers = send_known_traffic(system)
    until(lambda: system.figure("logweir_events_lost_total") == 5, wait_s=60)
    # What was counted as lost comes after all; and a reason is counted that was counted before.
    answers.append(system.send(range(11, 12), high=24, Log_Dropped="queue_overflow=2"))
    answers += [system.post(ONE, key=NOBODYS) for _ in range(2)]
    until(lambda: system.counted("logweir:events_lost:net", "class") == {"exact": 3, "from_fields": 1}, wait_s=60)
    until(lambda: SPEAKING.items() <= speaking(system).items(), wait_s=60)
    empty = unanswered(system, wait_s=60)
    absent = [text for text in asked_besides() if not system.prometheus.query(text)]
    found, alerting = system.prometheus.rules(), system.alerting()
    net = shown(system, "Lost")

    assert answers == [202] * 8 + [400] + [401] * 4 + [202] * 2 + [401] * 2
    # increase() guesses what was before the first sample and behind the last one.
    assert net == {"class exact": pytest.approx(3, abs=0.3), "class from_fields": pytest.approx(1, abs=0.2)}
    assert empty == []
    assert told(system).count("user_added") == 1
    assert absent == []
    assert_rules(system, found)
    assert alerting == ALERTING
    assert_processes(system)
    # When the doors end, they say what they accepted.
    system.stop("ingest", "tls")
    assert_books(system, accepted=44, indexed=33, in_queue=0)
    assert_second_equation(system, created=30, lost=5)
    # Four of thirty, as near as delta() and increase() come to it over less than their window.
    until(lambda: abs(system.figure("logweir:events_lost:ratio_1h") - 4 / 30) < 0.015, wait_s=60)
    assert_canaries(system)
    lose_in_the_queue(system)
    until(lambda: system.figure("logweir_events_lost_total") == 10, wait_s=60)
    system.stop("ingest", "tls")
    assert_books(system, accepted=51, indexed=35, in_queue=5)
    assert_second_equation(system, created=37, lost=10)
    assert system.counted("logweir_lost_events", "place") == {"before_ingest": 5, "queue": 5}
    assert "LogweirLostInQueue" in system.alerting()
    assert_no_restart_changes_a_total(system)


def assert_processes(system: Observed) -> None:
    """What doors and worker have counted, to the event, and by reason."""
    settled = {"indexed": 33, "duplicate": 5, "filtered": 3, "dead_lettered": 3}

    assert system.counted("logweir_ingest_rejected_requests_total", "reason") == {"json_bad": 1, "key_unknown": 6}
    assert system.counted('logweir_ingest_requests_total{endpoint="events"}', "code") == {"202": 10, "400": 1, "401": 6}
    assert system.figure("logweir_ingest_accepted_events_total") == 42
    assert system.figure("logweir_ingest_accepted_bytes_total") == system.accepted_bytes
    assert system.counted("logweir_worker_filtered_events_total", "rule") == {"probes": 3}
    assert system.counted("logweir_worker_dead_letters_total", "reason", "stage") == {
        ("body_refused", "ingest"): 1,
        ("event_unreadable", "decode"): 1,
        ("identity_conflict", "index"): 2,
        ("record_corrupt", "decode"): 1,
    }
    assert system.counted("logweir_events_total", "outcome") == settled
    assert system.counted("logweir_worker_events_total", "outcome") == settled
    assert system.counted("logweir_event_latency_seconds_count", "path") == {
        "ingest_to_queued": 42,
        "ingest_to_stored": 44,
    }


def assert_canaries(system: Observed) -> None:
    """All that were sent have come back, but for those that were due before the queue was reached; and of the last ones
    of a door that is gone, Prometheus has not seen the count.
    """
    sent, returned = (
        system.figure(f"max_over_time(logweir_canary_{what}_total[10m])") for what in ("sent", "returned")
    )
    roundtrips = system.figure("logweir_canary_roundtrip_seconds_count")

    assert returned > 20
    assert abs(returned - sent) <= 8
    assert roundtrips == returned


def assert_books(system: Observed, *, accepted: int, indexed: int, in_queue: int) -> None:
    """The first equation, once everything is read and every window of the doors is closed."""
    until(lambda: shown(system, "The first equation").get("accepted") == accepted, wait_s=60)
    until(lambda: system.figure("logweir_queue_lag_records") == 0, wait_s=60)
    until(lambda: system.figure("logweir_queue_head_age_seconds") == 0, wait_s=60)

    assert shown(system, "The first equation") == {
        "accepted": accepted,
        "unconfirmed": 0,
        "indexed": indexed,
        "duplicate": 5,
        "filtered": 3,
        "dead_lettered": 3,
        "in flight": 0,
        "lost in the queue": in_queue,
        "undecided": 0,
    }


def assert_second_equation(system: Observed, *, created: int, lost: int) -> None:
    """Per class, what the panel adds up; D is in none of it."""
    assert shown(system, "The second equation") == {
        "created": created,
        "dropped": 2,
        "lost": lost,
        "recovered": 1,
        "missing": 0,
    }
    assert system.counted("logweir_events_expected_total", "class") == {"exact": created - 4, "from_fields": 4}
    assert system.figure("logweir_events_lost_total", **{"class": "from_fields"}) == 1
    assert shown(system, "Books do not balance by") == {"events": 0}


def assert_no_restart_changes_a_total(system: Observed) -> None:
    """Every counter of the exporter is what it was, when all processes are killed and started again."""
    before, names = system.totals(), {row.name for row in METRICS if row.kind is MetricKind.COUNTER}
    system.end()
    began_s = time.time()
    system.start()
    last = "max(logweir_canary_last_success_timestamp_seconds)"
    until(lambda: system.figure(last) > began_s, wait_s=60)
    after = system.totals()

    assert after == before
    assert {series.partition("{")[0] for series, value in before.items() if value} == {
        "logweir_events_accepted_total",
        "logweir_events_total",
        "logweir_events_expected_total",
        "logweir_events_lost_total",
        "logweir_events_lost_in_queue_total",
        "logweir_events_recovered_total",
        "logweir_events_dropped_total",
        "logweir_identity_conflicts_total",
        "logweir_queue_expired_offsets_total",
    }
    # As Prometheus saw it all the while.
    assert [name for name in names if system.figure(f'resets({name}{{job="logweir-exporter"}}[15m])')] == []


def assert_rules(system: Observed, found: list[dict[str, Any]]) -> None:
    """Prometheus has every rule, none with an error; what ought to speak does, and in words that are filled in."""
    assert {rule["name"] for rule in found} == {rule.get("alert") or rule["record"] for rule in rules()}
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []
    assert not {"LogweirLedgerImbalance", "LogweirLostInQueue", "LogweirAbsent"} & set(speaking(system))
    words = [text for rule in found for alert in rule.get("alerts", []) for text in alert["annotations"].values()]
    assert [text for text in words if "<error" in text or "<no value>" in text or "{{" in text] == []
    assert [name for name in recorded() if not _known(system.prometheus.query(name))] == []


def _known(samples: list[Sample]) -> bool:
    return any(not math.isnan(value) for _, value in samples)
