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

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"it took longer than {limit_s:.0f} s")


class RuleEnds(Exception):
    """A rule's own code wanted to end the process."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"it raised {type(error).__name__}, which would end the process")


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

    @contextlib.contextmanager
    def running(self, name: str, *, limit_s: float | None = None) -> Iterator[None]:
        """A rule's own code runs in the block.

        Raises RuleTooSlow in it when it takes longer (CALL_S_MAX); RuleEnds for what is no error but an end.
        """
        pid = os.getpid()
        try:
            if self._mark is None:
                yield
                return
            self._mark[:] = name.encode().ljust(_SIZE_BYTES, b"\0")
            with in_time(limit_s):
                yield
        except BaseException as error:
            # A command's own Ctrl-C; a daemon's is no exception.
            if isinstance(error, Exception) or (isinstance(error, KeyboardInterrupt) and self._mark is None):
                raise
            raise RuleEnds(error) from error
        finally:
            if os.getpid() != pid:
                os._exit(1)  # The rule has forked, and this is the other process: nothing here is its to go on with.
            if self._mark is not None:
                self._mark[:] = bytes(_SIZE_BYTES)

    def watch(self, *, stuck_s: float | None = None) -> None:
        """End the process unless ``watch`` or ``rest`` is called within that time (STUCK_S_MAX)."""
        if self._mark is not None:
            faulthandler.dump_traceback_later(STUCK_S_MAX if stuck_s is None else stuck_s, exit=True)

    def rest(self) -> None:
        """End nothing until ``watch`` is called again."""
        if self._mark is not None:
            faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        self.rest()
        if self._mark is not None:
            self._mark[:] = bytes(_SIZE_BYTES)
            self._mark.close()
            self._mark = None


@contextlib.contextmanager
def in_time(limit_s: float | None = None) -> Iterator[None]:
    """Raises RuleTooSlow in the block when it takes longer (CALL_S_MAX), RuleEnds when it wants to end the process.

    Beside the main thread it only lets it run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    limit = CALL_S_MAX if limit_s is None else limit_s

    def too_slow(_number: int, _frame: FrameType | None) -> None:
        raise RuleTooSlow(limit)

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    except (SystemExit, GeneratorExit) as error:
        raise RuleEnds(error) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
