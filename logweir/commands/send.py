"""Post events from a file or standard input, one JSON object a line, in batches.

    logweir send --key KEY events.ndjson
    LOGWEIR_KEY=KEY logweir send old.ndjson.gz
    journalctl -o json | logweir send --key KEY -

Every batch carries an Idempotency-Key, so a batch that is tried again after a time-out leaves each event once, as long
as both tries arrive on the same UTC day: a batch whose first answer is lost around midnight UTC may leave its events on
both days. Two runs over one file leave its events twice.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import secrets
import ssl
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import urllib3
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from logweir.commands.door import check_trust, door_url, trusted
from logweir.commands.output import whole_number
from logweir.config import Settings
from logweir.errors import (
    DOOR_DOWN,
    DOOR_REFUSED,
    DOOR_REFUSED_KEY,
    FILE_UNREADABLE,
    KEY_NOT_GIVEN,
    KEY_UNSENDABLE,
    LogweirError,
)

KEY_VARIABLE = "LOGWEIR_KEY"
_GZIP_MAGIC = b"\x1f\x8b"
_BATCH_BYTES_MAX = 1024 * 1024
_RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_WAIT_S_MAX = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="events, one JSON object a line; - for standard input")
    parser.add_argument("--key", help=f"the key to send with (environment: {KEY_VARIABLE})")
    parser.add_argument("--url", help="where to post (ingest of this machine)")
    parser.add_argument(
        "--batch", type=whole_number(least=1), default=500, metavar="N", help="events in a request (500)"
    )
    retry_help = "how long to try a batch again when the door is away or busy (60)"
    parser.add_argument(
        "--from-line",
        type=whole_number(least=1),
        default=1,
        metavar="N",
        help="begin there, where an earlier run has stopped",
    )
    parser.add_argument("--retry", type=float, default=60.0, metavar="SECONDS", help=retry_help)
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="certificates of the authorities to trust, for https"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    key = _readable(arguments.key or os.environ.get(KEY_VARIABLE) or "")
    url = arguments.url or f"{door_url(settings)}/events"
    door = _Door(url=url, key=key, retry_s=arguments.retry, trusted=trusted(arguments.ca_file))
    progress = Progress(
        TextColumn("sending"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=arguments.quiet or not sys.stderr.isatty(),
    )
    with _opened(arguments.file) as (stream, size_bytes):
        try:
            with progress:
                bar = progress.add_task("sending", total=size_bytes)
                for batch in _batches(stream, events_max=arguments.batch, from_line=arguments.from_line):
                    door.post(batch)
                    progress.update(bar, advance=batch.read_bytes)
        except (EOFError, OSError, zlib.error) as error:
            raise LogweirError(FILE_UNREADABLE, path=arguments.file, reason=error) from error
        finally:
            print(f"{door.accepted} events accepted by {url}", file=sys.stderr)
    return 0


def _readable(key: str) -> str:
    """The key without the white space around it. Raises LogweirError(KEY_NOT_GIVEN), (KEY_UNSENDABLE)."""
    key = key.strip()
    if not key:
        raise LogweirError(KEY_NOT_GIVEN, variable=KEY_VARIABLE)
    for place, character in enumerate(key, start=1):
        if not "!" <= character <= "~":  # visible ASCII: nothing else may stand in a header
            raise LogweirError(KEY_UNSENDABLE, place=place, length=len(key))
    return key


@dataclass(slots=True)
class _Batch:
    """Lines of the input: ``first`` is the number of the first one, from 1; ``read_bytes`` with empty lines."""

    first: int
    lines: list[bytes]
    read_bytes: int


class _Door:
    """``accepted``: how many events were answered 202 so far."""

    def __init__(self, *, url: str, key: str, retry_s: float, trusted: ssl.SSLContext) -> None:
        self.accepted = 0
        self._url = url
        self._headers = {"X-My-Log-Input-Key": key, "Content-Type": "application/x-ndjson"}
        self._retry_s = retry_s
        self._run = secrets.token_hex(12)
        self._pool = urllib3.PoolManager(ssl_context=trusted, retries=False, timeout=30.0)

    def post(self, batch: _Batch) -> None:
        """Have the whole batch accepted, or else all that stands before the line that is refused.

        Raises LogweirError: DOOR_REFUSED naming the line, DOOR_REFUSED_KEY, DOOR_UNTRUSTED, DOOR_DOWN.
        """
        status, answer = self._answered(batch)
        if status == 202:
            self.accepted += int(answer["accepted"])
            return
        if status in (401, 403) and "event_index" not in answer:
            raise LogweirError(DOOR_REFUSED_KEY, url=self._url, status=status, detail=answer.get("detail", ""))
        index = answer.get("event_index")
        if isinstance(index, int) and 0 < index < len(batch.lines):
            # The door takes a request as a whole or not at all: what is good before the fault goes in one of its own.
            self.post(_Batch(batch.first, batch.lines[:index], 0))
        raise self._refused(batch, status, answer)

    def _answered(self, batch: _Batch) -> tuple[int, dict[str, Any]]:
        """The door's answer; tried again while it is away or busy. Raises LogweirError(DOOR_DOWN)."""
        body = b"".join(line.rstrip(b"\r\n") + b"\n" for line in batch.lines)
        headers = {**self._headers, "Idempotency-Key": f"{self._run}-{batch.first}-{len(batch.lines)}"}
        deadline = time.monotonic() + self._retry_s
        wait_s = 0.2
        while True:
            status, answer, reason = self._try(body, headers)
            if status and status not in _RETRY_STATUSES:
                return status, answer
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise LogweirError(DOOR_DOWN, url=self._url, line=batch.first, seconds=self._retry_s, reason=reason)
            time.sleep(min(wait_s, left_s))
            wait_s = min(wait_s * 2, _WAIT_S_MAX)

    def _try(self, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any], str]:
        """Status (0: no answer), answer, and what to say about it. Raises LogweirError(DOOR_UNTRUSTED)."""
        try:
            response = self._pool.request("POST", self._url, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            check_trust(self._url, error)
            is_tls = isinstance(error, urllib3.exceptions.SSLError)
            return 0, {}, str(error) if is_tls else str(error).rpartition(": ")[2]
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = {}
        answer = answer if isinstance(answer, dict) else {}
        return response.status, answer, f"it answers {response.status}: {answer.get('detail', '')}"

    def _refused(self, batch: _Batch, status: int, answer: dict[str, Any]) -> LogweirError:
        index = answer.get("event_index")
        index = index if isinstance(index, int) and index < len(batch.lines) else 0
        detail = answer.get("detail") or f"it answers {status} and gives no reason"
        if "reason" in answer and "byte_offset" in answer:
            before = sum(len(line.rstrip(b"\r\n")) + 1 for line in batch.lines[:index])
            detail = f"not valid JSON at byte {answer['byte_offset'] - before} of the line: {answer['reason']}"
        return LogweirError(DOOR_REFUSED, url=self._url, status=status, line=batch.first + index, detail=detail)


class _opened:
    """The input as plain bytes, and its size, None where that is unknown; gzip is unpacked."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: BinaryIO = sys.stdin.buffer

    def __enter__(self) -> tuple[BinaryIO, int | None]:
        try:
            if self._name != "-":
                self._stream = Path(self._name).open("rb")
            begins = self._stream.peek(2)[:2]  # type: ignore[attr-defined]
        except OSError as error:
            raise LogweirError(FILE_UNREADABLE, path=self._name, reason=error.strerror) from error
        if begins == _GZIP_MAGIC:
            return cast("BinaryIO", gzip.open(self._stream)), None
        size_bytes = os.fstat(self._stream.fileno()).st_size if self._name != "-" else 0
        return self._stream, size_bytes or None

    def __exit__(self, *_: object) -> None:
        if self._stream is not sys.stdin.buffer:
            self._stream.close()


def _batches(stream: BinaryIO, *, events_max: int, from_line: int) -> Iterator[_Batch]:
    """Up to ``events_max`` lines, and about a mebibyte, at a time. Empty lines are left out."""
    batch = _Batch(from_line, [], 0)
    size_bytes = 0
    for number, line in enumerate(stream, start=1):
        if number < from_line:
            batch.read_bytes += len(line)
            continue
        full = len(batch.lines) >= events_max or size_bytes + len(line) > _BATCH_BYTES_MAX
        # An empty line ends the batch too: the door tells its faults by index, and the line is found by counting on.
        if batch.lines and (full or not line.strip()):
            yield batch
            batch, size_bytes = _Batch(number, [], 0), 0
        batch.read_bytes += len(line)
        if line.strip():
            batch.lines.append(line)
            size_bytes += len(line)
        else:
            batch.first = number + 1
    if batch.lines:
        yield batch
