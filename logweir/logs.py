"""Our own log lines: on standard error, one per thing that an operator can act on."""

from __future__ import annotations

import logging
import sys
import time


def configure_logging(process: str) -> None:
    """Log to standard error as ``2026-01-31T12:00:00Z WARNING worker: message``; libraries from WARNING up."""
    formatter = logging.Formatter(f"%(asctime)sZ %(levelname)s {process}: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("logweir", "logweir_ingest", "logweir_workers", "logweir_console"):
        logging.getLogger(name).setLevel(logging.INFO)
