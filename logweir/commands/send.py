"""Post events from a file or standard input, one JSON object a line, in batches.

    logweir send --key KEY events.ndjson
    LOGWEIR_KEY=KEY logweir send old.ndjson.gz
    journalctl -o json | logweir send --key KEY -

What comes through a pipe is sent within a second. Ctrl-C and SIGTERM send what was read before they end; whatever could
not be sent is named by its lines. Exit status 0 when everything was accepted, 1 when lines were left out (--skip-bad).

Every batch carries an Idempotency-Key, so a batch that is tried again after a time-out leaves each event once, as long
as both tries arrive on the same UTC day: a batch whose first answer is lost around midnight UTC may leave its events on
both days. Two runs over one file leave its events twice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import signal
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from logweir.commands.door import check_trust, door_url, trusted
from logweir.commands.lines import LINE_SIZE_BYTES_MAX, Line, Lines
from logweir.commands.output import seconds, whole_number
from logweir.config import Settings
from logweir.errors import (
    DOOR_ABSENT,
    DOOR_DOWN,
    DOOR_REFUSED,
    DOOR_REFUSED_KEY,
    KEY_NOT_GIVEN,
    KEY_UNSENDABLE,
    PARAMETER_BAD,
    LogweirError,
)
from logweir.text import counted, printable

KEY_VARIABLE = "LOGWEIR_KEY"
_BATCH_BYTES_MAX = 1024 * 1024
_FLUSH_S = 0.5
# A pipe is emptied for so long after the word to stop, and a door waited for that does not answer.
_DRAIN_S = 1.0
_STOP_S = 5.0
_RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_WAIT_S_FIRST = 0.2
_WAIT_S_MAX = 10.0
_TOO_LARGE = 413
# What a door says of an event, in words of its line: by the problem's code, filled with its numbers.
_OF_A_LINE = {
    "json_bad": "not valid JSON at byte {byte} of the line: {reason}",
    "utf8_bad": "byte {byte} of the line is not UTF-8{looks_like}",
    "event_not_object": "it is {found}; an event is a JSON object",
    "event_too_large": "the event is larger than {size_bytes_max} bytes",
    "depth_exceeded": "the event is nested deeper than {depth_max} levels at byte {byte} of the line",
    "category_refused": "the event has the category {category!r}, which this key may not send",
    "category_missing": "the event has no category, and this key may only send some",
}


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
    skip_help = "leave out lines that the door refuses, and say which; the exit status is 1 then"
    parser.add_argument("--skip-bad", action="store_true", help=skip_help)
    parser.add_argument("--retry", type=seconds, default=60.0, metavar="SECONDS", help=retry_help)
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="certificates of the authorities to trust, for https"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    key = _readable(arguments.key or os.environ.get(KEY_VARIABLE) or "")
    url = _checked(arguments.url) if arguments.url else f"{door_url(settings)}/events"
    trust = trusted(arguments.ca_file)
    progress = Progress(
        TextColumn("sending"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=arguments.quiet or not sys.stderr.isatty(),
    )
    with closing(Lines(arguments.file, from_line=arguments.from_line)) as lines, _Stop(lines) as stop:
        door = _Door(
            url=url,
            key=key,
            retry_s=arguments.retry,
            trusted=trust,
            lines=lines,
            stop=stop,
            skip_bad=arguments.skip_bad,
        )
        first = arguments.from_line
        try:
            with progress:
                bar = progress.add_task("sending", total=lines.size_bytes)
                for batch in _batches(lines, events_max=arguments.batch, stop=stop):
                    first = batch[0].number
                    door.post(batch)
                    progress.update(bar, completed=lines.read_bytes)
        except KeyboardInterrupt:
            print(f"Of the lines from {first} to {lines.number}, nothing more is known.", file=sys.stderr)
            raise
        finally:
            left_out = f"; {counted(door.left_out, 'line')} left out" if door.left_out else ""
            print(f"{counted(door.accepted, 'event')} accepted by {printable(url)}{left_out}", file=sys.stderr)
        if stop.signal is not None:
            _say_where_it_stopped(lines)
            return 128 + stop.signal
    return 1 if door.left_out else 0


def _readable(key: str) -> str:
    """The key without the white space around it. Raises LogweirError(KEY_NOT_GIVEN), (KEY_UNSENDABLE)."""
    key = key.strip()
    if not key:
        raise LogweirError(KEY_NOT_GIVEN, variable=KEY_VARIABLE)
    for place, character in enumerate(key, start=1):
        if not "!" <= character <= "~":  # visible ASCII: nothing else may stand in a header
            raise LogweirError(KEY_UNSENDABLE, place=place, length=len(key))
    return key


def _checked(url: str) -> str:
    """Raises LogweirError(PARAMETER_BAD)."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as a port that is no number
        good = False
    if not good:
        expected = "an address such as http://127.0.0.1:8080/events"
        raise LogweirError(PARAMETER_BAD, name="--url", value=url, expected=expected)
    return url


