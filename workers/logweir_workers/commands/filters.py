"""Check a file of filters before workers read it, and see what it does with an event.

logweir filters check /etc/logweir/filters.toml
logweir filters check filters.toml --event '{"severity": "debug", "summary": "tick"}'
logweir search --count 'severity:DEBUG' --since 1d
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from logweir.clock import now_us
from logweir.commands.output import print_json
from logweir.config import Settings
from logweir.errors import EVENT_UNUSABLE, LogweirError
from logweir.event import Document, Provenance, day_of
from logweir.text import counted, printable
from logweir_workers import enrich, redaction
from logweir_workers.document import Documents, EventUnfit
from logweir_workers.filters import Filters, Rule
from logweir_workers.normalise.fields import Context

_GIVEN_BY_THE_DOOR = ("ingest_stream", "ingest_number", "content_hash")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="say what is wrong with a file, or what its rules are")
    check.add_argument("file", type=Path, metavar="FILE", help="the file")
    check.add_argument("--event", metavar="JSON", help="say what becomes of this event; - reads it from standard input")
    check.add_argument("--key", default="example", metavar="NAME", help="the name of the key that the event comes with")
    check.add_argument("--emitter", metavar="NAME", help="the emitter that the event comes from")
    check.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    filters = Filters.of_file(arguments.file)
    if arguments.event is None:
        _print_rules(filters, as_json=arguments.json)
        return 0
    raw = sys.stdin.buffer.read() if arguments.event == "-" else arguments.event.encode()
    document = _stored(raw, arguments, settings)
    rule = next((rule for rule in filters.rules if rule.matches(document)), None)
    event = {name: value for name, value in document.source.items() if name not in _GIVEN_BY_THE_DOOR}
    if arguments.json:
        print_json({"rule": rule and rule.name, "keep": 1.0 if rule is None else rule.keep, "event": event})
    else:
        print(f"As it would be stored: {printable(event)}")
        print(_said(rule))
    return 0


def _stored(raw: bytes, arguments: argparse.Namespace, settings: Settings) -> Document:
    """The event as a worker with these settings would store it. Raises LogweirError(EVENT_UNUSABLE)."""
    received_us = now_us()
    context = Context(received_us=received_us, key=arguments.key, emitter=arguments.emitter)
    documents = Documents(enrich.load(redaction.without_new_key(settings.worker)), Filters())
    provenance = Provenance("0" * 32 + "-0", 1, "0" * 16)
    try:
        made = documents.make(raw, context, id="example", day=day_of(received_us), provenance=provenance)
    except EventUnfit as unfit:
        raise LogweirError(EVENT_UNUSABLE, reason=unfit.error) from unfit
    assert isinstance(made, Document), "no filter was asked"
    return made


def _print_rules(filters: Filters, *, as_json: bool) -> None:
    if as_json:
        rows = [{"name": rule.name, "query": rule.query, "keep": rule.keep} for rule in filters.rules]
        print_json({"rules": rows})
        return
    print(f"{counted(len(filters.rules), 'rule')}, asked in this order:")
    for rule in filters.rules:
        print(f"{rule.name:<24} keeps {rule.keep:>7.2%} of  {printable(rule.query)}")


def _said(rule: Rule | None) -> str:
    if rule is None:
        return "No rule matches: it is stored."
    if rule.keep == 1:
        return f"The rule {rule.name} matches and keeps all: it is stored."
    if rule.keep == 0:
        return f"The rule {rule.name} leaves it out."
    return f"The rule {rule.name} matches: {rule.keep:.2%} of such events are stored, chosen by their identity."
