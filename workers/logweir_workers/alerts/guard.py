"""Rules' own code must come back: what takes too long is ended, and its rule is known after that.

A loop in Python is interrupted by a signal. Code that never looks at signals, as a regular expression may not, ends the
process, and the next one finds in a file which rule that was.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from logweir.process.files import make_folder

CALL_S_MAX = 5.0
"""How long a rule's function may take for one event, and a file of rules to be read."""
STUCK_S_MAX = 60.0
"""How long the evaluation of one record, or the text of one alert, may take until the process is ended."""
_SIZE_BYTES = 256


class RuleTooSlow(Exception):
    """A rule's own code took too long."""

    def __init__(self) -> None:
        super().__init__(f"it took longer than {CALL_S_MAX:.0f} s")


class Guard:
    """Watches the rules' own code of this process. Without a file, and beside the main thread, it only lets it run.

    ``found``: the rule in whose code the process before this one was stuck; empty when it was not.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.found = ""
        self._mark: mmap.mmap | None = None
        self._can_interrupt = threading.current_thread() is threading.main_thread()
        if path is None or not self._can_interrupt:
            return
        make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _SIZE_BYTES)
            self._mark = mmap.mmap(descriptor, _SIZE_BYTES)
        finally:
            os.close(descriptor)
        self.found = self._mark[:].rstrip(b"\0").decode("ascii", "replace")
        self._mark[:] = bytes(_SIZE_BYTES)
        signal.signal(signal.SIGALRM, _too_slow)

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[None]:
        """A rule's own code runs in the block. Raises RuleTooSlow in it when it takes too long."""
        if self._mark is None:
            yield
            return
        self._mark[:] = name.encode().ljust(_SIZE_BYTES, b"\0")
        signal.setitimer(signal.ITIMER_REAL, CALL_S_MAX)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._mark[:] = bytes(_SIZE_BYTES)

    def watch(self) -> None:
        """End the process unless ``watch`` or ``rest`` is called within STUCK_S_MAX."""
        if self._mark is not None:
            faulthandler.dump_traceback_later(STUCK_S_MAX, exit=True)

    def rest(self) -> None:
        """End nothing until ``watch`` is called again."""
        if self._mark is not None:
            faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        self.rest()
        if self._mark is not None:
            self._mark.close()
            self._mark = None


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """A file of rules is read in the block. Raises RuleTooSlow in it when that takes too long, on the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, CALL_S_MAX)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise RuleTooSlow