def _say_where_it_stopped(lines: Lines) -> None:
    if lines.is_file:
        said = f"Stopped behind line {lines.number}. The rest: the same command with --from-line {lines.number + 1}"
    elif lines.unfinished_bytes:
        said = f"Stopped. Line {lines.number + 1} has no end yet, and is not sent: {lines.unfinished_bytes} bytes of it"
    else:
        said = f"Stopped. All that was read is sent, up to line {lines.number}"
    print(f"{said}.", file=sys.stderr)


class _Stop:
    """Hears of SIGINT, SIGTERM and SIGHUP: the first ends the reading, a second one everything.

    ``signal`` is the first one's number, and ``heard_s`` when it came.
    """

    def __init__(self, lines: Lines) -> None:
        self.signal: int | None = None
        self.heard_s = 0.0
        self._lines = lines
        self._heard = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # As nohup has it.
                self._before[number] = signal.signal(number, self._told)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _told(self, number: int, _: object) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.heard_s = time.monotonic()
        self.signal = number
        self._heard.set()
        self._lines.wake()

    def wait(self, seconds: float) -> None:
        """Sleep so long; less when a signal comes."""
        if self.signal is None:
            self._heard.wait(seconds)
        else:
            time.sleep(min(seconds, _WAIT_S_FIRST))


def _batches(lines: Lines, *, events_max: int, stop: _Stop) -> Iterator[list[Line]]:
    """Up to ``events_max`` lines, and about a mebibyte, at a time; fewer when the first has waited for _FLUSH_S."""
    batch: list[Line] = []
    size_bytes = 0
    flush_s = float("inf")
    is_drained = False
    while True:
        now_s = time.monotonic()
        # A file is still there later. What a pipe has brought, nobody brings again.
        is_stopping = stop.signal is not None
        is_over = is_stopping and (lines.is_file or is_drained or now_s > stop.heard_s + _DRAIN_S)
        wait_s = max(0.0, flush_s - now_s) if batch else None
        try:
            found = None if is_over else lines.read(wait_s=0.0 if is_stopping else wait_s)
            is_drained = stop.signal is not None and lines.is_waiting
        except LogweirError:
            if batch:
                yield batch
            raise
        for line in found or ():
            if batch and (len(batch) >= events_max or size_bytes + len(line.text) > _BATCH_BYTES_MAX):
                yield batch
                batch, size_bytes = [], 0
            if not batch:
                flush_s = time.monotonic() + _FLUSH_S
            batch.append(line)
            size_bytes += len(line.text)
        if batch and (found is None or len(batch) >= events_max or time.monotonic() >= flush_s):
            yield batch
            batch, size_bytes = [], 0
        if found is None:
            return


