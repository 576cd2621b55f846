"""Senders that a refusal stops for good, told by their headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OMHTTP, SYSLOG_NG = "rsyslog's omhttp", "syslog-ng's http()"

# As omhttp sends single events and arrays, and lines. It has no User-Agent, unlike nearly all others.
_OMHTTP_TYPES = frozenset((b"application/json; charset=utf-8", b"text/plain"))


def stopped_by_refusal(headers: Mapping[bytes, bytes]) -> str | None:
    """What the sender seems to be, if it never gets over a 4xx for one bad event: OMHTTP, SYSLOG_NG; else None."""
    if is_omhttp(headers):
        return OMHTTP
    # It sends the same batch again for ever, and nothing behind it.
    return SYSLOG_NG if headers.get(b"user-agent", b"").startswith(b"syslog-ng") else None


def is_omhttp(headers: Mapping[bytes, bytes]) -> bool:
    """Whether it looks like rsyslog's omhttp: after any 3xx or 4xx that drops all later messages, without a word."""
    return (
        b"user-agent" not in headers
        and headers.get(b"accept") == b"*/*"
        and headers.get(b"content-type") in _OMHTTP_TYPES
    )


def looks_at_no_status(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether it looks like rsyslog's omelasticsearch: what is answered without items it drops, whatever the status.

    What has no whole answer it sends again. It is the one sender of bulks that does not say its name.
    """
    return url.partition(b"?")[0].endswith(b"/_bulk") and all(name != b"user-agent" for name, _ in headers)
