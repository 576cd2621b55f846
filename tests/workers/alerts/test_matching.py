"""Which conditions are asked of an event: whatever says that one need not be, never hides a match."""

from __future__ import annotations

from typing import Any

import pytest

from logweir.alerts import rule
from logweir.query.match import matcher
from logweir.query.parse import parse
from logweir_workers.alerts.matching import Matcher
from tests.contract.stores import document
from tests.contract.test_search_known import EVENTS, QUERIES


@pytest.mark.parametrize(("query", "ids"), QUERIES)
def test_a_rule_is_for_the_events_that_its_condition_finds(query: str, ids: str) -> None:
    """In whatever case a known detail is, and whatever its kind: as a search finds them."""

    @rule(where=query, severity="low")
    def some_rule(found: Any) -> str:
        return "found"

    def failed(*reason: object) -> None:
        raise AssertionError(reason)

    asked = Matcher([some_rule], failed=failed)
    events = {id: document(id, source, number=number) for number, (id, source) in enumerate(EVENTS.items(), 1)}

    assert "".join(id for id, one in events.items() if asked.matches(one)) == ids
    assert [bool(asked.matches(one)) for one in events.values()] == list(map(matcher(parse(query)), events.values()))
