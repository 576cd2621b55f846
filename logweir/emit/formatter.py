"""A log record as the JSON of an event, in the field names of docs/reference/event.md, which are MozDef's."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from json.encoder import encode_basestring
from pathlib import Path
from types import TracebackType
from typing import Any

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({})))
_COUNT_OF_EVERY_RECORD = len(_OF_EVERY_RECORD)
# With what formatters of other handlers leave in a record.
_NOT_EXTRA = _OF_EVERY_RECORD | {"message", "asctime"}
_FIELDS = ("category", "source", "hostname", "processname", "tags")
_OWN_DETAILS = frozenset(
    ("file", "line", "function", "level", "process", "thread", "exception", "stack", "format_error", "truncated")
)
_SEVERITIES = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
_CALL_SITES_MAX = 4096
_DEPTH_MAX = 16
_ITEMS_MAX = 1000
_SHORTER = (32_768, 4096, 512, 64)

_quoted: Callable[[str], str] = encode_basestring
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LogweirFormatter(logging.Formatter):
    """Makes of each record one line of JSON: an event as `POST /events` takes it.

    ``extra`` goes under details; of it, ``category``, ``source``, ``hostname`` and ``processname`` are set in place of
    the formatter's, ``tags`` added to its own, and the contents of ``details`` put under details. Exceptions are
    details.exception (type, message, trace), stack_info details.stack. Never raises for what a record holds.
    """

    def __init__(
        self,
        *,
        category: str | None = None,
        tags: Iterable[str] = (),
        hostname: str | None = None,
        processname: str | None = None,
        details: Mapping[str, Any] | None = None,
        event_size_bytes_max: int = 256 * 1024,
    ) -> None:
        """``details`` are added to every event. An event that is larger has its texts cut."""
        super().__init__()
        self._fields = {
            "hostname": hostname or socket.gethostname(),
            "processname": processname or process_name(),
            **({"category": category} if category else {}),
            **({"tags": list(tags)} if tags else {}),
        }
        self._details = _members(details or {})
        self._event_size_bytes_max = event_size_bytes_max
        self._call_sites: dict[tuple[str, int, str, int, int | None], str] = {}
        self._second: tuple[int, str] = (0, "")
        self._rest = json.dumps(self._fields, separators=(",", ":"), ensure_ascii=False)[1:]

    def format(self, record: logging.LogRecord) -> str:
        """The event's JSON; half a surrogate pair in it may stand as it is."""
        try:
            return self.event(record, record.getMessage())
        except Exception as error:  # noqa: BLE001 - whatever the arguments do, the event is worth more
            message = f"{_text(record.msg)} {_text(record.args)}"
            return self.event(record, message, f',"format_error":{_quoted(_named(error))}')

    def event(self, record: logging.LogRecord, summary: str, more: str = "") -> str:
        """The same with another summary. ``more``: further details, as JSON, each with a comma before it."""
        values = vars(record)
        site_of = (record.name, record.levelno, record.pathname, record.lineno, record.process)
        site = self._call_sites.get(site_of) or self._new_site(record, site_of)
        fields: dict[str, Any] = {}
        if len(values) - ("message" in values) - ("asctime" in values) != _COUNT_OF_EVERY_RECORD:
            more, fields = self._extras(values, more)
        if record.threadName != "MainThread" and record.threadName:
            more += f',"thread":{_quoted(record.threadName)}'
        if record.exc_info or record.exc_text or record.stack_info:
            more += self._traces(record)
        event = f'{{"timestamp":"{self._time(record.created)}","summary":{_quoted(summary)}{site}{more}}},{self._rest}'
        if fields or len(event) > self._event_size_bytes_max // 4:
            return self._changed(event, fields)
        return event

    def _new_site(self, record: logging.LogRecord, site_of: tuple[str, int, str, int, int | None]) -> str:
        """What is the same in all events of one line of the program, up to its first details."""
        severity = _severity_of(record.levelno)
        details: dict[str, Any] = {"file": record.pathname, "line": record.lineno, "function": record.funcName}
        name = logging.getLevelName(record.levelno)
        # The record's own name of its level may be in colours, for a terminal; loguru's levels have no other.
        if name != severity:
            details["level"] = record.levelname if name == f"Level {record.levelno}" else name
        if record.processName not in ("MainProcess", None):
            details["process"] = record.processName
        site = {"severity": severity, "source": record.name, "processid": str(record.process or os.getpid())}
        text = f",{_dumped(site)[1:-1]},{_quoted('details')}:{_dumped(details)[:-1]}{self._details}"
        if len(self._call_sites) >= _CALL_SITES_MAX:
            self._call_sites.clear()
        self._call_sites[site_of] = text
        return text

    def _time(self, created: float) -> str:
        second, shown = self._second
        if int(created) != second:
            second = int(created)
            shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, shown
        return f"{shown}.{int((created - second) * 1e6):06d}+00:00"

    def _extras(self, values: Mapping[str, Any], more: str) -> tuple[str, dict[str, Any]]:
        """The details of what the record was given as extra, and the fields that it sets beside them."""
        extras = {name: values[name] for name in values if name not in _NOT_EXTRA}
        # loguru gives all of them under one name.
        for name in ("extra", "details"):
            if isinstance(extras.get(name), dict):
                extras |= extras.pop(name)
        fields = {name: extras.pop(name) for name in _FIELDS if extras.get(name) is not None}
        return more + _members(extras), fields

    def _traces(self, record: logging.LogRecord) -> str:
        more = ""
        if record.exc_info and record.exc_info[0] is not None:
            kind, error, _ = record.exc_info
            exception = {
                "type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
                "message": _text(error),
                "trace": self.formatException(record.exc_info),
            }
            more = f',"exception":{_dumped(exception)}'
        elif record.exc_text:
            more = f',"exception":{_dumped({"trace": _text(record.exc_text)})}'
        if record.stack_info:
            more += f',"stack":{_quoted(self.formatStack(_text(record.stack_info)))}'
        return more

    def _changed(self, event: str, fields: Mapping[str, Any]) -> str:
        """The event with these fields in place of its own, and short enough."""
        document = json.loads(event)
        for name, value in fields.items():
            if name == "tags":
                added = [value] if isinstance(value, str) else value if isinstance(value, list | tuple | set) else []
                document["tags"] = [*document.get("tags", ()), *map(_text, added)]
            else:
                document[name] = _text(value)
        event = _dumped(document)
        for size in _SHORTER:
            if len(event.encode("utf-8", "backslashreplace")) <= self._event_size_bytes_max:
                return event
            document["details"]["truncated"] = True
            document = _cut(document, size)
            event = _dumped(document)
        # So many values that even their beginnings are too long.
        document["details"] = {"truncated": True}
        return _dumped(document)


