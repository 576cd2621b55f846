"""Alerts as the notifier knows them: how each stands, and which mute it falls under."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from logweir.alerts.alert import ALERTS
from logweir.alerts.mutes import Mute, Muting, active
from logweir.alerts.notices import BACKFILLED
from logweir.clock import Clock
from logweir.store.port import Documents
from logweir_workers.notify.notice import Told

_LARGE = ("evidence", "evidence_last", "history", "upto")
"""What of an alert neither notices nor mutes ask for."""


class KnownAlerts:
    """Those that channels are told of at the moment. For one thread."""

    def __init__(self, documents: Documents, *, public_url: str, clock: Clock) -> None:
        self._documents = documents
        self._public_url = public_url.rstrip("/")
        self._clock = clock
        self._bodies: dict[str, dict[str, Any]] = {}
        self._muting = Muting(())
        self._muted_by: list[Mute] = []
        self.mutes: dict[str, str | None] = {}
        """By alert, the mute that it falls under; BACKFILLED of one that is old news."""

    def told(self, body: dict[str, Any]) -> Told:
        """How it stands now."""
        return Told.of(body, now_us=self._clock(), public_url=self._public_url)

    def take(self, body: dict[str, Any]) -> Told:
        """As ``told``, and the alert is known from now on."""
        alert = self.told(body)
        self._bodies[alert.id] = {name: value for name, value in body.items() if name not in _LARGE}
        self.mutes[alert.id] = BACKFILLED if _is_old_news(body) else self._muting.by(body)
        return alert

    def read(self, ids: Collection[str]) -> dict[str, Told]:
        """Take those that are in the store. Raises LogweirError(STORE_DOWN)."""
        found = self._documents.get(ALERTS, ids)
        return {id: self.take(one.body) for id, one in found.items()}

    def read_mutes(self) -> dict[str, Told]:
        """See which mutes are in force; all known alerts, where these are others than before.

        Raises LogweirError(STORE_DOWN).
        """
        muted_by = active(self._documents, self._clock())
        if muted_by == self._muted_by:
            return {}
        self._muting, self._muted_by = Muting(muted_by), muted_by
        return {id: self.take(body) for id, body in list(self._bodies.items())}

    def keep_only(self, ids: Collection[str]) -> None:
        """Forget all others."""
        self._bodies = {id: body for id, body in self._bodies.items() if id in ids}
        self.mutes = {id: mute for id, mute in self.mutes.items() if id in ids}


def _is_old_news(body: Mapping[str, Any]) -> bool:
    """Whether it was made of stored events, not to be told, and has not gone on since."""
    return not body.get("backfilled", {}).get("is_told", True) and bool(body["is_quiet"])
