"""What a log line says, as details: one parser a file, each with examples that are its tests.

README.md says how to add one. Every file of this folder is found by itself; no list needs to be edited. An event is
shown to the parsers that its shape, its process or its category names: that is a look-up, not a search.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson

from logweir_workers.decode import free_name
from logweir_workers.normalise.details import FITS, Fit
from logweir_workers.normalise.fields import Context, details_of

VALUE_LENGTH_MAX = 8000
"""Longest text that a parser adds, in characters: as much as Elasticsearch compares. A longer one is left out."""

FIELDS_MAX = 100
"""Most details that one parser adds to an event; further ones are left out."""

PAIRS = "key="
"""In ``begins``: a line whose first word has a "=" in it; asked last."""

_KEY_LENGTH_MAX = 64

ANY = "*"
"""In ``adds``: the line itself says what its details are called."""

Event = dict[str, Any]
Fields = dict[str, Any]
"""Details by name. Values may be text as it stands in the line: known details (event.DETAILS) get their type."""

Example = tuple[str | Mapping[str, Any], Mapping[str, Any]]
"""A line, or an event as it is sent, and the details that the parser adds; none for a line to be left untouched."""


@dataclass(frozen=True, slots=True)
class Parser:
    """One parser. It is asked about an event that has any of its processes, categories, beginnings or marks."""

    name: str
    adds: tuple[str, ...]
    """The only details that it adds; ANY for whatever the line names."""
    examples: tuple[Example, ...]
    parse: Callable[[Any], Fields | None]
    """Of a line (or of an event, if ``of_events``), its details; None or nothing where it does not understand."""
    is_free: bool = False
    """Whether its values have their types already, since ``adds`` has ANY."""
    is_exact: bool = False
    """Whether what it gives is clean, since it is asked very often: nothing empty, known details of their types."""
    of_events: bool = False
    """Whether it is given the whole event, which is not to be changed."""
    processes: tuple[str, ...] = ()
    """Names of processes, in lower case; ``postfix`` also stands for ``postfix/smtpd``."""
    categories: tuple[str, ...] = ()
    """Categories that events come with, in lower case."""
    begins: tuple[str, ...] = ()
    """What a line begins with: one character, or four and more, of which the first four count; or PAIRS."""
    marks: tuple[str, ...] = ()
    """Names of details that only events of its kind have."""
    replaces: tuple[str, ...] = ()
    """Details that mean something else where such an event has them; what they held moves to the next free name."""


def line_parser(
    *,
    adds: tuple[str, ...],
    examples: tuple[Example, ...],
    processes: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    begins: tuple[str, ...] = (),
    is_exact: bool = False,
) -> Callable[[Callable[[str], Fields | None]], Parser]:
    """Make a Parser of a function ``(line) -> details or None``.

    The function must not raise, wait, or look at the clock, and must take time in proportion to the line's length. It
    is asked about lines that have one of these processes, categories or beginnings.
    """

    def decorate(function: Callable[[str], Fields | None]) -> Parser:
        return Parser(
            function.__name__,
            adds,
            examples,
            function,
            is_free=ANY in adds,
            is_exact=is_exact,
            processes=processes,
            categories=categories,
            begins=begins,
        )

    return decorate


def event_parser(
    *,
    adds: tuple[str, ...],
    examples: tuple[Example, ...],
    marks: tuple[str, ...] = (),
    processes: tuple[str, ...] = (),
    replaces: tuple[str, ...] = (),
) -> Callable[[Callable[[Event], Fields | None]], Parser]:
    """As ``line_parser``, of a function ``(event) -> details or None`` for events that come as objects."""

    def decorate(function: Callable[[Event], Fields | None]) -> Parser:
        return Parser(
            function.__name__,
            adds,
            examples,
            function,
            of_events=True,
            marks=marks,
            processes=processes,
            replaces=replaces,
        )

    return decorate


class Parsers:
    """All parsers, ready to run. ``parse`` is for one thread."""

    def __init__(self, parsers: Iterable[Parser]) -> None:
        """Of two parsers for one kind of event, the one that comes first in ``parsers`` is asked first."""
        self._by_process: dict[str, tuple[Parser, ...]] = {}
        self._by_category: dict[str, tuple[Parser, ...]] = {}
        self._by_begin: dict[str, tuple[Parser, ...]] = {}
        self._by_mark: dict[str, tuple[Parser, ...]] = {}
        self._of_pairs: tuple[Parser, ...] = ()
        for parser in parsers:
            _file(self._by_process, parser.processes, parser)
            _file(self._by_category, parser.categories, parser)
            _file(self._by_begin, {begin[:4] for begin in parser.begins if begin != PAIRS}, parser)
            if PAIRS in parser.begins:
                self._of_pairs = (*self._of_pairs, parser)
            _file(self._by_mark, parser.marks, parser)
        self._understood: tuple[Parser, ...] = ()
        self._marks = frozenset(self._by_mark)
        self._of_process = lru_cache(maxsize=4096)(self._look_up_process)

    def parse(self, event: Event) -> tuple[Parser, ...]:
        """Add to the details of ``event`` what its parsers understand; gives those parsers.

        Nothing that the event has is changed: where a detail is there already, it stays, but for what ``replaces`` names.
        """
        self(event, None)
        return self._understood

    def __call__(self, event: Event, _context: Context | None) -> None:
        """Add to the details of ``event`` what its parsers understand."""
        self._understood = ()
        line = event.get("summary")
        if line is not None:
            parsers = self._by_begin.get(line[:4]) or self._by_begin.get(line[:1])
            if parsers is None or not self._first(parsers, event, line):
                process = event.get("processname")
                parsers = None if process is None else self._of_process(process)
                if not parsers or not self._first(parsers, event, line):
                    self._ask_others(event, line)
        details = event.get("details")
        # Behind the line: a message may have an object in it.
        if details is not None and not self._marks.isdisjoint(details):
            for mark, marked in self._by_mark.items():
                if mark in details and self._first(marked, event, ""):
                    break

    def _first(self, parsers: tuple[Parser, ...], event: Event, line: str) -> bool:
        """Let the first of ``parsers`` that understands add its details; gives whether one does."""
        for parser in parsers:
            fields = parser.parse(event if parser.of_events else line)
            if fields:
                if parser.is_exact and "details" not in event and len(line) <= VALUE_LENGTH_MAX:
                    event["details"] = fields
                else:
                    if parser.replaces:
                        _make_room(event.get("details", {}), fields, parser.replaces)
                    _add(event, fields, {} if parser.is_free else _TYPED)
                self._understood = (*self._understood, parser)
                return True
        return False

    def _ask_others(self, event: Event, line: str) -> None:
        """By category, by what an rsyslog put together, and by the form of pairs."""
        category = event.get("category")
        if category is not None:
            parsers = self._by_category.get(category) or self._by_category.get(category.lower())
            if parsers is not None and self._first(parsers, event, line):
                return
        if line.startswith("message repeated ") and (repeated := _repeated(line)) is not None:
            count, line = repeated
            # Shown as an event of its own, so that the other parsers are asked as for any line.
            once = {**event, "summary": line}
            self(once, None)
            if self._understood:
                event["details"] = once["details"]
                _add(event, {"repeated": count}, {})
            return
        equals = line.find("=", 1, _KEY_LENGTH_MAX + 1)
        if equals > 0 and " " not in line[:equals]:
            self._first(self._of_pairs, event, line)

    def _look_up_process(self, name: str) -> tuple[Parser, ...]:
        """The parsers of a process as senders spell it: ``sshd``, ``SSHD[77]``, ``/usr/sbin/sshd``, ``postfix/smtpd``."""
        name = name.lower().partition("[")[0].rstrip(": ")
        if name.startswith("/"):
            name = name.rpartition("/")[2]
        return self._by_process.get(name) or self._by_process.get(name.partition("/")[0]) or ()


def built_in() -> tuple[Parser, ...]:
    """The parsers of this folder, in the order of their names."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
    return tuple(getattr(importlib.import_module(f"{__name__}.{name}"), name) for name in names)


