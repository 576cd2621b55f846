"""The thread that brings what is buffered to the door: batches, retries, and what is said when events are lost."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from logweir.emit.buffer import Buffer, join
from logweir.emit.door import Answer, Door
from logweir.emit.files import Folder, RunFiles
from logweir.emit.page import Page
from logweir.emit.queue import Batch

log = logging.getLogger("logweir.emit")

_IDLE_S = 5.0
_TURN_S = 0.02
_ADOPT_INTERVAL_S = 30.0
_RETRY_WAIT_S = 0.25
_WARNING_INTERVAL_S = 60.0
_FAILED_PAUSE_S = 1.0
_SMALLEST_BATCH_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Batching:
    """When a batch is sent: when it has so many events or bytes, or its first event has waited so long."""

    events_max: int
    size_bytes_max: int
    age_s_max: float


class _Source(Protocol):
    """This process's own run, or one that another process has left."""

    page: Page

    def take(self, *, events_max: int, size_bytes_max: int) -> Batch | None: ...
    def settle(self, batch: Batch) -> None: ...


class _LeftRun:
    """The files of a process that is gone, as a source."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files
        self.page = files.page

    def take(self, *, events_max: int, size_bytes_max: int) -> Batch | None:
        return self.files.read(events_max=events_max, size_bytes_max=size_bytes_max)

    def settle(self, batch: Batch) -> None:
        self.files.settle(batch)


class Sender:
    """Sends one run's events, and takes up the runs that others have left in the folder."""

    def __init__(
        self,
        buffer: Buffer,
        door: Door,
        *,
        folder: Folder | None,
        previous: tuple[str, int] | None,
        batching: Batching,
        retry_wait_s_max: float,
    ) -> None:
        """``previous``: the run before this one, and its highest number."""
        self._buffer = buffer
        self._door = door
        self._folder = folder
        self._previous = previous
        self._batching = batching
        self._size_bytes_max = batching.size_bytes_max
        self._retry_wait_s_max = retry_wait_s_max
        self._settled_count = 0
        self._told: tuple[int, dict[str, int]] = (0, {})
        self._adopt_at_s = 0.0
        self._notices = _Notices(door.url)
        self._end_s: float | None = None
        # Of this run, what was under way when the end came.
        self._left: list[Batch] = []
        # Set: do not wait for a batch to fill, nor for the next try.
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logweir-emit-sender", daemon=True)

    @property
    def thread_idents(self) -> frozenset[int]:
        """Of the threads that run for it."""
        return frozenset(one for one in (self._thread.ident, *self._buffer.thread_idents) if one is not None)

    def start(self) -> None:
        """Raises RuntimeError when the program is ending, and no thread can begin any more."""
        self._buffer.start()
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was put so far is delivered, or dropped; False when it takes longer."""
        target, end_s = self._buffer.queue.put_count, time.monotonic() + timeout_s
        self._hurry.set()
        self._buffer.wake()
        try:
            while self._settled_count < target and self._thread.is_alive() and time.monotonic() < end_s:
                time.sleep(_TURN_S / 2)
        finally:
            self._hurry.clear()
        return self._settled_count >= target

    def stop(self, timeout_s: float) -> bool:
        """Nothing is put any more: send what is left, say goodbye, and end; False when it takes longer.

        What is in files and cannot be sent now stays there. What is in memory is tried to the end of the time.
        """
        end_s = time.monotonic() + timeout_s
        self._buffer.finish(timeout_s)
        self._end_s = end_s
        self._hurry.set()
        if self._thread.ident is None:
            self._finish()
            return True
        join(self._thread, self._buffer.wake, end_s - time.monotonic())
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """In a forked child, where the thread is not."""
        self._door.close()
        self._buffer.abandon()

    # --- the thread ------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        while self._end_s is None:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - a disk, or a bug of ours: no thread ends for it
                self._notices.warn("Sending events failed, and is tried again: %s: %s", type(error).__name__, error)
                self._pause(_FAILED_PAUSE_S)
        self._finish()

    def _turn(self) -> None:
        if self._folder is not None and time.monotonic() >= self._adopt_at_s:
            self._adopt_at_s = time.monotonic() + _ADOPT_INTERVAL_S
            self._adopt(self._folder)
        if self._buffer.wait(_IDLE_S):
            self._await_full_batch()
            if (batch := self._next(self._buffer)) is not None:
                self._left = self._undelivered(self._buffer, batch)
        elif not self._buffer.queue.count and self._told != (self._buffer.page.high, self._buffer.page.dropped):
            # Events were dropped, and none behind them carries the news.
            self._say(self._buffer.page)
        self._notices.dropped(self._buffer.page.dropped)

    def _await_full_batch(self) -> None:
        end_s = time.monotonic() + self._batching.age_s_max
        while not self._buffer.has(events=self._batching.events_max, size_bytes=self._size_bytes_max):
            if self._hurry.is_set() or self._end_s is not None or time.monotonic() >= end_s:
                break
            self._hurry.wait(_TURN_S)

    def _next(self, source: _Source) -> Batch | None:
        return source.take(events_max=self._batching.events_max, size_bytes_max=self._size_bytes_max)

    # --- runs that others have left --------------------------------------------------------------------------------
    def _adopt(self, folder: Folder) -> None:
        """Send what processes that are gone have left in the folder, and say how far each had come."""
        for files in folder.left_runs(self._buffer.page.emitter):
            source, is_told = _LeftRun(files), False
            try:
                is_told = self._is_all_told(source)
                if is_told:
                    files.remove()
                    if files.page.emitter == self._buffer.page.emitter and self._told == (0, {}):
                        self._previous = files.page.epoch, files.high
            finally:
                files.close()
            if not is_told:
                return

    def _is_all_told(self, source: _LeftRun) -> bool:
        while (batch := self._next(source)) is not None:
            if self._undelivered(source, batch):
                return False
        return self._say(source.page, high=source.files.high, bye=source.page.is_ended)

    # --- a batch's way ---------------------------------------------------------------------------------------------
    def _undelivered(self, source: _Source, batch: Batch) -> list[Batch]:
        """Deliver the batch, whatever it takes; gives what is left of it when this process ends meanwhile.

        The first of what is left may have arrived. An event that the door refuses is found by halves, or where the
        answer names it, and dropped; the others are delivered.
        """
        parts = [batch]
        while parts:
            part = parts[-1]
            answer = self._answer_to(source, part)
            if answer is None:
                return parts[::-1]
            parts.pop()
            if not answer.refuses() or answer.takes(len(part.events)):
                self._settle(source, part)
            elif len(part.events) > 1:
                if answer.status == 413 and answer.event_index is None:
                    size_bytes = sum(map(len, part.events)) // 2
                    self._size_bytes_max = max(_SMALLEST_BATCH_BYTES, min(self._size_bytes_max, size_bytes))
                parts += reversed(_pieces(part, answer.event_index))
            else:
                # In this order: killed in between, the event is lost, not dropped twice.
                self._settle(source, part)
                source.page.drop("refused")
                words = (part.first, source.page.epoch, answer.reason)
                self._notices.warn("Event %d of the run %s is refused, and dropped: %s", *words)
        return []

    def _settle(self, source: _Source, batch: Batch) -> None:
        source.settle(batch)
        if source is self._buffer:
            self._settled_count += len(batch.events)

    def _answer_to(self, source: _Source, batch: Batch) -> Answer | None:
        """The first answer that settles it: all accepted, or one refused. None when this process ends before."""
        body = b"\n".join(batch.events)
        attempt = 0
        while True:
            answer = self._post(source.page, body, {"Log-Seq": str(batch.first)})
            if answer.takes(len(batch.events)) or answer.refuses():
                self._notices.answered(None)
                return answer
            self._notices.answered(answer)
            wait_s = _wait_s(attempt, answer, self._retry_wait_s_max)
            if not self._pause(wait_s, is_asked_for=answer.retry_after_s is not None):
                return None
            attempt += 1

    def _post(self, page: Page, body: bytes, numbers: dict[str, str], *, high: int = 0) -> Answer:
        """One request, with all that the door should know of the run. Log-Prev until one was accepted."""
        is_own = page is self._buffer.page
        high, dropped = max(high, page.high), page.dropped
        headers: dict[str, str | bytes] = {
            "Log-Emitter": page.emitter.encode(),
            "Log-Epoch": page.epoch,
            "Log-High": str(high),
            **numbers,
        }
        if dropped:
            headers["Log-Dropped"] = ";".join(f"{reason}={count}" for reason, count in dropped.items())
        if is_own and self._previous is not None:
            headers["Log-Prev"] = f"{self._previous[0]}:{self._previous[1]}"
        timeout_s = self._door.timeout_s if self._end_s is None else max(0.1, self._end_s - time.monotonic())
        answer = self._door.post(body, headers, timeout_s=timeout_s)
        if is_own and 200 <= answer.status < 300 and answer.accepted is not None:
            self._previous = None
            self._told = high, dropped
        return answer

    def _say(self, page: Page, *, high: int = 0, bye: bool = False) -> bool:
        """Tell the door, once, how far the run is, without an event; gives whether it has heard."""
        answer = self._post(page, b"", {"Log-Bye": "1"} if bye else {}, high=high)
        is_told = answer.takes(0)
        self._notices.answered(None if is_told else answer)
        return is_told

    # --- waiting ---------------------------------------------------------------------------------------------------
    def _pause(self, wait_s: float, *, is_asked_for: bool = False) -> bool:
        """Wait before the next try; False when there is to be none, because this process ends.

        A flush and the end make the wait short, unless the door has asked for it. What is in files is tried once more
        at the end; what is in memory, as long as there is time.
        """
        began_s, was_ending = time.monotonic(), self._end_s is not None
        while True:
            is_hurried = self._hurry.is_set() or self._end_s is not None
            until_s = began_s + (min(wait_s, _RETRY_WAIT_S) if is_hurried and not is_asked_for else wait_s)
            if self._end_s is not None and self._buffer.is_durable:
                return not (was_ending or is_asked_for)
            if self._end_s is not None and until_s >= self._end_s:
                return False
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return True
            if is_hurried:
                time.sleep(min(_TURN_S, left_s))
            else:
                self._hurry.wait(left_s)

    # --- the end ---------------------------------------------------------------------------------------------------
    def _finish(self) -> None:
        """Send what is left, say goodbye, and close; within the time that ``stop`` was given."""
        assert self._end_s is not None
        is_told, page = False, self._buffer.page
        try:
            # A fifth of the time is for the goodbye, which says what could not be sent.
            send_until_s = self._end_s - max(0.0, self._end_s - time.monotonic()) / 5
            while not self._left and time.monotonic() < send_until_s:
                if (batch := self._next(self._buffer)) is None:
                    break
                self._left = self._undelivered(self._buffer, batch)
            page.end()
            ending = self._buffer.ending_with_process()
            if not self._buffer.is_durable:
                # What was sent and not answered may have arrived: it is not counted.
                ending += sum(len(part.events) for part in self._left[1:])
            if ending:
                page.drop("exit_timeout", ending)
            if not page.high:
                is_told = True  # It was begun for the runs that others had left, and there is nothing to say.
            elif not self._buffer.is_durable or not (self._left or self._buffer.has(events=1, size_bytes=1)):
                is_told = self._say(page, bye=True)
                while not is_told and self._pause(_RETRY_WAIT_S):
                    is_told = self._say(page, bye=True)
        except Exception as error:  # noqa: BLE001 - it is the end: what is in files stays there
            self._notices.warn("The last events could not be sent: %s: %s", type(error).__name__, error)
        self._notices.dropped(page.dropped, is_last=True)
        self._door.close()
        self._buffer.close(is_told=is_told)


class _Notices:
    """What the program is told, as logweir.emit: of each kind no more than one line a minute."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_failing = False
        self._dropped_count = 0
        self._warned_at_s: dict[str, float] = {}

    def answered(self, trouble: Answer | None) -> None:
        """``trouble``: the answer, where the door did not take what it was sent."""
        was_failing, self._is_failing = self._is_failing, trouble is not None
        if trouble is not None:
            self.warn("%s does not take events; they wait, and are sent again: %s", self._url, trouble.reason)
        elif was_failing:
            log.info("%s takes events again.", self._url)

    def dropped(self, counts: dict[str, int], *, is_last: bool = False) -> None:
        if sum(counts.values()) == self._dropped_count:
            return
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
        if self.warn("Events were dropped since the start: %s. The door is told, too.", reasons, always=is_last):
            self._dropped_count = sum(counts.values())

    def warn(self, message: str, *words: object, always: bool = False) -> bool:
        """Gives whether it is logged."""
        now_s = time.monotonic()
        if not always and now_s < self._warned_at_s.get(message, -_WARNING_INTERVAL_S) + _WARNING_INTERVAL_S:
            return False
        self._warned_at_s[message] = now_s
        log.warning(message, *words)
        return True


def _wait_s(attempt: int, answer: Answer, wait_s_max: float) -> float:
    """Longer after each failure, not the same for all that failed together, never less than the door asks for."""
    wait_s = min(wait_s_max, _RETRY_WAIT_S * 2.0 ** min(attempt, 16))
    return (answer.retry_after_s or 0.0) + wait_s * random.uniform(0.5, 1.0)  # noqa: S311


def _pieces(batch: Batch, at: int | None) -> list[Batch]:
    """The batch in two, or, where one event is known to be at fault, in what is before it, it, and what is behind."""
    if at is None or at >= len(batch.events):
        return list(batch.split(len(batch.events) // 2))
    before, rest = batch.split(at)
    event, behind = rest.split(1)
    pieces = [piece for piece in (before, event, behind) if piece.events]
    # What is behind carries the batch's end; where nothing is, the event itself does.
    return pieces if behind.events else [*pieces[:-1], rest]
