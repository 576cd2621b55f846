"""What lies between the logging calls and the sender: the queue alone, or files behind it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from logweir.emit.files import Folder
from logweir.emit.page import Page, new_epoch
from logweir.emit.queue import Batch, EventQueue

log = logging.getLogger("logweir.emit")

TURN_S = 0.01
"""How long the writing thread pauses: under load it writes a hundred times a second, however much comes in between."""
_IDLE_S = 5.0
_FAILED_PAUSE_S = 1.0


class Buffer(Protocol):
    """What the sender drains."""

    queue: EventQueue
    page: Page
    is_durable: bool
    """Whether what is left in it is taken up by another process."""

    @property
    def thread_idents(self) -> list[int | None]:
        """Of its threads."""

    def start(self) -> None: ...
    def wait(self, timeout_s: float) -> bool:
        """Wait until there is an event, or ``wake``; gives whether there is one."""

    def has(self, *, events: int, size_bytes: int) -> bool:
        """Whether so many events or bytes wait."""

    def take(self, *, events_max: int, size_bytes_max: int) -> Batch | None:
        """The next events, of consecutive numbers; None when there are none. Raises OSError."""

    def settle(self, batch: Batch) -> None:
        """They are delivered, or counted as dropped."""

    def wake(self) -> None:
        """End a ``wait`` that is under way. Any thread may."""

    def finish(self, timeout_s: float) -> None:
        """No event is put any more: have all of them where ``take`` finds them."""

    def ending_with_process(self) -> int:
        """How many events wait where no other process finds them."""

    def close(self, *, is_told: bool) -> None:
        """``is_told``: the door has heard how the run ended, so nothing needs to be kept of it."""

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, and change nothing."""


class MemoryBuffer:
    """The queue: what is in it ends with the process."""

    is_durable = False

    def __init__(self, emitter: str, *, events_max: int, size_bytes_max: int) -> None:
        self.thread_idents: list[int | None] = []
        self.page = Page(new_epoch(), emitter)
        self.queue = EventQueue(self.page, events_max=events_max, size_bytes_max=size_bytes_max)

    def start(self) -> None:
        pass

    def wait(self, timeout_s: float) -> bool:
        return self.queue.wait(timeout_s)

    def has(self, *, events: int, size_bytes: int) -> bool:
        return self.queue.count >= events or self.queue.size_bytes >= size_bytes

    def take(self, *, events_max: int, size_bytes_max: int) -> Batch | None:
        return self.queue.take(events_max=events_max, size_bytes_max=size_bytes_max)

    def settle(self, batch: Batch) -> None:
        pass

    def finish(self, timeout_s: float) -> None:
        pass

    def wake(self) -> None:
        self.queue.wake()

    def ending_with_process(self) -> int:
        return self.queue.count

    def close(self, *, is_told: bool) -> None:  # noqa: ARG002
        self.page.close()

    def abandon(self) -> None:
        self.page.close()


