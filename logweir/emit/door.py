"""One request to a door, over a connection that is kept, and what its answer says."""

from __future__ import annotations

import copy
import http.client
import json
import math
import ssl
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from logweir import __version__

_COMPRESSED_FROM_BYTES = 512
_ANSWER_SIZE_BYTES_MAX = 64 * 1024
_RETRY_AFTER_S_MAX = 300.0
# What is wrong is in the body, says this status; not with these codes of ours, which speak of the request around it.
_REFUSALS = frozenset((400, 413, 422))
_NOT_OF_EVENTS = frozenset(("emitter_header_bad", "http_bad"))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    """0 when none came."""
    reason: str
    """What there is to say about it."""
    accepted: int | None = None
    """How many events the door took over, where it says so."""
    event_index: int | None = None
    """Which event of the request it speaks of, from 0, where it speaks of one."""
    code: str = ""
    """Its name for the problem."""
    retry_after_s: float | None = None

    def takes(self, events: int) -> bool:
        """Whether all of so many events are accepted. Only a door says so: a page behind a 200 does not."""
        return 200 <= self.status < 300 and self.accepted == events

    def refuses(self) -> bool:
        """Whether an event is at fault, so that the same request can never be accepted."""
        if 200 <= self.status < 300:
            # It was kept for the door's operator, but is no event.
            return self.accepted is not None
        if self.event_index is not None and self.status == 403:
            return True
        return self.status in _REFUSALS and self.code not in _NOT_OF_EVENTS


class Door:
    """Posts to one URL. Used by one thread."""

    def __init__(self, url: str, key: str, *, ca_file: str | None, timeout_s: float) -> None:
        """Raises ValueError, which never shows the key, or OSError for the CA file."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the url is not http://host:port or https://host:port")
        if parts.username or parts.password:
            raise ValueError("the url holds a password; a key is given as key, or in LOGWEIR_KEY")
        if not key or not all("!" <= character <= "~" for character in key):
            raise ValueError("the key holds a character that no key has" if key else "no key is given")
        self.url = url
        self.timeout_s = timeout_s
        self._host, self._port = parts.hostname, parts.port
        self._path = (parts.path if parts.path not in ("", "/") else "/events") + (
            f"?{parts.query}" * bool(parts.query)
        )
        self._trusted = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/x-ndjson",
            "User-Agent": f"logweir-emit/{__version__}",
        }
        self._connection: http.client.HTTPConnection | None = None

    def again(self) -> Door:
        """Another one, with a connection of its own; of one that has not posted yet."""
        return copy.copy(self)

    def post(self, body: bytes, headers: Mapping[str, str | bytes], *, timeout_s: float = math.inf) -> Answer:
        """The answer to a body of events, a line each. Raises nothing for what the network does."""
        headers = {**self._headers, **headers}
        if len(body) >= _COMPRESSED_FROM_BYTES:
            body = _gzipped(body)
            headers["Content-Encoding"] = "gzip"
        was_kept = self._connection is not None
        try:
            try:
                return self._exchange(body, headers, timeout_s)
            except (ConnectionError, http.client.RemoteDisconnected):
                if not was_kept:
                    raise
                # The door may have closed it while it was idle; the events are numbered, so twice is once.
                self.close()
                return self._exchange(body, headers, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return Answer(0, f"{type(error).__name__}: {reason}"[:500])

    def _exchange(self, body: bytes, headers: dict[str, str | bytes], timeout_s: float) -> Answer:
        timeout_s = min(self.timeout_s, timeout_s)
        if self._connection is None:
            if self._trusted is None:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
            else:
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=timeout_s, context=self._trusted
                )
        elif self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        self._connection.request("POST", self._path, body, headers)
        response = self._connection.getresponse()
        text = response.read(_ANSWER_SIZE_BYTES_MAX)
        if not response.isclosed() or response.will_close:
            self.close()
        return _answer_of(response.status, text, response.getheader("Retry-After"))

    def close(self) -> None:
        """Close the connection; the next request makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _gzipped(body: bytes) -> bytes:
    compressor = zlib.compressobj(1, wbits=31)
    return compressor.compress(body) + compressor.flush()


def _answer_of(status: int, text: bytes, retry_after: str | None) -> Answer:
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    said = said if isinstance(said, dict) else {}
    accepted, index, code = said.get("accepted"), said.get("event_index"), said.get("code")
    return Answer(
        status,
        f"it answers {status}" + (f": {said['detail']}"[:500] if isinstance(said.get("detail"), str) else ""),
        accepted if type(accepted) is int else None,
        index if type(index) is int and index >= 0 else None,
        code if isinstance(code, str) else "",
        _seconds(retry_after),
    )


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110 section 10.2.3: seconds, or a date. None for anything else."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after[:9]), _RETRY_AFTER_S_MAX)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max(0.0, until.timestamp() - time.time()), _RETRY_AFTER_S_MAX)
