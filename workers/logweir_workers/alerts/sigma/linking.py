"""Plans -> rules: each rule with the filters that are for it, and correlations as windows over the rules they name."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logweir.alerts.rules import (
    AT_LEAST_MAX,
    NUMERIC,
    QUIET_DEFAULT,
    STEPS_MAX,
    WITHIN_US_MAX,
    Found,
    Rule,
    Window,
    WindowKind,
    duration_of,
)
from logweir.text import counted
from logweir_workers.alerts.sigma.condition import SigmaCondition
from logweir_workers.alerts.sigma.parsing import Unfit
from logweir_workers.alerts.sigma.plans import Plan, Tree, digest_of

SEVERITY_OF = {"critical": "critical", "high": "high", "medium": "medium", "low": "low", "informational": "info"}
SEVERITY_DEFAULT = "medium"
"""Of a rule that says no level."""
ORIGIN = (
    "title",
    "id",
    "author",
    "references",
    "status",
    "level",
    "falsepositives",
    "date",
    "modified",
    "license",
)
"""What an alert says of where its rule is from."""
_NAME_LENGTH_MAX = 64
_QUIET_US = duration_of("sigma", "quiet", QUIET_DEFAULT)


@dataclass(slots=True)
class Linked:
    """What came of some files."""

    rules: dict[Path, list[Rule]] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)
    """By file, why something in it is no rule."""
    silent: dict[Path, list[str]] = field(default_factory=dict)
    """By file, rules of it that only correlations ask for, so that they make no alerts of their own."""


@dataclass(frozen=True, slots=True)
class _Named:
    path: Path
    number: int
    plan: Plan


class Linker:
    """Makes rules of the plans of a folder. Rules that are the same as before stay the same objects."""

    def __init__(self) -> None:
        self._made: dict[str, Rule] = {}

    def link(self, plans: Mapping[Path, tuple[str, list[Plan]]]) -> Linked:
        """``plans``: by file, a hash of what is in it, and its plans."""
        linked = Linked()
        named = [_Named(path, number, plan) for path, (_, found) in plans.items() for number, plan in enumerate(found)]
        filters = [one.plan for one in named if one.plan["kind"] == "filter"]
        correlations = [one.plan for one in named if one.plan["kind"] == "correlation"]
        by_reference = _by_reference(named)
        silent = {name for name, is_generated in _generates(correlations).items() if not is_generated}
        made: dict[str, Rule] = {}
        for one in named:
            if one.plan["kind"] == "rule":
                if not silent.isdisjoint(_references_of(one.plan)):
                    linked.silent.setdefault(one.path, []).append(one.plan["title"])
                    continue
                conditions, window = [condition_of(one.plan, filters)], Window(WindowKind.MATCH)
            elif one.plan["kind"] == "correlation":
                try:
                    conditions = _conditions_of(one.plan, by_reference, filters)
                    window = _window_of(one.plan)
                except Unfit as unfit:
                    linked.problems[one.path] = f"{one.plan['title']}: {unfit}"
                    continue
            else:
                continue
            source, found = plans[one.path]
            digest = digest_of([str(one.path), one.number, source, [condition.digest for condition in conditions]])
            rule = self._made.get(digest)
            if rule is None:
                rule = _rule(name_of(one.path, one.plan, one.number, len(found)), one.plan, conditions, window)
            made[digest] = rule
            linked.rules.setdefault(one.path, []).append(rule)
        self._made = made
        return linked


def _references_of(plan: Plan) -> set[str]:
    return {plan["id"], plan["name"]} - {""}


def _by_reference(named: Iterable[_Named]) -> dict[str, Plan]:
    found: dict[str, Plan] = {}
    for one in named:
        for reference in _references_of(one.plan):
            found.setdefault(reference, one.plan)
    return found


def _generates(correlations: Iterable[Plan]) -> dict[str, bool]:
    """By rule that a correlation names, whether one of them says that it makes alerts of its own all the same."""
    found: dict[str, bool] = {}
    for plan in correlations:
        for reference in plan["rules"]:
            found[reference] = found.get(reference, False) or plan["generate"]
    return found


def _referred(reference: str, by_reference: Mapping[str, Plan]) -> Plan:
    """Raises Unfit."""
    plan = by_reference.get(reference)
    if plan is None:
        raise Unfit(f"there is no rule with the id or name {reference!r} that it refers to")
    if plan["kind"] != "rule":
        raise Unfit(f"it refers to {reference!r}, which is a {plan['kind']} itself")
    return plan


def _conditions_of(correlation: Plan, by_reference: Mapping[str, Plan], filters: list[Plan]) -> list[SigmaCondition]:
    """Those of the rules that it names. Raises Unfit."""
    parts = [(reference, _referred(reference, by_reference)) for reference in correlation["rules"]]
    return [condition_of(part, filters, aliases=_aliases_of(correlation, part, reference)) for reference, part in parts]


def _aliases_of(correlation: Plan, part: Plan, reference: str) -> dict[str, str]:
    """What the correlation's names of fields mean in one of its rules."""
    aliases = {}
    for alias, by_rule in correlation["aliases"].items():
        for name in (reference, *_references_of(part)):
            if name in by_rule:
                aliases[alias] = by_rule[name]
    return aliases


