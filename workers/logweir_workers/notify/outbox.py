"""All that one channel is to be told, has been told, and is being told."""

from __future__ import annotations

import logging
import queue
import secrets
import time
from collections.abc import Iterable

from logweir.alerts.notices import FIRING, NOTICES
from logweir.clock import Clock
from logweir.errors import DOCUMENT_CHANGED, LogweirError
from logweir.metrics import registry
from logweir.query.tree import And, Term
from logweir.store.port import Documents
from logweir_workers.notify.bundles import (
    BUNDLE_ALERTS_MAX,
    Bundle,
    Planned,
    digest_of,
    name_of,
)
from logweir_workers.notify.channels import Channel
from logweir_workers.notify.known import KnownAlerts
from logweir_workers.notify.notice import Notice, State, Told, worst_first
from logweir_workers.notify.outages import FAILING_RULE, Outages
from logweir_workers.notify.sender_thread import Result, SenderThread

log = logging.getLogger(__name__)

_PAGE = 200
_PLAN_EVERY_S = 0.5
_RESENT_MAX = 1_000


class Outbox:
    """One channel's bundles that are not settled, and what is sent of them. For the notifier's thread."""

    def __init__(
        self,
        channel: Channel,
        documents: Documents,
        alerts: KnownAlerts,
        *,
        results: queue.SimpleQueue[Result],
        clock: Clock,
    ) -> None:
        """Read what the channel was told. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
        self.channel = channel
        self.sender_thread = SenderThread(channel, results)
        self._documents = documents
        self._alerts = alerts
        self._clock = clock
        self.outages = Outages(documents, self.sender_thread, clock=clock)
        self.bundles: dict[str, Bundle] = {}
        """By name."""
        self._places: dict[str, str] = {}
        """By alert, the bundle that it is told in."""
        self._due: list[Bundle] = []
        """Those with something due, when that was looked at last, the first to be sent at the end."""
        self._plan_due_s = 0.0
        self._resend_due_s = 0.0
        self._load()

    def close(self) -> None:
        """The channel is no more, or another one; what is under way comes to its end."""
        self.sender_thread.close()
        registry.get("logweir_alerter_notifications_pending").labels(self.channel.name).set(0)
        registry.get("logweir_alerter_notifications_oldest_seconds").labels(self.channel.name).set(0)

    # --- bundles --------------------------------------------------------------------------------------------------
    def _load(self) -> None:
        after = None
        unsettled = And((Term("channel", self.channel.name), Term("settled", "no")))
        while True:
            page = self._documents.search(NOTICES, unsettled, size=_PAGE, after=after)
            for one in page.documents:
                self._take_in(Bundle.of(one))
            if (after := page.after) is None:
                break
        # A process died behind a digest, before all that is told there was marked so.
        for bundle in list(self.bundles.values()):
            told_in = [self.bundles[self._places[id]] for id in bundle.entries]
            digest = next((other for other in told_in if other.is_digest), None)
            if digest is not None and not bundle.is_digest and bundle.state is None:
                self._move(bundle, digest.name)

    def _take_in(self, bundle: Bundle) -> None:
        """Watch over a bundle that was read, with its alerts as they are now. Raises LogweirError(STORE_DOWN)."""
        self.bundles[bundle.name] = bundle
        self._place(bundle, bundle.entries)
        wanted = [id for id, one in bundle.entries.items() if one.told in (None, FIRING)]
        self.see(bundle, wanted, self._alerts.read(wanted))

    def _place(self, bundle: Bundle, ids: Iterable[str]) -> None:
        for id in ids:
            if bundle.is_digest or self._places.get(id) not in self.bundles:
                self._places[id] = bundle.name

    def see(self, bundle: Bundle, ids: Iterable[str], found: dict[str, Told]) -> None:
        """How some of a bundle's alerts stand now; what is not ``found`` was deleted."""
        for id in ids:
            if id in found:
                bundle.observe(found[id], self._alerts.mutes.get(id))
            else:
                bundle.vanished(id)

    def take(self, alert: Told) -> None:
        """An alert is new, or the engine has changed it. Raises LogweirError(STORE_DOWN)."""
        is_of_itself = alert.rule == FAILING_RULE and alert.group.get("channel") == self.channel.name
        if not self.channel.wants(alert) or alert.created < self.outages.since or is_of_itself:
            return
        bundle = self._bundle_for(alert)
        bundle.observe(alert, self._alerts.mutes.get(alert.id))
        self._place(bundle, [alert.id])

    def _bundle_for(self, alert: Told) -> Bundle:
        # Where it is told already, whatever the channel's settings have become since.
        name = self._places.get(alert.id) or name_of(self.channel, alert)
        bundle = self._known(name)
        if bundle is not None and bundle.moved is not None:
            bundle = self._known(bundle.moved)
        if bundle is not None and alert.id not in bundle.entries and len(bundle.entries) >= BUNDLE_ALERTS_MAX:
            name = f"{self.channel.name}.{alert.id}"
            bundle = self._known(name)
        if bundle is None:
            bundle = self.bundles[name] = Bundle(name, self.channel.name, self._clock())
        return bundle

    def _known(self, name: str) -> Bundle | None:
        """The bundle of that name, watched over from now on unless it was moved; None where there is none."""
        if name in self.bundles:
            return self.bundles[name]
        stored = self._documents.get(NOTICES, [name]).get(name)
        if stored is None:
            return None
        bundle = Bundle.of(stored)
        if bundle.moved is None:
            self._take_in(bundle)
        return bundle

    # --- sending --------------------------------------------------------------------------------------------------
    def send_due(self) -> None:
        """Begin to send what is due, if the channel can. Raises LogweirError(STORE_DOWN)."""
        now_s = time.monotonic()
        if now_s >= self._plan_due_s:
            self._plan_due_s = now_s + _PLAN_EVERY_S
            self._plan()
        if not self.sender_thread.is_ready(now_s):
            return
        if self._is_digest_made():
            return
        while self._due:
            bundle = self._due.pop()
            plan = self._next_of(bundle)
            if plan is None or plan.is_silent or self.bundles.get(bundle.name) is not bundle:
                continue
            notice = bundle.begin(plan, self._clock())
            if self._save(bundle):
                self.sender_thread.send((bundle, plan), notice)
                return
        if self.channel.settings.resend_s and now_s >= self._resend_due_s:
            self._resend_due_s = now_s + self.channel.settings.resend_s
            self._resend()

    def _plan(self) -> None:
        """See what is to be said, and what of that is due."""
        now_us, settings = self._clock(), self.channel.settings
        self._due, pending, oldest_us = [], 0, now_us
        under_way = self.sender_thread.job[0] if self.sender_thread.job is not None else None
        for bundle in list(self.bundles.values()):
            plan = None if bundle is under_way else bundle.planned(settings, self._alerts.mutes, now_us)
            if plan is None and bundle is not under_way:
                bundle.unsaid_since_us = 0
                if bundle.state is None:
                    bundle.begun_us = now_us  # What is muted or snoozed is not waiting.
                if bundle.is_settled and not bundle.is_changed:
                    self._drop(bundle)
                continue
            if plan is not None and plan.is_silent:
                bundle.said(plan, {}, now_us)
                continue
            bundle.unsaid_since_us = bundle.unsaid_since_us or (bundle.begun_us if bundle.state is None else now_us)
            pending += 1
            oldest_us = min(oldest_us, bundle.unsaid_since_us)
            if plan is not None and plan.due_us <= now_us:
                self._due.append(bundle)
        # Those that failed least first: one that the receiver cannot take must not hold up the others.
        self._due.sort(key=lambda one: (one.tries, one.unsaid_since_us, one.name), reverse=True)
        name = self.channel.name
        registry.get("logweir_alerter_notifications_pending").labels(name).set(pending)
        registry.get("logweir_alerter_notifications_oldest_seconds").labels(name).set((now_us - oldest_us) / 1e6)

    def _next_of(self, bundle: Bundle) -> Planned | None:
        """What is due of it now, once its document says all that is known here."""
        plan = None if bundle.is_changed else bundle.planned(self.channel.settings, self._alerts.mutes, self._clock())
        return plan if plan is not None and plan.due_us <= self._clock() else None

    def _is_digest_made(self) -> bool:
        """Put alerts that were never told into one bundle, where they are too many to be told one by one."""
        settings = self.channel.settings
        if not settings.has_digest or settings.group_by or len(self._due) <= settings.digest_above:
            return False
        fresh = [one for one in self._due if one.state is None and not one.is_digest and one.sending is None]
        fresh = [one for one in fresh if self._next_of(one) is not None][:BUNDLE_ALERTS_MAX]
        if len(fresh) <= settings.digest_above:
            return False
        digest = digest_of(fresh, name=f"{self.channel.name}.d{secrets.token_hex(8)}")
        self.bundles[digest.name] = digest
        # First the digest: a crash behind it moves the others after the next start.
        if self._save(digest):
            self._place(digest, digest.entries)
            for bundle in fresh:
                self._move(bundle, digest.name)
            count = len(digest.entries)
            log.info("%d alerts at once for the channel %s are told in one notice.", count, self.channel.name)
        self._plan_due_s = 0.0
        return True

    def _move(self, bundle: Bundle, digest: str) -> None:
        bundle.moved, bundle.is_changed = digest, True
        if self._save(bundle):
            self._drop(bundle)

    def _resend(self) -> None:
        """Send again what the receiver would forget. Nothing is written down of it: nothing new is said."""
        alerts = [
            bundle.alerts[id]
            for bundle in self.bundles.values()
            for id, entry in bundle.entries.items()
            if entry.told == FIRING and id in bundle.alerts and not bundle.alerts[id].standing.is_over
        ][:_RESENT_MAX]
        if alerts:
            key = f"{self.channel.name}.resend"
            self.sender_thread.send(
                None, Notice(self.channel.name, key, key, 1, State.FIRING, worst_first(alerts), self._clock())
            )

    def note(self, result: Result) -> None:
        """Something came of a notice."""
        self.sender_thread.note(result)
        self.outages.note(result)
        if result.failed is not None:
            log.warning("The channel %s failed: %s", self.channel.name, result.failed)
        if result.job is None:
            return
        bundle, plan = result.job
        if self.bundles.get(bundle.name) is not bundle:
            return  # Another process has written it: what it says counts.
        if result.failed is not None:
            bundle.failed(result.failed)
            return
        if result.refused is not None:
            log.error("The channel %s refused a notice for good: %s", self.channel.name, result.refused)
        bundle.said(plan, result.remembered, self._clock(), refused=result.refused)

    # --- writing --------------------------------------------------------------------------------------------------
    def save_all(self) -> None:
        """Raises LogweirError(STORE_DOWN): what is not written then is so the next time, before anything is sent."""
        for bundle in list(self.bundles.values()):
            if bundle.is_changed:
                self._save(bundle)

    def _save(self, bundle: Bundle) -> bool:
        """Write a bundle down; False where somebody else has: then it is read anew. Raises LogweirError(STORE_DOWN)."""
        try:
            body = bundle.body(self._clock())
            bundle.version = self._documents.put(NOTICES, bundle.name, body, version=bundle.version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
            self._read_anew(bundle)
            return False
        bundle.is_changed = False
        return True

    def _read_anew(self, bundle: Bundle) -> None:
        """Another process wrote it, or our own write took effect without an answer."""
        self._drop(bundle)
        known = self._known(bundle.name)
        if known is not None and known.moved is None:
            for id, alert in bundle.alerts.items():
                if id not in known.entries:
                    known.observe(alert, self._alerts.mutes.get(id))
            self._place(known, known.entries)

    def _drop(self, bundle: Bundle) -> None:
        self.bundles.pop(bundle.name, None)
        for id in bundle.entries:
            if self._places.get(id) == bundle.name:
                del self._places[id]
