"""The event as it is stored: its field table, its identity, and the day that it is kept by.

The field names are MozDef's, so that its users' dashboards and rules keep working. Identity and day are pure
functions of what was accepted: indexing any record any number of times leaves one document.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from logweir.clock import DAY_US


class Kind(StrEnum):
    """How a field is kept, and so what a search can do with it."""

    KEYWORD = "keyword"
    """One value or a list of them, compared whole and without regard to case; wildcards work."""
    TEXT = "text"
    """Cut into words by ``query/words.py``."""
    DATE = "date"
    """ISO 8601 in UTC with microseconds; compared as milliseconds."""
    NUMBER = "number"
    """A whole number."""
    FLOAT = "float"
    """A number, whole or not."""
    IP = "ip"
    """An address, IPv4 or IPv6, in its shortest spelling and in lower case."""
    FLATTENED = "flattened"
    """An object; each leaf is compared whole, with regard to case, or by its beginning."""


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the field table. ``ecs`` is the Elastic Common Schema name that works as an alias of it."""

    name: str
    kind: Kind
    help: str
    ecs: str | None = None


FIELDS = (
    Field("timestamp", Kind.DATE, "When it happened, as the event says; else when it was received.", "@timestamp"),
    Field("utctimestamp", Kind.DATE, "The same as timestamp, under the name that MozDef's rules use."),
    Field("receivedtimestamp", Kind.DATE, "When the door received it.", "event.ingested"),
    Field("category", Kind.KEYWORD, "What kind of log it is from: syslog, application, …", "event.category"),
    Field("hostname", Kind.KEYWORD, "The short name of the host that it speaks of.", "host.name"),
    Field("fqdn", Kind.KEYWORD, "The host's full name, where known.", "host.hostname"),
    Field("processid", Kind.KEYWORD, "The process's number, as text.", "process.pid"),
    Field("processname", Kind.KEYWORD, "The process's name.", "process.name"),
    Field("severity", Kind.KEYWORD, "EMERGENCY, ALERT, CRITICAL, ERROR, WARNING, NOTICE, INFO or DEBUG.", "log.level"),
    Field("source", Kind.KEYWORD, "Where the log line came from: a file, a module, a facility.", "log.logger"),
    Field("summary", Kind.TEXT, "The message.", "message"),
    Field("tags", Kind.KEYWORD, "Labels; always a list."),
    Field("type", Kind.KEYWORD, "The type that the emitter gave."),
    Field("version", Kind.KEYWORD, "The version that the emitter gave."),
    Field("key", Kind.KEYWORD, "The name of the key with which it was let in."),
    Field("emitter", Kind.KEYWORD, "The emitter's name, when it sent one (Log-Emitter)."),
    Field("sourceaddress", Kind.KEYWORD, "The network address from which it was posted.", "client.address"),
    Field("details", Kind.FLATTENED, "Everything else that the event brought along."),
    Field("ingest_stream", Kind.KEYWORD, "Provenance: ingest epoch and partition, as <epoch>-<partition>."),
    Field("ingest_number", Kind.NUMBER, "Provenance: the event's number inside its ingest stream, from 1."),
    Field("content_hash", Kind.KEYWORD, "Fingerprint of the bytes that were sent."),
)
"""Every top-level field of a stored event. Whatever else an event brings moves under ``details``."""

DETAILS = (
    # ``source.ip`` and ``source.port`` would be the nearest, but ``source`` is a field of ours.
    Field(
        "details.sourceipaddress",
        Kind.IP,
        "The address that somebody came from: of a client, a caller, an attacker.",
        "client.ip",
    ),
    Field("details.sourceport", Kind.NUMBER, "The port there.", "client.port"),
    Field("details.destinationipaddress", Kind.IP, "The address that somebody went to.", "destination.ip"),
    Field("details.destinationport", Kind.NUMBER, "The port there.", "destination.port"),
    Field("details.username", Kind.KEYWORD, "Who did it, or tried to.", "user.name"),
    Field("details.targetusername", Kind.KEYWORD, "Whom it was done to, or who somebody became.", "user.target.name"),
    Field("details.action", Kind.KEYWORD, "What was done: login, run_command, add_user, …", "event.action"),
    Field("details.outcome", Kind.KEYWORD, "success or failure.", "event.outcome"),
    Field("details.status", Kind.NUMBER, "The status of an answer, as HTTP numbers them.", "http.response.status_code"),
    Field("details.bytes", Kind.NUMBER, "How many bytes were sent in answer, or carried.", "http.response.body.bytes"),
    # ``event.duration`` is in nanoseconds.
    Field("details.duration", Kind.FLOAT, "How long it took, in seconds."),
    Field("details.method", Kind.KEYWORD, "The method of a request: GET, POST, …", "http.request.method"),
    Field("details.protocol", Kind.KEYWORD, "The protocol: HTTP/1.1, ssh2, TCP, …", "network.protocol"),
    Field("details.path", Kind.KEYWORD, "What was asked for, without its query.", "url.path"),
    Field("details.query", Kind.KEYWORD, "What stands behind the ? of a URL.", "url.query"),
    Field("details.useragent", Kind.KEYWORD, "The client's software, as it says itself.", "user_agent.original"),
    Field("details.referrer", Kind.KEYWORD, "The page that led there.", "http.request.referrer"),
    Field(
        "details.country",
        Kind.KEYWORD,
        "Country of the source address: two letters of ISO 3166.",
        "client.geo.country_iso_code",
    ),
    Field("details.command", Kind.KEYWORD, "A command with its arguments.", "process.command_line"),
    Field("details.executable", Kind.KEYWORD, "The program's file.", "process.executable"),
    Field(
        "details.parentexecutable",
        Kind.KEYWORD,
        "The file of the program that started it.",
        "process.parent.executable",
    ),
    Field("details.filepath", Kind.KEYWORD, "The file that it is about.", "file.path"),
    Field("details.hash", Kind.KEYWORD, "A hash of that file, in hexadecimal digits.", "file.hash"),
    Field("details.traceid", Kind.KEYWORD, "The trace that it belongs to, over all services.", "trace.id"),
    Field("details.spanid", Kind.KEYWORD, "The part of that trace in which it happened.", "span.id"),
    Field("details.exceptiontype", Kind.KEYWORD, "The class of an exception.", "error.type"),
    Field("details.exceptionmessage", Kind.KEYWORD, "What the exception says.", "error.message"),
    Field("details.stacktrace", Kind.KEYWORD, "Where it was raised, call by call.", "error.stack_trace"),
)
"""Details that have one name and one type, whoever sent them and however they were called there.

A value that has not the form of its kind stays under the name that it was sent with. Stores keep all of them as other
details, by their text; and beside that by the value of their kind (``query/known.py``), which gives them an order.
"""
CATEGORY_NAMES = ("category", "event.category")
"""What senders call the category, the strongest first, in lower case; case does not count. Doors judge by these what
workers store by them."""
KEYWORD_LENGTH_MAX = 1000
"""Longest text of a field other than summary, in characters. Longer texts move under details."""

