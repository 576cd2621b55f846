"""What a channel has been told, held against how its alerts stand now: the difference is what is to be said.

A bundle is one or more alerts that a channel is told of together, in one document. What is about to be sent is written
there first, and that it was sent afterwards. A crash in between leaves it written that it may have been: it is sent
again under the same key, and nothing that changed meanwhile is taken for said.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from logweir.alerts.notices import FIRING, OVER, Entry
from logweir.clock import iso_seconds
from logweir.store.documents import OwnDocument
from logweir_workers.notify.channels import Channel
from logweir_workers.notify.notice import Notice, Standing, State, Told, worst_first
from logweir_workers.notify.senders.port import ChannelSettings

BUNDLE_ALERTS_MAX = 500
"""Most alerts in one bundle; others are told by themselves."""
ENTRIES_KEPT_MAX = 250
"""When more alerts than this are over in one bundle, only the sums of all but the newest half of this are kept."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The next thing to say."""

    state: State
    alerts: tuple[str, ...]
    due_us: int
    number: int
    incident: int
    is_repeat: bool = False
    is_silent: bool = False
    """Nobody wants to hear it: it only counts as said."""


@dataclass(slots=True)
class Bundle:
    """One bundle. What stands in its document, and what is known of its alerts now."""

    name: str
    channel: str
    begun_us: int
    """When there was something to be said first."""
    entries: dict[str, Entry] = field(default_factory=dict)
    forgotten: dict[str, int] = field(default_factory=dict)
    """Of alerts that are over and no longer in ``entries``, how many count as what."""
    forgotten_before: str = ""
    """Alerts that were made by then, and are not in ``entries``, are among the forgotten."""
    state: State | None = None
    """What was said last; None before the first time."""
    said_us: int = 0
    number: int = 0
    """Of the last notice of the incident."""
    incident: int = 1
    """How many times it began."""
    sending: dict[str, Any] | None = None
    """What is being sent, and may have arrived: state, alerts, number, incident, is_repeat, time_us."""
    remembered: dict[str, Any] = field(default_factory=dict)
    tries: int = 0
    error: str | None = None
    is_digest: bool = False
    moved: str | None = None
    """The digest in which its alerts are told instead."""
    version: str | None = None
    """Of the document; None before the first write."""
    is_changed: bool = True
    """The document does not say yet what is said here."""
    alerts: dict[str, Told] = field(default_factory=dict)
    unsaid_since_us: int = 0
    """Since when something is to be said; 0 when nothing is."""

    # --- the document ---------------------------------------------------------------------------------------------
    @classmethod
    def of(cls, document: OwnDocument) -> Bundle:
        body = document.body
        return cls(
            name=document.id,
            channel=body["channel"],
            begun_us=body["begun_us"],
            entries={id: Entry(**entry) for id, entry in body["entries"].items()},
            forgotten=body["forgotten"],
            forgotten_before=body["forgotten_before"],
            state=State(body["state"]) if body["state"] else None,
            said_us=body["said_us"],
            number=body["number"],
            incident=body["incident"],
            sending=body["sending"],
            remembered=body["remembered"],
            tries=body["tries"],
            error=body["error"],
            is_digest=body["is_digest"],
            moved=body["moved"],
            version=document.version,
            is_changed=False,
        )

    def body(self, now_us: int) -> dict[str, Any]:
        return {
            "channel": self.channel,
            "begun_us": self.begun_us,
            "entries": {id: one.as_dict() for id, one in self.entries.items()},
            "forgotten": self.forgotten,
            "forgotten_before": self.forgotten_before,
            "state": self.state.value if self.state else None,
            "said_us": self.said_us,
            "number": self.number,
            "incident": self.incident,
            "sending": self.sending,
            "remembered": self.remembered,
            "tries": self.tries,
            "error": self.error,
            "is_digest": self.is_digest,
            "moved": self.moved,
            "settled": "yes" if self.is_settled else "no",
            "updated": iso_seconds(now_us),
        }

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to be said any more unless an alert changes."""
        if self.moved:
            return True
        return self.sending is None and all(self._is_done(id, entry) for id, entry in self.entries.items())

    def _is_done(self, id: str, entry: Entry) -> bool:
        if entry.told is None and entry.is_unneeded:
            return True
        alert = self.alerts.get(id)
        is_over = alert is None or alert.standing.is_over
        return is_over and (entry.told == OVER or (entry.told is None and entry.muted is not None))

    # --- what is known now ----------------------------------------------------------------------------------------
    def observe(self, alert: Told, mute: str | None) -> None:
        """Take an alert in, or how it stands now; ``mute``: the one that it falls under."""
        entry = self.entries.get(alert.id)
        if entry is None:
            if alert.created <= self.forgotten_before:
                return
            entry = self.entries[alert.id] = Entry(created=alert.created)
            self.is_changed = True
        self.alerts[alert.id] = alert
        if entry.told is not None:
            return
        is_unneeded = alert.standing is Standing.CLOSED
        # Of one that went quiet while it was muted, nobody is told later on.
        muted = entry.muted if alert.standing.is_over else mute
        if mute and alert.standing is Standing.QUIET:
            muted = mute
        if (entry.muted, entry.is_unneeded) != (muted, is_unneeded):
            entry.muted, entry.is_unneeded, self.is_changed = muted, is_unneeded, True

    def vanished(self, id: str) -> None:
        """The alert was deleted, as only closed ones are."""
        entry = self.entries[id]
        if entry.told is None and not entry.is_unneeded:
            entry.is_unneeded, self.is_changed = True, True
        elif entry.told == FIRING:
            entry.told, self.is_changed = OVER, True
        self.alerts.pop(id, None)

    def planned(self, settings: ChannelSettings, muted: dict[str, str | None], now_us: int) -> Planned | None:
        """What is to be said next, with when it is due. ``muted``: by alert, the mute that it falls under."""
        if self.moved:
            return None
        if self.sending is not None:
            return self._sent_again(settings, muted, now_us)
        new = [id for id in self.alerts if self._is_new(id, muted)]
        told = [id for id, one in self.entries.items() if one.told == FIRING and id in self.alerts]
        up = [id for id in told if not self.alerts[id].standing.is_over] + new
        fresh = self.state in (None, State.RESOLVED)
        if new:
            # A new incident waits for more of its group; one that goes on, for the next time that it may be heard of.
            begun_us = self.unsaid_since_us or (self.begun_us if self.state is None else now_us)
            due_us = begun_us + int(settings.wait_s * 1e6) if fresh else self.said_us + int(settings.interval_s * 1e6)
            return self._next(State.FIRING, up, due_us, is_fresh=fresh)
        if fresh:
            return None
        changed_us = self.said_us + int(settings.interval_s * 1e6)
        if not up:
            return self._next(State.RESOLVED, told, changed_us, is_silent=not settings.resolved)
        is_acknowledged = all(self.alerts[id].standing is not Standing.FIRING for id in up) and any(
            self.alerts[id].standing is Standing.ACKNOWLEDGED for id in up
        )
        if is_acknowledged and self.state is State.FIRING:
            return self._next(State.ACKNOWLEDGED, up, changed_us, is_silent=not settings.has_resolve)
        heard = [id for id in up if self.alerts[id].standing is Standing.FIRING and not muted.get(id)]
        if self.state is State.ACKNOWLEDGED and heard:
            return self._next(State.FIRING, up, changed_us, is_silent=not settings.has_resolve)
        if heard and settings.repeat_s and now_us >= self.said_us + int(settings.repeat_s * 1e6):
            return self._next(State.FIRING, up, now_us, is_repeat=True)
        return None

    def _is_new(self, id: str, muted: dict[str, str | None]) -> bool:
        """Whether the channel is still to be told that it fires."""
        alert, entry = self.alerts[id], self.entries[id]
        if entry.told == FIRING or alert.standing in (Standing.CLOSED, Standing.SNOOZED):
            return False
        if alert.standing is Standing.QUIET:
            # Never told, as after an outage: said all the same, and then that it is over.
            return entry.told is None and entry.muted is None
        return not muted.get(id)

    def _next(
        self,
        state: State,
        alerts: list[str],
        due_us: int,
        *,
        is_fresh: bool = False,
        is_repeat: bool = False,
        is_silent: bool = False,
    ) -> Planned:
        incident = self.incident + 1 if is_fresh and self.state is not None else self.incident
        number = 1 if incident != self.incident else self.number + 1
        return Planned(state, tuple(alerts), due_us, number, incident, is_repeat, is_silent)

    def _sent_again(self, settings: ChannelSettings, muted: dict[str, str | None], now_us: int) -> Planned | None:
        """What may have arrived: the same again, unless nobody is to hear it any more."""
        begun = dict(self.sending or {})
        state, ids = State(begun["state"]), [id for id in begun["alerts"] if id in self.alerts]
        again = Planned(
            state, tuple(ids), now_us, begun["number"], begun["incident"], begun["is_repeat"], is_silent=not ids
        )
        if state is State.RESOLVED or not ids:
            return again
        is_stale = again.is_repeat or state is State.ACKNOWLEDGED
        is_over = all(self.alerts[id].standing.is_over for id in ids)
        if (is_stale and is_over) or all(self.alerts[id].standing is Standing.CLOSED for id in ids):
            # Under another key: whoever has what was being sent is told that it is over.
            told = [id for id, one in self.entries.items() if one.told == FIRING and id in self.alerts]
            return Planned(
                State.RESOLVED,
                tuple(dict.fromkeys([*told, *ids])),
                now_us,
                begun["number"] + 1,
                begun["incident"],
                is_silent=not settings.resolved,
            )
        if all(muted.get(id) or self.alerts[id].standing is Standing.SNOOZED for id in ids):
            return None
        return again

    # --- saying it ------------------------------------------------------------------------------------------------
    def begin(self, plan: Planned, now_us: int) -> Notice:
        """The notice; to be sent once the document says so, too."""
        before = self.sending or {}
        is_same = (before.get("number"), before.get("incident")) == (plan.number, plan.incident)
        if plan.incident != self.incident and not is_same:
            self.remembered = {}
        self.sending = {
            "state": plan.state.value,
            "alerts": list(plan.alerts),
            "number": plan.number,
            "incident": plan.incident,
            "is_repeat": plan.is_repeat,
            "time_us": before["time_us"] if is_same else now_us,
        }
        self.tries += 1
        self.is_changed = True
        thread = f"{self.name}-{plan.incident}"
        return Notice(
            channel=self.channel,
            key=f"{thread}-{plan.number}-{plan.state}",
            thread=thread,
            number=plan.number,
            state=plan.state,
            alerts=worst_first([self.alerts[id] for id in plan.alerts]),
            time_us=self.sending["time_us"],
            is_repeat=plan.is_repeat,
            is_digest=self.is_digest,
            remembered=self.remembered,
        )

    def said(self, plan: Planned, remembered: dict[str, Any], now_us: int, *, refused: str | None = None) -> None:
        """It was sent; or ``refused`` for good, with the reason: then it counts as failed, and is not tried again."""
        for number, id in enumerate(plan.alerts):
            entry = self.entries.get(id)
            if entry is None:
                continue
            if entry.told is None:
                entry.place = "failed" if refused else ("grouped" if number else "notified")
            entry.told = OVER if plan.state is State.RESOLVED else FIRING
            entry.muted, entry.is_unneeded = None, False
        self.state, self.number, self.incident = plan.state, plan.number, plan.incident
        self.said_us, self.sending, self.tries, self.error = now_us, None, 0, refused
        self.remembered = {**remembered} or self.remembered
        self.unsaid_since_us = 0
        self.is_changed = True
        if plan.state is State.RESOLVED and len(self.entries) > ENTRIES_KEPT_MAX:
            self._forget()

    def _forget(self) -> None:
        """Keep only the sums of what is over, so that the document of a busy group does not grow for ever."""
        done = sorted(
            ((id, one) for id, one in self.entries.items() if self._is_done(id, one)), key=lambda pair: pair[1].created
        )
        # Not the newest: an alert that was made beside them may still come.
        for id, one in done[: len(done) - ENTRIES_KEPT_MAX // 2]:
            self.forgotten[one.counts_as] = self.forgotten.get(one.counts_as, 0) + 1
            self.forgotten_before = max(self.forgotten_before, one.created)
            del self.entries[id]
            self.alerts.pop(id, None)

    def failed(self, reason: str) -> None:
        """It may or may not have arrived; it is sent again."""
        if self.error != reason:
            self.error, self.is_changed = reason, True


def name_of(channel: Channel, alert: Told) -> str:
    """The name of the bundle in which the alert is told on the channel; also the id of the bundle's document."""
    group = channel.group_of(alert)
    if group is None:
        return f"{channel.name}.{alert.id}"
    digest = hashlib.blake2b("\0".join((*channel.settings.group_by, *group)).encode(), digest_size=8).hexdigest()
    return f"{channel.name}.g{digest}"


def digest_of(bundles: list[Bundle], *, name: str) -> Bundle:
    """One bundle with the alerts of several that were never told. They are to be written as ``moved`` behind it."""
    made = Bundle(name, bundles[0].channel, min(one.begun_us for one in bundles), is_digest=True)
    for one in bundles:
        made.entries.update(one.entries)
        made.alerts.update(one.alerts)
    made.unsaid_since_us = made.begun_us
    return made
