"""Correlations as windows, filters as what excludes, and what rules are called."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from logweir.alerts.rules import Example, Rule, WindowKind, event
from logweir_workers.alerts.sigma.linking import Linked, Linker, name_of
from logweir_workers.alerts.sigma.parsing import parse
from logweir_workers.alerts.sigma.plans import content_hash
from tests.workers.alerts.sigma.helpers import examples, sigma_rule

FAILED = sigma_rule("s: {what: failed}\ncondition: s", title="Failed", name="failed")
GOOD = sigma_rule("s: {what: good}\ncondition: s", title="Good", name="good")


def linked(**texts: str) -> Linked:
    plans = {
        Path(f"/rules/{name}.yml"): (content_hash(text.encode()), parse(text.encode())) for name, text in texts.items()
    }
    return Linker().link(plans)


def correlation(lines: str, *, rules: str = "[failed]", title: str = "Many", more: str = "") -> str:
    body = f"rules: {rules}\n" + textwrap.dedent(lines).strip()
    return f"title: {title}\nlevel: critical\n{more}\ncorrelation:\n{textwrap.indent(body, '    ')}\n"


def only(made: Linked, name: str) -> Rule:
    assert not made.problems
    (rule,) = made.rules[Path(f"/rules/{name}.yml")]
    return rule


def alerts(rule: Rule, events: list[dict[str, Any]]) -> list[str]:
    """What the rule says of these."""
    tried = examples().run(rule, Example("", tuple(events), alerts=-1))
    return tried.summaries


def happened(what: str, at: float, **details: Any) -> dict[str, Any]:
    return event(at=at, details={"logsource": {"product": "test"}, "what": what, **details})


COUNTS: list[tuple[str, str, list[float | str], int]] = [
    # type and condition, field, values of the events that fire, how many of them do not
    ("event_count", "condition: {gte: 3}", ["a", "a", "a"], 2),
    ("event_count", "condition: {gt: 2}", ["a", "a", "a"], 2),
    ("value_count", "condition: {gte: 3, field: v}", ["a", "b", "c"], 2),
    ("value_sum", "condition: {gt: 10, field: v}", [5, 5, 0.5], 2),
    ("value_sum", "condition: {gte: 10, field: v}", [5, 5], 1),
    ("value_avg", "condition: {lt: 2, field: v}", [3, 0.5], 1),
    ("value_median", "condition: {gte: 5, field: v}", [1, 6, 7], 2),
    ("value_percentile", "condition: {gte: 9, field: v, percentile: 90}", [1, 9], 1),
]


@pytest.mark.parametrize(("type", "condition", "values", "too_few"), COUNTS, ids=[" ".join(row[:2]) for row in COUNTS])
def test_each_type_of_correlation_over_values_is_a_window(
    type: str, condition: str, values: list[float | str], too_few: int
) -> None:
    """It fires with all of the events, and not with the first few."""
    text = correlation(f"type: {type}\ngroup-by: [user]\ntimespan: 1m\n{condition}")
    rule = only(linked(failed=FAILED, many=text), "many")
    events = [happened("failed", at, user="ann", v=value) for at, value in enumerate(values)]

    assert (rule.window.kind, rule.severity, rule.group) == (WindowKind(type), "critical", ("user",))
    assert alerts(rule, events) == [f"Many: {len(values)} events of ann"]
    assert alerts(rule, events[:too_few]) == []


def test_values_outside_of_the_timespan_or_of_another_group_do_not_count() -> None:
    """An event without what is grouped by counts for nobody."""
    text = correlation("type: event_count\ngroup-by: [user]\ntimespan: 1m\ncondition: {gte: 2}")
    rule = only(linked(failed=FAILED, many=text), "many")

    assert alerts(rule, [happened("failed", 0, user="ann"), happened("failed", 61, user="ann")]) == []
    assert alerts(rule, [happened("failed", 0, user="ann"), happened("failed", 1, user="bob")]) == []
    assert alerts(rule, [happened("failed", 0), happened("failed", 1)]) == []
    assert len(alerts(rule, [happened("failed", 0, user="ann"), happened("failed", 60, user="ann")])) == 1


def test_temporal_correlations_ask_for_each_rule_and_ordered_ones_for_their_order() -> None:
    """Success after failure, and the other way round."""
    lines = "type: {}\ngroup-by: [user]\ntimespan: 5m"
    texts = {kind: correlation(lines.format(kind), rules="[failed, good]") for kind in ("temporal", "temporal_ordered")}
    rules = {kind: only(linked(failed=FAILED, good=GOOD, many=text), "many") for kind, text in texts.items()}
    events = [happened("failed", 0, user="ann"), happened("good", 1, user="ann")]
    turned = [happened("good", 0, user="ann"), happened("failed", 1, user="ann")]

    assert [len(alerts(rule, events)) for rule in rules.values()] == [1, 1]
    assert [len(alerts(rule, turned)) for rule in rules.values()] == [1, 0]
    assert [len(alerts(rule, events[:1])) for rule in rules.values()] == [0, 0]


def test_aliases_say_which_field_of_each_rule_a_group_is_by() -> None:
    """The address that one log calls destination is the other's source."""
    text = correlation(
        """
        type: temporal
        group-by: [address]
        timespan: 1m
        aliases:
            address: {failed: there, good: here}
        """,
        rules="[failed, good]",
    )
    rule = only(linked(failed=FAILED, good=GOOD, many=text), "many")

    assert alerts(rule, [happened("failed", 0, there="x", here="q"), happened("good", 1, here="x")]) == [
        "Many: 2 events of x"
    ]
    assert alerts(rule, [happened("failed", 0, here="x", there="y"), happened("good", 1, here="x")]) == []


