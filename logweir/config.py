"""Every setting, once: name with unit, type, default and help. The file is read first, then the environment, then flags.

``queue.url`` in ``logweir.toml`` is ``url`` in the table ``[queue]``, in the environment ``LOGWEIR_QUEUE_URL``.

To add one: a field in its section, with its bounds and a string behind it; ``_advanced`` where few will ever set it. A
limit of door or console gets a row in ``logweir/limits.py``, too, and a test that goes past it. A flag is an argument
with ``dest="set:section.name"``. Then ``python deploy/generate.py``.
"""

from __future__ import annotations

import argparse
import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo

from logweir.errors import CONFIG_UNREADABLE, CONSOLE_HOSTS_MISSING, SETTING_BAD, SETTING_UNKNOWN, LogweirError

ENVIRONMENT_PREFIX = "LOGWEIR_"
CONFIG_FILE_DEFAULT = Path("logweir.toml")
# Names of ours in the environment that are not settings: where settings are, what senders have, and tooling.
_NOT_SETTINGS = ("LOGWEIR_CONFIG", "LOGWEIR_KEY", "LOGWEIR_URL", "LOGWEIR_CACHE_DIR", "LOGWEIR_TEST_")

MEBIBYTE = 1024 * 1024

_ADVANCED = "advanced"

CommaList = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: [part.strip() for part in value.split(",")] if isinstance(value, str) else value),
]


def _advanced(default: Any, **limits: Any) -> Any:
    """A setting that works as it is for almost everybody: it stands below the others."""
    return Field(default, json_schema_extra={_ADVANCED: True}, **limits)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class HttpSettings(_Section):
    """What every HTTP server of ours has."""

    address: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: for all networks."""
    port: int = Field(0, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""
    header_size_bytes_max: int = _advanced(16 * 1024, ge=1024)
    """Largest request line and headers together."""
    headers_max: int = _advanced(100, ge=16)
    """Most headers of one request."""
    header_timeout_s: float = _advanced(10.0, gt=0)
    """Longest time that a request's headers may take to arrive."""
    body_timeout_s: float = _advanced(60.0, gt=0)
    """Longest time that a request's body may take to arrive."""
    read_timeout_s: float = _advanced(30.0, gt=0)
    """Longest time that a client may leave an answer unread that does not fit into the connection's buffers."""
    idle_timeout_s: float = _advanced(75.0, gt=0)
    """How long a connection stays open between two requests."""
    connections_max: int = _advanced(8192, ge=1)
    """Most connections at once, per process; the system's limit of open files may lower it."""
    requests_max: int = _advanced(4096, ge=1)
    """Most requests at once, per process, from their headers to their answers."""
    pipelined_requests_max: int = _advanced(64, ge=1)
    """Most requests of one connection that may wait for the answer to an earlier one."""