FIELD_BY_NAME = {field.name: field for field in FIELDS}
DETAIL_BY_NAME = {field.name: field for field in DETAILS}
"""The known details, by names that begin with ``details.``"""


def day_of(received_us: int) -> str:
    """The UTC day of a receipt time in microseconds, as YYYYMMDD."""
    return _day_name(received_us // DAY_US)


def start_of(day: str) -> int:
    """The beginning of a day given as YYYYMMDD, in microseconds since 1970."""
    return int(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).timestamp()) * 1_000_000


@lru_cache(maxsize=64)
def _day_name(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, tz=UTC).strftime("%Y%m%d")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which accepted event a document came from: two tries of one event have the same, two events never."""

    stream: str
    number: int
    content_hash: str

    def is_of(self, other: Provenance) -> bool:
        """Whether both are of the same accepted event."""
        return (self.stream, self.number) == (other.stream, other.number)

    def __str__(self) -> str:
        return f"number {self.number} of {self.stream}, content {self.content_hash}"


def stream_of(ingest_epoch: bytes, partition: int) -> str:
    """The name of an ingest process's numbering on one partition.

    Numbers run inside (ingest epoch, partition), so the epoch alone would give two events one provenance.
    """
    return f"{ingest_epoch.hex()}-{partition}"


def letter_id(stream: str, number: int) -> str:
    """The id of the dead letter of the event of that provenance: it has at most one."""
    return f"{stream}.{number}"


def content_hash_of(raw: bytes) -> str:
    """Sixteen hexadecimal digits that differ when the sent bytes differ (BLAKE2b, 8 bytes)."""
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def identity_prefix_numbered(key: str, emitter: str | None, epoch: str) -> str:
    """What the ids of all numbered events of one epoch begin with; append the sequence in decimal."""
    named = b"\x00".join(part.encode() for part in (key, "" if emitter is None else "=" + emitter, epoch))
    return "n" + hashlib.blake2b(named, digest_size=15).hexdigest() + "."


def identity_prefix_bare(batch_id: bytes) -> str:
    """What the ids of all events of one unnumbered batch begin with; append the index in the batch in decimal."""
    return "b" + batch_id.hex() + "."


def batch_id_new(received_us: int, random: bytes) -> bytes:
    """A UUIDv7 (RFC 9562 section 5.7) of the receipt time and 10 random bytes, as 16 bytes."""
    milliseconds = (received_us // 1000) & 0xFFFF_FFFF_FFFF
    a = 0x7000 | (int.from_bytes(random[:2], "big") & 0x0FFF)
    b = 0x8000_0000_0000_0000 | (int.from_bytes(random[2:10], "big") & 0x3FFF_FFFF_FFFF_FFFF)
    return (milliseconds << 80 | a << 64 | b).to_bytes(16, "big")


def batch_id_from_idempotency_key(key: str, idempotency_key: str) -> bytes:
    """The batch id that a client's ``Idempotency-Key`` stands for, in its key's own name space (a UUIDv8)."""
    return _batch_id_of(key.encode() + b"\x00" + idempotency_key.encode())


def batch_id_from_name(key: str, name: str) -> bytes:
    """The batch id of one event that its sender has a name for, as if it came alone (a UUIDv8).

    In its key's own name space, and apart from all ``Idempotency-Key``: no header has a NUL.
    """
    return _batch_id_of(key.encode() + b"\x00\x00" + name.encode(errors="surrogatepass"))


def _batch_id_of(named: bytes) -> bytes:
    value = int.from_bytes(hashlib.blake2b(named, digest_size=16).digest(), "big")
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value).bytes


@dataclass(frozen=True, slots=True)
class Document:
    """An event to be stored.

    ``day``: the UTC day of its receipt, YYYYMMDD. ``source`` has the fields of ``event.FIELDS``. ``summary_words`` and
    ``all_words`` are the words of the summary and of the whole event, cut by ``query/words.py`` and joined with spaces:
    what searches for words and phrases look at.
    """

    id: str
    day: str
    source: dict[str, Any]
    provenance: Provenance
    summary_words: str
    all_words: str