def condition_of(plan: Plan, filters: Iterable[Plan], *, aliases: Mapping[str, str] | None = None) -> SigmaCondition:
    """The condition of a rule, without what those of the filters exclude that are for it."""
    trees: list[Tree] = [plan["condition"]]
    for one in filters:
        is_meant = one["rules"] is None or not _references_of(plan).isdisjoint(one["rules"])
        sources = zip(one["logsource"], plan["logsource"], strict=True)
        if is_meant and all(not wanted or wanted == has for wanted, has in sources):
            trees.append(one["condition"])
    category, product, service = plan["logsource"]
    tree = trees[0] if len(trees) == 1 else ["and", trees]
    return SigmaCondition(plan["title"], (category, product, service), tree, aliases=aliases)


def name_of(path: Path, plan: Plan, number: int = 0, of: int = 1) -> str:
    """What a rule is called: as its file, or as it calls itself where the file has several."""
    text = path.stem if of == 1 else plan["name"] or f"{path.stem}_{number + 1}"
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "sigma"
    name = name if name[0].isalpha() else f"sigma_{name}"
    if len(name) <= _NAME_LENGTH_MAX:
        return name
    digest = hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
    return f"{name[: _NAME_LENGTH_MAX - len(digest) - 1]}_{digest}"


# --- rules ----------------------------------------------------------------------------------------------------------
def _rule(name: str, plan: Plan, conditions: list[SigmaCondition], window: Window) -> Rule:
    is_match = window.kind is WindowKind.MATCH
    return Rule(
        name=name,
        say=_saying(plan["title"]) if is_match else _counting(plan["title"]),
        window=window,
        severity=severity_of(plan),
        conditions=tuple(conditions),
        group=("hostname",) if is_match else tuple(plan["group_by"]),
        quiet_us=max(_QUIET_US, window.within_us),
        category=next((part for part in conditions[0].logsource if part), ""),
        tags=tuple(plan["tags"]),
        description=plan["description"],
        origin=origin_of(plan),
        is_imported=True,
    )


def _saying(title: str) -> Callable[[Found], str]:
    return lambda found: f"{title}, on {found.group}" if found.group else title


def _counting(title: str) -> Callable[[Found], str]:
    def say(found: Found) -> str:
        return f"{title}: {counted(found.count, 'event', separator=',')}" + (
            f" of {found.group}" if found.group else ""
        )

    return say


def severity_of(plan: Plan) -> str:
    return SEVERITY_OF.get(plan["level"], SEVERITY_DEFAULT)


def origin_of(plan: Plan) -> dict[str, Any]:
    """What its author says of a rule, without what is empty."""
    return {name: plan[name] for name in ORIGIN if plan[name]}


# --- windows --------------------------------------------------------------------------------------------------------
def _window_of(plan: Plan) -> Window:
    """What a correlation asks of its matches. Raises Unfit for what cannot be said of a stream, or is out of bounds."""
    kind, asked = WindowKind(plan["type"]), plan["asked"]
    within_us = plan["within_s"] * 1_000_000
    if within_us > WITHIN_US_MAX:
        raise Unfit("its timespan is longer than 7d")
    if not plan["rules"]:
        raise Unfit("it refers to no rule")
    if max(Counter(plan["rules"]).values()) > 1:
        raise Unfit("it refers to a rule twice")
    if kind in (WindowKind.TEMPORAL, WindowKind.TEMPORAL_ORDERED):
        return _window_of_steps(plan, kind, within_us)
    op, count, looked_at = asked["op"], asked["count"], asked["field"]
    if isinstance(looked_at, list):
        if len(looked_at) != 1:
            raise Unfit("it looks at several fields at once")
        looked_at = looked_at[0]
    if kind not in NUMERIC:
        at_least = {"gte": math.ceil(count), "gt": math.floor(count) + 1}.get(op)
        if at_least is None:
            # Fewer than so many is so before the first has come; exactly so many is over with the next one.
            raise Unfit(f"{kind} with {op} says nothing that holds on: take gte or gt")
        if not 1 <= at_least <= AT_LEAST_MAX:
            raise Unfit(f"its count is {count}, and not from 1 to {AT_LEAST_MAX}")
        return Window(kind, within_us, at_least, field=looked_at)
    bounds = {
        "gte": (count, False),
        "gt": (math.nextafter(count, math.inf), False),
        "lte": (count, True),
        "lt": (math.nextafter(count, -math.inf), True),
    }
    if op not in bounds:
        raise Unfit(f"{kind} with {op} says nothing that holds on: take gte, gt, lte or lt")
    threshold, is_at_most = bounds[op]
    rank = 50.0 if asked["percentile"] is None else float(asked["percentile"])
    if kind is WindowKind.VALUE_PERCENTILE and not (asked["percentile"] is not None and 0 < rank <= 100):
        raise Unfit("its percentile is not above 0 and up to 100")
    return Window(kind, within_us, float(threshold), field=looked_at, percentile=rank, is_at_most=is_at_most)


def _window_of_steps(plan: Plan, kind: WindowKind, within_us: int) -> Window:
    asked, steps = plan["asked"], len(plan["rules"])
    if "expression" in asked:
        if not asked["is_every"]:
            raise Unfit(f"its condition {asked['expression']!r} is more than an 'and' of rules")
    else:
        needed = asked["count"] + (asked["op"] == "gt")
        if asked["op"] not in ("gte", "gt", "eq") or needed != steps:
            raise Unfit(f"it asks for {asked['op']} {asked['count']} of its {steps} rules, and not for all of them")
    if not 2 <= steps <= STEPS_MAX:
        raise Unfit(f"it has {steps} rules, and not from 2 to {STEPS_MAX}")
    return Window(kind, within_us, steps=(1,) * steps)
