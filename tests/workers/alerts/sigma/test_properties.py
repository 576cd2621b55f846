"""Whatever rule and event: what is compiled and indexed answers as a naive evaluation of the specification does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logweir.event import Document, Provenance
from logweir_workers.alerts.matching import Seen
from logweir_workers.alerts.sigma.condition import SigmaCondition
from logweir_workers.alerts.sigma.index import SigmaIndex
from logweir_workers.alerts.sigma.linking import condition_of
from logweir_workers.alerts.sigma.parsing import parse
from tests.proof import size
from tests.workers.alerts.sigma.naive import holds

_LETTERS = "aAbB/\\- .\n%ä"
_TEXT = st.text(_LETTERS, max_size=5)
_FIELDS = ("f1", "F2", "f3.g")

_PATTERN = st.text(_LETTERS + "*?", min_size=1, max_size=5)
_PLAIN = st.text("aAbB/- ", min_size=1, max_size=4)
_NUMBER = st.integers(-3, 3) | st.sampled_from([0.5, -1.5])
_WITH_MODIFIERS: list[tuple[str, st.SearchStrategy[Any]]] = [
    ("", _PATTERN | st.booleans() | st.none() | st.integers(-3, 3)),
    ("|contains", _PATTERN),
    ("|startswith", _PATTERN),
    ("|endswith", _PATTERN),
    ("|cased", _PATTERN),
    ("|contains|cased", _PATTERN),
    ("|contains|windash", _PLAIN),
    ("|base64offset|contains", _PLAIN),
    ("|re", st.sampled_from(["a.b", "^A", "b$", "(a|B)+-", "[^a]", "a{2}"])),
    ("|re|i", st.sampled_from(["a.b", "^A", "b$", "(a|B)+-"])),
    ("|re|s", st.sampled_from(["a.b", "a.*B"])),
    ("|cidr", st.sampled_from(["10.0.0.0/8", "::/64"])),
    ("|gt", _NUMBER),
    ("|lte", _NUMBER),
    ("|fieldref", st.sampled_from(_FIELDS)),
    ("|fieldref|endswith", st.sampled_from(_FIELDS)),
]
_OF_WORDS = [one for one in _WITH_MODIFIERS if one[0] in ("", "|contains", "|cased", "|re", "|re|i")]


def _many(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.lists(values, min_size=1, max_size=3)


@st.composite
def _selections(draw: st.DrawFn) -> Any:
    if draw(st.integers(0, 4)) == 0:
        modifier, values = draw(st.sampled_from(_OF_WORDS))
        texts = _PATTERN if modifier in ("", "|contains", "|cased") else values
        return {modifier or "|contains": draw(_many(texts))}
    made: dict[str, Any] = {}
    for field in draw(st.lists(st.sampled_from(_FIELDS), min_size=1, max_size=2, unique=True)):
        if draw(st.integers(0, 9)) == 0:
            made[f"{field}|exists"] = draw(st.booleans())
            continue
        modifier, values = draw(st.sampled_from(_WITH_MODIFIERS))
        value = draw(_many(values))
        every = "|all" if isinstance(value, list) and len(value) > 1 and draw(st.booleans()) else ""
        negated = "|neq" if draw(st.integers(0, 9)) == 0 else ""
        made[field + modifier + every + negated] = value
    return made if draw(st.integers(0, 3)) else [made, draw(_selections())]


_CONDITIONS = (
    "s1",
    "not s1",
    "s1 and s2",
    "s1 or s2",
    "s1 and not s2",
    "s1 and not (s2 or s3)",
    "not (s1 and s2) or s3",
    "1 of them",
    "all of s*",
    "s1 and not 1 of s*",
)
_RULES = st.builds(
    lambda parts, condition: json.dumps(
        {
            "title": "x",
            "logsource": {"product": "test"},
            "detection": {**{f"s{at}": one for at, one in enumerate(parts, 1)}, "condition": condition},
        }
    ),
    st.lists(_selections(), min_size=3, max_size=3),
    st.sampled_from(_CONDITIONS),
)
_VALUE = _TEXT | st.sampled_from(["10.1.2.3", "::7", "3", "-1.5", "true", "aab", "A-b", "YWFi"])
_EVENTS = st.dictionaries(st.sampled_from(_FIELDS), st.lists(_VALUE, min_size=1, max_size=2), max_size=3)


def _seen(fields: dict[str, list[str]]) -> Seen:
    """Straight from the fields: what becomes of an event on its way is not what is looked at here."""
    details: dict[str, Any] = {"logsource": {"product": "test"}}
    for name, texts in fields.items():
        if name == "f3.g":
            details["f3"] = {"g": texts}
        else:
            details[name] = texts
    return Seen(Document("1", "20260131", {"details": details}, Provenance("0-0", 1, ""), "", ""))


@pytest.mark.sized
@pytest.mark.timeout(size(600, 3_600))  # Beside many other programs it takes long.
@given(rules=st.lists(_RULES, min_size=1, max_size=8), events=st.lists(_EVENTS, min_size=1, max_size=6))
@settings(max_examples=size(80, 2_000), deadline=None, suppress_health_check=list(HealthCheck))
def test_rules_compiled_and_indexed_hold_as_a_naive_evaluation_says(
    rules: list[str], events: list[dict[str, list[str]]]
) -> None:
    """Each rule for each event; among the candidates of the index is every rule that holds."""
    conditions: list[tuple[SigmaCondition, int]] = []
    for number, text in enumerate(rules):
        (plan,) = parse(text.encode())
        conditions.append((condition_of(plan, ()), number))
    index = SigmaIndex(conditions)
    for event in events:
        # What an event says of its log source is a value of it like any other.
        fields = {"logsource.product": ["test"], **event}
        wanted = {number for number, text in enumerate(rules) if holds(text, fields)}
        seen = _seen(event)
        found = {number for condition, number in index.candidates(seen.sigma) if condition.holds(seen.sigma)}
        alone = {number for condition, number in conditions if condition(seen)}

        assert found == wanted
        assert alone == wanted