def as_event(parser: Parser, sent: str | Mapping[str, Any]) -> dict[str, Any]:
    """An example of ``parser`` as an event is sent: a line is one of its first process, or of its first category."""
    if not isinstance(sent, str):
        return dict(sent)
    if parser.processes:
        return {"summary": sent, "processname": parser.processes[0]}
    return {"summary": sent, **({"category": parser.categories[0]} if parser.categories else {})}


def checked(parser: Parser) -> Parser:
    """``parser`` with a look at what it gives: details that no store takes raise, and the event is a dead letter."""
    parse = parser.parse

    def run(shown: Any) -> Fields | None:
        fields = parse(shown)
        return details_of(orjson.loads(orjson.dumps(fields))) if fields else None

    return replace(parser, parse=run)


def _file(parsers: dict[str, tuple[Parser, ...]], names: Iterable[str], parser: Parser) -> None:
    for name in names:
        parsers[name] = (*parsers.get(name, ()), parser)


def _make_room(details: dict[str, Any], fields: Fields, names: tuple[str, ...]) -> None:
    for name in names:
        if name in details and fields.get(name) is not None:
            value = details.pop(name)
            if value not in fields.values():
                details[free_name(f"{name}_2", details, sent=name)] = value


def _repeated(line: str) -> tuple[int, str] | None:
    """The count and the line in ``message repeated 3 times: [ … ]``, as rsyslog writes."""
    count, times, inner = line[17:].partition(" times: [")
    if not times or not inner.endswith("]") or not (count.isascii() and count.isdigit() and len(count) < 10):
        return None
    inner = inner[:-1].strip()
    return None if inner.startswith("message repeated ") else (int(count), inner)


_TYPED = {name: fit for name, fit in FITS.items() if fit is not FITS["username"] and name != "outcome"}
"""Known details whose text is to become something else, and how; parsers give all others as they are kept."""


def _add(event: Event, fields: Fields, fits: Mapping[str, Fit]) -> None:
    """Add ``fields`` to the details of ``event``: what is there already stays, what says nothing is left out."""
    details = event.get("details")
    if details is None:
        details = {}
    if len(fields) > FIELDS_MAX:
        fields = dict(islice(fields.items(), FIELDS_MAX))
    for name, value in fields.items():
        if type(value) is str:
            if name in fits:
                value = fits[name](value)
                if value is None:
                    continue
            elif value == "" or value == "-" or len(value) > VALUE_LENGTH_MAX:
                continue
        elif value is None:
            continue
        if name not in details:
            details[name] = value
    if details:
        event["details"] = details
