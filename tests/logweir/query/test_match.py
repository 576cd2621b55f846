"""A query asked of an event in memory: the same answer as both stores give, for everything that it can say."""

from __future__ import annotations

import pytest

from logweir.query.match import matcher
from logweir.query.parse import parse
from tests.contract import test_search_known
from tests.contract.stores import DAY_US, NOON_US, document
from tests.contract.test_search import AT_THE_LIMITS, EVENTS, MINUTE_US, QUERIES

DOCUMENTS = {
    id: document(id, source, number=number, received_us=NOON_US + number * MINUTE_US + (id > "l") * DAY_US)
    for number, (id, source) in enumerate(EVENTS.items(), start=1)
}
KNOWN = {
    id: document(id, source, number=number) for number, (id, source) in enumerate(test_search_known.EVENTS.items(), 1)
}


@pytest.mark.parametrize(("query", "ids"), QUERIES)
def test_an_event_matches_where_a_store_would_find_it(query: str, ids: str) -> None:
    """Each query of the stores' own table, of each of their events."""
    matches = matcher(parse(query))

    assert "".join(id for id, one in DOCUMENTS.items() if matches(one)) == ids


def test_a_query_at_the_limits_matches_as_many_as_a_store_finds() -> None:
    """Deep, long and wild ones."""
    found = {query: sum(map(matcher(parse(query)), DOCUMENTS.values())) for query, _ in AT_THE_LIMITS}

    assert found == dict(AT_THE_LIMITS)


@pytest.mark.parametrize(("query", "ids"), test_search_known.QUERIES)
def test_an_event_matches_by_what_is_known_of_it(query: str, ids: str) -> None:
    """The same of numbers, addresses, and patterns."""
    matches = matcher(parse(query))

    assert "".join(id for id, one in KNOWN.items() if matches(one)) == ids
