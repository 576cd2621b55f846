"""A search has an end in both stores: a page in bytes, a time, and a word that nobody waits for it any more."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from logweir.config import StoreSettings
from logweir.errors import QUERY_TOO_WIDE, SEARCH_ABANDONED, SEARCH_TOO_SLOW, STORE_ABSENT, LogweirError
from logweir.query.parse import parse
from logweir.query.tree import All
from logweir.store import open_store
from logweir.store.elasticsearch import connection
from logweir.store.port import Cancellation, Count
from tests.contract.stores import DAY_US, NOON_US, STORES, document, empty_store, settings_of

# Each value is tried against each pattern, which takes many steps: half a second in Elasticsearch, minutes in SQLite.
SLOW = parse(" OR ".join(f"type:*a*b*a*b*{number}?c" for number in range(400)))
EVENTS = 4000
LARGE = 20
LARGE_SIZE_BYTES = 20_000
TIMEOUT_S = 0.01


@pytest.fixture(scope="module", params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def settings(kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StoreSettings:
    """Of a store with many events that are slow to search, and some large ones on the next two days."""
    settings = settings_of(kind, request, tmp_path_factory.mktemp(kind))
    with closing(open_store(settings)) as store:
        store.prepare()
        store.index(
            [
                document(f"e{number}", {"type": f"{number} {'ab' * 450}", "category": "slow"}, number=number)
                for number in range(1, EVENTS + 1)
            ]
        )
        store.index(
            [
                document(
                    f"l{number}",
                    {"type": "large", "details": {"text": "x" * LARGE_SIZE_BYTES}},
                    number=number,
                    received_us=NOON_US + (1 + number % 2) * DAY_US + number,
                )
                for number in range(LARGE)
            ]
        )
        store.refresh()
    return settings


@pytest.fixture
def searches_left(kind: str, request: pytest.FixtureRequest) -> Callable[[], int]:
    """How many searches the server still works on; the embedded store does so in the call itself."""
    if kind == "sqlite":
        return lambda: 0
    server = request.getfixturevalue(kind)

    def left() -> int:
        nodes = server.request("GET", "/_tasks?actions=indices:data/read/search")["nodes"]
        return sum(len(node["tasks"]) for node in nodes.values())

    return left


def ended(left: Callable[[], int]) -> bool:
    deadline = time.monotonic() + 10
    while left():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_slow_search_is_stopped_at_its_deadline(
    settings: StoreSettings, searches_left: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, after about that time, and the store goes on with nothing; the next search is answered."""
    # Elasticsearch looks at no clock while it prepares the query: nobody waits for it for longer than this.
    monkeypatch.setattr(connection, "_ANSWER_S", 0.05)
    with closing(open_store(settings.model_copy(update={"search_timeout_s": TIMEOUT_S}))) as store:
        started_s = time.monotonic()
        with pytest.raises(LogweirError) as caught:
            store.search(SLOW, size=10)
        took_s = time.monotonic() - started_s

        assert caught.value.problem is SEARCH_TOO_SLOW
        assert "raise store.search_timeout_s" in str(caught.value)
        assert TIMEOUT_S <= took_s < TIMEOUT_S + 30
        assert ended(searches_left)
    # Ten milliseconds are too few for any search on a busy machine.
    with closing(open_store(settings)) as store:
        assert store.count(All()).number == EVENTS + LARGE


