"""READ FIRST: alerts looked at, held against what channels were told, and the difference sent.

    alerts that changed -> bundles -> what is to be said -> written down -> sent -> written down

Nothing is remembered here that the store does not have. A crash anywhere leaves a notice to be sent again under the
same key. The evaluation of rules is another thread's, and never waits for this one.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

from logweir.alerts.alert import ALERTS
from logweir.alerts.notices import CHANNELS, NOTIFIER
from logweir.clock import Clock, iso_seconds
from logweir.errors import DOCUMENT_CHANGED, SEARCH_TOO_SLOW, STORE_DOWN, STORE_REFUSES, LogweirError
from logweir.query.match import time_us_of
from logweir.query.tree import Term
from logweir.store.documents import OwnDocument
from logweir.store.port import Store
from logweir_workers.notify.bundles import Bundle
from logweir_workers.notify.channels import ChannelFile
from logweir_workers.notify.known import KnownAlerts
from logweir_workers.notify.outbox import Outbox
from logweir_workers.notify.sender_thread import Result, count

log = logging.getLogger(__name__)

_CURSOR_EVERY_S = 30.0
_LOOK_EVERY_S = 1.0
_LOOK_BACK_US = 5_000_000
# A write may take long, and other alerters write alerts by clocks of their own.
_LOOK_FAR_BACK_US = 180_000_000
_LOOK_FAR_EVERY_S = 30.0
_REFRESH_EVERY_S = 1.0
_REFRESHED_MAX = 200
_MUTES_EVERY_S = 1.0
_RELOAD_EVERY_S = 2.0
_PAGE = 500
_SEEN_MAX = 20_000
_WAIT_S = 0.25
_FINISH_S_MAX = 3.0


class Notifier:
    """Tells all channels of all alerts until told to stop. For one thread, and one process of an installation."""

    def __init__(
        self, store: Store, file: ChannelFile, *, public_url: str, stopping: threading.Event, clock: Clock
    ) -> None:
        self._documents = store.documents
        self._file = file
        self._public_url = public_url
        self._stopping = stopping
        self._clock = clock
        self._forget()

    def _forget(self) -> None:
        """As at the start. What is under way comes back to nobody, and is sent again under the same key."""
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._alerts = KnownAlerts(self._documents, public_url=self._public_url, clock=self._clock)
        self.outboxes: dict[str, Outbox] = {}
        """By channel."""
        self._are_outboxes_set = False
        self._seen: dict[str, str] = {}
        """The versions of alerts that were taken."""
        self._cursor_us = 0
        """By then alerts were looked at."""
        self._cursor_version: str | None = None
        self._is_cursor_changed = False
        self._told_by: dict[str, Any] | None = None
        """What the store says of the channels in force."""
        self._to_refresh: list[tuple[str, list[tuple[Outbox, Bundle]]]] = []
        self._due_s: dict[str, float] = {}

    def run(self) -> None:
        """Turn until told to stop. A store that is away only makes it wait."""
        try:
            while not self._stopping.is_set():
                try:
                    self.turn()
                except Exception as error:  # noqa: BLE001 - nothing may end all notifications
                    self._stopping.wait(self._recover(error))
            self._finish()
        finally:
            self.close()

    def _recover(self, error: Exception) -> float:
        """Go on after an error, in so many seconds."""
        problem = error.problem if isinstance(error, LogweirError) else None
        if problem in (STORE_DOWN, STORE_REFUSES, SEARCH_TOO_SLOW):
            log.warning("%s Trying again.", error)
            self._due_s.clear()  # Nothing is sent by what was only half read, such as mutes.
            return 1.0
        log.error("Notifying failed; it begins again.", exc_info=error)
        self.close()
        self._forget()
        return 5.0

    def _finish(self) -> None:
        """Write down what came of the notices that are under way, if that is soon."""
        end_s = time.monotonic() + _FINISH_S_MAX
        try:
            while any(one.sender_thread.is_busy for one in self.outboxes.values()) and time.monotonic() < end_s:
                self._take_results()
            self._save_all()
            self._save_cursor()
        except LogweirError as error:
            log.warning("%s What was sent last is sent again after the next start, under the same key.", error)

    def close(self) -> None:
        """End the sender threads; those that hang are left behind."""
        for outbox in self.outboxes.values():
            outbox.close()

    def turn(self) -> None:
        """One round: results taken, alerts looked at, what is due sent. Raises LogweirError: STORE_DOWN and others."""
        self._take_results()
        self._save_all()
        if self._is_due("reload", _RELOAD_EVERY_S) and self._file.reload():
            self._are_outboxes_set = False
        if not self._are_outboxes_set:
            self._set_outboxes()
        if self._told_by != self._tells_by:
            self._is_cursor_changed = True
            self._save_cursor()
        if self.outboxes:
            if self._is_due("mutes", _MUTES_EVERY_S):
                self._read_mutes()
            if self._is_due("look", _LOOK_EVERY_S):
                self._look()
            if self._is_due("refresh", _REFRESH_EVERY_S):
                self._refresh()
            for outbox in self.outboxes.values():
                outbox.outages.watch()
                outbox.send_due()
            if self._is_due("cursor", _CURSOR_EVERY_S):
                self._save_cursor()

    def _is_due(self, name: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s < self._due_s.get(name, 0.0):
            return False
        self._due_s[name] = now_s + every_s
        return True

    def _take_results(self) -> None:
        """What came of notices; waits a little for the first."""
        results = []
        try:
            results.append(self._results.get(timeout=_WAIT_S))
            while True:
                results.append(self._results.get_nowait())
        except queue.Empty:
            pass
        for result in results:
            count(result)
            outbox = self.outboxes.get(result.sender_thread.channel.name)
            # Of a channel that is another one since: it says the same again, under the same key.
            if outbox is not None and outbox.sender_thread is result.sender_thread:
                outbox.note(result)

    def _save_all(self) -> None:
        for outbox in self.outboxes.values():
            outbox.save_all()

    # --- channels -------------------------------------------------------------------------------------------------
    def _set_outboxes(self) -> None:
        """Have a outbox for each channel of the file. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
        if not self._cursor_us:
            self._read_cursor()
        outboxes: dict[str, Outbox] = {}
        for name, channel in self._file.channels.items():
            known = self.outboxes.get(name)
            outboxes[name] = (
                known
                if known is not None and known.channel == channel
                else Outbox(channel, self._documents, self._alerts, results=self._results, clock=self._clock)
            )
        before, self.outboxes, self._are_outboxes_set = self.outboxes, outboxes, True
        for name, gone in before.items():
            if outboxes.get(name) is not gone:
                gone.close()
        # What was made before then is for none of them.
        since_us = min((time_us_of(one.outages.since) for one in outboxes.values()), default=0)
        self._cursor_us = max(self._cursor_us, since_us)
        self._to_refresh, self._seen = [], {}

    def _read_cursor(self) -> None:
        stored = self._documents.get(CHANNELS, [NOTIFIER]).get(NOTIFIER)
        self._cursor_us = stored.body["cursor_us"] if stored else self._clock()
        self._cursor_version = stored.version if stored else None
        self._is_cursor_changed = stored is None

    def _save_cursor(self) -> None:
        """Raises LogweirError(STORE_DOWN)."""
        if not self._is_cursor_changed:
            return
        told_by = self._tells_by
        body = {"cursor_us": self._cursor_us, "updated": iso_seconds(self._clock()), **told_by}
        try:
            self._cursor_version = self._documents.put(CHANNELS, NOTIFIER, body, version=self._cursor_version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            stored = self._documents.get(CHANNELS, [NOTIFIER]).get(NOTIFIER)
            self._cursor_version = stored.version if stored else None
            return
        self._is_cursor_changed, self._told_by = False, told_by

    @property
    def _tells_by(self) -> dict[str, Any]:
        return {"channels": list(self.outboxes), "problem": self._file.problem}

    # --- alerts ---------------------------------------------------------------------------------------------------
    def _look(self) -> None:
        """Take alerts that are new or that the engine has changed. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
        back_us = _LOOK_FAR_BACK_US if self._is_due("far", _LOOK_FAR_EVERY_S) else _LOOK_BACK_US
        begun_us, after = self._clock(), None
        while True:
            page = self._documents.search(
                ALERTS, Term("kind", "alert"), size=_PAGE, from_us=max(0, self._cursor_us - back_us), after=after
            )
            for one in page.documents:
                self._take(one)
            if (after := page.after) is None:
                break
            if self._stopping.is_set():
                return
        # Their bundles are in the store now: a start from here misses none of them.
        self._save_all()
        if begun_us > self._cursor_us:
            self._cursor_us, self._is_cursor_changed = begun_us, True

    def _take(self, document: OwnDocument) -> None:
        if self._seen.get(document.id) == document.version:
            return
        alert = self._alerts.take(document.body)
        for outbox in self.outboxes.values():
            outbox.take(alert)
        self._seen[document.id] = document.version
        while len(self._seen) > _SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def _read_mutes(self) -> None:
        known = self._alerts.read_mutes()
        if not known:
            return
        for outbox in self.outboxes.values():
            for bundle in outbox.bundles.values():
                outbox.see(bundle, [id for id in bundle.alerts if id in known], known)

    def _refresh(self) -> None:
        """See what people have made of alerts that channels know; some at a time. Raises LogweirError(STORE_DOWN)."""
        if not self._to_refresh:
            places: dict[str, list[tuple[Outbox, Bundle]]] = {}
            for outbox in self.outboxes.values():
                for bundle in outbox.bundles.values():
                    for id in bundle.alerts:
                        places.setdefault(id, []).append((outbox, bundle))
            self._alerts.keep_only(places)
            self._to_refresh = list(places.items())
        some = self._to_refresh[-_REFRESHED_MAX:]
        found = self._alerts.read([id for id, _ in some])
        for id, pairs in some:
            for outbox, bundle in pairs:
                if id in bundle.alerts:
                    outbox.see(bundle, [id], found)
        del self._to_refresh[-_REFRESHED_MAX:]