class FileBuffer:
    """The queue, and a thread that writes what comes to the run's files at once; another one syncs them.

    While the files cannot be written, what is in them is sent first, then what is in the queue; when that is full,
    events are dropped, as disk_full.
    """

    is_durable = True

    def __init__(
        self,
        folder: Folder,
        emitter: str,
        *,
        events_max: int,
        size_bytes_max: int,
        batch_events_max: int,
        batch_size_bytes_max: int,
        fsync_interval_s: float | None,
    ) -> None:
        """``fsync_interval_s``: how long what was written may wait to be safe from a power cut; None: for ever.

        Raises OSError.
        """
        self._files = folder.new_run(emitter, is_synced=fsync_interval_s is not None)
        self.page = self._files.page
        self.queue = EventQueue(self.page, events_max=events_max, size_bytes_max=size_bytes_max)
        self._folder_path: Path = folder.path
        self._batch_limits = {"events_max": batch_events_max, "size_bytes_max": batch_size_bytes_max}
        self._fsync_interval_s = fsync_interval_s
        self._held: Batch | None = None
        self._is_failing = self._is_sync_failing = False
        # Whoever takes from the queue has it. No logging call does.
        self._lock = threading.Lock()
        self._has_written = threading.Event()
        self._is_unsynced = threading.Event()
        self._is_finishing = threading.Event()
        self._is_all_written = threading.Event()
        self._writer = threading.Thread(target=self._run_writer, name="logweir-emit-writer", daemon=True)
        self._syncer = threading.Thread(target=self._run_syncer, name="logweir-emit-syncer", daemon=True)

    @property
    def thread_idents(self) -> list[int | None]:
        return [self._writer.ident, self._syncer.ident]

    def start(self) -> None:
        self._writer.start()
        if self._fsync_interval_s is not None:
            self._syncer.start()

    # --- writing ---------------------------------------------------------------------------------------------------
    def _run_writer(self) -> None:
        while not self._is_finishing.is_set():
            try:
                if self.queue.wait(_IDLE_S):
                    self._write()
            except Exception as error:  # noqa: BLE001 - a bug of ours: what waits is sent from memory
                self._set_failing(error)
            self._is_finishing.wait(_FAILED_PAUSE_S if self._is_failing else TURN_S)
        self._write()

    def _write(self) -> None:
        """Write all that is in the queue; what the disk does not take stays held."""
        with self._lock:
            while True:
                if self._held is None:
                    self._held = self.queue.take(**self._batch_limits)
                if self._held is None:
                    break
                try:
                    self._files.append(self._held)
                except OSError as error:
                    self._set_failing(error)
                    break
                self._held = None
                self._set_failing(None)
                self._is_unsynced.set()
        self._has_written.set()

    def _set_failing(self, error: Exception | None) -> None:
        if error is not None and not self._is_failing:
            reason = getattr(error, "strerror", None) or str(error)
            log.warning("Events cannot be buffered in %s, and wait in memory: %s", self._folder_path, reason)
        self._is_failing = error is not None
        self.queue.overflow_reason = "queue_overflow" if error is None else "disk_full"

    def _run_syncer(self) -> None:
        """A thread of its own: a disk may take long for it, and what is logged meanwhile must not wait in memory."""
        assert self._fsync_interval_s is not None
        self._sync(self._files.sync_names)
        while not self._is_all_written.is_set():
            if self._is_unsynced.wait(_IDLE_S):
                self._is_finishing.wait(self._fsync_interval_s)
                self._is_unsynced.clear()
                self._sync(self._files.sync)
        if self._is_unsynced.is_set():
            self._sync(self._files.sync)

    def _sync(self, sync: Callable[[], None]) -> None:
        try:
            sync()
        except OSError as error:
            if not self._is_sync_failing:
                log.warning("What is buffered in %s may not outlive a power cut: %s", self._folder_path, error.strerror)
            self._is_sync_failing = True
        else:
            self._is_sync_failing = False

    # --- for the sender --------------------------------------------------------------------------------------------
    def wait(self, timeout_s: float) -> bool:
        if not self._waiting():
            self._has_written.clear()
            if not self._waiting():
                self._has_written.wait(timeout_s)
        return self._waiting() > 0

    def _waiting(self) -> int:
        in_files = self._files.appended_count - self._files.read_count
        return in_files + self.ending_with_process() if self._is_failing else in_files

    def has(self, *, events: int, size_bytes: int) -> bool:
        files = self._files
        return self._waiting() >= events or files.appended_bytes - files.read_bytes >= size_bytes

    def take(self, *, events_max: int, size_bytes_max: int) -> Batch | None:
        batch = self._files.read(events_max=events_max, size_bytes_max=size_bytes_max)
        if batch is None and self._is_failing:
            with self._lock:
                # The disk may work again by now: what it has got meanwhile comes first.
                if not self._is_failing or self._files.read_count < self._files.appended_count:
                    return None
                if self._held is None:
                    return self.queue.take(events_max=events_max, size_bytes_max=size_bytes_max)
                batch, rest = self._held.split(events_max)
                self._held = rest if rest.events else None
        return batch

    def settle(self, batch: Batch) -> None:
        self._files.settle(batch)

    def wake(self) -> None:
        self._has_written.set()

    def finish(self, timeout_s: float) -> None:
        end_s = time.monotonic() + timeout_s
        self._is_finishing.set()
        if self._writer.ident is None:
            self._write()  # A program that ends lets no thread begin.
        else:
            join(self._writer, self.queue.wake, timeout_s)
        self._is_all_written.set()
        if self._syncer.ident is not None:
            join(self._syncer, self._is_unsynced.set, end_s - time.monotonic())

    def ending_with_process(self) -> int:
        return self.queue.count + (0 if self._held is None else len(self._held.events))

    def close(self, *, is_told: bool) -> None:
        if self._writer.is_alive() or self._syncer.is_alive():
            return  # A disk that hangs: the process's end closes what it has.
        if is_told:
            self._files.remove()
        self._files.close()

    def abandon(self) -> None:
        self._files.close()


def join(thread: threading.Thread, wake: Callable[[], None], timeout_s: float) -> None:
    """Wait until the thread has ended, which was told to; ``wake`` ends its wait, unless that is about to begin."""
    end_s = time.monotonic() + timeout_s
    while thread.is_alive() and time.monotonic() < end_s:
        wake()
        thread.join(0.05)
