"""Rules as people write them: a condition, how often and within what time, and the events that prove it.

    from logweir.alerts import rule, event

    @rule(where="category:authentication AND details.outcome:failure", group=["details.sourceipaddress"],
          at_least=10, within="2m", severity="high", runbook="ssh-brute-force.md")
    def ssh_brute_force(found):
        return f"{found.count} failed logins from {found.group}"

    ssh_brute_force.example("ten in a minute", [event(...) for i in range(10)], alerts=1)

The function says what happened, in one line; it is asked whenever the alert changes. Anything that a rule cannot mean
is refused when its file is read, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from logweir.clock import duration_in_words, duration_us
from logweir.errors import RULE_BAD, LogweirError
from logweir.event import FIELD_BY_NAME
from logweir.query.hints import known_detail
from logweir.query.parse import parse
from logweir.query.tree import All, Node

SEVERITIES = ("critical", "high", "medium", "low", "info")
"""Of alerts, the worst first."""
QUIET_DEFAULT = "15m"
WITHIN_US_MAX = 7 * 86_400_000_000
"""The longest window: all that it may hold is kept."""
ABSENT_US_MIN = 60_000_000
"""The shortest absence: it is counted in minutes."""
STEPS_MAX = 8
AT_LEAST_MAX = 10_000
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
EXAMPLE_TIME_US = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000
"""Some noon, when the events of examples happen."""


class WindowKind(StrEnum):
    """What is asked of the matches of one group that lie within a window of time: Sigma's eight, and two of our own."""

    MATCH = "match"
    """Nothing: each match is enough."""
    EVENT_COUNT = "event_count"
    """So many matches."""
    VALUE_COUNT = "value_count"
    """So many different values of a field."""
    TEMPORAL = "temporal"
    """Each step, in any order."""
    TEMPORAL_ORDERED = "temporal_ordered"
    """Each step, one after the other."""
    VALUE_SUM = "value_sum"
    """The values of a field, added up."""
    VALUE_AVG = "value_avg"
    """Their mean."""
    VALUE_PERCENTILE = "value_percentile"
    """Their percentile, by the nearest rank."""
    VALUE_MEDIAN = "value_median"
    """Their median, by the nearest rank."""
    NEW_VALUE = "new_value"
    """A value of a field that the group has not had before."""
    ABSENT = "absent"
    """None, for so long, of a group that had some."""
    BOOKS = "books"
    """Nothing of events: the rule is about what the accounting has found (``findings.py``)."""
    SCHEDULED = "scheduled"
    """Whatever its function asks of the stored events (``schedules.py``)."""


NUMERIC = (WindowKind.VALUE_SUM, WindowKind.VALUE_AVG, WindowKind.VALUE_PERCENTILE, WindowKind.VALUE_MEDIAN)


class View(Protocol):
    """An event, as a condition that is a function sees it."""

    def get(self, field: str) -> Any:
        """The value of a field such as ``hostname`` or ``details.username``; None where there is none."""


@dataclass(frozen=True, slots=True)
class SigmaFile:
    """The Sigma rule in a file, as a condition. It is read when the rule's own file is."""

    path: str
    """From the folder of the rule's own file."""

    @property
    def text(self) -> str:
        return f"the Sigma rule in {self.path}"

    def __call__(self, _: View) -> object:
        raise TypeError(f"{self.text} is not read")


@dataclass(frozen=True, slots=True)
class Detection:
    """A detection as Sigma rules have it, for events of any log source. It is compiled when the rule's file is read."""

    given: Mapping[str, Any]
    """Selections by name, and ``condition``."""

    @property
    def text(self) -> str:
        return str(self.given.get("condition", "(a detection)"))

    def __call__(self, _: View) -> object:
        raise TypeError("the detection is not compiled")


Condition = str | Callable[[View], object]
Given = Condition | Mapping[str, Any]
"""A condition as authors of rules write it: a mapping is a ``Detection``."""


@dataclass(frozen=True, slots=True)
class Step:
    """One of several things that have to happen: ``at_least`` matches of ``where``."""

    where: Condition
    at_least: int = 1


def step(where: Given, *, at_least: int = 1) -> Step:
    """One of the ``steps`` of a rule."""
    return Step(_condition(where), at_least)


def _condition(given: Given) -> Condition:
    return Detection(given) if isinstance(given, Mapping) else given


