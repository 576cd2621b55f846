"""READ FIRST: alerts looked at, held against what channels were told, and the difference sent.

    alerts that changed -> bundles -> what is to be said -> written down -> sent -> written down

Nothing is remembered here that the store does not have. A crash anywhere leaves a notice to be sent again under the
same key. The evaluation of rules is another thread's, and never waits for this one.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from logweir.alerts.alert import ALERTS, line, opened, with_line
from logweir.alerts.mutes import Mute, Muting, active
from logweir.clock import Clock, iso_seconds
from logweir.errors import DOCUMENT_CHANGED, SEARCH_TOO_SLOW, STORE_DOWN, STORE_REFUSES, LogweirError
from logweir.metrics import registry
from logweir.query.match import milliseconds_of
from logweir.query.tree import And, Term
from logweir.store.documents import OwnDocument
from logweir.store.port import Store
from logweir_workers.backoff import tolerate
from logweir_workers.notify.bundles import (
    BUNDLE_ALERTS_MAX,
    CHANNELS,
    FIRING,
    NOTICES,
    Bundle,
    Planned,
    digest_of,
    name_of,
)
from logweir_workers.notify.channels import Channel, ChannelFile
from logweir_workers.notify.courier import Courier, Result, count
from logweir_workers.notify.notice import Notice, State, Told, worst_first

log = logging.getLogger(__name__)

FAILING_RULE = "channel_failing"
"""The rule, as it were, of alerts about channels."""
FAILING_AFTER_US = 120_000_000
"""A channel that fails for so long is an alert on the others."""
FAILURES_MIN = 3
_CURSOR = "(notifier)"
_CURSOR_EVERY_S = 5.0
_LOOK_EVERY_S = 1.0
_LOOK_BACK_US = 5_000_000
# Other alerters write alerts, too, by clocks of their own.
_LOOK_FAR_BACK_US = 120_000_000
_LOOK_FAR_EVERY_S = 30.0
_REFRESH_EVERY_S = 1.0
_REFRESHED_MAX = 500
_MUTES_EVERY_S = 1.0
_RELOAD_EVERY_S = 2.0
_PAGE = 200
_SEEN_MAX = 20_000
_WAIT_S = 0.25
_RESENT_MAX = 1_000
_FINISH_S_MAX = 3.0
_TRIES_MAX = 20


@dataclass(slots=True)
class _ChannelState:
    """What is known of one channel."""

    courier: Courier
    since: str = ""
    """Alerts made before then are not for it."""
    outage: int = 0
    """How many times it failed for long."""
    failing_since: str | None = None
    """Of an outage that is an alert."""
    error: str | None = None
    version: str | None = None
    first_failure_us: int = 0
    """Of those without a success since; 0 when there is none."""
    resend_due_s: float = 0.0
    bundles: dict[str, Bundle] = field(default_factory=dict)
    """Those that are not settled, by name."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of the alerts in digests that are not settled, the digest."""