def test_count_says_at_least_when_its_time_is_over(
    settings: StoreSettings, searches_left: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted until then; without a time of its own, it is too slow as a search is."""
    monkeypatch.setattr(connection, "_ANSWER_S", 0.05)  # As above.
    with closing(open_store(settings.model_copy(update={"search_timeout_s": TIMEOUT_S}))) as store:
        found = store.count(SLOW, timeout_s=TIMEOUT_S)
        with pytest.raises(LogweirError) as caught:
            store.count(SLOW)

        assert not found.is_exact
        assert 0 <= found.number < EVENTS
        assert found.said(seen=2) == f"at least {max(2, found.number)} events"
        assert caught.value.problem is SEARCH_TOO_SLOW
        assert ended(searches_left)
        assert store.count(All(), timeout_s=60) == Count(EVENTS + LARGE)


def test_search_that_nobody_waits_for_is_stopped(settings: StoreSettings, searches_left: Callable[[], int]) -> None:
    """Cancelled from another thread in the middle of its work, and before it begins."""
    with closing(open_store(settings.model_copy(update={"search_timeout_s": 60.0}))) as store:
        cancellation = Cancellation()
        threading.Timer(0.3, cancellation.cancel).start()
        started_s = time.monotonic()
        with pytest.raises(LogweirError) as caught:
            store.search(SLOW, size=10, cancellation=cancellation)
        took_s = time.monotonic() - started_s
        with pytest.raises(LogweirError) as again:
            store.search(All(), size=1, cancellation=cancellation)

        assert caught.value.problem is again.value.problem is SEARCH_ABANDONED
        assert took_s < 30
        assert ended(searches_left)
        assert store.count(All(), cancellation=Cancellation()).number == EVENTS + LARGE


@pytest.mark.parametrize("time_field", ["receivedtimestamp", "timestamp"])
@pytest.mark.parametrize("size_bytes_max", [1, LARGE_SIZE_BYTES * 3, LARGE_SIZE_BYTES * 100])
def test_page_ends_at_its_size_and_the_next_goes_on(
    settings: StoreSettings, size_bytes_max: int, time_field: str
) -> None:
    """Pages that are cut join to the whole, each with one event at least."""
    with closing(open_store(settings)) as store:

        def page(after: tuple[object, ...] | None, size_bytes_max: int = 2**30) -> tuple[list[str], int, object]:
            hits = store.search(
                parse("type:large"), size=15, time_field=time_field, after=after, size_bytes_max=size_bytes_max
            )
            return [event["_id"] for event in hits.events], len(orjson.dumps(hits.events)), hits.after

        whole, after = page(None)[0], page(None)[2]
        whole += page(after)[0]  # type: ignore[arg-type]
        seen: list[str] = []
        after, pages = None, 0
        while pages == 0 or after is not None:
            ids, size_bytes, after = page(after, size_bytes_max)  # type: ignore[arg-type]
            seen += ids
            pages += 1
            assert len(ids) == 1 or size_bytes < size_bytes_max + LARGE * 500

    assert seen == whole
    assert len(whole) == LARGE
    assert pages == {1: 20, LARGE_SIZE_BYTES * 3: 10, LARGE_SIZE_BYTES * 100: 2}[size_bytes_max]


def test_ten_thousand_are_one_page(settings: StoreSettings) -> None:
    """Many small events come in the same order, whether the store is asked for all of them or for a few at a time."""
    with closing(open_store(settings)) as store:
        whole = store.search(parse("category:slow"), size=10_000)
        some = store.search(parse("category:slow"), size=1_000)
        rest = store.search(parse("category:slow"), size=10_000, after=some.after)

    assert [event["ingest_number"] for event in whole.events] == list(range(EVENTS, 0, -1))
    assert list(itertools.chain(some.events, rest.events)) == whole.events
    assert (whole.after, rest.after) == (None, None)


@pytest.mark.parametrize("fresh_kind", STORES)
def test_store_that_nobody_prepared_says_so(fresh_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """It makes nothing, and is content once somebody has prepared it."""
    settings = settings_of(fresh_kind, request, tmp_path / "data")
    with closing(open_store(settings)) as store:
        with pytest.raises(LogweirError) as caught:
            store.require_prepared()
        before = list(tmp_path.iterdir())
        store.prepare()
        store.require_prepared()

    assert caught.value.problem is STORE_ABSENT
    assert before == []


def test_beginning_of_too_many_words_is_an_error(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Behind another word, Elasticsearch looks for a beginning of some thousand words; beyond that it says so."""
    with empty_store(kind, request, tmp_path) as store:
        words = " ".join(f"foo zz{number:05}" for number in range(60_000))
        store.index([document("a", {"summary": words}, number=1)])
        store.refresh()

        assert store.count(parse("foo-zz0001*")).number == 1
        if kind == "sqlite":
            assert store.count(parse("foo-zz*")).number == 1
        else:
            with pytest.raises(LogweirError) as caught:
                store.search(parse("foo-zz*"), size=1)
            assert caught.value.problem is QUERY_TOO_WIDE


def test_expression_that_is_too_complex_is_an_error(kind: str, settings: StoreSettings) -> None:
    """Elasticsearch bounds what an expression may cost; what it does not take, it says."""
    with closing(open_store(settings)) as store:
        assert store.count(parse("type:/l(a|r|g)+e/")).number == LARGE
        if kind != "sqlite":
            with pytest.raises(LogweirError, match="too complex") as caught:
                store.count(parse("type:/.*a.{99}/"))
            assert caught.value.problem is QUERY_TOO_WIDE
