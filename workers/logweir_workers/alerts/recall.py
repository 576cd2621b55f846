"""Events that came so late that what lay around them is forgotten: it is read again from the store.

The group gets back what it knew of that time, and then the late matches are counted like all others. The store has each
event once, so a sender's retry of something that was counted long ago changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from logweir.alerts.rules import Rule, WindowKind
from logweir.event import FIELD_BY_NAME, Document, Kind, Provenance
from logweir.query.lists import at_least
from logweir.query.match import milliseconds_of, time_us_of
from logweir.query.tree import And, Node, Or, Term, lower
from logweir.store.port import Store
from logweir_workers.alerts.groups import GROUP_MATCHES_MAX, Group
from logweir_workers.alerts.matching import VALUE_LENGTH_MAX, Matched, Matcher
from logweir_workers.alerts.windows import Match
from logweir_workers.normalise.fields import words_for

_PAGE = 1_000
_EXTENSIONS_MAX = 20


class Stored(NamedTuple):
    """An event of the store that a rule is for."""

    document: Document
    matched: Matched
    time_us: int
    received_us: int

    @property
    def match(self) -> Match:
        return Match(self.time_us, self.document.id, self.matched.value, self.document.day)


class TooMany(Exception):
    """There are more matches than one group can hold."""


def stored_matches(
    store: Store,
    rule: Rule,
    matcher: Matcher,
    *,
    from_us: int,
    to_us: int,
    also: Node | None = None,
    is_within: bool = True,
    page_read: Callable[[int], object] = lambda _: None,
) -> Iterator[Stored]:
    """The rule's matches between these times, the newest first. ``also``: what is asked of the store, too.

    ``is_within``: none that bears one of these times and came earlier, so that its time is that of its receipt; else
    each once, where ranges of whole milliseconds lie side by side. ``page_read`` gets the number of events of a page.
    Raises LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
    """
    nodes = tuple(rule.nodes())
    query: Node = nodes[0] if len(nodes) == 1 else Or(nodes)
    if also is not None:
        query = And((query, also))
    # The matcher has the last word: what stores cannot ask for is left to it.
    query = at_least(query)
    after: tuple[Any, ...] | None = None
    while True:
        # One millisecond more to either side: that is what times are compared by.
        slack_us = 1000 if is_within else 0
        page = store.search(
            query,
            size=_PAGE,
            from_us=from_us - slack_us,
            to_us=to_us + slack_us,
            time_field="timestamp",
            after=after,
        )
        page_read(len(page.events))
        for source in page.events:
            document = document_of(source)
            received_us = time_us_of(source.get("receivedtimestamp"))
            happened_ms = milliseconds_of(source.get("timestamp"))
            time_us = received_us if happened_ms is None else min(happened_ms * 1000, received_us)
            if not is_within or from_us <= time_us < to_us:
                for matched in matcher.matches(document):
                    yield Stored(document, matched, time_us, received_us)
        after = page.after
        if after is None:
            return


def document_of(source: dict[str, Any]) -> Document:
    """A stored event as it was when it was stored."""
    event = {name: value for name, value in source.items() if name not in ("_id", "_index")}
    provenance = Provenance(event["ingest_stream"], event["ingest_number"], event["content_hash"])
    return Document(source["_id"], source["_index"][-8:], event, provenance, *words_for(event))


def recalled(store: Store, group: Group, matcher: Matcher, *, first_us: int, last_us: int) -> list[Stored]:
    """The group's matches around these times, as far back and forth as episodes reach, up to what it remembers.

    Raises TooMany; LogweirError: STORE_DOWN, SEARCH_TOO_SLOW.
    """
    rule = group.rule
    span_us = rule.memory_us + rule.window.within_us
    low_us, high_us = first_us - span_us, min(last_us + span_us, group.known_from_us)
    found: dict[str, Stored] = {}
    waiting = [(low_us, high_us)]
    for _ in range(_EXTENSIONS_MAX):
        for from_us, to_us in waiting:
            for one in stored_matches(store, rule, matcher, from_us=from_us, to_us=to_us, also=_of_group(group)):
                if one.matched.group == group.values:
                    found[one.document.id] = one
                    if len(found) > GROUP_MATCHES_MAX // 2:
                        raise TooMany
        waiting = []
        times = [one.time_us for one in found.values()]
        if times and min(times) - low_us < span_us:
            waiting.append((low_us - span_us, low_us))
            low_us -= span_us
        if times and high_us < group.known_from_us and high_us - max(times) < span_us:
            further_us = min(high_us + span_us, group.known_from_us)
            waiting.append((high_us, further_us))
            high_us = further_us
        if not waiting:
            break
    return list(found.values())


def _of_group(group: Group) -> Node | None:
    """The query for the group's values, as far as they can be searched for as they are."""
    if group.rule.is_imported and group.rule.window.kind is not WindowKind.MATCH:
        return None  # Its fields have Sigma's names, which no search knows.
    terms: list[Node] = []
    for name, value in zip(group.rule.group, group.values, strict=True):
        field = FIELD_BY_NAME.get(name)
        if "," not in value and len(value) < VALUE_LENGTH_MAX and value:
            if field is None:
                terms.append(Term(name, value))
            elif field.kind is Kind.KEYWORD:
                terms.append(Term(name, lower(value)))
    return And(tuple(terms)) if terms else None
