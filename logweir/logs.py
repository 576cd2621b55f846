"""Our own log lines: on standard error, one per thing that an operator can act on; for people, or for a program."""

from __future__ import annotations

import logging
import sys
import time

import orjson

from logweir.config import LogSettings
from logweir.redaction import without_keys


def configure_logging(process: str, settings: LogSettings) -> None:
    """Log to standard error, libraries from WARNING up.

    As text: ``2026-01-31T12:00:00Z WARNING worker: message``. As JSON: one object a line with ``time``, ``level``,
    ``process``, ``logger``, ``message``, and ``trace`` where there is one.
    """
    formatter: logging.Formatter
    if settings.format == "json":
        formatter = _Json(process)
    else:
        formatter = _WithoutKeys(f"%(asctime)sZ %(levelname)s {process}: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("logweir", "logweir_ingest", "logweir_workers", "logweir_console"):
        logging.getLogger(name).setLevel(logging.INFO)


class _WithoutKeys(logging.Formatter):
    """The last gate: whatever a library quotes, or a trace shows."""

    def format(self, record: logging.LogRecord) -> str:
        return without_keys(super().format(record))


class _Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        # A message may quote what somebody sent, and that need not be Unicode.
        return without_keys(orjson.dumps({k: v.encode(errors="replace").decode() for k, v in line.items()}).decode())