@dataclass(frozen=True, slots=True)
class Window:
    """What is asked of matches."""

    kind: WindowKind
    within_us: int = 0
    """How far apart the first and the last of them may be."""
    threshold: float = 1
    field: str | None = None
    """Whose values are looked at."""
    percentile: float = 50.0
    is_at_most: bool = False
    """The value has to be ``threshold`` or less; else or more."""
    samples_min: int = 1
    """Fewer values than that say nothing."""
    steps: tuple[int, ...] = ()
    """How many matches each step needs."""
    learn_us: int = 0
    """For so long after its first match, what a group has is learned and no news."""
    absent_us: int = 0
    """For so long a group has to have no match."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a rule's function is called, and for which time before that."""

    every_us: int = 0
    """At whole multiples of it; 0: at the times of ``cron``."""
    cron: str = ""
    """In UTC."""
    window_us: int = 0
    """How long; 0: since the time before."""
    timeout_us: int = 60_000_000
    """How long it may take."""

    def __str__(self) -> str:
        when = f"every {duration_in_words(self.every_us // 1_000_000)}" if self.every_us else f"cron {self.cron}"
        return f"{when}, of {duration_in_words(self.window_us // 1_000_000)}" if self.window_us else when


@dataclass(frozen=True, slots=True)
class Example:
    """Events as they would be posted, and how many alerts the rule makes of them."""

    name: str
    events: tuple[Any, ...]
    """Of a rule about the accounting, findings."""
    alerts: int
    until: float = 0.0
    """Of a rule for what is absent: up to so many seconds after noon it is watched, if that is after the last event."""


class Found(Protocol):
    """What a rule's function is told of the alert."""

    count: int
    """How many events."""
    group: str
    """The values that they have in common, with commas between them."""
    values: Mapping[str, str]
    """The same by field."""
    first: str
    last: str
    """When the first and the last of them happened, as ISO 8601.

    Of a rule for what is absent: since when nothing was received, and when the last event before that happened.
    """

    def distinct(self, field: str) -> int:
        """How many different values of the field they have; counted up to a thousand."""

    def some(self, field: str) -> list[str]:
        """The first five of these values."""


Saying = Callable[[Any], Any]
"""Gives what happened, in one line; a scheduled rule's function gives what it has found."""


@dataclass(slots=True)
class Rule:
    """One rule. What ``@rule`` makes of a function."""

    name: str
    say: Saying
    window: Window
    severity: str
    conditions: tuple[Condition, ...]
    """One, or one for each step; none of a scheduled rule."""
    schedule: Schedule | None = None
    """Of a scheduled rule."""
    of: str = ""
    """The kind of findings that it is about; empty for a rule about events."""
    group: tuple[str, ...] = ()
    quiet_us: int = 0
    category: str = ""
    tags: tuple[str, ...] = ()
    runbook: str = ""
    description: str = ""
    examples: list[Example] = field(default_factory=list)
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Of a rule of Sigma's, what its author says: ``title``, ``id``, ``author``, ``references`` and the like."""
    is_imported: bool = False
    """It is a Sigma file as it is: nobody has written it for logweir, and it groups by fields by their Sigma names."""
    revision: str = ""
    """Hash of what it counts: the same while only its words, severity, tags and the like are others."""
    path: str = ""
    tracked: set[str] = field(default_factory=set)
    """Fields that the function asks ``distinct`` or ``some`` of."""

    def example(self, name: str, events: Sequence[Any], *, alerts: int, until: float = 0.0) -> None:
        """Say how many alerts come of these events, or findings; `logweir rules test` holds the rule to it.

        ``until``: of a rule for what is absent, up to how many seconds after noon nothing else comes.
        """
        self.examples.append(Example(name, tuple(events), alerts, until))

    @property
    def is_about_books(self) -> bool:
        """Whether it is about what the accounting has found, and not about events."""
        return bool(self.of)

    @property
    def is_about_events(self) -> bool:
        """Whether it is asked of each event as it comes."""
        return not self.is_about_books and self.schedule is None

    @property
    def where(self) -> str:
        """Its conditions, as people read them."""
        if self.schedule is not None:
            return f"a function, {self.schedule}"
        if self.is_about_books:
            return f"findings of the accounting: {self.of}"
        return " | ".join(
            one if isinstance(one, str) else getattr(one, "text", "(a function)") for one in self.conditions
        )

    def nodes(self) -> list[Node]:
        """The query of each condition; a function's is everything."""
        return [parse(one) if isinstance(one, str) else All() for one in self.conditions]

    @property
    def memory_us(self) -> int:
        """How far before an event what matters for it may lie."""
        return max(self.window.within_us, self.quiet_us, self.window.absent_us)


