"""One request to a receiver, with an end: of its time, and of how much of the answer is read."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import urllib3
from urllib3.util.ssl_ import create_urllib3_context

from logweir import __version__
from logweir_workers.notify.senders.port import NoticeRefused, SendFailed

ANSWER_SIZE_BYTES_MAX = 64 * 1024
RETRY_AFTER_S_MAX = 3600.0
"""Longest time that a receiver may ask to be left alone."""
# Another try may be answered otherwise once the operator has put the channel right; or the receiver was busy.
_AGAIN = (401, 403, 404, 407, 408, 410, 421, 425, 429)


@dataclass(frozen=True, slots=True)
class Answer:
    """A receiver's answer with a status of 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http:
    """The connection to one receiver. For one thread. ``ca_file``: authorities to trust instead of the system's."""

    def __init__(self, *, timeout_s: float, ca_file: Path | None = None) -> None:
        self._timeout_s = timeout_s
        trusted = None
        if ca_file is not None:
            trusted = create_urllib3_context()
            trusted.load_verify_locations(ca_file)
        timeout = urllib3.Timeout(connect=timeout_s, read=timeout_s)
        # No redirects: they would take the secrets elsewhere.
        self._pool = urllib3.PoolManager(num_pools=2, timeout=timeout, retries=False, ssl_context=trusted)

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Raises SendFailed, also for 429 with its Retry-After, and NoticeRefused for what no retry will change."""
        sent = {"User-Agent": f"logweir/{__version__}", "Content-Type": "application/json", **headers}
        end_s = time.monotonic() + self._timeout_s
        try:
            response = self._pool.request("POST", url, body=body, headers=sent, preload_content=False, redirect=False)
            try:
                read = self._read(response, end_s)
            finally:
                response.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SendFailed(f"{type(error).__name__}: {error}") from error
        status = response.status
        if 200 <= status < 300:
            return Answer(status, response.headers, read)
        reason = f"it answered {status}: {read[:200].decode(errors='replace')}"
        if status in _AGAIN or not 400 <= status < 500:
            raise SendFailed(reason, after_s=retry_after_s(response.headers.get("Retry-After")))
        raise NoticeRefused(reason)

    def _read(self, response: urllib3.BaseHTTPResponse, end_s: float) -> bytes:
        read = b""
        for piece in response.stream(4096):
            read += piece
            if len(read) >= ANSWER_SIZE_BYTES_MAX:
                break
            if time.monotonic() > end_s:
                raise SendFailed("its answer takes too long")
        return read

    def close(self) -> None:
        self._pool.clear()


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which has seconds or a date (RFC 9110 section 10.2.3); bounded."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX) if seconds == seconds else None
