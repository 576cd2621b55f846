"""Mutes: alerts that nobody is to be told of for a while, as during maintenance. They are made and counted as ever.

Not to be taken for *silence*, which is an emitter's that sends nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from logweir.alerts import ending
from logweir.alerts.alert import ALERTS
from logweir.clock import iso_seconds
from logweir.errors import MUTE_UNKNOWN, MUTES_FULL, PARAMETER_BAD, LogweirError
from logweir.event import Field, Kind
from logweir.query.match import matcher
from logweir.query.parse import parse
from logweir.store.documents import DocumentSet, searched
from logweir.store.port import Documents

MUTES_MAX = 100
"""Most mutes at once."""
_FIELDS = ("id", "query", "reason", "by", "begins", "ends", "ended_by")

MUTES = DocumentSet(
    "alert-mutes",
    (
        Field("id", Kind.KEYWORD, "The mute's id."),
        Field("ends", Kind.DATE, "When it ends."),
    ),
    "ends",
    lambda body: {"id": body["id"], "ends": body["ends"]},
)
"""Mutes, past ones too."""


@dataclass(frozen=True, slots=True)
class Mute:
    """One mute."""

    id: str
    query: str
    """Which alerts, in the alerts' search language."""
    reason: str
    by: str
    begins: str
    ends: str
    """Not muted from then on."""
    ended_by: str | None = None
    """Who ended it before its time."""

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}


def add(documents: Documents, *, query: str, reason: str, by: str, until_us: int, now_us: int) -> Mute:
    """Mute the alerts that the query finds, from now on.

    Raises LogweirError: QUERY_BAD and others of a query, PARAMETER_BAD, MUTES_FULL.
    """
    parse(query.strip(), ALERTS.by_name)
    if not query.strip():
        raise LogweirError(PARAMETER_BAD, name="query", value=query, expected="a query; * is all alerts")
    ending.require_reason(reason)
    ending.require_end(until_us, now_us)
    if (count := len(active(documents, now_us))) >= MUTES_MAX:
        raise LogweirError(MUTES_FULL, count=count, count_max=MUTES_MAX)
    id = secrets.token_hex(4)
    mute = Mute(id, query.strip(), reason.strip(), by, iso_seconds(now_us), iso_seconds(until_us))
    documents.put(MUTES, id, mute.as_dict(), version=None)
    return mute


def end(documents: Documents, id: str, *, by: str, now_us: int) -> Mute:
    """End it now; one that has ended stays as it is. Raises LogweirError(MUTE_UNKNOWN)."""
    changes = {"ends": iso_seconds(now_us), "ended_by": by}
    return _of(ending.change(documents, MUTES, id, changes, now_us=now_us, unknown=MUTE_UNKNOWN))


def active(documents: Documents, now_us: int) -> list[Mute]:
    """Those in force, the one that ends last first."""
    return [_of(body) for body in ending.active(documents, MUTES, now_us, size=MUTES_MAX + 1)]


def past_and_present(documents: Documents) -> list[Mute]:
    """All that are kept, the one that ends last first."""
    return [_of(body) for body in ending.past_and_present(documents, MUTES)]


class Muting:
    """The mutes in force, asked of alerts."""

    def __init__(self, mutes: Iterable[Mute]) -> None:
        self._mutes = [(one.id, matcher(parse(one.query, ALERTS.by_name), ALERTS.by_name)) for one in mutes]

    def by(self, body: dict[str, Any]) -> str | None:
        """The id of a mute that an alert's document falls under."""
        if not self._mutes:
            return None
        document = searched(ALERTS, ALERTS.view(body))
        return next((id for id, matches in self._mutes if matches(document)), None)


def _of(body: dict[str, Any]) -> Mute:
    return Mute(**{name: body[name] for name in _FIELDS})