def rule(
    where: Given | None = None,
    *,
    severity: str,
    sigma: str = "",
    group: Sequence[str] = (),
    within: str | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    distinct: str | None = None,
    steps: Sequence[Step | Given] = (),
    in_order: bool = False,
    total: str | None = None,
    average: str | None = None,
    median: str | None = None,
    percentile: tuple[str, float] | None = None,
    samples: int = 1,
    new: str | None = None,
    learn: str = "7d",
    absent: str | None = None,
    quiet: str = QUIET_DEFAULT,
    category: str = "",
    tags: Sequence[str] = (),
    runbook: str = "",
) -> Callable[[Saying], Rule]:
    """Make a rule of a function that says what happened. Raises LogweirError(RULE_BAD).

    ``where``: the search language, or a function of the event, or a detection as Sigma rules have it; or ``sigma``: the
    file of a Sigma rule. ``group``: fields by whose values matches are counted apart. ``at_least`` matches ``within`` a
    time; or so many ``distinct`` values of a field; or a ``total``, ``average``, ``median`` or ``percentile`` of a
    field that is ``at_least`` or ``at_most`` so much, of ``samples`` values at least; or several ``steps``, perhaps
    ``in_order``; or a value of a field that is ``new`` to the group, once it was watched for as long as ``learn``; or a
    group that had matches has none for as long as ``absent``, while anything else came. With none of these, each match
    is an alert. Matches less than ``quiet`` apart are one alert.
    """

    asked = _Asked(
        within=within,
        at_least=at_least,
        at_most=at_most,
        by={
            "distinct": distinct,
            "steps": [one if isinstance(one, Step) else step(one) for one in steps],
            "total": total,
            "average": average,
            "median": median,
            "percentile": percentile,
            "new": new,
            "absent": absent,
        },
        in_order=in_order,
        samples=samples,
        learn=learn,
    )

    def make(say: Saying) -> Rule:
        name = require_name(say)
        require_severity(name, severity)
        if [bool(where), bool(sigma), bool(steps)].count(True) != 1:
            raise bad_rule(name, "it needs either where, or sigma, or steps")
        window = asked.window(name)
        condition = SigmaFile(sigma) if sigma else _condition(where or "")
        conditions = tuple(one.where for one in asked.by["steps"]) or (condition,)
        _require_conditions(name, conditions)
        _require_fields(name, (*group, *([window.field] if window.field else [])))
        return Rule(
            name=name,
            say=say,
            window=window,
            severity=severity,
            conditions=conditions,
            group=tuple(group),
            quiet_us=max(duration_of(name, "quiet", quiet), window.within_us),
            category=category,
            tags=tuple(tags),
            runbook=runbook,
            description=(say.__doc__ or "").strip(),
        )

    return make


