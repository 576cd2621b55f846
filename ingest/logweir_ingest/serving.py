"""A process that serves the door's port: uvicorn, as gunicorn's worker."""

from __future__ import annotations

from logweir.http_worker import HttpWorker


class FastWorker(HttpWorker):
    """Serves the ASGI application of either face."""
