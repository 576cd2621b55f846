"""The handler: what a logging call does, and what happens at forks and at the program's end. READ FIRST."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import sys
import weakref
from collections.abc import Iterable
from pathlib import Path

from logweir.emit.buffer import Buffer, FileBuffer, MemoryBuffer
from logweir.emit.door import Door
from logweir.emit.files import Folder
from logweir.emit.formatter import LogweirFormatter, process_name
from logweir.emit.queue import EventQueue
from logweir.emit.sender import Batching, Sender

log = logging.getLogger("logweir.emit")

URL_VARIABLE = "LOGWEIR_URL"
KEY_VARIABLE = "LOGWEIR_KEY"
_EMITTER_SIZE_BYTES_MAX = 256
_MEBIBYTE = 1024 * 1024

_handlers: weakref.WeakSet[LogweirHandler] = weakref.WeakSet()


class LogweirHandler(logging.Handler):
    """Sends events to a logweir door, numbered, so that the door knows exactly what was lost.

    A logging call formats the record and puts it into a bounded queue; threads do the rest. Begins with the first
    event; after ``close`` the next event begins again. docs/how-to/python-logging.md
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        level: int | str = logging.NOTSET,
        ca_file: str | os.PathLike[str] | None = None,
        emitter: str | None = None,
        category: str | None = None,
        tags: Iterable[str] = (),
        buffer_dir: str | os.PathLike[str] | None = None,
        buffer_size_bytes_max: int = 256 * _MEBIBYTE,
        fsync_interval_s: float | None = 1.0,
        queue_events_max: int = 100_000,
        queue_size_bytes_max: int = 32 * _MEBIBYTE,
        batch_events_max: int = 1000,
        batch_size_bytes_max: int = _MEBIBYTE,
        batch_age_s_max: float = 0.5,
        timeout_s: float = 10.0,
        retry_wait_s_max: float = 30.0,
        exit_timeout_s: float = 5.0,
    ) -> None:
        """Settings are in docs/how-to/python-logging.md. Raises ValueError, TypeError, OSError; none shows the key."""
        super().__init__(level)
        url, key = url or os.environ.get(URL_VARIABLE), key or os.environ.get(KEY_VARIABLE, "")
        if not url:
            raise ValueError(f"LogweirHandler: no url is given, nor {URL_VARIABLE} set")
        self.emitter = emitter or f"{process_name()}@{socket.gethostname()}"
        if not self.emitter.isprintable() or len(self.emitter.encode()) > _EMITTER_SIZE_BYTES_MAX:
            raise ValueError(f"LogweirHandler: emitter is not 1 to {_EMITTER_SIZE_BYTES_MAX} bytes of visible text")
        _require_positive(
            buffer_size_bytes_max=buffer_size_bytes_max,
            queue_events_max=queue_events_max,
            queue_size_bytes_max=queue_size_bytes_max,
            batch_events_max=batch_events_max,
            batch_size_bytes_max=batch_size_bytes_max,
            timeout_s=timeout_s,
            retry_wait_s_max=retry_wait_s_max,
        )
        self._door = Door(
            url, key.strip(), ca_file=None if ca_file is None else os.fspath(ca_file), timeout_s=timeout_s
        )
        self._queue_limits = {"events_max": queue_events_max, "size_bytes_max": queue_size_bytes_max}
        self._fsync_interval_s = fsync_interval_s
        self._batching = Batching(batch_events_max, batch_size_bytes_max, batch_age_s_max)
        self._retry_wait_s_max = retry_wait_s_max
        self._exit_timeout_s = exit_timeout_s
        self.setFormatter(LogweirFormatter(category=category, tags=tags))
        # Of records whose text another formatter makes, this one makes the event.
        self._own_formatter = LogweirFormatter(category=category, tags=tags)
        self._folder = None if buffer_dir is None else Folder(Path(buffer_dir).absolute(), buffer_size_bytes_max)
        self._queue: EventQueue | None = None
        self._sender: Sender | None = None
        self._own_threads: frozenset[int] = frozenset()
        self._previous: tuple[str, int] | None = None
        self._is_starting = False
        self._early: list[bytes | None] = []
        _handlers.add(self)
        if self._folder is not None and self._folder.has_left_runs():
            self._start()

    # --- a logging call --------------------------------------------------------------------------------------------
    def handle(self, record: logging.LogRecord) -> bool:
        """As of any handler, but for what our own threads log: sending that would give them something to send again."""
        # Before the lock: who waits for these threads may hold it.
        if record.thread in self._own_threads or record.name == log.name:
            return False
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record into the queue. Never waits, never raises; called with the handler's lock held."""
        try:
            event = self._event_of(record)
        except Exception:  # noqa: BLE001 - a formatter that is not ours may raise anything
            event = None
            self.handleError(record)
        if self._queue is None and not self._start():
            # A signal has come while a run begins, and its handler logs.
            self._early.append(event)
            return
        assert self._queue is not None
        self._put(self._queue, event)

    def _put(self, queue: EventQueue, event: bytes | None) -> None:
        if event is None:
            queue.drop("unformattable")
        else:
            queue.put(event)

    def _event_of(self, record: logging.LogRecord) -> bytes:
        formatter = self.formatter
        if isinstance(formatter, LogweirFormatter):
            text = formatter.format(record)
        else:
            text = self._own_formatter.event(record, self.format(record))
        if "\n" in text:
            text = text.replace("\n", " ")  # An event is a line. In JSON, this is only between its values.
        # Half a surrogate pair becomes its escape, which JSON has for it.
        return text.encode("utf-8", "backslashreplace")

    # --- begin and end ---------------------------------------------------------------------------------------------
    def _start(self) -> bool:
        """Begin a run: with the first event, after a fork and after ``close``; False while one is beginning."""
        if self._is_starting:
            return False
        self._is_starting = True
        try:
            self._begin_run()
        finally:
            self._is_starting = False
        return True

    def _begin_run(self) -> None:
        buffer = self._new_buffer()
        sender = Sender(
            buffer,
            self._door.again(),
            folder=self._folder,
            previous=self._previous,
            batching=self._batching,
            retry_wait_s_max=self._retry_wait_s_max,
        )
        self._queue, self._sender = buffer.queue, sender
        while self._early:
            self._put(buffer.queue, self._early.pop(0))
        # A program that is ending lets no thread begin: then ``close`` sends what is there.
        with contextlib.suppress(RuntimeError):
            sender.start()
        self._own_threads = sender.thread_idents
        _close_with_child_process(self)

    def _new_buffer(self) -> Buffer:
        if self._folder is not None:
            try:
                return FileBuffer(
                    self._folder,
                    self.emitter,
                    **self._queue_limits,
                    batch_events_max=self._batching.events_max,
                    batch_size_bytes_max=self._batching.size_bytes_max,
                    fsync_interval_s=self._fsync_interval_s,
                )
            except OSError as error:
                log.warning("Events cannot be buffered in %s, and wait in memory: %s", self._folder.path, error)
        return MemoryBuffer(self.emitter, **self._queue_limits)

    def flush(self, timeout_s: float | None = None) -> bool:  # type: ignore[override]
        """Wait until all that was logged so far is delivered; False when it takes longer (exit_timeout_s)."""
        sender = self._sender
        return sender is None or sender.flush(self._exit_timeout_s if timeout_s is None else timeout_s)

    def close(self) -> None:
        """Send what waits, and say goodbye, within exit_timeout_s. What is in files stays there for the next start."""
        self.acquire()
        try:
            queue, sender = self._queue, self._sender
            self._queue = self._sender = None
            # Numbers of threads that have ended are given to others.
            self._own_threads = frozenset()
            if queue is not None:
                self._previous = queue.page.epoch, queue.page.high
        finally:
            self.release()
        if sender is not None:
            sender.stop(self._exit_timeout_s)
        super().close()

    def _forget(self) -> None:
        """In a forked child: what was put before the fork is the parent's to send."""
        sender, self._queue, self._sender, self._previous = self._sender, None, None, None
        self._is_starting, self._early, self._own_threads = False, [], frozenset()
        if sender is not None:
            sender.abandon()


def _require_positive(**settings: float) -> None:
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"LogweirHandler: {name} is {value!r}, and must be more than 0")


def _close_all() -> None:
    for handler in list(_handlers):
        handler.close()


def _forget_all() -> None:
    for handler in list(_handlers):
        handler._forget()


def _close_with_child_process(handler: LogweirHandler) -> None:
    """The children of multiprocessing end without what atexit was given (until Python 3.15)."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is None or multiprocessing.parent_process() is None:
        return
    from multiprocessing.util import Finalize

    Finalize(handler, handler.close, exitpriority=-100)


# Before logging's own, which comes last; what is logged in between begins another run, which logging closes.
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
