"""What a rule's function is told, and which fields it asks for."""

from __future__ import annotations

import logging

from logweir.alerts.rules import Rule, WindowKind
from logweir.clock import iso_seconds
from logweir_workers.alerts.groups import Episode, Group
from logweir_workers.alerts.guard import RuleTooSlow

log = logging.getLogger(__name__)

SUMMARY_LENGTH_MAX = 500
"""Longest summary of an alert, in characters."""


class Found:
    """What a rule's function is told of an alert (see ``logweir.alerts.rules.Found``)."""

    def __init__(self, rule: Rule, group: Group, episode: Episode) -> None:
        self.count = episode.count
        self.values = dict(zip(rule.group, group.values, strict=True))
        self.group = ", ".join(group.values)
        self.first, self.last = iso(episode.first_us), iso(episode.last_us)
        if rule.window.kind is WindowKind.ABSENT and episode.first:
            self.last = iso(episode.first[-1][0])  # Of what came before the absence; the episode's is when it is over.
        self._rule = rule
        self._episode = episode

    def distinct(self, field: str) -> int:
        self._rule.tracked.add(field)
        return len(self._episode.values.get(field, ()))

    def some(self, field: str) -> list[str]:
        self._rule.tracked.add(field)
        return self._episode.values.get(field, [])[:5]


def iso(time_us: int) -> str:
    """As ISO 8601, with milliseconds."""
    return f"{iso_seconds(time_us)[:-1]}.{time_us // 1000 % 1000:03}Z"


def learn_fields(rule: Rule) -> None:
    """Ask the rule's function once, so that the values of the fields that it wants are kept from the first event on."""
    if not rule.is_about_events:
        return
    try:
        rule.say(Found(rule, Group(rule, ("",) * len(rule.group)), Episode(0, 0)))
    except RuleTooSlow:
        raise
    except Exception as error:  # noqa: BLE001 - of an alert without anything in it, it need not know what to say
        log.debug("Of nothing, the rule %s says nothing: %r", rule.name, error)


def words_of(rule: Rule, found: object) -> str:
    """What the rule's function says of it, in one line. Raises whatever that raises; TypeError for what is no text."""
    text = rule.say(found)
    if not isinstance(text, str) or not text.strip():
        raise TypeError(f"it returned {text!r}, where a text should be")
    return one_line(text)


def one_line(text: str) -> str:
    """A summary as alerts have it."""
    return " ".join(text.split())[:SUMMARY_LENGTH_MAX]
