"""The load on a door: requests made beforehand, and wrk, which sends them at hardly any cost of its own."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVENT_SIZE_BYTES = 418
_REQUESTS_OF_ONE = 2048
_REQUESTS_OF_MANY = 48
_SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """``connections`` that each send a request as soon as the one before is answered."""

    connections: int
    events_per_request: int
    is_gzipped: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What wrk saw. ``accepted``: answers that were 2xx. ``dropped``: connections that failed or were cut."""

    seconds: float
    accepted: int
    refusals: int
    timeouts: int
    dropped: int
    p50_ms: float
    p99_ms: float


def require_wrk() -> None:
    """Ends the program when there is no wrk."""
    if shutil.which("wrk") is None:
        raise SystemExit("This benchmark needs wrk to make its load: apt-get install wrk")


def send(url: str, requests: Path, load: Load, *, seconds: float) -> Sent:
    """Send the requests of ``write_requests`` in turn for so long. wrk leaves unheard what is unanswered at the end."""
    command = [
        "wrk",
        "--threads",
        "1",
        "--connections",
        str(load.connections),
        "--duration",
        f"{max(1, round(seconds))}s",
        "--timeout",
        "10s",
        "--script",
        str(_SCRIPT),
        url,
        "--",
        str(requests),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not done.stdout.strip().endswith("}"):
        raise SystemExit(f"wrk failed: {done.stderr or done.stdout}")
    said = json.loads(done.stdout.splitlines()[-1])
    return Sent(
        seconds=said["duration_us"] / 1e6,
        accepted=said["answers"] - said["refusals"],
        refusals=said["refusals"],
        timeouts=said["timeouts"],
        dropped=said["dropped"],
        p50_ms=said["p50_us"] / 1e3,
        p99_ms=said["p99_us"] / 1e3,
    )


def write_requests(path: Path, load: Load, *, key: str) -> None:
    """All different, so that nothing is compressed better than real events are."""
    count = _REQUESTS_OF_ONE if load.events_per_request == 1 else _REQUESTS_OF_MANY
    with path.open("wb") as file:
        for number in range(count):
            request = _request(load, first=number * load.events_per_request, key=key)
            file.write(b"%08d%b" % (len(request), request))


def _request(load: Load, *, first: int, key: str) -> bytes:
    events = [event(first + at) for at in range(load.events_per_request)]
    body = events[0] if load.events_per_request == 1 else b"[" + b",".join(events) + b"]"
    encoding = ""
    if load.is_gzipped:
        body, encoding = gzip.compress(body, 6), "Content-Encoding: gzip\r\n"
    head = (
        f"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Log-Key: {key}\r\nContent-Type: application/json\r\n"
        f"{encoding}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def event(number: int) -> bytes:
    """An event of EVENT_SIZE_BYTES bytes, as an application sends them."""
    fields: dict[str, Any] = {
        "timestamp": f"2026-03-{1 + number % 28:02}T08:{number % 60:02}:{number * 7 % 60:02}.{number % 1000:03}Z",
        "category": "application",
        "hostname": f"web-{number * 31 % 400:03}.example.com",
        "processname": "checkout",
        "processid": 1000 + number * 17 % 9000,
        "severity": ("INFO", "WARNING", "ERROR")[number % 3],
        "tags": ["shop", "eu"],
        "summary": f"order {number * 7919 % 999_983} paid in {number * 13 % 977} ms",
        "details": {"status": 200 + number % 5, "path": f"/item/{number * 104_729 % 99_991}", "trace": ""},
    }
    lacking = EVENT_SIZE_BYTES - len(json.dumps(fields, separators=(",", ":")))
    # As random as an id is: hexadecimal digits that no compressor can foresee.
    fields["details"]["trace"] = f"{pow(7, number + 1000, 2**521 - 1):x}"[-lacking:].rjust(lacking, "0")
    return json.dumps(fields, separators=(",", ":")).encode()
