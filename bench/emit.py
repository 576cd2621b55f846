"""What handlers for Python's logging cost a program, what they lose in an outage, and what they say of it.

    python -m bench.emit                                  every handler that is installed
    python -m bench.emit --handler logweir --rounds 5     one
    pip install python-logging-loki splunk-handler        for the two well-known ones

none            a logger without a handler: what a logging call costs anyway
logweir         LogweirHandler; logweir-files with a folder
HTTPHandler     logging.handlers.HTTPHandler, POST
plain           a request for each event, 0.5 s, as docs/how-to/python-logging.md has it
loki            LokiHandler of python-logging-loki; loki-queue its LokiQueueHandler
splunk          SplunkHandler of splunk-handler, with a queue of 100,000

Each is a process of its own that logs at --rate for --seconds to a stub server of ours, which takes at once anything
that any of them sends. First with the server there all the time, handlers in turn, --rounds times: one JSON line a
handler with the medians. mean_us, p50_us, p99_us and max_ms are of the logging call, added_us is mean_us above that
of "none", cpu_us the CPU time of all the program's threads for an event. Then once more with the server away for
--outage seconds in the middle: lost counts the messages that never came, reported_lost those that the server was told
of, null where nothing tells. Exit status 1 when logweir adds 15 us or more at the rate, or loses an event that it
does not report.

The figures of a call are of its wall clock: on a machine that others use, give it a share, as in
`chrt -f 10 python -m bench.emit`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import re
import statistics
import sys
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

from bench.peers.logging_program import HANDLERS

ADDED_US_MAX = 15.0
_MODULES = {"loki": "logging_loki", "loki-queue": "logging_loki", "splunk": "splunk_handler"}
_FIGURES = ("per_s", "mean_us", "p50_us", "p99_us", "max_ms", "cpu_us")
_ENDED_S_MAX = 120.0
_MESSAGE = re.compile(rb"event-(\d+)-end")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--handler", action="append", choices=HANDLERS, help="this one (again for more); by default all"
    )
    parser.add_argument("--rate", type=float, default=10_000, help="calls per second (10000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each program logs (3)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument(
        "--outage", type=float, default=60.0, help="seconds for which the server is away; 0: never (60)"
    )
    return asyncio.run(_run(parser.parse_args()))


async def _run(arguments: argparse.Namespace) -> int:
    names = [name for name in arguments.handler or HANDLERS if name != "none" and _is_installed(name)]
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in ("none", *names)}
    for _ in range(arguments.rounds):
        for name, found in rounds.items():
            found.append(await _measure(name, arguments))
    is_good = True
    base_us = _median(rounds["none"], "mean_us")
    for name, found in rounds.items():
        line = {figure: round(_median(found, figure), 2) for figure in _FIGURES}
        added_us = round(_median(found, "mean_us") - base_us, 2)
        _print("cost", name, **line, added_us=added_us, lost=sum(one["lost"] for one in found))
        is_good &= not name.startswith("logweir") or (added_us < ADDED_US_MAX and not any(one["lost"] for one in found))
    for name in names if arguments.outage else ():
        found_once = await _measure(name, arguments, outage_s=arguments.outage)
        line = {figure: round(found_once[figure], 2) for figure in ("per_s", "mean_us", "max_ms")}
        line |= {figure: found_once[figure] for figure in ("logged", "lost", "reported_lost")}
        _print("outage", name, **line)
        is_good &= not name.startswith("logweir") or found_once["lost"] == found_once["reported_lost"]
    return 0 if is_good else 1


def _is_installed(name: str) -> bool:
    if name not in _MODULES:
        return True
    try:
        __import__(_MODULES[name])
    except ImportError:
        print(f"{name} is left out: {_MODULES[name]} is not installed", file=sys.stderr)
        return False
    return True


async def _measure(name: str, arguments: argparse.Namespace, *, outage_s: float = 0.0) -> dict[str, Any]:
    """One program's figures, with what of it came; with the server away in the middle of twice its time."""
    seconds = arguments.seconds + (outage_s and outage_s + arguments.seconds)
    with tempfile.TemporaryDirectory(prefix="logweir-bench-") as folder:
        server = Server()
        await server.start()
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.peers.logging_program",
            name,
            str(server.port),
            str(arguments.rate),
            str(seconds),
            str(Path(folder) / "buffer"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        outage = asyncio.create_task(server.go_away(arguments.seconds, outage_s)) if outage_s else None
        try:
            output, _ = await asyncio.wait_for(program.communicate(), seconds + _ENDED_S_MAX)
        except TimeoutError:
            program.kill()  # Some never end when the server was away.
            output, _ = await program.communicate()
        if outage is not None:
            await outage
        await server.stop()
    lines = [line for line in output.splitlines() if line.startswith(b"{")]
    figures: dict[str, Any] = json.loads(lines[-1])
    lost = 0 if name == "none" else figures["logged"] - len(server.messages)
    return {**figures, "lost": lost, "reported_lost": server.reported_lost}


def _median(found: list[dict[str, Any]], figure: str) -> float:
    return statistics.median(float(one[figure]) for one in found)


def _print(figure: str, handler: str, **figures: Any) -> None:
    print(json.dumps({"figure": figure, "handler": handler, **figures}), flush=True)


class Server:
    """Takes anything, and answers what each kind of client wants to hear. ``messages``: the numbers that came."""

    def __init__(self) -> None:
        self.messages: set[int] = set()
        self.port = 0
        self._numbers: set[int] = set()
        self._high = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def reported_lost(self) -> int | None:
        """What the numbers that the client gave its events say is not here; None without numbers."""
        return self._high - len(self._numbers) if self._high else None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**20, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def go_away(self, after_s: float, for_s: float) -> None:
        """Refuse connections for a while, and end those that stand."""
        await asyncio.sleep(after_s)
        await self.stop()
        await asyncio.sleep(for_s)
        await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                request, *lines = head.split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, answer = self._take(request.split()[1], headers, body)
                writer.write(f"HTTP/1.1 {status} OK\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
                await writer.drain()
                if headers.get("connection") == "close":
                    break
        self._writers.discard(writer)
        writer.close()

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if path == "/log":
            # HTTPHandler sends the record's attributes: the message without its arguments, and those.
            body = b"event-%b-end" % urllib.parse.parse_qs(body)[b"args"][0].partition(b",")[0].strip(b"(")
        found = {int(number) for number in _MESSAGE.findall(body)}
        self.messages |= found
        if path != "/events":
            return (204, "") if path.startswith("/loki") else (200, '{"text":"Success","code":0}')
        if "log-high" in headers:
            self._high = max(self._high, int(headers["log-high"]))
            first = int(headers.get("log-seq", 1))
            self._numbers |= set(range(first, first + len(found)))
        return 202, json.dumps({"accepted": len(found), "durable": "queue", "receipt": "r"})


if __name__ == "__main__":
    sys.exit(main())
