"""Since when a channel is there, and whether it fails: what fails for long is an alert, for the others to tell.

The channel's document is written first, with the number of the outage; the alert's id has that number. So whoever dies
in between, each outage is one alert.
"""

from __future__ import annotations

import logging
import time

from logweir.alerts.alert import ALERTS, line, opened, with_line, without_events
from logweir.alerts.notices import CHANNELS
from logweir.clock import Clock, iso_seconds
from logweir.errors import DOCUMENT_CHANGED, LogweirError
from logweir.store.documents import OwnDocument
from logweir.store.port import Documents
from logweir_workers.notify.sender_thread import Result, SenderThread

log = logging.getLogger(__name__)

FAILING_RULE = "channel_failing"
"""The rule, as it were, of alerts about channels."""
FAILING_AFTER_US = 120_000_000
"""A channel that fails for so long is an alert on the others."""
FAILURES_MIN = 3
_CONFIRM_EVERY_S = 30.0
_TRIES_MAX = 20


class Outages:
    """Of one channel. For one thread."""

    def __init__(self, documents: Documents, sender_thread: SenderThread, *, clock: Clock) -> None:
        """Read the channel's document, or make it. Raises LogweirError(STORE_DOWN)."""
        self._documents = documents
        self._sender_thread = sender_thread
        self._name = sender_thread.channel.name
        self._clock = clock
        self.since = iso_seconds(clock())
        """Alerts made before then are not for the channel."""
        self._number = 0
        self._failing_since: str | None = None
        """Of an outage that is an alert."""
        self._error: str | None = None
        self._version: str | None = None
        self._first_failure_us = 0
        """Of those without a success since; 0 when there is none."""
        self._confirm_due_s = 0.0
        stored = self._documents.get(CHANNELS, [self._name]).get(self._name)
        if stored is not None:
            self._take_over(stored)
        else:
            self._save()

    def note(self, result: Result) -> None:
        """Something came of a notice."""
        if result.failed is None:
            self._first_failure_us = 0
        else:
            self._first_failure_us = self._first_failure_us or self._clock()
            self._error = result.failed

    def watch(self) -> None:
        """Have an alert for an outage that is long, and end it with the outage. Raises LogweirError(STORE_DOWN)."""
        now_us, is_stuck = self._clock(), self._sender_thread.is_stuck(time.monotonic())
        if is_stuck and not self._first_failure_us:
            self._first_failure_us, self._error = now_us, "it does not come back"
        if self._failing_since is None:
            is_long = self._first_failure_us and now_us - self._first_failure_us >= FAILING_AFTER_US
            if is_long and (is_stuck or self._sender_thread.failures >= FAILURES_MIN):
                self._number += 1
                self._failing_since = iso_seconds(self._first_failure_us)
                self._save()
        elif not self._first_failure_us and self._sender_thread.has_answered:
            self._end_alert()
            self._failing_since = self._error = None
            self._save()
        if self._failing_since is not None and time.monotonic() >= self._confirm_due_s:
            self._confirm_due_s = time.monotonic() + _CONFIRM_EVERY_S
            self._make_alert(self._failing_since)

    def _take_over(self, stored: OwnDocument) -> None:
        body = stored.body
        self.since, self._number, self._version = body["since"], body["outage"], stored.version
        self._failing_since, self._error = body["failing_since"], body["error"]

    def _save(self) -> None:
        body = {
            "since": self.since,
            "outage": self._number,
            "failing_since": self._failing_since,
            "error": self._error,
            "updated": iso_seconds(self._clock()),
        }
        self._confirm_due_s = 0.0
        try:
            self._version = self._documents.put(CHANNELS, self._name, body, version=self._version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            # Another process wrote it, or our own write took effect without an answer.
            stored = self._documents.get(CHANNELS, [self._name]).get(self._name)
            if stored is not None:
                self._take_over(stored)

    @property
    def _alert_id(self) -> str:
        return f"{FAILING_RULE}-{self._name}-{self._number}"

    def _make_alert(self, since: str) -> None:
        """Unless it is there."""
        now_us = self._clock()
        body = {
            **opened(self._alert_id, created_us=now_us),
            "kind": "alert",
            "rule": FAILING_RULE,
            "revision": "",
            "severity": "high",
            "summary": f"Nobody is told of alerts by the channel {self._name}: {self._error}",
            "category": "logweir",
            **without_events(),
            "tags": [],
            "runbook": "",
            "group": {"channel": self._name},
            "first": since,
            "last": iso_seconds(now_us),
            "count": max(1, self._sender_thread.failures),
            "previous": None,
            "is_quiet": False,
            "completeness": {"state": "complete", "up_to": None, "missing": 0, "emitters": []},
            "generation": 0,
            "upto": {},
            "updated": iso_seconds(now_us),
        }
        try:
            self._documents.put(ALERTS, self._alert_id, body, version=None)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            return
        log.error("The channel %s has failed since %s.", self._name, since)

    def _end_alert(self) -> None:
        for _ in range(_TRIES_MAX):
            stored = self._documents.get(ALERTS, [self._alert_id]).get(self._alert_id)
            if stored is None or stored.body["is_quiet"]:
                return
            now_us = self._clock()
            added = line(now_us, by="logweir", change="went quiet", count=stored.body["count"])
            body = with_line({**stored.body, "is_quiet": True, "updated": iso_seconds(now_us)}, added)
            try:
                self._documents.put(ALERTS, self._alert_id, body, version=stored.version)
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED:
                    raise
                continue
            log.warning("The channel %s works again.", self._name)
            return
