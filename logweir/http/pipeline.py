"""The requests of one connection, which are answered one after another in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from logweir.http.cycle import Cycle
from logweir.http.inline import InlineRequest


class Pipeline:
    """``tasks`` has what is under way in the whole process: an ASGI task or an inline request each."""

    __slots__ = ("_application", "_loop", "_tasks", "current", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, application: Any, tasks: set[Any]) -> None:
        self._loop = loop
        self._application = application
        self._tasks = tasks
        self.current: Cycle | InlineRequest | None = None
        """The request that is being answered."""
        self.waiting: deque[Cycle] = deque()
        """Those behind it, the oldest first. None of them has begun."""

    def add(self, cycle: Cycle) -> None:
        """Start it, or have it wait for its turn."""
        if self.current is None:
            self._start(cycle)
        else:
            self.waiting.append(cycle)

    def take(self, request: InlineRequest) -> bool:
        """Hand it to the application while nothing else is under way; False when it is not taken."""
        self.current = request
        self._tasks.add(request)
        is_taken = False
        try:
            is_taken = bool(self._application.handle_inline(request))
        finally:
            if not is_taken:
                self._tasks.discard(request)
                self.current = None
        return is_taken

    def advance(self) -> None:
        """The current request is answered: start the next one, if there is any."""
        self.current = None
        if self.waiting:
            self._start(self.waiting.popleft())

    def withdraw_newest(self) -> None:
        """The newest request, which has not come whole, is not to be answered."""
        if self.waiting:
            self.waiting.pop()
        else:
            self.drop()

    def make_newest_last(self) -> None:
        """Have the connection end with the answer to the newest request."""
        newest = self.waiting[-1] if self.waiting else self.current
        # An answer that has begun has said already that the connection stays.
        if newest is not None and not newest.is_started:
            newest.keep_alive = False

    def drop(self) -> None:
        """None of them is to be answered."""
        if self.current is not None:
            self.current.drop()
            self.current = None
        self.waiting.clear()

    def _start(self, cycle: Cycle) -> None:
        self.current = cycle
        task = self._loop.create_task(cycle.run(self._application))
        task.add_done_callback(self._tasks.discard)
        self._tasks.add(task)
