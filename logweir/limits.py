"""Every limit of the door and the console, once: the setting that sets it, and what is answered beyond it."""

from __future__ import annotations

from dataclasses import dataclass

from logweir.errors import (
    ANSWER_UNREAD,
    BODIES_TOO_LARGE,
    BODY_TOO_LARGE,
    BODY_TOO_SLOW,
    CONNECTIONS_TOO_MANY,
    CONNECTIONS_WITHOUT_KEY_TOO_MANY,
    DECOMPRESSED_TOO_LARGE,
    DEPTH_EXCEEDED,
    EVENT_TOO_LARGE,
    EVENTS_TOO_MANY,
    FAILED_ATTEMPTS_EXCEEDED,
    HEADERS_TOO_LARGE,
    HEADERS_TOO_MANY,
    HEADERS_TOO_SLOW,
    PIPELINED_TOO_MANY,
    QUEUE_UNAVAILABLE,
    RECEIPT_UNANSWERED,
    REQUESTS_TOO_MANY,
    SEARCH_TOO_SLOW,
    SPOOL_FULL,
    STOPPING,
    Problem,
)


@dataclass(frozen=True, slots=True)
class Limit:
    """One row. ``beyond``: the problem, or in words what happens where nobody is refused.

    A setting without a section is there for the door and for the console.
    """

    setting: str
    beyond: Problem | str


LIMITS = (
    Limit("header_size_bytes_max", HEADERS_TOO_LARGE),
    Limit("headers_max", HEADERS_TOO_MANY),
    Limit("header_timeout_s", HEADERS_TOO_SLOW),
    Limit("body_timeout_s", BODY_TOO_SLOW),
    Limit("read_timeout_s", f"the connection is ended, and counted as `{ANSWER_UNREAD.code}`"),
    Limit("idle_timeout_s", "the connection is closed"),
    Limit("connections_max", CONNECTIONS_TOO_MANY),
    Limit("requests_max", REQUESTS_TOO_MANY),
    Limit("pipelined_requests_max", PIPELINED_TOO_MANY),
    Limit(
        "ingest.connections_without_key_max",
        f"the oldest is ended, and counted as `{CONNECTIONS_WITHOUT_KEY_TOO_MANY.code}`",
    ),
    Limit(
        "ingest.connections_without_key_per_address_max",
        f"the oldest is ended, and counted as `{CONNECTIONS_WITHOUT_KEY_TOO_MANY.code}`",
    ),
    Limit("ingest.connections_per_key_max", "a connection ends with its next answer"),
    Limit("ingest.tls_handshake_timeout_s", "the connection is closed"),
    Limit("ingest.failed_attempts_per_minute_max", FAILED_ATTEMPTS_EXCEEDED),
    Limit("ingest.failed_addresses_max", "the oldest is forgotten"),
    Limit("ingest.body_size_bytes_max", BODY_TOO_LARGE),
    Limit("ingest.bodies_size_bytes_max", BODIES_TOO_LARGE),
    Limit("ingest.decompressed_size_bytes_max", DECOMPRESSED_TOO_LARGE),
    Limit("ingest.decompression_ratio_max", DECOMPRESSED_TOO_LARGE),
    Limit("ingest.event_size_bytes_max", EVENT_TOO_LARGE),
    Limit("ingest.events_per_request_max", EVENTS_TOO_MANY),
    Limit("ingest.depth_max", DEPTH_EXCEEDED),
    Limit("ingest.refused_size_bytes_max", "the rest is left out"),
    Limit("ingest.queue_timeout_s", "the events go to the spool"),
    Limit("ingest.spool_timeout_s", QUEUE_UNAVAILABLE),
    Limit("ingest.spool_size_bytes_max", SPOOL_FULL),
    Limit("ingest.receipts_at_once_max", RECEIPT_UNANSWERED),
    Limit("ingest.receipts_timeout_s", RECEIPT_UNANSWERED),
    Limit("ingest.stop_timeout_s", STOPPING),
    Limit("queue.buffer_size_bytes_max", QUEUE_UNAVAILABLE),
    Limit("console.page_size_bytes_max", "the page ends there, and `after` continues behind it"),
    Limit("store.search_timeout_s", SEARCH_TOO_SLOW),
)
