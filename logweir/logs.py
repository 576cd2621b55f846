"""Our own log lines: on standard error, one per thing that an operator can act on."""

from __future__ import annotations

import logging
import sys
import time

from logweir.redaction import without_keys


def configure_logging(process: str) -> None:
    """Log to standard error as ``2026-01-31T12:00:00Z WARNING worker: message``; libraries from WARNING up."""
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
