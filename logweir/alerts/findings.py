"""Rules about the accounting itself: what it has found of lost, silent, refused or conflicting events.

    from logweir.alerts import books, finding

    @books(of="lost", severity="high", runbook="events-lost.md")
    def events_lost(found):
        return f"{found.count:,} events of {found.host} were lost from {found.first} to {found.last}"

    events_lost.example("some", [finding("lost", count=312, emitter="shop/web-17", host="web-17")], alerts=1)

The findings are the ledger's, up to where workers have accounted for everything: what is merely not read yet is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from logweir.alerts.rules import (
    EXAMPLE_TIME_US,
    QUIET_DEFAULT,
    Condition,
    Rule,
    Saying,
    Window,
    WindowKind,
    bad_rule,
    duration_of,
    require_name,
    require_severity,
)
from logweir.clock import iso_seconds

NUMBERS_MAX = 20
"""Ranges of numbers that a finding names; ``count`` has all."""


class FindingKind(StrEnum):
    """What the accounting can find."""

    LOST = "lost"
    """Numbers of an emitter that never came: one finding for each range."""
    SILENT = "silent"
    """An emitter or a source has fallen silent, or several together."""
    AFTER_MATCH = "after_match"
    """Numbers of an emitter are lost, or it fell silent, soon after an alert about its events."""
    VOLUME = "volume"
    """How many events an emitter sent in an hour, and in hours like it before."""
    DEAD_LETTERS = "dead_letters"
    """Dead letters of an emitter's events within ten minutes, and how many were usual before."""
    CONFLICT = "conflict"
    """Events of an emitter with the identity of other ones, within a minute."""
    JUMP = "jump"
    """An emitter named a number that it cannot have counted up to."""
    BLIND = "blind"
    """A rule needs a field, or a category, that no event has brought for a week."""
    QUEUE_LOSS = "queue_loss"
    """Events, or records, that were in the queue and are gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the accounting has found."""

    of: FindingKind
    values: Mapping[str, str]
    """What it is about, such as the emitter and its run: findings are counted apart by these."""
    count: int
    """How many events; of a silence, how many emitters or sources."""
    first_us: int
    last_us: int
    lasts: bool = False
    """It is so now, and was since ``first_us``; else it happened between these times."""
    usual: float = 0.0
    """How many would be usual, of a volume and of dead letters."""
    emitters: tuple[str, ...] = ()
    """By name, as `logweir emitters` has them."""
    hosts: tuple[str, ...] = ()
    """The host names of its events; the address it sends from where these have none. Empty where it is not known
    which these are: other emitters of its key send from the same address."""
    categories: tuple[tuple[str | None, str | None], ...] = ()
    """The pairs of category and host name that its events have."""
    numbers: tuple[tuple[int, int], ...] = ()
    """Which numbers, as ranges: the first NUMBERS_MAX."""
    alerts: tuple[str, ...] = ()
    """The alerts that it came soon after, of an AFTER_MATCH."""
    text: str = ""
    """What else is known, in words."""

    @property
    def group(self) -> str:
        """``values`` with commas between them."""
        return ", ".join(self.values.values())

    @property
    def host(self) -> str:
        """The hosts that it is about, a few of them; else the emitters."""
        named = self.hosts or self.emitters or (self.group,)
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        return ", ".join(named[:3]) + more

    @property
    def first(self) -> str:
        """When it began, as ISO 8601."""
        return iso_seconds(self.first_us)

    @property
    def last(self) -> str:
        """When it was over, or is now."""
        return iso_seconds(self.last_us)

    @property
    def ranges(self) -> str:
        """The numbers, as people read them."""
        named = [f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in self.numbers[:3]]
        return ", ".join(named) + (", …" if len(self.numbers) > 3 else "")


Judge = Callable[[Finding], object]


def books(
    *,
    of: str,
    severity: str,
    where: Judge | None = None,
    quiet: str = QUIET_DEFAULT,
    category: str = "accounting",
    tags: Sequence[str] = (),
    runbook: str = "",
) -> Callable[[Saying], Rule]:
    """Make a rule of a function that says what the accounting has found. Raises LogweirError(RULE_BAD).

    ``of``: a kind of finding, see FindingKind. ``where``: a function that says whether one is worth an alert; without
    it, each is. Findings about the same that are less than ``quiet`` apart are one alert.
    """

    def make(say: Saying) -> Rule:
        name = require_name(say)
        require_severity(name, severity)
        if of not in [str(kind) for kind in FindingKind]:
            raise bad_rule(name, f"of is {of!r}, which is none of {', '.join(FindingKind)}")
        if where is not None and not callable(where):
            raise bad_rule(name, "where is no function of a finding")
        return Rule(
            name=name,
            say=say,
            window=Window(WindowKind.BOOKS),
            severity=severity,
            conditions=(cast(Condition, where or _any),),
            of=of,
            quiet_us=duration_of(name, "quiet", quiet),
            category=category,
            tags=tuple(tags),
            runbook=runbook,
            description=(say.__doc__ or "").strip(),
        )

    return make


def _any(_: Any) -> bool:
    return True


def finding(
    of: str,
    *,
    count: int = 1,
    at: float = 0.0,
    until: float | None = None,
    emitter: str = "shop/web-17",
    host: str = "web-17",
    usual: float = 0.0,
    lasts: bool = False,
    text: str = "",
) -> Finding:
    """A finding for an example, from ``at`` to ``until`` seconds after noon of some day."""
    first_us = EXAMPLE_TIME_US + int(at * 1_000_000)
    return Finding(
        of=FindingKind(of),
        values={"emitter": emitter},
        count=count,
        first_us=first_us,
        last_us=first_us if until is None else EXAMPLE_TIME_US + int(until * 1_000_000),
        lasts=lasts,
        usual=usual,
        emitters=(emitter,),
        hosts=(host,),
        numbers=((1, count),),
        text=text,
    )
