"""Rules as people write them: what they mean, and what is refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from logweir.alerts import event, rule, step
from logweir.alerts.rules import WindowKind
from logweir.errors import RULE_BAD, LogweirError


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"where": "x"}, WindowKind.MATCH),
        ({"where": "x", "at_least": 3, "within": "1m"}, WindowKind.EVENT_COUNT),
        ({"where": "x", "distinct": "hostname", "at_least": 3, "within": "1m"}, WindowKind.VALUE_COUNT),
        ({"steps": ["x", "y"], "within": "1m"}, WindowKind.TEMPORAL),
        ({"steps": ["x", step("y", at_least=2)], "in_order": True, "within": "1m"}, WindowKind.TEMPORAL_ORDERED),
        ({"where": "x", "total": "details.bytes", "at_least": 3, "within": "1m"}, WindowKind.VALUE_SUM),
        ({"where": "x", "average": "details.ms", "at_most": 3, "within": "1m"}, WindowKind.VALUE_AVG),
        ({"where": "x", "median": "details.ms", "at_least": 3, "within": "1m"}, WindowKind.VALUE_MEDIAN),
        ({"where": "x", "percentile": ("details.ms", 99), "at_least": 3, "within": "1m"}, WindowKind.VALUE_PERCENTILE),
        ({"where": "x", "new": "details.country"}, WindowKind.NEW_VALUE),
        ({"where": lambda seen: seen.get("hostname")}, WindowKind.MATCH),
    ],
)
def test_what_a_rule_is_asked_for_says_its_kind(arguments: dict[str, Any], kind: WindowKind) -> None:
    @rule(severity="high", **arguments)
    def some_rule(found: Any) -> str:
        """Says so."""
        return "x"

    assert (some_rule.name, some_rule.window.kind, some_rule.description) == ("some_rule", kind, "Says so.")
    assert some_rule.quiet_us == 15 * 60_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "it needs either where, or sigma, or steps"),
        ({"where": "x", "steps": ["y", "z"]}, "it needs either where, or sigma, or steps"),
        ({"where": "x", "severity": "bad"}, "severity is 'bad', which is none of critical, high"),
        ({"where": "x", "at_least": 3}, "within is '', which is no time such as 90s"),
        ({"where": "x", "within": "1m"}, "within says nothing without at_least"),
        ({"where": "x", "at_least": 0, "within": "1m"}, "no whole number from 1 to 10000"),
        ({"where": "x", "at_least": 2.5, "within": "1m"}, "no whole number"),
        ({"where": "x", "at_least": 3, "within": "8d"}, "within is longer than 7d"),
        ({"where": "x", "distinct": "hostname", "total": "details.b"}, "distinct and total are two kinds of rules"),
        ({"where": "x", "distinct": "user", "at_least": 2, "within": "1m"}, "perhaps details.user is meant"),
        ({"where": "x", "group": ["details.user"]}, "is stored as 'details.username'"),
        ({"where": "x", "group": ["sourceip"]}, "'sourceip' is no field of an event"),
        ({"where": "severity:bad"}, "is no severity"),
        ({"where": "hostnam:x"}, "Did you mean 'hostname'"),
        ({"where": "(x"}, "it ends too early"),
        ({"where": "x", "at_most": 3, "within": "1m"}, "at_most goes with total"),
        ({"where": "x", "in_order": True}, "in_order goes with steps"),
        ({"steps": ["x"], "within": "1m"}, "it needs 2 to 8 steps"),
        ({"steps": ["x", step("y", at_least=0)], "within": "1m"}, "an at_least of 1"),
        ({"where": "x", "percentile": ("details.ms", 0), "at_least": 1, "within": "1m"}, "percentile 0 is not above 0"),
        ({"where": "x", "quiet": "soon"}, "quiet is 'soon'"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_with_its_reason(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(LogweirError) as error:

        @rule(**{"severity": "high", **arguments})
        def some_rule(found: Any) -> str:
            return "x"

    assert error.value.problem is RULE_BAD
    assert said in str(error.value)


def test_an_example_event_is_one_that_could_be_posted() -> None:
    """Names of fields stay above, others go below details; times are seconds after a noon."""
    made = event(hostname="web1", action="login", at=90.5, details={"more": 1})

    assert made == {
        "timestamp": "2026-01-31T12:01:30.500000Z",
        "hostname": "web1",
        "details": {"action": "login", "more": 1},
    }