class _Door:
    """Where lines are sent. ``accepted``: how many events were answered 202; ``left_out``: how many lines were bad."""

    def __init__(
        self,
        *,
        url: str,
        key: str,
        retry_s: float,
        trusted: ssl.SSLContext,
        lines: Lines,
        stop: _Stop,
        skip_bad: bool,
    ) -> None:
        self.accepted = 0
        self.left_out = 0
        self._url = url
        self._headers = {"X-My-Log-Input-Key": key, "Content-Type": "application/x-ndjson"}
        self._retry_s = retry_s
        self._lines = lines
        self._stop = stop
        self._skips_bad = skip_bad
        self._run = secrets.token_hex(12)
        self._pool = urllib3.PoolManager(ssl_context=trusted, retries=False, timeout=30.0)

    def post(self, lines: list[Line]) -> None:
        """Have all of them accepted, or left out; else all that stand before the line that is refused.

        Raises LogweirError: DOOR_REFUSED naming the line, DOOR_REFUSED_KEY, DOOR_ABSENT, DOOR_UNTRUSTED, DOOR_DOWN.
        """
        while lines:
            count, reason = self._some_of(lines)
            if reason:
                self._refuse(lines[count], reason)
                count += 1
            lines = lines[count:]

    def _some_of(self, lines: list[Line]) -> tuple[int, str]:
        """Have the first ones accepted: how many these are, and what is wrong with the next one, if that is known."""
        fitting = list(itertools.takewhile(lambda line: line.size_bytes <= LINE_SIZE_BYTES_MAX, lines))
        if not fitting:
            return 0, f"it is longer than {LINE_SIZE_BYTES_MAX} bytes"
        status, answer = self._answered(fitting)
        if status == 202:
            self.accepted += int(answer.get("accepted", len(fitting)))
            return len(fitting), ""
        # A door takes a request as a whole or not at all: what is good before the fault goes in one of its own.
        index = answer.get("event_index")
        if answer.get("code") == "utf8_bad":
            index = _line_at(fitting, int(answer.get("byte_offset", 0)))  # Text of another kind has no events.
        if isinstance(index, int) and 0 < index < len(fitting):
            return self._some_of(fitting[:index])
        if index is None:
            if status == _TOO_LARGE and len(fitting) > 1:
                return self._some_of(fitting[: len(fitting) // 2])
            self._require_door(status, answer)
        return 0, _reason(status, answer)

    def _require_door(self, status: int, answer: dict[str, Any]) -> None:
        """Raises LogweirError when the answer is not about any event: DOOR_REFUSED_KEY, DOOR_ABSENT."""
        if status in (401, 403):
            detail = printable(answer.get("detail") or "it gives no reason")
            raise LogweirError(DOOR_REFUSED_KEY, url=self._url, status=status, detail=detail)
        if answer.get("code") in (None, "not_found", "method_not_allowed") and status != _TOO_LARGE:
            raise LogweirError(DOOR_ABSENT, url=self._url, status=status)

    def _refuse(self, line: Line, reason: str) -> None:
        """Say which line is left out, and why. Raises LogweirError(DOOR_REFUSED) when none is to be left out."""
        if not self._skips_bad:
            rest = self._rest(line.number)
            raise LogweirError(DOOR_REFUSED, url=self._url, line=line.number, detail=reason, rest=rest)
        self.left_out += 1
        print(f"Line {line.number} is left out: {printable(reason)}.", file=sys.stderr)

    def _rest(self, line: int) -> str:
        """How to go on from there."""
        if self._lines.is_file:
            return f"the same command with --from-line {line}"
        last = self._lines.number
        read = f"line {line} was" if line >= last else f"lines {line} to {last} were"
        return f"{read} read, and not accepted"

    def _answered(self, lines: list[Line]) -> tuple[int, dict[str, Any]]:
        """The door's answer; tried again while it is away or busy. Raises LogweirError(DOOR_DOWN)."""
        body = b"".join(line.text + b"\n" for line in lines)
        first = lines[0].number
        headers = {**self._headers, "Idempotency-Key": f"{self._run}-{first}-{len(lines)}"}
        began_s = time.monotonic()
        end_s = began_s + self._retry_s
        wait_s = _WAIT_S_FIRST
        while True:
            status, answer, reason = self._try(body, headers)
            if status and status not in _RETRY_STATUSES:
                return status, answer
            now_s = time.monotonic()
            if self._stop.signal is not None:
                # Whoever stops us does not wait for long.
                end_s = min(end_s, self._stop.heard_s + _STOP_S)
            if now_s >= end_s:
                seconds = round(now_s - began_s)
                raise LogweirError(
                    DOOR_DOWN, url=self._url, line=first, seconds=seconds, reason=reason, rest=self._rest(first)
                )
            self._stop.wait(min(wait_s, end_s - now_s))
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
        return response.status, answer, f"it answers {response.status}: {printable(answer.get('detail', ''))}"


def _line_at(lines: list[Line], offset: int) -> int:
    """Which of the lines has that byte of the body."""
    ends = itertools.accumulate(len(line.text) + 1 for line in lines)
    return next((at for at, end in enumerate(ends) if offset < end), 0)


def _reason(status: int, answer: dict[str, Any]) -> str:
    """What is wrong with a line, the only one of a request or the first one, in words about the line."""
    byte = answer.get("byte_offset")
    try:
        return _OF_A_LINE[str(answer.get("code"))].format(**{"looks_like": "", **answer, "byte": byte})
    except (KeyError, ValueError):
        detail = answer.get("detail") or f"the door answers {status}, and gives no reason"
        return str(detail).rstrip(".")
