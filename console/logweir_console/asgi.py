"""The application as its server calls it: searches on threads of their own, and only for clients that are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from logweir.http.wsgi import Message, Receive, Scope, Send, WsgiFace
from logweir.store.port import Cancellation
from logweir_console.app import CANCELLATION, SEARCHES

_SEARCHES_AT_ONCE = 8
_OTHERS_AT_ONCE = 2
_CHANGES_AT_ONCE = 2


class ConsoleFace:
    """Over the Flask application. However many searches are under way, health checks and metrics do not wait for them.

    A search ends when its client has gone, before its turn or in the middle of its work.
    """

    def __init__(self, application: Callable[..., Any]) -> None:
        self._searches = WsgiFace(application, threads=_SEARCHES_AT_ONCE)
        self._others = WsgiFace(application, threads=_OTHERS_AT_ONCE)
        # A body may come slowly.
        self._changes = WsgiFace(application, threads=_CHANGES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] in SEARCHES:
            await self._search(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "POST":
            await self._changes(scope, receive, send)
        else:
            await self._others(scope, receive, send)

    async def _search(self, scope: Scope, receive: Receive, send: Send) -> None:
        cancellation = Cancellation()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass  # A body, which means nothing here.
            cancellation.cancel()

        watching = asyncio.get_running_loop().create_task(watch())
        try:
            await self._searches({**scope, CANCELLATION: cancellation}, _nothing, send)
        finally:
            watching.cancel()


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
