"""Exceptions: conditions that keep an event from counting for a rule, with who said so, why, and until when.

Not to be taken for a mute, which tells nobody of alerts that are made.
"""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from logweir.alerts import ending
from logweir.clock import DAY_US, iso_seconds
from logweir.errors import EXCEPTION_UNKNOWN, EXCEPTIONS_FULL, PARAMETER_BAD, LogweirError
from logweir.event import Document, Field, Kind
from logweir.query.match import Matches, leaves_of, matcher
from logweir.query.parse import parse
from logweir.query.tree import All, And, Node, Not, Or, Term
from logweir.store.documents import DocumentSet
from logweir.store.port import Documents

DURATION_US_DEFAULT = 90 * DAY_US
ENDS_SOON_US = 7 * DAY_US
EXCEPTIONS_MAX = 1_000
"""Most exceptions at once."""
CLAUSES_MAX = 20_000
"""Most words and values that they ask for together: each match of a rule is asked all of the rule's."""
VALUES_MAX = 20
"""Different values of a field that an exception made from an alert may name."""
_FIELDS = ("id", "rule", "query", "reason", "by", "begins", "ends", "alert", "ended_by", "state", "refusal")

EXCEPTIONS = DocumentSet(
    "alert-exceptions",
    (
        Field("id", Kind.KEYWORD, "The exception's id."),
        Field("rule", Kind.KEYWORD, "The rule."),
        Field("alert", Kind.KEYWORD, "The alert that it was made from."),
        Field("ends", Kind.DATE, "When it ends."),
    ),
    "ends",
    lambda body: {"id": body["id"], "rule": body["rule"], "alert": body["alert"] or "", "ends": body["ends"]},
)
"""Exceptions, past ones too."""


class ExceptionState(StrEnum):
    """Whether it keeps anything from counting."""

    WANTED = "wanted"
    """Not yet: the alerter has to try the rule's examples with it first."""
    IN_FORCE = "in_force"
    REFUSED = "refused"
    """The rule would not fire for its own examples any more."""


@dataclass(frozen=True, slots=True)
class RuleException:
    """One exception."""

    id: str
    rule: str
    query: str
    """Which events, in the search language."""
    reason: str
    by: str
    begins: str
    ends: str
    """Not in force from then on."""
    alert: str | None = None
    """The alert that it was made from."""
    ended_by: str | None = None
    """Who ended it before its time."""
    state: str = ExceptionState.IN_FORCE
    refusal: str | None = None
    """Of a refused one, why."""

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}

    def ends_soon(self, now_us: int) -> bool:
        """Whether somebody has to say again that it is wanted, or it is over within a week."""
        return iso_seconds(now_us) < self.ends <= iso_seconds(now_us + ENDS_SOON_US)


def add(
    documents: Documents,
    *,
    rule: str,
    query: str,
    reason: str,
    by: str,
    until_us: int,
    now_us: int,
    alert: str | None = None,
    is_tried: bool = False,
) -> RuleException:
    """Have events that the query finds not count for the rule, from now on.

    ``is_tried``: the rule's examples were tried with it; else the alerter does so first.

    Raises LogweirError: QUERY_BAD and others of a query, PARAMETER_BAD, EXCEPTIONS_FULL.
    """
    require_sound(query=query, reason=reason, until_us=until_us, now_us=now_us)
    others = active(documents, now_us)
    if (count := len(others)) >= EXCEPTIONS_MAX:
        raise LogweirError(EXCEPTIONS_FULL, count=count, count_max=EXCEPTIONS_MAX)
    clauses = sum(_asked(one).clauses for one in (query.strip(), *(one.query for one in others)))
    if clauses > CLAUSES_MAX:
        expected = f"a shorter one: all exceptions would ask for {clauses:,} words and values, {CLAUSES_MAX:,} at most"
        raise LogweirError(PARAMETER_BAD, name="query", value=query[:40], expected=expected)
    id = secrets.token_hex(4)
    begins, ends = iso_seconds(now_us), iso_seconds(until_us)
    state = ExceptionState.IN_FORCE if is_tried else ExceptionState.WANTED
    made = RuleException(id, rule, query.strip(), reason.strip(), by, begins, ends, alert, state=state.value)
    documents.put(EXCEPTIONS, id, made.as_dict(), version=None)
    return made


def require_sound(*, query: str, reason: str, until_us: int, now_us: int) -> None:
    """Raises LogweirError: QUERY_BAD and others of a query, PARAMETER_BAD."""
    if isinstance(parse(query.strip()), All):
        expected = "a query for some events; `logweir rules disable` is for all"
        raise LogweirError(PARAMETER_BAD, name="query", value=query, expected=expected)
    ending.require_reason(reason)
    ending.require_end(until_us, now_us)


def end(documents: Documents, id: str, *, by: str, now_us: int) -> RuleException:
    """End it now; one that has ended stays as it is. Raises LogweirError(EXCEPTION_UNKNOWN)."""
    return _change(documents, id, now_us, {"ends": iso_seconds(now_us), "ended_by": by})


def decide(documents: Documents, id: str, *, refusal: str | None, now_us: int) -> RuleException:
    """Take one that is wanted into force; or refuse it, for that reason. Raises LogweirError(EXCEPTION_UNKNOWN)."""
    if refusal is None:
        return _change(documents, id, now_us, {"state": ExceptionState.IN_FORCE.value})
    over = {
        "ends": iso_seconds(now_us),
        "state": ExceptionState.REFUSED.value,
        "refusal": refusal[: ending.REASON_LENGTH_MAX],
    }
    return _change(documents, id, now_us, over)