@pytest.mark.parametrize("generate", [False, True])
def test_a_rule_that_a_correlation_asks_for_makes_alerts_of_its_own_only_where_that_is_said(generate: bool) -> None:
    """As Sigma's specification has it."""
    lines = f"type: event_count\ntimespan: 1m\ncondition: {{gte: 2}}\ngenerate: {str(generate).lower()}"
    made = linked(failed=FAILED, many=correlation(lines))

    assert (Path("/rules/failed.yml") in made.rules) is generate
    assert made.silent == ({} if generate else {Path("/rules/failed.yml"): ["Failed"]})


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("type: event_count\ntimespan: 1m\ncondition: {lte: 2}", "event_count with lte says nothing that holds on"),
        ("type: event_count\ntimespan: 1m\ncondition: {eq: 2}", "event_count with eq says nothing that holds on"),
        ("type: event_count\ntimespan: 8d\ncondition: {gte: 2}", "longer than 7d"),
        ("type: event_count\ntimespan: 1m\ncondition: {gte: 10001}", "not from 1 to 10000"),
        ("type: temporal\ntimespan: 1m\ncondition: failed or good", "more than an 'and' of rules"),
        ("type: temporal\ntimespan: 1m\ncondition: {gte: 1}", "not for all of them"),
        ("type: value_percentile\ntimespan: 1m\ncondition: {gte: 2, field: v}", "percentile"),
    ],
)
def test_a_correlation_that_cannot_be_evaluated_is_left_with_the_reason(lines: str, reason: str) -> None:
    """The files beside it are read all the same."""
    rules = "[failed, good]" if "temporal" in lines else "[failed]"
    made = linked(failed=FAILED, good=GOOD, many=correlation(lines, rules=rules))

    assert reason in made.problems[Path("/rules/many.yml")]
    assert Path("/rules/many.yml") not in made.rules


def test_a_correlation_without_its_rules_and_one_of_correlations_are_left_with_the_reason() -> None:
    """What it refers to is named."""
    lines = "type: event_count\ntimespan: 1m\ncondition: {gte: 2}"
    first = correlation(lines, more="name: first")
    made = linked(
        failed=FAILED, first=first, second=correlation(lines, rules="[first]"), third=correlation(lines, rules="[gone]")
    )

    assert "'first', which is a correlation itself" in made.problems[Path("/rules/second.yml")]
    assert "no rule with the id or name 'gone'" in made.problems[Path("/rules/third.yml")]


