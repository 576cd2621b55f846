"""Sends the notices of one channel on a thread of its own, so that a receiver that hangs holds up nothing else."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from logweir.metrics import registry
from logweir_workers.notify.bundles import Bundle, Planned
from logweir_workers.notify.channels import Channel
from logweir_workers.notify.notice import Notice
from logweir_workers.notify.senders.port import NoticeRefused, Sender, SendFailed

Job = tuple[Bundle, Planned] | None
"""What a notice is of; None for one of which nothing is written down."""
REST_S_FIRST = 1.0
REST_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a notice: it was sent, unless ``failed`` or ``refused`` has a reason."""

    sender_thread: SenderThread
    job: Job
    """As it was handed to ``send``."""
    remembered: dict[str, Any] = field(default_factory=dict)
    failed: str | None = None
    refused: str | None = None
    after_s: float | None = None


class SenderThread:
    """One channel's thread. Its methods are for the notifier's thread. ``results``: gets a Result for each notice."""

    def __init__(self, channel: Channel, results: queue.SimpleQueue[Result]) -> None:
        self.channel = channel
        self._results = results
        self._jobs: queue.SimpleQueue[tuple[Job, Notice] | None] = queue.SimpleQueue()
        self._busy_since_s: float | None = None
        self._rests_until_s = 0.0
        self.failures = 0
        """In a row: the circuit is open then. One notice is tried now and then, the others wait."""
        self.has_answered = False
        """Whether the receiver has taken or refused anything, of late."""
        self._random = random.Random()  # noqa: S311 - spreads tries, hides nothing
        self._thread: threading.Thread | None = None
        self.job: Job = None
        """What is under way."""

    @property
    def is_busy(self) -> bool:
        """Whether a notice is under way."""
        return self._busy_since_s is not None

    def is_ready(self, now_s: float) -> bool:
        """Whether a notice may be sent: none is under way, and the channel does not rest."""
        return self._busy_since_s is None and now_s >= self._rests_until_s

    def is_stuck(self, now_s: float) -> bool:
        """Whether a notice is under way for much longer than it may."""
        limit_s = 3 * self.channel.settings.timeout_s + 15
        return self._busy_since_s is not None and now_s - self._busy_since_s > limit_s

    def send(self, job: Job, notice: Notice) -> None:
        """Begin to send; a Result with the ``job`` follows."""
        self._busy_since_s, self.job = time.monotonic(), job
        self._jobs.put((job, notice))
        if self._thread is None:
            # Not joined at the end: a receiver that hangs must not hold up the process.
            self._thread = threading.Thread(target=self._run, name=f"notify-{self.channel.name}", daemon=True)
            self._thread.start()

    def note(self, result: Result) -> None:
        """A result has been taken: rest, longer each time that the channel fails."""
        self._busy_since_s, self.job = None, None
        self.has_answered = result.failed is None
        if self.has_answered:
            self.failures = 0
            return
        self.failures += 1
        rest_s = min(REST_S_MAX, REST_S_FIRST * 2.0 ** min(self.failures - 1, 20))
        rest_s *= self._random.uniform(0.5, 1.0)
        self._rests_until_s = time.monotonic() + max(rest_s, result.after_s or 0.0)

    def close(self) -> None:
        """End once what is under way has come to its end."""
        self._jobs.put(None)

    def _run(self) -> None:
        sender: Sender | None = None
        try:
            while (taken := self._jobs.get()) is not None:
                job, notice = taken
                try:
                    sender = sender or self.channel.settings.sender()
                    result = Result(self, job, remembered=sender.send(notice))
                except SendFailed as error:
                    result = Result(self, job, failed=self._shown(error), after_s=error.after_s)
                except NoticeRefused as error:
                    result = Result(self, job, refused=self._shown(error))
                except Exception as error:  # noqa: BLE001 - whatever a sender's libraries raise, the others go on
                    # Not with its trace: that may hold what is secret.
                    result = Result(self, job, failed=f"{type(error).__name__}: {self._shown(error)}")
                self._results.put(result)
        finally:
            if sender is not None:
                with contextlib.suppress(Exception):
                    sender.close()

    def _shown(self, error: Exception) -> str:
        return self.channel.settings.scrubbed(str(error)) or type(error).__name__


def count(result: Result) -> None:
    """Count what came of a try."""
    word = "failed" if result.failed is not None else ("refused" if result.refused is not None else "sent")
    registry.get("logweir_alerter_notifications_total").labels(result.sender_thread.channel.name, word).inc()
