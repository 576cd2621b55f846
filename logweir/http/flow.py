"""Flow control: a client sends no faster than the application takes it, and is sent no more than it reads."""

from __future__ import annotations

import asyncio

from logweir.errors import ANSWER_UNREAD
from logweir.http.deadline import Deadline
from logweir.http.limits import Limits


class Flow:
    """Both directions of one connection. A client that does not read its answers for ``read_timeout_s`` is cut off."""

    __slots__ = ("_is_reading", "_limits", "_transport", "_unread", "_writable")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, limits: Limits) -> None:
        self._transport = transport
        self._limits = limits
        self._is_reading = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._unread = Deadline(loop, self._cut)

    def pause_reading(self) -> None:
        if self._is_reading and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_reading and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._unread.set(self._limits.settings.read_timeout_s)

    def resume_writing(self) -> None:
        self._writable.set()
        self._unread.clear()

    @property
    def is_writable(self) -> bool:
        return self._writable.is_set() and not self._transport.is_closing()

    async def drain(self) -> None:
        """Return when there is room for an answer, or nobody to read it."""
        if not self._transport.is_closing():
            await self._writable.wait()

    def end(self) -> None:
        """The connection is lost."""
        self._writable.set()
        self._unread.end()

    def _cut(self) -> None:
        self._limits.refused(ANSWER_UNREAD.code)
        self._transport.abort()
