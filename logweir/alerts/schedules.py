"""Scheduled rules: a function that asks the stored events of a time, again and again, and says what it has found.

    from logweir.alerts import found, scheduled

    @scheduled(every="5m", window="1h", severity="high", runbook="many-hosts.md")
    def many_hosts(events):
        for user, count in events.top("category:authentication AND details.outcome:success", "details.username", 20):
            hosts = events.top(f'details.username:"{user}"', "hostname", 100)
            if len(hosts) > 10:
                yield found(f"{user} logged in to {len(hosts)} hosts", group={"details.username": user}, count=count)

The time is that of receipt, and over: everything that was accepted in it is stored when the function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from cronsim import CronSim, CronSimError

from logweir.alerts.rules import (
    QUIET_DEFAULT,
    SEVERITIES,
    Rule,
    Schedule,
    Window,
    WindowKind,
    bad_rule,
    duration_of,
    require_name,
    require_severity,
)
from logweir.query.parse import QUERY_LENGTH_MAX

EVERY_US_MIN = 1_000_000
WINDOW_US_MAX = 31 * 86_400_000_000
TIMEOUT_US_MAX = 3_600_000_000
TEXT_LENGTH_MAX = 1_000
"""Characters of each text of what was found; longer ones are cut."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Events(Protocol):
    """The stored events of the time that a scheduled rule is called for.

    Each method takes a query of the search language and looks at all events of the time, however many there are.
    Raises TimeoutError when the rule has taken longer than its ``timeout``; LogweirError.
    """

    begin: str
    end: str
    """The time, as ISO 8601: ``begin`` belongs to it, ``end`` does not."""

    def search(self, query: str = "*") -> Iterator[dict[str, Any]]:
        """Each event as it is stored, the newest first."""

    def count(self, query: str = "*") -> int:
        """How many there are."""

    def top(self, query: str, field: str, size: int = 10) -> list[tuple[str, int]]:
        """The most frequent values of a field such as ``hostname`` or ``details.username``, with how many have each."""

    def histogram(self, query: str, width: str) -> list[tuple[str, int]]:
        """How many there are in each part of the time, such as each ``5m``: when it begins, and the number."""


@dataclass(frozen=True, slots=True)
class FoundAlert:
    """What a scheduled rule has found. What ``found`` makes."""

    summary: str
    group: Mapping[str, str]
    count: int
    events: Sequence[Mapping[str, Any]]
    severity: str | None = None
    query: str = ""
    tags: Sequence[str] = ()
    category: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    marks: Sequence[str] = ()
    """What the rule is told in its later runs: ``alerted`` of the events that it is handed."""


def found(
    summary: str,
    *,
    group: Mapping[str, Any] | None = None,
    count: int | None = None,
    events: Iterable[Mapping[str, Any]] = (),
    severity: str | None = None,
    query: str = "",
    tags: Sequence[str] = (),
) -> FoundAlert:
    """Say what was found, in one line.

    ``group``: what it is about; what is found of the same later on goes on in the same alert. Without it, each text is
    an alert of its own. ``events``: those that show it, of which the first and the last ten are kept; ``count``: how
    many there are, if not these. ``severity``: another one than the rule's. ``query``: finds them all. Texts are cut
    at TEXT_LENGTH_MAX. Raises ValueError, TypeError for what no alert can have.
    """
    events = list(events)
    summary = _text(summary)
    named = {"summary": summary} if group is None else {_text(name): _text(value) for name, value in group.items()}
    count = len(events) if count is None else int(count)
    if not 0 <= count < 2**63:
        raise ValueError(f"count is {count}, which no alert can have")
    if severity not in (None, *SEVERITIES):
        raise ValueError(f"severity is {severity!r}, which is none of {', '.join(SEVERITIES)}")
    if isinstance(tags, str):
        raise TypeError(f"tags is {tags!r}, where a list of texts should be")
    return FoundAlert(
        summary, named, count, events, severity, _text(query, QUERY_LENGTH_MAX), [_text(tag) for tag in tags]
    )


