"""Whatever a worker would store as the category of an event, the door has checked it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logweir.errors import CATEGORY_MISSING, CATEGORY_REFUSED, LogweirError, Problem
from logweir.event import KEYWORD_LENGTH_MAX
from logweir.query.tree import lower
from logweir_ingest.access.categories import check_categories, folded
from logweir_workers.decode import EventUnreadable, event_of, event_or_mended
from logweir_workers.normalise import fields as normalise
from logweir_workers.normalise.fields import Context
from tests.proof import size

ALLOWED = frozenset(map(folded, ("web", "mail log", "5", "STRASSE", "k")))
STAMP = {"category": "web"}


def refusal(*events: bytes, stamped: bool = False) -> LogweirError | None:
    try:
        check_categories(events, ALLOWED, stamped=stamped)
    except LogweirError as error:
        return error
    return None


def test_an_event_of_each_allowed_category_is_let_through() -> None:
    """Case and spaces around it do not count, as they do not for what is stored and searched."""
    events = (b'{"category":"web"}', b'{"a":1,"category":"Mail Log"}', b'{"category":" WEB\\u0020"}')

    assert refusal(*events) is None
    assert refusal(b'{"Category":"web"}', b'{"event":{"category":"web"}}', b'{"event.category":"web"}') is None
    assert refusal(b'{"category":["web"]}', b'{"event":{"category":["WEB"]}}', b'{"event.category":["web"]}') is None


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (b'{"category":"secret"}', CATEGORY_REFUSED),
        (b'{"CATEGORY":"secret"}', CATEGORY_REFUSED),
        (b'{"category":"","Category":"secret"}', CATEGORY_REFUSED),
        (b'{"\\u0063ategory":"secret"}', CATEGORY_REFUSED),
        (b'{"category":"web","category":"secret"}', CATEGORY_REFUSED),
        (b'{"event.category":"secret"}', CATEGORY_REFUSED),
        (b'{"event":{"category":"secret"}}', CATEGORY_REFUSED),
        (b'{"category":["secret"]}', CATEGORY_REFUSED),
        (b'{"category":["web","web"]}', CATEGORY_REFUSED),
        (b'{"category":[["web"]]}', CATEGORY_REFUSED),
        (b'{"category":[null]}', CATEGORY_REFUSED),
        (b'{"category":[119,101,98]}', CATEGORY_REFUSED),
        (b'{"category":5}', CATEGORY_REFUSED),
        (b'{"category":true}', CATEGORY_REFUSED),
        (b'{"category":"web\\ud800"}', CATEGORY_REFUSED),
        ('{"category":"mail \u017fog"}'.encode(), CATEGORY_REFUSED),
        ('{"category":"stra\u00dfe"}'.encode(), CATEGORY_REFUSED),
        ('{"category":"w\u200beb"}'.encode(), CATEGORY_REFUSED),
        ('{"category":"\uff57eb"}'.encode(), CATEGORY_REFUSED),
        (b'{"MESSAGE":"m","__CURSOR":"c","category":[115,101,99,114,101,116]}', CATEGORY_REFUSED),
        (b'{"MESSAGE":"m","__CURSOR":"c","event.category":[[115,101],[119]]}', CATEGORY_REFUSED),
        (b'{"event":{"category":{"name":"secret"}}}', CATEGORY_REFUSED),
        (b'{"category":[["secret"]],"event.category":"web"}', CATEGORY_REFUSED),
        (b'{"category":%s}' % (b"9" * 5000), CATEGORY_REFUSED),
        # Too long to be stored as the category, whatever is left without the spaces.
        (b'{"category":"web%s"}' % (b" " * KEYWORD_LENGTH_MAX), CATEGORY_REFUSED),
        (b'{"Category":["%sweb"]}' % (b" " * KEYWORD_LENGTH_MAX), CATEGORY_REFUSED),
        (b'{"event.category":null,"event":{"category":"web"}}', CATEGORY_MISSING),
        (b"{}", CATEGORY_MISSING),
        (b'{"category":null}', CATEGORY_MISSING),
        (b'{"category":" "}', CATEGORY_MISSING),
        (b'{"details":{"category":"web"}}', CATEGORY_MISSING),
        (b'{"summary":"category","event":"category"}', CATEGORY_MISSING),
    ],
)
def test_any_other_event_refuses_the_batch_and_is_named(event: bytes, problem: Problem) -> None:
    """By its index, with the category, cut where it is long."""
    error = refusal(b'{"category":"web"}', event)

    assert error is not None and error.problem is problem
    assert error.numbers["event_index"] == 1
    assert len(error.numbers.get("category", "")) <= 100


def test_a_stamped_category_is_for_events_that_have_none() -> None:
    """It does not excuse one that is not allowed."""
    assert refusal(b"{}", b'{"category":null}', b'{"event":"x"}', stamped=True) is None
    assert refusal(b'{"Category":"secret"}', stamped=True) is not None


NAMES = st.sampled_from(
    [
        *(
            "category",
            "Category",
            "CATEGORY",
            "event.category",
            "Event.Category",
            "EVENT.CATEGORY",
            "category ",
            "categor\u0131",
        ),
        *(
            "event",
            "Event",
            "details",
            "summary",
            "MESSAGE",
            "__CURSOR",
            "date",
            "time",
            "tags",
            "event.Category",
            "log",
        ),
    ]
)
TEXTS = st.sampled_from(
    [
        *("web", "WEB", " web ", "\u00a0web\u2003", "5", "secret", "", " ", "-", "web\u0000", "x" * 2000),
        "web" + " " * KEYWORD_LENGTH_MAX,
        *("stra\u00dfe", "strasse", "\u212a", "k", "wEb\u0307", "web\ud800", "[web]", '{"category":"web"}'),
    ]
)
VALUES = st.one_of(
    TEXTS,
    st.none(),
    st.integers(0, 9),
    st.booleans(),
    st.just([]),
    st.lists(TEXTS, max_size=2),
    st.sampled_from(
        [[119, 101, 98], [115], [[119, 101, 98]], [[115, 101], [119]], [None], [["web"]], [{"category": "web"}]]
    ),
    st.dictionaries(
        st.sampled_from(["category", "Category", "kind", "event.category"]),
        st.one_of(TEXTS, st.integers(0, 9), st.lists(TEXTS, max_size=2)),
        max_size=3,
    ),
)
MEMBERS = st.lists(st.tuples(NAMES, VALUES), max_size=4)


@pytest.mark.sized
@settings(max_examples=size(100, 5_000), deadline=None)
@given(members=MEMBERS, is_stamped=st.booleans())
@example(members=[("Category", "secret"), ("category", " ")], is_stamped=True)
@example(members=[("event", {"category": "secret"}), ("category", None)], is_stamped=True)
@example(members=[("category", "web" + " " * 1000)], is_stamped=False)
@example(members=[("event.category", None), ("event", {"category": "web"})], is_stamped=False)
def test_no_event_that_is_let_through_is_stored_with_another_category(
    members: list[tuple[str, Any]], is_stamped: bool
) -> None:
    """Through the worker's own decoding and normalisation, names repeated or in other case included."""
    raw = ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members) + "}").encode()
    if refusal(raw, stamped=is_stamped) is None:
        context = Context(1_790_000_000_000_000, "web", stamp=STAMP if is_stamped else None)
        stored = normalise.normalise(event_of(raw), context)

        assert lower(stored["category"]) in ALLOWED