class Notifier:
    """Tells all channels of all alerts until told to stop. For one thread, and one process of an installation."""

    def __init__(
        self, store: Store, file: ChannelFile, *, public_url: str, stopping: threading.Event, clock: Clock
    ) -> None:
        self._documents = store.documents
        self._file = file
        self._public_url = public_url.rstrip("/")
        self._stopping = stopping
        self._clock = clock
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._states: dict[str, _ChannelState] = {}
        self._seen: dict[str, str] = {}
        self._muting = Muting(())
        self._mutes: dict[str, str | None] = {}
        """By alert of a bundle, the mute that it falls under."""
        self._bodies: dict[str, dict[str, Any]] = {}
        """Of alerts of bundles that are not settled, what mutes can ask for."""
        self._cursor_us = 0
        self._cursor_version: str | None = None
        self._is_cursor_changed = False
        self._are_channels_set = False
        self._muted_by: list[Mute] = []
        self._rotation: list[str] = []
        self._due_s: dict[str, float] = {}

    def run(self) -> None:
        """Turn until told to stop. A store that is away only makes it wait."""
        try:
            while not self._stopping.is_set():
                try:
                    self.turn()
                except LogweirError as error:
                    tolerate(error, STORE_DOWN, STORE_REFUSES, SEARCH_TOO_SLOW)
                    self._due_s.clear()  # Nothing is sent by what was only half read, such as mutes.
                    self._stopping.wait(1.0)
                except Exception:
                    # A fault of ours must not end all notifications; what is known is read anew.
                    log.exception("Notifying failed; it begins again.")
                    self._forget()
                    self._stopping.wait(5.0)
            self._finish()
        finally:
            self.close()

    def _finish(self) -> None:
        """Write down what came of the notices that are under way, if that is soon."""
        end_s = time.monotonic() + _FINISH_S_MAX
        try:
            while any(one.courier.is_busy for one in self._states.values()) and time.monotonic() < end_s:
                self._take_results()
            self._save_all()
            self._save_cursor()
        except LogweirError as error:
            log.warning("%s What was sent last is sent again after the next start, under the same key.", error)

    def close(self) -> None:
        """End the couriers; those that hang are left behind."""
        for state in self._states.values():
            state.courier.close()

    def turn(self) -> None:
        """One round: results taken, alerts looked at, what is due sent. Raises LogweirError: STORE_DOWN and others."""
        self._take_results()
        self._save_all()
        if self._is_due("reload", _RELOAD_EVERY_S) and self._file.reload():
            self._are_channels_set = False
        if not self._are_channels_set:
            self._set_channels()
            self._are_channels_set = True
        if self._states:
            if self._is_due("mutes", _MUTES_EVERY_S):
                self._read_mutes()
            if self._is_due("look", _LOOK_EVERY_S):
                self._look()
            if self._is_due("refresh", _REFRESH_EVERY_S):
                self._refresh()
            for state in list(self._states.values()):
                self._watch(state)
                self._send_due(state)
            if self._is_due("cursor", _CURSOR_EVERY_S):
                self._save_cursor()

    def _is_due(self, name: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s < self._due_s.get(name, 0.0):
            return False
        self._due_s[name] = now_s + every_s
        return True

    def _forget(self) -> None:
        """As after a start. What is under way comes back to nobody, and is sent again under the same key."""
        self.close()
        self._results = queue.SimpleQueue()
        self._states, self._seen, self._due_s, self._cursor_us = {}, {}, {}, 0
        self._mutes, self._bodies, self._rotation, self._muted_by = {}, {}, [], []
        self._are_channels_set = False

    # --- channels -------------------------------------------------------------------------------------------------
    def _set_channels(self) -> None:
        """Have a state for each channel of the file. Raises LogweirError(STORE_DOWN)."""
        if not self._cursor_us:
            self._read_cursor()
        states: dict[str, _ChannelState] = {}
        for name, channel in self._file.channels.items():
            known = self._states.get(name)
            is_same = known is not None and known.courier.channel == channel
            states[name] = known if known is not None and is_same else self._state_of(channel)
        before, self._states = self._states, states
        for name, gone in before.items():
            if states.get(name) is not gone:
                gone.courier.close()
                registry.get("logweir_alerter_notifications_pending").labels(name).set(0)
                registry.get("logweir_alerter_notifications_oldest_seconds").labels(name).set(0)

    def _state_of(self, channel: Channel) -> _ChannelState:
        state = _ChannelState(Courier(channel, self._results))
        stored = self._documents.get(CHANNELS, [channel.name]).get(channel.name)
        if stored is None:
            state.since = iso_seconds(self._clock())
            self._save_state(channel.name, state)
        else:
            self._load_state(state, stored)
        after = None
        unsettled = And((Term("channel", channel.name), Term("settled", "no")))
        while True:
            page = self._documents.search(NOTICES, unsettled, size=_PAGE, after=after)
            for one in page.documents:
                self._take_in(state, Bundle.of(one))
            if (after := page.after) is None:
                break
        # Of digests that were not finished: their alerts are told there.
        for bundle in list(state.bundles.values()):
            digest = next((state.digests[id] for id in bundle.entries if id in state.digests), None)
            if not bundle.is_digest and digest is not None and bundle.state is None:
                self._move(state, bundle, digest)
        return state

    def _take_in(self, state: _ChannelState, bundle: Bundle) -> Bundle:
        """Watch over a bundle that was read, with its alerts as they are now."""
        state.bundles[bundle.name] = bundle
        if bundle.is_digest:
            state.digests.update(dict.fromkeys(bundle.entries, bundle.name))
        wanted = [id for id, one in bundle.entries.items() if one.told in (None, FIRING)]
        found = self._documents.get(ALERTS, wanted)
        for id in wanted:
            if id in found:
                self._observe_in(bundle, found[id].body)
            else:
                bundle.vanished(id)
        return bundle

    def _load_state(self, state: _ChannelState, stored: OwnDocument) -> None:
        body = stored.body
        state.since, state.outage, state.version = body["since"], body["outage"], stored.version
        state.failing_since, state.error = body["failing_since"], body["error"]

    def _save_state(self, name: str, state: _ChannelState) -> None:
        """Raises LogweirError(STORE_DOWN). What somebody else wrote meanwhile is taken over."""
        body = {
            "since": state.since,
            "outage": state.outage,
            "failing_since": state.failing_since,
            "error": state.error,
            "updated": iso_seconds(self._clock()),
        }
        try:
            state.version = self._documents.put(CHANNELS, name, body, version=state.version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            stored = self._documents.get(CHANNELS, [name]).get(name)
            if stored is not None:
                self._load_state(state, stored)

    def _read_cursor(self) -> None:
        stored = self._documents.get(CHANNELS, [_CURSOR]).get(_CURSOR)
        self._cursor_us = stored.body["cursor_us"] if stored else self._clock()
        self._cursor_version = stored.version if stored else None
        self._is_cursor_changed = stored is None

    def _save_cursor(self) -> None:
        if not self._is_cursor_changed:
            return
        body = {"cursor_us": self._cursor_us, "updated": iso_seconds(self._clock())}
        try:
            self._cursor_version = self._documents.put(CHANNELS, _CURSOR, body, version=self._cursor_version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            stored = self._documents.get(CHANNELS, [_CURSOR]).get(_CURSOR)
            self._cursor_version = stored.version if stored else None
            return
        self._is_cursor_changed = False

    # --- alerts ---------------------------------------------------------------------------------------------------
    def _look(self) -> None:
        """Take in alerts that are new or that the engine has changed; further than that is not looked again.

        Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
        """
        back_us = _LOOK_FAR_BACK_US if self._is_due("far", _LOOK_FAR_EVERY_S) else _LOOK_BACK_US
        latest_us, after = self._cursor_us, None
        while True:
            page = self._documents.search(
                ALERTS, Term("kind", "alert"), size=_PAGE, from_us=self._cursor_us - back_us, after=after
            )
            for one in page.documents:
                latest_us = max(latest_us, (milliseconds_of(one.body["updated"]) or 0) * 1000)
                if self._seen.get(one.id) != one.version:
                    self._note(one.body)
                    self._remember(one)
            if (after := page.after) is None or self._stopping.is_set():
                break
        # Their bundles are in the store now: a start from here misses none of them.
        self._save_all()
        if after is None and latest_us > self._cursor_us:
            self._cursor_us, self._is_cursor_changed = latest_us, True

    def _remember(self, document: OwnDocument) -> None:
        self._seen[document.id] = document.version
        while len(self._seen) > _SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def _note(self, body: dict[str, Any]) -> None:
        """Put an alert to the bundles of the channels that it is for."""
        alert = self._told(body)
        for name, state in self._states.items():
            channel = state.courier.channel
            is_of_itself = alert.rule == FAILING_RULE and alert.group.get("channel") == name
            if channel.wants(alert) and alert.created >= state.since and not is_of_itself:
                self._observe_in(self._bundle_for(state, alert), body)

    def _bundle_for(self, state: _ChannelState, alert: Told) -> Bundle:
        channel = state.courier.channel
        name = state.digests.get(alert.id) or name_of(channel, alert)
        bundle = self._known(state, name)
        if bundle is not None and bundle.moved is not None:
            bundle = self._known(state, bundle.moved) or bundle
        if bundle is not None and alert.id not in bundle.entries and len(bundle.entries) >= BUNDLE_ALERTS_MAX:
            name = f"{channel.name}.{alert.id}"
            bundle = self._known(state, name)
        if bundle is None:
            bundle = state.bundles[name] = Bundle(name, channel.name, self._clock())
        return bundle

    def _known(self, state: _ChannelState, name: str) -> Bundle | None:
        if name in state.bundles:
            return state.bundles[name]
        stored = self._documents.get(NOTICES, [name]).get(name)
        if stored is None:
            return None
        bundle = Bundle.of(stored)
        return bundle if bundle.moved is not None else self._take_in(state, bundle)

    def _told(self, body: dict[str, Any]) -> Told:
        return Told.of(body, now_us=self._clock(), public_url=self._public_url)

    def _observe_in(self, bundle: Bundle, body: dict[str, Any]) -> None:
        alert = self._told(body)
        self._bodies[alert.id] = {
            name: value for name, value in body.items() if name not in ("evidence", "evidence_last", "history", "upto")
        }
        mute = self._mutes[alert.id] = self._muting.by(body)
        bundle.observe(alert, mute)

    def _refresh(self) -> None:
        """See what people have made of alerts that channels know; some at a time. Raises LogweirError(STORE_DOWN)."""
        if not self._rotation:
            live = {id for state in self._states.values() for one in state.bundles.values() for id in one.alerts}
            self._rotation = sorted(live)
            self._bodies = {id: body for id, body in self._bodies.items() if id in live}
            self._mutes = {id: mute for id, mute in self._mutes.items() if id in live}
        some, self._rotation = self._rotation[:_REFRESHED_MAX], self._rotation[_REFRESHED_MAX:]
        found = self._documents.get(ALERTS, some)
        for state in self._states.values():
            for bundle in state.bundles.values():
                for id in some:
                    if id in bundle.alerts:
                        if id in found:
                            self._observe_in(bundle, found[id].body)
                        else:
                            bundle.vanished(id)

    def _read_mutes(self) -> None:
        muted_by = active(self._documents, self._clock())
        if muted_by == self._muted_by:
            return
        self._muting, self._muted_by = Muting(muted_by), muted_by
        for state in self._states.values():
            for bundle in state.bundles.values():
                for id in list(bundle.alerts):
                    if id in self._bodies:
                        self._observe_in(bundle, self._bodies[id])

    # --- sending --------------------------------------------------------------------------------------------------
    def _send_due(self, state: _ChannelState) -> None:
        """Begin to send what has been due for longest, if the channel can. Raises LogweirError(STORE_DOWN)."""
        now_us, settings = self._clock(), state.courier.channel.settings
        due: list[tuple[Bundle, Planned]] = []
        pending, oldest_us = 0, now_us
        under_way = state.courier.job[0] if state.courier.job is not None else None
        for bundle in list(state.bundles.values()):
            if bundle is under_way:
                pending, oldest_us = pending + 1, min(oldest_us, bundle.unsaid_since_us or now_us)
                continue
            plan = bundle.planned(settings, self._mutes, now_us)
            if plan is None:
                bundle.unsaid_since_us = 0
                if bundle.is_settled and not bundle.is_changed:
                    self._drop(state, bundle)
                continue
            if plan.is_silent:
                bundle.said(plan, {}, now_us)
                continue
            bundle.unsaid_since_us = bundle.unsaid_since_us or (bundle.begun_us if bundle.state is None else now_us)
            pending += 1
            oldest_us = min(oldest_us, bundle.unsaid_since_us)
            if plan.due_us <= now_us and not bundle.is_changed:
                due.append((bundle, plan))
        name = state.courier.channel.name
        registry.get("logweir_alerter_notifications_pending").labels(name).set(pending)
        registry.get("logweir_alerter_notifications_oldest_seconds").labels(name).set((now_us - oldest_us) / 1e6)
        if not state.courier.is_ready(time.monotonic()):
            return
        if due and not self._is_digest_made(state, due):
            # Those that failed least first: one that the receiver cannot take must not hold up the others.
            bundle, plan = min(due, key=lambda pair: (pair[0].tries, pair[0].unsaid_since_us, pair[0].name))
            notice = bundle.begin(plan, now_us)
            if self._save(state, bundle):
                state.courier.send((bundle, plan), notice)
        elif settings.resend_s and time.monotonic() >= state.resend_due_s:
            self._resend(state, now_us)

    def _is_digest_made(self, state: _ChannelState, due: list[tuple[Bundle, Planned]]) -> bool:
        """Put alerts that were never told into one bundle, where they are too many to be told one by one."""
        settings = state.courier.channel.settings
        fresh = [
            bundle
            for bundle, plan in due
            if plan.state is State.FIRING and bundle.state is None and not bundle.is_digest and bundle.sending is None
        ]
        if not settings.has_digest or settings.group_by or len(fresh) <= settings.digest_above:
            return False
        fresh = fresh[:BUNDLE_ALERTS_MAX]
        channel = state.courier.channel.name
        digest = digest_of(fresh, name=f"{channel}.d{secrets.token_hex(8)}")
        state.bundles[digest.name] = digest
        state.digests.update(dict.fromkeys(digest.entries, digest.name))
        # First the digest: a crash behind it moves the others after the next start.
        if not self._save(state, digest):
            return True
        for bundle in fresh:
            self._move(state, bundle, digest.name)
        log.info("%d alerts at once for the channel %s are told in one notice.", len(digest.entries), channel)
        return True

    def _move(self, state: _ChannelState, bundle: Bundle, digest: str) -> None:
        bundle.moved, bundle.is_changed = digest, True
        if self._save(state, bundle):
            self._drop(state, bundle)

    def _resend(self, state: _ChannelState, now_us: int) -> None:
        """Send again what the receiver would forget. Nothing is written down of it: nothing new is said."""
        state.resend_due_s = time.monotonic() + state.courier.channel.settings.resend_s
        alerts = [
            bundle.alerts[id]
            for bundle in state.bundles.values()
            for id, entry in bundle.entries.items()
            if entry.told == FIRING and id in bundle.alerts and not bundle.alerts[id].standing.is_over
        ][:_RESENT_MAX]
        if alerts:
            key = f"{state.courier.channel.name}.resend"
            notice = Notice(state.courier.channel.name, key, key, 1, State.FIRING, worst_first(alerts), now_us)
            state.courier.send(None, notice)

    def _take_results(self) -> None:
        """What came of notices; waits a little for the first. Raises LogweirError(STORE_DOWN)."""
        results = []
        try:
            results.append(self._results.get(timeout=_WAIT_S))
            while True:
                results.append(self._results.get_nowait())
        except queue.Empty:
            pass
        now_us = self._clock()
        for result in results:
            count(result)
            name = result.courier.channel.name
            state = self._states.get(name)
            if state is None or state.courier is not result.courier:
                continue  # The channel is another one now: it says the same again, under the same key.
            state.courier.note(result)
            if result.failed is None:
                state.first_failure_us = 0
            else:
                state.first_failure_us = state.first_failure_us or now_us
                state.error = result.failed
                log.warning("The channel %s failed: %s", name, result.failed)
            if result.job is not None:
                bundle, plan = result.job
                if result.failed is not None:
                    bundle.failed(result.failed)
                elif state.bundles.get(bundle.name) is bundle:
                    if result.refused is not None:
                        log.error("The channel %s refused a notice for good: %s", name, result.refused)
                    bundle.said(plan, result.remembered, now_us, refused=result.refused)

    # --- writing --------------------------------------------------------------------------------------------------
    def _save_all(self) -> None:
        """Raises LogweirError(STORE_DOWN): what is not written then is so the next time, before anything is sent."""
        for state in self._states.values():
            for bundle in list(state.bundles.values()):
                if bundle.is_changed:
                    self._save(state, bundle)

    def _save(self, state: _ChannelState, bundle: Bundle) -> bool:
        """Write a bundle down; False where somebody else has: then it is read anew. Raises LogweirError(STORE_DOWN)."""
        try:
            body = bundle.body(self._clock())
            bundle.version = self._documents.put(NOTICES, bundle.name, body, version=bundle.version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            self._read_anew(state, bundle)
            return False
        bundle.is_changed = False
        return True

    def _read_anew(self, state: _ChannelState, bundle: Bundle) -> None:
        """Another process wrote it, or our own write took effect without an answer."""
        state.bundles.pop(bundle.name, None)
        stored = self._documents.get(NOTICES, [bundle.name]).get(bundle.name)
        if stored is None:
            return
        known = Bundle.of(stored)
        if known.moved is None:
            self._take_in(state, known)
            for id, alert in bundle.alerts.items():
                if id not in known.entries:
                    known.observe(alert, self._mutes.get(id))

    def _drop(self, state: _ChannelState, bundle: Bundle) -> None:
        state.bundles.pop(bundle.name, None)
        if bundle.is_digest:
            state.digests = {id: name for id, name in state.digests.items() if name != bundle.name}

    # --- channels that fail ---------------------------------------------------------------------------------------
    def _watch(self, state: _ChannelState) -> None:
        """A channel that fails for long becomes an alert on the others, one for each outage. Raises STORE_DOWN."""
        name, now_us = state.courier.channel.name, self._clock()
        if state.courier.is_stuck(time.monotonic()) and not state.first_failure_us:
            state.first_failure_us, state.error = now_us, "it does not come back"
        is_failing = state.first_failure_us > 0
        if state.failing_since is None:
            is_long = is_failing and now_us - state.first_failure_us >= FAILING_AFTER_US
            if is_long and (state.courier.failures >= FAILURES_MIN or state.courier.is_stuck(time.monotonic())):
                state.outage += 1
                state.failing_since = iso_seconds(state.first_failure_us)
                self._save_state(name, state)
                self._make_alert(name, state)
        elif not is_failing and state.courier.has_answered:
            self._end_alert(name, state)
            state.failing_since = state.error = None
            self._save_state(name, state)
        elif self._is_due(f"failing {name}", 30.0):
            # After a crash between the two.
            self._make_alert(name, state)

    def _make_alert(self, name: str, state: _ChannelState) -> None:
        now_us = self._clock()
        id = f"{FAILING_RULE}-{name}-{state.outage}"
        since = state.failing_since or iso_seconds(now_us)
        body = {
            **opened(id, created_us=now_us),
            "kind": "alert",
            "rule": FAILING_RULE,
            "revision": "",
            "severity": "high",
            "summary": f"Nobody is told of alerts by the channel {name}: {state.error}",
            "category": "logweir",
            "tags": [],
            "runbook": "",
            "group": {"channel": name},
            "first": since,
            "last": iso_seconds(now_us),
            "count": max(1, state.courier.failures),
            "evidence": [],
            "evidence_last": [],
            "search": {},
            "late": None,
            "previous": None,
            "is_quiet": False,
            "completeness": {"state": "complete", "up_to": None, "missing": 0, "emitters": []},
            "generation": 0,
            "upto": {},
            "updated": iso_seconds(now_us),
        }
        try:
            self._documents.put(ALERTS, id, body, version=None)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            return
        log.error("The channel %s has failed since %s.", name, since)

    def _end_alert(self, name: str, state: _ChannelState) -> None:
        id = f"{FAILING_RULE}-{name}-{state.outage}"
        for _ in range(_TRIES_MAX):
            stored = self._documents.get(ALERTS, [id]).get(id)
            if stored is None or stored.body["is_quiet"]:
                return
            now_us = self._clock()
            added = line(now_us, by="logweir", change="went quiet", count=stored.body["count"])
            body = with_line({**stored.body, "is_quiet": True, "updated": iso_seconds(now_us)}, added)
            try:
                self._documents.put(ALERTS, id, body, version=stored.version)
            except LogweirError as error:
                if error.problem is not DOCUMENT_CHANGED:
                    raise
                continue
            log.warning("The channel %s works again.", name)
            return
