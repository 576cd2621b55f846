"""Storm control: beyond so many alerts an hour, a rule's groups fold into one alert with their exact number.

How many groups have fired in an hour follows from what is evaluated, and is written down with it, in one commit: after
a crash, what is read again is counted as before. Which of them have alerts of their own makes no difference to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logweir.alerts.rules import Rule
from logweir_workers.alerts.groups import Episode, Group, GroupValues

HOUR_US = 3_600_000_000
GROUPS_NAMED_MAX = 50
"""Groups that a folded alert names; its number has all."""
_HOURS_KEPT = 6


@dataclass(slots=True)
class Hour:
    """One rule in one hour of receipt."""

    groups: int = 0
    """How many have fired."""
    apart: int = 0
    """How many of them have an alert of their own."""
    folded: list[GroupValues] = field(default_factory=list)
    """Some that have none, and that the hour's alert does not name yet."""
    is_folded: bool = False
    """There is an alert for those without one."""


class Storms:
    """What each rule has made in the last hours. For one thread.

    ``alerts_max``: so many groups of a rule have an alert of their own in an hour.
    """

    def __init__(self, *, alerts_max: int) -> None:
        self._alerts_max = alerts_max
        self._hours: dict[str, dict[int, Hour]] = {}
        self.changed: set[tuple[str, int]] = set()
        """Rules and hours whose alert does not say what is known."""

    def hour(self, rule: str, number: int) -> Hour:
        hours = self._hours.setdefault(rule, {})
        if number not in hours:
            hours[number] = Hour()
            for old in sorted(hours)[:-_HOURS_KEPT]:
                del hours[old]
        return hours.get(number) or Hour()

    def count(self, rule: str, before: set[int], after: set[int]) -> None:
        """A group's episodes have fired in other hours than before."""
        for number in before ^ after:
            hour = self.hour(rule, number)
            hour.groups += 1 if number in after else -1
            if hour.is_folded:
                self.changed.add((rule, number))

    def is_storm(self, rule: str, number: int) -> bool:
        """Whether a group that fires in that hour has no alert of its own: too many had, in it or the hour before."""
        before = self._hours.get(rule, {}).get(number - 1)
        return self.hour(rule, number).apart >= self._alerts_max or (
            before is not None and before.groups > self._alerts_max
        )

    def fold(self, group: Group, episode: Episode) -> None:
        """The episode has no alert of its own."""
        assert episode.fired_hour is not None, "only what has just fired is folded"
        episode.is_folded = True
        hour = self.hour(group.rule.name, episode.fired_hour)
        hour.is_folded = True
        if len(hour.folded) < GROUPS_NAMED_MAX:
            hour.folded.append(group.values)
        self.changed.add((group.rule.name, episode.fired_hour))

    def keep_only(self, rules: Mapping[str, Rule]) -> None:
        """Forget rules that are not there any more."""
        self._hours = {name: hours for name, hours in self._hours.items() if name in rules}
        self.changed = {key for key in self.changed if key[0] in rules}

    def as_body(self) -> dict[str, Any]:
        return {
            rule: {str(number): [hour.groups, hour.apart, hour.is_folded] for number, hour in hours.items()}
            for rule, hours in self._hours.items()
        }

    def load(self, body: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from what was written down."""
        for rule, hours in body.items():
            for number, (groups, apart, is_folded) in hours.items():
                self._hours.setdefault(rule, {})[int(number)] = Hour(groups, apart, is_folded=is_folded)
                if is_folded:
                    self.changed.add((rule, int(number)))
