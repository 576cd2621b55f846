"""Show what becomes of lines: which parser understands each, what it adds, and how long that takes.

logweir parse /var/log/auth.log
journalctl -o short-iso | logweir parse - --json
logweir parse --test

A line that is a JSON object is an event as it is sent. Another line is taken apart as a syslog daemon does: time, host
and process from its head, if it has one, and the rest as the message. Nothing is stored or sent.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson

from logweir.clock import now_us
from logweir.commands.output import print_json
from logweir.config import Settings, WorkerSettings
from logweir.errors import FILE_UNREADABLE, LogweirError
from logweir.text import counted, printable
from logweir_workers import enrich, redaction
from logweir_workers.decode import EventUnreadable, event_or_mended
from logweir_workers.normalise.fields import Context, normalise
from logweir_workers.normalise.syslog import line_of
from logweir_workers.parsers import Parser, Parsers, as_event, built_in


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="lines or events, one a line; - for standard input")
    parser.add_argument("--process", metavar="NAME", help="the process of lines whose head names none")
    parser.add_argument("--category", metavar="NAME", help="the category that the events come with")
    parser.add_argument("--key", default="example", metavar="NAME", help="the name of the key that they come with")
    parser.add_argument(
        "--json", action="store_true", help="print an object a line, with the event as it would be stored"
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="run the examples of all parsers and enrichments, your own included, instead",
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.test:
        return _test(settings.worker)
    counts = _Counts()
    steps = enrich.load(redaction.without_new_key(settings.worker)).steps
    # Some lists are read when they are first asked: that is no line's time.
    _Shown(0, {"summary": "", "src_ip": "192.0.2.7", "user_agent": "Mozilla/5.0"}, arguments.key, steps)
    with _opened(arguments.file or "-") as stream:
        for number, raw in enumerate(stream, start=1):
            raw = raw.rstrip(b"\r\n")
            if raw.strip():
                shown = _Shown(number, _sent(raw, arguments), arguments.key, steps)
                counts.add(shown)
                _print_object(shown) if arguments.json else _print_lines(shown)
    print(counts, file=sys.stderr)
    return 0


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    try:
        if name == "-":
            yield sys.stdin.buffer
        else:
            with open(name, "rb") as stream:  # noqa: PTH123 - "-" is no path
                yield stream
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise LogweirError(FILE_UNREADABLE, path=name, reason=error.strerror or error) from error


def _sent(raw: bytes, arguments: argparse.Namespace) -> dict[str, Any]:
    """The event that the line is, or that a syslog daemon would make of it."""
    try:
        event, _ = event_or_mended(raw)
    except EventUnreadable:
        line = raw.decode(errors="replace")
        event = {"summary": line}
        head = line_of(line)
        if head is not None and head.pri is not None:
            # As it is sent: where events are brought into their form, it is taken apart.
            return event if arguments.category is None else {**event, "category": arguments.category}
        if head is not None:
            event = {
                "timestamp": head.time,
                "hostname": head.host,
                "processname": head.process,
                "processid": head.process_id,
                "summary": head.message,
            }
    for name, value in (("processname", arguments.process), ("category", arguments.category)):
        if value is not None:
            event.setdefault(name, value)
    return event


class _Shown:
    """One event: what was added to it, by whom, in how long, or why it would be a dead letter."""

    def __init__(self, number: int, sent: dict[str, Any], key: str, steps: tuple[enrich.Enrich, ...]) -> None:
        self.number = number
        self.parsers: list[str] = []
        self.error: str | None = None
        context = Context(now_us(), key)
        self.event = normalise(sent, context)
        before = copy.deepcopy(self.event)
        began_ns = time.perf_counter_ns()
        try:
            for step in steps:
                if isinstance(step, Parsers):
                    self.parsers = [parser.name for parser in step.parse(self.event)]
                else:
                    step(self.event, context)
        except Exception as error:  # noqa: BLE001 - the operator's own code; as document.py takes it
            self.error = f"{type(error).__name__}: {error}"
        self.took_us = (time.perf_counter_ns() - began_ns) / 1000
        self.added = _added(before, self.event)


def _added(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What the event has more or otherwise, by name; details each by its own."""
    added = {name: value for name, value in after.items() if name != "details" and before.get(name) != value}
    details = before.get("details", {})
    for name, value in after.get("details", {}).items():
        if name not in details or details[name] != value:
            added[f"details.{name}"] = value
    return added