def extend(documents: Documents, id: str, *, until_us: int, now_us: int) -> RuleException:
    """Have it end at another time; one that has ended stays as it is.

    Raises LogweirError: EXCEPTION_UNKNOWN, PARAMETER_BAD.
    """
    ending.require_end(until_us, now_us)
    return _change(documents, id, now_us, {"ends": iso_seconds(until_us)})


def _change(documents: Documents, id: str, now_us: int, changes: Mapping[str, Any]) -> RuleException:
    return _of(ending.change(documents, EXCEPTIONS, id, changes, now_us=now_us, unknown=EXCEPTION_UNKNOWN))


def active(documents: Documents, now_us: int) -> list[RuleException]:
    """Those that have not ended, the one that ends last first; some may only be wanted yet."""
    return [_of(body) for body in ending.active(documents, EXCEPTIONS, now_us, size=EXCEPTIONS_MAX + 1)]


def past_and_present(documents: Documents) -> list[RuleException]:
    """All that are kept, the one that ends last first."""
    return [_of(body) for body in ending.past_and_present(documents, EXCEPTIONS)]


def made_from(documents: Documents, alert: str) -> list[RuleException]:
    """Those that were made from an alert, the one that ends last first."""
    return [_of(one.body) for one in documents.search(EXCEPTIONS, Term("alert", alert), size=VALUES_MAX).documents]


def query_of(alert: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The query for events with the values that the alert's events have in these fields.

    Raises LogweirError(PARAMETER_BAD): none of its events has the field, or they have too many values.
    """
    parts: list[str] = []
    for field in fields:
        values = _values(alert, field)
        if not 0 < len(values) <= VALUES_MAX:
            expected = f"a field of which the alert's events have 1 to {VALUES_MAX} values: they have {len(values)}"
            raise LogweirError(PARAMETER_BAD, name="fields", value=field, expected=expected)
        named = [f"{_escaped(field)}:{_quoted(value)}" for value in values]
        parts.append(named[0] if len(named) == 1 else f"({' OR '.join(named)})")
    if not parts:
        raise LogweirError(PARAMETER_BAD, name="fields", value="", expected="at least one field")
    return " AND ".join(parts)


def fields_of(alert: Mapping[str, Any]) -> list[str]:
    """The fields that an exception made from the alert can name: first those of its group."""
    group = [name for name in alert.get("group", {}) if name != "summary"]
    found = dict.fromkeys(group)
    for event in _events(alert):
        found |= {name: None for name in ("hostname", "category", "processname", "source") if event.get(name)}
        found |= {f"details.{path}": None for path, _ in leaves_of(event.get("details"))}
    return [name for name in found if 0 < len(_values(alert, name)) <= VALUES_MAX]


def _values(alert: Mapping[str, Any], field: str) -> list[str]:
    found: dict[str, None] = {}
    group = alert.get("group", {})
    if field in group:
        return [group[field]]
    for event in _events(alert):
        if field.startswith("details."):
            wanted = field.removeprefix("details.")
            found |= {text: None for path, text in leaves_of(event.get("details")) if path == wanted}
        elif isinstance(value := event.get(field), str):
            found[value] = None
    return list(found)


def _events(alert: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [one["event"] for one in (*alert.get("evidence", ()), *alert.get("evidence_last", ()))]


def _escaped(field: str) -> str:
    """The field's name as a query has it: those below details are whatever events brought along."""
    return re.sub(r"[^\w.@-]", r"\\\g<0>", field)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class Excepting:
    """The exceptions in force, asked of events."""

    def __init__(self, exceptions: Iterable[RuleException] = ()) -> None:
        self.exceptions = tuple(one for one in exceptions if one.state == ExceptionState.IN_FORCE)
        self._by_rule: dict[str, list[tuple[str, Matches]]] = defaultdict(list)
        for one in self.exceptions:
            self._by_rule[one.rule].append((one.id, _asked(one.query).matches))

    def by(self, rule: str, document: Document) -> str | None:
        """The id of an exception of the rule that an event falls under."""
        return next((id for id, matches in self._by_rule.get(rule, ()) if matches(document)), None)

    def nodes(self, rule: str) -> list[Node]:
        """What a search for the rule's events has to leave out."""
        return [_asked(one.query).node for one in self.exceptions if one.rule == rule]


class _Asked(NamedTuple):
    """An exception's query."""

    node: Node
    matches: Matches
    clauses: int


# They are read every second, by alerters: what is the same is parsed once.
@lru_cache(maxsize=2 * EXCEPTIONS_MAX)
def _asked(query: str) -> _Asked:
    """Raises LogweirError: QUERY_BAD and others of a query."""
    node = parse(query)
    return _Asked(node, matcher(node), _clauses_in(node))


def _clauses_in(node: Node) -> int:
    if isinstance(node, And | Or):
        return sum(map(_clauses_in, node.nodes))
    return _clauses_in(node.node) if isinstance(node, Not) else 1


def _of(body: Mapping[str, Any]) -> RuleException:
    return RuleException(**{name: body[name] for name in _FIELDS})
