"""What channels have been told of alerts, as the store has it: written by the notifier, read by whoever asks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from logweir.event import Field, Kind
from logweir.query.tree import PAGE_MAX, Term
from logweir.store.documents import DocumentSet
from logweir.store.port import Documents

NOTICES = DocumentSet(
    "alert-notices",
    (
        Field("channel", Kind.KEYWORD, "The channel."),
        Field("settled", Kind.KEYWORD, "yes, where nothing is to be said any more unless an alert changes."),
        Field("updated", Kind.DATE, "When something was last said, or found to be said."),
    ),
    "updated",
    lambda body: {"channel": body["channel"], "settled": body["settled"], "updated": body["updated"]},
)
"""Alerts that a channel is told of together, and what it was told: workers/logweir_workers/notify/bundles.py."""
CHANNELS = DocumentSet(
    "alert-channels",
    (Field("updated", Kind.DATE, "When it last changed."),),
    "updated",
    lambda body: {"updated": body["updated"]},
)
"""Of each channel, since when it is there and whether it fails; and the notifier's own, by the id NOTIFIER."""
NOTIFIER = "(notifier)"
"""Up to when it has looked at alerts, and by which channels it tells people."""

FIRING, OVER = "firing", "over"
"""What a channel was last told of an alert of a bundle."""
BACKFILLED = "(backfilled)"
"""In the place of a mute: the alert was made of stored events, and nobody wanted channels to be told."""
PLACES = ("notified", "grouped", "muted", "backfilled", "unneeded", "failed", "pending")
"""What may become of an alert for a channel: one of these."""


@dataclass(slots=True)
class Entry:
    """What a channel was told of one alert."""

    told: str | None = None
    """FIRING, OVER, or None: nothing yet."""
    muted: str | None = None
    """The mute under which it was not told."""
    place: str = ""
    """Where it counts: notified, grouped (told in another one's notice), failed (the receiver refused it)."""
    is_unneeded: bool = False
    """It was closed before it could be told."""
    created: str = ""
    """When the alert was made."""

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def counts_as(self) -> str:
        """What became of the alert for this channel, for the books."""
        if self.told is not None:
            return self.place
        if self.muted:
            return "backfilled" if self.muted == BACKFILLED else "muted"
        return "unneeded" if self.is_unneeded else "pending"


@dataclass(frozen=True, slots=True)
class ChannelBooks:
    """What became of the alerts for a channel, and whether it fails."""

    name: str
    alerts: dict[str, int] | None
    """How many are notified, grouped, muted, backfilled (and not to be told), unneeded (closed before they were told),
    failed, pending: each is one of these. None where it is unknown."""
    failing_since: str | None
    """ISO 8601; None while it works."""
    error: str | None

    @property
    def words(self) -> str:
        """``12 notified, 1 muted``."""
        counts = (self.alerts or {}).items()
        return ", ".join(f"{count:,} {name}" for name, count in counts if count) or "no alerts yet"

    def as_dict(self) -> dict[str, Any]:
        return {"alerts": self.alerts, "failing_since": self.failing_since, "error": self.error}


def books_of(documents: Documents, channel: str) -> ChannelBooks:
    """Of one channel. Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW."""
    counts: Counter[str] = Counter(dict.fromkeys(PLACES, 0))
    after = None
    while True:
        page = documents.search(NOTICES, Term("channel", channel), size=PAGE_MAX, after=after)
        for one in page.documents:
            if not one.body["moved"]:
                counts.update(Entry(**entry).counts_as for entry in one.body["entries"].values())
                counts.update(one.body["forgotten"])
        after = page.after
        if after is None:
            break
    stored = documents.get(CHANNELS, [channel]).get(channel)
    state = stored.body if stored else {}
    return ChannelBooks(channel, dict(counts), state.get("failing_since"), state.get("error"))


@dataclass(frozen=True, slots=True)
class ChannelsTold:
    """By what people are told of alerts, as the notifier has it."""

    channels: list[str]
    problem: str | None
    """Why the file of channels, as it is now, is not in force."""


def channels_told(documents: Documents) -> ChannelsTold:
    """No channels where no notifier has ever run. Raises LogweirError(STORE_DOWN)."""
    stored = documents.get(CHANNELS, [NOTIFIER]).get(NOTIFIER)
    body = stored.body if stored is not None else {}
    return ChannelsTold(body.get("channels", []), body.get("problem"))