FILTER = """
title: Not the scanner
logsource: {product: test}
filter:
    rules: RULES
    selection: {user: scanner}
    condition: not selection
"""


@pytest.mark.parametrize(
    ("rules", "logsource", "is_excluded"),
    [
        ("any", "product: test", True),
        ("[failed]", "product: test", True),
        ("[good]", "product: test", False),
        ("any", "product: other", False),
    ],
)
def test_a_filter_excludes_what_its_condition_leaves_out_of_the_rules_that_it_is_for(
    rules: str, logsource: str, is_excluded: bool
) -> None:
    """By their ids or names, and their log source."""
    text = FILTER.replace("RULES", rules).replace("product: test", logsource)
    rule = only(linked(failed=FAILED, good=GOOD, filter=text), "failed")

    assert len(alerts(rule, [happened("failed", 0, user="scanner")])) == (not is_excluded)
    assert len(alerts(rule, [happened("failed", 0, user="ann")])) == 1


def test_a_filter_is_a_part_of_what_a_rule_counts_and_its_words_are_not() -> None:
    """Counts begin anew with the one, and go on with the other."""
    plain = only(linked(failed=FAILED), "failed").conditions[0]
    worded = only(linked(failed=FAILED.replace("title: Failed", "title: Refused")), "failed").conditions[0]
    filtered = only(linked(failed=FAILED, filter=FILTER.replace("RULES", "any")), "failed").conditions[0]

    assert plain.digest == worded.digest != filtered.digest  # type: ignore[union-attr]


def test_a_rule_is_called_as_its_file_and_says_who_wrote_it() -> None:
    """Authors stay named: the license of SigmaHQ's rules asks for that."""
    text = sigma_rule(
        "s: {what: failed}\ncondition: s",
        id="5f3c2a6e-0d43-4a8a-9b7b-2f1f0a2c9c11",
        level="informational",
        more="falsepositives: [Tests]\nreferences: [https://example.org]\ntags: [attack.t1110]\nlicense: DRL-1.1",
    )
    rule = only(linked(some_file=text), "some_file")

    assert (rule.name, rule.severity, rule.tags, rule.is_imported) == ("some_file", "info", ("attack.t1110",), True)
    assert rule.origin == {
        "title": "A test",
        "id": "5f3c2a6e-0d43-4a8a-9b7b-2f1f0a2c9c11",
        "author": "Ada",
        "references": ["https://example.org"],
        "status": "test",
        "level": "informational",
        "falsepositives": ["Tests"],
        "license": "DRL-1.1",
    }


def test_names_are_short_plain_and_each_another() -> None:
    """Two long names that begin alike stay two."""
    plan = {"name": "", "title": "x"}
    long = [name_of(Path("/" + "x" * 80 + end + ".yml"), plan) for end in "ab"]

    assert name_of(Path("/Some-Rule (2).yml"), plan) == "some_rule_2"
    assert name_of(Path("/4625.yml"), plan) == "sigma_4625"
    assert name_of(Path("/two.yml"), plan, 1, 2) == "two_2"
    assert [len(one) for one in long] == [64, 64]
    assert long[0] != long[1]


def test_rules_that_are_the_same_as_before_stay_the_same_objects() -> None:
    """Their groups and alerts go on untouched when a file beside them changes."""
    linker, text = Linker(), FAILED.encode()
    plans = {Path("/rules/failed.yml"): (content_hash(text), parse(text))}
    first = linker.link(plans).rules[Path("/rules/failed.yml")]
    other = GOOD.encode()
    second = linker.link({**plans, Path("/rules/good.yml"): (content_hash(other), parse(other))})

    assert second.rules[Path("/rules/failed.yml")][0] is first[0]