@dataclass(slots=True)
class _Counts:
    lines: int = 0
    understood: int = 0
    errors: int = 0
    took_us: float = 0.0
    by_parser: Counter[str] = field(default_factory=Counter)

    def add(self, shown: _Shown) -> None:
        self.lines += 1
        self.understood += bool(shown.parsers)
        self.errors += shown.error is not None
        self.took_us += shown.took_us
        self.by_parser.update(shown.parsers)

    def __str__(self) -> str:
        by_parser = ", ".join(f"{name} {count}" for name, count in self.by_parser.most_common())
        text = f"{counted(self.lines, 'line')}, {self.understood} understood{f' ({by_parser})' if by_parser else ''}"
        if self.errors:
            text += f", {self.errors} would be {'a dead letter' if self.errors == 1 else 'dead letters'}"
        return f"{text}; {self.took_us / max(1, self.lines):.1f} us a line"


def _print_object(shown: _Shown) -> None:
    print_json(
        {
            "line": shown.number,
            "parsers": shown.parsers,
            "took_us": round(shown.took_us, 1),
            "added": shown.added,
            "error": shown.error,
            "event": shown.event,
        }
    )


def _print_lines(shown: _Shown) -> None:
    print(f"{shown.number}: {', '.join(shown.parsers) or 'no parser'}, {shown.took_us:.1f} us")
    if shown.error is not None:
        print(f"    {printable(shown.error)}: the event would be a dead letter (event_unfit)")
    for name, value in shown.added.items():
        print(f"    {printable(name)} = {printable(value)}")


# --- examples -------------------------------------------------------------------------------------------------------

_CONTEXT = Context(0, "example")


def _test(settings: WorkerSettings) -> int:
    parsers = (*enrich.own_parsers(settings), *built_in())
    known = (*enrich.enrichments(), *enrich.own_enrichments(settings))
    for each in known:
        if not each.is_installed:
            print(f"{each.name}: not tried, the package with {each.package} is not installed: docs/how-to/enrich.md")
    enrichments = tuple(each for each in known if each.is_installed)
    failures = [*_failed_lines(parsers), *_failed_events(enrichments, settings)]
    for failure in failures:
        print(failure)
    examples = sum(len(parser.examples) for parser in parsers) + sum(len(each.examples) for each in enrichments)
    counts = (
        counted(len(parsers), "parser"),
        counted(len(enrichments), "enrichment"),
        counted(examples, "example"),
        f"{len(failures)} failed",
    )
    print(", ".join(counts))
    return 1 if failures else 0


def _failed_lines(parsers: tuple[Parser, ...]) -> Iterator[str]:
    """Each example on its own parser alone: that another comes first is no fault of its."""
    for parser in parsers:
        ready = Parsers((parser,))
        for sent, details in parser.examples:
            event = normalise(as_event(parser, sent), _CONTEXT)
            before = copy.deepcopy(event.get("details", {}))
            try:
                ready.parse(event)
            except Exception as error:  # noqa: BLE001 - the operator's own code
                yield f"{parser.name}: {printable(sent)}\n    raised {printable(repr(error))}"
                continue
            after = event.get("details", {})
            got = {name: value for name, value in after.items() if name not in before or before[name] != value}
            if orjson.dumps(got, option=orjson.OPT_SORT_KEYS) != orjson.dumps(details, option=orjson.OPT_SORT_KEYS):
                yield _failure(parser.name, sent, details, got)


def _failed_events(enrichments: tuple[enrich.Enrichment, ...], settings: WorkerSettings) -> Iterator[str]:
    for each in enrichments:
        # With built-in settings, as the examples are written; an operator's own may read its files.
        run = each.prepare(WorkerSettings(enrich_dir=settings.enrich_dir))
        for before, added in each.examples:
            event: dict[str, Any] = copy.deepcopy(dict(before))
            try:
                run(event, _CONTEXT)
            except Exception as error:  # noqa: BLE001 - the operator's own code
                yield f"{each.name}: {printable(before)}\n    raised {printable(repr(error))}"
                continue
            if event != {**before, **added}:
                yield _failure(each.name, before, {**before, **added}, event)


def _failure(name: str, sent: Any, wanted: Any, got: Any) -> str:
    return f"{name}: {printable(sent)}\n    wanted {printable(wanted)}\n    got    {printable(got)}"