def process_name() -> str:
    """What this program is called: the name of its file, or of its package where that is run with -m."""
    path = Path(sys.argv[0] if sys.argv else "")
    name = path.parent.name if path.name == "__main__.py" else path.name
    return name if name not in ("", "-c", "-m") else "python"


def _severity_of(level: int) -> str:
    """The name of the standard level at or below this one."""
    return next((name for name in _SEVERITIES if getattr(logging, name) <= level), "DEBUG")


def _members(details: Mapping[str, Any]) -> str:
    """The details as members of a JSON object, a comma before each; a name that is taken becomes name_2."""
    text = ""
    for name, value in details.items():
        text += f",{_quoted(f'{name}_2' if name in _OWN_DETAILS else _text(name))}:{_as_json(value)}"
    return text


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _as_json(value: Any) -> str:
    """Any value; what JSON does not know, as text."""
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if value is None or kind is bool or (kind is int and abs(value) < 2**63):
        return "null" if value is None else str(value).lower()
    return _dumped(_plain(value, _DEPTH_MAX))


def _plain(value: Any, depth: int) -> Any:
    """The value of nothing but JSON's types, bounded in depth and width."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth > 0 and isinstance(value, Mapping):
        names = _some(value)
        return {_text(name): _plain(value[name], depth - 1) for name in names}
    if depth > 0 and isinstance(value, list | tuple | set | frozenset):
        return [_plain(one, depth - 1) for one in _some(value)]
    return _text(value)


def _some(values: Iterable[Any]) -> list[Any]:
    return [one for _, one in zip(range(_ITEMS_MAX), values, strict=False)]


def _text(value: Any) -> str:
    try:
        if isinstance(value, bytes | bytearray):
            return bytes(value).decode("utf-8", "backslashreplace")
        return value.isoformat() if isinstance(value, date) else str(value)
    except Exception as error:  # noqa: BLE001 - a value of the program's own may do anything
        return f"<{type(value).__name__} without text: {type(error).__name__}>"


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {_text(error)}"


def _cut(value: Any, length_max: int) -> Any:
    """The value with every text in it, and the number of them, cut."""
    if isinstance(value, str):
        return value if len(value) <= length_max else value[:length_max] + "…"
    if isinstance(value, dict):
        return {name[:200]: _cut(one, length_max) for name, one in value.items()}
    return [_cut(one, length_max) for one in value] if isinstance(value, list) else value
