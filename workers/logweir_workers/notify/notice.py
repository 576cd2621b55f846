"""What a channel is told: alerts, what became of them, and the keys by which a receiver knows them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from logweir.alerts.alert import Status
from logweir.alerts.rules import SEVERITIES
from logweir.clock import iso_seconds
from logweir.text import counted, printable

SUMMARY_LENGTH_MAX = 500
VALUE_LENGTH_MAX = 256
"""What an event's sender chose ends there: else it could make a notice that no receiver takes."""
ALERTS_NAMED_MAX = 20
"""Alerts of one notice that are named; of more, only the number is."""


class State(StrEnum):
    """What a notice says of its alerts."""

    FIRING = "firing"
    """One of them goes on."""
    ACKNOWLEDGED = "acknowledged"
    """Somebody looks after all that go on."""
    RESOLVED = "resolved"
    """All of them are quiet, or closed."""


class Standing(StrEnum):
    """How an alert stands, as far as anybody would be told of it."""

    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    SNOOZED = "snoozed"
    """Nobody wants to hear of it for a while."""
    QUIET = "quiet"
    """Nothing more has matched."""
    CLOSED = "closed"

    @property
    def is_over(self) -> bool:
        return self in (Standing.QUIET, Standing.CLOSED)


@dataclass(frozen=True, slots=True)
class Told:
    """An alert, as far as a notice says it."""

    id: str
    rule: str
    severity: str
    summary: str
    category: str
    tags: tuple[str, ...]
    group: Mapping[str, str]
    count: int
    first: str
    last: str
    created: str
    completeness: str
    runbook: str
    assignee: str
    reason: str
    """Of a closed one."""
    standing: Standing
    url: str
    """Its page in the console; empty without ``console.public_url``."""

    @classmethod
    def of(cls, body: Mapping[str, Any], *, now_us: int, public_url: str) -> Told:
        """Of an alert's document."""
        completeness = body.get("completeness") or {}
        missing = completeness.get("missing")
        return cls(
            id=body["id"],
            rule=body["rule"],
            severity=body["severity"],
            summary=_shown(body["summary"], SUMMARY_LENGTH_MAX),
            category=body.get("category") or "",
            tags=tuple(body.get("tags") or ()),
            group={name: _shown(value, VALUE_LENGTH_MAX) for name, value in (body.get("group") or {}).items()},
            count=body["count"],
            first=body["first"],
            last=body["last"],
            created=body["created"],
            completeness=f"{counted(missing, 'event')} missing" if missing else completeness.get("state") or "open",
            runbook=body.get("runbook") or "",
            assignee=_shown(body.get("assignee") or "", VALUE_LENGTH_MAX),
            reason=(body.get("closed") or {}).get("reason", ""),
            standing=_standing(body, now_us),
            url=f"{public_url}/alerts/{body['id']}" if public_url else "",
        )

    def as_dict(self) -> dict[str, Any]:
        """For receivers that are programs."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "tags": list(self.tags),
            "group": dict(self.group),
            "standing": self.standing.value,
        }

    @property
    def line(self) -> str:
        """``[high] 12 failed logins of 10.0.0.9 (12 events, complete)``."""
        return f"[{self.severity}] {self.summary} ({counted(self.count, 'event', separator=',')}, {self.completeness})"


def _shown(text: str, length_max: int) -> str:
    """On one line, without what moves a cursor or ends a header."""
    shown = printable(text)
    return shown if len(shown) <= length_max else f"{shown[: length_max - 1]}…"


def _standing(body: Mapping[str, Any], now_us: int) -> Standing:
    status = body["status"]
    if status == Status.CLOSED:
        return Standing.CLOSED
    if body.get("is_quiet"):
        return Standing.QUIET
    if status == Status.SNOOZED and (body.get("snoozed_until") or "") > iso_seconds(now_us):
        return Standing.SNOOZED
    return Standing.ACKNOWLEDGED if status == Status.ACKNOWLEDGED else Standing.FIRING


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one channel."""

    channel: str
    key: str
    """The same whenever this notice is sent, and of no other notice; of a to z, digits, dots and dashes."""
    thread: str
    """The same for all notices of the same alerts, from the first to the one that says that they are over."""
    number: int
    """Which notice of its thread it is, from 1."""
    state: State
    alerts: Sequence[Told]
    """The worst first."""
    time_us: int
    """When it was first sent."""
    is_repeat: bool = False
    is_test: bool = False
    is_digest: bool = False
    """Of many alerts that were to be told at once."""
    remembered: Mapping[str, Any] = field(default_factory=dict)
    """What the sender returned for the first notice of the thread."""

    @property
    def severity(self) -> str:
        """The worst of its alerts that go on; of all of them, when none does."""
        going_on = [one.severity for one in self.alerts if not one.standing.is_over]
        return min(going_on or [one.severity for one in self.alerts], key=SEVERITIES.index)

    @property
    def title(self) -> str:
        """One line: what happened."""
        first = self.alerts[0]
        word = {State.FIRING: self.severity, State.ACKNOWLEDGED: "acknowledged", State.RESOLVED: "resolved"}[self.state]
        if len(self.alerts) == 1:
            said = first.summary
        elif self.is_digest:
            said = f"{len(self.alerts)} alerts at once, among them: {first.summary}"
        else:
            said = f"{len(self.alerts)} alerts: {first.summary}"
        test = "TEST " if self.is_test else ""
        return f"{test}[{'still ' if self.is_repeat else ''}{word}] {said}"

    @property
    def lines(self) -> list[str]:
        """For people: the title, then what is known of each alert."""
        lines = [self.title]
        for one in self.alerts[:ALERTS_NAMED_MAX]:
            lines.append("")
            if len(self.alerts) > 1:
                lines.append(f"{one.line}, {_how(one)}")
            lines += self._about(one)
        if len(self.alerts) > ALERTS_NAMED_MAX:
            lines += ["", f"and {len(self.alerts) - ALERTS_NAMED_MAX} more alerts"]
        return lines

    def _about(self, one: Told) -> list[str]:
        about = [
            f"{counted(one.count, 'event', separator=',')} from {one.first} to {one.last}, {one.completeness}",
            *(f"{name}: {value}" for name, value in one.group.items()),
            f"rule {one.rule}, {_how(one)}",
        ]
        if one.runbook:
            about.append(f"runbook {one.runbook}")
        about.append(one.url or f"logweir alerts show {one.id}")
        return about


def _how(one: Told) -> str:
    by = f" by {one.assignee}" if one.assignee and one.standing is Standing.ACKNOWLEDGED else ""
    why = f" ({one.reason})" if one.reason else ""
    return f"{one.standing.value}{by}{why}"


def worst_first(alerts: Sequence[Told]) -> list[Told]:
    """As notices have them: those that go on first, by severity, then by their ids."""
    return sorted(alerts, key=lambda one: (one.standing.is_over, SEVERITIES.index(one.severity), one.id))