@pytest.mark.parametrize("event", [b"", b"text", b'{"category":"secret"', b"17", b"\xff", b"[" * 100_000])
def test_what_no_worker_reads_has_no_category(event: bytes) -> None:
    """It is let through: it becomes a dead letter. An event of another category beside it is refused as ever."""
    assert refusal(event) is None
    refused = refusal(event, b'{"category":"secret"}')

    assert refused is not None and refused.problem is CATEGORY_REFUSED
    assert refused.numbers["event_index"] == 1


def test_what_a_worker_would_mend_is_judged_as_it_will_be() -> None:
    """Otherwise bare quotes would let any category through."""
    event = b'{"category":"%b","structured data":"[a b="c"]"}'

    assert refusal(event % b"web") is None
    for category in (b"secret", b"web \\u017fog"):
        refused = refusal(event % category)
        assert refused is not None and refused.problem is CATEGORY_REFUSED
    refused = refusal(b'{"structured data":"[a b="c"]"}')
    assert refused is not None and refused.problem is CATEGORY_MISSING
    assert refusal(b'{"structured data":"[a b="c"]"}', stamped=True) is None


@pytest.mark.parametrize("broken", [b'"x":"say "x""', b'"x":NaN', b'"x":"\xff"', b'"x":"\x01"', b"x"])
@pytest.mark.parametrize("data", [b'[a b="c"]', b"[a]", b"-"])
def test_whatever_a_worker_reads_of_the_unreadable_was_judged(broken: bytes, data: bytes) -> None:
    """A category that is not allowed never gets through in an event that a worker can read."""
    event = b'{"category":"secret","structured data":"%b",%b}' % (data, broken)

    if refusal(event) is None:
        with pytest.raises(EventUnreadable):
            event_or_mended(event)