_KINDS = {
    "": WindowKind.EVENT_COUNT,
    "distinct": WindowKind.VALUE_COUNT,
    "total": WindowKind.VALUE_SUM,
    "average": WindowKind.VALUE_AVG,
    "median": WindowKind.VALUE_MEDIAN,
    "percentile": WindowKind.VALUE_PERCENTILE,
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What ``rule`` was called with, as far as it is about the window. ``by``: the arguments that choose its kind."""

    within: str | None
    at_least: float | None
    at_most: float | None
    by: Mapping[str, Any]
    in_order: bool
    samples: int
    learn: str

    def window(self, name: str) -> Window:
        """The window that is meant. Raises LogweirError(RULE_BAD)."""
        given = [word for word, value in self.by.items() if value]
        if len(given) > 1:
            raise bad_rule(name, f"{' and '.join(given)} are two kinds of rules; make it two rules")
        word = given[0] if given else ""
        if self.in_order and word != "steps":
            raise bad_rule(name, "in_order goes with steps")
        if word == "new":
            return Window(WindowKind.NEW_VALUE, field=self.by["new"], learn_us=duration_of(name, "learn", self.learn))
        if word == "absent":
            return self._of_absence(name)
        if not word and self.at_least is None and self.at_most is None:
            if self.within:
                raise bad_rule(name, "within says nothing without at_least")
            return Window(WindowKind.MATCH)
        within_us = duration_of(name, "within", self.within or "")
        if within_us > WITHIN_US_MAX:
            raise bad_rule(name, "within is longer than 7d")
        return self._of_steps(name, within_us) if word == "steps" else self._of_threshold(name, word, within_us)

    def _of_absence(self, name: str) -> Window:
        if self.within or self.at_least is not None or self.at_most is not None:
            raise bad_rule(name, "absent goes without within, at_least and at_most")
        absent_us = duration_of(name, "absent", self.by["absent"])
        if not ABSENT_US_MIN <= absent_us <= WITHIN_US_MAX:
            raise bad_rule(name, "absent is not from 1m to 7d")
        return Window(WindowKind.ABSENT, absent_us=absent_us)

    def _of_steps(self, name: str, within_us: int) -> Window:
        steps: Sequence[Step] = self.by["steps"]
        if not 2 <= len(steps) <= STEPS_MAX or any(not 1 <= one.at_least <= AT_LEAST_MAX for one in steps):
            raise bad_rule(name, f"it needs 2 to {STEPS_MAX} steps, each with an at_least of 1 to {AT_LEAST_MAX}")
        kind = WindowKind.TEMPORAL_ORDERED if self.in_order else WindowKind.TEMPORAL
        return Window(kind, within_us, steps=tuple(one.at_least for one in steps))

    def _of_threshold(self, name: str, word: str, within_us: int) -> Window:
        kind = _KINDS[word]
        threshold = self.at_least if self.at_least is not None else self.at_most
        if threshold is None or (self.at_least is not None and self.at_most is not None):
            raise bad_rule(name, f"{word} needs at_least, or at_most")
        if kind not in NUMERIC:
            if self.at_most is not None:
                raise bad_rule(name, "at_most goes with total, average, median and percentile")
            if threshold != int(threshold) or not 1 <= threshold <= AT_LEAST_MAX:
                raise bad_rule(name, f"at_least is {threshold}, which is no whole number from 1 to {AT_LEAST_MAX}")
            return Window(kind, within_us, int(threshold), field=self.by["distinct"])
        looked_at, rank = self.by[word] if word == "percentile" else (self.by[word], 50.0)
        if not 0 < rank <= 100:
            raise bad_rule(name, f"percentile {rank} is not above 0 and up to 100")
        if not 1 <= self.samples <= AT_LEAST_MAX:
            raise bad_rule(name, f"samples is {self.samples}, which is no number from 1 to {AT_LEAST_MAX}")
        return Window(
            kind,
            within_us,
            float(threshold),
            field=looked_at,
            percentile=float(rank),
            is_at_most=self.at_most is not None,
            samples_min=self.samples,
        )


def require_name(say: Saying) -> str:
    """The rule's name, which is its function's. Raises LogweirError(RULE_BAD)."""
    name = getattr(say, "__name__", "")
    if not _NAME.fullmatch(name):
        raise bad_rule(name, "its name is not of a to z, digits and _, beginning with a letter, 64 at most")
    return name


def require_severity(name: str, severity: str) -> None:
    """Raises LogweirError(RULE_BAD)."""
    if severity not in SEVERITIES:
        raise bad_rule(name, f"severity is {severity!r}, which is none of {', '.join(SEVERITIES)}")


def _require_conditions(name: str, conditions: Sequence[object]) -> None:
    for one in conditions:
        if isinstance(one, str):
            try:
                parse(one)
            except LogweirError as error:
                raise bad_rule(name, error.detail.rstrip(".")) from error
        elif not callable(one):
            raise bad_rule(name, "where is neither a query nor a function")


def _require_fields(name: str, fields: Sequence[str]) -> None:
    for one in fields:
        if one not in FIELD_BY_NAME and not (one.startswith("details.") and one != "details."):
            raise bad_rule(name, f"{one!r} is no field of an event; perhaps details.{one} is meant")
        if (known := known_detail(one)) is not None:
            raise bad_rule(name, f"{one!r} is stored as {known!r}, whatever senders call it: name that one")


def duration_of(name: str, what: str, text: str) -> int:
    """The time in microseconds. Raises LogweirError(RULE_BAD)."""
    found = duration_us(text)
    if not found:
        raise bad_rule(name, f"{what} is {text!r}, which is no time such as 90s, 2m, 1h or 7d")
    return found


def bad_rule(name: str, reason: str) -> LogweirError:
    """What is raised for a rule that cannot be meant."""
    return LogweirError(RULE_BAD, rule=name or "without a name", reason=reason)


def event(*, at: float = 0.0, **values: Any) -> dict[str, Any]:
    """An event for an example, ``at`` seconds after noon of some day; names that are no field go below details."""
    made: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for name, value in values.items():
        (made if name in FIELD_BY_NAME else details)[name] = value
    if details:
        made["details"] = {**details, **made.get("details", {})}
    micros = EXAMPLE_TIME_US + int(at * 1_000_000)
    time = datetime.fromtimestamp(micros // 1_000_000, tz=UTC).replace(microsecond=micros % 1_000_000)
    return {"timestamp": time.isoformat(timespec="microseconds").replace("+00:00", "Z"), **made}
