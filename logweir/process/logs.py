"""Our own log lines: on standard error, one per thing that an operator can act on; for people, or for a program.

What a line is about stands in its words. As JSON it stands in fields, too: those of the problem that the line speaks
of, and what the caller gave as ``extra``.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from logweir.errors import LogweirError
from logweir.text import safe_json, without_keys

if TYPE_CHECKING:  # The command line logs, and works without the server's extra, which the settings need.
    from logweir.config import LogSettings

log = logging.getLogger(__name__)

_OF_EVERY_RECORD = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime"))
# What would end a line, or tell a terminal something.
_CONTROLS = {
    code: repr(chr(code))[1:-1]
    for code in (
        *range(0x20),
        *range(0x7F, 0xA0),
        0x61C,
        0x200E,
        0x200F,
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
}
# The largest number that every reader of JSON takes for what it is (RFC 8259 section 6).
_NUMBER_MAX = 2**53 - 1


def configure_logging(process: str, settings: LogSettings) -> None:
    """Log to standard error, libraries from WARNING up; also warnings, and exceptions that nobody catches.

    As text: ``2026-01-31T12:00:00Z WARNING worker: message``; the lines of a trace follow, each behind four spaces.
    As JSON: one object a line with ``time``, ``level``, ``process``, ``logger``, ``message``, the fields that the line
    has, and ``trace`` where there is one.
    """
    formatter: logging.Formatter = _Json(process) if settings.format == "json" else _Text(process)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("logweir", "logweir_ingest", "logweir_workers", "logweir_console"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = _passed_over
    threading.excepthook = _uncaught_in_thread


def last_words(error: LogweirError) -> bool:
    """Log why this process ends; False when it does not log."""
    if not any(isinstance(handler.formatter, _Text | _Json) for handler in logging.root.handlers):
        return False
    log.critical("%s", error)
    return True


def _uncaught(_kind: object, error: BaseException, _trace: object) -> None:
    log.critical("The process ends, by an error that nobody expected", exc_info=error)


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    # To end a thread by SystemExit is no error (threading.excepthook).
    if arguments.exc_type is not SystemExit:
        name = arguments.thread.name if arguments.thread else "(gone)"
        log.critical("The thread %s has ended, by an error that nobody expected", name, exc_info=arguments.exc_value)


def _passed_over(arguments: sys.UnraisableHookArgs) -> None:
    log.error("An error that nobody expected, where nothing could be told of it", exc_info=arguments.exc_value)


class _Text(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)sZ %(levelname)s {process}: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        # The last gate: whatever a library quotes, or a trace shows.
        return without_keys(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(_CONTROLS)

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {line.translate(_CONTROLS)}" for line in lines)


class _Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            **_fields_of(record),
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        text = json.dumps({name: _plain(value) for name, value in line.items()}, separators=(",", ":"))
        return safe_json(without_keys(text))


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line is about, by name: of the problem that it speaks of, and of what it was given as ``extra``."""
    fields: dict[str, Any] = {}
    for one in record.args if isinstance(record.args, tuple) else ():
        if isinstance(one, LogweirError):
            fields |= {"problem": one.problem.code, **one.numbers}
    return fields | {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) <= _NUMBER_MAX):
        return value
    # A message may quote what somebody sent, and that need not be Unicode.
    return str(value).encode(errors="replace").decode()