def _text(value: object, length_max: int = TEXT_LENGTH_MAX) -> str:
    """As an alert has it: of a bounded length, and none that no store takes."""
    return str(value)[:length_max].encode(errors="replace").decode()


Asking = Callable[[Any], Iterable[FoundAlert] | FoundAlert | None]


def scheduled(
    *,
    severity: str,
    every: str | None = None,
    cron: str | None = None,
    window: str | None = None,
    timeout: str = "1m",
    quiet: str = QUIET_DEFAULT,
    category: str = "",
    tags: Sequence[str] = (),
    runbook: str = "",
) -> Callable[[Asking], Rule]:
    """Make a rule of a function that is called with the events of a time. Raises LogweirError(RULE_BAD).

    ``every`` so often, at whole multiples of it, or at the times of a ``cron`` expression (UTC): for the ``window``
    before; without one, since the time before. It may take ``timeout``. What is found of the same group within
    ``quiet`` is one alert.
    """

    def make(ask: Asking) -> Rule:
        name = require_name(ask)
        require_severity(name, severity)
        return Rule(
            name=name,
            say=ask,
            window=Window(WindowKind.SCHEDULED),
            severity=severity,
            conditions=(),
            schedule=schedule_of(name, every=every, cron=cron, window=window, timeout=timeout),
            quiet_us=duration_of(name, "quiet", quiet),
            category=category,
            tags=tuple(tags),
            runbook=runbook,
            description=(ask.__doc__ or "").strip(),
        )

    return make


def schedule_of(name: str, *, every: str | None, cron: str | None, window: str | None, timeout: str) -> Schedule:
    """The schedule that these mean. Raises LogweirError(RULE_BAD)."""
    if (every is None) == (cron is None):
        raise bad_rule(name, "it needs either every, or cron")
    every_us = duration_of(name, "every", every) if every is not None else 0
    if every is not None and every_us < EVERY_US_MIN:
        raise bad_rule(name, f"every is {every!r}, and may be 1s at least")
    if cron is not None:
        try:
            CronSim(cron, _EPOCH)
        except CronSimError as error:
            raise bad_rule(name, f"cron is {cron!r}: {error}") from error
    window_us = duration_of(name, "window", window) if window is not None else 0
    if window_us > WINDOW_US_MAX:
        raise bad_rule(name, f"window is {window!r}, and may be 31d at most")
    timeout_us = duration_of(name, "timeout", timeout)
    if timeout_us > TIMEOUT_US_MAX:
        raise bad_rule(name, f"timeout is {timeout!r}, and may be 1h at most")
    return Schedule(every_us, cron or "", window_us, timeout_us)


@dataclass(frozen=True, slots=True)
class Slot:
    """A time at which a rule is due, and the time that it is asked about."""

    begin_us: int
    end_us: int
    """When it is due, too."""


def slot_after(schedule: Schedule, time_us: int) -> Slot:
    """The first slot that ends behind that time."""
    return _slot(schedule, _due(schedule, time_us, is_before=False))


def slot_until(schedule: Schedule, time_us: int) -> Slot:
    """The last slot that ends at that time, or before it."""
    return _slot(schedule, _due(schedule, time_us, is_before=True))


def _slot(schedule: Schedule, end_us: int) -> Slot:
    if schedule.window_us:
        return Slot(end_us - schedule.window_us, end_us)
    return Slot(_due(schedule, end_us - 1_000_000, is_before=True), end_us)


def _due(schedule: Schedule, time_us: int, *, is_before: bool) -> int:
    """When it is due: the last time up to then, or the first one behind it."""
    if schedule.every_us:
        return (time_us // schedule.every_us + (not is_before)) * schedule.every_us
    # To whole seconds, of which the one behind is never it itself.
    start = datetime.fromtimestamp(time_us // 1_000_000 + is_before, tz=UTC)
    return int(next(CronSim(schedule.cron, start, reverse=is_before)).timestamp()) * 1_000_000
