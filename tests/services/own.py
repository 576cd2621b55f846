"""A part of a shared server for one test alone."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import pytest


def own_index_prefix(server: Any, request: pytest.FixtureRequest) -> str:
    """Give a `store.index_prefix` that nobody else has; what came about under it is removed when ``request`` ends.

    ``server``: an Elasticsearch of this package, that may have been stopped by then.
    """
    prefix = f"test-{uuid.uuid4().hex[:12]}-"
    request.addfinalizer(lambda: _remove(server, prefix))
    return prefix


def _remove(server: Any, prefix: str) -> None:
    with contextlib.suppress(OSError):
        # By name: a server may refuse to delete by pattern (action.destructive_requires_name).
        if indices := list(server.request("GET", f"/{prefix}*/_alias?expand_wildcards=all")):
            server.request("DELETE", f"/{','.join(indices)}")
        server.request("DELETE", f"/_index_template/{prefix}*")