class IngestSettings(HttpSettings):
    """The door."""

    port: int = Field(8080, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""
    processes: int = Field(1, ge=1, le=256)
    """How many processes serve the port. The embedded queue is for one."""
    keys_file: Path | None = None
    """The file of hashed keys; by default keys.toml in the data folder. All doors share its folder, writable."""
    key_headers: CommaList = ("X-My-Log-Input-Key", "X-Log-Key")
    """Headers that may carry a key, beside Authorization: Bearer."""
    failed_attempts_per_minute_max: int = _advanced(60, ge=1)
    """Most requests without a good key from one address (of IPv6: one /64); more are answered 429, good keys never."""
    failed_addresses_max: int = _advanced(10_000, ge=1)
    """Most addresses whose failed attempts are remembered, per process; beyond that the oldest is forgotten, of its own /24 or /48 first where that has half."""
    connections_without_key_max: int = _advanced(6144, ge=1)
    """Most connections that have shown no good key, per process; below connections_max, the rest is for those that have."""
    connections_without_key_per_address_max: int = _advanced(1024, ge=1)
    """Most of these from one address (of IPv6: one /64), per process. Handshakes under way count, connections with a good key do not: a proxy's many idle ones need more."""
    connections_per_key_max: int = _advanced(4096, ge=1)
    """Most connections of one key, per process, that are kept open for another request; others end with their answer."""
    body_size_bytes_max: int = Field(10 * MEBIBYTE, ge=1024)
    """Largest request body, as sent."""
    decompressed_size_bytes_max: int = Field(64 * MEBIBYTE, ge=1024)
    """Largest request body after decompression."""
    decompression_ratio_max: int = _advanced(200, ge=2)
    """How many times larger than sent a body may become. It counts above 1 MiB: a small body of equal events costs nothing."""
    event_size_bytes_max: int = Field(256 * 1024, ge=256)
    """Largest single event."""
    events_per_request_max: int = Field(10_000, ge=1)
    """Most events in one request."""
    depth_max: int = _advanced(32, ge=1, le=39)
    """Deepest nesting of an event; the store's own limit of 40 stays above it."""
    bodies_size_bytes_max: int = _advanced(128 * MEBIBYTE, ge=1024)
    """Most bytes of all request bodies under way together, per process; one of each key is always let in, up to twice as many."""
    queue_timeout_s: float = _advanced(0.2, gt=0)
    """How long a record waits for the queue before it goes to the spool."""
    spool_dir: Path | None = None
    """Folder of the spool, on a disk that outlives a restart; by default spool in the data folder."""
    spool_timeout_s: float = _advanced(5.0, gt=0)
    """How long a request waits for the spool's disk before it is answered 503."""
    spool_size_bytes_max: int = Field(1024 * MEBIBYTE, ge=MEBIBYTE)
    """Most bytes in the spool while the queue is away: of all processes that share its folder together."""
    refused_size_bytes_max: int = _advanced(64 * 1024, ge=0)
    """How much of an authenticated but unreadable body is kept for the operator."""
    receipts_at_once_max: int = _advanced(4, ge=1, le=64)
    """Most receipts that a process looks up in the store at once, half as many for one address; who asks beyond that is told to ask again."""
    receipts_timeout_s: float = _advanced(5.0, gt=0)
    """How long the store may take to say what became of a receipt's batch."""
    canary_interval_s: float = Field(10.0, ge=0, le=3600)
    """How often a process sends a canary through queue, worker and store; 0 sends none, and silence is not known then."""
    stop_timeout_s: float = _advanced(12.0, gt=0, le=3600)
    """How long a stop may take: requests under way have half of it to end, what they brought the other half to be safe."""
    tls_cert_file: Path | None = None
    """Certificate in PEM, its chain behind it: then HTTPS is served. A change of the file counts within seconds."""
    tls_key_file: Path | None = None
    """Key of the certificate, not encrypted; by default it is in the certificate's file."""
    tls_handshake_timeout_s: float = _advanced(10.0, gt=0)
    """Longest time that a TLS handshake may take."""
    trusted_proxies: CommaList = ()
    """Networks (10.0.0.0/8) whose X-Forwarded-For is believed."""


class QueueSettings(_Section):
    """The queue between ingest and workers."""

    url: str = ""
    """kafka://host:9092[,host:9092]/topic or sqlite:///path (four slashes: absolute); by default in the data folder."""
    partitions: int = Field(8, ge=1, le=10_000)
    """Partitions of the topic when it is made: at most so many workers share the load."""
    replication: int = Field(1, ge=1, le=32)
    """Kafka: copies of each partition when the topic is made; of three or more, two have a record that is confirmed."""
    record_size_bytes_max: int = _advanced(900_000, ge=4096)
    """Largest record; keep it below the topic's max.message.bytes."""
    buffer_size_bytes_max: int = _advanced(64 * MEBIBYTE, ge=MEBIBYTE)
    """Most bytes that may wait for the queue's confirmation, per process."""
    session_timeout_s: float = _advanced(10.0, ge=1)
    """How long a worker may be silent before others take its partitions over."""
    retention_hours: float = Field(168.0, gt=0)
    """How long records are kept (for a topic that logweir makes); the embedded queue keeps what no worker has read."""
    retention_size_bytes_max: int = Field(20 * 1024 * MEBIBYTE, ge=MEBIBYTE)
    """Most bytes that are kept: of a Kafka topic per partition; of the embedded queue together: when workers have not read so much, it takes no more, and the door spools."""
    tls: bool = False
    """Kafka: encrypt the connection."""
    ca_file: Path | None = None
    """Kafka: certificates of the authorities to trust; by default the system's."""
    certificate_file: Path | None = None
    """Kafka: our own certificate, when the broker asks for one."""
    certificate_key_file: Path | None = None
    """Kafka: the key of our own certificate."""
    sasl_mechanism: str = ""
    """Kafka: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty for none."""
    username: str = ""
    """Kafka: user for SASL."""
    password: SecretStr = SecretStr("")
    """Kafka: password for SASL."""


class StoreSettings(_Section):
    """Where events are kept and searched."""

    url: str = ""
    """https://host:9200[,https://host:9200] or sqlite:///folder (four slashes: absolute); by default in the data folder."""
    username: str = ""
    """Elasticsearch: user."""
    password: SecretStr = SecretStr("")
    """Elasticsearch: password."""
    api_key: SecretStr = SecretStr("")
    """Elasticsearch: API key (the encoded form), instead of user and password."""
    ca_file: Path | None = None
    """Elasticsearch: certificates of the authorities to trust; by default the system's."""
    index_prefix: str = ""
    """Elasticsearch: what all names of indices and templates begin with ("test-"): one cluster for several installations."""
    timeout_s: float = Field(30.0, gt=0)
    """How long one request to the store may take."""
    search_timeout_s: float = _advanced(10.0, gt=0, le=3600)
    """How long one page of a search may take; then it is stopped, in the store, too."""
    shards: int = Field(1, ge=1, le=1024)
    """Elasticsearch: primary shards of each daily index."""
    replicas: int = Field(0, ge=0, le=16)
    """Elasticsearch: copies of each shard; 1 or more when there are several nodes."""
    refresh_interval_s: float = Field(1.0, gt=0)
    """Elasticsearch: how soon a stored event is found."""
    retention_days: int = Field(90, ge=1)
    """Days of events that are kept."""
    dead_letters_max: int = Field(1_000_000, ge=1)
    """Most dead letters kept; when they are so many, workers wait until there is room. None is dropped."""
    dead_letters_size_bytes_max: int = Field(4096 * MEBIBYTE, ge=1)
    """Most bytes of dead letters, as sent; when they are so large, workers wait until there is room. None is dropped."""
    dead_letters_retention_days: int = Field(90, ge=1)
    """Days that dead letters are kept, from the event's receipt."""
    refused_bodies_max: int = _advanced(10_000, ge=0)
    """Most refused bodies kept; the oldest make room for the newest."""
    refused_bodies_size_bytes_max: int = _advanced(256 * MEBIBYTE, ge=0)
    """Most bytes of refused bodies; the oldest make room for the newest."""
    refused_bodies_retention_days: int = _advanced(30, ge=1)
    """Days that refused bodies are kept."""

    @field_validator("index_prefix")
    @classmethod
    def _no_others_pattern(cls, prefix: str) -> str:
        # Elasticsearch's rules for names; and "events-" in it would fit the pattern of another one's daily indices.
        if re.fullmatch(r"([a-z0-9][a-z0-9._-]{0,99})?", prefix) and "events-" not in prefix:
            return prefix
        raise ValueError(
            "it must be up to 100 of a-z, 0-9, '.', '_', '-', begin with a letter or digit, without 'events-'"
        )


class WorkerSettings(_Section):
    """What reads the queue and writes the store."""

    group: str = Field("logweir", pattern=r"^[A-Za-z0-9._-]{1,128}$")
    """Consumer group: all workers of one group share the partitions."""
    bulk_events_max: int = _advanced(2000, ge=1, le=100_000)
    """Most events in one bulk."""
    bulk_size_bytes_max: int = _advanced(8 * MEBIBYTE, ge=64 * 1024, le=32 * MEBIBYTE)
    """Most raw bytes of events in one bulk."""
    bulks_in_flight: int = _advanced(2, ge=1, le=16)
    """Bulks that may be under way at once."""
    ledger_interval_s: float = _advanced(1.0, gt=0, le=60)
    """How often the ledger is written and the position committed."""
    categories_file: Path | None = None
    """TOML file with rules that give events a category; see docs/how-to/categories.md."""
    filters_file: Path | None = None
    """TOML file with rules that leave events out on purpose; a change counts within seconds; see docs/how-to/filters.md."""
    enrich_dir: Path | None = None
    """Folder of parsers and enrichments of your own, read at the start; see docs/how-to/parse-your-own.md."""
    networks_file: Path | None = None
    """CSV file of your networks and the names of their sites; a change counts within seconds; see docs/how-to/enrich.md."""
    geoip_file: Path | None = None
    """MaxMind file (.mmdb) with countries; without one, those of registration by iptocc, if logweir[geo] is installed."""
    lookups_dir: Path | None = None
    """Folder of CSV tables that say more of a host, a user or an address; a change counts within seconds."""
    redact: CommaList = ("secrets", "cards")
    """What is replaced by marks before anything is stored: secrets, cards, emails, or single rules; none; see docs/how-to/redact.md."""
    redaction_key_file: Path | None = None
    """File of 32 random bytes that the hashes in marks are keyed with; by default redaction.key in the data folder."""
    metrics_address: str = "127.0.0.1"
    """Address of the worker's /metrics and /healthz."""
    metrics_port: int = Field(8082, ge=0, le=65535)
    """Port of the worker's /metrics and /healthz; when it is taken, the next free one above."""


@dataclass(frozen=True, slots=True)
class EventFields:
    """Where an event, as it was sent, has its number, and perhaps its emitter's name and run: keys, outermost first."""

    sequence: tuple[str, ...]
    emitter: tuple[str, ...] | None = None
    epoch: tuple[str, ...] | None = None


def event_fields_of(entry: str) -> tuple[str, EventFields]:
    """The key name and the fields of one entry of ``accounting.event_fields``. Raises ValueError."""
    key, *parts = entry.split()
    pairs = [part.partition("=") for part in parts]
    fields = {name: tuple(path.split(".")) for name, separator, path in pairs if separator and path}
    if len(fields) != len(parts) or "sequence" not in fields or not fields.keys() <= {"sequence", "emitter", "epoch"}:
        raise ValueError(f"{entry!r} does not read: key sequence=field, and perhaps emitter=field and epoch=field")
    return key, EventFields(**fields)


class AccountingSettings(_Section):
    """The ledger: what became of every event, and what of the numbered ones never came."""

    late_after_s: float = Field(60.0, gt=0)
    """How long a number may be missing before it counts as lost; if it comes after all it is recovered."""
    event_fields: CommaList = ()
    """Keys whose events bring numbers of their own, and the fields: syslog sequence=details.seqnum emitter=hostname epoch=details.boot"""
    emitters_max: int = _advanced(20_000, ge=1)
    """Emitters tracked on one partition, and a tenth more of each key. Beyond that, batches are counted but gaps are not detected."""
    emitters_in_memory_max: int = _advanced(10_000, ge=1)
    """Most emitters of one partition in a worker's memory; others are read from the store when they send."""
    sources_max: int = _advanced(10_000, ge=1)
    """Sources (pairs of category and host name) of one partition whose silence is detected, and a tenth more of each key. Beyond that, they are only counted."""
    sources_in_memory_max: int = _advanced(10_000, ge=1)
    """Most sources of one partition in a worker's memory; others are read from the store when they send."""
    epochs_max: int = _advanced(64, ge=2)
    """Runs of one emitter that are tracked in full; of the oldest beyond that, only sums are kept."""
    retention_days: int = Field(100, ge=1)
    """Days of which the books are kept; longer than store.retention_days, so that no stored event is without them."""
    merge_after_s: float = _advanced(86_400.0, ge=600)
    """How old complete windows are when they are merged to hours; the books tell minutes apart for so long."""
    store_audit_interval_s: float = _advanced(10.0, gt=0)
    """How often a worker has the store count the documents of closed windows, for a tenth of a second, one at least."""
    gaps_max: int = _advanced(1_000, ge=1)
    """Gaps kept of one emitter, in all its runs together; of the oldest beyond that, only the count is kept, as lost."""
    exceptions_max: int = _advanced(5_000, ge=1)
    """Ranges of numbers with an outcome other than indexed kept of one minute of one ingest process on one partition, and a tenth more of each key, for receipts."""

    @field_validator("event_fields")
    @classmethod
    def _check_event_fields(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            event_fields_of(entry)
        return entries

    @property
    def late_us(self) -> int:
        """``late_after_s`` in microseconds."""
        return int(self.late_after_s * 1_000_000)

    @property
    def event_fields_by_key(self) -> dict[str, EventFields]:
        """By key name, where its events bring their numbers."""
        return dict(event_fields_of(entry) for entry in self.event_fields)


class SilenceSettings(_Section):
    """From when on an emitter or a source that sends nothing is late, and silent."""

    learn_s: float = Field(86_400.0, ge=60)
    """How long something must have been heard of before its rhythm counts as learned."""
    floor_s: float = Field(300.0, ge=60)
    """Shortest learned rhythm: what sends more often is expected once in this time."""
    late_factor: float = _advanced(1.5, ge=1)
    """Late after so many times the expected time between two events."""
    silent_factor: float = _advanced(2.5, ge=1)
    """Silent after so many times the expected time between two events; never before it is late."""
    together_min: int = _advanced(3, ge=2)
    """How many must fall silent together behind one network, door or key to be one finding."""


class ConsoleSettings(HttpSettings):
    """What people look at."""

    port: int = Field(8081, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""
    connections_max: int = _advanced(1024, ge=1)
    """Most connections at once; the system's limit of open files may lower it."""
    requests_max: int = _advanced(64, ge=1)
    """Most requests at once; eight are worked on, the others wait."""
    page_size_bytes_max: int = _advanced(8 * MEBIBYTE, ge=64 * 1024, le=256 * MEBIBYTE)
    """Most bytes of one page's events, as JSON; it ends there and says how to go on."""
    hosts: CommaList = ()
    """Host names, without ports, that it answers to (.example.org: all below). Demanded beyond loopback; there, its own names."""

    api_token: SecretStr = SecretStr("")
    """Token with which programs may change alerts (Authorization: Bearer); without one, those of this machine may."""
    public_url: str = Field("", pattern=r"^(https?://[^\s?#]+)?$")
    """Where people reach it: https://logs.example.org. Notifications link there."""

    @property
    def is_open(self) -> bool:
        """Whether it listens where others than the users of this machine may reach it. It asks nobody for a password."""
        try:
            return not ipaddress.ip_address(self.address.strip("[]")).is_loopback
        except ValueError:
            return self.address != "localhost"

    def require_hosts(self) -> None:
        """Raises LogweirError(CONSOLE_HOSTS_MISSING) when it is open, and nothing says by which names it is called."""
        if self.is_open and not self.hosts:
            raise LogweirError(CONSOLE_HOSTS_MISSING, address=self.address)


class ExporterSettings(_Section):
    """What publishes the ledger's figures for Prometheus."""

    address: str = "127.0.0.1"
    """Address of the exporter's /metrics and /healthz."""
    port: int = Field(8090, ge=0, le=65535)
    """Port of them; when it is taken, the next free one above."""
    interval_s: float = _advanced(10.0, gt=0, le=600)
    """How often the ledger is read; less often where a reading takes longer than a fifth of it."""
    emitters_max: int = _advanced(200, ge=1, le=10_000)
    """Emitters that have a series of their own: those with the highest figures. All others are in one, (others)."""


class AlertsSettings(_Section):
    """Rules, and what they find."""

    rules_dir: Path | None = None
    """Folder of your own rules, one Python file each; by default rules in the data folder. A change counts within seconds."""
    lists_dir: Path | None = None
    """Folder of lists of values that rules and searches name as @NAME; by default lists in the data folder. A change counts within seconds."""
    mozdef_dir: Path | None = None
    """Folder of MozDef's alert scripts, with the file that has ALERTS, their .conf and .json files, and plugins/: run as they are. A change counts within seconds."""
    pack: bool = True
    """Whether the rules that come with logweir are evaluated, too."""
    channels_file: Path | None = None
    """TOML file of the channels by which people are told; by default channels.toml in the data folder. A change counts within seconds."""
    shard: str = Field("1/1", pattern=r"^[1-9][0-9]{0,2}/[1-9][0-9]{0,2}$")
    """Which part of the rules this process evaluates: 2/4 is the second of four. A second process of one part waits until the first is gone."""
    lateness_s: float = Field(3600.0, ge=60, le=86_400)
    """How late an event may come, by its own time, and be counted at once with those in time; later ones are counted by asking the store."""
    retention_days: int = Field(365, ge=1)
    """Days that closed alerts are kept, from their last change by the engine."""
    checkpoint_interval_s: float = _advanced(5.0, gt=0, le=60)
    """How often what is known of rules is written to the store; after a crash, so much is read again."""
    books_interval_s: float = Field(30.0, ge=1, le=3600)
    """How often rules about the accounting (losses, silences) are asked."""
    storm_alerts_max: int = Field(100, ge=1)
    """How many alerts a rule makes in an hour; beyond that, its groups fold into one alert with their number, until an hour has fewer."""
    groups_max: int = _advanced(200_000, ge=1_000)
    """Most groups of all rules together that are remembered (some 2 kB each); beyond that, new ones are not counted, and their rule says so."""
    takeover_s: float = _advanced(15.0, ge=2, le=600)
    """How long the evaluating process may be silent before one that waits takes its place."""
    metrics_address: str = "127.0.0.1"
    """Address of the alerter's /metrics and /healthz."""
    metrics_port: int = Field(8091, ge=0, le=65535)
    """Port of them; when it is taken, the next free one above."""

    @field_validator("shard")
    @classmethod
    def _within(cls, shard: str) -> str:
        number, _, of = shard.partition("/")
        if int(number) > int(of):
            raise ValueError("it must be the number of a part, such as 2/4: the second of four")
        return shard


class LogSettings(_Section):
    """What our own processes say, on standard error."""

    format: Literal["text", "json"] = "text"
    """text: a line for people; json: an object a line, for a program."""


class Settings(_Section):
    """All settings."""

    data_dir: Path = Path("data")
    """Folder of everything that logweir keeps on this machine."""
    ingest: IngestSettings = IngestSettings()
    queue: QueueSettings = QueueSettings()
    store: StoreSettings = StoreSettings()
    worker: WorkerSettings = WorkerSettings()
    accounting: AccountingSettings = AccountingSettings()
    silence: SilenceSettings = SilenceSettings()
    console: ConsoleSettings = ConsoleSettings()
    exporter: ExporterSettings = ExporterSettings()
    alerts: AlertsSettings = AlertsSettings()
    log: LogSettings = LogSettings()

    @property
    def keys_path(self) -> Path:
        """The file of hashed keys."""
        return self.ingest.keys_file or self.data_dir / "keys.toml"

    @property
    def spool_path(self) -> Path:
        """The folder of the spool."""
        return self.ingest.spool_dir or self.data_dir / "spool"

    @property
    def rules_path(self) -> Path:
        """The folder of the operator's own rules."""
        return self.alerts.rules_dir or self.data_dir / "rules"

    @property
    def lists_path(self) -> Path:
        """The folder of lists."""
        return self.alerts.lists_dir or self.data_dir / "lists"

    @property
    def rules_last_read_path(self) -> Path:
        """Copies of the operator's own rules as the alerter read them last, for a restart with a broken file."""
        return self.data_dir / "rules-last-read"

    @property
    def channels_path(self) -> Path:
        """The file of channels."""
        return self.alerts.channels_file or self.data_dir / "channels.toml"


SECTIONS: dict[str, type[_Section]] = {
    name: type(field.default) for name, field in Settings.model_fields.items() if isinstance(field.default, _Section)
}


def names() -> Iterator[str]:
    """Every setting's name, as ``section.name``; ``data_dir`` has no section."""
    yield "data_dir"
    for section, model in SECTIONS.items():
        yield from (f"{section}.{name}" for name in model.model_fields)


def fields_of(model: type[BaseModel], *, advanced: bool) -> dict[str, FieldInfo]:
    """The settings of a section by name: those that people set, or the advanced ones."""
    return {name: field for name, field in model.model_fields.items() if _is_advanced(field) == advanced}


def _is_advanced(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get(_ADVANCED))


def environment_name(name: str) -> str:
    """``queue.url`` -> ``LOGWEIR_QUEUE_URL``."""
    return ENVIRONMENT_PREFIX + name.replace(".", "_").upper()


def load(
    *,
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The settings in force: defaults, then the file, then the environment, then ``overrides`` (name -> value).

    Without ``config_file``, LOGWEIR_CONFIG names it, else ``logweir.toml`` in the working folder is read if there.
    Raises LogweirError: SETTING_UNKNOWN (with the nearest name), SETTING_BAD, CONFIG_UNREADABLE.
    """
    environment = os.environ if environment is None else environment
    chosen = config_file or (Path(environment["LOGWEIR_CONFIG"]) if environment.get("LOGWEIR_CONFIG") else None)
    values: dict[str, tuple[Any, str]] = {}
    values.update(_from_file(chosen or CONFIG_FILE_DEFAULT, required=chosen is not None))
    values.update(_from_environment(environment))
    values.update({name: (value, "The command line") for name, value in (overrides or {}).items()})
    return _filled(_validated(values))


def _from_file(path: Path, *, required: bool) -> dict[str, tuple[Any, str]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not required:
            return {}
        raise LogweirError(CONFIG_UNREADABLE, path=path, reason="there is no such file") from error
    except (OSError, ValueError) as error:
        raise LogweirError(CONFIG_UNREADABLE, path=path, reason=error) from error
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[name] = value
    for name in flat:
        require_known(name, where=str(path))
    return {name: (value, str(path)) for name, value in flat.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    by_environment_name = {environment_name(name): name for name in names()}
    found: dict[str, tuple[Any, str]] = {}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith(_NOT_SETTINGS):
            continue
        if variable not in by_environment_name:
            nearest = difflib.get_close_matches(variable, by_environment_name, n=1)
            raise _unknown(variable, where="The environment", nearest=nearest)
        # An empty variable is how compose files and unit files say "not set".
        if value != "":
            found[by_environment_name[variable]] = (value, f"The environment variable {variable}")
    return found


def require_known(name: str, *, where: str) -> None:
    """Raises LogweirError(SETTING_UNKNOWN) with the nearest name."""
    if name not in names():
        raise _unknown(name, where=where, nearest=difflib.get_close_matches(name, list(names()), n=1))


def _unknown(name: str, *, where: str, nearest: list[str]) -> LogweirError:
    return LogweirError(
        SETTING_UNKNOWN, where=where, name=name, nearest=f" Did you mean {nearest[0]!r}?" if nearest else ""
    )


# pydantic's words, in ours.
_REASONS = {
    "int_parsing": "it is not a whole number",
    "int_from_float": "it is not a whole number",
    "int_type": "it is not a whole number",
    "float_parsing": "it is not a number",
    "float_type": "it is not a number",
    "bool_parsing": "it is neither true nor false",
    "bool_type": "it is neither true nor false",
    "string_type": "it is not text",
    "path_type": "it is not a path",
    "greater_than_equal": "it must be at least {ge:g}",
    "greater_than": "it must be more than {gt:g}",
    "less_than_equal": "it must be at most {le:g}",
    "less_than": "it must be less than {lt:g}",
    "finite_number": "it is not a number",
    "tuple_type": "it is not a list",
    "model_type": "it is not a table",
    "literal_error": "it must be {expected}",
    "string_pattern_mismatch": "it has a character that it may not have, or is too long",
}


def _validated(values: Mapping[str, tuple[Any, str]]) -> Settings:
    nested: dict[str, Any] = {}
    for name, (value, _) in values.items():
        section, _, inner = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[inner] = value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"][:2])
        value, where = values.get(name, ("", "The configuration"))
        shown = "***" if "password" in name or "api_key" in name or "token" in name else value
        if name.endswith(".url"):
            shown = shown_url(str(value))
        if template := _REASONS.get(first["type"]):
            reason = template.format(**first.get("ctx", {}))
        else:
            reason = (first["msg"][:1].lower() + first["msg"][1:]).removeprefix("value error, ")
        raise LogweirError(SETTING_BAD, where=where, name=name, value=shown, reason=reason) from error


def _filled(settings: Settings) -> Settings:
    """With the places that follow from the data folder."""
    data_dir = settings.data_dir.expanduser().absolute()
    queue = settings.queue.model_copy(update={"url": settings.queue.url or f"sqlite:///{data_dir}/queue.sqlite"})
    store = settings.store.model_copy(update={"url": settings.store.url or f"sqlite:///{data_dir}/store"})
    key_file = settings.worker.redaction_key_file or data_dir / "redaction.key"
    worker = settings.worker.model_copy(update={"redaction_key_file": key_file})
    return settings.model_copy(update={"data_dir": data_dir, "queue": queue, "store": store, "worker": worker})


def shown_url(url: str) -> str:
    """The URL as it may be printed and logged: ``***`` where user and password stand, however badly it is written."""
    if url.startswith("sqlite:"):
        return url  # A path, which may hold an @ as any other character.
    return ",".join(_without_credentials(part) for part in re.split(r",(?=[\w\s]+:/)", url))


def _without_credentials(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    _, at, place = rest.rpartition("@")
    return f"{scheme}{separator}***@{place}" if at else url


def sqlite_path(url: str) -> Path:
    """The path in ``sqlite:///relative`` or ``sqlite:////absolute``."""
    return Path(url.removeprefix("sqlite:///"))


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings in force for a command that was called with these arguments. Raises LogweirError as config.load."""
    overrides = {
        name.removeprefix("set:"): value
        for name, value in vars(arguments).items()
        if name.startswith("set:") and value is not None
    }
    if arguments.data_dir is not None:
        overrides["data_dir"] = arguments.data_dir
    return load(config_file=arguments.config, overrides=overrides)
